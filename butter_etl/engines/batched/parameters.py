"""The parameters of a stack on a torch device, their penalties, and the optimizers that move them.

What the stack's runs have in common is a number, and works on all parameters in one call; what they differ in is a
tensor of one value a run, and works layer by layer. Nothing here waits for the device or keeps count in Python, so that
a step can be recorded once and replayed (`butter_etl.engines.batched.launches`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from butter_etl.engines.contract import Device, OptimizerName, Variant, Weights


@dataclass(frozen=True)
class StackedLayers:
    """The parameters (or gradients, or moments) of a stack: views into one flat tensor, all kernels before all biases.

    One flat tensor makes an optimizer step a handful of calls, whatever the depth. ``kernels`` are
    (runs, fan_in, width) and ``biases`` (runs, width, 1), each contiguous; ``flat_kernels`` is the kernels' part.
    """

    flat: Tensor
    flat_kernels: Tensor
    kernels: list[Tensor]
    biases: list[Tensor]

    @classmethod
    def of(cls, weights: Weights, device: Device) -> StackedLayers:
        """Return layers that hold a copy of ``weights`` on ``device``."""
        kernels = [torch.tensor(kernel, device=device) for kernel, _ in weights]
        biases = [torch.tensor(bias, device=device).unsqueeze(2) for _, bias in weights]
        flat = torch.cat([part.flatten() for part in kernels + biases])
        return cls._view(flat, [part.shape for part in kernels], [part.shape for part in biases])

    @classmethod
    def like(cls, layers: StackedLayers) -> StackedLayers:
        """Return zeros of the same layout."""
        shapes = [kernel.shape for kernel in layers.kernels], [bias.shape for bias in layers.biases]
        return cls._view(torch.zeros_like(layers.flat), *shapes)

    @classmethod
    def _view(cls, flat: Tensor, kernel_shapes: list[torch.Size], bias_shapes: list[torch.Size]) -> StackedLayers:
        shapes = kernel_shapes + bias_shapes
        ends = np.cumsum([0, *(shape.numel() for shape in shapes)]).tolist()
        parts = [flat[first:end].view(shape) for (first, end), shape in zip(pairwise(ends), shapes, strict=True)]
        depth = len(kernel_shapes)
        return cls(flat, flat[: ends[depth]], parts[:depth], parts[depth:])

    @property
    def parts(self) -> list[Tensor]:
        """Return all kernels, then all biases, each with the run as its first of three axes."""
        return self.kernels + self.biases

    def to_numpy(self) -> Weights:
        """Return a copy as (kernel, bias) pairs, float32 (runs, fan_in, width) and (runs, width)."""
        return [
            (kernel.cpu().numpy().copy(), bias.squeeze(2).cpu().numpy().copy())
            for kernel, bias in zip(self.kernels, self.biases, strict=True)
        ]


def _each(factor: Tensor, *stacks: StackedLayers) -> Iterator[tuple[Tensor, ...]]:
    """Yield ``factor`` (1,) with the stacks' flat tensors, or ``factor`` (runs,) with each of their parts in turn.

    A factor (runs,) is shaped to fit the parts.
    """
    if factor.numel() == 1:
        yield factor, *(stack.flat for stack in stacks)
    else:
        for parts in zip(*(stack.parts for stack in stacks), strict=True):
            yield factor.view(-1, 1, 1), *parts


def _one_or_each(values: Sequence[float], device: Device) -> Tensor:
    """Return the values as float32 (1,) where all runs have the same, else (runs,)."""
    same = all(value == values[0] for value in values)
    return torch.tensor(values[:1] if same else values, dtype=torch.float32, device=device)


# -- penalties


def _itself(values: Tensor) -> Tensor:
    return values


#: For each kind of penalty: the function of a weight that is summed up; and its derivative, a function times a number.
_KINDS = {
    "l1": (torch.Tensor.abs, torch.Tensor.sign, 1.0),
    "l2": (torch.Tensor.square, _itself, 2.0),
}


@dataclass(frozen=True)
class _Term:
    """A penalty of one kind: a factor for all runs, or one a run and ``without``, true for those that have none."""

    kind: str
    factor: float | Tensor
    without: Tensor | None


class Penalties:
    """The runs' penalties: factor sum|W| for L1, factor sum W^2 for L2, over the kernels of all layers of each run."""

    def __init__(self, variants: Sequence[Variant], device: Device) -> None:
        self._terms: list[_Term] = []
        for kind in _KINDS:
            factors = [variant.penalty if variant.regularizer == kind else None for variant in variants]
            if factors == factors[:1] * len(factors):
                if factors[0] is not None:
                    self._terms.append(_Term(kind, float(factors[0]), None))
            else:
                values = torch.tensor([factor or 0.0 for factor in factors], dtype=torch.float64, device=device)
                self._terms.append(_Term(kind, values, torch.tensor([f is None for f in factors], device=device)))

    def of(self, layers: StackedLayers) -> Tensor | None:
        """Return each run's penalty, float64 (runs,); None where no run has one."""
        total = None
        for term in self._terms:
            magnitude = _KINDS[term.kind][0]
            sums = [magnitude(kernel).sum(dim=(1, 2), dtype=torch.float64) for kernel in layers.kernels]
            values = self._masked(torch.stack(sums).sum(dim=0) * term.factor, term)
            total = values if total is None else total + values
        return total

    def add_gradient(self, layers: StackedLayers, gradient: StackedLayers) -> None:
        """Add the gradient to the kernels' part: factor sign(W) for L1, 2 factor W for L2."""
        for term in self._terms:
            _, slope, times = _KINDS[term.kind]
            if isinstance(term.factor, float):
                gradient.flat_kernels.add_(slope(layers.flat_kernels), alpha=times * term.factor)
                continue
            factors = (times * term.factor).float().view(-1, 1, 1)
            for kernel, slopes in zip(layers.kernels, gradient.kernels, strict=True):
                slopes.add_(self._masked(slope(kernel) * factors, term))

    @staticmethod
    def _masked(values: Tensor, term: _Term) -> Tensor:
        """Zero ``values`` in place in runs without such a penalty, and return them.

        Where weights are infinite, 0 times them would be no number.
        """
        if term.without is None:
            return values
        return values.masked_fill_(term.without.view(-1, *[1] * (values.ndim - 1)), 0.0)


