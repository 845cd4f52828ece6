"""A probe of a site's workers, answered by one of them: for `butter-etl cluster check`."""

from __future__ import annotations

import os
import platform
import socket
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from butter_etl.clusters.sites import SiteFile
from butter_etl.clusters.worker import current_worker, host_facts, job_end
from butter_etl.engines import cpu_family
from butter_etl.errors import writing
from butter_etl.words import duration

if TYPE_CHECKING:
    from distributed import Client

#: Packages whose versions must be the same here and on the workers.
_PACKAGES = ("butter-etl", "dask", "distributed", "numpy", "pyarrow", "numba")


class WorkerFacts(msgspec.Struct, frozen=True):
    """Facts about one process; ``memory`` in bytes, ``seconds_left`` None where no job says when it ends."""

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
    read: str | None = None
    error: str | None = None


class Fact(msgspec.Struct, frozen=True):
    """One result of a probe. ``state`` is ``wrong`` for what would keep a campaign from working."""

    subject: str
    state: Literal["ok", "wrong"]
    said: str


def worker_facts(folder: str, token: str) -> WorkerFacts:
    """Return the facts of the worker that runs this; read ``folder/token`` and leave ``folder/token.answer``."""
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
        read=read,
        error=error,
    )


def probe_workers(client: Client, site: SiteFile) -> tuple[WorkerFacts, list[Fact]]:
    """Ask one worker for its facts, and compare them with this process."""
    token, folder = uuid.uuid4().hex, Path(site.logs)
    question, answer = folder / token, folder / f"{token}.answer"
    with writing(f"logs: {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        question.write_text(token, encoding="utf-8")
    try:
        facts: WorkerFacts = client.submit(worker_facts, str(folder), token, pure=False).result()
        return facts, _findings(facts, token, answer, folder)
    finally:
        question.unlink(missing_ok=True)
        answer.unlink(missing_ok=True)


def _findings(facts: WorkerFacts, token: str, answer: Path, folder: Path) -> list[Fact]:
    return [
        Fact("worker", "ok", facts.host + (f", job {facts.job_id}" if facts.job_id else "")),
        _versions(facts),
        Fact("processor", "ok", facts.cpu_family),
        _cores(facts),
        Fact("memory", "ok", f"{facts.memory / 2**30:.1f} GiB a process"),
        Fact("encryption", "ok" if facts.address.startswith("tls://") else "wrong", facts.address),
        _shared(facts, token, answer, folder),
        _time_left(facts),
    ]


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


def _time_left(facts: WorkerFacts) -> Fact:
    if facts.seconds_left is None:
        return Fact("time left", "ok", "no limit is known")
    return Fact("time left", "ok", duration(facts.seconds_left))
