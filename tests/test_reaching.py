"""How near an interval is to what is asked: its width at looks, what it is expected to be later, and why it is wide."""

import math

import numpy as np
import pytest

from butter_etl.engines.intervals import LOOKS, look_ranks
from butter_etl.engines.reaching import Aimed, expected_width, first_look, reach, shape_of

HALF = Aimed(0.95, 0.1, is_relative=False)
SHARE = Aimed(0.95, 0.1, is_relative=True)
RNG = np.random.default_rng(6)


def column(values):
    return np.array(values, np.float64)[:, None]


def test_the_width_is_that_of_the_last_look_at_the_first_runs():
    values = column(RNG.normal(5, 1, 27))
    found = reach(values, HALF)
    first, rank = np.sort(values[: LOOKS[2], 0]), look_ranks(0.95)[2]
    assert (found.look, found.low, found.high) == (2, first[rank - 1], first[LOOKS[2] - rank])
    assert found.width == (found.high - found.low) / 2
    assert found.estimate == np.median(first)
    assert reach(values, SHARE).width == pytest.approx(found.width / found.estimate)
    assert found.needed > LOOKS[2]
    assert reach(values, HALF._replace(width=10.0)).needed == LOOKS[2]


def test_below_the_first_look_there_is_none():
    kinds = (HALF, HALF._replace(level=0.99), HALF._replace(points=3000))
    assert [first_look(one) for one in kinds] == [10, 14, 20]
    assert first_look(HALF._replace(level=0.9999, points=10**9)) == 56
    nothing = reach(column(range(9)), HALF)
    assert (nothing.look, nothing.width, nothing.needed) == (-1, math.inf, 10)
    assert reach(column(range(10)), HALF._replace(level=0.99)).width == math.inf


def test_of_a_band_the_widest_point_counts():
    values = RNG.random((40, 50)) * np.linspace(1, 2, 50)
    found = reach(values, HALF._replace(points=50))
    ordered, rank = np.sort(values, axis=0), look_ranks(0.95, 50)[4]
    assert found.width == ((ordered[40 - rank] - ordered[rank - 1]) / 2).max()
    values[3, 7] = np.nan  # a run that ends before
    assert reach(values, HALF._replace(points=50)).width == math.inf


def test_nothing_is_relative_to_what_may_be_zero():
    found = reach(column(RNG.normal(0, 1, 20)), SHARE)
    assert (found.may_be_zero, found.width) == (True, math.inf)
    assert not reach(column(RNG.normal(0, 1, 20)), HALF).may_be_zero


def test_widths_to_come_are_about_those_that_come():
    values = np.exp(RNG.normal(size=(80, 500)))
    expected = np.array([expected_width(values[:, [k]], 9, HALF) for k in range(500)])
    more = np.sort(np.exp(RNG.normal(size=(LOOKS[9], 500))), axis=0)
    rank = look_ranks(0.95)[9]
    there = (more[LOOKS[9] - rank] - more[rank - 1]) / 2
    assert np.median(expected) == pytest.approx(np.median(there), rel=0.1)


def test_more_runs_are_needed_for_less():
    values = column(RNG.normal(5, 1, 56))
    needed = [reach(values, HALF._replace(width=width)).needed for width in (1.0, 0.25, 0.15, 0.02)]
    assert needed == sorted(needed)
    assert needed[0] == 56
    assert needed[-1] > LOOKS[-1]


def test_means_take_students_interval_of_a_share_of_what_may_miss():
    values = column(RNG.normal(5, 1, 14))
    found = reach(values, HALF._replace(of_means=True))
    assert found.estimate == pytest.approx(values.mean())
    assert found.width > 2.2 * values.std(ddof=1) / math.sqrt(14)
    assert reach(np.where(values > 5, np.inf, values), HALF._replace(of_means=True)).width == math.inf


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([*RNG.normal(0, 0.01, 20), *RNG.normal(1, 0.01, 20)], "two modes"),
        (np.random.default_rng(1).standard_cauchy(100), "heavy tails"),
        (np.linspace(0, 1, 40), "wide spread"),
        ([1.0, 2.0], "wide spread"),
        ([1.0] * 9 + [np.inf], "1 of 10 values are not finite"),
    ],
)
def test_what_makes_an_interval_wide(values, words):
    assert shape_of(np.array(values)) == words
