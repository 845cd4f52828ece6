"""Any runs into the layout of a store: Parquet files of other layouts and schemas, other stores, Dask dataframes.

`run_import` works in steps, and lands nothing before every file and every run has been checked:

1. scan: read the small columns of all files: which rows belong to which experiment;
2. spool: groups of rows that hold many experiments are rewritten to local files of one experiment a record batch (this
   is the shuffle: each row moves once, whatever the number of experiments);
3. check: compare runs that are there, or stand twice in the source;
4. land: experiments that have no id get one, and each experiment's rows are landed by one task.

`partition_runs` is the same for a Dask dataframe, whose partitions are spooled.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from butter_etl.arrivals import Arrival, Item, gather, must_spool, pack, without
from butter_etl.data_copies import adopt_copy, copy_names, read_kept
from butter_etl.datasets import info_of
from butter_etl.errors import (
    ButterError,
    DuplicateError,
    LandingError,
    SourceError,
    SpecError,
    StoreError,
    one_line,
)
from butter_etl.import_tasks import Rows, Settings, check_items, land_items, scan_files, spool_groups
from butter_etl.location import Location
from butter_etl.locks import Holder, is_dead, this_process
from butter_etl.merging import Merged, Prefer, too_many
from butter_etl.profiles import PROFILES, check_columns, conform, find_profile
from butter_etl.registry import Newcomer, Registry
from butter_etl.schema import RUN_SCHEMA
from butter_etl.sources import (
    SLICE_BYTES,
    Example,
    FileScan,
    Group,
    GroupScan,
    Source,
    hash_ids,
    list_source,
    spool_rows,
)
from butter_etl.spec import MAX_REPETITIONS, ExperimentSpec
from butter_etl.store import STATE, SWEEPS, Store

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    from distributed import Client

_SCAN_FILES = 64
#: Names of temporary files, all of them in the spool folder: a store that is about to be made counts as empty.
_OWNER = "owner.tmp"

Progress = Callable[[str, int, int], None]
Each = Callable[..., list[Any]]
T = TypeVar("T")
R = TypeVar("R")


class ImportReport(msgspec.Struct, frozen=True):
    """What an import did, in runs, and what the user should know of the source."""

    experiments: int
    landed: int
    present: int
    replaced: int
    warnings: tuple[str, ...] = ()


# --- the whole import --------------------------------------------------------------------------------------------


def run_import(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    profile: str = "seed",
    prefer: Prefer | None = None,
    state: str | os.PathLike[str] | None = None,
    client: Client | None = None,
    on_progress: Progress = lambda step, done, total: None,
) -> ImportReport:
    """Bring the runs of ``source`` into ``store``, which is made if it is not there; the same again changes nothing.

    Tasks run on ``client``, without one on threads of this process. Raises SelectError for an unknown profile,
    SourceError, TornFileError or SpecError for what is wrong with the source, DuplicateError for runs that differ from
    those of the same id, DatasetError for own data sets that share a name; nothing has been landed then.
    """
    find_profile(profile)
    found = list_source(source)
    _refuse_itself(found, Location(store))
    each = partial(_each, client=client)
    batches = [found.files[start : start + _SCAN_FILES] for start in range(0, len(found.files), _SCAN_FILES)]
    scanned = each(partial(scan_files, source=found.url, profile=profile), batches, "files scanned", on_progress)
    scans = [scan for batch in scanned for scan in batch]
    with _spool_folder(store, state) as (spool_folder, state_folder):
        settings = Settings(found.url, profile, Location(store).absolute, str(state_folder), str(spool_folder), prefer)
        report = _bring_in(scans, settings, each, on_progress, found)
    return msgspec.structs.replace(report, warnings=(*_warnings(found, scans, profile), *report.warnings))


def partition_runs(
    frame: dd.DataFrame,
    dest: str | os.PathLike[str],
    *,
    state: str | os.PathLike[str] | None = None,
    prefer: Prefer | None = None,
) -> ImportReport:
    """Repartition a run frame on the eight keys into the store at ``dest``, each run once.

    The rows are shuffled by experiment through files in the state folder, so that neither their number nor the order
    matters to memory. Idempotent and resumable. Experiments outside the published sweeps keep their id if it is free
    in ``dest``. Raises what `run_import` raises; nothing has been landed then.
    """
    from dask.base import compute
    from dask.delayed import delayed

    with _spool_folder(dest, state) as (spool_folder, state_folder):
        settings = Settings("", "seed", Location(dest).absolute, str(state_folder), str(spool_folder), prefer)
        spooled = [delayed(_spool_frame)(part, str(spool_folder)) for part in frame.to_delayed()]
        scans = list(compute(*spooled))
        report = _bring_in(scans, settings, partial(_each, client=_active_client()), lambda *_: None)
    return msgspec.structs.replace(report, warnings=tuple(_unknown_columns(scans, "seed")))


def _spool_frame(frame: pd.DataFrame, folder: str) -> FileScan:
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    unknown = check_columns(rows.schema, (), PROFILES["seed"], "the frame")
    rows = conform(rows, {}, PROFILES["seed"], RUN_SCHEMA, "the frame")
    return replace(spool_rows(rows, folder, "the frame"), unknown=unknown)


def _active_client() -> Client | None:
    from distributed import default_client

    try:
        client: Client = default_client()
    except ValueError:
        return None
    return client


def _each(
    function: Callable[[T], R], tasks: Sequence[T], step: str, on_progress: Progress, client: Client | None
) -> list[R]:
    """The results of a function for each task, in their order; the first error ends it."""
    if client is None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = []
            for result in pool.map(function, tasks):
                results.append(result)
                on_progress(step, len(results), len(tasks))
            return results
    from distributed import as_completed

    futures = client.map(function, tasks, pure=False)
    places = {future.key: place for place, future in enumerate(futures)}
    found: dict[int, Any] = {}
    try:
        for future in as_completed(futures):
            found[places[future.key]] = future.result()
            future.release()
            on_progress(step, len(found), len(tasks))
    except BaseException:
        client.cancel(futures)
        raise
    return [found[place] for place in range(len(tasks))]


def _bring_in(
    scans: list[FileScan], settings: Settings, each: Each, on_progress: Progress, source: Source | None = None
) -> ImportReport:
    dest = Store.find(settings.store, settings.state)
    items = gather(scans, Registry(dest))
    _refuse_shared_ids(items, settings)
    spooled = must_spool(items, {one.group: one.bytes for scan in scans for one in scan.groups})
    if spooled:
        scans = _spooled(scans, spooled, settings, each, on_progress)
        items = gather(scans, Registry(dest))
    experiments = len(items)
    _refuse_other_content(items, source, dest)
    items, there, kept = _checked(items, dest, settings, each, on_progress)
    store = Store.create(settings.store, settings.state)
    _bring_data(source, store)
    warnings = tuple(_bring_sweeps(source, store))
    items = _with_ids(items, store)
    total = Merged(present=there)
    for done in each(partial(land_items, settings=settings), list(pack(items)), "tasks landed", on_progress):
        total = total.plus(done)
    return ImportReport(experiments, *total, warnings=(*warnings, *kept))


def _spooled(
    scans: list[FileScan], chosen: set[Group], settings: Settings, each: Each, on_progress: Progress
) -> list[FileScan]:
    """The scans with some groups replaced by what they were spooled to."""
    tasks: list[list[GroupScan]] = [[]]
    for one in (one for scan in scans for one in scan.groups if one.group in chosen):
        if sum(other.bytes for other in tasks[-1]) > SLICE_BYTES:
            tasks.append([])
        tasks[-1].append(one)
    made = each(partial(spool_groups, settings=settings), tasks, "tasks spooled", on_progress)
    places = [one.group for task in tasks for one in task]
    spools = dict(zip(places, (groups for task in made for groups in task), strict=True))
    return [
        replace(scan, groups=[new for one in scan.groups for new in spools.get(one.group, [one])]) for scan in scans
    ]


def _checked(
    items: list[Item], dest: Store | None, settings: Settings, each: Each, on_progress: Progress
) -> tuple[list[Item], int, tuple[str, ...]]:
    """What is left to be landed, the number of runs that are there, and warnings; raises what forbids the import."""
    there = _experiments_there(items, dest)
    suspects: list[Item] = []
    left: list[Item] = []
    for item in items:
        is_suspect = item.repeats or item.arrival.experiment_id in there
        (suspects if is_suspect else left).append(item)
        if not is_suspect and item.rows > MAX_REPETITIONS:
            raise SpecError(too_many(item.arrival, 0, item.rows))
    checked = each(partial(check_items, settings=settings), list(pack(suspects)), "tasks checked", on_progress)
    found = [one for task in checked for one in task]
    _refuse([one.problem for one in found if one.problem])
    present = kept = 0
    for item, one in zip(suspects, found, strict=True):
        rest = without(item, one.there)
        if one.new or (one.conflicts and settings.prefer == "source"):
            left.append(rest)
            present += item.rows - rest.rows
        else:
            present += item.rows
        kept += one.conflicts if settings.prefer == "store" else 0
    text = f"{kept} runs differ from those of the same run_id that are there; the store's were kept"
    return left, present, (text,) if kept else ()


def _refuse(problems: list[ButterError]) -> None:
    if not problems:
        return
    more = f" (and {len(problems) - 1} more experiments are refused)" if len(problems) > 1 else ""
    raise type(problems[0])(f"{problems[0]}{more}")


def _experiments_there(items: list[Item], dest: Store | None) -> set[int | None]:
    """The ids of the experiments that have runs in the partitions of the source's."""
    if dest is None:
        return set()
    partitions = sorted({item.arrival.partition for item in items if item.arrival.experiment_id is not None})
    return {file.experiment_id for partition in partitions for file in dest.run_files(partition)}


