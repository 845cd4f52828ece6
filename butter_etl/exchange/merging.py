"""Merging of runs from elsewhere with those of a store: duplicates, repetition numbers, landing.

Everything here is about one experiment. `compare` says what merging its rows would do, `merge` lands them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from butter_etl.errors import DuplicateError, SpecError
from butter_etl.exchange.gathering import Arrival
from butter_etl.exchange.sources import own_repetitions
from butter_etl.store import LAST_REPETITION, RunFile, Store
from butter_etl.studies import Study, rows_differ

Prefer = Literal["store", "source"]
_REASON = "replaced"


@dataclass(frozen=True)
class Comparison:
    """The rows of an experiment compared with those of a store.

    ``new`` are the rows to be landed, numbered. ``conflicts`` are ids of runs that the store has with other histories.
    ``ambiguous`` are ids of runs that differ within the source. ``replacements`` are files of the store with the rows
    that they would have if the source is preferred.
    """

    new: pa.Table
    conflicts: list[str]
    ambiguous: list[str]
    replacements: list[tuple[RunFile, pa.Table]]


class Merged(NamedTuple):
    """Counts of runs after merging; ``present`` ones were in the store, or stood twice in the source."""

    landed: int = 0
    present: int = 0
    replaced: int = 0

    def plus(self, other: Merged) -> Merged:
        """Return the sum of both."""
        return Merged(*(one + more for one, more in zip(self, other, strict=True)))


def merge(store: Store, arrival: Arrival, rows: pa.Table, prefer: Prefer | None) -> Merged:
    """Land those of the rows that the store lacks, each once, whoever lands the same experiment meanwhile.

    Raises DuplicateError if runs differ from those of the store and nothing is preferred, or differ within the source,
    and what `compare` and `Store.land` raise.
    """
    if arrival.experiment_id is None:
        raise AssertionError(arrival)
    landed = replaced = 0
    while True:
        found = compare(store.study, store, arrival, rows, prefer)
        if problem := refusal(arrival, found.conflicts, found.ambiguous, prefer):
            raise DuplicateError(problem)
        for file, content in found.replacements:
            store.supersede(file, content, _REASON)
        if found.replacements:
            replaced += len(found.conflicts)
        fresh = store.land(arrival.partition, arrival.experiment_id, found.new).landed if found.new.num_rows else 0
        landed += fresh
        if fresh == found.new.num_rows:  # nobody landed other rows under these numbers meanwhile
            return Merged(landed, rows.num_rows - landed - replaced, replaced)


def refusal(arrival: Arrival, conflicts: Sequence[str], ambiguous: Sequence[str], prefer: Prefer | None) -> str | None:
    """Return in one line why the rows of an experiment cannot be merged; None if they can."""
    if ambiguous:
        return f"{arrival.describe()}: the source has different runs of one run_id: {_some(ambiguous)}"
    if conflicts and prefer is None:
        return (
            f"{arrival.describe()}: runs differ from those of the same run_id that are there: {_some(conflicts)}; "
            "say which to keep: --prefer store or --prefer source"
        )
    return None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def compare(study: Study, store: Store | None, arrival: Arrival, rows: pa.Table, prefer: Prefer | None) -> Comparison:
    """Compare ``rows`` of the run schema, all of one experiment, with those of the store; nothing is written.

    Raises SpecError if the experiment would have more runs than summaries count or too large a repetition number,
    DuplicateError if a repetition of our own task is in the store under another id.
    """
    distinct, ambiguous = _distinct(study, rows)
    files = _files(store, arrival)
    there = [store.read_runs(file, ["run_id", "repetition"]) for file in files] if store else []
    known = {name for one in there for name in one["run_id"].to_pylist()}
    numbers = {number for one in there for number in one["repetition"].to_pylist()}
    is_there = np.array([name in known for name in distinct["run_id"].to_pylist()], dtype=np.bool_)
    new = distinct if not is_there.any() else distinct.filter(pa.array(~is_there))
    if len(numbers) + new.num_rows > study.max_runs:
        raise SpecError(too_many(study, arrival, len(numbers), new.num_rows))
    new = _numbered(_as_file(study, new, arrival), arrival, numbers)
    conflicts: list[str] = []
    replacements = []
    if store and is_there.any():
        common = _as_file(study, distinct.filter(pa.array(is_there)), arrival)
        for file in files:
            differing, content = _differences(store, file, common)
            conflicts += differing
            if differing and prefer == "source":
                replacements.append((file, content))
    return Comparison(new, conflicts, ambiguous, replacements)


def too_many(study: Study, arrival: Arrival, there: int, new: int) -> str:
    """Return the message that an experiment would have more runs than its summary can count."""
    return f"{arrival.describe()}: {there} runs are there, {new} more would pass {study.max_runs}"


def _files(store: Store | None, arrival: Arrival) -> list[RunFile]:
    if store is None or arrival.experiment_id is None:
        return []
    return list(store.run_files(arrival.partition, arrival.experiment_id))


def _distinct(study: Study, rows: pa.Table) -> tuple[pa.Table, list[str]]:
    """Return the rows with each run_id once, the first of each; and the ids whose rows differ."""
    names = np.array(rows["run_id"].to_pylist(), dtype=object)
    order = np.argsort(names, kind="stable")
    is_repeat = names[order[1:]] == names[order[:-1]]
    if not is_repeat.any():
        return rows, []
    repeats, before = order[1:][is_repeat], order[:-1][is_repeat]
    is_different = _differ(study.histories, rows.take(pa.array(repeats)), rows.take(pa.array(before)))
    keep = np.ones(rows.num_rows, dtype=np.bool_)
    keep[repeats] = False
    return rows.filter(pa.array(keep)), sorted(set(names[repeats[is_different]]))


def _differences(store: Store, file: RunFile, common: pa.Table) -> tuple[list[str], pa.Table]:
    """Return the ids of a file's runs that differ from ours, and the file's rows with ours in their place."""
    stored = store.read_runs(file).cast(store.study.run_files)
    ours = {name: row for row, name in enumerate(common["run_id"].to_pylist())}
    names = stored["run_id"].to_pylist()
    shared = [row for row, name in enumerate(names) if name in ours]
    if not shared:
        return [], stored
    own = common.take(pa.array([ours[names[row]] for row in shared]))
    own = own.set_column(
        own.schema.get_field_index("repetition"), "repetition", stored["repetition"].take(pa.array(shared))
    )
    is_different = _differ(store.study.histories, stored.take(pa.array(shared)), own)
    order = np.arange(stored.num_rows)
    places = np.array(shared)[is_different]
    order[places] = stored.num_rows + np.flatnonzero(is_different)
    content = pa.concat_tables([stored, own]).take(pa.array(order))
    return [names[row] for row in places], content


def _differ(histories: Iterable[str], first: pa.Table, second: pa.Table) -> NDArray[np.bool_]:
    """Tell for each row whether two tables of the same runs have different histories, bit by bit."""
    differing = np.zeros(first.num_rows, dtype=np.bool_)
    for name in histories:
        differing |= rows_differ(first[name].combine_chunks(), second[name].combine_chunks())
    return differing


def _as_file(study: Study, rows: pa.Table, arrival: Arrival) -> pa.Table:
    """Return rows of the run schema as rows of the store, with its id and the sweep flags that the source lacks."""
    schema = study.run_files
    columns = {field.name: rows[field.name] for field in schema}
    for name, flag in study.flags_of(arrival.experiment).items():
        if columns[name].null_count:
            columns[name] = pc.fill_null(columns[name], flag)
    ids = pa.scalar(arrival.experiment_id, schema.field("experiment_id").type)
    columns["experiment_id"] = pa.repeat(ids, rows.num_rows)
    return pa.table(columns, schema=schema)


def _numbered(new: pa.Table, arrival: Arrival, taken: set[int]) -> pa.Table:
    """Return new rows with their repetition numbers; ``taken`` are those of the store.

    Runs of our own task keep theirs, which is part of their identity. Others keep theirs if each has a different one
    that is free; else they are numbered in the order of their run_id, after the last of the store.
    """
    if not new.num_rows:
        return new
    field = new.schema.field("repetition")
    if arrival.experiment.is_own:
        numbers = own_repetitions(new)
        wrong = sorted(taken.intersection(numbers.to_pylist()))
        if wrong:
            raise DuplicateError(f"{arrival.describe()}: repetition {wrong[0]} is there under another run_id")
    else:
        numbers = _foreign_numbers(new["run_id"].to_pylist(), new["repetition"].to_pylist(), taken)
        highest = min(LAST_REPETITION, int(np.iinfo(field.type.to_pandas_dtype()).max))
        if max(numbers) > highest:
            raise SpecError(f"{arrival.describe()}: repetitions go up to {highest}, not {max(numbers)}")
        numbers = pa.array(numbers, field.type)
    return new.set_column(new.schema.get_field_index("repetition"), field, numbers)


def _foreign_numbers(names: list[str], said: list[int | None], taken: set[int]) -> list[int]:
    own = {number for number in said if number is not None}
    if len(own) == len(said) and not own & taken:
        return [number for number in said if number is not None]
    start = max(taken, default=-1) + 1
    ranks = {name: rank for rank, name in enumerate(sorted(names))}
    return [start + ranks[name] for name in names]
