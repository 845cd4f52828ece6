"""Notes of what was put into a bucket or taken away lately, since the lists that its server gives may be behind.

AWS lists what is there. Other object stores tell their lists later: Swift answers a put although the servers of the
list are too busy to hear of it. A store in a bucket has a state folder on a POSIX file system. There, each object that
is put or deleted leaves a note of its name first. Where a list contradicts a note, the object itself is asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

PUT, REMOVED = b"put", b"removed"
#: A note that a list agrees with is forgotten after this long: until then, another copy of the list may disagree.
_KEPT_SECONDS = 24 * 3600


class Changes:
    """The notes of a store, each a small file at the object's own name below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, name: str, change: bytes) -> None:
        """Note that an object is about to be put, or removed; in place of an older note of it."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(change)

    def corrected(self, folder: str, listed: Mapping[str, int], size_of: Callable[[str], int | None]) -> dict[str, int]:
        """Return the list of a folder as it would be if it were not behind: sizes by names relative to the folder.

        ``size_of`` asks for an object; it gives None for one that is not there.
        """
        found = dict(listed)
        for name, path in self._notes(folder):
            if _read(path) == (PUT if name in listed else REMOVED):
                _forget_old(path)
            elif (size := size_of(f"{folder}/{name}" if folder else name)) is not None:
                found[name] = size
            else:
                found.pop(name, None)
        return found

    def _notes(self, folder: str) -> Iterator[tuple[str, Path]]:
        top = self._folder / folder
        for place, _, names in os.walk(top):
            for name in names:
                path = Path(place, name)
                yield path.relative_to(top).as_posix(), path


def _read(path: Path) -> bytes:
    """Return what a note says; nothing, which agrees with no list, if it is gone or just being written."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _forget_old(path: Path) -> None:
    with suppress(OSError):  # gone already, or of somebody else
        if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
            path.unlink()
