"""From a site file, or from nothing, to a Dask client.

A *site file* is a short YAML file that says once how a computing site is used: which queue, how large a job, which
network interface. `start_cluster` reads it, starts Dask's scheduler in this process and the workers where the file
says, and gives a client; leaving the ``with`` block ends all of it, the jobs in the queue included::

    with start_cluster("cluster/slurm.yaml") as client:
        client.submit(sum, [1, 2]).result()

Without a file the workers are processes of this machine. Unless the file gives it up by name, all connections are
encrypted and need the certificate of this one cluster, and there is no dashboard; HTTP is served on 127.0.0.1 only.

A kind of cluster is one entry of `CLUSTER_KINDS`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from butter_etl.clusters import logs, nanny
from butter_etl.clusters.certificates import certificates, make_private, security_files, try_folder
from butter_etl.clusters.dask_settings import dask_settings
from butter_etl.clusters.deaths import Death, death_of
from butter_etl.clusters.listing import QueueState, queue_lines
from butter_etl.clusters.prologue import prologue_lines
from butter_etl.clusters.sites import (
    CLUSTER_KINDS,
    ClusterKind,
    SiteFile,
    Threads,
    load_site,
    plan_threads,
    queue_walltime,
    walltime_seconds,
)
from butter_etl.clusters.stopping import ended_cleanly
from butter_etl.clusters.supervisor import OnQueue, Supervisor
from butter_etl.clusters.worker import deadline_lines
from butter_etl.errors import (
    ButterError,
    ClusterError,
    ClusterFileError,
    UsageError,
    WorkerMemoryError,
    one_line,
    writing,
)

if TYPE_CHECKING:
    from distributed import Client, Security

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def start_cluster(
    file: str | Path | None = None,
    *,
    workers: int | None = None,
    threads_per_worker: int | None = None,
    on_queue: OnQueue | None = None,
) -> Iterator[Client]:
    """Start a Dask cluster, give its client, and end it when the block is left.

    ``file`` is a site file; without one the workers are processes of this machine. ``workers`` is how many jobs (on
    this machine: processes), before what the file says; ``threads_per_worker`` is how many tasks one worker process has
    at a time, see `plan_threads`. ``on_queue`` is told what the queue says of the jobs, from the first moment on;
    without it, the log is. In a script that starts worker processes on its own machine, the call belongs under ``if
    __name__ == "__main__":``, since they import the script.

    Raises ClusterFileError if the site file is malformed, and UsageError for an impossible number of workers or
    threads. Raises ClusterError if no worker came up, or jobs kept ending before theirs did; the message has the
    queue's words and the place of the logs.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"workers: wants a whole number from 1 up; got {workers}")
    site = SiteFile(kind="local") if file is None else load_site(file)
    require_folders(site)
    threads = plan_threads(site, threads_per_worker)
    jobs = workers or site.workers
    with (
        ended_cleanly(),
        dask_settings(_settings(site)),
        _start_local(site, jobs, threads)
        if site.kind == "local"
        else _start_jobs(site, jobs, threads, on_queue or _queue_log()) as client,
    ):
        try:
            yield client
        except _distributed().scheduler.KilledWorker as error:
            raise _lost_worker(death_of(client, error.last_worker)) from error


def _lost_worker(death: Death) -> ButterError:
    """Return the error of a command whose workers kept dying."""
    if death.cause == "memory":
        return WorkerMemoryError(f"workers died for lack of memory, the last time: {death.said}; {death.way_out}")
    return ClusterError(f"workers kept dying, the last time: {death.said}; the same command goes on from here")


def _queue_log() -> OnQueue:
    """Return a function that logs what a queue says, whenever it says something else: a warning if it is for ever."""
    last: list[str] = []

    def log(queue: QueueState) -> None:
        lines = list(queue_lines(queue, time.time()))
        for line in (line for line in lines if line not in last):
            logger.log(
                logging.WARNING if any(job.hint in line for job in queue.waiting if job.hint) else logging.INFO, line
            )
        last[:] = lines

    return log


def require_folders(site: SiteFile) -> None:
    """Make the folders of a site file that this machine uses, unless they are there.

    Raises PlaceError or FullDiskError where files cannot be made in one, ClusterFileError where another user can enter
    that of the certificates.
    """
    folders = {"scratch": site.scratch} if site.kind == "local" else {"logs": site.logs}
    for key, folder in folders.items():
        if folder is not None:
            with writing(f"{key}: {folder}"):
                try_folder(Path(folder))
    if site.kind != "local" and site.encryption:
        make_private(Path(site.shared_tmp))


