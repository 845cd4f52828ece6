"""The compiled statistics: against their twin in NumPy, against NumPy's own functions, and with the compiler off."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import coverage
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from butter_etl.engines import order_statistics
from tests import numpy_statistics as twin

ROOT = Path(__file__).parents[1]
FLOAT32_MAX = np.finfo(np.float32).max
FLOAT64_MAX = np.finfo(np.float64).max
FRACTIONS = np.array([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
SPECIAL = [0.0, -0.0, 1.0, 1.5, -2.0, 1e-45, -1e-40, FLOAT32_MAX, -FLOAT32_MAX, np.nan, np.inf, -np.inf]
#: What float32 cannot hold, or not apart from its neighbour.
SPECIAL_DOUBLES = [1e300, -1e300, FLOAT64_MAX, -FLOAT64_MAX, 1e-310, -5e-324, 1 + 2**-52, 1 - 2**-53]
WIDE = {"out": np.float64, "kind": np.float64, "counted": np.uint16}


def statistics(values, lengths=None, fractions=FRACTIONS, out=np.float32, counted=np.uint8, **options):
    """Counts and results of a matrix (runs, epochs), each run's list being the first so many of its entries."""
    runs, epochs = values.shape
    lengths = np.full(runs, epochs) if lengths is None else lengths
    counts = np.full((2, epochs), 77, counted)
    results = np.full((len(twin.MOMENTS) + len(fractions), epochs), 77, out)
    starts = np.arange(runs) * epochs
    order_statistics.epoch_statistics(
        values.reshape(-1), starts, lengths, epochs, fractions, counts, results, **options
    )
    return counts, results


def rounded(values):
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def matrices(max_runs=12, max_epochs=5, dtype=np.float32):
    """Matrices with ties, non-finite, tiny and huge numbers, and how long each run's list is."""

    @st.composite
    def draw_matrix(draw):
        runs, epochs = draw(st.integers(1, max_runs)), draw(st.integers(0, max_epochs))
        special = SPECIAL if dtype == np.float32 else SPECIAL + SPECIAL_DOUBLES
        element = st.sampled_from(special) | st.floats(width=np.dtype(dtype).itemsize * 8)
        flat = draw(st.lists(element, min_size=runs * epochs, max_size=runs * epochs))
        ragged = st.lists(st.integers(0, epochs), min_size=runs, max_size=runs)
        lengths = draw(st.just([epochs] * runs) | ragged)
        return np.array(flat, dtype).reshape(runs, epochs), np.array(lengths)

    return draw_matrix()


def wide_matrix(runs, epochs, seed, missing=0.0, dtype=np.float32):
    """A larger matrix: numbers of many magnitudes, a share of them not finite."""
    rng = np.random.default_rng([seed, runs])
    values = (rng.normal(size=(runs, epochs)) * 10.0 ** rng.integers(-30, 30, (1, epochs))).astype(dtype)
    values[rng.random(values.shape) < missing] = np.nan
    return values


# ------------------------------------------------------------------------------------------------ sorting networks


@pytest.mark.parametrize("count", range(1, 13))
def test_networks_sort_every_row_of_zeros_and_ones(count):
    """And so everything else (D. Knuth, section 5.3.4, theorem Z)."""
    rows = np.array(list(itertools.product([0, 1], repeat=count)))
    for low, high in order_statistics.sorting_network(count):
        assert low < high
        rows[:, [low, high]] = np.sort(rows[:, [low, high]], axis=1)
    assert (np.diff(rows, axis=1) >= 0).all()


@pytest.mark.parametrize("count", [*range(13, 256, 11), 64, 128, 255])
def test_larger_networks_sort(count):
    rng = np.random.default_rng(count)
    rows = np.concatenate([rng.permuted(np.tile(np.arange(count), (50, 1)), axis=1), rng.integers(0, 2, (50, count))])
    for low, high in order_statistics.sorting_network(count):
        rows[:, [low, high]] = np.sort(rows[:, [low, high]], axis=1)
    assert (np.diff(rows, axis=1) >= 0).all()


