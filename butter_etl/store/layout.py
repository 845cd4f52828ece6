"""The layout of a store: its folders, hive keys and file names.

Names say what files hold, so listing is knowing: a run file is
``all_runs/<hive keys>/<experiment_id>-<first>-<last>.parquet`` and holds consecutive repetitions of one
experiment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa

from butter_etl.errors import SpecError, StoreError
from butter_etl.studies import Value, float_text

FORMAT_VERSION = 1
NULL = "__HIVE_DEFAULT_PARTITION__"
EXPERIMENTS, SWEEPS, STATE = "experiments", "sweeps", "state"
#: Where users' own data sets are kept.
DATA = "datasets"
QUARANTINE = "quarantine"
#: In the state folder of a store in a bucket: notes of what was changed there.
CHANGES = "changes"
SUMMARY_FILE = "summary.parquet"
#: Repetition numbers are uint16.
LAST_REPETITION = 2**16 - 1
#: File systems have no longer names, in bytes.
_LONGEST_NAME = 255
_RUN_FILE = re.compile(r"(\d+)-(\d+)-(\d+)\.parquet")


# --- keys and names ----------------------------------------------------------------------------------------------


def partition_path(keys: Sequence[str], values: Mapping[str, Value]) -> str:
    """Return hive keys as a relative path, in the one spelling that every writer uses.

    Raises SpecError for a value that a path cannot stand for: an empty text, the marker of null, a name too long.
    """
    return "/".join(_segment(key, values[key]) for key in keys)


def _segment(key: str, value: Value) -> str:
    if value in ("", NULL):
        raise SpecError(f"{key}: {value!r} would be read back as null; give it another name")
    segment = f"{key}={quote(key_text(value), safe='')}"
    if len(segment) > _LONGEST_NAME:
        most = _LONGEST_NAME - len(f"{key}=")
        raise SpecError(
            f"{key}: {str(value)[:40]!r}… takes {len(segment) - len(key) - 1} bytes as the name of a folder, at most "
            f"{most} will do (letters beyond ASCII take 6 or more); give it a shorter name"
        )
    return segment


def key_text(value: Value) -> str:
    """Return a key's value as the layout spells it before percent-encoding: null, shortest floats, plain integers."""
    if value is None:
        return NULL
    return float_text(value, "float64") if isinstance(value, float) else str(value)


def parse_partition(keys: pa.Schema, path: str) -> dict[str, Value]:
    """Return the values of ``keys`` that a relative path spells; raise StoreError unless it has these, in order."""
    values: dict[str, Value] = {}
    for segment in path.split("/"):
        key, _, text = segment.partition("=")
        values[key] = None if text == NULL else _parse_key(keys, key, unquote(text), path)
    if list(values) != keys.names:
        raise StoreError(f"{path}: not a partition of this layout (keys {', '.join(keys.names)})")
    return values


def _parse_key(keys: pa.Schema, key: str, text: str, path: str) -> Value:
    index = keys.get_field_index(key)
    if index < 0:
        raise StoreError(f"{path}: unknown partition key {key!r}")
    kind = keys.field(index).type
    try:
        if pa.types.is_boolean(kind):
            return {"True": True, "False": False}[text]
        return float(text) if pa.types.is_floating(kind) else int(text) if pa.types.is_integer(kind) else text
    except (ValueError, KeyError) as error:
        raise StoreError(f"{path}: {key} is no {kind}: {text!r}") from error


class RunFile(NamedTuple):
    """A run file as its name describes it. ``path`` is relative to ``all_runs``, ``size`` is in bytes."""

    path: str
    experiment_id: int
    first: int
    last: int
    size: int

    @property
    def partition(self) -> str:
        """Return the hive keys, as `partition_path` spells them."""
        return self.path.rpartition("/")[0]

    @property
    def repetitions(self) -> range:
        """Return the numbers of the repetitions that the file holds."""
        return range(self.first, self.last + 1)

    @classmethod
    def parse(cls, path: str, size: int) -> RunFile | None:
        """Return the run file at ``path``, or None for any other name."""
        name = path.rpartition("/")[2]
        match = _RUN_FILE.fullmatch(name)
        if match is None:
            return None
        experiment_id, first, last = map(int, match.groups())
        if name != run_file_name(experiment_id, first, last) or not first <= last <= LAST_REPETITION:
            return None  # nothing that a landing writes
        return cls(path, experiment_id, first, last, size)


def run_file_name(experiment_id: int, first: int, last: int) -> str:
    """Return the name of the file that holds repetitions ``first`` to ``last``, both included, of an experiment."""
    return f"{experiment_id}-{first}-{last}.parquet"


def consecutive(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the (start, stop) positions of the maximal runs of consecutive numbers in a sorted list."""
    start = 0
    for position in range(1, len(numbers) + 1):
        if position == len(numbers) or numbers[position] != numbers[position - 1] + 1:
            yield start, position
            start = position


def ranges_text(numbers: list[int]) -> str:
    """Format sorted numbers for people: ``0-4, 7``."""
    parts = [(numbers[start], numbers[stop - 1]) for start, stop in consecutive(numbers)]
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in parts)


def parse_ranges(text: str) -> Iterator[int]:
    """Yield the numbers that `ranges_text` formats so; raise ValueError for another text."""
    for part in filter(None, text.split(", ")):
        first, dash, last = part.partition("-")
        yield from range(int(first), int(last if dash else first) + 1)


def by_experiment(files: Iterable[RunFile]) -> dict[int, list[RunFile]]:
    """Group run files by experiment, in the order of the ids."""
    found: dict[int, list[RunFile]] = {}
    for file in files:
        found.setdefault(file.experiment_id, []).append(file)
    return dict(sorted(found.items()))


def repetition_masks(files: Iterable[RunFile]) -> dict[int, int]:
    """Return the repetitions that files hold, as a bit mask by experiment id."""
    masks: dict[int, int] = {}
    for file in files:
        held = (1 << file.last + 1) - (1 << file.first)
        masks[file.experiment_id] = masks.get(file.experiment_id, 0) | held
    return masks
