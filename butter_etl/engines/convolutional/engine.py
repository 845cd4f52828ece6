"""The fast engine for images on a CPU: compiled kernels that multiply only what can change a weight.

A run's bits do not depend on other threads, nor on whether it was stopped and went on; on another kind of CPU they may
differ in the last digits. The interpreter is not held while a batch is computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from butter_etl.engines import kernel_cache, streams
from butter_etl.engines.convolutional import contract, kernels, lanes, memory, products
from butter_etl.engines.convolutional.contract import (
    MOMENTUM,
    STEPS,
    check_batch,
    check_training_batch,
    checked_state,
    padded,
)
from butter_etl.engines.convolutional.memory import Plan, make_plan, pack, unpack, weight_places
from butter_etl.engines.fused import lanes as fused_lanes
from butter_etl.engines.fused import vector_math
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.contract import Device
    from butter_etl.engines.convolutional.contract import ConvNetwork, Descent, State
    from butter_etl.engines.host import Facts

    Array = NDArray[np.float32]

#: The source files of the kernels: the cache of compiled kernels is keyed by them.
SOURCES: Final = [
    Path(module.__file__)
    for module in (kernels, products, memory, lanes, contract, fused_lanes, vector_math, streams)
    if module.__file__
]

#: A batch is done in parts, so that a part's activations and errors take about so many bytes at most.
PART_BYTES: Final = 24 << 20
#: The fewest rows of a part: products with fewer have more to read than to multiply.
LEAST_ROWS: Final = 24
#: The most rows that are evaluated at once.
_EVALUATED: Final = 192


def trainer(
    network: ConvNetwork, descent: Descent, seed: int, start: State, *, device: Device = "cpu"
) -> CompiledTrainer:
    """Return a trainer; see `butter_etl.engines.convolutional.contract.MakeTrainer`.

    Raises UsageError where the device is not a CPU, or the start is of another network.
    """
    if device != "cpu":
        raise UsageError(f"the compiled engine runs on a CPU only, not on {device}; take the reference engine there")
    return CompiledTrainer(network, descent, seed, start)


def facts(_device: Device) -> Facts:
    """Return what kernels are compiled for; a run is trained by one thread."""
    return {"target": kernel_cache.target(), "threads": 1}


class CompiledTrainer:
    """A network in training; see `butter_etl.engines.convolutional.contract.ConvTrainer`."""

    def __init__(self, network: ConvNetwork, descent: Descent, seed: int, start: State) -> None:
        checked_state(network, descent, start)
        self._network, self._descent, self._seed = network, descent, seed
        self._weights = self._packed(start, "")
        self._moments = self._packed(start, MOMENTUM) if descent.momentum else _aligned(0)
        self._gradient = _aligned(self._weights.size)
        self._steps = int(start[STEPS])
        self._memory = _Memory(network)
        #: Weight decay, -learning rate, momentum, and 1 - dampening, or 1 in the first step.
        self._rates = np.array([descent.weight_decay, -descent.learning_rate, descent.momentum, 1.0], np.float32)

    def train_batch(self, images: NDArray[Any], labels: NDArray[np.int64], step: int) -> float:
        """Take a step on a batch and return its mean loss before the step."""
        if step != self._steps:
            raise UsageError(f"the state is at step {self._steps}, not at {step}")
        check_training_batch(self._network, images, labels)
        rows, labels = len(labels), np.ascontiguousarray(labels)
        self._rates[3] = 1.0 - self._descent.dampening if self._steps else 1.0
        parts = self._memory.parts(rows)
        self._draw_masks(parts[0], rows)
        sums, first = np.zeros(2), 0
        for plan in parts:
            self._train_rows(plan, images, labels, first, rows, sums)
            first += plan.rows
        self._descend(parts[0], rows)
        self._steps += 1
        return float(sums[0]) / rows

    def evaluate(self, images: NDArray[Any], labels: NDArray[np.int64]) -> tuple[float, int]:
        """Return the sum of the losses, added up in float64, and the number of images that are classified right."""
        check_batch(self._network, images, labels)
        sums, first, labels = np.zeros(2), 0, np.ascontiguousarray(labels)
        for plan in self._memory.evaluated(len(labels)):
            memory_ = self._memory
            work = self._gather(plan, images, first)
            arguments = (
                plan.layers, plan.tables, plan.scales, work, self._weights, memory_.bits, memory_.line, memory_.other,
                labels, plan.logits, plan.errors, first, plan.rows, sums,
            )  # fmt: skip
            kernel_cache.ready(kernels.look_at_rows, arguments, SOURCES)
            kernels.look_at_rows(*arguments)
            first += plan.rows
        return float(sums[0]), int(sums[1])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return a copy of weights, momenta and the number of steps."""
        arrays = self._unpacked(self._weights, "")
        if self._descent.momentum:
            arrays |= self._unpacked(self._moments, MOMENTUM)
        return {**arrays, STEPS: np.array(self._steps, np.int64)}

    def _draw_masks(self, plan: Plan, rows: int) -> None:
        if plan.shape.bits:
            positions = np.array([layer.conv_size**2 for layer in self._network.layers], np.int64)
            low, high = self._seed & 0xFFFFFFFF, (self._seed >> 32) & 0xFFFFFFFF
            arguments = (plan.layers, positions, rows, self._memory.bits, low, high, self._steps)
            kernel_cache.ready(kernels.draw_masks, arguments, SOURCES)
            kernels.draw_masks(*arguments)

    def _train_rows(
        self,
        plan: Plan,
        images: NDArray[Any],
        labels: NDArray[np.int64],
        first: int,
        batch: int,
        sums: NDArray[np.float64],
    ) -> None:
        memory_ = self._memory
        work = self._gather(plan, images, first)
        arguments = (
            plan.layers, plan.tables, plan.scales, work, self._weights, self._gradient, memory_.bits, memory_.turned,
            memory_.line, memory_.other, labels, plan.logits, plan.errors, first, plan.rows, batch,
            self._rates, self._moments, sums,
        )  # fmt: skip
        kernel_cache.ready(kernels.train_rows, arguments, SOURCES)
        kernels.train_rows(*arguments)

    def _gather(self, plan: Plan, images: NDArray[Any], first: int) -> Array:
        layer, work = self._network.layers[0], self._memory.work
        flat = np.ascontiguousarray(images).reshape(-1)
        arguments = (flat, first, plan.rows, layer.size, layer.channels, work, plan.image_step, plan.frame)
        kernel = kernels.gather_bytes if images.dtype == np.uint8 else kernels.gather_images
        kernel_cache.ready(kernel, arguments, SOURCES)
        kernel(*arguments)
        return work

    def _descend(self, plan: Plan, batch: int) -> None:
        arguments = (
            plan.layers, plan.tables, self._weights, self._gradient, self._moments, self._rates, plan.rows, batch,
        )  # fmt: skip
        kernel_cache.ready(kernels.descend, arguments, SOURCES)
        kernels.descend(*arguments)

    def _packed(self, state: State, suffix: str) -> Array:
        places = weight_places(self._network)
        flat = _aligned(places[-1][0])
        for layer, (at, biases) in zip(self._network.layers, places[:-1], strict=True):
            flat[at:biases] = pack(layer, state[f"{layer.name}.weight{suffix}"])
            flat[biases : biases + layer.filters] = state[f"{layer.name}.bias{suffix}"]
        return flat

    def _unpacked(self, flat: Array, suffix: str) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {}
        for layer, (at, biases) in zip(self._network.layers, weight_places(self._network)[:-1], strict=True):
            arrays[f"{layer.name}.weight{suffix}"] = unpack(layer, flat[at:biases])
            arrays[f"{layer.name}.bias{suffix}"] = flat[biases : biases + layer.filters].copy()
        return arrays


