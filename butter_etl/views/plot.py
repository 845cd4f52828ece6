"""Pictures of a summary or run frame, as matplotlib figures: for papers in vector form, for notes as PNG.

Every function takes an Arrow table, so it works on a store, an export, or any part of either::

    from butter_etl import plot
    figure = plot.learning_curves(plot.summary_table("store", where=["dataset=digits"]), by="size")
    figure.savefig("curves.pdf")

Colours run from dark to light along one scale (cividis), so they keep their order in grey and for the colour-blind.
"""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.errors import UsageError, suggestion
from butter_etl.store import write_whole
from butter_etl.studies import HISTORY_OF, WHERE_KEYS, Choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: The label of each series on an axis; losses are in the units of the loss function.
LABELS: Final = {
    "test_loss": "test loss",
    "train_loss": "training loss",
    "test_accuracy": "test accuracy",
    "train_accuracy": "training accuracy",
    "test_mean_squared_error": "test mean squared error",
    "train_mean_squared_error": "training mean squared error",
    "test_kullback_leibler_divergence": "test Kullback-Leibler divergence",
    "train_kullback_leibler_divergence": "training Kullback-Leibler divergence",
}
#: Curves in one figure, at most: more cannot be told apart.
MOST_CURVES: Final = 12
_FORMATS: Final = (".pdf", ".png", ".svg")
_PNG_DOTS: Final = 160
_TITLE_LETTERS: Final = 70


class Style(msgspec.Struct, frozen=True):
    """Size of a figure in inches, and of its letters in points."""

    width: float = 6.4
    height: float = 4.2
    letters: float = 9.0


DEFAULT_STYLE: Final = Style()


def summary_table(store: str | os.PathLike[str], where: Iterable[str] = ()) -> pa.Table:
    """Return the summary frame of a store, or of an exported summary, as one Arrow table.

    ``where`` is as for `read_summary`.
    """
    from butter_etl.store import COMMON_METADATA, Location, read_export, read_summary, to_arrow
    from butter_etl.studies import SUMMARY_SCHEMA

    is_export = Location(store).kind(COMMON_METADATA) == pa.fs.FileType.File
    frame = (read_export if is_export else read_summary)(store, where=where)
    return to_arrow(frame.compute(scheduler="synchronous"), SUMMARY_SCHEMA)


def selected(
    store: str | os.PathLike[str], choice: Choice, state: str | None = None, *, runs: bool = False
) -> pa.Table:
    """Return the rows of a choice (SELECT of the commands) in a store's summary frame, or run frame.

    Raises what `Registry.select` and `read_summary` or `read_runs` raise.
    """
    from butter_etl.store import Registry, Store, read_runs, read_summary, to_arrow
    from butter_etl.studies import RUN_SCHEMA, SUMMARY_SCHEMA

    registry = Registry(Store.open(store, state))
    selection = registry.select(choice)
    read, schema = (read_runs, RUN_SCHEMA) if runs else (read_summary, SUMMARY_SCHEMA)
    table = to_arrow(read(store, where=choice.where).compute(scheduler="synchronous"), schema)
    if not selection.sweeps:
        return table
    ids = [one for one in table["experiment_id"].unique().to_pylist() if selection.matches(registry.experiment(one))]
    return table.filter(pc.is_in(table["experiment_id"], pa.array(ids, pa.uint32())))


# --- figures -----------------------------------------------------------------------------------------------------


