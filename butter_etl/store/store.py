"""The store: paths and keys of its layout, listing, reading, and landing rows exactly once.

A store holds one study. The names of files say what they hold, so a listing is enough to know it. A run file is
``all_runs/<hive keys>/<experiment_id>-<first>-<last>.parquet`` and holds consecutive repetitions of one
experiment. Files are never replaced or extended, except summaries, which are replaced whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from butter_etl.errors import LandingError, StoreError, StudyError, counted, one_line, unwritten, writing
from butter_etl.store.changes import Changes
from butter_etl.store.failures import Failure, read_failure
from butter_etl.store.files import (
    COMMON_METADATA,
    Location,
    Pending,
    files_in,
    new_folder,
    require_writable,
    write_durably,
)
from butter_etl.store.layout import (
    CHANGES,
    FORMAT_VERSION,
    QUARANTINE,
    STATE,
    SUMMARY_FILE,
    RunFile,
    consecutive,
    partition_path,
    repetition_masks,
    run_file_name,
)
from butter_etl.store.locks import FileLock
from butter_etl.store.parquet import common_metadata, conform, parquet_bytes, write_common_metadata
from butter_etl.studies import RUNS, SUMMARY, Experiment, Study, default_study, find_study, load_study

# --- the store ---------------------------------------------------------------------------------------------------

#: A study, its name, or a reference to it (``package.module:NAME``).
StudyLike = Study | str


class StoreFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Content of ``store.json``: the version of the store's format, the name of its study, and a hash of that.

    BUTTER's stores, whose schemas are published, have no hash.
    """

    format: int
    study: str
    declaration: str | None = None


class Landing(NamedTuple):
    """Result of a landing: the files it made, and how many repetitions landed or were there already."""

    files: list[str]
    landed: int
    present: int