def _refuse_shared_ids(items: list[Item], settings: Settings) -> None:
    """Raise DuplicateError if runs of different experiments have one run_id."""
    if not items:
        return
    hashes = np.concatenate([np.unique(item.run_ids) for item in items])
    owners = np.repeat(np.arange(len(items)), [np.unique(item.run_ids).size for item in items])
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if again.size:
        one, other = (items[owners[order[place]]] for place in (again[0], again[0] + 1))
        name = _run_id_of(one, hashes[order[again[0]]], settings)
        raise DuplicateError(
            f"run {name} stands in the source twice, in {one.arrival.describe()} and in {other.arrival.describe()}; "
            f"{again.size} runs are of several experiments"
        )


def _run_id_of(item: Item, wanted: np.uint64, settings: Settings) -> str:
    """The id that has a hash."""
    names = Rows([item], settings).of(item)["run_id"]
    return str(names[int(np.flatnonzero(hash_ids(names) == wanted)[0])])


def _with_ids(items: list[Item], store: Store) -> list[Item]:
    """The experiments with their ids in the store; those that have none get one."""
    registry = Registry(store)
    ordered = sorted(
        items, key=lambda item: (item.example.experiment_id or 0, item.example.experiment.canonical_json())
    )
    registry.adopt(store, {item.arrival.experiment: _newcomer(item.example) for item in ordered})
    return [
        replace(item, arrival=Arrival(item.arrival.experiment, registry.experiment_id(item.arrival.experiment)))
        for item in items
    ]


