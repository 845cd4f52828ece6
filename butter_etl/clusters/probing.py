"""A probe of a site's workers, answered by one of them: for `butter-etl cluster check`."""

from __future__ import annotations

import os
import platform
import resource
import socket
import time
import uuid
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from butter_etl.clusters.deaths import Death, death_of, deaths_told
from butter_etl.clusters.prologue import prologue_failures
from butter_etl.clusters.records import job_logs
from butter_etl.clusters.sites import SiteFile, process_bytes, walltime_seconds
from butter_etl.clusters.worker import current_worker, host_facts, job_end
from butter_etl.engines import cpu_family
from butter_etl.errors import ButterError, ClusterError, StudyError, WorkerMemoryError, duration, writing

if TYPE_CHECKING:
    from distributed import Client

#: Packages whose versions must be the same here and on the workers.
_PACKAGES = ("butter-etl", "dask", "distributed", "numpy", "pyarrow", "numba")


#: Below this, in bytes, a process cannot hold interpreter, kernels and the smallest task.
LEAST_MEMORY = 300 * 2**20
#: In less time, in seconds, a job cannot start a worker, compile its kernels, train a little and save it.
LEAST_SECONDS = 120
#: From this share of its memory on Dask pauses a worker.
_FULL = 0.8


class WorkerFacts(msgspec.Struct, frozen=True):
    """Facts about one process; ``memory`` in bytes, ``seconds_left`` None where no job says when it ends.

    ``peak`` is the most memory that it had until it had done the smallest task, in bytes, ``ready`` how long that took.
    ``unknown`` is why it could not import the study whose task that is; None if it could.
    """

    host: str
    job_id: str | None
    python: str
    versions: dict[str, str]
    cpu_family: str
    cores: int
    tasks: int
    threads: str
    memory: int
    address: str
    seconds_left: float | None
    peak: int = 0
    ready: float = 0.0
    read: str | None = None
    error: str | None = None
    unknown: str | None = None


class Fact(msgspec.Struct, frozen=True):
    """One result of a probe. ``state`` is ``wrong`` for what would keep a campaign from working."""

    subject: str
    state: Literal["ok", "wrong"]
    said: str


def site_findings(site: SiteFile) -> list[Fact]:
    """Return what a site file alone shows to be wrong: no job as it says could do anything."""
    found = []
    memory, seconds = process_bytes(site), walltime_seconds(site)
    if memory is not None and memory < LEAST_MEMORY:
        found.append(Fact("memory", "wrong", f"{_mib(memory)} a process: {_needs(LEAST_MEMORY)}"))
    if seconds is not None and seconds < LEAST_SECONDS:
        said = f"{seconds} s: a worker must start, compile its kernels, train a little and save it"
        found.append(Fact("walltime", "wrong", f"{said}; give jobs {LEAST_SECONDS} s at least, better hours"))
    return found


def _needs(memory: int) -> str:
    return f"interpreter, kernels and the smallest task take {_mib(memory)}; raise `memory` in the site file"


def _mib(memory: int) -> str:
    return f"{memory / 2**20:,.0f} MiB"


def worker_facts(folder: str, token: str, smallest_task: Callable[[], object]) -> WorkerFacts:
    """Return the facts of the worker that runs this, after the smallest task that there is.

    Reads ``folder/token`` and leaves ``folder/token.answer``.
    """
    began, unknown = time.monotonic(), None
    try:
        smallest_task()
    except StudyError as problem:
        unknown = str(problem)
    ready = time.monotonic() - began
    read, error = None, None
    try:
        read = Path(folder, token).read_text(encoding="utf-8")
        Path(folder, f"{token}.answer").write_text(socket.gethostname(), encoding="utf-8")
    except OSError as problem:
        error = f"{problem.strerror}: {problem.filename}"
    worker = current_worker()
    end = job_end(os.environ)
    return WorkerFacts(
        host=socket.gethostname(),
        job_id=host_facts()["job_id"],
        python=platform.python_version(),
        versions={name: version(name) for name in _PACKAGES},
        cpu_family=cpu_family(),
        cores=len(os.sched_getaffinity(0)),
        tasks=worker.state.nthreads if worker else 1,
        threads=os.environ.get("OMP_NUM_THREADS", "not set"),
        memory=worker.memory_manager.memory_limit or 0 if worker else 0,
        address=worker.address if worker else "",
        seconds_left=None if end is None else end - time.time(),
        peak=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        ready=ready,
        read=read,
        error=error,
        unknown=unknown,
    )


