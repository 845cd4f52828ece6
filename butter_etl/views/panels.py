"""Parts of pictures: figures and their panels, scales and titles, and the rows that belong into a panel or a curve."""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from butter_etl.studies import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Curves in one figure, at most: more cannot be told apart.
MOST_CURVES: Final = 12
#: Panels in one figure, at most, and side by side.
MOST_PANELS: Final = 6
_PANELS_A_LINE: Final = 3
_TITLE_LETTERS: Final = 70
#: Above so large a span, marks at powers of ten are enough.
_MANY_DECADES: Final = 1e4


class Style(msgspec.Struct, frozen=True):
    """Size of a figure in inches, and of its letters in points."""

    width: float = 6.4
    height: float = 4.2
    letters: float = 9.0


DEFAULT_STYLE: Final = Style()


def incomparable(study: Study, table: pa.Table) -> list[str]:
    """Return the columns that values can only be compared within, and in which the rows of a table differ."""
    there = [name for name in study.figures.comparable if name in table.column_names]
    return [name for name in there if len(table[name].unique()) > 1]


def new_figure(style: Style, panels: int = 1) -> tuple[Figure, list[Axes]]:
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


def wrapped(*lines: str) -> str:
    """Return lines as a title has them."""
    return "\n".join(part for line in lines for part in textwrap.wrap(line, _TITLE_LETTERS))


def set_title(axes: Axes, *lines: str) -> None:
    """Give a panel its title."""
    axes.set_title(wrapped(*lines), loc="left", fontsize="medium")


def shades(count: int) -> list[Any]:
    """Return as many colours, from dark to light."""
    from matplotlib import colormaps

    return [colormaps["cividis"](position) for position in np.linspace(0.0, 0.88, max(count, 1))][:count]


def mark_log(axis: Axis, span: float) -> None:
    """Give an axis on a log scale, from one end to the other so many times as large, enough marks with words."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0,) if span > _MANY_DECADES else (1.0, 2.0, 5.0)))
    axis.set_minor_formatter(NullFormatter())


def common_title(study: Study, table: pa.Table, without: Collection[str]) -> str:
    """Return what all rows have in common, of the parameters that name an experiment."""
    parts = []
    for name in study.figures.title:
        if name in without or name not in table.column_names:
            continue
        values = set(table[name].to_pylist())
        if len(values) == 1:
            (value,) = values
            words = name.replace("_", " ")
            parts.append(str(value) if name in study.figures.names else f"{words} {value_text(value)}")
    return ", ".join(parts)


def value_text(value: object) -> str:
    """Return a value of a parameter as a picture says it."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "-".join(map(value_text, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def size_text(value: object) -> str:
    """Return a value along a map, powers of two as such."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return value_text(value)
    power = value.bit_length() - 1
    return f"$2^{{{power}}}$" if value == 1 << power else f"{value:,}"
