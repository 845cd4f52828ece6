"""The experiments of a source: which rows each has, in which files, and how they are put together to tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from butter_etl.registry import Registry
from butter_etl.sources import SLICE_BYTES, Example, FileScan, Group, GroupScan
from butter_etl.spec import Experiment
from butter_etl.store import RunFile, partition_path

#: A task holds experiments of about as many bytes in memory.
_TASK_BYTES = 64 * 2**20
_TASK_EXPERIMENTS = 256
#: Groups are spooled if tasks would otherwise read this many times what is there.
_MOST_REREADING = 1.5


@dataclass(frozen=True)
class Arrival:
    """An experiment that arrives, and its id in the store (None as long as it has none)."""

    experiment: Experiment
    experiment_id: int | None

    @property
    def partition(self) -> str:
        """The hive keys of its place."""
        return partition_path(self.experiment.parameters())

    def describe(self) -> str:
        """The experiment in messages."""
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
    """An experiment of the source: its rows, and those of its files that a store could have as they are."""

    arrival: Arrival
    example: Example
    pieces: tuple[Piece, ...]
    run_ids: NDArray[np.uint64]
    whole: dict[str, RunFile] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """The size of its rows in memory, about."""
        return sum(piece.bytes for piece in self.pieces)

    @property
    def rows(self) -> int:
        """How many rows it has, runs that stand twice included."""
        return sum(piece.rows for piece in self.pieces)

    @property
    def repeats(self) -> bool:
        """Whether runs stand twice in the source."""
        return bool(np.unique(self.run_ids).size < self.run_ids.size)

    def as_files(self) -> dict[RunFile, str] | None:
        """The files that can be landed as they are, with their names in the source; None if rows must be looked at."""
        files: dict[RunFile, str] = {}
        for piece in self.pieces:
            file = self.whole.get(piece.group.file)
            if file is None or self.arrival.experiment_id not in (None, file.experiment_id):
                return None
            files.setdefault(file, piece.group.file)
        numbers = Counter(number for file in files for number in file.repetitions)
        return None if numbers and max(numbers.values()) > 1 else files


def gather(scans: Iterable[FileScan], registry: Registry) -> list[Item]:
    """The experiments of scanned files, in the order in which they first occur, with the ids that they have there."""
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


def must_spool(items: Sequence[Item], group_bytes: Mapping[Group, int]) -> set[Group]:
    """The groups of several experiments, if they are to be spooled first: they are large, or would be read often."""
    mixed = {piece.group for item in items for piece in item.pieces if piece.places is not None}
    read = sum(
        sum(group_bytes[group] for group in {piece.group for item in task for piece in item.pieces})
        for task in pack(items)
    )
    once = sum(group_bytes[group] for group in {piece.group for item in items for piece in item.pieces})
    if read > _MOST_REREADING * once or any(group_bytes[group] > 4 * SLICE_BYTES for group in mixed):
        return mixed
    return set()


def pack(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Experiments in tasks of about `_TASK_BYTES`, in their order."""
    task: list[Item] = []
    size = 0
    for item in items:
        if task and (size + item.bytes > _TASK_BYTES or len(task) == _TASK_EXPERIMENTS):
            yield task
            task, size = [], 0
        task.append(item)
        size += item.bytes
    if task:
        yield task


def without(item: Item, files: frozenset[str]) -> Item:
    """An experiment without the rows of some files."""
    left = tuple(piece for piece in item.pieces if piece.group.file not in files)
    return replace(item, pieces=left) if files else item
