#!/usr/bin/env bash
# fastparquet stops at a column of text that is null throughout, written by pyarrow without compression: its dictionary is
# a page of no bytes. With compression the page has some, and the column is read. Seen with fastparquet 2026.9.0; written
# by pyarrow 26.0.1, and read back by it.
# Expected: two nulls. Seen: TypeError: an integer is required.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "fastparquet==2026.9.0" "pyarrow==26.0.1"
cat >"$folder/check.py" <<'PYTHON'
import sys

import fastparquet
import pyarrow as pa
import pyarrow.parquet as pq

path = sys.argv[1] + "/jobs.parquet"
jobs = pa.table({"job": pa.array([None, None], pa.string())})
pq.write_table(jobs, path, compression="zstd")
print("fastparquet", fastparquet.__version__, "compressed:", fastparquet.ParquetFile(path).to_pandas()["job"].tolist())
pq.write_table(jobs, path, compression="none")
print("pyarrow", pa.__version__, "uncompressed:", pq.read_table(path)["job"].to_pylist())
try:
    seen = fastparquet.ParquetFile(path).to_pandas()["job"].tolist()
except TypeError as error:
    print("fastparquet", fastparquet.__version__, "uncompressed: TypeError:", error)
    sys.exit(0)
sys.exit(f"it reads the column now: {seen}")
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder"
