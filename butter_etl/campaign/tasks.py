"""Tasks, one for each Dask future: how they are cut, and how one trains, keeps checkpoints, and lands what it trained.

A task may be killed at any moment, be run twice, and be run at the same time as another that holds the same runs: what
has landed is not trained again, what has a checkpoint goes on from there, and a landing keeps each repetition once.
"""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from butter_etl.campaign.attempts import begin_attempt, end_attempt, runs_together
from butter_etl.campaign.checkpoints import Checkpoints
from butter_etl.campaign.cutting import Task
from butter_etl.campaign.progress import Teller
from butter_etl.campaign.stacks import (
    Item,
    Stack,
    StackWatch,
    Unfinished,
    cut_stack,
    cut_unfinished,
    fitting_stacks,
    train_stack,
)
from butter_etl.campaign.vigil import Stopped, Vigil
from butter_etl.clusters import Sealed, at_work, leave_worker
from butter_etl.engines import Device
from butter_etl.errors import AttemptsError, ButterError, DeviceMemoryError, FullDiskError, one_line
from butter_etl.store import Store, cached_copy
from butter_etl.studies import OwnExperiment, Study

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True):
    """Settings that all tasks of a campaign share.

    ``claim`` is the token of the driver's claims (None: it has none), ``checkpoint_seconds`` how long a task trains
    between two checkpoints.
    """

    store: str
    state: str
    study: Study
    data_dir: str
    engine: str
    device: Device
    claim: str | None = None
    checkpoint_seconds: float = 300.0


class TaskReport(msgspec.Struct, frozen=True):
    """Result of a task, in runs; reports add. ``present`` runs had landed before, ``yielded`` items are unfinished."""

    landed: int = 0
    present: int = 0
    core_seconds: float = 0.0
    yielded: tuple[Item, ...] = ()

    def __add__(self, other: TaskReport) -> TaskReport:
        return TaskReport(
            self.landed + other.landed,
            self.present + other.present,
            self.core_seconds + other.core_seconds,
            self.yielded + other.yielded,
        )


def discard_landed(store: Store) -> None:
    """Remove the checkpoints of stacks that have landed: in stacks cut otherwise, or on a worker that then died."""
    checkpoints = Checkpoints(store.state, store.study)
    for stack in checkpoints.stacks():
        if not any(_missing(store, item).repetitions for item in stack.items):
            checkpoints.discard(stack)


class TaskError(msgspec.Struct, frozen=True):
    """The error of a task: one line, and its traceback.

    ``is_final`` means that trying again would not help, ``is_full_disk`` that nothing else would succeed either.
    """

    line: str
    details: str = ""
    is_final: bool = False
    is_full_disk: bool = False
    kind: str = ""

    @classmethod
    def of(cls, error: BaseException) -> TaskError:
        """Return that of an exception; errors of ours speak for themselves, others are named by their class."""
        line = one_line(error) or type(error).__name__
        return cls(
            line if isinstance(error, ButterError) else f"{type(error).__name__}: {line}",
            "" if isinstance(error, AttemptsError) else "".join(traceback.format_exception(error)),
            is_final=isinstance(error, AttemptsError),
            is_full_disk=isinstance(error, FullDiskError),
            kind=error.kind if isinstance(error, ButterError) else "",
        )


class TaskStopped(Exception):  # noqa: N818 (what was done before the error counts)
    """A task that an error stopped: the report of the items before, and the items that are not done.

    ``failed`` are the items at which it stopped, ``left`` those that it never began.
    """

    def __init__(self, error: TaskError, report: TaskReport, failed: tuple[Item, ...], left: tuple[Item, ...]) -> None:
        super().__init__(error, report, failed, left)
        self.error, self.report, self.failed, self.left = error, report, failed, left


# --- one unit of work --------------------------------------------------------------------------------------------


def train_sealed(task: Sealed[Task], settings: Sealed[Settings]) -> TaskReport:
    """Do a task as workers get it. Raises StudyError where its study cannot be imported, else as `train_and_land`."""
    opened = settings.open()
    return train_and_land(task.open(), opened)


def train_and_land(task: Task, settings: Settings) -> TaskReport:
    """Train the runs of a task that are still missing and land them, item by item.

    What cannot be finished before the job ends, or is no longer this driver's, is reported as ``yielded``. Raises
    TaskStopped where anything else stops it; what landed before stays.
    """
    store = Store.open(settings.store, settings.state, settings.study)
    vigil = Vigil(store.state, settings.claim, settings.checkpoint_seconds)
    teller = Teller()
    report, later = TaskReport(), deque(_side_by_side(settings.study, task.items, settings.device))
    while later:
        if not _has_time_for(vigil, later[0], settings):
            leave_worker()
            return report + TaskReport(yielded=tuple(item for items in later for item in items))
        try:
            with at_work():
                report += _train_items(store, later[0], settings, vigil, teller)
        except Exception as error:  # whatever a study's trainer raises: what landed before is told with it
            teller.pause()
            left = tuple(item for items in list(later)[1:] for item in items)
            raise TaskStopped(TaskError.of(error), report, tuple(later[0]), left) from error
        later.popleft()
    return report


