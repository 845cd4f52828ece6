"""``manifest.json``: what a published data set holds, file by file, with hashes; written last, so it says "complete".

It depends on nothing but the content: no times, no paths of the machine. The same data make the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any

import msgspec
import pyarrow.fs

from butter_etl.errors import StoreError
from butter_etl.store import Location, parse_ranges, ranges_text
from butter_etl.studies import NOBODY, Attribution, Origin, Value

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
_CHUNK_BYTES = 4 * 2**20


class ManifestFile(msgspec.Struct, frozen=True):
    """One file: ``path`` relative to the data set, size in bytes, rows (null where there are none), SHA-256 in hex."""

    path: str
    bytes: int
    rows: int | None
    sha256: str


class ManifestDirectory(msgspec.Struct, frozen=True):
    """One directory: its frame (``runs``, ``summary`` …), what chose its experiments, and counts.

    The frame of files in a format of the study's is the format's name. ``sweep`` and ``where`` chose its experiments.
    ``values`` are the sorted values of each parameter; nulls stand first.
    """

    name: str
    frame: str
    sweep: str | None
    where: tuple[str, ...]
    files: int
    experiments: int
    rows: int
    bytes: int
    values: Mapping[str, list[Value]]


class ManifestSource(Origin, frozen=True, omit_defaults=True):
    """A source that runs were imported from, and which experiments have such runs, by directory: ``0-4, 7``."""

    experiments: Mapping[str, str] = {}

    @property
    def origin(self) -> Origin:
        """Return what the source says of itself."""
        return Origin(*(getattr(self, name) for name in Origin.__struct_fields__))


class Manifest(msgspec.Struct, frozen=True):
    """The content of ``manifest.json``; directories and files in the order of their names.

    ``authors`` and ``title`` are there if they were given, ``sources`` if runs were imported, ``study`` for all studies
    but BUTTER, whose manifests are published without.
    """

    format: int = FORMAT_VERSION
    study: str | None = None
    authors: tuple[str, ...] = ()
    title: str = ""
    license: str = ""
    doi: str = ""
    sources: tuple[ManifestSource, ...] = ()
    directories: tuple[ManifestDirectory, ...] = ()
    files: tuple[ManifestFile, ...] = ()

    def by_path(self) -> dict[str, ManifestFile]:
        """Return the files by their path."""
        return {file.path: file for file in self.files}

    def attribution(self) -> Attribution:
        """Return who made the data set, and what it is called."""
        return Attribution(self.authors, self.title, self.license, self.doi)


def manifest_sources(origins: Mapping[Origin, Set[int]], directories: Mapping[str, Set[int]]) -> list[ManifestSource]:
    """Return the sources of which directories have runs; both are given with the experiments that are theirs."""
    found = []
    for origin, ids in origins.items():
        own = {name: ranges_text(sorted(some & ids)) for name, some in directories.items() if some & ids}
        if own:
            found.append(_manifest_source(origin, own))
    return found


def merged_sources(
    sources: Iterable[ManifestSource], former: Iterable[ManifestSource], kept: Collection[str]
) -> list[ManifestSource]:
    """Return sources with what a former manifest said of them in the directories that are kept."""
    found: dict[Origin, dict[str, str]] = {one.origin: dict(one.experiments) for one in sources}
    for one in former:
        if own := {name: ids for name, ids in one.experiments.items() if name in kept}:
            found.setdefault(one.origin, {}).update(own)
    sort = sorted(found.items(), key=lambda item: msgspec.json.encode(item[0]))
    return [_manifest_source(origin, dict(sorted(own.items()))) for origin, own in sort]


def _manifest_source(origin: Origin, experiments: Mapping[str, str]) -> ManifestSource:
    said = {name: getattr(origin, name) for name in Origin.__struct_fields__}
    return ManifestSource(**said, experiments=experiments)


def counted_origins(sources: Iterable[ManifestSource]) -> dict[Origin, int]:
    """Return each source with the number of experiments that have runs of it."""
    return {
        one.origin: len({number for text in one.experiments.values() for number in parse_ranges(text)})
        for one in sources
    }


def sorted_values(values: Iterable[Any]) -> list[Value]:
    """Return the different values of one parameter in their order, null first."""
    some = set(values)
    return [*({None} & some), *sorted(some - {None})]


def read_manifest(location: Location, folder: str = "") -> Manifest | None:
    """Return the manifest in a folder, or None if it has none; raises StoreError if it cannot be read."""
    name = f"{folder}/{MANIFEST}" if folder else MANIFEST
    if location.kind(name) != pyarrow.fs.FileType.File:
        return None
    try:
        manifest = msgspec.json.decode(location.read_bytes(name), type=Manifest)
    except msgspec.DecodeError as error:
        raise StoreError(f"{location}/{name}: not readable as a manifest ({error}); move it away") from error
    if manifest.format != FORMAT_VERSION:
        raise StoreError(f"{location}/{name}: has format {manifest.format}, this version reads {FORMAT_VERSION}")
    return manifest


def manifest_bytes(
    directories: Iterable[ManifestDirectory],
    files: Iterable[ManifestFile],
    attribution: Attribution = NOBODY,
    study: str | None = None,
    sources: Iterable[ManifestSource] = (),
) -> bytes:
    """Return the text of a manifest: JSON with a line for each directory and file, sorted by name."""
    text = bytearray(b'{\n"format": %d' % FORMAT_VERSION)
    for name, value in {"study": study, **msgspec.to_builtins(attribution)}.items():
        if value:
            text += b',\n"%s": %s' % (name.encode(), msgspec.json.encode(value))
    if there := list(sources):
        _add_lines(text, "sources", there)
    by_name, by_path = sorted(directories, key=lambda one: one.name), sorted(files, key=lambda one: one.path)
    _add_lines(text, "directories", by_name)
    _add_lines(text, "files", by_path)
    return bytes(text + b"\n}\n")


def _add_lines(text: bytearray, name: str, entries: Sequence[msgspec.Struct]) -> None:
    text += b',\n"%s": [' % name.encode()
    for number, entry in enumerate(entries):
        text += b",\n" if number else b"\n"
        text += msgspec.json.encode(entry)
    text += b"\n]"


def hash_file(location: Location, name: str) -> str:
    """Return the SHA-256 of a file in hex; it is read in pieces."""
    digest = hashlib.sha256()
    if location.is_local:
        with open(location.path(name), "rb", buffering=0) as file:  # noqa: PTH123 (a third faster than pyarrow's)
            return hashlib.file_digest(file, "sha256").hexdigest()
    with location.errors(name), location.open_stream(name) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
