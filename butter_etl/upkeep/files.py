"""Whether one Parquet file can be decoded and has the schema it should have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from butter_etl.errors import one_line
from butter_etl.store import HistoryFile


class Flaw(Exception):  # noqa: N818 (what a check raises is a finding, not an error)
    """A fault of a file: a kind of `butter_etl.upkeep.findings.KINDS`, and one line of detail."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


# --- decoding ----------------------------------------------------------------------------------------------------


def decode(
    data: bytes, schema: pa.Schema, short: Collection[str] = (), later: Collection[str] = ()
) -> tuple[list[dict[str, Any]], dict[str, pa.ChunkedArray]]:
    """Return the rows of a Parquet file without its lists, and the lengths of each list; ``short`` ones stay in rows.

    Columns are decoded one at a time, so that memory is bounded by the largest. Files may lack the columns ``later``,
    which then rows lack, too. Raises Flaw if the file cannot be read
    (``torn-file``) or has another schema (``wrong-schema``).
    """
    plain = [one.name for one in schema if not pa.types.is_list(one.type) or one.name in short]
    try:
        # Columns are read by this thread alone: on damaged files, reading by several hangs now and then.
        with HistoryFile(pa.BufferReader(data), checked=True) as file:
            file.check_columns()
            schema = _check_schema(file.schema_arrow, schema, later)
            plain = [name for name in plain if name in schema.names]
            table = file.read(columns=plain, use_threads=False).select(plain)
            table.validate(full=True)
            counts = [count for name in plain for count in _counts(name, table[name])]
            lengths = {}
            for name in (name for name in schema.names if name not in plain):
                column = file.read(columns=[name], use_threads=False).column(0)
                column.validate(full=True)
                counts.extend(_counts(name, column))
                if len(column) != table.num_rows:
                    raise Flaw("torn-file", f"has {len(column)} values of {name} in {table.num_rows} rows")
                lengths[name] = pc.list_value_length(column)
            _check_counts(file.metadata, {path: (values, nulls) for path, values, nulls in counts})
            return table.to_pylist(), lengths
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        raise Flaw("torn-file", f"cannot be read ({one_line(error)})") from error


def _counts(name: str, column: pa.ChunkedArray) -> Iterator[tuple[str, int, int]]:
    """Yield the columns of numbers or texts that a column is stored as: path, values, and how many of them are null.

    Lists that are null or empty are stored as one null each.
    """
    if pa.types.is_struct(column.type):
        for field, part in zip(column.type, column.flatten(), strict=True):
            yield from _counts(f"{name}.{field.name}", part)
    elif pa.types.is_list(column.type):
        lengths = pc.list_value_length(column).fill_null(0)
        values = pc.sum(pc.max_element_wise(lengths, 1)).as_py() or 0
        flat = pc.list_flatten(column)
        yield f"{name}.list.element", values, values - len(flat) + flat.null_count
    else:
        yield name, len(column), column.null_count


def _check_counts(metadata: pq.FileMetaData, counts: Mapping[str, tuple[int, int]]) -> None:
    """Raise Flaw ``torn-file`` unless there are as many values and nulls as the file's footer says.

    The checksums of pages do not cover the pages' headers. If a damaged header tells a reader of values that are not
    there, it makes nulls of them. To be called when all columns could be read.
    """
    said = dict.fromkeys(counts, (0, 0))
    for group in range(metadata.num_row_groups):
        for k in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(k)
            path = chunk.path_in_schema
            if chunk.physical_type != metadata.schema.column(k).physical_type:
                # Arrow would abort the process when asked for the statistics.
                raise Flaw("torn-file", f"{path}: {chunk.physical_type}, not {metadata.schema.column(k).physical_type}")
            statistics = chunk.statistics if chunk.is_stats_set else None
            if path in said and statistics is not None and statistics.has_null_count:
                said[path] = (said[path][0] + chunk.num_values, said[path][1] + statistics.null_count)
            else:
                said.pop(path, None)
    for path, wanted in said.items():
        if counts[path] != wanted:
            raise Flaw("torn-file", "{}: {} values, {} null, not {} and {}".format(path, *counts[path], *wanted))


def _check_schema(found: pa.Schema, wanted: pa.Schema, later: Collection[str]) -> pa.Schema:
    """Return the schema wanted, but for columns that may be missing and are; raise Flaw unless it is the one found."""
    wanted = pa.schema([field for field in wanted if field.name in found.names or field.name not in later])
    if found.remove_metadata().equals(wanted):
        return wanted
    missing = [name for name in wanted.names if name not in found.names]
    extra = [name for name in found.names if name not in wanted.names]
    other = [
        f"{field.name} is {found.field(field.name).type}, not {field.type}"
        for field in wanted
        if found.names.count(field.name) == 1 and not found.field(field.name).equals(field)
    ]
    for what, names in (("lacks", missing), ("has also", extra), ("differs:", other)):
        if names:
            raise Flaw("wrong-schema", f"{what} {some_of(names)}")
    raise Flaw("wrong-schema", "has the columns in another order")


def check_schema_file(data: bytes, schema: pa.Schema, later: Collection[str] = ()) -> None:
    """Raise Flaw ``wrong-metadata`` unless ``_common_metadata`` holds ``schema``, with or without columns ``later``."""
    try:
        _check_schema(pq.read_schema(pa.BufferReader(data)), schema, later)
    except (pa.ArrowException, OSError) as error:
        raise Flaw("wrong-metadata", f"cannot be read ({one_line(error)})") from error
    except Flaw as flaw:
        raise Flaw("wrong-metadata", flaw.detail) from flaw


def some_of(values: Iterable[object]) -> str:
    """Return the first few of some values, for a message."""
    texts = list(map(str, values))
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "") if texts else "none"
