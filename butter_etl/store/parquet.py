"""The settings that every Parquet file of a store is written with."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.store.files import COMMON_METADATA, Location
from butter_etl.store.history_chunks import Passed, is_history
from butter_etl.store.stored_rows import StoredRows, table_of
from butter_etl.studies import PageEncoding, usual_encoding

if TYPE_CHECKING:
    from butter_etl.store.page_writing import HistoryWriter

#: The level of compression: decision 7 has what others would take.
ZSTD_LEVEL: Final = 3
#: Columns of histories of fewer bytes, on average, pyarrow writes in less time.
SMALL_BYTES: Final = 2**16

#: How columns are encoded that are encoded otherwise than their types ask for, by name.
Encodings = Mapping[str, PageEncoding]


def parquet_options(schema: pa.Schema, encodings: Encodings | None = None) -> dict[str, Any]:
    """Return the options with which every file of the store is written; decision 7 has what was measured.

    A column that ``encodings`` does not name is encoded as its type asks for.

    Losses hardly ever repeat, so they get no dictionary: their bytes are split by significance. Accuracies and counts
    have few distinct values, and texts repeat, so they get dictionaries. Numbers of which a row has one are a few bytes
    a file: to compress them takes longer than all else. Minima and maxima of lists help no reader, so none are written.
    Column settings are keyed by leaf paths, as pyarrow takes them.
    """
    said = encodings or {}
    return _options(schema, tuple(said.get(field.name) or usual_encoding(field.type) for field in schema))


@lru_cache(maxsize=64)
def _options(schema: pa.Schema, encodings: tuple[PageEncoding, ...]) -> dict[str, Any]:
    split, dictionary, compression, bounded = [], [], {}, []
    for field, encoding in zip(schema, encodings, strict=True):
        leaf = _leaf(field)
        if encoding.layout == "split":
            split.append(leaf)
        elif encoding.layout == "dictionary":
            dictionary.append(leaf)
        if encoding.bounds and not pa.types.is_list(field.type):
            bounded.append(leaf)
        compression[leaf] = "zstd" if encoding.compressed else "none"
    return {
        "compression": compression,
        "compression_level": {leaf: ZSTD_LEVEL for leaf, codec in compression.items() if codec == "zstd"},
        "use_dictionary": dictionary,
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        "write_statistics": bounded,
        "store_schema": False,
        "write_page_index": True,
        "write_page_checksum": True,  # without them, a flipped bit of a loss is just another loss
    }


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


class ParquetFileWriter:
    """Writes rows of a schema with the store's settings; each table that it is given is a row group, unless it is told.

    Files of long histories are written by `HistoryWriter`, all others by pyarrow, which needs less for a small one: the
    first rows tell.
    """

    def __init__(self, sink: Any, schema: pa.Schema, encodings: Encodings | None = None) -> None:
        self._sink, self._schema = sink, schema
        self._encodings = {one.name: (encodings or {}).get(one.name) or usual_encoding(one.type) for one in schema}
        self._writer: HistoryWriter | _SmallFile | None = None
        self._metadata: dict[str, str] = {}

    def __enter__(self) -> ParquetFileWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            self._writer.abandon()

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Write rows, in row groups of so many or in one."""
        self._writer_of([StoredRows.of(table)]).write_table(table, row_group_size)

    def write_rows(self, pieces: Sequence[StoredRows]) -> None:
        """Write rows, which follow each other, as one row group; their histories as they are stored where that pays."""
        same = [piece.conform(self._schema) for piece in pieces]
        self._writer_of(same).write_rows(same)

    def _writer_of(self, pieces: Sequence[StoredRows]) -> HistoryWriter | _SmallFile:
        if self._writer is None:
            names = [field.name for field in self._schema if is_history(field.type)]
            size = sum(piece.columns[name].nbytes for piece in pieces for name in names)
            is_long = size >= SMALL_BYTES * max(1, len(names))
            self._writer = self._begin(is_long=is_long and Passed.are_many(size, self._is_compiled))
        return self._writer

    def add_key_value_metadata(self, metadata: Mapping[str, str]) -> None:
        """Put texts into the footer."""
        self._metadata |= metadata

    def close(self) -> None:
        """Write what ends a file."""
        writer = self._writer or self._begin(is_long=False)
        if self._metadata:
            writer.add_key_value_metadata(self._metadata)
        writer.close()

    def _is_compiled(self) -> bool:
        from butter_etl.store.page_writing import are_compiled

        return are_compiled({field.type for field in self._schema if is_history(field.type)})

    def _begin(self, *, is_long: bool) -> HistoryWriter | _SmallFile:
        if not is_long:
            return _SmallFile(self._sink, self._schema, self._encodings)
        # Compiled code, which small files do without.
        from butter_etl.store.page_writing import HistoryWriter

        options = partial(parquet_options, encodings=self._encodings)
        return HistoryWriter(self._sink, self._schema, self._encodings, options, level=ZSTD_LEVEL)