def test_networks_are_made_once_and_have_the_known_sizes():
    sizes = [len(order_statistics.sorting_network(count)) for count in (1, 2, 4, 8, 16, 30, 32, 255)]
    assert sizes == [0, 1, 5, 19, 63, 178, 191, 3831]
    assert order_statistics.sorting_network(30) is order_statistics.sorting_network(30)
    assert not order_statistics.sorting_network(30).flags.writeable


# ------------------------------------------------------------------------------------------------ against the twin


@settings(max_examples=300)
@given(case=matrices())
@example(case=(np.zeros((3, 0), np.float32), np.zeros(3, np.int64)))
@example(case=(np.full((2, 3), np.nan, np.float32), np.array([3, 3])))
def test_bits_are_those_of_the_twin(case):
    values, lengths = case
    counts, results = statistics(values, lengths)
    expected_counts, expected = twin.epoch_statistics(values, lengths, FRACTIONS)
    np.testing.assert_array_equal(counts, expected_counts)
    assert_same_bits(results, rounded(expected))


def assert_same_bits(results, expected):
    np.testing.assert_array_equal(np.isnan(results), np.isnan(expected))
    kind = np.int32 if results.dtype == np.float32 else np.int64
    numbers = ~np.isnan(results)
    np.testing.assert_array_equal(results[numbers].view(kind), expected[numbers].view(kind))


@settings(max_examples=100)
@given(case=matrices(max_runs=6, dtype=np.float64), out=st.sampled_from([np.float32, np.float64]))
def test_doubles_are_not_rounded_before(case, out):
    values, lengths = case
    counts, results = statistics(values, lengths, out=out)
    expected_counts, expected = twin.epoch_statistics(values, lengths, FRACTIONS)
    np.testing.assert_array_equal(counts, expected_counts)
    assert_same_bits(results, rounded(expected) if out == np.float32 else expected)