class Store:
    """One study's frames. ``state`` is a folder on a POSIX file system for locks, claims and failures."""

    def __init__(self, location: Location, state: Path | None, study: Study) -> None:
        self.location = location
        self.study = study
        self._state = state
        if state is not None and not location.is_local:
            location.changes = Changes(state / CHANGES)

    def __str__(self) -> str:
        return str(self.location)

    @property
    def state(self) -> Path:
        """Return the state folder; raise StoreError for a store on an object store that was given none."""
        if self._state is None:
            raise StoreError(f"{self}: an object store needs --state DIR, a folder on a POSIX file system")
        return self._state

    @property
    def has_state(self) -> bool:
        """Tell whether the store has a state folder."""
        return self._state is not None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        state: str | os.PathLike[str] | None = None,
        study: StudyLike | None = None,
    ) -> Store:
        """Return the store at ``path``; raise StoreError if there is none, or one of another format.

        Its study is the one that it names, which ``study`` may be where it is not installed. Raises StudyError where
        that is not known, is another than ``study``, or is declared otherwise than it was when the store was made.
        """
        location = Location(path)
        if location.kind("store.json") != pa.fs.FileType.File:
            location.require_bucket()
            kind = location.kind()
            if kind == pa.fs.FileType.File:
                raise StoreError(f"{location}: is a file, not a store")
            what = "is no store (it has no store.json)" if kind == pa.fs.FileType.Directory else "does not exist"
            raise StoreError(f"{location}: {what}; `butter-etl train` makes one in a new or empty folder")
        content = read_store_file(location)
        return cls(location, _state_folder(location, state), _study_of(location, content, study))

    @classmethod
    def find(
        cls,
        path: str | os.PathLike[str],
        state: str | os.PathLike[str] | None = None,
        study: StudyLike | None = None,
    ) -> Store | None:
        """Return the store at ``path``, or None where one could be made; raise StoreError where other things are.

        Raises what `open` raises.
        """
        location = Location(path)
        if location.kind("store.json") != pa.fs.FileType.NotFound:
            return cls.open(path, state, study)
        location.require_bucket()
        if location.kind() == pa.fs.FileType.File:
            raise StoreError(f"{location}: is a file, not a store")
        if next(location.walk(), None) is not None:
            # Whoever makes a store writes this file first: if it was made since we looked, it is there now.
            if location.kind("store.json") != pa.fs.FileType.NotFound:
                return cls.open(path, state, study)
            raise StoreError(
                f"{location}: is no store (it has no store.json) and not empty; name a new or empty folder"
            )
        return None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        state: str | os.PathLike[str] | None = None,
        study: StudyLike | None = None,
    ) -> Store:
        """Return the store at ``path``, made if nothing is there yet; raise StoreError for a folder of other things.

        A new one is of ``study``, by default of the one that the environment chooses, or BUTTER. The store is going to
        be written: on an object store, that needs a state folder. Raises PlaceError or FullDiskError where the store or
        its state folder cannot be written; nothing is made then.
        """
        found = cls.find(path, state, study)
        require_state(path, state)
        location = Location(path)
        store = found or cls(location, _state_folder(location, state), as_study(study) or default_study())
        with writing(location), store._writable_state():
            if found is None:
                with Pending(location, _first_files(store.study)) as pending:
                    pending.publish()
                return cls.open(path, state, study)
            for frame in store.study.frames.values():
                if not frame.optional:
                    write_common_metadata(location, frame.folder, frame.schema, store.study.later_columns)
        return store

    @contextmanager
    def _writable_state(self) -> Iterator[None]:
        """Raise PlaceError or FullDiskError unless the state folder can be written; remove it if the block raises."""
        with writing(self.state), new_folder(self.state):
            require_writable(self.state)
            yield

    def partition_of(self, one: Experiment) -> str:
        """Return the partition that holds an experiment: its hive keys."""
        return partition_path(self.study.keys, one.parameters())

    def run_files(self, partition: str = "", experiment_id: int | None = None) -> Iterator[RunFile]:
        """Yield every run file by its name, of the whole store or of one partition; pass over other names.

        With ``experiment_id``, these are those of one experiment alone: no others are looked at.
        """
        prefix, starting = f"{partition}/" if partition else "", "" if experiment_id is None else f"{experiment_id}-"
        for name, size in self.location.walk(f"{RUNS}/{partition}" if partition else RUNS, starting=starting):
            file = RunFile.parse(f"{prefix}{name}", size)
            if file is not None:
                yield file

    def repetitions(self) -> dict[int, int]:
        """Return the repetitions of each experiment that are there, as a bit mask by experiment id."""
        return repetition_masks(self.run_files())

    def repetitions_of(self, experiment_id: int, partition: str) -> set[int]:
        """Return the numbers of the repetitions of one experiment that are in its partition."""
        return {rep for file in self.run_files(partition, experiment_id) for rep in file.repetitions}

    def read_runs(self, file: RunFile, columns: list[str] | None = None) -> pa.Table:
        """Read the rows of a run file, without the partition columns; raise TornFileError if it cannot be read.

        Columns that came after the file are null.
        """
        table = self.location.read_table(f"{RUNS}/{file.path}", columns)
        lacking = self.study.later_columns.difference(table.column_names) if columns is None else ()
        return conform(table, self.study.run_files) if lacking else table

    def land(self, partition: str, experiment_id: int, runs: pa.Table) -> Landing:
        """Write the rows of one experiment durably, each repetition once, whoever else lands the same ones.

        The files are written aside first; the experiment's lock is held only to see that nobody was faster and to
        give the files their names. ``runs`` has the study's schema of run files. Raises LandingError if writing
        fails, or if two rows are the same repetition.
        """
        if not runs.schema.equals(self.study.run_files):
            raise LandingError(f"experiment {experiment_id}: the rows do not have the run schema")
        rows = {repetition: row for row, repetition in enumerate(runs["repetition"].to_pylist())}
        if len(rows) < runs.num_rows:
            what = f"{counted(runs.num_rows, 'row')} for {counted(len(rows), 'repetition')}"
            raise LandingError(f"experiment {experiment_id}: {what}; drop the duplicates")
        try:
            while True:
                missing = sorted(set(rows) - self.repetitions_of(experiment_id, partition))
                if not missing:
                    return Landing([], 0, len(rows))
                files = self._publish(partition, experiment_id, runs, [rows[rep] for rep in missing], missing)
                if files is not None:
                    return Landing(files, len(missing), len(rows) - len(missing))
        except OSError as error:
            raise unwritten(error, f"experiment {experiment_id}: landing in {self} failed: {error}") from error

    def _publish(
        self, partition: str, experiment_id: int, runs: pa.Table, rows: list[int], repetitions: list[int]
    ) -> list[str] | None:
        """Land rows and return the names of their files; None, with nothing written, if another landing was faster."""
        files = encode_runs(self.study, partition, experiment_id, _in_order(runs, rows), repetitions)
        if not self._publish_files(partition, experiment_id, files, set(repetitions)):
            return None
        return [name.removeprefix(f"{RUNS}/") for name in files]

    def _publish_files(
        self, partition: str, experiment_id: int, files: Mapping[str, bytes], repetitions: set[int]
    ) -> bool:
        """Give the files their names; return False, with nothing written, if any of the repetitions is there."""
        with Pending(self.location, files) as pending, self.lock(experiment_id) as lock, lock.kept_fresh():
            if self.repetitions_of(experiment_id, partition) & repetitions or not lock.is_held():
                return False
            return pending.publish()

    def quarantine(self, name: str, reason: str, stamp: str) -> bool:
        """Move a file to ``quarantine/<stamp>/<reason>/<name>``, where no reader looks; nothing is deleted.

        ``name`` is relative to the store. Returns False if the file is not there any more. Whoever moves a run file
        holds its experiment's lock (`lock`). Raises LandingError if the file cannot be moved.
        """
        try:
            return self.location.move(name, f"{QUARANTINE}/{stamp}/{reason}/{name}")
        except OSError as error:
            raise unwritten(error, f"{self}/{name} cannot be moved to quarantine ({one_line(error)})") from error

    def quarantined(self) -> dict[str, int]:
        """Count the files that lie in quarantine, by the reason they were moved for."""
        counts: dict[str, int] = {}
        for name, _ in self.location.walk(QUARANTINE, temporary=True):
            reason = name.split("/")[1] if name.count("/") > 1 else ""
            counts[reason] = counts.get(reason, 0) + 1
        return dict(sorted(counts.items()))

    def lock(self, experiment_id: int) -> FileLock:
        """Return the lock that is held while files of an experiment come and go."""
        return FileLock(self.state / "locks" / f"{experiment_id}.lock")

    def land_file(self, file: RunFile, data: bytes) -> bool:
        """Land a run file of another store as it is; return False, and write nothing, if any repetition is there.

        Raises LandingError if writing fails.
        """
        try:
            content = {f"{RUNS}/{file.path}": data}
            return self._publish_files(file.partition, file.experiment_id, content, set(file.repetitions))
        except OSError as error:
            raise unwritten(error, f"{file.path}: landing in {self} failed: {error}") from error

    def supersede(self, file: RunFile, rows: pa.Table, reason: str) -> str:
        """Put other rows of the same repetitions in a run file's place, and keep the old file in quarantine.

        Returns the name of the old file's new place. The partition's summaries are taken away, since they speak of the
        old rows and names do not tell. A reader sees the old file or the new one, whole; if this is killed, the same
        call does it again. Raises LandingError if writing fails.
        """
        name = f"{RUNS}/{file.path}"
        kept = f"{QUARANTINE}/{quarantine_stamp()}/{reason}/{name}"
        try:
            with self.lock(file.experiment_id) as lock, lock.kept_fresh():
                self.location.remove(f"{SUMMARY}/{file.partition}/{SUMMARY_FILE}")
                if not self.location.write_new(kept, self.location.read_bytes(name)):
                    raise LandingError(f"{self}/{kept}: is there already; try again")
                self.location.replace(name, parquet_bytes(rows, self.study.encodings))
        except OSError as error:
            raise unwritten(error, f"{file.path}: replacing it in {self} failed: {error}") from error
        return kept

    def record_failure(self, failure: Failure) -> None:
        """Record why repetitions failed, in place of an older record of the same ones."""
        data = msgspec.json.encode(failure)
        with new_folder(self.state / "failures") as folder:
            write_durably(folder, lambda file: file.write(data)).replace(folder / failure.file_name)

    def failures(self, present: Mapping[int, int]) -> list[Failure]:
        """Return the failures whose repetitions are still missing, by experiment id; other records are out of date."""
        if self._state is None:
            return []
        records = [read_failure(path) for path in files_in(self._state / "failures", ".json")]
        current = [record for record in records if record.is_missing(present)]
        return sorted(current, key=lambda record: (record.experiment_id, record.repetitions))


