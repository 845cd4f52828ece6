"""Data structures of the compiled kernels: the memory layout of a run, and the integers that stand for choices.

Activations lie in *panels* of sixteen rows of the batch: panel p of a layer of f features is the f vectors
(`butter_etl.engines.fused.lanes`) of rows 16 p … 16 p + 15. All panels are in one array, ``work``; a region of it is
named by where it begins and its ``step``, the distance of one panel to the next.

A batch that does not fill its last panel repeats its last row there: what the extra lanes compute is then no more
special than what a row computes, and their error is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from butter_etl.engines.compiling import compiled
from butter_etl.engines.fused.lanes import LANES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from butter_etl.engines.fused.lanes import Array

    Integers = NDArray[np.int64]
    #: Unsigned, so that compiled code need not ask whether an index counts from the end.
    Rows = NDArray[np.uint32]
    Sums = NDArray[np.float64]

#: Values of `Plan.loss`.
SOFTMAX_CROSSENTROPY, SIGMOID_CROSSENTROPY, SQUARED_ERROR = 0, 1, 2
#: Values of `Run.train_kind` and `Run.test_kind`: targets of any values; of 0 and 1 only; softmax targets that are 1
#: once a row, given as classes.
SPREAD, BINARY, ONE_HOT = 0, 1, 2
#: Values of `Plan.optimizer`.
ADAM, SGD, RMSPROP = 0, 1, 2
#: Values of `Plan.regularizer`.
NO_PENALTY, L1, L2 = 0, 1, 2

#: The ten sums of `measure`, in the order of `butter_etl.engines.contract.METRICS`; the root's place stays empty.
LOSS, ACCURACY, SQUARED, ABSOLUTE, ROOT, LOGARITHMIC, HINGE, SQUARED_HINGE, COSINE, KULLBACK = range(10)
METRIC_COUNT = 10

#: Columns of the layer table: features in and out; where kernel and bias begin in the state's arrays; where input,
#: ReLU output and output (unlike the ReLU output where a residual is added) begin in ``work``.
FAN_IN, WIDTH, KERNEL, BIAS, INPUT, RELU, OUTPUT = range(7)
LAYER_COLUMNS = 7


class Plan(NamedTuple):
    """The settings that all runs of a stack share: sizes, choices, and where things lie in ``work``."""

    depth: int
    outputs: int
    loss: int
    residual: bool
    regularizer: int
    optimizer: int
    batch_size: int
    train_count: int
    test_count: int
    shuffle: bool
    #: Columns of the tables of features and targets, at least four.
    feature_columns: int
    target_columns: int
    #: Where the biases begin in the arrays of the state, a multiple of sixteen.
    biases: int
    #: Places in ``work``: targets, and three regions for errors on their way back.
    targets: int
    target_step: int
    error: int
    other_error: int
    upstream: int
    error_step: int
    #: Place in ``work`` for the errors of sixteen outputs, turned: a vector a row of the batch.
    transposed: int
    #: Place in ``work`` for a vector of partial sums a metric, zeros between batches.
    partial: int
    learning_rate: float
    momentum: float
    penalty: float


class Run(NamedTuple):
    """One run: its tables, its state, its key.

    ``features`` and the targets are float32 tables, row by row, one-hot targets a column of classes; ``train_rows`` and
    ``test_rows`` index the features, ``test_rows`` the test targets too, training targets are in the order of
    ``train_rows``. The arrays of the state are all kernels, one after the other and each (fan_in, width), zeros up to a
    multiple of sixteen, all biases, zeros.
    """

    features: Array
    train_targets: Array
    test_targets: Array
    train_rows: Rows
    test_rows: Rows
    weights: Array
    gradient: Array
    first_moment: Array
    second_moment: Array
    #: The seed's low and high 32 bits.
    key_low: int
    key_high: int
    train_kind: int
    test_kind: int


class Scratch(NamedTuple):
    """Memory that runs share one after the other."""

    work: Array
    #: Of an epoch's training rows, float64 (metrics + 2, lanes), flat: the metrics' sums, the penalty's, and one to add
    #: up in.
    sums: Sums
    #: Of its test rows, the same.
    test_sums: Sums
    order: Rows
    words: NDArray[np.uint32]
    #: Where the rows of a batch begin in the tables of features and targets.
    feature_starts: Integers
    target_starts: Integers


@compiled
def panel_step(features: int) -> int:
    """Return the distance from panel to panel: an odd number of vectors, so that panels spread over all cache sets."""
    return LANES * (features | 1)
