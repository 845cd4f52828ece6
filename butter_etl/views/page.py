"""One self-contained page about a store: what it holds, what is missing, what it cost, and its curves to look through.

`page_data` gathers everything as plain values; `write_page` puts them into the template that comes with the package.
Curves are thinned to points that are evenly spaced on a log scale and embedded as float32, so that thousands of
experiments make a page of a few megabytes. The page loads nothing. What it shows of a study is in the data.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.store import Registry, Store, write_whole
from butter_etl.studies import RUNS, Choice, Figures, Selection, Study, Sweep, float_text
from butter_etl.views.curves import thinned
from butter_etl.views.facts import stale_line, stale_text, status_facts, status_lines
from butter_etl.views.plot import numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The statistics of each series that are drawn, in this order.
STATISTICS: Final = ("median", "q1", "q3")
_TEMPLATE = Path(__file__).with_name("page.html")


def page_data(store: Store, choice: Choice) -> dict[str, Any]:
    """Return what the page shows of a selection of a store's summaries, as plain values.

    Arrays are base64 of little-endian float32.
    """
    registry, study = Registry(store), store.study
    selection = registry.select(choice)
    table = _summaries(store, choice, selection, registry)
    facts = status_facts(store, choice)
    present = store.repetitions()
    return {
        "store": store.location.address(),
        # The facts have looked at the whole store already.
        "stale": stale_text(facts["summaries"]["stale"]) if choice.is_empty else stale_line(store, selection),
        "lines": [line for line in status_lines(study, facts) if not line.startswith("failed: ")],
        "core_seconds": _core_seconds(store),
        "coverage": sorted(
            (_coverage(sweep, registry, present) for sweep in _sweeps(registry)), key=lambda one: one["runs"] == 0
        ),
        "failures": [
            {
                "experiment": failure.experiment,
                "repetitions": len(failure.repetitions),
                "error": failure.error,
                "host": failure.host,
            }
            for failure in facts["failures"]
        ],
        "filters": _filters(study, table),
        "runs": table["num_runs"].to_pylist(),
        "curves": _curves(study, table),
        **_drawing(study),
    }


def write_page(data: dict[str, Any], out: str | os.PathLike[str]) -> int:
    """Write the page of `page_data`; return its size in bytes.

    Raises PlaceError or FullDiskError if it cannot be written.
    """
    # `</` would end the script that holds the data.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    page = (
        _TEMPLATE.read_text(encoding="utf-8")
        .replace("__TITLE__", html.escape(data["store"]))
        .replace('"__DATA__"', text)
    )
    content = page.encode()
    write_whole(Path(out), content)
    return len(content)


def _drawing(study: Study) -> dict[str, Any]:
    """Return what the page says of a study, and how it draws it."""
    figures = study.figures
    along = [name for name, _ in figures.map_axes or ()]
    return {
        "labels": {name: figures.label(name) for name in _shown(figures)},
        "higher_is_better": sorted(figures.higher_is_better),
        "point": study.points.name,
        "map": [{"name": name, "words": words} for name, words in figures.map_axes or ()],
        "by": next(iter(along), ""),
        "named": list(dict.fromkeys([*figures.comparable, *figures.network])),
        "comparable": list(figures.comparable),
    }


def _shown(figures: Figures) -> tuple[str, ...]:
    return figures.shown or tuple(figures.labels)


def _filter_names(study: Study) -> tuple[str, ...]:
    """Return the parameters that the page filters by (all, where none is declared), and others that it looks at."""
    figures = study.figures
    along = [name for name, _ in figures.map_axes or ()]
    return tuple(dict.fromkeys([*(figures.filters or study.where_keys), *along, *figures.comparable, *figures.network]))


def _summaries(store: Store, choice: Choice, selection: Selection, registry: Registry) -> pa.Table:
    from butter_etl.store import read_summary, to_arrow

    study = store.study
    lists = [f"{series}_{name}" for series in _shown(study.figures) for name in STATISTICS]
    filters, points = _filter_names(study), study.points.column
    wanted = dict.fromkeys(["experiment_id", "num_runs", *filters, *lists, *([points] if points else [])])
    columns = [name for name in wanted if name in study.summary.names]
    frame = read_summary(store.location.absolute, where=choice.where, columns=columns).compute(scheduler="synchronous")
    table = to_arrow(frame, study.summary)
    if selection.sweeps:
        ids = table["experiment_id"]
        kept = [one for one in ids.to_pylist() if selection.matches(registry.experiment(one))]
        table = table.filter(pc.is_in(ids, pa.array(kept, ids.type)))
    return table.sort_by([(name, "ascending") for name in filters]) if filters else table


def _core_seconds(store: Store) -> float | None:
    """Return the core-seconds that all runs of a store took, as their rows say; None where they do not say it."""
    if "core_seconds" not in store.study.run_files.names:
        return None
    total = 0.0
    for file in store.run_files():
        seconds = store.location.read_table(f"{RUNS}/{file.path}", ["core_seconds"])["core_seconds"]
        total += pc.sum(seconds).as_py() or 0.0
    return total


def _sweeps(registry: Registry) -> Iterable[Sweep]:
    yield from registry.study.sweeps.values()
    yield from map(registry.sweep, registry.sweep_names())


def _coverage(sweep: Sweep, registry: Registry, present: dict[int, int]) -> dict[str, Any]:
    """Return how much of a sweep is there, in experiments with a run at least, and in runs."""
    members = [(one, mask) for one, mask in present.items() if registry.experiment(one) in sweep]
    wanted = sweep.repetitions * len(sweep)
    runs = sum(mask.bit_count() for _, mask in members)
    return {
        "sweep": sweep.name,
        "experiments": len(sweep),
        "begun": len(members),
        "runs": runs,
        "wanted": wanted,
    }


def _filters(study: Study, table: pa.Table) -> list[dict[str, Any]]:
    """Return for each parameter its values in order, as text, and which of them each experiment has."""
    found = []
    for name in _filter_names(study):
        column = [study.canonical(name, value) for value in table[name].to_pylist()]
        values = sorted(set(column), key=lambda value: (value is not None, value))
        number = {value: index for index, value in enumerate(values)}
        found.append({"name": name, "values": list(map(_text, values)), "of": [number[value] for value in column]})
    return found


def _text(value: object) -> str:
    if value is None:
        return "none"
    return float_text(value, "float64") if isinstance(value, float) else str(value)


def _curves(study: Study, table: pa.Table) -> dict[str, Any]:
    """Return the thinned curves: all experiments' points one after the other, ``ends`` where each one's are over."""
    shown = _shown(study.figures)
    lengths = pc.list_value_length(table[f"{shown[0]}_median"]).fill_null(0)
    kept = [thinned(length) for length in lengths.to_pylist()]
    ends = np.cumsum([len(places) for places in kept], dtype=np.int64).tolist()
    return {
        "ends": ends,
        "points": _packed(_points(study, table, kept)),
        **{
            f"{series}_{name}": _packed(_thinned(table, f"{series}_{name}", kept))
            for series in shown
            for name in STATISTICS
        },
    }


def _points(study: Study, table: pa.Table, kept: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the measuring points at each row's positions: those that its row names, else numbered ones."""
    flat = numbered(study.points, np.concatenate(kept) if kept else np.zeros(0, np.int64))
    column = study.points.column
    if column is None or column not in table.column_names:
        return flat
    named = _thinned(table, column, kept)
    return np.where(np.isfinite(named), named, flat)


def _thinned(table: pa.Table, name: str, places: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return the values of a list column at each row's positions, row after row; NaN where there is none."""
    if name not in table.column_names:
        return np.full(sum(map(len, places)), np.nan, np.float32)
    column = table[name]
    lists = pa.chunked_array([*column.chunks, pa.array([], column.type)]).combine_chunks()
    starts, lengths = lists.offsets.to_numpy(), pc.list_value_length(lists).fill_null(0).to_numpy()
    values = lists.values.cast(pa.float32()).to_numpy(zero_copy_only=False)
    parts = []
    for start, length, kept in zip(starts, lengths, places, strict=False):
        is_whole = len(kept) == 0 or length > kept[-1]
        parts.append(values[start + kept] if is_whole else np.full(len(kept), np.nan, np.float32))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
