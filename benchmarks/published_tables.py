"""What published tables of networks cost, and predictions from them: against SciPy's fits.

``python -m benchmarks.published_tables FOLDER [--tables 1000] [--fits 150] [--json]`` reads and writes the tables of a
folder (``tests/networks`` has three), again and again, until there were so many. Then it fits curves to the first
points of their accuracies, one point more each time: by the compiled kernel, and by ``scipy.optimize.curve_fit`` in a
loop. It prints CPU milliseconds a table and a fit, and how many predictions of epoch 20 are within 0.001 points of
SciPy's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning, curve_fit

from butter_etl.studies.lifespans.penguin import fit_prefixes, value_at
from butter_etl.studies.lifespans.tables import Table, read_table, write_table

_EPOCH = 20.0
_BOUNDS = ((0.5, 1.0, 0.0), (200.0, np.inf, np.inf))
_START = (10.0, 1.001, 100.0)


@dataclass(frozen=True)
class Result:
    """CPU milliseconds a table, read and written, and a fit, ours and SciPy's; ``alike`` of ``fits`` are the same."""

    read: float
    write: float
    fit: float
    scipy_fit: float
    fits: int
    alike: int


def measure(folder: Path, tables: int, fits: int) -> Result:
    """Measure the tables of a folder; raises SourceError for one that cannot be read."""
    contents = [path.read_bytes() for path in sorted(folder.glob("*.txt"))]
    known = [read_table(data) for data in contents]
    read = _milliseconds(lambda: [read_table(contents[one % len(contents)]) for one in range(tables)]) / tables
    write = _milliseconds(lambda: [write_table(known[one % len(known)]) for one in range(tables)]) / tables
    lives = known[: max(1, fits // len(known[0].epochs))]
    _fits(lives[0], 3)  # compiles
    ours: list[NDArray[np.float64]] = []
    own = _milliseconds(lambda: ours.extend(_fits(one, len(one.epochs)) for one in lives))
    theirs: list[list[float]] = []
    other = _milliseconds(lambda: theirs.extend(_by_scipy(one) for one in lives))
    one, two = np.concatenate(ours), np.concatenate([np.array(some) for some in theirs])
    count = one.size
    alike = int(np.sum((np.isnan(one) & np.isnan(two)) | (np.abs(one - two) <= 1e-3)))
    return Result(read, write, own / count, other / count, count, alike)


def _milliseconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return 1e3 * (time.process_time() - begun)


def _fits(table: Table, points: int) -> NDArray[np.float64]:
    """Return what curves of the first 2, 3, … points predict; NaN where there is no curve."""
    curves = fit_prefixes(table.epochs[None, :points], table.val_accuracy_percent[None, :points])[0, 1:]
    found = value_at(curves, _EPOCH)
    return np.where(np.isfinite(found), found, np.nan)


def _curve(x: NDArray[np.float64], a: float, b: float, c: float) -> NDArray[np.float64]:
    found: NDArray[np.float64] = a - b ** (c - x)
    return found


def _by_scipy(table: Table) -> list[float]:
    found = []
    for count in range(2, len(table.epochs) + 1):
        x, y = 2 * table.epochs[:count], table.val_accuracy_percent[:count]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OptimizeWarning)
                warnings.simplefilter("ignore", RuntimeWarning)
                curve, _ = curve_fit(_curve, x, y, p0=_START, bounds=_BOUNDS)
            found.append(float(_curve(np.array(2 * _EPOCH), *curve)))
        except (RuntimeError, ValueError):
            found.append(float("nan"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published_tables", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--fits", type=int, default=150)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    result = measure(options.folder, options.tables, options.fits)
    if options.json:
        print(json.dumps(asdict(result)))
        return 0
    print("| | CPU ms |\n|---|---|")
    for what, value in (("read a table", result.read), ("write a table", result.write), ("fit", result.fit)):
        print(f"| {what} | {value:.3f} |")
    print(f"| fit by SciPy | {result.scipy_fit:.3f} |\n\n{result.alike} of {result.fits} predictions are alike")
    return 0


if __name__ == "__main__":
    sys.exit(main())
