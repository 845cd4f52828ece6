"""One self-contained page about a store: what it holds, what is missing, what it cost, and its curves to look through.

`page_data` gathers everything as plain values; `write_page` puts them into the template that comes with the package.
Curves are thinned to points that are evenly spaced on a log scale and embedded as steps of their range, so that
thousands of experiments make a page of some megabytes. The page loads nothing. What it shows of a study is in the data.
"""

from __future__ import annotations

import base64
import html
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.store import Registry, Store, precision_levels, write_whole
from butter_etl.studies import LEVEL, MAKER, RUNS, Box, Choice, Selection, Study, Sweep, float_text
from butter_etl.summarize import USUAL_LEVEL
from butter_etl.views.curves import POINTS, thinned
from butter_etl.views.facts import stale_line, stale_text, status_facts, status_lines
from butter_etl.views.plot import numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The statistics of each series that are drawn, in this order.
STATISTICS: Final = ("median", "q1", "q3")
#: Values are whole steps, from 0 to this many, of the range of their curve; the number after it stands for none.
STEPS: Final = 2**16 - 2
#: Curves have fewer points than `POINTS`, but not fewer than these, where their values would take more bytes.
_FEWEST_POINTS: Final = 12
_MOST_BYTES: Final = 16_000_000
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
        "told": [
            *({"name": study.figures.word(name), "values": _told(table[name])} for name in study.figures.told),
            *_intervals(store, choice, table),
        ],
        "curves": _curves(study, table),
        "networks": _networks(registry, table),
        "twins": _numbered_groups(study, table),
        **_drawing(study),
        "labels": {name: study.figures.label(name) for name in page_series(study)},
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
    """Return what the page says of a study's parameters, and how it draws them."""
    figures = study.figures
    along = [name for name, _ in figures.map_axes or ()]
    return {
        "higher_is_better": sorted(figures.higher_is_better),
        "point": study.points.name,
        "steps": STEPS,
        "points": study.points.plural,
        "map": [{"name": name, "words": words} for name, words in figures.map_axes or ()],
        "by": next(iter(along), ""),
        "maker": MAKER,
        "named": list(dict.fromkeys([*figures.comparable, *figures.network])),
        "comparable": list(figures.comparable),
    }


def page_series(study: Study) -> tuple[str, ...]:
    """Return the series that summaries have a median of at each point, those that the study shows first of all."""
    figures = study.figures
    named = dict.fromkeys([*figures.shown, *figures.labels, *study.reduction.histories])
    return tuple(name for name in named if f"{name}_median" in study.summary.names)


def _statistics(study: Study, series: str) -> list[str]:
    return [name for name in STATISTICS if f"{series}_{name}" in study.summary.names]


def _filter_names(study: Study) -> tuple[str, ...]:
    """Return the parameters that the page filters by (all, where none is declared), and others that it looks at."""
    figures = study.figures
    along = [name for name, _ in figures.map_axes or ()]
    made_by = [MAKER] if MAKER in study.summary.names else []
    shown = [*(figures.filters or study.where_keys), *along, *figures.comparable, *figures.network, *made_by]
    return tuple(dict.fromkeys(shown))


def _looked_at(study: Study) -> tuple[str, ...]:
    """Return the parameters that the page looks at: to filter by, to tell, and to draw networks by."""
    figures = study.figures
    derived = [name for name in study.derived if name not in study.long_texts] if figures.boxes else []
    twins = [figures.twins] if figures.twins else []
    return tuple(dict.fromkeys([*_filter_names(study), *derived, *figures.told, *twins]))


def _summaries(store: Store, choice: Choice, selection: Selection, registry: Registry) -> pa.Table:
    """Return the chosen summaries, thinned (`_thin`) part by part, so that few whole curves are in memory at once."""
    from butter_etl.store import read_summary, to_arrow

    study, points = store.study, store.study.points.column
    filters, names = _filter_names(study), _looked_at(study)
    lists = [f"{series}_{name}" for series in page_series(study) for name in _statistics(study, series)]
    wanted = dict.fromkeys(["experiment_id", "num_runs", *names, *lists, *([points] if points else [])])
    columns = [name for name in wanted if name in study.summary.names]
    frame = read_summary(store.location.absolute, where=choice.where, columns=columns)
    parts = (to_arrow(part.compute(scheduler="synchronous"), study.summary) for part in frame.to_delayed())
    table = pa.concat_tables([_thin(study, part, names) for part in parts])
    if selection.sweeps:
        ids = table["experiment_id"]
        kept = [one for one in ids.to_pylist() if selection.matches(registry.experiment(one))]
        table = table.filter(pc.is_in(ids, pa.array(kept, ids.type)))
    order = [(name, "ascending") for name in filters if not pa.types.is_list(table.schema.field(name).type)]
    return table.sort_by(order) if order else table


