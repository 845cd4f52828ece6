"""Exporting a subset against writing it anew: hard links or copies, DuckDB's `COPY … PARTITION_BY`, Polars' sink.

    python -m benchmarks.publish
    python -m benchmarks.publish --experiments 40 --runs 30 --epochs 3000 --rounds 5 --json

A store of made-up curves is written once. Each round, every contestant brings the same sweep of it into the published
layout, one after the other, in an empty folder. An export does more than the others: it hashes every file for the
manifest and writes the card, and that is in its time. ``export again`` is the same once more, where all is known.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from butter_etl.engines.contract import HISTORIES
from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.partition import run_export
from butter_etl.store.files import Location
from butter_etl.store.layout import partition_path
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.experiments import TASK, TASK_VERSION, ExperimentSpec
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import experiment_topology, make_experiment
from butter_etl.studies.columns import FLOAT_LIST
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.selection import Choice

SWEEP = "primary"
HEADER = f"{'contestant':<24}{'seconds':>10}{'MB/s':>10}{'times':>10}"


@dataclass(frozen=True)
class Settings:
    """How much is exported: experiments of the sweep, as many again of others, runs of each, epochs of each run."""

    experiments: int = 24
    runs: int = 30
    epochs: int = 3000
    rounds: int = 5


@dataclass
class Result:
    """One contestant: median seconds of wall time, and how many times as long as an export by hard links."""

    contestant: str
    seconds: float
    ratio: float
    all_seconds: list[float] = field(default_factory=list)


@dataclass
class Report:
    """What was measured; ``megabytes`` are the Parquet files of the exported run frame."""

    settings: Settings
    files: int
    megabytes: float
    results: list[Result] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


# --- the store ----------------------------------------------------------------------------------------------------


def experiments(count: int) -> Iterator[ExperimentSpec]:
    """``count`` experiments of the primary sweep and ``count`` of others, over several partitions."""
    depths, sizes = (3, 4, 5, 7), (2**k for k in range(10, 24))
    cells = ((size, depth) for size in sizes for depth in depths)
    for _, (size, depth) in zip(range(count), cells, strict=False):
        yield make_experiment(dataset="wine_quality_white", size=size, depth=depth)
        yield make_experiment(dataset="wine_quality_white", size=size, depth=depth, batch_size=32)


def make_store(path: Path, settings: Settings) -> Store:
    """A store of noisy falling curves, a file an experiment."""
    store = Store.create(path)
    for spec in experiments(settings.experiments):
        experiment_id = BUTTER.fixed_ids.id_of(spec)
        assert experiment_id is not None
        store.land(
            partition_path(BUTTER.keys, spec.parameters()), experiment_id, make_rows(spec, experiment_id, settings)
        )
    return store


def make_rows(spec: ExperimentSpec, experiment_id: int, settings: Settings) -> pa.Table:
    """Rows of the run frame."""
    topology = experiment_topology(spec)
    assert topology is not None
    random = np.random.default_rng(experiment_id)
    shape = (settings.runs, settings.epochs)
    fall = np.exp(-np.arange(settings.epochs) / settings.epochs)
    rows = []
    for repetition in range(settings.runs):
        run = RunSpec(spec, repetition)
        rows.append(
            {
                **BUTTER.flags_of(spec),
                **spec.parameters(),
                "experiment_id": experiment_id,
                "run_id": run.run_id,
                "batch": SWEEP,
                "task": TASK,
                "task_version": TASK_VERSION,
                "num_free_parameters": topology.num_free_parameters,
                "widths": list(topology.widths),
                "command": run.command(SWEEP),
                "seed": run.seed,
                "repetition": repetition,
            }
        )
    table = pa.Table.from_pylist(rows, schema=BUTTER.run_files)
    offsets = pa.array(np.arange(0, shape[0] * shape[1] + 1, shape[1], dtype=np.int32))
    for name in HISTORIES:
        noisy = fall + 0.01 * random.standard_normal(shape)
        values = (np.round(noisy * 980) / 980 if "accuracy" in name else noisy).astype(np.float32)
        column = pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)), type=FLOAT_LIST)
        table = table.set_column(table.schema.get_field_index(name), BUTTER.run_files.field(name), column)
    return table


# --- contestants --------------------------------------------------------------------------------------------------


def export(store: Store, dest: Path) -> None:
    """The run frame of the sweep, as the command makes it; planning included."""
    options = ExportOptions(summary=False)
    planned = plan_export(store, Registry(store).select(Choice(sweeps=(SWEEP,))), options)
    run_export(planned, store, Location(dest), options)


def duckdb_copy(store: Store, dest: Path) -> None:
    """DuckDB's `COPY … PARTITION_BY`, zstd as our files."""
    import duckdb

    keys = ", ".join(f'"{key}"' for key in BUTTER.key_schema.names)
    words = {"string": "varchar", "float": "float", "uint32": "uinteger", "uint8": "utinyint"}
    types = ", ".join(f"'{one.name}': {words[str(one.type)]}" for one in BUTTER.key_schema)
    source = store.location.path("all_runs/**/*.parquet")
    with duckdb.connect() as connection:
        connection.execute(
            f"""COPY (
                SELECT * FROM read_parquet('{source}', hive_partitioning = true, hive_types = {{{types}}})
                WHERE {SWEEP}_sweep
            ) TO '{dest}' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY ({keys}))"""  # noqa: S608 (our own paths)
        )


