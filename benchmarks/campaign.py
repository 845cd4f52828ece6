"""How many runs a core-hour brings, all costs included, and what share of the CPU time the kernels have.

``python -m benchmarks.campaign [--minutes 2] [--engine NAME] [--workers N]`` writes a mixed sweep of small networks
(data sets of scikit-learn) to a temporary folder and trains it by ``butter-etl train``, as a user would: interpreters,
Dask, encryption and landing are all in the measurement. A short campaign first finds how many epochs and repetitions
fill the minutes. What ``butter-etl plan`` says beforehand is set against what it took. CPU seconds are user and system
time of all processes; those of the kernels are the landed rows' `core_seconds`, thread time that includes making
splits and start weights. Exit code 1: the command failed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from butter_etl.errors import ButterError
from butter_etl.store.store import Store
from butter_etl.studies.butter.datasets import DATASETS
from butter_etl.studies.butter.experiments import MAX_REPETITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = ("digits", "breast_cancer", "diabetes", "wine")
SHAPES = ("rectangle", "trapezoid", "wide_first_2x", "rectangle_residual")
SIZES = tuple(2**power for power in range(5, 13))
DEPTHS = (2, 3, 5, 8)
#: What published experiments train; more repetitions fill a longer campaign.
MAX_EPOCHS = 3000
REPETITIONS = 10
PILOT_EPOCHS = 20
BUTTER_ETL = (sys.executable, "-m", "butter_etl")


@dataclass(frozen=True)
class Sweep:
    """The part of a sweep that the options choose; the rest is this module's constants."""

    data: Sequence[str]
    sizes: Sequence[int]
    epochs: int
    repetitions: int

    def document(self) -> dict[str, Any]:
        """The sweep as ``butter-etl train --spec`` reads it."""
        cube = {
            "dataset": list(self.data),
            "shape": list(SHAPES),
            "size": list(self.sizes),
            "depth": list(DEPTHS),
            "learning_rate": [0.001],
            "epochs": [self.epochs],
        }
        return {"name": "campaign", "repetitions": self.repetitions, "cubes": [cube]}


@dataclass(frozen=True)
class Campaign:
    """What a campaign took: ``cpu_seconds`` of all processes, ``kernel_seconds`` of the rows that it landed.

    ``planned_seconds`` is what the plan took the kernels to need.
    """

    engine: str
    workers: int
    epochs: int
    repetitions: int
    runs: int
    wall_seconds: float
    cpu_seconds: float
    kernel_seconds: float
    planned_seconds: float

    @property
    def runs_per_core_hour(self) -> float:
        """Runs an hour of CPU time, whoever used it."""
        return 3600 * self.runs / self.cpu_seconds

    @property
    def kernel_share(self) -> float:
        """The kernels' share of the CPU time."""
        return self.kernel_seconds / self.cpu_seconds

    @property
    def busy_share(self) -> float:
        """The kernels' share of the time that the workers' cores were held."""
        return self.kernel_seconds / (self.wall_seconds * self.workers)

    @property
    def plan_ratio(self) -> float:
        """What was planned over what it took."""
        return self.planned_seconds / self.kernel_seconds

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        shares = {name: getattr(self, name) for name in _SHARES}
        return {**asdict(self), **shares}


_SHARES = ("runs_per_core_hour", "kernel_share", "busy_share", "plan_ratio")


class CampaignError(ButterError):
    """``butter-etl train`` failed; the message is what it wrote to standard error."""


