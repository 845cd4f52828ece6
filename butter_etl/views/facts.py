"""What commands answer, condensed for people and for machines: facts as plain data, and the lines that say them."""

from __future__ import annotations

import math
import os
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import starmap
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from butter_etl.campaign import Activity, RunningDriver, current_activity
from butter_etl.clusters import queue_lines
from butter_etl.errors import agreeing, all_of, counted, duration, html_table, plural, rate
from butter_etl.store import (
    Aim,
    Cell,
    Failure,
    Registry,
    Store,
    StudyLike,
    read_aim_state,
    read_aims,
    read_summary,
    to_arrow,
)
from butter_etl.studies import Choice, Cube, DataKind, FixedIds, Goal, OwnInfo, Selection, Study, Sweep
from butter_etl.summarize import plan_summaries
from butter_etl.train_tasks import Campaign, Tally, plan_runs
from butter_etl.views.terminal import core_hours, core_time

if TYPE_CHECKING:
    from butter_etl.campaign import TrainReport

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PLACES_SHOWN = 20
_FAILURES_SHOWN = 10
_LAST_LINES = 3
_CELLS_SHOWN = 5
_WIDTH = 80


def activity_lines(study: Study, activity: Activity) -> Iterator[str]:
    """Yield what goes on in a store of a study, in words."""
    now = time.time()
    for driver in activity.drivers:
        yield driver_line(driver, now)
        if driver.queue:
            yield from (f"    {line}" for line in queue_lines(driver.queue, now))
    places = [place for driver in activity.drivers for place in driver.places]
    for place in places[:_PLACES_SHOWN]:
        job = f", job {place.job_id}" if place.job_id else ""
        oldest = duration(max(0.0, now - place.since))
        what = f"{counted(place.runs, 'run')} in {counted(place.stacks, 'stack')}"
        done = f"{place.share:.0%} of their {study.points.plural} done"
        yield f"training on {place.host}{job}: {what}, the oldest for {oldest}, {done}"
    if hidden := places[_PLACES_SHOWN:]:
        runs = counted(sum(place.runs for place in hidden), "run")
        yield f"… and {runs} in {counted(len(hidden), 'more job')} (--json has all)"
    if activity.left_behind:
        runs = counted(activity.left_behind, "run")
        yield f"begun and left: {runs}, by drivers that are gone; `train` goes on with them"


def driver_line(driver: RunningDriver, now: float) -> str:
    """Say how far a driver is, how fast, and how long the rest takes at that pace; ``now`` is in unix seconds.

    The numbers of runs add up to all.
    """
    doing = "running" if driver.seconds else f"starting for {duration(max(0.0, now - driver.started))}"
    who = f"{driver.holder.host}, process {driver.holder.pid}"
    words = [
        f"{doing}: {who}: {driver.landed:,} of {counted(driver.wanted, 'run')} landed",
        *([f"{driver.present:,} landed by others"] if driver.present else []),
        f"{driver.failed:,} failed",
        f"{driver.in_flight:,} in flight",
        f"{driver.waiting:,} waiting",
    ]
    if driver.landed:
        words.append(rate(driver.landed / max(driver.seconds, 1.0), "run"))
    if driver.share_done:
        words.append(f"{driver.share_done:.0%} of the work done")
    left = driver.left_at(now)
    if left is not None:
        words.append(f"about {duration(left)} left")
    return ", ".join(words)


def failure_lines(failures: Sequence[Failure]) -> Iterator[str]:
    """Yield the newest failures: what, where, and the end of the traceback or of the job's log."""
    newest = sorted(failures, key=lambda failure: failure.time)[-_FAILURES_SHOWN:]
    if hidden := len(failures) - len(newest):
        yield f"failed: {hidden:,} more, older than {agreeing(len(newest), 'this', 'these')} (--json has all)"
    for failure in newest:
        yield failure_line(failure)
        if failure.host:
            yield f"    on {failure.host}" + (f", job {failure.job_id}" if failure.job_id else "")
        yield from (f"    | {line}" for line in failure.details.rstrip().splitlines()[-_LAST_LINES:])


def failure_line(failure: Failure) -> str:
    """Say in one line what failed, and why."""
    numbers = failure.repetitions
    which = f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
    what = "repetitions" if len(numbers) > 1 else "repetition"
    kind = f" [{failure.kind}]" if failure.kind else ""
    return f"failed: experiment {failure.experiment_id} ({failure.experiment}), {what} {which}: {failure.error}{kind}"


