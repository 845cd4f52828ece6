"""The published directory layout: subsets of a store exported in it.

`plan_export` decides which files of a store belong to an export, `export_file` makes one of them, `run_export` makes
all and takes away what does not belong. The way in is `butter_etl.imports`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.archives import write_archive
from butter_etl.errors import StaleSummaryError, StoreError
from butter_etl.fingerprints import fingerprint, read_fingerprints
from butter_etl.location import COMMON_METADATA, Location, parquet_bytes, write_common_metadata
from butter_etl.registry import Registry
from butter_etl.schema import RUN_FILE_SCHEMA, RUN_SCHEMA, SUMMARY_FILE_SCHEMA, SUMMARY_SCHEMA
from butter_etl.selection import Selection
from butter_etl.store import RUNS, SUMMARY, SUMMARY_FILE, RunFile, Store
from butter_etl.sweeps import PUBLISHED

#: `--compact` gathers a partition's run files into files of about this many bytes.
COMPACT_BYTES = 128 * 2**20


# --- plan --------------------------------------------------------------------------------------------------------


class ExportFile(msgspec.Struct, frozen=True):
    """One file of an export: ``source`` names in the store, ``name`` in the exported directory.

    With ``experiments``, only their rows belong to the export. Several sources are gathered into one file.
    """

    name: str
    sources: tuple[str, ...]
    experiments: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ExportDirectory:
    """One exported directory: a run frame or a summary frame in the layout of the published data set."""

    name: str
    schema: pa.Schema
    files: tuple[ExportFile, ...]
    experiments: int


@dataclass(frozen=True)
class ExportOptions:
    """What of a selection is exported, and how."""

    runs: bool = True
    summary: bool = True
    tar: bool = False
    compact: bool = False
    allow_stale: bool = False


def plan_export(
    store: Store, selection: Selection, options: ExportOptions, *, everything: bool = False
) -> list[ExportDirectory]:
    """The directories of an export and the files that belong to each.

    With ``everything``, each sweep of which the store has runs, and the whole store. Raises StaleSummaryError if
    summaries are wanted that do not speak of all runs, unless that is allowed.
    """
    registry = Registry(store)
    files = list(store.run_files())
    specs = {file.experiment_id: registry.experiment(file.experiment_id) for file in files}
    if options.summary and not options.allow_stale:
        _refuse_stale(store, [file for file in files if selection.matches(specs[file.experiment_id])])
    directories = []
    for stem, one in _parts(registry, selection, everything=everything):
        ids = {experiment_id for experiment_id, spec in specs.items() if one.matches(spec)}
        if everything and not ids:
            continue
        runs_name, summary_name = (f"{stem}_sweep_runs", f"{stem}_sweep_summary") if stem else (RUNS, SUMMARY)
        if options.runs:
            own = [file for file in files if file.experiment_id in ids]
            run_files = tuple(_compacted(own) if options.compact else map(_whole_file, own))
            directories.append(ExportDirectory(runs_name, RUN_SCHEMA, run_files, len(ids)))
        if options.summary:
            summaries = tuple(_summary_files(store, ids))
            directories.append(ExportDirectory(summary_name, SUMMARY_SCHEMA, summaries, len(ids)))
    return directories


def _parts(registry: Registry, selection: Selection, *, everything: bool) -> Iterator[tuple[str, Selection]]:
    """The stem of each pair of directories and what it holds; the stem of the whole store is empty."""
    sweeps = selection.sweeps
    if everything:
        sweeps = (*PUBLISHED.values(), *map(registry.sweep, registry.sweep_names()))
    for sweep in sweeps:
        yield sweep.name, Selection((sweep,), selection.conditions)
    if everything or not sweeps:
        yield "", Selection((), selection.conditions)


def _refuse_stale(store: Store, files: list[RunFile]) -> None:
    stale = 0
    for partition, members in groupby(files, key=lambda file: file.partition):
        made_from = read_fingerprints(store.location, f"{SUMMARY}/{partition}/{SUMMARY_FILE}")
        for experiment_id, own in groupby(sorted(members, key=_by_experiment), key=_by_experiment):
            stale += made_from.get(experiment_id) != fingerprint(own)
    if stale:
        raise StaleSummaryError(
            f"{store}: the summaries of {stale} experiments are missing or out of date; "
            "run `butter-etl summarize` first, or pass --allow-stale or --no-summary"
        )


def _by_experiment(file: RunFile) -> int:
    return file.experiment_id


def _whole_file(file: RunFile) -> ExportFile:
    return ExportFile(file.path, (f"{RUNS}/{file.path}",))


def _compacted(files: list[RunFile]) -> Iterator[ExportFile]:
    """Each partition's files gathered by experiment into files of about `COMPACT_BYTES`."""
    for partition, members in groupby(files, key=lambda file: file.partition):
        group: list[RunFile] = []
        number = 0
        for file in sorted(members, key=lambda file: (file.experiment_id, file.first)):
            if group and sum(member.size for member in group) + file.size > COMPACT_BYTES:
                yield _gathered(partition, number, group)
                group, number = [], number + 1
            group.append(file)
        yield _gathered(partition, number, group)


