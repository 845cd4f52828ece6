"""Compiled fits of saturating curves, a - b ** (c - x), by least squares within bounds.

The method is that of SciPy's ``curve_fit`` with bounds, step by step, for three parameters: trust regions, whose steps
are reflected where they meet a bound (M. A. Branch, T. F. Coleman, Y. Li, *A subspace, interior, and conjugate gradient
method for large-scale bound-constrained minimization problems*, SIAM J. Sci. Comput. 21, 1999), with derivatives of
forward differences, the tolerances and the number of evaluations that SciPy has. So it stops where SciPy stops, also
where that is no minimum, unless rounding decides where that is. Singular vectors are those of one-sided Jacobi
rotations (J. Demmel, K. Veselić, *Jacobi's method is more accurate than QR*, SIAM J. Matrix Anal. Appl. 13, 1992),
whose signs do not matter here.

Vectors of the three parameters are tuples. Nothing is allocated: ``frame`` float64 (`FRAME_ROWS`, points + 3) is room
for one fit. It has the residuals, the derivatives, their scaled columns, the residuals of a
trial, and in the last row the singular vectors.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import compiled

Float64s: TypeAlias = NDArray[np.float64]
Vector: TypeAlias = tuple[float, float, float]

#: Where fits start, by SciPy, and within what bounds they stay; b and c have no upper ones.
START: Final = (10.0, 1.001, 100.0)
LOWER: Final = (0.5, 1.0, 0.0)
MOST_A: Final = 200.0
#: How often a fit evaluates the curve, its derivatives not counted, before it fails.
MOST_EVALUATIONS: Final = 300
_TOLERANCE: Final = 1e-8
_EPSILON: Final = 2.0**-52
_DIFFERENCE: Final = 2.0**-26
_MOST_SWEEPS: Final = 40
_MOST_ALPHAS: Final = 10
_INFINITY: Final = math.inf
#: The closest numbers within the bounds.
_INSIDE: Final = tuple(math.nextafter(bound, math.inf) for bound in LOWER)
_INSIDE_A: Final = math.nextafter(MOST_A, 0.0)

#: ln 2 in two parts, the first of 32 bits, so that its products with exponents are exact.
_LOG_2: Final = float.fromhex("0x1.62e42fee00000p-1")
_LOG_2_REST: Final = float.fromhex("0x1.a39ef35793c76p-33")
_HALF_ROOT: Final = math.sqrt(0.5)
#: The last power of a series of the area tangent, whose argument is below 0.172; of the exponential's, from
#: the last on, all terms but the first two.
_LAST_POWER: Final = 23
_PER_LOG_2: Final = 1.4426950408889634
_TERMS: Final = tuple(1.0 / math.factorial(term) for term in range(15, 1, -1))
#: Powers of e beyond these are 0, or infinite.
_LEAST_EXPONENT: Final = -746.0
_MOST_EXPONENT: Final = 709.782712893384
_SPLITTER: Final = 2.0**27 + 1.0
_MOST_SPLIT: Final = 1e290

_RESIDUALS, _SLOPES, _COLUMNS, _TRIAL, _BASIS = 0, 1, 4, 7, 8
#: Rows of a frame, whose last three have at least six entries.
FRAME_ROWS: Final = 11


# --- vectors -----------------------------------------------------------------------------------------------------


@compiled
def _dot(u: Vector, v: Vector) -> float:
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@compiled
def _norm(u: Vector) -> float:
    return math.sqrt(_dot(u, u))


@compiled
def _times(u: Vector, v: Vector) -> Vector:
    return u[0] * v[0], u[1] * v[1], u[2] * v[2]


@compiled
def _scaled(u: Vector, factor: float) -> Vector:
    return u[0] * factor, u[1] * factor, u[2] * factor


@compiled
def _plus(u: Vector, v: Vector) -> Vector:
    return u[0] + v[0], u[1] + v[1], u[2] + v[2]


# --- powers ------------------------------------------------------------------------------------------------------


@compiled
def _product_rest(p: float, a: float, b: float) -> float:
    """Return what the product ``p`` of two numbers lacks, exactly (T. J. Dekker, 1971)."""
    big_a, big_b = a * _SPLITTER, b * _SPLITTER
    a_high, b_high = big_a - (big_a - a), big_b - (big_b - b)
    a_low, b_low = a - a_high, b - b_high
    return ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@compiled
def _log(b: float) -> tuple[float, float]:
    """Return the logarithm of a positive number as a sum of two, from the series of the area tangent."""
    fraction, exponent = math.frexp(b)
    if fraction < _HALF_ROOT:
        fraction, exponent = 2.0 * fraction, exponent - 1
    above, below = fraction - 1.0, fraction + 1.0
    below_rest = fraction - (below - 1.0)
    s = above / below
    product = s * below
    rest = ((above - product) - _product_rest(product, s, below) - s * below_rest) / below
    square = s * s
    tail = 0.0
    for power in range(_LAST_POWER, 1, -2):
        tail = square * (tail + 1.0 / power)
    high, low = 2.0 * s, 2.0 * (rest + s * tail)
    large = exponent * _LOG_2
    total = large + high  # of two numbers, the larger comes first, or is 0
    low += (high - (total - large)) + exponent * _LOG_2_REST
    found = total + low
    return found, low - (found - total)


@compiled
def power(high: float, low: float, y: float) -> float:
    """Return b ** y of a number from 1 on, by its logarithm, a sum of two.

    It is made of sums and products alone, so that it has the same bits everywhere; libraries' powers have not. The last
    digit of powers up to some thousands is rounded as well as theirs; of the largest, a few are not.
    """
    p = y * high
    if not _LEAST_EXPONENT < p < _MOST_EXPONENT:
        return 0.0 if p < 0 else p * _INFINITY
    rest = (_product_rest(p, y, high) if abs(y) < _MOST_SPLIT else 0.0) + y * low
    count = math.floor(p * _PER_LOG_2 + 0.5)
    whole, rest = p - count * _LOG_2, rest - count * _LOG_2_REST
    r = whole + rest
    rest -= r - whole
    tail = 0.0
    for factor in _TERMS:
        tail = tail * r + factor
    most = 1.0 + r
    found = most + ((r - (most - 1.0)) + (r * r * tail + rest * most))
    return math.ldexp(found, int(count))


# --- the curve ---------------------------------------------------------------------------------------------------


@compiled
def _put_residuals(
    frame: Float64s, row: int, points: Float64s, values: Float64s, run: int, count: int, x: Vector
) -> bool:
    """Put the residuals of a run's first points into a row of the frame; tell whether all are finite."""
    are_finite = True
    high, low = _log(x[1])
    for i in range(count):
        frame[row, i] = x[0] - power(high, low, x[2] - points[run, i]) - values[run, i]
        are_finite &= math.isfinite(frame[row, i])
    return are_finite


