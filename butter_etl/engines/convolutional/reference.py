"""The readable engine: a network in PyTorch, on a CPU or a GPU, with its gradients from autograd.

Tensors have the channels last in memory. Numbers are float32, never TF32; or float64, which tests measure errors by.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from butter_etl.engines.convolutional.contract import (
    MOMENTUM,
    STEPS,
    Layer,
    check_batch,
    check_training_batch,
    checked_state,
    dropout_mask,
    keep_scale,
)
from butter_etl.engines.host import torch_facts
from butter_etl.errors import DeviceMemoryError, UsageError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from butter_etl.engines.contract import Device
    from butter_etl.engines.convolutional.contract import ConvNetwork, Descent, State

#: What the bits of results depend on here, besides the versions of packages.
facts = torch_facts

#: Rows that are evaluated at once.
_EVALUATED = 256


def trainer(
    network: ConvNetwork, descent: Descent, seed: int, start: State, *, device: Device = "cpu"
) -> ReferenceTrainer:
    """Return a trainer in float32; see `butter_etl.engines.convolutional.contract.MakeTrainer`.

    Raises UsageError where there is no such device, or the start is of another network.
    """
    return ReferenceTrainer(network, descent, seed, start, device=device)


class ReferenceTrainer:
    """A network in training; see `butter_etl.engines.convolutional.contract.ConvTrainer`.

    All methods raise DeviceMemoryError where a batch does not fit into the device's memory.
    """

    def __init__(
        self,
        network: ConvNetwork,
        descent: Descent,
        seed: int,
        start: State,
        *,
        device: Device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError(f"torch {torch.__version__} finds no CUDA device here; take the device cpu")
        self._network, self._descent, self._seed = network, descent, seed
        self._device, self._dtype = device, dtype
        tensors = {
            name: torch.tensor(values, dtype=dtype, device=device)
            for name, values in checked_state(network, descent, start).items()
            if name != STEPS
        }
        self._momenta = {name: tensors.pop(name) for name in list(tensors) if name.endswith(MOMENTUM)}
        self._weights = {name: self._laid_out(values).requires_grad_() for name, values in tensors.items()}
        self._steps = int(start[STEPS])

    def train_batch(self, images: NDArray[Any], labels: NDArray[np.int64], step: int) -> float:
        """Take a step on a batch and return its mean loss before the step."""
        if step != self._steps:
            raise UsageError(f"the state is at step {self._steps}, not at {step}")
        check_training_batch(self._network, images, labels)
        with _device_memory(), _full_precision():
            logits = self._forward(self._images(images), step)
            loss = functional.cross_entropy(logits, torch.from_numpy(labels).to(self._device))
            gradients = torch.autograd.grad(loss, list(self._weights.values()))
            with torch.no_grad():
                for name, gradient in zip(self._weights, gradients, strict=True):
                    self._descend(name, gradient)
        self._steps += 1
        return float(loss.detach())

    @torch.inference_mode()
    def evaluate(self, images: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float, int]:
        """Return the sum of the losses, added up in float64, and the number of images that are classified right."""
        check_batch(self._network, images, labels)
        loss, correct = 0.0, 0
        with _device_memory(), _full_precision():
            for first in range(0, len(labels), _EVALUATED):
                logits = self._forward(self._images(images[first : first + _EVALUATED]), None)
                wanted = torch.from_numpy(labels[first : first + _EVALUATED]).to(self._device)
                losses = functional.cross_entropy(logits, wanted, reduction="none")
                loss += float(losses.sum(dtype=torch.float64))
                correct += int((logits.argmax(1) == wanted).sum())
        return loss, correct

    def state(self) -> dict[str, NDArray[Any]]:
        """Return a copy of weights, momenta and the number of steps."""
        tensors = self._weights | self._momenta
        arrays = {name: values.detach().cpu().contiguous().numpy().copy() for name, values in tensors.items()}
        return {**arrays, STEPS: np.array(self._steps, np.int64)}

    def _laid_out(self, values: Tensor) -> Tensor:
        return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values.clone()

    def _images(self, images: NDArray[Any]) -> Tensor:
        """Return images as (rows, channels, size, size), whose memory has the channels last."""
        tensor = torch.from_numpy(images).to(self._device)
        scaled = tensor.to(self._dtype) / 255 if images.dtype == np.uint8 else tensor.to(self._dtype)
        return scaled.permute(0, 3, 1, 2)

    def _forward(self, x: Tensor, step: int | None) -> Tensor:
        """Return the logits (rows, classes), of a training step or, without one, with nothing dropped."""
        for layer in self._network.layers:
            weight, bias = self._weights[f"{layer.name}.weight"], self._weights[f"{layer.name}.bias"]
            if layer.is_dense:
                x = functional.linear(x.flatten(1), weight, bias)
            else:
                x = functional.conv2d(x, weight, bias, layer.stride, layer.padding)
            if layer.relu:
                x = functional.relu(x)
            if layer.dropout and step is not None:
                x = x * self._mask(layer, step, x)
            if layer.pool:
                x = functional.max_pool2d(x, layer.pool.kernel, layer.pool.stride, layer.pool.padding)
        return x.flatten(1)

    def _mask(self, layer: Layer, step: int, x: Tensor) -> Tensor:
        """Return what the output of a layer is multiplied by: 0, or what makes up for it."""
        kept = dropout_mask(self._seed, step, layer, x.shape[0])
        factors = torch.from_numpy(kept).to(self._device).to(self._dtype) * keep_scale(layer.dropout)
        return factors.permute(0, 3, 1, 2).reshape(x.shape)

    def _descend(self, name: str, gradient: Tensor) -> None:
        """Move some weights by their gradient: see `butter_etl.engines.convolutional.contract.Descent`."""
        weights, descent = self._weights[name], self._descent
        if descent.weight_decay:
            gradient = gradient.add(weights, alpha=descent.weight_decay)
        if descent.momentum:
            moved = self._momenta[name + MOMENTUM]
            if self._steps == 0:
                moved.copy_(gradient)
            else:
                moved.mul_(descent.momentum).add_(gradient, alpha=1 - descent.dampening)
            gradient = moved
        weights.sub_(gradient, alpha=descent.learning_rate)


@contextmanager
def _device_memory() -> Iterator[None]:
    """Raise DeviceMemoryError where the device has no memory left."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = one_line(error)
    else:
        return
    # Not raised from within: the error that it would hold on to holds on to all that lies on the device.
    raise DeviceMemoryError(f"a batch does not fit into the device's memory ({reason})")


@contextmanager
def _full_precision() -> Iterator[None]:
    """Compute in float32 proper, whatever the process has set: TF32 has 10 bits of mantissa."""
    cudnn: Any = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]
