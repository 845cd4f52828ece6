"""The settings that every Parquet file of a store is written with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.store.files import COMMON_METADATA, Location

#: Texts that are long, or differ from row to row.
_LONG_TEXTS = ("run_id", "network_structure", "command", "canonical_json")


@lru_cache(maxsize=32)
def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Return the options with which every file of the store is written; decision 7 has what was measured.

    Losses hardly ever repeat, so they get no dictionary: their bytes are split by significance. Accuracies and counts
    have few distinct values, and texts repeat, so they get dictionaries. Numbers of which a row has one are a few bytes
    a file: to compress them takes longer than all else. Minima and maxima of lists help no reader, so none are written.
    Column settings are keyed by leaf paths, as pyarrow takes them.
    """
    split, dictionary, compression = [], [], {}
    for field in schema:
        leaf, is_list = _leaf(field), pa.types.is_list(field.type)
        if is_list and _is_noise(field.name, field.type):
            split.append(leaf)
        elif is_list or pa.types.is_string(field.type):
            dictionary.append(leaf)
        compression[leaf] = "zstd" if is_list or field.name in _LONG_TEXTS else "none"
    return {
        "compression": compression,
        "compression_level": {leaf: 3 for leaf, codec in compression.items() if codec == "zstd"},
        "use_dictionary": dictionary,
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT"),
        "write_statistics": [field.name for field in schema if not pa.types.is_list(field.type)],
        "store_schema": False,
        "write_page_index": True,
        "write_page_checksum": True,  # without them, a flipped bit of a loss is just another loss
    }


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def _is_noise(name: str, kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind.value_type)) and "accuracy" not in name


def parquet_writer(sink: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a writer of rows of ``schema`` with the store's settings; each table that it is given is a row group."""
    return pq.ParquetWriter(sink, schema, **parquet_options(schema))


def parquet_bytes(
    table: pa.Table, *, metadata: dict[str, str] | None = None, row_group_size: int | None = None
) -> bytes:
    """Encode a table as the bytes of a Parquet file with the store's settings; put ``metadata`` into its footer."""
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, table.schema) as writer:
        writer.write_table(table, row_group_size=row_group_size)
        if metadata:
            writer.add_key_value_metadata(metadata)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def common_metadata(schema: pa.Schema) -> bytes:
    """Return the bytes of the file `COMMON_METADATA` of a full schema."""
    sink = pa.BufferOutputStream()
    pq.write_metadata(schema, sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_common_metadata(location: Location, root: str, schema: pa.Schema) -> None:
    """Write the full schema of a frame, partition columns included, where readers look for it: in the frame's root."""
    name = f"{root}/{COMMON_METADATA}" if root else COMMON_METADATA
    location.write_new(name, common_metadata(schema))
