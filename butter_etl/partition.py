"""The published directory layout: frames repartitioned into it, subsets of a store exported in it.

`plan_export` decides which files of a store belong to an export, `export_file` makes one of them, `run_export` makes
all, with what a published data set carries, and takes away what does not belong. `partition_runs` brings any Dask
dataframe of runs into the layout of a store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.archives import write_archive
from butter_etl.attribution import LICENSE_TEXT, citation
from butter_etl.croissant import CROISSANT, croissant
from butter_etl.data_card import README, data_card
from butter_etl.errors import ButterError, LandingError, SpecError, StoreError, one_line
from butter_etl.export_plan import ExportDirectory, ExportFile, ExportOptions, plan_export, plan_key
from butter_etl.frames import is_colocated, to_arrow
from butter_etl.location import COMMON_METADATA, Location, common_metadata
from butter_etl.manifest import ManifestDirectory, ManifestFile
from butter_etl.publication import Publication, check_place
from butter_etl.registry import Registry
from butter_etl.rewriting import filter_file, gather_files
from butter_etl.schema import RUN_FILE_SCHEMA, RUN_SCHEMA, without_keys
from butter_etl.spec import MAX_REPETITIONS, parse_command
from butter_etl.store import Store, partition_path

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

__all__ = [
    "ExportDirectory",
    "ExportFile",
    "ExportOptions",
    "ExportReport",
    "PartitionReport",
    "export_file",
    "partition_runs",
    "plan_export",
    "run_export",
]

CITATION, LICENSE = "CITATION.cff", "LICENSE"
#: Threads that make files of an export: linking and hashing wait for the disk, copying for the network.
_THREADS = 8
#: Files between two reports of progress.
_BATCH = 256


# --- one unit of work --------------------------------------------------------------------------------------------


def export_file(store: Store, publication: Publication, directory: ExportDirectory, file: ExportFile) -> ManifestFile:
    """Make one file of an export, and say what it is.

    A file whose every row belongs is linked (or copied, where no link can be made) without decoding. Raises
    TornFileError if a source that is to be decoded cannot be.
    """
    target = f"{directory.name}/{file.name}"
    sources = [f"{directory.source}/{name}" for name in file.sources]
    if file.is_whole:
        return publication.add_whole(store.location, sources[0], target, file.rows)
    if file.experiments is not None:
        some = file.experiments
        return publication.add_made(
            target, file.rows, lambda dest, name: filter_file(store.location, sources[0], dest, name, some)
        )
    schema = without_keys(directory.schema)
    return publication.add_made(
        target, file.rows, lambda dest, name: gather_files(store.location, sources, dest, name, schema)
    )


# --- the whole export --------------------------------------------------------------------------------------------


class ExportReport(msgspec.Struct, frozen=True):
    """What an export holds: directories with their numbers of files and experiments, and archives.

    ``changed`` says whether anything at the destination is other than before; ``bytes`` counts files and archives.
    """

    directories: tuple[tuple[str, int, int], ...]
    archives: tuple[str, ...]
    bytes: int = 0
    changed: bool = True


def run_export(
    plan: list[ExportDirectory],
    store: Store,
    dest: Location,
    options: ExportOptions,
    on_progress: Callable[[int], None] = lambda files: None,
) -> ExportReport:
    """Make every planned directory at ``dest``, with the card, manifest and metadata of the whole data set.

    Nothing takes its place before all of it is made (see `butter_etl.publication`); the same export again changes
    nothing. Raises StoreError if ``dest`` is in the store, or has something in the way that no export made;
    LandingError if it cannot be written.
    """
    _check_destination(plan, store, dest)
    names = [directory.name for directory in plan]
    try:
        with Publication(dest, names, plan_key(plan, store.location)) as publication:
            return _publish(plan, store, publication, options, on_progress)
    except ButterError:
        raise
    except OSError as error:
        raise LandingError(
            f"{dest}: the export could not be finished ({one_line(error)}); mend that and give the same command again"
        ) from error


def _publish(
    plan: list[ExportDirectory],
    store: Store,
    publication: Publication,
    options: ExportOptions,
    on_progress: Callable[[int], None],
) -> ExportReport:
    files: list[ManifestFile] = []
    facts, archives, done = [], [], 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for directory in plan:
            start = len(files)
            metadata = f"{directory.name}/{COMMON_METADATA}"
            files.append(publication.add_bytes(metadata, common_metadata(directory.schema)))
            for batch in _batches(directory.files):
                files.extend(pool.map(lambda file: export_file(store, publication, directory, file), batch))  # noqa: B023 (the batch is done before the next)
                done += len(batch)
                publication.beat()
                on_progress(done)
            size = sum(file.bytes for file in files[start:])
            facts.append(_facts(directory, size))
            if options.tar and directory.frame != "runs":
                members = [COMMON_METADATA, *(file.name for file in directory.files)]
                archives.append(f"{directory.name}.tar")
                files.append(_archive(publication, directory, members))
    schemas = {directory.name: directory.schema for directory in plan}
    changed = publication.publish(facts, files, lambda all_, present: _cards(all_, present, schemas, publication))
    counts = tuple((directory.name, len(directory.files), directory.experiments) for directory in plan)
    return ExportReport(counts, tuple(archives), sum(file.bytes for file in files), changed)


def _batches(files: tuple[ExportFile, ...]) -> Iterator[tuple[ExportFile, ...]]:
    for start in range(0, len(files), _BATCH):
        yield files[start : start + _BATCH]


def _archive(publication: Publication, directory: ExportDirectory, members: list[str]) -> ManifestFile:
    target = f"{directory.name}.tar"
    return publication.add_made(target, None, lambda dest, _: write_archive(dest, directory.name, members))


def _facts(directory: ExportDirectory, size: int) -> ManifestDirectory:
    return ManifestDirectory(
        name=directory.name,
        frame=directory.frame,
        sweep=directory.chosen.sweep,
        where=directory.chosen.where,
        files=len(directory.files),
        experiments=directory.experiments,
        rows=directory.rows,
        bytes=size,
        values=directory.chosen.values,
    )


def _cards(
    directories: Iterable[ManifestDirectory],
    files: Iterable[ManifestFile],
    schemas: dict[str, pa.Schema],
    publication: Publication,
) -> dict[str, bytes]:
    """What describes the data set as a whole, directories of earlier exports included."""
    there, present = list(directories), list(files)
    for one in there:
        if one.name not in schemas:
            with publication.dest.parquet_file(f"{one.name}/{COMMON_METADATA}") as file:
                schemas[one.name] = file.schema_arrow.remove_metadata()
    return {
        README: data_card(there, present).encode(),
        CROISSANT: croissant(there, present, schemas).encode(),
        CITATION: citation().encode(),
        LICENSE: LICENSE_TEXT.encode(),
    }


def _check_destination(plan: list[ExportDirectory], store: Store, dest: Location) -> None:
    if store.location.contains(dest):
        raise StoreError(f"{dest}: lies in the store; export to a folder outside it")
    dest.require_bucket()
    check_place(dest, [directory.name for directory in plan], (README, CROISSANT, CITATION, LICENSE))


# --- any Dask dataframe ------------------------------------------------------------------------------------------


class PartitionReport(msgspec.Struct, frozen=True):
    """What repartitioning a frame did, in runs."""

    landed: int
    present: int


def partition_runs(frame: dd.DataFrame, dest: str | os.PathLike[str]) -> PartitionReport:
    """Repartition a run frame on the eight keys into the store at ``dest``, each repetition once.

    The rows are shuffled by experiment unless they are together already, and landed where they are: idempotent and
    resumable. Rows without a repetition number get their rank by run_id among their experiment's rows. Experiments
    outside the published sweeps are registered in ``dest`` and keep their id only if it is free there.
    Raises SpecError for rows of another task, for experiments of more than 255 runs, and for those of which only some
    have numbers; LandingError for two rows of one repetition.
    """
    import dask
    import pandas as pd

    store = Store.create(dest)
    ids = _claim_experiments(frame, store)
    if not is_colocated(frame):
        with dask.config.set({"dataframe.shuffle.method": "tasks"}):  # the p2p shuffle cannot carry list columns
            frame = frame.shuffle("experiment_id")
    meta = pd.DataFrame({"landed": pd.Series(dtype="int64"), "present": pd.Series(dtype="int64")})
    state = str(store.state)
    counts = (
        frame.map_partitions(_land_frame, store=store.location.absolute, state=state, ids=ids, meta=meta)
        .sum()
        .compute()
    )
    return PartitionReport(int(counts["landed"]), int(counts["present"]))


def _claim_experiments(frame: dd.DataFrame, store: Store) -> dict[int, int]:
    """The id in ``store`` of each experiment id of a frame; experiments without one get one."""
    examples = frame[["experiment_id", "command", "batch"]].drop_duplicates(subset="experiment_id").compute()
    rows = [(int(old), parse_command(command), batch) for old, command, batch in examples.itertuples(index=False)]
    registry = Registry(store)
    registry.claim(store, {spec: str(batch) for _, spec, batch in rows})
    return {old: _known_id(registry.experiment_id(spec)) for old, spec, _ in rows}


def _known_id(experiment_id: int | None) -> int:
    if experiment_id is None:
        raise AssertionError
    return experiment_id


def _land_frame(frame: pd.DataFrame, store: str, state: str, ids: dict[int, int]) -> pd.DataFrame:
    import pandas as pd

    dest = Store.open(store, state)
    runs = to_arrow(frame, RUN_SCHEMA)
    landed = present = 0
    for old in runs["experiment_id"].unique().sort().to_pylist():
        rows = runs.filter(pc.equal(runs["experiment_id"], old)).sort_by("run_id")
        landing = _land_experiment(dest, ids[old], rows)
        landed, present = landed + landing[0], present + landing[1]
    return pd.DataFrame({"landed": [landed], "present": [present]})


def _land_experiment(dest: Store, experiment_id: int, rows: pa.Table) -> tuple[int, int]:
    if rows.num_rows > MAX_REPETITIONS:
        raise SpecError(f"experiment {experiment_id}: {rows.num_rows} runs, more than {MAX_REPETITIONS}")
    columns = {field.name: _column(rows, field) for field in RUN_FILE_SCHEMA}
    columns["experiment_id"] = pa.array([experiment_id] * rows.num_rows, pa.uint32())
    unnumbered = columns["repetition"].null_count
    if 0 < unnumbered < rows.num_rows:
        raise SpecError(f"experiment {experiment_id}: {unnumbered} of {rows.num_rows} runs have no repetition number")
    if unnumbered:
        columns["repetition"] = pa.array(range(rows.num_rows), pa.uint16())
    partition = partition_path(parse_command(rows["command"][0].as_py()).parameters())
    landing = dest.land(partition, experiment_id, pa.table(columns, schema=RUN_FILE_SCHEMA))
    return landing.landed, landing.present


def _column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    return rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