def _gathered(partition: str, number: int, files: list[RunFile]) -> ExportFile:
    return ExportFile(f"{partition}/part-{number:05d}.parquet", tuple(f"{RUNS}/{file.path}" for file in files))


def _summary_files(store: Store, ids: set[int]) -> Iterator[ExportFile]:
    for name, _ in store.location.walk(SUMMARY):
        if not name.endswith(f"/{SUMMARY_FILE}"):
            continue
        rows = read_fingerprints(store.location, f"{SUMMARY}/{name}").keys()
        if own := rows & ids:
            some = None if own == rows else tuple(sorted(own))
            yield ExportFile(name, (f"{SUMMARY}/{name}",), some)


# --- one unit of work --------------------------------------------------------------------------------------------


def export_file(store: Store, dest: Location, directory: str, file: ExportFile) -> None:
    """Make one file of an export; a file that is already linked to its source is left as it is.

    A file whose every row belongs is linked (or copied, where no link can be made) without decoding.
    """
    target = f"{directory}/{file.name}"
    if len(file.sources) == 1 and file.experiments is None:
        _link_or_copy(store.location, file.sources[0], dest, target)
        return
    tables = [store.location.read_table(source) for source in file.sources]
    schema = RUN_FILE_SCHEMA if "run_id" in tables[0].column_names else SUMMARY_FILE_SCHEMA
    table = pa.concat_tables([one.cast(schema).replace_schema_metadata(None) for one in tables])
    if file.experiments is not None:
        table = table.filter(pc.is_in(table["experiment_id"], pa.array(file.experiments, pa.uint32())))
    dest.replace(target, parquet_bytes(table))


def _link_or_copy(source: Location, name: str, dest: Location, target: str) -> None:
    if not (source.is_local and dest.is_local):
        dest.copy(target, source, name)
        return
    origin, final = Path(source.path(name)), Path(dest.path(target))
    if final.exists() and final.samefile(origin):
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    final.unlink(missing_ok=True)
    try:
        os.link(origin, final)
    except OSError:  # another file system, or one without hard links
        dest.copy(target, source, name)


# --- the whole export --------------------------------------------------------------------------------------------


class ExportReport(msgspec.Struct, frozen=True):
    """What an export holds: directories with their numbers of files and experiments, and archives."""

    directories: tuple[tuple[str, int, int], ...]
    archives: tuple[str, ...]


def run_export(
    plan: list[ExportDirectory],
    store: Store,
    dest: Location,
    options: ExportOptions,
    on_progress: Callable[[int], None] = lambda files: None,
) -> ExportReport:
    """Make every planned directory at ``dest``; the same export again changes nothing.

    Raises StoreError if ``dest`` is in the store, or has a folder of one of the names that is no export.
    """
    _check_destination(plan, store, dest)
    archives, done = [], 0
    for directory in plan:
        write_common_metadata(dest, directory.name, directory.schema)
        for file in directory.files:
            export_file(store, dest, directory.name, file)
            done += 1
            on_progress(done)
        _remove_others(dest, directory)
        if options.tar and directory.schema is SUMMARY_SCHEMA:
            names = [COMMON_METADATA, *(file.name for file in directory.files)]
            archives.append(write_archive(dest, directory.name, names))
    counts = tuple((directory.name, len(directory.files), directory.experiments) for directory in plan)
    return ExportReport(counts, tuple(archives))


def _check_destination(plan: list[ExportDirectory], store: Store, dest: Location) -> None:
    if store.location.contains(dest):
        raise StoreError(f"{dest}: lies in the store; export to a folder outside it")
    dest.require_bucket()
    if dest.kind() == pa.fs.FileType.File:
        raise StoreError(f"{dest}: is a file; name a folder")
    for directory in plan:
        found = next(dest.walk(directory.name), None)
        if found is not None and dest.kind(f"{directory.name}/{COMMON_METADATA}") != pa.fs.FileType.File:
            raise StoreError(f"{dest}/{directory.name}: holds other things (it has no {COMMON_METADATA}); move it away")


def _remove_others(dest: Location, directory: ExportDirectory) -> None:
    """Take away what an earlier export had and this one has not."""
    belongs = {COMMON_METADATA, *(file.name for file in directory.files)}
    for name, _ in list(dest.walk(directory.name)):
        if name not in belongs:
            dest.remove(f"{directory.name}/{name}")
