"""Pictures of a summary or run frame, as matplotlib figures: for papers in vector form, for notes as PNG.

Every function takes an Arrow table, so it works on a store, an export, or any part of either::

    from butter_etl.views import plot
    figure = plot.learning_curves(plot.summary_table("store", where=["dataset=digits"]), by="size")
    figure.savefig("curves.pdf")

Colours run from dark to light along one scale (cividis), so they keep their order in grey and for the colour-blind.
"""

from __future__ import annotations

import io
import os
import textwrap
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.errors import StaleSummaryWarning, UsageError, suggestion
from butter_etl.store import StudyLike, as_study, write_whole
from butter_etl.studies import LEVEL, Choice, Points, Study, default_study
from butter_etl.views.facts import stale_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: Curves in one figure, at most: more cannot be told apart.
MOST_CURVES: Final = 12
#: Panels in one figure, at most, and side by side.
MOST_PANELS: Final = 6
_PANELS_A_LINE: Final = 3
#: The formats of pictures, as the names of files end.
PICTURES: Final = (".pdf", ".png", ".svg")
_PNG_DOTS: Final = 160
_TITLE_LETTERS: Final = 70
#: Above so large a span, marks at powers of ten are enough.
_MANY_DECADES: Final = 1e4
#: Parameters that a legend says of a curve, at most.
_MOST_WORDS: Final = 3


#: What curves have around their medians: intervals at each point, or a band that covers the medians of all at once.
Interval = Literal["each", "band"]


class Style(msgspec.Struct, frozen=True):
    """Size of a figure in inches, and of its letters in points."""

    width: float = 6.4
    height: float = 4.2
    letters: float = 9.0


DEFAULT_STYLE: Final = Style()


def summary_table(
    store: str | os.PathLike[str], where: Iterable[str] = (), *, study: StudyLike | None = None
) -> pa.Table:
    """Return the summary frame of a store, or of an exported summary, as one Arrow table.

    ``where`` is as for `read_summary`. A store's study is known by its name, or is ``study``. Warns
    (StaleSummaryWarning) where summaries of a store do not cover all runs that are there.
    """
    return study_and_summary(store, where, study=study)[1]


def study_and_summary(
    store: str | os.PathLike[str], where: Iterable[str] = (), *, study: StudyLike | None = None
) -> tuple[Study, pa.Table]:
    """Return what `summary_table` returns, and the study that it is of: of an export, ``study`` or the default one."""
    from butter_etl.store import (
        COMMON_METADATA,
        Location,
        Registry,
        Store,
        read_export,
        read_schema,
        read_summary,
        to_arrow,
    )

    location = Location(store)
    if location.kind(COMMON_METADATA) == pa.fs.FileType.File:
        frame = read_export(store, where=where)
        table = to_arrow(frame.compute(scheduler="synchronous"), read_schema(location, ""))
        return as_study(study) or default_study(), table
    opened, choice = Store.open(store, study=study), Choice(where=tuple(where))
    stale = stale_line(opened, Registry(opened).select(choice))
    if stale is not None:
        warnings.warn(f"{opened}: {stale}", StaleSummaryWarning, stacklevel=3)
    frame = read_summary(store, where=choice.where)
    return opened.study, to_arrow(frame.compute(scheduler="synchronous"), opened.study.summary)


def selected(
    store: str | os.PathLike[str],
    choice: Choice,
    state: str | None = None,
    *,
    runs: bool = False,
    level: float | None = None,
    study: StudyLike | None = None,
) -> pa.Table:
    """Return the rows of a choice (SELECT of the commands) in a store's summary frame, or run frame.

    With a ``level``, these are the intervals at that level. Raises what `Registry.select` and `read_summary` or
    `read_runs` raise.
    """
    from butter_etl.store import Registry, Store, read_precision, read_runs, read_summary, to_arrow

    registry = Registry(Store.open(store, state, study))
    selection, where = registry.select(choice), list(choice.where)
    read, schema = (read_runs, registry.study.runs) if runs else (read_summary, registry.study.summary)
    if level is not None:
        read, schema = read_precision, registry.study.precision
        where.append(f"{LEVEL.name}={level!r}")
    table = to_arrow(read(store, where=where).compute(scheduler="synchronous"), schema)
    if not selection.sweeps:
        return table
    ids = table["experiment_id"]
    kept = [one for one in ids.unique().to_pylist() if selection.matches(registry.experiment(one))]
    return table.filter(pc.is_in(ids, pa.array(kept, ids.type)))


