"""The columns of rnn_capacity: cells, hyperparameters of trials, and three losses at equal parts of the training."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from butter_etl.engines import AVG, MAX, MEDIAN, MIN, NUM_FINITE, Q1, Q3, STDDEV, Extremum, Reduction, Series
from butter_etl.studies.columns import FLOAT64_LIST, LEVELS, LONG_TEXT, Column
from butter_etl.studies.run_columns import run_columns, summary_columns

_INT64_LIST: Final = pa.list_(pa.field("element", pa.int64()))

_PARAMETERS: Final = (
    Column("task_type", pa.string(), "task"),
    Column("architecture", pa.string(), "recurrent architecture"),
    Column("n_layers", pa.uint16(), "number of recurrent layers"),
    Column("max_params", pa.uint64(), "budget of parameters: layers are as wide as it allows"),
    Column("unroll_steps", pa.uint32(), "steps of a sequence that a network is unrolled for"),
    Column("batch_size", pa.uint32(), "sequences a training step; null where it was not told"),
    Column("search", pa.string(), "how hyperparameters were found: random, gp or rerun; null where it was not told"),
    Column("source_figure", pa.string(), "published figure of an imported cell; null of cells of this package"),
    Column("fixed_hparams", pa.string(), "hyperparameters that all trials have, JSON; null where each has its own"),
    Column("min_train_steps", pa.uint64(), "training steps that a trial is given at least"),
    Column("max_train_steps", pa.uint64(), "training steps that a trial is given at most"),
    Column("n_points", pa.uint32(), "measuring points of a trial"),
    Column("data_seed", pa.uint64(), "seed of the task's data, the same for all trials"),
    Column("eval_size", pa.uint32(), "sequences of the validation set, and of the evaluation set"),
    Column("input_size", pa.uint32(), "width of the vectors of tasks that show such; null for others"),
    Column("text_sha256", pa.string(), "beginning of the SHA-256 of a text's letters; null for text8 and other tasks"),
)
_DERIVED: Final = (
    Column("num_params", pa.uint64(), "number of parameters"),
    Column("n_units", pa.uint32(), "units of each recurrent layer"),
)
#: What is one value a trial: its number, its hyperparameters, what became of it, and where it was published.
_TRIAL: Final = (
    Column("hyper_iter", pa.int64(), "number of the trial in its search, from 0"),
    Column("hparams", pa.string(), "hyperparameters by their published names, canonical JSON", LONG_TEXT),
    Column("lr_init", pa.float64(), "learning rate at the start"),
    Column("lr_decay_rate", pa.float64(), "learning rate at the end, as a share of that at the start"),
    Column("train_steps", pa.uint64(), "training steps"),
    Column("optimizer", pa.string(), "SGD, Momentum, RMSProp or ADAM"),
    Column("optimizer_logit_momentum", pa.float64(), "logit of what the optimizer has like a momentum"),
    Column("gradient_clip_val", pa.float64(), "norm that the gradient is clipped to"),
    Column("l2_decay", pa.float64(), "factor of the penalty on squares of parameters"),
    Column("recurrent_matrix_init_type", pa.string(), "start of square matrices: identity, orthogonal or normal"),
    Column("recurrent_bias_init_type", pa.string(), "start of biases: delta, all the same, or normal"),
    Column("nonlinearity", pa.string(), "tanh or relu"),
    Column("infeasible", pa.bool_(), "whether the training loss diverged"),
    Column("accuracy", pa.float64(), "share of answers that are right on the evaluation set; null without classes"),
    Column("mutual_information_bits", pa.float64(), "information on the labels of per_cap that was learned, bits"),
    Column("bits_per_parameter", pa.float64(), "mutual information by number of parameters"),
    Column("source_file", pa.string(), "published file that the trial is of; null of trials of this package"),
    Column("source_row", pa.uint64(), "row of that file, from 0"),
)
_HISTORIES: Final = (
    Column("progress", FLOAT64_LIST, "share of the training steps behind each measuring point", LEVELS),
    Column("step", _INT64_LIST, "training steps behind each measuring point"),
    Column("train_loss", FLOAT64_LIST, "mean of the training batches' losses since the point before"),
    Column("valid_loss", FLOAT64_LIST, "loss on the validation set; of per_cap the mutual information, negative"),
    Column("eval_loss", FLOAT64_LIST, "loss on the evaluation set; of per_cap the mutual information, negative"),
)
PROGRESS: Final = _HISTORIES[0].name
#: Losses are below this. No network that learns anything has as large a one; a diverged one may, and be finite still.
DIVERGED_FROM: Final = 1e30
HISTORIES: Final = tuple(one.name for one in _HISTORIES)
PARAMETERS: Final = tuple(one.name for one in _PARAMETERS)
DERIVED: Final = tuple(one.name for one in _DERIVED)
TRIAL: Final = tuple(one.name for one in _TRIAL)

_STATISTICS: Final = (NUM_FINITE, AVG, STDDEV, MIN, MAX, MEDIAN)
_ADDED: Final = (Q1, Q3)
REDUCTION: Final = Reduction(
    counted="eval_loss",
    series=(
        Series("eval_loss", "eval_loss", "evaluation loss", "evaluation loss", _STATISTICS, _ADDED),
        Series("valid_loss", "valid_loss", "validation loss", "validation loss", _STATISTICS, _ADDED),
        Series("train_loss", "train_loss", "training loss", "training loss", _STATISTICS, _ADDED),
    ),
    extrema=(
        Extremum("eval_loss_min", "eval_loss", "min", "evaluation loss of the trial"),
        Extremum("valid_loss_min", "valid_loss", "min", "validation loss of the trial"),
    ),
    counts=pa.uint16(),
    floats=pa.float64(),
    point="point",
)

RUN_COLUMNS: Final = run_columns((*_PARAMETERS, *_DERIVED, *_TRIAL), _HISTORIES)
SUMMARY_COLUMNS: Final = summary_columns(REDUCTION, (*_PARAMETERS, *_DERIVED, _HISTORIES[0]), _HISTORIES)