@compiled
def _put_slopes(frame: Float64s, points: Float64s, values: Float64s, run: int, count: int, x: Vector) -> bool:
    """Put the derivatives by a, b and c into the frame, from forward differences; tell whether all are finite."""
    a, b, c = x
    steps = _DIFFERENCE * max(1.0, a), _DIFFERENCE * max(1.0, b), _DIFFERENCE * max(1.0, c)
    if a + steps[0] > MOST_A:
        steps = -steps[0], steps[1], steps[2]
    moved = a + steps[0], b + steps[1], c + steps[2]
    _put_residuals(frame, _SLOPES, points, values, run, count, (moved[0], b, c))
    _put_residuals(frame, _SLOPES + 1, points, values, run, count, (a, moved[1], c))
    _put_residuals(frame, _SLOPES + 2, points, values, run, count, (a, b, moved[2]))
    are_finite = True
    for k in range(3):
        width = moved[k] - x[k]
        for i in range(count):
            slope = (frame[_SLOPES + k, i] - frame[_RESIDUALS, i]) / width
            frame[_SLOPES + k, i] = slope
            are_finite &= math.isfinite(slope)
    return are_finite


@compiled
def _move_to(frame: Float64s, points: Float64s, values: Float64s, run: int, count: int, x: Vector) -> bool:
    """Put residuals and derivatives of a curve into the frame; tell whether all are finite."""
    are_finite = _put_residuals(frame, _RESIDUALS, points, values, run, count, x)
    return are_finite and _put_slopes(frame, points, values, run, count, x)


@compiled
def _half_square(frame: Float64s, row: int, count: int) -> float:
    total = 0.0
    for i in range(count):
        total += frame[row, i] * frame[row, i]
    return 0.5 * total


@compiled
def _row_dot(frame: Float64s, row: int, other: int, count: int) -> float:
    total = 0.0
    for i in range(count):
        total += frame[row, i] * frame[other, i]
    return total


