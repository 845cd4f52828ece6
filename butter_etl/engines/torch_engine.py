"""The readable engine: a stack of runs trained side by side with batched matrix products, on CPU or CUDA.

Every tensor carries the run as its first axis, so runs never mix. Activations are (runs, width, rows): with rows last,
matrix products and reductions over narrow layers run along the batch, four times faster than the other way round.
Gradients are written out: a dense network's are a few lines, and need no graph. No global setting of torch is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from butter_etl.engines import State, Trained, Variant
from butter_etl.metrics import activate, epoch_values, metric_sums
from butter_etl.schema import HISTORIES, METRICS
from butter_etl.streams import epoch_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from butter_etl.engines import Device, Network, Optimization, StackData, Watch, Weights
    from butter_etl.spec import Loss

#: Metrics are computed for several batches at once, up to so many outputs: fewer calls, and still in cache on a CPU.
_OUTPUTS_AT_ONCE = {"cpu": 2**15, "cuda": 2**22}


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
    """Train ``len(seeds)`` runs from ``start``; see `butter_etl.engines.Engine`.

    Training metrics are means over the epoch's batches, each measured before that batch's update; test metrics
    are one pass with the weights at the end of the epoch.
    """
    if variants and set(variants) != {Variant.of(network, optimization)}:
        raise NotImplementedError
    epochs = optimization.epochs
    histories = {name: np.full((len(seeds), epochs), np.nan, dtype=np.float32) for name in HISTORIES}
    with torch.inference_mode():
        rows = DeviceRows(data, device)
        layers = StackedLayers.of(start.weights if isinstance(start, State) else start, device)
        gradient = StackedLayers.like(layers)
        moments = [StackedLayers.like(layers) for _ in range(2)]
        optimizer = make_optimizer(optimization, *(moment.flat for moment in moments))
        first = 0
        if isinstance(start, State):
            first = int(start.epochs[0])
            optimizer.steps = first * -(-rows.train_count // optimization.batch_size)
            for moment, earlier in zip(moments, start.moments, strict=True):
                moment.flat.copy_(StackedLayers.of(earlier, device).flat)
            for name, values in start.histories.items():
                histories[name][:, :first] = values[:, :first]
        for epoch in range(first, epochs):
            training = EpochMetrics(network.loss, len(seeds), device)
            order = _order(optimization, seeds, epoch, rows.train_count)
            for x, y in rows.training_batches(order, optimization.batch_size):
                forward = run_forward(layers, x, residual=network.residual)
                training.add(forward.logits, y, penalty(network, layers))
                error = output_error(network.loss, forward.logits, y)
                run_backward(layers, forward, error, gradient, residual=network.residual)
                add_penalty_gradient(network, layers, gradient)
                optimizer.step(layers.flat, gradient.flat)
            test = _evaluate(network, layers, rows, optimization.batch_size, device)
            _record(histories, epoch, training.values(), test.values())
            if watch is not None and epoch < epochs - 1:
                watch(
                    (epoch + 1) * len(seeds),
                    lambda done=epoch + 1: State(  # type: ignore[misc]
                        np.full(len(seeds), done),
                        layers.to_numpy(),
                        tuple(moment.to_numpy() for moment in moments),
                        {name: values.copy() for name, values in histories.items()},
                    ),
                )
        weights = layers.to_numpy()
    return Trained(histories=histories, weights=weights)


def _order(optimization: Optimization, seeds: Sequence[int], epoch: int, count: int) -> NDArray[np.int64]:
    if optimization.shuffle:
        return np.stack([epoch_order(seed, epoch, count) for seed in seeds])
    return np.tile(np.arange(count, dtype=np.int64), (len(seeds), 1))


def _evaluate(
    network: Network, layers: StackedLayers, rows: DeviceRows, batch_size: int, device: Device
) -> EpochMetrics:
    test = EpochMetrics(network.loss, rows.runs, device)
    weight_penalty = penalty(network, layers)
    for x, y in rows.test_batches(batch_size):
        test.add(run_forward(layers, x, residual=network.residual).logits, y, weight_penalty)
    return test


def _record(histories: Mapping[str, NDArray[np.float32]], epoch: int, training: Tensor, test: Tensor) -> None:
    # One copy from the device an epoch: a GPU is never made to wait within one.
    values = torch.stack([test, training]).cpu().numpy()
    for row, metric in enumerate(METRICS):
        histories[f"val_{metric}"][:, epoch] = values[0, row]
        histories[metric][:, epoch] = values[1, row]


class DeviceRows:
    """The stack's data on a device, cut into batches: x (runs, inputs, rows) and y (runs, outputs, rows)."""

    def __init__(self, data: StackData, device: Device) -> None:
        self.runs, self.train_count = data.train_rows.shape
        self._x = torch.tensor(data.x, device=device)
        self._y = torch.tensor(data.y, device=device)
        self._train_rows = torch.tensor(data.train_rows, device=device)
        self._test_rows = torch.tensor(data.test_rows, device=device)
        self._train_targets = torch.tensor(data.train_targets, device=device).flatten(0, 1)
        self._first_target = torch.arange(self.runs, device=device)[:, None] * self.train_count

    def training_batches(self, order: NDArray[np.int64], size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch's batches, run r in the order ``order[r]``; the last, partial batch is kept."""
        positions = torch.from_numpy(order).to(self._x.device)
        rows = self._train_rows.gather(1, positions)
        targets = positions + self._first_target
        for x_rows, y_rows in zip(torch.split(rows, size, 1), torch.split(targets, size, 1), strict=True):
            yield _take(self._x, x_rows), _take(self._train_targets, y_rows).contiguous()

    def test_batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The test rows in batches of ``size``; the last, partial batch is kept."""
        for rows in torch.split(self._test_rows, size, 1):
            yield _take(self._x, rows), _take(self._y, rows).contiguous()


def _take(table: Tensor, rows: Tensor) -> Tensor:
    """The rows (runs, rows) of ``table`` as a view (runs, columns, rows); matrix products take it without a copy."""
    return table.index_select(0, rows.flatten()).view(*rows.shape, table.shape[1]).mT


@dataclass(frozen=True)
class StackedLayers:
    """The parameters (or gradients) of a stack: views into one flat tensor, all kernels before all biases.

    One flat tensor makes an optimizer step a handful of calls, whatever the depth. ``kernels`` are
    (runs, fan_in, width) and ``biases`` (runs, width, 1), each contiguous; ``flat_kernels`` is the kernels' part.
    """

    flat: Tensor
    flat_kernels: Tensor
    kernels: list[Tensor]
    biases: list[Tensor]

    @classmethod
    def of(cls, weights: Weights, device: Device) -> StackedLayers:
        """The layers holding a copy of ``weights`` on ``device``."""
        kernels = [torch.tensor(kernel, device=device) for kernel, _ in weights]
        biases = [torch.tensor(bias, device=device).unsqueeze(2) for _, bias in weights]
        flat = torch.cat([part.flatten() for part in kernels + biases])
        return cls._view(flat, [part.shape for part in kernels], [part.shape for part in biases])

    @classmethod
    def like(cls, layers: StackedLayers) -> StackedLayers:
        """Zeros of the same layout, for the gradient."""
        shapes = [kernel.shape for kernel in layers.kernels], [bias.shape for bias in layers.biases]
        return cls._view(torch.zeros_like(layers.flat), *shapes)

    @classmethod
    def _view(cls, flat: Tensor, kernel_shapes: list[torch.Size], bias_shapes: list[torch.Size]) -> StackedLayers:
        shapes = kernel_shapes + bias_shapes
        ends = np.cumsum([0, *(shape.numel() for shape in shapes)]).tolist()
        parts = [flat[first:end].view(shape) for (first, end), shape in zip(pairwise(ends), shapes, strict=True)]
        depth = len(kernel_shapes)
        return cls(flat, flat[: ends[depth]], parts[:depth], parts[depth:])

    def to_numpy(self) -> Weights:
        """A copy as (kernel, bias) pairs, (runs, fan_in, width) and (runs, width)."""
        return [
            (kernel.cpu().numpy().copy(), bias.squeeze(2).cpu().numpy().copy())
            for kernel, bias in zip(self.kernels, self.biases, strict=True)
        ]


@dataclass(frozen=True)
class Forward:
    """What a forward pass leaves: each layer's input, each hidden layer's ReLU output before any addition, logits."""

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
    """The gradient of the batch's mean loss with respect to the logits.

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


def penalty(network: Network, layers: StackedLayers) -> Tensor | None:
    """L1: penalty sum|W|, L2: penalty sum W^2, over the kernels of all layers; float64 (runs,), None without one."""
    if network.regularizer is None:
        return None
    terms = torch.Tensor.abs if network.regularizer == "l1" else torch.Tensor.square
    sums = [terms(kernel).sum(dim=(1, 2), dtype=torch.float64) for kernel in layers.kernels]
    return torch.stack(sums).sum(dim=0) * network.penalty


def add_penalty_gradient(network: Network, layers: StackedLayers, gradient: StackedLayers) -> None:
    """Add the penalty's gradient to the kernels' part: penalty sign(W) for L1, 2 penalty W for L2."""
    if network.regularizer == "l1":
        gradient.flat_kernels.add_(layers.flat_kernels.sign(), alpha=network.penalty)
    elif network.regularizer == "l2":
        gradient.flat_kernels.add_(layers.flat_kernels, alpha=2 * network.penalty)


class EpochMetrics:
    """Sums of the ten metrics over the batches of one pass, kept on the device in float64."""

    def __init__(self, loss: Loss, runs: int, device: Device) -> None:
        self._loss = loss
        self._sums = torch.zeros((len(METRICS), runs), dtype=torch.float64, device=device)
        self._penalty = torch.zeros(runs, dtype=torch.float64, device=device)
        self._rows = 0
        self._limit = _OUTPUTS_AT_ONCE[device]
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def add(self, logits: Tensor, targets: Tensor, weight_penalty: Tensor | None) -> None:
        """Count one batch in: logits and targets (runs, outputs, rows), penalty (runs,)."""
        if self._waiting and self._waiting[0][0].shape != logits.shape:
            self._reduce()
        self._waiting.append((logits, targets))
        self._rows += targets.shape[2]
        if weight_penalty is not None:
            self._penalty.add_(weight_penalty, alpha=targets.shape[2])
        if len(self._waiting) * logits.numel() >= self._limit:
            self._reduce()

    def _reduce(self) -> None:
        """Compute the metrics of the waiting batches, which all have one shape, as one larger stack."""
        logits, targets = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        sums = metric_sums(self._loss, logits, targets)
        # One after the other, so that the result does not depend on how many batches were waiting.
        for batch_sums in torch.split(sums, self._sums.shape[1], dim=1):
            self._sums += batch_sums
        self._waiting.clear()

    def values(self) -> Tensor:
        """The pass's recorded values, float32 (metrics, runs)."""
        if self._waiting:
            self._reduce()
        return epoch_values(self._sums, self._penalty, self._rows)


class Optimizer(Protocol):
    """Keras' optimizers, elementwise on flat tensors, in place."""

    #: How many steps have been taken.
    steps: int

    def step(self, weights: Tensor, gradient: Tensor) -> None:
        """Move ``weights`` one step; ``gradient`` may be overwritten."""
        ...


class Adam:
    """Keras' Adam: epsilon is added before the bias correction of the second moment (PyTorch adds it after).

    w -= `adam_rate` m / (sqrt(v) + 1e-7), with m and v the running means of g and g^2 (decays 0.9 and 0.999).
    """

    def __init__(self, moments: tuple[Tensor, Tensor], learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self.steps = 0
        self._mean, self._mean_square = moments

    def step(self, weights: Tensor, gradient: Tensor) -> None:
        """Move ``weights`` one step; ``gradient`` is overwritten."""
        self.steps += 1
        self._mean.lerp_(gradient, 1 - 0.9)
        self._mean_square.lerp_(gradient.square_(), 1 - 0.999)
        divisor = torch.sqrt(self._mean_square, out=gradient).add_(1e-7)
        weights.addcdiv_(self._mean, divisor, value=-adam_rate(self._learning_rate, self.steps))


def adam_rate(learning_rate: float, step: int) -> float:
    """Adam's bias-corrected rate lr sqrt(1 - 0.999^t) / (1 - 0.9^t) at step t = 1, 2, ….

    In float32, as Keras does it: 1 - 0.999^t loses digits while t is small, and with exact arithmetic the
    histories would part from Keras' by 5e-5 instead of 4e-7.
    """
    one, power = np.float32(1), np.float32(step)
    first, second = one - np.float32(0.9) ** power, one - np.float32(0.999) ** power
    return float(np.float32(learning_rate) * np.sqrt(second) / first)


class SGD:
    """Gradient descent with momentum: b = momentum b + g, w -= lr b; no Nesterov."""

    def __init__(self, moments: tuple[Tensor, Tensor], learning_rate: float, momentum: float) -> None:
        self.steps = 0
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._buffer = moments[0]

    def step(self, weights: Tensor, gradient: Tensor) -> None:
        """Move ``weights`` one step."""
        self._buffer.mul_(self._momentum).add_(gradient)
        weights.add_(self._buffer, alpha=-self._learning_rate)


class RMSprop:
    """RMSprop of Keras 3: s = 0.9 s + 0.1 g^2, b = momentum b + g / sqrt(s + 1e-7), w -= lr b.

    Keras 2 differed without momentum: it divided by sqrt(s) + 1e-7.
    """

    def __init__(self, moments: tuple[Tensor, Tensor], learning_rate: float, momentum: float) -> None:
        self.steps = 0
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._buffer, self._mean_square = moments

    def step(self, weights: Tensor, gradient: Tensor) -> None:
        """Move ``weights`` one step."""
        self._mean_square.lerp_(gradient.square(), 1 - 0.9)
        divisor = (self._mean_square + 1e-7).sqrt_()
        self._buffer.mul_(self._momentum).addcdiv_(gradient, divisor)
        weights.add_(self._buffer, alpha=-self._learning_rate)


def make_optimizer(optimization: Optimization, *moments: Tensor) -> Optimizer:
    """The optimizer that keeps its state in two ``moments``, shaped like the flat weights; it begins with zeros."""
    first, second = moments
    if optimization.optimizer == "adam":
        return Adam((first, second), optimization.learning_rate)
    if optimization.optimizer == "SGD":
        return SGD((first, second), optimization.learning_rate, optimization.momentum)
    return RMSprop((first, second), optimization.learning_rate, optimization.momentum)
