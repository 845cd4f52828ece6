"""Two settings of a store side by side: the difference of their medians, as a table, in words, and drawn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from butter_etl.errors import SelectError, UsageError, counted
from butter_etl.store import Store, StudyLike, read_runs, to_arrow
from butter_etl.studies import Study, compare_runs
from butter_etl.views.curves import FORMATS as TABLES
from butter_etl.views.curves import write_curves
from butter_etl.views.panels import DEFAULT_STYLE, Style, incomparable
from butter_etl.views.plot import PICTURES, difference_figure, points_of, save, series_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: So many measuring points are shown on a terminal, evenly spaced on a log scale.
_SHOWN: Final = 8


@dataclass(frozen=True)
class Comparison:
    """The difference of medians between two settings, with its intervals at a ``level``; ``table`` has all of it.

    Its rows are those of `compare_runs`, with the measuring point in place of its position.
    """

    series: str
    level: float
    a: str
    b: str
    table: pa.Table = field(repr=False)
    study: Study = field(repr=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the head of what a terminal shows."""
        return (self.study.points.name, "a", "b", "a - b", "from", "to", "apart", "runs")

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """Return what a terminal shows: some of the points, the last one, and each run's own best value."""
        rows = self.table.to_pylist()
        points = [row for row in rows if row["at"] == self.study.points.name]
        shown = np.unique(np.round(np.geomspace(1, max(len(points), 1), _SHOWN)).astype(int)) - 1
        kept = [points[place] for place in shown if place < len(points)]
        return [self._shown(row) for row in (*kept, *rows[len(points) :])]

    def _shown(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        name = self.study.points.name
        at = f"{row[name]:g}" if row["at"] == name else row["at"]
        numbers = (_number(row[one]) for one in ("median_a", "median_b", "difference", "low", "high"))
        apart = {True: "yes", False: "no", None: ""}[_is_apart(row)]
        return at, *numbers, apart, ">10,000" if row["runs_apart"] is None else f"{row['runs_apart']:,}"

    @property
    def lines(self) -> Iterator[str]:
        """Yield how the table is to be read."""
        end = next(row for row in self.table.to_pylist() if row["at"] == "end")
        yield f"a: {self.a} ({counted(end['runs_a'], 'run')})"
        yield f"b: {self.b} ({counted(end['runs_b'], 'run')})"
        yield f"medians of {self.study.figures.label(self.series)}; each interval by itself holds at {self.level:.6g}"
        yield "runs: about how many of each would tell the two apart"

    def figure(self, style: Style = DEFAULT_STYLE) -> Figure:
        """Return the difference at each point, with its intervals and the band over all points, as a picture."""
        return difference_figure(self.table, self.study, self.series, self.level, (self.a, self.b), style)

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write it as the file's name ends: the table as ``.csv`` or ``.parquet``, a picture as .pdf, .png or .svg.

        Raises UsageError for another format, PlaceError or FullDiskError if the file cannot be written.
        """
        ending = os.path.splitext(os.fspath(file))[1]  # noqa: PTH122 (of a name, not of a file)
        if ending in TABLES:
            write_curves(self.table, file)
        elif ending in PICTURES:
            save(self.figure(), file)
        else:
            raise UsageError(f"{file}: comparisons are written to {', '.join((*TABLES, *PICTURES))}")

    def _repr_html_(self) -> str:
        """Return the table as a notebook shows it."""
        from butter_etl.errors import html_table

        return html_table(self.rows, self.columns)


def compare(
    store: str | os.PathLike[str],
    a: str | Sequence[str],
    b: str | Sequence[str],
    *,
    where: Iterable[str] = (),
    series: str | None = None,
    level: float = 0.95,
    study: StudyLike | None = None,
) -> Comparison:
    """Compare two settings of a store: the difference of their medians at each point, at the end, and of best values.

    ``a`` and ``b`` are conditions as in `read_runs`, one or several, each of which with those of ``where`` chooses one
    experiment. Intervals hold for every distribution of runs. Raises SelectError where not just one is chosen, or where
    the two cannot be compared, SpecError for a level that is none, UsageError for an unknown series.
    """
    opened = Store.open(store, study=study)
    of, name = opened.study, series_of(opened.study, series)
    common = list(where)
    sides = [_side(opened, side, [*common, *_listed(conditions)]) for side, conditions in (("a", a), ("b", b))]
    both = pa.concat_tables([runs.select(list(of.experiment_columns)) for runs in sides])
    for column in incomparable(of, both):
        raise SelectError(f"a and b differ in {column}, between which {name} cannot be compared")
    label_a, label_b = _labels(of, *(runs.slice(0, 1) for runs in sides))
    table = compare_runs(of, sides[0], sides[1], name, level)
    return Comparison(name, level, label_a, label_b, _with_points(of, table, sides[0]), of)


def _listed(conditions: str | Sequence[str]) -> list[str]:
    return [conditions] if isinstance(conditions, str) else list(conditions)


def _side(store: Store, side: str, where: list[str]) -> pa.Table:
    """Return the runs of the one experiment that conditions choose."""
    if not where:
        raise SelectError(f"--{side}: say which setting it is, such as --{side} 'depth=2'")
    frame = read_runs(store.location.absolute, where=where)
    runs = to_arrow(frame.compute(scheduler="synchronous"), store.study.runs)
    said = " ".join(f"--{side} {text!r}" for text in where)
    if not runs.num_rows:
        raise SelectError(f"{said}: {store} has no such runs")
    experiments = len(runs["experiment_id"].unique())
    if experiments > 1:
        differing = [name for name in store.study.where_keys if len(runs[name].unique()) > 1]
        raise SelectError(
            f"{said}: {experiments} experiments, which differ in {', '.join(differing) or 'their task'}; "
            "choose one by further conditions"
        )
    return runs


def _labels(study: Study, *rows: pa.Table) -> list[str]:
    """Return what each setting is called: the parameters in which they differ."""
    names = [name for name in study.where_keys if len({repr(row[name][0].as_py()) for row in rows}) > 1]
    if not names:
        return [f"experiment {row['experiment_id'][0].as_py()}" for row in rows]
    return [
        ", ".join(f"{name.replace('_', ' ')} {study.canonical(name, row[name][0].as_py())}" for name in names)
        for row in rows
    ]


def _with_points(study: Study, table: pa.Table, runs: pa.Table) -> pa.Table:
    """Return a comparison with the measuring points in place of their positions."""
    places = [place for place in table["place"].to_pylist() if place is not None]
    points = points_of(study.points, runs, _longest(study, runs), len(places))
    name = study.points.name
    column = pa.array([*points, *[None] * (table.num_rows - len(places))], pa.float64())
    at = [name if one == "point" else one for one in table["at"].to_pylist()]
    return (
        table.set_column(1, name, column)
        .set_column(0, "at", pa.array(at, pa.string()))
    )  # fmt: skip


def _longest(study: Study, runs: pa.Table) -> int:
    """Return the row of the run that has most points, which names them all."""
    lengths = [len(one or ()) for one in runs[study.reduction.counted].to_pylist()]
    return int(np.argmax(lengths))


def _number(value: float | None) -> str:
    return "" if value is None else "none" if np.isnan(value) else f"{value:.4g}"


def _is_apart(row: Mapping[str, Any]) -> bool | None:
    """Tell whether the interval leaves 0 out; None where there is no interval."""
    if row["low"] is None or row["high"] is None:
        return None
    return bool(row["low"] > 0 or row["high"] < 0)
