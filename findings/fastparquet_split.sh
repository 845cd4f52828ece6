#!/usr/bin/env bash
# fastparquet cannot read columns that are split by significance (BYTE_STREAM_SPLIT), an encoding of the format since
# 2019 that pyarrow, Polars, DuckDB and Spark read: losses that Parquet compresses best that way. Seen with fastparquet
# 2026.9.0; the file is written by pyarrow 26.0.1, and read back by it.
# Expected: the same numbers by both. Seen: NotImplementedError: Encoding 9.
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

path = sys.argv[1]
losses = pa.table({"loss": pa.array([0.5, 0.25, 0.125], pa.float32())})
pq.write_table(losses, path, use_dictionary=False, column_encoding={"loss": "BYTE_STREAM_SPLIT"})
print("pyarrow", pa.__version__, "reads", pq.read_table(path)["loss"].to_pylist())
try:
    print("fastparquet", fastparquet.__version__, "reads", fastparquet.ParquetFile(path).to_pandas()["loss"].tolist())
except NotImplementedError as error:
    print("fastparquet", fastparquet.__version__, "raises NotImplementedError:", error)
    sys.exit(0)
sys.exit("it reads the column now")
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder/losses.parquet"