def learning_curves(
    summary: pa.Table, *, by: str | None = None, series: str = "test_loss", style: Style = DEFAULT_STYLE
) -> Figure:
    """Draw the median over repetitions at each epoch, with the band between the quartiles; epochs on a log scale.

    There is one curve for each value of ``by`` (any parameter). Where several experiments share a value, the curve is
    that of the experiment whose median ends lowest (for accuracies: highest), as the legend then says. Raises
    UsageError for an unknown series or parameter, or where there is nothing to draw.
    """
    _check_series(series)
    groups = _groups(summary, by)
    figure, axes = _figure(style)
    for (value, rows), colour in zip(groups, _colours(len(groups)), strict=True):
        row = _best_row(rows, series)
        median, low, high = (_curve(rows, f"{series}_{name}", row) for name in ("median", "q1", "q3"))
        epochs = np.arange(1, len(median) + 1)
        several = f" (best of {rows.num_rows})" if rows.num_rows > 1 else ""
        label = f"{_value_text(value)}{several}" if by else None
        axes.fill_between(epochs, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(epochs, median, color=colour, linewidth=1.4, label=label)
    _finish_curves(axes, series)
    if by:
        axes.legend(title=by.replace("_", " "), frameon=False)
    _set_title(axes, _common_title(summary, by), "median and quartiles over repetitions")
    return figure


def size_depth_map(summary: pa.Table, *, series: str = "test_loss", style: Style = DEFAULT_STYLE) -> Figure:
    """Draw the best value that the median over repetitions reaches at any epoch, by size and depth, as a heat map.

    Where experiments differ in other parameters too, a cell shows the best of them. Raises UsageError for an unknown
    series, or where there is nothing to draw.
    """
    _check_series(series)
    best = _best_of_rows(summary, series)
    sizes, depths = (sorted(set(summary[name].to_pylist())) for name in ("size", "depth"))
    cells = np.full((len(depths), len(sizes)), np.nan)
    better = np.fmax if _is_accuracy(series) else np.fmin
    for value, size, depth in zip(best, summary["size"].to_pylist(), summary["depth"].to_pylist(), strict=True):
        at = depths.index(depth), sizes.index(size)
        cells[at] = better(cells[at], value)
    if np.isnan(cells).all():
        raise UsageError("nothing to draw: the selection has no summaries with finite values")
    figure, axes = _figure(style)
    image = axes.imshow(cells, aspect="auto", origin="lower", cmap="cividis" if _is_accuracy(series) else "cividis_r")
    axes.set_xticks(range(len(sizes)), [_size_text(size) for size in sizes])
    axes.set_yticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set_xlabel("size (parameters)")
    axes.set_ylabel("depth (layers)")
    _annotate(axes, cells, image)
    figure.colorbar(image, ax=axes, label=f"best median {LABELS[series]}")
    _set_title(axes, _common_title(summary, None, without=("size", "depth")))
    return figure


def repetitions(runs: pa.Table, *, series: str = "test_loss", style: Style = DEFAULT_STYLE) -> Figure:
    """Draw the curve of every repetition of one experiment, from rows of the run frame; epochs on a log scale.

    Raises UsageError for an unknown series, or where the rows are of none or of several experiments.
    """
    _check_series(series)
    experiments = len(runs["experiment_id"].unique())
    if experiments != 1:
        raise UsageError(f"a picture of repetitions is of one experiment; the selection has {experiments}")
    history = HISTORY_OF[series]
    figure, axes = _figure(style)
    ordered = runs.sort_by("repetition")
    for row, colour in enumerate(_colours(ordered.num_rows)):
        curve = _curve(ordered, history, row)
        axes.plot(np.arange(1, len(curve) + 1), curve, color=colour, linewidth=0.8, alpha=0.9)
    _finish_curves(axes, series)
    _set_title(axes, _common_title(ordered, None), f"{ordered.num_rows} repetitions")
    return figure


def save(figure: Figure, file: str | os.PathLike[str]) -> None:
    """Write a figure in the format that the file's name ends in: ``.pdf``, ``.png`` or ``.svg``.

    Raises UsageError for another format, PlaceError or FullDiskError if the file cannot be written.
    """
    path = Path(file)
    if path.suffix not in _FORMATS:
        raise UsageError(f"{path}: pictures end in one of {', '.join(_FORMATS)}")
    drawn = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(drawn, format=path.suffix.removeprefix("."), dpi=_PNG_DOTS, metadata=metadata)
    write_whole(path, drawn.getvalue())


# --- parts -------------------------------------------------------------------------------------------------------


def _check_series(series: str) -> None:
    if series not in HISTORY_OF:
        raise UsageError(f"unknown series {series!r}{suggestion(series, HISTORY_OF)}; known: {', '.join(HISTORY_OF)}")


def _is_accuracy(series: str) -> bool:
    return series.endswith("accuracy")


def _groups(summary: pa.Table, by: str | None) -> list[tuple[Any, pa.Table]]:
    """Return the rows of each value of a parameter, values in order, null first."""
    if summary.num_rows == 0:
        raise UsageError("nothing to draw: the selection has no summaries; run `butter-etl summarize`, or select more")
    if by is None:
        return [(None, summary)]
    if by not in WHERE_KEYS:
        raise UsageError(f"unknown parameter {by!r}{suggestion(by, WHERE_KEYS)}; known: {', '.join(WHERE_KEYS)}")
    values = sorted(set(summary[by].to_pylist()), key=lambda value: (value is not None, value))
    if len(values) > MOST_CURVES:
        raise UsageError(f"{by} has {len(values)} values in the selection, more than {MOST_CURVES} curves; select less")
    return [(value, summary.filter(_equals(summary[by], value))) for value in values]


def _equals(column: pa.ChunkedArray, value: Any) -> pa.ChunkedArray:
    return pc.is_null(column) if value is None else pc.equal(column, pa.scalar(value, column.type))


def _curve(table: pa.Table, column: str, row: int) -> NDArray[np.float64]:
    """Return one list of a list column; nulls are NaN."""
    values = table[column][row].as_py() or []
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _best_of_rows(summary: pa.Table, series: str) -> NDArray[np.float64]:
    """Return the best finite value of each row's median; NaN for rows without one."""
    best: Callable[[NDArray[np.float64]], float] = np.max if _is_accuracy(series) else np.min
    found = np.full(summary.num_rows, np.nan)
    for row in range(summary.num_rows):
        curve = _curve(summary, f"{series}_median", row)
        finite = curve[np.isfinite(curve)]
        if len(finite):
            found[row] = best(finite)
    return found


def _best_row(rows: pa.Table, series: str) -> int:
    """Return the row whose median ends best; the first one where none has a finite end."""
    ends = []
    for row in range(rows.num_rows):
        curve = _curve(rows, f"{series}_median", row)
        finite = curve[np.isfinite(curve)]
        end = finite[-1] if len(finite) else np.nan
        ends.append(-end if _is_accuracy(series) else end)
    return 0 if np.isnan(ends).all() else int(np.nanargmin(ends))


def _figure(style: Style) -> tuple[Figure, Axes]:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: it keeps figures, and looks for a screen.
    with rc_context({"font.size": style.letters, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(style.width, style.height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
    return figure, axes


def _set_title(axes: Axes, *lines: str) -> None:
    wrapped = [part for line in lines for part in textwrap.wrap(line, _TITLE_LETTERS)]
    axes.set_title("\n".join(wrapped), loc="left", fontsize="medium")


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["cividis"](position) for position in np.linspace(0.0, 0.88, max(count, 1))][:count]


def _finish_curves(axes: Axes, series: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda epoch, _: f"{epoch:,.0f}" if epoch >= 1 else "")
    axes.set_xlabel("epoch")
    axes.set_ylabel(LABELS[series])
    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.5)
    low, high = axes.get_ylim()
    if not _is_accuracy(series) and low > 0 and high / low > 20:
        axes.set_yscale("log")


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


def _common_title(table: pa.Table, by: str | None, without: Sequence[str] = ()) -> str:
    """Return what all rows have in common, of the parameters that name an experiment."""
    parts = []
    for name in ("dataset", "shape", "size", "depth", "learning_rate", "batch_size"):
        if name == by or name in without or name not in table.column_names:
            continue
        values = set(table[name].to_pylist())
        if len(values) == 1:
            (value,) = values
            words = name.replace("_", " ")
            parts.append(str(value) if name in ("dataset", "shape") else f"{words} {_value_text(value)}")
    return ", ".join(parts)


def _value_text(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _size_text(size: int) -> str:
    power = size.bit_length() - 1
    return f"$2^{{{power}}}$" if size == 1 << power else f"{size:,}"
