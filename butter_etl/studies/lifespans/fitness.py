"""What summaries say of fitness: the accuracy that PENGUIN foretells of each run from its first measures, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from butter_etl.studies.columns import Column
from butter_etl.studies.lifespans.penguin import Rule, predict, stacked
from butter_etl.studies.study import Further

_RULE: Final = Rule()
_COLUMNS: Final = (
    Column("fitness_converged", pa.uint16(), f"runs whose predictions of epoch {_RULE.epoch:g} agree before it"),
    Column("fitness_epoch_median", pa.float64(), "median over these of the epoch at which they agree"),
    Column("fitness_predicted_median", pa.float64(), "median over these of the accuracy that is predicted, percent"),
    Column("fitness_actual_median", pa.float64(), "median over these of the accuracy that they have then, percent"),
)


def foretell(runs: pa.Table) -> Mapping[str, Any]:
    """Return the columns of an experiment's fitness; without a run whose predictions agree, medians are None."""
    epochs, accuracies = (_lists(runs, name) for name in ("epoch", "val_accuracy_percent"))
    found = predict(epochs, accuracies, _RULE)
    some = found.converged
    if not some.any():
        return {"fitness_converged": 0, **dict.fromkeys((one.name for one in _COLUMNS[1:]), None)}
    last = np.where(epochs <= _RULE.epoch, accuracies, np.nan)[some]
    ends = (~np.isnan(last)).cumsum(axis=1).argmax(axis=1)
    actual = np.take_along_axis(last, ends[:, None], axis=1)
    return {
        "fitness_converged": int(some.sum()),
        "fitness_epoch_median": float(np.median(found.epoch[some])),
        "fitness_predicted_median": float(np.median(found.predicted[some])),
        "fitness_actual_median": float(np.median(actual)),
    }


def _lists(runs: pa.Table, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the lists of a column as rows, float64 (runs, points), NaN behind their ends."""
    return stacked([np.array(one or (), np.float64) for one in runs[name].to_pylist()])


FITNESS: Final = Further(_COLUMNS, ("epoch", "val_accuracy_percent"), foretell)
