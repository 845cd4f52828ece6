"""Code that reads an exported directory with the usual tools: a data card prints it, the tests run it.

Two traps are avoided everywhere. Partition keys are text in paths: left to guess, readers make floats, integers or text
of them as they please, and differently for `label_noise=0` and `label_noise=0.05`. A key that is null throughout gives
a guess nothing to go by. So every recipe states the keys and their types.
"""

from __future__ import annotations

import pyarrow as pa

from butter_etl.studies import PARTITION_SCHEMA

_POLARS = {"string": "String", "float": "Float32", "uint32": "UInt32", "uint8": "UInt8"}
_DUCKDB = {"string": "varchar", "float": "float", "uint32": "uinteger", "uint8": "utinyint"}
_R = {"string": "utf8()", "float": "float32()", "uint32": "uint32()", "uint8": "uint8()"}
_KEYS = ", ".join(f'"{name}"' for name in PARTITION_SCHEMA.names)

_HIVE = f"""\
schema = pq.read_schema("{{name}}/_common_metadata")
keys = [{_KEYS}]
hive = ds.partitioning(pa.schema([schema.field(key) for key in keys]), flavor="hive")
"""
_ARROW_IMPORTS = "import pyarrow as pa\nimport pyarrow.dataset as ds\nimport pyarrow.parquet as pq\n"


def _types(words: dict[str, str], spelled: str) -> str:
    return ", ".join(spelled.format(key=field.name, type=words[str(field.type)]) for field in PARTITION_SCHEMA)


def recipes(name: str) -> dict[str, tuple[str, str]]:
    """Return for each reader the language and the code that reads a directory lazily or whole as ``frame``."""
    hive = _HIVE.format(name=name)
    polars, duckdb = _types(_POLARS, '"{key}": pl.{type}'), _types(_DUCKDB, "'{key}': {type}")
    in_r = _types(_R, "`{key}` = {type}")
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
            f'frame = pl.scan_parquet("{name}/**/*.parquet", hive_schema=keys).collect()\n',
        ),
        "DuckDB": (
            "python",
            "import duckdb\n\n"
            'frame = duckdb.sql("""\n    from read_parquet(\n'
            f"        '{name}/**/*.parquet', hive_partitioning = true,\n"
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
            f'frame <- dplyr::collect(open_dataset("{name}", partitioning = keys))\n',
        ),
    }


def spelled_type(kind: pa.DataType) -> str:
    """Return an Arrow type as the published document writes it: ``float32``, ``[float32]``."""
    if pa.types.is_list(kind):
        return f"[{spelled_type(kind.value_type)}]"
    return f"float{kind.bit_width}" if pa.types.is_floating(kind) else str(kind)
