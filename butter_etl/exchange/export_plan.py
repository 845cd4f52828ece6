"""The plan of an export: which files of a store, whole or in part, go into which directories of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import msgspec

from butter_etl.errors import SelectError, StaleSummaryError, counted
from butter_etl.exchange.formats import find_format
from butter_etl.exchange.manifest import sorted_values
from butter_etl.store import (
    SUMMARY_FILE,
    Location,
    Registry,
    RunFile,
    Store,
    fingerprint,
    key_text,
    precision_levels,
    precision_name,
    read_fingerprints,
    read_schema,
)
from butter_etl.studies import (
    EXECUTIVE,
    NOBODY,
    PARQUET,
    PRECISION,
    RUNS,
    SUMMARY,
    Attribution,
    Condition,
    Experiment,
    Format,
    Frame,
    Selection,
    Sweep,
    Value,
)

#: `--compact` gathers a partition's run files into files of about this many bytes.
COMPACT_BYTES = 128 * 2**20

_experiment = attrgetter("experiment_id")
_FOOTERS_AT_A_TIME = 8
_STATS_AT_A_TIME = 1000


class ExportFile(msgspec.Struct, frozen=True):
    """One file of an export. ``name`` is relative to the exported directory, ``sources`` to the frame in the store.

    With ``experiments``, only their rows belong to the export. Several sources are gathered into one file.
    """

    name: str
    sources: tuple[str, ...]
    rows: int
    experiments: tuple[int, ...] | None = None

    @property
    def is_whole(self) -> bool:
        """Tell whether the file is one of the store's, as it is."""
        return self.experiments is None and self.sources == (self.name,)


@dataclass(frozen=True)
class Chosen:
    """The experiments whose frames a set of directories holds, by id, and the sweep and conditions that chose them.

    ``values`` are the values of their parameters, sorted, nulls first.
    """

    experiments: frozenset[int]
    sweep: str | None
    where: tuple[str, ...]
    values: Mapping[str, list[Value]]


@dataclass(frozen=True)
class ExportDirectory:
    """One exported directory: a frame of the store, or the part of it that is chosen.

    With ``form``, its files are those of a format: of each of ``files`` come as many as the format makes of its runs.
    """

    name: str
    frame: Frame
    files: tuple[ExportFile, ...]
    chosen: Chosen
    form: Format | None = None

    @property
    def experiments(self) -> int:
        """Return how many experiments it is of."""
        return len(self.chosen.experiments)

    @property
    def rows(self) -> int:
        """Return how many rows it has."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export: which frames of a selection are exported, in which form, and by whom they are.

    ``form`` is the format of the study's that runs are written in, in place of all frames. Then ``folders`` and
    ``renamed`` are other names for the format's folders and for its files of many runs, and ``as_measured`` lets runs
    be written that are not what its files say they are.
    """

    runs: bool = True
    summary: bool = True
    tar: bool = False
    compact: bool = False
    allow_stale: bool = False
    attribution: Attribution = NOBODY
    form: str = PARQUET
    folders: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    as_measured: bool = False


def plan_export(
    store: Store, selection: Selection, options: ExportOptions, *, everything: bool = False
) -> list[ExportDirectory]:
    """Return the directories of an export and the files that belong to each.

    With ``everything``, these are each sweep of which the store has runs, and the whole store. The rows of run files
    are known from their names, those of summary files from their footers. Raises StaleSummaryError if summaries are
    wanted that were not made from all present runs, unless that is allowed; SelectError for a format that is not known
    or has no place for what is asked for.
    """
    if (form := find_format(store.study, options.form)) is not None:
        return _plan_formatted(store, form, selection, options, everything=everything)
    registry = Registry(store)
    files = list(store.run_files())
    specs = {one: registry.experiment(one) for one in dict.fromkeys(map(_experiment, files))}
    frames = list(_summary_frames(store)) if options.summary else []
    if options.summary and not options.allow_stale:
        wanted = [file for file in files if selection.matches(specs[file.experiment_id])]
        _refuse_stale(store, wanted, frames)
    whole = [_whole_file(file) for file in files]
    directories = []
    for chosen in _choices(registry, selection, specs, everything=everything):
        if options.runs:
            name = RUNS if chosen.sweep is None else f"{chosen.sweep}_sweep_runs"
            places = [place for place, file in enumerate(files) if file.experiment_id in chosen.experiments]
            own = [whole[place] for place in places]
            if options.compact:
                own = list(_compacted([files[place] for place in places]))
            directories.append(ExportDirectory(name, store.study.frames[RUNS], tuple(own), chosen))
        for one in _by_folder(frames):
            if (directory := _summary_name(one.frame.folder, chosen.sweep)) is not None:
                own = list(_summary_files(one.footers, chosen.experiments))
                directories.append(ExportDirectory(directory, one.frame, tuple(own), chosen))
    return directories


