"""The columns of nn_lifespans: what was drawn, what follows, and four histories with a value every half epoch."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from butter_etl.engines import AVG, MAX, MEDIAN, MIN, NUM_FINITE, Q1, Q3, STDDEV, Extremum, Reduction, Series
from butter_etl.studies.columns import FLOAT64_LIST, LEVELS, UINT8_LIST, UINT32_LIST, Column
from butter_etl.studies.run_columns import run_columns, summary_columns

_PARAMETERS: Final = (
    Column("dataset", pa.string(), "image set"),
    Column("batch_size", pa.uint32(), "images a step"),
    Column("learning_rate", pa.float64(), "learning rate of SGD"),
    Column("momentum", pa.float64(), "momentum of SGD; 0 without"),
    Column("dampening", pa.float64(), "dampening of the momentum"),
    Column("weight_decay", pa.float64(), "weight decay of SGD, added to the gradient"),
    Column("layer_types", UINT8_LIST, "what follows each convolution: the sum of 1 ReLU, 2 pooling, 4 dropout"),
    Column("dropout_rate", pa.float64(), "share of values that dropout behind convolutions sets to 0"),
    Column("conv_kernels", UINT32_LIST, "width of each convolution's square kernel"),
    Column("conv_strides", UINT32_LIST, "stride of each convolution"),
    Column("conv_paddings", UINT32_LIST, "zeros around each convolution's input"),
    Column("pool_kernels", UINT32_LIST, "width of each maximum pool, of the blocks that pool"),
    Column("pool_strides", UINT32_LIST, "stride of each pool"),
    Column("pool_paddings", UINT32_LIST, "padding of each pool"),
    Column("conv_filters", UINT32_LIST, "filters of each convolution"),
    Column("fc_dropout_rate", pa.float64(), "share of values that dropout behind fully connected layers sets to 0"),
    Column("fc_dropout_layers", UINT8_LIST, "1 for each hidden fully connected layer with dropout, else 0"),
    Column("fc_filters", UINT32_LIST, "width of each fully connected layer, the output last"),
    Column("fc_activation", pa.string(), "what follows hidden fully connected layers: none or relu"),
    Column("val_mode", pa.string(), "full: means over all validation images; published: as the tables have them"),
    Column("epochs", pa.uint32(), "epochs of training"),
    Column("train_images", pa.uint64(), "images that are learned from, the first of the set; null for all"),
    Column("n_conv_layers", pa.uint8(), "number of convolutions"),
)
_DERIVED: Final = (
    Column("n_fc_layers", pa.uint8(), "number of fully connected layers, the output included"),
    Column("num_free_parameters", pa.uint64(), "weights and biases"),
    Column("network_id", pa.string(), "the same for networks with the same layers, image set and optimizer"),
)
#: What the published tables say of a run besides.
_TOLD: Final = (
    Column("table_id", pa.string(), "ID of the published table; null for runs of this package"),
    Column("random_seed", pa.uint32(), "random_seed of the published table"),
    Column("train_gpu", pa.bool_(), "train_GPU of the published table"),
    Column("torch_set_deterministic", pa.bool_(), "torch_set_deterministic of the published table"),
)
_HISTORIES: Final = (
    Column("epoch", FLOAT64_LIST, "epochs of training behind each measuring point, in halves", LEVELS),
    Column("loss", FLOAT64_LIST, "mean of the training batches' losses in the half epoch before, with dropout"),
    Column("val_loss", FLOAT64_LIST, "cross entropy of the validation images, nats"),
    Column(
        "val_accuracy_percent", FLOAT64_LIST, "share of validation images that are classified right, percent", LEVELS
    ),
)
HISTORIES: Final = tuple(one.name for one in _HISTORIES)
PARAMETERS: Final = tuple(one.name for one in _PARAMETERS)
DERIVED: Final = tuple(one.name for one in _DERIVED)

_PUBLISHED: Final = (NUM_FINITE, AVG, STDDEV, MIN, MAX, MEDIAN)
_ADDED: Final = (Q1, Q3)
REDUCTION: Final = Reduction(
    counted="loss",
    series=(
        Series(
            "val_accuracy_percent",
            "val_accuracy_percent",
            "validation accuracy, %",
            "validation accuracy",
            _PUBLISHED,
            _ADDED,
        ),
        Series("val_loss", "val_loss", "validation loss", "validation loss", _PUBLISHED, _ADDED),
        Series("train_loss", "loss", "training loss", "training loss of the half epoch", _PUBLISHED, _ADDED),
    ),
    extrema=(
        Extremum("val_accuracy_max", "val_accuracy_percent", "max", "validation accuracy of the run"),
        Extremum("val_loss_min", "val_loss", "min", "validation loss of the run"),
    ),
    counts=pa.uint16(),
    floats=pa.float64(),
    point="point",
)

RUN_COLUMNS: Final = run_columns((*_PARAMETERS, *_DERIVED, *_TOLD), _HISTORIES)
SUMMARY_COLUMNS: Final = summary_columns(REDUCTION, (*_PARAMETERS, *_DERIVED, _HISTORIES[0]), _HISTORIES)
