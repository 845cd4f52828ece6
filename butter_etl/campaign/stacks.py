"""Stacks of runs: trained by an engine, stopped and gone on with, and made rows of the run frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from butter_etl.clusters import host_facts
from butter_etl.engines import Device, array_of, column_of, cpu_family
from butter_etl.errors import CheckpointError, StudyError, counted
from butter_etl.studies import RUN_COLUMNS, OwnExperiment, Results, RunSpec, State, Study, to_json

COMPLETED = "completed"
#: What is added to the end reason of a run that was stopped and went on on another kind of processor: its bits are
#: those of neither.
ELSEWHERE = " on another CPU family"
COMPLETED_ELSEWHERE = f"{COMPLETED}{ELSEWHERE}"


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """Repetitions of one experiment, trained in one stack. ``batch`` names the sweep that asked.

    ``given`` is what was proposed for repetitions, these and others, as JSON.
    """

    spec: OwnExperiment
    experiment_id: int
    batch: str
    repetitions: tuple[int, ...]
    given: tuple[tuple[int, str], ...] = ()

    def runs(self) -> list[RunSpec]:
        """Return the item's runs, in the order of ``repetitions``."""
        given = dict(self.given)
        return [RunSpec(self.spec, repetition, given.get(repetition)) for repetition in self.repetitions]


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
    """A stack that was stopped between two steps, with all that `train_stack` needs to go on.

    ``core_seconds`` were spent on the whole stack so far, from unix time ``started`` on; ``cpu_families`` are the kinds
    of processor that had a part in it, and ``environment`` is where it was trained, if that was the same throughout.
    """

    stack: Stack
    state: State
    core_seconds: float
    started: int
    cpu_families: tuple[str, ...]
    environment: str | None = None


#: ``watch(points, take)``: what `butter_etl.studies.trainers.Watch` is to a trainer, for a stack of experiments.
#: ``points`` are those trained so far, added up over the stack's runs; ``take()`` copies out what is needed to go on.
StackWatch = Callable[[float, Callable[[], Unfinished]], None]


def train_stack(
    study: Study,
    stack: Stack,
    data: Any,
    *,
    resume: Unfinished | None = None,
    watch: StackWatch | None = None,
) -> list[pa.Table]:
    """Train the runs of ``stack`` side by side; return a table an item, a row a run, in the schema of run files.

    ``data`` is what the study's trainer has loaded for them. ``resume`` is what training goes on from, to the same
    bits, where it was stopped before; ``watch`` is called between points and within them, may copy out what is needed
    to go on, and stops the training by raising.

    Raises InfeasibleError for an experiment that cannot be built, CheckpointError where ``resume`` is of another
    stack, DeviceMemoryError where the stack is too large for a GPU, ValueError where runs cannot share a stack,
    StudyError where the trainer returns what the study does not have.
    """
    if resume and resume.stack != stack:
        raise CheckpointError(f"{stack.describe()}: what was stopped is another stack; train it from the start")
    runs = stack.runs()
    if len({study.trainer.stack_key(run) for run in runs}) > 1:
        raise ValueError(f"{stack.describe()}: they cannot be trained side by side")
    clock, environment = _Clock(resume), _Environment(study, stack, data, resume)

    def watch_trainer(points: float, take_state: Callable[[], State]) -> None:
        if watch is not None:
            watch(points, lambda: clock.unfinished(stack, take_state(), environment.text))

    results = study.trainer.train(
        runs,
        data,
        engine=stack.engine,
        device=stack.device,
        start=resume.state if resume else None,
        watch=watch_trainer,
    )
    _check_results(study, runs, results)
    constant: dict[str, object] = {
        "task": study.task,
        **host_facts(),
        "task_version": study.task_version,
        "start_time": clock.started,
        "update_time": int(time.time()),
        "engine": stack.engine,
        "device": stack.device,
        "stack": len(runs),
        "core_seconds": clock.core_seconds() / len(runs),
        "environment": environment.text,
    }
    elsewhere = ELSEWHERE if len(clock.cpu_families) > 1 else ""
    reasons = [f"{said or COMPLETED}{elsewhere}" for said in results.end_reasons or [None] * len(runs)]
    results = replace(results, end_reasons=reasons)
    ends = np.cumsum([len(item.repetitions) for item in stack.items]).tolist()
    return [
        _run_rows(study, item, constant, results, slice(end - len(item.repetitions), end))
        for item, end in zip(stack.items, ends, strict=True)
    ]


