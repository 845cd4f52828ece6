"""What pictures and pages of a study show, and within which experiments its losses may be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from butter_etl.studies.experiments import Experiment


class Box(NamedTuple):
    """A layer, or what comes before the first, in the picture of a network, which is a row of boxes.

    ``name`` says what it is, ``detail`` how, in a few words each; ``shape`` is that of what it gives for one input:
    (width,), or (size, size, channels).
    """

    name: str
    detail: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A picture that a study declares: what of its experiments is drawn, in curves and panels of what parameters.

    ``note`` says what is to be seen. ``column`` is what is drawn, ``label`` its name on an axis. There is a curve, or
    what stands for one, for each value of ``by``, and a panel for each value of ``apart``.
    """

    note: str
    column: str
    label: str
    by: str
    apart: str
    higher_is_better: bool = False


@dataclass(frozen=True, kw_only=True)
class Along(Drawing):
    """A value that summaries have of each experiment, along a parameter, which ``words`` name on the axis."""

    along: str
    words: str


@dataclass(frozen=True, kw_only=True)
class OverRuns(Drawing):
    """A list that summaries have with a value for each run of an experiment; ``words`` name the axis of runs."""

    words: str


@dataclass(frozen=True, kw_only=True)
class Spread(Drawing):
    """The values that a history ends with, over the runs of experiments: quartiles, and each run by itself."""


@dataclass(frozen=True)
class Figures:
    """The declared facts of a study's pictures.

    ``labels`` name series on an axis, the first one is drawn where none is asked for; ``higher_is_better`` are the
    series of which that is so. ``title`` are the parameters that name an experiment in a title, ``names`` those of them
    that speak for themselves. ``map_axes`` are the parameters along a map, across and up, with their words. ``shown``
    are the series of a page, ``filters`` the parameters that it filters by. Values of series are compared only where
    all of ``comparable``, columns of an experiment, are equal. ``network`` are the columns that describe the best
    network in a table, each with what stands before its value. ``told`` are the columns of summaries, numbers, that a
    page lists of experiments besides. ``words`` are what a table's head calls columns, where
    that is not their names. ``distinct`` are the sweeps whose experiments are counted together, each once, where sweeps
    are listed. ``infeasible`` is what experiments have that cannot be built. ``boxes(experiment, derived)`` returns the
    layers of its network in their order, given its derived columns too; none where they cannot be told. Experiments
    that have the same in the column ``twins`` are of one network, whoever trained it: pictures put them side by side.
    ``drawings`` are further pictures by name.
    """

    labels: Mapping[str, str]
    higher_is_better: frozenset[str] = frozenset()
    title: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    map_axes: tuple[tuple[str, str], tuple[str, str]] | None = None
    shown: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    comparable: tuple[str, ...] = ()
    network: Mapping[str, str] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    distinct: tuple[str, ...] = ()
    infeasible: str = "nothing that can be built"
    boxes: Callable[[Experiment, Mapping[str, Any]], Sequence[Box]] | None = None
    twins: str | None = None
    drawings: Mapping[str, Drawing] = field(default_factory=dict)

    @property
    def default(self) -> str:
        """Return the series that is drawn where none is asked for."""
        return next(iter(self.labels))

    def word(self, column: str) -> str:
        """Return what a table's head calls a column."""
        return self.words.get(column, column.replace("_", " "))

    def label(self, series: str) -> str:
        """Return the name of a series on an axis."""
        return self.labels.get(series, series.replace("_", " "))