def _settings(site: SiteFile) -> dict[str, Any]:
    """Return Dask's settings for a campaign."""
    health_only = ["distributed.http.health"]
    return {
        # Workers of a job queue come and go by design: their end is not the task's fault.
        "distributed.scheduler.allowed-failures": 10,
        # A worker that died is started again in its place, which may take longer than the 15 s after which Dask gives
        # the place up; jobs that are gone are the supervisor's.
        "distributed.deploy.lost-worker-timeout": "1 hour",
        # The p2p shuffle fails on list columns.
        "dataframe.shuffle.method": "tasks",
        # Loopback is shared with the other users of a login node: show them no tasks, logs or proxies.
        **({} if site.dashboard else {"distributed.scheduler.http.routes": health_only}),
        "distributed.worker.http.routes": health_only,
        # Only a dashboard shows these: samples of what event loops do, kept for half an hour, which take more memory
        # than a campaign's futures, and an hour's load of the machine.
        "distributed.worker.profile.enabled": site.dashboard,
        **({} if site.dashboard else {"distributed.admin.system-monitor.log-length": 60}),
    }


# Ctrl-C in a terminal, and its end, reach every process of the group: workers leave both to the driver, which ends
# them, or goes on where it was told to ignore the end (nohup).
_LOCAL_WORKER = f"""
import signal
from {logs.__name__} import silence_dask
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
silence_dask()
"""


