"""Campaigns with goals: rounds of runs where they narrow intervals most, until all are narrow enough or out of reach.

A round looks at what has landed of each experiment, in the order of the repetitions and at the numbers of runs that
`butter_etl.engines.LOOKS` says: so intervals hold at whatever look one stops. First every experiment is trained up to
its first look. Then those that are too wide are trained up to the next one, those first that a core-second is expected
to bring nearest. What would take more runs than are allowed, with some room for error while there are few, is out of
reach.

All of it follows from the runs that are there. So drivers that are killed, and several of them, do the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.campaign.cutting import Wanted
from butter_etl.engines import LOOKS, Reach, first_look
from butter_etl.store import Aim, AimState, Cell, Store, note_spent, spent, write_aim_state
from butter_etl.studies import Goal, RunSpec, Study, goal_columns, look_at

#: It is out of reach if it seems to need 1 + this / n times the runs that are allowed, where n are there.
_ROOM: Final = 60.0
#: With a budget, a round hands out at most this share of what is left of it, or one experiment's runs.
_SHARE: Final = 0.25
#: Further than so many times what is asked for is as good as any.
_FAR: Final = 1e6
_LEAST_SECONDS: Final = 1e-6
#: Why runs cannot be looked at.
NO_HISTORY: Final = "its runs have no history of what is asked for"


class Look(NamedTuple):
    """An experiment as it was looked at: how far it is, and up to how many runs it goes next; 0 where it stays."""

    wanted: Wanted
    cell: Cell
    runs: int
    gain: float = 0.0

    def added(self, repetitions: Sequence[int]) -> float:
        """Return the estimated cost of repetitions, in core-seconds."""
        return len(repetitions) * self.wanted.core_seconds


@dataclass
class Aiming:
    """A campaign's aim at work: what is trained next, and what has been seen of each experiment.

    ``store`` is None as long as there is none. ``driver`` is the token of who trains; without, nothing is written.
    """

    study: Study
    store: Store | None
    aim: Aim
    driver: str = ""
    cells: tuple[Cell, ...] = ()

    def __post_init__(self) -> None:
        self._seen: dict[tuple[int, int], Look] = {}

    def round(
        self, wanted: Iterable[Wanted], failed: Collection[tuple[int, int]] = (), core_seconds: float = 0.0
    ) -> list[Wanted]:
        """Return what is to be trained next, of all that may be; write down how far the aim is.

        ``failed`` are (experiment id, repetition) that this driver could not train, ``core_seconds`` what it has spent.
        """
        writes = self.store is not None and self.driver != ""
        if self.store is not None and writes:
            note_spent(self.store, self.aim, self.driver, core_seconds)
        looks = [self.look(one, failed) for one in wanted]
        chosen = dict(self._affordable(looks, failed))
        self.cells = tuple(
            _unaffordable(look.cell, self.aim) if look.runs and key not in chosen else look.cell
            for key, look in enumerate(looks)
        )
        if self.store is not None and writes:
            write_aim_state(self.store, self.aim, AimState(int(time.time()), self.cells))
        return [msgspec.structs.replace(looks[key].wanted, repetitions=some) for key, some in chosen.items()]

    def expected(self, one: Wanted) -> int:
        """Return how many more runs of an experiment are expected to be needed."""
        look = self.look(one)
        needed = max(look.runs, min(look.cell.needed or look.runs, self.aim.max_repetitions))
        return max(0, needed - look.cell.runs) if look.runs else 0

    def _affordable(
        self, looks: Sequence[Look], failed: Collection[tuple[int, int]]
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Yield the repetitions that are trained next, by the position of the experiment; the best first."""
        left = math.inf if self.aim.budget is None else 3600 * self.aim.budget - self._spent()
        share = max(left * _SHARE, 0.0)
        given = 0.0
        order = sorted(range(len(looks)), key=lambda key: -looks[key].gain)
        for key in order:
            look = looks[key]
            some = self._repetitions(look, failed)
            cost = look.added(some)
            if some and given + cost <= (left if not given or math.isinf(look.gain) else share):
                given += cost
                yield key, some

    def _repetitions(self, look: Look, failed: Collection[tuple[int, int]]) -> tuple[int, ...]:
        """Return the repetitions that an experiment lacks of so many runs, those that failed left out."""
        of = look.wanted
        there = self._there(of) if look.runs else set()
        found: list[int] = []
        count = 0
        for repetition in range(self.aim.first_repetition, self.aim.first_repetition + self.aim.max_repetitions):
            if count >= look.runs:
                break
            if (of.experiment_id, repetition) in failed:
                continue
            count += 1
            if repetition not in there:
                found.append(repetition)
        return tuple(found)

    def _spent(self) -> float:
        return 0.0 if self.store is None else spent(self.store, self.aim)

    def _there(self, of: Wanted) -> set[int]:
        if of.experiment_id is None or self.store is None:
            return set()
        return self.store.repetitions_of(of.experiment_id, self.store.partition_of(of.spec))

    # --- one experiment ----------------------------------------------------------------------------------------------

    def look(self, of: Wanted, failed: Collection[tuple[int, int]] = ()) -> Look:
        """Look at the runs of an experiment, those before the first repetition that is still to come."""
        there, usable = self._there(of), []
        for repetition in range(self.aim.first_repetition, self.aim.first_repetition + self.aim.max_repetitions):
            if repetition in there:
                usable.append(repetition)
            elif (of.experiment_id, repetition) not in failed:
                break
        if of.experiment_id is None or self.store is None:
            return look_of(self.study, self.aim, of, None, 0)
        key = of.experiment_id, len(usable)
        if key not in self._seen:
            runs = _read(self.store, self.aim, of, usable) if len(usable) >= LOOKS[0] else None
            self._seen[key] = look_of(self.study, self.aim, of, runs, len(usable))
        return self._seen[key]._replace(wanted=of)


