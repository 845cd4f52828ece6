"""Import of runs into a store: from Parquet files of other layouts and schemas, other stores, Dask dataframes.

`run_import` works in steps, and lands nothing before every file and every run has been checked:

1. scan: read the small columns of all files, and find the experiment of each row;
2. spool: groups of rows that hold many experiments are rewritten to local files in which those of an experiment lie
   together (this is the shuffle: each row moves once, whatever the number of experiments);
3. check: compare runs that the store has already, or that stand twice in the source;
4. land: experiments that have no id get one, and each experiment's rows are landed by one task.

`partition_runs` is the same for a Dask dataframe, whose partitions are spooled. So are the runs of files that are in a
format of the study's, one file after the other.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from butter_etl.clusters import map_each, thread_count
from butter_etl.errors import (
    ButterError,
    DuplicateError,
    LandingError,
    SourceError,
    SpecError,
    StoreError,
    agreeing,
    counted,
    html_table,
    writing,
)
from butter_etl.exchange.format_sources import FilesRead, list_formatted, read_files, said_otherwise
from butter_etl.exchange.gathering import (
    Gathered,
    gather,
    in_tasks,
    must_spool,
    pack,
    spooled,
    to_spool,
    without,
)
from butter_etl.exchange.import_tasks import ImportSettings, Rows, check_items, land_items, scan_files, spool
from butter_etl.exchange.merging import Merged, Prefer, too_many
from butter_etl.exchange.origins import Stated, state_origins
from butter_etl.exchange.profiles import find_profile
from butter_etl.exchange.sources import Example, FileScan, Source, hash_ids, list_source
from butter_etl.store import (
    STATE,
    SWEEPS,
    Holder,
    Location,
    Newcomer,
    Registry,
    Store,
    StudyLike,
    adopt_copy,
    as_study,
    copy_names,
    is_dead,
    keep_origin,
    new_folder,
    read_kept,
    this_process,
)
from butter_etl.studies import Format, Origin, Study, default_study

if TYPE_CHECKING:
    from distributed import Client

_SCAN_FILES = 64
#: The name ends in ``.tmp``, like all in the spool folder, so that a place with nothing else counts as empty.
_OWNER = "owner.tmp"
OnProgress = Callable[[str, int, int], None]
T = TypeVar("T")
R = TypeVar("R")


class ImportReport(msgspec.Struct, frozen=True):
    """The outcome of an import: counts of experiments and of runs, and what the user should know of the source.

    ``refused`` has a line for each file of a format that could not be read. ``source`` is what was recorded of whose
    the runs are; None where nothing was, since they are the user's own, or there already.
    """

    experiments: int
    landed: int
    present: int
    replaced: int
    warnings: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    source: Origin | None = None

    def _repr_html_(self) -> str:
        """Return the counts, and the warnings, as a notebook shows them."""
        counts = [("experiments", self.experiments), ("runs landed", self.landed), ("there already", self.present)]
        told = "".join(
            html_table([(one,) for one in lines], (head,))
            for head, lines in (("warnings", self.warnings), ("refused", self.refused))
            if lines
        )
        return html_table([*counts, ("replaced", self.replaced)]) + told


# --- the whole import --------------------------------------------------------------------------------------------


def run_import(
    source: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    profile: str = "seed",
    prefer: Prefer | None = None,
    state: str | os.PathLike[str] | None = None,
    client: Client | None = None,
    on_progress: OnProgress = lambda step, done, total: None,
    study: StudyLike | None = None,
    origin: Origin | None = None,
    form: str | None = None,
) -> ImportReport:
    """Bring the runs of ``source`` into ``store``, which is made if it is not there; the same again changes nothing.

    Tasks run on ``client``, without one on threads of this process. ``study`` is that of the store, needed where that
    is new and not of the default one. ``origin`` says of the source what it does not say itself. ``form`` is the format
    of its files, which else they tell; of files that are no Parquet, those that cannot be read are refused one by one,
    and the others brought in. Raises SelectError for an unknown profile or format, SourceError, TornFileError or
    SpecError for what is wrong with the source, DuplicateError for runs that differ from those of the same id,
    DatasetError for own data sets that share a name, StudyError where the store is of another study; nothing has been
    landed then.
    """
    of = study_of(store, state, study)
    find_profile(of, profile)
    formatted = list_formatted(of, source, form)
    found = formatted[1] if formatted else list_source(of, source)
    _refuse_itself(found, Location(store))
    stated = state_origins(of, found, Location(source), profile, origin or Origin())
    workers = Workers(client, on_progress)
    if formatted:
        with open_spool_folder(store, state, of) as (spool_folder, state_folder):
            settings = ImportSettings(
                of, "", profile, Location(store).absolute, str(state_folder), str(spool_folder), prefer
            )
            return _import_formatted(formatted[0], found, settings, workers, stated)
    a_task = max(1, min(_SCAN_FILES, len(found.files) // (4 * workers.threads)))
    batches = [found.files[start : start + a_task] for start in range(0, len(found.files), a_task)]
    scanned = workers.each(partial(scan_files, study=of, source=found.url, profile=profile), batches, "files scanned")
    scans = [scan for batch in scanned for scan in batch]
    with open_spool_folder(store, state, of) as (spool_folder, state_folder):
        settings = ImportSettings(
            of, found.url, profile, Location(store).absolute, str(state_folder), str(spool_folder), prefer
        )
        report = bring_in(scans, settings, workers, found, stated)
    told = (*_warnings(found, scans, profile), *stated.warnings)
    return msgspec.structs.replace(report, warnings=(*told, *report.warnings))


def _import_formatted(
    form: Format, source: Source, settings: ImportSettings, workers: Workers, stated: Stated
) -> ImportReport:
    """Read all files of a format, and bring their runs in; raise SourceError if none of them can be read."""
    tasks = list(in_tasks(source.files, [size for _, size in source.files], workers.threads))
    reader = partial(read_files, url=source.url, form=form.name, settings=settings)
    done = workers.each(reader, tasks, "tasks read")
    if without := said_otherwise(done):  # seldom: all is read again, without them
        done = workers.each(partial(reader, without=without), tasks, "tasks read")
    scans = [scan for one in done for scan in one.scans]
    refused = sorted(line for one in done for line in one.refused)
    if not scans:
        more = f" (and {counted(len(refused) - 1, 'more file')})" if len(refused) > 1 else ""
        reason = (
            f"{refused[0]}{more}" if refused else f"{source.url}: its archives hold no {form.noun} (*{form.suffix})"
        )
        raise SourceError(reason)
    report = bring_in(scans, settings, workers, source, stated)
    _refuse_uncounted(scans, report, source)
    told = (*_formatted_warnings(form, source, done), *stated.warnings)
    return msgspec.structs.replace(report, warnings=(*told, *report.warnings), refused=tuple(refused))


def _refuse_uncounted(scans: Iterable[FileScan], report: ImportReport, source: Source) -> None:
    """Raise LandingError unless each run that was read has been landed, or was there."""
    read = sum(group.keys.size for scan in scans for group in scan.groups)
    counts = report.landed + report.present + report.replaced
    if counts != read:
        raise LandingError(f"{source.url}: of {counted(read, 'run')} that were read, {counts:,} are in the store")


def _formatted_warnings(form: Format, source: Source, done: Iterable[FilesRead]) -> Iterator[str]:
    """Yield what the user should know of files of a format that were read."""
    if respelled := [line for one in done for line in one.respelled]:
        more = f", and {len(respelled) - 1} more such differences" if len(respelled) > 1 else ""
        yield f"exports write some of this otherwise: {respelled[0]}{more}"
    yield from _left_out(source, form.suffix)


def study_of(store: str | os.PathLike[str], state: str | os.PathLike[str] | None, study: StudyLike | None) -> Study:
    """Return the study of the store that runs are brought into: its own, else ``study``, else the default one.

    Raises what `Store.find` raises.
    """
    found = Store.find(store, state, study)
    return found.study if found else as_study(study) or default_study()


class Workers:
    """Runs tasks on the threads of a cluster's workers, or of this process."""

    def __init__(self, client: Client | None, on_progress: OnProgress) -> None:
        self._client, self._on_progress = client, on_progress
        self.threads = thread_count(client)

    def each(self, function: Callable[[T], R], tasks: Sequence[T], step: str) -> list[R]:
        """Return the results of a function for each task, in their order; the first error ends it."""
        results: dict[int, R] = {}
        for place, result in map_each(function, tasks, self._client):
            results[place] = result
            self._on_progress(step, len(results), len(tasks))
        return [results[place] for place in range(len(tasks))]