@compiled
def _gradient(frame: Float64s, count: int) -> Vector:
    return (
        _row_dot(frame, _SLOPES, _RESIDUALS, count),
        _row_dot(frame, _SLOPES + 1, _RESIDUALS, count),
        _row_dot(frame, _SLOPES + 2, _RESIDUALS, count),
    )


@compiled
def _products(frame: Float64s, count: int, u: Vector, v: Vector) -> tuple[float, float, float]:
    """Return u'J'Ju, u'J'Jv and v'J'Jv of the derivatives J."""
    uu = uv = vv = 0.0
    for i in range(count):
        s, t, r = frame[_SLOPES, i], frame[_SLOPES + 1, i], frame[_SLOPES + 2, i]
        p = s * u[0] + t * u[1] + r * u[2]
        q = s * v[0] + t * v[1] + r * v[2]
        uu += p * p
        uv += p * q
        vv += q * q
    return uu, uv, vv


# --- bounds ------------------------------------------------------------------------------------------------------


@compiled
def _distance(k: int, x: float, slope: float) -> tuple[float, float]:
    """Return how far the bound is that lies downhill of a parameter, 1 if there is none, and how that changes by it."""
    if slope > 0:
        return x - LOWER[k], 1.0
    if slope < 0 and k == 0:
        return MOST_A - x, -1.0
    return 1.0, 0.0


@compiled
def _scaling(x: Vector, g: Vector) -> tuple[Vector, Vector]:
    """Return Coleman's and Li's scaling of the parameters, and its derivatives."""
    a, da = _distance(0, x[0], g[0])
    b, db = _distance(1, x[1], g[1])
    c, dc = _distance(2, x[2], g[2])
    return (a, b, c), (da, db, dc)


@compiled
def _is_inside(x: Vector) -> bool:
    return LOWER[0] <= x[0] <= MOST_A and x[1] >= LOWER[1] and x[2] >= LOWER[2]


@compiled
def _inside(x: Vector) -> Vector:
    """Return the closest parameters that are strictly within the bounds."""
    a = _INSIDE[0] if x[0] <= LOWER[0] else _INSIDE_A if x[0] >= MOST_A else x[0]
    b = _INSIDE[1] if x[1] <= LOWER[1] else x[1]
    c = _INSIDE[2] if x[2] <= LOWER[2] else x[2]
    return a, b, c


@compiled
def _to_bound_of(k: int, x: float, step: float) -> float:
    if step < 0:
        return (LOWER[k] - x) / step
    return (MOST_A - x) / step if step > 0 and k == 0 else _INFINITY


@compiled
def _to_bounds(x: Vector, step: Vector) -> Vector:
    """Return how often a step can be made until each parameter is at its bound."""
    return _to_bound_of(0, x[0], step[0]), _to_bound_of(1, x[1], step[1]), _to_bound_of(2, x[2], step[2])


# --- trust regions -----------------------------------------------------------------------------------------------


@compiled
def _orthogonalize(frame: Float64s, one: int, other: int, count: int) -> bool:
    """Rotate two scaled columns, and with them two vectors of the basis, until they are orthogonal; tell if any was."""
    p, q = _COLUMNS + one, _COLUMNS + other
    along, across = _row_dot(frame, p, p, count), _row_dot(frame, q, q, count)
    both = _row_dot(frame, p, q, count)
    if both == 0 or abs(both) <= _EPSILON * math.sqrt(along * across):
        return False
    zeta = (across - along) / (2.0 * both)
    tangent = math.copysign(1.0, zeta) / (abs(zeta) + math.sqrt(1.0 + zeta * zeta))
    cosine = 1.0 / math.sqrt(1.0 + tangent * tangent)
    sine = cosine * tangent
    for i in range(count):
        left, right = frame[p, i], frame[q, i]
        frame[p, i] = cosine * left - sine * right
        frame[q, i] = sine * left + cosine * right
    for i in range(3):
        left, right = frame[_BASIS + one, i], frame[_BASIS + other, i]
        frame[_BASIS + one, i] = cosine * left - sine * right
        frame[_BASIS + other, i] = sine * left + cosine * right
    return True


