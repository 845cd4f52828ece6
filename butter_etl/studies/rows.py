"""Whether rows of runs say what they should: the one judgement, of an import before it lands them, and of a check.

What follows from an experiment must be so in each of its rows. Rows of a study's own task follow from their command. Of
other tasks nothing is known but their parameters: their histories may be longer than the study's, since some record a
value before the first.
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
from butter_etl.studies.experiments import OwnExperiment, RunSpec
from butter_etl.studies.study import Study

_ANY = 2**63 - 1


def check_own_run(study: Study, row: Mapping[str, Any]) -> OwnExperiment:
    """Return the experiment that the command of a row of the study's own task names.

    Raises SpecError unless all else in the row follows from the command.
    """
    try:
        one = study.parse_command(row["command"] or "")
    except SpecError as error:
        raise SpecError(f"command: {error}") from error
    extra = json.loads(row["command"])
    repetition, batch = extra.get("repetition"), extra.get("batch")
    if type(repetition) is not int or repetition < 0:
        raise SpecError(f"command: repetition is {repetition!r}")
    run = RunSpec(one, repetition, extra.get("given"))
    if extra.get("seed") != run.seed:
        raise SpecError(f"command: seed is {extra.get('seed')!r}, its experiment and repetition have {run.seed}")
    if run.command(batch) != row["command"]:
        raise SpecError("command: is not spelled as this package does")
    check_columns_follow(study, row, {**_expected(study, one), "batch": batch, "run_id": run.run_id, "seed": run.seed})
    return one


@lru_cache(maxsize=256)
def _expected(study: Study, one: OwnExperiment) -> dict[str, object]:
    """Return what every run of an experiment says in the columns of a file that follow from the experiment."""
    derived = study.trainer.derive(one) or {}
    made_by = {"task": study.task, "task_version": study.task_version}
    values = {**one.parameters(), **study.flags_of(one), **derived, **made_by}
    return {name: value for name, value in values.items() if name not in {*study.keys, *study.long_texts}}


@lru_cache(maxsize=256)
def stated_columns(study: Study, canonical_json: str) -> dict[str, object]:
    """Return what rows of an experiment of any task say in the columns that follow from it."""
    one = study.parse_experiment(canonical_json)
    if isinstance(one, OwnExperiment):
        return _expected(study, one)
    parameters = {name: value for name, value in one.parameters().items() if name not in study.keys}
    return {**parameters, "task": one.task}


def check_columns_follow(study: Study, row: Mapping[str, Any], expected: Mapping[str, object]) -> None:
    """Raise SpecError for the first column of a row that is another than expected."""
    for name, value in expected.items():
        is_strict = name in study.parameters or name in ("run_id", "task")
        is_unsaid = row.get(name) is None and not is_strict  # an import cannot always tell
        if not is_unsaid and study.canonical(name, row[name]) != study.canonical(name, value):
            raise SpecError(f"{name} is {row[name]!r}, not {value!r}")


def length_limit(study: Study, task: object, task_version: object, points: int | None) -> int:
    """Return how many entries the histories of a row may have: its points, if it is of the study's own task.

    Else, and where its parameters do not tell, that is any number.
    """
    return points if points is not None and study.is_own(task, task_version) else _ANY


def check_lengths(study: Study, name: str, lengths: pa.ChunkedArray, limits: NDArray[np.int64]) -> None:
    """Raise SpecError for the first row whose history called ``name`` is longer than its limit.

    ``lengths`` are those of the lists (rows,), null for none, and ``limits`` (rows,) what `length_limit` says.
    """
    entries = pc.fill_null(lengths, 0).to_numpy()
    wrong = np.flatnonzero(entries > limits)
    if wrong.size:
        raise SpecError(f"{name} has {entries[wrong[0]]} entries for {limits[wrong[0]]} {study.points.plural}")
