"""The columns of both frames of BUTTER, each declared once, and the statistics of its summaries.

The document's names, order and Arrow types come first, then our additions.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from butter_etl.engines import (
    AVG,
    HISTORIES,
    MAX,
    MEDIAN,
    MIN,
    NUM,
    NUM_FINITE,
    Q1,
    Q3,
    STDDEV,
    Extremum,
    Reduction,
    Series,
)
from butter_etl.studies.columns import (
    FLOAT_LIST,
    LEVELS,
    LONG_TEXT,
    UINT8_LIST,
    UINT32_LIST,
    Column,
    extremum_columns,
    schema_of,
    series_columns,
)
from butter_etl.studies.run_columns import ENVIRONMENT, PLACE, PYTHON, RUN_ID, TOLD, TRAINING

# --- experiments -------------------------------------------------------------------------------------------------

#: The sweeps that have a flag in both frames, in the document's order; that of the optimizer sweep is an addition.
FLAGGED_SWEEPS: Final = (
    "primary",
    "300_epoch",
    "30k_epoch",
    "learning_rate",
    "label_noise",
    "batch_size",
    "regularization",
    "optimizer",
)


def _flag(sweep: str) -> Column:
    note = f"whether the experiment is part of the {sweep.replace('_', ' ')} sweep"
    return Column(f"{sweep}_sweep", pa.bool_(), note)


_EXPERIMENT_ID = Column(
    "experiment_id",
    pa.uint32(),
    "the experiment: every hyperparameter, the seed left out; the same id in all directories",
)
*_FLAGS, _OPTIMIZER_FLAG = map(_flag, FLAGGED_SWEEPS)
_PARAMETERS = (
    Column("activation", pa.string(), "activation of the hidden layers"),
    Column("batch", pa.string(), "the sweep that first asked for the experiment"),
    Column("dataset", pa.string(), "name of the data set that was learned from"),
    Column("early_stopping", pa.string(), "early stopping policy; null: none"),
    Column("input_activation", pa.string(), "activation of the first dense layer"),
    Column("kernel_regularizer", pa.string(), "always null; the columns with a dot say what the penalty is"),
    Column("kernel_regularizer.type", pa.string(), "penalty on the kernels: l1, l2, or null for none"),
    Column("optimizer", pa.string(), "optimizer"),
    Column("output_activation", pa.string(), "activation of the output layer"),
    Column("shape", pa.string(), "shape of the network: how the widths of its layers go"),
    Column("task", pa.string(), "what made the run"),
    Column("test_split_method", pa.string(), "how the rows were split"),
    Column("batch_size", pa.uint32(), "rows of a training batch"),
    Column("epochs", pa.uint32(), "epochs trained"),
    Column("depth", pa.uint8(), "dense layers, the output layer included"),
    Column("kernel_regularizer.l1", pa.float32(), "factor of the sum of absolute weights in the loss"),
    Column("kernel_regularizer.l2", pa.float32(), "factor of the sum of squared weights in the loss"),
    Column(
        "label_noise",
        pa.float32(),
        "share of the training labels made wrong; for regressions, noise in standard deviations",
    ),
    Column("learning_rate", pa.float32(), "learning rate"),
    Column("test_split", pa.float32(), "share of the rows that are tested on"),
    Column("size", pa.uint64(), "number of parameters asked for"),
)
#: Hyperparameters that the document does not have; both frames have them after its columns.
_ADDED_PARAMETERS = (Column("momentum", pa.float32(), "momentum of the optimizer; null for adam"),)
_NUM_FREE_PARAMETERS = Column("num_free_parameters", pa.uint64(), "number of parameters there are: weights and biases")
_STRUCTURE = (
    Column("widths", UINT32_LIST, "widths of the dense layers, the output layer last"),
    Column("network_structure", pa.string(), "the network as nested JSON, from the output layer down", LONG_TEXT),
)
_ADDITIONS = (*_ADDED_PARAMETERS, _OPTIMIZER_FLAG)

#: The parameter columns of both frames, but for `batch` and `task`, by name.
PARAMETERS: Final = tuple(
    column.name for column in (*_PARAMETERS, *_ADDED_PARAMETERS) if column.name not in ("batch", "task")
)
#: The sweep flags of both frames.
FLAG_COLUMNS: Final = tuple(column.name for column in (*_FLAGS, _OPTIMIZER_FLAG))

#: The hive keys of the layout, outermost first.
PARTITION_KEYS: Final = (
    "dataset",
    "shape",
    "learning_rate",
    "batch_size",
    "kernel_regularizer.type",
    "label_noise",
    "depth",
    "epochs",
)

# --- histories and their statistics ------------------------------------------------------------------------------

_METRIC_NOTES = {
    "loss": "loss, penalty included",
    "accuracy": "accuracy",
    "mean_squared_error": "mean squared error",
    "mean_absolute_error": "mean absolute error",
    "root_mean_squared_error": "root mean squared error",
    "mean_squared_logarithmic_error": "mean squared logarithmic error",
    "hinge": "hinge loss",
    "squared_hinge": "squared hinge loss",
    "cosine_similarity": "cosine similarity (1: aligned)",
    "kullback_leibler_divergence": "Kullback-Leibler divergence",
}
_SPLIT_NOTES = {"test": "test set", "train": "training set"}
_LABELS = {
    "loss": "loss",
    "accuracy": "accuracy",
    "mean_squared_error": "mean squared error",
    "kullback_leibler_divergence": "Kullback-Leibler divergence",
}


def _note(metric: str, split: str) -> str:
    return f"{_METRIC_NOTES[metric]}, {_SPLIT_NOTES[split]}"


def _history(name: str) -> Column:
    metric, split = name.removeprefix("val_"), "test" if name.startswith("val_") else "train"
    return Column(
        name, FLOAT_LIST, f"{_note(metric, split)}, a value an epoch", LEVELS if metric == "accuracy" else None
    )


def _series(metric: str, split: str) -> Series:
    return Series(
        f"{split}_{metric}",
        f"val_{metric}" if split == "test" else metric,
        f"{'test' if split == 'test' else 'training'} {_LABELS[metric]}",
        _note(metric, split),
        _PUBLISHED_OF_LOSS if metric == "loss" else _PUBLISHED,
        _ADDED,
    )


def _extremum(metric: str, best: str) -> Extremum:
    return Extremum(f"test_{metric}_{best}", f"val_{metric}", "max" if best == "max" else "min", _note(metric, "test"))


# The statistics of the published data set, and those that this package adds, to every series.
_PUBLISHED_OF_LOSS = (NUM_FINITE, AVG, STDDEV, MIN, MAX, MEDIAN)
_PUBLISHED = (AVG, STDDEV, MEDIAN)
_ADDED = (Q1, Q3)

_HISTORIES = {name: _history(name) for name in HISTORIES}

#: The statistics of the summary frame: eight series, and the best epoch of each run of four of them.
REDUCTION: Final = Reduction(
    counted="val_loss",
    series=tuple(_series(metric, split) for metric in _LABELS for split in ("test", "train")),
    extrema=(
        _extremum("loss", "min"),
        _extremum("accuracy", "max"),
        _extremum("mean_squared_error", "min"),
        _extremum("kullback_leibler_divergence", "min"),
    ),
)

# --- frames ------------------------------------------------------------------------------------------------------

RUN_COLUMNS = (
    _EXPERIMENT_ID,
    RUN_ID,
    *_FLAGS,
    *_PARAMETERS,
    _NUM_FREE_PARAMETERS,
    PYTHON,
    Column("tensorflow_version", pa.string(), "version of TensorFlow; null where it took no part"),
    *PLACE,
    *_STRUCTURE,
    *TOLD,
    *_HISTORIES.values(),
    *_ADDITIONS,
    *TRAINING,
    ENVIRONMENT,
)
SUMMARY_COLUMNS = (
    _EXPERIMENT_ID,
    *_FLAGS,
    *_PARAMETERS,
    _NUM_FREE_PARAMETERS,
    *_STRUCTURE,
    Column("num_runs", pa.uint8(), "number of runs of the experiment"),
    Column("num", UINT8_LIST, NUM.note),
    *series_columns(REDUCTION, "published", _HISTORIES),
    *_ADDITIONS,
    *series_columns(REDUCTION, "added", _HISTORIES),
    *extremum_columns(REDUCTION),
)
#: The columns of the run frame, a row a run.
RUN_SCHEMA: Final = schema_of(RUN_COLUMNS)
#: The executive summary has these per-epoch lists only, and all columns of the summary frame that are no such lists.
EXECUTIVE_LISTS: Final = ("test_loss_q1", "test_loss_median", "test_loss_q3")
EXECUTIVE_NAMES: Final = tuple(
    column.name
    for column in SUMMARY_COLUMNS
    if not pa.types.is_list(column.type) or column.name in ("widths", *EXECUTIVE_LISTS)
)
#: The columns of STORE/experiments after the id and the identity.
CLAIMED_NAMES: Final = tuple(
    column.name for column in (*_PARAMETERS, *_ADDED_PARAMETERS, _NUM_FREE_PARAMETERS, *_STRUCTURE)
)
