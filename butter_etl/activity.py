"""Activity in a store: what is trained now, where, and how fast, read from its state folder alone, on any machine.

A driver keeps a file of its own fresh; a task writes down what it begins, with host and job, and strikes it out when it
has landed. So what was written down under a living driver's claim is in flight, and what nobody claims was left behind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from butter_etl.attempts import Attempt
from butter_etl.claims import bucket_of, claim_path
from butter_etl.heartbeats import Driver, running_drivers
from butter_etl.locks import Holder, read_holder
from butter_etl.store import Failure
from butter_etl.terminal import duration

_PLACES_SHOWN = 20
_FAILURES_SHOWN = 10
_LAST_LINES = 3


class Place(msgspec.Struct, frozen=True):
    """A host, in a job or not, that trains: so many stacks of so many runs, the oldest begun at unix time ``since``."""

    host: str
    job_id: str | None
    stacks: int
    runs: int
    since: int


@dataclass(frozen=True)
class Activity:
    """The drivers at work, the places that train, and how many runs were begun and left by drivers that are gone."""

    drivers: Sequence[Driver]
    places: Sequence[Place]
    left_behind: int


def current_activity(state: Path) -> Activity:
    """Return what goes on in a store now, as its state folder tells."""
    drivers = running_drivers(state)
    alive = {_process(driver.holder): driver.started for driver in drivers}
    here: dict[tuple[str, str | None], list[Attempt]] = {}
    left_behind = 0
    for attempt in _attempts(state):
        holder = read_holder(claim_path(state, bucket_of(attempt.experiment_id)))
        started = alive.get(_process(holder)) if holder is not None else None
        if started is None:
            left_behind += len(attempt.repetitions)
        elif attempt.time >= started:
            here.setdefault((attempt.host, attempt.job_id), []).append(attempt)
    places = [
        Place(
            host,
            job_id,
            len(attempts),
            sum(len(one.repetitions) for one in attempts),
            min(one.time for one in attempts),
        )
        for (host, job_id), attempts in here.items()
    ]
    return Activity(drivers, sorted(places, key=lambda place: (place.host, place.job_id or "")), left_behind)


def _process(holder: Holder) -> tuple[str, int, str]:
    return holder.machine, holder.pid, holder.started


def _attempts(state: Path) -> Iterator[Attempt]:
    for path in (state / "attempts").glob("*/*.json"):
        try:
            yield msgspec.json.decode(path.read_bytes(), type=Attempt)
        except FileNotFoundError:  # it ended meanwhile
            continue


def activity_lines(activity: Activity) -> Iterator[str]:
    """Yield what goes on, in words."""
    now = time.time()
    yield from (driver_line(driver, now) for driver in activity.drivers)
    for place in activity.places[:_PLACES_SHOWN]:
        job = f", job {place.job_id}" if place.job_id else ""
        oldest = duration(max(0.0, now - place.since))
        yield f"training on {place.host}{job}: {place.runs:,} runs in {place.stacks:,} stacks, the oldest for {oldest}"
    if hidden := activity.places[_PLACES_SHOWN:]:
        yield f"… and {sum(place.runs for place in hidden):,} runs in {len(hidden):,} more jobs (--json has all)"
    if activity.left_behind:
        yield f"begun and left: {activity.left_behind:,} runs, by drivers that are gone; `train` goes on with them"


def driver_line(driver: Driver, now: float) -> str:
    """Say how far a driver is, how fast, and how long the rest will take at that pace; ``now`` is in unix seconds."""
    who = f"{driver.holder.host}, process {driver.holder.pid}"
    words = [
        f"running: {who}: {driver.landed:,} of {driver.wanted:,} runs landed",
        f"{driver.in_flight:,} in flight",
        *([f"{driver.present:,} landed by others"] if driver.present else []),
        f"{driver.failed:,} failed",
    ]
    elapsed = max(now - driver.started, 1.0)
    if driver.landed:
        words.append(rate(driver.landed / elapsed))
    if driver.share_done:
        words.append(f"about {duration(elapsed * (1 - driver.share_done) / driver.share_done)} left")
    return ", ".join(words)


def rate(runs_a_second: float) -> str:
    """Format a rate in the unit of time that makes the number one or more: ``12 runs a minute``."""
    for seconds, unit in ((1, "second"), (60, "minute"), (3600, "hour")):
        if runs_a_second * seconds >= 1:
            return f"{runs_a_second * seconds:,.0f} runs a {unit}"
    return f"{runs_a_second * 86400:,.1f} runs a day"


def failure_lines(failures: Sequence[Failure]) -> Iterator[str]:
    """Yield the newest failures: what, where, and the end of the traceback or of the job's log."""
    newest = sorted(failures, key=lambda failure: failure.time)[-_FAILURES_SHOWN:]
    if hidden := len(failures) - len(newest):
        yield f"failed: {hidden:,} more, older than these (--json has all)"
    for failure in newest:
        yield failure_line(failure)
        if failure.host:
            yield f"    on {failure.host}" + (f", job {failure.job_id}" if failure.job_id else "")
        yield from (f"    | {line}" for line in failure.details.rstrip().splitlines()[-_LAST_LINES:])


def failure_line(failure: Failure) -> str:
    """Say in one line what failed, and why."""
    numbers = failure.repetitions
    which = f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
    return f"failed: experiment {failure.experiment_id} ({failure.experiment}), repetitions {which}: {failure.error}"
