"""The precision of one experiment: medians and means over its runs with their intervals, as declared columns.

`Precision` says of which series and extrema of a `Reduction`; its columns follow. `precise_experiment` computes them by
`butter_etl.engines.intervals`, at a confidence level: at each point, at the last one (``end``), and of each run's own
best value.

Missing and non-finite values are counted as in summaries (`butter_etl.engines.summary`). Medians are over the runs that
reach a point, what is not finite above all that is: a bound that falls there is NaN. Means, and best values, are over
what is finite. What has fewer runs than its interval takes is null. Bounds are rounded outwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.engines.arrays import array_of, column_of
from butter_etl.engines.intervals import (
    LOOKS,
    METHODS_VERSION,
    Interval,
    bootstrap_tail,
    bootstrapped,
    last_look,
    look_ranks,
    mean_and_t,
    median_rank,
    medians,
    ranked,
)
from butter_etl.engines.statistics import Extremum, Reduction, Series
from butter_etl.engines.summary import run_lists

Float64s: TypeAlias = npt.NDArray[np.float64]

_BOUND: Final = "bound of the interval for the"
_OF_VALUES: Final = {
    "median": "median",
    "median_low": f"lower {_BOUND} median",
    "median_high": f"upper {_BOUND} median",
    "avg": "mean",
    "avg_t_low": f"lower {_BOUND} mean by Student's t",
    "avg_t_high": f"upper {_BOUND} mean by Student's t",
    "avg_bootstrap_low": f"lower {_BOUND} mean by the bootstrap",
    "avg_bootstrap_high": f"upper {_BOUND} mean by the bootstrap",
}
_OF_POINTS: Final = {
    "band_low": "lower bound of the band that covers the medians of all points at once",
    "band_high": "upper bound of the band that covers the medians of all points at once",
}
_OF_LOOKS: Final = {
    "looks_low": "lower bound of the interval for the median that holds however often runs were added and looked at",
    "looks_high": "upper bound of the interval for the median that holds however often runs were added and looked at",
}


class Target(NamedTuple):
    """What intervals are of: a series at each point or at the last one, or an extremum. ``note`` says it in words."""

    name: str
    history: str
    note: str
    of: Literal["points", "end"] | Extremum


class PrecisionColumn(NamedTuple):
    """A column: a statistic of a target."""

    target: Target
    statistic: str
    note: str
    type: pa.DataType


@dataclass(frozen=True)
class Precision:
    """The intervals of a precision frame, declared: of which ``names`` among the series of a reduction."""

    reduction: Reduction
    names: tuple[str, ...]

    @property
    def series(self) -> tuple[Series, ...]:
        """Return the series that have intervals."""
        return tuple(one for one in self.reduction.series if one.name in self.names)

    @cached_property
    def targets(self) -> Mapping[str, Target]:
        """Return what intervals are of, by name: of each series its points, its end, and its runs' best values."""
        found = []
        for one in self.series:
            found.append(Target(one.name, one.history, one.note, "points"))
            found.append(Target(f"{one.name}_end", one.history, f"{one.note}, at the last {self.point}", "end"))
            found += [
                Target(
                    f"{best.name}_value",
                    one.history,
                    f"{'smallest' if best.best == 'min' else 'largest'} {best.note}",
                    best,
                )
                for best in self.reduction.extrema
                if best.history == one.history
            ]
        return {one.name: one for one in found}

    @property
    def point(self) -> str:
        """Return the word for what entries are taken at."""
        return self.reduction.point

    @cached_property
    def columns(self) -> Mapping[str, PrecisionColumn]:
        """Return the columns of statistics, in the order of the schema."""
        floats = self.reduction.floats
        found = {}
        for target in self.targets.values():
            has_points = target.of == "points"
            kind = pa.list_(pa.field("element", floats)) if has_points else floats
            own = {**_OF_VALUES, **(_OF_POINTS if has_points else _OF_LOOKS)}
            for name, words in own.items():
                note = f"{words} over the runs of the {target.note}" + f", a value each {self.point}" * has_points
                found[f"{target.name}_{name}"] = PrecisionColumn(target, name, note, kind)
        return found

    def version(self, level: float) -> str:
        """Return what rows at a level go by besides their runs: methods, level and columns."""
        of = f"{', '.join(self.names)}, statistics {self.reduction.version}"
        return f"intervals {METHODS_VERSION}, level {level!r}, of {of}"


