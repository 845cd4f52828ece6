#!/usr/bin/env bash
# torch.sigmoid of one and the same float32 number has other last bits alone than among others: whole vectors and what is
# left behind them take different code, so a loss depends on how many rows it is computed with. exp, tanh and log1p do
# not do that. Seen with torch 2.13.0 on x86-64 with AVX2 and with AVX-512.
# Expected: elementwise functions depend on their element alone. Seen: some hundredths of the numbers differ.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.4.6"
cat >"$folder/check.py" <<'PYTHON'
import sys

import torch

torch.set_num_threads(1)
torch.manual_seed(0)
numbers = torch.randn(1000)
print("torch", torch.__version__, torch.backends.cpu.get_cpu_capability())
differing = {}
for function in (torch.sigmoid, torch.exp, torch.tanh):
    together = function(numbers)
    alone = torch.cat([function(numbers[place : place + 1]) for place in range(len(numbers))])
    differing[function.__name__] = int((together != alone).sum())
    largest = float(((together - alone) / together).abs().max())
    print(f"{function.__name__}: {differing[function.__name__]} of 1000 differ, by {largest:.1e} at most")
sys.exit(0 if differing["sigmoid"] else "sigmoid depends on its element alone now")
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
