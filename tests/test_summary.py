"""Statistics of an experiment, held to a plain computation in Python: lists, `statistics`, `numpy.quantile`."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from butter_etl.engines import order_statistics
from butter_etl.engines import summary as agg
from butter_etl.errors import SpecError
from butter_etl.studies.arrow_types import rows_differ
from butter_etl.studies.butter.columns import REDUCTION
from butter_etl.studies.butter.study import BUTTER

FLOAT32_MAX = float(np.finfo(np.float32).max)
NAN, INF = math.nan, math.inf
#: The statistics of BUTTER for a study with float64 histories and many runs.
WIDE = replace(REDUCTION, counts=pa.uint16(), floats=pa.float64())


def histories(element=None, max_runs=9):
    """Lists of runs: null and empty lists, null and non-finite elements, every length up to six epochs."""
    element = st.floats(width=32) if element is None else element
    run = st.lists(st.none() | element, max_size=6)
    return st.lists(st.none() | run, min_size=1, max_size=max_runs)


def table(type_=None, **columns):
    type_ = pa.float32() if type_ is None else type_
    return pa.table({name: pa.array(rows, pa.list_(type_)) for name, rows in columns.items()})


def summary_of(histories_table, reduction=REDUCTION):
    summary = agg.summarize_experiment(reduction, histories_table).to_pydict()
    return {name: values[0] for name, values in summary.items()}


# ---------------------------------------------------------------------------------------- the plain computation


def is_number(entry):
    return entry is not None and math.isfinite(entry) and abs(entry) <= FLOAT32_MAX


def plain_quantile(entries, fraction):
    """numpy.quantile with a number far beyond float32 in the place of everything that is not finite."""
    if not entries:
        return None
    value = float(np.quantile([float(x) if is_number(x) else 1e300 for x in entries], fraction))
    return NAN if value > 1e290 else value


def plain_statistics(entries):
    """Statistics of the entries that reach an epoch; None for null."""
    numbers = [float(x) for x in entries if is_number(x)]
    return {
        "num_finite": len(numbers),
        "avg": statistics.fmean(numbers) if numbers else None,
        "stddev": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "min": min(numbers, default=None),
        "max": max(numbers, default=None),
        "q1": plain_quantile(entries, 0.25),
        "median": plain_quantile(entries, 0.5),
        "q3": plain_quantile(entries, 0.75),
    }


def plain_lists(runs, epochs):
    """For every statistic its list over the epochs, and the scale of the numbers behind each epoch."""
    reached = [[run[epoch] for run in runs if run is not None and len(run) > epoch] for epoch in range(epochs)]
    rows = [plain_statistics(entries) for entries in reached]
    scales = [max((abs(x) for x in entries if is_number(x)), default=0.0) for entries in reached]
    return {name: [row[name] for row in rows] for name in plain_statistics([])}, scales


def plain_bests(runs, best):
    """(epoch, value) of every run that has a finite entry, by going through its entries in order."""
    found = []
    for run in runs:
        record = None
        for epoch, entry in enumerate(run or [], start=1):
            if not is_number(entry):
                continue
            if record is None or (entry < record[1] if best == "min" else entry > record[1]):
                record = (epoch, float(entry))
        if record is not None:
            found.append(record)
    return found


def assert_close(actual, expected, scale, where):
    """Equal nulls and NaN; numbers to one unit in the last place of float32, plus float64's rounding of the terms."""
    if expected is None or actual is None:
        assert actual is None, where
        assert expected is None, where
    elif math.isnan(expected):
        assert math.isnan(actual), where
    else:
        with np.errstate(over="ignore"):
            rounded = np.float32(expected)
        if actual != rounded:
            assert abs(actual - expected) <= np.spacing(abs(rounded)) + 1e-14 * scale, (where, actual, expected)


