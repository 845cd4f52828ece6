"""Activity in a store: what is trained now, where, and how fast, read from its state folder alone, on any machine.

A driver keeps a file of its own fresh; a task writes down what it begins, with host and job, and strikes it out when it
has landed. So what was written down under a living driver's claim is in flight, and what nobody claims was left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from butter_etl.campaign.attempts import Attempt
from butter_etl.campaign.claims import bucket_of, claim_path
from butter_etl.campaign.heartbeats import RunningDriver, running_drivers
from butter_etl.store import Holder, Location, read_holder


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

    drivers: Sequence[RunningDriver]
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
    attempts = Location(state / "attempts")
    for name, _ in attempts.walk():
        try:
            yield msgspec.json.decode(attempts.read_bytes(name), type=Attempt)
        except FileNotFoundError:  # it ended meanwhile
            continue