# --- figures -----------------------------------------------------------------------------------------------------


def learning_curves(
    summary: pa.Table,
    *,
    by: str | None = None,
    series: str | None = None,
    interval: Interval | None = None,
    style: Style = DEFAULT_STYLE,
    study: StudyLike | None = None,
) -> Figure:
    """Draw the median over repetitions at each measuring point, with the band between the quartiles.

    With an ``interval``, rows are of the precision frame, at one level, and the band is that of the median's intervals.

    There is one curve for each value of ``by`` (any parameter), and side by side a panel for each value of what values
    can only be compared within, such as a data set, where experiments differ in it. Where several experiments share a
    value, the curve is that of the experiment whose median ends best: the title says so, and the legend which one that
    is. Points are on a log scale where all are positive. ``study`` is the frame's, by default that of new stores.
    Raises UsageError for an unknown series or parameter, or where there is nothing to draw.
    """
    of = as_study(study) or default_study()
    name = series_of(of, series)
    _require(summary, f"{name}_median")
    bounds = _bounds(name, interval)
    panels, apart = _panels(of, summary, by)
    figure, places = _figure(style, len(panels))
    coloured = _in_order(value for panel in panels for value, _ in panel.curves)
    colours = dict(zip(coloured, _colours(len(coloured)), strict=True))
    for axes, panel in zip(places, panels, strict=True):
        _draw_curves(of, axes, panel, name, bounds, [*apart, *([by] if by else [])], colours)
    lines = [_common_title(of, summary, [*apart, *([by] if by else [])]), _band_words(of, summary, interval)]
    if any(rows.num_rows > 1 for panel in panels for _, rows in panel.curves):
        end = "highest" if name in of.figures.higher_is_better else "lowest"
        lines.append(f"of several experiments the one whose median ends {end}")
    if apart:
        figure.suptitle(_wrapped(*lines), x=0.01, ha="left", fontsize="medium")
    else:
        _set_title(places[0], *lines)
    return figure


def _draw_curves(
    study: Study,
    axes: Axes,
    panel: _Panel,
    series: str,
    bounds: tuple[str, str],
    named: Sequence[str],
    colours: Mapping[Any, Any],
) -> None:
    """Draw the curves of a panel; ``named`` are the parameters that its title and its legend speak of anyway."""
    drawn, is_told = [], False
    for value, rows in panel.curves:
        row = _best_row(study, rows, series)
        median = _curve(rows, f"{series}_median", row)
        points = points_of(study.points, rows, row, len(median))
        label = _label(study, _value_text(value) if panel.by else "", rows, row, named)
        is_told = is_told or label != ""
        if set(bounds) <= set(rows.column_names):
            low, high = (_curve(rows, bound, row) for bound in bounds)
            axes.fill_between(points, low, high, color=colours[value], alpha=0.25, linewidth=0)
        axes.plot(points, median, color=colours[value], linewidth=1.4, label=label or None)
        drawn.append(points)
    _finish_curves(study, axes, series, np.concatenate(drawn))
    if is_told:
        axes.legend(title=panel.by.replace("_", " ") if panel.by else None, frameon=False)
    if panel.values:
        axes.set_title(", ".join(map(_value_text, panel.values)), loc="left", fontsize="medium")


def _bounds(series: str, interval: Interval | None) -> tuple[str, str]:
    """Return the columns of the lower and the upper end of what is around a curve."""
    if interval is None:
        return f"{series}_q1", f"{series}_q3"
    kind = "median" if interval == "each" else "band"
    return f"{series}_{kind}_low", f"{series}_{kind}_high"