_YEAR = 365.25 * 86400
_FAR = 2 * _YEAR


def plan_facts(campaign: Campaign, at_once: int) -> dict[str, Any]:
    """Return what training would do, in experiments, runs and core-hours.

    ``seconds`` is how long it takes with ``at_once`` tasks at once.
    """
    plan = campaign.plan
    return {
        **_tally_facts(plan.total),
        "tasks_at_once": at_once,
        "seconds": plan.seconds(at_once),
        plural(plan.group): plan.groups,
        "own_datasets": [
            {"dataset": info.name, **kind.facts(info, campaign.own_columns[info.name])}
            for kind, info in _own_datasets(campaign)
        ],
        "warnings": campaign.warnings,
        **({"goals": [aim_facts(aiming.aim, aiming.cells)]} if (aiming := campaign.aiming) else {}),
        "parts": [
            {"sweep": sweep, plan.group: value, **_tally_facts(tally)} for (sweep, value), tally in plan.tallies.items()
        ],
    }


def _tally_facts(tally: Tally) -> dict[str, Any]:
    return {
        "experiments": tally.experiments,
        "infeasible": tally.infeasible,
        "runs_there": tally.there,
        "runs_missing": tally.missing,
        "core_hours": tally.core_seconds / 3600,
    }


def plan_columns(campaign: Campaign) -> tuple[str, ...]:
    """Return the columns of `plan_tables`."""
    group = campaign.registry.study.figures.word(campaign.plan.group)
    return group, "experiments", "infeasible", "there", "missing", "core-hours"


def plan_tables(campaign: Campaign) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """Yield for each sweep its name and a row for each value of the outermost key, in the columns of `plan_columns`.

    An experiment of several sweeps counts in the first.
    """
    tallies = campaign.plan.tallies
    for sweep in dict.fromkeys(name for name, _ in tallies):
        of_sweep = {value: tally for (name, value), tally in tallies.items() if name == sweep}
        yield sweep, [(value, *_tally_cells(of_sweep[value])) for value in sorted(of_sweep)]


def _tally_cells(tally: Tally) -> tuple[object, ...]:
    return tally.experiments, tally.infeasible, tally.there, tally.missing, core_hours(tally.core_seconds)


def plan_lines(campaign: Campaign, at_once: int) -> Iterator[str]:
    """Yield what training would do, in words, and how long it takes where ``at_once`` tasks run at once."""
    plan = campaign.plan
    missing = "missing" if campaign.aim is None else "more expected to be needed"
    yield f"{counted(plan.experiments, 'experiment')}, {counted(plan.there, 'run')} there, {plan.missing:,} {missing}"
    if campaign.aiming is not None:
        yield from aim_lines(aim_facts(campaign.aiming.aim, campaign.aiming.cells))
    if plan.infeasible:
        have = agreeing(plan.infeasible, "has", "have")
        yield f"{counted(plan.infeasible, 'more experiment')} {have} {_infeasible(campaign)}"
    if plan.missing:
        seconds = plan.seconds(at_once)
        yield f"estimated cost: {core_time(plan.core_seconds)}"
        yield f"estimated time: {duration(seconds)} with {at_once:,} at once, done {_moment(seconds)} if begun now"
        if not campaign.registry.study.trainer.goes_on:
            yield "a run that is stopped begins anew: what trains it keeps nothing (docs/own-study.md)"
    for kind, info in _own_datasets(campaign):
        yield f"{info.name}: {kind.spoken(info)}, content {info.content[:12]}"
        for which, how in kind.describe_details(campaign.own_columns[info.name]):
            yield textwrap.fill(f"{which}: {how}", _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _infeasible(campaign: Campaign) -> str:
    return campaign.registry.study.figures.infeasible


def _own_datasets(campaign: Campaign) -> list[tuple[DataKind, OwnInfo]]:
    """Return the users' own data sets of a plan's sweeps, each once, with their kind."""
    kind = campaign.registry.study.own_data
    found = dict.fromkeys(info for sweep in campaign.selection.sweeps for info in sweep.own_datasets())
    return [(kind, info) for info in found] if kind is not None else []


def _moment(seconds: float) -> str:
    """Return the local time in so many seconds, to the minute; the year alone where it is far away."""
    if seconds > _FAR:
        return f"in the year {time.localtime().tm_year + round(seconds / _YEAR)}"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + seconds))


