"""The benchmark of the fused engine's sections, with the compiler switched off: compiling takes half a minute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import sections
from butter_etl.engines.contract import Network, Optimization, StackData
from butter_etl.engines.fused import engine
from butter_etl.engines.initialization import stack_starts

ROOT = Path(__file__).parents[1]


def tiny_times():
    """Every section's time, of a problem of 40 rows."""
    network = Network(3, (4, 4, 3), "categorical_crossentropy")
    x, y = np.linspace(0, 1, 120, dtype=np.float32).reshape(40, 3), np.eye(3, dtype=np.float32)[np.arange(40) % 3]
    rows = np.arange(40)[None]
    data = StackData(x, y, rows[:, :30], rows[:, 30:], y[None, :30])
    prepared = engine.prepare(network, Optimization("adam", 0.01, 20, 1), data, [1], stack_starts([1], network))
    before = prepared[1].weights.copy()
    times = sections.microseconds(prepared, rounds=1)
    return times, not np.array_equal(prepared[1].weights, before)


def test_every_section_of_an_epoch_has_a_time():
    script = "import json, tests.test_sections as t; print(json.dumps(t.tiny_times()))"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, env=environment, cwd=ROOT, capture_output=True, text=True
    )
    times, trained = json.loads(done.stdout)
    assert len(times) == len(sections.SECTIONS) + 1
    assert np.isfinite(times).all()
    assert min(times) > 0
    assert trained
