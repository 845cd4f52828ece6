"""Heartbeats of the drivers that train into a store now: a small file that each keeps fresh while it runs."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import msgspec

from butter_etl.store import Holder, file_age, files_in, is_dead, this_process, write_durably

#: A driver rewrites its file this often at most, renews it this often, and is taken for dead when it is much older.
_BEAT_SECONDS = 10.0
_RENEW_SECONDS = 20.0
_DEAD_SECONDS = 90.0


class RunningDriver(msgspec.Struct, frozen=True):
    """A running campaign, in runs. ``started`` is in unix seconds; ``in_flight`` are with the cluster now.

    ``present`` runs were trained by others meanwhile; ``share_done`` is the share of the estimated cost that is done.
    """

    holder: Holder
    started: int
    wanted: int
    landed: int = 0
    failed: int = 0
    in_flight: int = 0
    present: int = 0
    share_done: float = 0.0


class Heartbeat:
    """``with Heartbeat(state, wanted) as heartbeat``: say that a driver is at work, until the block is left.

    The file is kept fresh also while nothing changes. That it cannot be written stops nothing: it is for people.
    """

    def __init__(self, state: Path, wanted: int) -> None:
        holder = this_process()
        self._driver = RunningDriver(holder, int(time.time()), wanted)
        self._path = state / "drivers" / f"{holder.token}.json"
        self._last = 0.0
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="butter-etl heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._write()
        self._thread.start()
        return self

    def update(self, **counts: float) -> None:
        """Say how far the campaign is, by fields of `RunningDriver`; written every ten seconds at most."""
        self._driver = msgspec.structs.replace(self._driver, **counts)
        if time.monotonic() - self._last >= _BEAT_SECONDS:
            self._write()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._leave.wait(_RENEW_SECONDS):
            with suppress(OSError):
                os.utime(self._path)

    def _write(self) -> None:
        data = msgspec.json.encode(self._driver)
        self._last = time.monotonic()
        with suppress(OSError):
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
