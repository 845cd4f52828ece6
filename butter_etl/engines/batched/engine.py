"""The readable engine: a stack of runs trained side by side with batched matrix products, on CPU or CUDA.

Every tensor carries the run as its first axis, so runs never mix. Activations are (runs, width, rows): with rows last,
matrix products and reductions over narrow layers run along the batch, four times faster than the other way round.
Gradients are written out: a dense network's are a few lines, and need no graph.

On CUDA the same code runs. The data stay on the device; what is done with a batch is recorded once for each batch size
and then launched as a whole (`butter_etl.engines.batched.launches`); the host draws the next epoch's order while the
device trains, and gets the twenty values of an epoch in one copy. Products are float32 throughout, never TF32.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from butter_etl.engines.batched.launches import Launcher
from butter_etl.engines.batched.metrics import activate
from butter_etl.engines.batched.parameters import (
    MOMENTS,
    Optimizer,
    Penalties,
    StackedLayers,
    epoch_rates,
    make_optimizer,
)
from butter_etl.engines.batched.passes import Pass
from butter_etl.engines.contract import HISTORIES, METRICS, State, Trained, Variant
from butter_etl.engines.host import torch_facts
from butter_etl.engines.streams import epoch_order
from butter_etl.errors import DeviceMemoryError, UsageError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from butter_etl.engines.contract import Device, Loss, Network, Optimization, StackData, Watch, Weights

#: Within an epoch the watch is called about so often.
SECONDS_PER_WATCH = 1.0

#: What the bits of results depend on here, besides the versions of packages.
facts = torch_facts


def train(
    network: Network,
    optimization: Optimization,
    data: StackData,
    seeds: Sequence[int],
    start: Weights | State,
    *,
    device: Device = "cpu",
    variants: Sequence[Variant] | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train ``len(seeds)`` runs from ``start``; see `butter_etl.engines.contract.Engine`.

    Training metrics are means over the epoch's batches, each measured before that batch's update; test metrics
    are one pass with the weights at the end of the epoch. Raises UsageError where there is no such device, and
    DeviceMemoryError where the stack does not fit into its memory; then nothing of it is left there.
    """
    _require(device)
    variants = variants or [Variant.of(network, optimization)] * len(seeds)
    try:
        with torch.inference_mode(), _full_precision():
            return _Stack(network, optimization, data, seeds, start, variants, device).train(watch)
    except torch.OutOfMemoryError as error:
        reason = one_line(error)
    if device == "cuda":
        torch.cuda.empty_cache()
    # Not raised from within: the error that it would hold on to holds on to all that lies on the device.
    raise DeviceMemoryError(
        f"a stack of {len(seeds)}, layers {network.widths}, does not fit into the device's memory ({reason})"
    )


def free_gpu_bytes() -> int:
    """Return the bytes of GPU memory that a stack can have: what nobody holds, and what this process holds unused.

    Raises UsageError where there is no GPU.
    """
    _require("cuda")
    free, _ = torch.cuda.mem_get_info()
    return int(free) + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def _require(device: Device) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"torch {torch.__version__} finds no CUDA device here; take --device cpu, or see docs/how-to.md"
        )