class _SmallFile(pq.ParquetWriter):  # type: ignore[misc]
    """A file that pyarrow writes."""

    def __init__(self, sink: Any, schema: pa.Schema, encodings: Encodings) -> None:
        # pyarrow asks more of a file than an upload has
        is_file = isinstance(sink, io.IOBase | pa.NativeFile | str | os.PathLike)
        self._upload = None if is_file else sink
        self._memory = None if is_file else pa.BufferOutputStream()
        super().__init__(sink if is_file else self._memory, schema, **parquet_options(schema, encodings))

    def write_rows(self, pieces: Sequence[StoredRows]) -> None:
        """Write rows as one row group."""
        table = table_of(pieces, self.schema)
        self.write_table(table, row_group_size=max(1, table.num_rows))

    def abandon(self) -> None:
        """Let go of what is in memory; pyarrow must have ended its file for that."""
        super().close()

    def close(self) -> None:
        """Write what ends the file."""
        super().close()
        if self._upload is not None and self._memory is not None:
            self._upload.write(self._memory.getvalue())
            self._upload = None


class _Pieces(list[Any]):
    """A file in memory, as the pieces that are written to it."""

    write = list.append


def parquet_bytes(
    table: pa.Table,
    encodings: Encodings | None = None,
    *,
    metadata: dict[str, str] | None = None,
    row_group_size: int | None = None,
) -> bytes:
    """Encode a table as the bytes of a Parquet file with the store's settings; put ``metadata`` into its footer."""
    pieces = _Pieces()
    with ParquetFileWriter(pieces, table.schema, encodings) as writer:
        writer.write_table(table, row_group_size)
        if metadata:
            writer.add_key_value_metadata(metadata)
    return b"".join(pieces)


@contextmanager
def parquet_output(
    location: Location, name: str, schema: pa.Schema, encodings: Encodings | None = None
) -> Iterator[ParquetFileWriter]:
    """Yield a writer of a file that is there, whole, when the block is left without an exception."""
    with location.open_output(name) as file, ParquetFileWriter(file, schema, encodings) as writer:
        yield writer


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with exactly the columns of ``schema``, in its types; columns that it does not have are null."""
    return table_of([StoredRows.of(table).conform(schema)], schema)


def common_metadata(schema: pa.Schema) -> bytes:
    """Return the bytes of the file `COMMON_METADATA` of a full schema."""
    sink = pa.BufferOutputStream()
    pq.write_metadata(schema, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_common_metadata(location: Location, root: str, schema: pa.Schema, later: Collection[str] = ()) -> None:
    """Write the full schema of a frame, partition columns included, where readers look for it: in the frame's root.

    One that is there stays, unless it is from before the columns ``later`` were declared.
    """
    name = f"{root}/{COMMON_METADATA}" if root else COMMON_METADATA
    data = common_metadata(schema)
    if not location.write_new(name, data) and later and _is_of_before(location.read_bytes(name), schema, later):
        location.replace(name, data)


def _is_of_before(data: bytes, schema: pa.Schema, later: Collection[str]) -> bool:
    """Tell whether a schema file has all columns but for later ones; what else it may be is for checks to say."""
    try:
        names = pq.read_schema(pa.BufferReader(data)).names
    except (pa.ArrowException, OSError):
        return False
    return names != schema.names and set(names) == {name for name in schema.names if name in names or name not in later}
