"""Deterministic tar archives: the same files make the same bytes."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from butter_etl.errors import LandingError
from butter_etl.location import Location, write_durably


def write_archive(location: Location, folder: str, names: Iterable[str]) -> str:
    """Make ``<folder>.tar`` beside a folder: its files ``names`` (relative to it), members rooted at ``<folder>/``.

    Members are sorted; times, owners and modes are fixed. The archive is streamed aside, read back and compared by
    name and size before it gets its name. Returns that name. Raises LandingError if what was written differs.
    """
    archive = f"{folder}.tar"
    members = sorted(names)
    target = Path(location.path(archive))
    temporary = write_durably(target.parent, lambda file: _stream(file, location, folder, members))
    try:
        _check(temporary, location, folder, members)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return archive


def _stream(file: BinaryIO, location: Location, folder: str, names: list[str]) -> None:
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            path = Path(location.path(f"{folder}/{name}"))
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = path.stat().st_size
            member.mode = 0o644
            with path.open("rb") as content:
                tar.addfile(member, content)


def _check(path: Path, location: Location, folder: str, names: list[str]) -> None:
    expected = {f"{folder}/{name}": Path(location.path(f"{folder}/{name}")).stat().st_size for name in names}
    with tarfile.open(path) as tar:
        found = {member.name: member.size for member in tar}
    if found != expected:
        raise LandingError(f"{location}/{folder}.tar: what was written differs from its {len(expected)} files")