def _band_words(study: Study, rows: pa.Table, interval: Interval | None) -> str:
    if interval is None:
        return "median and quartiles over repetitions"
    level = f"{100 * rows[LEVEL.name][0].as_py():.6g} %"
    at = f"interval at each {study.points.name}" if interval == "each" else f"band over all {study.points.plural}"
    return f"median over repetitions and its {level} {at}"


def best_map(
    summary: pa.Table,
    *,
    series: str | None = None,
    style: Style = DEFAULT_STYLE,
    study: StudyLike | None = None,
) -> Figure:
    """Draw the best value that the median over repetitions reaches at any point, by two parameters, as a heat map.

    The parameters are those that the study declares for maps. Where experiments differ in others too, a cell shows the
    best of them. ``study`` is the frame's, by default that of new stores. Raises UsageError for an unknown series,
    where the study has no maps, for experiments whose values cannot be compared, or where there is nothing to draw.
    """
    of = as_study(study) or default_study()
    name = series_of(of, series)
    if of.figures.map_axes is None:
        raise UsageError(f"the study {of.name} declares no parameters for maps; draw curves, by any parameter")
    _require(summary, f"{name}_median")
    _refuse_incomparable(of, summary)
    (across, across_words), (up, up_words) = of.figures.map_axes
    columns, lines = (_in_order(summary[key].to_pylist()) for key in (across, up))
    is_higher_better = name in of.figures.higher_is_better
    cells = np.full((len(lines), len(columns)), np.nan)
    better = np.fmax if is_higher_better else np.fmin
    places = zip(summary[across].to_pylist(), summary[up].to_pylist(), strict=True)
    for value, (column, line) in zip(_best_of_rows(of, summary, name), places, strict=True):
        at = lines.index(line), columns.index(column)
        cells[at] = better(cells[at], value)
    if np.isnan(cells).all():
        raise UsageError("nothing to draw: the selection has no summaries with finite values")
    figure, (axes,) = _figure(style)
    image = axes.imshow(cells, aspect="auto", origin="lower", cmap="cividis" if is_higher_better else "cividis_r")
    axes.set_xticks(range(len(columns)), [_size_text(column) for column in columns])
    axes.set_yticks(range(len(lines)), [_value_text(line) for line in lines])
    axes.set_xlabel(across_words)
    axes.set_ylabel(up_words)
    _annotate(axes, cells, image)
    figure.colorbar(image, ax=axes, label=f"best median {of.figures.label(name)}")
    _set_title(axes, _common_title(of, summary, (across, up)))
    return figure


def repetitions(
    runs: pa.Table,
    *,
    series: str | None = None,
    style: Style = DEFAULT_STYLE,
    study: StudyLike | None = None,
) -> Figure:
    """Draw the curve of every repetition of one experiment, from rows of the run frame.

    Points are on a log scale where all are positive. ``study`` is the frame's, by default that of new stores. Raises
    UsageError for an unknown series, or where the rows are of none or of several experiments.
    """
    of = as_study(study) or default_study()
    name = series_of(of, series)
    experiments = len(runs["experiment_id"].unique())
    if experiments != 1:
        raise UsageError(f"a picture of repetitions is of one experiment; the selection has {experiments}")
    figure, (axes,) = _figure(style)
    ordered, drawn = runs.sort_by("repetition"), []
    for row, colour in enumerate(_colours(ordered.num_rows)):
        curve = _curve(ordered, of.reduction.histories[name], row)
        drawn.append(points_of(of.points, ordered, row, len(curve)))
        axes.plot(drawn[-1], curve, color=colour, linewidth=0.8, alpha=0.9)
    _finish_curves(of, axes, name, np.concatenate(drawn))
    _set_title(axes, _common_title(of, ordered, ()), f"{ordered.num_rows} repetitions")
    return figure