def bring_in(
    scans: list[FileScan],
    settings: ImportSettings,
    workers: Workers,
    source: Source | None = None,
    stated: Stated | None = None,
) -> ImportReport:
    """Check the runs that were scanned, give their experiments ids, and land them; return what was done."""
    study = settings.study
    dest = Store.find(settings.store, settings.state, study)
    items = gather(scans, Registry(dest, study))
    _refuse_shared_ids(items, settings)
    mixed = must_spool(items, {one.group: one.bytes for scan in scans for one in scan.groups}, workers.threads)
    if mixed:
        groups = to_spool(scans, items, mixed)
        spools = list(in_tasks(groups, [one.bytes for one in groups], workers.threads))
        made = workers.each(partial(spool, settings=settings), spools, "tasks spooled")
        items = spooled(items, mixed, (one for task in made for one in task))
    experiments = len(items)
    _refuse_other_content(items, source, Registry(dest, study))
    found, (items, there, kept) = items, _checked(items, dest, settings, workers)
    store = Store.create(settings.store, settings.state, study)
    _bring_data(source, store)
    warnings = tuple(_bring_sweeps(source, store))
    items = _with_ids(items, store)
    recorded = _keep_origins(stated or Stated(), items, found, store)
    total = Merged(present=there)
    tasks = list(pack(items, workers.threads))
    for done in workers.each(partial(land_items, settings=settings), tasks, "tasks landed"):
        total = total.plus(done)
    return ImportReport(experiments, *total, warnings=(*warnings, *kept), source=recorded)


