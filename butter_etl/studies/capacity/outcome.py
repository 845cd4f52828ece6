"""What summaries say of a search: how many trials were infeasible, which was the best, and how it came about."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from butter_etl.studies.columns import FLOAT64_LIST, Column
from butter_etl.studies.study import Further

_COLUMNS: Final = (
    Column("share_infeasible", pa.float64(), "share of trials whose training loss diverged"),
    Column("best_trial", pa.int64(), "number of the trial with the least validation loss at its end"),
    Column("best_valid_loss", pa.float64(), "validation loss of the best trial"),
    Column("best_eval_loss", pa.float64(), "evaluation loss of the best trial"),
    Column("final_loss_q1", pa.float64(), "first quartile of evaluation losses, infeasible trials the worst"),
    Column("final_loss_median", pa.float64(), "median of evaluation losses, infeasible trials the worst"),
    Column("final_loss_q3", pa.float64(), "third quartile of evaluation losses, infeasible trials the worst"),
    Column("running_min", FLOAT64_LIST, "least evaluation loss of the trials so far, a value a trial"),
    Column("running_median", FLOAT64_LIST, "median evaluation loss of the trials so far, a value a trial"),
    Column("best_information_bits", pa.float64(), "largest mutual information of a trial of per_cap, bits"),
    Column("best_bits_per_parameter", pa.float64(), "that by number of parameters"),
)
_INPUTS: Final = (
    "hyper_iter",
    "infeasible",
    "valid_loss",
    "eval_loss",
    "mutual_information_bits",
    "bits_per_parameter",
)


def conclude(runs: pa.Table) -> Mapping[str, Any]:
    """Return the columns of a search, of its trials in the order of their numbers; None where no trial tells.

    The loss of a trial is that at its last measuring point, infinite where that is no number. The best trial is that of
    least validation loss, the first of equals.
    """
    numbers = np.array([-1 if one is None else one for one in runs["hyper_iter"].to_pylist()], np.int64)
    order = np.argsort(numbers, kind="stable")
    valid, evaluated = (_last(runs[name].to_pylist())[order] for name in ("valid_loss", "eval_loss"))
    ended = [bool(one) for one in runs["infeasible"].to_pylist()]
    found: dict[str, Any] = {
        "share_infeasible": sum(ended) / len(ended),
        "running_min": [_or_nan(one) for one in np.minimum.accumulate(evaluated).tolist()],
        "running_median": running_median(evaluated.tolist()),
    }
    best = int(valid.argmin())
    if math.isfinite(valid[best]):
        found |= {
            "best_trial": int(numbers[order][best]),
            "best_valid_loss": float(valid[best]),
            "best_eval_loss": _finite(evaluated[best]),
        }
    ranked = np.sort(evaluated)
    for name, fraction in (("q1", 0.25), ("median", 0.5), ("q3", 0.75)):
        found[f"final_loss_{name}"] = _finite(_quantile(ranked.tolist(), fraction))
    for name, column in (
        ("best_information_bits", "mutual_information_bits"),
        ("best_bits_per_parameter", "bits_per_parameter"),
    ):
        values = [one for one in runs[column].to_pylist() if one is not None and math.isfinite(one)]
        found[name] = max(values, default=None)
    return {one.name: found.get(one.name) for one in _COLUMNS}


def _last(lists: Sequence[Sequence[float | None] | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the last entry of each list, infinite where there is none or it is no finite number."""
    last = [one[-1] if one else None for one in lists]
    return np.array([one if one is not None and math.isfinite(one) else math.inf for one in last], np.float64)


def running_median(losses: Sequence[float]) -> list[float]:
    """Return the median of the losses so far, a value a loss; NaN where that is infinite."""
    ranked: list[float] = []
    found = []
    for loss in losses:
        insort(ranked, loss)
        found.append(_or_nan(_quantile(ranked, 0.5)))
    return found


def _quantile(ranked: Sequence[float], fraction: float) -> float:
    """Return the quantile of sorted numbers by linear interpolation; infinite where it reaches an infinite one."""
    place = fraction * (len(ranked) - 1)
    low = int(place)
    if place == low:
        return ranked[low]
    below, above = ranked[low], ranked[low + 1]
    return below + (above - below) * (place - low) if math.isfinite(above) else math.inf


def _or_nan(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


OUTCOME: Final = Further(_COLUMNS, _INPUTS, conclude)
