#!/usr/bin/env bash
# The partition __HIVE_DEFAULT_PARTITION__ is null for Hive, Spark, Arrow, Polars, DuckDB and Daft. DataFusion, ClickHouse
# and fastparquet give its name as a text: a condition "is null" finds nothing, without an error. Seen with DataFusion
# 55.0.0, chDB 4.4.0 (ClickHouse 26.9.2) and fastparquet 2026.9.0; written by pyarrow 26.0.1.
# Expected: a text and a null by each. Seen: two texts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyarrow==26.0.1" "duckdb==2.0.0" "datafusion==55.0.0" "chdb==4.4.0" \
    "fastparquet==2026.9.0"
cat >"$folder/check.py" <<'PYTHON'
import sys
from pathlib import Path

import chdb
import datafusion
import duckdb
import fastparquet
import pyarrow as pa
import pyarrow.dataset as ds

data = Path(sys.argv[1]) / "data"
runs = pa.table({"loss": [0.5, 0.25], "penalty": pa.array(["l2", None])})
keys = ds.partitioning(pa.schema([("penalty", pa.string())]), flavor="hive")
ds.write_dataset(runs, data, format="parquet", partitioning=keys)
pattern = f"{data}/**/*.parquet"


def by_datafusion():
    context = datafusion.SessionContext()
    context.register_parquet("runs", data, table_partition_cols=[("penalty", pa.string())])
    return context.sql("select penalty from runs").to_arrow_table()["penalty"].to_pylist()


def by_clickhouse(expression="penalty"):
    structure = "loss Float64, penalty Nullable(String)"
    asked = chdb.query(f"select {expression} from file('{pattern}', 'Parquet', '{structure}')")
    return [None if line == r"\N" else line.strip('"') for line in str(asked).splitlines()]


def by_fastparquet():
    return fastparquet.ParquetFile(str(data)).to_pandas()["penalty"].tolist()


print("pyarrow", pa.__version__, ds.dataset(data, partitioning=keys).to_table()["penalty"].to_pylist())
print("DuckDB", duckdb.__version__, [row[0] for row in duckdb.sql(f"select penalty from '{pattern}'").fetchall()])
readers = {
    f"DataFusion {datafusion.__version__}": by_datafusion,
    f"ClickHouse {chdb.query('select version()')}".strip().replace('"', ""): by_clickhouse,
    f"fastparquet {fastparquet.__version__}": by_fastparquet,
}
seen = {name: read() for name, read in readers.items()}
for name, penalties in seen.items():
    print(name, penalties)
context = datafusion.SessionContext()
context.register_dataset("runs", ds.dataset(data, partitioning=keys))
print("DataFusion by pyarrow's data set:", context.sql("select penalty from runs").to_pydict()["penalty"])
print("ClickHouse with nullIf:", by_clickhouse("nullIf(penalty, '__HIVE_DEFAULT_PARTITION__')"))
as_text = all(set(penalties) == {"l2", "__HIVE_DEFAULT_PARTITION__"} for penalties in seen.values())
sys.exit(0 if as_text else "one of them knows the null of Hive now")
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder"
