"""How long an epoch takes, against Keras, PyTorch and JAX, and against what the core could do at most.

``python -m benchmarks.training [--shapes wine,nursery,mnist] [--sizes 32,1024] [--json]`` trains rectangles of depth 4
in batches of 256 on one core, all contestants in turn in every round, and prints the median over the rounds:
milliseconds an epoch and run, the ratio to this package's first engine, and the share of the core's matrix product
rate (1024^3 float32, timed in every round) that (6 n_train + 2 n_test) x parameters operations in that time come to.
The formula counts a gradient of the inputs, which nobody computes: where most weights are in the first layer (mnist),
shares can pass 100 %.

Compiling is warm-up, printed apart. What is not installed is left out (``pip install -r benchmarks/requirements.txt``).
On a machine that others use, ``--cpu-time`` counts CPU time in place of wall time, of the matrix product too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peers import PEERS, Contestant, Problem, make_contestant, synthetic_rows
from butter_etl.engines.contract import Network, Optimization
from butter_etl.engines.host import cpu_family
from butter_etl.engines.initialization import stack_starts
from butter_etl.errors import ButterError, InfeasibleError
from butter_etl.studies.butter.datasets import DATASETS, Dataset, dataset_path, load_dataset
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.butter.topology import Topology, count_parameters, find_topology
from butter_etl.studies.butter.training import stack_data
from butter_etl.studies.user_folders import data_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SIZES = tuple(2**power for power in (5, 8, 10, 12, 14, 16, 18, 20))
SHAPES = {"wine": "wine_quality_white", "nursery": "nursery", "mnist": "mnist"}
OURS = ("fused", "torch")
DEPTH, BATCH_SIZE, LEARNING_RATE = 4, 256, 0.001
#: An epoch of a whole stack is kept to about this many operations, by stacking fewer runs of large networks.
STACK_OPERATIONS = 1e11
#: Columns of each feature of synthetic rows; wine's and mnist's are numbers.
_GROUPS = {"nursery": (3, 5, 4, 4, 3, 1, 3, 3)}
_MATRIX = 1024
#: Marks the process that measures, which has one core and one thread in every library.
PINNED = "BUTTER_ETL_BENCHMARK_PINNED"
_ONE_THREAD = {
    **dict.fromkeys(
        (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "NUMBA_NUM_THREADS",
            "TF_NUM_INTRAOP_THREADS",
            "TF_NUM_INTEROP_THREADS",
        ),
        "1",
    ),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PLATFORMS": "cpu",
}


@dataclass(frozen=True)
class Result:
    """What was measured of one contestant on one problem; times are medians over the rounds."""

    shape: str
    size: int
    parameters: int
    train_rows: int
    test_rows: int
    contestant: str
    runs: int
    epochs_a_round: int
    milliseconds: float
    share_of_sgemm: float
    ratio: float
    warm_up_seconds: float
    all_milliseconds: list[float]


@dataclass
class Report:
    """Everything that a run of the benchmark found out; ``left_out`` says why something is missing.

    ``core_share`` is CPU time by wall time over all turns: well below 1, others used the core, and times are too long.
    """

    cpu: str
    clock: str
    data: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    sgemm_gflops: float = 0.0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    core_share: float = 1.0
    results: list[Result] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """How much is measured: ``rounds`` rounds of about ``seconds`` for each contestant, stacks of ``runs``."""

    rounds: int
    seconds: float
    runs: int
    clock: Callable[[], float] = time.perf_counter


class _Entry:
    """A contestant with what was measured of it."""

    def __init__(self, name: str, contestant: Contestant, seconds: float) -> None:
        self.name = name
        self.runs = contestant.runs
        self._train = contestant.train
        started = time.perf_counter()
        self._train(1)
        self.warm_up = time.perf_counter() - started
        self.epochs = min(max(round(seconds / self._train(1)), 1), 2000)
        self.times: list[float] = []

    def take_turn(self) -> None:
        """Train for a round; keeps the seconds of an epoch of one run."""
        self.times.append(self._train(self.epochs) / self.epochs / self.runs)


def load_shape(shape: str, folder: Path) -> tuple[Dataset, str]:
    """The rows of a shape and where they are from: wine's own where its file is at hand, else made up."""
    info = DATASETS[SHAPES[shape]]
    if shape == "wine" and dataset_path(info.name, folder).is_file():
        return load_dataset(info.name, folder), info.name
    x, y = synthetic_rows(info.rows, info.outputs, _GROUPS.get(shape, (1,) * info.inputs))
    return Dataset(info, x, y), f"synthetic, of the shape of {info.name}"


