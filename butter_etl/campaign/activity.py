"""Activity in a store: what is trained now, where, and how fast, read from its state folder alone, on any machine.

A driver keeps a file of its own fresh, which has all its numbers of one moment. A task writes down what it begins, and
strikes it out when it has landed. So what was written down and has no living driver's claim was left behind.
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


@dataclass(frozen=True)
class Activity:
    """The drivers at work, and how many runs were begun and left by drivers that are gone."""

    drivers: Sequence[RunningDriver]
    left_behind: int


def current_activity(state: Path) -> Activity:
    """Return what goes on in a store now, as its state folder tells."""
    drivers = running_drivers(state)
    alive = {_process(driver.holder) for driver in drivers}
    left_behind = 0
    for attempt in _attempts(state):
        holder = read_holder(claim_path(state, bucket_of(attempt.experiment_id)))
        if holder is None or _process(holder) not in alive:
            left_behind += len(attempt.repetitions)
    return Activity(drivers, left_behind)


def _process(holder: Holder) -> tuple[str, int, str]:
    return holder.machine, holder.pid, holder.started


def _attempts(state: Path) -> Iterator[Attempt]:
    attempts = Location(state / "attempts")
    for name, _ in attempts.walk():
        try:
            yield msgspec.json.decode(attempts.read_bytes(name), type=Attempt)
        except FileNotFoundError:  # it ended meanwhile
            continue
