"""How fast an unsorted run frame is repartitioned into the layout of a store, against DuckDB and Polars.

``python -m benchmarks.repartition [--experiments 64] [--runs 10] [--epochs 1000] [--rounds 3] [--json FILE]`` writes
Parquet files whose rows stand in a random order, then lets each contestant write them, partitioned by the eight keys,
to a new folder: ``butter-etl``'s `run_import` (which also makes one file an experiment, checks every run, and syncs
what it writes), DuckDB's ``COPY … PARTITION_BY`` and Polars' partitioned sink, the latter two with zstd as a store
has it, both by the eight keys alone and with a file an experiment. In the first round, DuckDB must read the rows of the
source in what each has written. The floor reads, sorts and encodes the rows with pyarrow on one thread for most of it,
and checks, partitions and syncs nothing. The contestants take turns, each in a process of its own, on the same cores.
Ratios are of median wall times to ours; above 1 means that we are faster. Exit code 1: a contestant failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from butter_etl.engines.contract import HISTORIES
from butter_etl.errors import ButterError
from butter_etl.store.parquet import parquet_bytes
from butter_etl.studies.butter.experiments import TASK, TASK_VERSION, ExperimentSpec
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import experiment_topology, make_experiment
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.frames import RUNS

FILES = 4
ROWS_A_GROUP = 64
TEST_ROWS = 980
LEARNING_RATES = (0.01, 0.001, 0.0001, 0.00001)
SIZES = tuple(2**power for power in range(8, 24))


class RepartitionError(ButterError):
    """A contestant failed; the message is what it wrote to standard error."""


@dataclass(frozen=True)
class Result:
    """What a contestant took: medians over the rounds, in seconds, and its files: their number and bytes."""

    contestant: str
    wall_seconds: float
    cpu_seconds: float
    files: int
    bytes: int
    ratio: float
    all_wall_seconds: list[float]


@dataclass(frozen=True)
class Report:
    """The source (raw bytes of its histories, and bytes of its files) and what came of it."""

    experiments: int
    runs: int
    epochs: int
    raw_bytes: int
    file_bytes: int
    cores: int
    results: list[Result]


# --- the source --------------------------------------------------------------------------------------------------


def experiments(count: int) -> list[ExperimentSpec]:
    """Feasible experiments of several partitions."""
    found = [
        make_experiment(dataset="mnist", depth=3, size=size, learning_rate=rate)
        for size in SIZES
        for rate in LEARNING_RATES
    ]
    found += [
        make_experiment(dataset="nursery", depth=3, size=size, learning_rate=rate)
        for size in SIZES
        for rate in LEARNING_RATES
    ]
    feasible = [spec for spec in found if experiment_topology(spec) is not None]
    if count > len(feasible):
        raise RepartitionError(f"--experiments: {count} is more than {len(feasible)}")
    return feasible[:count]


def write_source(folder: Path, specs: list[ExperimentSpec], runs: int, epochs: int) -> None:
    """Rows of all experiments in a random order, in a few files."""
    generator = np.random.default_rng(0)
    wanted = [(spec, repetition) for repetition in range(runs) for spec in specs]
    order = generator.permutation(len(wanted))
    folder.mkdir(parents=True)
    for number, part in enumerate(np.array_split(order, FILES)):
        with pq.ParquetWriter(folder / f"part-{number}.parquet", BUTTER.runs, compression="zstd") as writer:
            for start in range(0, part.size, ROWS_A_GROUP):
                rows = [
                    _row(RunSpec(*wanted[place]), epochs, generator) for place in part[start : start + ROWS_A_GROUP]
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema=BUTTER.runs))


def _row(run: RunSpec, epochs: int, generator: np.random.Generator) -> dict[str, object]:
    spec = run.experiment
    assert isinstance(spec, ExperimentSpec)
    topology = experiment_topology(spec)
    assert topology is not None
    falling = np.exp(-np.arange(epochs) / 200)
    histories = {name: _history(name, falling, generator) for name in HISTORIES}
    return {
        "experiment_id": BUTTER.fixed_ids.id_of(spec),
        "run_id": run.run_id,
        **BUTTER.flags_of(spec),
        **spec.parameters(),
        "batch": "primary",
        "task": TASK,
        "task_version": TASK_VERSION,
        "num_free_parameters": topology.num_free_parameters,
        "widths": list(topology.widths),
        "network_structure": "{}",
        "command": run.command("primary"),
        "seed": run.seed,
        "start_time": 1,
        "update_time": 2,
        "repetition": run.repetition,
        **histories,
    }


def _history(name: str, falling: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float32]:
    """A noisy curve; accuracies are shares of whole rows, so they have few distinct values."""
    curve = falling * generator.uniform(0.5, 1) + 0.05 * generator.random(falling.size)
    return (np.round((1 - curve) * TEST_ROWS) / TEST_ROWS if "accuracy" in name else curve).astype(np.float32)


# --- the contestants ---------------------------------------------------------------------------------------------


def ours(source: Path, dest: Path) -> Callable[[], object]:
    """`butter_etl`, on threads of this process."""
    import pandas  # noqa: F401, ICN001 (pyarrow loads it with the first array)

    from butter_etl.exchange.imports import run_import

    return lambda: run_import(source, dest)


def floor(source: Path, dest: Path) -> Callable[[], object]:
    """What pyarrow takes to decode all rows, to sort them by group, and to encode them as a store does."""
    import pandas  # noqa: F401, ICN001 (as above)

    def work() -> None:
        dest.mkdir()
        held: dict[int, list[pa.Table]] = {}
        for path in source.iterdir():
            with pq.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    rows = file.read_row_group(number).sort_by("experiment_id")
                    for one in pc.unique(rows["experiment_id"]).to_pylist():
                        place = pc.index(rows["experiment_id"], one).as_py()
                        count = pc.sum(pc.equal(rows["experiment_id"], one)).as_py()
                        held.setdefault(one, []).append(rows.slice(place, count))
        for one, pieces in held.items():
            rows = pa.concat_tables(pieces).select(BUTTER.run_files.names).cast(BUTTER.run_files)
            (dest / f"{one}.parquet").write_bytes(parquet_bytes(rows.combine_chunks()))

    return work


def duckdb(source: Path, dest: Path, keys: tuple[str, ...] = BUTTER.keys) -> Callable[[], object]:
    """DuckDB's ``COPY … PARTITION_BY``."""
    import duckdb as engine

    connection = engine.connect()
    connection.execute(f"SET threads={os.cpu_count()}; SET enable_progress_bar = false")
    names = ", ".join(f'"{key}"' for key in keys)
    options = f"FORMAT parquet, COMPRESSION zstd, PARTITION_BY ({names})"
    query = f"COPY (SELECT * FROM read_parquet('{source}/*.parquet')) TO '{dest}' ({options})"  # noqa: S608
    return lambda: connection.execute(query)


