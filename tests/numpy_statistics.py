"""Statistics over runs in NumPy, on whole matrices: what `butter_etl.engines.order_statistics` is held to.

It follows the same rules by other means, `numpy.sort` and masks. It stands with the tests, as nothing else uses it.
"""

from __future__ import annotations

import numpy as np

MOMENTS = ("avg", "stddev", "min", "max")


def is_finite(values):
    """Where values are numbers that float32 can hold (False for NaN)."""
    return np.abs(values) <= np.finfo(np.float32).max


def epoch_statistics(values, lengths, fractions):
    """Counts (2, epochs) and float64 results (moments and quantiles, epochs) of a matrix (runs, epochs).

    ``lengths`` (runs,) says how many leading entries of each run count. What has too few values is 0.
    """
    runs, epochs = values.shape
    reached = np.arange(epochs) < lengths[:, None]
    num, finite = reached.sum(axis=0), is_finite(values) & reached
    num_finite = finite.sum(axis=0)
    ordered = np.sort(np.where(finite, values, np.nan).astype(np.float64) + 0.0, axis=0)  # NaN last, -0 as 0
    counted = np.arange(runs)[:, None] < num_finite
    avg = np.sum(ordered, axis=0, where=counted) / np.maximum(num_finite, 1)
    squares = np.sum((ordered - avg) ** 2, axis=0, where=counted)
    stddev = np.sqrt(squares / np.maximum(num_finite - 1, 1))
    last = ordered[np.maximum(num_finite - 1, 0), np.arange(epochs)]
    extremes = [np.where(num_finite > 0, one, 0) for one in (ordered[0], last)]
    quantiles = [quantile(ordered, num, fraction) for fraction in fractions]
    return np.stack([num, num_finite]), np.stack([avg, stddev, *extremes, *quantiles])


def quantile(ordered, num, fraction):
    """NumPy's `linear` quantile of the first `num` rows of each column of sorted values; 0 where there are none."""
    position = fraction * np.maximum(num - 1, 0)
    below = position.astype(np.int64)
    weight = position - below
    columns = np.arange(ordered.shape[1])
    low, high = ordered[below, columns], ordered[below + (weight > 0), columns]
    return np.where(num > 0, low + (high - low) * weight, 0)


def best_entries(values, lengths, best):
    """Epoch (from 1, the earliest of equals) and value of each run's best finite entry, (runs, 2); NaN if none."""
    runs, epochs = values.shape
    finite = is_finite(values) & (np.arange(epochs) < lengths[:, None])
    entries = np.full((runs, 2), np.nan)
    for run in np.flatnonzero(finite.any(axis=1)):
        worst = np.inf if best == "min" else -np.inf
        row = np.where(finite[run], values[run], worst)
        at = row.argmin() if best == "min" else row.argmax()
        entries[run] = at + 1, row[at]
    return entries
