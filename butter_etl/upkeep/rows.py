"""Whether rows say what they should, by their experiment and their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from butter_etl.errors import DatasetError, SpecError, TornFileError, one_line
from butter_etl.store import Location, RunFile, longest_run, other_content, partition_path, read_copy, read_kept
from butter_etl.studies import (
    EXPERIMENTS_SCHEMA,
    DatasetInfo,
    Declaration,
    ExperimentSpec,
    canonical_value,
    check_columns_follow,
    check_lengths,
    check_own_run,
    count_published,
    info_of,
    is_own,
    length_limit,
    parse_experiment,
    parse_sweep,
    published_experiment,
    published_id,
    rows_differ,
    stated_columns,
)
from butter_etl.upkeep.files import Flaw, decode, some_of


class Known(NamedTuple):
    """An experiment as a store knows it: its identity, and the partition that holds it."""

    canonical_json: str
    partition: str


class RunRow(NamedTuple):
    """One run of a file that was found right."""

    experiment_id: int
    repetition: int
    run_id: str


# --- runs --------------------------------------------------------------------------------------------------------


def check_run_rows(
    rows: list[dict[str, Any]],
    lengths: Mapping[str, pa.ChunkedArray],
    partition: str,
    *,
    file: RunFile | None = None,
    known: Mapping[int, Known] | None = None,
) -> list[RunRow]:
    """Check each run of a file, and return the runs. ``lengths`` are those of their histories, by name.

    ``known`` are the experiments of a store; without, a row's command is trusted. ``file`` is what the name says, if it
    says anything. Raises Flaw: ``wrong-name``, ``unknown-experiment``, ``wrong-row`` or ``misplaced-file``.
    """
    if file is not None:
        _check_name(file, rows)
    for row in rows:
        _check_run(row, partition, known)
    _check_lengths(rows, lengths, partition)
    return [RunRow(row["experiment_id"], row["repetition"], row["run_id"]) for row in rows]


def _check_name(file: RunFile, rows: list[dict[str, Any]]) -> None:
    ids = {row["experiment_id"] for row in rows}
    if ids != {file.experiment_id}:
        raise Flaw("wrong-name", f"holds runs of experiment {some_of(sorted(ids, key=str))}")
    repetitions = sorted(row["repetition"] for row in rows if row["repetition"] is not None)
    if len(rows) != len(file.repetitions) or repetitions != list(file.repetitions):
        raise Flaw("wrong-name", f"holds repetitions {some_of(repetitions)}")


def _check_run(row: Mapping[str, Any], partition: str, known: Mapping[int, Known] | None) -> None:
    """Check one row against its command, its experiment and its place."""
    expected = None if known is None else known_experiment(row["experiment_id"], known)
    if is_own(row["task"], row["task_version"]):
        with _flaws("wrong-row"):
            spec = check_own_run(row)
        if expected is not None and spec.canonical_json() != expected.canonical_json:
            raise Flaw("wrong-row", f"is of another experiment ({spec.describe()}) than its id {row['experiment_id']}")
        place = partition_path(spec.parameters())
    elif expected is not None:
        _compare(row, stated_columns(expected.canonical_json))
        place = expected.partition
    else:
        return  # an export does not say what it calls a foreign experiment
    if place != partition:
        raise Flaw("misplaced-file", f"belongs in {place}")


def known_experiment(experiment_id: int, known: Mapping[int, Known]) -> Known:
    """Return the experiment that an id stands for; raises Flaw ``unknown-experiment`` if nobody has claimed the id."""
    if experiment_id in known:
        return known[experiment_id]
    found = _published(experiment_id)
    if found is None:
        raise Flaw("unknown-experiment", f"experiment {experiment_id} is in no published sweep and not in experiments/")
    return found


@lru_cache(maxsize=1024)
def _published(experiment_id: int) -> Known | None:
    try:
        spec = published_experiment(experiment_id)
    except KeyError:
        return None
    return Known(spec.canonical_json(), partition_path(spec.parameters()))


def _compare(row: Mapping[str, Any], expected: Mapping[str, object], kind: str = "wrong-row") -> None:
    with _flaws(kind):
        check_columns_follow(row, expected)


@contextmanager
def _flaws(kind: str) -> Iterator[None]:
    """Raise what is wrong with a row as a Flaw of a kind."""
    try:
        yield
    except SpecError as error:
        raise Flaw(kind, str(error)) from error


def _check_lengths(rows: list[dict[str, Any]], lengths: Mapping[str, pa.ChunkedArray], partition: str) -> None:
    epochs = longest_run(partition)
    limits = np.array([length_limit(row["task"], row["task_version"], epochs) for row in rows], np.int64)
    with _flaws("wrong-row"):
        for name, own in lengths.items():
            check_lengths(name, own, limits)


# --- summaries ---------------------------------------------------------------------------------------------------


def check_summary_rows(rows: list[dict[str, Any]], partition: str, known: Mapping[int, Known] | None = None) -> None:
    """Check that each row is of an experiment of the partition, once, and says of it what is so.

    ``known`` are the claimed experiments; in an export only those with fixed ids are known. Raises Flaw:
    ``misplaced-file`` or ``wrong-summary``.
    """
    seen: set[int] = set()
    for row in rows:
        experiment_id = row["experiment_id"]
        if experiment_id in seen:
            raise Flaw("wrong-summary", f"experiment {experiment_id} has several rows")
        seen.add(experiment_id)
        if known is None and experiment_id >= count_published():
            continue
        expected = (known or {}).get(experiment_id) or _published(experiment_id)
        if expected is None or expected.partition != partition:
            raise Flaw("misplaced-file", f"experiment {experiment_id} is not of this partition")
        _compare(row, stated_columns(expected.canonical_json), "wrong-summary")


def check_executive(executive: pa.Table, complete: pa.Table) -> None:
    """Raise Flaw ``wrong-summary`` unless an executive summary holds what the complete one does."""
    for name in executive.column_names:
        if not _is_same(executive[name].combine_chunks(), complete[name].combine_chunks()):
            raise Flaw("wrong-summary", f"{name} is not what the complete summary has")


def same_statistics(stored: pa.Table, computed: pa.Table) -> None:
    """Raise Flaw ``wrong-summary`` unless a summary row holds the values computed anew, bit for bit."""
    for name in computed.column_names:
        if name not in stored.column_names:
            continue
        column = stored[name].combine_chunks()
        if not _is_same(column, computed[name].combine_chunks().cast(column.type)):
            raise Flaw("wrong-summary", f"experiment {stored['experiment_id'][0]}: {name} is not what the runs give")


def _is_same(one: pa.Array, other: pa.Array) -> bool:
    """Tell whether two columns have as many rows of one type, and the same values bit by bit."""
    return one.type == other.type and len(one) == len(other) and not rows_differ(one, other).any()


# --- what a store knows ------------------------------------------------------------------------------------------


def check_experiments_file(data: bytes, name: str, known: dict[int, Known], ids: dict[str, int]) -> None:
    """Add the experiments of a file of ``experiments/`` to ``known`` (by id) and ``ids`` (by canonical JSON).

    Both hold those of the files before it. Raises Flaw ``wrong-experiment`` at the first that cannot be added.
    """
    try:
        rows, _ = decode(data, EXPERIMENTS_SCHEMA)
    except Flaw as flaw:
        raise Flaw("wrong-experiment", flaw.detail) from flaw
    for place, row in enumerate(rows):
        experiment_id, text = row["experiment_id"], row["canonical_json"] or ""
        if place == 0 and name != f"{experiment_id}.parquet":
            raise Flaw("wrong-experiment", f"begins with experiment {experiment_id}")
        if experiment_id in known or experiment_id < count_published():
            raise Flaw("wrong-experiment", f"experiment id {experiment_id} is taken")
        if text in ids:
            raise Flaw("wrong-experiment", f"experiment {experiment_id} is experiment {ids[text]} again")
        known[experiment_id] = _claimed(row, text)
        ids[text] = experiment_id


def _claimed(row: Mapping[str, Any], text: str) -> Known:
    parameters = {name: canonical_value(value) for name, value in row.items()}
    known = Known(text, partition_path(parameters))
    place = f"experiment {row['experiment_id']}"
    try:
        spec = parse_experiment(text)
    except SpecError as error:
        raise Flaw("wrong-experiment", f"{place}: {error}") from error
    if isinstance(spec, ExperimentSpec) and published_id(spec) is not None:
        raise Flaw("wrong-experiment", f"{place} has the fixed id {published_id(spec)}")
    _compare(row, {**stated_columns(text), **spec.parameters()}, "wrong-experiment")
    return known


def check_data_file(location: Location, name: str, known: dict[str, DatasetInfo]) -> None:
    """Check that a file of ``datasets/`` holds the content that it says, and experiments have under its name.

    ``known`` are the data sets of experiments, by name; that of the file joins them. Raises Flaw ``wrong-data``.
    """
    try:
        kept = read_kept(location, name)
        if kept is None:
            return  # it has gone since it was listed
        if known.setdefault(name, kept.info) != kept.info:
            raise Flaw("wrong-data", other_content(kept.info, known[name], "an experiment"))
        read_copy(location, kept.info)
    except (DatasetError, TornFileError) as error:
        raise Flaw("wrong-data", one_line(error)) from error


def own_datasets(known: Iterable[Known]) -> Iterator[DatasetInfo]:
    """Yield the users' own data sets of experiments, one for each experiment that has one."""
    for one in known:
        spec = parse_experiment(one.canonical_json)
        if isinstance(spec, ExperimentSpec) and spec.own:
            yield info_of(spec)


def check_sweep_file(data: bytes, name: str, own: Mapping[str, DatasetInfo]) -> None:
    """Raise Flaw ``wrong-sweep`` unless a file of ``sweeps/`` is the custom sweep that its name says.

    ``own`` are the own data sets that the store knows.
    """

    def look_up(dataset: str, declaration: Declaration, place: str) -> DatasetInfo:  # noqa: ARG001 (a Lookup)
        if dataset not in own:
            raise SpecError(f"{place}: the store keeps no copy of it")
        return own[dataset]

    try:
        sweep = parse_sweep(data.decode(), name, look_up)
    except (SpecError, UnicodeDecodeError) as error:
        raise Flaw("wrong-sweep", one_line(error)) from error
    if name != f"{sweep.name}.yaml":
        raise Flaw("wrong-sweep", f"its name is {sweep.name!r}")
