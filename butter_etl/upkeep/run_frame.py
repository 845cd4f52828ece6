"""The run frame of a store or an export: its files, what their rows are called, and rows of them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.clusters import map_each
from butter_etl.errors import SelectError
from butter_etl.store import Location, RunFile, Store, StoredRows, StudyLike, parse_conditions, parse_partition
from butter_etl.studies import RUNS, Condition, Study
from butter_etl.upkeep.inventory import Inventory
from butter_etl.upkeep.verify import is_store, plan_verification

if TYPE_CHECKING:
    from distributed import Client

#: A task looks at about so many bytes of files, and at so many files, for what their rows are called.
_BATCH_BYTES, _BATCH_FILES = 64 * 2**20, 256


class FrameFile(NamedTuple):
    """A file of a run frame: its path, relative to the store or export, its partition, and its size in bytes."""

    path: str
    partition: str
    size: int


class NamedRun(NamedTuple):
    """A row of a run frame: its id, the place of its file among those of the frame, and what made it."""

    run_id: str
    file: int
    task: str
    task_version: int


@dataclass(frozen=True)
class RunFrame:
    """The run frame of the store or export at ``location``. Of a run that several files hold, the first counts."""

    location: Location
    study: Study
    files: tuple[FrameFile, ...]
    is_store: bool

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        state: str | os.PathLike[str] | None = None,
        study: StudyLike | None = None,
    ) -> RunFrame:
        """Return that at ``path``. Raises StoreError if there is neither a store nor an export with runs."""
        if is_store(path):
            store = Store.open(path, state, study)
            files = (FrameFile(f"{RUNS}/{file.path}", file.partition, file.size) for file in store.run_files())
            return cls(store.location, store.study, tuple(sorted(files)), is_store=True)
        inventory = plan_verification(path, state, study)
        location = Location(path)
        return cls(location, *_exported(location, inventory), is_store=False)

    def read(self, file: FrameFile, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of a file, without the partition's columns; raise TornFileError if it cannot be read.

        Columns that came after the file are null.
        """
        wanted = self.study.run_files if columns is None else pa.schema(map(self.study.run_files.field, columns))
        table = self.location.read_table(file.path, None if columns is None else list(columns))
        return pa.table(StoredRows.of(table).conform(wanted).columns, schema=wanted)

    def read_run(self, run_id: str) -> pa.Table:
        """Read one row of the first file; raise SelectError where it is not there any more."""
        table = self.read(self.files[0])
        row = table.filter(pc.equal(table["run_id"], run_id)).slice(0, 1)
        if not row.num_rows:
            raise SelectError(f"{self.location}/{self.files[0].path}: has no run {run_id} any more")
        return row

    def around(self, place: int) -> RunFrame:
        """Return the part of the frame that a file's repetitions are in, that file first: what a task needs of it.

        Where names do not tell, it is the file alone.
        """
        file = self.files[place]
        name = RunFile.parse(file.path, file.size)
        others = self._named.get((_folder(file), name.experiment_id), []) if name else []
        return replace(self, files=(file, *(one for one in others if one != file)))

    @cached_property
    def _named(self) -> dict[tuple[str, int], list[FrameFile]]:
        """Return the files by their folder and the experiment that their names tell."""
        found: dict[tuple[str, int], list[FrameFile]] = {}
        for file in self.files:
            if (name := RunFile.parse(file.path, file.size)) is not None:
                found.setdefault((_folder(file), name.experiment_id), []).append(file)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is found again when it is asked for."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def conditions(self, where: Collection[str]) -> tuple[Condition, ...]:
        """Parse conditions on runs of the frame; raise SelectError for a malformed one."""
        if not where:
            return ()
        paths = dict.fromkeys(file.partition for file in self.files)
        return parse_conditions(where, self.study, [parse_partition(self.study.key_schema, path) for path in paths])


def _folder(file: FrameFile) -> str:
    return file.path.rpartition("/")[0]


def _exported(location: Location, inventory: Inventory) -> tuple[Study, tuple[FrameFile, ...]]:
    """Return the study and the files of the run frames of an export; raise SelectError where there are none."""
    units = [unit for unit in inventory.units if unit.runs]
    if not units:
        raise SelectError(f"{location}: has no runs, or none as Parquet; name a store, or an export with runs")
    files = (FrameFile(one.path, unit.partition, one.size) for unit in units for one in unit.runs)
    return units[0].study, tuple(sorted(files))


# --- what rows are called ----------------------------------------------------------------------------------------


def name_runs(
    frame: RunFrame,
    where: Collection[str] = (),
    client: Client | None = None,
    threads: int | None = None,
) -> list[NamedRun]:
    """Return the runs of a frame that meet conditions, sorted by their ids, each once."""
    conditions = frame.conditions(where)
    name_batch = partial(_name_batch, frame=replace(frame, files=()), conditions=conditions)
    found: dict[str, NamedRun] = {}
    for _, runs in map_each(name_batch, _batches(frame.files), client, threads=threads):
        for run in runs:
            known = found.get(run.run_id)
            if known is None or run.file < known.file:
                found[run.run_id] = run
    return [found[run_id] for run_id in sorted(found)]


def _batches(files: Sequence[FrameFile]) -> Iterator[list[tuple[int, FrameFile]]]:
    """Yield the files that a task looks at, each with its place."""
    batch: list[tuple[int, FrameFile]] = []
    for place, file in enumerate(files):
        batch.append((place, file))
        if len(batch) >= _BATCH_FILES or sum(one.size for _, one in batch) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _name_batch(
    batch: list[tuple[int, FrameFile]], frame: RunFrame, conditions: tuple[Condition, ...]
) -> list[NamedRun]:
    return [run for place, file in batch for run in _name_file(place, file, frame, conditions)]


def _name_file(place: int, file: FrameFile, frame: RunFrame, conditions: tuple[Condition, ...]) -> Iterator[NamedRun]:
    study = frame.study
    keys = parse_partition(study.key_schema, file.partition)
    if not all(condition.holds(keys) for condition in conditions if condition.key in keys):
        return
    inside = [condition for condition in conditions if condition.key not in keys]
    columns = dict.fromkeys(["run_id", "task", "task_version", *(condition.key for condition in inside)])
    for row in frame.read(file, list(columns)).to_pylist():
        if all(condition.holds(_canonical(study, row, condition.key)) for condition in inside):
            yield NamedRun(row["run_id"], place, row["task"], row["task_version"])


def _canonical(study: Study, row: dict[str, Any], key: str) -> dict[str, Any]:
    return {key: study.canonical(key, row[key])}
