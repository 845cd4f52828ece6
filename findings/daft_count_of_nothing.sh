#!/usr/bin/env bash
# Daft's count_rows() is None where a condition on a partition key leaves no file: 0 is what an empty result has. Seen with
# Daft 0.7.26; written by pyarrow 25.0.1.
# Expected: 0. Seen: None, while the rows themselves are none, and a condition on a column counts 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyarrow==25.0.1" "daft==0.7.26"
cat >"$folder/check.py" <<'PYTHON'
import sys
from pathlib import Path

import daft
import pyarrow as pa
import pyarrow.parquet as pq

data = Path(sys.argv[1]) / "depth=2"
data.mkdir()
pq.write_table(pa.table({"size": [64, 128]}), data / "part.parquet")
runs = daft.read_parquet(str(data / "part.parquet"), hive_partitioning=True)
by_column, by_key = runs.where(runs["size"] == 3), runs.where(runs["depth"] == 3)
print("Daft", daft.__version__, "by a column:", by_column.count_rows(), by_column.to_pydict())
print("Daft", daft.__version__, "by a key:", count := by_key.count_rows(), by_key.to_pydict())
sys.exit(0 if count is None else "it counts nothing as 0 now")
PYTHON
DO_NOT_TRACK=1 DAFT_PROGRESS_BAR=0 "$folder/venv/bin/python" "$folder/check.py" "$folder"