def train_facts(campaign: Campaign, report: TrainReport) -> dict[str, Any]:
    """Return what training did, in runs."""
    return {
        "there": campaign.plan.there + report.present,
        "landed": report.landed,
        "failed": report.failed,
        "infeasible": campaign.plan.infeasible,
        "interrupted": report.interrupted,
        "core_seconds": report.core_seconds,
        "failures": report.failures,
        **({"goals": facts} if (facts := _goals_after(campaign)) else {}),
    }


def _goals_after(campaign: Campaign) -> list[dict[str, Any]]:
    """Return how far a campaign's aim is, as it was written down last."""
    if campaign.aim is None:
        return []
    store = campaign.store or Store.open(campaign.path, campaign.state, campaign.registry.study)
    state = read_aim_state(store, campaign.aim)
    return [] if state is None else [aim_facts(campaign.aim, state.cells)]


def train_lines(campaign: Campaign, report: TrainReport) -> Iterator[str]:
    """Yield what training did, in words; the failures are told by `butter_etl.views.facts.failure_lines`."""
    plan = campaign.plan
    if plan.infeasible:
        have, were = agreeing(plan.infeasible, "has", "have"), agreeing(plan.infeasible, "was", "were")
        yield f"{counted(plan.infeasible, 'experiment')} {have} {_infeasible(campaign)} and {were} left out"
    if not plan.experiments:
        yield "nothing to do: the selection has no experiments to train"
        return
    if not plan.missing and campaign.aiming is not None:
        yield "nothing to do: all goals are reached, or out of reach"
        yield from aim_lines(aim_facts(campaign.aiming.aim, campaign.aiming.cells))
        return
    if not plan.missing:
        runs, experiments = all_of(plan.there, "run"), counted(plan.experiments, "experiment")
        yield f"nothing to do: {runs} of {experiments} {agreeing(plan.there, 'is', 'are')} there"
        return
    cpu = duration(report.core_seconds)
    there = plan.there + report.present
    were = agreeing(there, "was", "were")
    yield f"{counted(report.landed, 'run')} landed ({cpu} of CPU time), {there:,} {were} there"
    for facts in _goals_after(campaign):
        yield from aim_lines(facts)


# --- goals --------------------------------------------------------------------------------------------------------


def aim_facts(aim: Aim, cells: Sequence[Cell]) -> dict[str, Any]:
    """Return what was asked for, and how far each experiment is, as plain values."""
    return {
        "goals": [{"goal": goal.text, **msgspec.structs.asdict(goal)} for goal in aim.goals],
        "sweeps": aim.sweeps,
        "where": aim.where,
        "max_repetitions": aim.max_repetitions,
        "budget": aim.budget,
        "experiments": [msgspec.structs.asdict(cell) for cell in cells],
    }


