"""How fast runs become summaries, read to written, against peers and against the floor.

``python -m benchmarks.summaries [--store STORE] [--cores 1,2] [--rounds 5] [--json]`` summarises a store whole: every
contestant reads the same run files, computes all statistics of the summary frame, and writes them with the same Parquet
settings. Each peer takes turns with ours and the floor, in a process of its own that is held to the given cores: with
all libraries in one process, all are slower. The table has medians; ratios are of one process.
On one core, time is the CPU time of the process, which other processes disturb least; on several it is wall time.
There, ``workers`` is ours with a process for each core, as the command has them for large stores, and ``bare`` is as
many processes that each have a share of the partitions and know nothing of each other; that they have been started is
not counted. With several numbers of cores, wall times are compared in the end.

``--many 2500,65535`` computes the statistics of one experiment of so many runs instead, nothing read or written: its
histories have 20 points and are of float64, and so are its statistics, for which NumPy has one call each. Both take
turns; the table has the CPU time of one summary, median of the rounds.

Without ``--store`` a store of made-up runs is used (``--partitions``, ``--experiments`` of each, ``--runs``,
``--epochs``); curves of real trainings come from a store that `butter-etl train` made. The store's summary files are
written anew. Exit code 1: a peer's values are not ours.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.summary_peers import CONTESTANTS, LISTS, OURS, PROCESSES, Block, Numpy, Partition, numpy_row, partitions
from benchmarks.synthetic import make_store
from butter_etl.engines.summary import SummaryBlock, matrix_lists
from butter_etl.store.store import Store
from butter_etl.store.summaries import summary_name
from butter_etl.studies.butter.study import BUTTER

#: Epochs of runs in the published data set (its first release).
PUBLISHED_EPOCHS = 13.3e9
_CHILD = "BUTTER_ETL_BENCHMARK_CORES"
_RELATIVE, _ABSOLUTE = 2e-4, 2e-6  # peers accumulate deviations in float32
_POINTS = 20
_WIDE = replace(BUTTER.reduction, counts=pa.uint16(), floats=pa.float64())
_WIDE_RELATIVE = 1e-11  # sums of 65,535 terms, in another order


@dataclass(frozen=True)
class Result:
    """What a contestant took: milliseconds an experiment in every round, and how often ours fits in their median."""

    contestant: str
    milliseconds: float
    all_milliseconds: list[float]
    ratio: float
    wall_milliseconds: float


@dataclass(frozen=True)
class Report:
    """A benchmark on so many cores; ``clock`` says what was measured, ``megabytes`` are of the run files."""

    cores: int
    clock: str
    experiments: int
    run_epochs: int
    megabytes: float
    results: list[Result]
    left_out: dict[str, str]

    @property
    def published_core_hours(self) -> float:
        """Core-hours of ours for all epochs of the published runs, at the rate measured."""
        seconds = self.results[0].milliseconds / 1000 * self.experiments * self.cores
        return seconds / self.run_epochs * PUBLISHED_EPOCHS / 3600


class Disagreement(Exception):  # noqa: N818
    """A contestant wrote other values than ours."""


def measure(store: Store, names: Sequence[str], cores: int, rounds: int, folder: Path) -> Report:
    """Let the contestants summarise the store in turns; raises Disagreement if one wrote something else than ours."""
    parts = partitions(store, folder)
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        contestants = _ready(store, parts, names, cores, stack, left_out)
        taken = _take_turns(contestants, rounds)
    experiments = sum(len(part.experiments) for part in parts)
    clock = 1 if cores > 1 else 0
    ours = median(times[clock] for times in taken["ours"])
    results = []
    for name, times in taken.items():
        milliseconds = [1000 * one[clock] / experiments for one in times]
        wall = 1000 * median(seconds for _, seconds in times) / experiments
        ratio = median(one[clock] for one in times) / ours
        results.append(Result(name, median(milliseconds), milliseconds, ratio, wall))
    paths = [path for part in parts for path in part.paths]
    return Report(
        cores,
        "CPU time" if cores == 1 else "wall time",
        experiments,
        sum(map(_epochs, paths)),
        sum(Path(path).stat().st_size for path in paths) / 1e6,
        results,
        left_out,
    )


def _ready(
    store: Store, parts: list[Partition], names: Sequence[str], cores: int, stack: ExitStack, left_out: dict[str, str]
) -> dict[str, Any]:
    """The contestants that can be had, warm and held against ours; the others go to ``left_out``."""
    contestants: dict[str, Any] = {}
    for name in names:
        try:
            contestants[name] = CONTESTANTS[name](store, parts, cores)
        except ImportError as error:
            left_out[name] = str(error)
            continue
        if name in PROCESSES:
            stack.callback(contestants[name].close)
        contestants[name].run()
        if name not in OURS:
            for part in parts:
                check(store, part, name)
    return contestants


def _take_turns(contestants: dict[str, Any], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """CPU and wall seconds of every contestant in every round."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    order = list(contestants)
    for _ in range(rounds):
        order.append(order.pop(0))  # nobody always runs after the same one
        for name in order:
            gc.collect()
            started = time.process_time(), time.perf_counter()
            contestants[name].run()
            taken[name].append((time.process_time() - started[0], time.perf_counter() - started[1]))
    return taken