def assert_lists(summary, prefix, runs, epochs):
    expected, scales = plain_lists(runs, epochs)
    for name, values in expected.items():
        column = f"{prefix}_{name}"
        if column not in summary:
            continue
        assert len(summary[column]) == epochs, column
        for epoch, (actual, wanted) in enumerate(zip(summary[column], values, strict=True)):
            assert_close(actual, wanted, scales[epoch], (column, epoch))


def longest(runs):
    return max((len(run) for run in runs if run is not None), default=0)


# ----------------------------------------------------------------------------------------------- what is declared


def test_columns_are_those_of_the_summary_schema():
    expected = pa.schema([field for field in BUTTER.summary if field.name not in BUTTER.runs.names])
    actual = agg.summarize_experiment(REDUCTION, table(val_loss=[[1.0]])).schema
    assert actual.names == expected.names
    assert actual.equals(expected)
    assert {one.name: one.history for one in REDUCTION.series} == BUTTER.reduction.histories


def test_every_statistic_is_a_result_of_the_kernel():
    assert agg._MOMENTS == order_statistics.MOMENTS
    assert REDUCTION.fractions == (0.25, 0.5, 0.75)
    for _, statistic in REDUCTION.lists.values():
        assert statistic.rule in {*agg._COUNTS, *agg._MOMENTS, *REDUCTION.fractions}


# ------------------------------------------------------------------------------------------------------ by hand


def test_golden_example():
    summary = summary_of(
        table(
            val_loss=[[1.0, 4.0, 2.0], [2.0, NAN], [3.0, 8.0, -INF], None, [4.0]],
            val_accuracy=[[0.5, 0.75, 0.75], [0.25], [NAN, INF, 0.5], [], [None]],
        )
    )
    assert summary["num_runs"] == 5
    assert summary["num"] == [4, 3, 2]
    assert summary["test_loss_num_finite"] == [4, 2, 1]
    assert summary["test_loss_avg"] == [2.5, 6.0, 2.0]
    assert summary["test_loss_stddev"] == [pytest.approx(1.2909944, rel=1e-7), pytest.approx(2.8284271, rel=1e-7), None]
    assert summary["test_loss_min"] == [1.0, 4.0, 2.0]
    assert summary["test_loss_max"] == [4.0, 8.0, 2.0]
    # Of 4, 8 and a NaN: half way between 4 and 8; 8 itself, its successor untouched; half way between 8 and the NaN.
    assert summary["test_loss_q1"] == [1.75, 6.0, pytest.approx(NAN, nan_ok=True)]
    assert summary["test_loss_median"] == [2.5, 8.0, pytest.approx(NAN, nan_ok=True)]
    assert summary["test_loss_q3"] == [3.25, *[pytest.approx(NAN, nan_ok=True)] * 2]
    # Best accuracies: 0.75 first reached in epoch 2, 0.25 in epoch 1, 0.5 in epoch 3; two runs have none.
    block = {name: summary[f"test_accuracy_max_{name}"] for name in ("epoch_min", "epoch_max", "epoch_avg")}
    assert block == {"epoch_min": 1, "epoch_max": 3, "epoch_avg": 2.0}
    assert [summary[f"test_accuracy_max_epoch_{name}"] for name in ("q1", "median", "q3")] == [1.5, 2.0, 2.5]
    values = [summary[f"test_accuracy_max_value_{name}"] for name in ("min", "q1", "median", "q3", "max", "avg")]
    assert values == [0.25, 0.375, 0.5, 0.625, 0.75, 0.5]


