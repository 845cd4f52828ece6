"""Statistics over runs in NumPy, on whole matrices: what `butter_etl.engines.order_statistics` is held to.

It follows the same rules by other means, `numpy.sort` and masks. It stands with the tests, as nothing else uses it.
"""

from __future__ import annotations

import numpy as np

MOMENTS = ("avg", "stddev", "min", "max")


def is_finite(values, kind=np.float32):
    """Where values are numbers that a type of float can hold (False for NaN)."""
    return np.abs(values) <= np.finfo(kind).max


def epoch_statistics(values, lengths, fractions, kind=np.float32):
    """Counts (2, epochs) and float64 results (moments and quantiles, epochs) of a matrix (runs, epochs).

    ``lengths`` (runs,) says how many leading entries of each run count, ``kind`` which entries are finite. What has too
    few values is 0.
    """
    epochs = values.shape[1]
    reached = np.arange(epochs) < lengths[:, None]
    num, finite = reached.sum(axis=0), is_finite(values, kind) & reached
    num_finite = finite.sum(axis=0)
    ordered = np.sort(np.where(finite, values, np.nan).astype(np.float64) + 0.0, axis=0)  # NaN last, -0 as 0
    last = ordered[np.maximum(num_finite - 1, 0), np.arange(epochs)]
    extremes = np.where(num_finite > 0, [ordered[0], last], 0)
    moments = wide_moments(ordered, num_finite, extremes) if kind == np.float64 else plain_moments(ordered, num_finite)
    between = interpolate_as_numpy if kind == np.float64 else interpolate
    quantiles = [quantile(ordered, num, fraction, between) for fraction in fractions]
    return np.stack([num, num_finite]), np.stack([*moments, *extremes, *quantiles])


def plain_moments(ordered, num_finite, bounds=(-np.inf, np.inf)):
    """Average, between bounds, and sample standard deviation of the first `num_finite` rows of each column."""
    avg = np.clip(sums(ordered, num_finite) / np.maximum(num_finite, 1), *bounds)
    squares = sums((ordered - avg) ** 2, num_finite)
    return avg, np.sqrt(squares / np.maximum(num_finite - 1, 1))


def sums(values, num):
    """The sums of the first `num` rows of each column, one row after the other: `numpy.sum` may add parts."""
    return np.add.accumulate(np.where(np.arange(len(values))[:, None] < num, values, 0), axis=0)[-1]


def wide_moments(ordered, num_finite, extremes):
    """The same of numbers of any size, each column brought near 1 by a power of two."""
    _, exponents = np.frexp(np.abs(extremes).max(axis=0))
    scales = np.ldexp(1.0, -np.clip(exponents, -1000, 1000))
    with np.errstate(over="ignore"):
        return [one / scales for one in plain_moments(ordered * scales, num_finite, extremes * scales)]


def quantile(ordered, num, fraction, between):
    """NumPy's `linear` quantile of the first `num` rows of each column of sorted values; 0 where there are none."""
    position = fraction * np.maximum(num - 1, 0)
    below = position.astype(np.int64)
    weight = position - below
    columns = np.arange(ordered.shape[1])
    low, high = ordered[below, columns], ordered[below + (weight > 0), columns]
    return np.where(num > 0, between(low, high, weight), 0)


def interpolate(low, high, weight):
    """The number between two, in float64."""
    return low + (high - low) * weight


def interpolate_as_numpy(low, high, weight):
    """The number between two, from the nearer one, with halves of both where their difference is too large."""
    with np.errstate(over="ignore"):
        half = np.where(np.isinf(high - low), 2, 1)
        low, high = low / half, high / half
        return half * np.where(weight < 0.5, low + (high - low) * weight, high - (high - low) * (1 - weight))


def best_entries(values, lengths, best, kind=np.float32):
    """Epoch (from 1, the earliest of equals) and value of each run's best finite entry, (runs, 2); NaN if none."""
    runs, epochs = values.shape
    finite = is_finite(values, kind) & (np.arange(epochs) < lengths[:, None])
    entries = np.full((runs, 2), np.nan)
    for run in np.flatnonzero(finite.any(axis=1)):
        worst = np.inf if best == "min" else -np.inf
        row = np.where(finite[run], values[run], worst)
        at = row.argmin() if best == "min" else row.argmax()
        entries[run] = at + 1, row[at]
    return entries
