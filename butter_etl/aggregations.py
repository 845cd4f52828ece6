"""One experiment's summary: statistics over its runs at each epoch, and over the best epoch of each run.

What is computed is declared (`SUMMARY_LISTS`, `EXTREMUM_COLUMNS`: a column, the history it reads, a `Statistic`); how
is the business of one kernel, `epoch_statistics`, which sorts once and fills an `EpochStatistics`. Another kernel that
fills the same value can take its place without touching a declaration.

No statistic here can be merged from parts: quartiles need all runs of an experiment together, so an experiment is
always summarised whole.

Missing and non-finite values
    An entry is finite if float32 can hold it (NaN, infinities, null elements and, in float64 columns, anything larger
    than float32's largest number are not). A run *reaches* an epoch if its list has an entry for it, finite or not.
    Averages, deviations, minima and maxima are over finite entries. Quantiles are over the entries that reach the
    epoch, all non-finite ones ranked above all finite ones: NaN as soon as the interpolation gives weight to a
    non-finite entry. A statistic without enough values is null, never NaN.

Precision
    Everything is accumulated in float64 and stored in float32. An average of float32 numbers cannot overflow float32;
    a standard deviation can, and is then stored as infinity. Sums run over sorted values, so that a summary does not
    depend on the order of the runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.errors import SpecError

#: Part of every summary's fingerprint: raise it when a stored value can change, and all summaries are computed anew.
STATISTICS_VERSION: Final = 1

#: Counts of runs are stored as uint8.
MAX_RUNS: Final = 255

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EpochStatistics:
    """What a kernel fills: arrays of shape (epochs,), counts int64, everything else float64.

    An element is meaningless where its count (`num` for quantiles, else `num_finite`) is below what its `Statistic`
    needs.
    """

    num: Counts
    num_finite: Counts
    avg: Float64s
    stddev: Float64s
    min: Float64s
    max: Float64s
    q1: Float64s
    median: Float64s
    q3: Float64s


@dataclass(frozen=True)
class Statistic:
    """A field of `EpochStatistics` as a column stores it: null where fewer than `least` values were counted."""

    name: str
    type: pa.DataType
    counted_by: Literal["num", "num_finite"]
    least: int


NUM: Final = Statistic("num", pa.uint8(), "num", 0)
NUM_FINITE: Final = Statistic("num_finite", pa.uint8(), "num_finite", 0)
AVG: Final = Statistic("avg", pa.float32(), "num_finite", 1)
STDDEV: Final = Statistic("stddev", pa.float32(), "num_finite", 2)
MIN: Final = Statistic("min", pa.float32(), "num_finite", 1)
MAX: Final = Statistic("max", pa.float32(), "num_finite", 1)
Q1: Final = Statistic("q1", pa.float32(), "num", 1)
MEDIAN: Final = Statistic("median", pa.float32(), "num", 1)
Q3: Final = Statistic("q3", pa.float32(), "num", 1)


@dataclass(frozen=True)
class Series:
    """A history under the name that summaries give it; `published` came first, `added` with the later release."""

    name: str
    history: str
    published: tuple[Statistic, ...]
    added: tuple[Statistic, ...] = (Q1, Q3)


_LOSS: Final = (NUM_FINITE, AVG, STDDEV, MIN, MAX, MEDIAN)
_METRIC: Final = (AVG, STDDEV, MEDIAN)

#: The history whose entries are the epochs of an experiment: the longest list has as many elements as summaries do.
EPOCHS_OF: Final = "val_loss"

SERIES: Final = (
    Series("test_loss", "val_loss", _LOSS),
    Series("train_loss", "loss", _LOSS),
    Series("test_accuracy", "val_accuracy", _METRIC),
    Series("train_accuracy", "accuracy", _METRIC),
    Series("test_mean_squared_error", "val_mean_squared_error", _METRIC),
    Series("train_mean_squared_error", "mean_squared_error", _METRIC),
    Series("test_kullback_leibler_divergence", "val_kullback_leibler_divergence", _METRIC),
    Series("train_kullback_leibler_divergence", "kullback_leibler_divergence", _METRIC),
)

#: Every per-epoch list column, in the order of the schema: the history it reads, and its statistic.
SUMMARY_LISTS: Final[Mapping[str, tuple[str, Statistic]]] = {
    "num": (EPOCHS_OF, NUM),
    **{f"{one.name}_{stat.name}": (one.history, stat) for one in SERIES for stat in one.published},
    **{f"{one.name}_{stat.name}": (one.history, stat) for one in SERIES for stat in one.added},
}


@dataclass(frozen=True)
class Extremum:
    """The best entry of every run of one history: where it is (`epoch`, counted from 1) and how good (`value`)."""

    name: str
    history: str
    best: Literal["min", "max"]


@dataclass(frozen=True)
class ExtremumColumn:
    """A statistic, over the runs, of the epoch or the value of their best entries."""

    extremum: Extremum
    of: Literal["epoch", "value"]
    statistic: Statistic


EXTREMA: Final = (
    Extremum("test_loss_min", "val_loss", "min"),
    Extremum("test_accuracy_max", "val_accuracy", "max"),
    Extremum("test_mean_squared_error_min", "val_mean_squared_error", "min"),
    Extremum("test_kullback_leibler_divergence_min", "val_kullback_leibler_divergence", "min"),
)

# Epochs that occurred are whole numbers and stay so; interpolated and averaged ones are not.
_OF_EPOCHS: Final = (replace(MIN, type=pa.uint32()), Q1, MEDIAN, Q3, replace(MAX, type=pa.uint32()), AVG)
_OF_VALUES: Final = (MIN, Q1, MEDIAN, Q3, MAX, AVG)

#: The extremum block: 48 scalar columns, in the order of the schema.
EXTREMUM_COLUMNS: Final[Mapping[str, ExtremumColumn]] = {
    f"{column.extremum.name}_{column.of}_{column.statistic.name}": column
    for extremum in EXTREMA
    for column in (
        *(ExtremumColumn(extremum, "epoch", statistic) for statistic in _OF_EPOCHS),
        *(ExtremumColumn(extremum, "value", statistic) for statistic in _OF_VALUES),
    )
}


# ---------------------------------------------------------------------------------------------- from and to Arrow


def series_matrix(column: pa.Array | pa.ChunkedArray) -> tuple[Floats, Counts]:
    """The lists of a column as a matrix of shape (runs, longest list), and their lengths as int64 of shape (runs,).

    Absent and null elements are NaN; null lists have length 0. The matrix is float32 for float32 lists, else float64.
    It may be a read-only view of the column: callers do not write to it.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_null(column.type):
        column = column.cast(pa.list_(pa.float32()))
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    elements = column.flatten()  # of this slice only, and without what null lists may hide
    if elements.type != pa.float32():
        elements = elements.cast(pa.float64())
    flat = elements.to_numpy(zero_copy_only=False)
    epochs = int(lengths.max(initial=0))
    if len(flat) == len(lengths) * epochs:
        return flat.reshape(len(lengths), epochs), lengths
    values = np.full((len(lengths), epochs), np.nan, flat.dtype)
    values[np.arange(epochs) < lengths[:, None]] = flat
    return values, lengths