class _Memory:
    """The plans of a network by their rows, and the arrays that they share."""

    def __init__(self, network: ConvNetwork) -> None:
        self._network = network
        self._plans: dict[tuple[int, bool, int], Plan] = {}
        self.work, self.turned = _aligned(0), _aligned(0)
        self.bits = np.zeros(0, np.uint16)
        self.line, self.other = _aligned(memory.STRIP), _aligned(memory.STRIP)

    def parts(self, rows: int) -> list[Plan]:
        """Return the plans of the parts that a batch of so many rows is trained in."""
        return [self._plan(part, True, rows) for part in self._cut(rows, True, rows)]

    def evaluated(self, rows: int) -> list[Plan]:
        """Return the plans of the parts that so many rows are evaluated in."""
        return [self._plan(part, False, 0) for part in self._cut(rows, False, _EVALUATED)]

    def _cut(self, rows: int, training: bool, most: int) -> list[int]:
        """Return the rows of each part: whole tiles of rows, but for the last part."""
        fit = PART_BYTES // self._bytes_a_row(training)
        least = max(min(max(fit, LEAST_ROWS), most), 1)
        parts = -(-rows // least)
        size = -(-rows // parts) if parts else 0
        if parts > 1:
            size = -(-size // products.TILE_ROWS) * products.TILE_ROWS
        return [min(size, rows - first) for first in range(0, rows, size)] if rows else []

    def _bytes_a_row(self, training: bool) -> int:
        """Return about how many bytes a row takes, where nothing is saved."""
        numbers = sum(
            padded(layer.filters) * (layer.conv_size**2 + (layer.out_size**2 if layer.pool else 0))
            for layer in self._network.layers
        )
        return 4 * (2 if training else 1) * numbers

    def _plan(self, rows: int, training: bool, batch: int) -> Plan:
        key = (rows, training, batch)
        if key not in self._plans:
            plan = self._plans[key] = make_plan(self._network, rows, training=training, batch=batch)
            if plan.shape.work > self.work.size:
                self.work = _aligned(plan.shape.work)
            if plan.shape.turned > self.turned.size:
                self.turned = _aligned(plan.shape.turned)
            if plan.shape.bits > self.bits.size:
                self.bits = np.zeros(plan.shape.bits, np.uint16)
        return self._plans[key]


def _aligned(count: int) -> Array:
    """Return zeros, float32, that begin at the start of a cache line."""
    room = np.zeros(count + 16, np.float32)
    skip = (-room.ctypes.data // 4) % 16
    return room[skip : skip + count]
