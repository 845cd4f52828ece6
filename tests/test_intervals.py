"""Intervals: against the binomial distribution, exact enumeration, SciPy, and simulation of the walk."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.engines import intervals
from butter_etl.engines.intervals import (
    LOOKS,
    RESAMPLES,
    bootstrap_tail,
    bootstrapped,
    check_level,
    last_look,
    least_runs,
    look_ranks,
    mean_and_t,
    median_rank,
    medians,
    ranked,
)
from butter_etl.errors import SpecError

LEVELS = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


def missed(runs, rank):
    """The probability that the interval of a whole rank misses a median, by SciPy."""
    return 2 * scipy.stats.binom.cdf(rank - 1, runs, 0.5) if rank else 0.0


# --- medians, looked at once -------------------------------------------------------------------------------------


def test_the_least_numbers_of_runs_are_those_of_the_binomial():
    assert (least_runs(0.95), least_runs(0.99)) == (6, 8)
    assert (least_runs(0.95, 100), least_runs(0.95, 3000)) == (12, 17)
    assert [median_rank(runs, 0.95) for runs in range(6)] == [0] * 6


@given(st.integers(1, 300), LEVELS, st.sampled_from([1, 7, 3000]))
def test_ranks_are_the_largest_that_miss_no_more_often_than_they_may(runs, level, points):
    rank = median_rank(runs, level, points)
    allowed = (1 - level) / points * (1 + 1e-9)
    below, above = math.floor(rank), math.ceil(rank)
    assert (missed(runs, below) + missed(runs, above)) / 2 <= allowed
    if rank < runs // 2 and rank == below:  # neither the next half would do
        assert (missed(runs, below) + missed(runs, below + 1)) / 2 > allowed or rank == 0 or 2 * (below + 1) > runs
    if rank != below:  # nor the next whole
        assert missed(runs, above) > allowed


def enumerated_coverage(values, weights, runs, level):
    """The probability that the interval of that many runs covers the median 0, over all samples of few values."""
    rank = median_rank(runs, level)
    covered = 0.0
    for sample in itertools.combinations_with_replacement(range(len(values)), runs):
        ways = math.factorial(runs)
        for place in set(sample):
            ways //= math.factorial(sample.count(place))
        low, high = ranked(np.sort(np.array([values[place] for place in sample]))[:, None], rank)
        if low[0] <= 0 <= high[0]:
            covered += ways * math.prod(weights[place] for place in sample)
    return covered


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([8, 11]),
    st.tuples(*[st.floats(0.01, 100)] * 2),
    st.tuples(*[st.floats(0.01, 100)] * 2),
    st.floats(0.05, 0.45),
    st.floats(0.05, 0.45),
)
def test_half_ranks_cover_medians_of_distributions_of_any_shape(runs, left, right, near, also_near):
    """Two values below the median and two above, with half of the probability on each side: however skewed."""
    values = [-left[0] - left[1], -left[0], right[0], right[0] + right[1]]
    weights = [0.5 - near, near, also_near, 0.5 - also_near]
    assert median_rank(runs, 0.95) % 1 == 0.5
    assert enumerated_coverage(values, weights, runs, 0.95) >= 0.95 - 1e-12


def test_bounds_are_order_statistics_or_means_of_two():
    column = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])[:, None]
    assert [one[0] for one in ranked(column, 1.0)] == [1, 32]
    assert [one[0] for one in ranked(column, 2.5)] == [3, 12]
    assert medians(column)[0] == medians(column[:5])[0] + 2 == 6
    huge = np.array([1.7e308, 1.7e308, np.inf, np.inf])[:, None]
    assert [one[0] for one in ranked(huge, 1.5)] == [1.7e308, np.inf]


@pytest.mark.parametrize("level", [1.0, 0.0, 0.3, 1.5, float("nan"), 95.0])
def test_what_is_no_level_is_refused(level):
    with pytest.raises(SpecError, match="confidence levels lie between"):
        check_level(level)
    assert check_level(0.95) == 0.95


# --- medians, looked at again and again --------------------------------------------------------------------------


def walks_that_miss(ranks, walks, rng):
    """The share of walks of fair coins that are outside at any look."""
    coins = rng.integers(0, 2, (walks, LOOKS[-1]))
    below = coins.cumsum(axis=1)[:, [look - 1 for look in LOOKS]]
    outside = (below < np.array(ranks)) | (below > np.array(LOOKS) - ranks)
    return outside.any(axis=1).mean()


@pytest.mark.parametrize(("level", "points"), [(0.9, 1), (0.95, 1), (0.99, 1), (0.8, 5)])
def test_all_looks_together_miss_no_more_often_than_they_may(level, points):
    ranks = look_ranks(level, points)
    allowed = (1 - level) / points
    share = walks_that_miss(ranks, 40_000, np.random.default_rng(1))
    error = 4 * math.sqrt(allowed / 40_000)
    assert 0.8 * allowed - error < share < allowed + error
    naive = [median_rank(look, level, points) // 1 for look in LOOKS]
    assert walks_that_miss(naive, 40_000, np.random.default_rng(1)) > 1.5 * allowed


def test_ranks_of_looks_grow_and_are_less_than_those_of_one_look():
    for level, points in ((0.5, 1), (0.95, 1), (0.99, 1), (0.95, 3000)):
        ranks = look_ranks(level, points)
        assert list(ranks) == sorted(ranks)
        assert all(rank <= median_rank(look, level, points) for look, rank in zip(LOOKS, ranks, strict=True))
    assert look_ranks(0.95) == (1, 2, 5, 7, 12, 19, 29, 43, 65, 94)


def test_the_last_look_is_the_last_that_there_are_runs_for():
    assert [last_look(runs) for runs in (0, 9, 10, 13, 14, 1000)] == [-1, -1, 0, 0, 1, len(LOOKS) - 1]


# --- means -------------------------------------------------------------------------------------------------------


@given(st.integers(2, 40), LEVELS, st.integers(0, 2**32))
def test_t_is_scipys(count, level, seed):
    values = np.random.default_rng(seed).normal(3, 2, (count, 2))
    means, (low, high) = mean_and_t(values, level)
    expected = scipy.stats.t.interval(level, count - 1, values.mean(axis=0), scipy.stats.sem(values, axis=0))
    np.testing.assert_allclose((low, high), expected, rtol=1e-9)
    np.testing.assert_allclose(means, values.mean(axis=0), rtol=1e-12)


def test_the_bootstrap_is_the_percentile_interval_of_its_draws():
    values = np.sort(np.random.default_rng(3).lognormal(size=(12, 130)), axis=0)
    low, high = bootstrapped(values, 0.95)
    means = intervals._times_drawn(12).T @ values / 12
    assert bootstrap_tail(0.95) == 25 == (RESAMPLES + 1) * 0.025
    np.testing.assert_allclose(low, np.sort(means, axis=0)[24], rtol=1e-12)
    np.testing.assert_allclose(high, np.sort(means, axis=0)[-25], rtol=1e-12)
    alone = bootstrapped(values[:, 129:], 0.95)
    assert (alone.low[0], alone.high[0]) == (low[129], high[129])
    assert bootstrap_tail(0.9999) == 0


def test_the_draws_are_those_of_a_named_stream():
    times = intervals._times_drawn(5)
    assert times.shape == (5, RESAMPLES)
    assert (times.sum(axis=0) == 5).all()
    assert times[:, :3].T.astype(int).tolist() == intervals._times_drawn.__wrapped__(5)[:, :3].T.astype(int).tolist()
    assert abs(times.mean() - 1) < 1e-12
    assert 0.5 < times.var() < 1.1  # multinomial: (1 - 1/5)