def _choices(
    registry: Registry, selection: Selection, specs: Mapping[int, Experiment], *, everything: bool
) -> Iterator[Chosen]:
    """Yield the experiments of each set of directories: sweeps one by one, and the whole if no sweep is named."""
    sweeps = selection.sweeps
    if everything:
        sweeps = (*registry.study.sweeps.values(), *map(registry.sweep, registry.sweep_names()))
    parts: list[Sweep | None] = [*sweeps]
    if everything or not sweeps:
        parts.append(None)
    where = tuple(map(condition_text, selection.conditions))
    for sweep in parts:
        part = Selection((sweep,) if sweep else (), selection.conditions)
        ids = frozenset(experiment_id for experiment_id, spec in specs.items() if part.matches(spec))
        if ids or not everything:
            values = parameter_values(registry.study.swept, (specs[one] for one in ids))
            yield Chosen(ids, sweep.name if sweep else None, where, values)


def _summary_name(root: str, sweep: str | None) -> str | None:
    """Return the name of a directory of summaries; None for the executive summary of a sweep: none is published."""
    if root == EXECUTIVE:
        return root if sweep is None else None
    return root if sweep is None else f"{sweep}_sweep_{'precision' if root == PRECISION else 'summary'}"


def condition_text(condition: Condition) -> str:
    """Return a condition as ``--where`` takes it."""
    return f"{condition.key} {condition.op} {','.join('null' if v is None else key_text(v) for v in condition.values)}"


# --- formats ------------------------------------------------------------------------------------------------------


def _plan_formatted(
    store: Store, form: Format, selection: Selection, options: ExportOptions, *, everything: bool
) -> list[ExportDirectory]:
    """Return a directory for each of a format's folders, of the runs of all experiments that are chosen."""
    if options.compact or not options.runs:
        raise SelectError(f"--format {form.name} writes runs, one by one: leave --compact and --no-runs out")
    registry, study = Registry(store), store.study
    sweeps = () if everything else selection.sweeps
    part = Selection(sweeps, selection.conditions)
    files = list(store.run_files())
    specs = {one: registry.experiment(one) for one in dict.fromkeys(map(_experiment, files))}
    chosen = {one: spec for one, spec in specs.items() if part.matches(spec)}
    if not options.as_measured:
        _refuse_doubtful(form, chosen.values())
    folders = {one: form.folder(spec.parameters()) for one, spec in chosen.items()}
    names = _folder_names(form, folders.values(), options.folders)
    of_experiment = _file_names(form, chosen, options.renamed)
    where, sweep = tuple(map(condition_text, selection.conditions)), sweeps[0].name if len(sweeps) == 1 else None
    frame = Frame(form.name, RUNS, study.runs)
    directories = []
    for name in sorted(set(names.values())):
        own = frozenset(one for one, folder in folders.items() if names[folder] == name)
        members = tuple(_members([file for file in files if file.experiment_id in own], of_experiment))
        values = parameter_values(study.swept, (specs[one] for one in own))
        directories.append(ExportDirectory(name, frame, members, Chosen(own, sweep, where, values), form))
    return directories


def _members(files: Iterable[RunFile], names: Mapping[int, str]) -> Iterator[ExportFile]:
    """Yield run files as they are, or gathered by the names of the files that their experiments are written to."""
    gathered: dict[str, list[RunFile]] = {}
    for file in files:
        if file.experiment_id in names:
            gathered.setdefault(names[file.experiment_id], []).append(file)
        else:
            yield _whole_file(file)
    for name, some in sorted(gathered.items()):
        yield ExportFile(name, tuple(one.path for one in some), sum(len(one.repetitions) for one in some))