def _epochs(path: str) -> int:
    """How many epochs the runs of a file have, all together."""
    return len(
        pq.ParquetFile(path)
        .read(columns=[BUTTER.reduction.counted])[BUTTER.reduction.counted]
        .combine_chunks()
        .flatten()
    )


def check(store: Store, part: Partition, name: str) -> None:
    """Hold a contestant's summary file against ours; raises Disagreement naming the column."""
    ours = store.location.read_table(summary_name(part.name))
    theirs = pq.read_table(part.target)
    for field in BUTTER.summary_files:
        one, other = (table[field.name].combine_chunks() for table in (ours, theirs))
        if pa.types.is_list(field.type):
            one, other = one.flatten(), other.flatten()
        same = one.equals(other)
        if not same and len(one) == len(other) and pa.types.is_floating(one.type):
            left, right = (column.to_numpy(zero_copy_only=False) for column in (one, other))
            same = np.allclose(left, right, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
        if not same:
            raise Disagreement(f"{name}: {field.name} of {part.name} is not ours")


# --- experiments of many runs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ManyRuns:
    """CPU milliseconds of one summary of so many runs, ours and NumPy's, and how often ours fits."""

    runs: int
    points: int
    ours: float
    numpy: float
    ratio: float


def measure_many(runs: int, rounds: int, points: int = _POINTS, block_of: Block = Numpy.block) -> ManyRuns:
    """Let NumPy and ours summarise an experiment in turns; raises Disagreement if their statistics differ."""
    rng = np.random.default_rng(runs)
    matrices = {name: rng.lognormal(size=(runs, points)) for name in BUTTER.reduction.histories.values()}
    lists = {name: matrix_lists(matrix) for name, matrix in matrices.items()}

    def ours() -> pa.Table:
        block = SummaryBlock(_WIDE)
        block.add_lists(runs, lists)
        return block.table()

    def peer() -> dict[str, Any]:
        return numpy_row(matrices, block_of)

    check_many(ours(), peer())
    taken = np.array([(_cpu_seconds(ours), _cpu_seconds(peer)) for _ in range(rounds)])
    mine, theirs = (float(milliseconds) for milliseconds in 1000 * np.median(taken, axis=0))
    return ManyRuns(runs, points, mine, theirs, theirs / mine)


def _cpu_seconds(function: Callable[[], object]) -> float:
    gc.collect()
    started = time.process_time()
    function()
    return time.process_time() - started


def check_many(ours: pa.Table, row: dict[str, Any]) -> None:
    """Hold a peer's row of statistics against ours; raises Disagreement naming the column."""
    for name in LISTS:
        if not np.allclose(ours[name][0].values.to_numpy(), row[name], rtol=_WIDE_RELATIVE, atol=0):
            raise Disagreement(f"numpy: {name} is not ours")


def many_table(found: Sequence[ManyRuns]) -> str:
    """Experiments of many runs as a Markdown table."""
    lines = [
        "float64, CPU time of one summary, computing only:",
        "",
        "| runs x points | ours, ms | NumPy, ms | times ours |",
        "|---|---|---|---|",
        *(f"| {one.runs:,} x {one.points} | {one.ours:.1f} | {one.numpy:.1f} | {one.ratio:.2f} |" for one in found),
    ]
    return "\n".join(lines)


# --- the command -------------------------------------------------------------------------------------------------


def table(report: Report) -> str:
    """A report as a Markdown table."""
    lines = [
        f"{report.experiments} experiments, {report.run_epochs:,} epochs of runs, {report.megabytes:.0f} MB, "
        f"{report.cores} core(s), {report.clock}:",
        "",
        "| contestant | ms an experiment | times ours |",
        "|---|---|---|",
        *(f"| {one.contestant} | {one.milliseconds:.1f} | {one.ratio:.2f} |" for one in report.results),
        *(f"left out: {name} ({reason})" for name, reason in report.left_out.items()),
        "",
        f"the published {PUBLISHED_EPOCHS:.3g} epochs at this rate: {report.published_core_hours:.1f} core-hours",
    ]
    return "\n".join(lines)


def scaling(reports: Sequence[Report]) -> str:
    """What more cores give, in wall time, of those contestants of each report that are ours or the floor."""
    base = {one.contestant: one.wall_milliseconds for one in reports[0].results}
    lines = [
        f"{one.contestant} on {report.cores} core(s): "
        f"{base.get(one.contestant, base['ours']) / one.wall_milliseconds:.2f} times as fast as on {reports[0].cores}"
        for report in reports[1:]
        for one in report.results
        if one.contestant in OURS
    ]
    return "\n".join(["wall time:", *lines])


def united(reports: Sequence[Report]) -> Report:
    """One report of several processes: all rounds of a contestant together, its ratio the median of its processes."""
    found: dict[str, list[Result]] = {}
    for report in reports:
        for result in report.results:
            found.setdefault(result.contestant, []).append(result)
    results = []
    for name, same in found.items():
        times = [one for result in same for one in result.all_milliseconds]
        ratio, wall = (median(getattr(result, one) for result in same) for one in ("ratio", "wall_milliseconds"))
        results.append(Result(name, median(times), times, ratio, wall))
    left_out = {name: reason for report in reports for name, reason in report.left_out.items()}
    return replace(reports[0], results=results, left_out=left_out)


def _rerun(names: Sequence[str], rounds: int, cores: int, store: Path) -> Report:
    """Some contestants in a process that may use so many cores, with as many threads in every library."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(threads, str(cores)), _CHILD: str(cores)}
    arguments = ["--contestants", ",".join(names), "--rounds", str(rounds), "--store", str(store)]
    command = [sys.executable, "-m", "benchmarks.summaries", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return Report(results=[Result(**one) for one in found.pop("results")], **found)


def _report(common: Sequence[str], peers: Sequence[str], rounds: int, cores: int, store: Path) -> Report:
    """The report of all contestants, each peer beside those that all have in common."""
    apart = [[name] for name in peers if name not in PROCESSES or cores > 1]
    return united([_rerun([*common, *one], rounds, cores, store) for one in apart or [[]]])


def _child(options: argparse.Namespace, cores: int) -> int:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    pa.set_cpu_count(cores)
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = measure(Store.open(options.store), options.contestants, cores, options.rounds, Path(folder))
        except Disagreement as problem:
            print(problem, file=sys.stderr)
            return 1
    print(json.dumps(asdict(report)))
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options; lists are separated by commas."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summaries", description=__doc__)
    parser.add_argument("--store", type=Path, help="a store to summarise (else one of made-up runs)")
    parser.add_argument("--cores", type=_numbers, default=[1], help="how many cores, e.g. 1,2")
    parser.add_argument("--contestants", type=lambda text: text.split(","), default=list(CONTESTANTS), help="which")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=_numbers, help="summarise experiments of so many runs instead, e.g. 2500,65535")
    for name, default in (("partitions", 2), ("experiments", 8), ("runs", 30), ("epochs", 3000)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"of made-up runs ({default})")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    if unknown := set(options.contestants) - set(CONTESTANTS):
        parser.error(f"--contestants: unknown {', '.join(sorted(unknown))}; known: {', '.join(CONTESTANTS)}")
    options.contestants = ["ours", *(name for name in options.contestants if name != "ours")]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each number of cores, or JSON; the exit code."""
    options = parse(arguments)
    if _CHILD in os.environ:
        return _child(options, int(os.environ[_CHILD]))
    if options.many:
        found = [measure_many(runs, options.rounds) for runs in options.many]
        print(json.dumps([asdict(one) for one in found], indent=1) if options.json else many_table(found))
        return 0
    peers = [name for name in options.contestants if name not in ("ours", "floor")]
    common = [name for name in options.contestants if name not in peers]
    with tempfile.TemporaryDirectory() as folder:
        store = options.store
        if store is None:
            made = make_store(
                Path(folder) / "store", options.partitions, options.experiments, options.runs, options.epochs
            )
            store = Path(made.location.absolute)
        reports = [_report(common, peers, options.rounds, cores, store) for cores in options.cores]
    if options.json:
        print(json.dumps([asdict(report) for report in reports], indent=1))
    else:
        print("\n\n".join([*map(table, reports), *([scaling(reports)] if len(reports) > 1 else [])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
