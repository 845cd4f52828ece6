"""Training that is stopped between batches and goes on: the same bits as training in one piece, in both engines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.engines.batched import engine as torch_engine
from butter_etl.engines.batched import passes
from butter_etl.engines.contract import ENGINES, HISTORIES, Network, Optimization, StackData, Variant, load_engine
from butter_etl.engines.fused import engine
from butter_etl.engines.initialization import stack_starts

EPOCHS, SEEDS = 6, (3, 2**62 + 1, 5)
NETWORKS = (
    Network(inputs=5, widths=(8, 8, 8, 3), loss="categorical_crossentropy", residual=True),
    Network(inputs=5, widths=(9, 4, 1), loss="binary_crossentropy", regularizer="l1", penalty=0.01),
)
OPTIMIZATIONS = (
    Optimization("adam", 0.01, 32, EPOCHS),
    Optimization("SGD", 0.05, 75, EPOCHS, momentum=0.9),
    Optimization("RMSprop", 0.01, 20, EPOCHS, momentum=0.5),
)


class StoppedError(Exception):
    """What the watches of these tests stop training by."""


@pytest.fixture(autouse=True, scope="module")
def small_steps():
    """One thread, and a watch that is called after every batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "SECONDS_PER_CALL", 0.0)
        patched.setattr(torch_engine, "SECONDS_PER_WATCH", 0.0)
        patched.setattr(passes, "OUTPUTS_AT_ONCE", {"cpu": 1})
        yield
    torch.set_num_threads(threads)


def stack_data(network):
    rng = np.random.default_rng(4)
    outputs = network.widths[-1]
    x, y = rng.random((100, 5), dtype=np.float32), np.eye(outputs + 1, dtype=np.float32)[rng.integers(0, outputs, 100)]
    y = np.ascontiguousarray(y[:, :outputs])
    order = np.stack([rng.permutation(100) for _ in SEEDS])
    return StackData(x, y, order[:, :75], order[:, 75:], y[order[:, :75]])


VARIANTS = (Variant(0.01, 0.0, None, 0.0), Variant(0.001, 0.9, "l1", 0.01), Variant(0.03, 0.5, "l2", 0.02))


def train(engine, network, optimization, start=None, watch=None, variants=None):
    start = stack_starts(SEEDS, network) if start is None else start
    data = stack_data(network)
    return load_engine(engine)(network, optimization, data, SEEDS, start, variants=variants, watch=watch)


def stop_at(epochs):
    """A watch that takes the state and stops as soon as so many epochs are done, and the list of what it took."""
    taken = []

    def watch(done, take_state):
        if done >= epochs:
            taken.append(take_state())
            raise StoppedError

    return watch, taken


def assert_same_bits(ours, theirs):
    for name in HISTORIES:
        np.testing.assert_array_equal(ours.histories[name], theirs.histories[name], err_msg=name)
    assert_same_weights(ours, theirs)


def assert_same_weights(ours, theirs):
    for our_layer, their_layer in zip(ours.weights, theirs.weights, strict=True):
        for our_part, their_part in zip(our_layer, their_layer, strict=True):
            np.testing.assert_array_equal(our_part, their_part)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=25, derandomize=True)