def _intervals(store: Store, choice: Choice, table: pa.Table) -> Iterable[dict[str, Any]]:
    """Yield the ends of the intervals for medians at the last point, where a store has them of all runs that it has.

    They are at the usual level, or where there are none of it, at the highest.
    """
    from butter_etl.store import read_precision, to_arrow

    levels, study = precision_levels(store.location), store.study
    if not levels:
        return
    level = USUAL_LEVEL if USUAL_LEVEL in levels else levels[-1]
    ends = [(series, end) for series in study.intervals.names for end in ("low", "high")]
    columns = ["experiment_id", "num_runs", *(f"{series}_end_median_{end}" for series, end in ends)]
    frame = read_precision(store.location.absolute, where=[*choice.where, f"{LEVEL.name}={level!r}"], columns=columns)
    rows = to_arrow(frame.compute(scheduler="synchronous"), study.precision).select(columns).to_pylist()
    known = {(row["experiment_id"], row["num_runs"]): row for row in rows}
    wanted = list(zip(table["experiment_id"].to_pylist(), table["num_runs"].to_pylist(), strict=True))
    for series, end in ends:
        values = [known.get(one, {}).get(f"{series}_end_median_{end}") for one in wanted]
        words = f"{study.figures.label(series)} at the end: median, {100 * level:.6g} % {end}"
        yield {"name": words, "values": _told(pa.chunked_array([pa.array(values, pa.float64())]))}


def _told(column: pa.ChunkedArray) -> list[float | None]:
    """Return numbers, None where one is null or not finite."""
    values = column.cast(pa.float64()).to_pylist()
    return [None if value is None or not math.isfinite(value) else value for value in values]


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


def _networks(registry: Registry, table: pa.Table) -> dict[str, Any] | None:
    """Return the networks as rows of boxes: the different boxes there are, and which of them each experiment has."""
    study = registry.study
    if study.figures.boxes is None:
        return None
    known: dict[Box, int] = {}
    derived = [name for name in study.derived if name in table.column_names]
    of = []
    for row in table.select(["experiment_id", *derived]).to_pylist():
        boxes = study.figures.boxes(registry.experiment(row["experiment_id"]), row)
        of.append([known.setdefault(box, len(known)) for box in boxes])
    return {"boxes": list(known), "of": of}


def _numbered_groups(study: Study, table: pa.Table) -> list[int] | None:
    """Return a number for each experiment, the same for those of one network."""
    if study.figures.twins is None:
        return None
    known: dict[object, int] = {}
    return [known.setdefault(value, len(known)) for value in table[study.figures.twins].to_pylist()]


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return "-".join(map(_text, value))
    return float_text(value, "float64") if isinstance(value, float) else str(value)


# --- curves -------------------------------------------------------------------------------------------------------


