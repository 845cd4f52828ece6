"""What published records of trials cost: reading and writing their pickles beside NumPy's own, and the whole import.

``python -m benchmarks.records [--records 60000] [--folder DIR] [--json]`` makes up records of all 1,104 cells, as many
in each, writes them as the files of figures, and reads them again: as data, and by ``numpy.load``, which runs whatever
a pickle names. Ours and NumPy's take turns, three times. Then the files are imported into an empty store, once, and
once more, when all of them are there. It prints CPU seconds, microseconds a record, ratios, and how long the 630,880
published records would take at that rate.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple, TypeVar

import numpy as np

from butter_etl.engines import GATES
from butter_etl.exchange import run_import
from butter_etl.store import Store
from butter_etl.studies.capacity.experiments import ARCHITECTURES
from butter_etl.studies.capacity.formats import FILES
from butter_etl.studies.capacity.records import Records, read_records, write_records
from butter_etl.studies.capacity.study import RNN_CAPACITY
from butter_etl.studies.capacity.sweeps import BUDGETS

PUBLISHED: Final = 630_880
T = TypeVar("T")
_GATES: Final[dict[str, tuple[str, ...]]] = {str(name): gates for name, gates in GATES.items()}
_DEPTHS = (1, 2, 4, 8)
_ROUNDS = 3
_ONCE = (
    "forget_gate_bias_hack",
    "lr_init",
    "lr_decay_rate",
    "optimizer_logit_momentum",
    "gradient_clip_val",
    "l2_decay",
)
_OF_GATES = ("recurrent_matrix_scale", "input_scale", "recurrent_bias_scale")


@dataclass(frozen=True)
class Result:
    """CPU seconds for ``records`` in ``files`` of so many bytes; ``experiments`` and run files of the store.

    ``peak`` is the most memory that the import took, in bytes.
    """

    records: int
    files: int
    bytes: int
    write: float
    pickle: float
    read: float
    numpy: float
    imported: float
    again: float
    experiments: int
    run_files: int
    peak: int


def make_records(count: int, seed: int = 0) -> dict[str, Records]:
    """Return so many made-up trials, by the file that they belong to; within a file they are in no order."""
    rng = np.random.default_rng(seed)
    cells = [cell for cell in product(FILES, ARCHITECTURES, _DEPTHS, BUDGETS) if cell[1:3] != ("+rnn", 1)]
    order = rng.permutation(len(cells)).tolist()
    of_file: dict[str, list[tuple[tuple[str, str, int, int], int]]] = {}
    for number in range(count):
        cell = cells[order[number % len(cells)]]
        of_file.setdefault(FILES[cell[0]], []).append((cell, number // len(cells)))
    return {
        name: _records([some[place] for place in rng.permutation(len(some))], rng) for name, some in of_file.items()
    }


def _records(trials: Sequence[tuple[tuple[str, str, int, int], int]], rng: np.random.Generator) -> Records:
    tasks, architectures, depths, budgets = map(list, zip(*(cell for cell, _ in trials), strict=True))
    losses = rng.exponential(size=(3, len(trials))).tolist()
    return Records(
        task_type=tasks,
        architecture=architectures,
        n_layers=depths,
        max_params=budgets,
        num_params=[budget - 7 for budget in budgets],
        hyper_iter=[number for _, number in trials],
        hparams=[_hparams(one, rng) for one in architectures],
        train_loss=losses[0],
        valid_loss=losses[1],
        eval_loss=losses[2],
        infeasible=(rng.random(len(trials)) < 0.2).tolist(),
    )


def _hparams(architecture: str, rng: np.random.Generator) -> dict[str, str | int | float | bool | None]:
    keys = [*_ONCE, *(f"{name}_{gate}" for name in _OF_GATES for gate in _GATES[architecture])]
    texts = {"recurrent_matrix_init_type": "orthogonal", "recurrent_bias_init_type": "delta", "optimizer": "RMSProp"}
    return {**dict(zip(keys, rng.random(len(keys)).tolist(), strict=True)), **texts, "train_steps": 1_176_212}


def measure(count: int, folder: Path) -> Result:
    """Measure so many records; ``folder`` gets their files and a store."""
    made = make_records(count)
    source = folder / "records"
    source.mkdir(parents=True)
    written, write = _timed(lambda: {name: write_records(one) for name, one in made.items()})
    for name, data in written.items():
        (source / name).write_bytes(data)
    pickled, read, numpy = _by_turns([source / name for name in written])
    # In a process of its own, whose memory has nothing of what was made up here.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        imported = pool.submit(_import, source, folder / "store").result()
    if imported.landed != count:
        raise SystemExit(f"of {count} records {imported.landed} landed")
    return Result(
        records=count,
        files=len(written),
        bytes=sum(map(len, written.values())),
        write=write,
        pickle=pickled,
        read=read,
        numpy=numpy,
        imported=imported.first,
        again=imported.again,
        experiments=imported.experiments,
        run_files=len(list(Store.open(folder / "store").run_files())),
        peak=imported.peak,
    )


class _Imported(NamedTuple):
    """Counts of an import, CPU seconds of it and of the same again, and the most memory that it took, in bytes."""

    landed: int
    experiments: int
    first: float
    again: float
    peak: int


def _import(source: Path, store: Path) -> _Imported:
    report, first = _timed(lambda: run_import(source, store, study=RNN_CAPACITY))
    _, again = _timed(lambda: run_import(source, store, study=RNN_CAPACITY))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _Imported(report.landed, report.experiments, first, again, peak)


def _by_turns(files: Sequence[Path]) -> tuple[float, float, float]:
    """Return the median CPU seconds of NumPy's writing, and of our and NumPy's reading, of three rounds each."""
    arrays = [np.load(file, allow_pickle=True, encoding="latin1") for file in files]
    rounds = []
    for _ in range(_ROUNDS):
        written = _timed(lambda: [len(pickle.dumps(one, 2)) for one in arrays])[1]
        read = _timed(lambda: [len(read_records(file.read_bytes())) for file in files])[1]
        loaded = _timed(lambda: [np.load(file, allow_pickle=True, encoding="latin1").size for file in files])[1]
        rounds.append((written, read, loaded))
    one, two, three = map(median, zip(*rounds, strict=True))
    return one, two, three


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.process_time()
    made = work()
    return made, time.process_time() - begun


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("--records", type=int, default=60_000)
    parser.add_argument(
        "--folder", type=Path, help="an empty folder for the files and the store (else a temporary one)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    place = tempfile.TemporaryDirectory() if options.folder is None else nullcontext(options.folder)
    with place as folder:
        result = measure(options.records, Path(folder))
    if options.json:
        print(json.dumps(asdict(result)))
        return 0
    size = f"{result.files} files of {result.bytes / 1e6:.1f} MB"
    print(f"{result.records:,} records, {size}, {result.experiments:,} cells\n")
    print("| | CPU s | µs a record | all 630,880, s |\n|---|---|---|---|")
    for what in ("write", "pickle", "read", "numpy", "imported", "again"):
        seconds = getattr(result, what)
        a_record = seconds / result.records
        print(f"| {what} | {seconds:.2f} | {1e6 * a_record:.0f} | {a_record * PUBLISHED:.0f} |")
    print(f"\nwrite / pickle {result.write / result.pickle:.1f}, read / numpy {result.read / result.numpy:.1f}")
    print(f"{result.run_files:,} run files, at most {result.peak / 1e6:,.0f} MB for the import")
    return 0


if __name__ == "__main__":
    sys.exit(main())
