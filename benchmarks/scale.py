"""What commands cost on a store of very many run files in which nearly nothing is to do.

``python -m benchmarks.scale [--files 1000000] [--folder DIR] [--json]`` makes a synthetic store: partitions of 25
experiments with 8 run files each, which are links to an empty file, since only names and sizes are looked at; and
real summary files, small ones, which say that they were made from these. Then it runs the real commands and prints
what their processes took: `status`, `summarize` that finds nothing to do, `summarize` after one run was added.
Exit code 1: a command failed, or said something else than it should.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path

import pyarrow as pa

from benchmarks.synthetic import run_table
from butter_etl.fingerprints import fingerprint, fingerprints_metadata
from butter_etl.location import parquet_bytes
from butter_etl.schema import EXECUTIVE_FILE_SCHEMA, SUMMARY_FILE_SCHEMA
from butter_etl.spec import ExperimentSpec
from butter_etl.store import RUNS, RunFile, Store, partition_path, run_file_name
from butter_etl.summarize import summary_rows
from butter_etl.summary_files import ROWS_A_GROUP, executive_name, summary_name
from butter_etl.sweeps import make_experiment

EXPERIMENTS, FILES = 25, 8
_LINKS = 30_000  # file systems limit the links of a file, some to 65,000


@dataclass(frozen=True)
class Cost:
    """What a command took: CPU seconds of its processes, and the peak memory of the largest."""

    command: str
    cpu_seconds: float
    peak_megabytes: float


def specs() -> list[ExperimentSpec]:
    """An experiment for each of very many partitions."""
    datasets = ("mnist", "sleep", "adult", "nursery", "connect_4", "201_pol", "splice", "banana", "537_houses")
    shapes = ("rectangle", "trapezoid", "exponential", "wide_first_2x", "wide_first_4x", "rectangle_residual")
    keys = product(datasets, shapes, (0.01, 0.001, 0.0001, 0.00001), (32, 64, 128, 256), (0.0, 0.1), range(2, 10))
    return [
        make_experiment(
            dataset=dataset,
            shape=shape,
            size=1024,
            depth=depth,
            learning_rate=rate,
            batch_size=batch,
            label_noise=noise,
        )
        for dataset, shape, rate, batch, noise, depth in keys
    ]


def make_store(folder: Path, files: int) -> Store:
    """A new store of about so many run files."""
    store = Store.create(folder)
    names = [run_file_name(0, 4 * number, 4 * number + 3) for number in range(FILES)]
    row = summary_rows([run_table(0, specs()[0], 2, 3)], SUMMARY_FILE_SCHEMA)
    linked = 0
    for number, spec in enumerate(islice(specs(), max(1, files // (EXPERIMENTS * FILES)))):
        partition = partition_path(spec.parameters())
        target = folder / RUNS / partition
        target.mkdir(parents=True)
        fingerprints = {}
        for experiment_id in range(number * EXPERIMENTS, (number + 1) * EXPERIMENTS):
            own = [f"{experiment_id}{name[1:]}" for name in names]
            for name in own:
                source = folder / f"empty-{linked // _LINKS}"
                if linked % _LINKS == 0:
                    source.touch()
                os.link(source, target / name)
                linked += 1
            parsed = [RunFile.parse(f"{partition}/{name}", 0) for name in own]
            fingerprints[experiment_id] = fingerprint(file for file in parsed if file is not None)
        _write_summaries(folder, partition, row, fingerprints)
    return store


def _write_summaries(folder: Path, partition: str, row: pa.Table, fingerprints: Mapping[int, str]) -> None:
    """Both summary files of a partition, as `butter_etl.summary_files` has them, but without waiting for the disk."""
    ids = pa.array(list(fingerprints), pa.uint32())
    table = pa.concat_tables([row] * len(ids)).set_column(0, "experiment_id", ids).combine_chunks()
    for name, schema in (
        (summary_name(partition), SUMMARY_FILE_SCHEMA),
        (executive_name(partition), EXECUTIVE_FILE_SCHEMA),
    ):
        path = folder / name
        path.parent.mkdir(parents=True)
        metadata = fingerprints_metadata(fingerprints)
        path.write_bytes(parquet_bytes(table.select(schema.names), metadata=metadata, row_group_size=ROWS_A_GROUP))


def add_run(store: Store) -> None:
    """Land a run of an experiment that the store does not have, with files to be read."""
    spec = specs()[0]
    folder = Path(store.location.path(RUNS)) / partition_path(spec.parameters())
    experiment_id = 2**24
    (folder / run_file_name(experiment_id, 0, 0)).write_bytes(parquet_bytes(run_table(experiment_id, spec, 1, 3000)))


def measure(store: Store, *arguments: str) -> tuple[Cost, str]:
    """What `butter-etl` took with these arguments, and what it printed; raises CalledProcessError if it failed."""
    command, *rest = arguments
    process = subprocess.Popen(
        [sys.executable, "-m", "butter_etl", command, store.location.root, *rest], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Cost(" ".join(arguments), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024), output


def run(store: Store, experiments: int) -> list[Cost]:
    """The three costs; raises ValueError if a command said something else than it should."""
    costs = []
    for arguments, added, expected in (
        (("status", "--json"), False, f'"fresh": {experiments}'),
        (("summarize", "--json"), False, '"computed": 0'),
        (("summarize", "--json"), True, '"computed": 1'),
    ):
        if added:
            add_run(store)
        cost, output = measure(store, *arguments)
        if expected not in output:
            raise ValueError(f"{cost.command}: expected {expected}, got {output}")
        costs.append(Cost(f"{cost.command}{', one run added' if added else ''}", cost.cpu_seconds, cost.peak_megabytes))
    return costs


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000, help="about how many run files (1000000)")
    parser.add_argument("--folder", type=Path, help="where to make the store (else a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = make_store(Path(folder) / "store", options.files)
        files = sum(1 for _ in store.run_files())
        try:
            costs = run(store, files // FILES)
        except (ValueError, subprocess.CalledProcessError) as problem:
            print(problem, file=sys.stderr)
            return 1
    if options.json:
        print(json.dumps({"files": files, "costs": [asdict(cost) for cost in costs]}, indent=1))
        return 0
    print(f"{files:,} run files, {files // FILES:,} experiments\n\n| command | CPU s | peak, MB |\n|---|---|---|")
    for cost in costs:
        print(f"| `{cost.command}` | {cost.cpu_seconds:.1f} | {cost.peak_megabytes:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
