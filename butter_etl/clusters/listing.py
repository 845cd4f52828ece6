"""What the queue says of jobs: which there are, in what state, why they wait, and when they start, in its own words."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import groupby

import msgspec

from butter_etl.clusters.sites import ClusterKind

#: A queue that has a command of its own for reasons is asked for them this often at most.
EXPLAIN_SECONDS = 30.0
_IDS_SHOWN = 5
#: What is older than this says so.
_OLD_SECONDS = 60.0
#: What queues print in place of a time or a reason that they do not have.
_NOTHING = frozenset({"", "N/A", "n/a", "None", "undefined", "-", "--"})


class QueuedJob(msgspec.Struct, frozen=True):
    """A job of ours that has no worker yet. ``state``, ``reason`` and ``starts`` are the queue's words, or empty.

    ``starts`` is when the queue expects to start it, or did. ``hint`` says what would have to change where the job
    cannot start as things are.
    """

    job_id: str
    state: str = ""
    reason: str = ""
    starts: str = ""
    hint: str = ""


class QueueState(msgspec.Struct, frozen=True):
    """What a queue said at unix time ``time`` of the jobs of one driver.

    ``wanted`` is how many the driver wants, ``connected`` how many have a worker; ``waiting`` are those that have none.
    """

    time: float
    wanted: int
    connected: int = 0
    waiting: tuple[QueuedJob, ...] = ()


def list_jobs(kind: ClusterKind) -> Mapping[str, QueuedJob] | None:
    """Return the user's jobs that have not ended, by id, as the queue tells; None where it does not answer."""
    return _jobs(kind, kind.listing, kind.listed)


def _jobs(kind: ClusterKind, command: Sequence[str], pattern: str) -> Mapping[str, QueuedJob] | None:
    if not command:
        return None
    words = [word.format(user=_user()) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return {match["id"]: _job(kind, match) for match in re.finditer(pattern, done.stdout, re.MULTILINE)}


def _user() -> str:
    """Return the user's name; where there is none, as in some containers, the number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _job(kind: ClusterKind, match: re.Match[str]) -> QueuedJob:
    told = {key: (text or "").strip() for key, text in match.groupdict().items()}
    state, reason, starts = (
        "" if told.get(key, "") in _NOTHING else told[key] for key in ("state", "reason", "starts")
    )
    hint = next((hint for words, hint in kind.hopeless.items() if re.search(words, f"{state} {reason}")), "")
    return QueuedJob(match["id"], kind.states.get(state, state), reason, starts, hint)


class Explainer:
    """Adds reasons to listed jobs where the queue has a command of its own for them, which is asked now and then."""

    def __init__(self, kind: ClusterKind, clock: Callable[[], float] = time.monotonic) -> None:
        self._kind, self._clock = kind, clock
        self._asked: float | None = None
        self._known: Mapping[str, QueuedJob] = {}

    def waiting(self, ids: Collection[str], listed: Mapping[str, QueuedJob] | None) -> tuple[QueuedJob, ...]:
        """Return the jobs of these ids as the queue has listed them, with reasons; ``listed`` is None where it did not.

        What the listing says last of a job's state counts.
        """
        if listed is None:
            return tuple(QueuedJob(job_id, "unknown: the queue does not answer") for job_id in ids)
        if self._kind.explaining and ids:
            self._ask(ids)
        found = []
        for job_id in ids:
            job, known = listed.get(job_id, QueuedJob(job_id)), self._known.get(job_id)
            found.append(known if known and (not job.state or job.state == known.state) else job)
        return tuple(found)

    def _ask(self, ids: Collection[str]) -> None:
        now = self._clock()
        if self._asked is None or now - self._asked >= EXPLAIN_SECONDS or not set(ids) <= self._known.keys():
            self._asked = now
            told = _jobs(self._kind, self._kind.explaining, self._kind.explained) or {}
            self._known = {job_id: told.get(job_id, QueuedJob(job_id)) for job_id in ids}


def queue_lines(queue: QueueState, now: float) -> Iterator[str]:
    """Yield what the queue says, in words, while it has not given all jobs: none where each has its worker.

    Jobs of which it says the same share a line. ``now`` is in unix seconds.
    """
    if queue.connected >= queue.wanted and not queue.waiting:
        return
    age = now - queue.time
    old = f" ({age:,.0f} s ago)" if age >= _OLD_SECONDS else ""
    if not queue.waiting and not queue.connected:
        yield f"asking the queue for {queue.wanted:,} job{'s' if queue.wanted > 1 else ''}{old}"
        return
    yield f"waiting for the queue: {queue.connected:,} of {queue.wanted:,} jobs have a worker{old}"
    yield from _job_lines(queue.waiting)


def _job_lines(jobs: Sequence[QueuedJob]) -> Iterator[str]:
    def said(job: QueuedJob) -> tuple[str, str, str, str]:
        return job.hint, job.state, job.reason, job.starts

    for (hint, state, reason, starts), group in groupby(sorted(jobs, key=said, reverse=True), key=said):
        ids = sorted((job.job_id for job in group), key=lambda text: (len(text), text))
        which = f"job {ids[0]}" if len(ids) == 1 else f"jobs {', '.join(ids[:_IDS_SHOWN])}"
        more = f" and {len(ids) - _IDS_SHOWN:,} more" if len(ids) > _IDS_SHOWN else ""
        because = f" ({reason})" if reason else ""
        when = f", start {starts}" if starts else ""
        stuck = f"; does not start as things are: {hint}" if hint else ""
        yield f"{which}{more}: {state or 'not in the list of the queue yet'}{because}{when}{stuck}"
