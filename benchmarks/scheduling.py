"""What scheduling costs: planning, the way to the first task, packing short runs, and memory under very many futures.

    python -m benchmarks.scheduling
    python -m benchmarks.scheduling --measures start,futures --futures 20000 --json

Each measure runs in a process of its own, and nothing is downloaded:

- ``plan``: ``butter-etl plan`` of the seven published sweeps in an empty store.
- ``start``: ``butter-etl train`` of 148 thousand experiments on scikit-learn's data, which all get new ids, on this
  machine, until a worker has begun its first task; then it is interrupted. CPU seconds of all its processes.
- ``pack``: into how many futures a driver cuts a million runs of a hundred epochs, for a cluster of very many workers.
- ``futures``: a real driver, scheduler and worker, and a store that has the runs already, which the driver does not
  know: a future finds its run there and says so. Memory of the process that holds driver and scheduler when a tenth of
  the futures is done, and when all are.

Exit code 1: a command failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import psutil
import yaml

from benchmarks.campaign import DATA
from butter_etl.campaign.claims import Claims
from butter_etl.campaign.cutting import Wanted, target_task_seconds
from butter_etl.campaign.driver import Driver
from butter_etl.campaign.progress import Progress
from butter_etl.campaign.share import Share
from butter_etl.campaign.tasks import Settings
from butter_etl.clusters.start import start_cluster
from butter_etl.store.layout import partition_path, run_file_name
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.experiments import SHAPES
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import BATCH_SIZES, LEARNING_RATES, PUBLISHED
from butter_etl.studies.frames import RUNS
from butter_etl.studies.selection import Choice
from butter_etl.train_tasks import TrainingPlan, claim_ids, plan_runs

SWEEPS = tuple(name for name in PUBLISHED if name != "optimizer")
EXPERIMENTS, RUNS_TO_PACK, FUTURES = 148_232, 1_000_000, 100_000
#: What `pack` cuts for: more threads than tasks, so that only their least number counts.
THREADS = 100_000
_LINKS = 30_000  # file systems limit the links of a file, some to 65,000


@dataclass(frozen=True)
class Result:
    """One measure: of how many things, CPU seconds, peak or (``futures``) final memory; and what else there is to say.

    ``value`` is what is asked: futures for ``pack``, megabytes of growth for ``futures``, else CPU seconds.
    """

    measure: str
    of: str
    value: float
    unit: str
    cpu_seconds: float
    megabytes: float


class SchedulingError(Exception):
    """A command that is measured failed; the message is what it wrote."""


def document(name: str, experiments: int, repetitions: int, epochs: int) -> dict[str, object]:
    """A custom sweep of at least so many feasible experiments of scikit-learn's data sets, for ``--spec``.

    The axes are those of the published sweeps, but for sizes, which are as many neighbouring numbers as it takes.
    """
    shapes = [shape for shape in SHAPES if shape != "exponential"]  # with 64 inputs it is too large
    each = len(DATA) * len(shapes) * 4 * len(LEARNING_RATES) * len(BATCH_SIZES)
    cube = {
        "dataset": list(DATA),
        "shape": shapes,
        "size": [4096 + 64 * step for step in range(max(1, math.ceil(experiments / each)))],
        "depth": [2, 3, 4, 5],
        "learning_rate": list(LEARNING_RATES),
        "batch_size": list(BATCH_SIZES),
        "epochs": [epochs],
    }
    return {"name": name, "repetitions": repetitions, "cubes": [cube]}


def write_sweep(folder: Path, experiments: int, repetitions: int, epochs: int) -> Path:
    """The file of such a sweep."""
    path = folder / "made_up.yaml"
    path.write_text(yaml.safe_dump(document("made_up", experiments, repetitions, epochs)), encoding="utf-8")
    return path


def measure_plan(folder: Path, _options: argparse.Namespace) -> Result:
    """The command that plans the published sweeps."""
    command = [sys.executable, "-m", "butter_etl", "plan", str(folder / "store"), "--json"]
    for name in SWEEPS:
        command += ["--sweep", name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SchedulingError(f"plan: exit code {process.returncode}")
    plan = json.loads(output)
    cells, seconds = plan["experiments"] + plan["infeasible"], usage.ru_utime + usage.ru_stime
    of = f"{cells:,} experiments, {plan['runs_missing']:,} runs"
    return Result("plan", of, seconds, "CPU s", seconds, usage.ru_maxrss / 1024)


def measure_start(folder: Path, options: argparse.Namespace) -> Result:
    """From the command to the first task that a worker begins, and what planning says it was of."""
    spec, store = write_sweep(folder, options.experiments, 10, 1000), folder / "store"
    experiments = _planned(spec).experiments
    command = [sys.executable, "-m", "butter_etl", "train", str(store), "--spec", str(spec), "--workers", "1"]
    with (folder / "said").open("w+") as said:
        process = psutil.Popen([*command, "--quiet"], stdout=said, stderr=said)
        try:
            while not any((store / "state" / "attempts").glob("*/*.json")):
                if process.poll() is not None:
                    said.seek(0)
                    raise SchedulingError(f"train: exit code {process.returncode}: {said.read().strip()}")
                time.sleep(0.05)
            seconds, megabytes = _tree_seconds(process), process.memory_info().rss / 2**20
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # an interrupt may be ignored where this runs
            process.wait(120)
    return Result("start", f"{experiments:,} experiments", seconds, "CPU s", seconds, megabytes)


def _tree_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process and its descendants, those that have ended included."""
    return sum(sum(one.cpu_times()[:4]) for one in [process, *process.children(recursive=True)])


def _planned(spec: Path) -> TrainingPlan:
    registry = Registry(None)
    return plan_runs(registry.select(Choice(specs=(str(spec),))), registry, {})


