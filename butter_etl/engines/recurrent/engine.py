"""The fast engine for recurrent networks on a CPU: compiled kernels with nothing of Python inside a step.

A run's bits do not depend on other threads, nor on whether it was stopped and went on; on another kind of CPU they may
differ in the last digits. The interpreter is not held while a batch is computed.
"""

from __future__ import annotations

from math import isfinite, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from butter_etl.engines import kernel_cache, streams
from butter_etl.engines.convolutional import lanes as image_lanes
from butter_etl.engines.fused import lanes as fused_lanes
from butter_etl.engines.fused import vector_math
from butter_etl.engines.recurrent import cells, contract, kernels, lanes, memory, products
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
)
from butter_etl.engines.recurrent.memory import PANEL, Plan, make_plan, weight_places
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from butter_etl.engines.contract import Device
    from butter_etl.engines.host import Facts
    from butter_etl.engines.recurrent.contract import (
        Objective,
        RecurrentDescent,
        RecurrentNetwork,
        Sequences,
        State,
    )

    Array = NDArray[np.float32]

#: The source files of the kernels: the cache of compiled kernels is keyed by them.
SOURCES: Final = [
    Path(module.__file__)
    for module in (
        kernels, cells, memory, lanes, contract, products, image_lanes, fused_lanes,
        vector_math, streams,
    )
    if module.__file__
]  # fmt: skip

_OPTIMIZERS: Final = {
    "SGD": kernels.SGD,
    "Momentum": kernels.MOMENTUM,
    "RMSProp": kernels.RMSPROP,
    "ADAM": kernels.ADAM,
}


def trainer(
    network: RecurrentNetwork,
    objective: Objective,
    descent: RecurrentDescent,
    start: State,
    *,
    device: Device = "cpu",
) -> CompiledTrainer:
    """Return a trainer; see `butter_etl.engines.recurrent.contract.MakeRecurrentTrainer`.

    Raises UsageError where the device is not a CPU, or the start is of another network.
    """
    if device != "cpu":
        raise UsageError(f"the compiled engine runs on a CPU only, not on {device}; take the reference engine there")
    return CompiledTrainer(network, objective, descent, start)


def facts(_device: Device) -> Facts:
    """Return what kernels are compiled for; a run is trained by one thread."""
    return {"target": kernel_cache.target(), "threads": 1}


