#!/usr/bin/env bash
# Record arrays that NumPy 2 pickles cannot be loaded by NumPy 1.26, by any protocol, though plain arrays and single records can:
# their class calls itself numpy.rec.recarray, and numpy.rec is a module in NumPy 2 alone. 1.26 has numpy._core for such pickles.
# What pandas' to_records returns is such an array. Seen with NumPy 2.4.6 and 1.26.4.
# Expected: 1.26 loads all three, as it does those of NumPy 1, and as 1.16 and 2.4 load those of 1.26. Seen: No module named 'numpy.rec'.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 2.4.6 1.26.4; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "numpy==$version"
done
cat >"$folder/write.py" <<'PYTHON'
import pickle
import sys

import numpy as np

plain = np.array([(1, 2.0)], [("trial", "i8"), ("loss", "f8")])
records = plain.view(np.recarray)
for name, thing in (("plain", plain), ("record", records[0]), ("records", records)):
    with open(f"{sys.argv[1]}/{name}.p", "wb") as file:
        pickle.dump(thing, file, protocol=2)
print("written by NumPy", np.__version__)
PYTHON
cat >"$folder/read.py" <<'PYTHON'
import pickle
import sys

import numpy as np

seen = {}
for name in ("plain", "record", "records"):
    try:
        with open(f"{sys.argv[1]}/{name}.p", "rb") as file:
            seen[name] = f"loaded as {type(pickle.load(file)).__name__}"
    except ModuleNotFoundError as error:
        seen[name] = str(error)
    print(f"NumPy {np.__version__}, {name}: {seen[name]}")
is_so = seen == {"plain": "loaded as ndarray", "record": "loaded as record", "records": "No module named 'numpy.rec'"}
is_whole = seen["records"] == "loaded as recarray"
sys.exit(0 if is_so or (is_whole and np.__version__ > "2") else "record arrays of NumPy 2 are loaded otherwise now")
PYTHON
mkdir "$folder/old"
"$folder/2.4.6/bin/python" "$folder/write.py" "$folder"
"$folder/1.26.4/bin/python" "$folder/read.py" "$folder"
echo "the other way round:"
"$folder/1.26.4/bin/python" "$folder/write.py" "$folder/old"
"$folder/2.4.6/bin/python" "$folder/read.py" "$folder/old"
