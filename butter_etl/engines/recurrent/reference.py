"""The readable engine: a recurrent network in PyTorch, on a CPU or a GPU, with its gradients from autograd.

Numbers are float32, never TF32; or float64, which tests measure errors by.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from butter_etl.engines.host import torch_facts
from butter_etl.engines.recurrent.contract import (
    ADAM_EPSILON,
    ADAM_SECOND_DECAY,
    MOMENT1,
    MOMENT2,
    MOMENTS,
    PARAMETERS,
    RMSPROP_EPSILON,
    STEPS,
    Measured,
    Shown,
    Taken,
    check_objective,
    check_sequences,
    checked_recurrent_state,
    parameter_layout,
)
from butter_etl.errors import DeviceMemoryError, UsageError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from butter_etl.engines.contract import Device
    from butter_etl.engines.recurrent.contract import (
        Objective,
        RecurrentDescent,
        RecurrentNetwork,
        Sequences,
        State,
    )

#: What the bits of results depend on here, besides the versions of packages.
facts = torch_facts

#: Rows that are evaluated at once.
_EVALUATED = 256


def trainer(
    network: RecurrentNetwork,
    objective: Objective,
    descent: RecurrentDescent,
    start: State,
    *,
    device: Device = "cpu",
) -> ReferenceTrainer:
    """Return a trainer in float32; see `butter_etl.engines.recurrent.contract.MakeRecurrentTrainer`.

    Raises UsageError where there is no such device, or the start is of another network.
    """
    return ReferenceTrainer(network, objective, descent, start, device=device)


class ReferenceTrainer:
    """A network in training; see `butter_etl.engines.recurrent.contract.RecurrentTrainer`.

    All methods raise DeviceMemoryError where a batch does not fit into the device's memory.
    """

    def __init__(
        self,
        network: RecurrentNetwork,
        objective: Objective,
        descent: RecurrentDescent,
        start: State,
        *,
        device: Device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError(f"torch {torch.__version__} finds no CUDA device here; take the device cpu")
        check_objective(network, objective)
        checked_recurrent_state(network, descent, start)
        self._network, self._objective, self._descent = network, objective, descent
        self._device, self._dtype = device, dtype
        self._layout = parameter_layout(network)
        self._flat = torch.tensor(start[PARAMETERS], dtype=dtype, device=device).requires_grad_()
        self._moments = {
            name: torch.tensor(start[name], dtype=dtype, device=device) for name in MOMENTS[descent.optimizer]
        }
        self._steps = int(start[STEPS])

    def train_batch(self, batch: Sequences, step: int) -> Taken:
        """Take a step on a batch and return its mean loss before the step, and the norm of the gradient."""
        if step != self._steps:
            raise UsageError(f"the state is at step {self._steps}, not at {step}")
        loss, gradient = self.gradient(batch)
        norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        if np.isfinite(loss) and np.isfinite(norm):
            self._descend(gradient, norm)
            self._steps += 1
        return Taken(loss, norm)

    def gradient(self, batch: Sequences) -> tuple[float, Tensor]:
        """Return the mean loss of a batch, without L2, and the gradient for all parameters, with L2."""
        check_sequences(self._network, self._objective, batch)
        with _device_memory(), _full_precision():
            loss = self._losses(self._outputs(batch), self._targets(batch)).mean()
            (gradient,) = torch.autograd.grad(loss, self._flat)
            return float(loss.detach()), gradient + self._descent.l2 * self._flat.detach()

    @torch.inference_mode()
    def evaluate(self, batch: Sequences) -> Measured:
        """Return the sum of the losses, added up in float64, and the numbers of right answers and of all."""
        check_sequences(self._network, self._objective, batch)
        loss, right, answers = 0.0, 0, 0
        with _device_memory(), _full_precision():
            for first in range(0, batch.rows, _EVALUATED):
                part = _rows(batch, first, first + _EVALUATED)
                outputs, targets = self._outputs(part), self._targets(part)
                loss += float(self._losses(outputs, targets).sum(dtype=torch.float64))
                found = self._answers(outputs)
                if found is not None:
                    right += int((found == targets).sum())
                    answers += found.numel()
        return Measured(loss, right, answers)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return a copy of parameters, moments and the number of steps."""
        tensors = {PARAMETERS: self._flat.detach(), **self._moments}
        arrays = {name: values.cpu().numpy().copy() for name, values in tensors.items()}
        return {**arrays, STEPS: np.array(self._steps, np.int64)}

    # -- forward

    def _parameter(self, name: str) -> Tensor:
        place, shape = self._layout[name]
        return self._flat[place].view(shape)

    def _outputs(self, batch: Sequences) -> Tensor:
        """Return the outputs of a batch after the scored steps, (scored, rows, outputs)."""
        objective, network = self._objective, self._network
        if network.reads_in:
            read = self._products(batch, self._parameter("read_in.weight")[None])
            x = read[:, 0] + self._parameter("read_in.bias")
            x = self._layer(0, torch.einsum("tbd,gdn->tgbn", x, self._parameter("layer1.input")), x)
        else:
            products = self._products(batch, self._parameter("layer1.input"))
            x = self._layer(0, products, products)  # nothing reads the latter: only +rnn hands its inputs up
        for layer in range(1, network.layers):
            x = self._layer(layer, torch.einsum("tbd,gdn->tgbn", x, self._parameter(f"layer{layer + 1}.input")), x)
        scored = x[objective.first : objective.last]
        return scored @ self._parameter("read_out.weight") + self._parameter("read_out.bias")

    def _products(self, batch: Sequences, weights: Tensor) -> Tensor:
        """Return the inputs of a batch times some matrices (gates, inputs, n): (steps, gates, rows, n)."""
        gates, inputs, n = weights.shape
        steps = self._objective.last  # what comes after is not scored
        wide = weights.transpose(0, 1).reshape(inputs, gates * n)
        if isinstance(batch.inputs, Shown):
            vectors = torch.from_numpy(batch.inputs.vectors).to(self._device, self._dtype)
            product = (vectors @ wide).view(-1, gates, n).transpose(0, 1)
            if batch.inputs.every_step:
                return product.expand(steps, *product.shape)
            return torch.cat([product[None], product.new_zeros(steps - 1, *product.shape)])
        indices = torch.from_numpy(batch.inputs[:, :steps]).to(self._device).transpose(0, 1)
        # Sums of rows, in place of products with ones and zeros.
        sums = functional.embedding_bag(indices.reshape(-1, indices.shape[2]), wide, mode="sum")
        return sums.view(steps, -1, gates, n).transpose(1, 2)

    def _layer(self, layer: int, products: Tensor, x: Tensor) -> Tensor:
        """Return what a layer hands up, (steps, rows, n), from the products of its inputs (steps, gates, rows, n)."""
        network = self._network
        recurrent = self._parameter(f"layer{layer + 1}.recurrent")
        biases = self._parameter(f"layer{layer + 1}.bias") + torch.tensor(
            network.gate_biases, dtype=self._dtype, device=self._device
        ).view(-1, 1)
        initial = self._parameter(f"layer{layer + 1}.initial")
        states = [initial[number].expand(products.shape[2], -1) for number in range(network.states)]
        up = []
        for step, product in enumerate(products + biases[:, None]):
            states, y = self._cell(product, recurrent, states, x[step])
            up.append(y)
        return torch.stack(up)

    def _cell(self, z: Tensor, recurrent: Tensor, states: list[Tensor], x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the states after a step, and what is handed up, from inputs' products z (gates, rows, n)."""
        name, s = self._network.architecture, torch.relu if self._network.is_relu else torch.tanh
        h = states[0]
        if name == "gru":
            r, u = torch.sigmoid(z[1:] + h @ recurrent[1:])
            c = s(z[0] + (r * h) @ recurrent[0])
            h = u * h + (1 - u) * c
            return [h], h
        z = z + h @ recurrent
        if name in ("rnn", "irnn"):
            h = s(z[0])
            return [h], h
        if name == "ugrnn":
            g = torch.sigmoid(z[1])
            h = g * h + (1 - g) * s(z[0])
            return [h], h
        if name == "lstm":
            g, i, o = torch.sigmoid(z[1:])
            c = g * states[1] + i * s(z[0])
            h = o * torch.tanh(c)
            return [h, c], h
        gy, gh = torch.sigmoid(z[2:])
        y = gy * x + (1 - gy) * torch.relu(z[0])
        return [gh * h + (1 - gh) * torch.tanh(z[1])], y

    # -- losses

    def _targets(self, batch: Sequences) -> Tensor:
        """Return targets as outputs come: softmax (scored, rows, groups), others (1, rows, outputs)."""
        targets = torch.from_numpy(batch.targets).to(self._device)
        if self._objective.kind == "softmax":
            return targets.transpose(0, 1)
        return targets.to(self._dtype)[None]

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each row."""
        if self._objective.kind == "logistic":
            losses = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
            return losses[0].mean(1)
        if self._objective.kind == "squared":
            return (outputs - targets)[0].square().mean(1)
        scored, rows, groups = targets.shape
        logits = outputs.reshape(scored * rows * groups, -1)
        losses = functional.cross_entropy(logits, targets.reshape(-1), reduction="none").view(scored, rows, groups)
        summed = losses.sum((0, 2))
        return summed / scored if self._objective.mean_over_steps else summed

    def _answers(self, outputs: Tensor) -> Tensor | None:
        if self._objective.kind == "logistic":
            return (outputs > 0).to(self._dtype)
        if self._objective.kind == "squared":
            return None
        scored, rows, _ = outputs.shape
        return outputs.view(scored, rows, self._objective.groups, -1).argmax(3)

    # -- descent

    @torch.no_grad()
    def _descend(self, gradient: Tensor, norm: float) -> None:
        """Move the parameters by their gradient: see `butter_etl.engines.recurrent.contract.RecurrentDescent`."""
        descent = self._descent
        rate, keep = descent.rate(self._steps), descent.momentum
        if norm > descent.clip:
            gradient = gradient * (descent.clip / norm)
        if descent.optimizer == "Momentum":
            gradient = self._moments[MOMENT1].mul_(keep).add_(gradient)
        elif descent.optimizer == "RMSProp":
            square = self._moments[MOMENT2].mul_(keep).add_(gradient.square(), alpha=1 - keep)
            gradient = gradient / (square + RMSPROP_EPSILON).sqrt()
        elif descent.optimizer == "ADAM":
            mean = self._moments[MOMENT1].mul_(keep).add_(gradient, alpha=1 - keep)
            square = self._moments[MOMENT2].mul_(ADAM_SECOND_DECAY)
            square.add_(gradient.square(), alpha=1 - ADAM_SECOND_DECAY)
            gradient = mean / (square.sqrt() + ADAM_EPSILON)
        self._flat.sub_(gradient, alpha=rate)


def _rows(batch: Sequences, first: int, last: int) -> Sequences:
    """Return some rows of a batch."""
    inputs = batch.inputs
    cut = inputs._replace(vectors=inputs.vectors[first:last]) if isinstance(inputs, Shown) else inputs[first:last]
    return batch._replace(inputs=cut, targets=batch.targets[first:last])


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
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
