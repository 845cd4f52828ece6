"""Goals: how sure a campaign is to make a statistic of each experiment, and how far its runs are from that."""

from __future__ import annotations

import re
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np
import pyarrow as pa

from butter_etl.engines import Aimed, Precision, Reach, check_level, entries_of, reach
from butter_etl.errors import SelectError, suggestion
from butter_etl.studies.study import Study

#: At the last point, of each run's own best value, or at all points at once.
Where = Literal["end", "best", "everywhere"]
_GOAL: Final = re.compile(
    r"\s*(?P<name>[\w.]+)\s*:\s*(?P<width>[-+\w.]+)\s*(?P<percent>%?)\s+at\s+(?P<level>[-+\w.]+?)\s*(?P<of_100>%?)"
    r"(?:[\s,]+(?:at\s+)?(?:the\s+)?(?P<where>[a-z]+))?\s*"
)
_WRITE: Final = (
    "write NAME: WIDTH at LEVEL, such as 'test_loss_median: 2% at 95%', or 'test_loss_median: 0.01 at 0.99 best'"
)


class Goal(msgspec.Struct, frozen=True):
    """A goal: the interval for a statistic of a series has at most this half-width, at this confidence level.

    ``relative`` widths are shares of the estimate. ``mean`` is a goal on a mean, which holds approximately.
    """

    series: str
    width: float
    relative: bool
    level: float
    where: Where = "end"
    mean: bool = False

    @property
    def text(self) -> str:
        """Return the goal as `parse_goal` takes it."""
        width = f"{100 * self.width:.6g}%" if self.relative else f"{self.width:.6g}"
        return f"{self.series}_{'avg' if self.mean else 'median'}: {width} at {100 * self.level:.6g}% {self.where}"

    def spelled(self, width: float) -> str:
        """Return a half-width in the words of the goal."""
        return f"{100 * width:.3g}%" if self.relative else f"{width:.3g}"

    def aimed(self, points: int) -> Aimed:
        """Return what is asked of the intervals of an experiment of so many points."""
        at_once = points if self.where == "everywhere" else 1
        return Aimed(self.level, self.width, self.relative, max(at_once, 1), self.mean)


def parse_goal(text: str, study: Study, *, approximate: bool = False) -> Goal:
    """Return the goal that a text spells; raise SelectError in one line for what is none.

    Goals on means are refused unless they may hold only ``approximate``ly.
    """
    place = f"--precision {text!r}"
    match = _GOAL.fullmatch(text)
    if match is None:
        raise SelectError(f"{place}: {_WRITE}")
    series, mean = _statistic(place, match["name"], study, approximate=approximate)
    width = _number(place, match["width"]) / (100 if match["percent"] else 1)
    if not 0 < width < float("inf"):
        raise SelectError(f"{place}: a half-width is more than 0, as no number of runs makes it {match['width']}")
    level = _number(place, match["level"]) / (100 if match["of_100"] else 1)
    where: Where | None = next((one for one in get_args(Where) if one == (match["where"] or "end")), None)
    if where is None:
        raise SelectError(f"{place}: unknown {match['where']!r}; known: {', '.join(get_args(Where))}")
    if where == "best" and _best(study, series) is None:
        raise SelectError(f"{place}: the study {study.name} has no best values of {series}")
    return Goal(series, width, bool(match["percent"]), check_level(round(level, 12)), where, mean)


def _statistic(place: str, name: str, study: Study, *, approximate: bool) -> tuple[str, bool]:
    known = [f"{series}_median" for series in study.reduction.histories]
    if name in known:
        return name.removesuffix("_median"), False
    series = name.removesuffix("_avg")
    if series == name or series not in study.reduction.histories:
        raise SelectError(f"{place}: unknown {name!r}{suggestion(name, known)}; goals are on {', '.join(known)}")
    if not approximate:
        raise SelectError(
            f"{place}: no interval for a mean is sure to hold where runs are few and skewed; ask for "
            f"{series}_median, or pass --approximate"
        )
    return series, True


def _number(place: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SelectError(f"{place}: {text!r} is no number; {_WRITE}") from None


def _best(study: Study, series: str) -> Any:
    targets = Precision(study.reduction, (series,)).targets.values()
    return next((one for one in targets if one.of not in ("points", "end")), None)


def goal_columns(study: Study, goals: tuple[Goal, ...]) -> list[str]:
    """Return the columns of the run frame that goals look at."""
    needed = {study.reduction.counted, *(study.reduction.histories[goal.series] for goal in goals)}
    return ["repetition", *sorted(needed)]


def look_at(study: Study, goal: Goal, runs: pa.Table) -> Reach:
    """Tell how far the runs of an experiment are from a goal, given their rows of `goal_columns`."""
    precision = Precision(study.reduction, (goal.series,))
    entries = entries_of(precision, runs, study.reduction.histories[goal.series]) if runs.num_rows else None
    if entries is None:
        return reach(np.zeros((0, 1)), goal.aimed(1))
    points = entries.values.shape[1]
    if goal.where == "everywhere":
        values = entries.values.astype(np.float64)
    else:
        target = _best(study, goal.series) if goal.where == "best" else precision.targets[f"{goal.series}_end"]
        values = entries.of(target)[:, None]
    return reach(values, goal.aimed(points))