@pytest.mark.parametrize(
    ("column", "history", "run", "epoch", "value"),
    [
        ("test_loss_min", "val_loss", [3.0, 1.0, 2.0, 1.0], 2, 1.0),
        ("test_accuracy_max", "val_accuracy", [0.5, 0.5, 0.25, 0.5], 1, 0.5),
        ("test_accuracy_max", "val_accuracy", [-INF, None, -2.0, INF], 3, -2.0),
        ("test_mean_squared_error_min", "val_mean_squared_error", [-INF, NAN, None, 9.0], 4, 9.0),
        ("test_kullback_leibler_divergence_min", "val_kullback_leibler_divergence", [0.0], 1, 0.0),
    ],
)
def test_extremum_is_the_earliest_best_counted_from_one(column, history, run, epoch, value):
    summary = summary_of(table(**{"val_loss": [[1.0] * 4], history: [run]}))
    for name in ("min", "q1", "median", "q3", "max", "avg"):
        assert summary[f"{column}_epoch_{name}"] == epoch
        assert summary[f"{column}_value_{name}"] == value


def test_epochs_beyond_float32_stay_whole():
    """2^24 + 1 is no float32 number; the block's epoch_min and epoch_max are integers."""
    losses = np.ones(2**24 + 2, np.float32)
    losses[-2] = 0.5
    block = agg.SummaryBlock(REDUCTION)
    block._add_extrema(1, {"val_loss": agg.matrix_lists(losses[None])}, len(losses))  # lists of so many take long
    columns = block._extremum_columns()
    assert columns["test_loss_min_epoch_min"].type == pa.uint32()
    assert columns["test_loss_min_epoch_min"].to_pylist() == [2**24 + 1]
    assert columns["test_loss_min_value_avg"].to_pylist() == [0.5]


# --------------------------------------------------------------------------------------------------- properties


@settings(max_examples=300, deadline=None)
@given(val_loss=histories(), rows=st.data())
@example(val_loss=[None, None], rows=None)
@example(val_loss=[[], None], rows=None)
@example(val_loss=[[None, None], [NAN, INF]], rows=None)
@example(val_loss=[[FLOAT32_MAX], [-FLOAT32_MAX], [1e-45]], rows=None)
def test_lists_equal_the_plain_computation(val_loss, rows):
    runs = len(val_loss)
    other = st.lists(st.none() | st.lists(st.none() | st.floats(width=32), max_size=7), min_size=runs, max_size=runs)
    loss = val_loss if rows is None else rows.draw(other)
    accuracy = val_loss if rows is None else rows.draw(other)
    summary = summary_of(table(val_loss=val_loss, loss=loss, accuracy=accuracy))
    epochs = longest(val_loss)
    assert summary["num_runs"] == runs
    assert summary["num"] == [sum(len(run or []) > epoch for run in val_loss) for epoch in range(epochs)]
    assert_lists(summary, "test_loss", val_loss, epochs)
    assert_lists(summary, "train_loss", loss, epochs)
    assert_lists(summary, "train_accuracy", accuracy, epochs)


@settings(max_examples=200, deadline=None)
@given(val_loss=histories(st.sampled_from([0.0, 1.0, 1.5, -2.0, 1e-45, 3e38, NAN, INF, -INF]), max_runs=40))
def test_many_runs_with_ties(val_loss):
    summary = summary_of(table(val_loss=val_loss))
    assert_lists(summary, "test_loss", val_loss, longest(val_loss))


@settings(max_examples=150, deadline=None)
@given(val_loss=histories(st.floats(width=64)))
@example(val_loss=[[1e39, 1.0], [2.0, 1e-300]])
def test_lists_of_doubles(val_loss):
    """What float32 cannot hold is not finite; everything else is not rounded before it is summed."""
    summary = summary_of(table(pa.float64(), val_loss=val_loss))
    assert_lists(summary, "test_loss", val_loss, longest(val_loss))


@settings(max_examples=200, deadline=None)
@given(runs=histories(st.sampled_from([0.0, 0.25, 0.5, -1.0, NAN, INF, -INF]) | st.floats(width=32)))
def test_extrema_equal_the_plain_computation(runs):
    summary = summary_of(table(val_loss=runs, val_accuracy=runs))
    for column, best in (("test_loss_min", "min"), ("test_accuracy_max", "max")):
        found = plain_bests(runs, best)
        for of, entries in (("epoch", [one[0] for one in found]), ("value", [one[1] for one in found])):
            expected = plain_statistics(entries)
            scale = max((abs(x) for x in entries), default=0.0)
            for name in ("min", "q1", "median", "q3", "max", "avg"):
                assert_close(summary[f"{column}_{of}_{name}"], expected[name], scale, (column, of, name))


