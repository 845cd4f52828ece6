"""Stacks of runs: trained by an engine, stopped and gone on with, and made rows of the run frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from operator import itemgetter

import msgspec
import numpy as np
import pyarrow as pa

from butter_etl.clusters import host_facts
from butter_etl.engines import HISTORIES, Device, State, Trained, cpu_family, load_engine, stack_starts
from butter_etl.errors import CheckpointError, counted
from butter_etl.studies import (
    RUN_FILE_SCHEMA,
    TASK,
    TASK_VERSION,
    Dataset,
    ExperimentSpec,
    RunSpec,
    find_topology,
    gpu_stack_limit,
    network_of,
    network_structure,
    optimization_of,
    stack_data,
    stack_key,
    sweep_flags,
    variant_of,
)

COMPLETED = "completed"
#: The end reason of a run that was stopped and went on on another kind of processor: its bits are those of neither.
COMPLETED_ELSEWHERE = "completed on another CPU family"


class Item(msgspec.Struct, frozen=True):
    """Repetitions of one experiment, trained in one stack. ``batch`` names the sweep that asked."""

    spec: ExperimentSpec
    experiment_id: int
    batch: str
    repetitions: tuple[int, ...]

    def runs(self) -> list[RunSpec]:
        """Return the item's runs, in the order of ``repetitions``."""
        return [RunSpec(self.spec, repetition) for repetition in self.repetitions]


class Stack(msgspec.Struct, frozen=True):
    """Runs that are trained side by side, with the engine and the kind of device that train them."""

    items: tuple[Item, ...]
    engine: str
    device: Device

    def runs(self) -> list[RunSpec]:
        """Return the stack's runs, item by item."""
        return [run for item in self.items for run in item.runs()]

    def describe(self) -> str:
        """Return a short name for people."""
        others = f" and {counted(len(self.items) - 1, 'more experiment')}" if len(self.items) > 1 else ""
        return f"{self.items[0].spec.describe()}{others}"


@dataclass(frozen=True)
class Unfinished:
    """A stack that was stopped between two epochs, with all that `train_stack` needs to go on.

    ``core_seconds`` were spent on the whole stack so far, from unix time ``started`` on; ``cpu_families`` are the kinds
    of processor that had a part in it.
    """

    stack: Stack
    state: State
    core_seconds: float
    started: int
    cpu_families: tuple[str, ...]


#: ``watch(epochs, take)``: what `butter_etl.engines.contract.Watch` is to an engine, for a stack of experiments.
#: ``epochs`` are those trained so far, added up over the stack's runs; ``take()`` copies out what is needed to go on.
StackWatch = Callable[[int, Callable[[], Unfinished]], None]


def train_stack(
    stack: Stack,
    dataset: Dataset,
    *,
    resume: Unfinished | None = None,
    watch: StackWatch | None = None,
) -> list[pa.Table]:
    """Train the runs of ``stack`` side by side; return a table an item, a row a run, in `RUN_FILE_SCHEMA`.

    The experiments may differ in learning rate, momentum, penalty and label noise alone (`stack_key`). ``resume`` is
    what training goes on from, to the same bits, where it was stopped before; ``watch`` is called between epochs, may
    copy out what is needed to go on, and stops the training by raising.

    Raises InfeasibleError for an experiment that has no topology, CheckpointError where ``resume`` is of another
    stack, DeviceMemoryError where the stack is too large for a GPU, ValueError where the experiments differ in more.
    """
    if resume and resume.stack != stack:
        raise CheckpointError(f"{stack.describe()}: what was stopped is another stack; train it from the start")
    if len({stack_key(item.spec) for item in stack.items}) > 1:
        raise ValueError(f"{stack.describe()}: they cannot be trained side by side")
    runs = stack.runs()
    seeds = [run.seed for run in runs]
    info, spec = dataset.info, stack.items[0].spec
    topology = find_topology(spec.shape, spec.size, spec.depth, info.inputs, info.outputs)
    network, optimization = network_of(spec, info.inputs, topology.widths), optimization_of(spec)
    variants = [variant_of(run.experiment, network) for run in runs]
    train, clock = load_engine(stack.engine), _Clock(resume)

    def watch_engine(epochs: int, take_state: Callable[[], State]) -> None:
        if watch is not None:
            watch(epochs, lambda: clock.unfinished(stack, take_state()))

    data = stack_data([run.experiment for run in runs], dataset, seeds)
    start = resume.state if resume else stack_starts(seeds, network)
    trained = train(
        network, optimization, data, seeds, start, device=stack.device, variants=variants, watch=watch_engine
    )
    constant: dict[str, object] = {
        "task": TASK,
        **host_facts(),
        "num_free_parameters": topology.num_free_parameters,
        "widths": list(topology.widths),
        "task_version": TASK_VERSION,
        "start_time": clock.started,
        "update_time": int(time.time()),
        "engine": stack.engine,
        "device": stack.device,
        "stack": len(runs),
        "core_seconds": clock.core_seconds() / len(runs),
        "end_reason": COMPLETED if len(clock.cpu_families) == 1 else COMPLETED_ELSEWHERE,
    }
    structures = [network_structure(item.spec, info.inputs, topology.widths) for item in stack.items]
    ends = np.cumsum([len(item.repetitions) for item in stack.items]).tolist()
    return [
        _run_rows(item, {**constant, "network_structure": structure}, trained, slice(end - len(item.repetitions), end))
        for item, structure, end in zip(stack.items, structures, ends, strict=True)
    ]


