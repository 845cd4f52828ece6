"""What one Dask future does: tasks, how they are cut, and what they report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from butter_etl import costs
from butter_etl.datasets import dataset_info
from butter_etl.engines import Device
from butter_etl.spec import ExperimentSpec

#: A task takes between these many estimated seconds, so that scheduling is nothing beside training and a lost
#: worker loses little. The lower bound only matters when there is less work than the cluster could share out.
SHORTEST_TASK, LONGEST_TASK = 0.5, 600.0
_TASKS_PER_WORKER = 4
#: A campaign is no more than about so many tasks, however short its runs are: a scheduler takes milliseconds for each.
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


class Item(msgspec.Struct, frozen=True):
    """A part of a task: repetitions of one experiment, trained as one stack. ``core_seconds`` is the estimate a run."""

    spec: ExperimentSpec
    experiment_id: int
    batch: str
    repetitions: tuple[int, ...]
    core_seconds: float = 0.0


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


def cut_tasks(wanted: Iterable[Wanted], target_seconds: float) -> Iterator[Task]:
    """Tasks of about ``target_seconds`` each: small experiments share one, an expensive one is cut into stacks."""
    items: list[Item] = []
    load = 0.0
    for entry in wanted:
        for item in _stacks(entry, target_seconds):
            cost = len(item.repetitions) * entry.core_seconds
            if items and load + cost > target_seconds:
                yield Task(tuple(items))
                items, load = [], 0.0
            items.append(item)
            load += cost
    if items:
        yield Task(tuple(items))


def _stacks(entry: Wanted, target_seconds: float) -> Iterator[Item]:
    if entry.experiment_id is None:
        raise AssertionError(entry)
    most = costs.stack_limit(entry.num_free_parameters, dataset_info(entry.spec.dataset))
    most = max(1, min(most, int(target_seconds / entry.core_seconds)))
    for start in range(0, len(entry.repetitions), most):
        repetitions = entry.repetitions[start : start + most]
        yield Item(entry.spec, entry.experiment_id, entry.batch, repetitions, entry.core_seconds)


def target_task_seconds(total_core_seconds: float, workers: int) -> float:
    """How long tasks should be: long enough to matter, short enough that all workers share the end."""
    target = min(max(total_core_seconds / (_TASKS_PER_WORKER * max(workers, 1)), SHORTEST_TASK), LONGEST_TASK)
    return max(target, total_core_seconds / MOST_TASKS)