@settings(max_examples=100, deadline=None)
@given(runs=histories(), rows=st.randoms(use_true_random=False))
def test_the_order_of_the_runs_does_not_matter(runs, rows):
    shuffled = list(runs)
    rows.shuffle(shuffled)
    one, other = summary_of(table(val_loss=runs)), summary_of(table(val_loss=shuffled))
    for name, value in one.items():
        if value is not None:
            mine, theirs = (np.array(x, dtype=float) for x in (value, other[name]))  # None becomes NaN
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


@settings(max_examples=100, deadline=None)
@given(
    number=st.floats(width=32, allow_nan=False, allow_infinity=False),
    runs=st.integers(2, 60),
    epochs=st.integers(1, 4),
)
def test_constant_histories_have_no_deviation(number, runs, epochs):
    summary = summary_of(table(val_loss=[[number] * epochs] * runs))
    for name in ("avg", "min", "max", "q1", "median", "q3"):
        assert summary[f"test_loss_{name}"] == [number] * epochs
    assert summary["test_loss_stddev"] == [0.0] * epochs


# ------------------------------------------------------------------------------------------------- Arrow layouts


def as_lists(lists):
    return [lists.values[start : start + length] for start, length in zip(lists.starts, lists.lengths, strict=True)]


def assert_runs(lists, runs):
    assert lists.starts.dtype == lists.lengths.dtype == np.int64
    for run, values in zip(runs, as_lists(lists), strict=True):
        np.testing.assert_array_equal(values, np.array([NAN if x is None else x for x in run or []], np.float32))


@settings(max_examples=100, deadline=None)
@given(rows=histories(), cut=st.integers(0, 9), length=st.integers(0, 9))
def test_lists_of_slices_and_chunks(rows, cut, length):
    whole = pa.array(rows, pa.list_(pa.float32()))
    for column, runs in (
        (whole.slice(cut, length), rows[cut : cut + length]),
        (pa.chunked_array([whole.slice(cut, length)]), rows[cut : cut + length]),
        (pa.chunked_array([whole.slice(cut), whole.slice(0, cut)]), rows[cut:] + rows[:cut]),
        (pa.chunked_array([], pa.list_(pa.float32())), []),
    ):
        lists = agg.run_lists(column)
        assert lists.values.dtype == np.float32
        assert_runs(lists, runs)


@pytest.mark.parametrize(
    ("type_", "dtype"),
    [
        (pa.list_(pa.field("element", pa.float32())), np.float32),
        (pa.large_list(pa.float32()), np.float32),
        (pa.list_(pa.float64()), np.float64),
        (pa.list_(pa.int32()), np.float64),
    ],
)
def test_lists_of_other_types(type_, dtype):
    rows = [[1, 2], [3, None], None, [4]]
    lists = agg.run_lists(pa.array(rows, type_))
    assert lists.values.dtype == dtype
    assert_runs(lists, rows)


def test_lists_of_fixed_size():
    assert_runs(agg.run_lists(pa.array([[1, 2], [3, None]], pa.list_(pa.float64(), 2))), [[1, 2], [3, None]])


def test_elements_hidden_under_a_null_list_are_not_read():
    """A null list may have a non-empty range of elements."""
    offsets, elements = pa.array([0, 2, 4], pa.int32()), pa.array([1, 2, 3, 4], pa.float32())
    column = pa.ListArray.from_arrays(offsets, elements, mask=pa.array([True, False]))
    assert_runs(agg.run_lists(column), [None, [3, 4]])


