"""The torch engine: against Keras, against autograd, against NumPy, and against itself."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.keras_parity import compare, load_case, train_case
from butter_etl.engines.batched import engine, launches, passes
from butter_etl.engines.batched.engine import train
from butter_etl.engines.batched.parameters import (
    MOMENTS,
    Adam,
    Penalties,
    StackedLayers,
    adam_rates,
    epoch_rates,
    make_optimizer,
)
from butter_etl.engines.contract import HISTORIES, Network, Optimization, StackData, Variant, load_engine
from butter_etl.engines.initialization import stack_starts
from butter_etl.engines.streams import epoch_order
from butter_etl.errors import DeviceMemoryError, UsageError

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]

SOFTMAX = Network(inputs=5, widths=(8, 8, 8, 3), loss="categorical_crossentropy", residual=True)
BINARY = Network(inputs=5, widths=(9, 4, 1), loss="binary_crossentropy", regularizer="l1", penalty=0.01)
REGRESSION = Network(inputs=5, widths=(6, 2), loss="mean_squared_error", regularizer="l2", penalty=0.02)
NETWORKS = pytest.mark.parametrize("network", [SOFTMAX, BINARY, REGRESSION], ids=["softmax", "binary", "regression"])
ADAM = Optimization(optimizer="adam", learning_rate=0.01, batch_size=32, epochs=3)
SEEDS = [11, 2**61 + 3, 12]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stack_data(network, rows=100, n_train=75):
    """Random rows, a split a run, some training targets that are not those of their rows."""
    rng = np.random.default_rng(4)
    outputs = network.widths[-1]
    x = rng.random((rows, network.inputs), dtype=np.float32)
    y = {
        "categorical_crossentropy": np.eye(outputs, dtype=np.float32)[rng.integers(0, outputs, rows)],
        "binary_crossentropy": rng.integers(0, 2, (rows, 1)).astype(np.float32),
        "mean_squared_error": rng.random((rows, outputs), dtype=np.float32),
    }[network.loss]
    order = np.stack([rng.permutation(rows) for _ in SEEDS])
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


def assert_same(ours, theirs, run=slice(None), **tolerance):
    """Histories and weights are equal; bit for bit unless a tolerance is given."""
    for name in HISTORIES:
        np.testing.assert_allclose(
            ours.histories[name][run], theirs.histories[name][run], **({"rtol": 0} | tolerance), err_msg=name
        )
    for our_layer, their_layer in zip(ours.weights, theirs.weights, strict=True):
        for our_part, their_part in zip(our_layer, their_layer, strict=True):
            np.testing.assert_allclose(our_part[run], their_part[run], **({"rtol": 0} | tolerance))


# -- against Keras


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_histories_and_weights_are_those_of_keras(path, device):
    case = load_case(path)
    parity = compare(case, train_case(lambda *arguments: train(*arguments, device=device), case))
    assert parity.within_tolerance, parity
    # Ten times closer than the tolerance: a slip in the arithmetic shows before it fails.
    assert parity.history_difference < 1e-5, parity


def test_there_are_cases():
    assert len(GOLDEN) == 10


# -- the pieces


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("regularizer", [None, "l1", "l2"])
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy", "mean_squared_error"])
def test_gradients_are_those_of_autograd(loss, regularizer, residual):
    outputs = 1 if loss == "binary_crossentropy" else 3
    network = Network(5, (8, 8, 8, outputs), loss, residual, regularizer, 0.03 if regularizer else 0.0)
    data = stack_data(network)
    layers = StackedLayers.of(stack_starts(SEEDS, network), "cpu")
    layers.flat.add_(torch.linspace(-0.05, 0.05, layers.flat.numel()))  # biases off zero
    x, y = torch.from_numpy(data.x[data.train_rows]).mT, torch.from_numpy(data.y[data.train_rows]).mT

    gradient = StackedLayers.like(layers)
    forward = engine.run_forward(layers, x, residual=residual)
    error = engine.output_error(loss, forward.logits, y)
    engine.run_backward(layers, forward, error, gradient, residual=residual)
    Penalties([Variant.of(network, ADAM)] * len(SEEDS), "cpu").add_gradient(layers, gradient)

    kernels = [kernel.double().requires_grad_() for kernel in layers.kernels]
    biases = [bias.double().requires_grad_() for bias in layers.biases]
    total = reference_loss(network, kernels, biases, x.double().mT, y.double().mT)
    total.sum().backward()
    for ours, theirs in zip(gradient.kernels + gradient.biases, kernels + biases, strict=True):
        torch.testing.assert_close(ours.double(), theirs.grad, rtol=1e-4, atol=1e-6)


def reference_loss(network, kernels, biases, x, y):
    """The mean loss and penalty of each run, (runs,), written with rows first for autograd."""
    for depth, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        z = x @ kernel + bias.mT
        skip = network.residual and 0 < depth < len(kernels) - 1
        x = torch.relu(z) + x if skip else torch.relu(z)
    if network.loss == "categorical_crossentropy":
        rows = -(y * torch.log_softmax(z, 2)).sum(2)
    elif network.loss == "binary_crossentropy":
        rows = torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none").mean(2)
    else:
        rows = (torch.sigmoid(z) - y).square().mean(2)
    norm = {"l1": torch.abs, "l2": torch.square, None: torch.zeros_like}[network.regularizer]
    return rows.mean(1) + network.penalty * sum(norm(kernel).sum((1, 2)) for kernel in kernels)


def numpy_adam(lr):
    m = v = 0.0
    t = 0

    def step(w, g):
        nonlocal m, v, t
        t, m, v = t + 1, 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return w - lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)

    return step


def numpy_sgd(lr, momentum):
    buffer = 0.0

    def step(w, g):
        nonlocal buffer
        buffer = momentum * buffer + g
        return w - lr * buffer

    return step


def numpy_rmsprop(lr, momentum):
    mean_square = moved = 0.0

    def step(w, g):
        nonlocal mean_square, moved
        mean_square = 0.9 * mean_square + 0.1 * g * g
        moved = momentum * moved + lr * g / np.sqrt(mean_square + 1e-7)
        return w - moved

    return step


OPTIMIZERS = {
    "adam": (Optimization("adam", 0.01, 1, 1), lambda: numpy_adam(0.01)),
    "sgd": (Optimization("SGD", 0.05, 1, 1), lambda: numpy_sgd(0.05, 0.0)),
    "sgd momentum": (Optimization("SGD", 0.05, 1, 1, momentum=0.9), lambda: numpy_sgd(0.05, 0.9)),
    "rmsprop": (Optimization("RMSprop", 0.01, 1, 1), lambda: numpy_rmsprop(0.01, 0.0)),
    "rmsprop momentum": (Optimization("RMSprop", 0.01, 1, 1, momentum=0.9), lambda: numpy_rmsprop(0.01, 0.9)),
}

gradients = st.one_of(
    st.just(0.0),
    *(st.floats(low, 10 * low, width=32) | st.floats(-10 * low, -low, width=32) for low in (2.0**-30, 2.0**-10, 1.0)),
)


def one_weight(value):
    """The layers of a network with one weight and no bias."""
    return StackedLayers.of([(np.full((1, 1, 1), value, np.float32), np.empty((1, 0), np.float32))], "cpu")


@pytest.mark.parametrize("name", OPTIMIZERS)
@given(steps=st.lists(gradients, min_size=1, max_size=25))
def test_optimizers_follow_their_formulas(name, steps):
    optimization, reference = OPTIMIZERS[name]
    weights, expected, step = one_weight(0.5), 0.5, reference()
    variants = [Variant.of(REGRESSION, optimization)]
    moments = [one_weight(0.0) for _ in range(MOMENTS[optimization.optimizer])]
    optimizer = make_optimizer(optimization.optimizer, variants, moments, "cpu")
    rates = torch.from_numpy(epoch_rates(optimization.optimizer, variants, 0, len(steps)))
    for gradient, rate in zip(steps, rates, strict=True):
        optimizer.step(weights, one_weight(gradient), rate)
        expected = step(expected, gradient)
    # Adam's rate is rounded as Keras rounds it: 3e-5 of a step of 0.01 at first.
    assert weights.flat.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_adam_adds_epsilon_before_the_bias_correction():
    ours, theirs = one_weight(0.0), torch.zeros(1, requires_grad=True)
    optimizer = Adam([one_weight(0.0), one_weight(0.0)])
    pytorch = torch.optim.Adam([theirs], lr=0.01, eps=1e-7)
    for step in range(5):
        optimizer.step(ours, one_weight(1e-6), torch.from_numpy(adam_rates([0.01], step + 1)))
        theirs.grad = torch.tensor([1e-6])
        pytorch.step()
    # With g = 1e-6 the first root is sqrt(0.001) 1e-6 = 3.2e-8, well below epsilon.
    assert abs(ours.flat.item()) < 0.6 * abs(theirs.item())


# -- stacks


@NETWORKS
def test_histories_have_one_value_a_run_and_epoch(network):
    start = stack_starts(SEEDS, network)
    trained = train(network, ADAM, stack_data(network), SEEDS, start)
    assert set(trained.histories) == set(HISTORIES)
    for values in trained.histories.values():
        assert values.shape == (3, 3)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    for (kernel, bias), (old_kernel, old_bias) in zip(trained.weights, start, strict=True):
        assert kernel.shape == old_kernel.shape
        assert bias.shape == old_bias.shape
        assert kernel.dtype == bias.dtype == np.float32
        assert not np.array_equal(kernel, old_kernel)


@NETWORKS
@pytest.mark.parametrize("optimizer", ["adam", "SGD", "RMSprop"])
def test_a_run_in_a_stack_is_the_run_alone(network, optimizer):
    data, optimization = stack_data(network), replace(ADAM, optimizer=optimizer)
    together = train(network, optimization, data, SEEDS, stack_starts(SEEDS, network))
    for run, seed in enumerate(SEEDS):
        alone = train(network, optimization, only_run(data, run), [seed], stack_starts([seed], network))
        for name in HISTORIES:
            # Matrix products of one and of several runs may take different kernels of the BLAS.
            np.testing.assert_allclose(together.histories[name][run], alone.histories[name][0], rtol=2e-5, atol=1e-6)


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


def test_repeated_calls_agree_bit_for_bit():
    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    assert_same(train(SOFTMAX, ADAM, data, SEEDS, start), train(SOFTMAX, ADAM, data, SEEDS, start))


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
    unshuffled = train(SOFTMAX, replace(optimization, shuffle=False), data, SEEDS, start)
    assert not np.array_equal(shuffled.histories["loss"], unshuffled.histories["loss"])


@pytest.mark.parametrize("batch_size", [1, 32, 75, 1000])
def test_one_epoch_sees_every_row_once(batch_size):
    """With a rate of zero every epoch, in whatever batches, measures the start weights on all rows."""
    optimization = Optimization("SGD", 0.0, batch_size, epochs=2)
    data, start = stack_data(BINARY), stack_starts(SEEDS, BINARY)
    trained = train(BINARY, optimization, data, SEEDS, start)
    whole = train(BINARY, replace(optimization, batch_size=75), data, SEEDS, start)
    assert_same(trained, whole, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("limit", [1, 2**30])
def test_metrics_do_not_depend_on_how_many_batches_are_measured_at_once(monkeypatch, limit):
    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    expected = train(SOFTMAX, ADAM, data, SEEDS, start)
    monkeypatch.setattr(passes, "OUTPUTS_AT_ONCE", {"cpu": limit})
    assert_same(train(SOFTMAX, ADAM, data, SEEDS, start), expected, rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "SGD", "RMSprop"])
def test_non_finite_values_are_recorded(optimizer):
    optimization = Optimization(optimizer, 1e30, 32, epochs=3, momentum=0.9)
    trained = train(REGRESSION, optimization, stack_data(REGRESSION), SEEDS, stack_starts(SEEDS, REGRESSION))
    assert not np.isfinite(trained.histories["val_loss"]).any()
    assert not np.isfinite(trained.histories["loss"][:, 1:]).any()
    # The metrics without penalty may stay finite, and are then kept.
    assert np.isfinite(trained.histories["val_accuracy"]).all()


def test_what_it_is_given_stays_as_it_was():
    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    arrays = [part for layer in start for part in layer] + list(vars(data).values())
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    settings = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.get_rng_state()
    train(SOFTMAX, ADAM, data, SEEDS, start)
    assert all(np.array_equal(array, copy) for array, copy in zip(arrays, copies, strict=True))
    assert torch.is_grad_enabled() == settings[1]
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (settings[0], settings[2])
    assert torch.equal(torch.get_rng_state(), settings[3])


# -- stacks of several experiments

VARIANTS = [
    Variant(0.01, 0.0, None, 0.0),
    Variant(0.001, 0.9, "l1", 0.01),
    Variant(0.03, 0.5, "l2", 0.02),
]


def as_variant(network, optimization, variant):
    """What the one run of ``variant`` is trained by, alone."""
    return (
        replace(network, regularizer=variant.regularizer, penalty=variant.penalty),
        replace(optimization, learning_rate=variant.learning_rate, momentum=variant.momentum),
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("engine_name", ["torch", "fused"])
@pytest.mark.parametrize("optimizer", ["adam", "SGD", "RMSprop"])
@NETWORKS
def test_runs_of_different_experiments_do_not_notice_each_other(network, optimizer, engine_name, device):
    if (engine_name, device) == ("fused", "cuda"):
        pytest.skip("the fused engine runs on a CPU only")
    run_stack = load_engine(engine_name)
    data, optimization = stack_data(network), replace(ADAM, optimizer=optimizer, epochs=4)
    together = run_stack(
        network, optimization, data, SEEDS, stack_starts(SEEDS, network), device=device, variants=VARIANTS
    )
    for run, (seed, variant) in enumerate(zip(SEEDS, VARIANTS, strict=True)):
        alone = run_stack(
            *as_variant(network, optimization, variant),
            only_run(data, run),
            [seed],
            stack_starts([seed], network),
            device=device,
        )
        tolerance = {"rtol": 0} if engine_name == "fused" else {"rtol": 2e-5, "atol": 1e-6}
        for name in HISTORIES:
            np.testing.assert_allclose(together.histories[name][run], alone.histories[name][0], **tolerance)


@NETWORKS
def test_variants_that_are_all_alike_are_no_variants(network):
    data, start = stack_data(network), stack_starts(SEEDS, network)
    optimization = replace(ADAM, optimizer="SGD", momentum=0.9)
    network, optimization = as_variant(network, optimization, VARIANTS[1])
    plain = train(network, optimization, data, SEEDS, start)
    other = as_variant(network, optimization, VARIANTS[0])
    assert_same(train(*other, data, SEEDS, start, variants=[VARIANTS[1]] * 3), plain)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_a_run_without_penalty_may_diverge_beside_one_with_it(kind):
    """Zero times an infinite weight is no number: a penalty that a run does not have must not be worked out."""
    network = replace(BINARY, regularizer=None, penalty=0.0)
    variants = [Variant(1e30, 0.9, None, 0.0), Variant(0.01, 0.9, kind, 0.01), Variant(0.01, 0.9, None, 0.0)]
    optimization, start = replace(ADAM, optimizer="SGD", learning_rate=1e30, momentum=0.9), stack_starts(SEEDS, network)
    data = stack_data(network)
    start[0][0][0, 0, 0] = np.inf
    mixed = train(network, optimization, data, SEEDS, start, variants=variants)
    plain = train(network, optimization, data, SEEDS, start)
    for name in HISTORIES:
        np.testing.assert_array_equal(mixed.histories[name][0], plain.histories[name][0], err_msg=name)
    assert np.isfinite(mixed.histories["loss"][1:]).all()


# -- recording and replaying


class Tape(TorchDispatchMode):
    """Does on a CPU what a CUDA graph does: keeps every operation with the tensors, numbers and addresses it had.

    Replaying runs the operations on the very same tensors, so whatever Python decided while recording stays decided.
    """

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, outputs))
        return outputs

    def replay(self):
        for function, args, kwargs, outputs in self.operations:
            again = function(*args, **kwargs)
            for before, after in zip(tensors(outputs), tensors(again), strict=True):
                if before.data_ptr() != after.data_ptr():  # neither a view nor in place
                    before.copy_(after)


def tensors(values):
    return (
        [values] if isinstance(values, torch.Tensor) else [one for one in values or () if isinstance(one, torch.Tensor)]
    )


@pytest.fixture
def tapes(monkeypatch):
    """Records and replays on the CPU; the list of what was recorded."""
    made = []

    def record(work, pool):
        tape = Tape()
        with tape:
            work()  # unlike on a GPU, recording does the work too
        made.append(tape)
        done = [True]
        return lambda: done.pop() if done else tape.replay()

    monkeypatch.setitem(launches.RECORD, "cpu", record)
    return made


@pytest.mark.parametrize("variants", [None, VARIANTS], ids=["alike", "different"])
@pytest.mark.parametrize("optimizer", ["adam", "SGD", "RMSprop"])
@NETWORKS
def test_a_recorded_step_does_what_the_step_does(network, optimizer, variants, tapes, monkeypatch):
    """Nothing that changes from step to step, or from epoch to epoch, is decided in Python."""
    optimization = replace(ADAM, optimizer=optimizer, batch_size=16, epochs=5, momentum=0.9)
    data, start = stack_data(network, rows=105), stack_starts(SEEDS, network)
    monkeypatch.setattr(passes, "OUTPUTS_AT_ONCE", {"cpu": 2 * len(SEEDS) * network.widths[-1] * 16})
    replayed = train(network, optimization, data, SEEDS, start, variants=variants)
    # Of training: 4 whole batches and one of 11 rows, measured by twos; of testing: one batch of 16 and one of 14.
    assert len(tapes) == 4 + 4
    monkeypatch.setitem(launches.RECORD, "cpu", None)
    assert_same(replayed, train(network, optimization, data, SEEDS, start, variants=variants))


def test_what_cannot_be_recorded_is_launched_piece_by_piece(monkeypatch, caplog):
    def refuse(work, pool):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    expected = train(SOFTMAX, ADAM, data, SEEDS, start)
    monkeypatch.setitem(launches.RECORD, "cpu", refuse)
    assert_same(train(SOFTMAX, ADAM, data, SEEDS, start), expected)
    assert "a CUDA graph could not be recorded (CUDA error: operation not permitted" in caplog.text


# -- the device


def test_products_are_of_full_precision_whatever_is_set():
    before = torch.get_float32_matmul_precision()
    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    seen = []
    try:
        torch.set_float32_matmul_precision("medium")
        train(SOFTMAX, ADAM, data, SEEDS, start, watch=lambda *_: seen.append(torch.get_float32_matmul_precision()))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == ["highest"] * 2


def test_a_stack_that_does_not_fit_says_so_and_leaves_nothing(monkeypatch):
    """What the engine had allocated is free again, without the garbage collector, when the error is caught."""
    made = []

    def out_of_memory(*arguments, residual):
        made.append(weakref.ref(arguments[0]))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(engine, "run_backward", out_of_memory)
    gc.disable()
    try:
        with pytest.raises(
            DeviceMemoryError, match=r"a stack of 3, layers \(8, 8, 8, 3\), does not fit .*Tried to allocate 2.00 GiB"
        ):
            train(SOFTMAX, ADAM, stack_data(SOFTMAX), SEEDS, stack_starts(SEEDS, SOFTMAX))
        assert [reference() for reference in made] == [None]
    finally:
        gc.enable()


def test_nothing_is_left_for_the_garbage_collector():
    data, start = stack_data(SOFTMAX), stack_starts(SEEDS, SOFTMAX)
    gc.collect()
    gc.disable()
    try:
        train(SOFTMAX, ADAM, data, SEEDS, start)
        left = [one for one in gc.get_objects() if type(one) is StackedLayers]
    finally:
        gc.enable()
    assert left == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so():
    with pytest.raises(UsageError, match="finds no CUDA device here; take --device cpu"):
        train(SOFTMAX, ADAM, stack_data(SOFTMAX), SEEDS, stack_starts(SEEDS, SOFTMAX), device="cuda")
    with pytest.raises(UsageError, match="no CUDA device"):
        engine.free_gpu_bytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@NETWORKS
def test_graphs_are_recorded_and_give_the_same_bits(network, monkeypatch, caplog):
    optimization = replace(ADAM, batch_size=16, epochs=5)
    data, start = stack_data(network, rows=105), stack_starts(SEEDS, network)
    replayed = train(network, optimization, data, SEEDS, start, device="cuda", variants=VARIANTS)
    assert "could not be recorded" not in caplog.text
    monkeypatch.setitem(launches.RECORD, "cuda", None)
    assert_same(replayed, train(network, optimization, data, SEEDS, start, device="cuda", variants=VARIANTS))


@pytest.mark.parametrize("device", DEVICES)
@NETWORKS
def test_early_epochs_agree_between_devices(network, device):
    data, start = stack_data(network), stack_starts(SEEDS, network)
    ours = train(network, ADAM, data, SEEDS, start, device=device)
    theirs = train(network, ADAM, data, SEEDS, start)
    assert_same(ours, theirs, rtol=1e-4, atol=1e-6)