@contextmanager
def _full_precision() -> Iterator[None]:
    """Take matrix products in float32 proper, whatever the process has set: TF32 has 10 bits of mantissa."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Stack:
    """A stack in training."""

    def __init__(
        self,
        network: Network,
        optimization: Optimization,
        data: StackData,
        seeds: Sequence[int],
        start: Weights | State,
        variants: Sequence[Variant],
        device: Device,
    ) -> None:
        self._optimization, self._seeds, self._variants = optimization, seeds, variants
        self._device = device
        runs, self._train_count = data.train_rows.shape
        self._layers = StackedLayers.of(start.weights if isinstance(start, State) else start, device)
        self._moments = [StackedLayers.like(self._layers) for _ in range(MOMENTS[optimization.optimizer])]
        self._histories = {name: np.full((runs, optimization.epochs), np.nan, np.float32) for name in HISTORIES}
        self._epochs = self._batches = 0
        optimizer = make_optimizer(optimization.optimizer, variants, self._moments, device)
        penalties = Penalties(variants, device)
        x, y = torch.tensor(data.x, device=device), torch.tensor(data.y, device=device)
        targets = torch.tensor(data.train_targets, device=device).flatten(0, 1)
        batch_size, launcher = optimization.batch_size, Launcher(device)
        rates = epoch_rates(optimization.optimizer, variants, 0, 1).shape[1]
        gradient = StackedLayers.like(self._layers)
        step = partial(_train_on, network, self._layers, gradient, penalties, optimizer)
        # Forward, and twice as much backward.
        products = 3 * sum(kernel.shape[1] * kernel.shape[2] for kernel in self._layers.kernels)
        self._training = Pass(
            x, targets, runs, self._train_count, batch_size, network.loss, products, step, launcher, rates
        )
        check = partial(_look_at, network, self._layers, penalties)
        test_rows = torch.tensor(data.test_rows, device=device)
        self._test = Pass(x, y, runs, test_rows.shape[1], batch_size, network.loss, products, check, launcher)
        self._test.arrange(test_rows, test_rows)
        self._train_rows = torch.tensor(data.train_rows, device=device)
        self._first_target = torch.arange(runs, device=device)[:, None] * self._train_count
        if isinstance(start, State):
            self._go_on_from(start)

    def train(self, watch: Watch | None) -> Trained:
        """Train all epochs that are left."""
        epochs, training = self._optimization.epochs, self._training.batches
        clock = _WatchClock(never=watch is None)
        order = self._order(self._epochs)
        while self._epochs < epochs:
            self._arrange(order)
            for batches in self._training.run(self._batches, clock.is_due):
                self._look(watch, clock, batches)
            for batches in self._test.run(max(self._batches - training, 0), clock.is_due):
                if batches < self._test.batches:  # else the epoch is over, and about to be recorded
                    self._look(watch, clock, training + batches)
            if self._epochs + 1 < epochs:  # now, while the device is at work
                order = self._order(self._epochs + 1)
            self._record(torch.stack([self._test.values(), self._training.values()]).cpu().numpy())
            if self._epochs < epochs:
                self._look(watch, clock, 0)
        return Trained(histories=self._histories, weights=self._layers.to_numpy())

    def _look(self, watch: Watch | None, clock: _WatchClock, batches: int) -> None:
        """Let the watch have a look when so many batches of an epoch are done."""
        self._batches = batches
        if watch is None:
            return
        if self._device == "cuda":
            torch.cuda.current_stream().synchronize()  # or the device would be far behind what the watch is told
        watch((self._epochs + batches / (self._training.batches + self._test.batches)) * len(self._seeds), self._state)
        clock.restart()

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._optimization.shuffle:
            return np.stack([epoch_order(seed, epoch, self._train_count) for seed in self._seeds])
        return np.tile(np.arange(self._train_count, dtype=np.int64), (len(self._seeds), 1))

    def _arrange(self, order: NDArray[np.int64]) -> None:
        """Put an epoch's rows, targets and rates on the device."""
        positions = torch.from_numpy(order).to(self._device)
        steps = -(-self._train_count // self._optimization.batch_size)
        rates = epoch_rates(self._optimization.optimizer, self._variants, self._epochs * steps, steps)
        rows, targets = self._train_rows.gather(1, positions), positions + self._first_target
        self._training.arrange(rows, targets, torch.from_numpy(rates).to(self._device))

    def _record(self, values: NDArray[np.float32]) -> None:
        """Record an epoch's values, (test and training, metrics, runs)."""
        for row, metric in enumerate(METRICS):
            self._histories[f"val_{metric}"][:, self._epochs] = values[0, row]
            self._histories[metric][:, self._epochs] = values[1, row]
        self._epochs += 1
        self._batches = 0

    def _state(self) -> State:
        runs = len(self._seeds)
        return State(
            epochs=np.full(runs, self._epochs, dtype=np.int64),
            batches=np.full(runs, self._batches, dtype=np.int64),
            weights=self._layers.to_numpy(),
            moments=tuple(moment.to_numpy() for moment in self._moments),
            histories={name: values.copy() for name, values in self._histories.items()},
            sums=np.hstack([self._training.sums(), self._test.sums()]) if self._batches else None,
        )

    def _go_on_from(self, state: State) -> None:
        self._epochs, self._batches = int(state.epochs[0]), int(state.batches[0])
        for moment, earlier in zip(self._moments, state.moments, strict=True):
            moment.flat.copy_(StackedLayers.of(earlier, self._device).flat)
        for name, values in state.histories.items():
            self._histories[name][:] = values
        if state.sums is not None:
            for one, sums in zip((self._training, self._test), np.hsplit(state.sums, 2), strict=True):
                one.restore(sums)


class _WatchClock:
    """Tells when the watch is due within an epoch."""

    def __init__(self, *, never: bool) -> None:
        self._seconds = inf if never else SECONDS_PER_WATCH
        self.restart()

    def restart(self) -> None:
        """Begin to count anew."""
        self._end = time.perf_counter() + self._seconds

    def is_due(self) -> bool:
        """Tell whether the time has come."""
        return time.perf_counter() >= self._end


def _train_on(
    network: Network,
    layers: StackedLayers,
    gradient: StackedLayers,
    penalties: Penalties,
    optimizer: Optimizer,
    x: Tensor,
    y: Tensor,
    rate: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Take a step of training; see `butter_etl.engines.batched.passes.Step`."""
    forward, penalty = run_forward(layers, x, residual=network.residual), penalties.of(layers)
    run_backward(layers, forward, output_error(network.loss, forward.logits, y), gradient, residual=network.residual)
    penalties.add_gradient(layers, gradient)
    optimizer.step(layers, gradient, rate)
    return forward.logits, penalty


def _look_at(
    network: Network,
    layers: StackedLayers,
    penalties: Penalties,
    x: Tensor,
    y: Tensor,  # noqa: ARG001  steps of training need it
    rate: Tensor,  # noqa: ARG001
) -> tuple[Tensor, Tensor | None]:
    """Take a step that changes nothing, for test rows."""
    return run_forward(layers, x, residual=network.residual).logits, penalties.of(layers)


@dataclass(frozen=True)
class Forward:
    """Results of a forward pass: each layer's input, each hidden layer's ReLU output before any addition, logits."""

    inputs: list[Tensor]
    relus: list[Tensor]
    logits: Tensor


def run_forward(layers: StackedLayers, x: Tensor, *, residual: bool) -> Forward:
    """Pass x (runs, inputs, rows) through the network; logits are (runs, outputs, rows).

    With ``residual`` every hidden layer but the first adds its input after the ReLU.
    """
    inputs: list[Tensor] = []
    relus: list[Tensor] = []
    current = x
    for depth, (kernel, bias) in enumerate(zip(layers.kernels, layers.biases, strict=True)):
        inputs.append(current)
        dense = torch.baddbmm(bias, kernel.mT, current)
        if depth == len(layers.kernels) - 1:
            break
        relus.append(dense.relu_())
        current = relus[-1] + current if residual and depth > 0 else relus[-1]
    return Forward(inputs, relus, logits=dense)


def output_error(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of the batch's mean loss with respect to the logits, shaped like them.

    Of the cross-entropies it is (p - y) / rows: for rows not one-hot this is TensorFlow's gradient, which takes
    every target row for a distribution.
    """
    predictions = activate(loss, logits)
    error = predictions - targets
    if loss == "categorical_crossentropy":
        return error.div_(targets.shape[2])
    values = targets.shape[1] * targets.shape[2]
    if loss == "binary_crossentropy":
        return error.div_(values)
    return error.mul_(predictions * (1 - predictions)).mul_(2 / values)


def run_backward(
    layers: StackedLayers, forward: Forward, error: Tensor, gradient: StackedLayers, *, residual: bool
) -> None:
    """Fill ``gradient`` from the ``error`` at the logits (`output_error`)."""
    skipped = None  # what the addition of the layer above hands down to its input as it is
    for depth in reversed(range(len(layers.kernels))):
        torch.bmm(forward.inputs[depth], error.mT, out=gradient.kernels[depth])
        torch.sum(error, dim=2, keepdim=True, out=gradient.biases[depth])
        if depth == 0:
            break
        upstream = torch.bmm(layers.kernels[depth], error)
        if skipped is not None:
            upstream += skipped
        skipped = upstream if residual else None
        # The gradient of ReLU: `upstream` where its output is not 0. Twenty times faster than `torch.where`.
        error = torch.ops.aten.threshold_backward(upstream, forward.relus[depth - 1], 0)
