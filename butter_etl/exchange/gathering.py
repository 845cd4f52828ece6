"""The rows of each experiment of a source, gathered: from groups that hold many experiments to tasks.

Where groups of rows hold many experiments, they are rewritten to local files in which the rows of an experiment lie
together: that is the shuffle, and it moves a row once.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from butter_etl.errors import one_line, unwritten
from butter_etl.exchange.sources import (
    SLICE_BYTES,
    Example,
    FileScan,
    Group,
    GroupScan,
    Reader,
    check_history_lengths,
    hash_ids,
    lengths_of,
    scan_rows,
)
from butter_etl.store import Registry, RunFile, partition_path, take_rows
from butter_etl.studies import Experiment, Study

#: A task holds experiments of about this many bytes in memory; of a small source fewer, so that no thread is idle.
_TASK_BYTES, _LEAST_TASK_BYTES = 64 * 2**20, 4 * 2**20
_TASKS_A_THREAD = 4
_TASK_EXPERIMENTS = 256
#: Groups are spooled if tasks would otherwise read more than this many times the bytes of the source.
_MOST_REREADING = 1.5
T = TypeVar("T")


@dataclass(frozen=True)
class Arrival:
    """An experiment that arrives, its id in the store (None as long as it has none), and its partition there."""

    experiment: Experiment
    experiment_id: int | None
    partition: str

    def describe(self) -> str:
        """Return the name of the experiment in messages."""
        number = "" if self.experiment_id is None else f" {self.experiment_id}"
        return f"experiment{number} ({self.experiment.describe()})"


class Piece(NamedTuple):
    """Rows of one experiment: all of a group, or some, by their places in it; ``bytes`` in memory, about."""

    group: Group
    places: NDArray[np.int64] | None
    rows: int
    bytes: int


@dataclass(frozen=True)
class Gathered:
    """An experiment of the source with its rows; ``whole`` are its files that a store could have as they are."""

    arrival: Arrival
    example: Example
    pieces: tuple[Piece, ...]
    run_ids: NDArray[np.uint64]
    whole: dict[str, RunFile] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Return the size of its rows in memory, about."""
        return sum(piece.bytes for piece in self.pieces)

    @property
    def rows(self) -> int:
        """Return how many rows it has, runs that stand twice included."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def repeats(self) -> bool:
        """Tell whether runs stand twice in the source."""
        return bool(np.unique(self.run_ids).size < self.run_ids.size)

    def as_files(self) -> dict[RunFile, str] | None:
        """Return the files that can be landed as they are, with their names in the source.

        Returns None if the rows must be looked at: some are in no such file, a file has another id, or two files hold
        the same repetition.
        """
        files: dict[RunFile, str] = {}
        for piece in self.pieces:
            file = self.whole.get(piece.group.file)
            if file is None or self.arrival.experiment_id not in (None, file.experiment_id):
                return None
            files.setdefault(file, piece.group.file)
        numbers = Counter(number for file in files for number in file.repetitions)
        return None if numbers and max(numbers.values()) > 1 else files


def gather(scans: Iterable[FileScan], registry: Registry) -> list[Gathered]:
    """Return the experiments of scanned files in order of first occurrence, with their ids in ``registry``."""
    examples: dict[Experiment, Example] = {}
    pieces: dict[Experiment, list[Piece]] = {}
    hashes: dict[Experiment, list[NDArray[np.uint64]]] = {}
    whole: dict[Experiment, dict[str, RunFile]] = {}
    keys = registry.study.keys
    for scan in scans:
        for example in scan.examples:
            first = examples.setdefault(example.experiment, example)
            examples[example.experiment] = replace(first, experiment_id=_lower(first, example))
        for group in scan.groups:
            for code, piece, run_ids in _pieces(group):
                experiment = scan.examples[code].experiment
                pieces.setdefault(experiment, []).append(piece)
                hashes.setdefault(experiment, []).append(run_ids)
                if scan.whole is not None:
                    whole.setdefault(experiment, {})[group.group.file] = scan.whole
    return [
        Gathered(
            Arrival(experiment, registry.experiment_id(experiment), partition_path(keys, experiment.parameters())),
            examples[experiment],
            tuple(own),
            np.concatenate(hashes[experiment]),
            whole.get(experiment, {}),
        )
        for experiment, own in pieces.items()
    ]


def _lower(first: Example, other: Example) -> int | None:
    ids = [one.experiment_id for one in (first, other) if one.experiment_id is not None]
    return min(ids, default=None)


def _pieces(group: GroupScan) -> Iterator[tuple[int, Piece, NDArray[np.uint64]]]:
    codes = np.unique(group.keys)
    for code in codes.tolist():
        if codes.size == 1:
            yield code, Piece(group.group, None, group.keys.size, group.bytes), group.run_ids
            return
        places = np.flatnonzero(group.keys == code)
        share = group.bytes * places.size // group.keys.size
        yield code, Piece(group.group, places, places.size, share), group.run_ids[places]


def must_spool(items: Sequence[Gathered], group_bytes: Mapping[Group, int], threads: int = 1) -> set[Group]:
    """Return the groups of several experiments if they are to be spooled first, else none.

    They are if one of them is large, or if tasks would read groups too often.
    """
    mixed = {piece.group for item in items for piece in item.pieces if piece.places is not None}
    read = sum(
        sum(group_bytes[group] for group in {piece.group for item in task for piece in item.pieces})
        for task in pack(items, threads)
    )
    once = sum(group_bytes[group] for group in {piece.group for item in items for piece in item.pieces})
    if read > _MOST_REREADING * once or any(group_bytes[group] > 4 * SLICE_BYTES for group in mixed):
        return mixed
    return set()


def to_spool(scans: Iterable[FileScan], items: Sequence[Gathered], groups: Set[Group]) -> list[GroupScan]:
    """Return the scans of some groups, with the place in ``items`` of each row's experiment as its key."""
    places = {item.arrival.experiment: place for place, item in enumerate(items)}
    found = []
    for scan in scans:
        of_code = np.array([places[example.experiment] for example in scan.examples], np.int32)
        found += [replace(one, keys=of_code[one.keys]) for one in scan.groups if one.group in groups]
    return found