@pytest.mark.parametrize("missing", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5, 10, 29, 30, 31, 64, 100, 254, 255])
def test_every_number_of_runs_over_several_tiles(runs, missing):
    values = wide_matrix(runs, 2 * order_statistics.LANES + 7, 1, missing)
    lengths = np.full(runs, values.shape[1])
    if missing:
        lengths[runs // 2] = order_statistics.LANES + 3
    counts, results = statistics(values, lengths)
    expected_counts, expected = twin.epoch_statistics(values, lengths, FRACTIONS)
    np.testing.assert_array_equal(counts, expected_counts)
    assert_same_bits(results, rounded(expected))


@settings(max_examples=100)
@given(case=matrices(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_runs_changes_no_bit(case, order):
    values, lengths = case
    rows = list(range(len(values)))
    order.shuffle(rows)
    for one, other in zip(statistics(values, lengths), statistics(values[rows], lengths[rows]), strict=True):
        assert one.tobytes() == other.tobytes()


# --------------------------------------------------------------------------------------------- float64, many runs


@settings(max_examples=200)
@given(case=st.sampled_from([np.float32, np.float64]).flatmap(lambda dtype: matrices(dtype=dtype)))
@example(case=(np.array([[FLOAT64_MAX], [FLOAT64_MAX], [FLOAT64_MAX]]), np.array([1, 1, 1])))
@example(case=(np.array([[FLOAT64_MAX], [-FLOAT64_MAX]]), np.array([1, 1])))
@example(case=(np.array([[5e-324], [0.0], [1e-323]]), np.array([1, 1, 1])))
def test_bits_of_declared_doubles_are_those_of_the_twin(case):
    values, lengths = case
    counts, results = statistics(values, lengths, **WIDE)
    expected_counts, expected = twin.epoch_statistics(values, lengths, FRACTIONS, np.float64)
    np.testing.assert_array_equal(counts, expected_counts)
    assert_same_bits(results, expected)


@settings(max_examples=200)
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(SPECIAL_DOUBLES), min_size=1))
def test_averages_of_doubles_lie_between_their_extremes(values):
    _, (avg, stddev, least, largest, *quantiles) = statistics(np.array(values)[:, None], **WIDE)
    assert (least[0], largest[0]) == (min(values), max(values))
    for one in (avg, *quantiles):
        assert least[0] <= one[0] <= largest[0]
    assert stddev[0] >= 0


@pytest.mark.parametrize("size", [1e300, 1e-300, 1e-320, 1.0])
def test_moments_of_doubles_of_any_size(size):
    """Against 80 bits with a wider exponent, or what there is of them."""
    values = np.random.default_rng(5).normal(size=(300, 40)) * size
    wide = values.astype(np.longdouble)
    _, (avg, stddev, *_) = statistics(values, **WIDE)
    for result, expected in ((avg, wide.mean(axis=0)), (stddev, wide.std(axis=0, ddof=1))):
        slack = 1e-13 * np.abs(wide).max(axis=0) + 5e-324
        assert (np.abs(result - expected) <= slack).all()


@pytest.mark.parametrize("runs", [2, 3, 300, 2500])
def test_quantiles_of_doubles_are_numpys_bit_for_bit(runs):
    values = wide_matrix(runs, 20, 6, dtype=np.float64)
    _, results = statistics(values, **WIDE)
    np.testing.assert_array_equal(results[4:], np.quantile(values, FRACTIONS, axis=0))


def test_doubles_that_differ_in_their_last_bit_are_apart():
    values = np.array([1.0, 1 + 2**-52, 1 + 2**-51])
    _, results = statistics(values[:, None], fractions=np.array([0.5]), **WIDE)
    assert results[2:, 0].tolist() == [1.0, 1 + 2**-51, 1 + 2**-52]


def test_what_float32_cannot_hold_is_finite_as_a_double_only():
    values = np.array([[1.0], [1e300], [np.inf], [np.nan]])
    assert statistics(values)[0].tolist() == [[4], [1]]
    counts, results = statistics(values, **WIDE)
    assert counts.tolist() == [[4], [2]]
    assert results[2:4, 0].tolist() == [1.0, 1e300]


@pytest.mark.parametrize("options", [{"counted": np.uint16}, WIDE])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(
    "runs", [256, 300, order_statistics.LARGEST_NETWORK, order_statistics.LARGEST_NETWORK + 1, 2500]
)
def test_more_runs_than_a_byte_counts(runs, missing, options):
    """On both sides of the number of runs from which on columns are sorted otherwise; the last tile is not full."""
    kind = options.get("kind", np.float32)
    values = wide_matrix(runs, order_statistics.LANES + 7, 7, missing, kind)
    lengths = np.full(runs, values.shape[1])
    if missing:
        lengths[runs // 2] = order_statistics.LANES + 3
    counts, results = statistics(values, lengths, **options)
    expected_counts, expected = twin.epoch_statistics(values, lengths, FRACTIONS, kind)
    np.testing.assert_array_equal(counts, expected_counts)
    assert_same_bits(results, rounded(expected) if kind == np.float32 else expected)
    order = np.random.default_rng(0).permutation(runs)
    for one, other in zip(statistics(values[order], lengths[order], **options), (counts, results), strict=True):
        assert one.tobytes() == other.tobytes()


def test_65535_runs():
    values = np.random.default_rng(8).permutation(65535).astype(np.float64)[:, None]
    counts, results = statistics(values, fractions=np.array([0.25, 0.5]), **WIDE)
    assert counts.tolist() == [[65535], [65535]]
    assert results[[0, 2, 3, 4, 5], 0].tolist() == [32767, 0, 65534, 16383.5, 32767]


@settings(max_examples=100)
@given(case=matrices(max_epochs=9, dtype=np.float64), best=st.sampled_from(["min", "max"]))
def test_best_entries_of_doubles_are_those_of_the_twin(case, best):
    values, lengths = case
    runs, epochs = values.shape
    entries = np.zeros((runs, 2))
    starts = np.arange(runs) * epochs
    order_statistics.best_entries(values.reshape(-1), starts, lengths, epochs, best, entries, kind=np.float64)
    np.testing.assert_array_equal(entries, twin.best_entries(values, lengths, best, np.float64))


# ---------------------------------------------------------------------------------------------------- finite values


@given(case=matrices())
def test_quantiles_of_finite_values_only(case):
    values, lengths = case
    counts, results = statistics(values, lengths, finite_only=True)
    np.testing.assert_array_equal(counts[0], counts[1])
    for epoch in range(values.shape[1]):
        column = values[lengths > epoch, epoch]
        column = column[twin.is_finite(column)].astype(np.float64)
        expected = np.quantile(column, FRACTIONS) if len(column) else np.zeros(len(FRACTIONS))
        with np.errstate(invalid="ignore", over="ignore"):  # what is next to float32's largest number is infinite
            slack = np.spacing(abs(rounded(expected))) + 1e-14 * abs(column).max(initial=0)
        assert (abs(results[4:, epoch] - expected) <= slack).all()


@settings(max_examples=200)
@given(case=matrices(max_epochs=9), best=st.sampled_from(["min", "max"]), epochs=st.integers(0, 9))
def test_best_entries_are_those_of_the_twin(case, best, epochs):
    values, lengths = case
    entries = np.zeros((len(values), 4), np.float32)
    starts = np.arange(len(values)) * values.shape[1]
    order_statistics.best_entries(values.reshape(-1), starts, lengths, epochs, best, entries, 1)
    expected = twin.best_entries(values, np.minimum(lengths, epochs), best)
    np.testing.assert_array_equal(entries[:, 1:3], expected)
    assert (entries[:, [0, 3]] == 0).all()


@pytest.mark.parametrize("best", ["min", "max"])
def test_best_entries_over_several_tiles(best):
    values = wide_matrix(9, 3 * order_statistics.LANES + 5, 2, 0.1)
    values[1] = values[2] = np.nan
    values[2, -1] = 1
    entries = np.empty((9, 2), np.float32)
    lengths = np.full(9, values.shape[1])
    order_statistics.best_entries(
        values.reshape(-1), np.arange(9) * values.shape[1], lengths, values.shape[1], best, entries
    )
    np.testing.assert_array_equal(entries, twin.best_entries(values, lengths, best))


# ------------------------------------------------------------------------------------- against NumPy's own functions


@pytest.mark.parametrize("runs", [1, 2, 7, 30, 255])
@pytest.mark.parametrize("positive", [True, False])
def test_within_one_unit_in_the_last_place(runs, positive):
    """Against float64 functions that skip NaN; sums of both signs may cancel, up to what float64 keeps of the terms."""
    values = wide_matrix(runs, 500, 3, 0.05)
    values = abs(values) if positive else values
    _, results = statistics(values, fractions=np.empty(0))
    wide = values.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where all are NaN, or all but one
        wanted = [np.nanmean(wide, 0), np.nanstd(wide, 0, ddof=1), np.nanmin(wide, 0), np.nanmax(wide, 0)]
        scale = np.zeros(500) if positive else 1e-15 * np.nansum(abs(wide), 0)
    for result, expected, slack in zip(results, wanted, [scale, 0 * scale, 0 * scale, 0 * scale], strict=True):
        there = ~np.isnan(expected)
        assert there.any() or runs == 1
        spacing = np.spacing(abs(rounded(expected[there])))
        assert (abs(result[there] - expected[there]) <= spacing + slack[there]).all()
        assert (result[~there] == 0).all()


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5, 6, 30, 254])
def test_quantiles_within_one_unit_in_the_last_place(runs):
    values = wide_matrix(runs, 500, 4)
    fractions = np.array([0.25, 0.5, 0.75])
    _, results = statistics(values, fractions=fractions)
    expected = np.quantile(values.astype(np.float64), fractions, axis=0)
    assert (abs(results[4:] - expected) <= np.spacing(abs(rounded(expected)))).all()