@compiled
def _decompose(frame: Float64s, count: int, d: Vector, diagonal: Vector) -> tuple[Vector, Vector]:
    """Decompose the scaled derivatives, the roots of ``diagonal`` below them, by singular values.

    Returns the squares of these, and the products of each scaled left vector with the residuals. Right vectors stand in
    the frame.
    """
    rows = count + 3
    for k in range(3):
        for i in range(count):
            frame[_COLUMNS + k, i] = frame[_SLOPES + k, i] * d[k]
        for i in range(3):
            frame[_COLUMNS + k, count + i] = math.sqrt(diagonal[k]) if i == k else 0.0
            frame[_BASIS + k, i] = 1.0 if i == k else 0.0
    for _ in range(_MOST_SWEEPS):
        rotated = _orthogonalize(frame, 0, 1, rows)
        rotated |= _orthogonalize(frame, 0, 2, rows)
        rotated |= _orthogonalize(frame, 1, 2, rows)
        if not rotated:
            break
    squares = (
        _row_dot(frame, _COLUMNS, _COLUMNS, rows),
        _row_dot(frame, _COLUMNS + 1, _COLUMNS + 1, rows),
        _row_dot(frame, _COLUMNS + 2, _COLUMNS + 2, rows),
    )
    products = (
        _row_dot(frame, _COLUMNS, _RESIDUALS, count),
        _row_dot(frame, _COLUMNS + 1, _RESIDUALS, count),
        _row_dot(frame, _COLUMNS + 2, _RESIDUALS, count),
    )
    return squares, products


@compiled
def _in_basis(frame: Float64s, weights: Vector) -> Vector:
    """Return a sum of the right singular vectors."""
    return (
        weights[0] * frame[_BASIS, 0] + weights[1] * frame[_BASIS + 1, 0] + weights[2] * frame[_BASIS + 2, 0],
        weights[0] * frame[_BASIS, 1] + weights[1] * frame[_BASIS + 1, 1] + weights[2] * frame[_BASIS + 2, 1],
        weights[0] * frame[_BASIS, 2] + weights[1] * frame[_BASIS + 1, 2] + weights[2] * frame[_BASIS + 2, 2],
    )


@compiled
def _damped(squares: Vector, products: Vector, alpha: float) -> Vector:
    """Return the negative step of damped least squares, in the basis of the singular vectors."""
    return (
        -products[0] / (squares[0] + alpha),
        -products[1] / (squares[1] + alpha),
        -products[2] / (squares[2] + alpha),
    )


@compiled
def _excess(squares: Vector, products: Vector, alpha: float, radius: float) -> tuple[float, float]:
    """Return by how much a damped step is longer than the radius, and the derivative of that by the damping."""
    step = _damped(squares, products, alpha)
    length = _norm(step)
    over = squares[0] + alpha, squares[1] + alpha, squares[2] + alpha
    slope = step[0] * step[0] / over[0] + step[1] * step[1] / over[1] + step[2] * step[2] / over[2]
    return length - radius, -slope / length


@compiled
def _trust_step(
    frame: Float64s, count: int, squares: Vector, products: Vector, radius: float, alpha: float
) -> tuple[Vector, float]:
    """Return the step that is best within a radius, in scaled parameters, and its damping; ``alpha`` is the former.

    The method is J. J. Moré's (*The Levenberg-Marquardt algorithm: implementation and theory*, 1977).
    """
    largest = math.sqrt(max(squares[0], squares[1], squares[2]))
    smallest = math.sqrt(min(squares[0], squares[1], squares[2]))
    has_full_rank = count >= 3 and smallest > _EPSILON * count * largest
    upper = _norm(products) / radius
    lower = 0.0
    if has_full_rank:
        step = _damped(squares, products, 0.0)
        if _norm(step) <= radius:
            return _in_basis(frame, step), 0.0
        excess, slope = _excess(squares, products, 0.0, radius)
        lower = -excess / slope
    if not has_full_rank and alpha == 0:
        alpha = max(0.001 * upper, math.sqrt(lower * upper))
    for _ in range(_MOST_ALPHAS):
        if alpha < lower or alpha > upper:
            alpha = max(0.001 * upper, math.sqrt(lower * upper))
        excess, slope = _excess(squares, products, alpha, radius)
        if excess < 0:
            upper = alpha
        ratio = excess / slope
        lower = max(lower, alpha - ratio)
        alpha -= (excess + radius) * ratio / radius
        if abs(excess) < 0.01 * radius:
            break
    step = _in_basis(frame, _damped(squares, products, alpha))
    return _scaled(step, radius / _norm(step)), alpha


