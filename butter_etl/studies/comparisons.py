"""Two settings of a study side by side, from the runs of both: a table of the differences of their medians."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

from butter_etl.engines import Difference, Precision, check_level, difference_of_medians, entries_of
from butter_etl.errors import SelectError, StudyError, suggestion
from butter_etl.studies.study import Study

#: What a row of a comparison is of: a measuring point, the last one, or each run's own best value.
AT: Final = ("point", "end", "best")


def compare_runs(study: Study, a: pa.Table, b: pa.Table, series: str, level: float) -> pa.Table:
    """Return the difference of medians of a series between two experiments, a minus b, with its intervals at a level.

    ``a`` and ``b`` are their rows of the run frame. The rows of the table are the measuring points that both reach, and
    then the last one, and each run's own best value, where the study declares one: ``at`` says which. Columns are
    ``place`` (of a point, from 0), ``runs_a``, ``runs_b``, ``median_a``, ``median_b``, ``difference``, ``low``,
    ``high``, the bounds of a band over all points (``band_low``, ``band_high``), and ``runs_apart``: how many runs of
    each would tell them apart, null for more than 10,000. Bounds are null below the least number of runs, NaN where
    there is none on that side. Raises SpecError for a level that is none, SelectError for runs without the history.
    """
    check_level(level)
    if series not in study.reduction.histories:
        known = study.reduction.histories
        raise StudyError(f"unknown series {series!r}{suggestion(series, known)}; known: {', '.join(known)}")
    precision = Precision(study.reduction, (series,))
    history = study.reduction.histories[series]
    both = [entries_of(precision, runs, history) for runs in (a, b)]
    for side, entries in zip("ab", both, strict=True):
        if entries is None or not np.isfinite(entries.values).any():
            raise SelectError(f"--{side}: its runs have no {history}: there is nothing to compare")
    first, second = (one for one in both if one is not None)
    points = min(first.values.shape[1], second.values.shape[1])
    if first.values.shape[1] != second.values.shape[1]:
        first, second = (type(one)(one.values[:, :points]) for one in (first, second))
    each = difference_of_medians(first.values, second.values, level)
    band = difference_of_medians(first.values, second.values, level, points)
    pieces = [_rows("point", each, first.values, second.values, band)]
    for target in precision.targets.values():
        if target.of != "points":
            of_a, of_b = (one.of(target)[:, None] for one in (first, second))
            at = "end" if target.of == "end" else "best"
            pieces.append(_rows(at, difference_of_medians(of_a, of_b, level), of_a, of_b))
    return pa.concat_tables(pieces)


def _rows(
    at: str, found: Difference, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], band: Difference | None = None
) -> pa.Table:
    count = len(found.value)
    nothing = np.full(count, np.nan)
    low, high = (nothing, nothing) if band is None else band.bounds
    places = list(range(count)) if at == "point" else [None] * count
    return pa.table(
        {
            "at": pa.array([at] * count, pa.string()),
            "place": pa.array(places, pa.uint32()),
            "runs_a": pa.array((~np.isnan(a)).sum(axis=0), pa.uint16()),
            "runs_b": pa.array((~np.isnan(b)).sum(axis=0), pa.uint16()),
            "median_a": _numbers(found.a),
            "median_b": _numbers(found.b),
            "difference": _numbers(found.value),
            "low": _numbers(found.bounds.low),
            "high": _numbers(found.bounds.high),
            "band_low": _numbers(low),
            "band_high": _numbers(high),
            "runs_apart": pa.array(found.runs, pa.float64(), mask=np.isnan(found.runs)).cast(pa.uint32()),
        }
    )


def _numbers(values: np.ndarray[Any, Any]) -> pa.Array:
    """Return numbers, null where there is none, NaN where it is not finite."""
    return pa.array(np.where(np.isinf(values), np.nan, values), pa.float64(), mask=np.isnan(values))