def test_huge_numbers_do_not_overflow():
    _, results = statistics(np.full((255, 3), FLOAT32_MAX))
    np.testing.assert_array_equal(results[[0, 2, 3]], FLOAT32_MAX)
    assert (results[1] == 0).all()
    _, results = statistics(np.array([[FLOAT32_MAX], [-FLOAT32_MAX]]))
    assert (results[0, 0], results[1, 0]) == (0, np.inf)


# ------------------------------------------------------------------------------------------------------------ layout


def test_lists_may_lie_anywhere_and_results_too():
    """Lists in any order, with gaps; nothing but its own positions is written."""
    flat = np.arange(100, dtype=np.float32)
    counts, results = np.full((2, 9), 77, np.uint8), np.full((7, 9), 77, np.float32)
    starts, lengths = np.array([60, 10, 30]), np.array([3, 2, 4])
    order_statistics.epoch_statistics(flat, starts, lengths, 4, np.array([0.25, 0.5, 0.75]), counts, results, 3)
    assert counts[:, 3:7].tolist() == [[3, 3, 2, 1]] * 2
    assert results[2, 3:7].tolist() == [10, 11, 32, 33]
    assert results[5, 3:7].tolist() == [30, 31, 47, 33]
    untouched = [0, 1, 2, 7, 8]
    assert (counts[:, untouched] == 77).all()
    assert (results[:, untouched] == 77).all()