def test_lists_in_one_piece_are_not_copied():
    column = pa.array([[1, 2, 3], None, [], [4]], pa.list_(pa.float32()))
    lists = agg.run_lists(pa.chunked_array([column]))
    assert lists.values.ctypes.data == column.values.buffers()[1].address


def test_rows_of_a_matrix_as_lists():
    assert_runs(agg.matrix_lists(np.array([[1, 2], [3, 4]], np.float32)), [[1, 2], [3, 4]])


def test_no_lists_but_a_column_of_nulls():
    summary = summary_of(pa.table({"val_loss": pa.nulls(3), "loss": pa.nulls(3)}))
    assert (summary["num_runs"], summary["num"], summary["test_loss_avg"]) == (3, [], [])
    assert summary["test_loss_min_epoch_min"] is None


# ---------------------------------------------------------------------------------------------------- the edges


def test_missing_histories_are_null():
    summary = summary_of(table(val_loss=[[1.0, 2.0]]))
    assert summary["num"] == [1, 1]
    assert summary["train_loss_num_finite"] is None
    assert summary["train_loss_avg"] is None
    assert summary["test_accuracy_q1"] is None
    assert summary["test_accuracy_max_epoch_min"] is None
    without = summary_of(table(loss=[[1.0, 2.0]]))
    assert without.pop("num_runs") == 1
    assert set(without.values()) == {None}


def test_histories_are_cut_and_filled_to_the_epochs_of_val_loss():
    summary = summary_of(table(val_loss=[[1.0, 2.0]], loss=[[5.0]], val_accuracy=[[0.25, 0.5, 0.75]]))
    assert summary["train_loss_num_finite"] == [1, 0]
    assert summary["train_loss_median"] == [5.0, None]
    assert summary["test_accuracy_avg"] == [0.25, 0.5]
    assert summary["test_accuracy_max_epoch_max"] == 2


def test_a_deviation_beyond_float32_is_infinite():
    summary = summary_of(table(val_loss=[[FLOAT32_MAX], [-FLOAT32_MAX]]))
    assert summary["test_loss_stddev"] == [INF]
    assert summary["test_loss_avg"] == [0.0]


def test_255_runs_are_counted():
    summary = summary_of(table(val_loss=[[float(run)] for run in range(255)]))
    assert summary["num_runs"] == 255
    assert summary["num"] == summary["test_loss_num_finite"] == [255]
    assert summary["test_loss_median"] == [127.0]


@pytest.mark.parametrize("runs", [0, 256])
def test_other_numbers_of_runs_are_refused(runs):
    with pytest.raises(SpecError, match=rf"^{runs} runs .* 1 to 255 "):
        agg.summarize_experiment(REDUCTION, table(val_loss=[[1.0]] * runs))


# --------------------------------------------------------------------------------------------- float64, many runs


def wide_statistics(entries):
    """Statistics of the entries that reach an epoch, by exact sums and by NumPy's quantiles; None for null."""
    numbers = [x for x in entries if x is not None and math.isfinite(x)]
    ranked = [x if x is not None and math.isfinite(x) else INF for x in entries]
    return {
        "num_finite": len(numbers),
        "avg": statistics.mean(numbers),
        "stddev": statistics.stdev(numbers),
        "min": min(numbers),
        "max": max(numbers),
        **{name: np.quantile(ranked, fraction) for name, fraction in (("q1", 0.25), ("median", 0.5), ("q3", 0.75))},
    }


def big_histories(runs, seed=0):
    """Histories (runs, 20) of many magnitudes, and a few null, infinite and huge entries, NaN and short lists."""
    rng = np.random.default_rng([seed, runs])
    values = rng.normal(size=(runs, 20)) * 10.0 ** rng.integers(-250, 250, 20)
    rows = [list(row) for row in values]
    for row, entry in zip(
        rng.choice(runs, 8, replace=False), [None, NAN, INF, -INF, 1e300, -1e300, 1e39, 0.0], strict=True
    ):
        rows[row][rng.integers(20)] = entry
    rows[1], rows[2], rows[3] = None, [], rows[3][:7]
    return rows


