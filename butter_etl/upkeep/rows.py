"""Whether rows say what they should, by their experiment and their place."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.errors import DatasetError, SpecError, TornFileError, one_line
from butter_etl.store import Location, RunFile, longest_run, other_content, partition_path, read_copy, read_kept
from butter_etl.studies import (
    EXPERIMENTS_SCHEMA,
    PARTITION_KEYS,
    TASK,
    TASK_VERSION,
    DatasetInfo,
    Declaration,
    ExperimentSpec,
    RunSpec,
    count_published,
    experiment_topology,
    float_text,
    info_of,
    is_own,
    parse_command,
    parse_experiment,
    parse_sweep,
    published_experiment,
    published_id,
    sweep_flags,
)
from butter_etl.upkeep.files import STRICT, Flaw, decode, some_of


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
    longest: Mapping[str, int | None],
    partition: str,
    *,
    file: RunFile | None = None,
    known: Mapping[int, Known] | None = None,
) -> list[RunRow]:
    """Check each run of a file, and return the runs.

    ``known`` are the experiments of a store; without, a row's command is trusted. ``file`` is what the name says, if it
    says anything. Raises Flaw: ``wrong-name``, ``unknown-experiment``, ``wrong-row`` or ``misplaced-file``.
    """
    if file is not None:
        _check_name(file, rows)
    for row in rows:
        _check_run(row, partition, known)
    for name, length in longest.items():
        _check_length(rows, name, length, partition)
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
        spec = _check_command(row)
        if expected is not None and spec.canonical_json() != expected.canonical_json:
            raise Flaw("wrong-row", f"is of another experiment ({spec.describe()}) than its id {row['experiment_id']}")
        place = partition_path(spec.parameters())
    elif expected is not None:
        _compare(row, _stated(expected.canonical_json))
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


def _check_command(row: Mapping[str, Any]) -> ExperimentSpec:
    """Return the experiment that a row's command names.

    Raises Flaw ``wrong-row`` unless everything else in the row follows from the command.
    """
    try:
        spec = parse_command(row["command"] or "")
    except SpecError as error:
        raise Flaw("wrong-row", f"command: {error}") from error
    extra = json.loads(row["command"])
    repetition, batch = extra.get("repetition"), extra.get("batch")
    if type(repetition) is not int or repetition < 0:
        raise Flaw("wrong-row", f"command: repetition is {repetition!r}")
    run = RunSpec(spec, repetition)
    if run.command(batch) != row["command"]:
        raise Flaw("wrong-row", "command: is not spelled as this package does, or its seed is not the run's")
    _compare(row, {**_expected(spec), "batch": batch, "run_id": run.run_id, "seed": run.seed})
    return spec


@lru_cache(maxsize=256)
def _expected(spec: ExperimentSpec) -> dict[str, object]:
    """Return what every run of an experiment says in the columns of a file that follow from the experiment."""
    topology = experiment_topology(spec)
    network: dict[str, object] = {}
    if topology is not None:
        network = {"num_free_parameters": topology.num_free_parameters, "widths": list(topology.widths)}
    values = {**spec.parameters(), **sweep_flags(spec), **network, "task": TASK, "task_version": TASK_VERSION}
    return {name: value for name, value in values.items() if name not in PARTITION_KEYS}


@lru_cache(maxsize=256)
def _stated(canonical_json: str) -> dict[str, object]:
    """Return what rows of an experiment of any task say in the columns that follow from it."""
    spec = parse_experiment(canonical_json)
    if isinstance(spec, ExperimentSpec):
        return _expected(spec)
    parameters = {name: value for name, value in spec.parameters().items() if name not in PARTITION_KEYS}
    return {**parameters, "task": spec.task}


def _compare(row: Mapping[str, Any], expected: Mapping[str, object], kind: str = "wrong-row") -> None:
    for name, value in expected.items():
        is_unsaid = row.get(name) is None and name not in STRICT  # an import cannot always tell
        if not is_unsaid and canonical_value(row[name]) != value:
            raise Flaw(kind, f"{name} is {row[name]!r}, not {value!r}")


def canonical_value(value: Any) -> Any:
    """Return a value read from a float32 column as the decimal that it stands for; any other as it is."""
    return float(float_text(value)) if isinstance(value, float) else value


def _check_length(rows: list[dict[str, Any]], name: str, length: int | None, partition: str) -> None:
    epochs = longest_run(partition)
    if rows and (length or 0) > epochs:
        raise Flaw("wrong-row", f"{name} has {length} entries for {epochs} epochs")


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
        _compare(row, _stated(expected.canonical_json), "wrong-summary")


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
    """Tell whether two columns have the same values, bit by bit: NaN equals NaN, and 0 is not -0."""
    if pa.types.is_list(one.type):
        lengths = [pc.list_value_length(column) for column in (one, other)]
        return bool(lengths[0].equals(lengths[1])) and _is_same(one.flatten(), other.flatten())
    if pa.types.is_float32(one.type):
        nulls = [pc.is_null(column) for column in (one, other)]
        bits = [column.fill_null(0).view(pa.uint32()) for column in (one, other)]
        return bool(nulls[0].equals(nulls[1]) and bits[0].equals(bits[1]))
    return bool(one.equals(other))


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
    _compare(row, {**_stated(text), **spec.parameters()}, "wrong-experiment")
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
