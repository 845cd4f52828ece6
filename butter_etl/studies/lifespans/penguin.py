"""Predictions of fitness: from the first measures of a network, the accuracy that it will have at a later epoch.

After each measure, a curve a - b ** (c - x) is fitted to all measures so far, and foretells the accuracy at
`Rule.epoch`. Once the last few predictions agree, training could end. That is PENGUIN, of A. Keller Rorabaugh, S.
Caíno-Lores, M. R. Wyatt II, T. Johnston, M. Taufer, *PEng4NN: an accurate performance estimation engine for efficient
automated neural network architecture search*, 2021, as its published code does it (https://github.com/TauferLab/PENGUIN,
its files `PredictionAnalyzer.py` and `PENGUIN_Main.py`). The first fit there is to two points, whatever its documents
say.

Predictions equal those of SciPy's ``curve_fit``, which has the last word there. Compiled kernels take its steps one by
one, to the same bits on every machine. But where a fit stops on a long slope instead of in a minimum, rounding decides
where, and SciPy's own prediction changes by up to several hundredths of a point with the last bits of the measures. So
each fit is made again from starts close by, and where a prediction depends on them, SciPy is asked: for one fit in
ten, and for all that are to two points. What it says of these it may say otherwise on another machine.

Runs are rows of arrays. Lists of different lengths are filled up with NaN behind their ends, in both the epochs and the
measures; a measure that is not finite, before the end of a list, lets every fit fail that it is part of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import ready
from butter_etl.studies.lifespans import curve_kernels
from butter_etl.studies.lifespans.curve_kernels import FRAME_ROWS, LOWER, MOST_A, START, fit_curves, put_values
from butter_etl.studies.lifespans.tables import Table

Float64s: TypeAlias = NDArray[np.float64]
Int64s: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

_SOURCES: Final = [Path(curve_kernels.__file__)]
#: The curve's x for each epoch, so that x counts half epochs.
POINTS_PER_EPOCH: Final = 2.0
#: The first fit is to so many points.
FIRST_FIT: Final = 2
#: An `a` so close to its upper bound is none: predictions before it do not count either.
_MOST_A: Final = MOST_A - 0.01
#: Fits are made again from starts that differ by about as little as rounding makes of a derivative, to all sides, and
#: what all of them foretell of a curve must lie within so many points: if it does, SciPy foretells the same.
_NEARBY: Final = (1e-8, 1e-7)
_STARTS: Final = tuple(
    tuple(value * (1.0 + nearby * change) for value, change in zip(START, changes, strict=True))
    for nearby in _NEARBY
    for changes in ((1, 0, 1), (-1, 0, -1), (1, 0, -1), (-1, 0, 1))
)
_SETTLED: Final = 3e-5
#: Training ends elsewhere where the loss has not fallen for so many epochs.
_PATIENCE: Final = 10.0


@dataclass(frozen=True)
class Rule:
    """When predictions count as agreeing: the ``last`` so many lie ``within`` so many points of their median.

    ``epoch`` is what they are of, and the last one whose measures are looked at.
    """

    epoch: float = 20.0
    last: int = 3
    within: float = 0.5


@dataclass(frozen=True)
class Predictions:
    """What was predicted of some runs, a value a run.

    ``converged`` says whether predictions agreed before the last measure; ``predicted`` is then the last of them, else
    the last measure itself. ``epoch`` is that of the last measure that was used, NaN of a run that has none. ``a``,
    ``b`` and ``c`` are the last curve's, infinite if that could not be fitted.
    """

    converged: Bools
    predicted: Float64s
    epoch: Float64s
    a: Float64s
    b: Float64s
    c: Float64s


# --- fits --------------------------------------------------------------------------------------------------------


def fit_prefixes(epochs: Float64s, accuracies: Float64s, epoch: float = Rule.epoch) -> Float64s:
    """Return the curves of every run's first 1, 2, … points, float64 (runs, points, 3): a, b and c.

    ``epochs`` and ``accuracies`` are float64 (runs, points). All three are infinite where a fit fails, where there are
    fewer points, and of the first point alone, which nobody fits. What curves say of ``epoch`` is what SciPy's do.
    """
    found = np.full((*epochs.shape, 3), inf)
    for count in range(FIRST_FIT, epochs.shape[1] + 1):
        found[:, count - 1] = _fit_first(epochs, accuracies, count, epoch)
    return found


def value_at(curves: Float64s, epoch: float) -> Float64s:
    """Return the values (…) that curves (…, 3) have at an epoch; they are not finite where a fit failed."""
    _prepare()
    found = np.empty(curves.shape[:-1])
    put_values(np.ascontiguousarray(curves).reshape(-1, 3), POINTS_PER_EPOCH * epoch, found.reshape(-1))
    return found


def _fit_first(epochs: Float64s, accuracies: Float64s, count: int, epoch: float) -> Float64s:
    """Return the curves of every run's first ``count`` points, (runs, 3), that foretell an epoch as SciPy's do."""
    _prepare()
    points = np.ascontiguousarray(POINTS_PER_EPOCH * epochs[:, :count])
    values = np.ascontiguousarray(accuracies[:, :count])
    found = _fitted(points, values)
    for run in np.flatnonzero(~_are_settled(points, values, found, epoch)):
        found[run] = _by_scipy(points[run], values[run])
    return found


def _fitted(points: Float64s, values: Float64s, start: Sequence[float] = START) -> Float64s:
    has_all = np.isfinite(points).all(axis=1) & np.isfinite(values).all(axis=1)
    found, frame = np.empty((len(points), 3)), np.empty((FRAME_ROWS, points.shape[1] + 3))
    fit_curves(points, values, np.where(has_all, points.shape[1], 0), np.array(start), found, frame)
    return found


def _are_settled(points: Float64s, values: Float64s, found: Float64s, epoch: float) -> Bools:
    """Tell of which runs what is foretold does not depend on where fits start; with fewer points than three it does."""
    if points.shape[1] < len(START):
        return np.zeros(len(points), np.bool_)
    foretold = value_at(found, epoch)
    settled = np.ones(len(points), np.bool_)
    for start in _STARTS:
        others = value_at(_fitted(points, values, start), epoch)
        settled &= np.isclose(others, foretold, rtol=0.0, atol=_SETTLED, equal_nan=True)
    return settled


def _by_scipy(points: Float64s, values: Float64s) -> Float64s:
    """Return SciPy's curve of some points, as PENGUIN has it fitted; infinite where it fails.

    This is what ``curve_fit`` does within bounds, but for covariances: it warns of these, and warnings cannot be
    silenced in one thread alone.
    """
    from scipy.optimize import least_squares

    if not np.isfinite(values).all():
        return np.full(3, inf)

    def residuals(curve: Float64s) -> Float64s:
        a, b, c = curve
        apart: Float64s = a - b ** (c - points) - values
        return apart

    with np.errstate(all="ignore"):
        try:
            fit = least_squares(residuals, START, bounds=(LOWER, (MOST_A, inf, inf)))
        except ValueError:  # none of the first residuals is finite
            return np.full(3, inf)
    return np.asarray(fit.x, np.float64) if fit.success else np.full(3, inf)


@cache
def _prepare() -> None:
    """Load or compile what fits curves."""
    one = np.zeros((1, 1))
    ready(fit_curves, (one, one, np.zeros(1, np.int64), np.zeros(3), one, one), _SOURCES)
    ready(put_values, (one, 1.0, np.zeros(1)), _SOURCES)


# --- predictions -------------------------------------------------------------------------------------------------


def predict(epochs: Float64s, accuracies: Float64s, rule: Rule = Rule()) -> Predictions:
    """Return when the predictions of each run agree, and what they say then.

    ``epochs`` and ``accuracies``, in percent, are float64 (runs, points). A prediction counts if it is finite and its
    `a` below the bound; one at the bound makes those before it void. One outside of 0 to 100 ends nothing.
    """
    used = epochs <= rule.epoch
    counts = used.sum(axis=1)
    curves = np.full((len(epochs), 3), inf)
    predicted, ends, converged = _last_of(accuracies, counts), counts.copy(), np.zeros(len(epochs), np.bool_)
    recent = np.full((len(epochs), rule.last), np.nan)
    for count in range(FIRST_FIT, int(counts.max(initial=0)) + 1):
        runs = np.flatnonzero((counts >= count) & ~converged)
        curves[runs] = _fit_first(epochs[runs], accuracies[runs], count, rule.epoch)
        some = runs[counts[runs] > count]  # the last measure itself is no matter of prediction
        values = value_at(curves[some], rule.epoch)
        recent[some] = _with_newest(recent[some], values, curves[some, 0])
        found = some[_agree(recent[some], values, rule.within)]
        converged[found], ends[found], predicted[found] = True, count, recent[found, -1]
    return Predictions(converged, predicted, _last_of(epochs, ends), *curves.T)


def _last_of(values: Float64s, counts: Int64s) -> Float64s:
    """Return the last of each run's first values, NaN where there is none."""
    if not values.size:
        return np.full(len(values), np.nan)
    last = np.take_along_axis(values, np.maximum(counts - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(counts > 0, last, np.nan)


def _with_newest(recent: Float64s, values: Float64s, a: Float64s) -> Float64s:
    """Return the last predictions (runs, last) with a new one each, where it counts; NaN is none."""
    counts = np.isfinite(a) & np.isfinite(values)
    at_bound = counts & (a >= _MOST_A)
    moved = np.column_stack([recent[:, 1:], values])
    kept = np.where((counts & ~at_bound)[:, None], moved, recent)
    return np.where(at_bound[:, None], np.nan, kept)


def _agree(recent: Float64s, values: Float64s, within: float) -> Bools:
    """Tell where the last predictions agree, the newest of which is possible and was made now."""
    is_new = (recent[:, -1] == values) & (values > 0) & (values <= 100)
    middle = np.median(recent, axis=1, keepdims=True)
    agrees: Bools = is_new & ((recent <= middle + within) & (recent >= middle - within)).all(axis=1)
    return agrees


# --- the published results file ----------------------------------------------------------------------------------

_RESULTS: Final = (
    "modelID numConvLayers learningRate batchSize timeStabilized timeMenndlTrainingEnds maxAcc aValue error "
    "predictedAcc actualAcc"
)


def results_name(dataset: str, rule: Rule = Rule()) -> str:
    """Return what the file of results for the networks of a data set is called."""
    return f"{dataset}-PENGUIN_results-N_{rule.last}-t_{rule.within}.csv"


def results_file(tables: Iterable[Table], rule: Rule = Rule()) -> bytes:
    """Return the results of all networks as PENGUIN writes them, a line a network, in the order of ``tables``.

    Networks are left out that it leaves out: those with a validation loss or accuracy that is not finite. So are those
    without a measure up to the rule's epoch.
    """
    some = [one for one in tables if _is_usable(one, rule)]
    epochs, accuracies = stacked([one.epochs for one in some]), stacked([one.val_accuracy_percent for one in some])
    found = predict(epochs, accuracies, rule)
    ends = training_ends(epochs, stacked([one.train_loss for one in some]), rule.epoch)
    lines = [_RESULTS]
    for row, one in enumerate(some):
        seen = one.val_accuracy_percent[one.epochs <= rule.epoch]
        error = abs(seen[-1] - found.predicted[row])
        numbers = (
            one.learning_rate, one.batch_size, found.epoch[row], ends[row], seen.max(), found.a[row], error,
            found.predicted[row], seen[-1],
        )  # fmt: skip
        texts = " ".join(repr(float(number)) for number in numbers)
        lines.append(f"{one.network_id}.txt {len(one.conv_kernels) or 1} {texts}")
    return "\n".join([*lines, ""]).encode()


def _is_usable(table: Table, rule: Rule) -> bool:
    measures = np.concatenate([table.val_loss, table.val_accuracy_percent])
    return bool(np.isfinite(measures).all()) and bool(table.epochs[0] <= rule.epoch)


def stacked(lists: Sequence[Float64s]) -> Float64s:
    """Return lists of different lengths as the rows of an array, with NaN behind their ends."""
    found = np.full((len(lists), max((len(one) for one in lists), default=0)), np.nan)
    for row, one in enumerate(lists):
        found[row, : len(one)] = one
    return found


def training_ends(epochs: Float64s, losses: Float64s, most: float) -> Float64s:
    """Return the epoch at which each run's training would end where its loss has not fallen for ten epochs.

    ``epochs`` and ``losses`` are float64 (runs, points). The epoch is ``most`` at the latest, and NaN without points.
    """
    if not epochs.size:
        return np.full(len(epochs), np.nan)
    lowest = np.minimum.accumulate(np.where(np.isnan(losses), inf, losses), axis=1)
    before = np.column_stack([np.full(len(losses), inf), lowest[:, :-1]])
    falls = losses < before
    fell = np.maximum.accumulate(np.where(falls, epochs, 0.0), axis=1)
    is_over = ~falls & (epochs - fell >= _PATIENCE)
    counts = np.isfinite(epochs).sum(axis=1)
    stops = np.where(is_over.any(axis=1), is_over.argmax(axis=1) + 1, counts)
    return np.minimum(_last_of(epochs, stops), most)
