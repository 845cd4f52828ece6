"""The tasks of an import: scan files, spool groups of rows, check experiments, land them.

Each is a plain function of a list of things and the import's settings. It returns facts, never rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.fs

from butter_etl.errors import ButterError, DuplicateError, SpecError
from butter_etl.exchange.gathering import Gathered, Piece, spool_groups, without
from butter_etl.exchange.merging import Merged, Prefer, compare, merge, refusal
from butter_etl.exchange.sources import FileScan, Group, GroupScan, Reader, scan_file
from butter_etl.store import Location, Store, take_rows
from butter_etl.studies import RUNS, Study


class ImportSettings(msgspec.Struct, frozen=True):
    """The settings that every task of an import needs. ``source`` is empty where all rows are spooled."""

    study: Study
    source: str
    profile: str
    store: str
    state: str
    spool: str
    prefer: Prefer | None

    def reader(self) -> Reader:
        """Return a reader of the groups of rows."""
        return Reader(self.study, self.source, self.spool, self.profile)


def scan_files(files: list[tuple[str, int]], study: Study, source: str, profile: str) -> list[FileScan]:
    """Scan some files of a source; see `scan_file`."""
    return [scan_file(study, source, name, size, study.profiles[profile]) for name, size in files]


def spool(groups: list[GroupScan], settings: ImportSettings) -> list[GroupScan]:
    """Spool some groups of rows; see `spool_groups`."""
    return spool_groups(settings.reader(), groups, settings.spool)


@dataclass(frozen=True)
class Checked:
    """The outcome of checking an experiment.

    ``there`` are files of the source that need not be landed, as the store or an earlier file of the source has the
    same bytes. ``new`` and ``conflicts`` count runs. ``problem`` is what forbids the import.
    """

    there: frozenset[str]
    new: int
    conflicts: int = 0
    problem: ButterError | None = None


def check_items(items: list[Gathered], settings: ImportSettings) -> list[Checked]:
    """Compare the runs of some experiments with those of the store and with each other; nothing is written."""
    store = Store.find(settings.store, settings.state, settings.study)
    rows = Rows(items, settings)
    return [_check_item(item, rows, store, settings) for item in items]


def _check_item(item: Gathered, rows: Rows, store: Store | None, settings: ImportSettings) -> Checked:
    there = frozenset(_files_there(item, store, settings))
    rest = without(item, there)
    if not rest.pieces:
        return Checked(there, 0)
    if _can_stay_files(rest, store):
        return Checked(there, rest.rows)
    try:
        found = compare(settings.study, store, item.arrival, rows.of(rest), settings.prefer)
    except (SpecError, DuplicateError) as error:
        return Checked(there, 0, problem=error)
    problem = refusal(item.arrival, found.conflicts, found.ambiguous, settings.prefer)
    return Checked(there, found.new.num_rows, len(found.conflicts), DuplicateError(problem) if problem else None)


def _files_there(item: Gathered, store: Store | None, settings: ImportSettings) -> Iterator[str]:
    """Yield the source's files that the store has byte by byte, or that are copies of an earlier one of the source."""
    if not item.whole:
        return
    source = Location(settings.source)
    first: dict[str, bytes] = {}
    for name, file in item.whole.items():
        target = f"{RUNS}/{file.path}"
        is_there = store is not None and file.experiment_id == item.arrival.experiment_id and _is_file(store, target)
        if not is_there and file.path not in first and len(item.whole) == 1:
            continue
        data = source.read_bytes(name)
        if (store is not None and is_there and store.location.read_bytes(target) == data) or (
            first.setdefault(file.path, data) is not data and first[file.path] == data
        ):
            yield name


def _is_file(store: Store, name: str) -> bool:
    return bool(store.location.kind(name) == pa.fs.FileType.File)


def _can_stay_files(item: Gathered, store: Store | None) -> bool:
    """Tell whether an experiment's files can be landed as they are.

    They can if none of their runs is in the store, or twice in the files.
    """
    files = item.as_files()
    if files is None:
        return False
    is_own = item.arrival.experiment.is_own  # whose runs the repetition number identifies
    if not is_own and np.unique(item.run_ids).size < item.rows:
        return False
    if store is None or item.arrival.experiment_id is None:
        return True
    there = store.repetitions_of(item.arrival.experiment_id, item.arrival.partition)
    return not there or (is_own and not any(number in there for file in files for number in file.repetitions))


def land_items(items: list[Gathered], settings: ImportSettings) -> Merged:
    """Land some experiments, each with its id, and return the counts of runs."""
    store = Store.open(settings.store, settings.state, settings.study)
    rows = Rows(items, settings)
    total = Merged()
    for item in items:
        total = total.plus(_land_item(item, rows, store, settings))
    return total


def _land_item(item: Gathered, rows: Rows, store: Store, settings: ImportSettings) -> Merged:
    files = item.as_files()
    if files is None:
        return merge(store, item.arrival, rows.of(item), settings.prefer)
    source = Location(settings.source)
    done = Merged()
    for file, name in files.items():
        if store.land_file(file, source.read_bytes(name)):
            done = done.plus(Merged(landed=len(file.repetitions)))
        else:
            own = replace(item, pieces=tuple(piece for piece in item.pieces if piece.group.file == name))
            done = done.plus(merge(store, item.arrival, rows.of(own), settings.prefer))
    return done


class Rows:
    """The rows of the experiments of one task: a group that several of them share is read once."""

    def __init__(self, items: Iterable[Gathered], settings: ImportSettings) -> None:
        self._reader = settings.reader()
        self._uses = Counter(piece.group for item in items for piece in item.pieces)
        self._groups: dict[Group, pa.Table] = {}

    def of(self, item: Gathered) -> pa.Table:
        """Return all rows of an experiment."""
        return pa.concat_tables([self._piece(piece) for piece in item.pieces])

    def _piece(self, piece: Piece) -> pa.Table:
        table = self._groups.get(piece.group)
        if table is None:
            table = self._reader.read(piece.group)
        self._uses[piece.group] -= 1
        if self._uses[piece.group] > 0:
            self._groups[piece.group] = table
        else:
            self._groups.pop(piece.group, None)
        return table if piece.places is None else take_rows(table, piece.places)
