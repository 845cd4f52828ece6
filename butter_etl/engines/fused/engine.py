"""The fast engine on a CPU: one run after the other, each whole epoch in compiled code
(`butter_etl.engines.fused.kernels`).

A run's bits do not depend on the stack that it is in, on other threads, on how many batches one call trains, or on
whether it was stopped and went on; on another kind of CPU they may differ in the last digits. The interpreter is not
held while a run trains, so threads can train different stacks side by side and share the data.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from butter_etl.engines import kernel_cache, streams
from butter_etl.engines.contract import HISTORIES, METRICS, State, Trained, Variant
from butter_etl.engines.fused import kernels, lanes, measures, memory, products, vector_math
from butter_etl.engines.fused.memory import Plan, Run, Scratch
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from butter_etl.engines.contract import Device, Network, Optimization, StackData, Watch, Weights
    from butter_etl.engines.host import Facts

_LOSSES = {
    "categorical_crossentropy": memory.SOFTMAX_CROSSENTROPY,
    "binary_crossentropy": memory.SIGMOID_CROSSENTROPY,
    "mean_squared_error": memory.SQUARED_ERROR,
}
_OPTIMIZERS = {"adam": memory.ADAM, "SGD": memory.SGD, "RMSprop": memory.RMSPROP}
_REGULARIZERS = {None: memory.NO_PENALTY, "l1": memory.L1, "l2": memory.L2}

#: The source files of the kernels: the cache of compiled kernels is keyed by them.
SOURCES = [
    Path(module.__file__)
    for module in (kernels, measures, products, memory, lanes, vector_math, streams)
    if module.__file__
]

#: A call of compiled code lasts about so long (or one batch): interrupts are noticed in between.
SECONDS_PER_CALL = 1.0

#: The name of each row of a run's histories, as `kernels.run_batches` fills them.
_ROWS = (*METRICS, *(f"val_{name}" for name in METRICS))


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
    """Train ``len(seeds)`` runs from ``start``, one after the other; see `butter_etl.engines.contract.Engine`.

    Raises UsageError where the device is not a CPU, or a residual network's hidden layers differ in width.
    """
    if device != "cpu":
        raise UsageError(f"the fused engine runs on a CPU only, not on {device}; take the torch engine there")
    if network.residual and len(set(network.widths[:-1])) > 1:
        raise UsageError(f"a residual network needs hidden layers of one width, not {network.widths[:-1]}")
    tables = _Tables(data, network.loss)
    plan, layers, work_size = make_plan(network, optimization, data, tables)
    scratch = _make_scratch(plan, work_size)
    stack = _Stack(start, plan, layers, scratch, len(seeds), optimization.epochs)
    for number, seed in enumerate(seeds):
        run = stack.begin(number, _make_run(tables, number, seed, stack.weights[number], stack.moments(number)))
        own = _complete(plan, variants[number] if variants else Variant.of(network, optimization))
        if number == 0:
            # All runs of a stack have arguments of the same types; finding out takes longer than short runs.
            kernel_cache.ready(kernels.run_batches, (own, run, scratch, layers, stack.history(0), 0, 1), SOURCES)
        train_run(own, run, scratch, layers, stack.history(number), stack.behind(number), stack.watched(watch))
    return Trained(histories=stack.histories(), weights=stack.layered(stack.weights))


def facts(_device: Device) -> Facts:
    """Return what kernels are compiled for; a run is trained by one thread, wherever others are trained beside it."""
    return {"target": kernel_cache.target(), "threads": 1}


def prepare(
    network: Network, optimization: Optimization, data: StackData, seeds: Sequence[int], start: Weights
) -> tuple[Plan, Run, Scratch, NDArray[np.int64]]:
    """Return the arguments of the `kernels` for the first run of a stack, to measure them one by one."""
    tables = _Tables(data, network.loss)
    plan, layers, work_size = make_plan(network, optimization, data, tables)
    weights = _flatten(start, plan, layers)[0]
    run = _make_run(tables, 0, seeds[0], weights, (_aligned(weights.size), _aligned(weights.size)))
    return _complete(plan, Variant.of(network, optimization)), run, _make_scratch(plan, work_size), layers


class _Stack:
    """The runs of a stack, of which one is being trained; those before it are finished."""

    _run: Run
    _number: int

    def __init__(
        self, start: Weights | State, plan: Plan, layers: NDArray[np.int64], scratch: Scratch, runs: int, epochs: int
    ) -> None:
        self._layers, self._scratch = layers, scratch
        self._begun = start if isinstance(start, State) else None
        self._shapes = start.weights if isinstance(start, State) else start
        self.weights = _flatten(self._shapes, plan, layers)
        self._earlier = [_flatten(moment, plan, layers) for moment in self._begun.moments] if self._begun else []
        self._values = np.full((runs, len(HISTORIES), epochs), np.nan, dtype=np.float32)
        self._batches_an_epoch = _batches_an_epoch(plan)
        #: The batches that each run has behind it, those of all epochs.
        self._behind = np.zeros(runs, dtype=np.int64)
        if self._begun:
            self._behind += self._begun.epochs * self._batches_an_epoch + self._begun.batches
            for row, name in enumerate(_ROWS):
                self._values[:, row] = self._begun.histories[name]

    def begin(self, number: int, run: Run) -> Run:
        """Make run ``number`` the one that is being trained, and return ``run``."""
        self._number, self._run = number, run
        if self._begun and self._begun.sums is not None:
            self._scratch.sums[:], self._scratch.test_sums[:] = np.split(self._begun.sums[number], 2)
        return run

    def behind(self, run: int) -> int:
        """Return the number of batches that a run has behind it, those of all epochs."""
        return int(self._behind[run])

    def moments(self, run: int) -> tuple[NDArray[np.float32], ...]:
        """Return the two moments that a run begins with or goes on from."""
        if self._earlier:
            return tuple(moment[run] for moment in self._earlier)
        return _aligned(self.weights[run].size), _aligned(self.weights[run].size)

    def history(self, run: int) -> NDArray[np.float32]:
        """Return a run's histories (20, epochs), to be filled."""
        values: NDArray[np.float32] = self._values[run]
        return values

    def histories(self) -> dict[str, NDArray[np.float32]]:
        """Return copies of the histories of all runs by name, float32 (runs, epochs)."""
        return {name: self._values[:, row].copy() for row, name in enumerate(_ROWS)}

    def layered(self, flat: list[NDArray[np.float32]]) -> Weights:
        """Return the runs' flat arrays, as kernels have them, as (kernel, bias) pairs."""
        return _layered(flat, self._shapes, self._layers)

    def state(self) -> State:
        """Return a copy of all that is needed to go on."""
        nothing = np.zeros_like(self._run.weights)
        moments = tuple(
            self.layered([moment if run == self._number else nothing for run in range(len(self.weights))])
            for moment in (self._run.first_moment, self._run.second_moment)
        )
        epochs, batches = np.divmod(self._behind, self._batches_an_epoch)
        sums = None
        if batches.any():
            sums = np.zeros((len(self.weights), self._scratch.sums.size + self._scratch.test_sums.size))
            sums[self._number] = np.concatenate([self._scratch.sums, self._scratch.test_sums])
        return State(epochs, batches, self.layered(self.weights), moments, self.histories(), sums)

    def watched(self, watch: Watch | None) -> Callable[[int], None]:
        """Return a function to call with each number of batches that the run reaches; it calls ``watch``.

        It does not call ``watch`` when all runs are finished.
        """

        def reached(batch: int) -> None:
            self._behind[self._number] = batch
            done = int(self._behind.sum()) / self._batches_an_epoch
            if watch is not None and done < self._values.shape[2] * len(self.weights):
                watch(done, self.state)

        return reached


