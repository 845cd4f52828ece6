"""Training that is stopped between epochs and goes on: the same bits as training in one piece, in both engines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    """One thread, and a watch that is called after every epoch."""
    threads, seconds = torch.get_num_threads(), engine.SECONDS_PER_CALL
    torch.set_num_threads(1)
    engine.SECONDS_PER_CALL = 0.0
    yield
    torch.set_num_threads(threads)
    engine.SECONDS_PER_CALL = seconds


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
    for our_layer, their_layer in zip(ours.weights, theirs.weights, strict=True):
        for our_part, their_part in zip(our_layer, their_layer, strict=True):
            np.testing.assert_array_equal(our_part, their_part)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=25, derandomize=True)
@given(
    network=st.sampled_from(NETWORKS),
    optimization=st.sampled_from(OPTIMIZATIONS),
    variants=st.sampled_from([None, VARIANTS]),
    stops=st.sets(st.integers(1, EPOCHS * len(SEEDS) - 1), max_size=4).map(sorted),
)
def test_stopped_anywhere_training_goes_on_to_the_same_bits(engine, network, optimization, variants, stops):
    expected = train(engine, network, optimization, variants=variants)
    state = None
    for stop in stops:
        watch, taken = stop_at(stop)
        try:
            train(engine, network, optimization, state, watch, variants)
        except StoppedError:
            (state,) = taken
            assert state.epochs.sum() >= stop
    assert_same_bits(train(engine, network, optimization, state, variants=variants), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_states_taken_on_the_way_stay_as_they_were(engine):
    """A state is a copy: training that goes on, from it or past it, does not change it."""
    network, optimization, states = NETWORKS[0], OPTIMIZATIONS[0], []
    expected = train(engine, network, optimization, watch=lambda done, take_state: states.append(take_state()))
    calls = EPOCHS * len(SEEDS) if engine == "fused" else EPOCHS
    assert len(states) == calls - 1
    for state in states:
        assert_same_bits(train(engine, network, optimization, state), expected)
        assert_same_bits(train(engine, network, optimization, state), expected)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_says_how_far_each_run_is(engine):
    watch, taken = stop_at(8)
    with pytest.raises(StoppedError):
        train(engine, NETWORKS[0], OPTIMIZATIONS[0], watch=watch)
    (state,) = taken
    assert state.epochs.tolist() == ([6, 2, 0] if engine == "fused" else [3, 3, 3])
    for values in state.histories.values():
        assert values.shape == (3, EPOCHS)
        np.testing.assert_array_equal(np.isnan(values).argmax(1) % EPOCHS, state.epochs % EPOCHS)
    for moment in state.moments:
        for layer, start in zip(moment, state.weights, strict=True):
            assert [part.shape for part in layer] == [part.shape for part in start]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_watch_counts_the_epochs_of_all_runs(engine):
    seen = []
    train(engine, NETWORKS[0], replace(OPTIMIZATIONS[0], epochs=3), watch=lambda done, take_state: seen.append(done))
    assert seen == (list(range(1, 9)) if engine == "fused" else [3, 6])
