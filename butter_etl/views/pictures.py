"""What `butter-etl plot` draws, as a value that a notebook shows as a picture and that can be written to a file."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, get_args

from butter_etl.errors import StaleSummaryWarning, UsageError, suggestion
from butter_etl.store import Registry, Store, StudyLike
from butter_etl.studies import Choice, Drawing, Spread, Study
from butter_etl.views.drawings import draw
from butter_etl.views.facts import stale_line
from butter_etl.views.panels import DEFAULT_STYLE, Style
from butter_etl.views.plot import (
    Interval,
    best_map,
    learning_curves,
    network,
    repetitions,
    save,
    selected,
    series_of,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

#: What every study can be drawn as: learning curves, the best value by two parameters, all repetitions of one
#: experiment, the layers of its network.
KINDS: Final = ("curves", "map", "runs", "network")
#: Dots of a picture in a notebook for each point of its width there: sharp on fine screens too.
_DOTS_A_POINT: Final = 2
_NOTEBOOK_DOTS: Final = 100


@dataclass(frozen=True)
class Picture:
    """A picture of what a store holds; a notebook shows it, without any setting.

    ``figure`` is matplotlib's. ``stale`` says which of the summaries that it shows miss runs; None where none does.
    """

    figure: Figure = field(repr=False)
    kind: str = "curves"
    stale: str | None = None

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write it in the format that the file's name ends in: ``.pdf``, ``.png`` or ``.svg``.

        Raises UsageError for another format, PlaceError or FullDiskError if the file cannot be written.
        """
        save(self.figure, file)

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """Return it as a notebook shows it, and how many points wide and high it is there."""
        drawn = io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=_DOTS_A_POINT * _NOTEBOOK_DOTS)
        width, height = (round(inches * _NOTEBOOK_DOTS) for inches in self.figure.get_size_inches())
        return drawn.getvalue(), {"width": width, "height": height}


def draw_picture(
    store: str | os.PathLike[str],
    choice: Choice,
    *,
    kind: str = "curves",
    by: str | None = None,
    series: str | None = None,
    interval: Interval | None = None,
    level: float = 0.95,
    style: Style = DEFAULT_STYLE,
    state: str | None = None,
    study: StudyLike | None = None,
) -> Picture:
    """Draw a choice of what a store holds, in a general kind or one that its study declares.

    With an ``interval``, curves have those of a confidence ``level`` around their medians.
    Raises UsageError for an unknown kind, or what does not go with it, and what `selected` and the function of that
    kind raise.
    """
    opened = Store.open(store, state, study)
    drawing = _drawing(opened.study, kind, by, series)
    if interval is not None:
        return _with_intervals(opened, choice, interval, level, by=by, series=series, style=style)
    is_of_runs = kind == "runs" or isinstance(drawing, Spread)
    rows = selected(store, choice, state, runs=is_of_runs, study=opened.study)
    if drawing is not None:
        stale = None if is_of_runs else stale_line(opened, Registry(opened).select(choice))
        return Picture(draw(opened.study, drawing, rows, by=by, style=style), kind, stale)
    if kind == "runs":
        return Picture(repetitions(rows, series=series, style=style, study=opened.study), kind)
    if kind == "network":
        return Picture(_network(opened, rows, style), kind)
    if kind == "map":
        figure = best_map(rows, series=series, style=style, study=opened.study)
    else:
        figure = learning_curves(rows, by=by, series=series, style=style, study=opened.study)
    return Picture(figure, kind, stale_line(opened, Registry(opened).select(choice)))


def _network(store: Store, rows: pa.Table, style: Style) -> Figure:
    """Draw the network of one experiment, of which there is a summary."""
    drawn = store.study.figures.boxes
    if drawn is None:
        raise UsageError(f"the study {store.study.name} does not say what its networks look like")
    if rows.num_rows != 1:
        raise UsageError(f"a picture of a network is of one experiment; the selection has {rows.num_rows}")
    (row,) = rows.to_pylist()
    one = Registry(store).experiment(row["experiment_id"])
    return network(drawn(one, row), title=one.describe(), style=style)


