"""Pictures that a study declares: values along a parameter, lists over runs, and the spread of runs.

Each is of the rows of a selection. What can only be compared within some columns is drawn in panels of its own; only
the parameter that a picture is along may differ between what is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.errors import UsageError, counted
from butter_etl.studies import Along, Drawing, OverRuns, Spread, Study, groups_of, in_order
from butter_etl.views.panels import (
    DEFAULT_STYLE,
    MOST_CURVES,
    MOST_PANELS,
    Style,
    common_title,
    incomparable,
    mark_log,
    new_figure,
    shades,
    value_text,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Float64s = NDArray[np.float64]

#: From so large a span on, values are on a log scale.
_LOG_SPAN: Final = 5
#: How far the points of runs lie apart, and how broad the box of their quartiles is, of the room for one group.
_SCATTER: Final = 0.5
_BOX: Final = 0.6
_MOST_POINTS: Final = 2000


def draw(
    study: Study, drawing: Drawing, rows: pa.Table, *, by: str | None = None, style: Style = DEFAULT_STYLE
) -> Figure:
    """Draw a declared picture of rows of the summary frame, or of the run frame where it is a `Spread`.

    ``by`` is another parameter for the curves; if it is that of the panels, the two change places. Raises UsageError
    for a parameter that is none, or where there is nothing to draw, or too much.
    """
    curves, apart = _parameters(study, drawing, by)
    along = drawing.along if isinstance(drawing, Along) else None
    rows = _telling(drawing, rows)
    panels = _panels(study, rows, curves, apart, along)
    figure, places = new_figure(style, len(panels))
    colours = dict(zip(values := _values(rows, curves), shades(len(values)), strict=True))
    several = [_draw(axes, drawing, panel, colours) for axes, panel in zip(places, panels, strict=True)]
    _finish(places, panels, drawing)
    lines = [common_title(study, rows, [curves, *([along] if along else [])]), drawing.note]
    if any(several):
        lines.append(f"of several experiments the one that is {'highest' if drawing.higher_is_better else 'lowest'}")
    figure.suptitle(wrapped(*filter(None, lines)), x=0.01, ha="left", fontsize="medium")
    if not isinstance(drawing, Spread):
        _legend(figure, places, study.figures.word(curves), map(value_text, colours))
    return figure


# --- panels ------------------------------------------------------------------------------------------------------


class _Panel(NamedTuple):
    """The rows of a panel: what they have in common, and those of each curve."""

    title: str
    curves: list[tuple[Any, pa.Table]]


def _parameters(study: Study, drawing: Drawing, by: str | None) -> tuple[str, str]:
    """Return the parameters of curves and of panels."""
    if by is None or by == drawing.by:
        return drawing.by, drawing.apart
    if by not in study.where_keys:
        raise UsageError(f"unknown parameter {by!r}; known: {', '.join(study.where_keys)}")
    return by, drawing.by if by == drawing.apart else drawing.apart


def _telling(drawing: Drawing, rows: pa.Table) -> pa.Table:
    """Return the rows that have something to draw; raise UsageError if there are none."""
    if rows.num_rows == 0:
        raise UsageError("nothing to draw: the selection has no summaries; run `butter-etl summarize`, or select more")
    if drawing.column not in rows.column_names:
        raise UsageError(f"nothing to draw: there is no column {drawing.column!r}")
    column = rows[drawing.column]
    is_there = pc.is_finite(column) if isinstance(drawing, Along) else pc.is_valid(column)
    found = rows.filter(pc.fill_null(is_there, False))
    if found.num_rows == 0:
        raise UsageError(f"nothing to draw: {drawing.column} is nowhere known in the selection")
    return found


def _panels(study: Study, rows: pa.Table, curves: str, apart: str, along: str | None) -> list[_Panel]:
    keys = [*(name for name in incomparable(study, rows) if name not in (curves, along)), apart]
    panels = []
    for values, some in groups_of(rows, list(dict.fromkeys(keys))):
        named = zip(keys, values, strict=True)
        words = ", ".join(_named(study, name, value) for name, value in named)
        panels.append(_Panel(words, [(value, own) for (value,), own in groups_of(some, [curves])]))
    if len(panels) > MOST_PANELS:
        raise UsageError(
            f"the selection has {len(panels)} combinations of {', '.join(keys)}, more than {MOST_PANELS} panels; "
            f"select less, such as one {keys[0]}"
        )
    most = max(len(panel.curves) for panel in panels)
    if most > MOST_CURVES:
        raise UsageError(f"{curves} has {most} values in the selection, more than {MOST_CURVES} curves; select less")
    return panels


def _named(study: Study, name: str, value: Any) -> str:
    """Return a value of a parameter with its word, where it does not speak for itself."""
    text = value_text(value)
    return text if name in study.figures.names else f"{study.figures.word(name)} {text}"


def _values(rows: pa.Table, name: str) -> list[Any]:
    return in_order(rows[name].to_pylist())


def _finish(places: Sequence[Axes], panels: Sequence[_Panel], drawing: Drawing) -> None:
    """Give panels their titles and the scale that all of them have; raise UsageError if nothing was drawn in any."""
    drawn = [axes.dataLim.intervaly for axes in places if axes.has_data()]
    finite = [one for one in drawn if np.isfinite(one).all()]
    if not finite:
        raise UsageError("nothing to draw: the selection has no finite values")
    low, high = min(one[0] for one in finite), max(one[1] for one in finite)
    for axes, panel in zip(places, panels, strict=True):
        axes.set_title(panel.title, loc="left", fontsize="medium")
        axes.set_ylabel(drawing.label)
        axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.5)
        if low > 0 and high / low > _LOG_SPAN:
            axes.set_yscale("log")
            axes.set_ylim(low / 1.2, high * 1.2)
            mark_log(axes.yaxis, high / low)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        else:
            room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
            axes.set_ylim(low - room, high + room)


def _legend(figure: Figure, places: Sequence[Axes], title: str, ordered: Iterable[str]) -> None:
    """Say once what the curves of all panels are."""
    said: dict[str, Any] = {}
    for axes in places:
        handles, labels = axes.get_legend_handles_labels()
        said |= dict(zip(labels, handles, strict=True))
    shown = {label: said[label] for label in ordered if label in said}
    figure.legend(shown.values(), shown.keys(), title=title, frameon=False, loc="outside right upper")


# --- what is drawn -----------------------------------------------------------------------------------------------


def _draw(axes: Axes, drawing: Drawing, panel: _Panel, colours: Mapping[Any, Any]) -> bool:
    """Draw a panel; tell whether of several experiments only the best is to be seen."""
    match drawing:
        case Along():
            return _draw_along(axes, drawing, panel, colours)
        case OverRuns():
            return _draw_over_runs(axes, drawing, panel, colours)
        case Spread():
            return _draw_spread(axes, drawing, panel, colours)
        case _:
            raise AssertionError(drawing)


def _draw_along(axes: Axes, drawing: Along, panel: _Panel, colours: Mapping[Any, Any]) -> bool:
    """Draw a value along a parameter; tell whether several experiments share a place."""
    is_shared, drawn = False, []
    for value, rows in panel.curves:
        points = _best_at(rows, drawing)
        is_shared = is_shared or len(points) < len(_known(rows, drawing))
        if points:
            axes.plot(
                *zip(*points, strict=True),
                "o-",
                color=colours[value],
                markersize=3.5,
                linewidth=1.3,
                label=value_text(value),
            )
            drawn += [place for place, _ in points]
    _mark_places(axes, drawing.words, in_order(drawn))
    return is_shared


def _known(rows: pa.Table, drawing: Along) -> list[tuple[Any, float]]:
    pairs = zip(rows[drawing.along].to_pylist(), rows[drawing.column].to_pylist(), strict=True)
    return [(place, value) for place, value in pairs if place is not None]


def _best_at(rows: pa.Table, drawing: Along) -> list[tuple[Any, float]]:
    """Return the best value at each place, in order."""
    best = max if drawing.higher_is_better else min
    found: dict[Any, float] = {}
    for place, value in _known(rows, drawing):
        found[place] = best(found.get(place, value), value)
    return sorted(found.items())


def _mark_places(axes: Axes, words: str, places: Sequence[float]) -> None:
    axes.set_xlabel(words)
    if places and places[0] > 0 and places[-1] > places[0]:
        axes.set_xscale("log")
        mark_log(axes.xaxis, places[-1] / places[0])
        axes.xaxis.set_major_formatter(lambda place, _: _short(place))


def _short(number: float) -> str:
    """Return a number as a mark has it: 10k, 1.28M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _draw_over_runs(axes: Axes, drawing: OverRuns, panel: _Panel, colours: Mapping[Any, Any]) -> bool:
    """Draw a list over runs; of several experiments that share a curve, the one whose list ends best."""
    is_shared = False
    for value, rows in panel.curves:
        lists = [
            np.array([np.nan if one is None else one for one in some or ()])
            for some in rows[drawing.column].to_pylist()
        ]
        ends = [_end(one, drawing) for one in lists]
        is_shared = is_shared or len(lists) > 1
        list_ = lists[int(np.argmin(ends))]
        if np.isfinite(list_).any():
            runs = np.arange(1, list_.size + 1)
            style = "o" if list_.size == 1 else "-"
            axes.plot(
                runs, list_, style, color=colours[value], linewidth=1.3, drawstyle="steps-post", label=value_text(value)
            )
    _mark_places(axes, drawing.words, [*axes.dataLim.intervalx] if axes.has_data() else [])
    return is_shared