def polars(source: Path, dest: Path, keys: tuple[str, ...] = BUTTER.keys) -> Callable[[], object]:
    """Polars' partitioned sink."""
    import polars as pl

    frame = pl.scan_parquet(f"{source}/*.parquet")
    target = pl.PartitionBy(dest, key=list(keys), include_key=False)
    return lambda: frame.sink_parquet(target, compression="zstd", compression_level=3, mkdir=True)


OURS, FLOOR = "butter_etl", "floor"
#: With one file an experiment, as a store has them.
FILE_KEYS = (*BUTTER.keys, "experiment_id")
CONTESTANTS: dict[str, Callable[[Path, Path], Callable[[], object]]] = {
    OURS: ours,
    FLOOR: floor,
    "duckdb": duckdb,
    "polars": polars,
    "duckdb, a file an experiment": partial(duckdb, keys=FILE_KEYS),
    "polars, a file an experiment": partial(polars, keys=FILE_KEYS),
}


def content(folder: Path) -> tuple[int, int]:
    """The number of rows in a folder of any layout, and a sum of all that they hold, as DuckDB reads them."""
    import duckdb as engine

    words = {"string": "varchar", "float": "float", "uint32": "uinteger", "uint8": "utinyint"}
    types = ", ".join(f"'{one.name}': {words[str(one.type)]}" for one in BUTTER.key_schema)
    is_hive = any(folder.glob("*=*"))
    names = ", ".join(f'"{name}"' for name in BUTTER.runs.names)
    read = f"read_parquet('{folder}/**/*.parquet'" + (f", hive_types = {{{types}}})" if is_hive else ")")
    with engine.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        query = f"SELECT count(*), sum(hash({names})::hugeint) FROM {read}"  # noqa: S608 (our own names)
        rows, total = connection.execute(query).fetchall()[0]
    return int(rows), int(total)