@given(
    network=st.sampled_from(NETWORKS),
    optimization=st.sampled_from(OPTIMIZATIONS),
    variants=st.sampled_from([None, VARIANTS]),
    stops=st.sets(st.floats(0.01, EPOCHS * len(SEEDS) - 0.3), max_size=4).map(sorted),
    measured_at_once=st.sampled_from([1, 600, 2**15]),
)
def test_stopped_anywhere_training_goes_on_to_the_same_bits(
    engine, network, optimization, variants, stops, measured_at_once
):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(passes, "OUTPUTS_AT_ONCE", {"cpu": measured_at_once})
        expected = train(engine, network, optimization, variants=variants)
        state = None
        for stop in stops:
            watch, taken = stop_at(stop)
            try:
                train(engine, network, optimization, state, watch, variants)
            except StoppedError:
                (state,) = taken
                assert state.epochs.sum() + (state.batches > 0).sum() >= stop
        assert_same_bits(train(engine, network, optimization, state, variants=variants), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_states_taken_on_the_way_stay_as_they_were(engine):
    """A state is a copy: training that goes on, from it or past it, does not change it."""
    network, optimization, states = NETWORKS[0], OPTIMIZATIONS[0], []
    expected = train(engine, network, optimization, watch=lambda done, take_state: states.append(take_state()))
    assert len(states) == calls(engine, network, optimization) - 1
    for state in states:
        assert_same_bits(train(engine, network, optimization, state), expected)
        assert_same_bits(train(engine, network, optimization, state), expected)


def batches(optimization):
    """The batches of an epoch: of 75 training rows, and of 25 test rows."""
    return -(-75 // optimization.batch_size) + -(-25 // optimization.batch_size)


def calls(engine, network, optimization):
    """How often the watch is called in between, and once at the end, where it is not."""
    return EPOCHS * batches(optimization) * (len(SEEDS) if engine == "fused" else 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("stop", "fused"), [(8, ([6, 2, 0], [0, 0, 0])), (7.55, ([6, 1, 0], [0, 3, 0]))])
def test_a_state_says_how_far_each_run_is(engine, stop, fused):
    watch, taken = stop_at(stop)
    with pytest.raises(StoppedError):
        train(engine, NETWORKS[0], OPTIMIZATIONS[0], watch=watch)
    (state,) = taken
    batched = ([2] * 3, [3] * 3)  # the first moment at which there are so many, of three runs
    assert (state.epochs.tolist(), state.batches.tolist()) == (fused if engine == "fused" else batched)
    for values in state.histories.values():
        assert values.shape == (3, EPOCHS)
        np.testing.assert_array_equal(np.isnan(values).argmax(1) % EPOCHS, state.epochs % EPOCHS)
    assert (state.sums is None) == (not state.batches.any())
    for moment in state.moments:
        for layer, start in zip(moment, state.weights, strict=True):
            assert [part.shape for part in layer] == [part.shape for part in start]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_watch_counts_the_epochs_of_all_runs(engine):
    seen, optimization = [], replace(OPTIMIZATIONS[0], epochs=3)
    train(engine, NETWORKS[0], optimization, watch=lambda done, take_state: seen.append(done))
    number = 3 * batches(optimization) * (len(SEEDS) if engine == "fused" else 1)
    np.testing.assert_allclose(seen, np.arange(1, number) * 9 / number, rtol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_where_an_epoch_is_short_the_watch_is_called_between_epochs_only(engine, monkeypatch):
    monkeypatch.setattr("butter_etl.engines.fused.engine.SECONDS_PER_CALL", 60.0)
    monkeypatch.setattr(torch_engine, "SECONDS_PER_WATCH", 60.0)
    states = []
    train(engine, NETWORKS[0], OPTIMIZATIONS[0], watch=lambda done, take_state: states.append(take_state()))
    within = [state for state in states if state.batches.any()]
    # The fused engine finds out by a batch, and then by ten, how many there are in a second.
    assert all(state.epochs.tolist() in ([0, 0, 0], [6, 0, 0], [6, 6, 0]) for state in within)
    assert len(within) == (3 if engine == "fused" else 0)


@pytest.mark.parametrize("bound", ["OUTPUTS_AT_ONCE", "PRODUCTS_AT_ONCE"])
@pytest.mark.parametrize("at_once", [1, 150, 10**6])
def test_a_state_is_gone_on_from_however_many_batches_are_measured_at_once(monkeypatch, bound, at_once):
    """A part of a stack, and a stack on another device, measure others at once; then metrics may round otherwise."""
    network, optimization = NETWORKS[0], Optimization("adam", 0.01, 10, 2)
    states = []
    expected = train("torch", network, optimization, watch=lambda done, take_state: states.append(take_state()))
    assert len(states) == 2 * (8 + 3) - 1
    monkeypatch.setattr(passes, "OUTPUTS_AT_ONCE", {"cpu": 2**15})
    monkeypatch.setattr(passes, bound, {"cpu": at_once * (3 * 200 if bound == "PRODUCTS_AT_ONCE" else 1)})
    for state in states:
        trained = train("torch", network, optimization, state)
        for name in HISTORIES:
            np.testing.assert_allclose(trained.histories[name], expected.histories[name], rtol=1e-6, err_msg=name)
        assert_same_weights(trained, expected)
