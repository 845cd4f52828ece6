"""Whether the working tree does what a revision did: the same inputs, the same commands, the same bits.

``python -m benchmarks.versions REVISION [--keep DIR] [--only PART …]`` checks REVISION out into a temporary folder and
lets it and the working tree do the same, through nothing but commands, public names and files:

- ``words``: helps, catalogues and complaints are the same.
- ``training``: each trains the demo, and a mixed sweep by each engine, into stores of its own. Every column of every
  run is the same bit for bit but `TOLD_APART`; every other file of the store byte for byte.
- ``stages``: each summarises, exports, imports, verifies, draws and withdraws in its copy of one store; all that they
  print and all files that come of it are the same byte for byte.
- ``going_on``: the working tree trains on in a store that REVISION left, and goes on from checkpoints of a REVISION
  that was killed.
- ``side_by_side``: drivers of both train into one store at once, and share the work.

A line a check: ``ok``, or ``DIFFERS`` with the first difference. Exit code 1: something differs; 2: there is no such
revision, or it does not run.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from benchmarks.checkouts import RevisionError, Version, end, versions
from benchmarks.differences import folders, texts

#: What says of a run when it was trained, how long it took, by which commit, and what its bits depend on, for which
#: versions before have no column. All else is the same in two trainings.
TOLD_APART = ("start_time", "update_time", "core_seconds", "git_hash", "environment")
#: Locks, claims and heartbeats: what is left there is told of separately, where it matters.
_STATE = "state/*"
_FRAMES = (
    "all_runs/_common_metadata",
    "all_runs/*/*.parquet",
    "complete_summary/*/*.parquet",
    "complete_executive_summary/*/*.parquet",
)
_ENGINES = ("fused", "torch")
_WAIT_SECONDS = 600


@dataclass
class Checks:
    """The two versions, a folder to work in, and how many checks found a difference."""

    old: Version
    new: Version
    folder: Path
    made: dict[str, Path] = field(default_factory=dict)
    differing: int = 0

    @property
    def both(self) -> tuple[Version, Version]:
        """The revision's version, then the working tree's."""
        return self.old, self.new

    def tell(self, what: str, find: Callable[..., str | None], *arguments: Any) -> None:
        """Print what a check of these arguments finds: None is no difference; a command that fails is one."""
        try:
            found = find(*arguments)
        except RevisionError as error:
            found = str(error)
        self.differing += found is not None
        print(f"{'ok     ' if found is None else 'DIFFERS'}  {what}{'' if found is None else f': {found}'}", flush=True)

    def place(self, name: str) -> Path:
        """A new folder with the inputs of all checks."""
        folder = self.folder / name
        write_inputs(folder)
        return folder


# --- inputs ------------------------------------------------------------------------------------------------------

_OWN = {
    "file": "own.csv",
    "task": "classification",
    "target": "kind",
    "columns": {"number": "drop", "colour": "one-hot"},
}
_PENALTIES = [None, {"l1": 0.001}, {"l2": 0.01}]
MIXED: dict[str, Any] = {
    "name": "mixed",
    "repetitions": 2,
    "datasets": {"own": _OWN},
    "cubes": [
        {
            "dataset": ["digits", "breast_cancer", "wine", "diabetes"],
            "shape": ["rectangle_residual", "trapezoid", "exponential", "wide_first_4x"],
            "size": [1024],
            "depth": [4],
            "learning_rate": [0.01],
            "batch_size": [32],
            "epochs": [6],
        },
        {
            "dataset": ["breast_cancer"],
            "size": [256],
            "depth": [3],
            "learning_rate": [0.01],
            "batch_size": [17, 256],
            "kernel_regularizer": _PENALTIES,
            "label_noise": [0, 0.1],
            "epochs": [5],
        },
        {
            "dataset": ["diabetes", "wine"],
            "size": [128],
            "depth": [2],
            "learning_rate": [0.02],
            "batch_size": [64],
            "kernel_regularizer": _PENALTIES,
            "label_noise": [0.2],
            "epochs": [5],
            "optimizer": ["RMSprop", "SGD"],
            "momentum": [0, 0.9],
        },
        {"dataset": ["own"], "size": [64, 256], "depth": [2, 3], "learning_rate": [0.01], "epochs": [8]},
    ],
}
#: One experiment that takes some seconds, to be killed while it is trained.
LONG = {
    "name": "long",
    "repetitions": 2,
    "cubes": [{"dataset": ["digits"], "size": [16384], "depth": [4], "learning_rate": [0.001], "epochs": [300]}],
}
#: As many tasks as two drivers of four threads keep in flight, and some more, all of the same cost.
SHARED = {
    "name": "shared",
    "repetitions": 1,
    "cubes": [
        {
            "dataset": ["digits"],
            "size": [4096],
            "depth": [3],
            "learning_rate": [0.001 * step for step in range(1, 15)],
            "label_noise": [0, 0.1],
            "epochs": [250],
        }
    ],
}


def write_inputs(folder: Path) -> None:
    """Sweep files, and a table of a user's own."""
    folder.mkdir(parents=True)
    for sweep in (MIXED, LONG, SHARED):
        (folder / f"{sweep['name']}.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    draw = random.Random(5)
    lines = ["number,length,colour,kind"]
    for number in range(90):
        length = draw.uniform(0, 10)
        kind = "long" if length > 6 else "short" if length < 3 else draw.choice(["long", "short", "middling"])
        lines.append(f"{number},{length!r},{draw.choice(['red', 'green', 'blue'])},{kind}")
    (folder / "own.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


# --- words -------------------------------------------------------------------------------------------------------

_COMPLAINTS = (
    ("train", "store"),
    ("train", "store", "--spec", "absent.yaml"),
    ("train", "store", "--sweep", "primery"),
    ("plan", "store", "--sweep", "primary", "--where", "dataset=nurserie"),
    ("plan", "store", "--spec", "own.csv"),
    ("status", "absent"),
    ("summarize", "own.csv"),
    ("export", "absent", "dest", "--all"),
    ("export", "absent", "dest"),
    ("import", "absent", "store", "--profile", "oedi"),
    ("verify", "absent"),
    ("drop", "absent"),
    ("errors", "torn-fil"),
    ("cluster", "init", "slrm"),
    ("absent",),
)
_PUBLIC = """
import inspect, butter_etl as be
print(be.__version__)
for name in sorted(be.__all__):
    print(name, list(inspect.signature(getattr(be, name)).parameters))
"""


def check_words(checks: Checks) -> None:
    """Compare what the commands say of themselves, and public names with their parameters."""
    places = [checks.place(f"words/{version.name}") for version in checks.both]
    said = [tuple(_words(version, place)) for version, place in zip(checks.both, places, strict=True)]
    for (arguments, old), (_, new) in zip(*said, strict=True):
        checks.tell(f"words: {' '.join(arguments)}", texts, old, new)
    public = [
        version.run([sys.executable, "-c", _PUBLIC], place) for version, place in zip(checks.both, places, strict=True)
    ]
    checks.tell("words: public names", texts, *(one.out + one.err for one in public))


def _words(version: Version, place: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """What a version says: help of every command, catalogues, complaints."""
    yield from _helps(version, place, ())
    kinds = version.butter(place, "errors").split()
    sites = [("cluster", "init", site) for site in ("slurm", "pbs", "lsf", "sge", "htcondor", "oar")]
    catalogue = [("errors",), ("errors", kinds[0]), ("errors", kinds[-1]), ("sweeps", "--json"), ("sweeps", "primary")]
    for arguments in (*catalogue, *sites, *_COMPLAINTS):
        yield arguments, _said(version, place, arguments)
    for file in sorted(place.glob("*.yaml")):
        yield ("the file", file.name), file.read_text(encoding="utf-8")


def _helps(version: Version, place: Path, group: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The help of a group and of all commands below, by the list in it."""
    arguments = (*group, "--help")
    said = _said(version, place, arguments)
    yield arguments, said
    _, _, listed = said.partition("\nCommands:\n")
    for line in listed.splitlines():
        if line.startswith("  ") and line[2:3].isalpha():
            yield from _helps(version, place, (*group, line.split()[0]))


def _said(version: Version, place: Path, arguments: Sequence[str]) -> str:
    """Exit code and all that a command writes."""
    said = version.run(version.command(*arguments), place)
    return f"exit code {said.code}\n{said.out}\n{said.err}"


# --- training ----------------------------------------------------------------------------------------------------


def check_training(checks: Checks) -> None:
    """Compare what both versions train from the same sweeps."""
    for what in ("demo", *_ENGINES):
        _compare_stores(checks, f"training: {what}", *_trained(checks, what))
    exports = [store.parent / "store-export" for store in _trained(checks, "demo")]
    checks.tell("training: the demo's export", _same_export, *exports)


def _trained(checks: Checks, what: str) -> list[Path]:
    """A store of each version: of the demo, or of the mixed sweep by an engine."""
    stores = []
    for version in checks.both:
        name = f"training/{version.name}-{what}"
        if name not in checks.made:
            store = checks.place(name) / "store"
            train = ["train", "store", "--spec", "mixed.yaml", "--engine", what, "--workers", "2"]
            version.butter(store.parent, *(["demo", "store", "--workers", "2"] if what == "demo" else train), "--quiet")
            checks.made[name] = store
        stores.append(checks.made[name])
    return stores


def _compare_stores(checks: Checks, what: str, old: Path, new: Path) -> None:
    """Tell of two stores that two versions trained into."""
    for version, store in zip(checks.both, (old, new), strict=True):
        checks.tell(f"{what}: trained by {version.name}", _by, store, version)
    checks.tell(f"{what}: all that was landed, in {rows_there(old):,} files", _same_runs, old, new)
    checks.tell(f"{what}: what is left in the state folder", texts, _left(old), _left(new))


def _same_runs(old: Path, new: Path) -> str | None:
    """Compare stores that were trained apart: frames row by row, everything else byte by byte."""
    return folders(old, new, but=(_STATE,), rows=_FRAMES, columns=TOLD_APART)


def _same_export(old: Path, new: Path) -> str | None:
    """Compare exports of stores that were trained apart: but for files that hold hashes and sizes of others."""
    frames = ("*_runs/_common_metadata", "*_runs/*.parquet", "*_summary/*.parquet")
    return folders(old, new, but=("*.json", "*.tar", "README.md"), rows=frames, columns=TOLD_APART)


def _left(store: Path) -> str:
    return "\n".join(sorted(path.relative_to(store).as_posix() for path in (store / "state").rglob("*")))


def rows(store: Path, columns: Sequence[str]) -> pa.Table:
    """Columns of all runs in a store."""
    files = sorted((store / "all_runs").rglob("*.parquet"))
    return pa.concat_tables([pq.ParquetFile(file).read(columns=list(columns)) for file in files])


def _by(store: Path, version: Version) -> str | None:
    """A complaint if another commit than a version's trained something in a store."""
    found = set(rows(store, ["git_hash"])["git_hash"].to_pylist())
    return None if found == {version.commit} else f"its runs are of {found}, not of {version.commit}"


# --- stages ------------------------------------------------------------------------------------------------------

_HALF = ("--where", "dataset=wine,own", "--where", "batch_size>=64")
_STAGES = (
    ("status", "store", "--json"),
    ("plan", "store", "--spec", "mixed.yaml", "--repetitions", "5", "--json"),
    ("export", "store", "refused", "--sweep", "mixed"),
    ("summarize", "store", "--json"),
    ("summarize", "store"),
    ("status", "store", "--sweep", "mixed"),
    ("export", "store", "plain", "--sweep", "mixed", "--tar"),
    ("export", "store", "compact", "--sweep", "mixed", "--tar", "--compact"),
    ("export", "store", "half", *_HALF),
    ("export", "store", "all", "--all"),
    ("export", "store", "all", "--all"),
    ("verify", "store", "--summaries"),
    ("verify", "all"),
    ("import", "store", "imported", "--workers", "1"),
    ("import", "compact", "from-export", "--workers", "1"),
    ("import", "other.parquet", "from-other", "--profile", "oedi-2022-08", "--workers", "1"),
    ("import", "other.parquet", "imported", "--profile", "oedi-2022-08", "--workers", "1"),
    ("summarize", "imported"),
    ("verify", "imported", "--summaries"),
    ("report", "store", "report.html"),
    ("plot", "store", "curves.png", "--where", "dataset=breast_cancer", "--by", "kernel_regularizer.type"),
    ("drop", "store", "--where", "dataset=wine", "--first-repetition", "1", "--yes"),
    ("status", "store"),
    ("summarize", "store"),
    ("verify", "store", "--json"),
)
_READ = """
import butter_etl as be
if __name__ == "__main__":
    exported = be.read_export("plain/mixed_sweep_runs")
    wine = be.read_summary("store", where=["dataset=wine"])
    for frame in (be.read_runs("store"), wine, be.read_executive_summary("store"), exported):
        frame = frame.compute()
        print(frame.dtypes.to_string(), frame.shape, frame.sort_values("experiment_id").head(3).to_string(), sep="\\n")
    print(be.summarize_runs(be.read_runs("store")).compute().sort_values("experiment_id").to_string())
    with be.start_cluster(workers=1) as client:
        print(be.partition_runs(be.read_runs("store", where=["dataset=wine"]), "parted"))
        print(be.train("parted", spec="mixed.yaml", where=["dataset=wine"], repetitions=2, client=client).landed)
"""


def check_stages(checks: Checks) -> None:
    """Compare what both versions make of copies of one store."""
    source = _trained(checks, "fused")[0]
    places = []
    for version in checks.both:
        place = checks.place(f"stages/{version.name}")
        shutil.copytree(source, place / "store")
        write_other(place / "store", place / "other.parquet")
        (place / "read.py").write_text(_READ, encoding="utf-8")
        places.append(place)
    for arguments in _STAGES:
        checks.tell(f"stages: {' '.join(arguments)}", _same_words, checks, places, arguments)
    checks.tell("stages: from Python", _same_python, checks, places)
    checks.tell("stages: all files that came of it", folders, *places)


def _same_words(checks: Checks, places: Sequence[Path], arguments: Sequence[str]) -> str | None:
    said = [_said(version, place, arguments) for version, place in zip(checks.both, places, strict=True)]
    return texts(*said)


def _same_python(checks: Checks, places: Sequence[Path]) -> str | None:
    said = [version.run([sys.executable, "read.py"], place) for version, place in zip(checks.both, places, strict=True)]
    if failed := next((one for one in said if one.code), None):
        return f"exit code {failed.code}: {failed.err[-500:]}"
    return texts(*(f"{one.out}\n{one.err}" for one in said))


def write_other(store: Path, target: Path) -> None:
    """The runs that a store has of the package's data sets, named as in the enlarged release, in one file."""
    schema = pq.read_schema(store / "all_runs" / "_common_metadata")
    keys = next((store / "all_runs").rglob("*.parquet")).relative_to(store / "all_runs").parts[:-1]
    hive = ds.partitioning(pa.schema([schema.field(key.partition("=")[0]) for key in keys]), flavor="hive")
    dataset = ds.dataset(store / "all_runs", schema=schema, partitioning=hive, format="parquet")
    table = dataset.to_table(filter=ds.field("dataset") != "own").drop_columns(["early_stopping", "test_split_method"])
    table = table.sort_by([("experiment_id", "ascending"), ("repetition", "ascending")])
    pq.write_table(table.rename_columns([_other_name(field) for field in table.schema]), target)


def _other_name(field: pa.Field) -> str:
    """What the enlarged release calls a column of ours."""
    if field.type != pa.list_(pa.float32()):
        return str(field.name).replace(".", "_")
    is_test = field.name.startswith("val_")
    return f"test_{field.name.removeprefix('val_')}" if is_test else f"train_{field.name}"


# --- going on ----------------------------------------------------------------------------------------------------


def check_going_on(checks: Checks) -> None:
    """Let the working tree train on where the revision stopped or was killed."""
    source = _trained(checks, "fused")[0]
    places = []
    for version in checks.both:
        place = checks.place(f"going-on/{version.name}")
        shutil.copytree(source, place / "store")
        places.append(place)
    more = ("--spec", "mixed.yaml", "--repetitions", "3", "--engine", "fused", "--workers", "2", "--json")
    checks.tell("going on: more repetitions", _same_counts, checks, places, ("train", "store", *more))
    checks.tell("going on: their summaries", _same_counts, checks, places, ("summarize", "store", "--json"))
    checks.tell("going on: runs and summaries", _same_runs, *(place / "store" for place in places))
    for engine in _ENGINES:
        checks.tell(f"going on: from a checkpoint, {engine}", _from_checkpoint, checks, engine)


def _same_counts(checks: Checks, places: Sequence[Path], arguments: Sequence[str]) -> str | None:
    """Compare what a command prints as JSON in the copies of both versions, but for CPU times."""
    said = []
    for version, place in zip(checks.both, places, strict=True):
        facts = json.loads(version.butter(place, *arguments))
        said.append(json.dumps({name: value for name, value in facts.items() if name != "core_seconds"}, indent=1))
    return texts(*said)


def _from_checkpoint(checks: Checks, engine: str) -> str | None:
    """Kill the revision in the middle; what the working tree makes of it is what the revision makes in one piece."""
    place = checks.place(f"going-on/{engine}")
    options = ("--spec", "long.yaml", "--engine", engine, "--workers", "1")
    checks.old.butter(place, "train", "whole", *options, "--quiet")
    killed = _kill_with_checkpoint(checks.old, place, ("train", "store", *options, "--checkpoint-minutes", "0.01"))
    left = list((place / "store").rglob("*.checkpoint"))
    if not left or rows_there(place / "store"):
        return f"{checks.old.name} left {len(left)} checkpoints and {rows_there(place / 'store')} runs"
    said = checks.new.run(checks.new.command("train", "store", *options), place)
    if said.code:
        return f"{checks.new.name}: exit code {said.code}: {said.err.strip()}"
    began = rows(place / "store", ["start_time"])["start_time"].to_pylist()
    if min(began) > killed:
        refusal = next((line for line in said.err.splitlines() if "from the beginning" in line), None)
        return f"{checks.new.name} began anew{f': {refusal}' if refusal else ', without a word'}"
    if rest := list((place / "store").rglob("*.checkpoint")):
        return f"{len(rest)} checkpoints are left"
    return _same_runs(place / "whole", place / "store")


def rows_there(store: Path) -> int:
    """How many run files a store has."""
    return sum(1 for _ in (store / "all_runs").rglob("*.parquet"))


def _kill_with_checkpoint(version: Version, place: Path, arguments: Sequence[str]) -> float:
    """Kill a training as soon as it has left a checkpoint; the time when it was killed."""
    process = version.start(version.command(*arguments), place)
    try:
        for _ in _patiently(process):
            if list((place / "store").rglob("*.checkpoint")):
                return time.time()
    finally:
        end(process)
    raise RevisionError(f"{version.name}: training ended before it left a checkpoint")


def _patiently(*processes: subprocess.Popen[str]) -> Iterator[None]:
    """Moments until one of the processes has ended; raises RevisionError when that takes too long."""
    began = time.monotonic()
    while all(process.poll() is None for process in processes):
        yield
        time.sleep(0.05)
        if time.monotonic() - began > _WAIT_SECONDS:
            raise RevisionError(f"it takes more than {_WAIT_SECONDS} s")


# --- side by side ------------------------------------------------------------------------------------------------


def check_side_by_side(checks: Checks) -> None:
    """Let drivers of both versions work on one store at once."""
    place = checks.place("side-by-side")
    with _drivers(checks, place) as processes:
        checks.tell("side by side: `status` of each shows both drivers", _seen, checks, place, processes)
        outs = [process.communicate(timeout=_WAIT_SECONDS)[0] for process in processes]
    for version, process in zip(checks.both, processes, strict=True):
        checks.tell(f"side by side: {version.name} succeeds", _succeeded, version, process, place)
    checks.tell("side by side: each run is trained once", _once, place / "store", outs)
    checks.tell("side by side: nothing is left in the state folder", _nothing_left, place / "store")


@contextmanager
def _drivers(checks: Checks, place: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """A driver of each version, both begun at the same time on the same store; killed if the block fails."""
    options = ("--spec", "shared.yaml", "--engine", "fused", "--workers", "4", "--json")
    with ExitStack() as stack:
        processes = []
        for version in checks.both:
            process = version.start(version.command("train", "store", *options), place)
            stack.callback(end, process)
            processes.append(process)
        yield processes


def _succeeded(version: Version, process: subprocess.Popen[str], place: Path) -> str | None:
    if process.returncode == 0:
        return None
    return f"exit code {process.returncode}: {(place / f'{version.name}.log').read_text(errors='replace').strip()}"


def _seen(checks: Checks, place: Path, processes: Sequence[subprocess.Popen[str]]) -> str | None:
    """Ask each version's `status` until it has shown both drivers."""
    wanted = {process.pid for process in processes}
    unseen = dict.fromkeys(checks.both, wanted)
    for _ in _patiently(*processes):
        for version in list(unseen):
            if not (place / "store" / "store.json").exists():
                continue
            facts = json.loads(version.butter(place, "status", "store", "--json"))
            if {driver["holder"]["pid"] for driver in facts["running"]} >= wanted:
                del unseen[version]
        if not unseen:
            return None
    return f"{', '.join(version.name for version in unseen)} did not show both while they ran"


def _once(store: Path, outs: Sequence[str]) -> str | None:
    """A complaint unless every run is there once, was trained once, and both versions had a part in it."""
    reports, wanted = [json.loads(out) for out in outs], 28
    found = rows(store, ["experiment_id", "repetition", "core_seconds"]).to_pylist()
    keys = {(row["experiment_id"], row["repetition"]) for row in found}
    landed = [report["landed"] for report in reports]
    if len(found) != wanted or len(keys) != wanted or sum(landed) != wanted:
        return f"of {wanted} runs {len(found)} are there, {len(keys)} different ones; {landed} landed"
    if min(landed) == 0:
        return f"they did not share the work: {landed} runs landed"
    if any(report["landed"] + report["there"] != wanted for report in reports):
        return f"their reports do not add up: {reports}"
    trained, kept = sum(report["core_seconds"] for report in reports), sum(row["core_seconds"] for row in found)
    if abs(trained - kept) > 0.001 * kept:
        return f"they trained for {trained:.3f} CPU seconds, {kept:.3f} of them landed: some runs were trained twice"
    return None


def _nothing_left(store: Path) -> str | None:
    """A complaint about claims, drivers, attempts and checkpoints that nobody needs any more."""
    left = [path for path in (store / "state").rglob("*") if path.is_file()]
    return f"{left[0].relative_to(store)}" if left else None


# --- the command -------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Checks], None]] = {
    "words": check_words,
    "training": check_training,
    "stages": check_stages,
    "going_on": check_going_on,
    "side_by_side": check_side_by_side,
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__)
    parser.add_argument("revision", help="what git calls the version to compare with")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder, and leave it there")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="which checks (all)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a check; the exit code."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # worktree and processes are cleared away
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            old, new = stack.enter_context(versions(options.revision, folder.absolute()))
            checks = Checks(old, new, folder.absolute())
            for part in options.only:
                PARTS[part](checks)
        except RevisionError as error:
            print(error, file=sys.stderr)
            return 2
    print(f"{checks.differing} differ" if checks.differing else "nothing differs")
    return int(checks.differing > 0)


if __name__ == "__main__":
    sys.exit(main())
