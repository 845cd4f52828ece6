"""Whether the working tree takes more CPU time than a revision did.

``python -m benchmarks.regression REVISION [BENCHMARK …] [--rounds 7] [--json]`` checks REVISION out into a temporary
folder and lets it and the working tree take turns at short benchmarks, each at its own, without peers; who is first
changes every round. After a turn each that is not counted, which compiles kernels, it prints for each benchmark the
median over the rounds of what the working tree took by what REVISION took, and the lowest and highest of these ratios.

``startup`` and ``campaign`` count the CPU time, user and system, of all processes of a turn. The other benchmarks make
their inputs anew in each turn, and ``training`` as many epochs as fit into some seconds: of them that CPU time counts
which they report of what they measure. A round of everything takes two to four minutes on an idle machine.
Exit code 1: a median is above 1.05; 2: a benchmark failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.checkouts import RevisionError, Version, versions

#: A median ratio above this is a regression.
LIMIT = 1.05
_STARTS = """
import subprocess, sys
for _ in range(10):
    subprocess.run([sys.executable, "-m", "butter_etl", "status", "--help"], check=True)
"""


_IMPORTS = """
import json, tempfile, time
from pathlib import Path
from benchmarks import repartition
from butter_etl.exchange.imports import run_import
with tempfile.TemporaryDirectory() as folder:
    source, taken = Path(folder, "source"), []
    repartition.write_source(source, repartition.experiments(16), 30, 3000)
    for number in range(4):
        begun = time.process_time()
        run_import(source, Path(folder, str(number)))
        taken.append(time.process_time() - begun)
print(json.dumps(min(taken[1:])))
"""


_EXPORTS = """
import json, sys, tempfile, time
from pathlib import Path
from benchmarks import publish
from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.partition import run_export
from butter_etl.store.files import Location
from butter_etl.store.layout import partition_path
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
compact = sys.argv[1] == "compact"
with tempfile.TemporaryDirectory() as folder:
    store, taken = Store.create(Path(folder, "store")), []
    count, runs = (14, 24) if compact else (56, 2)
    settings = publish.Settings(experiments=count, runs=runs, epochs=3000, rounds=1)
    for spec in publish.experiments(settings.experiments):
        number = BUTTER.fixed_ids.id_of(spec)
        rows = publish.make_rows(spec, number, settings)
        for first in range(0, settings.runs, 8):
            store.land(partition_path(BUTTER.keys, spec.parameters()), number, rows.slice(first, 8))
    options, where = ExportOptions(summary=False, compact=True), ()
    if not compact:
        run_summaries(plan_summaries(store), store)
        options, where = ExportOptions(runs=False), ("size=1024,4096,16384,65536,262144,1048576,4194304",)
    for number in range(6):
        begun = time.process_time()
        chosen = Registry(store).select(Choice(where=where))
        run_export(plan_export(store, chosen, options), store, Location(Path(folder, str(number))), options)
        taken.append(time.process_time() - begun)
print(json.dumps(min(taken[1:])))
"""


@dataclass(frozen=True)
class Workload:
    """What a version's interpreter is to run, and what of its JSON counts; None: the CPU time of all its processes."""

    arguments: tuple[str, ...]
    count: Callable[[Any], float] | None = None


def _sum(measures: Sequence[dict[str, float]]) -> float:
    """CPU seconds of all measures of a benchmark, whichever unit it has."""
    return sum(one["cpu_seconds"] if "cpu_seconds" in one else one["milliseconds"] / 1000 for one in measures)


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return ("-m", f"benchmarks.{name}", *arguments, "--json")