@compiled
def _lowest(a: float, b: float, low: float, high: float, c: float) -> tuple[float, float]:
    """Return where at² + bt + c is lowest between two places, and its value there."""
    at, value = low, low * (a * low + b) + c
    found = high * (a * high + b) + c
    if found < value:
        at, value = high, found
    middle = -0.5 * b / a if a != 0 else low
    if low < middle < high:
        found = middle * (a * middle + b) + c
        if found < value:
            at, value = middle, found
    return at, value


@compiled
def _to_radius(start: Vector, step: Vector, radius: float) -> float:
    """Return how often a step from within can be made until the trust region ends; NaN if it starts outside."""
    a, b = _dot(step, step), _dot(start, step)
    c = _dot(start, start) - radius * radius
    if a == 0 or c > 0:
        return math.nan
    q = -(b + math.copysign(math.sqrt(b * b - a * c), b))
    return max(q / a, c / q)


@compiled
def _step_within(
    frame: Float64s, count: int, x: Vector, g: Vector, d: Vector, diagonal: Vector, radius: float, theta: float,
    step: Vector,
) -> tuple[Vector, float, bool]:  # fmt: skip
    """Return a step that stays within the bounds, and by how much the model changes by it; False if none is found.

    Where a step would lead across a bound, it is the best of three: up to short of the bound, the same reflected there,
    and one against the gradient. All are in scaled parameters.
    """
    g_h = _times(d, g)
    if _is_inside(_plus(x, _times(d, step))):
        return step, _model(frame, count, d, diagonal, g_h, step), True
    limits = _to_bounds(x, _times(d, step))
    stride = min(limits[0], limits[1], limits[2])
    mirrored = (
        -step[0] if limits[0] == stride else step[0],
        -step[1] if limits[1] == stride else step[1],
        -step[2] if limits[2] == stride else step[2],
    )
    step = _scaled(step, stride)
    to_radius = _to_radius(step, mirrored, radius)
    if math.isnan(to_radius):
        return step, 0.0, False
    limits = _to_bounds(_plus(x, _times(d, step)), _times(d, mirrored))
    to_bound = min(limits[0], limits[1], limits[2])
    length = min(to_bound, to_radius)
    low, high = 0.0, -1.0
    if length > 0:
        low = (1 - theta) * stride / length
        high = theta * to_bound if length == to_bound else to_radius
    best, value = step, _INFINITY
    if low <= high:
        uu, uv, vv = _products(frame, count, _times(d, mirrored), _times(d, step))
        a = 0.5 * (uu + _dot(_times(mirrored, diagonal), mirrored))
        b = _dot(g_h, mirrored) + uv + _dot(_times(step, diagonal), mirrored)
        c = 0.5 * vv + _dot(g_h, step) + 0.5 * _dot(_times(step, diagonal), step)
        at, value = _lowest(a, b, low, high, c)
        best = _plus(_scaled(mirrored, at), step)
    step = _scaled(step, theta)
    own = _model(frame, count, d, diagonal, g_h, step)
    downhill, its = _downhill(frame, count, x, d, diagonal, g_h, radius, theta)
    if own < value and own < its:
        return step, own, True
    if value < own and value < its:
        return best, value, True
    return downhill, its, True


@compiled
def _model(frame: Float64s, count: int, d: Vector, diagonal: Vector, g_h: Vector, step: Vector) -> float:
    """Return by how much the quadratic model changes by a step."""
    scaled = _times(d, step)
    square, _, _ = _products(frame, count, scaled, scaled)
    return 0.5 * (square + _dot(_times(step, diagonal), step)) + _dot(step, g_h)


@compiled
def _downhill(
    frame: Float64s, count: int, x: Vector, d: Vector, diagonal: Vector, g_h: Vector, radius: float, theta: float
) -> tuple[Vector, float]:
    """Return the best step against the gradient within bounds and radius, and by how much the model changes by it."""
    against = _scaled(g_h, -1.0)
    most = radius / _norm(against)
    limits = _to_bounds(x, _times(d, against))
    to_bound = min(limits[0], limits[1], limits[2])
    if to_bound < most:
        most = theta * to_bound
    scaled = _times(d, against)
    square, _, _ = _products(frame, count, scaled, scaled)
    a = 0.5 * (square + _dot(_times(against, diagonal), against))
    at, value = _lowest(a, _dot(g_h, against), 0.0, most, 0.0)
    return _scaled(against, at), value


# --- fits --------------------------------------------------------------------------------------------------------


