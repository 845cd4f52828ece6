#!/usr/bin/env bash
# Read with dtype_backend="pyarrow", a hive key that is null in some paths has no null for pandas: isna() is false
# throughout, while the values are <NA>. The null is in the dictionary of its partition, which is not looked at. Printing
# and grouping stop. Seen with pandas 3.1.1 and pyarrow 26.0.1, which wrote the files.
# Expected: one null. Seen: none, without an error. With the schema that is given, the key is plain text, and one is found.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pandas==3.1.1" "pyarrow==26.0.1"
cat >"$folder/check.py" <<'PYTHON'
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

data = sys.argv[1] + "/data"
runs = pa.table({"loss": [0.5, 0.25], "penalty": pa.array(["l2", None])})
keys = ds.partitioning(pa.schema([("penalty", pa.string())]), flavor="hive")
ds.write_dataset(runs, data, format="parquet", partitioning=keys)
print("pandas", pd.__version__, "pyarrow", pa.__version__)
typed = pd.read_parquet(data, schema=runs.schema, dtype_backend="pyarrow")["penalty"]
print("with the schema:", typed.tolist(), "isna:", typed.isna().tolist())
guessed = pd.read_parquet(data, dtype_backend="pyarrow")["penalty"]
print("guessed:", guessed.tolist(), "isna:", guessed.isna().tolist())
is_so = any(value is pd.NA for value in guessed) and not guessed.isna().any()
sys.exit(0 if is_so else "its nulls are found now")
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder"
