"""From the columns of a data set to the numbers that networks see: encoding, split, label noise."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import Loss, Stream, integers, normals, permutation

#: Numeric columns with more distinct values than this are scaled, not one-hot encoded.
MAX_CATEGORIES = 20
Task = Literal["classification", "regression"]
#: How an input column is encoded; see `encode_column`.
Encoding = Literal["auto", "numeric", "one-hot", "drop"]
#: What an encoding makes of a column.
Form = Literal["dropped", "one value", "0/1", "one-hot", "scaled"]


def encode_features(columns: Iterable[NDArray[Any]]) -> NDArray[np.float32]:
    """Encode each column (rows,) on its own and join the results in source order: (rows, inputs), C-contiguous."""
    return np.ascontiguousarray(np.concatenate([encode_column(column) for column in columns], axis=1))


def encode_column(values: NDArray[Any], encoding: Encoding = "auto") -> NDArray[np.float32]:
    """Encode one input column (rows,) as (rows, width).

    ``auto`` goes by the distinct values over all rows (the framework's rule). One: dropped (width 0). Two: 1 where the
    value is that of the first row, else 0. Up to `MAX_CATEGORIES`, or not numeric: one-hot, categories ascending. More:
    scaled linearly to [0, 1]. ``numeric`` scales and ``one-hot`` makes a column of each value, however many there are;
    to be scaled, a column must have two at least.
    """
    distinct = np.unique(values)
    form = form_of(distinct.size, encoding, is_numeric=values.dtype.kind in "iuf")
    if form in ("dropped", "one value"):
        return np.empty((values.size, 0), dtype=np.float32)
    if form == "scaled":
        return _min_max(values)
    return _one_hot(values, values[:1] if form == "0/1" else distinct)


def form_of(distinct: int, encoding: Encoding, *, is_numeric: bool) -> Form:
    """Return what `encode_column` makes of a column with so many distinct values."""
    if encoding == "auto":
        if distinct <= 2:
            return "0/1" if distinct == 2 else "one value"
        return "scaled" if is_numeric and distinct > MAX_CATEGORIES else "one-hot"
    forms: dict[Encoding, Form] = {"drop": "dropped", "numeric": "scaled", "one-hot": "one-hot"}
    return forms[encoding]


def encode_target(values: NDArray[Any], task: Task) -> NDArray[np.float32]:
    """Encode the target (rows,) as (rows, outputs).

    Two distinct values, whatever the task: 1 where the value is that of the first row, else 0, as for inputs. Classes:
    one-hot, labels ascending, so labels need be neither 0-based nor consecutive. A response: scaled linearly to
    [0, 1], however few its distinct values (the framework one-hot encoded it up to `MAX_CATEGORIES`).
    """
    distinct = np.unique(values)
    if distinct.size == 2:
        return _one_hot(values, values[:1])
    if task == "classification":
        return _one_hot(values, distinct)
    return _min_max(values)


def _one_hot(values: NDArray[Any], categories: NDArray[Any]) -> NDArray[np.float32]:
    encoded: NDArray[np.float32] = (values[:, np.newaxis] == categories).astype(np.float32)
    return encoded


def _min_max(values: NDArray[Any]) -> NDArray[np.float32]:
    exact = values.astype(np.float64)
    low, high = exact.min(), exact.max()
    encoded: NDArray[np.float32] = ((exact - low) / (high - low)).astype(np.float32)
    return encoded[:, np.newaxis]


def count_test_rows(rows: int) -> int:
    """Return ceil(0.2 rows), in integers."""
    return -(-rows // 5)


def split_rows(seed: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a run's own (train, test) row numbers, int64, shuffled and not stratified.

    The first ceil(0.2 ``rows``) of one permutation are the test rows, the rest the training rows, as in scikit-learn's
    ``train_test_split(test_size=0.2)``.
    """
    order = permutation(seed, Stream.SPLIT, rows)
    tested = count_test_rows(rows)
    return order[tested:], order[:tested]


def noisy_targets(seed: int, targets: NDArray[np.float32], level: float, loss: Loss) -> NDArray[np.float32]:
    """Return a run's training targets (n_train, outputs) with label noise; ``targets`` itself if ``level`` is 0.

    Of classes, exactly floor(level n_train) rows, drawn without replacement, become wrong: flipped if there are two,
    else moved to another class drawn uniformly (what the framework meant; it shifted the chosen rows as one block). To
    a response, Gaussian noise is added in all rows, mean 0, standard deviation ``level`` times the population standard
    deviation of ``targets``; the sum is not clipped to [0, 1].
    """
    if level == 0:
        return targets
    if loss == "mean_squared_error":
        scale = level * targets.std(dtype=np.float64)
        noise = normals(seed, Stream.NOISE_VALUES, targets.size).reshape(targets.shape)
        shifted: NDArray[np.float32] = (targets + scale * noise).astype(np.float32)
        return shifted
    rows = permutation(seed, Stream.NOISE_ROWS, len(targets))[: count_noisy_rows(level, len(targets))]
    noisy = targets.copy()
    if loss == "binary_crossentropy":
        noisy[rows] = 1 - targets[rows]
        return noisy
    classes = targets.shape[1]
    shifts = 1 + integers(seed, Stream.NOISE_VALUES, rows.size, classes - 1)
    moved = (targets[rows].argmax(axis=1) + shifts) % classes
    noisy[rows] = np.eye(classes, dtype=np.float32)[moved]
    return noisy


def count_noisy_rows(level: float, rows: int) -> int:
    """Return floor(level rows) of the decimal that ``level`` stands for.

    0.29 of 100 rows are 29, though 0.29 * 100 < 29.
    """
    return int(Fraction(str(np.float32(level))) * rows)
