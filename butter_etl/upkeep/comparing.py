"""A run held against the same run trained again: where histories differ first, how far, and in what circumstances.

Bits are promised where all is equal that they depend on. Elsewhere float32 sums are rounded otherwise: two such runs
are the same to `RELATIVE` in the first points, and grow apart from there, as docs/fidelity.md says. How far they are
apart later is held against how far repetitions are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from butter_etl.studies import CIRCUMSTANCES, RUN_COLUMNS, Study, rows_differ

#: |a - b| <= FLOOR + RELATIVE |b| in the first POINTS measuring points, of the stored value b and that trained again:
#: what docs/fidelity.md states of other devices, processors and engines.
RELATIVE: Final = 1e-4
FLOOR: Final = 1e-6
POINTS: Final = 3

#: What an environment says of the processor, of threads and of the data; all else are versions.
_PROCESSOR: Final = ("target", "blas", "cuda", "cudnn")
_KINDS: Final = {**dict.fromkeys(_PROCESSOR, "processor"), "threads": "threads", "data": "data set"}
#: The order in which what differs is told.
_ORDER: Final = ("version", "processor", "threads", "data set")


class Difference(msgspec.Struct, frozen=True):
    """Where two runs differ first: the history, the number of the point, from 1, and both values as text.

    A column that is no history has point 0. ``values`` counts those that differ in all histories, of ``of``.
    """

    column: str
    point: int
    stored: str
    trained: str
    values: int
    of: int


class Distance(msgspec.Struct, frozen=True):
    """How far two runs are apart in the histories that a study judges by.

    ``early`` is the largest |a - b| / (|b| + 0.01) in the first `POINTS` points, ``largest`` that in all of them.
    ``spread`` is the median over points of |a - b| as a share of the range of the repetitions, the largest of the
    histories'; None without repetitions.
    """

    early: float
    largest: float
    spread: float | None

    @property
    def is_close(self) -> bool:
        """Tell whether they are the same run to rounding: as stated at first, and later no farther than repetitions."""
        return self.early <= RELATIVE and (self.spread is None or self.spread <= 1.0)


# --- circumstances -----------------------------------------------------------------------------------------------


def other_circumstances(study: Study, stored: Mapping[str, Any], trained: Mapping[str, Any]) -> list[str]:
    """Return what bits depend on and is not equal, a phrase each; what explains most stands first.

    Nothing means that bits are promised: see docs/data-format.md.
    """
    found = [
        f"{name}: {stored.get(name)}, here {trained.get(name)}"
        for name in ("engine", "device", "python_version")
        if stored.get(name) != trained.get(name)
    ]
    found += _other_facts(stored.get("environment"), trained.get("environment"))
    stack = stored.get("stack") or 1
    if stack > 1 and trained.get("engine") not in study.independent:
        found.append(f"stack: of {stack} runs, here 1; which others were in it is not recorded")
    return found


def _other_facts(stored: str | None, trained: str | None) -> list[str]:
    if stored is None or trained is None:
        return ["environment: not recorded, or of several machines; nothing is promised of bits"]
    theirs, ours = json.loads(stored), json.loads(trained)
    names = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    found = [(_KINDS.get(name, "version"), name) for name in names]
    found.sort(key=lambda one: _ORDER.index(one[0]))
    return [_phrase(kind, name, theirs.get(name), ours.get(name)) for kind, name in found]


def _phrase(kind: str, name: str, theirs: Any, ours: Any) -> str:
    if kind == "data set":
        return f"data set: content {str(theirs)[:12]}…, here {str(ours)[:12]}…"
    return f"{kind}: {name} {theirs}, here {ours}"


def has_other_data(stored: Mapping[str, Any], trained: Mapping[str, Any]) -> bool:
    """Tell whether a run learned from other data than there are here, as its environment says."""
    texts = stored.get("environment"), trained.get("environment")
    if None in texts:
        return False
    theirs, ours = (json.loads(text or "{}").get("data") for text in texts)
    return bool(theirs != ours)


# --- bits --------------------------------------------------------------------------------------------------------


def first_difference(study: Study, stored: pa.Table, trained: pa.Table) -> Difference | None:
    """Return where two rows of run files differ first in their bits; None where they do not.

    Histories come before other columns that training fills, the earliest point first.
    """
    pairs = {name: (_values(stored, name), _values(trained, name)) for name in study.histories}
    places = {name: differing_points(*pair) for name, pair in pairs.items()}
    of = sum(max(map(len, pair)) for pair in pairs.values())
    values = sum(map(len, places.values()))
    if values:
        name = min((name for name in places if len(places[name])), key=lambda one: int(places[one][0]))
        point = int(places[name][0])
        one, other = (_text(pair, point) for pair in pairs[name])
        return Difference(name, point + 1, one, other, values, of)
    for name in told_by_training(study):
        if rows_differ(stored[name].combine_chunks(), trained[name].combine_chunks()).any():
            return Difference(name, 0, str(stored[name][0]), str(trained[name][0]), 0, of)
    return None


def told_by_training(study: Study) -> list[str]:
    """Return the columns of run files, histories left out, that only training tells, and tells alike each time."""
    others = {*study.histories, *study.parameters, *study.derived, *study.flags, *RUN_COLUMNS, *CIRCUMSTANCES}
    return [name for name in study.run_files.names if name not in others]


def differing_points(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int64]:
    """Return the places, from 0, at which two histories have other bits, or only one of them has a value."""
    shared = min(len(one), len(other))
    bits = f"u{one.dtype.itemsize}"
    differing = np.flatnonzero(one[:shared].view(bits) != other[:shared].view(bits))
    return np.concatenate([differing, np.arange(shared, max(len(one), len(other)))])


def _values(table: pa.Table, name: str) -> NDArray[Any]:
    """Return the history of a table's only row as numbers; null is an empty one, a null element NaN."""
    lists = table[name].combine_chunks()
    return np.ascontiguousarray(lists.flatten().to_numpy(zero_copy_only=False), lists.type.value_type.to_pandas_dtype())