def _checked(
    items: list[Gathered], dest: Store | None, settings: ImportSettings, workers: Workers
) -> tuple[list[Gathered], int, tuple[str, ...]]:
    """Return what is left to be landed, the number of runs that are there, and warnings.

    Raises SpecError or DuplicateError for what forbids the import.
    """
    there = _experiments_there(items, dest)
    suspects: list[Gathered] = []
    left: list[Gathered] = []
    for item in items:
        is_suspect = item.repeats or item.arrival.experiment_id in there
        (suspects if is_suspect else left).append(item)
        if not is_suspect and item.rows > settings.study.max_runs:
            raise SpecError(too_many(settings.study, item.arrival, 0, item.rows))
    tasks = list(pack(suspects, workers.threads))
    checked = workers.each(partial(check_items, settings=settings), tasks, "tasks checked")
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
    differ = f"{counted(kept, 'run')} {agreeing(kept, 'differs', 'differ')}"
    text = f"{differ} from {agreeing(kept, 'that', 'those')} of the same run_id in the store, which kept its own"
    return left, present, (text,) if kept else ()


def _refuse(problems: list[ButterError]) -> None:
    if not problems:
        return
    others = len(problems) - 1
    more = f" (and {counted(others, 'more experiment')} {agreeing(others, 'is', 'are')} refused)" if others else ""
    raise type(problems[0])(f"{problems[0]}{more}")


def _experiments_there(items: list[Gathered], dest: Store | None) -> set[int | None]:
    """Return the ids of the experiments that have runs in the partitions of the source's experiments."""
    if dest is None:
        return set()
    partitions = sorted({item.arrival.partition for item in items if item.arrival.experiment_id is not None})
    return {file.experiment_id for partition in partitions for file in dest.run_files(partition)}


def _refuse_shared_ids(items: list[Gathered], settings: ImportSettings) -> None:
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


def _run_id_of(item: Gathered, wanted: np.uint64, settings: ImportSettings) -> str:
    """Return the run_id of an experiment that has a given hash."""
    names = Rows([item], settings).of(item)["run_id"]
    return str(names[int(np.flatnonzero(hash_ids(names) == wanted)[0])])


def _with_ids(items: list[Gathered], store: Store) -> list[Gathered]:
    """Return the experiments with their ids in the store; those that have none get one."""
    registry = Registry(store)
    ordered = sorted(
        items, key=lambda item: (item.example.experiment_id or 0, item.example.experiment.canonical_json())
    )
    registry.adopt(store, {item.arrival.experiment: _newcomer(item.example) for item in ordered})
    return [
        replace(item, arrival=replace(item.arrival, experiment_id=registry.experiment_id(item.arrival.experiment)))
        for item in items
    ]


def _keep_origins(stated: Stated, items: list[Gathered], found: list[Gathered], store: Store) -> Origin | None:
    """Keep what is known of the sources of the runs that are about to be landed, before any of them is.

    Returns the source that was recorded of them, if one was. Runs that are there already stay whose they are, unless it
    is given whose the source's are.
    """
    ids = {item.arrival.experiment_id: item.example.experiment_id for item in items}
    own = {one for one in ids if one is not None}
    recorded = None
    if stated.origin is not None:
        is_given = stated.origin != stated.unasked
        own_and_there = own | {one for item in found if is_given and (one := item.arrival.experiment_id) is not None}
        keep_origin(store.location, stated.origin, own_and_there, instead_of=stated.unasked if is_given else None)
        recorded = stated.origin if own_and_there else None
    for origin, theirs in stated.carried.items():
        keep_origin(store.location, origin, {one for one in own if ids[one] in theirs})
    return recorded


