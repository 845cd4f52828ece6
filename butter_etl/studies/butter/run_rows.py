"""Whether rows of runs say what they should: the one judgement, of an import before it lands them, and of a check.

What follows from an experiment must be so in each of its rows. Rows of our own task follow from their command. Of other
tasks nothing is known but their parameters: their histories may be longer than their epochs, since some record a value
before the first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from butter_etl.errors import SpecError
from butter_etl.studies.butter.columns import PARAMETERS, PARTITION_KEYS
from butter_etl.studies.butter.experiments import (
    TASK,
    TASK_VERSION,
    ExperimentSpec,
    RunSpec,
    is_own,
    parse_command,
    parse_experiment,
)
from butter_etl.studies.butter.sweeps import experiment_topology, sweep_flags
from butter_etl.studies.identity import float_text

#: Columns that every row must have; others may be null where an import cannot tell.
_STRICT = frozenset({*PARAMETERS, "run_id", "task"})
_ANY = 2**63 - 1


def check_own_run(row: Mapping[str, Any]) -> ExperimentSpec:
    """Return the experiment that the command of a row of our own task names.

    Raises SpecError unless all else in the row follows from the command.
    """
    try:
        spec = parse_command(row["command"] or "")
    except SpecError as error:
        raise SpecError(f"command: {error}") from error
    extra = json.loads(row["command"])
    repetition, batch = extra.get("repetition"), extra.get("batch")
    if type(repetition) is not int or repetition < 0:
        raise SpecError(f"command: repetition is {repetition!r}")
    run = RunSpec(spec, repetition)
    if run.command(batch) != row["command"]:
        raise SpecError("command: is not spelled as this package does, or its seed is not the run's")
    check_columns_follow(row, {**_expected(spec), "batch": batch, "run_id": run.run_id, "seed": run.seed})
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
def stated_columns(canonical_json: str) -> dict[str, object]:
    """Return what rows of an experiment of any task say in the columns that follow from it."""
    spec = parse_experiment(canonical_json)
    if isinstance(spec, ExperimentSpec):
        return _expected(spec)
    parameters = {name: value for name, value in spec.parameters().items() if name not in PARTITION_KEYS}
    return {**parameters, "task": spec.task}


def check_columns_follow(row: Mapping[str, Any], expected: Mapping[str, object]) -> None:
    """Raise SpecError for the first column of a row that is another than expected."""
    for name, value in expected.items():
        is_unsaid = row.get(name) is None and name not in _STRICT  # an import cannot always tell
        if not is_unsaid and canonical_value(row[name]) != value:
            raise SpecError(f"{name} is {row[name]!r}, not {value!r}")


def canonical_value(value: Any) -> Any:
    """Return a value read from a float32 column as the decimal that it stands for; any other as it is."""
    return float(float_text(value)) if isinstance(value, float) else value


def length_limit(task: object, task_version: object, epochs: int) -> int:
    """Return how many entries the histories of a row may have: its epochs, if it is of our own task; else any."""
    return epochs if is_own(task, task_version) else _ANY


def check_lengths(name: str, lengths: pa.ChunkedArray, limits: NDArray[np.int64]) -> None:
    """Raise SpecError for the first row whose history called ``name`` is longer than its limit.

    ``lengths`` are those of the lists (rows,), null for none, and ``limits`` (rows,) what `length_limit` says.
    """
    entries = pc.fill_null(lengths, 0).to_numpy()
    wrong = np.flatnonzero(entries > limits)
    if wrong.size:
        raise SpecError(f"{name} has {entries[wrong[0]]} entries for {limits[wrong[0]]} epochs")
