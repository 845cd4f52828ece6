#!/usr/bin/env bash
# A boolean field of Croissant whose value is cut from a path or a text is true for every text, False too: mlcroissant makes
# it by Python's bool. Seen with mlcroissant 1.1.1.
# Expected: true for flag=True, false for flag=False. Seen: true for both, without an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mlcroissant==1.1.1" "pyarrow==26.0.1"
cat >"$folder/check.py" <<'PYTHON'
import importlib.metadata
import json
import sys
from pathlib import Path

import mlcroissant as mlc
import pyarrow as pa
import pyarrow.parquet as pq

folder = Path(sys.argv[1])
for flag in ("True", "False"):
    (folder / f"data/flag={flag}").mkdir(parents=True)
    pq.write_table(pa.table({"text": [flag]}), folder / f"data/flag={flag}/part.parquet")
from_path = mlc.Source(
    file_set="files",
    extract=mlc.Extract(file_property="fullpath"),
    transforms=[mlc.Transform(regex=".*/flag=([^/]+)/.*")],
)
from_column = mlc.Source(file_set="files", extract=mlc.Extract(column="text"))
fields = [
    mlc.Field(id="runs/flag", name="flag", data_types=mlc.DataType.BOOL, source=from_path),
    mlc.Field(id="runs/text", name="text", data_types=mlc.DataType.TEXT, source=from_column),
]
files = mlc.FileSet(
    id="files", name="files", encoding_formats=["application/x-parquet"], includes=["data/**/*.parquet"]
)
described = mlc.Metadata(
    name="flags",
    url="https://example.org",
    distribution=[files],
    record_sets=[mlc.RecordSet(id="runs", name="runs", fields=fields)],
)
(folder / "croissant.json").write_text(json.dumps(described.to_json(), default=str))
records = list(mlc.Dataset(str(folder / "croissant.json")).records("runs"))
flags = {record["runs/text"].decode(): record["runs/flag"] for record in records}
version = importlib.metadata.version("mlcroissant")
print("mlcroissant", version, "reads flag=True as", flags["True"], "and flag=False as", flags["False"])
sys.exit(0 if flags == {"True": True, "False": True} else "it tells true from false now")
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder" 2>"$folder/warnings.txt" || (cat "$folder/warnings.txt" && exit 1)