def _newcomer(example: Example) -> Newcomer:
    return Newcomer(example.batch, example.experiment_id, example.derived)


def _refuse_other_content(items: Iterable[Gathered], source: Source | None, registry: Registry) -> None:
    """Raise DatasetError if users' own data sets of a source share a name with others, there or in the store."""
    found = (registry.study.own_info(item.arrival.experiment) for item in items)
    own = {info for info in found if info is not None}
    if source is not None and source.is_store:
        location, kind = Location(source.url), registry.study.own_data
        own |= {kept.info for name in copy_names(location) if (kept := read_kept(location, name, kind))}
    registry.own_datasets.refuse_other_content(sorted(own, key=str))


def _bring_data(source: Source | None, store: Store) -> None:
    """Copy the users' own data sets of a source that is a store."""
    if source is not None and source.is_store:
        location = Location(source.url)
        for name in copy_names(location):
            adopt_copy(store, location, name)


def _bring_sweeps(source: Source | None, store: Store) -> Iterator[str]:
    """Register the custom sweeps of a source that is a store; yield a warning for each that cannot be."""
    if source is None or not source.is_store:
        return
    location = Location(source.url)
    for name in location.names(SWEEPS):
        if name.startswith(".") or not name.endswith(".yaml"):
            continue
        content = location.read_bytes(f"{SWEEPS}/{name}")
        target = f"{SWEEPS}/{name}"
        if not store.location.write_new(target, content) and store.location.read_bytes(target) != content:
            yield f"{store} has another sweep called {name.removesuffix('.yaml')!r}; it was kept"


def _refuse_itself(source: Source, dest: Location) -> None:
    location = Location(source.url)
    if dest.contains(location):
        raise SourceError(f"{location}: lies in the store {dest}; name another source")


def _warnings(source: Source, scans: Iterable[FileScan], profile: str) -> Iterator[str]:
    """Yield a warning for each kind of thing in a source that is not imported."""
    yield from unknown_columns(scans, profile)
    yield from _left_out(source, ".parquet")


def _left_out(source: Source, suffix: str) -> Iterator[str]:
    if source.left_out:
        more = f" and {len(source.left_out) - 3} more" if len(source.left_out) > 3 else ""
        yield f"files whose names do not end in {suffix} are left out: {', '.join(source.left_out[:3])}{more}"


def unknown_columns(scans: Iterable[FileScan], profile: str) -> Iterator[str]:
    """Yield a warning where files have columns that their profile does not know."""
    unknown = list(dict.fromkeys(name for scan in scans for name in scan.unknown))
    if unknown:
        yield f"columns that profile {profile!r} does not know are left out: {', '.join(unknown)}"


# --- the spool folder --------------------------------------------------------------------------------------------


@contextmanager
def open_spool_folder(
    store: str | os.PathLike[str], state: str | os.PathLike[str] | None, study: Study
) -> Iterator[tuple[Path, Path]]:
    """Make a folder of this import in the state folder; yield it and the state folder.

    What killed imports left is removed. Raises StoreError if an object store is given no state folder, PlaceError or
    FullDiskError if the folder cannot be written.
    """
    found = Store.find(store, state, study)
    if found is not None:
        root = found.state
    elif state is not None:
        root = Path(state).absolute()
    elif Location(store).is_local:
        root = Path(Location(store).path(STATE))
    else:
        raise StoreError(f"{Location(store)}: an object store needs --state DIR, a folder on a POSIX file system")
    spools = root / "imports"
    for owner in spools.glob(f"*/{_OWNER}"):
        with suppress(FileNotFoundError, PermissionError):  # another user's is left to that user
            if is_dead(msgspec.json.decode(owner.read_bytes(), type=Holder)):
                shutil.rmtree(owner.parent)
    holder = this_process()
    folder = spools / holder.token
    with writing(root), new_folder(folder):
        try:
            (folder / _OWNER).write_bytes(msgspec.json.encode(holder))
        except OSError:
            (folder / _OWNER).unlink(missing_ok=True)
            raise
    try:
        yield folder, root
    finally:
        shutil.rmtree(folder)
        with suppress(OSError):  # empty folders that were not there before are removed
            spools.rmdir()
            if found is None:
                root.rmdir()
                root.parent.rmdir()
