"""The search of a cell by a Gaussian process: which hyperparameters are tried next, of what has landed so far.

The losses of trials are taken to be a Gaussian process over the unit cube that hyperparameters are coded in, with a
Matérn kernel of order 5/2 that has a length for each of them, as in the article; a round has the trials of largest
expected improvement, each chosen as if those before it had come out as expected (D. Ginsbourger, R. Le Riche, L.
Carraro, *Kriging is well-suited to parallelize optimization*, 2010: the kriging believer). Losses are replaced by the
normal scores of their ranks, for they span orders of magnitude; infeasible trials have the worst.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from butter_etl.engines import Stream, words
from butter_etl.studies.capacity.experiments import PROCESS, SearchCell
from butter_etl.studies.capacity.hyperparameters import (
    Dimension,
    HyperValue,
    decode,
    draw,
    encode,
    free,
    parse_hparams,
)
from butter_etl.studies.capacity.networks import network_of
from butter_etl.studies.experiments import Experiment, RunSpec
from butter_etl.studies.trainers import Landed, Proposal

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

    Float64s = NDArray[np.float64]

#: Trials of a round, where nobody says how many, and trials that are drawn before the first is proposed.
ROUND: Final = 20
DRAWN: Final = 20
#: Trials that a process is fitted to: the best, and the last ones.
_MOST_FITTED: Final = 400
#: Places that are looked at in a round: anywhere, and near the best trials.
_ANYWHERE, _NEAR, _BEST = 1000, 100, 5
_NEARNESS: Final = 0.1
#: The range of the kernel's lengths, where sides of the cube are 1, and of its noise.
_LENGTHS: Final = (0.05, 20.0)
_NOISE: Final = (1e-4, 1.0)


def is_searched(one: Experiment) -> bool:
    """Tell whether the trials of a cell are proposed in rounds."""
    return isinstance(one, SearchCell) and one.search == PROCESS


def propose(cell: SearchCell, wanted: Sequence[int], landed: Sequence[Landed]) -> Sequence[Proposal]:
    """Return the trials of the next round: some of those that are wanted, with their hyperparameters.

    They are drawn as those of a random search are until there are enough trials to learn from.
    """
    size = network_of(cell).parameters
    some = wanted[:ROUND]
    tried = sorted((one for one in landed if one.row["hparams"]), key=lambda one: one.repetition)
    if len(tried) < DRAWN:
        some = some[: DRAWN - len(tried)]
        return [Proposal(one, draw(cell, size, RunSpec(cell, one).seed)) for one in some]
    places = np.array([_place(cell, size, parse_hparams(one.row["hparams"])) for one in tried])
    losses = np.array([_loss(one.row) for one in tried])
    seed = int.from_bytes(hashlib.sha256(f"{cell.canonical_json()} round {some[0]}".encode()).digest()[:8], "big")
    chosen = next_places(free(cell, size), places, losses, len(some), seed)
    keys = [one.key for one in free(cell, size)]
    return [
        Proposal(one, decode(cell, size, dict(zip(keys, place, strict=True))))
        for one, place in zip(some, chosen.tolist(), strict=True)
    ]


def _place(cell: SearchCell, size: int, hparams: Mapping[str, HyperValue]) -> list[float]:
    return list(encode(cell, size, hparams).values())


def _loss(row: Mapping[str, Any]) -> float:
    """Return the validation loss of a trial at its end; infinite of an infeasible one."""
    last = row["valid_loss"][-1] if row["valid_loss"] and not row["infeasible"] else None
    return last if last is not None and math.isfinite(last) else math.inf


def next_places(dimensions: Sequence[Dimension], places: Float64s, losses: Float64s, count: int, seed: int) -> Float64s:
    """Return ``count`` places of the unit cube to be tried next, float64 (count, dimensions).

    ``places`` (trials, dimensions) have been tried, with these ``losses``. The random numbers are those of a seed.
    """
    order = np.argsort(losses, kind="stable")
    kept = np.union1d(order[: _MOST_FITTED // 2], np.arange(len(losses))[-_MOST_FITTED // 2 :])
    scores, known = normal_scores(losses)[kept], features(dimensions, places[kept])
    looked_at = _candidates(places[order[:_BEST]], seed)
    described = features(dimensions, looked_at)
    process = _fitted(known, scores)
    chosen: list[int] = []
    for _ in range(count):
        mean, deviation = process.predict(described, return_std=True)
        gain = expected_improvement(mean, deviation, float(scores.min()))
        gain[chosen] = -math.inf
        best = int(gain.argmax())
        chosen.append(best)
        known, scores = np.vstack([known, described[best]]), np.append(scores, mean[best])
        process = _refitted(process, known, scores)
    return looked_at[chosen]


def normal_scores(losses: Float64s) -> Float64s:
    """Return the quantile of the normal distribution at each loss's rank; equal losses have their mean rank's."""
    _, which, counts = np.unique(losses, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2.0
    return np.asarray(ndtri((ranks[which] - 0.5) / len(losses)), np.float64)


def features(dimensions: Sequence[Dimension], places: Float64s) -> Float64s:
    """Return what a process is over, float64 (places, features): choices are corners, numbers their places."""
    found: list[Float64s] = []
    for at, one in enumerate(dimensions):
        if one.range.kind == "choices":
            count = len(one.range.choices)
            which = np.minimum((places[:, at] * count).astype(np.int64), count - 1)
            found += [(which == choice).astype(np.float64) for choice in range(count)]
        else:
            found.append(places[:, at])
    return np.stack(found, axis=1)


def expected_improvement(mean: Float64s, deviation: Float64s, best: float) -> Float64s:
    """Return how far below ``best`` normal variables are expected to be, counting those above as 0.

    It is (best - mean) Φ(z) + deviation φ(z), z = (best - mean) / deviation (D. R. Jones, M. Schonlau, W. J. Welch,
    *Efficient global optimization of expensive black-box functions*, 1998).
    """
    below = best - mean
    z = below / np.maximum(deviation, 1e-12)
    return np.asarray(below * ndtr(z) + deviation * np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi), np.float64)


def _candidates(best: Float64s, seed: int) -> Float64s:
    """Return places to look at: anywhere, and around some."""
    width = best.shape[1]
    count = _ANYWHERE + _NEAR * len(best)
    drawn = (words(seed, Stream.HYPERPARAMETERS, 2 * count * width).astype(np.float64) + 0.5) * 2.0**-32
    uniform, moved = drawn.reshape(2, count, width)
    around = np.repeat(best, _NEAR, axis=0) + _NEARNESS * ndtri(uniform[_ANYWHERE:])
    # A third of the places' sides are drawn anew: choices do not change by small steps.
    around = np.where(moved[_ANYWHERE:] < 1 / 3, uniform[_ANYWHERE:], around)
    return np.vstack([uniform[:_ANYWHERE], np.clip(around, 1e-6, 1.0 - 1e-6)])


def _fitted(known: Float64s, scores: Float64s) -> GaussianProcessRegressor:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    shape = kernels.Matern(np.ones(known.shape[1]), _LENGTHS, nu=2.5)
    kernel = kernels.ConstantKernel(1.0, (1e-2, 1e2)) * shape + kernels.WhiteKernel(0.1, _NOISE)
    with warnings.catch_warnings():
        # Lengths at their bounds are features that do not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianProcessRegressor(kernel, normalize_y=True).fit(known, scores)


def _refitted(process: GaussianProcessRegressor, known: Float64s, scores: Float64s) -> GaussianProcessRegressor:
    from sklearn.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor(process.kernel_, optimizer=None, normalize_y=True).fit(known, scores)
