"""The inventory of a store for a check: its files by partition, and all faults that show while listing them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa

from butter_etl.errors import SpecError, StoreError, agreeing, counted, duration, one_line
from butter_etl.exchange import ManifestFile
from butter_etl.store import (
    COMMON_METADATA,
    DATA,
    EXPERIMENTS,
    QUARANTINE,
    SOURCES,
    SUMMARY_FILE,
    SWEEPS,
    Failure,
    Location,
    Registry,
    RunFile,
    Store,
    files_in,
    is_origin_name,
    level_of,
    parse_partition,
    partition_path,
    ranges_text,
    read_origin_file,
    repetition_masks,
)
from butter_etl.studies import EXECUTIVE, PRECISION, RUNS, SUMMARY, Frame, OwnInfo, Selection, Study
from butter_etl.upkeep.files import Flaw, check_schema_file
from butter_etl.upkeep.findings import Finding
from butter_etl.upkeep.rows import Known, check_data_file, check_experiments_file, check_sweep_file, own_datasets

#: Temporary files older than this were left by writers that are no more.
LEFTOVER_SECONDS = 3600.0


class Listed(msgspec.Struct, frozen=True):
    """A file as the listing has it: its path, relative to what is checked, and its size in bytes."""

    path: str
    size: int


class Unit(msgspec.Struct, frozen=True):
    """Files that are checked in one go: those of one partition of a study's frames, of runs and of summaries.

    ``known`` are claimed experiments that may occur; None in an export, which does not say what it claims. An export
    has also ``others``, files of no partition, and ``manifest``, what its manifest says of each file, by path.
    """

    study: Study
    partition: str
    runs: tuple[Listed, ...] = ()
    summaries: tuple[Listed, ...] = ()
    executives: tuple[Listed, ...] = ()
    precisions: tuple[Listed, ...] = ()
    known: dict[int, Known] | None = None
    others: tuple[Listed, ...] = ()
    manifest: dict[str, ManifestFile] = {}
    #: The schema of the exported frame, partition keys included; None in a store, whose frames have fixed schemas.
    schema: pa.Schema | None = None

    @property
    def all_files(self) -> tuple[Listed, ...]:
        """Return all files of the unit."""
        return (*self.runs, *self.summaries, *self.executives, *self.precisions, *self.others)

    @property
    def files(self) -> int:
        """Return how many files the unit has."""
        return len(self.all_files)

    @property
    def bytes(self) -> int:
        """Return how many bytes there are to read."""
        return sum(file.size for file in self.all_files)


@dataclass
class Inventory:
    """The units to be checked, and the findings of the listing itself."""

    url: str
    is_store: bool
    units: list[Unit] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def files(self) -> int:
        """Return how many files are to be checked."""
        return sum(unit.files for unit in self.units)


def take_inventory(store: Store) -> Inventory:
    """List a store, and check all of it that is small: what it claims, its sweeps, failures, leftovers, gaps."""
    location = store.location
    plan = Inventory(location.absolute, is_store=True)
    known = _check_claims(store, plan.findings)
    own = _check_data(store, known, plan.findings)
    frames = {one.folder: _frame_files(store, one, plan.findings) for one in store.study.frames.values()}
    runs = frames[RUNS]
    plan.units.extend(_store_units(store.study, frames, known))
    masks = repetition_masks(run_file_of(listed) for files in runs.values() for listed in files)
    plan.findings.extend(_gaps(runs))
    plan.findings.extend(_leftovers(location))
    plan.findings.extend(_failures(store, masks))
    plan.findings.extend(_wrong_sources(location))
    _check_sweeps(store, masks, own, plan.findings)
    return plan


def _check_claims(store: Store, findings: list[Finding]) -> dict[int, Known]:
    """Return the experiments that a store has claimed ids for, by id."""
    location = store.location
    known: dict[int, Known] = {}
    ids: dict[str, int] = {}
    for name, _ in location.walk(EXPERIMENTS):
        path = f"{EXPERIMENTS}/{name}"
        if not name.removesuffix(".parquet").isdecimal() or not name.endswith(".parquet"):
            findings.append(Finding("foreign-file", path, "is no file of claimed experiments"))
            continue
        try:
            check_experiments_file(store.study, location.read_bytes(path), name, known, ids)
        except Flaw as flaw:
            findings.append(Finding(flaw.kind, path, flaw.detail))
    return known


def _check_data(store: Store, known: Mapping[int, Known], findings: list[Finding]) -> dict[str, OwnInfo]:
    """Return the users' own data sets by name, from experiments and from the copies that a store keeps."""
    location, kind = store.location, store.study.own_data
    own: dict[str, OwnInfo] = {}
    for info in own_datasets(store.study, known.values()):
        if own.setdefault(info.name, info) != info:
            detail = f"data set {info.name!r} has several contents; import the experiments of one into another store"
            findings.append(Finding("wrong-experiment", EXPERIMENTS, detail))
    for name, _ in location.walk(DATA):
        path = f"{DATA}/{name}"
        if kind is None or "/" in name or name.startswith(".") or not name.endswith(".parquet"):
            findings.append(Finding("foreign-file", path, "is no copy of a data set"))
            continue
        try:
            check_data_file(location, name.removesuffix(".parquet"), own, kind)
        except Flaw as flaw:
            findings.append(Finding(flaw.kind, path, flaw.detail))
    return own


