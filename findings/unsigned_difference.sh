#!/usr/bin/env bash
# The difference of two unsigned columns is 2**64 too large in DataFusion, Daft and Polars where it should be negative,
# without an error. ClickHouse gives the negative number, DuckDB says that it overflows. Seen with DataFusion 55.0.0, Daft
# 0.7.26, Polars 2.1.0, chDB 4.4.0 (ClickHouse 26.9.2) and DuckDB 2.0.0.
# Expected: 61 - 64 is -3, or an error. Seen: 18446744073709551613 by three of them.
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

path = sys.argv[1] + "/sizes.parquet"
pq.write_table(pa.table({"there": pa.array([61], pa.uint64()), "wanted": pa.array([64], pa.uint64())}), path)
context = datafusion.SessionContext()
context.register_parquet("sizes", path)
sizes = daft.read_parquet(path)
try:
    by_duckdb = duckdb.sql(f"select there - wanted from '{path}'").fetchall()[0][0]
except duckdb.OutOfRangeException as error:
    by_duckdb = str(error)
version = str(chdb.query("select version()")).strip().replace('"', "")
seen = {
    f"DataFusion {datafusion.__version__}": context.sql("select there - wanted as d from sizes").to_pydict()["d"][0],
    f"Daft {daft.__version__}": sizes.select((sizes["there"] - sizes["wanted"]).alias("d")).to_pydict()["d"][0],
    f"Polars {pl.__version__}": pl.read_parquet(path).select(pl.col("there") - pl.col("wanted")).item(),
    f"ClickHouse {version}": int(str(chdb.query(f"select there - wanted from file('{path}', 'Parquet')"))),
    f"DuckDB {duckdb.__version__}": by_duckdb,
}
for name, difference in seen.items():
    print(name, "gives", difference)
*wrapped, negative, error = seen.values()
is_so = (wrapped, negative) == ([2**64 - 3] * 3, -3) and "Overflow" in error
sys.exit(0 if is_so else "unsigned columns are subtracted otherwise now")
PYTHON
DO_NOT_TRACK=1 DAFT_PROGRESS_BAR=0 "$folder/venv/bin/python" "$folder/check.py" "$folder"