@pytest.mark.parametrize("runs", [30, 300, 2500])
def test_wide_summaries_of_many_runs(runs):
    rows = big_histories(runs)
    summary = summary_of(table(pa.float64(), val_loss=rows, val_accuracy=rows), WIDE)
    assert summary["num_runs"] == runs
    for epoch in range(20):
        reached = [row[epoch] for row in rows if row is not None and len(row) > epoch]
        expected = wide_statistics(reached)
        assert summary["num"][epoch] == len(reached)
        for name in ("num_finite", "min", "max", "q1", "median", "q3"):
            if f"test_loss_{name}" in summary:
                assert summary[f"test_loss_{name}"][epoch] == expected[name], (name, epoch)
        scale = max(abs(expected["min"]), abs(expected["max"]))
        for name in ("avg", "stddev"):
            assert abs(summary[f"test_accuracy_{name}"][epoch] - expected[name]) <= 1e-14 * scale, (name, epoch)


@pytest.mark.parametrize("runs", [5, 300, 2500])
def test_the_order_of_many_runs_changes_no_bit(runs):
    rows = big_histories(max(runs, 8))[:runs]
    rng = np.random.default_rng(1)
    one, other = (
        agg.summarize_experiment(WIDE, table(pa.float64(), val_loss=some, val_accuracy=some))
        for some in (rows, [rows[place] for place in rng.permutation(runs)])
    )
    for name in one.column_names:
        assert not rows_differ(one[name].combine_chunks(), other[name].combine_chunks()).any(), name


def test_65535_runs_are_counted():
    losses = np.arange(65535, dtype=np.float64)[:, None] + [1e300, 1.0]
    block = agg.SummaryBlock(WIDE)
    block.add_lists(65535, {"val_loss": agg.matrix_lists(losses)})
    (summary,) = block.table().to_pylist()
    assert summary["num_runs"] == 65535
    assert summary["num"] == summary["test_loss_num_finite"] == [65535] * 2
    assert summary["test_loss_avg"] == [1e300, 32768.0]
    assert summary["test_loss_median"] == [1e300, 32768.0]
    assert summary["test_loss_min_epoch_min"] == summary["test_loss_min_epoch_max"] == 2
    assert (summary["test_loss_min_epoch_avg"], summary["test_loss_min_value_max"]) == (2.0, 65535.0)


@pytest.mark.parametrize("runs", [0, 65536])
def test_more_runs_than_two_bytes_count_are_refused(runs):
    with pytest.raises(SpecError, match=rf"^{runs} runs .* 1 to 65535 \(uint16\)$"):
        agg.SummaryBlock(WIDE).add_lists(runs, {})


@settings(max_examples=100)
@given(rows=histories(st.floats() | st.sampled_from([1e300, -1e300, 1e39, 1 + 2**-52, 1.0]), max_runs=6))
def test_wide_summaries_are_of_all_that_float64_holds(rows):
    summary = summary_of(table(pa.float64(), val_loss=rows, val_accuracy=rows), WIDE)
    for epoch in range(longest(rows)):
        entries = [row[epoch] for row in rows if row is not None and len(row) > epoch]
        numbers = [x for x in entries if x is not None and math.isfinite(x)]
        assert summary["test_loss_num_finite"][epoch] == len(numbers)
        assert summary["test_loss_min"][epoch] == min(numbers, default=None)
        assert summary["test_loss_max"][epoch] == max(numbers, default=None)
    for column, best in (("test_loss_min", min), ("test_accuracy_max", max)):
        finite = [[x for x in row or [] if x is not None and math.isfinite(x)] for row in rows]
        bests = [best(one) for one in finite if one]
        places = [row.index(best(one)) + 1 for row, one in zip(rows, finite, strict=True) if one]
        for name, extreme in (("min", min), ("max", max)):
            assert summary[f"{column}_value_{name}"] == extreme(bests, default=None)
            assert summary[f"{column}_epoch_{name}"] == extreme(places, default=None)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_wide_statistics_are_not_rounded_to_float32(kind):
    """Whatever the histories are: the mean of 1 and 2^-24 less has 25 bits."""
    summary = summary_of(table(kind, val_loss=[[1.0], [1 - 2**-24]]), WIDE)
    assert summary["test_loss_avg"] == [1 - 2**-25]
    assert summary["test_loss_min_value_median"] == 1 - 2**-25


