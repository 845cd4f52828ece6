#!/usr/bin/env bash
# numba ends with a bare AssertionError, without a word or a line, where a tuple that a loop carries is made anew by
# unpacking, (*stack[1:], value); the same by adding, stack[1:] + (value,), compiles. ruff's rule RUF005 rewrites the
# latter to the former. Seen with numba 0.68.1 under Python 3.11.
# Expected: the tuple, or an error that names the construct. Seen: AssertionError with an empty message.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "numba==0.68.1" "numpy==2.4.6"
cat >"$folder/check.py" <<'PYTHON'
import contextlib
import io
import sys

import numba


@numba.njit
def by_adding(value, times):
    stack = (0, 0, 0)
    for _ in range(times):
        stack = stack[1:] + (value,)
    return stack


@numba.njit
def by_unpacking(value, times):
    stack = (0, 0, 0)
    for _ in range(times):
        stack = (*stack[1:], value)
    return stack


print("numba", numba.__version__)
print("in Python:", by_adding.py_func(5, 2), by_unpacking.py_func(5, 2))
print("by adding:", by_adding(5, 2))
try:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its tables
        found = by_unpacking(5, 2)
except AssertionError as error:
    print(f"by unpacking: AssertionError({str(error)!r})")
    sys.exit(0)
sys.exit(f"by unpacking it compiles now: {found}")
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