def fitting_stacks(study: Study, stack: Stack, data: Any) -> list[Stack]:
    """Return the stack as it is, or cut into as few even ones as fit into the memory that is free here."""
    runs = stack.runs()
    most = study.trainer.fitting(runs, data, stack.device)
    return [stack] if most >= len(runs) else cut_stack(stack, most)


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

    def unfinished(self, stack: Stack, state: State, environment: str | None) -> Unfinished:
        """Return the stack as it stands, in a state of the engine's."""
        return Unfinished(stack, state, self.core_seconds(), self.started, self.cpu_families, environment)


class _Environment:
    """Where a stack is trained, as its rows say it; null if parts of it were trained elsewhere, or nobody knows."""

    def __init__(self, study: Study, stack: Stack, data: Any, earlier: Unfinished | None) -> None:
        self._study, self._stack, self._data, self._earlier = study, stack, data, earlier

    @cached_property
    def text(self) -> str | None:
        """Return canonical JSON; it is found when it is asked for, which is after the trainer has loaded packages."""
        facts = self._study.trainer.environment(self._data, self._stack.engine, self._stack.device)
        here = to_json(facts)
        return here if self._earlier is None or self._earlier.environment == here else None


def _check_results(study: Study, runs: Sequence[RunSpec], results: Results) -> None:
    """Raise StudyError unless a trainer's results are of these runs, and in columns that are theirs to fill."""
    others = {*study.parameters, *study.flags, *study.keys, *study.histories, *RUN_COLUMNS}
    unknown = [*(results.histories.keys() - set(study.histories))]
    unknown += [name for name in results.details if name in others or name not in study.run_files.names]
    missing = [name for name in study.histories if name not in results.histories]
    if unknown or missing:
        what = f"returns {', '.join(sorted(unknown))}" if unknown else f"does not return {', '.join(missing)}"
        raise StudyError(f"study {study.name}: its trainer {what}; it has the histories {', '.join(study.histories)}")
    ends = {} if results.end_reasons is None else {"end_reasons": results.end_reasons}
    for name, values in {**results.histories, **results.details, **ends}.items():
        if len(values) != len(runs):
            raise StudyError(f"study {study.name}: its trainer returns {len(values)} of {name} for {len(runs)} runs")
    for name, values in results.histories.items():
        for run, history in zip(runs, values, strict=True):
            if len(history) > study.trainer.points(run):
                said = f"{len(history)} of {name} for {counted(study.trainer.points(run), study.points.name)}"
                raise StudyError(f"study {study.name}: its trainer returns {said}")


def _run_rows(study: Study, item: Item, constant: Mapping[str, object], results: Results, rows: slice) -> pa.Table:
    """Return the rows of one item, whose runs are ``rows`` of the stack; what nobody says of them is null."""
    runs = item.runs()
    said: dict[str, object] = {
        **constant,
        **item.spec.parameters(),
        **study.trainer.derive(item.spec),
        **study.flags_of(item.spec),
        "experiment_id": item.experiment_id,
        "batch": item.batch,
    }
    varying: dict[str, Sequence[Any]] = {
        "run_id": [run.run_id for run in runs],
        "seed": [run.seed for run in runs],
        "repetition": [run.repetition for run in runs],
        "command": [run.command(item.batch) for run in runs],
        "end_reason": (results.end_reasons or ())[rows],
        **{name: values[rows] for name, values in results.details.items()},
    }
    columns = {}
    for field in study.run_files:
        if field.name in results.histories:
            columns[field.name] = _list_column(results.histories[field.name][rows], field.type)
        elif field.name in varying:
            columns[field.name] = column_of(varying[field.name], field.type)
        else:
            columns[field.name] = column_of([said.get(field.name)] * len(runs), field.type)
    return pa.table(columns, schema=study.run_files)


def _list_column(values: Any, kind: pa.DataType) -> pa.Array:
    """Return an array (runs, points), or an array a run, as a list column, NaN kept as NaN.

    Raises ArrowInvalid for numbers that whole ones of the column's type cannot be.
    """
    parts = [np.asarray(one) for one in values]
    offsets = np.cumsum([0, *(part.size for part in parts)], dtype=np.int32)
    filled = [part for part in parts if part.size]
    flat = np.concatenate(filled) if filled else np.zeros(0)
    # Arrow looks at each number; NumPy would wrap whole ones around.
    wanted = kind.value_type
    is_whole = pa.types.is_integer(wanted)
    elements = array_of(flat).cast(wanted) if is_whole else array_of(flat.astype(wanted.to_pandas_dtype()))
    return pa.ListArray.from_arrays(array_of(offsets), elements).cast(kind)