def spooled(items: Iterable[Gathered], groups: Set[Group], spools: Iterable[GroupScan]) -> list[Gathered]:
    """Return the experiments with their rows of some groups where these were spooled to; see `to_spool`."""
    moved: dict[int, list[Piece]] = {}
    for one in spools:
        moved.setdefault(int(one.keys[0]), []).append(Piece(one.group, None, one.keys.size, one.bytes))
    return [
        replace(item, pieces=(*(one for one in item.pieces if one.group not in groups), *moved.get(place, ())))
        for place, item in enumerate(items)
    ]


def pack(items: Sequence[Gathered], threads: int = 1) -> Iterator[list[Gathered]]:
    """Group experiments into tasks of about `_TASK_BYTES`, in order; smaller ones if ``threads`` would be idle."""
    return in_tasks(items, [item.bytes for item in items], threads)


def in_tasks(things: Sequence[T], sizes: Sequence[int], threads: int) -> Iterator[list[T]]:
    """Group things of given sizes in bytes into tasks, in their order."""
    most = min(_TASK_BYTES, max(_LEAST_TASK_BYTES, sum(sizes) // (_TASKS_A_THREAD * threads)))
    task: list[T] = []
    held = 0
    for thing, size in zip(things, sizes, strict=True):
        if task and (held + size > most or len(task) == _TASK_EXPERIMENTS):
            yield task
            task, held = [], 0
        task.append(thing)
        held += size
    if task:
        yield task


def without(item: Gathered, files: frozenset[str]) -> Gathered:
    """Return an experiment without the rows of some files."""
    left = tuple(piece for piece in item.pieces if piece.group.file not in files)
    return replace(item, pieces=left) if files else item


def spool_groups(reader: Reader, scans: Iterable[GroupScan], folder: str) -> list[GroupScan]:
    """Rewrite groups as spool files in which the rows of each experiment lie together; return the scans of these.

    Experiments are those of ``keys``, which mean the same in all groups. Rows of as many groups as fit into
    `SLICE_BYTES` are sorted at once, and no more are read. Raises LandingError if a file cannot be written.
    """
    made: list[GroupScan] = []
    held: list[tuple[pa.Table, NDArray[np.int32], NDArray[np.uint64]]] = []
    size = 0
    for scan in scans:
        row_bytes = max(scan.bytes // max(scan.keys.size, 1), 1)
        start = 0
        for rows in reader.slices(scan.group, max(1, SLICE_BYTES // row_bytes)):
            if size + rows.num_rows * row_bytes > SLICE_BYTES:
                made += _write_held(held, folder)
                held, size = [], 0
            stop = start + rows.num_rows
            held.append((rows, scan.keys[start:stop], scan.run_ids[start:stop]))
            size += rows.num_rows * row_bytes
            start = stop
    return made + _write_held(held, folder)


def spool_rows(study: Study, rows: pa.Table, folder: str, place: str) -> FileScan:
    """Write rows of any source to a spool file, those of an experiment together, and return its scan.

    Raises what `scan_rows` raises, and LandingError if the file cannot be written.
    """
    codes, examples = scan_rows(study, rows, place)
    check_history_lengths(study, rows, lengths_of(study, rows), place)
    hashes = hash_ids(rows["run_id"]) if rows.num_rows else np.zeros(0, np.uint64)
    return FileScan(_write_spool(rows, codes, hashes, folder), examples, [])


def _write_held(held: list[tuple[pa.Table, NDArray[np.int32], NDArray[np.uint64]]], folder: str) -> list[GroupScan]:
    if not held:
        return []
    tables, codes, hashes = zip(*held, strict=True)
    return _write_spool(pa.concat_tables(tables), np.concatenate(codes), np.concatenate(hashes), folder)


def _write_spool(rows: pa.Table, codes: NDArray[np.int32], hashes: NDArray[np.uint64], folder: str) -> list[GroupScan]:
    """Write rows to a spool file and return a scan for each experiment.

    Rows of an experiment lie in the order of their repetition numbers, in which they are landed.
    """
    name = f"{uuid.uuid4().hex}.tmp"
    order = np.lexsort((pc.fill_null(rows["repetition"], 0).to_numpy(), codes))
    if not order.size:
        return []
    ordered = take_rows(rows, order)
    try:
        with pa.OSFile(f"{folder}/{name}", "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(ordered)
    except OSError as error:
        raise unwritten(error, f"{folder}: rows could not be spooled ({one_line(error)})") from error
    codes, hashes = codes[order], hashes[order]
    row_bytes = ordered.nbytes // codes.size
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    return [
        GroupScan(Group(name, start, stop - start), row_bytes * (stop - start), codes[start:stop], hashes[start:stop])
        for start, stop in pairwise([*starts, codes.size])
    ]