def measure_pack(folder: Path, options: argparse.Namespace) -> Result:
    """How many tasks a driver's share of a million short runs is."""
    repetitions, epochs = 30, 100
    spec = write_sweep(folder, options.runs // repetitions, repetitions, epochs)
    began = time.process_time()
    plan, store = _planned(spec), Store.create(folder / "store")
    registry = Registry(store)
    target = target_task_seconds(plan.core_seconds, THREADS)
    with Claims(store.state) as claims:
        share = Share(claim_ids(plan, registry, store), claims, store, target, "cpu", workers=THREADS)
        tasks = runs = 0
        for task in share.tasks():
            tasks, runs = tasks + 1, runs + task.runs
    assert runs == plan.missing
    return Result("pack", f"{runs:,} runs", tasks, "futures", time.process_time() - began, _peak_megabytes())


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_futures(folder: Path, options: argparse.Namespace) -> Result:
    """Growth of the memory of driver and scheduler between a tenth of the futures and all of them."""
    store = Store.create(folder / "store")
    wanted = list(islice(_one_run_each(), options.futures))
    _land_empty(store, wanted)
    settings = Settings(str(store.location.absolute), str(store.state), BUTTER, str(folder), "torch", "cpu")
    tenth = len(wanted) // 10
    memory = Memory(tenth)
    began = time.process_time()
    with start_cluster(workers=1, threads_per_worker=2) as client, Claims(store.state) as claims:
        share = Share(wanted, claims, store, 0.5, "cpu")
        report = Driver(store, settings, client, share, len(wanted), memory.look).run(window=8)
        done = memory.now()
    if report.present != len(wanted):
        raise SchedulingError(f"futures: {report.present} of {len(wanted)} runs were found; {report.failed} failed")
    of = f"{tenth:,} to {len(wanted):,} futures"
    return Result("futures", of, done - memory.early, "MB more", time.process_time() - began, done)


def _one_run_each() -> Iterator[Wanted]:
    """One run of each experiment of the published sweeps that is feasible; each is taken to last a second."""
    for _, spec, _ in Registry(None).select(Choice(sweeps=SWEEPS)).experiments():
        if BUTTER.trainer.can_build(spec):
            yield Wanted(spec, BUTTER.fixed_ids.id_of(spec), "", (0,), 1.0, 1e4)


def _land_empty(store: Store, wanted: Sequence[Wanted]) -> None:
    """Have a run file of each experiment: links to empty files, since only names are looked at."""
    empty = Path(store.location.root)
    for number, one in enumerate(wanted):
        assert one.experiment_id is not None
        source = empty / f"empty-{number // _LINKS}"
        if number % _LINKS == 0:
            source.touch()
        target = Path(store.location.path(RUNS)) / partition_path(BUTTER.keys, one.spec.parameters())
        target.mkdir(parents=True, exist_ok=True)
        os.link(source, target / run_file_name(one.experiment_id, 0, 0))


class Memory:
    """Resident memory of this process, kept from the moment when so many runs are done."""

    def __init__(self, first: int) -> None:
        self._first = first
        self.early = 0.0

    def look(self, progress: Progress) -> None:
        """Take the memory down when it is time to."""
        if not self.early and progress.present >= self._first:
            self.early = self.now()

    @staticmethod
    def now() -> float:
        """In MB, what could be collected left out."""
        gc.collect()
        return float(psutil.Process().memory_info().rss) / 2**20


MEASURES: dict[str, Callable[[Path, argparse.Namespace], Result]] = {
    "plan": measure_plan,
    "start": measure_start,
    "pack": measure_pack,
    "futures": measure_futures,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options; lists are separated by commas."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduling", description=__doc__)
    parser.add_argument("--measures", type=lambda text: text.split(","), default=list(MEASURES), help="which")
    parser.add_argument("--experiments", type=int, default=EXPERIMENTS, help=f"of `start`, about ({EXPERIMENTS})")
    parser.add_argument("--runs", type=int, default=RUNS_TO_PACK, help=f"of `pack`, about ({RUNS_TO_PACK})")
    parser.add_argument("--futures", type=int, default=FUTURES, help=f"of `futures` ({FUTURES})")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    if unknown := set(options.measures) - MEASURES.keys():
        parser.error(f"--measures: unknown {', '.join(sorted(unknown))}; known: {', '.join(MEASURES)}")
    if min(options.experiments, options.runs, options.futures) < 10:
        parser.error("--experiments, --runs and --futures want numbers from 10 up")
    return options


def measure_apart(name: str, options: argparse.Namespace) -> Result:
    """One measure in a process of its own, so that none has another's memory."""
    numbers = [f"--{what}={getattr(options, what)}" for what in ("experiments", "runs", "futures")]
    command = [sys.executable, "-m", "benchmarks.scheduling", f"--measures={name}", *numbers, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SchedulingError(done.stderr.strip())
    return Result(**json.loads(done.stdout)[0])


def table(results: Sequence[Result]) -> str:
    """What people read, in Markdown."""
    lines = ["| measure | of | | CPU s | memory, MB |", "|---|---|---|---|---|"]
    for one in results:
        value = f"{one.value:,.0f}" if one.unit == "futures" else f"{one.value:.1f}"
        lines.append(f"| {one.measure} | {one.of} | {value} {one.unit} | {one.cpu_seconds:.1f} | {one.megabytes:.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; the exit code."""
    options = parse(arguments)
    try:
        if len(options.measures) == 1:
            with tempfile.TemporaryDirectory() as folder:
                results = [MEASURES[options.measures[0]](Path(folder), options)]
        else:
            results = [measure_apart(name, options) for name in options.measures]
    except SchedulingError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(json.dumps([asdict(one) for one in results], indent=1) if options.json else table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
