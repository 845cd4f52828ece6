"""Sources of an import: the files of a source, the experiments that their rows belong to, and the rows in our schema.

A source is a store, an export, or a Parquet file or a folder of them in any layout (keys in the files, in the paths, or
both). `list_source` lists its files. `scan_file` reads the small columns of one file and finds the experiment of each
row. Rows are read by group, which is a row group of a Parquet file or a range of rows of a spool file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
from numpy.typing import NDArray

from butter_etl.errors import SourceError, SpecError, TornFileError, counted, one_line
from butter_etl.exchange.profiles import check_columns, conform, never_null
from butter_etl.store import COMMON_METADATA, NULL, HistoryFile, Location, RunFile, partition_path, read_store_file
from butter_etl.studies import (
    RUNS,
    Experiment,
    Profile,
    Study,
    check_lengths,
    check_own_run,
    length_limit,
    run_ids,
)

#: Larger row groups are read in slices of at most about this many bytes.
SLICE_BYTES = 64 * 2**20
_ALL_ROWS = 2**63 - 1
_NO_TEXT = "\x00"


# --- listing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """The Parquet files of a source, as (name below ``url``, size in bytes), and the names of other files, left out."""

    url: str
    files: list[tuple[str, int]]
    left_out: list[str]
    is_store: bool = False


def list_source(study: Study, path: str | os.PathLike[str]) -> Source:
    """Return the run files of a store, of an export, or of a folder of Parquet files, or a single file.

    No file is opened but ``store.json`` and ``_common_metadata``. Raises SourceError if there are no such files, or if
    they are a store of another study.
    """
    location = Location(path)
    location.require_bucket()
    kind = location.kind()
    if kind == pa.fs.FileType.File:
        folder, name = location.folder_and_name()
        return Source(folder, [(name, location.filesystem.get_file_info(location.path()).size)], [])
    is_store = location.kind("store.json") == pa.fs.FileType.File
    if is_store:
        _refuse_other_study(study, location)
    everything = list(location.walk(RUNS if is_store else ""))
    if is_store:
        everything = [(f"{RUNS}/{name}", size) for name, size in everything]
    summaries = tuple(_summary_folders(location, [name for name, _ in everything]))
    files, left_out = [], []
    for name, size in everything:
        if name.startswith(summaries) or name.rpartition("/")[2].startswith(("_", ".")):
            continue
        if name.lower().endswith(".parquet"):
            files.append((name, size))
        else:
            left_out.append(name)
    if not files:
        what = "does not exist" if kind == pa.fs.FileType.NotFound else "holds no Parquet files of runs"
        raise SourceError(f"{location}: {what}; name a store, an export, or a folder of Parquet files")
    return Source(location.absolute, files, left_out, is_store)


def _refuse_other_study(study: Study, location: Location) -> None:
    found = read_store_file(location).study
    if found != study.name:
        raise SourceError(
            f"{location}: is a store of the study {found!r}, not of {study.name!r}; import it into a store of {found!r}"
        )


def _summary_folders(location: Location, names: list[str]) -> Iterator[str]:
    """Yield the folders whose `_common_metadata` says that they hold no runs, each with a slash at its end."""
    for name in names:
        folder, _, file = name.rpartition("/")
        if file == COMMON_METADATA:
            with location.parquet_file(name) as metadata:
                if "run_id" not in metadata.schema_arrow.names:
                    yield f"{folder}/" if folder else ""


def path_keys(name: str) -> dict[str, str | None]:
    """Return the hive keys in a file's path as texts; null is None."""
    keys: dict[str, str | None] = {}
    for segment in name.split("/")[:-1]:
        key, equals, text = segment.partition("=")
        if equals:
            keys[unquote(key)] = None if text == NULL else unquote(text)
    return keys