def _text(values: NDArray[Any], point: int) -> str:
    return str(values[point]) if point < len(values) else "none"


# --- distances ---------------------------------------------------------------------------------------------------


def judged_histories(study: Study) -> Sequence[str]:
    """Return the histories by which runs are told to be alike where bits may differ."""
    return study.judged or study.histories


def distance(study: Study, stored: pa.Table, trained: pa.Table, beside: pa.Table | None) -> Distance:
    """Return how far two rows are apart; ``beside`` has the judged histories of the experiment's repetitions."""
    early, largest = 0.0, 0.0
    shares = []
    for name in judged_histories(study):
        one, other = _values(stored, name).astype(np.float64), _values(trained, name).astype(np.float64)
        gaps = _relative_gaps(one, other)
        early, largest = max(early, gaps[:POINTS].max(initial=0.0)), max(largest, gaps.max(initial=0.0))
        if beside is not None and beside.num_rows > 1 and len(one):
            shares.append(_share_of_range(one, other, beside[name].to_pylist()))
    return Distance(float(early), float(largest), max(shares) if shares else None)


def _relative_gaps(stored: NDArray[np.float64], trained: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |a - b| / (|b| + FLOOR / RELATIVE) at each point; where only one is finite, or is there, infinity."""
    shared = min(len(stored), len(trained))
    one, other = trained[:shared], stored[:shared]
    with np.errstate(invalid="ignore"):
        gaps = np.abs(one - other) / (np.abs(other) + FLOOR / RELATIVE)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    gaps = np.where(same, 0.0, np.where(np.isfinite(gaps), gaps, np.inf))
    return np.concatenate([gaps, np.full(max(len(stored), len(trained)) - shared, np.inf)])


def _share_of_range(
    stored: NDArray[np.float64], trained: NDArray[np.float64], repetitions: Iterable[Sequence[float] | None]
) -> float:
    """Return the median over points of |a - b| as a share of the range of the repetitions' finite values."""
    shared = min(len(stored), len(trained))
    pool = np.full((0, shared), np.nan)
    for values in repetitions:
        padded = np.full(shared, np.nan)
        padded[: min(shared, len(values or ()))] = (values or ())[:shared]
        pool = np.vstack([pool, padded])
    pool[~np.isfinite(pool)] = np.nan
    known = ~np.isnan(pool).all(axis=0) & np.isfinite(stored[:shared]) & np.isfinite(trained[:shared])
    if not known.any():
        return 0.0
    ranges = np.nanmax(pool[:, known], axis=0) - np.nanmin(pool[:, known], axis=0)
    gaps = np.abs(stored[:shared][known] - trained[:shared][known])
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.median(np.where(gaps == 0, 0.0, gaps / ranges)))