def measure(name: str, source: Path, dest: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one contestant in this process, what it imports left out."""
    work = CONTESTANTS[name](source, dest)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_apart(name: str, source: Path, dest: Path) -> tuple[float, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.repartition", "--only", name, str(source), str(dest)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RepartitionError(f"{name}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    wall, cpu = json.loads(done.stdout)
    return wall, cpu


def repartition(folder: Path, count: int, runs: int, epochs: int, rounds: int) -> Report:
    """Measure all contestants, in turns, in ``folder``."""
    source = folder / "source"
    specs = experiments(count)
    write_source(source, specs, runs, epochs)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTESTANTS}
    files: dict[str, int] = {}
    sizes: dict[str, int] = {}
    expected = content(source)
    for turn in range(rounds):
        for name, taken in seconds.items():
            dest = folder / f"{turn}-{name.replace(', ', '-')}"
            taken.append(measure_apart(name, source, dest))
            root = dest / RUNS if name == OURS else dest
            files[name], sizes[name] = _count(root)
            if not turn and name != FLOOR and content(root) != expected:
                raise RepartitionError(f"{name}: DuckDB reads other rows in what it wrote than in the source")
            shutil.rmtree(dest)
    walls = {name: statistics.median(wall for wall, _ in taken) for name, taken in seconds.items()}
    results = [
        Result(
            name,
            walls[name],
            statistics.median(cpu for _, cpu in taken),
            files[name],
            sizes[name],
            walls[name] / walls[OURS],
            [wall for wall, _ in taken],
        )
        for name, taken in seconds.items()
    ]
    size = sum(path.stat().st_size for path in source.iterdir())
    raw = count * runs * epochs * len(HISTORIES) * 4
    return Report(count, count * runs, epochs, raw, size, os.cpu_count() or 1, results)


def _count(folder: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in folder.rglob("*.parquet")]
    return len(sizes), sum(sizes)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experiments", type=int, default=64)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        name, source, dest = options.only
        print(json.dumps(measure(name, Path(source), Path(dest))))
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = repartition(Path(folder), options.experiments, options.runs, options.epochs, options.rounds)
    except ButterError as error:
        sys.exit(f"repartition: {error}")
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(report), indent=2), encoding="utf-8")
    print(
        f"{report.runs} runs of {report.experiments} experiments, {report.epochs} epochs: {report.raw_bytes / 1e6:.0f} "
        f"MB of histories in {report.file_bytes / 1e6:.0f} MB of files; {report.cores} cores"
    )
    print(f"{'contestant':<30}{'wall s':>9}{'CPU s':>9}{'files':>7}{'MB':>7}{'ratio':>7}")
    for one in report.results:
        taken = f"{one.wall_seconds:>9.2f}{one.cpu_seconds:>9.2f}"
        print(f"{one.contestant:<30}{taken}{one.files:>7}{one.bytes / 1e6:>7.0f}{one.ratio:>7.2f}")


if __name__ == "__main__":
    main()
