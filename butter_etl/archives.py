"""Deterministic tar archives: the same files make the same bytes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

from butter_etl.errors import LandingError
from butter_etl.location import CHUNK_BYTES, Location

#: Headers are read back in pieces of this many bytes: a few small members, or little of a large one.
_HEADER_BYTES = 64 * 2**10


def write_archive(location: Location, folder: str, names: Iterable[str]) -> str:
    """Make ``<folder>.tar`` beside a folder: its files ``names`` (relative to it), members rooted at ``<folder>/``.

    Members are sorted; times, owners and modes are fixed. The archive is streamed and appears whole; then its members
    are read back and compared by name and size. Returns its name. Raises LandingError if what was written differs,
    and takes it away.
    """
    archive = f"{folder}.tar"
    sizes = dict(location.walk(folder))
    members = {name: sizes[name] for name in sorted(names)}
    with location.open_output(archive) as file:
        _stream(file, location, folder, members)
    expected = {f"{folder}/{name}": size for name, size in members.items()}
    if _read_back(location, archive) != expected:
        location.remove(archive)
        raise LandingError(f"{location}/{archive}: what was written differs from its {len(expected)} files")
    return archive


def _stream(file: Any, location: Location, folder: str, members: Mapping[str, int]) -> None:
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK_BYTES) as tar:
        for name, size in members.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = size
            member.mode = 0o644
            with location.open_stream(f"{folder}/{name}") as content, location.errors(f"{folder}/{name}"):
                tar.addfile(member, content)


def _read_back(location: Location, archive: str) -> dict[str, int]:
    with (
        location.errors(archive),
        location.open_input(archive) as content,
        io.BufferedReader(content, _HEADER_BYTES) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        return {member.name: member.size for member in tar}
