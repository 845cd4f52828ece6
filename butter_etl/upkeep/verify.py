"""Checking a store or an export: every file against its name, its place, its own rows and what lies beside it.

`plan_verification` takes the inventory; `check_unit` checks the files of one partition and needs no Dask;
`run_verification` does so for all of them, in threads or on a cluster. Nothing is written but by `repair`, which moves
files to quarantine.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.clusters import map_each
from butter_etl.engines import precise_experiment, summarize_experiment
from butter_etl.errors import ButterError, StoreError
from butter_etl.store import (
    COMMON_METADATA,
    SUMMARY_FILE,
    Location,
    RunFile,
    Store,
    StudyLike,
    by_experiment,
    executive_name,
    fingerprint,
    frame_of,
    is_executive_current,
    level_of,
    ranges_text,
    read_fingerprints,
    summary_name,
)
from butter_etl.studies import LEVEL, RUNS, SUMMARY, Study
from butter_etl.upkeep.export_inventory import check_entry, check_other, check_row_count, take_export_inventory
from butter_etl.upkeep.files import Flaw, decode
from butter_etl.upkeep.findings import CheckReport, Finding
from butter_etl.upkeep.inventory import Inventory, Listed, Unit, run_file_of, take_inventory
from butter_etl.upkeep.rows import (
    RunRow,
    check_executive,
    check_levels,
    check_run_rows,
    check_summary_rows,
    same_statistics,
)

if TYPE_CHECKING:
    from distributed import Client

#: A task checks units of about this many bytes.
_BATCH_BYTES, _BATCH_UNITS = 64 * 2**20, 256
Rows = list[dict[str, Any]]
#: One in this many of the summaries of a file is recomputed, at least one.
_SAMPLED = 10


# --- plan --------------------------------------------------------------------------------------------------------


def plan_verification(
    path: str | os.PathLike[str],
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
) -> Inventory:
    """Take the inventory of what is at ``path``, a store (of ``study``) or an export.

    Raises StoreError if it is neither.
    """
    if is_store(path):
        return take_inventory(Store.open(path, state, study))
    location = Location(path)
    inventory = take_export_inventory(location)
    if inventory is None:
        raise StoreError(f"{location}: is neither a store (no store.json) nor an export (no {COMMON_METADATA})")
    return inventory


def is_store(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is a store at ``path``."""
    return bool(Location(path).kind("store.json") == pa.fs.FileType.File)


# --- one unit of work --------------------------------------------------------------------------------------------


def check_unit(location: Location, unit: Unit, *, values: bool = False) -> CheckReport:
    """Check the files of one partition; with ``values``, recompute a sample of its summaries too.

    Files that have gone since they were listed are passed over.
    """
    report = check_runs(location, unit)
    for listed in unit.summaries:
        report += _check_summary_file(location, unit, listed, unit.schema or unit.study.summary)
    for listed in unit.executives:
        report += _check_summary_file(location, unit, listed, unit.study.executive)
    for listed in unit.precisions:
        report += _check_summary_file(location, unit, listed, unit.study.precision)
    for listed in unit.others:
        report += check_other(location, listed, unit.manifest.get(listed.path))
    if unit.known is not None:
        report += _check_fingerprints(location, unit, f"{SUMMARY}/{unit.partition}/{SUMMARY_FILE}", values=values)
        for listed in unit.precisions:
            report += _check_fingerprints(location, unit, listed.path, values=values)
        if not any(finding.path.startswith(f"{SUMMARY}/") and not finding.is_note for finding in report.findings):
            report += _check_executive(location, unit)
    return report


def check_runs(location: Location, unit: Unit) -> CheckReport:
    """Check the run files of a unit, each by itself and then for runs that several of them hold."""
    report, held = CheckReport(), dict[str, list[RunRow]]()
    for listed in unit.runs:
        report += _check_run_file(location, unit, listed, held)
    return report + CheckReport(findings=tuple(_duplicates(held)))


