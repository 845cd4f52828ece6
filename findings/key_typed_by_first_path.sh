#!/usr/bin/env bash
# Left to guess, Daft and ClickHouse give a partition key the type of the first path that they see: after noise=0 it is an
# integer, and noise=0.05 becomes null in Daft, without an error, and stops ClickHouse. Which path comes first is up to
# the listing; with a pattern, Daft gives other values from run to run. Seen with Daft 0.7.26 and chDB 4.4.0 (ClickHouse
# 26.9.2); written by pyarrow 25.0.1.
# Expected: 0 and 0.05. Seen: 0 and null; TYPE_MISMATCH. With 0.05 first, and with a type that is given, both read both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyarrow==25.0.1" "daft==0.7.26" "chdb==4.4.0"
cat >"$folder/check.py" <<'PYTHON'
import sys
from pathlib import Path

import chdb
import daft
import pyarrow as pa
import pyarrow.parquet as pq

data = Path(sys.argv[1])
for noise in ("0", "0.05"):
    (data / f"noise={noise}").mkdir()
    pq.write_table(pa.table({"loss": [0.5]}), data / f"noise={noise}" / "part.parquet")


def by_daft(order, **types):
    paths = [f"{data}/noise={noise}/part.parquet" for noise in order]
    return sorted(daft.read_parquet(paths, hive_partitioning=True, **types).to_pydict()["noise"], key=str)


def by_clickhouse(order, structure="auto"):
    paths = f"{data}/noise={{{','.join(order)}}}/part.parquet"
    try:
        asked = str(chdb.query(f"select noise from file('{paths}', 'Parquet', '{structure}')"))
    except RuntimeError as error:
        return str(error)
    return sorted(float(line) for line in asked.splitlines())


version = str(chdb.query("select version()")).strip().replace('"', "")
print("Daft", daft.__version__, "0.05 first:", by_daft(["0.05", "0"]))
print("Daft", daft.__version__, "typed:", by_daft(["0", "0.05"], schema={"noise": daft.DataType.float64()}))
print("Daft", daft.__version__, "0 first:", nulls := by_daft(["0", "0.05"]))
print("ClickHouse", version, "0.05 first:", by_clickhouse(["0.05", "0"]))
print("ClickHouse", version, "typed:", by_clickhouse(["0", "0.05"], "loss Float64, noise Float64"))
print("ClickHouse", version, "0 first:", error := by_clickhouse(["0", "0.05"]))
changed = nulls != [0, None] or "Cannot convert string '0.05' to type Int64" not in error
sys.exit("keys are no more of the type of the first path" if changed else 0)
PYTHON
DO_NOT_TRACK=1 DAFT_PROGRESS_BAR=0 "$folder/venv/bin/python" "$folder/check.py" "$folder"