def _frame_files(store: Store, frame: Frame, findings: list[Finding]) -> dict[str, list[Listed]]:
    """Return the files of a frame of a store by partition; files that do not belong there are findings."""
    location, root = store.location, frame.folder
    files: dict[str, list[Listed]] = {}
    has_schema = False
    for name, size in location.walk(root):
        partition, _, base = name.rpartition("/")
        path = f"{root}/{name}"
        if name == COMMON_METADATA:
            has_schema = True
            findings.extend(schema_findings(store.study, location, path, frame.schema))
        elif not is_partition(store.study, partition):
            findings.append(Finding("foreign-file", path, "is not in a partition of the layout"))
        elif not _is_named(root, base):
            findings.append(Finding("foreign-file", path, "has no name that this package gives"))
        else:
            files.setdefault(partition, []).append(Listed(path, size))
    if not has_schema and (files or not (frame.optional or root == EXECUTIVE)):  # older stores have none of these
        findings.append(Finding("wrong-metadata", f"{root}/{COMMON_METADATA}", "is not there"))
    return files


def _is_named(root: str, base: str) -> bool:
    """Tell whether a file has a name that files of a frame get."""
    if root == RUNS:
        return RunFile.parse(base, 0) is not None
    return base == SUMMARY_FILE if root != PRECISION else level_of(base) is not None


def schema_findings(study: Study, location: Location, path: str, schema: pa.Schema) -> list[Finding]:
    """Return a finding if a ``_common_metadata`` is not what it should be, else none."""
    try:
        check_schema_file(location.read_bytes(path), schema, study.later_columns)
    except Flaw as flaw:
        return [Finding(flaw.kind, path, flaw.detail)]
    return []


def is_partition(study: Study, path: str) -> bool:
    """Tell whether a path is a partition of a study's layout, spelled as this package does."""
    try:
        return partition_path(study.keys, parse_partition(study.key_schema, path)) == path
    except (StoreError, SpecError, OverflowError):
        return False


def _store_units(
    study: Study, frames: Mapping[str, Mapping[str, list[Listed]]], known: Mapping[int, Known]
) -> Iterator[Unit]:
    runs, summaries, executives, precisions = (
        frames.get(folder, {}) for folder in (RUNS, SUMMARY, EXECUTIVE, PRECISION)
    )
    here: dict[str, dict[int, Known]] = {}
    for experiment_id, one in known.items():
        here.setdefault(one.partition, {})[experiment_id] = one
    for partition in sorted({*runs, *summaries, *executives, *precisions}):
        own = runs.get(partition, [])
        named = {run_file_of(file).experiment_id for file in own}
        claimed = {one: known[one] for one in named if one in known}
        yield Unit(
            study,
            partition,
            tuple(own),
            tuple(summaries.get(partition, [])),
            tuple(executives.get(partition, [])),
            tuple(precisions.get(partition, [])),
            {**here.get(partition, {}), **claimed},
        )


