"""How many files processes of a training open, now and at a revision: what thousands of them ask of a file system.

``python -m benchmarks.opened_files REVISION [--data wine] [--json]`` trains one small run with one worker on this
machine, by each version three times; kernels and data are kept from the first, and only the last counts. strace tells
what each process asks the system for. The table has, for the command and for its worker, the files that were opened
and the questions whether there is a file. Exit code 1: strace is not installed, or a version failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.checkouts import RevisionError, Version, versions

_SPEC = """
name: small
repetitions: 1
cubes:
  - {{dataset: [{data}], size: [512], depth: [3], epochs: [2]}}
"""
_CALL = re.compile(r"^(\d+) +(\w+)\(.* = (-?\d+|\?)", re.MULTILINE)
_OPENS, _ASKS = {"open", "openat"}, {"stat", "newfstatat", "access", "readlink"}
_RUNS = 3


@dataclass(frozen=True)
class Result:
    """What a process of both versions asked for: files that it opened, and questions for files."""

    process: str
    old_opened: int
    new_opened: int
    old_asked: int
    new_asked: int


def count(trace: str) -> list[tuple[int, int]]:
    """Files that were opened and questions, of the command and of the worker, which opens most of its children."""
    opened: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    pids: list[str] = []
    for pid, call, result in _CALL.findall(trace):
        if pid not in pids:
            pids.append(pid)
        opened[pid] += call in _OPENS and not result.startswith("-")
        asked[pid] += call in _ASKS
    command = pids[0]
    # The nanny of the worker is the other child: it imports what a worker does, and trains nothing.
    worker = [pid for pid in pids if pid != command and opened[pid] > opened[command] // 10][-1]
    return [(opened[pid], asked[pid]) for pid in (command, worker)]


def trace(version: Version, folder: Path) -> str:
    """What strace tells of a training; raises RevisionError if it fails."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    calls = ",".join(sorted(_OPENS | _ASKS))
    told = ["strace", "--follow-forks", "--quiet=all", f"--trace={calls}", "--output=trace.txt"]
    said = version.run([*told, *version.command("train", "store", "--spec", "small.yaml", "--workers", "1")], folder)
    if said.code:
        raise RevisionError(f"{version.name}: {(said.err.strip() or 'no word').splitlines()[-1]}")
    return (folder / "trace.txt").read_text(errors="replace")


def measure(revision: str, data: str, folder: Path) -> list[Result]:
    """What the command and its worker ask for, at a revision and now."""
    (folder / "small.yaml").write_text(_SPEC.format(data=data))
    with versions(revision, folder) as both:
        old, new = (count([trace(version, folder) for _ in range(_RUNS)][-1]) for version in both)
    names = ("command", "worker")
    return [
        Result(name, before[0], after[0], before[1], after[1])
        for name, before, after in zip(names, old, new, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.opened_files", description=__doc__)
    parser.add_argument("revision", help="what git calls the version to compare with")
    parser.add_argument("--data", default="wine", help="the data set (wine)")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    if shutil.which("strace") is None:
        print("strace is not installed", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        try:
            results = measure(options.revision, options.data, Path(name))
        except RevisionError as error:
            print(error, file=sys.stderr)
            return 1
    if options.json:
        print(json.dumps([asdict(one) for one in results], indent=1))
        return 0
    print("| process | opened, then | now | asked for, then | now |\n|---|---|---|---|---|")
    for one in results:
        print(f"| {one.process} | {one.old_opened} | {one.new_opened} | {one.old_asked} | {one.new_asked} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
