"""Parquet files made from others of the same frame, and deterministic archives.

A file may have some rows of another, or be gathered from several: row group by row group, so that memory is bounded by
a row group whatever the files weigh. The same input makes the same bytes.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from butter_etl.errors import LandingError
from butter_etl.store import (
    CHUNK_BYTES,
    Encodings,
    Location,
    conform,
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

    What the footer says of the rows that remain goes with them. Raises TornFileError if the source cannot be read.
    """
    made_from = read_fingerprints(source, name)
    kept = {one: made_from[one] for one in experiments if one in made_from}
    with source.parquet_file(name) as file:
        schema = file.schema_arrow.remove_metadata()
        wanted = pa.array(experiments, schema.field("experiment_id").type)
        groups = [group for group in range(file.num_row_groups) if _may_hold(file.metadata.row_group(group), wanted)]
        tables = (_rows_of(table, wanted) for table in _read(source, name, file, groups))
        some = (table for table in tables if table.num_rows)
        _write(dest, target, schema, some, encodings, fingerprints_metadata(kept))


def gather_files(
    source: Location, names: Iterable[str], dest: Location, target: str, schema: pa.Schema, encodings: Encodings
) -> None:
    """Make ``target`` of all rows of several files in their order, in the columns of ``schema``.

    Columns that a file does not have are null. Small row groups are united up to `GROUP_BYTES`.
    """
    _write(dest, target, schema, _united(_all_groups(source, names, schema)), encodings, {})


def _all_groups(source: Location, names: Iterable[str], schema: pa.Schema) -> Iterator[pa.Table]:
    for name in names:
        with source.parquet_file(name) as file:
            for table in _read(source, name, file, range(file.num_row_groups)):
                yield conform(table, schema)


def _united(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        if waiting and size + table.nbytes > GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
        waiting.append(table)
        size += table.nbytes
    if waiting:
        yield pa.concat_tables(waiting)


def _read(location: Location, name: str, file: pq.ParquetFile, groups: Iterable[int]) -> Iterator[pa.Table]:
    for group in groups:
        try:
            yield file.read_row_group(group, use_threads=False).replace_schema_metadata(None)
        except (pa.ArrowException, OSError) as error:
            raise location.torn(name, error) from error


def _write(
    dest: Location,
    target: str,
    schema: pa.Schema,
    groups: Iterable[pa.Table],
    encodings: Encodings,
    metadata: dict[str, str],
) -> None:
    with parquet_output(dest, target, schema, encodings) as writer:
        for table in groups:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
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


def _rows_of(table: pa.Table, wanted: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["experiment_id"], wanted))