def _check_run_file(location: Location, unit: Unit, listed: Listed, held: dict[str, list[RunRow]]) -> CheckReport:
    def check(rows: Rows, lengths: Mapping[str, pa.ChunkedArray]) -> None:
        file = RunFile.parse(listed.path, listed.size)
        held[listed.path] = check_run_rows(unit.study, rows, lengths, unit.partition, file=file, known=unit.known)

    return _check_file(location, unit, listed, unit.study.run_files, check)


def _check_file(
    location: Location,
    unit: Unit,
    listed: Listed,
    schema: pa.Schema,
    check: Callable[[Rows, Mapping[str, pa.ChunkedArray]], None],
) -> CheckReport:
    """Check a Parquet file: against the manifest, against its schema, and then its rows."""
    data = _read(location, listed)
    if data is None:
        return CheckReport()
    count, findings = 0, tuple[Finding, ...]()
    try:
        check_entry(data, unit.manifest.get(listed.path))
        rows, lengths = decode(data, schema, {*unit.study.parameters, *unit.study.derived}, unit.study.later_columns)
        count = len(rows)
        check_row_count(count, unit.manifest.get(listed.path))
        check(rows, lengths)
    except Flaw as flaw:
        findings = (Finding(flaw.kind, listed.path, flaw.detail),)
    return CheckReport(1, count, len(data), findings=findings)


def _read(location: Location, listed: Listed) -> bytes | None:
    """Return the bytes of a file; None if it has gone since it was listed."""
    try:
        return location.read_bytes(listed.path)
    except FileNotFoundError:
        return None


def _duplicates(held: Mapping[str, list[RunRow]]) -> Iterator[Finding]:
    """Yield findings for files whose runs others hold too.

    Of two that overlap the one with more runs stays, so that least is lost.
    """
    owners: dict[tuple[int, int], str] = {}
    run_ids: dict[str, str] = {}
    for path, rows in sorted(held.items(), key=lambda item: (-len(item[1]), item[0])):
        own = {(row.experiment_id, row.repetition) for row in rows}
        partners = tuple(sorted({owners[one] for one in own if one in owners}))
        if partners or len(own) < len(rows):
            twice = sorted(one[1] for one in own if one in owners)
            detail = (
                f"repetitions {ranges_text(twice)} are in {partners[0]} too" if partners else "holds repetitions twice"
            )
            yield Finding("duplicate-run", path, detail, partners)
            continue
        owners.update(dict.fromkeys(own, path))
        shared = next((row.run_id for row in rows if row.run_id in run_ids), None)
        if shared is not None:
            yield Finding("duplicate-run-id", path, f"run {shared} is in {run_ids[shared]} too", (run_ids[shared],))
        run_ids.update(dict.fromkeys((row.run_id for row in rows), path))


def _check_summary_file(location: Location, unit: Unit, listed: Listed, schema: pa.Schema) -> CheckReport:
    def check(rows: Rows, _: Mapping[str, pa.ChunkedArray]) -> None:
        check_summary_rows(unit.study, rows, unit.partition, unit.known)
        if LEVEL.name in schema.names:
            check_levels(rows, level_of(listed.path))

    return _check_file(location, unit, listed, unit.study.without_keys(schema), check)


# --- summaries against the runs ----------------------------------------------------------------------------------


