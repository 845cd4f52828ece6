"""The fused engine: against Keras, against the torch engine on anything, and against itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.keras_parity import compare, load_case, train_case
from butter_etl.engines.batched import engine as oracle
from butter_etl.engines.contract import HISTORIES, Network, Optimization, StackData, load_engine
from butter_etl.engines.fused import engine as fused_engine
from butter_etl.engines.fused import lanes
from butter_etl.engines.fused.engine import train
from butter_etl.engines.initialization import stack_starts
from butter_etl.engines.streams import epoch_order
from butter_etl.errors import UsageError

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))

SOFTMAX = Network(inputs=5, widths=(8, 8, 8, 3), loss="categorical_crossentropy", residual=True)
BINARY = Network(inputs=5, widths=(9, 4, 1), loss="binary_crossentropy", regularizer="l1", penalty=0.01)
REGRESSION = Network(inputs=5, widths=(6, 2), loss="mean_squared_error", regularizer="l2", penalty=0.02)
NETWORKS = pytest.mark.parametrize("network", [SOFTMAX, BINARY, REGRESSION], ids=["softmax", "binary", "regression"])
ADAM = Optimization(optimizer="adam", learning_rate=0.01, batch_size=32, epochs=3)
SEEDS = [11, 2**61 + 3, -12]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stack_data(network, n_train=75, n_test=25, seeds=SEEDS, targets="as the loss has them", seed=4):
    """Random rows, a split a run, some training targets that are not those of their rows."""
    rng = np.random.default_rng(seed)
    rows, outputs = n_train + n_test, network.widths[-1]
    x = rng.random((rows, network.inputs), dtype=np.float32)
    kind = network.loss if targets == "as the loss has them" else targets
    y = {
        "categorical_crossentropy": np.eye(outputs, dtype=np.float32)[rng.integers(0, outputs, rows)],
        "binary_crossentropy": rng.integers(0, 2, (rows, outputs)).astype(np.float32),
        "mean_squared_error": rng.random((rows, outputs), dtype=np.float32),
        "spread": rng.normal(0.5, 1, (rows, outputs)).astype(np.float32),
    }[kind]
    order = np.stack([rng.permutation(rows) for _ in seeds])
    train_targets = y[order[:, :n_train]]
    train_targets[:, :5] = 1 - train_targets[:, :5]
    return StackData(x, y, order[:, :n_train], order[:, n_train:], train_targets)


def only_run(data, run):
    return replace(
        data,
        train_rows=data.train_rows[run : run + 1],
        test_rows=data.test_rows[run : run + 1],
        train_targets=data.train_targets[run : run + 1],
    )


def assert_same(ours, theirs, run=slice(None), their_run=None, **tolerance):
    """Histories and weights are equal; bit for bit unless a tolerance is given."""
    their_run, tolerance = run if their_run is None else their_run, {"rtol": 0} | tolerance
    for name in HISTORIES:
        values = ours.histories[name][run], theirs.histories[name][their_run]
        np.testing.assert_allclose(*values, **tolerance, err_msg=name)
    for our_layer, their_layer in zip(ours.weights, theirs.weights, strict=True):
        for our_part, their_part in zip(our_layer, their_layer, strict=True):
            np.testing.assert_allclose(our_part[run], their_part[their_run], **tolerance)


# -- against Keras


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_histories_and_weights_are_those_of_keras(path):
    case = load_case(path)
    parity = compare(case, train_case(train, case))
    assert parity.within_tolerance, parity
    # Ten times closer than the tolerance: a slip in the arithmetic shows before it fails.
    assert parity.history_difference < 1e-5, parity


def test_the_engine_is_found_by_its_name():
    assert load_engine("fused") is train


# -- against the torch engine


@st.composite
def problems(draw):
    """A network, how it is trained, and its data: any widths, strips and tiles of every size, any batches."""
    residual = draw(st.booleans())
    width = st.integers(1, 20) | st.integers(21, 50)
    depth = draw(st.integers(1, 4))
    hidden = [draw(width)] * (depth - 1) if residual else draw(st.lists(width, min_size=depth - 1, max_size=depth - 1))
    loss = draw(st.sampled_from(["categorical_crossentropy", "binary_crossentropy", "mean_squared_error"]))
    network = Network(
        inputs=draw(width),
        widths=(*hidden, draw(st.integers(2 if loss == "categorical_crossentropy" else 1, 12))),
        loss=loss,
        residual=residual,
        regularizer=draw(st.sampled_from([None, "l1", "l2"])),
        penalty=draw(st.sampled_from([0.001, 0.1])),
    )
    optimization = Optimization(
        optimizer=draw(st.sampled_from(["adam", "RMSprop", "SGD"])),
        learning_rate=draw(st.sampled_from([0.0001, 0.01])),
        batch_size=draw(st.integers(1, 20) | st.integers(21, 200)),
        epochs=2,
        momentum=draw(st.sampled_from([0.0, 0.9])),
        shuffle=draw(st.booleans()),
    )
    targets = draw(st.sampled_from(["as the loss has them", "spread"]))
    n_train, n_test = draw(st.integers(5, 90)), draw(st.integers(1, 40))
    data = stack_data(network, n_train, n_test, [1], targets, seed=draw(st.integers(0, 1000)))
    return network, optimization, data, draw(st.integers(-(2**63), 2**63 - 1))


def assert_nearly_equal(network, optimization, data, seed):
    """Both engines' histories and weights agree as far as float32 lets two orders of summation agree.

    A step divides by the root of the gradient's mean square: where a gradient is but a rounding error, weights may part
    by a few thousandths of a rate. Accuracy may differ by the rows whose two best outputs are equal but for that.
    """
    start = stack_starts([seed], network)
    ours, theirs = (engine(network, optimization, data, [seed], start) for engine in (train, oracle.train))
    for name in HISTORIES:
        values = ours.histories[name], theirs.histories[name]
        if name.endswith("accuracy"):
            rows = data.test_rows.shape[1] if name.startswith("val") else data.train_rows.shape[1]
            assert np.abs(values[0] - values[1]).max() < 1.5 / rows + 1e-6, name
        else:
            np.testing.assert_allclose(*values, rtol=1e-4, atol=2e-5, err_msg=name)
    for our_layer, their_layer in zip(ours.weights, theirs.weights, strict=True):
        for our_part, their_part in zip(our_layer, their_layer, strict=True):
            np.testing.assert_allclose(our_part, their_part, rtol=1e-4, atol=1e-5 + 0.01 * optimization.learning_rate)


@settings(max_examples=80, derandomize=True)
@given(problems())
def test_any_problem_trains_as_the_torch_engine_trains_it(problem):
    assert_nearly_equal(*problem)


def test_layers_wider_than_a_block_of_features():
    network = Network(300, (270, 270, 3), "categorical_crossentropy")
    assert_nearly_equal(network, replace(ADAM, learning_rate=0.001, epochs=1), stack_data(network, seeds=[5]), 5)


@pytest.mark.parametrize("optimizer", ["adam", "SGD", "RMSprop"])
@NETWORKS
def test_non_finite_values_are_recorded_as_the_torch_engine_records_them(network, optimizer):
    optimization = Optimization(optimizer, 1e30, 32, epochs=3, momentum=0.9)
    start, data = stack_starts(SEEDS, network), stack_data(network)
    ours, theirs = (engine(network, optimization, data, SEEDS, start) for engine in (train, oracle.train))
    np.testing.assert_array_equal(*(np.isfinite(trained.histories["loss"]) for trained in (ours, theirs)))
    assert not np.isfinite(ours.histories["val_loss"]).any()
    for name in HISTORIES:
        # In the epoch that overflows, the order of summation decides between infinity and its difference to itself.
        values = [trained.histories[name][:, 1:] for trained in (ours, theirs)]
        for kind in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(*map(kind, values), err_msg=name)
        if "accuracy" in name:
            np.testing.assert_allclose(*values, atol=1e-6, err_msg=name)


def test_a_class_whose_logit_is_minus_infinity_is_measured_as_the_torch_engine_measures_it():
    network = Network(5, (8, 3), "categorical_crossentropy")
    data, start = stack_data(network), stack_starts(SEEDS, network)
    start[-1][1][:, 1] = -np.inf
    ours, theirs = (engine(network, ADAM, data, SEEDS, start) for engine in (train, oracle.train))
    assert_same(ours, theirs, rtol=1e-5, atol=1e-6)
    assert np.isneginf(ours.weights[-1][1][:, 1]).all()
    # Its target of 0 times minus infinity is no number, here as in Keras.
    assert np.isnan(ours.histories["val_loss"]).all()
    assert np.isfinite(ours.histories["val_mean_squared_error"]).all()


# -- against itself


@NETWORKS
@pytest.mark.parametrize("optimizer", ["adam", "SGD", "RMSprop"])
def test_a_run_in_a_stack_is_the_run_alone(network, optimizer):
    data, optimization = stack_data(network), replace(ADAM, optimizer=optimizer)
    together = train(network, optimization, data, SEEDS, stack_starts(SEEDS, network))
    for run, seed in enumerate(SEEDS):
        alone = train(network, optimization, only_run(data, run), [seed], stack_starts([seed], network))
        assert_same(together, alone, run, 0)


def test_threads_do_not_notice_each_other():
    data, start, long = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX), replace(ADAM, epochs=200)
    alone = train(SOFTMAX, long, data, SEEDS, start)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(train, SOFTMAX, long, data, SEEDS, start) for _ in range(4)]
        for future in futures:
            assert_same(future.result(), alone)


def test_a_run_does_not_depend_on_how_many_batches_a_call_trains(monkeypatch):
    data, start = stack_data(BINARY), stack_starts(SEEDS, BINARY)
    longer = replace(ADAM, epochs=12)
    expected = train(BINARY, longer, data, SEEDS, start)
    calls = []
    run_batches = fused_engine.kernels.run_batches
    monkeypatch.setattr(fused_engine, "SECONDS_PER_CALL", 0.0)
    monkeypatch.setattr(fused_engine.kernel_cache, "ready", lambda *arguments: None)
    monkeypatch.setattr(fused_engine.kernels, "run_batches", lambda *a: calls.append(a[-2:]) or run_batches(*a))
    assert_same(train(BINARY, longer, data, SEEDS, start), expected)
    batches = 3 + 1  # an epoch: of training rows, and of test rows
    assert calls == [(batch, batch + 1) for batch in range(12 * batches)] * 3


@pytest.mark.parametrize("batch_size", [1, 7, 75, 1000])
def test_calls_end_with_an_epoch_where_they_come_to_its_end(monkeypatch, batch_size):
    data, start = stack_data(BINARY), stack_starts(SEEDS, BINARY)
    epoch = -(-75 // batch_size) + -(-25 // batch_size)
    calls = []
    run_batches = fused_engine.kernels.run_batches
    monkeypatch.setattr(fused_engine.kernel_cache, "ready", lambda *arguments: None)
    monkeypatch.setattr(fused_engine.kernels, "run_batches", lambda *a: calls.append(a[-2:]) or run_batches(*a))
    trained = train(BINARY, Optimization("adam", 0.01, batch_size, epochs=30), data, SEEDS, start)
    assert not np.isnan(trained.histories["val_loss"]).any()
    assert [end for _, end in calls[:-1] if end != 30 * epoch] == [begin for begin, _ in calls[1:] if begin]
    assert all(begin // epoch == end // epoch or end % epoch == 0 for begin, end in calls)


@NETWORKS
@pytest.mark.parametrize("ill", [np.nan, np.inf, 1e30])
def test_a_run_does_not_notice_a_neighbour_that_diverges(network, ill):
    data, healthy = stack_data(network), stack_starts(SEEDS, network)
    infected = [(kernel.copy(), bias.copy()) for kernel, bias in healthy]
    infected[0][0][1] = ill
    expected = train(network, ADAM, data, SEEDS, healthy)
    trained = train(network, ADAM, data, SEEDS, infected)
    assert_same(trained, expected, run=[0, 2])
    assert not np.array_equal(trained.histories["loss"][1], expected.histories["loss"][1])


def test_rows_follow_the_order_of_their_epoch():
    optimization = replace(ADAM, epochs=1)
    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    order = np.stack([epoch_order(seed, 0, 75) for seed in SEEDS])
    arranged = replace(
        data,
        train_rows=np.take_along_axis(data.train_rows, order, 1),
        train_targets=np.take_along_axis(data.train_targets, order[:, :, None], 1),
    )
    shuffled = train(SOFTMAX, optimization, data, SEEDS, start)
    assert_same(shuffled, train(SOFTMAX, replace(optimization, shuffle=False), arranged, SEEDS, start))


@pytest.mark.parametrize("batch_size", [1, 15, 16, 17, 32, 75, 1000])
def test_one_epoch_sees_every_row_once(batch_size):
    """With a rate of zero every epoch, in whatever batches, measures the start weights on all rows."""
    optimization = Optimization("SGD", 0.0, batch_size, epochs=2)
    data, start = stack_data(BINARY), stack_starts(SEEDS, BINARY)
    trained = train(BINARY, optimization, data, SEEDS, start)
    whole = train(BINARY, replace(optimization, batch_size=75), data, SEEDS, start)
    assert_same(trained, whole, rtol=2e-6, atol=1e-7)


def test_what_it_is_given_stays_as_it_was():
    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    arrays = [part for layer in start for part in layer] + list(vars(data).values())
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    trained = train(SOFTMAX, ADAM, data, SEEDS, start)
    assert all(np.array_equal(array, copy) for array, copy in zip(arrays, copies, strict=True))
    assert set(trained.histories) == set(HISTORIES)
    for values in trained.histories.values():
        assert values.shape == (3, 3)
        assert values.dtype == np.float32
    for (kernel, bias), (old_kernel, old_bias) in zip(trained.weights, start, strict=True):
        assert (kernel.shape, bias.shape) == (old_kernel.shape, old_bias.shape)
        assert kernel.dtype == bias.dtype == np.float32
        assert not np.array_equal(kernel, old_kernel)


def test_data_of_other_layouts_compile_nothing_anew():
    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    expected = train(SOFTMAX, ADAM, data, SEEDS, start)
    other = replace(
        data,
        x=np.asfortranarray(data.x),
        train_rows=np.asfortranarray(data.train_rows.astype(np.int32)),
        train_targets=np.repeat(data.train_targets, 2, axis=1)[:, ::2],
    )
    before = len(getattr(fused_engine.kernels.run_batches, "signatures", ()))
    assert_same(train(SOFTMAX, ADAM, other, SEEDS, start), expected)
    assert len(getattr(fused_engine.kernels.run_batches, "signatures", ())) == before


def test_what_it_cannot_do_is_said():
    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    with pytest.raises(UsageError, match="runs on a CPU only, not on cuda"):
        train(SOFTMAX, ADAM, data, SEEDS, start, device="cuda")
    uneven = replace(SOFTMAX, widths=(8, 7, 3))
    with pytest.raises(UsageError, match="hidden layers of one width"):
        train(uneven, ADAM, data, SEEDS, stack_starts(SEEDS, uneven))


@pytest.mark.skipif(not lanes._on_x86(), reason="subnormal numbers are kept on other CPUs")
def test_moments_that_decay_never_become_subnormal(monkeypatch):
    """Of a dead unit 0.9 m would go on for ever, at the smallest subnormal and a hundred times slower."""
    network = Network(5, (40, 40, 1), "mean_squared_error")
    start = [(kernel, bias - 10) for kernel, bias in stack_starts([1], network)]
    states, make_run = [], fused_engine._make_run
    monkeypatch.setattr(fused_engine, "_make_run", lambda *a: states.append(make_run(*a)) or states[-1])
    train(network, Optimization("adam", 1e-6, 16, epochs=400), stack_data(network, seeds=[1]), [1], start)
    moments = np.concatenate([np.abs(states[0].first_moment), states[0].second_moment])
    assert not ((moments > 0) & (moments < np.finfo(np.float32).tiny)).any()