# --- entries -----------------------------------------------------------------------------------------------------


class Entries(NamedTuple):
    """The entries of a history by run, in the order of the repetitions, and by point (runs, points).

    What is not finite is infinity, what a run does not reach is NaN.
    """

    values: npt.NDArray[np.floating[Any]]

    def at_end(self) -> Float64s:
        """Return the entries at the last point of the runs that reach it, (runs,)."""
        if not self.values.shape[1]:
            return np.zeros(0)
        last = self.values[:, -1].astype(np.float64)
        return last[~np.isnan(last)]

    def best(self, which: Literal["min", "max"]) -> Float64s:
        """Return the best finite entry of each run that has one, (runs,)."""
        is_finite = np.isfinite(self.values)
        kept = self.values[is_finite.any(axis=1)].astype(np.float64)
        there = is_finite[is_finite.any(axis=1)]
        if not kept.size:
            return np.zeros(0)
        of_rows, worst = (np.min, np.inf) if which == "min" else (np.max, -np.inf)
        found: Float64s = of_rows(np.where(there, kept, worst), axis=1) + 0.0
        return found

    def of(self, target: Target) -> Float64s:
        """Return the values, one a run, of a target that is no list."""
        return self.best(target.of.best) if isinstance(target.of, Extremum) else self.at_end()


def entries_of(precision: Precision, runs: pa.Table, history: str) -> Entries | None:
    """Return a history of an experiment's runs, a row each; None where there is none.

    There are as many points as the longest list of `Reduction.counted` has.
    """
    reduction = precision.reduction
    if history not in runs.column_names or reduction.counted not in runs.column_names:
        return None
    if "repetition" in runs.column_names:
        runs = runs.take(pc.sort_indices(runs["repetition"]))
    counted = run_lists(runs[reduction.counted]).lengths
    points = int(counted.max(initial=0))
    values, starts, lengths = run_lists(runs[history])
    entries = np.full((runs.num_rows, points), np.nan, values.dtype)
    largest = np.finfo(reduction.floats.to_pandas_dtype()).max
    for run, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        some = values[start : start + min(length, points)]
        with np.errstate(invalid="ignore"):
            entries[run, : len(some)] = np.where(np.abs(some) <= largest, some + 0.0, np.inf)
    return Entries(entries)


# --- intervals ---------------------------------------------------------------------------------------------------


class _Made:
    """Statistics over positions, float64: NaN for lack of runs, infinite where there is no number."""

    def __init__(self, names: Mapping[str, str], positions: int) -> None:
        self.values = {name: np.full(positions, np.nan) for name in names}

    def put(self, name: str, at: Any, values: Float64s) -> None:
        self.values[name][at] = values

    def bound(self, name: str, at: Any, bounds: Interval) -> None:
        self.values[f"{name}_low"][at], self.values[f"{name}_high"][at] = bounds


def precise_experiment(precision: Precision, level: float, runs: pa.Table) -> pa.Table:
    """Return the intervals of one experiment at a level, from its runs, in a table of one row.

    Its columns are ``num_runs``, ``num`` and those of ``precision``; those of a history that is missing are null.
    """
    reduction = precision.reduction
    counts = pa.list_(pa.field("element", reduction.counts))
    columns = {"num_runs": column_of([runs.num_rows], reduction.counts), "num": pa.nulls(1, counts)}
    columns |= {name: pa.nulls(1, one.type) for name, one in precision.columns.items()}
    counted = entries_of(precision, runs, reduction.counted)
    if counted is None:
        return pa.table(columns)
    reached = (~np.isnan(counted.values)).sum(axis=0)
    columns["num"] = _one_list(array_of(reached.astype(reduction.counts.to_pandas_dtype())))
    for target in precision.targets.values():
        entries = entries_of(precision, runs, target.history)
        if entries is None:
            continue
        made = _of_points(entries, level) if target.of == "points" else _of_runs(entries.of(target), level)
        for name, values in made.values.items():
            stored = _stored(name, values, reduction.floats)
            columns[f"{target.name}_{name}"] = _one_list(stored) if target.of == "points" else stored
    return pa.table(columns)


