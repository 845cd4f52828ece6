"""Tasks, cut from what is missing so that each takes about as long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from butter_etl.campaign.checkpoints import Checkpoints
from butter_etl.campaign.stacks import Item
from butter_etl.engines import Device
from butter_etl.studies import OwnExperiment, RunSpec, Study

#: A task takes between these many estimated seconds, so that scheduling is nothing beside training and a lost
#: worker loses little. The lower bound only matters when there is less work than the cluster could share out.
SHORTEST_TASK, LONGEST_TASK = 0.5, 600.0
_TASKS_PER_WORKER = 4
#: A campaign of short runs is no more than so many tasks: a scheduler takes milliseconds for each.
MOST_TASKS = 20_000
#: Memory that the runs of a stack may take of a worker, by plan. A plan takes a GPU to have so much; a worker looks at
#: its own, and cuts stacks that are too large for it.
_STACK_BYTES: Mapping[Device, float] = {"cpu": 1.5e9, "cuda": 64e9}
#: What a run is taken to cost at least, whatever its study says, in seconds.
_LEAST_SECONDS = 1e-6


class Wanted(msgspec.Struct, frozen=True):
    """Repetitions of one experiment that are to be trained. ``experiment_id`` is None until the store has claimed one.

    ``batch`` names the sweep that asked; ``core_seconds`` and ``run_bytes``, of a worker's memory, are estimates for
    one run. ``given`` is what was proposed for repetitions, as JSON.
    """

    spec: OwnExperiment
    experiment_id: int | None
    batch: str
    repetitions: tuple[int, ...]
    core_seconds: float
    run_bytes: float
    given: tuple[tuple[int, str], ...] = ()


class Task(msgspec.Struct, frozen=True):
    """The work of one future.

    ``attempt`` counts from 1; ``deaths`` are those of workers that had it and had begun nothing.
    """

    items: tuple[Item, ...]
    attempt: int = 1
    deaths: int = 0

    @property
    def runs(self) -> int:
        """Return the number of runs that the task trains."""
        return sum(len(item.repetitions) for item in self.items)


#: By experiment id, the groups of repetitions that one checkpoint holds: a group goes on together.
Begun = Mapping[int, Sequence[tuple[int, ...]]]


class End(msgspec.Struct, frozen=True):
    """What is left in all, in estimated core-seconds, and the workers that share its end."""

    core_seconds: float
    workers: int


def cut_tasks(
    wanted: Iterable[Wanted],
    study: Study,
    target_seconds: float,
    device: Device,
    begun: Begun | None = None,
    end: End | None = None,
) -> Iterator[Task]:
    """Cut tasks of about ``target_seconds`` each: small experiments share one, an expensive one is cut into stacks.

    For a GPU, experiments that can be trained in one stack come one after the other. Towards an ``end`` that is told,
    fewer share a task, so that no worker is left with a long one when the others have none.
    """
    if device == "cuda":
        wanted = sorted(wanted, key=lambda entry: _stack_key(study, entry))
    items: list[Item] = []
    load, cut = 0.0, 0.0
    for entry in wanted:
        for item in _stacks(entry, target_seconds, device, begun or {}):
            cost = len(item.repetitions) * entry.core_seconds
            most = target_seconds if end is None else min(target_seconds, _shared(end.core_seconds - cut, end.workers))
            if items and load + cost > most:
                yield Task(tuple(items))
                items, load, cut = [], 0.0, cut + load
            items.append(item)
            load += cost
    if items:
        yield Task(tuple(items))


def stack_limit(run_bytes: float, device: Device) -> int:
    """Return how many runs of so many bytes a plan trains side by side in the memory of a worker, or of a GPU."""
    return max(1, int(_STACK_BYTES[device] / max(run_bytes, 1.0)))


def _stack_key(study: Study, entry: Wanted) -> Any:
    return study.trainer.stack_key(RunSpec(entry.spec, entry.repetitions[0]))


def _stacks(entry: Wanted, target_seconds: float, device: Device, begun: Begun) -> Iterator[Item]:
    if entry.experiment_id is None:
        raise AssertionError(entry)
    left = entry.repetitions
    for together in begun.get(entry.experiment_id, ()):
        if set(together) <= set(left):
            left = tuple(rep for rep in left if rep not in together)
            yield Item(entry.spec, entry.experiment_id, entry.batch, together, entry.given)
    at_once = int(target_seconds / max(entry.core_seconds, _LEAST_SECONDS))
    most = max(1, min(stack_limit(entry.run_bytes, device), at_once))
    for start in range(0, len(left), most):
        yield Item(entry.spec, entry.experiment_id, entry.batch, left[start : start + most], entry.given)


def begun_stacks(checkpoints: Checkpoints) -> Begun:
    """Return the groups of repetitions that checkpoints hold together, by experiment id."""
    found: dict[int, list[tuple[int, ...]]] = {}
    for stack in checkpoints.stacks():
        if len(stack.items) == 1:
            found.setdefault(stack.items[0].experiment_id, []).append(stack.items[0].repetitions)
    return found


def target_task_seconds(total_core_seconds: float, workers: int) -> float:
    """Return how many seconds tasks should take: enough to matter, and so few that all workers share the end."""
    # Two tasks that come one after the other are longer than this together, or they would be one.
    few = 2 * total_core_seconds / MOST_TASKS
    return min(max(_shared(total_core_seconds, workers), few), LONGEST_TASK)


def _shared(core_seconds: float, workers: int) -> float:
    """Return how many seconds tasks should take of which all workers have some."""
    return max(core_seconds / (_TASKS_PER_WORKER * max(workers, 1)), SHORTEST_TASK)
