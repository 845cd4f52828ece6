"""Keeping the wanted number of jobs in a queue while there is work for them."""

from __future__ import annotations

import _thread
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from butter_etl.clusters.listing import Explainer, QueuedJob, QueueState, list_jobs
from butter_etl.clusters.records import early_end, taken_away
from butter_etl.clusters.sites import CLUSTER_KINDS, SiteFile
from butter_etl.clusters.worker import DRAINING
from butter_etl.errors import ClusterError

logger = logging.getLogger(__name__)

#: Name and id of a job that Dask counts; the id of a refused one is None.
Job = tuple[str, str | None]
OnQueue = Callable[[QueueState], None]

#: So many jobs in a row that end before their worker connects are no accident: nothing more is submitted.
EARLY_ENDS = 5


class Supervisor(threading.Thread):
    """Keeps the wanted number of jobs in the queue.

    Dask replaces neither jobs that ended (time limit, cancelled, failed node) nor jobs that the queue refused. Every
    few seconds this thread compares Dask's books with the queue's, strikes out what is gone, and asks for the rest
    again, no faster than the site file allows. A round that had to strike something out doubles the pause, so that a
    queue that refuses everything is not pestered. Once a driver has handed out its last task, jobs whose workers are
    idle are ended; a busy worker never is.

    If jobs keep ending before their worker connects, the environment on the nodes is broken: `failure` says so, and
    the main thread is interrupted.
    """

    first_pause = 5.0
    new_jobs_pause = 0.5
    longest_pause = 300.0

    def __init__(
        self,
        cluster: Any,
        site: SiteFile,
        jobs: int,
        refusals: list[str],
        on_queue: OnQueue = lambda queue: None,
    ) -> None:
        super().__init__(name="butter-etl job supervisor", daemon=True)
        self.cluster = cluster
        self.site = site
        self.jobs = jobs
        self.refusals = refusals
        self.failure: str | None = None
        self._on_queue = on_queue
        self._explainer = Explainer(CLUSTER_KINDS[site.kind])
        self._kept = jobs
        self._absent: frozenset[str] = frozenset()
        self._connected: set[str] = set()
        self._early_ends = 0
        self._submitted: list[float] = []
        self._leave = threading.Event()

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self.join()

    def run(self) -> None:
        """Watch until the ``with`` block is left."""
        pause = self.first_pause
        while not self._leave.wait(pause):
            gone = self._refused() | self._ended()
            for words in dict.fromkeys(self.refusals):
                logger.warning("the queue refused a job, and is asked again later: %s", words)
            self.refusals.clear()
            if self._is_broken(gone):
                _thread.interrupt_main()
                return
            self.cluster.sync(self._adjust, gone)
            pause = min(2 * pause, self.longest_pause) if gone else self.first_pause

    def wait_for_worker(self) -> None:
        """Ask for the jobs and return when a first worker has connected.

        A job that the queue took away meanwhile is replaced.

        Raises ClusterError if all jobs were refused, one failed without connecting, several were taken away, or
        ``start_timeout`` is over.
        """
        self._on_queue(QueueState(time.time(), self.jobs))
        self._scale(self.jobs)
        began = looked = told = time.monotonic()
        known: frozenset[Job] = frozenset()
        while not self.cluster.scheduler_info["workers"]:
            time.sleep(0.05)
            refused = self._refused()
            if refused and len(refused) == len(self.cluster.workers):
                raise ClusterError(f"the queue refused the job: {self.refusals[-1]}")
            now = time.monotonic()
            if now > looked + self.first_pause / 2:
                self._replace_or_give_up()
                looked = time.monotonic()
            elif known != frozenset(self._books()) and now > told + self.new_jobs_pause:
                known, told = frozenset(self._books()), now
                self._tell(list_jobs(CLUSTER_KINDS[self.site.kind]))
            if now > began + seconds(self.site.start_timeout):
                raise ClusterError(
                    f"no worker came up within {self.site.start_timeout} (start_timeout); "
                    f"see the queue, and the logs in {self.site.logs}"
                )
        self._tell(list_jobs(CLUSTER_KINDS[self.site.kind]))

    def _replace_or_give_up(self) -> None:
        gone = self._ended()
        for _, job_id in gone:
            self._early_ends += 1
            words = f"job {job_id} ended before its worker connected{early_end(self.site, job_id)}"
            if self._early_ends >= EARLY_ENDS or not taken_away(CLUSTER_KINDS[self.site.kind], job_id):
                raise ClusterError(f"{words}; see the logs in {self.site.logs}")
            logger.warning("%s; another one is asked for", words)
        if gone:
            self.cluster.sync(self._adjust, gone)

    def _books(self) -> list[Job]:
        return [(name, job.job_id) for name, job in list(self.cluster.workers.items())]

    def _refused(self) -> frozenset[Job]:
        return frozenset((name, job_id) for name, job_id in self._books() if job_id is None)

    def _ended(self) -> frozenset[Job]:
        """Return the jobs that the queue no longer lists, and that have no worker.

        This must be so twice in a row, since some sites answer from a cache that does not know a new job yet. A queue
        that does not answer says nothing about any job.
        """
        books = [(name, job_id) for name, job_id in self._books() if job_id is not None]
        listed = list_jobs(CLUSTER_KINDS[self.site.kind])
        self._tell(listed)
        if listed is None:
            return frozenset()
        connected = self._with_workers(books)
        new = {job_id for _, job_id in connected if job_id is not None} - self._connected
        self._connected |= new
        if new:
            self._early_ends = 0
        absent = {job for job in books if job[1] not in listed and job not in connected}
        ended = frozenset(job for job in absent if job[1] in self._absent)
        self._absent = frozenset(job_id for _, job_id in absent)
        return ended

    def _with_workers(self, books: Iterable[Job]) -> set[Job]:
        workers = [str(worker["name"]) for worker in self.cluster.scheduler_info["workers"].copy().values()]
        return {(name, job_id) for name, job_id in books if any(_is_of(worker, name) for worker in workers)}

    def _tell(self, listed: Mapping[str, QueuedJob] | None) -> None:
        """Say what the queue has listed of our jobs; without their workers, those are what is waited for."""
        books = self._books()
        connected = self._with_workers(books)
        waiting = [job_id for name, job_id in books if job_id is not None and (name, job_id) not in connected]
        wanted = max(self._kept, len(books))
        self._on_queue(QueueState(time.time(), wanted, len(connected), self._explainer.waiting(waiting, listed)))

    def _is_broken(self, gone: Iterable[Job]) -> bool:
        ended = [job_id for _, job_id in gone if job_id is not None]
        early = [job_id for job_id in ended if job_id not in self._connected]
        self._early_ends += len(early)
        if not early or self._early_ends < max(EARLY_ENDS, 2 * self.jobs):
            return False
        self.failure = (
            f"{self._early_ends} jobs in a row ended before their worker connected"
            f"{early_end(self.site, early[-1])}; mend the site file, then start the same command again "
            f"(logs in {self.site.logs})"
        )
        return True

    async def _adjust(self, gone: frozenset[Job]) -> None:
        workers = self.cluster.workers
        # Dask may have replaced one of them meanwhile under the same name.
        still = [name for name, job_id in gone if name in workers and workers[name].job_id == job_id]
        if still:
            await self.cluster.scale_down(still)
        wanted = self._kept = self._wanted()
        if idle := self._idle_jobs(len(workers) - wanted):
            await self.cluster.scale_down(idle)
        if wanted > len(workers):
            self._scale(wanted)

    def _wanted(self) -> int:
        """Return how many jobs to keep: all, until a driver has no further tasks; then as many as there is work for."""
        scheduler = self.cluster.scheduler
        if not scheduler.task_metadata.get(DRAINING):
            return self.jobs
        tasks: int = sum(state.state != "memory" for state in scheduler.tasks.values())
        threads = (int(worker.nthreads) for worker in scheduler.workers.values())
        slots: int = max(threads, default=1) * self.site.processes
        return min(self.jobs, max(1, math.ceil(tasks / slots)))

    def _idle_jobs(self, most: int) -> list[str]:
        """Return up to so many jobs none of whose workers has anything to do; they are given nothing more."""
        scheduler = self.cluster.scheduler
        found: list[str] = []
        for name in list(self.cluster.workers):
            own = [worker for worker in scheduler.workers.values() if _is_of(str(worker.name), name)]
            if len(found) < most and own and not any(worker.processing for worker in own):
                found.append(name)
        return found

    def _scale(self, jobs: int) -> None:
        """Ask for jobs, but submit no more a minute than the site file allows; the next round asks for the others."""
        now = time.monotonic()
        self._submitted = [when for when in self._submitted if when > now - 60]
        present = len(self.cluster.workers)
        new = min(jobs - present, self.site.submissions - len(self._submitted))
        if new > 0:
            self._submitted += [now] * new
            self.cluster.scale(jobs=present + new)


def _is_of(worker: str, job: str) -> bool:
    """Tell whether a worker runs in a job: a job of several processes adds the number of the process to the name."""
    return worker == job or worker.startswith(f"{job}-")


def seconds(duration: str) -> float:
    """Return a duration of a site file in seconds."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]