# --- groups of rows ----------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """Rows that are read at once: a row group of a source's file, or a range of rows of a spool file.

    Without ``rows``, ``number`` is that of the row group. With ``rows``, these are so many rows of a spool file, from
    the ``number``-th.
    """

    file: str
    number: int
    rows: int | None = None


class Reader:
    """Reads groups of a source (or of the spool folder) as rows of a study's run schema.

    Decoding uses the calling thread alone, since as many tasks run at once as there are cores.
    """

    def __init__(self, study: Study, url: str, spool: str, profile: str) -> None:
        self._schema = study.runs
        self._location = Location(url) if url else None
        self._spool = Path(spool)
        self._profile = study.profiles[profile]
        self._spooled: dict[str, pa.Table] = {}

    def read(self, group: Group) -> pa.Table:
        """Return all rows of a group; raises TornFileError or SourceError."""
        if group.rows is not None:
            return self._spool_file(group.file).slice(group.number, group.rows)
        return pa.concat_tables(self.slices(group, rows=None))

    def slices(self, group: Group, rows: int | None) -> Iterator[pa.Table]:
        """Yield the rows of a row group, ``rows`` at a time, or all at once if it is None.

        Raises TornFileError if they cannot be read, SourceError if values do not fit into the types.
        """
        if self._location is None:
            raise AssertionError
        keys = path_keys(group.file)
        place = f"{self._location}/{group.file}"
        with self._location.parquet_file(group.file) as file:
            columns = _present(file.schema_arrow, self._schema, self._profile)
            try:
                for part in _parts(file, group.number, columns, _ALL_ROWS if rows is None else rows):
                    yield conform(part, keys, self._profile, self._schema, place)
            except (pa.ArrowException, OSError) as error:
                raise TornFileError(f"{place} cannot be read ({one_line(error)})") from error

    def _spool_file(self, name: str) -> pa.Table:
        """Return all rows of a spool file; it is mapped into memory, so that only rows in use are read."""
        if name not in self._spooled:
            self._spooled[name] = pa.ipc.open_file(pa.memory_map(str(self._spool / name))).read_all()
        return self._spooled[name]


def _present(schema: pa.Schema, wanted: pa.Schema, profile: Profile) -> list[str]:
    return [name for name in map(profile.theirs, wanted.names) if name in schema.names]


def row_keys(study: Study, table: pa.Table) -> pa.DictionaryArray:
    """Return a text for each row, dictionary-encoded; rows have equal texts if they are of the same experiment."""
    tasks, versions = table["task"], table["task_version"]
    versions = pc.if_else(pc.equal(tasks, study.task), versions, pa.scalar(None, versions.type))
    columns = [_texts(table[name]) for name in study.parameters]
    texts = pc.binary_join_element_wise(
        tasks,
        versions.cast(pa.string()),
        *columns,
        "\x1f",
        null_handling="replace",
        null_replacement=_NO_TEXT,
    )
    return texts.combine_chunks().dictionary_encode()


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values of a column as texts: different ones of different values."""
    if not pa.types.is_list(column.type):
        return column.cast(pa.string())
    texts = [None if value is None else repr(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


# --- scanning ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """An experiment of a source, as one of its rows tells it. ``experiment_id`` is the lowest that its rows have.

    ``derived`` are the values of its derived columns.
    """

    experiment: Experiment
    experiment_id: int | None
    batch: str
    derived: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupScan:
    """The facts of a group, without its rows: ``bytes`` is its size in memory, about.

    For each row, ``keys`` has the position of its experiment in a list, and ``run_ids`` a hash of its `run_id`.
    """

    group: Group
    bytes: int
    keys: NDArray[np.int32]
    run_ids: NDArray[np.uint64]


@dataclass(frozen=True)
class FileScan:
    """The facts of a file: its groups, its experiments, and the columns that the profile does not know.

    ``whole`` is set if a store could have the file as it is, under that name.
    """

    groups: list[GroupScan]
    examples: list[Example]
    unknown: list[str]
    whole: RunFile | None = None


def _scanned(study: Study) -> pa.Schema:
    """Return the columns whose values are looked at before anything lands: all but histories.

    Of histories, types, lengths and pages are.
    """
    return pa.schema([field for field in study.runs if field.name not in study.histories])


def scan_file(study: Study, url: str, name: str, size: int, profile: Profile) -> FileScan:
    """Check a Parquet file against a profile and find the experiment of each row; all of it is read once.

    Raises TornFileError for a file that is no Parquet or damaged, SourceError for one that holds no runs of the
    profile's schema, or values that do not fit into it, SpecError for runs of our own task that are not what they say.
    """
    location = Location(url)
    place = f"{location}/{name}"
    keys, wanted = path_keys(name), _scanned(study)
    with _open(location, name, place) as file:
        schema = file.schema_arrow
        unknown = check_columns(study, schema, keys, profile, place)
        try:
            table = file.read(columns=_present(schema, wanted, profile))
        except (pa.ArrowException, OSError) as error:
            raise TornFileError(f"{place} cannot be read ({one_line(error)})") from error
        metadata = file.metadata
        sizes = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        bytes_of = [group.total_byte_size for group in sizes]
        rows_of = [group.num_rows for group in sizes]
        rows = conform(table, keys, profile, wanted, place)
        codes, examples = scan_rows(study, rows, place)
        _check_histories(study, file, rows, profile, place)
    hashes = hash_ids(rows["run_id"])
    bounds = np.cumsum([0, *rows_of])
    groups = [
        GroupScan(Group(name, number), bytes_of[number], codes[start:stop], hashes[start:stop])
        for number, (start, stop) in enumerate(pairwise(bounds))
    ]
    is_ours = schema.remove_metadata() in (study.run_files, study.without_later(study.run_files))
    whole = _whole(study, name, size, rows, examples) if is_ours else None
    return FileScan(groups, examples, unknown, whole)


def _open(location: Location, name: str, place: str) -> HistoryFile:
    """Open a file of a source, which is no store's: what is wrong with it, nobody here can mend."""
    try:
        return location.parquet_file(name, checked=True)
    except TornFileError as error:
        reason = one_line(error.__cause__ or error)
        raise TornFileError(f"{place} cannot be read ({reason}); leave it out, or get it anew") from error


def _check_histories(study: Study, file: HistoryFile, rows: pa.Table, profile: Profile, place: str) -> None:
    """Decode all histories of a file, a slice at a time, or of pages with checksums as much as their lengths take.

    Raises TornFileError for damaged pages, SourceError for values that do not fit, SpecError for histories that are too
    long.
    """
    names = [profile.theirs(name) for name in study.histories]
    wanted = pa.schema([study.runs.field(name) for name in study.histories])
    schema = file.schema_arrow
    is_ours = all(
        theirs in schema.names and schema.field(theirs).type.equals(field.type) and field.name not in profile.constants
        for theirs, field in zip(names, wanted, strict=True)
    )
    start = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        at_once = max(1, SLICE_BYTES * group.num_rows // max(group.total_byte_size, 1))
        try:
            lengths = file.read_lengths(number, names) if is_ours else None
            if lengths is not None:
                own = {name: lengths[profile.theirs(name)] for name in study.histories}
                check_history_lengths(study, rows.slice(start, group.num_rows), own, place)
                start += group.num_rows
                continue
            for part in _parts(file, number, names, at_once):
                own = lengths_of(study, conform(part, {}, profile, wanted, place))
                check_history_lengths(study, rows.slice(start, part.num_rows), own, place)
                start += part.num_rows
        except (pa.ArrowException, OSError) as error:
            raise TornFileError(f"{place} cannot be read ({one_line(error)})") from error


def _parts(file: HistoryFile, group: int, columns: list[str], rows: int) -> Iterator[pa.Table]:
    """Yield the rows of a row group, so many at a time: all of them at once if they are no more."""
    if rows >= file.metadata.row_group(group).num_rows:
        yield file.read_row_group(group, columns, use_threads=False)
        return
    for batch in file.iter_batches(rows, [group], columns, use_threads=False):
        yield pa.table(batch)


def lengths_of(study: Study, histories: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return how long each run's history is, by name, null where a list is."""
    return {name: pc.list_value_length(histories[name]) for name in study.histories}


def check_history_lengths(study: Study, rows: pa.Table, lengths: Mapping[str, Any], place: str) -> None:
    """Raise SpecError if a history of some rows of our own task is longer than the row says that runs are."""
    names = ["task", "task_version", *filter(None, [study.points.count])]
    said = rows.select(names).to_pylist()
    limits = [length_limit(study, row["task"], row["task_version"], study.most_points(row)) for row in said]
    try:
        for name in study.histories:
            check_lengths(study, name, lengths[name], np.array(limits, np.int64))
    except SpecError as error:
        raise SpecError(f"{place}: {error}") from error


def scan_rows(study: Study, rows: pa.Table, place: str) -> tuple[NDArray[np.int32], list[Example]]:
    """Return the position of each row's experiment in a list, and that list.

    Raises SourceError if a column that must have values has nulls, SpecError for runs of our own task that are not what
    they say.
    """
    rows = rows.select(_scanned(study).names)
    for name in never_null(study):
        if rows[name].null_count:
            raise SourceError(f"{place}: column {name!r} is null in {rows[name].null_count} of {rows.num_rows} rows")
    if not rows.num_rows:
        return np.zeros(0, np.int32), []
    encoded = row_keys(study, rows)
    codes = encoded.indices.to_numpy().astype(np.int32)
    _, first = np.unique(codes, return_index=True)
    lowest = _lowest_ids(rows["experiment_id"], codes)
    examples = [
        _example(study, row, one, place)
        for row, one in zip(rows.take(pa.array(first)).to_pylist(), lowest, strict=True)
    ]
    _check_own(study, rows, codes, [example.experiment for example in examples], place)
    return codes, examples


def _lowest_ids(ids: pa.ChunkedArray, codes: NDArray[np.int32]) -> list[int | None]:
    """Return for each code the lowest experiment id that its rows have, or None if they have none."""
    lowest = pa.table({"code": codes, "id": ids}).group_by("code").aggregate([("id", "min")]).sort_by("code")
    found: list[int | None] = lowest["id_min"].to_pylist()
    return found


def _example(study: Study, row: dict[str, Any], experiment_id: int | None, place: str) -> Example:
    try:
        experiment = identify(study, row)
        partition_path(study.keys, experiment.parameters())  # complain of its names before anything is made
    except SpecError as error:
        raise SpecError(f"{place}: {error}") from error
    derived = {name: row[name] for name in study.derived}
    return Example(experiment, experiment_id, row["batch"] or "", derived)


def identify(study: Study, row: dict[str, Any]) -> Experiment:
    """Return the experiment of a row; raises SpecError if a row of our own task is not what its command says."""
    if not study.is_own(row["task"], row["task_version"]):
        return study.foreign(row["task"], row["task_version"], row)
    if row["command"] is None:
        raise SpecError(f"run {row['run_id']}: rows of {study.task} need their command")
    spec = study.parse_command(row["command"])
    said = study.foreign(study.task, None, row).parameters()
    for name, value in spec.parameters().items():
        if said[name] != value:
            raise SpecError(f"run {row['run_id']}: {name} is {said[name]!r}, but its command says {value!r}")
    return spec


def _check_own(
    study: Study, rows: pa.Table, codes: NDArray[np.int32], experiments: list[Experiment], place: str
) -> None:
    """Raise SpecError for a run of our own task whose id is not that of its experiment and repetition."""
    names, numbers = rows["run_id"].to_pylist(), own_repetitions(rows).to_pylist()
    order = np.argsort(codes, kind="stable")
    for spec, places in zip(experiments, np.split(order, np.flatnonzero(np.diff(codes[order])) + 1), strict=True):
        if not spec.is_own:
            continue
        own = [(names[row], numbers[row]) for row in places.tolist()]
        unnumbered = sum(number is None for _, number in own)
        if unnumbered:
            raise SpecError(f"{place}: {counted(unnumbered, 'run')} of {spec.describe()} without a repetition number")
        for (name, number), right in zip(own, run_ids(spec, [number for _, number in own]), strict=True):
            if name != right:
                raise SpecError(
                    f"{place}: run {name} is not repetition {number} of {spec.describe()}, which is {right}"
                )
        _check_rows(study, rows.take(pa.array(places)), spec, place)


def _check_rows(study: Study, rows: pa.Table, spec: Experiment, place: str) -> None:
    """Raise SpecError unless all that rows of an experiment of our own task say follows from their commands."""
    for row in rows.drop_columns(list(study.long_texts)).to_pylist():
        try:
            said = check_own_run(study, row)
        except SpecError as error:
            raise SpecError(f"{place}: run {row['run_id']}: {error}") from error
        if said != spec:
            raise SpecError(f"{place}: run {row['run_id']}: its command is of {said.describe()}, not {spec.describe()}")


def own_repetitions(rows: pa.Table) -> pa.ChunkedArray:
    """Return the repetition numbers of runs of our own task: those of the column, else those in their commands."""
    numbers = rows["repetition"]
    if not numbers.null_count:
        return numbers
    found = pc.struct_field(pc.extract_regex(rows["command"], r'"repetition":(?P<number>\d+)'), "number")
    return pc.coalesce(numbers, found.cast(numbers.type))


def hash_ids(values: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return 64 bits of a hash of each run's id."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in values.to_pylist())
    return np.frombuffer(digests, np.uint64)


def _whole(study: Study, name: str, size: int, rows: pa.Table, examples: list[Example]) -> RunFile | None:
    """Return the run file that a store would have a file as; None if its name does not say what its rows say."""
    if len(examples) != 1:
        return None
    file = RunFile.parse(name.rpartition("/")[2], size)
    partition = partition_path(study.keys, examples[0].experiment.parameters())
    if file is None or not name.endswith(f"{partition}/{file.path}"):
        return None
    right_rows = rows["repetition"].to_pylist() == list(file.repetitions)
    right_id = pc.unique(rows["experiment_id"]).to_pylist() == [file.experiment_id]
    return file._replace(path=f"{partition}/{file.path}") if right_rows and right_id else None