def test_threads_may_share_inputs():
    values = [wide_matrix(30, 1000, seed, 0.1) for seed in range(8)]
    alone = [statistics(one) for one in values]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(statistics, values * 4))
    for number, (counts, results) in enumerate(together):
        assert counts.tobytes() == alone[number % 8][0].tobytes()
        assert results.tobytes() == alone[number % 8][1].tobytes()


# ------------------------------------------------------------------------------------------------- the compiler off


def tiny_cases():
    """Results that reach every line of the kernels, as one flat dictionary."""
    found = {}
    for number, (runs, missing) in enumerate([(1, 0.0), (4, 0.0), (7, 0.2)]):
        for dtype in (np.float32, np.float64):
            values = wide_matrix(runs, order_statistics.LANES + 5, number, missing, dtype)
            values[:, :9] = abs(values[:, :9])
            lengths = np.full(runs, values.shape[1])
            lengths[-1] -= int(10 * missing)
            starts = np.arange(runs) * values.shape[1]
            entries = np.empty((runs, 4), dtype)
            for at, best in enumerate(("min", "max")):
                order_statistics.best_entries(
                    values.reshape(-1), starts, lengths, values.shape[1], best, entries, 2 * at
                )
            key = f"{number} {np.dtype(dtype).name}"
            found[f"{key} counts"], found[f"{key} results"] = statistics(values, lengths)
            found[f"{key} finite"] = statistics(values, lengths, finite_only=True)[1]
            found[f"{key} wide"] = statistics(values, lengths, **WIDE)[1]
            found[f"{key} best"] = entries
    return found


@pytest.mark.long
def test_the_kernels_are_plain_python_too(tmp_path):
    file, script = tmp_path / "plain.npz", tmp_path / "plain.py"
    script.write_text(f"import numpy, tests.test_order_statistics as t; numpy.savez({str(file)!r}, **t.tiny_cases())")
    # The only process that runs the kernels' lines: count them where lines are counted.
    counted = ["-m", "coverage", "run", "--parallel-mode"] if coverage.Coverage.current() else []
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *counted, script], check=True, env=environment, cwd=ROOT)
    compiled, plain = tiny_cases(), np.load(file)
    assert set(compiled) == set(plain)
    for name, values in compiled.items():
        np.testing.assert_array_equal(values, plain[name], err_msg=name)