def aim_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the facts of `aim_facts` in words: how far the experiments are, and why some are out of reach."""
    cells = facts["experiments"]
    for number, said in enumerate(facts["goals"]):
        goal = msgspec.convert(said, Goal)
        widths = sorted(width for cell in cells if (width := cell["half_widths"][number]) is not None)
        near = sum(width <= goal.width for width in widths)
        yield f"goal {goal.text}: reached by {near:,} of {counted(len(cells), 'experiment')}"
        if widths:
            middle, widest = goal.spelled(widths[len(widths) // 2]), goal.spelled(widths[-1])
            yield f"  widths asked {goal.spelled(goal.width)}, there {middle} in the middle, {widest} at most"
    far = [cell for cell in cells if cell["state"] == "out of reach"]
    waiting = [cell for cell in cells if cell["state"] == "open" and cell["reason"]]
    for some, words in ((far, "out of reach"), (waiting, "left")):
        if some:
            yield f"  {words}: {counted(len(some), 'experiment')}"
        for cell in some[:_CELLS_SHOWN]:
            text = f"{cell['experiment']} ({cell['experiment_id']}): {cell['reason']}"
            yield textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="      ")
        if len(some) > _CELLS_SHOWN:
            yield f"    … and {len(some) - _CELLS_SHOWN:,} more (--json has all)"


def status_facts(store: Store, choice: Choice) -> dict[str, Any]:
    """Return what a store holds, who trains into it and what failed; of a choice, also what is missing."""
    # First: what drivers have counted by then is among the runs that are listed after it.
    activity = current_activity(store.state) if store.has_state else Activity((), 0)
    present = store.repetitions()
    registry = Registry(store)
    summaries = plan_summaries(store)
    facts: dict[str, Any] = {
        "store": store.location.address(),
        "experiments": len(present),
        "runs": sum(mask.bit_count() for mask in present.values()),
        "summaries": {"fresh": summaries.fresh, "stale": summaries.stale, "orphaned": summaries.orphans},
        "sweeps": registry.sweep_names(),
        "running": activity.drivers,
        "training": [place for driver in activity.drivers for place in driver.places],
        "left_behind": activity.left_behind,
        "failures": store.failures(present),
        "quarantined": store.quarantined(),
        "goals": [
            aim_facts(aim, state.cells if (state := read_aim_state(store, aim)) else ()) for aim in read_aims(store)
        ],
    }
    if not choice.is_empty:
        facts["selection"] = _selection_facts(registry, registry.select(choice), present)
    return facts


def _selection_facts(registry: Registry, selection: Selection, present: Mapping[int, int]) -> dict[str, int]:
    if selection.sweeps:
        # What it would cost, which depends on the device, is not told.
        plan = plan_runs(selection, registry, present, device=next(iter(registry.study.trainer.engines), "cpu"))
        return {
            "experiments": plan.experiments,
            "infeasible": plan.infeasible,
            "runs_there": plan.there,
            "runs_missing": plan.missing,
        }
    masks = [mask for one, mask in present.items() if selection.matches(registry.experiment(one))]
    return {"experiments": len(masks), "runs_there": sum(mask.bit_count() for mask in masks)}


@dataclass(frozen=True)
class Status:
    """What a store holds, who trains into it and what failed: ``facts`` as plain values, and in words as a text."""

    facts: Mapping[str, Any]
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _repr_html_(self) -> str:
        """Return the lines as a notebook shows them."""
        return html_table([(line,) for line in self.lines])


def status(
    store: str | os.PathLike[str],
    *,
    sweep: str | None = None,
    where: Iterable[str] = (),
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
) -> Status:
    """Return what a store holds, who trains into it and what failed, as ``butter-etl status`` tells it.

    With ``sweep`` and ``where`` (conditions as in `read_runs`) also what is missing of that. Raises StoreError where
    there is no store, SelectError for an unknown sweep.
    """
    opened = Store.open(store, state, study)
    facts = status_facts(opened, Choice(sweeps=(sweep,) if sweep else (), where=tuple(where)))
    return Status(facts, tuple(status_lines(opened.study, facts)))


def stale_line(store: Store, selection: Selection, level: float | None = None) -> str | None:
    """Return what to say of summaries that are missing, or were not made from all runs of a selection; else None.

    With a ``level``, it is said of the intervals at that level.
    """
    return stale_text(plan_summaries(store, selection, level=level).stale, level)


def stale_text(experiments: int, level: float | None = None) -> str | None:
    """Return what to say of so many experiments whose summaries are missing or out of date; None of none."""
    if not experiments:
        return None
    of, what, option = counted(experiments, "experiment"), "summaries", ""
    if level is not None:
        what, option = "intervals", f" --precision --level {level:.6g}"
    return f"the {what} of {of} are missing or out of date; run `butter-etl summarize{option}`"


def status_lines(study: Study, facts: dict[str, Any]) -> Iterator[str]:
    """Yield the facts of `status_facts` about a store of a study, in words."""
    yield f"{facts['store']}: {counted(facts['runs'], 'run')} of {counted(facts['experiments'], 'experiment')}"
    summaries = facts["summaries"]
    out_of_date = f", {summaries['stale']:,} missing or out of date" if summaries["stale"] else ""
    orphaned = f", {summaries['orphaned']:,} whose runs are gone" if summaries["orphaned"] else ""
    yield f"summaries: {summaries['fresh']:,} up to date{out_of_date}{orphaned}"
    if facts["sweeps"]:
        yield f"custom sweeps: {', '.join(facts['sweeps'])}"
    if selection := facts.get("selection"):
        missing = f", {selection['runs_missing']:,} missing" if "runs_missing" in selection else ""
        there = f"{counted(selection['experiments'], 'experiment')}, {counted(selection['runs_there'], 'run')} there"
        yield f"selection: {there}{missing}"
        if infeasible := selection.get("infeasible"):
            have = agreeing(infeasible, "has", "have")
            yield f"{counted(infeasible, 'more experiment')} of it {have} {study.figures.infeasible}"
    for one in facts["goals"]:
        yield from aim_lines(one)
    yield from activity_lines(study, Activity(facts["running"], facts["left_behind"]))
    yield from failure_lines(facts["failures"])
    if quarantined := facts["quarantined"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in quarantined.items())
        yield f"in quarantine: {counted(sum(quarantined.values()), 'file')} ({reasons})"


def best_losses(store: str, study: StudyLike | None = None) -> list[tuple[Any, ...]]:
    """Return a row for each group of experiments of a store's summaries whose values can be compared.

    It has the values of the columns that they can only be compared within, the numbers of experiments and runs, the
    best median at any point of the series that is drawn where none is asked for, and the network that has it. ``study``
    is the store's where that is not known by its name.
    """
    of = Store.open(store, study=study).study
    figures, series = of.figures, f"{of.figures.default}_median"
    sign = -1 if figures.default in figures.higher_is_better else 1
    described = tuple(figures.network) or of.parameters
    columns = list(dict.fromkeys([*figures.comparable, *described, "num_runs"]))
    frame = read_summary(store, columns=[*columns, series]).compute(scheduler="synchronous")
    groups: dict[tuple[Any, ...], list[tuple[float, dict[str, Any]]]] = {}
    for row, values in zip(to_arrow(frame[columns], of.summary).to_pylist(), frame[series], strict=True):
        group = tuple(str(row[name]) for name in figures.comparable)
        groups.setdefault(group, []).append((_lowest(values, sign), row))
    return [(*group, *_best_cells(of, groups[group], sign)) for group in sorted(groups)]


def _best_cells(study: Study, rows: list[tuple[float, dict[str, Any]]], sign: int) -> tuple[int, int, str, str]:
    lowest, best = min(rows, key=lambda row: row[0])
    before = study.figures.network
    network = "".join(f"{text}{best[name]}" for name, text in before.items()) or study.label(best)
    return len(rows), sum(row["num_runs"] for _, row in rows), f"{sign * lowest:.4f}", network


def _lowest(values: Iterable[float | None] | None, sign: int) -> float:
    """Return the lowest of the finite values, each times ``sign``; infinity if there is none."""
    some = (sign * value for value in values or () if value is not None)
    return min(filter(math.isfinite, some), default=math.inf)


def sweep_table(study: Study, sweeps: Iterable[Sweep]) -> list[tuple[Any, ...]]:
    """Return a row a sweep: name, cubes, experiments, feasible ones, repetitions."""
    return [
        (
            one.name,
            len(one.cubes),
            len(one),
            sum(int(feasible_cells(study, cube).sum()) for cube in one.cubes),
            one.repetitions,
        )
        for one in sweeps
    ]


def distinct_row(study: Study) -> tuple[Any, ...]:
    """Return a row like those of `sweep_table`, of the distinct experiments of the sweeps that the study counts so."""
    cubes = [cube for name in study.figures.distinct for cube in study.sweeps[name].cubes]
    ids = FixedIds(cubes)
    _, first = np.unique(np.concatenate([ids.codes(cube) for cube in cubes]), return_index=True)
    feasible = np.concatenate([feasible_cells(study, cube) for cube in cubes])
    return "distinct", None, first.size, int(feasible[first].sum()), None


def distinct_line(study: Study) -> str:
    """Say what the row of `distinct_row` counts."""
    names = study.figures.distinct
    is_first = names == tuple(study.sweeps)[: len(names)] and len(names) < len(_NUMBERS)
    which = f"the first {_NUMBERS[len(names)]} sweeps" if is_first else ", ".join(names)
    return f"distinct: experiments of {which}, each counted once"


@lru_cache(maxsize=64)
def feasible_cells(study: Study, cube: Cube) -> NDArray[np.bool_]:
    """Tell which cells of a cube can be built, bool, in the cube's order; only axes that matter are gone through."""
    axes, trainer = cube.space.axes, study.trainer
    matter = [not trainer.buildable_by or axis in trainer.buildable_by for axis in axes]
    smaller = type(cube)(tuple(starmap(_values_that_matter, zip(cube.axes, matter, strict=True))))
    found = np.array([trainer.can_build(one) for one in smaller.experiments()], dtype=np.bool_)
    spread = np.broadcast_to(found.reshape([*map(len, smaller.axes)]), [*map(len, cube.axes)])
    return spread.reshape(-1)


def _values_that_matter(values: tuple[Any, ...], matters: bool) -> tuple[Any, ...]:
    return values if matters else values[:1]


def cube_table(sweep: Sweep) -> list[tuple[int, str, str]]:
    """Return a row an axis of each cube: number of the cube (from 1), key, values."""
    return [
        (number, key, cube.listed(key)) for number, cube in enumerate(sweep.cubes, start=1) for key in cube.space.axes
    ]
