"""Exponentials and logarithms of vectors (`butter_etl.engines.fused.lanes`), branch-free polynomials.

Logarithms of any number take the polynomial of Cephes' ``logf`` (S. Moshier); the others are minimax polynomials, found
by Remez' algorithm, on the range that softmax and sigmoid need. All are evaluated by Estrin's scheme: what limits
kernels here is chains of dependent operations, and its chains are half as long as Horner's. Errors are in units in the
last place (ulp), each tested on a dense grid against NumPy's float64 functions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from butter_etl.engines.compiling import compiled_in_place
from butter_etl.engines.fused.lanes import (
    INTEGER_SHIFT,
    exponent,
    magnitude,
    mantissa,
    multiply_add,
    power_of_two,
    splat,
    times_power_of_two,
    where_less,
)

if TYPE_CHECKING:
    from butter_etl.engines.fused.lanes import Vector

#: ln 2 in two parts, the first of so few digits that its product with an exponent is exact.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_LN2, _LOG2_E = math.log(2), 1 / math.log(2)

#: Below this x, e^x is no normal float32.
_EXP_LOWEST = -87.33


@compiled_in_place
def exp_of_negative(x: Vector) -> Vector:
    """Return e^x of x <= 0 within 1.5 ulp, below -20 within 5; never below 1.2e-38 (so not subnormal), NaN of NaN."""
    clipped = where_less(x, _EXP_LOWEST, _EXP_LOWEST, x)
    shifted = multiply_add(clipped, _LOG2_E, INTEGER_SHIFT)
    r = multiply_add(shifted - INTEGER_SHIFT, -_LN2, clipped)
    square = r * r
    low = multiply_add(r, 1.6666519524e-1, 4.9999993373e-1)
    high = multiply_add(r, 8.3688510588e-3, 4.1668401079e-2)
    high = multiply_add(square, 1.3814320787e-3, high)
    return times_power_of_two(multiply_add(multiply_add(high, square, low), square, r + 1.0), shifted)


@compiled_in_place
def sigmoid(x: Vector) -> Vector:
    """Return 1 / (1 + e^-x) within 3 ulp, below -20 within 6; NaN of NaN."""
    power = exp_of_negative(0.0 - magnitude(x))
    return where_less(x, 0.0, power, 1.0) / (power + 1.0)


#: From this x on, tanh x is 1 in float32.
_TANH_HIGHEST = 10.0


@compiled_in_place
def tanh(x: Vector) -> Vector:
    """Return tanh x within 3 ulp, for tiny x too; NaN of NaN."""
    # With m = e^-2|x| - 1, it is -m / (2 + m).
    clipped = magnitude(x)
    clipped = where_less(_TANH_HIGHEST, clipped, _TANH_HIGHEST, clipped) * -2.0
    shifted = multiply_add(clipped, _LOG2_E, INTEGER_SHIFT)
    r = multiply_add(shifted - INTEGER_SHIFT, -_LN2, clipped)
    square = r * r
    low = multiply_add(r, 1.6666519524e-1, 4.9999993373e-1)
    high = multiply_add(r, 8.3688510588e-3, 4.1668401079e-2)
    high = multiply_add(square, 1.3814320787e-3, high)
    series = multiply_add(multiply_add(high, square, low), square, r)
    scale = times_power_of_two(splat(1.0), shifted)
    m = multiply_add(series, scale, scale - 1.0)
    found = m / (m + 2.0)
    return where_less(x, 0.0, found, 0.0 - found)


@compiled_in_place
def log(x: Vector) -> Vector:
    """Return ln x of positive normal x within 2 ulp (or 1e-7 near 1); infinity and NaN stay."""
    return where_less(x, math.inf, _log_of(mantissa(x) - 1.0, exponent(x)), x)


@compiled_in_place
def log1p(x: Vector) -> Vector:
    """Return ln(1 + x) of x >= 0 up to 1e38 within 2 ulp, for tiny x too; infinity and NaN stay."""
    e = exponent(x + 1.0)
    scale = power_of_two(0.0 - e)
    # (1 + x) 2^-e - 1 without rounding 1 + x first.
    return where_less(x, math.inf, _log_of(multiply_add(x, scale, scale - 1.0), e), x)


@compiled_in_place
def log1p_ratio(x: Vector) -> Vector:
    """Return ln(1 + x) / x of x in [0, 1] within 2.5 ulp; NaN stays."""
    square = x * x
    fourth = square * square
    low = multiply_add(x, -4.9999493140e-1, 9.9999996988e-1)
    low = multiply_add(multiply_add(x, -2.4842982216e-1, 3.3319096808e-1), square, low)
    high = multiply_add(x, -1.3663245815e-1, 1.9106006770e-1)
    high = multiply_add(multiply_add(x, -2.9505238934e-2, 7.8225952128e-2), square, high)
    return multiply_add(multiply_add(fourth, 5.2326943037e-3, high), fourth, low)


@compiled_in_place
def _log_of(f: Vector, e: Vector) -> Vector:
    """Return ln((1 + f) 2^e) of 1 + f in [sqrt(1/2), sqrt(2)]."""
    square = f * f
    fourth = square * square
    low = multiply_add(f, -2.4999993993e-1, 3.3333331174e-1)
    low = multiply_add(multiply_add(f, -1.6668057665e-1, 2.0000714765e-1), square, low)
    high = multiply_add(f, -1.2420140846e-1, 1.4249322787e-1)
    high = multiply_add(multiply_add(f, -1.1514610310e-1, 1.1676998740e-1), square, high)
    series = multiply_add(multiply_add(fourth, 7.0376836292e-2, high), fourth, low)
    series = multiply_add(series, f * square, e * _LN2_LOW)
    return multiply_add(e, _LN2_HIGH, f + multiply_add(square, -0.5, series))
