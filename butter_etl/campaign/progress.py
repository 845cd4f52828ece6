"""How far a campaign is: what tasks tell of themselves while they run, and what the rest takes at the pace so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from butter_etl.clusters import host_facts, tell_progress

#: Workers pass on what tasks tell no more often than this.
_TELL_SECONDS = 0.5


class TaskProgress(msgspec.Struct, frozen=True):
    """How far a task is, in runs, which it trains in order.

    ``done`` have landed or were there. The next ``training`` are trained side by side on a host, in a job or not, since
    unix time ``since``; ``share`` of their points is done. ``resumed`` is how much of all came from checkpoints.
    """

    host: str
    job_id: str | None
    done: int = 0
    training: int = 0
    share: float = 0.0
    since: int = 0
    resumed: float = 0.0


class Teller:
    """Tells the driver of a task how far it is, by way of the worker that runs it."""

    def __init__(self) -> None:
        facts = host_facts()
        self._now = TaskProgress(str(facts["hostname"]), facts["job_id"])
        self._points = 1
        self._told = 0.0

    def begin(self, runs: int, points: int, trained: float) -> None:
        """Say that a stack of ``runs`` is begun, ``trained`` of its ``points`` (of all runs) by a checkpoint."""
        self._points = points
        share = trained / points
        resumed = self._now.resumed + runs * share
        self._tell(training=runs, share=share, since=int(time.time()), resumed=resumed)

    def reach(self, trained: float) -> None:
        """Say, every half second at most, that so many points of the stack that was begun are trained."""
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._tell(share=trained / self._points)

    def finish(self, runs: int) -> None:
        """Say that so many runs more are done, and that none is being trained now."""
        self._tell(done=self._now.done + runs, training=0, share=0.0)

    def pause(self) -> None:
        """Say that nothing is being trained now."""
        self._tell(training=0, share=0.0)

    def _tell(self, **changes: float) -> None:
        self._told = time.monotonic()
        self._now = msgspec.structs.replace(self._now, **changes)
        tell_progress(msgspec.to_builtins(self._now))


class Place(msgspec.Struct, frozen=True):
    """A host, in a job or not, that trains: so many stacks of so many runs, the oldest begun at unix time ``since``.

    ``share`` is the part of their measuring points that is done, between 0 and 1.
    """

    host: str
    job_id: str | None
    stacks: int
    runs: int
    since: int
    share: float = 0.0


def places_of(tasks: Iterable[TaskProgress]) -> tuple[Place, ...]:
    """Return the places where tasks train now, in order."""
    here: dict[tuple[str, str], list[TaskProgress]] = {}
    for task in tasks:
        if task.training:
            here.setdefault((task.host, task.job_id or ""), []).append(task)
    return tuple(
        Place(
            host,
            job_id or None,
            len(found),
            runs := sum(one.training for one in found),
            min(one.since for one in found),
            sum(one.share * one.training for one in found) / runs,
        )
        for (host, job_id), found in sorted(here.items())
    )


@dataclass(frozen=True)
class Progress:
    """Progress of a campaign at one moment, in runs: the numbers from ``landed`` to ``waiting`` add up to ``wanted``.

    ``landed`` by this driver, ``present`` by others; those ``in_flight`` are being trained, those ``waiting`` are not.
    ``share_done`` is the share of the estimated cost of all that is done, between 0 and 1. ``seconds`` is how long the
    driver has had workers, ``left`` how many seconds the rest takes at this pace; None while that is not known.
    """

    wanted: int
    landed: int
    present: int
    failed: int
    in_flight: int
    waiting: int
    core_seconds: float = 0.0
    share_done: float = 0.0
    seconds: float = 0.0
    left: float | None = None
    places: tuple[Place, ...] = ()

    @property
    def done(self) -> int:
        """Return how many runs have landed, whoever trained them."""
        return self.landed + self.present


class Pace:
    """The pace of a campaign: how much of the estimated cost a busy slot of a worker does in a second.

    It is measured from the first moment at which anything is done: compiling and importing come before that.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun = self._looked = clock()
        self._busy = 0
        self._first: float | None = None
        self._work = self._busy_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Return how many seconds there have been workers."""
        return self._clock() - self._begun

    def look(self, work: float, busy: int) -> None:
        """Take note that ``work`` of the cost has been done in all, and that ``busy`` slots have something to do."""
        now = self._clock()
        if self._first is not None:
            self._busy_seconds += self._busy * (now - self._looked)
        elif work > 0:
            self._first = work
        self._looked, self._busy, self._work = now, busy, max(work, self._work)

    def seconds_left(self, rest: float, longest: float, slots: int) -> float | None:
        """Return how long a ``rest`` of the cost takes ``slots`` slots; its ``longest`` part goes to a single one.

        None where no pace has been measured yet, or nobody works.
        """
        work = self._work - (self._first or 0.0)
        if work <= 0 or self._busy_seconds <= 0 or not slots:
            return None
        return max(rest / slots, longest) * self._busy_seconds / work
