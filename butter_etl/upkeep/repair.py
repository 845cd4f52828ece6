"""Repair: files that verification found to be wrong are moved to quarantine, and are missing then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from butter_etl.errors import writing
from butter_etl.store import RunFile, Store, quarantine_stamp, write_common_metadata
from butter_etl.studies import RUNS
from butter_etl.upkeep.findings import KINDS, Finding
from butter_etl.upkeep.inventory import Inventory, Unit
from butter_etl.upkeep.verify import check_runs

# --- repair ------------------------------------------------------------------------------------------------------


class RepairReport(msgspec.Struct, frozen=True):
    """The findings moved to quarantine, those left as they were, and the runs that are missing now, by experiment."""

    moved: tuple[Finding, ...]
    left: tuple[Finding, ...]
    missing: dict[int, list[int]]


def run_repair(
    plan: Inventory, store: Store, findings: Iterable[Finding], on_progress: Callable[[int], None] = lambda moved: None
) -> RepairReport:
    """Move the files of findings to quarantine, where moving mends anything; never deletes.

    A file is checked once more before it is moved, a run file under its experiment's lock, so that what another
    repair or a landing has mended stays. Raises LandingError if a file cannot be moved; what was moved before stays
    moved.
    """
    units = {unit.partition: unit for unit in plan.units}
    stamp = quarantine_stamp()
    moved, left = [], []
    with writing(store):
        for finding in findings:
            if not KINDS[finding.kind].moves or finding.path.startswith("/"):  # a state folder outside the store
                left.append(finding)
            elif _move(store, units, finding, stamp):
                moved.append(finding)
                on_progress(len(moved))
        for frame in store.study.frames.values():
            if frame.optional and next(store.location.walk(frame.folder), None) is None:
                continue
            write_common_metadata(store.location, frame.folder, frame.schema, store.study.later_columns)
    return RepairReport(tuple(moved), tuple(left), _now_missing(store, moved))


def _move(store: Store, units: Mapping[str, Unit], finding: Finding, stamp: str) -> bool:
    root, _, name = finding.path.partition("/")
    file = RunFile.parse(name, 0) if root == RUNS else None
    if file is None or file.partition not in units:
        return store.quarantine(finding.path, finding.kind, stamp)
    paths = {finding.path, *finding.partners}
    unit = units[file.partition]
    unit = msgspec.structs.replace(unit, runs=tuple(one for one in unit.runs if one.path in paths), summaries=())
    with store.lock(file.experiment_id) as lock, lock.kept_fresh():
        again = check_runs(store.location, unit).findings
        persists = any((one.kind, one.path) == (finding.kind, finding.path) for one in again)
        return persists and lock.is_held() and store.quarantine(finding.path, finding.kind, stamp)


def _now_missing(store: Store, moved: Iterable[Finding]) -> dict[int, list[int]]:
    """Return the repetitions that moved run files held by their names and that no other file holds, by experiment."""
    present = store.repetitions()
    missing: dict[int, set[int]] = {}
    for finding in moved:
        root, _, name = finding.path.partition("/")
        file = RunFile.parse(name, 0) if root == RUNS else None
        if file is None:
            continue
        mask = present.get(file.experiment_id, 0)
        gone = {repetition for repetition in file.repetitions if not mask >> repetition & 1}
        if gone:
            missing.setdefault(file.experiment_id, set()).update(gone)
    return {one: sorted(gone) for one, gone in sorted(missing.items())}
