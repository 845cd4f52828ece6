"""Why a worker died: for memory, by its queue's will, or nobody knows.

A nanny tells of the end of its worker's process; where the nanny has died too, the queue has a record of the job.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from butter_etl.clusters.nanny import WORKER_EXITS
from butter_etl.clusters.records import job_record
from butter_etl.clusters.sites import CLUSTER_KINDS
from butter_etl.clusters.worker import JOB_FACTS

if TYPE_CHECKING:
    from distributed import Client

#: The topic of the events in which Dask's nannies tell of a worker that they end for its memory.
_MEMORY_ENDS = "worker-restart-memory"
#: How long to wait for a nanny's word, or until a queue has seen a job's end.
_PATIENCE_SECONDS = 20.0
_POLL_SECONDS = 0.2
_KILL = -9

Cause = Literal["memory", "queue", "unknown"]
_Told = tuple[Cause, str]


class Death(msgspec.Struct, frozen=True):
    """The death of a worker: its cause, in words, and what the worker had.

    ``queue`` stands for all that is no task's fault: a job that was cancelled, reached its time limit, or lost its
    node. ``memory`` is in bytes a process, ``tasks`` how many a process has at a time.
    """

    worker: str
    cause: Cause
    said: str
    memory: int = 0
    tasks: int = 1
    in_job: bool = False

    @property
    def way_out(self) -> str:
        """Return what to change where memory is short, and how much there was."""
        shared = f", shared by {self.tasks} tasks at a time" if self.tasks > 1 else ""
        there = f"a process has {self.memory / 2**30:.2f} GiB{shared}"
        if self.in_job:
            return f"{there}; raise `memory` in the site file" + (", or lower `cores`" if self.tasks > 1 else "")
        return f"{there}; give it more by `memory` in a site file" + (", or fewer --workers" if self.tasks > 1 else "")


def death_of(client: Client, worker: Any) -> Death:
    """Return why a worker died; ``worker`` is Dask's `WorkerState`, as `KilledWorker` has it.

    Asks the scheduler and the queue until one of them knows, for some seconds.
    """
    job = worker.extra.get(JOB_FACTS)
    where = f"worker {worker.name}" + (f" of job {job['id']}" if job else "")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    found: _Told | None = None
    while found is None and time.monotonic() < deadline:
        found = _told_by_nanny(client, worker) or (_told_by_queue(job["kind"], job["id"]) if job else None)
        if found is None:
            time.sleep(_POLL_SECONDS)
    cause, said = found or ("unknown", "died")
    return Death(worker.address, cause, f"{where} {said}", worker.memory_limit or 0, worker.nthreads, bool(job))


def _told_by_nanny(client: Client, worker: Any) -> _Told | None:
    began = next((when for when, event in client.get_events(worker.address) if event["action"] == "add-worker"), 0.0)
    for when, event in client.get_events(_MEMORY_ENDS):
        if when >= began and event["pid"] == worker.pid:
            share = event["rss"] / worker.memory_limit
            return "memory", f"was ended at {share:.0%} of its memory"
    for when, event in client.get_events(WORKER_EXITS):
        if when >= began and event["nanny"] == worker.nanny:
            code = event["exitcode"]
            if code == _KILL:  # the nanny's own kills are told above
                return "memory", "was killed by the system, as happens where memory is short"
            return "unknown", f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"
    return None


def _told_by_queue(kind: str, job_id: str) -> _Told | None:
    record = job_record(CLUSTER_KINDS[kind], job_id)
    if record is None or (cause := record.cause(CLUSTER_KINDS[kind])) == "goes on":
        return None
    words = {"memory": "died with its job for lack of memory", "queue": "ended with its job", "unknown": "ended"}
    return cause, f"{words[cause]} ({record.describe()})"


@contextmanager
def deaths_told(client: Client) -> Iterator[None]:
    """Have Dask tell of each death of a worker, as the error of its tasks, in place of starting them again."""
    before = client.run_on_scheduler(_allow_deaths, number=0)
    try:
        yield
    finally:
        if client.status == "running":
            client.run_on_scheduler(_allow_deaths, number=before)


def _allow_deaths(number: int, dask_scheduler: Any) -> int:
    before: int = dask_scheduler.allowed_failures
    dask_scheduler.allowed_failures = number
    return before
