"""Attempts at training that got no further, counted in the store, so that the count holds across drivers.

A worker that is killed says nothing. So an attempt is written down before it begins and struck out when it has landed
or stopped of its own accord; what is left over are deaths and errors. Where the driver learns why a worker died, it
writes that down too: a death that was the queue's doing does not count, and after one for memory smaller stacks are
tried, down to one run.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from butter_etl.campaign.claims import bucket_of
from butter_etl.clusters import JOB_LOGS, Death, host_facts, worker_address
from butter_etl.errors import AttemptsError, WorkerMemoryError, one_line, unwritten
from butter_etl.store import files_in, write_durably

#: How often, at most, the same runs are begun without a newer checkpoint.
MOST_ATTEMPTS = 3
_LOG_LINES = 20


class Attempt(msgspec.Struct, frozen=True):
    """The last time that some repetitions of an experiment were begun, and where.

    ``count`` says how many times without getting further; ``epochs`` are those trained before it, added up over runs;
    ``logs`` is where the queue writes the logs of its jobs; ``time`` is in unix seconds. ``worker`` is the address of
    Dask's worker, ``death`` how it died, as far as is known.
    """

    experiment_id: int
    repetitions: list[int]
    count: int
    epochs: float
    host: str
    job_id: str | None
    logs: str | None
    time: int
    worker: str = ""
    death: Death | None = None

    @property
    def stack(self) -> int:
        """Return how many of the runs were trained together: half as many with each attempt."""
        return runs_together(len(self.repetitions), self.count)

    @property
    def is_hopeless(self) -> bool:
        """Tell whether another attempt would be one too many."""
        for_memory = self.death is not None and self.death.cause == "memory"
        return self.count >= MOST_ATTEMPTS and not (for_memory and self.stack > 1)

    @property
    def where(self) -> str:
        """Return host and job, for messages."""
        return self.host + (f", job {self.job_id}" if self.job_id else "")


def runs_together(runs: int, attempt: int) -> int:
    """Return how many of so many runs an attempt trains together, the first all of them."""
    halvings = attempt - 1
    return max(1, -(-runs >> halvings))


def begin_attempt(state: Path, experiment_id: int, repetitions: Sequence[int], epochs: float = 0) -> int:
    """Write down that repetitions are begun with so many epochs trained; return how many attempts that makes.

    Raises AttemptsError where it would be one too many, WorkerMemoryError where memory is the reason, FullDiskError
    where there is no space to write it down.
    """
    earlier = list(attempts_at(state, experiment_id, repetitions))
    stuck = [attempt for attempt in earlier if attempt.epochs >= epochs and attempt.count]
    last = max(stuck, key=lambda attempt: (attempt.count, attempt.time), default=None)
    if last and last.is_hopeless:
        raise _hopeless(last, experiment_id, repetitions)
    attempt = Attempt(
        experiment_id,
        list(repetitions),
        last.count + 1 if last else 1,
        epochs,
        socket.gethostname(),
        host_facts()["job_id"],
        os.environ.get(JOB_LOGS),
        int(time.time()),
        worker_address(),
    )
    _write(_path(state, experiment_id, repetitions), attempt)
    for other in earlier:
        if other.repetitions != attempt.repetitions and set(other.repetitions) <= set(repetitions):
            _path(state, experiment_id, other.repetitions).unlink(missing_ok=True)
    return attempt.count


def _hopeless(last: Attempt, experiment_id: int, repetitions: Sequence[int]) -> AttemptsError:
    which = f"experiment {experiment_id}: repetitions {repetitions[0]} to {repetitions[-1]}"
    if last.death is not None and last.death.cause == "memory":
        size = f"{last.stack} runs at a time" if last.stack > 1 else "one run at a time"
        return WorkerMemoryError(
            f"{which} do not fit into the memory of a worker, not even {size}: {last.death.said}; {last.death.way_out}"
        )
    ending = f": {last.death.said}" if last.death else f" on {last.where}"
    return AttemptsError(f"{which} were begun {last.count} times and ended without a word, the last time{ending}")


def mark_deaths(state: Path, death: Death) -> list[Attempt]:
    """Write down how a worker died with the attempts that it was at, and return these.

    An attempt that a queue ended does not count.
    """
    buckets = (state / "attempts").glob("*")
    found = [attempt for bucket in buckets for attempt in _attempts(bucket) if attempt.worker == death.worker]
    for attempt in found:
        count = attempt.count - (death.cause == "queue")
        path = _path(state, attempt.experiment_id, attempt.repetitions)
        _write(path, msgspec.structs.replace(attempt, count=count, death=death))
    return found


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
    for attempt in _attempts(state / "attempts" / str(bucket_of(experiment_id)), f"{experiment_id}-"):
        if not set(attempt.repetitions).isdisjoint(repetitions):
            yield attempt


def _attempts(folder: Path, beginning: str = "") -> Iterator[Attempt]:
    for path in files_in(folder, ".json"):
        if path.name.startswith(beginning):
            with suppress(FileNotFoundError):  # it ended meanwhile
                yield msgspec.json.decode(path.read_bytes(), type=Attempt)


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