def run_campaign(sweep: Sweep, folder: Path, engine: str, workers: int) -> Campaign:
    """Train a sweep into a new store in ``folder`` and measure it."""
    spec, store = folder / "campaign.yaml", folder / "store"
    spec.write_text(yaml.safe_dump(sweep.document()), encoding="utf-8")
    selection = [str(store), "--spec", str(spec), "--json", "--workers", str(workers)]
    planned = json.loads(_output([*BUTTER_ETL, "plan", *selection]))
    command = [*BUTTER_ETL, "train", *selection, "--engine", engine]
    cpu_before, started = _children_seconds(), time.perf_counter()
    _output(command)
    wall, cpu = time.perf_counter() - started, _children_seconds() - cpu_before
    kernels = landed_core_seconds(store)
    return Campaign(
        engine,
        workers,
        sweep.epochs,
        sweep.repetitions,
        runs=len(kernels),
        wall_seconds=wall,
        cpu_seconds=cpu,
        kernel_seconds=sum(kernels),
        planned_seconds=3600 * planned["core_hours"],
    )


def _output(command: Sequence[str]) -> str:
    """What a command prints; raises CampaignError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CampaignError(done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")
    return done.stdout


def _children_seconds() -> float:
    """CPU time of the processes that ended below this one, as far as their parents waited for them; Dask's do."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def landed_core_seconds(store: Path) -> list[float]:
    """The kernels' seconds of every run in a store."""
    opened = Store.open(store)
    tables = (opened.read_runs(file, ["core_seconds"]) for file in opened.run_files())
    return [seconds for table in tables for seconds in table["core_seconds"].to_pylist()]


def fill(minutes: float, pilot: Campaign) -> tuple[int, int]:
    """(epochs, repetitions) whose kernels take about so many minutes on all workers, going by the pilot's."""
    one_epoch = pilot.kernel_seconds / pilot.epochs / pilot.repetitions
    wanted = 60 * minutes * pilot.workers / one_epoch
    epochs = min(max(round(wanted / REPETITIONS), 1), MAX_EPOCHS)
    return epochs, min(max(round(wanted / epochs), 1), MAX_REPETITIONS)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options; lists are separated by commas."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="about how long the kernels should take (2)")
    parser.add_argument("--epochs", type=int, help="train so many instead, without a short campaign first")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help=f"with --epochs ({REPETITIONS})")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--workers", type=int, default=_cores(), help="worker processes (all cores)")
    parser.add_argument("--data", type=lambda text: text.split(","), default=list(DATA), help=f"of {','.join(DATA)}")
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=list(SIZES))
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    if unknown := set(options.data) - set(DATASETS):
        parser.error(f"--data: unknown {', '.join(sorted(unknown))}")
    if options.minutes <= 0 or options.workers < 1:
        parser.error("--minutes and --workers want numbers above 0")
    return options


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(options: argparse.Namespace) -> Campaign:
    """The measured campaign, after a short one where the epochs are not given."""
    epochs, repetitions = options.epochs, options.repetitions
    if epochs is None:
        with tempfile.TemporaryDirectory() as folder:
            sweep = Sweep(options.data, options.sizes, PILOT_EPOCHS, REPETITIONS)
            pilot = run_campaign(sweep, Path(folder), options.engine, options.workers)
        epochs, repetitions = fill(options.minutes, pilot)
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep(options.data, options.sizes, epochs, repetitions)
        return run_campaign(sweep, Path(folder), options.engine, options.workers)


def lines(campaign: Campaign) -> list[str]:
    """What people read."""
    return [
        f"{campaign.runs:,} runs of {campaign.epochs:,} epochs, engine {campaign.engine}, {campaign.workers} workers",
        f"wall time           {campaign.wall_seconds:>12,.1f} s",
        f"CPU time            {campaign.cpu_seconds:>12,.1f} s, all processes",
        f"  of it kernels     {campaign.kernel_seconds:>12,.1f} s, {campaign.kernel_share:.1%}",
        f"cores in kernels    {campaign.busy_share:>12.1%} of wall time x workers",
        f"planned             {campaign.planned_seconds:>12,.1f} s, {campaign.plan_ratio:.2f} of the kernels' time",
        f"runs a core-hour    {campaign.runs_per_core_hour:>12,.0f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a few lines, or JSON; the exit code."""
    options = parse(arguments)
    try:
        campaign = run(options)
    except ButterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(campaign.facts(), indent=1) if options.json else "\n".join(lines(campaign)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