def difference_figure(
    table: pa.Table, study: Study, series: str, level: float, labels: tuple[str, str], style: Style = DEFAULT_STYLE
) -> Figure:
    """Draw the difference of medians at each point of a comparison, with its intervals and the band over all points."""
    rows = [row for row in table.to_pylist() if row["at"] == study.points.name]
    columns = (study.points.name, "difference", "low", "high", "band_low", "band_high")
    points, value, *bounds = (
        np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64) for name in columns
    )
    figure, (axes,) = _figure(style)
    colour = _colours(1)[0]
    low, high, band_low, band_high = bounds
    for lower, upper, alpha, words in ((band_low, band_high, 0.12, "of all at once"), (low, high, 0.25, "of each")):
        if np.isfinite(lower + upper).any():
            label = f"{level:.4g}, {words}"
            axes.fill_between(points, lower, upper, color=colour, alpha=alpha, linewidth=0, label=label)
    axes.plot(points, value, color=colour, linewidth=1.4)
    axes.axhline(0.0, color="black", linewidth=0.6)
    _scale_points(axes, points)
    axes.set_xlabel(study.points.name)
    axes.set_ylabel(f"difference of medians, {study.figures.label(series)}")
    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.5)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    _set_title(axes, f"{labels[0]} minus {labels[1]}")
    return figure


def save(figure: Figure, file: str | os.PathLike[str]) -> None:
    """Write a figure in the format that the file's name ends in: ``.pdf``, ``.png`` or ``.svg``.

    Raises UsageError for another format, PlaceError or FullDiskError if the file cannot be written.
    """
    path = Path(file)
    if path.suffix not in PICTURES:
        raise UsageError(f"{path}: pictures end in one of {', '.join(PICTURES)}")
    drawn = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(drawn, format=path.suffix.removeprefix("."), dpi=_PNG_DOTS, metadata=metadata)
    write_whole(path, drawn.getvalue())


# --- parts -------------------------------------------------------------------------------------------------------


def series_of(study: Study, series: str | None) -> str:
    """Return the series that is asked for, or the study's first one; raise UsageError for one that it does not have."""
    known = study.reduction.histories
    name = study.figures.default if series is None else series
    if name not in known:
        raise UsageError(f"unknown series {name!r}{suggestion(name, known)}; known: {', '.join(known)}")
    return name


def _require(summary: pa.Table, column: str) -> None:
    if column not in summary.column_names:
        raise UsageError(f"nothing to draw: summaries have no column {column!r}")