def probe_workers(
    client: Client, site: SiteFile, smallest_task: Callable[[], object], study: str | None = None
) -> tuple[WorkerFacts, list[Fact]]:
    """Ask one worker for its facts, and compare them with this process.

    ``study`` is the name of the one that was chosen, of which there is a fact then. Raises ClusterError or
    WorkerMemoryError where the worker dies while it does the smallest task.
    """
    from distributed.scheduler import KilledWorker

    token, folder = uuid.uuid4().hex, Path(site.logs)
    question, answer = folder / token, folder / f"{token}.answer"
    with writing(f"logs: {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        question.write_text(token, encoding="utf-8")
    try:
        with deaths_told(client):
            facts: WorkerFacts = client.submit(worker_facts, str(folder), token, smallest_task, pure=False).result()
        return facts, [*_findings(facts, token, answer, folder), *_study(facts, study), *_prologue(site, facts.job_id)]
    except KilledWorker as error:
        raise _died(death_of(client, error.last_worker), site) from error
    finally:
        question.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)


def _died(death: Death, site: SiteFile) -> ButterError:
    line = f"{death.said} before it had compiled its kernels and finished an epoch"
    if death.cause == "memory":
        return WorkerMemoryError(f"{line}; {death.way_out}")
    limit = f"; raise `walltime` ({site.walltime}) in the site file" if death.cause == "queue" and site.walltime else ""
    return ClusterError(f"{line}{limit}; see the logs in {site.logs}")


def _prologue(site: SiteFile, job_id: str | None) -> list[Fact]:
    """Return what became of the prologue, as the job's logs tell."""
    if not site.prologue or job_id is None:
        return []
    failed = [failure.describe() for log in job_logs(site.logs, job_id) for failure in prologue_failures(log)]
    return [Fact("prologue", "wrong" if failed else "ok", "; ".join(failed) or "no command failed")]


def _findings(facts: WorkerFacts, token: str, answer: Path, folder: Path) -> list[Fact]:
    return [
        Fact("worker", "ok", facts.host + (f", job {facts.job_id}" if facts.job_id else "")),
        _versions(facts),
        Fact("processor", "ok", facts.cpu_family),
        _cores(facts),
        _memory(facts),
        Fact("encryption", "ok" if facts.address.startswith("tls://") else "wrong", facts.address),
        _shared(facts, token, answer, folder),
        _time_left(facts),
    ]


def _study(facts: WorkerFacts, study: str | None) -> list[Fact]:
    if facts.unknown is not None:
        return [Fact("study", "wrong", facts.unknown)]
    return [] if study is None else [Fact("study", "ok", f"{study} was imported there")]


def _versions(facts: WorkerFacts) -> Fact:
    ours = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    theirs = {"python": facts.python, **facts.versions}
    differ = [f"{name} is {theirs[name]} there, {ours[name]} here" for name in ours if theirs[name] != ours[name]]
    same = f"Python {facts.python}, butter-etl {facts.versions['butter-etl']}, the same as here"
    return Fact("versions", "wrong" if differ else "ok", "; ".join(differ) or same)


def _cores(facts: WorkerFacts) -> Fact:
    said = f"{facts.cores} for the process; {facts.tasks} tasks at a time, {facts.threads} threads in each"
    busy = facts.tasks * (int(facts.threads) if facts.threads.isdigit() else 1)
    if busy <= facts.cores:
        return Fact("cores", "ok", said)
    return Fact("cores", "wrong", f"{said}: more than there are")


def _shared(facts: WorkerFacts, token: str, answer: Path, folder: Path) -> Fact:
    if facts.error is not None:
        return Fact("shared files", "wrong", f"the worker cannot use {folder}: {facts.error}")
    if facts.read != token or not answer.exists():
        return Fact("shared files", "wrong", f"{folder} is another folder there")
    return Fact("shared files", "ok", f"both see {folder}")


def _memory(facts: WorkerFacts) -> Fact:
    said = f"{facts.memory / 2**30:.1f} GiB a process, {_mib(facts.peak)} after the smallest task"
    if facts.memory and facts.peak > _FULL * facts.memory:
        return Fact("memory", "wrong", f"{said}: {_needs(facts.peak)}")
    return Fact("memory", "ok", said)


def _time_left(facts: WorkerFacts) -> Fact:
    if facts.seconds_left is None:
        return Fact("time left", "ok", "no limit is known")
    said = f"{duration(facts.seconds_left)}, after {duration(facts.ready)} of compiling and a first epoch"
    if facts.seconds_left < LEAST_SECONDS / 2:
        return Fact("time left", "wrong", f"{said}: raise `walltime` in the site file")
    return Fact("time left", "ok", said)