def _file_names(form: Format, specs: Mapping[int, Experiment], others: Mapping[str, str]) -> dict[int, str]:
    """Return the file that each experiment is written to with others; none where each run has its own.

    Raises SelectError for a name that is none of the format's files, or of no file.
    """
    if form.file is None:
        if others:
            raise SelectError(f"--format {form.name} has a {form.noun} for each run: leave --file out")
        return {}
    names = {one: form.file(spec.parameters()) for one, spec in specs.items()}
    for old, new in others.items():
        if old not in names.values():
            known = ", ".join(sorted(set(names.values()))) or "there is none"
            raise SelectError(f"--file {old}={new}: no run goes to {old!r}; files: {known}")
        if not new.lower().endswith(form.suffix) or new.startswith(".") or "/" in new:
            raise SelectError(f"--file {old}={new}: {new!r} is no name of a {form.noun}, such as new{form.suffix}")
    return {one: others.get(name, name) for one, name in names.items()}


def _refuse_doubtful(form: Format, specs: Iterable[Experiment]) -> None:
    """Raise SelectError if runs are not what files of a format say they are."""
    doubts = [doubt for spec in specs if (doubt := form.doubt(spec.parameters())) is not None]
    if doubts:
        raise SelectError(
            f"--format {form.name}: of {counted(len(doubts), 'experiment')} a {form.noun} would not say how it was "
            f"measured: {doubts[0]}; choose others by --where, or pass --as-measured"
        )


def _folder_names(form: Format, folders: Iterable[str], others: Mapping[str, str]) -> dict[str, str]:
    """Return the names that a format's folders get; raise SelectError for a name that is none, or of no folder."""
    names = {folder: folder for folder in sorted(set(folders))}
    for folder, name in others.items():
        if folder not in names:
            known = ", ".join(names) or "there is none"
            raise SelectError(f"--folder {folder}={name}: no {form.noun} goes to {folder!r}; folders: {known}")
        names[folder] = name
    for folder, name in names.items():
        if not name or name.startswith(".") or "/" in name or name.endswith(".tar"):
            raise SelectError(f"--folder {folder}={name}: {name!r} is no name of a folder in an export")
    return names


# --- what experiments have in common ------------------------------------------------------------------------------


def parameter_values(names: Iterable[str], specs: Iterable[Experiment]) -> dict[str, list[Value]]:
    """Return the values that each of some parameters takes, sorted, nulls first."""
    values: dict[str, set[Value]] = {name: set() for name in names}
    for spec in specs:
        parameters = spec.parameters()
        for name, some in values.items():
            some.add(parameters[name])
    return {name: sorted_values(some) for name, some in values.items()}


# --- summaries ----------------------------------------------------------------------------------------------------


#: The fingerprints of the rows of each summary file, by the name of the file and the experiment id.
_Footers = dict[str, dict[int, str]]


class _Summaries(NamedTuple):
    """A frame that is made of runs: how its files are called in every partition, and their footers.

    ``frame`` has the schema that the store's files have.
    """

    frame: Frame
    file: str
    footers: _Footers

    def made_from(self, partition: str) -> dict[int, str]:
        """Return the fingerprints of the rows of a partition."""
        return self.footers.get(f"{partition}/{self.file}", {})


def _summary_frames(store: Store) -> Iterator[_Summaries]:
    """Yield the summary frame, then the executive one and intervals, by their levels, where the store has them."""
    location, study = store.location, store.study
    yield _Summaries(study.frames[SUMMARY], SUMMARY_FILE, read_footers(location, SUMMARY))
    if footers := read_footers(location, EXECUTIVE):
        frame = replace(study.frames[EXECUTIVE], schema=read_schema(location, EXECUTIVE))
        yield _Summaries(frame, SUMMARY_FILE, footers)
    for level in precision_levels(location):
        frame = replace(study.precision_frame(level), schema=read_schema(location, PRECISION))
        file = precision_name("", level).rpartition("/")[2]
        yield _Summaries(frame, file, read_footers(location, PRECISION, file))


