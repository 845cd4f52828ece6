"""BUTTER as a study: fully connected networks over sweeps of ten hyperparameters, on tabular data."""

from __future__ import annotations

from typing import Final

from butter_etl.engines import HISTORIES
from butter_etl.studies.butter.boxes import boxes
from butter_etl.studies.butter.card import CARD
from butter_etl.studies.butter.columns import (
    CLAIMED_NAMES,
    EXECUTIVE_NAMES,
    PARAMETERS,
    PARTITION_KEYS,
    REDUCTION,
    RUN_COLUMNS,
    SUMMARY_COLUMNS,
)
from butter_etl.studies.butter.experiments import VARIED, ExperimentSpec, label
from butter_etl.studies.butter.kept_tables import TABLES
from butter_etl.studies.butter.profiles import PROFILES
from butter_etl.studies.butter.published import departure, twin
from butter_etl.studies.butter.sweep_files import READER
from butter_etl.studies.butter.sweeps import FIXED_IDS, FLAGS, PUBLISHED
from butter_etl.studies.butter.training import ButterTrainer
from butter_etl.studies.figures import Figures
from butter_etl.studies.study import Points, Study

_LOSSES = "loss", "mean_squared_error", "kullback_leibler_divergence"
_LABELS: Final = {
    "test_loss": "test loss",
    "train_loss": "training loss",
    "test_accuracy": "test accuracy",
    "train_accuracy": "training accuracy",
    "test_mean_squared_error": "test mean squared error",
    "train_mean_squared_error": "training mean squared error",
    "test_kullback_leibler_divergence": "test Kullback-Leibler divergence",
    "train_kullback_leibler_divergence": "training Kullback-Leibler divergence",
}


#: The study BUTTER.
BUTTER: Final = Study(
    name="butter",
    experiment=ExperimentSpec,
    keys=PARTITION_KEYS,
    run_columns=RUN_COLUMNS,
    summary_columns=SUMMARY_COLUMNS,
    parameters=PARAMETERS,
    derived=("num_free_parameters", "widths", "network_structure"),
    histories=HISTORIES,
    reduction=REDUCTION,
    points=Points("epoch", count="epochs"),
    reader=READER,
    trainer=ButterTrainer(),
    label=label,
    varied=VARIED,
    swept=(*VARIED, "momentum", "kernel_regularizer.type", "kernel_regularizer.l1", "kernel_regularizer.l2"),
    may_be_absent=("early_stopping", "kernel_regularizer", "momentum"),
    claimed_names=CLAIMED_NAMES,
    executive_names=EXECUTIVE_NAMES,
    flags=FLAGS,
    sweeps=PUBLISHED,
    fixed_ids=FIXED_IDS,
    profiles=PROFILES,
    own_data=TABLES,
    independent=("fused",),
    judged=("val_loss", "loss"),
    twin=twin,
    departure=departure,
    figures=Figures(
        labels=_LABELS,
        higher_is_better=frozenset({"test_accuracy", "train_accuracy"}),
        title=("dataset", "shape", "size", "depth", "learning_rate", "batch_size"),
        names=("dataset", "shape"),
        map_axes=(("size", "size (parameters)"), ("depth", "depth (layers)")),
        shown=("test_loss", "train_loss", "test_accuracy", "train_accuracy"),
        filters=(*VARIED, "kernel_regularizer", "momentum"),
        comparable=("dataset",),
        network={"shape": "", "size": " ", "depth": ", depth "},
        words={"dataset": "data set"},
        distinct=tuple(PUBLISHED)[:7],
        infeasible="no network within 20 % of the size",
        boxes=boxes,
    ),
    card=CARD,
)
