"""Differences of medians: against intervals of each side, by simulation, and by cases that can be counted."""

import math

import numpy as np
import pytest

from butter_etl.engines.differences import MOST_RUNS, difference_of_medians, one_sided_level
from butter_etl.engines.intervals import median_rank

NAN, INF = float("nan"), float("inf")


def column(values):
    return np.array(values, np.float64)[:, None]


def test_bounds_are_the_differences_of_those_of_each_side():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(20, 3)), rng.normal(size=(15, 3))
    found = difference_of_medians(a, b, 0.95)
    assert one_sided_level(0.95) ** 2 >= 0.95
    low_a, low_b = (int(median_rank(runs, one_sided_level(0.95))) for runs in (20, 15))
    assert (low_a, low_b) == (5, 3)  # and a half, of b
    a.sort(axis=0)
    b.sort(axis=0)
    lower = a[low_a - 1] - (b[-low_b] + b[-low_b - 1]) / 2
    np.testing.assert_allclose(found.bounds.low, lower)
    np.testing.assert_allclose(found.value, np.median(a, axis=0) - np.median(b, axis=0))
    other = difference_of_medians(b, a, 0.95)
    np.testing.assert_allclose(other.bounds.high, -lower)


@pytest.mark.parametrize(("runs", "shape"), [(7, 1.0), (12, 2.0), (30, 0.5)])
def test_it_covers_whatever_the_distributions(runs, shape):
    rng = np.random.default_rng(2)
    draws = 800
    a, b = np.exp(shape * rng.normal(size=(runs, draws))), 2 * rng.random((runs + 5, draws)) ** 3
    low, high = difference_of_medians(a, b, 0.8).bounds
    truth = 1.0 - 2 * 0.5**3
    assert np.mean((low <= truth) & (truth <= high)) >= 0.8 - 3 * math.sqrt(0.16 / draws)


def test_below_the_least_number_of_runs_there_is_none():
    six, seven = column(range(6)), column(range(7))
    assert math.isnan(difference_of_medians(six, seven, 0.95).bounds.low[0])
    assert difference_of_medians(seven, seven, 0.95).bounds.low[0] == -6
    assert math.isnan(difference_of_medians(seven, seven, 0.95, 100).bounds.high[0])
    ragged = np.array([[1.0, NAN]] * 3 + [[1.0, 2.0]] * 7)
    assert not np.isnan(difference_of_medians(ragged, ragged, 0.95).bounds.low).any()


def test_what_is_not_finite_leaves_no_bound_on_its_side():
    some = column([1, 2, 3, 4, 5, 6, INF])
    found = difference_of_medians(some, column(range(7)), 0.95)
    assert (found.bounds.low[0], found.bounds.high[0]) == (1 - 6, INF)
    both = difference_of_medians(column([INF] * 7), column([INF] * 7), 0.95)
    assert (both.bounds.low[0], both.bounds.high[0]) == (-INF, INF)
    assert math.isnan(both.value[0])


def test_how_many_runs_tell_two_settings_apart():
    ends = np.linspace(0, 1, 101)
    apart = difference_of_medians(column(ends), column(ends + 2), 0.95).runs[0]
    assert apart == 7  # the least that have an interval
    near, far = (difference_of_medians(column(ends), column(ends + shift), 0.95).runs[0] for shift in (0.1, 0.4))
    assert 7 < far < near < MOST_RUNS
    rng = np.random.default_rng(5)
    a, b = rng.random((int(near), 400)), 0.1 + rng.random((int(near), 400))
    assert 0.2 < np.mean(difference_of_medians(a, b, 0.95).bounds.high < 0) < 0.95
    assert math.isnan(difference_of_medians(column(ends), column(ends), 0.95).runs[0])
    assert math.isnan(difference_of_medians(column([NAN]), column(ends), 0.95).runs[0])