def _newcomer(example: Example) -> Newcomer:
    return Newcomer(
        example.batch, example.experiment_id, example.num_free_parameters, example.widths, example.network_structure
    )


def _refuse_other_content(items: Iterable[Item], source: Source | None, dest: Store | None) -> None:
    """Raise DatasetError if users' own data sets of a source share a name with others, there or in the store."""
    experiments = (item.arrival.experiment for item in items)
    own = {info_of(spec) for spec in experiments if isinstance(spec, ExperimentSpec) and spec.own}
    if source is not None and source.is_store:
        location = Location(source.url)
        own |= {kept.info for name in copy_names(location) if (kept := read_kept(location, name))}
    Registry(dest).refuse_other_content(sorted(own, key=str))


def _bring_data(source: Source | None, store: Store) -> None:
    """Keep the own data sets of a source that is a store."""
    if source is not None and source.is_store:
        location = Location(source.url)
        for name in copy_names(location):
            adopt_copy(store, location, name)


def _bring_sweeps(source: Source | None, store: Store) -> Iterator[str]:
    """Register the custom sweeps of a source that is a store; a line for each that cannot be."""
    if source is None or not source.is_store:
        return
    location = Location(source.url)
    for name in (name for name in location.names(SWEEPS) if name.endswith(".yaml")):
        content = location.read_bytes(f"{SWEEPS}/{name}")
        target = f"{SWEEPS}/{name}"
        if not store.location.write_new(target, content) and store.location.read_bytes(target) != content:
            yield f"{store} has another sweep called {name.removesuffix('.yaml')!r}; it was kept"


def _refuse_itself(source: Source, dest: Location) -> None:
    root = Location(source.url)
    if root.filesystem.equals(dest.filesystem) and f"{root.root}/".startswith(f"{dest.root}/"):
        raise SourceError(f"{source.url}: lies in the store {dest}; name another source")


def _warnings(source: Source, scans: Iterable[FileScan], profile: str) -> Iterator[str]:
    """What of a source does not come along."""
    yield from _unknown_columns(scans, profile)
    if source.left_out:
        more = f" and {len(source.left_out) - 3} more" if len(source.left_out) > 3 else ""
        yield f"files that are not Parquet are left out: {', '.join(source.left_out[:3])}{more}"


def _unknown_columns(scans: Iterable[FileScan], profile: str) -> Iterator[str]:
    unknown = list(dict.fromkeys(name for scan in scans for name in scan.unknown))
    if unknown:
        yield f"columns that profile {profile!r} does not know are left out: {', '.join(unknown)}"


# --- the spool folder --------------------------------------------------------------------------------------------


@contextmanager
def _spool_folder(store: str | os.PathLike[str], state: str | os.PathLike[str] | None) -> Iterator[tuple[Path, Path]]:
    """A folder of this import in the state folder, and the state folder; what killed imports left is taken away."""
    found = Store.find(store, state)
    if found is not None:
        root = found.state
    elif state is not None:
        root = Path(state).absolute()
    elif Location(store).is_local:
        root = Path(Location(store).path(STATE))
    else:
        raise StoreError(f"{store}: an object store needs --state DIR, a folder on a POSIX file system")
    spools = root / "imports"
    for owner in spools.glob(f"*/{_OWNER}"):
        with suppress(FileNotFoundError):
            if is_dead(msgspec.json.decode(owner.read_bytes(), type=Holder)):
                shutil.rmtree(owner.parent)
    holder = this_process()
    folder = spools / holder.token
    try:
        folder.mkdir(parents=True)
        (folder / _OWNER).write_bytes(msgspec.json.encode(holder))
    except OSError as error:
        raise LandingError(f"{root}: cannot be written ({one_line(error)})") from error
    try:
        yield folder, root
    finally:
        shutil.rmtree(folder)
        with suppress(OSError):  # what was not there before, and is empty, does not stay
            spools.rmdir()
            if found is None:
                root.rmdir()
                root.parent.rmdir()
