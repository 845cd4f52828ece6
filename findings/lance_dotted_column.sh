#!/usr/bin/env bash
# Lance refuses a table with a column whose name has a dot, which Arrow and Parquet allow: a Parquet file with the column
# "penalty.l2" cannot become a Lance data set as it is. Seen with pylance 14.0.2; the file is by pyarrow 26.0.1.
# Expected: the column. Seen: OSError: Top level field penalty.l2 cannot contain `.`. With another name it is written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pylance==14.0.2" "pyarrow==26.0.1"
cat >"$folder/check.py" <<'PYTHON'
import sys

import lance
import pyarrow as pa
import pyarrow.parquet as pq

folder = sys.argv[1]
pq.write_table(pa.table({"penalty.l2": [0.01], "loss": [[0.5, 0.25]]}), f"{folder}/runs.parquet")
runs = pq.read_table(f"{folder}/runs.parquet")
renamed = runs.rename_columns([name.replace(".", "_") for name in runs.column_names])
written = lance.write_dataset(renamed, f"{folder}/renamed.lance").to_table()
print("pylance", lance.__version__, "renamed:", written.to_pydict())
try:
    lance.write_dataset(runs, f"{folder}/runs.lance")
except OSError as error:
    print("pylance", lance.__version__, "with a dot: OSError:", str(error)[:90])
    sys.exit(0 if "cannot contain `.`" in str(error) else "the error is another one now")
sys.exit("it takes the name now")
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder"