def _first_files(study: Study) -> dict[str, bytes]:
    """Return the files of a store without runs; the first one makes it a store."""
    content = StoreFile(FORMAT_VERSION, study.name, study.declaration if study.is_declared_by_stores else None)
    described = {"store.json": msgspec.json.format(msgspec.json.encode(content)) + b"\n"}
    return described | {
        f"{frame.folder}/{COMMON_METADATA}": common_metadata(frame.schema)
        for frame in study.frames.values()
        if not frame.optional
    }


def encode_runs(
    study: Study, partition: str, experiment_id: int, runs: pa.Table, repetitions: list[int]
) -> dict[str, bytes]:
    """Encode rows of an experiment, sorted by ``repetitions``, as files: their bytes by their names in the store."""
    files = {}
    for start, stop in consecutive(repetitions):
        name = run_file_name(experiment_id, repetitions[start], repetitions[stop - 1])
        files[f"{RUNS}/{partition}/{name}"] = parquet_bytes(runs.slice(start, stop - start), study.encodings)
    return files


def _in_order(runs: pa.Table, rows: list[int]) -> pa.Table:
    """Return some rows of a table, copied at most once; `take` would first join the pieces of a table of several."""
    if rows == list(range(runs.num_rows)):
        return runs.combine_chunks()
    return pa.concat_tables([runs.slice(row, 1) for row in rows]).combine_chunks()