# -- optimizers


class Optimizer(Protocol):
    """Keras' optimizers, elementwise, in place."""

    def step(self, weights: StackedLayers, gradient: StackedLayers, rate: Tensor) -> None:
        """Move ``weights`` one step at ``rate`` (1,) or (runs,); ``gradient`` may be overwritten."""
        ...


def _descend(weights: StackedLayers, update: StackedLayers, rate: Tensor) -> None:
    for factor, parts, updates in _each(rate, weights, update):
        parts.addcmul_(updates, factor, value=-1)


class Adam:
    """Keras' Adam: epsilon is added before the bias correction of the second moment (PyTorch adds it after).

    w -= `adam_rate` m / (sqrt(v) + 1e-7), with m and v the running means of g and g^2 (decays 0.9 and 0.999).
    """

    def __init__(self, moments: Sequence[StackedLayers]) -> None:
        self._mean, self._mean_square = moments

    def step(self, weights: StackedLayers, gradient: StackedLayers, rate: Tensor) -> None:
        """Move ``weights`` one step; ``gradient`` is overwritten."""
        update = gradient.flat
        self._mean.flat.lerp_(update, 1 - 0.9)
        self._mean_square.flat.lerp_(update.square_(), 1 - 0.999)
        torch.sqrt(self._mean_square.flat, out=update).add_(1e-7)
        torch.div(self._mean.flat, update, out=update)
        _descend(weights, gradient, rate)


class SGD:
    """Gradient descent with momentum: b = momentum b + g, w -= lr b; no Nesterov."""

    def __init__(self, moments: Sequence[StackedLayers], momentum: Tensor) -> None:
        (self._buffer,) = moments
        self._momentum = momentum

    def step(self, weights: StackedLayers, gradient: StackedLayers, rate: Tensor) -> None:
        """Move ``weights`` one step."""
        for momentum, buffer in _each(self._momentum, self._buffer):
            buffer.mul_(momentum)
        self._buffer.flat.add_(gradient.flat)
        _descend(weights, self._buffer, rate)


class RMSprop:
    """RMSprop of Keras 3: s = 0.9 s + 0.1 g^2, b = momentum b + g / sqrt(s + 1e-7), w -= lr b.

    Keras 2 differed without momentum: it divided by sqrt(s) + 1e-7.
    """

    def __init__(self, moments: Sequence[StackedLayers], momentum: Tensor) -> None:
        self._buffer, self._mean_square = moments
        self._momentum = momentum

    def step(self, weights: StackedLayers, gradient: StackedLayers, rate: Tensor) -> None:
        """Move ``weights`` one step."""
        self._mean_square.flat.lerp_(gradient.flat.square(), 1 - 0.9)
        divisor = (self._mean_square.flat + 1e-7).sqrt_()
        for momentum, buffer in _each(self._momentum, self._buffer):
            buffer.mul_(momentum)
        self._buffer.flat.addcdiv_(gradient.flat, divisor)
        _descend(weights, self._buffer, rate)


#: How many moments each optimizer keeps.
MOMENTS: dict[OptimizerName, int] = {"adam": 2, "SGD": 1, "RMSprop": 2}


def make_optimizer(
    name: OptimizerName, variants: Sequence[Variant], moments: Sequence[StackedLayers], device: Device
) -> Optimizer:
    """Return the optimizer that keeps its state in ``moments``, as many as `MOMENTS` says; zeros to begin with."""
    if name == "adam":
        return Adam(moments)
    momentum = _one_or_each([variant.momentum for variant in variants], device)
    return SGD(moments, momentum) if name == "SGD" else RMSprop(moments, momentum)


def epoch_rates(name: OptimizerName, variants: Sequence[Variant], first_step: int, steps: int) -> NDArray[np.float32]:
    """Return the rates of ``steps`` steps after ``first_step``: float32 (steps, 1), (steps, runs) where runs differ."""
    rates = [variant.learning_rate for variant in variants]
    if len(set(rates)) == 1:
        rates = rates[:1]
    if name == "adam":
        return np.array([adam_rates(rates, first_step + step) for step in range(1, steps + 1)], dtype=np.float32)
    return np.tile(np.array(rates, dtype=np.float32), (steps, 1))


def adam_rates(learning_rates: Sequence[float], step: int) -> NDArray[np.float32]:
    """Return Adam's bias-corrected rates lr sqrt(1 - 0.999^t) / (1 - 0.9^t) at step t = 1, 2, ….

    They are computed in float32, as by Keras: 1 - 0.999^t loses digits while t is small, and with exact arithmetic the
    histories would part from Keras' by 5e-5 instead of 4e-7.
    """
    one, power = np.float32(1), np.float32(step)
    first, second = one - np.float32(0.9) ** power, one - np.float32(0.999) ** power
    rates: NDArray[np.float32] = np.array(learning_rates, dtype=np.float32) * np.sqrt(second) / first
    return rates


def adam_rate(learning_rate: float, step: int) -> float:
    """Return the rate of `adam_rates` for one learning rate."""
    return float(adam_rates([learning_rate], step)[0])