def fitting_stacks(stack: Stack, dataset: Dataset) -> list[Stack]:
    """Return the stack as it is on a CPU; cut it for a GPU into as few even ones as fit into the memory free there."""
    if stack.device != "cuda":
        return [stack]
    from butter_etl.engines import free_gpu_bytes

    spec, info = stack.items[0].spec, dataset.info
    topology = find_topology(spec.shape, spec.size, spec.depth, info.inputs, info.outputs)
    return cut_stack(stack, gpu_stack_limit(spec, topology, info, free_gpu_bytes()))


def cut_stack(stack: Stack, most: int) -> list[Stack]:
    """Cut a stack into even ones of at most ``most`` runs, in their order."""
    runs = [(item, repetition) for item in stack.items for repetition in item.repetitions]
    parts = -(-len(runs) // most)
    ends = [len(runs) * part // parts for part in range(parts + 1)]
    return [
        msgspec.structs.replace(
            stack,
            items=tuple(
                msgspec.structs.replace(item, repetitions=tuple(repetition for _, repetition in mine))
                for item, mine in groupby(runs[first:end], key=itemgetter(0))
            ),
        )
        for first, end in pairwise(ends)
    ]


def cut_unfinished(unfinished: Unfinished, most: int) -> list[Unfinished]:
    """Cut a stack that was stopped into even ones of at most ``most`` runs, each with its share of the core-seconds."""
    runs, first, found = len(unfinished.stack.runs()), 0, []
    for part in cut_stack(unfinished.stack, most):
        rows = slice(first, first + len(part.runs()))
        share = unfinished.core_seconds * len(part.runs()) / runs
        found.append(replace(unfinished, stack=part, state=unfinished.state.part(rows), core_seconds=share))
        first = rows.stop
    return found


class _Clock:
    """The time that training a stack has taken, with what it had taken before it was stopped."""

    def __init__(self, earlier: Unfinished | None) -> None:
        self.started = earlier.started if earlier else int(time.time())
        self.cpu_families = tuple(dict.fromkeys([*(earlier.cpu_families if earlier else ()), cpu_family()]))
        self._earlier = earlier.core_seconds if earlier else 0.0
        self._begun = time.thread_time()

    def core_seconds(self) -> float:
        """Return the core-seconds of the whole stack so far."""
        return self._earlier + time.thread_time() - self._begun

    def unfinished(self, stack: Stack, state: State) -> Unfinished:
        """Return the stack as it stands, in a state of the engine's."""
        return Unfinished(stack, state, self.core_seconds(), self.started, self.cpu_families)


def _run_rows(item: Item, constant: dict[str, object], trained: Trained, rows: slice) -> pa.Table:
    """Return the rows of one item, whose runs are ``rows`` of the stack."""
    runs = item.runs()
    constant = {
        **constant,
        **item.spec.parameters(),
        **sweep_flags(item.spec),
        "experiment_id": item.experiment_id,
        "batch": item.batch,
    }
    varying: dict[str, list[object]] = {
        "run_id": [run.run_id for run in runs],
        "seed": [run.seed for run in runs],
        "repetition": [run.repetition for run in runs],
        "command": [run.command(item.batch) for run in runs],
    }
    columns = {}
    for field in RUN_FILE_SCHEMA:
        if field.name in HISTORIES:
            columns[field.name] = _list_column(trained.histories[field.name][rows])
        elif field.name in varying:
            columns[field.name] = pa.array(varying[field.name], type=field.type)
        else:
            columns[field.name] = pa.array([constant[field.name]] * len(runs), type=field.type)
    return pa.table(columns, schema=RUN_FILE_SCHEMA)


def _list_column(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> pa.ListArray:
    """Return a float32 array (runs, epochs) as a list column, NaN kept as NaN."""
    runs, epochs = values.shape
    offsets = np.arange(runs + 1, dtype=np.int32) * np.int32(epochs)
    flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1), type=pa.float32())
    return pa.ListArray.from_arrays(offsets, flat).cast(RUN_FILE_SCHEMA.field(HISTORIES[0]).type)