def numbered(points: Points, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the measuring points at some places, counted from 0, as they are numbered."""
    return points.first + points.step * places.astype(np.float64)


def points_of(points: Points, table: pa.Table, row: int, count: int) -> NDArray[np.float64]:
    """Return the measuring points of a curve: those that its row names, if it names as many, else numbered ones."""
    if points.column is not None and points.column in table.column_names:
        named = _curve(table, points.column, row)
        if len(named) == count and np.isfinite(named).all():
            return named
    return numbered(points, np.arange(count))


class _Panel(NamedTuple):
    """Rows that can be compared: the values that they have in common, and the rows of each value of a parameter.

    Without a parameter there is one group, of the value None.
    """

    values: tuple[Any, ...]
    by: str | None
    curves: list[tuple[Any, pa.Table]]


def _panels(study: Study, summary: pa.Table, by: str | None) -> tuple[list[_Panel], list[str]]:
    """Return the panels of a picture of curves, and the parameters in which they differ, without ``by``."""
    if summary.num_rows == 0:
        raise UsageError("nothing to draw: the selection has no summaries; run `butter-etl summarize`, or select more")
    known = study.where_keys
    if by is not None and by not in known:
        raise UsageError(f"unknown parameter {by!r}{suggestion(by, known)}; known: {', '.join(known)}")
    apart = incomparable(study, summary)
    panels = []
    for values, rows in _groups(summary, apart):
        groups: list[tuple[Any, pa.Table]] = [(None, rows)]
        if by is not None and by not in apart:
            groups = [(value, some) for (value,), some in _groups(rows, [by])]
        if len(groups) > MOST_CURVES:
            raise UsageError(
                f"{by} has {len(groups)} values in the selection, more than {MOST_CURVES} curves; select less"
            )
        panels.append(_Panel(values, by if by not in apart else None, groups))
    if len(panels) > MOST_PANELS:
        raise UsageError(
            f"the selection has {len(panels)} combinations of {', '.join(apart)}, between which nothing can be "
            f"compared, more than {MOST_PANELS} panels; select less, such as one {apart[0]}"
        )
    return panels, apart


def _groups(table: pa.Table, keys: Sequence[str]) -> list[tuple[tuple[Any, ...], pa.Table]]:
    """Return the rows of each combination of values of some parameters, in order, null first."""
    if not keys:
        return [((), table)]
    values = _in_order(zip(*(table[key].to_pylist() for key in keys), strict=True))
    return [(one, table.filter(_all_equal(table, keys, one))) for one in values]


def _label(study: Study, said: str, rows: pa.Table, row: int, named: Sequence[str]) -> str:
    """Return what the legend says of a curve: its value and, of several experiments, which one is drawn."""
    if rows.num_rows == 1:
        return said
    differing = [
        name
        for name in study.where_keys
        if name not in named and name in rows.column_names and len(rows[name].unique()) > 1
    ]
    which = [f"{name.replace('_', ' ')} {_value_text(rows[name][row].as_py())}" for name in differing]
    more = ", …" if len(which) > _MOST_WORDS else ""
    best = f"best of {rows.num_rows}{': ' if which else ''}{', '.join(which[:_MOST_WORDS])}{more}"
    return f"{said} ({best})" if said else best


def incomparable(study: Study, table: pa.Table) -> list[str]:
    """Return the columns that values can only be compared within, and in which the rows of a table differ."""
    there = [name for name in study.figures.comparable if name in table.column_names]
    return [name for name in there if len(table[name].unique()) > 1]


def _refuse_incomparable(study: Study, table: pa.Table) -> None:
    for name in incomparable(study, table):
        values = list(map(_value_text, _in_order(table[name].to_pylist())))
        raise UsageError(
            f"the selection has {len(values)} values of {name}, between which nothing can be compared; select one, "
            f"such as --where {name}={values[0]}"
        )


def _in_order(values: Iterable[Any]) -> list[Any]:
    """Return different values in their order, null first, those of tuples one by one."""

    def key(value: Any) -> Any:
        return [key(part) for part in value] if isinstance(value, tuple) else (value is not None, value)

    return sorted(set(values), key=key)


def _all_equal(table: pa.Table, keys: Sequence[str], values: Sequence[Any]) -> pa.ChunkedArray:
    return reduce(pc.and_, [_equals(table[key], value) for key, value in zip(keys, values, strict=True)])


def _equals(column: pa.ChunkedArray, value: Any) -> pa.ChunkedArray:
    return pc.is_null(column) if value is None else pc.equal(column, pa.scalar(value, column.type))


def _curve(table: pa.Table, column: str, row: int) -> NDArray[np.float64]:
    """Return one list of a list column; nulls are NaN."""
    values = table[column][row].as_py() or []
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _best_of_rows(study: Study, summary: pa.Table, series: str) -> NDArray[np.float64]:
    """Return the best finite value of each row's median; NaN for rows without one."""
    is_higher_better = series in study.figures.higher_is_better
    best: Callable[[NDArray[np.float64]], float] = np.max if is_higher_better else np.min
    found = np.full(summary.num_rows, np.nan)
    for row in range(summary.num_rows):
        curve = _curve(summary, f"{series}_median", row)
        finite = curve[np.isfinite(curve)]
        if len(finite):
            found[row] = best(finite)
    return found


def _best_row(study: Study, rows: pa.Table, series: str) -> int:
    """Return the row whose median ends best; the first one where none has a finite end."""
    ends = []
    for row in range(rows.num_rows):
        curve = _curve(rows, f"{series}_median", row)
        finite = curve[np.isfinite(curve)]
        end = finite[-1] if len(finite) else np.nan
        ends.append(-end if series in study.figures.higher_is_better else end)
    return 0 if np.isnan(ends).all() else int(np.nanargmin(ends))


def _figure(style: Style, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, side by side, each a little smaller than one alone."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(panels, _PANELS_A_LINE)
    lines = -(-panels // columns)
    size = style.width * (1 + 0.6 * (columns - 1)), style.height * (1 + 0.8 * (lines - 1))
    # No pyplot: it keeps figures, and looks for a screen.
    with rc_context({"font.size": style.letters, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = [figure.add_subplot(lines, columns, number + 1) for number in range(panels)]
    return figure, axes


def _wrapped(*lines: str) -> str:
    return "\n".join(part for line in lines for part in textwrap.wrap(line, _TITLE_LETTERS))


def _set_title(axes: Axes, *lines: str) -> None:
    axes.set_title(_wrapped(*lines), loc="left", fontsize="medium")


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["cividis"](position) for position in np.linspace(0.0, 0.88, max(count, 1))][:count]


def _finish_curves(study: Study, axes: Axes, series: str, points: NDArray[np.float64]) -> None:
    """Give curves their scales and words; ``points`` are all that were drawn."""
    _scale_points(axes, points)
    axes.set_xlabel(study.points.name)
    axes.set_ylabel(study.figures.label(series))
    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.5)
    low, high = axes.get_ylim()
    if series not in study.figures.higher_is_better and low > 0 and high / low > 20:
        axes.set_yscale("log")
        _mark_log(axes.yaxis, high / low)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _scale_points(axes: Axes, points: NDArray[np.float64]) -> None:
    """Put measuring points on a log scale where all are positive."""
    if points.size and points.min() > 0:
        is_whole = bool((points == np.round(points)).all())
        axes.set_xscale("log")
        _mark_log(axes.xaxis, points.max() / points.min())
        axes.xaxis.set_major_formatter(lambda point, _: _point_text(point, is_whole=is_whole))


def _mark_log(axis: Axis, span: float) -> None:
    """Give an axis on a log scale, from one end to the other so many times as large, enough marks with words."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0,) if span > _MANY_DECADES else (1.0, 2.0, 5.0)))
    axis.set_minor_formatter(NullFormatter())


def _point_text(point: float, *, is_whole: bool) -> str:
    """Return what a tick says; below whole numbers there is nothing."""
    if point < 1:
        return "" if is_whole else f"{point:g}"
    return f"{point:,.0f}" if point == round(point) or is_whole else f"{point:g}"


def _annotate(axes: Axes, cells: NDArray[np.float64], image: Any) -> None:
    """Write each value into its cell, where there is room for it."""
    if cells.size > 150:
        return
    middle = 0.5
    for (row, column), value in np.ndenumerate(cells):
        if np.isnan(value):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        is_dark = 0.3 * red + 0.6 * green + 0.1 * blue < middle
        colour = "white" if is_dark else "black"
        axes.text(
            column,
            row,
            f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}",
            ha="center",
            va="center",
            color=colour,
            fontsize="x-small",
        )


def _common_title(study: Study, table: pa.Table, without: Collection[str]) -> str:
    """Return what all rows have in common, of the parameters that name an experiment."""
    parts = []
    for name in study.figures.title:
        if name in without or name not in table.column_names:
            continue
        values = set(table[name].to_pylist())
        if len(values) == 1:
            (value,) = values
            words = name.replace("_", " ")
            parts.append(str(value) if name in study.figures.names else f"{words} {_value_text(value)}")
    return ", ".join(parts)


def _value_text(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _size_text(value: object) -> str:
    """Return a value along a map, powers of two as such."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return _value_text(value)
    power = value.bit_length() - 1
    return f"$2^{{{power}}}$" if value == 1 << power else f"{value:,}"
