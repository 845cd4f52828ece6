"""Parquet files made from others of the same frame, and deterministic archives.

A file may have some rows of another, or be gathered from several: row group by row group, so that memory is bounded by
a row group whatever the files weigh. The same input makes the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from butter_etl.errors import LandingError
from butter_etl.store import (
    CHUNK_BYTES,
    DamagedPageError,
    Encodings,
    HistoryFile,
    Location,
    StoredRows,
    fingerprints_metadata,
    parquet_output,
    read_fingerprints,
)

#: Headers are read back in pieces of this many bytes: a few small members, or little of a large one.
_HEADER_BYTES = 64 * 2**10

#: The time of each member, 1980-01-02: a ZIP file of what was unpacked cannot say an earlier one, wherever it is made.
_MEMBER_TIME = 315_619_200


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
            member.mtime = _MEMBER_TIME
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


#: Rows that are gathered are written in row groups of about this many bytes in memory.
GROUP_BYTES = 32 * 2**20


def filter_file(
    source: Location, name: str, dest: Location, target: str, experiments: Sequence[int], encodings: Encodings
) -> None:
    """Make ``target`` of the rows of a file that belong to ``experiments``; row groups of others are not read.

    What the footer says of the rows that remain goes with them; row groups have up to as many rows as those of the
    file. Raises TornFileError if the source cannot be read.
    """
    made_from = read_fingerprints(source, name)
    kept = {one: made_from[one] for one in experiments if one in made_from}
    with source.parquet_file(name) as file:
        schema = file.schema_arrow.remove_metadata()
        wanted = pa.array(experiments, schema.field("experiment_id").type)
        most = max((file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)), default=0)
        rows = _united(_rows_of(source, name, file, wanted), lambda some: some.num_rows, most)
        with _decoding(source, [name]):
            _write(dest, target, schema, rows, encodings, fingerprints_metadata(kept))


def gather_files(
    source: Location, names: Iterable[str], dest: Location, target: str, schema: pa.Schema, encodings: Encodings
) -> None:
    """Make ``target`` of all rows of several files in their order, in the columns of ``schema``.

    Columns that a file does not have are null. Small row groups are united up to `GROUP_BYTES`. Raises TornFileError if
    a file cannot be read.
    """
    sources = list(names)
    with _decoding(source, sources):
        groups = _united(_all_groups(source, sources), lambda some: some.nbytes, GROUP_BYTES)
        _write(dest, target, schema, groups, encodings, {})


def _all_groups(source: Location, names: Iterable[str]) -> Iterator[StoredRows]:
    for name in names:
        with source.parquet_file(name) as file, _reading(source, name):
            for group in range(file.num_row_groups):
                yield file.read_stored(group)


def _rows_of(source: Location, name: str, file: HistoryFile, wanted: pa.Array) -> Iterator[StoredRows]:
    """Yield the rows of the experiments in each row group that has any; a whole one as it is stored."""
    with _reading(source, name):
        for group in range(file.num_row_groups):
            if not _may_hold(file.metadata.row_group(group), wanted):
                continue
            own = pc.is_in(file.read_row_group(group, ["experiment_id"], use_threads=False)["experiment_id"], wanted)
            if pc.all(own).as_py():
                yield file.read_stored(group)
            elif pc.any(own).as_py():
                yield StoredRows.of(file.read_row_group(group, use_threads=False).filter(own))


@contextmanager
def _reading(location: Location, name: str) -> Iterator[None]:
    """Raise TornFileError for what pyarrow raises of a file."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise location.torn(name, error) from error


@contextmanager
def _decoding(location: Location, names: Iterable[str]) -> Iterator[None]:
    """Raise TornFileError for the file whose pages, which agreed with their checksums, cannot be decoded."""
    try:
        yield
    except DamagedPageError:
        for name in names:
            location.read_table(name)
        raise


def _united(
    groups: Iterable[StoredRows], size_of: Callable[[StoredRows], int], most: int
) -> Iterator[list[StoredRows]]:
    """Yield row groups that are written as one: up to so large, or a single one that is larger."""
    waiting: list[StoredRows] = []
    size = 0
    for rows in groups:
        own = size_of(rows)
        if waiting and size + own > most:
            yield waiting
            waiting, size = [], 0
        waiting.append(rows)
        size += own
    if waiting:
        yield waiting


def _write(
    dest: Location,
    target: str,
    schema: pa.Schema,
    groups: Iterable[list[StoredRows]],
    encodings: Encodings,
    metadata: dict[str, str],
) -> None:
    with parquet_output(dest, target, schema, encodings) as writer:
        for rows in groups:
            writer.write_rows(rows)
        if metadata:
            writer.add_key_value_metadata(metadata)


def _may_hold(group: pq.RowGroupMetaData, wanted: pa.Array) -> bool:
    """Tell whether a row group can have rows of the experiments, by the range of ids that its footer gives."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "experiment_id":
            if not (column.is_stats_set and column.statistics.has_min_max):
                return True
            low, high = column.statistics.min, column.statistics.max
            return bool(pc.any(pc.and_(pc.greater_equal(wanted, low), pc.less_equal(wanted, high))).as_py())
    return True
