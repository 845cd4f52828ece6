"""What a store keeps of the sources that runs were imported from: a file for each, of what it says of itself.

A file is ``sources/<origin>-<experiments>.json``, after hashes of both. It is written before any of the runs lands and
never rewritten, so an import that was killed and is given again finds it there, and two at once do not meet.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Set
from contextlib import suppress
from typing import Final

import msgspec

from butter_etl.errors import StoreError, writing
from butter_etl.store.files import Location
from butter_etl.store.layout import parse_ranges, ranges_text
from butter_etl.studies import Origin

SOURCES: Final = "sources"
_NAME: Final = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}\.json")


class OriginFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file of ``sources/``: a source, the day of the import (UTC), and experiments with its runs.

    ``experiments`` are ids in the store: ``0-4, 7``.
    """

    source: Origin
    imported: str
    experiments: str

    def ids(self) -> frozenset[int]:
        """Return the ids of the experiments."""
        return frozenset(parse_ranges(self.experiments))


def read_origins(location: Location) -> dict[Origin, frozenset[int]]:
    """Return the sources that a store has runs of, each with the experiments that they are of.

    Raises StoreError for a file that cannot be read as that.
    """
    found: dict[Origin, frozenset[int]] = {}
    for _, content in _files(location):
        found[content.source] = found.get(content.source, frozenset()) | content.ids()
    return found


def is_origin_name(name: str) -> bool:
    """Tell whether a file of ``sources/`` has a name that this package gives."""
    return _NAME.fullmatch(name) is not None


def read_origin_file(location: Location, name: str) -> OriginFile:
    """Return the content of a file of ``sources/``; raise StoreError where it cannot be read as that."""
    try:
        content = msgspec.json.decode(location.read_bytes(f"{SOURCES}/{name}"), type=OriginFile)
        content.ids()
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreError(f"{location}/{SOURCES}/{name}: cannot be read ({error}); restore it from a copy") from error
    return content


def keep_origin(location: Location, origin: Origin, ids: Iterable[int], instead_of: Origin | None = None) -> None:
    """Keep that experiments of a store have runs of a source; what is known of it already is not written again.

    Files that say the same of ``instead_of``, and of no other experiments, are removed. Raises PlaceError or
    FullDiskError if the store cannot be written.
    """
    wanted = frozenset(ids)
    new = wanted - read_origins(location).get(origin, frozenset())
    with writing(location):
        if new:
            content = OriginFile(origin, time.strftime("%Y-%m-%d", time.gmtime()), ranges_text(sorted(new)))
            location.write_new(f"{SOURCES}/{_name(content)}", msgspec.json.format(msgspec.json.encode(content)) + b"\n")
        if instead_of is not None:
            _forget(location, instead_of, wanted)


def _forget(location: Location, origin: Origin, ids: Set[int]) -> None:
    for name, content in _files(location):
        if content.source == origin and content.ids() <= ids:
            location.remove(f"{SOURCES}/{name}")


def _files(location: Location) -> list[tuple[str, OriginFile]]:
    found = []
    for name in filter(is_origin_name, location.names(SOURCES)):
        with suppress(FileNotFoundError):  # another import has just written it anew
            found.append((name, read_origin_file(location, name)))
    return found


def _name(content: OriginFile) -> str:
    parts = msgspec.json.encode(content.source), content.experiments.encode()
    return f"{'-'.join(hashlib.blake2b(part, digest_size=8).hexdigest() for part in parts)}.json"
