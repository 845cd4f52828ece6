#!/usr/bin/env bash
# pyarrow imports all of pandas to make an array of Python's numbers, or a scalar, where pandas is installed: some 300
# files and a fifth of a second in every process, such as each of thousands of workers that start on one file system.
# Seen with pyarrow 26.0.1 and pandas 3.1.1. Arrays that are made of buffers, and those that are null, take nothing.
# Expected: no pandas, as nothing of it is asked for. Seen: it is there after pa.array([1]) and pa.scalar(1).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyarrow==26.0.1" "pandas==3.1.1"
cat >"$folder/check.py" <<'PYTHON'
import subprocess
import sys

WAYS = {
    "pa.array([1])": True,
    "pa.scalar(1)": True,
    "pa.array(numpy.arange(3))": True,
    "pa.nulls(3, pa.int64())": False,
    "pa.Array.from_buffers(pa.int64(), 3, [None, pa.py_buffer(numpy.arange(3))])": False,
}
same = True
for way, loads in WAYS.items():
    code = f"import sys, numpy, pyarrow as pa; {way}; print('pandas' in sys.modules, len(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    print(f"{way}: pandas is {'there' if said[0] == 'True' else 'not there'}, {said[1]} modules")
    same = same and (said[0] == "True") == loads
import pandas
import pyarrow

print("pyarrow", pyarrow.__version__, "pandas", pandas.__version__)
sys.exit(None if same else "it is otherwise now")
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
