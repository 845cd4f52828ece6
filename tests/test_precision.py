"""The precision of one experiment: against plain NumPy from the definitions, ragged and non-finite values included."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.engines.intervals import LOOKS, look_ranks, median_rank
from butter_etl.engines.precision import Precision, precise_experiment
from butter_etl.engines.statistics import MEDIAN, Extremum, Reduction, Series
from butter_etl.studies.butter.study import BUTTER

NAN, INF = float("nan"), float("inf")
REDUCTION = Reduction(
    counted="val_loss",
    series=(Series("loss", "val_loss", "loss", "loss", (MEDIAN,), ()), Series("acc", "val_acc", "acc", "acc", (), ())),
    extrema=(Extremum("loss_min", "val_loss", "min", "loss"), Extremum("acc_max", "val_acc", "max", "acc")),
)
OURS = Precision(REDUCTION, ("loss",))
BOTH = Precision(REDUCTION, ("loss", "acc"))


def table(lists, repetitions=None, name="val_loss", kind=None):
    numbers = range(len(lists)) if repetitions is None else repetitions
    kind = pa.list_(kind or pa.float32())
    return pa.table({"repetition": pa.array(numbers, pa.uint16()), name: pa.array(lists, kind)})


def row(lists, level=0.95, precision=OURS, **kwargs):
    (found,) = precise_experiment(precision, level, table(lists, **kwargs)).to_pylist()
    return found


def expected_interval(entries, level, points=1):
    """The interval for a median from the definition: not finite above all that is, NaN where a bound falls there."""
    ordered = np.sort([entry if np.isfinite(entry) else INF for entry in entries])
    rank = median_rank(len(ordered), level, points)
    if not rank:
        return None, None
    low = [ordered[int(np.floor(rank)) - 1], ordered[int(np.ceil(rank)) - 1]]
    high = [ordered[len(ordered) - int(np.floor(rank))], ordered[len(ordered) - int(np.ceil(rank))]]
    return tuple(np.mean(one) if np.isfinite(one).all() else NAN for one in (low, high))


def is_close(found, expected):
    if expected is None or found is None:
        return found is expected
    return bool(np.isclose(found, expected, rtol=1e-6, equal_nan=True))


ENTRY = st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from([NAN, INF, -INF, 0.5]))
RUNS = st.lists(st.lists(ENTRY, max_size=4), min_size=1, max_size=24)


@settings(max_examples=60, deadline=None)
@given(RUNS, st.sampled_from([0.8, 0.95]))
def test_medians_of_ragged_runs_are_as_defined(runs, level):
    found = row(runs, level)
    points = max(map(len, runs))
    assert len(found["loss_median_low"] or []) == points
    for point in range(points):
        entries = [one[point] for one in runs if len(one) > point]
        assert found["num"][point] == len(entries)
        for name, among in (("median", 1), ("band", points)):
            low, high = expected_interval(entries, level, among)
            assert is_close(found[f"loss_{name}_low"][point], low)
            assert is_close(found[f"loss_{name}_high"][point], high)
    ends = [one[-1] for one in runs if len(one) == points and points]
    if ends:
        low, high = expected_interval(ends, level)
        assert is_close(found["loss_end_median_low"], low)
        assert is_close(found["loss_end_median_high"], high)
    bests = [min(some) for one in runs if (some := [entry for entry in one if np.isfinite(entry)])]
    low, high = expected_interval(bests, level)
    assert is_close(found["loss_min_value_median_low"], low)
    assert is_close(found["loss_min_value_median_high"], high)


@settings(max_examples=30, deadline=None)
@given(RUNS, st.randoms(use_true_random=False))
def test_no_bit_depends_on_the_order_of_the_runs(runs, random):
    numbers = list(range(len(runs)))
    expected = precise_experiment(OURS, 0.95, table(runs))
    random.shuffle(numbers)
    shuffled = table([runs[number] for number in numbers], numbers)
    assert str(precise_experiment(OURS, 0.95, shuffled).to_pylist()) == str(expected.to_pylist())


def test_below_the_least_number_of_runs_there_is_null():
    for runs, level, is_there in ((5, 0.95, False), (6, 0.95, True), (7, 0.99, False), (8, 0.99, True)):
        found = row([[float(number)] for number in range(runs)], level)
        assert (found["loss_median_low"][0] is not None) is is_there
        assert (found["loss_end_median_high"] is not None) is is_there
    one = row([[1.0]])
    assert one["loss_median"] == one["loss_avg"] == [1.0]
    assert one["loss_avg_t_low"] == one["loss_avg_bootstrap_high"] == [None]


def test_bands_take_more_runs_and_are_wider():
    lists = np.random.default_rng(1).random((12, 100)).astype(np.float32).tolist()
    found = row(lists)
    assert all(low <= other for low, other in zip(found["loss_band_low"], found["loss_median_low"], strict=True))
    assert found["loss_band_low"][0] == min(one[0] for one in lists)
    assert row(lists[:11])["loss_band_low"] == [None] * 100


def test_a_bound_among_values_that_are_not_finite_is_nan():
    found = row([[1.0], [2.0], [3.0], [4.0], [5.0], [NAN]])
    assert found["loss_median_low"] == [1.0]
    assert np.isnan(found["loss_median_high"][0])
    assert found["loss_avg"] == [3.0]
    assert found["loss_min_value_median_low"] is None  # of five runs that have a best value


def test_looks_are_at_the_first_runs_by_repetition():
    values = np.random.default_rng(2).random(31).astype(np.float32)
    found = row([[float(one)] for one in values])
    first, rank = np.sort(values[: LOOKS[3]]), look_ranks(0.95)[3]
    assert (found["loss_end_looks_low"], found["loss_end_looks_high"]) == (first[rank - 1], first[LOOKS[3] - rank])
    assert row([[1.0]] * 9)["loss_end_looks_low"] is None
    assert row([[1.0]] * 10)["loss_end_looks_low"] == 1.0
    assert row([[1.0]] * 13, 0.99)["loss_min_value_looks_high"] is None


def test_bounds_are_rounded_outwards():
    third = 1 / 3
    wide = row([[third]] * 9, kind=pa.float64())
    assert wide["loss_median_low"][0] < third < wide["loss_median_high"][0]
    assert wide["loss_median_high"][0] - wide["loss_median_low"][0] < 1e-7


def test_best_values_are_largest_where_that_is_better():
    lists = [[0.1, 0.9 - 0.01 * number, 0.2] for number in range(6)]
    both = table(lists).append_column("val_acc", pa.array(lists, pa.list_(pa.float32())))
    (found,) = precise_experiment(BOTH, 0.95, both).to_pylist()
    assert found["acc_max_value_median_low"] == pytest.approx(0.85)
    assert found["acc_max_value_median_high"] == pytest.approx(0.9)
    assert found["loss_min_value_median_low"] == pytest.approx(0.1)


def test_what_is_missing_is_null():
    found = precise_experiment(BOTH, 0.95, table([[1.0]] * 6))
    assert found["acc_median_low"].null_count == found["acc_end_avg"].null_count == 1
    assert found["loss_median_low"].null_count == 0
    (nothing,) = precise_experiment(BOTH, 0.95, table([[1.0]] * 6, name="other")).to_pylist()
    assert nothing.pop("num_runs") == 6
    assert set(nothing.values()) == {None}
    (empty,) = precise_experiment(OURS, 0.95, table([[], None])).to_pylist()
    assert (empty["num"], empty["loss_median_low"], empty["loss_end_median"]) == ([], [], None)


def test_columns_are_declared_and_made_alike():
    made = precise_experiment(BUTTER.intervals, 0.95, table([[1.0]] * 6))
    assert made.column_names == ["num_runs", "num", *BUTTER.intervals.columns]
    assert all(made.schema.field(name).type == one.type for name, one in BUTTER.intervals.columns.items())
    assert list(BUTTER.intervals.targets) == ["test_loss", "test_loss_end", "test_loss_min_value"]
    assert BUTTER.precision.names[-len(BUTTER.intervals.columns) :] == list(BUTTER.intervals.columns)


def test_versions_tell_methods_levels_and_columns_apart():
    versions = [one.version(level) for one, level in itertools.product((OURS, BOTH), (0.95, 0.99))]
    assert len(set(versions)) == 4