def _drawing(study: Study, kind: str, by: str | None, series: str | None) -> Drawing | None:
    """Return what a study declares of a kind, None of a general one; raise UsageError for what goes with no such."""
    known = (*KINDS, *study.figures.drawings)
    if kind not in known:
        raise UsageError(f"unknown kind {kind!r}{suggestion(kind, known)}; known: {', '.join(known)}")
    drawing = study.figures.drawings.get(kind)
    if drawing is None and by is not None and kind != "curves":
        raise UsageError(f"--by goes with --kind curves, not with {kind}")
    if drawing is not None and series is not None:
        raise UsageError(f"--series goes with {', '.join(KINDS)}: {kind} is always of {drawing.column}")
    return drawing


def _with_intervals(
    store: Store, choice: Choice, interval: Interval, level: float, *, by: str | None, series: str | None, style: Style
) -> Picture:
    name, known = series_of(store.study, series), store.study.intervals.names
    if name not in known:
        raise UsageError(
            f"the study {store.study.name} has intervals of {', '.join(known) or 'nothing'}, not of {name}"
        )
    store.study.precision_frame(level)  # whether it is a level
    rows = selected(store.location.absolute, choice, level=level, study=store.study)
    if not rows.num_rows:
        command = f"butter-etl summarize --precision --level {level:.6g}"
        raise UsageError(f"nothing to draw: the selection has no intervals at {level:.6g}; run `{command}`")
    figure = learning_curves(rows, by=by, series=series, interval=interval, style=style, study=store.study)
    return Picture(figure, "curves", stale_line(store, Registry(store).select(choice), level))


def draw_plot(
    store: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    kind: str = "curves",
    by: str | None = None,
    series: str | None = None,
    interval: Interval | None = None,
    level: float = 0.95,
    sweep: str | None = None,
    spec: str | os.PathLike[str] | None = None,
    where: Iterable[str] = (),
    style: Style = DEFAULT_STYLE,
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
) -> Picture:
    """Draw a part of a store, as ``butter-etl plot`` does; a notebook shows what is returned as a picture.

    The part is a sweep, published or registered or of a YAML file ``spec``, or experiments that meet conditions (as in
    `read_runs`); without any, all. ``kind`` is ``"curves"`` (medians with quartiles, one for each value of ``by``),
    ``"map"`` (the best value by two parameters), ``"runs"`` (all repetitions of one experiment), ``"network"`` (the
    layers of its network), or a picture that the study declares. With ``interval``, curves have in place of quartiles
    the confidence intervals for their medians at a ``level``: ``"each"`` at each point, or the ``"band"`` that covers
    all at once. With ``out``, it is written to that file too (.png, .pdf, .svg). Warns (StaleSummaryWarning) where
    summaries miss runs. Raises UsageError where nothing can be drawn, SelectError, StoreError, and PlaceError or
    FullDiskError where ``out`` cannot be written.
    """
    for what, value in (("by", by), ("interval", interval)):
        if value is not None and kind in KINDS and kind != "curves":
            raise UsageError(f"{what}={value!r} goes with curves, not with kind={kind!r}")
    if interval not in (None, *get_args(Interval)):
        raise UsageError(f"unknown interval {interval!r}; known: {', '.join(get_args(Interval))}")
    choice = Choice(sweeps=(sweep,) if sweep else (), specs=(str(spec),) if spec else (), where=tuple(where))
    picture = draw_picture(
        store,
        choice,
        kind=kind,
        by=by,
        series=series,
        interval=interval,
        level=level,
        style=style,
        state=None if state is None else str(state),
        study=study,
    )
    if picture.stale is not None:
        warnings.warn(f"{store}: {picture.stale}", StaleSummaryWarning, stacklevel=2)
    if out is not None:
        picture.save(out)
    return picture
