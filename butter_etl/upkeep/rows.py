"""Whether rows say what they should, by their experiment and their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from butter_etl.errors import DatasetError, SpecError, TornFileError, one_line
from butter_etl.store import (
    Location,
    RunFile,
    other_content,
    parse_partition,
    partition_path,
    read_copy,
    read_kept,
)
from butter_etl.studies import (
    LEVEL,
    DataKind,
    OwnExperiment,
    OwnInfo,
    Study,
    check_columns_follow,
    check_lengths,
    check_own_run,
    length_limit,
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
    study: Study,
    rows: list[dict[str, Any]],
    lengths: Mapping[str, pa.ChunkedArray],
    partition: str,
    *,
    file: RunFile | None = None,
    known: Mapping[int, Known] | None = None,
) -> list[RunRow]:
    """Check each run of a file, and return the runs. ``lengths`` are those of their lists, by name.

    ``known`` are the experiments of a store; without, a row's command is trusted. ``file`` is what the name says, if it
    says anything. Raises Flaw: ``wrong-name``, ``unknown-experiment``, ``wrong-row`` or ``misplaced-file``.
    """
    if file is not None:
        _check_name(file, rows)
    for row in rows:
        _check_run(study, row, partition, known)
    _check_lengths(study, rows, lengths, partition)
    return [RunRow(row["experiment_id"], row["repetition"], row["run_id"]) for row in rows]


def _check_name(file: RunFile, rows: list[dict[str, Any]]) -> None:
    ids = {row["experiment_id"] for row in rows}
    if ids != {file.experiment_id}:
        raise Flaw("wrong-name", f"holds runs of experiment {some_of(sorted(ids, key=str))}")
    repetitions = sorted(row["repetition"] for row in rows if row["repetition"] is not None)
    if len(rows) != len(file.repetitions) or repetitions != list(file.repetitions):
        raise Flaw("wrong-name", f"holds repetitions {some_of(repetitions)}")


def _check_run(study: Study, row: Mapping[str, Any], partition: str, known: Mapping[int, Known] | None) -> None:
    """Check one row against its command, its experiment and its place."""
    expected = None if known is None else known_experiment(study, row["experiment_id"], known)
    if study.is_own(row["task"], row["task_version"]):
        with _flaws("wrong-row"):
            spec = check_own_run(study, row)
        if expected is not None and spec.canonical_json() != expected.canonical_json:
            raise Flaw("wrong-row", f"is of another experiment ({spec.describe()}) than its id {row['experiment_id']}")
        place = partition_path(study.keys, spec.parameters())
    elif expected is not None:
        _compare(study, row, stated_columns(study, expected.canonical_json))
        place = expected.partition
    else:
        return  # an export does not say what it calls a foreign experiment
    if place != partition:
        raise Flaw("misplaced-file", f"belongs in {place}")


def known_experiment(study: Study, experiment_id: int, known: Mapping[int, Known]) -> Known:
    """Return the experiment that an id stands for; raises Flaw ``unknown-experiment`` if nobody has claimed the id."""
    if experiment_id in known:
        return known[experiment_id]
    found = _published(study, experiment_id)
    if found is None:
        raise Flaw("unknown-experiment", f"experiment {experiment_id} is in no published sweep and not in experiments/")
    return found


@lru_cache(maxsize=1024)
def _published(study: Study, experiment_id: int) -> Known | None:
    try:
        spec = study.fixed_ids.experiment(experiment_id)
    except KeyError:
        return None
    return Known(spec.canonical_json(), partition_path(study.keys, spec.parameters()))


def _compare(study: Study, row: Mapping[str, Any], expected: Mapping[str, object], kind: str = "wrong-row") -> None:
    with _flaws(kind):
        check_columns_follow(study, row, expected)


@contextmanager
def _flaws(kind: str) -> Iterator[None]:
    """Raise what is wrong with a row as a Flaw of a kind."""
    try:
        yield
    except SpecError as error:
        raise Flaw(kind, str(error)) from error


def _check_lengths(
    study: Study, rows: list[dict[str, Any]], lengths: Mapping[str, pa.ChunkedArray], partition: str
) -> None:
    keys = parse_partition(study.key_schema, partition)
    points = [study.most_points({**row, **keys}) for row in rows]
    limits = np.array(
        [length_limit(study, row["task"], row["task_version"], most) for row, most in zip(rows, points, strict=True)],
        np.int64,
    )
    with _flaws("wrong-row"):
        for name in study.histories:
            check_lengths(study, name, lengths[name], limits)


# --- summaries ---------------------------------------------------------------------------------------------------


def check_summary_rows(
    study: Study, rows: list[dict[str, Any]], partition: str, known: Mapping[int, Known] | None = None
) -> None:
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
        if known is None and experiment_id >= len(study.fixed_ids):
            continue
        expected = (known or {}).get(experiment_id) or _published(study, experiment_id)
        if expected is None or expected.partition != partition:
            raise Flaw("misplaced-file", f"experiment {experiment_id} is not of this partition")
        stated = stated_columns(study, expected.canonical_json)
        _compare(study, row, {name: stated[name] for name in stated if name in row}, "wrong-summary")


def check_levels(rows: list[dict[str, Any]], level: float | None) -> None:
    """Raise Flaw ``wrong-summary`` unless all rows are at the confidence level that the name of their file says."""
    levels = {row[LEVEL.name] for row in rows}
    if levels - {level}:
        raise Flaw("wrong-summary", f"holds intervals at {some_of(sorted(levels, key=str))}")


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


def check_experiments_file(study: Study, data: bytes, name: str, known: dict[int, Known], ids: dict[str, int]) -> None:
    """Add the experiments of a file of ``experiments/`` to ``known`` (by id) and ``ids`` (by canonical JSON).

    Both hold those of the files before it. Raises Flaw ``wrong-experiment`` at the first that cannot be added.
    """
    try:
        rows, _ = decode(data, study.claimed, study.claimed.names)
    except Flaw as flaw:
        raise Flaw("wrong-experiment", flaw.detail) from flaw
    for place, row in enumerate(rows):
        experiment_id, text = row["experiment_id"], row["canonical_json"] or ""
        if place == 0 and name != f"{experiment_id}.parquet":
            raise Flaw("wrong-experiment", f"begins with experiment {experiment_id}")
        if experiment_id in known or experiment_id < len(study.fixed_ids):
            raise Flaw("wrong-experiment", f"experiment id {experiment_id} is taken")
        if text in ids:
            raise Flaw("wrong-experiment", f"experiment {experiment_id} is experiment {ids[text]} again")
        known[experiment_id] = _claimed(study, row, text)
        ids[text] = experiment_id


def _claimed(study: Study, row: Mapping[str, Any], text: str) -> Known:
    place = f"experiment {row['experiment_id']}"
    try:
        keys = {name: study.canonical(name, row[name]) for name in study.keys}
        known = Known(text, partition_path(study.keys, keys))
        spec = study.parse_experiment(text)
    except SpecError as error:
        raise Flaw("wrong-experiment", f"{place}: {error}") from error
    fixed = study.fixed_ids.id_of(spec) if isinstance(spec, OwnExperiment) else None
    if fixed is not None:
        raise Flaw("wrong-experiment", f"{place} has the fixed id {fixed}")
    _compare(study, row, {**stated_columns(study, text), **spec.parameters()}, "wrong-experiment")
    return known


def check_data_file(location: Location, name: str, known: dict[str, OwnInfo], kind: DataKind) -> None:
    """Check that a file of ``datasets/`` holds the content that it says, and experiments have under its name.

    ``known`` are the data sets of experiments, by name; that of the file joins them. Raises Flaw ``wrong-data``.
    """
    try:
        kept = read_kept(location, name, kind)
        if kept is None:
            return  # it has gone since it was listed
        if known.setdefault(name, kept.info) != kept.info:
            raise Flaw("wrong-data", other_content(kept.info, known[name], "an experiment"))
        read_copy(location, kept.info, kind)
    except (DatasetError, TornFileError) as error:
        raise Flaw("wrong-data", one_line(error)) from error


def own_datasets(study: Study, known: Iterable[Known]) -> Iterator[OwnInfo]:
    """Yield the users' own data sets of experiments, one for each experiment that has one."""
    infos = (study.own_info(study.parse_experiment(one.canonical_json)) for one in known)
    yield from (info for info in infos if info is not None)


def check_sweep_file(study: Study, data: bytes, name: str, own: Mapping[str, OwnInfo]) -> None:
    """Raise Flaw ``wrong-sweep`` unless a file of ``sweeps/`` is the custom sweep that its name says.

    ``own`` are the own data sets that the store knows.
    """

    def look_up(dataset: str, declaration: object, place: str) -> OwnInfo:  # noqa: ARG001 (a Lookup)
        if dataset not in own:
            raise SpecError(f"{place}: the store keeps no copy of it")
        return own[dataset]

    try:
        sweep = study.reader.parse(data.decode(), name, look_up)
    except (SpecError, UnicodeDecodeError) as error:
        raise Flaw("wrong-sweep", one_line(error)) from error
    if name != f"{sweep.name}.yaml":
        raise Flaw("wrong-sweep", f"its name is {sweep.name!r}")
