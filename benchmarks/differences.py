"""The first difference between two folders of files, byte for byte or, for Parquet files, row for row."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatch
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

#: Folders of quarantine are named by the time when something was moved there.
_MOMENT = re.compile(r"quarantine/[^/]+/")
#: What a footer says of the sizes of other files, which depend on what columns those hold.
_SIZES = b"butter_etl.fingerprints"
_SHOWN = 60


def folders(
    old: Path, new: Path, *, but: Sequence[str] = (), rows: Sequence[str] = (), columns: Collection[str] = ()
) -> str | None:
    """The first difference between the files of two folders, None if there is none.

    Files that match a pattern of ``but`` are passed over. Those that match one of ``rows`` are Parquet files of which
    rows are compared, without the columns ``columns``; all others are compared byte for byte.
    """
    ours, theirs = _files(old, but), _files(new, but)
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            return f"{name}: only in {'old' if name in ours else 'new'}"
        as_rows = any(fnmatch(name, pattern) for pattern in rows)
        found = parquet(ours[name], theirs[name], columns) if as_rows else contents(ours[name], theirs[name])
        if found is not None:
            return f"{name}: {found}"
    return None


def _files(folder: Path, but: Sequence[str]) -> dict[str, Path]:
    """The files below a folder, by their names there, times in names left out."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        _MOMENT.sub("quarantine/TIME/", name): path
        for name, path in found.items()
        if not any(fnmatch(name, pattern) for pattern in but)
    }


def contents(old: Path, new: Path) -> str | None:
    """The first difference between the bytes of two files."""
    ours, theirs = old.read_bytes(), new.read_bytes()
    if ours == theirs:
        return None
    byte = next(number for number, (one, other) in enumerate(zip_longest(ours, theirs)) if one != other)
    return f"byte {byte:,} (of {len(ours):,} and {len(theirs):,})"


def texts(old: str, new: str) -> str | None:
    """The first difference between two texts."""
    for number, (one, other) in enumerate(zip_longest(old.splitlines(), new.splitlines()), 1):
        if one != other:
            return f"line {number}: {_short(one)} and {_short(other)}"
    return None if old == new else "line ends"


def parquet(old: Path, new: Path, but: Collection[str]) -> str | None:
    """The first difference between two Parquet files in schema, settings and rows, without the columns ``but``."""
    ours, theirs = pq.ParquetFile(old), pq.ParquetFile(new)
    one_sided = set(ours.schema_arrow.names) ^ set(theirs.schema_arrow.names)
    if not _schema(ours, one_sided & set(but)).equals(_schema(theirs, one_sided & set(but)), check_metadata=True):
        return "another schema"
    if (found := _settings(ours.metadata, but)) != (other := _settings(theirs.metadata, but)):
        return "other Parquet settings: " + next(
            f"{_short(one)} and {_short(another)}" for one, another in zip_longest(found, other) if one != another
        )
    return tables(ours.read(), theirs.read(), but)


def _schema(file: pq.ParquetFile, but: Collection[str]) -> pa.Schema:
    kept = {key: value for key, value in (file.schema_arrow.metadata or {}).items() if key != _SIZES}
    return pa.schema([field for field in file.schema_arrow if field.name not in but], kept)


def _settings(metadata: Any, but: Collection[str]) -> list[object]:
    """How a Parquet file is written: versions, groups of rows, and each column's compression and encodings."""
    found: list[object] = [metadata.format_version, metadata.created_by]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(column) for column in range(group.num_columns)]
        found.append(group.num_rows)
        found += [
            (one.path_in_schema, one.compression, one.encodings)
            for one in columns
            if one.path_in_schema.partition(".list")[0] not in but
        ]
    return found


def tables(old: pa.Table, new: pa.Table, but: Collection[str]) -> str | None:
    """The first value that differs between two tables of the same columns, bit for bit."""
    if old.num_rows != new.num_rows:
        return f"{old.num_rows:,} rows and {new.num_rows:,}"
    for name in old.column_names:
        if name not in but:
            ours, theirs = (_whole(table[name]) for table in (old, new))
            if not same_bits(ours, theirs):
                return f"{name} of {_place(ours, theirs)}"
    return None


def same_bits(old: pa.Array, new: pa.Array) -> bool:
    """Whether two arrays hold the same bits, NaN and the sign of zero included."""
    if pa.types.is_list(old.type):
        lengths: bool = pc.list_value_length(old).equals(pc.list_value_length(new))
        return lengths and same_bits(old.flatten(), new.flatten())
    if pa.types.is_floating(old.type):
        bits = {16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[old.type.bit_width]
        old, new = old.view(bits), new.view(bits)
    return bool(old.equals(new))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _place(old: pa.Array, new: pa.Array) -> str:
    """Where two arrays differ first, and their values there."""
    row = next(row for row in range(len(old)) if not same_bits(old.slice(row, 1), new.slice(row, 1)))
    one, other = old.slice(row, 1), new.slice(row, 1)
    if pa.types.is_list(old.type) and len(one.flatten()) == len(other.flatten()) > 0:
        return f"row {row}, entry of {_place(one.flatten(), other.flatten())}"
    return f"row {row}: {_short(one[0].as_py())} and {_short(other[0].as_py())}"


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
