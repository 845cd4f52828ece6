"""Confidence intervals over runs: of medians by ranks, whatever the distribution, and of means by t and bootstrap.

Ranks count from 1. An interval of rank r reaches from the r-th smallest to the r-th largest value; one of rank r + 1/2
from the mean of the r-th and the next smallest to the mean of the r-th and the next largest.

Medians, looked at once
    The interval of rank r misses a median with probability a(r) = P(fewer than r of n fair coins fall heads) * 2 at
    most, for every distribution, ties included (Thompson, Annals of Mathematical Statistics 7 (1936), 122-128). That of
    rank r + 1/2 misses it with (a(r) + a(r + 1)) / 2 at most, for every distribution too (Guilbaud, Scandinavian
    Journal of Statistics 6 (1979), 29-36). Interpolation at other weights, such as Hettmansperger and Sheather's, comes
    closer to its level where distributions are smooth and symmetric, and falls short of it elsewhere: none is here.

Medians, looked at again and again
    Runs are looked at when there are as many as `LOOKS` say, in the order of their repetitions. How many of them lie
    below a median is a random walk of fair coins, so that the probability that any look misses it is computed exactly
    (Darling and Robbins, Proceedings of the National Academy of Sciences 58 (1967), 66-68). Each look spends as much of
    it as any other (Lan and DeMets, Biometrika 70 (1983), 659-663); what ranks, whole numbers, leave is spent later.
    Whoever stops at any look, for whatever reason, has an interval that misses no more often than is claimed.

Several points at once
    A band over m points is made of intervals that miss with 1/m of what the band may (Bonferroni).

Means
    Student's t is exact for normal values alone, the percentile bootstrap (Efron, Annals of Statistics 7 (1979), 1-26)
    in the limit of many. Both fall short for few skewed values: `benchmarks.coverage` measures by how much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from butter_etl.engines.streams import Stream, integers
from butter_etl.errors import SpecError

Floats = npt.NDArray[np.floating[Any]]
Float64s = npt.NDArray[np.float64]

#: A part of the fingerprints of whatever is made by these methods: raise it when a stored value can change.
METHODS_VERSION: Final = 1
#: The numbers of runs at which goals are looked at: each about the square root of two times the one before.
LOOKS: Final = (10, 14, 20, 28, 40, 56, 80, 112, 160, 226)
#: Means that the bootstrap draws.
RESAMPLES: Final = 999
#: Beyond this level the bootstrap has no interval, and a median's takes 18 runs.
HIGHEST_LEVEL: Final = 0.9999
_COLUMNS_AT_A_TIME: Final = 128


class Interval(NamedTuple):
    """The bounds of intervals, a value each; infinite where there is no bound on that side."""

    low: Float64s
    high: Float64s


def check_level(level: float) -> float:
    """Return a confidence level; raise SpecError unless it lies between a half and `HIGHEST_LEVEL`."""
    if not 0.5 <= level <= HIGHEST_LEVEL:
        raise SpecError(f"a level of {level:g}: confidence levels lie between 0.5 and {HIGHEST_LEVEL}, such as 0.95")
    return float(level)


# --- ranks -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def median_rank(runs: int, level: float, points: int = 1) -> float:
    """Return the largest rank, in halves, of intervals for the median of so many runs; 0 where they are too few.

    With several ``points``, all intervals together cover all medians.
    """
    allowed = _missing(level, points) * 2**runs
    rank = missed = 0
    for ways in _binomials(runs):
        if 2 * (missed + ways) > allowed:
            # The mean of a(r) and a(r + 1), in units of 2^-runs.
            half = 0.5 if rank and 2 * missed + ways <= allowed and 2 * (rank + 1) <= runs else 0.0
            return rank + half
        missed, rank = missed + ways, rank + 1
    return rank


def _missing(level: float, points: int) -> Fraction:
    return (1 - Fraction(repr(float(level)))) / max(points, 1)


def _binomials(runs: int) -> Iterator[int]:
    """Yield in how many ways 0, 1, … of so many coins fall heads, below the half."""
    ways = 1
    for number in range(runs // 2):
        yield ways
        ways = ways * (runs - number) // (number + 1)


def least_runs(level: float, points: int = 1) -> int:
    """Return the least number of runs of which a median has an interval: 6 at 95 %, 8 at 99 %."""
    runs = 2
    while median_rank(runs, level, points) == 0:
        runs += 1
    return runs


@lru_cache(maxsize=1024)
def look_ranks(level: float, points: int = 1) -> tuple[int, ...]:
    """Return the rank of the interval at each of `LOOKS`, 0 where it has none yet: together they miss as said above."""
    allowed = float(_missing(level, points)) * (1 - 1e-9)  # more than sums of these many numbers are rounded by
    below, before, spent = np.ones(1), 0, 0.0
    ranks = []
    for number, runs in enumerate(LOOKS, 1):
        below, before = np.convolve(below, _fair_coins(runs - before)), runs
        limit, rank = allowed * number / len(LOOKS), 0
        while spent + _outside(below, rank + 1) <= limit:
            rank += 1
        spent += _outside(below, rank)
        below[:rank] = below[runs + 1 - rank :] = 0.0
        ranks.append(rank)
    return tuple(ranks)


def _fair_coins(number: int) -> Float64s:
    """Return the probability of 0, 1, … heads of so many coins."""
    return np.array([math.comb(number, heads) for heads in range(number + 1)], np.float64) / 2.0**number


def _outside(below: Float64s, rank: int) -> float:
    """Return the probability that the interval of a rank misses, of the walks that no earlier one has."""
    return float(below[:rank].sum() + below[len(below) - rank :].sum())


def last_look(runs: int) -> int:
    """Return the position in `LOOKS` of the last look that so many runs are enough for; -1 of none."""
    return sum(look <= runs for look in LOOKS) - 1


# --- intervals ---------------------------------------------------------------------------------------------------


def ranked(ordered: Floats, rank: float) -> Interval:
    """Return the intervals of a rank, of columns (runs, columns) that are sorted, what is not finite as infinity."""
    below = math.floor(rank) - 1
    weight = rank - math.floor(rank)
    runs = len(ordered)
    return Interval(
        _between(ordered[below], ordered[below + (weight > 0)]),
        _between(ordered[runs - 1 - below], ordered[runs - 1 - below - (weight > 0)]),
    )


def _between(one: Floats, other: Floats) -> Float64s:
    """Return the means of two rows; halves first, as sums of the largest numbers are none."""
    return one.astype(np.float64) / 2 + other.astype(np.float64) / 2


def medians(ordered: Floats) -> Float64s:
    """Return the medians of sorted columns (runs, columns), what is not finite as infinity."""
    runs = len(ordered)
    return _between(ordered[(runs - 1) // 2], ordered[runs // 2])


def mean_and_t(values: Float64s, level: float) -> tuple[Float64s, Interval]:
    """Return the mean of each column (values, columns) of finite values, and Student's interval for it.

    There are two values at least.
    """
    from scipy.special import stdtrit  # here, as most commands have no interval to make

    count = len(values)
    with np.errstate(over="ignore", invalid="ignore"):
        means = values.sum(axis=0) / count
        deviations = np.sqrt(((values - means) ** 2).sum(axis=0) / (count - 1))
        reach = deviations * (float(stdtrit(count - 1, 0.5 + level / 2)) / math.sqrt(count))
        return means, Interval(means - reach, means + reach)


def bootstrap_tail(level: float) -> int:
    """Return the rank among `RESAMPLES` means that is the lower bound of the bootstrap's interval; 0 for none."""
    return math.floor((RESAMPLES + 1) * (1 - Fraction(repr(float(level)))) / 2)


