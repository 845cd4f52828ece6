"""The driver of a campaign: which tasks come next, feeding them to Dask, and what becomes of those that fail.

A `Share` is the part of a campaign that this driver works on: it claims buckets of experiments as it gets to them,
comes back to those that other drivers have, and gives each back when it is done. `Driver` keeps a bounded number of
futures with the cluster, tries failed tasks again, and records what keeps failing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from butter_etl.campaign.attempts import attempts_at, end_attempt, log_tail, mark_deaths
from butter_etl.campaign.cutting import Task
from butter_etl.campaign.following import Following
from butter_etl.campaign.progress import Progress
from butter_etl.campaign.share import POLL_SECONDS, Share
from butter_etl.campaign.stacks import Item
from butter_etl.campaign.tasks import Settings, TaskError, TaskReport, TaskStopped, train_sealed
from butter_etl.clusters import DRAINING, Death, Sealed, death_of, deaths_told
from butter_etl.errors import (
    FULL_DISK,
    AttemptsError,
    CampaignError,
    WorkerMemoryError,
    duration,
    html_table,
    one_line,
)
from butter_etl.store import Failure, Store

if TYPE_CHECKING:
    from distributed import Client, Future

#: How often a single experiment's task is tried before its error is recorded.
ATTEMPTS = 3
#: So many tasks in a row that fail, and none that succeeds, are no accident.
_FAILURES_IN_A_ROW = 20
#: How often a task may be lost with workers that died before they had begun anything.
_MOST_DEATHS = 5
_MAKE_SPACE = "make space, then start the same command again"
_KEYS_REMEMBERED = 5_000
#: How often the driver sees whether tasks are done, and says how far it is, in seconds.
_DONE_SECONDS, _REPORT_SECONDS = 0.02, 0.2


@dataclass(frozen=True)
class TrainReport:
    """Result of a campaign, in runs; those ``present`` were trained before, or by others meanwhile.

    ``interrupted`` says that somebody asked it to stop.
    """

    landed: int = 0
    present: int = 0
    failed: int = 0
    core_seconds: float = 0.0
    interrupted: bool = False
    failures: tuple[Failure, ...] = ()

    def __add__(self, other: TrainReport) -> TrainReport:
        return TrainReport(
            self.landed + other.landed,
            self.present + other.present,
            self.failed + other.failed,
            self.core_seconds + other.core_seconds,
            self.interrupted or other.interrupted,
            self.failures + other.failures,
        )

    def _repr_html_(self) -> str:
        """Return the counts as a notebook shows them."""
        counts = [("runs landed", self.landed), ("there already", self.present), ("failed", self.failed)]
        return html_table([*counts, ("CPU time", duration(self.core_seconds))])


class Driver:
    """The driver's loop: a bounded window of futures, retries, records of what fails."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        client: Client,
        share: Share,
        wanted: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._store, self._sealed, self._client = store, Sealed(settings), client
        self._share, self._again = share, deque[Task]()
        self._tasks: Iterator[Task] = iter(())
        self._wanted, self._on_progress = wanted, on_progress
        self._running: dict[Future[Any], Task] = {}
        self._done = TaskReport()
        self._failures: list[Failure] = []
        self._failed = 0
        self._in_a_row = 0
        self._keys_remembered = 0
        self._looked = self._reported = 0.0
        self._deaths: dict[str, tuple[Death, bool]] = {}
        self._following = Following(client, share, wanted)

    def run(self, window: int) -> TrainReport:
        """Train until nothing is left to do, or somebody asks to stop (Ctrl-C).

        Raises CampaignError when going on would only fail more: what is with the cluster is cancelled, and what has
        landed stays.
        """
        from distributed import as_completed

        interrupted = False
        completed = as_completed(with_results=True, raise_errors=False)
        self._client.set_metadata(DRAINING, False)
        try:
            with deaths_told(self._client):
                while self._refill(completed, window) or self._share.is_waiting:
                    if not self._running:
                        self._report()
                        time.sleep(POLL_SECONDS)
                        continue
                    while not (batch := completed.next_batch(block=False)):
                        self._report()
                        time.sleep(_DONE_SECONDS)
                    for future, result in batch:
                        self._finish(future, result)
            self._report(at_once=True)
        except KeyboardInterrupt:
            interrupted = True
            self._client.cancel(list(self._running), force=True)
        except (CampaignError, OSError):
            self._client.cancel(list(self._running), force=True)
            raise
        present = self._done.present + self._share.present
        failures = tuple(self._failures)
        return TrainReport(self._done.landed, present, self._failed, self._done.core_seconds, interrupted, failures)

    def _next_task(self) -> Task | None:
        if self._again:
            return self._again.popleft()
        task = next(self._tasks, None)
        now = time.monotonic()
        if task is None and self._share.is_waiting and now - self._looked >= POLL_SECONDS:
            self._looked = now
            self._tasks = self._share.tasks()
            task = next(self._tasks, None)
        return task

    def _refill(self, completed: Any, window: int) -> bool:
        """Give the cluster more to do, if there is more; tell whether it has anything to do."""
        new: list[Task] = []
        while len(self._running) + len(new) < window and (task := self._next_task()) is not None:
            new.append(task)
        if new:
            self._forget_old_keys(len(new))
            futures = self._client.map(train_sealed, list(map(Sealed, new)), settings=self._sealed, pure=False)
            self._running.update(zip(futures, new, strict=True))
            completed.update(futures)
        elif self._running and len(self._running) < window and not self._share.is_waiting:
            self._client.set_metadata(DRAINING, True)
        return bool(self._running)

    def _forget_old_keys(self, new: int) -> None:
        """Clear a cache of Dask's now and then.

        Dask remembers the kind of task of a hundred thousand keys, done or not: tens of megabytes for nothing.
        """
        from dask.utils import key_split

        self._keys_remembered += new
        if self._keys_remembered > _KEYS_REMEMBERED:
            key_split.cache_clear()
            self._keys_remembered = 0

    def _report(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        running = {str(future.key): task for future, task in self._running.items()}
        done = msgspec.structs.replace(self._done, present=self._done.present + self._share.present)
        self._on_progress(self._following.progress(running, self._again, done, self._failed))

    def _finish(self, future: Future[Any], result: Any) -> None:
        task = self._running.pop(future)
        before = self._share.cost_done
        self._settle(task, future, result)
        self._following.finish(str(future.key), self._share.cost_done - before)
        future.release()

    def _settle(self, task: Task, future: Future[Any], result: Any) -> None:
        from distributed.scheduler import KilledWorker

        error = result[1] if future.status == "error" else None
        if future.status == "finished":
            self._count(task, result)
        elif isinstance(error, KilledWorker):
            self._after_death(task, *self._death(error.last_worker))
        else:
            if isinstance(error, TaskStopped):
                task = self._without_done(task, error)
            self._retry(task, error_of(future, result))

    def _death(self, worker: Any) -> tuple[Death, bool]:
        """Return how a worker died, and whether it was at anything; write that down once."""
        if worker.address not in self._deaths:
            death = death_of(self._client, worker)
            self._deaths[worker.address] = death, bool(mark_deaths(self._store.state, death))
        return self._deaths[worker.address]

    def _after_death(self, task: Task, death: Death, was_at_work: bool) -> None:
        """Give out a task again whose worker died.

        The worker that begins it next finds in the attempts written down whether that is one too many. Where the worker
        had begun nothing, none of its tasks is above suspicion.
        """
        deaths = task.deaths + (death.cause != "queue" and not was_at_work)
        if deaths < _MOST_DEATHS:
            self._again.append(Task(task.items, task.attempt, deaths))
            return
        self._in_a_row += 1
        error = _never_begun(death, deaths)
        self._stop_if_hopeless(error)
        for item in task.items:
            self._record(item, error)

    def _without_done(self, task: Task, stopped: TaskStopped) -> Task:
        """Return what of a task that raised is tried again; count what it had done, put aside what it never began."""
        done = len(task.items) - len(stopped.failed) - len(stopped.left)
        self._count(Task(task.items[:done]), stopped.report)
        if stopped.left:
            self._again.append(Task(stopped.left))
        return Task(stopped.failed, task.attempt if len(task.items) == len(stopped.failed) else 1)

    def _count(self, task: Task, report: TaskReport) -> None:
        self._done += msgspec.structs.replace(report, yielded=())
        if report.landed:
            self._in_a_row = 0
        yielded = {item.experiment_id: 0 for item in report.yielded}
        for item in report.yielded:
            yielded[item.experiment_id] += len(item.repetitions)
        for item in task.items:
            left = min(yielded.get(item.experiment_id, 0), len(item.repetitions))
            if left:
                yielded[item.experiment_id] -= left
            self._share.done(item.experiment_id, len(item.repetitions) - left)
        if report.yielded:  # only then may claims have been lost, and looking reads all of them
            self._again.extend(self._share.again(report.yielded))

    def _retry(self, task: Task, error: TaskError) -> None:
        """Try a failed task again, its experiments one by one, until its attempts are used up; then record it."""
        self._in_a_row += 1
        self._stop_if_hopeless(error)
        if len(task.items) > 1:
            self._again.extend(Task((item,)) for item in task.items)
        elif task.attempt < ATTEMPTS and not error.is_final:
            self._again.append(Task(task.items, task.attempt + 1))
        else:
            self._record(task.items[0], error)

    def _stop_if_hopeless(self, error: TaskError) -> None:
        if error.is_full_disk:
            raise CampaignError(f"stopped: {error.line}; {_MAKE_SPACE}")
        if self._in_a_row >= _FAILURES_IN_A_ROW:
            raise CampaignError(
                f"stopped: {self._in_a_row} tasks in a row failed, the last one with: {error.line}; "
                "mend it, then start the same command again"
            )

    def _record(self, item: Item, error: TaskError) -> None:
        state, repetitions = self._store.state, list(item.repetitions)
        last = max(attempts_at(state, item.experiment_id, repetitions), key=lambda attempt: attempt.time, default=None)
        failure = Failure(
            experiment_id=item.experiment_id,
            experiment=item.spec.describe(),
            repetitions=repetitions,
            error=error.line,
            details=error.details or (log_tail(last) if last else ""),
            host=last.host if last else "",
            job_id=last.job_id if last else None,
            kind=error.kind,
            time=int(time.time()),
        )
        self._store.record_failure(failure)
        end_attempt(state, item.experiment_id, repetitions)
        self._failures.append(failure)
        self._failed += len(repetitions)
        self._share.done(item.experiment_id, len(repetitions))


@contextmanager
def full_disk_stops() -> Iterator[None]:
    """Raise CampaignError where the driver itself finds no space for a claim or a record, as when a task does."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise CampaignError(f"stopped: {one_line(error)}; {_MAKE_SPACE}") from error


def _never_begun(death: Death, deaths: int) -> TaskError:
    """Return the error of a task whose workers died before they had begun it."""
    line = f"{deaths} workers died before they had begun it, the last time: {death.said}"
    error = WorkerMemoryError(f"{line}; {death.way_out}") if death.cause == "memory" else AttemptsError(line)
    return TaskError.of(error)


def error_of(future: Future[Any], result: Any) -> TaskError:
    """Return the error of a future that did not finish: the task's own, or what Dask says of it."""
    if future.status != "error":
        return TaskError(f"the task was {future.status}")
    error = result[1]
    return error.error if isinstance(error, TaskStopped) else TaskError.of(error)
