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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.errors import StaleSummaryWarning, UsageError, suggestion
from butter_etl.store import StudyLike, as_study, write_whole
from butter_etl.studies import LEVEL, MAKER, Box, Choice, Points, Study, default_study, groups_of, in_order
from butter_etl.views.facts import stale_line
from butter_etl.views.panels import (
    DEFAULT_STYLE,
    MOST_CURVES,
    MOST_PANELS,
    Style,
    common_title,
    incomparable,
    mark_log,
    new_figure,
    set_title,
    shades,
    size_text,
    value_text,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: The formats of pictures, as the names of files end.
PICTURES: Final = (".pdf", ".png", ".svg")
_PNG_DOTS: Final = 160
_LEGEND_LETTERS: Final = 44
#: Parameters that a legend says of a curve, at most.
_MOST_WORDS: Final = 3


#: What curves have around their medians: intervals at each point, or a band that covers the medians of all at once.
Interval = Literal["each", "band"]


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
    columns: Sequence[str] | None = None,
    level: float | None = None,
    study: StudyLike | None = None,
) -> pa.Table:
    """Return the rows of a choice (SELECT of the commands) in a store's summary frame, or run frame.

    With ``columns``, they have these alone, and ``experiment_id``. With a ``level``, they are the
    intervals at that level. Raises what `Registry.select` and `read_summary` or `read_runs` raise.
    """
    from butter_etl.store import Registry, Store, read_precision, read_runs, read_summary, to_arrow

    registry = Registry(Store.open(store, state, study))
    selection, where = registry.select(choice), list(choice.where)
    read, schema = (read_runs, registry.study.runs) if runs else (read_summary, registry.study.summary)
    if level is not None:
        read, schema = read_precision, registry.study.precision
        where.append(f"{LEVEL.name}={level!r}")
    if columns is not None:
        wanted = {"experiment_id", *columns}
        schema = pa.schema([field for field in schema if field.name in wanted])
    frame = read(store, where=where, columns=None if columns is None else schema.names)
    table = to_arrow(frame.compute(scheduler="synchronous"), schema)
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

    There is one curve for each value of ``by`` (any column of an experiment, such as a parameter or what made its
    runs), one for each that made runs where several did, and side by side a panel for each value of what values
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
    figure, places = new_figure(style, len(panels))
    coloured = in_order(value for panel in panels for value, _ in panel.curves)
    colours = dict(zip(coloured, shades(len(coloured)), strict=True))
    for axes, panel in zip(places, panels, strict=True):
        _draw_curves(of, axes, panel, name, bounds, [*apart, *([by] if by else [])], colours)
    lines = [common_title(of, summary, [*apart, *([by] if by else [])]), _band_words(of, summary, interval)]
    if any(rows.num_rows > 1 for panel in panels for _, rows in panel.curves):
        end = "highest" if name in of.figures.higher_is_better else "lowest"
        lines.append(f"of several experiments the one whose median ends {end}")
    if apart:
        figure.suptitle(wrapped(*lines), x=0.01, ha="left", fontsize="medium")
    else:
        set_title(places[0], *lines)
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
        label = _label(study, ", ".join(map(value_text, value)), rows, row, named)
        is_told = is_told or label != ""
        if set(bounds) <= set(rows.column_names):
            low, high = (_curve(rows, bound, row) for bound in bounds)
            axes.fill_between(points, low, high, color=colours[value], alpha=0.25, linewidth=0)
        shown, mark = textwrap.fill(label, _LEGEND_LETTERS) or None, "o" if len(median) == 1 else None
        axes.plot(points, median, color=colours[value], linewidth=1.4, marker=mark, label=shown)
        drawn.append(points)
    _finish_curves(study, axes, series, np.concatenate(drawn))
    if is_told:
        _put_legend(axes, panel.by.replace("_", " ") if panel.by else None)
    if panel.values:
        axes.set_title(", ".join(map(value_text, panel.values)), loc="left", fontsize="medium")


