"""Code that reads an exported directory with the usual tools: a data card prints it, the tests run it.

Two traps are avoided everywhere. Partition keys are text in paths: left to guess, readers make floats, integers or text
of them as they please, and differently for `label_noise=0` and `label_noise=0.05`. A key that is null throughout gives
a guess nothing to go by. So every recipe states the keys and their types. And files from before a column was declared
lack it, which some readers have to be told.
"""

from __future__ import annotations

import pyarrow as pa

#: What Polars, DuckDB and Arrow for R call the types that partition keys may have.
_TYPES = {
    "string": ("String", "varchar", "utf8()"),
    "bool": ("Boolean", "boolean", "bool()"),
    "int8": ("Int8", "tinyint", "int8()"),
    "int16": ("Int16", "smallint", "int16()"),
    "int32": ("Int32", "integer", "int32()"),
    "int64": ("Int64", "bigint", "int64()"),
    "uint8": ("UInt8", "utinyint", "uint8()"),
    "uint16": ("UInt16", "usmallint", "uint16()"),
    "uint32": ("UInt32", "uinteger", "uint32()"),
    "uint64": ("UInt64", "ubigint", "uint64()"),
    "float": ("Float32", "float", "float32()"),
    "double": ("Float64", "double", "float64()"),
}
#: Types that Arrow calls otherwise than everybody else.
_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}

_HIVE = """\
schema = pq.read_schema("{name}/_common_metadata")
keys = [{keys}]
hive = ds.partitioning(pa.schema([schema.field(key) for key in keys]), flavor="hive")
"""
_ARROW_IMPORTS = "import pyarrow as pa\nimport pyarrow.dataset as ds\nimport pyarrow.parquet as pq\n"


def _types(keys: pa.Schema, spelled: str) -> str:
    words = {field.name: _TYPES[str(field.type)] for field in keys}
    return ", ".join(
        spelled.format(key=key, polars=polars, duckdb=duckdb, r=r) for key, (polars, duckdb, r) in words.items()
    )


def recipes(keys: pa.Schema, name: str) -> dict[str, tuple[str, str]]:
    """Return for each reader the language and the code that reads a directory lazily or whole as ``frame``.

    ``keys`` are the partition keys.
    """
    hive = _HIVE.format(name=name, keys=", ".join(f'"{key}"' for key in keys.names))
    polars, duckdb = _types(keys, '"{key}": pl.{polars}'), _types(keys, "'{key}': {duckdb}")
    in_r = _types(keys, "`{key}` = {r}")
    return {
        "pandas": (
            "python",
            f"import pandas as pd\n{_ARROW_IMPORTS}\n{hive}"
            f'frame = pd.read_parquet("{name}", schema=schema, partitioning=hive, dtype_backend="pyarrow")\n',
        ),
        "Dask": (
            "python",
            f"import dask.dataframe as dd\nimport pandas as pd\n{_ARROW_IMPORTS}\n{hive}"
            f'dataset = ds.dataset("{name}", schema=schema, partitioning=hive, format="parquet")\n'
            "frame = dd.from_map(\n"
            "    lambda file: file.to_table(schema=schema).to_pandas(types_mapper=pd.ArrowDtype),\n"
            "    dataset.get_fragments(),\n"
            ")\n",
        ),
        "Polars": (
            "python",
            f"import polars as pl\n\nkeys = {{{polars}}}\n"
            f'schema = pl.read_parquet_schema("{name}/_common_metadata")\n'
            "frame = pl.scan_parquet(\n"
            f'    "{name}/**/*.parquet", schema=schema, hive_schema=keys, missing_columns="insert"\n'
            ").collect()\n",
        ),
        "DuckDB": (
            "python",
            "import duckdb\n\n"
            'frame = duckdb.sql("""\n    from read_parquet(\n'
            f"        '{name}/**/*.parquet', union_by_name = true, hive_partitioning = true,\n"
            f"        hive_types = {{{duckdb}}}\n    )\n"
            '""")\n',
        ),
        "pyarrow": (
            "python",
            f"{_ARROW_IMPORTS}\n{hive}"
            f'dataset = ds.dataset("{name}", schema=schema, partitioning=hive, format="parquet")\n'
            "frame = dataset.to_table()\n",
        ),
        "R": (
            "r",
            f"library(arrow)\n\nkeys <- hive_partition({in_r})\n"
            f'frame <- dplyr::collect(open_dataset("{name}", partitioning = keys, unify_schemas = TRUE))\n',
        ),
    }


def spelled_type(kind: pa.DataType) -> str:
    """Return an Arrow type as the published document writes it: ``float32``, ``[float32]``."""
    if pa.types.is_list(kind):
        return f"[{spelled_type(kind.value_type)}]"
    return _FLOATS.get(str(kind), str(kind))