@compiled
def _new_radius(radius: float, reduction: float, predicted: float, length: float) -> tuple[float, float]:
    """Return the radius after a step, and the ratio of its reduction to the predicted one."""
    ratio = 0.0
    if predicted > 0:
        ratio = reduction / predicted
    elif predicted == 0 and reduction == 0:
        ratio = 1.0
    if ratio < 0.25:
        return 0.25 * length, ratio
    return (2.0 * radius if ratio > 0.75 and length > 0.95 * radius else radius), ratio


@compiled
def _largest(u: Vector, v: Vector) -> float:
    return max(abs(u[0] * v[0]), abs(u[1] * v[1]), abs(u[2] * v[2]))


@compiled
def _fit(
    frame: Float64s, points: Float64s, values: Float64s, run: int, count: int, start: Float64s
) -> tuple[Vector, bool]:
    """Return the parameters of the curve that fits a run's first points, and whether the fit has ended well."""
    x = (start[0], start[1], start[2])
    if not _move_to(frame, points, values, run, count, x):
        return x, False
    g = _gradient(frame, count)
    v, dv = _scaling(x, g)
    radius = _norm((x[0] / math.sqrt(v[0]), x[1] / math.sqrt(v[1]), x[2] / math.sqrt(v[2])))
    cost, alpha, evaluations, has_ended = _half_square(frame, _RESIDUALS, count), 0.0, 1, False
    while True:
        v, dv = _scaling(x, g)
        steepness = _largest(g, v)
        if has_ended or steepness < _TOLERANCE:
            return x, True
        if evaluations == MOST_EVALUATIONS:
            return x, False
        d = math.sqrt(v[0]), math.sqrt(v[1]), math.sqrt(v[2])
        diagonal = _times(g, dv)
        squares, products = _decompose(frame, count, d, diagonal)
        theta = max(0.995, 1.0 - steepness)
        trial, new_cost, reduction = x, cost, -1.0
        while reduction <= 0 and evaluations < MOST_EVALUATIONS:
            step, alpha = _trust_step(frame, count, squares, products, radius, alpha)
            step, value, is_found = _step_within(frame, count, x, g, d, diagonal, radius, theta, step)
            if not is_found:
                return x, False
            moved = _times(d, step)
            trial = _inside(_plus(x, moved))
            evaluations += 1
            length = _norm(step)
            if not _put_residuals(frame, _TRIAL, points, values, run, count, trial):
                radius = 0.25 * length
                continue
            new_cost = _half_square(frame, _TRIAL, count)
            reduction = cost - new_cost
            wider, ratio = _new_radius(radius, reduction, -value, length)
            is_flat = reduction < _TOLERANCE * cost and ratio > 0.25
            has_ended = is_flat or _norm(moved) < _TOLERANCE * (_TOLERANCE + _norm(x))
            if has_ended:
                break
            alpha *= radius / wider
            radius = wider
        if reduction > 0:
            x, cost = trial, new_cost
            if not _move_to(frame, points, values, run, count, x):
                return x, False
            g = _gradient(frame, count)


@compiled
def fit_curves(
    points: Float64s, values: Float64s, counts: NDArray[np.int64], start: Float64s, fits: Float64s, frame: Float64s
) -> None:
    """Fit a curve to the first ``counts[r]`` points of each run r, in ``points`` and ``values`` float64 (runs, points).

    Fits begin at ``start`` float64 (3,), which lies within the bounds; SciPy's do at `START`. ``fits`` float64
    (runs, 3) gets a, b and c, infinite where the fit fails or a run has no points, as ``counts`` 0 says. ``frame``
    float64 (`FRAME_ROWS`, points + 3) is room. The measures must be finite as far as ``counts`` go.
    """
    for run in range(counts.size):
        x, is_fitted = START, False
        if counts[run] > 0:
            x, is_fitted = _fit(frame, points, values, run, counts[run], start)
        for k in range(3):
            fits[run, k] = x[k] if is_fitted else _INFINITY


@compiled
def put_values(curves: Float64s, x: float, found: Float64s) -> None:
    """Put the values of curves (curves, 3) at ``x`` into ``found`` float64 (curves,); NaN where there is no curve."""
    for one in range(found.size):
        a, b, c = curves[one, 0], curves[one, 1], curves[one, 2]
        found[one] = math.nan
        if math.isfinite(a) and math.isfinite(b):
            high, low = _log(b)
            found[one] = a - power(high, low, c - x)
