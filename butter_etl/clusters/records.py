"""What a queue has on record of a job: whether it goes on, and how it ended."""

from __future__ import annotations

import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec

from butter_etl.clusters.prologue import prologue_failures
from butter_etl.clusters.sites import CLUSTER_KINDS, ClusterKind, SiteFile

#: Exit code and signal of a process that the kernel killed, as it does where memory is short.
_KILLED = ("137:0", "0:9")
#: What Python prints between an exception and the one that it caused.
_CAUSED = "The above exception was the direct cause of the following exception:"


class JobRecord(msgspec.Struct, frozen=True):
    """A queue's record of a job: its state, and ``exit_code:signal``, in the queue's words."""

    state: str
    exit_code: str

    def cause(self, kind: ClusterKind) -> Literal["goes on", "memory", "queue", "unknown"]:
        """Return why the job ended: for memory, by the queue's will or a node's failure, or for reasons of its own."""
        if self.state in kind.going_on:
            return "goes on"
        if self.state in kind.out_of_memory:
            return "memory"
        if self.state not in kind.by_itself:
            return "queue"
        return "memory" if self.exit_code in _KILLED else "unknown"

    def describe(self) -> str:
        """Return the record in the queue's words, for messages."""
        return f"{self.state}, exit code {self.exit_code}"


def job_record(kind: ClusterKind, job_id: str) -> JobRecord | None:
    """Return what the queue has on record of a job; None where it does not say."""
    for record in kind.records:
        command = [word.format(job=job_id) for word in record.command]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        except (OSError, subprocess.SubprocessError):
            continue
        if found := re.search(record.pattern, done.stdout, re.MULTILINE):
            return JobRecord(found["state"], found["code"])
    return None


def taken_away(kind: ClusterKind, job_id: str | None) -> bool:
    """Tell whether a job was cancelled, preempted, or lost with its node, so that another one may fare better."""
    record = job_record(kind, job_id) if job_id else None
    return bool(record and record.cause(kind) == "queue" and record.state not in kind.out_of_time)


def early_end(site: SiteFile, job_id: str | None) -> str:
    """Say why a job ended before its worker connected, as part of a message: the queue's words, and the log's."""
    kind = CLUSTER_KINDS[site.kind]
    record = job_record(kind, job_id) if job_id else None
    if record and record.cause(kind) == "memory":
        return f" for lack of memory ({record.describe()}); raise `memory` ({site.memory}) in the site file"
    if record and record.state in kind.out_of_time:
        return f" at its time limit ({record.describe()}); raise `walltime` ({site.walltime}) in the site file"
    if record and record.cause(kind) == "queue":
        return f" ({record.describe()})"
    for log in job_logs(site.logs, job_id):
        for failure in prologue_failures(log):
            return f": its prologue failed: {failure.describe()}"
    return last_words(site.logs, job_id)


def job_logs(logs: str, job_id: str | None) -> list[str]:
    """Return the texts of a job's logs."""
    # `*-7.err` of Slurm, LSF and HTCondor; `7.host.ER` of PBS; `butter-etl.o7` of Grid Engine.
    return [
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(Path(logs).glob(f"*{job_id}*"))
        if path.is_file()
    ]


def last_words(logs: str, job_id: str | None) -> str:
    """Return the last line of a job's error log, as part of a message; empty where there is none.

    Where it is an exception that another one caused, the first cause stands behind it.
    """
    for text in job_logs(logs, job_id):
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if lines:
            causes = [before for before, line in pairwise(lines) if line == _CAUSED]
            return f", saying: {lines[-1]}" + (f" ({causes[0]})" if causes else "")
    return ""