def make_problem(dataset: Dataset, size: int, topology: Topology, settings: Settings) -> Problem:
    """A stack of a rectangle's runs, each with its own split; large networks get a smaller stack."""
    info = dataset.info
    work = operations(info.train_rows, info.test_rows, topology.num_free_parameters)
    runs = min(settings.runs, max(1, int(STACK_OPERATIONS / work)))
    spec = make_experiment(dataset=info.name, size=size, depth=DEPTH, batch_size=BATCH_SIZE, epochs=1)
    network = Network(info.inputs, topology.widths, info.loss)
    seeds = tuple(range(runs))
    return Problem(
        name=info.name,
        network=network,
        optimization=Optimization("adam", LEARNING_RATE, BATCH_SIZE, epochs=1),
        data=stack_data([spec] * len(seeds), dataset, seeds),
        seeds=seeds,
        start=stack_starts(seeds, network),
        clock=settings.clock,
    )


def operations(train_rows: int, test_rows: int, parameters: int) -> float:
    """What an epoch of one run takes at least: 6 operations a weight and training row, 2 a weight and test row."""
    return (6.0 * train_rows + 2.0 * test_rows) * parameters


def sgemm_rate(clock: Callable[[], float]) -> float:
    """Operations a second of a 1024^3 float32 matrix product, the better of two."""
    left = np.full((_MATRIX, _MATRIX), 0.5, dtype=np.float32)
    out = np.empty_like(left)
    times = []
    for _ in range(2):
        started = clock()
        np.matmul(left, left, out=out)
        times.append(clock() - started)
    return 2.0 * _MATRIX**3 / min(times)


def enter(names: Sequence[str], problem: Problem, settings: Settings, left_out: dict[str, str]) -> list[_Entry]:
    """Make and warm up the contestants; those that are not installed are put on the list ``left_out``."""
    entries = []
    for name in names:
        if name in left_out:
            continue
        started = time.perf_counter()
        try:
            contestant = make_contestant(name, problem)
        except ImportError as error:
            left_out[name] = str(error)
            continue
        made = time.perf_counter() - started
        entry = _Entry(name, contestant, settings.seconds)
        entry.warm_up += made
        entries.append(entry)
    return entries


def take_turns(entries: Sequence[_Entry], settings: Settings, report: Report) -> float:
    """Let all contestants take a turn in every round; the median of the matrix product's rates in between."""
    rates = [sgemm_rate(settings.clock)]
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(settings.rounds):
        for entry in entries:
            entry.take_turn()
            rates.append(sgemm_rate(settings.clock))
    report.wall_seconds += time.perf_counter() - wall
    report.cpu_seconds += time.process_time() - cpu
    report.core_share = report.cpu_seconds / report.wall_seconds
    rate = statistics.median(rates)
    report.sgemm_gflops = max(report.sgemm_gflops, rate / 1e9)
    return rate


def measure(
    shape: str, size: int, problem: Problem, names: Sequence[str], settings: Settings, report: Report
) -> list[Result]:
    """Let all contestants take turns; adds to ``report`` what is left out and how fast the core is."""
    entries = enter(names, problem, settings, report.left_out)
    rate = take_turns(entries, settings, report)
    medians = {entry.name: statistics.median(entry.times) for entry in entries}
    reference = next((medians[name] for name in names if name in medians), 1.0)
    train_rows, test_rows = problem.data.train_rows.shape[1], problem.data.test_rows.shape[1]
    parameters = count_parameters(problem.network.inputs, problem.network.widths)
    return [
        Result(
            shape=shape,
            size=size,
            parameters=parameters,
            train_rows=train_rows,
            test_rows=test_rows,
            contestant=entry.name,
            runs=entry.runs,
            epochs_a_round=entry.epochs,
            milliseconds=1e3 * medians[entry.name],
            share_of_sgemm=operations(train_rows, test_rows, parameters) / medians[entry.name] / rate,
            ratio=medians[entry.name] / reference,
            warm_up_seconds=entry.warm_up,
            all_milliseconds=[1e3 * seconds for seconds in entry.times],
        )
        for entry in entries
    ]