_TRAINING = ("--shapes", "wine,nursery", "--sizes", "256,4096", "--peers", "", "--rounds", "5", "--seconds", "0.5")
_RUNS = ("--partitions", "4", "--experiments", "12", "--runs", "30", "--epochs", "3000", "--rounds", "3")
_SCHEDULING = ("--measures", "plan,start,pack", "--experiments", "5000", "--runs", "50000")
_CAMPAIGN = ("--epochs", "40", "--repetitions", "2", "--sizes", "256,2048", "--data", "digits,diabetes")
WORKLOADS = {
    "startup": Workload(("-c", _STARTS)),
    "training": Workload(_module("training", *_TRAINING, "--cpu-time"), lambda report: _sum(report["results"])),
    "campaign": Workload(_module("campaign", *_CAMPAIGN, "--workers", "2", "--engine", "fused")),
    "summaries": Workload(
        _module("summaries", *_RUNS, "--contestants", "ours"), lambda found: _sum(found[0]["results"])
    ),
    "imports": Workload(("-c", _IMPORTS), float),
    "compact": Workload(("-c", _EXPORTS, "compact"), float),
    "filtered": Workload(("-c", _EXPORTS, "filtered"), float),
    "scale": Workload(_module("scale", "--files", "20000"), lambda found: _sum(found["costs"])),
    "scheduling": Workload(_module("scheduling", *_SCHEDULING), _sum),
}


@dataclass(frozen=True)
class Result:
    """The CPU seconds that both versions took in each round."""

    benchmark: str
    old: list[float]
    new: list[float]

    @property
    def ratios(self) -> list[float]:
        """What the new version took by what the old one took, of each round."""
        return [new / old for old, new in zip(self.old, self.new, strict=True)]

    @property
    def is_slower(self) -> bool:
        """Whether the median ratio is above the limit."""
        return median(self.ratios) > LIMIT

    def line(self) -> str:
        """What people read, under `HEADER`."""
        ratios = self.ratios
        numbers = f"{median(ratios):>10.3f}{min(ratios):>10.3f}{max(ratios):>10.3f}{median(self.old):>12.3f}"
        return f"{self.benchmark:<12}{numbers}{median(self.new):>12.3f}{'  SLOWER' if self.is_slower else ''}"


HEADER = f"{'benchmark':<12}{'new/old':>10}{'lowest':>10}{'highest':>10}{'old, CPU s':>12}{'new, CPU s':>12}"


def take_turn(version: Version, workload: Workload, folder: Path) -> float:
    """The CPU seconds of a version's turn; raises RevisionError if it fails."""
    said = version.run([sys.executable, *workload.arguments], folder)
    if said.code:
        last = (said.err.strip() or "no word").splitlines()[-1]
        raise RevisionError(f"{version.name}: {' '.join(workload.arguments)}: exit code {said.code}: {last}")
    return said.cpu_seconds if workload.count is None else workload.count(json.loads(said.out))


def measure(
    both: Sequence[Version], names: Sequence[str], rounds: int, folder: Path, tell: Callable[[str], None]
) -> Iterator[Result]:
    """Let both versions take turns at each benchmark in every round, the one or the other first."""
    for name in names:
        for version in both:
            take_turn(version, WORKLOADS[name], folder)
    taken: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for name in names:
            for version in both if number % 2 == 0 else tuple(reversed(both)):
                seconds = take_turn(version, WORKLOADS[name], folder)
                taken.setdefault((name, version.name), []).append(seconds)
                tell(f"round {number + 1} of {rounds}: {name}, {version.name}: {seconds:.3f} CPU s")
    for name in names:
        yield Result(name, *(taken[name, version.name] for version in both))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regression", description=__doc__)
    parser.add_argument("revision", help="what git calls the version to compare with")
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(WORKLOADS)} (all)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    if unknown := set(options.benchmarks) - WORKLOADS.keys():
        parser.error(f"unknown {', '.join(sorted(unknown))}; known: {', '.join(WORKLOADS)}")
    if options.rounds < 1:
        parser.error("--rounds wants a number from 1 up")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; the exit code. How far it is goes to standard error."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with versions(options.revision, folder) as both:
                names = options.benchmarks or list(WORKLOADS)
                results = list(measure(both, names, options.rounds, folder, lambda line: print(line, file=sys.stderr)))
        except RevisionError as error:
            print(error, file=sys.stderr)
            return 2
    if options.json:
        print(json.dumps([{**asdict(one), "ratio": median(one.ratios)} for one in results], indent=1))
    else:
        print(HEADER, *(one.line() for one in results), sep="\n")
    return int(any(one.is_slower for one in results))


if __name__ == "__main__":
    sys.exit(main())
