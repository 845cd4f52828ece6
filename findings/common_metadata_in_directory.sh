#!/usr/bin/env bash
# Given the directory of a hive-partitioned data set, three readers trip over _common_metadata, the file without rows that
# Arrow and Dask write beside the partitions for its schema: Polars and DataFusion's CREATE EXTERNAL TABLE stop, and
# ClickHouse reads that file alone, so that there are no rows and no error. Seen with Polars 2.1.0, DataFusion 55.0.0 and
# chDB 4.4.0 (ClickHouse 26.9.2); written by pyarrow 26.0.1, which reads 2 rows.
# Expected: 2 rows by each. Seen: 2 errors, and 0 rows. By a pattern, **/*.parquet, all read 2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyarrow==26.0.1" "polars==2.1.0" "datafusion==55.0.0" "chdb==4.4.0"
cat >"$folder/check.py" <<'PYTHON'
import sys
from pathlib import Path

import chdb
import datafusion
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

data = Path(sys.argv[1]) / "data"
for depth in (2, 3):
    (data / f"depth={depth}").mkdir(parents=True)
    pq.write_table(pa.table({"loss": [0.5]}), data / f"depth={depth}" / "part.parquet")
pq.write_metadata(pa.schema([("loss", pa.float64()), ("depth", pa.int32())]), data / "_common_metadata")


def by_polars(where):
    return pl.read_parquet(where).height


def by_datafusion(where):
    context = datafusion.SessionContext()
    context.sql(f"create external table runs stored as parquet location '{where}'")
    return context.table("runs").count()


def by_clickhouse(where):
    return int(str(chdb.query(f"select count() from file('{where}', 'Parquet')")))


print("pyarrow", pa.__version__, "reads", ds.dataset(data, partitioning="hive").count_rows(), "rows")
seen = {}
readers = {
    f"Polars {pl.__version__}": (by_polars, pl.exceptions.InvalidOperationError),
    f"DataFusion {datafusion.__version__}": (by_datafusion, ValueError),
    f"ClickHouse {chdb.query('select version()')}".strip().replace('"', ""): (by_clickhouse, ()),
}
for name, (read, error) in readers.items():
    print(name, "reads", read(data / "**" / "*.parquet"), "rows by a pattern")
    try:
        seen[name] = str(read(f"{data}/"))
    except error as problem:
        seen[name] = f"{type(problem).__name__}: {str(problem)[:70]}..."
    print(name, "by the directory:", seen[name])
of_polars, of_datafusion, of_clickhouse = seen.values()
both_stop = "different file extensions" in of_polars and "mixed partition values" in of_datafusion
sys.exit(0 if both_stop and of_clickhouse == "0" else "a directory with _common_metadata is read otherwise now")
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder"