def quarantine_stamp() -> str:
    """Return the UTC time as the name of a folder of quarantine; each command that moves files takes one."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def read_store_file(location: Location) -> StoreFile:
    """Return what a store says of itself; raise StoreError where that cannot be read, or is of another format."""
    try:
        content: StoreFile = msgspec.json.decode(location.read_bytes("store.json"), type=StoreFile)
    except msgspec.DecodeError as error:
        raise StoreError(f"{location}/store.json: not readable as a store's description ({error})") from error
    if content.format != FORMAT_VERSION:
        raise StoreError(
            f"{location}: the store has format {content.format}, this version of butter_etl reads {FORMAT_VERSION}"
        )
    return content


def readable(path: str | os.PathLike[str]) -> tuple[Location, Study | None]:
    """Return where a store is and its study, None where that is not known here; raise StoreError if it is no store."""
    try:
        store = Store.open(path)
    except StudyError:
        return Location(path), None
    return store.location, store.study


def as_study(study: StudyLike | None) -> Study | None:
    """Return the study that a value, a name or a reference stands for; raise StudyError where none is known."""
    if study is None or isinstance(study, Study):
        return study
    return load_study(study) if ":" in study else find_study(study, f"--study {study}")


def _study_of(location: Location, content: StoreFile, study: StudyLike | None) -> Study:
    wanted = as_study(study)
    if wanted is not None and wanted.name != content.study:
        raise StudyError(f"{location}: is a store of the study {content.study!r}, not of {wanted.name!r}")
    found = wanted or find_study(content.study, f"{location}")
    if content.declaration not in (None, found.declaration):
        raise StudyError(
            f"{location}: its study {found.name!r} is declared otherwise now than when the store was made (columns, "
            "keys, statistics or task); take that back, raise `task_version` in a new store, or name the study anew"
        )
    return found


def require_state(path: str | os.PathLike[str], state: str | os.PathLike[str] | None) -> None:
    """Raise StoreError if the store at ``path`` cannot be written for want of a state folder; look nothing up."""
    location = Location(path)
    _ = Store(location, _state_folder(location, state), default_study()).state


def _state_folder(location: Location, state: str | os.PathLike[str] | None) -> Path | None:
    if state is not None:
        if "://" in os.fspath(state):
            raise StoreError(f"--state {state}: locks need a folder on a POSIX file system, not a URL")
        return Path(state).absolute()
    return Path(location.path(STATE)) if location.is_local else None