@contextlib.contextmanager
def _start_local(site: SiteFile, workers: int | None, threads: Threads) -> Iterator[Client]:
    import dask
    from dask.system import CPU_COUNT

    distributed = _distributed()
    cores = threads.tasks * threads.pools
    memory = {} if site.memory is None else {"memory_limit": site.memory}
    preloads = {"distributed.worker.preload": [_LOCAL_WORKER], "distributed.nanny.preload": [nanny.__name__]}
    with _pinned(threads), dask.config.set(preloads):
        try:
            cluster = distributed.LocalCluster(
                n_workers=workers or max(1, CPU_COUNT // cores),
                threads_per_worker=threads.tasks,
                processes=True,
                host="127.0.0.1",
                protocol=_protocol(site),
                security=distributed.Security.temporary() if site.encryption else None,
                # Port 0: with no address at all Dask tries 8787 first, and warns where that is taken.
                scheduler_kwargs=_dashboard(site),
                env=threads.environment(),
                local_directory=site.scratch,
                silence_logs=logging.CRITICAL,
                **memory,
            )
        except (RuntimeError, OSError, TimeoutError) as error:
            raise ClusterError(f"the local cluster did not start: {one_line(str(error))}") from error
        with cluster, distributed.Client(cluster) as client:
            _tell_of_dashboard(site, client)
            yield client


@contextlib.contextmanager
def _pinned(threads: Threads) -> Iterator[None]:
    """Let processes spawned in this block start with pinned pools.

    BLAS reads its variables as soon as numpy is imported, which is before Dask's ``env=`` takes hold in a worker.
    Dask's own way, ``pre-spawn-environ``, gives way to what this process inherited, and leaves its variables behind
    in it; so they are set and put back here. Numba's is left to ``env=``: changed under a running numba, it raises.
    """
    import dask

    ours = {k: v for k, v in threads.environment().items() if not k.startswith("NUMBA")}
    touched = {*ours, *dask.config.get("distributed.nanny.pre-spawn-environ"), "PYTHONHASHSEED"}
    before = {name: os.environ.get(name) for name in touched}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def job_script(file: str | Path, *, threads_per_worker: int | None = None) -> str:
    """Return the script that a site file makes a job of, with stand-ins for the scheduler's address and certificates.

    Raises ClusterFileError if the site file is malformed, or its kind has no job scripts, and UsageError for an
    impossible number of threads.
    """
    import dask

    site = load_site(file)
    kind = CLUSTER_KINDS[site.kind]
    if kind.cluster is None:
        raise ClusterFileError(f"{file}: kind: {site.kind} clusters have no job script")
    security = security_files(Path(site.shared_tmp, "THIS-CLUSTER"))
    with dask.config.set({"jobqueue": _jobqueue_defaults()}):
        options = _job_options(site, plan_threads(site, threads_per_worker))
        job = _cluster_class(kind).job_cls(
            "tls://SCHEDULER:PORT",
            name="NAME",
            interface=site.interface,
            protocol="tls://",
            security=security,
            **options,
        )
        return str(job.job_script())


@contextlib.contextmanager
def _start_jobs(site: SiteFile, workers: int | None, threads: Threads, on_queue: OnQueue) -> Iterator[Client]:
    import dask

    distributed = _distributed()
    with certificates(Path(site.shared_tmp)) if site.encryption else contextlib.nullcontext() as security:
        refusals: list[str] = []
        with dask.config.set({"jobqueue": _jobqueue_defaults()}):
            cluster = _open_queue(site, security, threads, refusals)
            with cluster, distributed.Client(cluster) as client:
                supervisor = Supervisor(cluster, site, workers or 1, refusals, on_queue)
                supervisor.wait_for_worker()
                try:
                    with supervisor:
                        _tell_of_dashboard(site, client)
                        yield client
                finally:
                    if supervisor.failure is not None:
                        raise ClusterError(supervisor.failure)


def _open_queue(site: SiteFile, security: Security | None, threads: Threads, refusals: list[str]) -> Any:
    """Start a scheduler with no jobs yet; add what the queue says to those it refuses later to ``refusals``."""
    cluster_class = _cluster_class(CLUSTER_KINDS[site.kind])
    try:
        return cluster_class(
            job_cls=_reporting(cluster_class.job_cls, refusals),
            protocol=_protocol(site),
            security=security,
            interface=site.interface,
            scheduler_options=_dashboard(site),
            silence_logs=logging.CRITICAL,
            **_job_options(site, threads),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ClusterError(f"the scheduler did not start: {one_line(str(error))}") from error


def _protocol(site: SiteFile) -> str:
    return "tls://" if site.encryption else "tcp://"


def _dashboard(site: SiteFile) -> dict[str, Any]:
    """Return what the scheduler is told of HTTP: on loopback in any case, and no dashboard unless it was asked for."""
    return {"dashboard": site.dashboard, "dashboard_address": "127.0.0.1:0"}


def _tell_of_dashboard(site: SiteFile, client: Client) -> None:
    if site.dashboard:
        logger.warning("the dashboard is at %s, for every user of this machine", client.dashboard_link)


def _cluster_class(kind: ClusterKind) -> Any:
    return getattr(_jobqueue(), str(kind.cluster))


def _jobqueue() -> Any:
    """Import dask_jobqueue, without the handler that importing it installs: Ctrl-C would end us with code 0."""
    handler = signal.getsignal(signal.SIGINT)
    import dask_jobqueue

    if handler is not None and signal.getsignal(signal.SIGINT) is not handler:
        signal.signal(signal.SIGINT, handler)
    return dask_jobqueue


def _distributed() -> Any:
    """Import distributed as Any: few of its functions have annotations, and strict checking refuses the others."""
    import distributed

    return distributed


def _jobqueue_defaults() -> dict[str, Any]:
    """Return dask_jobqueue's own defaults, so that a forgotten jobqueue.yaml does not mix with a site file.

    Such a file lies in ~/.config/dask.
    """
    import yaml

    text = Path(_jobqueue().__file__).with_name("jobqueue.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["jobqueue"])


def _job_options(site: SiteFile, threads: Threads) -> dict[str, Any]:
    """Return the arguments of dask_jobqueue's job class, those that the cluster itself also needs left out."""
    pins = [f"export {name}={value}" for name, value in threads.environment().items()]
    options = {
        "job_name": "butter-etl",
        "worker_command": "butter_etl.clusters.job",
        "cores": site.cores,
        "processes": site.processes,
        "memory": site.memory,
        "python": site.python or sys.executable,
        "local_directory": site.scratch,
        "log_directory": site.logs,
        "death_timeout": site.death_timeout,
        "job_script_prologue": [*pins, *deadline_lines(walltime_seconds(site), site.logs), *prologue_lines(site)],
        "worker_extra_args": [
            # dask_jobqueue says these to Dask's own program alone.
            *(("--nworkers", str(site.processes)) if site.processes > 1 else ()),
            "--nanny",
            # dask_jobqueue gives every core a task; the last option counts.
            *("--nthreads", str(threads.tasks)),
            *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
            *("--preload", "butter_etl.clusters.worker"),
            *("--preload-nanny", "butter_etl.clusters.nanny"),
        ],
        **CLUSTER_KINDS[site.kind].options,
    }
    for key, word in CLUSTER_KINDS[site.kind].words.items():
        options[word] = _in_words_of_the_queue(site, key)
    return options


def _in_words_of_the_queue(site: SiteFile, key: str) -> Any:
    value = getattr(site, key)
    if key == "walltime":
        return queue_walltime(site)
    if key == "job_extra" and site.kind == "htcondor":
        return {name.strip(): text.strip() for name, _, text in (line.partition("=") for line in value)}
    return list(value) if isinstance(value, tuple) else value


def _reporting(job_class: type, refusals: list[str]) -> type:
    """Return ``job_class``, made to keep the queue's words where a job is refused.

    dask_jobqueue leaves a refused job in its books with ``job_id`` None and a traceback in a log. Here it is left there
    without the traceback, and the supervisor tries again.
    """

    class ReportingJob(job_class):  # type: ignore[misc]
        async def start(self) -> None:
            from distributed.core import Status

            try:
                await super().start()
            except (RuntimeError, ValueError, OSError) as error:
                words = str(error).rpartition("stderr:")[2]
                refusals.append(one_line(words) or type(error).__name__)
                self.status = Status.running

    return ReportingJob
