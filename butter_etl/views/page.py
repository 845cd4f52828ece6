"""One self-contained page about a store: what it holds, what is missing, what it cost, and its curves to look through.

`page_data` gathers everything as plain values; `write_page` puts them into the template that comes with the package.
Curves are thinned to epochs that are evenly spaced on a log scale and embedded as float32, so that thousands of
experiments make a page of a few megabytes. The page loads nothing.
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

from butter_etl.store import RUNS, Registry, Store, write_whole
from butter_etl.studies import PUBLISHED, VARIED, Choice, Selection, Sweep, float_text
from butter_etl.views.facts import status_facts, status_lines
from butter_etl.views.plot import LABELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: At most this many epochs of a curve are kept, evenly spaced on a log scale, the first and the last among them.
POINTS: Final = 48
#: The series that are drawn of each experiment, and their statistics, in this order.
SHOWN: Final = ("test_loss", "train_loss", "test_accuracy", "train_accuracy")
STATISTICS: Final = ("median", "q1", "q3")
#: The parameters that the page filters by, where a selection has more than one value of them.
FILTERS: Final = (*VARIED, "kernel_regularizer", "momentum")
_TEMPLATE = Path(__file__).with_name("page.html")


def page_data(store: Store, choice: Choice) -> dict[str, Any]:
    """Return what the page shows of a selection of a store's summaries, as plain values.

    Arrays are base64 of little-endian float32.
    """
    registry = Registry(store)
    selection = registry.select(choice)
    table = _summaries(store, choice, selection, registry)
    facts = status_facts(store, choice)
    present = store.repetitions()
    return {
        "store": store.location.address(),
        "lines": [line for line in status_lines(facts) if not line.startswith("failed: ")],
        "core_seconds": _core_seconds(store),
        "coverage": [_coverage(sweep, registry, present) for sweep in _sweeps(registry)],
        "failures": [
            {
                "experiment": failure.experiment,
                "repetitions": len(failure.repetitions),
                "error": failure.error,
                "host": failure.host,
            }
            for failure in facts["failures"]
        ],
        "filters": _filters(table),
        "runs": table["num_runs"].to_pylist(),
        "parameters": table["num_free_parameters"].to_pylist(),
        "labels": {name: LABELS[name] for name in SHOWN},
        "curves": _curves(table),
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


def _summaries(store: Store, choice: Choice, selection: Selection, registry: Registry) -> pa.Table:
    from butter_etl.store import read_summary, to_arrow
    from butter_etl.studies import SUMMARY_SCHEMA

    lists = [f"{series}_{name}" for series in SHOWN for name in STATISTICS]
    columns = ["experiment_id", "num_runs", "num_free_parameters", *FILTERS, *lists]
    frame = read_summary(store.location.absolute, where=choice.where, columns=columns).compute(scheduler="synchronous")
    table = to_arrow(frame, SUMMARY_SCHEMA)
    if selection.sweeps:
        ids = [one for one in table["experiment_id"].to_pylist() if selection.matches(registry.experiment(one))]
        table = table.filter(pc.is_in(table["experiment_id"], pa.array(ids, pa.uint32())))
    return table.sort_by([(name, "ascending") for name in FILTERS])


def _core_seconds(store: Store) -> float:
    """Return the core-seconds that all runs of a store took, as their rows say."""
    total = 0.0
    for file in store.run_files():
        seconds = store.location.read_table(f"{RUNS}/{file.path}", ["core_seconds"])["core_seconds"]
        total += pc.sum(seconds).as_py() or 0.0
    return total


def _sweeps(registry: Registry) -> Iterable[Sweep]:
    yield from PUBLISHED.values()
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


def _filters(table: pa.Table) -> list[dict[str, Any]]:
    """Return for each parameter its values in order, as text, and which of them each experiment has."""
    found = []
    for name in FILTERS:
        column = table[name].to_pylist()
        values = sorted(set(column), key=lambda value: (value is not None, value))
        number = {value: index for index, value in enumerate(values)}
        found.append({"name": name, "values": list(map(_text, values)), "of": [number[value] for value in column]})
    return found


def _text(value: object) -> str:
    if value is None:
        return "none"
    return float_text(value) if isinstance(value, float) else str(value)


def _curves(table: pa.Table) -> dict[str, Any]:
    """Return the thinned curves: all experiments' epochs one after the other, ``ends`` where each one's are over."""
    lengths = pc.list_value_length(table[f"{SHOWN[0]}_median"]).fill_null(0)
    epochs = [_kept_epochs(length) for length in lengths.to_pylist()]
    ends = np.cumsum([len(kept) for kept in epochs], dtype=np.int64).tolist()
    flat = np.concatenate(epochs) if epochs else np.zeros(0, np.int64)
    return {
        "ends": ends,
        "epochs": _packed(flat + 1),
        **{
            f"{series}_{name}": _packed(_thinned(table[f"{series}_{name}"], epochs))
            for series in SHOWN
            for name in STATISTICS
        },
    }


def _kept_epochs(epochs: int) -> NDArray[np.int64]:
    """Return the positions, counted from 0, of at most `POINTS` epochs."""
    if epochs == 0:
        return np.zeros(0, np.int64)
    return np.unique(np.round(np.geomspace(1, epochs, min(POINTS, epochs))).astype(np.int64)) - 1


def _thinned(column: pa.ChunkedArray, epochs: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Return the values at each row's positions, row after row; NaN where there is none."""
    lists = pa.chunked_array([*column.chunks, pa.array([], column.type)]).combine_chunks()
    starts, lengths = lists.offsets.to_numpy(), pc.list_value_length(lists).fill_null(0).to_numpy()
    values = lists.values.cast(pa.float32()).to_numpy(zero_copy_only=False)
    parts = []
    for start, length, kept in zip(starts, lengths, epochs, strict=False):
        is_whole = len(kept) == 0 or length > kept[-1]
        parts.append(values[start + kept] if is_whole else np.full(len(kept), np.nan, np.float32))
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