def _put_legend(axes: Axes, title: str | None) -> None:
    """Say what the curves are, beneath them where that takes lines that would cover them."""
    _, labels = axes.get_legend_handles_labels()
    beneath = any("\n" in label for label in labels)
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.14)} if beneath else {}
    axes.legend(title=title, frameon=False, **place)


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
    columns, lines = (in_order(summary[key].to_pylist()) for key in (across, up))
    is_higher_better = name in of.figures.higher_is_better
    cells = np.full((len(lines), len(columns)), np.nan)
    better = np.fmax if is_higher_better else np.fmin
    places = zip(summary[across].to_pylist(), summary[up].to_pylist(), strict=True)
    for value, (column, line) in zip(_best_of_rows(of, summary, name), places, strict=True):
        at = lines.index(line), columns.index(column)
        cells[at] = better(cells[at], value)
    if np.isnan(cells).all():
        raise UsageError("nothing to draw: the selection has no summaries with finite values")
    figure, (axes,) = new_figure(style)
    image = axes.imshow(cells, aspect="auto", origin="lower", cmap="cividis" if is_higher_better else "cividis_r")
    axes.set_xticks(range(len(columns)), [size_text(column) for column in columns])
    axes.set_yticks(range(len(lines)), [value_text(line) for line in lines])
    axes.set_xlabel(across_words)
    axes.set_ylabel(up_words)
    _annotate(axes, cells, image)
    figure.colorbar(image, ax=axes, label=f"best median {of.figures.label(name)}")
    set_title(axes, common_title(of, summary, (across, up)))
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
    figure, (axes,) = new_figure(style)
    ordered, drawn = runs.sort_by("repetition"), []
    for row, colour in enumerate(shades(ordered.num_rows)):
        curve = _curve(ordered, of.reduction.histories[name], row)
        drawn.append(points_of(of.points, ordered, row, len(curve)))
        axes.plot(drawn[-1], curve, color=colour, linewidth=0.8, alpha=0.9)
    _finish_curves(of, axes, name, np.concatenate(drawn))
    set_title(axes, common_title(of, ordered, ()), f"{ordered.num_rows} repetitions")
    return figure


def network(boxes: Sequence[Box], *, title: str = "", style: Style = DEFAULT_STYLE) -> Figure:
    """Draw a network as a row of layers, with the shapes of what they give.

    The higher a box, the wider the layer; the broader, the more channels it has. UsageError where there are none.
    """
    if not boxes:
        raise UsageError("nothing to draw: the layers of this network cannot be told")
    from matplotlib.patches import FancyArrow, Rectangle

    wide = msgspec.structs.replace(style, width=max(style.width, 1.25 * len(boxes)), height=min(style.height, 3.0))
    figure, (axes,) = new_figure(wide)
    most = max(box.shape[0] for box in boxes)
    widths = [0.1 + 0.06 * np.log2(box.shape[2]) if len(box.shape) > 1 else 0.14 for box in boxes]
    for place, (box, width) in enumerate(zip(boxes, widths, strict=True)):
        height = 0.15 + 0.85 * float(np.log1p(box.shape[0]) / np.log1p(most))
        low = (place - width / 2, -height / 2)
        axes.add_patch(Rectangle(low, width, height, facecolor="#f0f0ee", edgecolor="#00336e"))
        lines = [" x ".join(f"{one:,}" for one in box.shape), *filter(None, box.detail.split(", "))]
        axes.text(place, -0.6, box.name, ha="center", va="top", fontweight="bold")
        axes.text(place, -0.76, "\n".join(lines), ha="center", va="top")
        if place:
            start = place - 1 + widths[place - 1] / 2 + 0.04
            length = place - width / 2 - 0.04 - start
            axes.add_patch(
                FancyArrow(
                    start,
                    0,
                    length,
                    0,
                    width=0.004,
                    head_width=0.05,
                    head_length=0.05,
                    length_includes_head=True,
                    color="#5c5c5c",
                )
            )
    axes.set_xlim(-0.6, len(boxes) - 0.4)
    axes.set_ylim(-1.9, 0.6)
    axes.axis("off")
    set_title(axes, title)
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
    figure, (axes,) = new_figure(style)
    colour = shades(1)[0]
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
    set_title(axes, f"{labels[0]} minus {labels[1]}")
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
    """Rows that can be compared: the values that they have in common, and the rows of each curve, by what tells it.

    That is the value of a parameter, if one is asked for, and where several made the runs, what made them.
    """

    values: tuple[Any, ...]
    by: str | None
    curves: list[tuple[tuple[Any, ...], pa.Table]]


