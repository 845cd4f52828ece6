"""Curves in long form, a row a measuring point and statistic of an experiment: what plotting libraries and R take.

`read_curves` returns them as a pandas dataframe, `write_curves` writes them as CSV or Parquet.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.errors import UsageError
from butter_etl.store import Store, StudyLike, as_study, write_whole
from butter_etl.studies import Choice, Study, default_study
from butter_etl.views.plot import points_of, selected, series_of, study_and_summary

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: ``all`` points of a curve, or at most `POINTS`, evenly spaced on a log scale.
Thinning = Literal["all", "log"]
#: At most this many points of a curve are kept where it is thinned, the first and the last among them.
POINTS: Final = 48
FORMATS: Final = (".csv", ".parquet")


def read_curves(
    store: str | os.PathLike[str],
    where: Iterable[str] = (),
    *,
    series: str | Sequence[str] | None = None,
    epochs: Thinning = "all",
    by: str | Sequence[str] = (),
    study: StudyLike | None = None,
) -> Any:
    """Return the curves of a store's summaries, or of an exported summary, as a ``pandas.DataFrame`` in long form.

    It has the columns of `curves_table`. ``where`` is as for `read_summary`. ``series`` names one series or several,
    by default the study's first one. ``epochs="log"`` keeps at most 48 points of a curve, evenly spaced on a log scale.
    With ``by``, columns of experiments, curves are of groups of a store's: see `group_table`. A store's study is known
    by its name, or is ``study``. Warns (StaleSummaryWarning) of summaries that miss runs; raises what `read_summary`
    raises, and UsageError for an unknown series or column.
    """
    if by:
        opened, keys = Store.open(store, study=study), [by] if isinstance(by, str) else by
        table = group_table(store, Choice(where=tuple(where)), keys, study=opened.study)
        of, summary = opened.study, table
    else:
        of, summary = study_and_summary(store, where, study=study)
    return curves_table(summary, series=series, epochs=epochs, study=of).to_pandas(types_mapper=_as_pandas)


def curves_table(
    summary: pa.Table,
    *,
    series: str | Sequence[str] | None = None,
    epochs: Thinning = "all",
    study: StudyLike | None = None,
) -> pa.Table:
    """Return curves in long form, given rows of the summary frame, or of `group_table`.

    A row is an experiment's, at a measuring point, of a statistic: columns are ``experiment_id``, the experiment's
    parameters (with ``experiment_`` before one that is called as a column that follows), the point (``epoch``, as the
    study calls it), ``series``, ``statistic`` and ``value`` (float64). A group has what its experiments have in common,
    and how many ``experiments`` it has, in place of the first. Counts are statistics too. What is null in the summary
    is left out. Raises UsageError for an unknown series.
    """
    of = as_study(study) or default_study()
    if epochs not in ("all", "log"):
        raise UsageError(f"epochs are 'all' or 'log', not {epochs!r}")
    own = _values(of, np.zeros(0), np.zeros(0), "", "")
    if "experiment_id" in summary.column_names:
        names = ["experiment_id", *(name for name in of.parameters if name in summary.column_names)]
    else:
        names = summary.column_names[: summary.column_names.index("experiments") + 1]
        names = [name for name in names if name != of.points.column]
    # A study's own parameter may be called as one of ours.
    shared = summary.select(names).rename_columns([f"experiment_{name}" if name in own else name for name in names])
    wanted = [series] if series is None or isinstance(series, str) else series
    pieces = [
        piece
        for name in [series_of(of, one) for one in wanted]
        for statistic in _statistics(of, summary, name)
        if (piece := _piece(of, summary, shared, name, statistic, epochs)).num_rows
    ]
    return pa.concat_tables(pieces) if pieces else _beside(shared.slice(0, 0), own)


def group_table(
    store: str | os.PathLike[str],
    choice: Choice,
    by: Sequence[str],
    state: str | None = None,
    *,
    study: StudyLike | None = None,
) -> pa.Table:
    """Return statistics over all runs of each group of a choice's experiments, a row a group.

    Groups have columns ``by`` of experiments in common, and those that values compare within; runs of different makers
    are never in one. The columns are those of `butter_etl.summarize.group_rows`. All that is chosen must fit into
    memory. Raises UsageError for a column that experiments do not have, and for runs measured at different points.
    """
    from butter_etl.summarize import group_columns, group_rows

    of = Store.open(store, state, study).study
    points = [of.points.column] if of.points.column else []
    columns = [*group_columns(of, by), *points, *of.reduction.histories.values()]
    return group_rows(of, selected(store, choice, state, runs=True, columns=columns, study=of), by)


def write_curves(table: pa.Table, file: str | os.PathLike[str]) -> None:
    """Write curves in the format that the file's name ends in, ``.csv`` or ``.parquet``, whole or not at all.

    In CSV, what is null is empty, and lists are their entries with spaces between. Raises UsageError for another
    format, PlaceError or FullDiskError if the file cannot be written.
    """
    path = Path(file)
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: curves are written to {' or '.join(FORMATS)}")
    sink = pa.BufferOutputStream()
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, sink, compression="zstd")
    else:
        from pyarrow.csv import write_csv

        write_csv(pa.table({name: _plain(table[name]) for name in table.column_names}), sink)
    write_whole(path, sink.getvalue().to_pybytes())


def thinned(count: int) -> NDArray[np.int64]:
    """Return the positions, counted from 0, of at most `POINTS` of so many points, evenly spaced on a log scale."""
    if count == 0:
        return np.zeros(0, np.int64)
    return np.unique(np.round(np.geomspace(1, count, min(POINTS, count))).astype(np.int64)) - 1


# --- parts -------------------------------------------------------------------------------------------------------


def _statistics(study: Study, summary: pa.Table, series: str) -> list[str]:
    """Return the names of the statistics that there are of a series at each point."""
    history = study.reduction.histories[series]
    columns = {name: of for name, (one, of) in study.reduction.lists.items() if one == history}
    return [of.name for name, of in columns.items() if name in summary.column_names and name == f"{series}_{of.name}"]


def _piece(
    study: Study, summary: pa.Table, shared: pa.Table, series: str, statistic: str, epochs: Thinning
) -> pa.Table:
    """Return the rows of one statistic of one series."""
    column = summary[f"{series}_{statistic}"]
    lists = pa.chunked_array([*column.chunks, pa.array([], column.type)]).combine_chunks()
    entries = lists.values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    is_there = pc.is_valid(lists.values).to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_pylist()
    rows: list[NDArray[np.int64]] = []
    points: list[NDArray[np.float64]] = []
    values: list[NDArray[np.float64]] = []
    for row, (start, length) in enumerate(zip(lists.offsets.to_pylist(), lengths, strict=False)):
        kept = thinned(length) if epochs == "log" else np.arange(length)
        kept = kept[is_there[start + kept]]
        rows.append(np.full(len(kept), row))
        points.append(points_of(study.points, summary, row, length)[kept])
        values.append(entries[start + kept])
    of = _values(study, np.concatenate([*points, []]), np.concatenate([*values, []]), series, statistic)
    return _beside(shared.take(pa.array(np.concatenate([*rows, []]).astype(np.int64))), of)


def _beside(shared: pa.Table, own: Mapping[str, pa.Array]) -> pa.Table:
    """Return what rows have of their experiment, and beside it what they have of their own."""
    for name, column in own.items():
        shared = shared.append_column(name, column)
    return shared


def _values(
    study: Study, points: NDArray[np.float64], values: NDArray[np.float64], series: str, statistic: str
) -> dict[str, pa.Array]:
    """Return the columns that every row has of its own; whole points are whole numbers."""
    is_whole = study.points.column is None and float(study.points.first).is_integer()
    is_whole = is_whole and float(study.points.step).is_integer()
    return {
        study.points.name: pa.array(points).cast(pa.int64()) if is_whole else pa.array(points, pa.float64()),
        "series": pa.array([series] * len(points), pa.string()),
        "statistic": pa.array([statistic] * len(points), pa.string()),
        "value": pa.array(values, pa.float64()),
    }


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column that CSV can hold."""
    if not pa.types.is_list(column.type):
        return column
    texts = [None if one is None else " ".join(map(str, one)) for one in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _as_pandas(kind: pa.DataType) -> Any:
    """Return a pandas type that holds nulls without making other numbers of whole ones."""
    import pandas as pd

    return None if kind == pa.float64() else pd.ArrowDtype(kind)
