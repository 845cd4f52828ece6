"""Exponentials and logarithms of vectors against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from butter_etl.engines.fused import vector_math
from butter_etl.engines.fused.lanes import load, store


def applied(function):
    """A function of a whole array, sixteen elements at once."""

    @njit
    def apply(x, out):
        for at in range(0, x.size, 16):
            store(out, at, function(load(x, at)))

    def call(x):
        x = np.asarray(x, dtype=np.float32)
        out = np.empty_like(x)
        apply(x, out)
        return out

    return call


EXP, LOG, LOG1P, RATIO = map(
    applied, (vector_math.exp_of_negative, vector_math.log, vector_math.log1p, vector_math.log1p_ratio)
)
SIGMOID, TANH = map(applied, (vector_math.sigmoid, vector_math.tanh))
COUNT = 2**20
EXP_SMALLEST = EXP([-87.33] * 16)[0]


def test_exp_is_never_subnormal():
    assert np.finfo(np.float32).tiny < EXP_SMALLEST < 1.2e-38


def ulps(values, exact):
    return np.abs(values - exact) / np.spacing(np.abs(exact).astype(np.float32))


def test_exp_is_within_one_and_a_half_ulps_where_it_matters():
    x = np.linspace(-87.3, 0, COUNT).astype(np.float32)
    errors = ulps(EXP(x), np.exp(x.astype(float)))
    assert errors[x > -20].max() < 1.5
    assert errors.max() < 5


@pytest.mark.parametrize("x", [np.exp(np.linspace(-87, 88, COUNT)), np.linspace(0.4, 3, COUNT)], ids=["all", "near 1"])
def test_log_is_within_two_ulps(x):
    x = x.astype(np.float32)
    assert ulps(LOG(x), np.log(x.astype(float))).max() < 1.5


@pytest.mark.parametrize("x", [np.exp(np.linspace(-40, 87, COUNT)), np.linspace(0, 3, COUNT)], ids=["all", "near 1"])
def test_log1p_is_within_two_ulps(x):
    x = x.astype(np.float32)
    assert ulps(LOG1P(x), np.log1p(x.astype(float))).max() < 2


def test_log1p_of_a_fraction_is_within_two_and_a_half_ulps():
    x = np.concatenate([np.linspace(0, 1, COUNT // 2)[1:], np.exp(np.linspace(-80, 0, COUNT // 2)), [1]])
    x = x.astype(np.float32)
    exact = np.log1p(x.astype(float)) / x
    assert ulps(RATIO(x), exact).max() < 2.5


@pytest.mark.parametrize("x", [np.linspace(-87, 87, COUNT), np.linspace(-2, 2, COUNT)], ids=["all", "near 0"])
def test_sigmoid_is_within_three_ulps(x):
    x = x.astype(np.float32)
    errors = ulps(SIGMOID(x), 1 / (1 + np.exp(-x.astype(float))))
    assert errors[x > -20].max() < 3
    assert errors.max() < 6


@pytest.mark.parametrize(
    "x", [np.linspace(-12, 12, COUNT), np.exp(np.linspace(-80, 1, COUNT)), -np.exp(np.linspace(-80, 1, COUNT))],
    ids=["all", "tiny", "tiny and negative"],
)  # fmt: skip
def test_tanh_is_within_three_ulps(x):
    x = x.astype(np.float32)
    assert ulps(TANH(x), np.tanh(x.astype(float))).max() < 3


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        (EXP, [np.nan, -np.inf, 0, -0.0, -88, -1e30], [np.nan, EXP_SMALLEST, 1, 1, EXP_SMALLEST, EXP_SMALLEST]),
        (RATIO, [np.nan, 0], [np.nan, np.nextafter(np.float32(1), np.float32(0))]),
        (LOG, [np.nan, np.inf, 1], [np.nan, np.inf, 0]),
        (LOG1P, [np.nan, np.inf, 0], [np.nan, np.inf, 0]),
        (SIGMOID, [np.nan, 0, -np.inf, np.inf, 100], [np.nan, 0.5, EXP_SMALLEST, 1, 1]),
        (TANH, [np.nan, 0, -np.inf, np.inf, 1e30], [np.nan, 0, -1, 1, 1]),
    ],
    ids=["exp", "ratio", "log", "log1p", "sigmoid", "tanh"],
)
def test_special_values(function, values, expected):
    np.testing.assert_array_equal(function(np.resize(values, 16))[: len(values)], np.float32(expected))
