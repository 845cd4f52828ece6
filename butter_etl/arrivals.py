"""The experiments of a source: the rows of each, the files that hold them, and how they are grouped into tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from butter_etl.registry import Registry
from butter_etl.sources import SLICE_BYTES, Example, FileScan, Group, GroupScan
from butter_etl.spec import Experiment
from butter_etl.store import RunFile, partition_path

#: A task holds experiments of about this many bytes in memory; of a small source fewer, so that no thread is idle.
_TASK_BYTES, _LEAST_TASK_BYTES = 64 * 2**20, 4 * 2**20
_TASKS_A_THREAD = 4
_TASK_EXPERIMENTS = 256
#: Groups are spooled if tasks would otherwise read more than this many times the bytes of the source.
_MOST_REREADING = 1.5
T = TypeVar("T")


@dataclass(frozen=True)
class Arrival:
    """An experiment that arrives, and its id in the store (None as long as it has none)."""

    experiment: Experiment
    experiment_id: int | None

    @property
    def partition(self) -> str:
        """Return the path of its partition: the hive keys."""
        return partition_path(self.experiment.parameters())

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
class Item:
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


def gather(scans: Iterable[FileScan], registry: Registry) -> list[Item]:
    """Return the experiments of scanned files in order of first occurrence, with their ids in ``registry``."""
    examples: dict[Experiment, Example] = {}
    pieces: dict[Experiment, list[Piece]] = {}
    hashes: dict[Experiment, list[NDArray[np.uint64]]] = {}
    whole: dict[Experiment, dict[str, RunFile]] = {}
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
        Item(
            Arrival(experiment, registry.experiment_id(experiment)),
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


def must_spool(items: Sequence[Item], group_bytes: Mapping[Group, int], threads: int = 1) -> set[Group]:
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


def to_spool(scans: Iterable[FileScan], items: Sequence[Item], groups: Set[Group]) -> list[GroupScan]:
    """Return the scans of some groups, with the place in ``items`` of each row's experiment as its key."""
    places = {item.arrival.experiment: place for place, item in enumerate(items)}
    found = []
    for scan in scans:
        of_code = np.array([places[example.experiment] for example in scan.examples], np.int32)
        found += [replace(one, keys=of_code[one.keys]) for one in scan.groups if one.group in groups]
    return found


def spooled(items: Iterable[Item], groups: Set[Group], spools: Iterable[GroupScan]) -> list[Item]:
    """Return the experiments with their rows of some groups where these were spooled to; see `to_spool`."""
    moved: dict[int, list[Piece]] = {}
    for one in spools:
        moved.setdefault(int(one.keys[0]), []).append(Piece(one.group, None, one.keys.size, one.bytes))
    return [
        replace(item, pieces=(*(one for one in item.pieces if one.group not in groups), *moved.get(place, ())))
        for place, item in enumerate(items)
    ]


def pack(items: Sequence[Item], threads: int = 1) -> Iterator[list[Item]]:
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


def without(item: Item, files: frozenset[str]) -> Item:
    """Return an experiment without the rows of some files."""
    left = tuple(piece for piece in item.pieces if piece.group.file not in files)
    return replace(item, pieces=left) if files else item
