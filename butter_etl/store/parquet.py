"""The settings that every Parquet file of a store is written with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.store.files import COMMON_METADATA, Location
from butter_etl.studies import PageEncoding, usual_encoding

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
        "compression_level": {leaf: 3 for leaf, codec in compression.items() if codec == "zstd"},
        "use_dictionary": dictionary,
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        "write_statistics": bounded,
        "store_schema": False,
        "write_page_index": True,
        "write_page_checksum": True,  # without them, a flipped bit of a loss is just another loss
    }


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def parquet_writer(sink: Any, schema: pa.Schema, encodings: Encodings | None = None) -> pq.ParquetWriter:
    """Return a writer of rows of ``schema`` with the store's settings; each table that it is given is a row group."""
    return pq.ParquetWriter(sink, schema, **parquet_options(schema, encodings))


def parquet_bytes(
    table: pa.Table,
    encodings: Encodings | None = None,
    *,
    metadata: dict[str, str] | None = None,
    row_group_size: int | None = None,
) -> bytes:
    """Encode a table as the bytes of a Parquet file with the store's settings; put ``metadata`` into its footer."""
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, table.schema, encodings) as writer:
        writer.write_table(table, row_group_size=row_group_size)
        if metadata:
            writer.add_key_value_metadata(metadata)
    data: bytes = sink.getvalue().to_pybytes()
    return data


@contextmanager
def parquet_output(
    location: Location, name: str, schema: pa.Schema, encodings: Encodings | None = None
) -> Iterator[pq.ParquetWriter]:
    """Yield a writer of a file that is there, whole, when the block is left without an exception."""
    with location.open_output(name) as file:
        # pyarrow asks more of a file than an upload has
        memory = None if location.is_local else pa.BufferOutputStream()
        with parquet_writer(file if memory is None else memory, schema, encodings) as writer:
            yield writer
        if memory is not None:
            file.write(memory.getvalue())


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with exactly the columns of ``schema``, in its types; columns that it does not have are null."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


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
