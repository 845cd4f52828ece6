"""Runs of other makers held against ours: is a run one of the runs that this package makes of its experiment?

Repetitions of ours are trained on demand, whatever a store has: a sample that somebody may have changed vouches for
nothing. The run's curves, those of all histories that its study judges by, are ranked among them in depth
(`butter_etl.upkeep.ranks`). Where runs of the two makers come from one distribution, the p-value is exact. Where they
do not, by a documented departure, nothing is compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from butter_etl.campaign import Item, Stack, train_stack
from butter_etl.clusters import map_each
from butter_etl.errors import ButterError, DatasetError, SpecError, one_line
from butter_etl.store import parse_partition
from butter_etl.studies import OwnExperiment, RunSpec, Study
from butter_etl.upkeep.comparing import judged_histories
from butter_etl.upkeep.ranks import holm, no_deeper, outside
from butter_etl.upkeep.replaying import Equipment
from butter_etl.upkeep.run_frame import NamedRun, RunFrame

if TYPE_CHECKING:
    from distributed import Client

COMPATIBLE, INCOMPATIBLE, NOT_COMPARABLE = "compatible", "incompatible", "not-comparable"
UNCOMPARED = "uncompared"
#: What a comparison can come to, gravest first, and what that means.
LIKENESSES: Final[Mapping[str, str]] = {
    INCOMPATIBLE: "no run of its experiment, at the level of the audit",
    UNCOMPARED: "no run of ours could be trained for it",
    NOT_COMPARABLE: "made by other rules, as is documented",
    COMPATIBLE: "may be a run of its experiment",
}
#: A task trains repetitions that take about so many seconds, and at most so many.
_TASK_SECONDS, _TASK_RUNS = 60.0, 64


class Compared(msgspec.Struct, frozen=True):
    """What became of a run of another maker. ``outcome`` is one of `LIKENESSES`, ``detail`` says how it came to that.

    ``p_value`` is that of its rank among ``repetitions`` of ours, ``corrected`` that for all runs that were compared.
    """

    run_id: str
    experiment_id: int
    experiment: str
    task: str
    path: str
    outcome: str
    detail: str = ""
    repetitions: int = 0
    p_value: float | None = None
    corrected: float | None = None

    @property
    def is_fault(self) -> bool:
        """Tell whether something is wrong with the run, or with the comparison."""
        return self.outcome in (INCOMPATIBLE, UNCOMPARED)


class Stranger(NamedTuple):
    """A run of another maker as it is compared: its judged histories after each other, and our experiment for it."""

    found: Compared
    one: OwnExperiment | None = None
    curve: NDArray[np.float64] = np.empty(0)
    lengths: tuple[int, ...] = ()


# --- who is compared ---------------------------------------------------------------------------------------------


def read_stranger(run: NamedRun, frame: RunFrame) -> Stranger:
    """Read a run of another maker, and find our experiment for it; where there is none, its outcome says so."""
    file, study = frame.files[run.file], frame.study
    table = frame.around(run.file).read_run(run.run_id)
    (row,) = table.drop_columns(list(study.histories)).to_pylist()
    row |= parse_partition(study.key_schema, file.partition)
    theirs = study.foreign(row["task"], row["task_version"], row)
    found = Compared(run.run_id, row["experiment_id"], theirs.describe(), row["task"], file.path, NOT_COMPARABLE)
    if (why := study.departure(theirs)) is not None:
        return Stranger(msgspec.structs.replace(found, detail=why))
    try:
        one = study.twin_of(theirs)
    except SpecError as error:
        return Stranger(msgspec.structs.replace(found, detail=str(error)))
    if not study.trainer.can_build(one):
        return Stranger(msgspec.structs.replace(found, detail="this package builds no network of these parameters"))
    points = study.trainer.points(RunSpec(one, 0))
    curves = [_curve(table, name)[:points] for name in judged_histories(study)]
    if not all(map(len, curves)):
        return Stranger(msgspec.structs.replace(found, detail="it has no values of a history that runs are judged by"))
    lengths = tuple(map(len, curves))
    return Stranger(msgspec.structs.replace(found, outcome=COMPATIBLE), one, np.concatenate(curves), lengths)


def _curve(table: pa.Table, name: str) -> NDArray[np.float64]:
    """Return the history of a table's only row; a null element is NaN."""
    return np.asarray(table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False), np.float64)


def enough_repetitions(compared: int, level: float) -> int:
    """Return how many repetitions it takes for one of so many runs to be found incompatible at a level."""
    return math.ceil(compared / level)


# --- our repetitions ---------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Repetitions of an experiment that a task trains."""

    one: OwnExperiment
    repetitions: range


def train_batch(batch: Batch, study: Study, equipment: Equipment, watch: Callable[[], None] | None) -> Any:
    """Train repetitions; return their judged histories, an array (repetitions, points) each, or why there are none.

    These curves travel to whoever audits: some hundred of the few experiments that were drawn.
    """
    engine, device = equipment.engine_of(study, {})
    item = Item(batch.one, 0, "audit", tuple(batch.repetitions))
    try:
        data = study.trainer.load(batch.one, Path(equipment.data_dir), _NoCopies())
        stack = Stack((item,), engine, device)
        (table,) = train_stack(study, stack, data, watch=lambda points, take: watch() if watch is not None else None)
    except ButterError as error:
        return one_line(error)
    points = study.trainer.points(RunSpec(batch.one, 0))
    return {name: _padded(table, name, points) for name in judged_histories(study)}


class _NoCopies:
    """What is kept for runs of other makers: nothing, since a data set of a user's own is known by its content."""

    def load(self, one: OwnExperiment) -> Any:
        """Raise DatasetError."""
        raise DatasetError(f"{one.describe()}: its data are a user's own")