def _batches_an_epoch(plan: Plan) -> int:
    return sum(-(-count // plan.batch_size) for count in (plan.train_count, plan.test_count))


def train_run(
    plan: Plan,
    run: Run,
    scratch: Scratch,
    layers: NDArray[np.int64],
    history: NDArray[np.float32],
    first: int = 0,
    reached: Callable[[int], None] = lambda batch: None,
) -> None:
    """Train one run in place from batch ``first`` on and fill ``history`` (20, epochs).

    Compiled code is called for about `SECONDS_PER_CALL` at a time, and to the end of an epoch where it comes to one;
    after each call ``reached`` gets the number of batches done.
    """
    epoch = _batches_an_epoch(plan)
    end, count = history.shape[1] * epoch, 1
    while first < end:
        last = min(first + count, end)
        if last // epoch > first // epoch:
            last -= last % epoch
        started = time.perf_counter()
        kernels.run_batches(plan, run, scratch, layers, history, first, last)
        seconds = max(time.perf_counter() - started, 1e-6)
        # At most tenfold: the first batches, in a cold cache, tell little.
        count = max(1, min(10 * count, int((last - first) * SECONDS_PER_CALL / seconds)))
        first = last
        reached(first)


class _Tables:
    """The data as kernels take it: float32 tables of at least four columns, flat and read-only."""

    def __init__(self, data: StackData, loss: str) -> None:
        self.train_rows, self.test_rows = data.train_rows, data.test_rows
        self.features, self.feature_columns = _table(data.x)
        self.train_kinds = [_kind(targets, loss) for targets in data.train_targets]
        everywhere = _kind(data.y, loss)
        self.test_kinds = [
            everywhere if everywhere == memory.ONE_HOT else _kind(data.y[rows], loss) for rows in data.test_rows
        ]
        self.test_targets, self.target_columns = _table(data.y)
        self.test_classes = _classes(data.y)
        self.train_targets = [
            _classes(targets) if kind == memory.ONE_HOT else _table(targets)[0]
            for targets, kind in zip(data.train_targets, self.train_kinds, strict=True)
        ]


def _table(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    rows, columns = values.shape
    table = np.ascontiguousarray(values, dtype=np.float32)
    if columns < lanes.COLUMNS:
        table = np.zeros((rows, lanes.COLUMNS), dtype=np.float32)
        table[:, :columns] = values
    return _read_only(table), table.shape[1]


def _read_only(values: NDArray[np.float32]) -> NDArray[np.float32]:
    # Always read-only, so that compiled code sees one type whatever it is given.
    view = values.reshape(-1).view()
    view.flags.writeable = False
    return view


def _kind(targets: NDArray[np.float32], loss: str) -> int:
    if np.count_nonzero(targets == 0) + np.count_nonzero(targets == 1) < targets.size:
        return memory.SPREAD
    # A product with ones: NumPy's sums over short rows are slow.
    one_hot = loss == "categorical_crossentropy" and (targets @ np.ones(targets.shape[1], np.float32) == 1).all()
    return memory.ONE_HOT if one_hot else memory.BINARY


def _classes(targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the class of each one-hot row, float32 (rows,), read-only; what other rows get has no meaning."""
    numbers = np.arange(targets.shape[1], dtype=np.float32)
    return _read_only((targets @ numbers).astype(np.float32, copy=False))


def make_plan(
    network: Network, optimization: Optimization, data: StackData, tables: _Tables
) -> tuple[Plan, NDArray[np.int64], int]:
    """Return the plan of a stack, its layer table, and the number of elements of ``work``.

    The plan lacks what runs may differ in (`_complete`). The layer table is int64 (depth, `memory.LAYER_COLUMNS`).
    """
    panels = -(-min(optimization.batch_size, max(data.train_rows.shape[1], data.test_rows.shape[1])) // lanes.LANES)
    work = _Regions(panels)
    widths = network.widths
    layers = np.zeros((len(widths), memory.LAYER_COLUMNS), dtype=np.int64)
    kernel_sizes = [fan_in * width for fan_in, width in pairwise([network.inputs, *widths])]
    biases = _whole_vectors(sum(kernel_sizes))
    layer_input = work.add(tables.feature_columns)
    for number, (fan_in, width) in enumerate(pairwise([network.inputs, *widths])):
        relu = work.add(width)
        added = network.residual and 0 < number < len(widths) - 1
        output = work.add(width) if added else relu
        kernel, bias = sum(kernel_sizes[:number]), biases + sum(widths[:number])
        layers[number] = fan_in, width, kernel, bias, layer_input, relu, output
        layer_input = output
    widest = max(widths)
    plan = Plan(
        depth=len(widths),
        outputs=widths[-1],
        loss=_LOSSES[network.loss],
        residual=network.residual,
        regularizer=_REGULARIZERS[None],
        optimizer=_OPTIMIZERS[optimization.optimizer],
        batch_size=optimization.batch_size,
        train_count=data.train_rows.shape[1],
        test_count=data.test_rows.shape[1],
        shuffle=optimization.shuffle,
        feature_columns=tables.feature_columns,
        target_columns=tables.target_columns,
        biases=biases,
        targets=work.add(tables.target_columns),
        target_step=_panel_step(tables.target_columns),
        error=work.add(widest),
        other_error=work.add(widest),
        upstream=work.add(widest),
        error_step=_panel_step(widest),
        transposed=work.add(lanes.LANES),
        partial=work.add(memory.METRIC_COUNT),
        learning_rate=0.0,
        momentum=0.0,
        penalty=0.0,
    )
    return plan, layers, work.size


def _complete(plan: Plan, variant: Variant) -> Plan:
    """Return a stack's plan, completed by the settings that are a run's own."""
    return plan._replace(
        regularizer=_REGULARIZERS[variant.regularizer],
        learning_rate=float(variant.learning_rate),
        momentum=float(variant.momentum),
        penalty=float(variant.penalty),
    )


class _Regions:
    """Places in ``work``, one after the other."""

    def __init__(self, panels: int) -> None:
        self._panels = panels
        self.size = 0

    def add(self, features: int) -> int:
        """Reserve a region for so many features, and return where it begins."""
        begin = self.size
        self.size += self._panels * _panel_step(features)
        return begin


def _panel_step(features: int) -> int:
    return lanes.LANES * (features | 1)


def _whole_vectors(count: int) -> int:
    return -(-count // lanes.LANES) * lanes.LANES


def _aligned(count: int) -> NDArray[np.float32]:
    """Return float32 zeros (count,) that begin at a cache line, so that no vector crosses two."""
    memory = np.zeros(count + lanes.LANES, dtype=np.float32)
    first = -memory.ctypes.data % (4 * lanes.LANES) // 4
    return memory[first : first + count]


def _make_scratch(plan: Plan, work_size: int) -> Scratch:
    rows = _whole_vectors(min(plan.batch_size, max(plan.train_count, plan.test_count)))
    return Scratch(
        work=_aligned(work_size),
        sums=np.zeros((len(METRICS) + 2) * lanes.LANES, dtype=np.float64),
        test_sums=np.zeros((len(METRICS) + 2) * lanes.LANES, dtype=np.float64),
        order=np.arange(plan.train_count, dtype=np.uint32),
        words=np.empty(-(-plan.train_count // 4) * 4, dtype=np.uint32),
        feature_starts=np.zeros(rows, dtype=np.int64),
        target_starts=np.zeros(rows, dtype=np.int64),
    )


def _flatten(start: Weights, plan: Plan, layers: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Copy each run's start weights into the layout of `memory.Run`."""
    size = plan.biases + _whole_vectors(int(layers[:, memory.WIDTH].sum()))
    runs = []
    for run in range(len(start[0][0])):
        weights = _aligned(size)
        for layer, (kernel, bias) in zip(layers, start, strict=True):
            weights[layer[memory.KERNEL] :][: kernel[run].size] = kernel[run].reshape(-1)
            weights[layer[memory.BIAS] :][: bias[run].size] = bias[run]
        runs.append(weights)
    return runs


def _make_run(
    tables: _Tables, run: int, seed: int, weights: NDArray[np.float32], moments: tuple[NDArray[np.float32], ...]
) -> Run:
    return Run(
        features=tables.features,
        train_targets=tables.train_targets[run],
        test_targets=tables.test_classes if tables.test_kinds[run] == memory.ONE_HOT else tables.test_targets,
        train_rows=np.array(tables.train_rows[run], dtype=np.uint32),
        test_rows=np.array(tables.test_rows[run], dtype=np.uint32),
        weights=weights,
        gradient=_aligned(weights.size),
        first_moment=moments[0],
        second_moment=moments[1],
        key_low=seed & 0xFFFFFFFF,
        key_high=(seed >> 32) & 0xFFFFFFFF,
        train_kind=tables.train_kinds[run],
        test_kind=tables.test_kinds[run],
    )


def _layered(flat: list[NDArray[np.float32]], start: Weights, layers: NDArray[np.int64]) -> Weights:
    """Return the runs' flat weights as (kernel, bias) pairs of the shapes of ``start``."""
    stacked = np.stack(flat)
    result = []
    for layer, (kernel, bias) in zip(layers, start, strict=True):
        first, width, place = layer[memory.KERNEL], layer[memory.WIDTH], layer[memory.BIAS]
        parts = stacked[:, first : first + kernel[0].size], stacked[:, place : place + width]
        result.append((parts[0].reshape(kernel.shape).copy(), parts[1].reshape(bias.shape).copy()))
    return result