class CompiledTrainer:
    """A network in training; see `butter_etl.engines.recurrent.contract.RecurrentTrainer`."""

    def __init__(
        self, network: RecurrentNetwork, objective: Objective, descent: RecurrentDescent, start: State
    ) -> None:
        check_objective(network, objective)
        checked_recurrent_state(network, descent, start)
        self._network, self._objective, self._descent = network, objective, descent
        self._places = weight_places(network)
        self._weights, self._gradient = self._packed(start[PARAMETERS]), _aligned(self._places.size)
        self._moments = {name: self._packed(start[name]) for name in MOMENTS[descent.optimizer]}
        self._steps = int(start[STEPS])
        self._biases = np.array(network.gate_biases, np.float32)
        self._ready: set[Callable[..., None]] = set()
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._work, self._turned, self._errors = _aligned(0), _aligned(0), _aligned(0)
        self._table = np.zeros(3 * max(2, memory.SUMMED_STEPS, objective.scored), np.int64)

    def train_batch(self, batch: Sequences, step: int) -> Taken:
        """Take a step on a batch and return its mean loss before the step, and the norm of the gradient."""
        if step != self._steps:
            raise UsageError(f"the state is at step {self._steps}, not at {step}")
        loss, norm = self._add_gradient(batch)
        if isfinite(loss) and isfinite(norm):
            self._descend(norm)
            self._steps += 1
        else:
            self._gradient[:] = 0
        return Taken(loss, norm)

    def gradient(self, batch: Sequences) -> tuple[float, Array]:
        """Return the mean loss of a batch, without L2, and the gradient for all parameters, with L2."""
        loss, _ = self._add_gradient(batch)
        gradient = self._gradient[self._places.numbers]
        self._gradient[:] = 0
        return loss, gradient

    def evaluate(self, batch: Sequences) -> Measured:
        """Return the sum of the losses, added up in float64, and the numbers of right answers and of all."""
        check_sequences(self._network, self._objective, batch)
        sums = np.zeros(2)
        given, steps = _given(batch), batch.steps
        for first in range(0, batch.rows, PANEL):
            rows = min(PANEL, batch.rows - first)
            plan = self._plan(batch, rows)
            arguments = (
                plan.shape, plan.layers, *given, first, rows, steps, self._biases, self._weights, self._work,
                self._turned, self._table, sums,
            )  # fmt: skip
            self._call(kernels.look_at_panel, arguments)
        answers = 0 if self._objective.kind == "squared" else batch.targets.size
        return Measured(float(sums[0]) * self._weight(), int(sums[1]), answers)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return a copy of parameters, moments and the number of steps."""
        arrays = {PARAMETERS: self._weights, **self._moments}
        found: dict[str, NDArray[Any]] = {name: values[self._places.numbers] for name, values in arrays.items()}
        return {**found, STEPS: np.array(self._steps, np.int64)}

    def _weight(self) -> float:
        """Return what the losses that kernels add up are multiplied by."""
        if self._objective.kind == "softmax":
            return 1 / self._objective.scored if self._objective.mean_over_steps else 1.0
        return 1 / self._network.outputs

    def _add_gradient(self, batch: Sequences) -> tuple[float, float]:
        """Return the mean loss of a batch, and the norm of its gradient, which is left with L2."""
        check_sequences(self._network, self._objective, batch)
        sums, squares = np.zeros(2), np.zeros(16)
        given, steps, weight = _given(batch), batch.steps, self._weight()
        for first in range(0, batch.rows, PANEL):
            rows = min(PANEL, batch.rows - first)
            plan = self._plan(batch, rows)
            arguments = (
                plan.shape, plan.layers, *given, first, rows, steps, weight / batch.rows, self._biases, self._weights,
                self._gradient, self._work, self._turned, self._errors, self._table, sums,
            )  # fmt: skip
            self._call(kernels.train_panel, arguments)
        self._call(kernels.finish_gradient, (self._gradient, self._weights, self._descent.l2, squares))
        return float(sums[0]) * weight / batch.rows, sqrt(float(squares.sum()))

    def _descend(self, norm: float) -> None:
        descent, keep = self._descent, self._descent.momentum
        clipped = descent.clip / norm if norm > descent.clip else 1.0
        is_adam = descent.optimizer == "ADAM"
        rates = np.zeros(8)
        rates[[kernels.CLIPPED, kernels.RATE]] = clipped, -descent.rate(self._steps)
        rates[[kernels.KEEP, kernels.TAKE]] = keep, 1 - keep
        keep_square = ADAM_SECOND_DECAY if is_adam else keep
        rates[[kernels.KEEP_SQUARE, kernels.TAKE_SQUARE]] = keep_square, 1 - keep_square
        rates[kernels.EPSILON] = ADAM_EPSILON if is_adam else RMSPROP_EPSILON
        none = self._weights[:0]
        arguments = (
            _OPTIMIZERS[descent.optimizer], self._gradient, self._weights, self._moments.get(MOMENT1, none),
            self._moments.get(MOMENT2, none), rates,
        )  # fmt: skip
        self._call(kernels.descend, arguments)

    def _call(self, kernel: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Call a kernel, whose arguments are always of the same types: to look whether it is at hand takes time."""
        if kernel not in self._ready:
            kernel_cache.ready(kernel, arguments, SOURCES)
            self._ready.add(kernel)
        kernel(*arguments)

    def _plan(self, batch: Sequences, rows: int) -> Plan:
        inputs = batch.inputs
        shown = inputs.every_step if isinstance(inputs, Shown) else inputs.shape[2]
        key = (rows, isinstance(inputs, Shown), shown)
        if key not in self._plans:
            plan = self._plans[key] = make_plan(self._network, self._objective, self._places, batch, rows)
            for name, size in (("_work", plan.work), ("_turned", plan.turned), ("_errors", plan.errors)):
                if size > getattr(self, name).size:
                    setattr(self, name, _aligned(size))
        return self._plans[key]

    def _packed(self, values: NDArray[np.float32]) -> Array:
        flat = _aligned(self._places.size)
        flat[self._places.numbers] = values
        return flat


def _given(batch: Sequences) -> tuple[NDArray[np.int32], Array, NDArray[np.int64], Array]:
    """Return indices, vectors, labels and wanted numbers of a batch as kernels take them; what it has not is empty."""
    inputs, targets = batch.inputs, batch.targets
    indices, vectors = np.zeros(0, np.int32), np.zeros(0, np.float32)
    if isinstance(inputs, Shown):
        vectors = np.ascontiguousarray(inputs.vectors).reshape(-1)
    else:
        indices = np.ascontiguousarray(inputs).reshape(-1)
    if targets.dtype == np.int64:
        return indices, vectors, np.ascontiguousarray(targets).reshape(-1), np.zeros(0, np.float32)
    return indices, vectors, np.zeros(0, np.int64), targets.astype(np.float32).reshape(-1)


def _aligned(count: int) -> Array:
    """Return zeros, float32, that begin at the start of a cache line."""
    room = np.zeros(count + 16, np.float32)
    skip = (-room.ctypes.data // 4) % 16
    return room[skip : skip + count]