def bootstrapped(ordered: Float64s, level: float) -> Interval:
    """Return the percentile interval for the mean of each sorted column (values, columns) of finite values.

    Drawn are ranks, from a stream that is named by the number of values: the order of the runs does not matter, and
    neither does what else is computed. The level has a `bootstrap_tail`.
    """
    count, columns = ordered.shape
    drawn, tail = _times_drawn(count), bootstrap_tail(level)
    low, high = np.empty(columns), np.empty(columns)
    for first in range(0, columns, _COLUMNS_AT_A_TIME):
        part = ordered[:, first : first + _COLUMNS_AT_A_TIME]
        means = np.zeros((part.shape[1], RESAMPLES))
        with np.errstate(over="ignore", invalid="ignore"):
            for times, row in zip(drawn, part, strict=True):  # in this order on every machine, which BLAS has not
                means += row[:, None] * times
        means.partition((tail - 1, RESAMPLES - tail), axis=1)
        low[first : first + len(means)] = means[:, tail - 1] / count
        high[first : first + len(means)] = means[:, RESAMPLES - tail] / count
    return Interval(low, high)


@lru_cache(maxsize=64)
def _times_drawn(count: int) -> Float64s:
    """Return how often each of so many values is drawn in each resample, (values, resamples)."""
    ranks = integers(count, Stream.RESAMPLES, RESAMPLES * count, count).reshape(RESAMPLES, count)
    times = np.zeros((count, RESAMPLES))
    np.add.at(times, (ranks.T, np.arange(RESAMPLES)), 1.0)
    return times