def _check_fingerprints(location: Location, unit: Unit, path: str, *, values: bool) -> CheckReport:
    """Check that a file of summaries, or of intervals, of a store was made from the runs that are there.

    With ``values``, a sample of its rows is recomputed.
    """
    try:
        made_from = read_fingerprints(location, path)
        files = by_experiment(map(run_file_of, unit.runs))
        frame = frame_of(unit.study, level_of(path))
        if made_from != {
            one: fingerprint(own, frame) for one, own in files.items()
        }:  # both may have changed since listing
            files = by_experiment(Store(location, None, unit.study).run_files(unit.partition))
            made_from = read_fingerprints(location, path)
        stored = location.read_table(path, None if values else ["experiment_id"]) if made_from else None
    except ButterError:  # torn, which is a finding already
        return CheckReport()
    current = {one: fingerprint(own, frame) for one, own in files.items()}
    differing = [one for one in sorted(current.keys() & made_from.keys()) if current[one] != made_from[one]]
    noun = "summary" if level_of(path) is None else "interval"
    found = [
        ("stale-summary", differing, "runs have changed since"),
        ("orphaned-summary", sorted(made_from.keys() - current.keys()), "their runs are gone"),
        ("missing-summary", sorted(current.keys() - made_from.keys()), f"no {noun} has been made"),
    ]
    findings = [Finding(kind, path, f"{_experiments(ids)}: {what}") for kind, ids, what in found if ids]
    sampled: list[int] = []
    if stored is not None:
        fresh = sorted(current.keys() & made_from.keys() - set(differing))
        sampled = random.sample(fresh, -(-len(fresh) // _SAMPLED)) if values else []
        sample = {one: files[one] for one in sampled}
        findings.extend(_wrong_rows(unit.study, location, path, stored, made_from, sample))
    return CheckReport(summaries=len(sampled), findings=tuple(findings))


def _check_executive(location: Location, unit: Unit) -> CheckReport:
    """Check that the executive summary of a partition says what the complete one does."""
    path = executive_name(unit.partition)
    try:
        if not is_executive_current(location, unit.study, unit.partition):
            detail = "was not made with the complete summary" if unit.executives else "has not been made"
            return CheckReport(findings=(Finding("stale-summary", path, detail),))
        if unit.executives:
            columns = unit.study.executive_files.names
            check_executive(*(location.read_table(name, columns) for name in (path, summary_name(unit.partition))))
    except Flaw as flaw:
        return CheckReport(findings=(Finding(flaw.kind, path, flaw.detail),))
    except (ButterError, FileNotFoundError):  # torn, which is a finding already, or just being replaced
        return CheckReport()
    return CheckReport()


def _experiments(ids: list[int]) -> str:
    named = ", ".join(map(str, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
    return f"experiment{'s' * (len(ids) > 1)} {named}"


def _wrong_rows(
    study: Study,
    location: Location,
    path: str,
    stored: pa.Table,
    made_from: Mapping[int, str],
    sample: Mapping[int, list[RunFile]],
) -> Iterator[Finding]:
    """Yield findings for rows other than those in the metadata of their file, or other than the runs give."""
    ids = stored["experiment_id"].to_pylist()
    if set(ids) != made_from.keys():
        yield Finding("wrong-summary", path, "its rows are not those that its metadata name")
        return
    histories, level = sorted(set(study.reduction.histories.values())), level_of(path)
    for experiment_id, files in sample.items():
        try:
            wanted = [*histories, "repetition"]
            runs = pa.concat_tables([location.read_table(f"{RUNS}/{file.path}", wanted) for file in files])
            row = stored.filter(pc.equal(stored["experiment_id"], experiment_id))
            if level is None:
                same_statistics(row, summarize_experiment(study.reduction, runs))
            else:
                same_statistics(row, precise_experiment(study.intervals, level, runs))
        except Flaw as flaw:
            yield Finding(flaw.kind, path, flaw.detail)
        except ButterError:  # a torn run file, which is a finding already
            continue


# --- all of it ---------------------------------------------------------------------------------------------------


def run_verification(
    plan: Inventory,
    *,
    values: bool = False,
    client: Client | None = None,
    threads: int | None = None,
    on_progress: Callable[[CheckReport], None] = lambda report: None,
) -> CheckReport:
    """Check everything planned: as Dask tasks on ``client``, else in ``threads`` (as many as there are cores).

    A bounded number of batches is under way at any time, and each holds one file of its partition in memory.
    """
    total = CheckReport(findings=tuple(plan.findings))
    check = partial(_check_batch, url=plan.url, values=values)
    for _, report in map_each(check, _batches(plan.units), client, threads=threads):
        total += report
        on_progress(total)
    return total


def _batches(units: list[Unit]) -> Iterator[list[Unit]]:
    """Yield units in batches of about `_BATCH_BYTES`, so that tiny ones do not drown in overhead."""
    batch: list[Unit] = []
    size = 0
    for unit in units:
        batch.append(unit)
        size += unit.bytes
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_UNITS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check_batch(units: list[Unit], url: str, values: bool) -> CheckReport:
    location = Location(url)
    return sum((check_unit(location, unit, values=values) for unit in units), CheckReport())