def _stored(statistic: Statistic, statistics: EpochStatistics, epochs: slice = slice(None)) -> pa.Array:
    """One statistic of these epochs, in the type of its column; NaN stays NaN, too few values are null."""
    too_few = getattr(statistics, statistic.counted_by)[epochs] < statistic.least
    values = np.where(too_few, 0, getattr(statistics, statistic.name)[epochs])
    with np.errstate(over="ignore"):  # a deviation beyond float32 is stored as infinity
        narrow = values.astype(statistic.type.to_pandas_dtype())
    return pa.array(narrow, type=statistic.type, mask=too_few, from_pandas=False)


def _list_column(values: pa.Array) -> pa.Array:
    """A column of one row, the list of all values."""
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values, type=_list_type(values.type))


def _list_type(element: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", element))


# ----------------------------------------------------------------------------------------------------- the kernel


def epoch_statistics(values: Floats, lengths: Counts) -> EpochStatistics:
    """All statistics of one series at each epoch, from one sort.

    `values` has shape (runs, epochs) with at least one run; `lengths`, of shape (runs,), says how many leading entries
    of each run count (NaN stands beyond them). Rows stay the axis of the runs: sorting along them costs as much as in
    the transposed layout, and all that follows runs along the epochs.
    """
    runs, epochs = values.shape
    num = runs - np.searchsorted(np.sort(lengths), np.arange(epochs), side="right")
    finite = _is_finite(values)
    num_finite = np.count_nonzero(finite, axis=0)
    complete = bool(finite.all())
    ordered = np.sort(values if complete else np.where(finite, values, np.nan), axis=0)  # NaN last

    counted = True if complete else np.arange(runs)[:, None] < num_finite
    avg = np.sum(ordered, axis=0, dtype=np.float64, where=counted) / np.maximum(num_finite, 1)
    squares = ordered - avg  # two passes: no cancellation, and exactly 0 for equal values
    squares *= squares
    variance = np.sum(squares, axis=0, where=counted) / np.maximum(num_finite - 1, 1)
    last = ordered[np.maximum(num_finite - 1, 0), np.arange(epochs)]
    return EpochStatistics(
        num=num,
        num_finite=num_finite,
        avg=avg,
        stddev=np.sqrt(variance),
        min=ordered[0].astype(np.float64),
        max=last.astype(np.float64),
        q1=_quantile(ordered, num, 0.25),
        median=_quantile(ordered, num, 0.5),
        q3=_quantile(ordered, num, 0.75),
    )


def _is_finite(values: Floats) -> npt.NDArray[np.bool_]:
    """Where values are numbers that float32 can hold (False for NaN)."""
    return np.abs(values) <= np.finfo(np.float32).max


def _quantile(ordered: Floats, num: Counts, fraction: float) -> Float64s:
    """NumPy's `linear` quantile of the first `num` rows of each column of sorted values, float64 of shape (epochs,).

    Position fraction * (num - 1) counted from 0 (Hyndman & Fan, type 7). Non-finite entries are NaN by now: a weight on
    one gives NaN by itself, and without a weight the next order statistic is not looked at.
    """
    position = fraction * np.maximum(num - 1, 0)
    below = position.astype(np.int64)
    weight = position - below
    columns = np.arange(ordered.shape[1])
    low = ordered[below, columns].astype(np.float64)
    high = ordered[below + (weight > 0), columns].astype(np.float64)
    result: Float64s = low + (high - low) * weight
    return result


def best_entries(values: Floats, best: Literal["min", "max"]) -> tuple[Float64s, Counts]:
    """Epoch (from 1, the earliest of equals) and value of each run's best finite entry: float64 of shape (runs, 2).

    The second result, of shape (runs,), is how many of the two columns count, as `epoch_statistics` takes it: 2, or 0
    for a run without a finite entry, whose row is NaN.
    """
    runs, epochs = values.shape
    if epochs == 0:
        return np.full((runs, 2), np.nan), np.zeros(runs, np.int64)
    finite = _is_finite(values)
    if best == "min":
        at = np.where(finite, values, np.inf).argmin(axis=1)
    else:
        at = np.where(finite, values, -np.inf).argmax(axis=1)
    entries = np.stack([at + 1.0, values[np.arange(runs), at]], axis=1, dtype=np.float64)
    counts = finite.any(axis=1)
    entries[~counts] = np.nan
    return entries, np.where(counts, 2, 0)


# ---------------------------------------------------------------------------------------------------- the summary


def summarize_experiment(histories: pa.Table) -> pa.Table:
    """The summary of one experiment from its runs: a table of one row.

    `histories` has a row a run and the histories as list columns (others are ignored). The result's columns are
    `num_runs`, then `SUMMARY_LISTS`, then `EXTREMUM_COLUMNS`. Lists have as many elements as the longest `val_loss`;
    other histories are cut or filled up to that. A column whose history is missing is null; without `val_loss` there
    are no epochs to speak of, and all of them are. Raises `SpecError` unless there are 1 to 255 runs.
    """
    runs = histories.num_rows
    if not 0 < runs <= MAX_RUNS:
        raise SpecError(f"{runs} runs of one experiment: its summary can count 1 to {MAX_RUNS} (uint8)")
    matrices = _matrices(histories)
    statistics = {name: epoch_statistics(*matrix) for name, matrix in matrices.items()}
    columns = {"num_runs": pa.array([runs], pa.uint8())}
    for name, (history, statistic) in SUMMARY_LISTS.items():
        if history in statistics:
            columns[name] = _list_column(_stored(statistic, statistics[history]))
        else:
            columns[name] = pa.nulls(1, _list_type(statistic.type))
    return pa.table(columns | _extremum_columns(matrices))


def _matrices(histories: pa.Table) -> dict[str, tuple[Floats, Counts]]:
    """The histories that summaries read and the table has, all with as many epochs as the longest `val_loss`."""
    if EPOCHS_OF not in histories.column_names:
        return {}
    present = [one.history for one in SERIES if one.history in histories.column_names]
    matrices = {name: series_matrix(histories.column(name)) for name in present}
    epochs = matrices[EPOCHS_OF][0].shape[1]
    return {name: (_with_epochs(values, epochs), lengths) for name, (values, lengths) in matrices.items()}


def _with_epochs(values: Floats, epochs: int) -> Floats:
    """The matrix with so many columns: those too many are cut off, those missing are NaN."""
    missing = epochs - values.shape[1]
    if missing <= 0:
        return values[:, :epochs]
    return np.pad(values, ((0, 0), (0, missing)), constant_values=np.nan)


def _extremum_columns(matrices: Mapping[str, tuple[Floats, Counts]]) -> dict[str, pa.Array]:
    """The extremum block: arrays of one element. Column 0 of `best_entries` is the epoch, column 1 the value."""
    per_run = {
        extremum: epoch_statistics(*best_entries(matrices[extremum.history][0], extremum.best))
        for extremum in EXTREMA
        if extremum.history in matrices
    }
    columns = {}
    for name, column in EXTREMUM_COLUMNS.items():
        if column.extremum in per_run:
            which = slice(0, 1) if column.of == "epoch" else slice(1, 2)
            columns[name] = _stored(column.statistic, per_run[column.extremum], which)
        else:
            columns[name] = pa.nulls(1, column.statistic.type)
    return columns