def _read(store: Store, aim: Aim, of: Wanted, usable: Sequence[int]) -> pa.Table:
    """Read what goals look at of some repetitions of an experiment."""
    columns = goal_columns(store.study, aim.goals)
    files = store.run_files(store.partition_of(of.spec), of.experiment_id)
    table = pa.concat_tables([store.read_runs(file, columns) for file in files], promote_options="default")
    return table.filter(pc.is_in(table["repetition"], pa.array(usable, pa.uint16())))


def look_of(study: Study, aim: Aim, of: Wanted, runs: pa.Table | None, count: int) -> Look:
    """Return where an experiment with so many runs stands; ``runs`` are None where they are too few for a look."""
    points = study.trainer.points(RunSpec(of.spec, aim.first_repetition))
    start = max(first_look(goal.aimed(points)) or LOOKS[-1] + 1 for goal in aim.goals)
    where = Cell(of.experiment_id or 0, of.spec.describe(), count, 0, (None,) * len(aim.goals), start, "open")
    if start > aim.max_repetitions:
        least = "no number of runs has such an interval" if start > LOOKS[-1] else f"the first look is at {start} runs"
        return Look(of, _out_of_reach(where, f"too few runs are allowed: {least}"), 0)
    if runs is None or count < start:
        return Look(of, where, start, math.inf)
    reaches = [look_at(study, goal, runs) for goal in aim.goals]
    if any(one.look < 0 for one in reaches):
        return Look(of, _out_of_reach(where, NO_HISTORY), 0)
    return _judged(aim, of, where, reaches)


def _judged(aim: Aim, of: Wanted, cell: Cell, reaches: Sequence[Reach]) -> Look:
    """Return where an experiment stands that was looked at, goal by goal, and how many runs it gets next."""
    needed = max(one.needed for one in reaches)
    cell = msgspec.structs.replace(
        cell,
        looked_at=LOOKS[max(one.look for one in reaches)],
        half_widths=tuple(one.width if math.isfinite(one.width) else None for one in reaches),
        needed=math.ceil(needed) if math.isfinite(needed) else None,
    )
    both = zip(reaches, aim.goals, strict=True)
    short = [(one, goal) for one, goal in both if not one.width <= goal.width]
    if not short:
        return Look(of, msgspec.structs.replace(cell, state="reached"), 0)
    worst, goal = max(short, key=lambda pair: pair[0].width / pair[1].width)
    allowed = [number for number in LOOKS if cell.runs < number <= aim.max_repetitions]
    if not allowed or needed > aim.max_repetitions * (1 + _ROOM / cell.runs):
        return Look(of, _out_of_reach(cell, _reason(worst, goal, cell)), 0)
    cost = (min(needed, _FAR) - cell.runs + 1) * max(of.core_seconds, _LEAST_SECONDS)
    return Look(of, cell, allowed[0], min(worst.width / goal.width, _FAR) / cost)


def _out_of_reach(cell: Cell, reason: str) -> Cell:
    return msgspec.structs.replace(cell, state="out of reach", reason=reason)


def _reason(worst: Reach, goal: Goal, cell: Cell) -> str:
    """Return why a goal cannot be reached within the limits, in words."""
    if worst.may_be_zero:
        what = "mean" if goal.mean else "median"
        return f"its {what} may be 0, and no width is a share of that: ask for an absolute one"
    about = "more runs than can be told" if cell.needed is None else f"about {cell.needed:,} runs"
    width = goal.spelled(worst.width) if math.isfinite(worst.width) else "no bound"
    return f"{worst.shape}: {width} with {cell.looked_at} runs, {about} for {goal.spelled(goal.width)}"


def _unaffordable(cell: Cell, aim: Aim) -> Cell:
    """Return a cell that would go on if the budget allowed it."""
    if aim.budget is None:
        return cell
    return msgspec.structs.replace(cell, reason=f"what is left of {aim.budget:g} core-hours is not enough")
