"""The summary of one experiment: statistics over its runs at each epoch, and over the best epoch of each run.

What is computed is a `Reduction`, which `butter_etl.engines.statistics` declares. How is the business of one kernel,
`butter_etl.engines.order_statistics`, which sorts the runs once at each epoch. `SummaryBlock` takes experiments one by
one and makes a table of them.

No statistic here can be merged from parts: quartiles need all runs of an experiment together, so an experiment is
always summarised whole.

Missing and non-finite values
    An entry is finite if the type of `Reduction.floats` can hold it (NaN, infinities, null elements and, in float64
    columns reduced to float32, anything larger than float32's largest number are not). A run *reaches* an epoch if its
    list has an entry for it, finite or not. Averages, deviations, minima and maxima are over finite entries. Quantiles
    are over the entries that reach the epoch, all non-finite ones ranked above all finite ones: NaN as soon as the
    interpolation gives weight to a non-finite entry. A statistic without enough values is null, never NaN.

Precision
    Everything is accumulated in float64 and stored in the declared type. An average of numbers of that type cannot
    overflow it; a standard deviation can, and is then stored as infinity. Sums run over sorted values and -0 counts as
    0, so that no bit of a summary depends on the order of the runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from butter_etl.engines.arrays import array_of, column_of, numbers_in, truth_in
from butter_etl.engines.statistics import Reduction, Statistic
from butter_etl.errors import SpecError

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Integers: TypeAlias = npt.NDArray[np.int64]
Counts: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]

# What the kernel fills, in this order: counts of runs; moments, then quantiles of every fraction that is declared.
_COUNTS: Final = ("num", "num_finite")
_MOMENTS: Final = ("avg", "stddev", "min", "max")

# Up to here whole numbers, epochs among them, are float32 numbers.
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
    offsets = numbers_in(column.offsets).astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    elements = column.values.slice(first, last - first)
    if elements.type not in (pa.float32(), pa.float64()):
        elements = elements.cast(pa.float64())
    lengths = np.diff(offsets)
    if column.null_count:
        lengths[truth_in(column.is_null())] = 0
    # Null elements become NaN, which pyarrow does for pandas.
    values = elements.to_numpy(zero_copy_only=False) if elements.null_count else numbers_in(elements)
    return RunLists(values, offsets[:-1] - first, lengths)


def matrix_lists(values: Floats) -> RunLists:
    """Return the rows of a float32 or float64 matrix (runs, epochs) as lists."""
    runs, epochs = values.shape
    return RunLists(values.reshape(-1), np.arange(runs) * epochs, np.full(runs, epochs))


# ---------------------------------------------------------------------------------------------------- the summary


def summarize_experiment(reduction: Reduction, histories: pa.Table) -> pa.Table:
    """Summarise one experiment from its runs, in a table of one row: see `SummaryBlock`."""
    block = SummaryBlock(reduction)
    block.add(histories)
    return block.table()


class SummaryBlock:
    """Summaries of experiments, made one by one in shared arrays and then turned into Arrow columns all at once.

    The columns of the table are ``num_runs``, then the lists of ``reduction``, then its scalars, a row an experiment.
    Lists have as many elements as the experiment's longest list of `Reduction.counted`; other histories are cut or
    filled up to that. A column whose history is missing is null; without the counted one there are no epochs to speak
    of, and all of them are.

    ``epochs``, of all experiments together, says how much room to begin with; there will be more if need be.
    """

    def __init__(self, reduction: Reduction, epochs: int = 0) -> None:
        self._reduction = reduction
        self._count_kind = reduction.counts.to_pandas_dtype()
        self._float_kind = reduction.floats.to_pandas_dtype()
        self._fractions = np.array(reduction.fractions)
        self._results: tuple[str | float, ...] = (*_MOMENTS, *reduction.fractions)
        self._capacity = 0
        self._counts = np.empty((len(reduction.series), len(_COUNTS), 0), self._count_kind)
        self._floats = np.empty((len(reduction.series), len(self._results), 0), self._float_kind)
        self._reserve(epochs)
        self._runs: list[int] = []
        self._ends: list[int] = [0]
        self._present: list[list[bool]] = []
        self._extremum_counts: list[Counts] = []
        self._extremum_floats: list[npt.NDArray[np.float64]] = []

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def epochs(self) -> int:
        """Return the number of epochs of all experiments together."""
        return self._ends[-1]

    def add(self, histories: pa.Table) -> None:
        """Add the experiment that has these runs: a row a run, histories as list columns, others are ignored.

        Raises `SpecError` unless there are 1 to `Reduction.max_runs` runs.
        """
        names = set(histories.column_names)
        present = [one.history for one in self._reduction.series if one.history in names]
        self.add_lists(histories.num_rows, {name: run_lists(histories[name]) for name in present})

    def add_lists(self, runs: int, histories: Mapping[str, RunLists]) -> None:
        """Add the experiment that has these histories, by name, each with the lists of so many runs.

        This is the fastest way in: nothing is copied, and the interpreter is not held while it computes. Raises
        `SpecError` unless there are 1 to `Reduction.max_runs` runs.
        """
        most = self._reduction.max_runs
        if not 0 < runs <= most:
            raise SpecError(
                f"{runs} runs of one experiment: its summary can count 1 to {most} ({self._reduction.counts})"
            )
        # Here, as numba takes long to import, and most commands have nothing to compute.
        from butter_etl.engines.order_statistics import epoch_statistics

        counted = self._reduction.counted
        if counted not in histories:
            histories = {}
        epochs = int(histories[counted].lengths.max()) if histories else 0
        at = self.epochs
        self._reserve(at + epochs)
        for number, one in enumerate(self._reduction.series):
            if one.history in histories:
                counts, floats, kind = self._counts[number], self._floats[number], self._float_kind
                epoch_statistics(*histories[one.history], epochs, self._fractions, counts, floats, at, kind=kind)
        self._add_extrema(runs, histories, epochs)
        self._runs.append(runs)
        self._ends.append(at + epochs)
        self._present.append([one.history in histories for one in self._reduction.series])

    def _add_extrema(self, runs: int, histories: Mapping[str, RunLists], epochs: int) -> None:
        from butter_etl.engines.order_statistics import best_entries, epoch_statistics

        kinds = {self._float_kind, *(lists.values.dtype.type for lists in histories.values())}
        entry_kind = np.float32 if epochs <= _WHOLE and kinds == {np.float32} else np.float64
        entries = np.full((runs, 2 * len(self._reduction.extrema)), np.nan, entry_kind)
        kind = self._float_kind
        for number, extremum in enumerate(self._reduction.extrema):
            if extremum.history in histories:
                best_entries(*histories[extremum.history], epochs, extremum.best, entries, 2 * number, kind=kind)
        columns = entries.shape[1]
        counts = np.empty((len(_COUNTS), columns), self._count_kind)
        floats = np.empty((len(self._results), columns), entry_kind)
        lists = matrix_lists(entries)
        epoch_statistics(*lists, columns, self._fractions, counts, floats, finite_only=True, kind=kind)
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
        columns = {"num_runs": column_of(self._runs, self._reduction.counts)}
        columns |= self._list_columns()
        columns |= self._extremum_columns()
        return pa.table(columns)

    def _list_columns(self) -> dict[str, pa.Array]:
        histories = {}
        layouts: dict[tuple[bool, ...], _Layout] = {}
        for number, one in enumerate(self._reduction.series):
            results = self._named(self._counts[number, :, : self.epochs], self._floats[number, :, : self.epochs])
            present = tuple(experiment[number] for experiment in self._present)
            layouts[present] = layouts.get(present) or _Layout(self._ends, present)
            histories[one.history] = results, layouts[present]
        columns = {}
        for name, (history, statistic) in self._reduction.lists.items():
            results, layout = histories[history]
            columns[name] = layout.lists(results.stored(statistic, self._reduction.type_of(statistic)))
        return columns

    def _named(self, counts: Counts, floats: Floats) -> _Results:
        return _Results(dict(zip((*_COUNTS, *self._results), (*counts, *floats), strict=True)))

    def _extremum_columns(self) -> dict[str, pa.Array]:
        columns = 2 * len(self._reduction.extrema)
        counts = np.array(self._extremum_counts, self._count_kind).reshape(-1, len(_COUNTS), columns)
        floats = np.array(self._extremum_floats, np.float64).reshape(-1, len(self._results), columns)
        results = {}
        for number, extremum in enumerate(self._reduction.extrema):
            for of, which in (("epoch", 2 * number), ("value", 2 * number + 1)):
                results[extremum, of] = self._named(counts[:, :, which].T, floats[:, :, which].T)
        return {
            name: results[column.extremum, column.of].stored(
                column.statistic, self._reduction.type_of(column.statistic)
            )
            for name, column in self._reduction.scalars.items()
        }


class _Results:
    """The kernel's results for one history, by the rules of statistics, each over the same positions."""

    def __init__(self, rows: Mapping[str | float, npt.NDArray[Any]]) -> None:
        self._rows = rows
        self._fewest = {name: int(rows[name].min(initial=np.iinfo(rows[name].dtype).max)) for name in _COUNTS}

    def stored(self, statistic: Statistic, column: pa.DataType) -> pa.Array:
        """Return one statistic in the type of its column; NaN stays NaN, too few values are null."""
        values, kind = self._rows[statistic.rule], column.to_pandas_dtype()
        if values.dtype != kind:
            with np.errstate(over="ignore"):  # a number beyond float32 is stored as infinity
                values = values.astype(kind)
        if self._fewest[statistic.counted_by] >= statistic.least:
            return array_of(values)
        return array_of(values, self._rows[statistic.counted_by] < statistic.least)


class _Layout:
    """The extent of each experiment's list among the positions; lists of experiments that are not present are null."""

    def __init__(self, ends: list[int], present: tuple[bool, ...]) -> None:
        self._mask = self._keep = None
        if not all(present):
            lengths, there = np.diff(ends), np.array(present)
            self._mask, self._keep = array_of(~there), array_of(np.repeat(there, lengths))
            ends = [0, *np.cumsum(lengths * there)]
        self._offsets = array_of(np.array(ends, np.int32))

    def lists(self, values: pa.Array) -> pa.Array:
        """Return the column of lists that has these values at its positions."""
        if self._keep is not None:
            values = values.filter(self._keep)
        kind = pa.list_(pa.field("element", values.type))
        return pa.ListArray.from_arrays(self._offsets, values, type=kind, mask=self._mask)