def polars_sink(store: Store, dest: Path) -> None:
    """Polars' partitioned sink, zstd as our files."""
    import polars as pl

    kinds = {"string": pl.String, "float": pl.Float32, "uint32": pl.UInt32, "uint8": pl.UInt8}
    keys = {one.name: kinds[str(one.type)] for one in BUTTER.key_schema}
    frame = pl.scan_parquet(store.location.path("all_runs/**/*.parquet"), hive_schema=keys)
    target = pl.PartitionBy(dest, key=list(keys), include_key=False)
    frame.filter(pl.col(f"{SWEEP}_sweep")).sink_parquet(target, compression="zstd", compression_level=3, mkdir=True)


CONTESTANTS: dict[str, Callable[[Store, Path], None]] = {
    "export": export,
    "export, copies": export,
    "export again": export,
    "DuckDB COPY PARTITION_BY": duckdb_copy,
    "Polars partitioned sink": polars_sink,
}


def run(settings: Settings, folder: Path, copies: Path | None = None) -> Report:
    """Every contestant in every round, in a folder of this disk.

    ``copies`` is a folder on another file system, where files cannot be linked; without it, copies are left out.
    """
    store = make_store(folder / "store", settings)
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    report = Report(settings, 0, 0.0)
    for number in range(settings.rounds + 1):
        for name, contestant in CONTESTANTS.items():
            if name == "export, copies" and copies is None:
                report.left_out[name] = "no folder on another file system was named"
            if name in report.left_out:
                continue
            home = copies if name == "export, copies" and copies else folder
            dest = home / ("export" if name == "export again" else name.replace(" ", "-"))
            if name != "export again":
                shutil.rmtree(dest, ignore_errors=True)
            started = time.perf_counter()
            try:
                contestant(store, dest)
            except ImportError as error:
                report.left_out[name] = str(error)
                continue
            if number:  # the first round warms caches and imports
                seconds[name].append(time.perf_counter() - started)
        _check(folder)
    files = list((folder / "export").rglob("*.parquet"))
    report.files, report.megabytes = len(files), sum(path.stat().st_size for path in files) / 1e6
    ours = statistics.median(seconds["export"])
    for name, times in seconds.items():
        if times:
            median = statistics.median(times)
            report.results.append(Result(name, median, median / ours, times))
    return report


def _check(folder: Path) -> None:
    """That the contestants did the same: as many rows in as many partitions."""
    import pyarrow.dataset as ds

    hive = ds.partitioning(BUTTER.key_schema, flavor="hive")
    found = set()
    for path in folder.iterdir():
        if any(path.rglob("*.parquet")) and path.name != "store":
            root = path / f"{SWEEP}_sweep_runs" if (path / "manifest.json").exists() else path
            dataset = ds.dataset(root, partitioning=hive, format="parquet")
            found.add((dataset.count_rows(), len({Path(file).parent.relative_to(root) for file in dataset.files})))
    assert len(found) == 1, found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__.partition("\n")[0])
    for name, default in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder otherwise")
    parser.add_argument("--copies", type=Path, help="a folder on another file system, for exports by copying")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args(arguments)
    settings = Settings(options.experiments, options.runs, options.epochs, options.rounds)
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        tempfile.TemporaryDirectory(dir=options.copies) as copies,
    ):
        report = run(settings, Path(folder), Path(copies) if options.copies else None)
    if options.as_json:
        print(json.dumps(asdict(report), indent=1))
        return 0
    print(f"{report.files} files, {report.megabytes:,.0f} MB; medians of {settings.rounds} rounds, wall time")
    print(HEADER)
    for one in report.results:
        print(f"{one.contestant:<24}{one.seconds:>10.3f}{report.megabytes / one.seconds:>10,.0f}{one.ratio:>10.1f}")
    for name, reason in report.left_out.items():
        print(f"{name}: left out, {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
