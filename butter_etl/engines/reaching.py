"""How narrow an interval is at the last look, and how many runs a narrower one takes, as far as the runs tell.

Looks, and why their intervals hold whenever one stops, are those of `butter_etl.engines.intervals`.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from butter_etl.engines.intervals import LOOKS, Interval, last_look, look_ranks, mean_and_t, medians, ranked

Float64s: TypeAlias = npt.NDArray[np.float64]

#: From so many spreads of the middle half to those of nine tenths on, tails are called heavy; 2.4 is normal.
_HEAVY: Final = 4.0
#: If the widest gap within the middle half takes more of it, there are two modes.
_GAP: Final = 0.5
_FEWEST: Final = 8


class Aimed(NamedTuple):
    """What is asked of an interval: its level, the half-width, and whether that is relative to the estimate.

    ``points`` is how many a band covers at once, 1 where it is none. With ``of_means`` it is Student's interval.
    """

    level: float
    width: float
    is_relative: bool
    points: int = 1
    of_means: bool = False


class Reach(NamedTuple):
    """How far it is: the position in `LOOKS` of the last look, and the half-width there, infinite where there is none.

    ``low``, ``estimate`` and ``high`` are those of the widest column. ``needed`` is how many runs would reach what is
    asked, as far as can be seen. Where the estimate ``may_be_zero``, nothing is relative to it.
    """

    look: int
    width: float
    needed: float
    low: float = math.nan
    estimate: float = math.nan
    high: float = math.nan
    may_be_zero: bool = False
    shape: str = ""


def first_look(aimed: Aimed) -> int:
    """Return the least number of runs at which there is an interval; 0 where no look has one."""
    if aimed.of_means:
        return LOOKS[0]
    ranks = look_ranks(aimed.level, aimed.points)
    return next((look for look, rank in zip(LOOKS, ranks, strict=True) if rank), 0)


def reach(values: Float64s, aimed: Aimed) -> Reach:
    """Look at runs, (runs, columns) in the order of their repetitions: at as many of them as the last look is of.

    What is not finite is infinite; a column with NaN, which some run does not reach, has no interval.
    """
    look = last_look(len(values))
    interval = _interval(values, look, aimed)
    if interval is None:
        return Reach(look, math.inf, float(first_look(aimed) or math.inf))
    estimates = _estimates(values[: LOOKS[look]], aimed)
    widths = _relative(interval, estimates, aimed)
    widest = int(np.argmax(widths))
    low, high = float(interval.low[widest]), float(interval.high[widest])
    needed = float(LOOKS[look]) if widths[widest] <= aimed.width else _needed(values, look, aimed)
    return Reach(
        look,
        float(widths[widest]),
        needed,
        low,
        float(estimates[widest]),
        high,
        may_be_zero=aimed.is_relative and low <= 0 <= high,
        shape=shape_of(values[:, widest]),
    )


def _interval(values: Float64s, look: int, aimed: Aimed) -> Interval | None:
    if look < 0:
        return None
    first = values[: LOOKS[look]]
    if aimed.of_means:
        return _mean(first, aimed)[1] if np.isfinite(first).all() else None
    rank = look_ranks(aimed.level, aimed.points)[look]
    if not rank:
        return None
    is_whole = ~np.isnan(first).any(axis=0)
    return Interval(*(np.where(is_whole, bound, np.nan) for bound in ranked(np.sort(first, axis=0), rank)))


def _mean(first: Float64s, aimed: Aimed) -> tuple[Float64s, Interval]:
    """Return means and Student's intervals, each look and point with its share of what may miss."""
    return mean_and_t(first, 1 - (1 - aimed.level) / len(LOOKS) / aimed.points)


def _estimates(first: Float64s, aimed: Aimed) -> Float64s:
    return _mean(first, aimed)[0] if aimed.of_means else medians(np.sort(first, axis=0))


def _relative(interval: Interval, estimates: Float64s, aimed: Aimed) -> Float64s:
    """Return half-widths, relative to the estimates where that is asked for; infinite where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        widths = (interval.high - interval.low) / 2
        if aimed.is_relative:
            holds_zero = (interval.low <= 0) & (interval.high >= 0)
            widths = np.where(holds_zero, np.inf, widths / np.abs(estimates))
    return np.where(np.isnan(widths), np.inf, widths)


def expected_width(values: Float64s, look: int, aimed: Aimed) -> float:
    """Return the half-width to be expected at a later look, if runs are distributed as those that there are.

    The bounds are guessed to be the quantiles of these at rank / (n + 1), where their ranks are expected.
    """
    ordered = np.sort(values, axis=0)
    estimates = _estimates(values, aimed)
    if aimed.of_means:
        narrower = math.sqrt(len(values) / LOOKS[look])
        with np.errstate(invalid="ignore"):
            of_now = _mean(values, aimed)[1]
            interval = Interval(*(estimates + (bound - estimates) * narrower for bound in of_now))
    else:
        fraction = look_ranks(aimed.level, aimed.points)[look] / (LOOKS[look] + 1)
        interval = Interval(_quantiles(ordered, fraction), _quantiles(ordered, 1 - fraction))
    return float(_relative(interval, estimates, aimed).max())


def _needed(values: Float64s, look: int, aimed: Aimed) -> float:
    """Return at which later look an interval is expected to be as narrow as is asked for, or a guess beyond them."""
    width = math.inf
    for later in range(look + 1, len(LOOKS)):
        width = expected_width(values, later, aimed)
        if width <= aimed.width:
            return float(LOOKS[later])
    if not math.isfinite(width):
        return math.inf
    return LOOKS[-1] * max((width / aimed.width) ** 2, 1.0 + 1.0 / LOOKS[-1])


def _quantiles(ordered: Float64s, fraction: float) -> Float64s:
    """Return quantiles at a position among n sorted values that is fraction * (n + 1), between the first and last."""
    position = min(max(fraction * (len(ordered) + 1) - 1, 0.0), len(ordered) - 1.0)
    below = int(position)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    with np.errstate(invalid="ignore"):
        found: Float64s = np.where(low == high, low, low + (high - low) * (position - below))
        return found


def shape_of(values: Float64s) -> str:
    """Return what makes an interval wide, in words: values that are not finite, two modes, heavy tails, or spread."""
    ordered = np.sort(values[np.isfinite(values)])
    if len(ordered) < len(values):
        return f"{len(values) - len(ordered)} of {len(values)} values are not finite"
    if len(ordered) < _FEWEST:
        return "wide spread"
    q05, q25, q75, q95 = np.quantile(ordered, [0.05, 0.25, 0.75, 0.95])
    middle = ordered[(ordered >= q25) & (ordered <= q75)]
    if q75 > q25 and np.diff(middle).max(initial=0.0) > _GAP * (q75 - q25):
        return "two modes"
    return "heavy tails" if q95 - q05 > _HEAVY * (q75 - q25) else "wide spread"