def _side_by_side(study: Study, items: Iterable[Item], device: Device) -> Iterator[list[Item]]:
    """Yield the items that are trained together: each by itself on a CPU, neighbours that fit together on a GPU."""
    if device == "cuda":
        yield from (
            list(group) for _, group in groupby(items, key=lambda item: study.trainer.stack_key(item.runs()[0]))
        )
    else:
        yield from ([item] for item in items)


def _has_time_for(vigil: Vigil, items: Sequence[Item], settings: Settings) -> bool:
    runs = [run for item in items for run in item.runs()]
    cost = settings.study.trainer.estimator(settings.engine, settings.device)(runs[0])
    return vigil.has_time_for(cost.watch_seconds, len(runs) * cost.state_bytes)


def _train_items(store: Store, items: Sequence[Item], settings: Settings, vigil: Vigil, teller: Teller) -> TaskReport:
    """Train what is missing of items that are trained together, in parts where they are too large; land each part."""
    study = store.study
    left = [_missing(store, item) for item in items]
    stack = Stack(tuple(item for item in left if item.repetitions), settings.engine, settings.device)
    report = TaskReport(present=sum(len(item.repetitions) for item in items) - len(stack.runs()))
    if report.present:
        teller.finish(report.present)
    if not stack.items:
        return report
    data = study.trainer.load(items[0].spec, Path(settings.data_dir), _Kept(store))
    checkpoints = Checkpoints(store.state, store.study)
    resume = checkpoints.read(stack)
    attempt = _begin(store, stack, _trained(resume))
    if resume and attempt > 1:
        most = runs_together(len(stack.runs()), attempt)
        parts, resume = deque(_saved_parts(checkpoints, resume, most)), None
    else:
        parts = deque([stack] if resume else _parts(study, stack, data, attempt))
    while parts:
        part = parts.popleft()
        earlier, resume = resume or checkpoints.read(part), None
        watch = _told(study, part, earlier, vigil.over(part.items[0].experiment_id, checkpoints.write), teller)
        try:
            tables = train_stack(study, part, data, resume=earlier, watch=watch)
        except DeviceMemoryError as error:
            parts.extendleft(reversed(_halves(part, error)))
            continue
        except Stopped:
            teller.pause()
            _end(store, stack)
            return report + TaskReport(yielded=tuple(item for one in (part, *parts) for item in one.items))
        report += _land(store, part, tables)
        teller.finish(len(part.runs()))
        checkpoints.discard(part)
    _end(store, stack)
    return report


def _told(study: Study, stack: Stack, resume: Unfinished | None, watch: StackWatch, teller: Teller) -> StackWatch:
    """Return a watch that also tells how far the training of a stack is; tell that it begins."""
    runs = stack.runs()
    teller.begin(len(runs), sum(map(study.trainer.points, runs)), _trained(resume))

    def telling_watch(points: float, take_state: Callable[[], Unfinished]) -> None:
        teller.reach(points)
        watch(points, take_state)

    return telling_watch


class _Kept:
    """What a store keeps for its trainer: users' own data sets."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self, one: OwnExperiment) -> Any:
        """Return the data of an experiment as the store keeps them; raise DatasetError where it does not."""
        kind, info = self._store.study.own_data, self._store.study.own_info(one)
        if kind is None or info is None:
            raise AssertionError(one)
        return cached_copy(self._store.location, info, kind)


def _missing(store: Store, item: Item) -> Item:
    there = store.repetitions_of(item.experiment_id, store.partition_of(item.spec))
    return msgspec.structs.replace(item, repetitions=tuple(rep for rep in item.repetitions if rep not in there))


def _trained(resume: Unfinished | None) -> float:
    """Return the points that a stack has behind it, added up over runs; steps beyond them count a little."""
    return float(resume.state.points.sum()) + 1e-9 * float(resume.state.steps.sum()) if resume else 0.0


def _begin(store: Store, stack: Stack, points: float) -> int:
    return max(begin_attempt(store.state, item.experiment_id, item.repetitions, points) for item in stack.items)


def _end(store: Store, stack: Stack) -> None:
    for item in stack.items:
        end_attempt(store.state, item.experiment_id, item.repetitions)


def _parts(study: Study, stack: Stack, data: Any, attempt: int) -> Iterator[Stack]:
    """Yield the parts of a stack that fit into memory; after each death, which may have been for memory, halve them."""
    for part in fitting_stacks(study, stack, data):
        yield from cut_stack(part, runs_together(len(part.runs()), attempt))


def _saved_parts(checkpoints: Checkpoints, unfinished: Unfinished, most: int) -> Iterator[Stack]:
    """Cut a stack that was begun; each part goes on from a checkpoint of its own."""
    for part in cut_unfinished(unfinished, most):
        checkpoints.write(part)
        yield part.stack
    checkpoints.discard(unfinished.stack)


def _halves(stack: Stack, error: DeviceMemoryError) -> list[Stack]:
    runs = len(stack.runs())
    if runs == 1:
        raise error
    logger.warning("%s; trying halves", error)
    return list(cut_stack(stack, -(-runs // 2)))


def _land(store: Store, stack: Stack, tables: Sequence[pa.Table]) -> TaskReport:
    report = TaskReport()
    for item, table in zip(stack.items, tables, strict=True):
        landing = store.land(store.partition_of(item.spec), item.experiment_id, table)
        # A study need not say what its runs took.
        taken = table["core_seconds"].to_pylist() if "core_seconds" in table.column_names else []
        report += TaskReport(landing.landed, landing.present, sum(taken))
    return report
