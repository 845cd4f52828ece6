"""Partitioning: any runs into the published directory layout, and subsets of a store out of it.

`partition_runs` brings a frame of runs into the layout of a store. The way out is planned by `plan_export`, which
decides which files of a store belong to an export. `export_file` makes one of them. `run_export` makes all, with what a
published data set carries, and removes what does not belong.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from butter_etl.clusters import Sealed
from butter_etl.errors import ButterError, NotebookBar, SelectError, StoreError, html_table, one_line, unwritten
from butter_etl.exchange import (
    CROISSANT,
    README,
    ExportDirectory,
    ExportFile,
    ExportOptions,
    FileScan,
    ImportReport,
    ImportSettings,
    ManifestDirectory,
    ManifestFile,
    ManifestSource,
    Prefer,
    Publication,
    Workers,
    bring_in,
    check_columns,
    check_place,
    conform,
    counted_origins,
    croissant_json,
    data_card,
    export_formatted,
    filter_file,
    find_profile,
    gather_files,
    manifest_sources,
    open_spool_folder,
    plan_export,
    plan_key,
    publication_day,
    run_import,
    spool_rows,
    study_of,
    unknown_columns,
    write_archive,
)
from butter_etl.store import (
    COMMON_METADATA,
    Location,
    Registry,
    Store,
    StudyLike,
    common_metadata,
    keep_attribution,
    read_origins,
    read_schema,
)
from butter_etl.studies import (
    Attribution,
    Choice,
    Origin,
    Study,
    check_attribution,
    citation,
    license_text,
    origin_references,
    origin_terms,
)

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    from distributed import Client


def partition_runs(
    frame: dd.DataFrame,
    dest: str | os.PathLike[str],
    *,
    state: str | os.PathLike[str] | None = None,
    prefer: Prefer | None = None,
    study: StudyLike | None = None,
) -> ImportReport:
    """Repartition a run frame on the keys of its study into the store at ``dest``, each run once.

    The rows are shuffled by experiment through files in the state folder, so that neither their number nor the order
    matters to memory. Idempotent and resumable. Experiments outside the published sweeps keep their id if it is free
    in ``dest``. ``study`` is that of the store, needed where that is new and not of the default one. Raises what
    `run_import` raises; nothing has been landed then.
    """
    from dask.base import compute
    from dask.delayed import delayed

    of = study_of(dest, state, study)
    with open_spool_folder(dest, state, of) as (spool_folder, state_folder):
        settings = ImportSettings(of, "", "seed", Location(dest).absolute, str(state_folder), str(spool_folder), prefer)
        spool = delayed(partial(_spool_frame, study=Sealed(of), folder=str(spool_folder)))
        spooled = [spool(part) for part in frame.to_delayed()]
        scans = list(compute(*spooled))
        report = bring_in(scans, settings, Workers(_active_client(), lambda *_: None))
    return msgspec.structs.replace(report, warnings=tuple(unknown_columns(scans, "seed")))


def _spool_frame(frame: pd.DataFrame, study: Sealed[Study], folder: str) -> FileScan:
    of = study.open()
    rows, profile = pa.Table.from_pandas(frame, preserve_index=False), find_profile(of, "seed")
    unknown = check_columns(of, rows.schema, (), profile, "the frame")
    rows = conform(rows, {}, profile, of.runs, "the frame")
    return replace(spool_rows(of, rows, folder, "the frame"), unknown=unknown)


def _active_client() -> Client | None:
    from distributed import default_client

    try:
        client: Client = default_client()
    except ValueError:
        return None
    return client


#: What plans an export is part of the stage for those who use it.
__all__ = ["ExportOptions", "ExportReport", "export_file", "partition_runs", "plan_export", "run_export"]

CITATION, LICENSE = "CITATION.cff", "LICENSE"
#: Threads that make files of an export: linking and hashing wait for the disk, copying for the network.
_THREADS = 8
#: Files between two reports of progress.
_BATCH = 256


# --- one unit of work --------------------------------------------------------------------------------------------


def export_files(
    store: Store, publication: Publication, directory: ExportDirectory, file: ExportFile
) -> list[ManifestFile]:
    """Make one file of an export, or those of its runs in the directory's format; return their entries in the manifest.

    Raises TornFileError if a source that is to be decoded cannot be.
    """
    if directory.form is not None:
        return export_formatted(store, publication, directory, directory.form, file)
    return [export_file(store, publication, directory, file)]


def export_file(store: Store, publication: Publication, directory: ExportDirectory, file: ExportFile) -> ManifestFile:
    """Make one file of an export, and return its entry in the manifest.

    A file whose every row belongs is linked (or copied, where no link can be made) without decoding. Raises
    TornFileError if a source that is to be decoded cannot be.
    """
    target = f"{directory.name}/{file.name}"
    sources = [f"{directory.frame.folder}/{name}" for name in file.sources]
    if file.is_whole:
        return publication.add_whole(store.location, sources[0], target, file.rows)
    encodings = store.study.encodings
    if file.experiments is not None:
        some = file.experiments
        return publication.add_made(
            target, file.rows, lambda dest, name: filter_file(store.location, sources[0], dest, name, some, encodings)
        )
    schema = store.study.without_keys(directory.frame.schema)
    return publication.add_made(
        target, file.rows, lambda dest, name: gather_files(store.location, sources, dest, name, schema, encodings)
    )


# --- the whole export --------------------------------------------------------------------------------------------


class ExportReport(msgspec.Struct, frozen=True):
    """The contents of an export: directories with their numbers of files and experiments, and archives.

    ``changed`` says whether anything at the destination is other than before; ``bytes`` counts files and archives.
    """

    directories: tuple[tuple[str, int, int], ...]
    archives: tuple[str, ...]
    bytes: int = 0
    changed: bool = True

    def _repr_html_(self) -> str:
        """Return the directories as a notebook shows them."""
        return html_table(self.directories, ("directory", "files", "experiments"))


def export(
    store: str | os.PathLike[str],
    dest: str | os.PathLike[str],
    *,
    sweep: str | Iterable[str] = (),
    where: Iterable[str] = (),
    everything: bool = False,
    runs: bool = True,
    summary: bool = True,
    tar: bool = False,
    compact: bool = False,
    authors: str | Iterable[str] = (),
    title: str | None = None,
    license_id: str | None = None,
    doi: str | None = None,
    allow_stale: bool = False,
    options: ExportOptions | None = None,
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
) -> ExportReport:
    """Copy a part of a store to ``dest`` in the published layout, as ``butter-etl export`` does.

    The part is one sweep or several, experiments that meet conditions (as in `read_runs`), or with ``everything`` all.
    The arguments from ``runs`` to ``allow_stale`` are the options of the command; an author is written ``"Family,
    Given <ORCID>"``, ``license_id`` is SPDX's. ``options``, if given, take the place of these. A notebook shows the
    progress. Raises SelectError where nothing is named, UsageError for an author, licence or DOI that is none,
    StaleSummaryError where summaries miss runs, and what `run_export` raises.
    """
    choice = Choice(sweeps=_several(sweep), where=tuple(where))
    how = options or ExportOptions(
        runs=runs,
        summary=summary,
        tar=tar,
        compact=compact,
        allow_stale=allow_stale,
        attribution=check_attribution(_several(authors), title, license_id, doi),
    )
    if choice.is_empty and not everything:
        raise SelectError("name what to export: a sweep, conditions, or everything")
    opened = Store.open(store, state, study)
    plan = plan_export(opened, Registry(opened).select(choice), how, everything=everything)
    with NotebookBar("files", sum(len(directory.files) for directory in plan)) as bar:
        return run_export(plan, opened, Location(dest), how, bar.update)


def _several(texts: str | Iterable[str]) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


def import_runs(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    profile: str = "seed",
    prefer: Prefer | None = None,
    client: Client | None = None,
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
    origin: Origin | None = None,
    form: str | None = None,
) -> ImportReport:
    """Bring the runs of a store, an export or a folder of Parquet files into a store, as ``butter-etl import`` does.

    The store is made if it is not there; the same again changes nothing. ``prefer`` says whose run stays where two of
    one id differ. The store keeps what the source says of itself, and exports say it too; ``origin`` adds to that, or
    corrects it. ``form`` is the format of the source's files, where they do not tell it; those of a format of the
    study's are read one by one, and what is wrong with one is in the report. A notebook shows the progress. Raises what
    is wrong with the source, before anything is landed: SelectError, SourceError, TornFileError, SpecError,
    DuplicateError, DatasetError, StudyError.
    """
    with NotebookBar("files scanned", 0) as bar:
        return run_import(
            source,
            store,
            profile=profile,
            prefer=prefer,
            state=state,
            client=client,
            on_progress=bar.step,
            study=study,
            origin=origin,
            form=form,
        )


def run_export(
    plan: list[ExportDirectory],
    store: Store,
    dest: Location,
    options: ExportOptions,
    on_progress: Callable[[int], None] = lambda files: None,
) -> ExportReport:
    """Make every planned directory at ``dest``, with the card, manifest and metadata of the whole data set.

    Nothing takes its place before all of it is made (see `butter_etl.exchange.publication`); the same export again
    changes nothing. Raises StoreError if ``dest`` is in the store, or has something in the way that no export made;
    LandingError if it cannot be written.
    """
    _check_destination(plan, store, dest)
    publication_day()  # complain of it before anything is made
    names = [directory.name for directory in plan]
    try:
        with Publication(store.study, dest, names, plan_key(plan, store.location)) as publication:
            return _publish(plan, store, publication, options, on_progress)
    except ButterError:
        raise
    except OSError as error:
        message = f"the export could not be finished ({one_line(error)}); mend that and give the same command again"
        raise unwritten(error, f"{dest}: {message}") from error


def _publish(
    plan: list[ExportDirectory],
    store: Store,
    publication: Publication,
    options: ExportOptions,
    on_progress: Callable[[int], None],
) -> ExportReport:
    files: list[ManifestFile] = []
    facts, counts, archives, done = [], [], [], 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for directory in plan:
            made, schema = [], _schema_of(publication, directory)
            for batch in _batches(directory.files):
                for some in pool.map(partial(export_files, store, publication, directory), batch):
                    made.extend(some)
                done += len(batch)
                publication.beat()
                on_progress(done)
            _refuse_shared_names(directory, made)
            files += [*schema, *made]
            facts.append(_facts(directory, len(made), sum(file.bytes for file in (*schema, *made))))
            counts.append((directory.name, len(made), directory.experiments))
            if options.tar and directory.frame.kind != "runs":
                archives.append(f"{directory.name}.tar")
                files.append(_archive(publication, directory, [*schema, *made]))
    schemas = {directory.name: directory.frame.schema for directory in plan if directory.form is None}
    cards = partial(_cards, study=store.study, schemas=schemas, dest=publication.dest)
    attribution = keep_attribution(store.location, options.attribution)
    experiments = {directory.name: directory.chosen.experiments for directory in plan}
    sources = manifest_sources(read_origins(store.location), experiments)
    changed = publication.publish(facts, files, attribution, sources, cards)
    return ExportReport(tuple(counts), tuple(archives), sum(file.bytes for file in files), changed)


def _schema_of(publication: Publication, directory: ExportDirectory) -> list[ManifestFile]:
    """Add the schema of a directory of Parquet files; return its entry, nothing for other directories."""
    if directory.form is not None:
        return []
    return [publication.add_bytes(f"{directory.name}/{COMMON_METADATA}", common_metadata(directory.frame.schema))]


def _refuse_shared_names(directory: ExportDirectory, made: list[ManifestFile]) -> None:
    names = sorted(file.path for file in made)
    if again := [one for one, other in pairwise(names) if one == other]:
        raise StoreError(
            f"{again[0]}: two runs have this name in the format {directory.frame.kind}; export one of them"
        )


def _batches(files: tuple[ExportFile, ...]) -> Iterator[tuple[ExportFile, ...]]:
    for start in range(0, len(files), _BATCH):
        yield files[start : start + _BATCH]


def _archive(publication: Publication, directory: ExportDirectory, files: list[ManifestFile]) -> ManifestFile:
    target = f"{directory.name}.tar"
    members = [file.path.removeprefix(f"{directory.name}/") for file in files]
    return publication.add_made(target, None, lambda dest, _: write_archive(dest, directory.name, members))


def _facts(directory: ExportDirectory, files: int, size: int) -> ManifestDirectory:
    return ManifestDirectory(
        name=directory.name,
        frame=directory.frame.kind,
        sweep=directory.chosen.sweep,
        where=directory.chosen.where,
        files=files,
        experiments=directory.experiments,
        rows=directory.rows,
        bytes=size,
        values=directory.chosen.values,
    )


def _cards(
    directories: Iterable[ManifestDirectory],
    files: Iterable[ManifestFile],
    attribution: Attribution,
    sources: Iterable[ManifestSource],
    *,
    study: Study,
    schemas: dict[str, pa.Schema],
    dest: Location,
) -> dict[str, bytes]:
    """Return the files that describe the data set as a whole, directories of earlier exports included, by name."""
    there, present, card = list(directories), list(files), study.card
    origins = counted_origins(sources)
    for one in there:
        if one.name not in schemas and one.frame not in study.formats:
            schemas[one.name] = read_schema(dest, one.name)
    return {
        README: data_card(study, there, present, attribution, origins).encode(),
        CROISSANT: croissant_json(study, there, present, schemas, attribution, origins).encode(),
        CITATION: citation(card, attribution, origin_references(card, origins)).encode(),
        LICENSE: (license_text(card, attribution) + origin_terms(card, origins)).encode(),
    }


def _check_destination(plan: list[ExportDirectory], store: Store, dest: Location) -> None:
    if store.location.contains(dest):
        raise StoreError(f"{dest}: lies in the store; export to a folder outside it")
    dest.require_bucket()
    check_place(dest, [directory.name for directory in plan], (README, CROISSANT, CITATION, LICENSE))
