"""Attempts at training that got no further, counted in the store, so that the count holds across drivers.

A worker that is killed says nothing. So an attempt is written down before it begins and struck out when it has landed
or stopped of its own accord; what is left over are deaths and errors.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from butter_etl.campaign.claims import bucket_of
from butter_etl.clusters import JOB_LOGS, host_facts
from butter_etl.errors import AttemptsError, one_line, unwritten
from butter_etl.store import files_in, write_durably

#: How often, at most, the same runs are begun without a newer checkpoint.
MOST_ATTEMPTS = 3
_LOG_LINES = 20


class Attempt(msgspec.Struct, frozen=True):
    """The last time that some repetitions of an experiment were begun, and where.

    ``count`` says how many times without getting further; ``epochs`` are those trained before it, added up over runs;
    ``logs`` is where the queue writes the logs of its jobs; ``time`` is in unix seconds.
    """

    experiment_id: int
    repetitions: list[int]
    count: int
    epochs: int
    host: str
    job_id: str | None
    logs: str | None
    time: int

    @property
    def where(self) -> str:
        """Return host and job, for messages."""
        return self.host + (f", job {self.job_id}" if self.job_id else "")


def begin_attempt(state: Path, experiment_id: int, repetitions: Sequence[int], epochs: int = 0) -> int:
    """Write down that repetitions are begun with so many epochs trained; return how many attempts that makes.

    Raises AttemptsError where it would be one too many, FullDiskError where there is no space to write it down.
    """
    earlier = list(attempts_at(state, experiment_id, repetitions))
    stuck = [attempt for attempt in earlier if attempt.epochs >= epochs]
    count = 1 + max((attempt.count for attempt in stuck), default=0)
    if count > MOST_ATTEMPTS:
        last = max(stuck, key=lambda attempt: attempt.time)
        raise AttemptsError(
            f"experiment {experiment_id}: repetitions {repetitions[0]} to {repetitions[-1]} were begun {count - 1} "
            f"times and ended without a word, the last time on {last.where}"
        )
    attempt = Attempt(
        experiment_id,
        list(repetitions),
        count,
        epochs,
        socket.gethostname(),
        host_facts()["job_id"],
        os.environ.get(JOB_LOGS),
        int(time.time()),
    )
    _write(_path(state, experiment_id, repetitions), attempt)
    for other in earlier:
        if other.repetitions != attempt.repetitions and set(other.repetitions) <= set(repetitions):
            _path(state, experiment_id, other.repetitions).unlink(missing_ok=True)
    return count


def _write(path: Path, attempt: Attempt) -> None:
    data = msgspec.json.encode(attempt)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path.parent, lambda file: file.write(data)).replace(path)
    except OSError as error:
        raise unwritten(error, f"{path}: cannot be written ({one_line(error)})", AttemptsError) from error


def end_attempt(state: Path, experiment_id: int, repetitions: Sequence[int]) -> None:
    """Strike an attempt out: its runs have landed, or stopped of their own accord, or their failure is recorded."""
    for attempt in attempts_at(state, experiment_id, repetitions):
        if set(attempt.repetitions) <= set(repetitions):
            _path(state, experiment_id, attempt.repetitions).unlink(missing_ok=True)


def attempts_at(state: Path, experiment_id: int, repetitions: Sequence[int]) -> Iterator[Attempt]:
    """Yield the attempts written down that share repetitions with these, however tasks were cut then."""
    for path in files_in(state / "attempts" / str(bucket_of(experiment_id)), ".json"):
        if not path.name.startswith(f"{experiment_id}-"):
            continue
        try:
            attempt = msgspec.json.decode(path.read_bytes(), type=Attempt)
        except FileNotFoundError:  # it ended meanwhile
            continue
        if not set(attempt.repetitions).isdisjoint(repetitions):
            yield attempt


def log_tail(attempt: Attempt) -> str:
    """Return the last lines of the log of the job that an attempt was made in; empty where none can be found."""
    if attempt.logs is None or attempt.job_id is None:
        return ""
    number = attempt.job_id.partition(".")[0]
    for path in sorted(Path(attempt.logs).glob(f"*{number}*")):
        lines = path.read_text(errors="replace").rstrip().splitlines()
        if lines:
            return "\n".join(lines[-_LOG_LINES:])
    return ""


def _path(state: Path, experiment_id: int, repetitions: Sequence[int]) -> Path:
    name = f"{experiment_id}-{repetitions[0]}-{repetitions[-1]}.json"
    return state / "attempts" / str(bucket_of(experiment_id)) / name
