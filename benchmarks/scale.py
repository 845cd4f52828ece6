"""What commands cost on a store of very many run files in which nearly nothing is to do, and to export it.

``python -m benchmarks.scale [--files 1000000] [--export] [--folder DIR] [--json]`` makes a synthetic store: partitions
of 25 experiments with 8 run files each, which are links to one file, since only names and sizes are looked at; and
real summary files, small ones, which say that they were made from these. Then it runs the real commands and prints
what their processes took: `status`, `summarize` that finds nothing to do, `summarize` after one run was added.

With ``--export`` it exports the store whole instead, twice, the second time with nothing to do. The run files hold runs
then, and the first export has a terminal of its own: what it shows is told, when the first number of files was seen and
the last, of how many, and how many different ones.

With ``--partition N`` the store has one partition of N experiments of 30 made-up runs of 3000 epochs instead, 7.2 MB of
histories each, which are summarised first: of that the memory counts. Then come the same three commands.
Exit code 1: a command failed, or said something else than it should.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path

import pyarrow as pa

from benchmarks import synthetic
from benchmarks.synthetic import run_table
from butter_etl.store.fingerprints import fingerprint, fingerprints_metadata
from butter_etl.store.layout import RunFile, partition_path, run_file_name
from butter_etl.store.parquet import parquet_bytes
from butter_etl.store.store import Store
from butter_etl.store.summaries import ROWS_A_GROUP, executive_name, summary_name
from butter_etl.studies.butter.experiments import ExperimentSpec
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.frames import RUNS, SUMMARY
from butter_etl.summarize import summary_rows

EXPERIMENTS, FILES = 25, 8
_LINKS = 10_000  # file systems limit the links of a file, some to 65,000; an export makes more
_SHOWN = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class Cost:
    """What a command took: CPU seconds of its processes, and the peak memory of the largest."""

    command: str
    cpu_seconds: float
    peak_megabytes: float


@dataclass(frozen=True)
class Shown:
    """What an export showed meanwhile: seconds from its start, and numbers of files."""

    seconds: float
    first_seconds: float
    last_seconds: float
    numbers: int
    last_number: int
    total: int


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


def make_store(folder: Path, files: int, content: bytes = b"") -> Store:
    """A new store of about so many run files, each of the same content."""
    store = Store.create(folder)
    names = [run_file_name(0, 4 * number, 4 * number + 3) for number in range(FILES)]
    row = summary_rows(BUTTER, [run_table(0, specs()[0], 2, 3)], BUTTER.summary_files)
    linked = 0
    for number, spec in enumerate(islice(specs(), max(1, files // (EXPERIMENTS * FILES)))):
        partition = partition_path(BUTTER.keys, spec.parameters())
        target = folder / RUNS / partition
        target.mkdir(parents=True)
        fingerprints = {}
        for experiment_id in range(number * EXPERIMENTS, (number + 1) * EXPERIMENTS):
            own = [f"{experiment_id}{name[1:]}" for name in names]
            for name in own:
                source = folder / f"content-{linked // _LINKS}.tmp"
                if linked % _LINKS == 0:
                    source.write_bytes(content)
                os.link(source, target / name)
                linked += 1
            parsed = [RunFile.parse(f"{partition}/{name}", len(content)) for name in own]
            fingerprints[experiment_id] = fingerprint(
                (file for file in parsed if file is not None), BUTTER.frames[SUMMARY]
            )
        _write_summaries(folder, partition, row, fingerprints)
    return store


def _write_summaries(folder: Path, partition: str, row: pa.Table, fingerprints: Mapping[int, str]) -> None:
    """Both summary files of a partition, as `butter_etl.store.summaries` has them, but without waiting for the disk."""
    ids = pa.array(list(fingerprints), pa.uint32())
    table = pa.concat_tables([row] * len(ids)).set_column(0, "experiment_id", ids).combine_chunks()
    for name, schema in (
        (summary_name(partition), BUTTER.summary_files),
        (executive_name(partition), BUTTER.executive_files),
    ):
        path = folder / name
        path.parent.mkdir(parents=True)
        metadata = fingerprints_metadata(fingerprints)
        path.write_bytes(parquet_bytes(table.select(schema.names), metadata=metadata, row_group_size=ROWS_A_GROUP))


def add_run(store: Store) -> None:
    """Land a run of an experiment that the store does not have, with files to be read."""
    spec = specs()[0]
    folder = Path(store.location.path(RUNS)) / partition_path(BUTTER.keys, spec.parameters())
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


def repeat_run(store: Store) -> None:
    """Land one more run of an experiment that has some."""
    file = next(iter(store.run_files()))
    name = f"{RUNS}/{file.partition}/{run_file_name(file.experiment_id, 30, 30)}"
    store.location.write_new(name, parquet_bytes(store.read_runs(file).slice(0, 1), BUTTER.encodings))


def run(store: Store, experiments: int, add: Callable[[Store], None] = add_run) -> list[Cost]:
    """The three costs; raises ValueError if a command said something else than it should."""
    costs = []
    for arguments, added, expected in (
        (("status", "--json"), False, f'"fresh": {experiments}'),
        (("summarize", "--json"), False, '"computed": 0'),
        (("summarize", "--json"), True, '"computed": 1'),
    ):
        if added:
            add(store)
        cost, output = measure(store, *arguments)
        if expected not in output:
            raise ValueError(f"{cost.command}: expected {expected}, got {output}")
        costs.append(Cost(f"{cost.command}{', one run added' if added else ''}", cost.cpu_seconds, cost.peak_megabytes))
    return costs


def run_partition(folder: Path, experiments: int) -> list[Cost]:
    """A summary of one large partition, and what comes after; raises ValueError if something else was said."""
    store = synthetic.make_store(folder, 1, experiments, 30, 3000)
    cost, output = measure(store, "summarize", "--json")
    if json.loads(output)["computed"] != experiments:
        raise ValueError(f"{cost.command}: expected {experiments} experiments, got {output}")
    return [Cost("summarize --json, all", cost.cpu_seconds, cost.peak_megabytes), *run(store, experiments, repeat_run)]


def run_exports(store: Store, dest: Path, files: int) -> tuple[list[Cost], Shown]:
    """An export of everything, what it showed, and the same again.

    Raises ValueError if not all is there, if nothing was shown, or if the second changed something.
    """
    cost, shown = watched_export(store, dest, files)
    again, output = measure(store, "export", str(dest), "--all", "--json")
    if json.loads(output)["changed"]:
        raise ValueError("export --all, again: it changed something")
    return [cost, Cost("export --all, again", again.cpu_seconds, again.peak_megabytes)], shown


def watched_export(store: Store, dest: Path, files: int) -> tuple[Cost, Shown]:
    """What an export of everything took and showed; raises ValueError if it is not all there or nothing was shown."""
    command = [sys.executable, "-m", "butter_etl", "export", store.location.root, str(dest), "--all"]
    ours, theirs = pty.openpty()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    seen, text = _watch(ours, started)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(text)
    there = sum(1 for path in (dest / RUNS).rglob("*.parquet"))
    if there != files or not seen:
        raise ValueError(f"export: {there} of {files} run files are there, {len(seen)} numbers were shown")
    (last, total), first_seconds = max(seen), min(seen.values())
    shown = Shown(seconds, first_seconds, seen[last, total], len(seen), last, total)
    return Cost("export --all", usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024), shown


def _watch(terminal: int, started: float) -> tuple[dict[tuple[int, int], float], str]:
    """The numbers (of so many) that a terminal shows, with the seconds after which each did first; and all its text."""
    seen: dict[tuple[int, int], float] = {}
    text = ""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # what Linux says when the other end is closed
            data = b""
        if not data:
            os.close(terminal)
            return seen, text
        text = (text + data.decode(errors="replace"))[-4096:]
        for done, total in _SHOWN.findall(text):
            seen.setdefault((int(done), int(total)), time.perf_counter() - started)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000, help="about how many run files (1000000)")
    parser.add_argument("--folder", type=Path, help="where to make the store (else a temporary folder)")
    parser.add_argument("--export", action="store_true", help="measure an export of everything instead")
    parser.add_argument("--partition", type=int, metavar="N", help="summarise one partition of N experiments instead")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    shown = None
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        try:
            if options.partition:
                files, costs = options.partition, run_partition(Path(folder) / "store", options.partition)
            else:
                content = parquet_bytes(run_table(0, specs()[0], 4, 100)) if options.export else b""
                store = make_store(Path(folder) / "store", options.files, content)
                files = sum(1 for _ in store.run_files())
                if options.export:
                    costs, shown = run_exports(store, Path(folder) / "export", files)
                else:
                    costs = run(store, files // FILES)
        except (ValueError, subprocess.CalledProcessError) as problem:
            print(problem, file=sys.stderr)
            return 1
    if options.json:
        found = {"files": files, "costs": [asdict(cost) for cost in costs]}
        print(json.dumps({**found, "shown": asdict(shown)} if shown else found, indent=1))
        return 0
    experiments = options.partition or files // FILES
    print(f"{files:,} run files, {experiments:,} experiments\n\n| command | CPU s | peak, MB |\n|---|---|---|")
    for cost in costs:
        print(f"| `{cost.command}` | {cost.cpu_seconds:.2f} | {cost.peak_megabytes:.0f} |")
    if shown:
        print(
            f"\n{shown.numbers} numbers were shown between {shown.first_seconds:.1f} and {shown.last_seconds:.1f} "
            f"of {shown.seconds:.1f} s, up to {shown.last_number:,} of {shown.total:,} files"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
