"""The statistics of a summary, as declared values: what is computed over the runs of an experiment, not how.

A `Reduction` has everything: `Series`, each a name, the history it reads and its `Statistic`s, `Extremum`s, and how
wide counts and floats are. The columns of summaries follow from it. `butter_etl.engines.summary` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

import pyarrow as pa

from butter_etl.errors import SpecError

#: Part of every summary's fingerprint: raise it when a stored value can change, and all summaries are computed anew.
STATISTICS_VERSION: Final = 2

_COUNTS: Final = (pa.uint8(), pa.uint16())
_FLOATS: Final = (pa.float32(), pa.float64())


@dataclass(frozen=True)
class Statistic:
    """A statistic over the runs at an epoch, and how a column stores it: null where fewer than ``least`` values count.

    ``rule`` names a result of the kernel, a count or a moment; a number is the fraction of a quantile. ``note`` is what
    people read. What it ``holds``, `Reduction.type_of` turns into a type.
    """

    name: str
    rule: Literal["num", "num_finite", "avg", "stddev", "min", "max"] | float
    note: str
    holds: Literal["count", "epoch", "float"] = "float"
    counted_by: Literal["num", "num_finite"] = "num_finite"
    least: int = 1

    def at(self, name: str, fraction: float, note: str) -> Statistic:
        """Return the quantile like this one at another ``fraction``, between 0 and 1."""
        return replace(self, name=name, rule=fraction, note=note)


NUM: Final = Statistic("num", "num", "number of runs that reach the epoch", "count", "num", 0)
NUM_FINITE: Final = Statistic("num_finite", "num_finite", "number of finite values", "count", "num_finite", 0)
AVG: Final = Statistic("avg", "avg", "mean")
STDDEV: Final = Statistic("stddev", "stddev", "sample standard deviation", least=2)
MIN: Final = Statistic("min", "min", "minimum")
MAX: Final = Statistic("max", "max", "maximum")
# Quantiles are interpolated linearly, over all entries of an epoch.
MEDIAN: Final = Statistic("median", 0.5, "median", counted_by="num")
Q1: Final = MEDIAN.at("q1", 0.25, "first quartile")
Q3: Final = MEDIAN.at("q3", 0.75, "third quartile")


@dataclass(frozen=True)
class Series:
    """A history under the name that summaries give it, with its statistics.

    ``published`` statistics came first, ``added`` ones with a later release. ``note`` is what the history holds, in a
    few words, ``label`` what an axis of a picture says.
    """

    name: str
    history: str
    label: str
    note: str
    published: tuple[Statistic, ...]
    added: tuple[Statistic, ...]


# Epochs that occurred are whole numbers and stay so; interpolated and averaged ones are not.
_OF_EPOCHS: Final = (replace(MIN, holds="epoch"), Q1, MEDIAN, Q3, replace(MAX, holds="epoch"), AVG)
_OF_VALUES: Final = (MIN, Q1, MEDIAN, Q3, MAX, AVG)


@dataclass(frozen=True)
class Extremum:
    """The best entry of every run of one history: where it is (`epoch`, counted from 1) and how good (`value`)."""

    name: str
    history: str
    best: Literal["min", "max"]
    note: str
    of_epochs: tuple[Statistic, ...] = _OF_EPOCHS
    of_values: tuple[Statistic, ...] = _OF_VALUES


@dataclass(frozen=True)
class ExtremumColumn:
    """A statistic, over the runs, of the epoch or the value of their best entries."""

    extremum: Extremum
    of: Literal["epoch", "value"]
    statistic: Statistic


@dataclass(frozen=True)
class Reduction:
    """The statistics of a summary, declared; its columns follow from it.

    ``counted`` is the history whose entries are the epochs of an experiment: the longest list has as many elements as
    summaries do. ``counts`` is the type of numbers of runs, uint8 or uint16, and ``floats`` that of whatever else is
    computed, float32 or float64. ``point`` is the word for what entries are taken at. ``version`` is a part of the
    fingerprints of all rows. Raises SpecError for other types.
    """

    counted: str
    series: tuple[Series, ...]
    extrema: tuple[Extremum, ...] = ()
    counts: pa.DataType = _COUNTS[0]
    floats: pa.DataType = _FLOATS[0]
    point: str = "epoch"
    version: int = STATISTICS_VERSION

    def __post_init__(self) -> None:
        for name, kind, known in (("counts", self.counts, _COUNTS), ("floats", self.floats, _FLOATS)):
            if kind not in known:
                raise SpecError(f"{name}: summaries have {known[0]} or {known[1]}, not {kind}")

    @property
    def max_runs(self) -> int:
        """Return how many runs of an experiment can be counted: 255 or 65,535."""
        return (1 << int(self.counts.bit_width)) - 1

    def type_of(self, statistic: Statistic) -> pa.DataType:
        """Return the type in which a column stores one of the statistics."""
        return {"count": self.counts, "epoch": pa.uint32(), "float": self.floats}[statistic.holds]

    @cached_property
    def lists(self) -> Mapping[str, tuple[str, Statistic]]:
        """Return every list column, in the order of the schema: the history it reads, and its statistic."""
        return {
            "num": (self.counted, NUM),
            **{f"{one.name}_{stat.name}": (one.history, stat) for one in self.series for stat in one.published},
            **{f"{one.name}_{stat.name}": (one.history, stat) for one in self.series for stat in one.added},
        }

    @cached_property
    def scalars(self) -> Mapping[str, ExtremumColumn]:
        """Return the columns of the extrema, in the order of the schema: twelve scalars each."""
        return {
            f"{column.extremum.name}_{self._word(column.of)}_{column.statistic.name}": column
            for extremum in self.extrema
            for column in (
                *(ExtremumColumn(extremum, "epoch", statistic) for statistic in extremum.of_epochs),
                *(ExtremumColumn(extremum, "value", statistic) for statistic in extremum.of_values),
            )
        }

    def _word(self, of: Literal["epoch", "value"]) -> str:
        return self.point if of == "epoch" else of

    @cached_property
    def fractions(self) -> tuple[float, ...]:
        """Return the fractions of all quantiles that are declared, each once, ascending."""
        declared = {
            *(statistic for _, statistic in self.lists.values()),
            *(column.statistic for column in self.scalars.values()),
        }
        return tuple(sorted({one.rule for one in declared if isinstance(one.rule, float)}))

    @property
    def histories(self) -> dict[str, str]:
        """Return the history of each series, by the name of the series."""
        return {one.name: one.history for one in self.series}
