"""Heartbeats of the drivers that train into a store now: a small file that each keeps fresh while it runs."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import msgspec

from butter_etl.campaign.progress import Place, Progress
from butter_etl.clusters import QueueState
from butter_etl.store import Holder, file_age, files_in, is_dead, this_process, write_durably

#: A driver rewrites its file this often at most, renews it this often, and is taken for dead when it is much older.
_BEAT_SECONDS = 5.0
_RENEW_SECONDS = 20.0
_DEAD_SECONDS = 90.0


class RunningDriver(msgspec.Struct, frozen=True):
    """A running campaign, in runs, at one moment. Times are in unix seconds of the driver's clock.

    ``started`` is when the driver began, ``time`` when its numbers were so: those from ``landed`` to ``waiting`` add up
    to ``wanted``, as in `Progress`. ``seconds`` is how long it has had workers then (0 before), ``left`` how many
    seconds the rest took from then on. ``queue`` is what the queue of its jobs said last.
    """

    holder: Holder
    started: int
    wanted: int
    time: float = 0.0
    landed: int = 0
    present: int = 0
    failed: int = 0
    in_flight: int = 0
    waiting: int = 0
    core_seconds: float = 0.0
    share_done: float = 0.0
    seconds: float = 0.0
    left: float | None = None
    places: tuple[Place, ...] = ()
    queue: QueueState | None = None

    def left_at(self, now: float) -> float | None:
        """Return how many seconds the rest takes from ``now`` on, as far as is known."""
        return None if self.left is None else max(0.0, self.left - max(0.0, now - self.time))


class Heartbeat:
    """``with Heartbeat(state, wanted) as heartbeat``: say that a driver is at work, until the block is left.

    The file is kept fresh also while nothing changes. That it cannot be written stops nothing: it is for people.
    """

    def __init__(self, state: Path, wanted: int, clock: Callable[[], float] = time.time) -> None:
        holder = this_process()
        now = clock()
        self._driver = RunningDriver(holder, int(now), wanted, time=now, waiting=wanted)
        self._clock = clock
        self._path = state / "drivers" / f"{holder.token}.json"
        self._last = 0.0
        self._guard = threading.Lock()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="butter-etl heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._write()
        self._thread.start()
        return self

    @property
    def queue(self) -> QueueState | None:
        """Return what the queue said last."""
        return self._driver.queue

    def update(self, progress: Progress) -> None:
        """Say how far the campaign is; written every few seconds at most."""
        numbers = {field.name: getattr(progress, field.name) for field in dataclasses.fields(progress)}
        with self._guard:
            self._driver = msgspec.structs.replace(self._driver, time=self._clock(), **numbers)
        if time.monotonic() - self._last >= _BEAT_SECONDS:
            self._write()

    def tell_queue(self, queue: QueueState) -> None:
        """Say at once what the queue says of the campaign's jobs; its numbers stay those of their moment."""
        with self._guard:
            self._driver = msgspec.structs.replace(self._driver, queue=queue)
        self._write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        self._thread.join()
        with self._guard:
            self._path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._leave.wait(_RENEW_SECONDS):
            with suppress(OSError):
                os.utime(self._path)

    def _write(self) -> None:
        # Under the guard: of two threads the later one would otherwise be overtaken by what was so before.
        with self._guard, suppress(OSError):
            if self._leave.is_set():
                return
            data = msgspec.json.encode(self._driver)
            self._last = time.monotonic()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._path.parent, lambda file: file.write(data)).replace(self._path)


def running_drivers(state: Path) -> list[RunningDriver]:
    """Return the drivers that are at work on a store, oldest first; pass over files of dead ones."""
    found = []
    for path in files_in(state / "drivers", ".json"):
        try:
            driver = msgspec.json.decode(path.read_bytes(), type=RunningDriver)
            age = file_age(path)
        except FileNotFoundError:  # it ended meanwhile
            continue
        if not is_dead(driver.holder) and age < _DEAD_SECONDS:
            found.append(driver)
    return sorted(found, key=lambda driver: driver.started)
