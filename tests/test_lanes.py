"""Vectors of floats: what compiled code does is what the plain functions say."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from butter_etl.engines.fused import lanes

RNG = np.random.default_rng(5)
A, B = (RNG.normal(0, 3, 64).astype(np.float32) for _ in range(2))
SPECIAL = np.resize(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -2.5, 1e30], dtype=np.float32), 64)


def both(function, *arrays):
    """The arrays as the compiled and as the plain function leave them, for functions that write to the last one."""
    results = []
    for version in (njit(function), function):
        copies = [array.copy() for array in arrays]
        with np.errstate(all="ignore"):
            version(*copies)
        results.append(copies[-1])
    return results


def assert_same(function, *arrays, **tolerance):
    compiled, plain = both(function, *arrays)
    np.testing.assert_allclose(compiled, plain, **({"rtol": 0, "atol": 0} | tolerance))


load, store = lanes.load, lanes.store


@pytest.mark.parametrize("symbol", [operator.add, operator.sub, operator.mul, operator.truediv])
@pytest.mark.parametrize("values", [A, SPECIAL], ids=["usual", "special"])
def test_operators(symbol, values):
    def use(a, b, out):
        store(out, 0, symbol(load(a, 1), load(b, 2)))
        store(out, 16, symbol(load(a, 3), 0.1))
        store(out, 32, symbol(3.0, load(a, 5)))
        store(out, 48, symbol(load(a, 7), np.float32(0.3)))

    assert_same(use, values, B, np.zeros(64, np.float32))


@pytest.mark.parametrize("where", [lanes.where_less, lanes.where_at_most, lanes.where_equal])
def test_selections(where):
    def use(a, b, out):
        store(out, 0, where(load(a, 0), load(b, 0), load(a, 16), load(b, 16)))
        store(out, 16, where(load(a, 0), 0.0, load(a, 0), 7.0))
        store(out, 32, where(0.0, load(a, 0), 1.0, load(a, 0)))
        store(out, 48, where(load(a, 3), load(a, 3), 1.0, 0.0))

    assert_same(use, SPECIAL, B, np.zeros(64, np.float32))


def test_functions_of_one_vector():
    def use(a, out):
        store(out, 0, lanes.root(lanes.magnitude(load(a, 0))))
        store(out, 16, lanes.magnitude(load(a, 4)))
        store(out, 32, lanes.splat(2.5))
        store(out, 48, lanes.keep_first(load(a, 8), 5))

    for values in (A, SPECIAL):
        assert_same(use, values, np.zeros(64, np.float32))


def test_shifted_integers_scale_by_powers_of_two():
    def use(a, out):
        shifted = load(a, 0) + lanes.INTEGER_SHIFT
        store(out, 0, shifted - lanes.INTEGER_SHIFT)
        store(out, 16, lanes.times_power_of_two(load(a, 16), shifted))

    values = np.concatenate([np.arange(-8, 8) / 2, np.linspace(-2, -1, 16), A[:32]]).astype(np.float32)
    assert_same(use, values, np.zeros(64, np.float32))
    compiled, _ = both(use, values, np.zeros(64, np.float32))
    np.testing.assert_array_equal(compiled[:16], np.rint(values[:16]))  # halves to even
    np.testing.assert_array_equal(compiled[16:32], values[16:32] * 2 ** np.rint(values[:16]))


def test_all_lanes_are_compared():
    def use(a, out):
        out[0] = lanes.all_less(load(a, 0), load(a, 16))

    for place, value, expected in ((0, -9, 1), (15, 1, 0), (7, np.nan, 0), (20, np.nan, 0), (9, -np.inf, 1)):
        values = np.repeat(np.float32([0, 1]), 16)
        values[place] = value
        assert [out[0] for out in both(use, values, np.zeros(1, np.float32))] == [expected] * 2


def test_parts_of_a_float():
    def use(a, out):
        v = lanes.magnitude(load(a, 0))
        store(out, 0, lanes.exponent(v))
        store(out, 16, lanes.mantissa(v))
        store(out, 32, lanes.power_of_two(lanes.exponent(v)) * lanes.mantissa(v) - v)

    values = np.ldexp(A, np.arange(-32, 32)).astype(np.float32)
    assert_same(use, values, np.ones(64, np.float32))
    _, plain = both(use, values, np.ones(64, np.float32))
    assert (plain[32:48] == 0).all()
    assert (plain[16:32] >= np.float32(np.sqrt(0.5))).all()
    assert (plain[16:32] < np.float32(np.sqrt(2))).all()


def test_multiply_add_and_sums():
    def use(a, b, out, sums):
        v = lanes.multiply_add(load(a, 0), load(b, 0), lanes.multiply_add(load(a, 16), 0.5, 1.0))
        lanes.add_to_sums(sums, 3, v)
        lanes.add_to_sums(sums, 3, load(b, 16))
        sums[0] = lanes.sum_lanes(v)

    assert_same(use, A, B, np.zeros(64, np.float32), np.linspace(0, 1, 64), rtol=1e-6)


def test_groups():
    def use(a, b, out):
        group = lanes.splat_each(b, 3, 2)
        group = lanes.multiply_add_each(group, b, 5, 7, load(a, 0))
        group = lanes.add_each(group, a, 5)
        store(out, 0, lanes.keep_first(load(a, 40), 9))
        lanes.store_each(out, 16, lanes.relu_each(group))

    assert_same(use, A, B, np.zeros(64, np.float32), rtol=1e-6)


def test_groups_stored_in_rows():
    def use(a, out):
        lanes.store_rows(out, 3, 21, lanes.load_each(lanes.zero_each(3), a, 2))

    assert_same(use, A, np.zeros(64, np.float32))


def test_groups_of_special_values():
    def use(a, out):
        group = lanes.load_each(lanes.zero_each(2), a, 0)
        lanes.store_each(out, 0, lanes.relu_each(group))
        lanes.store_each(out, 32, lanes.zero_each_where_off(group, a, 2))

    assert_same(use, SPECIAL, np.zeros(64, np.float32))
    compiled, _ = both(use, SPECIAL, np.zeros(64, np.float32))
    np.testing.assert_array_equal(compiled[:8], np.float32([np.nan, np.inf, 0, 0, 0, 1, 0, 1e30]))


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_tiles_of_sums_of_products(columns):
    zero = {
        1: lambda: lanes.zero_tile(3, 1),
        2: lambda: lanes.zero_tile(3, 2),
        3: lambda: lanes.zero_tile(3, 3),
        4: lambda: lanes.zero_tile(3, 4),
    }[columns]
    compiled_zero = njit(zero)
    values = RNG.normal(size=300).astype(np.float32)

    def use(a, out):
        tile = lanes.add_products(compiled_zero(), a, 1, 60)
        tile = lanes.add_products(tile, a, 101, 160)
        lanes.store_sums(out, 2, 6, tile)

    compiled, untouched = np.zeros(64, np.float32), np.ones(64, bool)
    njit(use)(values, compiled)
    for i in range(3):
        for j in range(columns):
            pairs = [(left + 16 * i, right + 16 * j) for left, right in ((1, 60), (101, 160))]
            expected = sum(values[p : p + 16].astype(float) @ values[q : q + 16] for p, q in pairs)
            assert compiled[2 + 6 * i + j] == pytest.approx(expected, rel=1e-5, abs=1e-5)
            untouched[2 + 6 * i + j] = False
    assert (compiled[untouched] == 0).all()


def test_gathered_columns_are_the_transpose():
    def use(table, starts, out):
        lanes.gather_columns(table, starts, 3, 2, out, 16)

    table = np.arange(20 * 11, dtype=np.float32)
    starts = 11 * RNG.permutation(20)
    assert_same(use, table, starts, np.zeros(96, np.float32))
    compiled, _ = both(use, table, starts, np.zeros(96, np.float32))
    expected = table.reshape(20, 11)[starts[3:19] // 11, 2:6].T
    np.testing.assert_array_equal(compiled[16:80].reshape(4, 16), expected)
    assert (compiled[80:] == 0).all()


@pytest.mark.parametrize("array", [A.astype(float), A[::2], A.reshape(8, 8)], ids=["float64", "strided", "2-d"])
def test_other_arrays_are_refused(array):
    with pytest.raises(TypingError):
        njit(lambda a, out: store(out, 0, load(a, 0)))(array, np.zeros(16, np.float32))


def test_subnormal_numbers_count_as_zero_only_in_between():
    @njit
    def halved(v, flush):
        mode = lanes.flush_subnormals() if flush else 0
        v[0] = v[0] * np.float32(0.5)
        if flush:
            lanes.restore_subnormals(mode)

    smallest = np.finfo(np.float32).tiny
    for flush, expected in ((True, 0.0 if lanes._on_x86() else smallest / 2), (False, smallest / 2)):
        values = np.array([smallest], dtype=np.float32)
        halved(values, flush)
        assert values[0] == expected
    assert smallest / np.float32(2) > 0
    assert lanes.flush_subnormals() == 0
    lanes.restore_subnormals(0)
