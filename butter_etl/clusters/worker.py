"""A worker and its job: when the job ends, what the host is, and closing the worker in time.

This module is a preload of Dask's workers (`dask_setup`).
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from butter_etl.clusters.logs import pass_over_task_errors, shorten_tracebacks
from butter_etl.clusters.sites import CLUSTER_KINDS
from butter_etl.engines import cpu_family, package_version

if TYPE_CHECKING:
    from distributed import Client

#: Variables for when the job began (unix seconds), how long it may run (seconds), and where the queue writes its logs.
JOB_BEGAN, JOB_WALLTIME, JOB_LOGS = "BUTTER_ETL_JOB_BEGAN", "BUTTER_ETL_JOB_WALLTIME", "BUTTER_ETL_JOB_LOGS"


def deadline_lines(walltime_seconds: int | None, logs: str) -> list[str]:
    """Return shell lines for the top of a job, after which its workers know when it ends and where its logs are."""
    lines = [f"export {JOB_LOGS}={logs}"]
    if walltime_seconds is not None:
        # Backticks: in HTCondor's files a dollar sign before a bracket is a macro.
        lines += [f"export {JOB_BEGAN}=`date +%s`", f"export {JOB_WALLTIME}={walltime_seconds}"]
    return lines


def job_end(environment: Mapping[str, str]) -> float | None:
    """Return when this job ends, in unix seconds, by what `deadline_lines` left in the environment; else None."""
    if JOB_BEGAN not in environment or JOB_WALLTIME not in environment:
        return None
    return float(environment[JOB_BEGAN]) + float(environment[JOB_WALLTIME])


#: The key in a Dask scheduler's metadata under which a driver says that it has handed out its last task.
DRAINING = "butter_etl.draining"
#: The key under which a worker tells the scheduler of its job: the ``kind`` of its queue, and its ``id``.
JOB_FACTS = "butter_etl.job"


def own_job() -> dict[str, str] | None:
    """Return the kind of queue and the id of the job that this process runs in; None outside of one."""
    for name, kind in CLUSTER_KINDS.items():
        if kind.job_variable and (job_id := os.environ.get(kind.job_variable)):
            return {"kind": name, "id": job_id}
    return None


@cache
def host_facts() -> dict[str, str | None]:
    """Return the host columns of this process; null where a fact is not to be had."""
    return {
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "git_hash": _git_hash(),
        "hostname": socket.gethostname(),
        "torch_version": package_version("torch"),
        "cpu_family": cpu_family(),
        "job_id": job["id"] if (job := own_job()) else None,
    }


def _git_hash() -> str | None:
    """Return the commit of the checkout that this package runs from; None outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


#: How long reports of finished tasks may take to leave a worker that closes.
_DELIVERY_SECONDS = 1.0


def current_worker() -> Any:
    """Return Dask's worker whose task this thread runs; None outside of one."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None


def worker_address() -> str:
    """Return the address of the worker whose task this thread runs; empty outside of one."""
    worker = current_worker()
    return "" if worker is None else str(worker.address)


def is_closing() -> bool:
    """Tell whether the worker whose task this thread runs is being closed: what it returns may not arrive."""
    worker = current_worker()
    return worker is not None and worker.status.name in _CLOSING


#: The name among a Dask worker's metrics of what its tasks tell of themselves.
_TOLD = "butter_etl"
#: By thread, the key of the task that it runs, or ran last, and what that told.
_told: dict[int, tuple[str, object]] = {}


def tell_progress(progress: object) -> None:
    """Have this thread's worker say so of the task that it runs, with its next heartbeat; do nothing outside of one.

    ``progress`` is of plain types. What was told last stays until the thread runs another task.
    """
    worker = current_worker()
    if worker is None:
        return
    _told[threading.get_ident()] = (str(worker.get_current_task()), progress)
    if _TOLD not in worker.metrics:
        # In its own thread, which may be going through them.
        worker.loop.add_callback(worker.metrics.setdefault, _TOLD, lambda _worker: list(_told.values()))


class Told(msgspec.Struct, frozen=True):
    """What a cluster's workers told last: by key of a task how far it is, and how many tasks they run at once."""

    tasks: dict[str, Any]
    slots: int


def told_progress(client: Client) -> Told | None:
    """Return what the workers of a cluster told last; None where there is no scheduler that answers."""
    scheduler = client.scheduler
    if scheduler is None:
        return None
    try:
        # Not by `scheduler_info`: what it returns may have been overwritten meanwhile by the client's own look every
        # two seconds, which is without workers.
        workers = client.sync(scheduler.identity, n_workers=-1)["workers"].values()
    except OSError:
        return None
    tasks = {key: progress for worker in workers for key, progress in worker["metrics"].get(_TOLD, ())}
    return Told(tasks, sum(int(worker["nthreads"]) for worker in workers))


told_to_end = threading.Event()


def dask_setup(worker: Any) -> None:
    """Have the worker tell of its job, and keep SIGTERM from ending it at once.

    Dask calls this in a worker that this module is a preload of. Queues send the signal to all processes of a job some
    seconds before they kill them. In that time training comes to the end of its epoch and writes a checkpoint. Dask's
    nanny, which gets the signal too, closes the worker.
    """
    shorten_tracebacks()
    pass_over_task_errors()
    worker.startup_information[JOB_FACTS] = lambda _worker: own_job()
    signal.signal(signal.SIGTERM, lambda _number, _frame: told_to_end.set())


_CLOSING = ("closing_gracefully", "closing", "closed", "failed", "stopping")
_guard = threading.Lock()
_at_work = 0


@contextmanager
def at_work() -> Iterator[None]:
    """Say that this thread trains or lands: its process must not be closed under it."""
    global _at_work  # noqa: PLW0603 (one count a process is what is meant)
    with _guard:
        _at_work += 1
    try:
        yield
    finally:
        with _guard:
            _at_work -= 1


def leave_worker() -> None:
    """Have this thread's worker close itself, since its job is about to end, and return when it has begun to.

    For tasks that have not begun anything: waiting here, they keep the worker from being given more. Whatever is
    `at_work` in other threads of the process is waited for; it stops for the same reason.
    """
    worker = current_worker()
    if worker is None:
        return
    worker.loop.add_callback(_close_when_done, worker)
    while not is_closing():
        time.sleep(0.1)


async def _close_when_done(worker: Any) -> None:
    import asyncio  # which workers have, and most commands that know of workers do without

    while _at_work:
        await asyncio.sleep(0.1)
    await asyncio.sleep(_DELIVERY_SECONDS)
    await worker.close_gracefully(restart=False)
