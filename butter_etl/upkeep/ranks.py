"""Whether a curve is one of a sample of curves, by its rank in depth; and several such questions at once.

A curve's depth is extremal depth: at each point it has a rank, counted from the nearer end; of two curves the one is
less deep whose sorted ranks come first (N. N. Narisetty and V. N. Nair, Extremal depth for functional data and
applications, JASA 111, 2016). The share of curves that are no deeper is a p-value, exact whatever the distribution, if
the curve and the sample are draws from one (M. Myllymäki et al., Global envelope tests for spatial processes, JRSS B
79, 2017, who call the order extreme rank length).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pointwise_ranks(curves: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rank of each curve (curves, points) at each point, from 1 at either end; ties have the deeper rank.

    Values that are not finite rank above all others, and are ties.
    """
    values = np.where(np.isfinite(curves), curves, np.inf)
    ordered = np.sort(values, axis=0)
    ranks = np.empty(values.shape, np.int64)
    for point in range(values.shape[1]):
        below = np.searchsorted(ordered[:, point], values[:, point], side="right")
        above = len(values) - np.searchsorted(ordered[:, point], values[:, point], side="left")
        ranks[:, point] = np.minimum(below, above)
    return ranks


def no_deeper(curve: NDArray[np.float64], sample: NDArray[np.float64]) -> int:
    """Return how many of a curve (points,) and the curves of a sample (curves, points) are no deeper than the curve.

    That is at least 1, the curve itself, and at most the sample's number and 1.
    """
    ranks = np.sort(pointwise_ranks(np.vstack([curve, sample])), axis=1)
    differing = ranks != ranks[0]
    first = differing.argmax(axis=1)
    places = np.arange(len(ranks))
    return int(np.count_nonzero(~differing.any(axis=1) | (ranks[places, first] < ranks[0, first])))


def outside(curve: NDArray[np.float64], sample: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell at each point whether a curve (points,) is beyond all of a sample (curves, points)."""
    return np.asarray(pointwise_ranks(np.vstack([curve, sample]))[0] == 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that are corrected for their number, at most 1, in their order.

    Those that are at most a level are rejected; any of them wrongly with at most that probability, however they depend
    on each other (S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics
    6, 1979).
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = highest
    return corrected