def _padded(table: pa.Table, name: str, points: int) -> NDArray[np.float64]:
    """Return histories as an array (runs, points); where a run ended before its last point, NaN."""
    found = np.full((table.num_rows, points), np.nan)
    for row, values in enumerate(table[name].to_pylist()):
        found[row, : len(values or ())] = values or ()
    return found


def _batches(study: Study, equipment: Equipment, ones: Sequence[OwnExperiment], repetitions: int) -> Iterator[Batch]:
    engine, device = equipment.engine_of(study, {})
    estimate = study.trainer.estimator(engine, device)
    for one in ones:
        seconds = max(estimate(RunSpec(one, 0)).seconds, 1e-6)
        most = max(1, min(_TASK_RUNS, int(_TASK_SECONDS / seconds)))
        keys = {study.trainer.stack_key(RunSpec(one, repetition)) for repetition in range(min(2, repetitions))}
        most = most if len(keys) == 1 else 1
        for start in range(0, repetitions, most):
            yield Batch(one, range(start, min(start + most, repetitions)))


class LikeningPlan(NamedTuple):
    """The runs of other makers that are compared, and how many of our repetitions of each experiment are trained."""

    strangers: tuple[Stranger, ...] = ()
    repetitions: int = 0

    @property
    def ones(self) -> list[OwnExperiment]:
        """Return the experiments that are trained."""
        return list(dict.fromkeys(stranger.one for stranger in self.strangers if stranger.one is not None))

    @property
    def runs(self) -> int:
        """Return how many runs are trained."""
        return len(self.ones) * self.repetitions

    def core_seconds(self, study: Study, equipment: Equipment) -> float:
        """Return an estimate of what their training costs."""
        estimate = study.trainer.estimator(*equipment.engine_of(study, {}))
        return sum(estimate(RunSpec(one, 0)).seconds * self.repetitions for one in self.ones)


def plan_likening(
    frame: RunFrame, runs: Sequence[NamedRun], level: float, repetitions: int | None = None
) -> LikeningPlan:
    """Read runs of other makers; by default so many repetitions are trained that one of them can be incompatible."""
    strangers = tuple(read_stranger(run, frame) for run in runs)
    compared = sum(stranger.one is not None for stranger in strangers)
    return LikeningPlan(strangers, (repetitions or enough_repetitions(compared, level)) if compared else 0)


def run_likening(
    plan: LikeningPlan,
    frame: RunFrame,
    equipment: Equipment,
    level: float,
    client: Client | None = None,
    threads: int | None = None,
    on_progress: Callable[[int], None] = lambda runs: None,
    stop: Callable[[], None] = lambda: None,
    watch: Callable[[], None] | None = None,
) -> list[Compared]:
    """Train our repetitions, as Dask tasks on ``client`` or in threads, and compare; return the runs by their ids.

    The p-values of all runs together are corrected by Holm's procedure. Curves of an experiment are let go as soon as
    its runs are ranked.
    """
    batches = list(_batches(frame.study, equipment, plan.ones, plan.repetitions))
    left = {one: sum(batch.one == one for batch in batches) for one in plan.ones}
    curves: dict[OwnExperiment, list[Any]] = {one: [] for one in plan.ones}
    train_one = partial(train_batch, study=frame.study, equipment=equipment, watch=None if client else watch)
    found = {stranger.found.run_id: stranger.found for stranger in plan.strangers}
    done = 0
    for place, result in map_each(train_one, batches, client, threads=threads, stop=stop):
        batch = batches[place]
        curves[batch.one].append(result)
        left[batch.one] -= 1
        done += len(batch.repetitions)
        on_progress(done)
        if not left[batch.one]:
            ours = curves.pop(batch.one)
            of_it = [stranger for stranger in plan.strangers if stranger.one == batch.one]
            found.update((one.run_id, one) for one in (ranked(stranger, ours) for stranger in of_it))
    return judged_together([found[run_id] for run_id in sorted(found)], level)


def ranked(stranger: Stranger, ours: Sequence[Any]) -> Compared:
    """Return a run with its p-value among repetitions of ours, or without where some could not be trained."""
    if failed := [result for result in ours if isinstance(result, str)]:
        return msgspec.structs.replace(stranger.found, outcome=UNCOMPARED, detail=failed[0])
    names = list(ours[0])
    parts = [np.vstack([result[name] for result in ours]) for name in names]
    sample = np.hstack([part[:, :length] for part, length in zip(parts, stranger.lengths, strict=True)])
    lower = no_deeper(stranger.curve, sample)
    beyond = np.split(outside(stranger.curve, sample), np.cumsum(stranger.lengths)[:-1])
    where = [
        f"{int(one.sum()):,} of {len(one):,} points of {name}"
        for name, one in zip(names, beyond, strict=True)
        if one.any()
    ]
    place = f"{lower:,} of {len(sample) + 1:,} curves are no deeper"
    return msgspec.structs.replace(
        stranger.found,
        detail=place + (f"; beyond all of ours at {' and '.join(where)}" if where else ""),
        repetitions=len(sample),
        p_value=lower / (len(sample) + 1),
    )


def judged_together(runs: Sequence[Compared], level: float) -> list[Compared]:
    """Return runs with p-values that are corrected for their number, and what they come to at a level."""
    ranked = [one for one in runs if one.p_value is not None]
    corrected = dict(zip((one.run_id for one in ranked), holm([one.p_value or 0.0 for one in ranked]), strict=True))
    return [
        one
        if one.p_value is None
        else msgspec.structs.replace(
            one,
            corrected=corrected[one.run_id],
            outcome=INCOMPATIBLE if corrected[one.run_id] <= level else COMPATIBLE,
        )
        for one in runs
    ]