def test_wide_epochs_are_whole():
    """2^24 + 1 and 2^24 + 3 are no float32 numbers; nor is what lies between, were it rounded."""
    losses = np.ones((2, 2**24 + 4), np.float32)
    losses[0, 2**24] = losses[1, 2**24 + 2] = 0.5
    block = agg.SummaryBlock(WIDE)
    block._add_extrema(2, {"val_loss": agg.matrix_lists(losses)}, losses.shape[1])  # lists of so many take long
    columns = block._extremum_columns()
    found = {name: columns[f"test_loss_min_epoch_{name}"].to_pylist() for name in ("min", "q1", "avg", "max")}
    assert found == {"min": [2**24 + 1], "q1": [2**24 + 1.5], "avg": [2**24 + 2], "max": [2**24 + 3]}


# ----------------------------------------------------------------------------------------------------- in blocks


def series_names():
    return st.sets(st.sampled_from(["val_loss", "loss", "val_accuracy", "accuracy", "val_kullback_leibler_divergence"]))


@st.composite
def experiments(draw):
    """Runs of one experiment: some histories, each list as Hypothesis likes."""
    runs = draw(st.integers(1, 5))
    run = st.none() | st.lists(st.none() | st.floats(width=32), max_size=4)
    names = draw(series_names() | st.just({"val_loss", "val_accuracy"}))
    columns = {name: draw(st.lists(run, min_size=runs, max_size=runs)) for name in sorted(names)}
    return table(**columns) if columns else pa.table({"other": [0] * runs})


@settings(max_examples=150)
@given(tables=st.lists(experiments(), max_size=6), room=st.integers(0, 9))
def test_a_block_is_its_experiments_one_below_the_other(tables, room):
    block = agg.SummaryBlock(REDUCTION, room)
    for one in tables:
        block.add(one)
    together = block.table()
    together.validate(full=True)
    alone = [agg.summarize_experiment(REDUCTION, one) for one in tables]
    assert len(block) == together.num_rows == len(tables)
    assert block.epochs == sum(len(one["num"][0].as_py() or []) for one in alone)
    assert together.schema == agg.SummaryBlock(REDUCTION).table().schema
    for number, one in enumerate(alone):
        assert one.schema == together.schema
        assert repr(one.to_pylist()) == repr(together.slice(number, 1).to_pylist())  # NaN is NaN


def test_an_empty_block_has_the_columns():
    empty = agg.SummaryBlock(REDUCTION).table()
    assert empty.num_rows == 0
    assert empty.schema == agg.summarize_experiment(REDUCTION, table(val_loss=[[1.0]])).schema


def test_a_table_stays_as_it_is_when_the_block_goes_on():
    block = agg.SummaryBlock(REDUCTION, 4)
    block.add(table(val_loss=[[1.0, 2.0]]))
    before = block.table()
    copy = before.to_pylist()
    block.add(table(val_loss=[[3.0, 4.0]]))
    block.add(table(val_loss=[[5.0] * 9]))
    assert before.to_pylist() == copy
    assert block.table()["test_loss_avg"].to_pylist() == [[1.0, 2.0], [3.0, 4.0], [5.0] * 9]
