"""What one Dask future does: how tasks are cut, and how one trains, keeps checkpoints, and lands what it trained.

A task may be killed at any moment, be run twice, and be run at the same time as another that holds the same runs: what
has landed is not trained again, what has a checkpoint goes on from there, and a landing keeps each repetition once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from butter_etl import costs
from butter_etl.attempts import begin_attempt, end_attempt
from butter_etl.checkpoints import Checkpoints
from butter_etl.datasets import cached_dataset, dataset_info
from butter_etl.engines import Device
from butter_etl.spec import ExperimentSpec
from butter_etl.store import Store, partition_path
from butter_etl.training import Item, Stack, Unfinished, train_stack
from butter_etl.vigil import Stopped, Vigil, at_work, leave_worker

if TYPE_CHECKING:
    import pyarrow as pa

#: A task takes between these many estimated seconds, so that scheduling is nothing beside training and a lost
#: worker loses little. The lower bound only matters when there is less work than the cluster could share out.
SHORTEST_TASK, LONGEST_TASK = 0.5, 600.0
_TASKS_PER_WORKER = 4
#: A campaign of short runs is no more than about so many tasks: a scheduler takes milliseconds for each.
MOST_TASKS = 20_000


class Wanted(msgspec.Struct, frozen=True):
    """Repetitions of one experiment that are to be trained. ``experiment_id`` is None until the store has claimed one.

    ``batch`` names the sweep that asked; ``core_seconds`` is the estimate for one run.
    """

    spec: ExperimentSpec
    experiment_id: int | None
    batch: str
    repetitions: tuple[int, ...]
    num_free_parameters: int
    core_seconds: float


class Task(msgspec.Struct, frozen=True):
    """What one future does. ``attempt`` counts from 1."""

    items: tuple[Item, ...]
    attempt: int = 1

    @property
    def runs(self) -> int:
        """How many runs the task trains."""
        return sum(len(item.repetitions) for item in self.items)


class Settings(msgspec.Struct, frozen=True):
    """What every task of a campaign needs to know.

    ``claim`` is what the driver's claims are known by (None: it has none), ``checkpoint_seconds`` how long a task
    trains between two checkpoints.
    """

    store: str
    state: str
    data_dir: str
    engine: str = "torch"
    device: Device = "cpu"
    claim: str | None = None
    checkpoint_seconds: float = 300.0


class TaskReport(msgspec.Struct, frozen=True):
    """What a task did, in runs; reports add. ``present`` runs had landed before, ``yielded`` items are unfinished."""

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


#: The repetitions of each experiment that a checkpoint holds together: they are trained on together.
Begun = Mapping[int, Sequence[tuple[int, ...]]]


def cut_tasks(wanted: Iterable[Wanted], target_seconds: float, begun: Begun | None = None) -> Iterator[Task]:
    """Tasks of about ``target_seconds`` each: small experiments share one, an expensive one is cut into stacks."""
    items: list[Item] = []
    load = 0.0
    for entry in wanted:
        for item in _stacks(entry, target_seconds, begun or {}):
            cost = len(item.repetitions) * entry.core_seconds
            if items and load + cost > target_seconds:
                yield Task(tuple(items))
                items, load = [], 0.0
            items.append(item)
            load += cost
    if items:
        yield Task(tuple(items))


def _stacks(entry: Wanted, target_seconds: float, begun: Begun) -> Iterator[Item]:
    if entry.experiment_id is None:
        raise AssertionError(entry)
    left = entry.repetitions
    for together in begun.get(entry.experiment_id, ()):
        if set(together) <= set(left):
            left = tuple(rep for rep in left if rep not in together)
            yield Item(entry.spec, entry.experiment_id, entry.batch, together)
    most = costs.stack_limit(entry.num_free_parameters, dataset_info(entry.spec.dataset))
    most = max(1, min(most, int(target_seconds / entry.core_seconds)))
    for start in range(0, len(left), most):
        yield Item(entry.spec, entry.experiment_id, entry.batch, left[start : start + most])


def begun_stacks(checkpoints: Checkpoints) -> Begun:
    """What checkpoints hold together, by experiment."""
    found: dict[int, list[tuple[int, ...]]] = {}
    for stack in checkpoints.stacks():
        if len(stack.items) == 1:
            found.setdefault(stack.items[0].experiment_id, []).append(stack.items[0].repetitions)
    return found


def target_task_seconds(total_core_seconds: float, workers: int) -> float:
    """How long tasks should be: long enough to matter, short enough that all workers share the end."""
    shared = total_core_seconds / (_TASKS_PER_WORKER * max(workers, 1))
    return min(max(shared, total_core_seconds / MOST_TASKS, SHORTEST_TASK), LONGEST_TASK)


# --- one unit of work --------------------------------------------------------------------------------------------


def train_and_land(task: Task, settings: Settings) -> TaskReport:
    """Train what of a task is still missing and land it, item by item.

    What cannot be finished before the job ends, or is no longer this driver's, is reported as ``yielded``. Raises
    whatever stops it otherwise; what landed before stays.
    """
    store = Store.open(settings.store, settings.state)
    vigil = Vigil(store.state, settings.claim, settings.checkpoint_seconds)
    report = TaskReport()
    for position, item in enumerate(task.items):
        if not _has_time_for(vigil, item, settings.engine):
            leave_worker()
            return report + TaskReport(yielded=task.items[position:])
        with at_work():
            report += _train_item(store, item, settings, vigil)
    return report


def _has_time_for(vigil: Vigil, item: Item, engine: str) -> bool:
    info, parameters, rates = dataset_info(item.spec.dataset), item.spec.size, costs.DEFAULT_RATES[engine]
    epoch_seconds = costs.core_seconds(item.spec, parameters, info, rates) / item.spec.epochs
    state_bytes = len(item.repetitions) * (3 * 4 * parameters + 20 * 4 * item.spec.epochs)
    return vigil.has_time_for(epoch_seconds, state_bytes)


def _train_item(store: Store, item: Item, settings: Settings, vigil: Vigil) -> TaskReport:
    partition = partition_path(item.spec.parameters())
    there = store.repetitions_of(item.experiment_id, partition)
    missing = tuple(rep for rep in item.repetitions if rep not in there)
    report = TaskReport(present=len(item.repetitions) - len(missing))
    if not missing:
        return report
    checkpoints = Checkpoints(store.state)
    whole = _stack_of(item, missing, settings)
    resume = checkpoints.read(whole)
    epochs = int(resume.state.epochs.sum()) if resume else 0
    attempt = begin_attempt(store.state, item.experiment_id, missing, epochs)
    # Whoever was killed may have been killed for its memory: each further attempt trains half as many runs together.
    for stack in [whole] if resume else _parts(item, missing, attempt, settings):
        try:
            (runs,) = _train(stack, settings, checkpoints, vigil, resume or checkpoints.read(stack))
        except Stopped:
            end_attempt(store.state, item.experiment_id, missing)
            left = missing[missing.index(stack.items[0].repetitions[0]) :]
            return report + TaskReport(yielded=(msgspec.structs.replace(item, repetitions=left),))
        landing = store.land(partition, item.experiment_id, runs)
        report += TaskReport(landing.landed, landing.present, sum(runs["core_seconds"].to_pylist()))
        checkpoints.discard(stack)
    end_attempt(store.state, item.experiment_id, missing)
    return report


def _stack_of(item: Item, repetitions: tuple[int, ...], settings: Settings) -> Stack:
    return Stack((msgspec.structs.replace(item, repetitions=repetitions),), settings.engine, settings.device)


def _parts(item: Item, missing: tuple[int, ...], attempt: int, settings: Settings) -> Iterator[Stack]:
    most = -(-len(missing) // 2 ** (attempt - 1))
    for start in range(0, len(missing), most):
        yield _stack_of(item, missing[start : start + most], settings)


def _train(
    stack: Stack, settings: Settings, checkpoints: Checkpoints, vigil: Vigil, resume: Unfinished | None
) -> list[pa.Table]:
    item = stack.items[0]
    dataset = cached_dataset(item.spec.dataset, settings.data_dir)
    watch = vigil.over(item.experiment_id, checkpoints.write)
    return train_stack(stack, dataset, resume=resume, watch=watch)