def _end(values: Float64s, drawing: Drawing) -> float:
    """Return the last finite value, the less the better; infinite where there is none."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float("inf")
    return float(-finite[-1] if drawing.higher_is_better else finite[-1])


def _draw_spread(axes: Axes, drawing: Spread, panel: _Panel, colours: Mapping[Any, Any]) -> bool:
    """Draw the quartiles of runs with the runs themselves; values that are not finite are counted as the worst."""
    labels = []
    for place, (value, rows) in enumerate(panel.curves):
        ends = np.array([_last(one) for one in rows[drawing.column].to_pylist()])
        finite = np.sort(ends[np.isfinite(ends)])
        share = 1 - finite.size / ends.size
        labels.append(
            "\n".join([value_text(value), *_of_several(rows), counted(ends.size, "run"), f"{share:.1%}", "not finite"])
        )
        for low, high in _box(ends, finite, drawing):
            axes.bar(place, high - low, _BOX, low, color=colours[value], alpha=0.25, linewidth=0)
        for middle in _quantile(ends, finite, 0.5, drawing):
            axes.hlines(middle, place - _BOX / 2, place + _BOX / 2, color=colours[value], linewidth=2)
        shown = finite[:: -(-finite.size // _MOST_POINTS) or 1]
        beside = place + _SCATTER * (np.modf(np.arange(shown.size) * 0.618034)[0] - 0.5)
        axes.plot(beside, shown, ".", color=colours[value], markersize=2.5, alpha=0.6)
    axes.set_xticks(range(len(labels)), labels, fontsize="x-small")
    return False


def _of_several(rows: pa.Table) -> Iterator[str]:
    """Yield of how many experiments runs are, if these are several."""
    experiments = len(rows["experiment_id"].unique())
    if experiments > 1:
        yield counted(experiments, "experiment")


def _last(values: Iterable[float | None] | None) -> float:
    last = [*(values or ())][-1:]
    return float("nan") if not last or last[0] is None else last[0]


def _quantile(ends: Float64s, finite: Float64s, fraction: float, drawing: Drawing) -> Iterator[float]:
    """Yield the quantile of all runs, those that are not finite ranked the worst; nothing where it reaches these."""
    lost = ends.size - finite.size
    place = fraction * (ends.size - 1) - (lost if drawing.higher_is_better else 0)
    if 0 <= place <= finite.size - 1:
        yield float(np.interp(place, np.arange(finite.size), finite))


def _box(ends: Float64s, finite: Float64s, drawing: Drawing) -> Iterator[tuple[float, float]]:
    """Yield the quartiles; in place of one that is not finite, the worst of the finite values."""
    if finite.size:
        first = next(_quantile(ends, finite, 0.25, drawing), float(finite[0 if drawing.higher_is_better else -1]))
        third = next(_quantile(ends, finite, 0.75, drawing), float(finite[0 if drawing.higher_is_better else -1]))
        yield first, third
