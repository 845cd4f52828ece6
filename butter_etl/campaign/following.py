"""Following the tasks that are with a cluster, by what their workers tell, for numbers of one moment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from butter_etl.campaign.cutting import Task
from butter_etl.campaign.progress import Pace, Progress, TaskProgress, places_of
from butter_etl.campaign.share import Share
from butter_etl.clusters import told_progress

if TYPE_CHECKING:
    from distributed import Client

    from butter_etl.campaign.tasks import TaskReport

#: How often workers are asked how far their tasks are, in seconds; many of them are asked less often.
_LOOK_SECONDS = 2.0
_SLOTS_A_SECOND = 500


class Following:
    """Follows the tasks that are with a cluster, by what their workers tell, for the progress of the whole."""

    def __init__(self, client: Client, share: Share, wanted: int) -> None:
        self._client, self._share, self._wanted = client, share, wanted
        self._pace = Pace()
        self._told: dict[str, TaskProgress] = {}
        self._slots = 0
        self._looked: float | None = None
        # Of each task that is with the cluster, what of its cost came from checkpoints, and what was done since.
        self._resumed: dict[str, float] = {}
        self._worked: dict[str, float] = {}
        self._work = 0.0
        self._most = Progress(wanted, 0, 0, 0, 0, wanted)

    def progress(self, running: Mapping[str, Task], again: Iterable[Task], done: TaskReport, failed: int) -> Progress:
        """Return how far all is, with what has been counted as ``done``; no number of what is done ever falls."""
        self._look(running)
        told = {key: self._told[key] for key in running if key in self._told}
        parts = {key: self._cost(running[key], one) for key, one in told.items()}
        for key, one in told.items():
            self._resumed[key] = one.resumed * self._whole(running[key]) / running[key].runs
            self._worked[key] = max(self._worked.get(key, 0.0), parts[key] - self._resumed[key])
        self._pace.look(self._work + sum(self._worked.values()), min(len(running), self._slots))
        rest = max(0.0, self._share.cost - self._share.cost_done - sum(parts.values()))
        longest = [self._whole(task) - parts.get(key, 0.0) for key, task in running.items()]
        longest += [self._whole(task) for task in again]
        left = self._pace.seconds_left(rest, max([self._share.dearest_run(), *longest]), self._slots)
        # A worker that is lost takes what it told with it; what had landed is counted again when its task is.
        finished = max(done.landed + done.present + sum(one.done for one in told.values()), self._most.done)
        in_flight = min(sum(one.training for one in told.values()), self._wanted - finished - failed)
        self._most = Progress(
            wanted=self._wanted,
            landed=finished - done.present,
            present=done.present,
            failed=failed,
            in_flight=in_flight,
            waiting=self._wanted - finished - failed - in_flight,
            core_seconds=done.core_seconds,
            share_done=max(self._most.share_done, 1 - rest / self._share.cost if self._share.cost else 1.0),
            seconds=self._pace.seconds,
            left=left,
            places=places_of(told.values()),
        )
        return self._most

    def finish(self, key: str, cost: float) -> None:
        """Take note that a task is no longer with the cluster, and that so much of its cost counts as done now."""
        self._told.pop(key, None)
        self._work += max(self._worked.pop(key, 0.0), cost - self._resumed.pop(key, 0.0))

    def _look(self, running: Mapping[str, Task]) -> None:
        now = time.monotonic()
        pause = _LOOK_SECONDS + self._slots / _SLOTS_A_SECOND
        if self._looked is not None and now - self._looked < pause:
            return
        self._looked = now
        answer = told_progress(self._client)
        if answer is None:
            return
        self._slots = answer.slots
        # Of a task whose worker is gone, what it had done stays.
        idle = {key: msgspec.structs.replace(one, training=0, share=0.0) for key, one in self._told.items()}
        fresh = {key: msgspec.convert(one, TaskProgress) for key, one in answer.tasks.items() if key in running}
        self._told = idle | fresh

    def _cost(self, task: Task, told: TaskProgress) -> float:
        """Return how much of the cost of a task is done."""
        done, training, cost = told.done, told.training, 0.0
        for item in task.items:
            runs = len(item.repetitions)
            whole = min(runs, done)
            begun = min(runs - whole, training)
            done, training = done - whole, training - begun
            cost += self._share.run_cost(item) * (whole + told.share * begun)
        return cost

    def _whole(self, task: Task) -> float:
        return sum(self._share.run_cost(item) * len(item.repetitions) for item in task.items)
