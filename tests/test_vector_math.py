"""Exponential and logarithms of vectors against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from butter_etl.engines import vector_math
from butter_etl.engines.lanes import load, store


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


EXP, LOG, LOG1P = (applied(function) for function in (vector_math.exp, vector_math.log, vector_math.log1p))
COUNT = 2**20


def ulps(values, exact):
    return np.abs(values - exact) / np.spacing(np.abs(exact).astype(np.float32))


def test_exp_is_within_two_ulps():
    x = np.linspace(-87.3, 88, COUNT).astype(np.float32)
    assert ulps(EXP(x), np.exp(x.astype(float))).max() < 1.5


@pytest.mark.parametrize("x", [np.exp(np.linspace(-87, 88, COUNT)), np.linspace(0.4, 3, COUNT)], ids=["all", "near 1"])
def test_log_is_within_two_ulps(x):
    x = x.astype(np.float32)
    assert ulps(LOG(x), np.log(x.astype(float))).max() < 1.5


@pytest.mark.parametrize("x", [np.exp(np.linspace(-40, 87, COUNT)), np.linspace(0, 3, COUNT)], ids=["all", "near 1"])
def test_log1p_is_within_two_ulps(x):
    x = x.astype(np.float32)
    assert ulps(LOG1P(x), np.log1p(x.astype(float))).max() < 2


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        (EXP, [np.nan, np.inf, -np.inf, 0, -0.0, -88, -1e30, 89], [np.nan, np.inf, 0, 1, 1, 0, 0, np.inf]),
        (LOG, [np.nan, np.inf, 1], [np.nan, np.inf, 0]),
        (LOG1P, [np.nan, np.inf, 0], [np.nan, np.inf, 0]),
    ],
    ids=["exp", "log", "log1p"],
)
def test_special_values(function, values, expected):
    np.testing.assert_array_equal(function(np.resize(values, 16))[: len(values)], np.float32(expected))
