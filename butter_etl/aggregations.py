"""One experiment's summary: statistics over its runs at each epoch, and over the best epoch of each run.

What is computed is declared (`SUMMARY_LISTS`, `EXTREMUM_COLUMNS`: a column, the history it reads, a `Statistic`); how
is the business of one kernel, `butter_etl.order_statistics`, which sorts the runs once at each epoch. One more quantile
is one more `Statistic`. `SummaryBlock` takes experiments one by one and makes a table of them.

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
    a standard deviation can, and is then stored as infinity. Sums run over sorted values and -0 counts as 0, so that no
    bit of a summary depends on the order of the runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from butter_etl.errors import SpecError

#: Part of every summary's fingerprint: raise it when a stored value can change, and all summaries are computed anew.
STATISTICS_VERSION: Final = 2

#: Counts of runs are stored as uint8.
MAX_RUNS: Final = 255

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Statistic:
    """A statistic over runs, and how a column stores it: null where fewer than ``least`` values were counted.

    ``rule`` names a result of the kernel, a count or a moment; a number is the fraction of a quantile.
    """

    name: str
    rule: Literal["num", "num_finite", "avg", "stddev", "min", "max"] | float
    type: pa.DataType
    counted_by: Literal["num", "num_finite"]
    least: int


NUM: Final = Statistic("num", "num", pa.uint8(), "num", 0)
NUM_FINITE: Final = Statistic("num_finite", "num_finite", pa.uint8(), "num_finite", 0)
AVG: Final = Statistic("avg", "avg", pa.float32(), "num_finite", 1)
STDDEV: Final = Statistic("stddev", "stddev", pa.float32(), "num_finite", 2)
MIN: Final = Statistic("min", "min", pa.float32(), "num_finite", 1)
MAX: Final = Statistic("max", "max", pa.float32(), "num_finite", 1)
Q1: Final = Statistic("q1", 0.25, pa.float32(), "num", 1)
MEDIAN: Final = Statistic("median", 0.5, pa.float32(), "num", 1)
Q3: Final = Statistic("q3", 0.75, pa.float32(), "num", 1)


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


# The kernel's results, in this order: counts of runs; moments, then quantiles of every fraction that is declared.
_COUNTS: Final = ("num", "num_finite")
_MOMENTS: Final = ("avg", "stddev", "min", "max")
_DECLARED: Final = {
    *(statistic for _, statistic in SUMMARY_LISTS.values()),
    *(column.statistic for column in EXTREMUM_COLUMNS.values()),
}
_FRACTIONS: Final = tuple(sorted({one.rule for one in _DECLARED if isinstance(one.rule, float)}))
_FLOATS: Final = (*_MOMENTS, *_FRACTIONS)
_FRACTION_ARRAY: Final = np.array(_FRACTIONS)

# Up to this number, float32 holds every whole number exactly, epochs among them.
_WHOLE: Final = 2**24


# ----------------------------------------------------------------------------------------------------- from Arrow


class RunLists(NamedTuple):
    """One history of some runs: run r has the ``lengths[r]`` elements of the flat ``values`` from ``starts[r]`` on.

    ``values`` is float32 or float64, the other two are int64 of shape (runs,). Nobody writes to them: they may be views
    of an Arrow column. Null elements are NaN, null lists have length 0.
    """

    values: Floats
    starts: Integers
    lengths: Integers


def run_lists(column: pa.Array | pa.ChunkedArray) -> RunLists:
    """Return the lists of a column.

    They are views of it if it is in one piece, of float32 or float64, and has no null element.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        column = column.cast(pa.list_(getattr(column.type, "value_type", pa.float32())))
    offsets = column.offsets.to_numpy().astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    elements = column.values.slice(first, last - first)
    if elements.type not in (pa.float32(), pa.float64()):
        elements = elements.cast(pa.float64())
    lengths = np.diff(offsets)
    if column.null_count:
        lengths[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return RunLists(elements.to_numpy(zero_copy_only=False), offsets[:-1] - first, lengths)


def matrix_lists(values: Floats) -> RunLists:
    """Return the rows of a float32 or float64 matrix (runs, epochs) as lists."""
    runs, epochs = values.shape
    return RunLists(values.reshape(-1), np.arange(runs) * epochs, np.full(runs, epochs))


# ---------------------------------------------------------------------------------------------------- the summary


def summarize_experiment(histories: pa.Table) -> pa.Table:
    """Summarise one experiment from its runs, in a table of one row: see `SummaryBlock`."""
    block = SummaryBlock()
    block.add(histories)
    return block.table()


class SummaryBlock:
    """Summaries of experiments, made one by one in shared arrays and then turned into Arrow columns all at once.

    The columns of the table are ``num_runs``, then `SUMMARY_LISTS`, then `EXTREMUM_COLUMNS`, a row an experiment. Lists
    have as many elements as the experiment's longest `EPOCHS_OF`; other histories are cut or filled up to that. A
    column whose history is missing is null; without `EPOCHS_OF` there are no epochs to speak of, and all of them are.

    ``epochs``, of all experiments together, says how much room to begin with; there will be more if need be.
    """

    def __init__(self, epochs: int = 0) -> None:
        self._capacity = 0
        self._counts = np.empty((len(SERIES), len(_COUNTS), 0), np.uint8)
        self._floats = np.empty((len(SERIES), len(_FLOATS), 0), np.float32)
        self._reserve(epochs)
        self._runs: list[int] = []
        self._ends: list[int] = [0]
        self._present: list[list[bool]] = []
        self._extremum_counts: list[npt.NDArray[np.uint8]] = []
        self._extremum_floats: list[npt.NDArray[np.float64]] = []

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def epochs(self) -> int:
        """Return the number of epochs of all experiments together."""
        return self._ends[-1]

    def add(self, histories: pa.Table) -> None:
        """Add the experiment that has these runs: a row a run, histories as list columns, others are ignored.

        Raises `SpecError` unless there are 1 to 255 runs.
        """
        names = set(histories.column_names)
        present = [one.history for one in SERIES if one.history in names]
        self.add_lists(histories.num_rows, {name: run_lists(histories[name]) for name in present})

    def add_lists(self, runs: int, histories: Mapping[str, RunLists]) -> None:
        """Add the experiment that has these histories, by name, each with the lists of so many runs.

        This is the fastest way in: nothing is copied, and the interpreter is not held while it computes. Raises
        `SpecError` unless there are 1 to 255 runs.
        """
        from butter_etl.order_statistics import epoch_statistics

        if not 0 < runs <= MAX_RUNS:
            raise SpecError(f"{runs} runs of one experiment: its summary can count 1 to {MAX_RUNS} (uint8)")
        if EPOCHS_OF not in histories:
            histories = {}
        epochs = int(histories[EPOCHS_OF].lengths.max()) if histories else 0
        at = self.epochs
        self._reserve(at + epochs)
        for number, one in enumerate(SERIES):
            if one.history in histories:
                counts, floats = self._counts[number], self._floats[number]
                epoch_statistics(*histories[one.history], epochs, _FRACTION_ARRAY, counts, floats, at)
        self._add_extrema(runs, histories, epochs)
        self._runs.append(runs)
        self._ends.append(at + epochs)
        self._present.append([one.history in histories for one in SERIES])

    def _add_extrema(self, runs: int, histories: Mapping[str, RunLists], epochs: int) -> None:
        from butter_etl.order_statistics import best_entries, epoch_statistics

        narrow = epochs <= _WHOLE and all(lists.values.dtype == np.float32 for lists in histories.values())
        kind = np.float32 if narrow else np.float64
        entries = np.full((runs, 2 * len(EXTREMA)), np.nan, kind)
        for number, extremum in enumerate(EXTREMA):
            if extremum.history in histories:
                best_entries(*histories[extremum.history], epochs, extremum.best, entries, 2 * number)
        columns = entries.shape[1]
        counts = np.empty((len(_COUNTS), columns), np.uint8)
        floats = np.empty((len(_FLOATS), columns), kind)
        epoch_statistics(*matrix_lists(entries), columns, _FRACTION_ARRAY, counts, floats, finite_only=True)
        self._extremum_counts.append(counts)
        self._extremum_floats.append(floats)

    def _reserve(self, epochs: int) -> None:
        """Make room for so many epochs."""
        if epochs <= self._capacity:
            return
        self._capacity = max(epochs, 2 * self._capacity)
        for name in ("_counts", "_floats"):
            old = getattr(self, name)
            new = np.empty((*old.shape[:2], self._capacity), old.dtype)
            new[:, :, : old.shape[2]] = old
            setattr(self, name, new)

    def table(self) -> pa.Table:
        """Return the summaries so far, a row an experiment in the order in which they came."""
        columns = {"num_runs": pa.array(self._runs, pa.uint8())}
        columns |= self._list_columns()
        columns |= self._extremum_columns()
        return pa.table(columns)

    def _list_columns(self) -> dict[str, pa.Array]:
        histories = {}
        layouts: dict[tuple[bool, ...], _Layout] = {}
        for number, one in enumerate(SERIES):
            results = _Results(self._counts[number, :, : self.epochs], self._floats[number, :, : self.epochs])
            present = tuple(experiment[number] for experiment in self._present)
            layouts[present] = layouts.get(present) or _Layout(self._ends, present)
            histories[one.history] = results, layouts[present]
        columns = {}
        for name, (history, statistic) in SUMMARY_LISTS.items():
            results, layout = histories[history]
            columns[name] = layout.lists(results.stored(statistic))
        return columns

    def _extremum_columns(self) -> dict[str, pa.Array]:
        counts = np.array(self._extremum_counts, np.uint8).reshape(-1, len(_COUNTS), 2 * len(EXTREMA))
        floats = np.array(self._extremum_floats, np.float64).reshape(-1, len(_FLOATS), 2 * len(EXTREMA))
        results = {}
        for number, extremum in enumerate(EXTREMA):
            for of, which in (("epoch", 2 * number), ("value", 2 * number + 1)):
                results[extremum, of] = _Results(counts[:, :, which].T, floats[:, :, which].T)
        return {
            name: results[column.extremum, column.of].stored(column.statistic)
            for name, column in EXTREMUM_COLUMNS.items()
        }


class _Results:
    """The kernel's results for one history: `_COUNTS` and `_FLOATS`, each over the same positions."""

    def __init__(self, counts: npt.NDArray[np.uint8], floats: Floats) -> None:
        self._rows = dict(zip((*_COUNTS, *_FLOATS), (*counts, *floats), strict=True))
        self._fewest = {name: int(row.min(initial=MAX_RUNS)) for name, row in zip(_COUNTS, counts, strict=True)}

    def stored(self, statistic: Statistic) -> pa.Array:
        """Return one statistic in the type of its column; NaN stays NaN, too few values are null."""
        values, kind = self._rows[statistic.rule], statistic.type.to_pandas_dtype()
        if values.dtype != kind:
            with np.errstate(over="ignore"):  # a number beyond float32 is stored as infinity
                values = values.astype(kind)
        if self._fewest[statistic.counted_by] >= statistic.least:
            return pa.array(values, from_pandas=False)
        return pa.array(values, mask=self._rows[statistic.counted_by] < statistic.least, from_pandas=False)


class _Layout:
    """The extent of each experiment's list among the positions; lists of experiments that are not present are null."""

    def __init__(self, ends: list[int], present: tuple[bool, ...]) -> None:
        self._mask = self._keep = None
        if not all(present):
            lengths, there = np.diff(ends), np.array(present)
            self._mask, self._keep = pa.array(~there), pa.array(np.repeat(there, lengths))
            ends = [0, *np.cumsum(lengths * there)]
        self._offsets = pa.array(ends, pa.int32())

    def lists(self, values: pa.Array) -> pa.Array:
        """Return the column of lists that has these values at its positions."""
        if self._keep is not None:
            values = values.filter(self._keep)
        kind = pa.list_(pa.field("element", values.type))
        return pa.ListArray.from_arrays(self._offsets, values, type=kind, mask=self._mask)
