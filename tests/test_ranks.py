"""Ranks of curves in depth, p-values and their correction: against definitions, and at their nominal rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from butter_etl.upkeep.ranks import holm, no_deeper, outside, pointwise_ranks

CURVES = arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(1, 4)), elements=st.integers(-3, 3).map(float))


@given(CURVES)
def test_ranks_are_those_of_the_definition(curves):
    found = pointwise_ranks(curves)
    for row, curve in enumerate(curves):
        for point, value in enumerate(curve):
            column = curves[:, point]
            assert found[row, point] == min((column <= value).sum(), (column >= value).sum())


@given(CURVES)
def test_no_deeper_are_those_whose_sorted_ranks_come_no_later(curves):
    ranks = [sorted(row) for row in pointwise_ranks(curves).tolist()]
    assert no_deeper(curves[0], curves[1:]) == sum(row <= ranks[0] for row in ranks)


def test_what_is_not_finite_is_above_all():
    curves = np.array([[np.nan], [1.0], [2.0], [np.inf]])
    assert pointwise_ranks(curves).ravel().tolist() == [2, 1, 2, 2]
    assert outside(np.array([np.nan, 0.5]), np.array([[1.0, 0.0], [2.0, 1.0]])).tolist() == [True, False]


def test_a_curve_beyond_all_others_is_the_least_deep():
    sample = np.random.default_rng(1).random((99, 20))
    assert no_deeper(np.full(20, 1.5), sample) == 1
    assert no_deeper(np.full(20, 0.5), sample) == 100
    assert outside(np.full(20, 1.5), sample).all()


def test_p_values_are_uniform_where_all_curves_come_from_one_distribution():
    """Of 19 curves and another of the same kind, each place of that one is as likely: here heavy tails and drifts."""
    generator = np.random.default_rng(20260101)
    places = np.zeros(20, int)
    for _ in range(2000):
        curves = np.cumsum(generator.standard_cauchy((20, 8)), axis=1)
        places[no_deeper(curves[0], curves[1:]) - 1] += 1
    # Chi-squared with 19 degrees of freedom is below 43.8 in 999 of 1,000 cases.
    assert ((places - 100) ** 2 / 100).sum() < 43.8


@pytest.mark.parametrize(
    ("p_values", "wanted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Holm's example, as R's p.adjust has it
        ([0.5, 0.5], [1.0, 1.0]),
    ],
)
def test_holms_correction(p_values, wanted):
    assert holm(p_values) == pytest.approx(wanted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_as_the_procedure_steps_down(p_values, level):
    rejected = set()
    for step, number in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        if (len(p_values) - step) * p_values[number] > level:
            break
        rejected.add(number)
    assert {number for number, value in enumerate(holm(p_values)) if value <= level} == rejected
