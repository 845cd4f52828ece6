"""Differences of medians between two settings: intervals that hold for every distribution, and how many runs they take.

The runs of one setting are independent of those of the other. If the median of each lies in an interval of level
sqrt(L), both do with probability L at least, and their difference then lies between the differences of the bounds.
This is no test of ranks: Mann and Whitney's, with Hodges and Lehmann's estimate, is about the median of all
differences, which is the difference of medians only where both distributions have one shape.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from butter_etl.engines.intervals import Interval, median_rank, medians, ranked

Float64s: TypeAlias = npt.NDArray[np.float64]
Entries: TypeAlias = npt.NDArray[np.floating[Any]]

#: Whether more runs than this would tell two settings apart is not asked.
MOST_RUNS: Final = 10_000


class Difference(NamedTuple):
    """The medians of two settings and their difference, a minus b, a value a column.

    Bounds are NaN where one of the two has too few runs, and infinite where there is none on that side. ``runs`` is
    how many of each setting would tell the two apart, as far as can be seen; NaN for more than `MOST_RUNS`.
    """

    a: Float64s
    b: Float64s
    value: Float64s
    bounds: Interval
    runs: Float64s


def one_sided_level(level: float, points: int = 1) -> float:
    """Return the level of the interval of each of two settings, of which both hold with ``level``.

    With several ``points``, they do so at all of them at once.
    """
    of_a_point = 1 - (1 - level) / points
    return math.nextafter(math.sqrt(of_a_point), 1.0)


def difference_of_medians(a: Entries, b: Entries, level: float, points: int = 1) -> Difference:
    """Compare columns of entries (runs, columns) of two settings, NaN for what a run does not reach.

    What is not finite is infinite, and above all else. With several ``points``, intervals cover all at once.
    """
    each = one_sided_level(level, points)
    columns = a.shape[1]
    found = [_medians_of(entries, each) for entries in (a, b)]
    (median_a, of_a), (median_b, of_b) = found
    with np.errstate(invalid="ignore"):
        value = median_a - median_b
        low, high = of_a.low - of_b.high, of_a.high - of_b.low
    is_there = ~np.isnan(of_a.low) & ~np.isnan(of_b.low)
    low[is_there & np.isnan(low)] = -np.inf  # infinity from infinity: it may be anything
    high[is_there & np.isnan(high)] = np.inf
    sorted_a, sorted_b = np.sort(a, axis=0), np.sort(b, axis=0)
    runs = np.array([_runs_apart(_there(sorted_a[:, k]), _there(sorted_b[:, k]), each) for k in range(columns)])
    return Difference(median_a, median_b, value, Interval(low, high), runs)


def _there(column: Entries) -> Entries:
    return column[~np.isnan(column)]


def _medians_of(entries: Entries, level: float) -> tuple[Float64s, Interval]:
    ordered = np.sort(entries, axis=0)
    counts = (~np.isnan(ordered)).sum(axis=0)
    median, low, high = (np.full(len(counts), np.nan) for _ in range(3))
    for count in np.unique(counts[counts > 0]):
        at = np.flatnonzero(counts == count)
        median[at] = medians(ordered[:count, at])
        if rank := median_rank(int(count), level):
            low[at], high[at] = ranked(ordered[:count, at], rank)
    return median, Interval(low, high)


# --- how many runs -----------------------------------------------------------------------------------------------


def _runs_apart(a: Entries, b: Entries, level: float) -> float:
    """Return how many runs of each would tell two settings apart, if both are distributed as the runs that there are.

    The bounds of n runs are guessed to be the quantiles of those at rank / (n + 1), as their ranks are expected there.
    """
    if not len(a) or not len(b):
        return math.nan
    higher, lower = (a, b) if _quantile(a, 0.5) > _quantile(b, 0.5) else (b, a)
    few, many = 0, 1
    while not _is_apart(higher, lower, many, level):
        if many == MOST_RUNS:
            return math.nan
        few, many = many, min(2 * many, MOST_RUNS)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if _is_apart(higher, lower, middle, level) else (middle, many)
    return float(many)


def _is_apart(higher: Entries, lower: Entries, runs: int, level: float) -> bool:
    rank = median_rank(runs, level)
    if not rank:
        return False
    fraction = rank / (runs + 1)
    return _quantile(higher, fraction) > _quantile(lower, 1 - fraction)


def _quantile(ordered: Entries, fraction: float) -> float:
    """Return a quantile at a position among n sorted values that is fraction * (n + 1), between the first and last."""
    position = min(max(fraction * (len(ordered) + 1) - 1, 0.0), len(ordered) - 1.0)
    below = int(position)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    weight = position - below
    return low if weight == 0 or low == high else low + (high - low) * weight