def run(
    shapes: Sequence[str], sizes: Sequence[int], names: Sequence[str], settings: Settings, folder: Path
) -> Iterator[tuple[Report, list[Result]]]:
    """Measure every shape and size: the report so far and what is new in it, one pair a problem.

    ``names`` are the contestants, this package's first: ratios are to the first of them that is there.
    """
    report = _new_report(settings)
    for shape in shapes:
        dataset, report.data[shape] = load_shape(shape, folder)
        for size in sizes:
            info = dataset.info
            try:
                topology = find_topology("rectangle", size, DEPTH, info.inputs, info.outputs)
            except InfeasibleError:
                report.left_out[f"{shape} of size {size}"] = "no network is that small"
                continue
            problem = make_problem(dataset, size, topology, settings)
            new = measure(shape, size, problem, names, settings, report)
            report.results += new
            yield report, new


def _new_report(settings: Settings) -> Report:
    return Report(cpu_family(), clock="CPU time" if settings.clock is time.process_time else "wall time")


HEADER = (
    f"{'data':<9}{'size':>9}  {'contestant':<11}{'runs':>5}{'ms/epoch/run':>14}{'ratio':>10}{'of sgemm':>11}"
    f"{'warm-up s':>11}"
)


def table_line(result: Result) -> str:
    """A line under `HEADER`."""
    return (
        f"{result.shape:<9}{result.size:>9,}  {result.contestant:<11}{result.runs:>5}{result.milliseconds:>14,.3f}"
        f"{result.ratio:>10,.2f}{result.share_of_sgemm:>11.1%}{result.warm_up_seconds:>11.1f}"
    )


def footer(report: Report) -> list[str]:
    """What the numbers of a table stand for, and what is not in it."""
    rows = {result.shape: f"{result.train_rows:,} + {result.test_rows:,} rows" for result in report.results}
    return [
        *(f"{shape}: {rows.get(shape, 'no rows')}, {source}" for shape, source in report.data.items()),
        f"one core of {report.cpu}, had for {report.core_share:.0%} of the time; {report.clock}; "
        f"sgemm {report.sgemm_gflops:.1f} GFLOP/s",
        *(f"left out: {what} ({why})" for what, why in report.left_out.items()),
    ]


def pin_and_rerun(arguments: Sequence[str], module: str = "benchmarks.training") -> int:
    """Run this benchmark in a process on one core, with one thread in every library; its exit code."""
    environment = {**os.environ, **_ONE_THREAD, PINNED: "1"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], check=False).returncode


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _sizes(text: str) -> list[int]:
    return [int(size) for size in _names(text)]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options; lists are separated by commas."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--shapes", type=_names, default=list(SHAPES), help=f"of {','.join(SHAPES)} (all)")
    parser.add_argument("--sizes", type=_sizes, default=list(SIZES), help="numbers of parameters")
    parser.add_argument("--engines", type=_names, default=list(OURS), help="this package's (fused,torch)")
    parser.add_argument("--peers", type=_names, default=list(PEERS), help=f"of {','.join(PEERS)} (all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="about how long a turn takes")
    parser.add_argument("--runs", type=int, default=30, help="runs in a stack")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU time, not wall time")
    parser.add_argument("--data-dir", type=Path, help="data sets in PMLB's layout (else BUTTER_ETL_DATA, else a cache)")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    for name, known in (("shapes", SHAPES), ("peers", PEERS)):
        if unknown := set(getattr(options, name)) - set(known):
            parser.error(f"--{name}: unknown {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    if options.rounds < 1 or options.runs < 1:
        parser.error("--rounds and --runs want a whole number from 1 up")
    options.data_dir = data_folder(options.data_dir).absolute()
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; the exit code."""
    options = parse(arguments)
    if PINNED not in os.environ:
        given = list(sys.argv[1:] if arguments is None else arguments)
        return pin_and_rerun([*given, "--data-dir", str(options.data_dir)])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    clock = time.process_time if options.cpu_time else time.perf_counter
    settings = Settings(options.rounds, options.seconds, options.runs, clock)
    names = [*options.engines, *options.peers]
    report = _new_report(settings)
    if not options.json:
        print(HEADER)
    try:
        for report, new in run(options.shapes, options.sizes, names, settings, options.data_dir):  # noqa: B007
            if not options.json:
                print(*map(table_line, new), "", sep="\n", flush=True)
    except ButterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(asdict(report), indent=1) if options.json else "\n".join(footer(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
