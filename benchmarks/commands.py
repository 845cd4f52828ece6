"""The whole command `summarize`, start-up included, against DuckDB's unnest and group by, as a user would write that.

``python -m benchmarks.commands [--experiments 60] [--partitions 36] [--runs 30] [--epochs 3000] [--rounds 5] [--json]``
makes a store of made-up runs whose experiments are spread over the partitions, and lets two commands take turns, each a
process of its own on one core: ``butter-etl summarize STORE --full``, and a Python script that has DuckDB read all run
files, compute the statistics of the eight series at each epoch, and write them to one long Parquet file, a row an
epoch. DuckDB's file has no list columns, no best epochs and no parameters of experiments. The first turn of each is
not counted. The table has medians of CPU seconds, user and system, and of wall time; ratios are of CPU time.
Exit code 1: a command failed, or the medians of an epoch are not the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks.synthetic import run_table
from butter_etl.store.layout import partition_path, run_file_name
from butter_etl.store.parquet import parquet_bytes
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.frames import RUNS, SUMMARY

_DUCKDB = """
import sys, duckdb
runs, target, threads = sys.argv[1:]
series = {"test_loss": "val_loss", "train_loss": "loss", "test_accuracy": "val_accuracy", "train_accuracy": "accuracy",
    "test_mse": "val_mean_squared_error", "train_mse": "mean_squared_error",
    "test_kld": "val_kullback_leibler_divergence", "train_kld": "kullback_leibler_divergence"}
entries = ", ".join(f"unnest({column}) as {name}" for name, column in series.items())
statistics = ", ".join(
    f"count(*) filter (isfinite({one})) as {one}_num_finite, avg({one}) as {one}_avg, "
    f"stddev_samp({one}) as {one}_stddev, min({one}) as {one}_min, max({one}) as {one}_max, "
    f"quantile_cont({one}, [0.25, 0.5, 0.75]) as {one}_quartiles"
    for one in series
)
duckdb.connect(config={"threads": int(threads)}).execute(f'''
    copy (
        select experiment_id, epoch, count(*) as num, {statistics}
        from (select experiment_id, generate_subscripts(val_loss, 1) as epoch, {entries} from read_parquet('{runs}'))
        group by experiment_id, epoch order by experiment_id, epoch
    ) to '{target}' (format parquet, compression zstd)
''')
"""


@dataclass(frozen=True)
class Result:
    """Medians of what a command took, in seconds, and of the rounds' ratios to ours."""

    command: str
    cpu_seconds: float
    wall_seconds: float
    ratio: float


def make_store(folder: Path, partitions: int, experiments: int, runs: int, epochs: int) -> Store:
    """A store whose experiments are spread over the partitions, a file each."""
    store = Store.create(folder)
    for number in range(experiments):
        spec = make_experiment(dataset="wine_quality_white", size=1024, depth=3 + number % partitions, epochs=epochs)
        target = folder / RUNS / partition_path(BUTTER.keys, spec.parameters())
        target.mkdir(parents=True, exist_ok=True)
        (target / run_file_name(number, 0, runs - 1)).write_bytes(parquet_bytes(run_table(number, spec, runs, epochs)))
    return store


def take(command: Sequence[str], core: int) -> tuple[float, float]:
    """CPU and wall seconds of a process on one core; raises CalledProcessError if it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen(["taskset", "--cpu-list", str(core), *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - begun


def measure(store: Store, folder: Path, rounds: int) -> list[Result]:
    """What both took, ours first; raises ValueError where their medians differ."""
    root = store.location.root
    target = folder / "long.parquet"
    commands = {
        "butter-etl summarize --full": [sys.executable, "-m", "butter_etl", "summarize", root, "--full", "--quiet"],
        "DuckDB, one long file": [sys.executable, "-c", _DUCKDB, f"{root}/{RUNS}/**/*.parquet", str(target), "1"],
    }
    core = min(os.sched_getaffinity(0))
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name in commands if number % 2 else reversed(commands):
            one = take(commands[name], core)
            if number:
                taken[name].append(one)
    check(store, target)
    ours = [cpu for cpu, _ in taken["butter-etl summarize --full"]]
    return [
        Result(
            name,
            median(cpu for cpu, _ in all_of),
            median(wall for _, wall in all_of),
            median(cpu / own for (cpu, _), own in zip(all_of, ours, strict=True)),
        )
        for name, all_of in taken.items()
    ]


def check(store: Store, target: Path) -> None:
    """Raise ValueError unless both have the same medians of test loss, to the precision of float32."""
    kept = ds.dataset(f"{store.location.root}/{SUMMARY}", format="parquet", exclude_invalid_files=True)
    names = ["experiment_id", "test_loss_median"]
    summaries = kept.to_table(columns=names, filter=pc.field("experiment_id") >= 0).sort_by("experiment_id")
    ours = pc.list_flatten(summaries["test_loss_median"])
    theirs = pc.list_element(pq.read_table(target, columns=["test_loss_quartiles"])["test_loss_quartiles"], 1)
    if len(ours) != len(theirs) or (pc.max(pc.abs(pc.subtract(ours, theirs))).as_py() or 0) > 1e-6:
        raise ValueError(f"the medians of {len(ours)} and {len(theirs)} epochs are not the same")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commands", description=__doc__)
    for name, usual in (("experiments", 60), ("partitions", 36), ("runs", 30), ("epochs", 3000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=usual, help=f"({usual})")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_store(folder / "store", options.partitions, options.experiments, options.runs, options.epochs)
        try:
            results = measure(store, folder, options.rounds)
        except (subprocess.CalledProcessError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
    if options.json:
        print(json.dumps([asdict(one) for one in results], indent=1))
        return 0
    print("| command | CPU s | wall s | times ours |\n|---|---|---|---|")
    for one in results:
        print(f"| {one.command} | {one.cpu_seconds:.2f} | {one.wall_seconds:.2f} | {one.ratio:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
