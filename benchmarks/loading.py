"""What kernels cost before they run, and at each call: loaded and called without numba, and with it.

``python -m benchmarks.loading [--rounds 9] [--json]`` lets new processes take turns. Ours loads the kept machine code
of all kernels that read and write histories of float32 and compute statistics over them. Numba's is imported and made
ready to load kept kernels, and has loaded none yet. A call is of a kernel that does next to nothing, by its machine
code and by numba's dispatcher, in this process. The table has medians: CPU milliseconds of loading, microseconds of a
call. Kernels are compiled first, where they are not kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from butter_etl.store import page_kernels, page_reading, page_writing

#: What both processes have imported before the clock starts: no compiled code is among it.
_BEFORE = """
import sys, time
import llvmlite.binding, numpy as np, pyarrow
from butter_etl.engines.order_statistics import best_entries, epoch_statistics
from butter_etl.store import page_reading, page_writing
begun = time.process_time()
"""
_OURS = """
page_reading.KERNELS.ready(np.dtype(np.uint32))
page_writing.KERNELS.ready(np.dtype(np.uint32))
lists = np.ones(2, np.float32), np.zeros(1, np.int64), np.full(1, 2, np.int64)
counts, floats = np.empty((2, 2), np.uint8), np.empty((4, 2), np.float32)
epoch_statistics(*lists, 2, np.zeros(0), counts, floats)
best_entries(*lists, 2, "min", np.empty((1, 2), np.float32))
taken = time.process_time() - begun
assert "numba" not in sys.modules
print(taken)
"""
_NUMBAS = """
import numba
numba.core.registry.cpu_target.target_context.refresh()
print(time.process_time() - begun)
"""
_CALLS = 100_000


@dataclass(frozen=True)
class Result:
    """What is measured, by numba and by ours, medians, and the median of the rounds' ratios."""

    what: str
    numba: float
    ours: float
    ratio: float


def measure(rounds: int) -> list[Result]:
    """Let both take turns; raises CalledProcessError where a process fails."""
    for kernels in (page_reading.KERNELS, page_writing.KERNELS):
        kernels.ready(np.dtype(np.uint32))
    _loading(_OURS)  # compiles what is left
    ends = np.arange(9, dtype=np.int32)
    kernel = page_kernels.count_entries
    by_numba = kernel.dispatcher  # type: ignore[attr-defined]
    by_numba(ends)
    return [
        _turns("load, CPU ms", lambda: 1e3 * _loading(_NUMBAS), lambda: 1e3 * _loading(_OURS), rounds),
        _turns("call, microseconds", lambda: _call(by_numba, ends), lambda: _call(kernel, ends), rounds),
    ]


def _turns(what: str, theirs: Callable[[], float], ours: Callable[[], float], rounds: int) -> Result:
    taken = [(theirs(), ours()) for _ in range(rounds)]
    return Result(what, median(t for t, _ in taken), median(o for _, o in taken), median(t / o for t, o in taken))


def _loading(script: str) -> float:
    command = [sys.executable, "-c", _BEFORE + script]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _call(function: Callable[..., int], ends: np.ndarray) -> float:
    begun = time.process_time()
    timeit.timeit(lambda: function(ends), number=_CALLS)
    return 1e6 * (time.process_time() - begun) / _CALLS


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    results = measure(options.rounds)
    if options.json:
        print(json.dumps([asdict(one) for one in results]))
        return 0
    print("| | numba | without it | times |\n|---|---|---|---|")
    for one in results:
        print(f"| {one.what} | {one.numba:.2f} | {one.ours:.2f} | {one.ratio:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
