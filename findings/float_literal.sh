#!/usr/bin/env bash
# A condition rate = 0.0001 on a float32 column holds for the nearest float32 in Polars and DuckDB, which take the literal
# for a float32. DataFusion, ClickHouse and Daft compare as float64, so that it never holds, without an error. Seen with
# Polars 2.1.0, DuckDB 2.0.0, DataFusion 55.0.0, chDB 4.4.0 (ClickHouse 26.9.2) and Daft 0.7.26.
# Expected: the same number of rows by all. Seen: 1 by two of them, 0 by three, who find 1 after a cast.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyarrow==25.0.1" "polars==2.1.0" "duckdb==2.0.0" "datafusion==55.0.0" \
    "chdb==4.4.0" "daft==0.7.26"
cat >"$folder/check.py" <<'PYTHON'
import sys

import chdb
import daft
import datafusion
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

path = sys.argv[1] + "/rates.parquet"
pq.write_table(pa.table({"rate": pa.array([0.0001, 0.001], pa.float32())}), path)
context = datafusion.SessionContext()
context.register_parquet("rates", path)
rates = daft.read_parquet(path)
cast = daft.lit(0.0001).cast(daft.DataType.float32())


def by_datafusion(literal):
    return context.sql(f"select * from rates where rate = {literal}").count()


def by_clickhouse(literal):
    return int(str(chdb.query(f"select count() from file('{path}', 'Parquet') where rate = {literal}")))


version = str(chdb.query("select version()")).strip().replace('"', "")
found = {
    f"Polars {pl.__version__}": pl.scan_parquet(path).filter(pl.col("rate") == 0.0001).collect().height,
    f"DuckDB {duckdb.__version__}": len(duckdb.sql(f"from '{path}' where rate = 0.0001").fetchall()),
    f"DataFusion {datafusion.__version__}": by_datafusion("0.0001"),
    f"DataFusion {datafusion.__version__} after a cast": by_datafusion("cast(0.0001 as real)"),
    f"ClickHouse {version}": by_clickhouse("0.0001"),
    f"ClickHouse {version} after a cast": by_clickhouse("toFloat32(0.0001)"),
    f"Daft {daft.__version__}": rates.where(rates["rate"] == 0.0001).count_rows(),
    f"Daft {daft.__version__} after a cast": rates.where(rates["rate"] == cast).count_rows(),
}
for name, rows in found.items():
    print(name, "finds", rows)
sys.exit(0 if list(found.values()) == [1, 1, 0, 1, 0, 1, 0, 1] else "literals are compared otherwise now")
PYTHON
DO_NOT_TRACK=1 DAFT_PROGRESS_BAR=0 "$folder/venv/bin/python" "$folder/check.py" "$folder"