def _by_folder(frames: Iterable[_Summaries]) -> Iterator[_Summaries]:
    """Yield each frame once, with the footers of all its files in their order."""
    for _, same in groupby(frames, key=lambda one: one.frame.folder):
        first, *others = same
        footers = dict(sorted({**first.footers, **{k: v for one in others for k, v in one.footers.items()}}.items()))
        yield first._replace(footers=footers) if others else first


def read_footers(location: Location, root: str, file: str = SUMMARY_FILE) -> _Footers:
    """Return the fingerprints of the runs that each row was made from in the files of a name below ``root``.

    They are given by the name of the file and the experiment id.
    """
    names = [name for name, _ in location.walk(root) if name.endswith(f"/{file}")]
    with ThreadPoolExecutor(_FOOTERS_AT_A_TIME) as pool:
        footers = pool.map(lambda name: read_fingerprints(location, f"{root}/{name}"), names)
        return dict(zip(names, footers, strict=True))


def _refuse_stale(store: Store, files: list[RunFile], frames: list[_Summaries]) -> None:
    """Raise StaleSummaryError where rows were not made of all runs; intervals need not be of all experiments."""
    stale = 0
    for partition, members in groupby(files, key=attrgetter("partition")):
        made_from = [(one.frame, one.made_from(partition)) for one in frames]
        for experiment_id, same in groupby(sorted(members, key=_experiment), key=_experiment):
            own = list(same)
            stale += any(
                made.get(experiment_id) != fingerprint(own, frame)
                for frame, made in made_from
                if not frame.optional or experiment_id in made
            )
    if stale:
        raise StaleSummaryError(
            f"{store}: the summaries of {counted(stale, 'experiment')} are missing or out of date; "
            "run `butter-etl summarize` first, or pass --allow-stale or --no-summary"
        )


def _summary_files(footers: Mapping[str, Mapping[int, str]], ids: frozenset[int]) -> Iterator[ExportFile]:
    for name, rows in footers.items():
        if own := rows.keys() & ids:
            some = None if len(own) == len(rows) else tuple(sorted(own))
            yield ExportFile(name, (name,), len(own), some)


# --- runs ---------------------------------------------------------------------------------------------------------


def _whole_file(file: RunFile) -> ExportFile:
    return ExportFile(file.path, (file.path,), len(file.repetitions))


def _compacted(files: list[RunFile]) -> Iterator[ExportFile]:
    """Yield files of about `COMPACT_BYTES` into which each partition's files are gathered, by experiment."""
    for partition, members in groupby(files, key=attrgetter("partition")):
        group: list[RunFile] = []
        size = number = 0
        for file in sorted(members, key=attrgetter("experiment_id", "first")):
            if group and size + file.size > COMPACT_BYTES:
                yield _gathered(partition, number, group)
                group, size, number = [], 0, number + 1
            group.append(file)
            size += file.size
        yield _gathered(partition, number, group)


def _gathered(partition: str, number: int, files: list[RunFile]) -> ExportFile:
    rows = sum(len(file.repetitions) for file in files)
    return ExportFile(f"{partition}/part-{number:05d}.parquet", tuple(file.path for file in files), rows)


# --- identity -----------------------------------------------------------------------------------------------------


def plan_key(plan: list[ExportDirectory], location: Location) -> str:
    """Return a hash of a plan and of the sizes and times of its sources, in hex: equal keys make equal exports."""
    digest = hashlib.blake2b(digest_size=12)
    seen: set[str] = set()
    for directory in plan:
        digest.update(f"\n{directory.name} {directory.frame.folder}\n".encode())
        for file in directory.files:
            digest.update(f"{file.name} {file.experiments} {len(file.sources)}\n".encode())
            seen.update(f"{directory.frame.folder}/{source}" for source in file.sources)
    names = sorted(seen)
    for start in range(0, len(names), _STATS_AT_A_TIME):
        paths = [location.path(name) for name in names[start : start + _STATS_AT_A_TIME]]
        for info in location.filesystem.get_file_info(paths):
            digest.update(f"{info.path} {info.size} {info.mtime_ns}\n".encode())
    return digest.hexdigest()