def _of_points(entries: Entries, level: float) -> _Made:
    points = entries.values.shape[1]
    made = _Made({**_OF_VALUES, **_OF_POINTS}, points)
    _measure(made, entries.values, level, points)
    return made


def _of_runs(values: Float64s, level: float) -> _Made:
    """Return the intervals of a value a run, in the order of the repetitions."""
    made = _Made({**_OF_VALUES, **_OF_LOOKS}, 1)
    _measure(made, values[:, None], level)
    looks = interval_at_look(values, level, last_look(len(values)))
    if looks is not None:
        made.bound("looks", slice(None), looks)
    return made


def interval_at_look(values: Float64s, level: float, look: int, points: int = 1) -> Interval | None:
    """Return the intervals for medians at one of `LOOKS`, of its first values in the order of the repetitions.

    ``values`` are (runs,) or (runs, columns); with several ``points`` the intervals are a band. Returns None where the
    look has no interval.
    """
    rank = look_ranks(level, points)[look] if look >= 0 else 0
    if not rank:
        return None
    first = values[: LOOKS[look]].reshape(LOOKS[look], -1)
    return ranked(np.sort(first, axis=0), rank)


def _measure(made: _Made, entries: npt.NDArray[Any], level: float, points: int | None = None) -> None:
    """Fill in medians and means of columns (runs, columns); with ``points``, the band over so many, too."""
    ordered = np.sort(entries, axis=0)  # numbers, then infinity, then NaN
    there, finite = (~np.isnan(ordered)).sum(axis=0), np.isfinite(ordered).sum(axis=0)
    for count, at in _alike(there):
        some = ordered[:count, at]
        made.put("median", at, medians(some))
        if rank := median_rank(count, level):
            made.bound("median", at, ranked(some, rank))
        if points is not None and (rank := median_rank(count, level, points)):
            made.bound("band", at, ranked(some, rank))
    for count, at in _alike(finite):
        numbers = ordered[:count, at].astype(np.float64)
        if count == 1:
            made.put("avg", at, numbers[0])
            continue
        means, interval = mean_and_t(numbers, level)
        made.put("avg", at, means)
        made.bound("avg_t", at, interval)
        if bootstrap_tail(level):
            made.bound("avg_bootstrap", at, bootstrapped(numbers, level))


def _alike(counts: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each count that is not 0, with its positions."""
    for count in np.unique(counts[counts > 0]):
        yield int(count), np.flatnonzero(counts == count)


def _stored(name: str, values: Float64s, column: pa.DataType) -> pa.Array:
    """Return statistics in the type of their column: bounds rounded outwards, NaN for what is no number."""
    missing = np.isnan(values)
    kind = column.to_pandas_dtype()
    with np.errstate(over="ignore", invalid="ignore"):
        stored = values.astype(kind)
        if name.endswith("_low"):
            stored = np.where(stored > values, np.nextafter(stored, kind(-np.inf)), stored)
        elif name.endswith("_high"):
            stored = np.where(stored < values, np.nextafter(stored, kind(np.inf)), stored)
    stored[np.isinf(stored)] = np.nan
    return array_of(stored, missing)


def _one_list(values: pa.Array) -> pa.ListArray:
    """Return a column of one row, which is the list of these values."""
    kind = pa.list_(pa.field("element", values.type))
    return pa.ListArray.from_arrays(array_of(np.array([0, len(values)], np.int32)), values, type=kind)