def _thin(study: Study, table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Return a table of summaries whose lists have at most `POINTS` entries, and the best and the last median of all.

    Besides ``names`` it has ``.points``, what the entries of a row's lists are taken at. All lists of a row have as
    many entries, NaN where there are none.
    """
    series = page_series(study)
    medians = [pc.list_value_length(table[f"{name}_median"]).fill_null(0) for name in series]
    lengths = pc.max_element_wise(*medians).to_pylist() if medians else [0] * table.num_rows
    kept = [thinned(length) for length in lengths]
    ends = np.cumsum([0, *map(len, kept)], dtype=np.int32)
    columns = {name: table[name] for name in dict.fromkeys(["experiment_id", "num_runs", *names])}
    columns[".points"] = _lists(ends, _points(study, table, kept))
    for name in series:
        for statistic in _statistics(study, name):
            columns[f"{name}_{statistic}"] = _lists(ends, _at(table[f"{name}_{statistic}"], kept))
        best, last = _best_and_last(table[f"{name}_median"], is_max=name in study.figures.higher_is_better)
        columns |= {f".{name}_best": pa.array(best), f".{name}_last": pa.array(last)}
    return pa.table(columns)


def _lists(ends: NDArray[np.int32], values: NDArray[Any]) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values.astype(np.float32)))


def _points(study: Study, table: pa.Table, kept: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the measuring points at each row's positions: those that its row names, else numbered ones."""
    flat = numbered(study.points, np.concatenate(kept) if kept else np.zeros(0, np.int64))
    column = study.points.column
    if column is None or column not in table.column_names:
        return flat
    named = _at(table[column], kept)
    return np.where(np.isfinite(named), named, flat)


def _flat(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    """Return where the lists of a column begin, how long they are, and all their values."""
    lists = pa.chunked_array([*column.chunks, pa.array([], column.type)]).combine_chunks()
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    with np.errstate(over="ignore"):
        values = lists.values.to_numpy(zero_copy_only=False).astype(np.float32)
    return lists.offsets.to_numpy()[: len(lengths)], lengths, values


def _at(column: pa.ChunkedArray, places: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return the values of a list column at each row's positions, row after row; NaN where a list is shorter."""
    starts, lengths, values = _flat(column)
    parts = []
    for start, length, kept in zip(starts, lengths, places, strict=True):
        part = np.full(len(kept), np.nan, np.float32)
        inside = kept[kept < length]
        part[: len(inside)] = values[start + inside]
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _best_and_last(column: pa.ChunkedArray, *, is_max: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the best and the last finite value of each list of a column; NaN where there is none."""
    starts, lengths, values = _flat(column)
    found = np.full((2, len(starts)), np.nan, np.float32)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        finite = values[start : start + length]
        finite = finite[np.isfinite(finite)]
        if finite.size:
            found[:, row] = finite.max() if is_max else finite.min(), finite[-1]
    return found[0], found[1]


def _curves(study: Study, table: pa.Table) -> dict[str, Any]:
    """Return the curves: all experiments' points one after the other, ``ends`` where each one's are over.

    ``lists`` are the lists of points that there are, ``list`` is which of them each experiment has. Of each series,
    ``low`` and ``high`` are each curve's range, ``best`` and ``last`` of its median, and ``steps`` each statistic's
    values, as `_steps` makes them. ``most`` is how many points a curve has at most.
    """
    series = page_series(study)
    most = _most_points(table, sum(len(_statistics(study, name)) for name in series))
    places = [_fewer(length, most) for length in pc.list_value_length(table[".points"]).to_pylist()]
    ends = np.cumsum([len(kept) for kept in places], dtype=np.int64)
    points = np.split(_at(table[".points"], places), ends[:-1])
    lists: dict[bytes, int] = {}
    of = [lists.setdefault(one.tobytes(), len(lists)) for one in points[: table.num_rows]]
    return {
        "most": most,
        "ends": ends.tolist(),
        "lists": [_text_of(one) for one in lists],
        "list": of,
        "series": {name: _series(table, name, _statistics(study, name), places) for name in series},
    }


def _most_points(table: pa.Table, statistics: int) -> int:
    """Return how many points a curve can have, so that the values of all statistics do not take too many bytes."""
    entries = pc.sum(pc.list_value_length(table[".points"])).as_py() or 0
    size = entries * statistics * 2 * 4 / 3  # two bytes a value, as base64
    return max(_FEWEST_POINTS, int(POINTS * min(1.0, _MOST_BYTES / max(size, 1))))


def _fewer(count: int, most: int) -> NDArray[np.int64]:
    """Return the positions of at most so many of some points, evenly, the first and the last among them."""
    return np.unique(np.round(np.linspace(0, count - 1, min(count, most))).astype(np.int64))


def _series(
    table: pa.Table, series: str, statistics: Iterable[str], places: Sequence[NDArray[np.int64]]
) -> dict[str, Any]:
    values = {name: _at(table[f"{series}_{name}"], places) for name in statistics}
    steps, low, high = _steps(np.stack(list(values.values())), np.array([len(kept) for kept in places], np.int64))
    return {
        **{name: _packed(table[f".{series}_{name}"].to_numpy()) for name in ("best", "last")},
        "low": _packed(low),
        "high": _packed(high),
        "steps": {name: _text_of(row.tobytes()) for name, row in zip(values, steps, strict=True)},
    }


def _steps(
    values: NDArray[np.float32], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.uint16], NDArray[np.float32], NDArray[np.float32]]:
    """Return values as steps of the range of their curve, and the lowest and the highest value of each curve.

    ``values`` has the shape (statistics, points of all curves), ``lengths`` the points of each curve. Steps are of
    equal ratio where all of a curve is positive, else of equal difference. What is not finite is none.
    """
    rows = np.repeat(np.arange(len(lengths)), lengths)
    is_finite = np.isfinite(values)
    low, high = np.full(len(lengths), np.inf, np.float32), np.full(len(lengths), -np.inf, np.float32)
    np.minimum.at(low, rows, np.where(is_finite, values, np.inf).min(axis=0))
    np.maximum.at(high, rows, np.where(is_finite, values, -np.inf).max(axis=0))
    low, high = (np.where(np.isfinite(low), one, 0).astype(np.float32) for one in (low, high))
    is_ratio = low[rows] > 0
    bottom, top = low[rows].astype(np.float64), high[rows].astype(np.float64)
    one = np.where(is_finite, values, bottom).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(is_ratio, np.log(one / bottom) / np.log(top / bottom), (one - bottom) / (top - bottom))
    share = np.where(top > bottom, share, 0.0)
    return np.where(is_finite, np.round(share * STEPS), STEPS + 1).astype("<u2"), low, high


def _packed(values: NDArray[Any]) -> str:
    return _text_of(values.astype("<f4").tobytes())


def _text_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