def _panels(study: Study, summary: pa.Table, by: str | None) -> tuple[list[_Panel], list[str]]:
    """Return the panels of a picture of curves, and the parameters in which they differ, without ``by``."""
    if summary.num_rows == 0:
        raise UsageError("nothing to draw: the selection has no summaries; run `butter-etl summarize`, or select more")
    known = study.group_keys
    if by is not None and by not in known:
        raise UsageError(f"unknown parameter {by!r}{suggestion(by, known)}; known: {', '.join(known)}")
    apart = incomparable(study, summary)
    panels = []
    for values, rows in groups_of(summary, apart):
        keys = [by] if by is not None and by not in apart else []
        if MAKER in rows.column_names and len(rows[MAKER].unique()) > 1 and by != MAKER:
            keys.append(MAKER)
        groups = groups_of(rows, keys)
        if len(groups) > MOST_CURVES:
            of = " and ".join(keys)
            raise UsageError(
                f"{of} has {len(groups)} values in the selection, more than {MOST_CURVES} curves; select less"
            )
        panels.append(_Panel(values, by if by not in apart else None, groups))
    if len(panels) > MOST_PANELS:
        raise UsageError(
            f"the selection has {len(panels)} combinations of {', '.join(apart)}, between which nothing can be "
            f"compared, more than {MOST_PANELS} panels; select less, such as one {apart[0]}"
        )
    return panels, apart


def _label(study: Study, said: str, rows: pa.Table, row: int, named: Sequence[str]) -> str:
    """Return what the legend says of a curve: its value and, of several experiments, which one is drawn."""
    if rows.num_rows == 1:
        return said
    differing = [
        name
        for name in study.where_keys
        if name not in named and name in rows.column_names and len(rows[name].unique()) > 1
    ]
    which = [f"{name.replace('_', ' ')} {value_text(rows[name][row].as_py())}" for name in differing]
    more = ", …" if len(which) > _MOST_WORDS else ""
    best = f"best of {rows.num_rows}{': ' if which else ''}{', '.join(which[:_MOST_WORDS])}{more}"
    return f"{said} ({best})" if said else best


def _refuse_incomparable(study: Study, table: pa.Table) -> None:
    for name in incomparable(study, table):
        values = list(map(value_text, in_order(table[name].to_pylist())))
        raise UsageError(
            f"the selection has {len(values)} values of {name}, between which nothing can be compared; select one, "
            f"such as --where {name}={values[0]}"
        )


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


def _finish_curves(study: Study, axes: Axes, series: str, points: NDArray[np.float64]) -> None:
    """Give curves their scales and words; ``points`` are all that were drawn."""
    _scale_points(axes, points)
    axes.set_xlabel(study.points.name)
    axes.set_ylabel(study.figures.label(series))
    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.5)
    low, high = axes.get_ylim()
    if series not in study.figures.higher_is_better and low > 0 and high / low > 20:
        axes.set_yscale("log")
        mark_log(axes.yaxis, high / low)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _scale_points(axes: Axes, points: NDArray[np.float64]) -> None:
    """Put measuring points on a log scale where all are positive."""
    if points.size and points.min() > 0:
        is_whole = bool((points == np.round(points)).all())
        axes.set_xscale("log")
        mark_log(axes.xaxis, points.max() / points.min())
        axes.xaxis.set_major_formatter(lambda point, _: _point_text(point, is_whole=is_whole))


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
