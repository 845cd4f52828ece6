"""rnn_capacity as a study: recurrent networks of a budget, searched over their hyperparameters on six tasks."""

from __future__ import annotations

from typing import Final

from butter_etl.studies.capacity.card import CARD, PROFILES
from butter_etl.studies.capacity.columns import (
    DERIVED,
    HISTORIES,
    PARAMETERS,
    PROGRESS,
    REDUCTION,
    RUN_COLUMNS,
    SUMMARY_COLUMNS,
)
from butter_etl.studies.capacity.experiments import SearchCell, label
from butter_etl.studies.capacity.figures import FIGURES
from butter_etl.studies.capacity.formats import RECORDS
from butter_etl.studies.capacity.outcome import OUTCOME
from butter_etl.studies.capacity.search import is_searched, propose
from butter_etl.studies.capacity.sweeps import PUBLISHED, READER
from butter_etl.studies.capacity.training import CapacityTrainer
from butter_etl.studies.study import Points, Study

_KEYS: Final = ("task_type", "architecture", "n_layers", "max_params")

#: The study rnn_capacity.
RNN_CAPACITY: Final = Study(
    name="rnn_capacity",
    experiment=SearchCell,
    keys=_KEYS,
    run_columns=RUN_COLUMNS,
    summary_columns=(*SUMMARY_COLUMNS, *OUTCOME.columns),
    parameters=PARAMETERS,
    derived=DERIVED,
    histories=HISTORIES,
    reduction=REDUCTION,
    further=OUTCOME,
    points=Points("point", column=PROGRESS, count="n_points"),
    reader=READER,
    trainer=CapacityTrainer(),
    label=label,
    varied=_KEYS,
    swept=(*_KEYS, "unroll_steps", "search"),
    may_be_absent=tuple(name for name in PARAMETERS if name not in _KEYS),
    sweeps=PUBLISHED,
    figures=FIGURES,
    card=CARD,
    propose=propose,
    in_rounds=is_searched,
    profiles=PROFILES,
    formats={RECORDS.name: RECORDS},
    independent=("compiled", "reference"),  # trials of a stack are trained one after the other
)