def run_file_of(file: Listed) -> RunFile:
    """Return what the name of a listed run file of a store says."""
    parsed = RunFile.parse(file.path.removeprefix(f"{RUNS}/"), file.size)
    if parsed is None:
        raise AssertionError(file)
    return parsed


def _gaps(runs: Mapping[str, list[Listed]]) -> Iterator[Finding]:
    """Yield a finding for each experiment that lacks repetitions between its first and its last."""
    for partition, files in runs.items():
        for experiment_id, mask in sorted(repetition_masks(map(run_file_of, files)).items()):
            held = [number for number in range(mask.bit_length()) if mask >> number & 1]
            lacking = sorted(set(range(held[0], held[-1])) - set(held))
            if lacking:
                yield Finding("gap", f"{RUNS}/{partition}", f"experiment {experiment_id} lacks {ranges_text(lacking)}")


def _leftovers(location: Location) -> Iterator[Finding]:
    """Yield a finding for each temporary file of a writer that is no more.

    On an object store nothing is written under such names.
    """
    if not location.is_local:
        return
    now = time.time()
    for folder, folders, names in os.walk(location.root):
        if folder == location.root and QUARANTINE in folders:
            folders.remove(QUARANTINE)
        for name in sorted(names):
            if not name.endswith((".tmp", ".turn")):
                continue
            path = os.path.join(folder, name)  # noqa: PTH118 (for a million names, strings)
            try:
                age = now - os.stat(path).st_mtime  # noqa: PTH116
            except FileNotFoundError:
                continue
            if age > LEFTOVER_SECONDS:
                relative = path.removeprefix(f"{location.root}/")
                yield Finding("temporary-file", relative, f"was left by a writer {duration(age)} ago")


def _failures(store: Store, present: Mapping[int, int]) -> Iterator[Finding]:
    if not store.has_state:
        return
    for path in files_in(store.state / "failures", ".json"):
        place = str(path).removeprefix(f"{store.location.root}/")
        try:
            failure = msgspec.json.decode(path.read_bytes(), type=Failure)
        except FileNotFoundError:
            continue
        except msgspec.DecodeError as error:
            yield Finding("wrong-record", place, f"is no record of a failure ({error})")
            continue
        kind = "recorded-failure" if failure.is_missing(present) else "outdated-failure"
        yield Finding(kind, place, f"{failure.experiment}: {failure.error}")


def _wrong_sources(location: Location) -> Iterator[Finding]:
    """Yield a finding for each file of ``sources/`` that does not say whose runs a store has."""
    for name, _ in location.walk(SOURCES):
        path = f"{SOURCES}/{name}"
        if not is_origin_name(name):
            yield Finding("foreign-file", path, "is no file of a source of runs")
            continue
        try:
            read_origin_file(location, name)
        except StoreError as error:
            yield Finding("wrong-source", path, one_line(error))


def _check_sweeps(
    store: Store, present: Mapping[int, int], own: Mapping[str, OwnInfo], findings: list[Finding]
) -> None:
    """Check the custom sweeps, and find what is missing of each."""
    for name, _ in store.location.walk(SWEEPS):
        path = f"{SWEEPS}/{name}"
        if name.startswith(".") or not name.endswith(".yaml"):
            findings.append(Finding("foreign-file", path, "is no file of a sweep"))
            continue
        try:
            check_sweep_file(store.study, store.location.read_bytes(path), name, own)
        except Flaw as flaw:
            findings.append(Finding(flaw.kind, path, flaw.detail))
    if any(finding.kind in ("wrong-sweep", "wrong-experiment", "wrong-data") for finding in findings):
        return  # nothing can be said of what they lack
    registry = Registry(store)
    for name in registry.sweep_names():
        wanted = missing = 0
        for _, spec, count in Selection((registry.sweep(name),)).experiments():
            if not store.study.trainer.can_build(spec):
                continue
            experiment_id = registry.experiment_id(spec)
            mask = 0 if experiment_id is None else present.get(experiment_id, 0)
            wanted += count
            missing += sum(not mask >> repetition & 1 for repetition in range(count))
        if missing:
            detail = f"{missing:,} of its {counted(wanted, 'run')} {agreeing(missing, 'is', 'are')} missing"
            findings.append(Finding("missing-runs", f"{SWEEPS}/{name}.yaml", detail))
