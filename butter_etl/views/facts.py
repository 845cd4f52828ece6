"""What commands answer, condensed for people and for machines: facts as plain data, and the lines that say them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from butter_etl.campaign import Activity, RunningDriver, TrainReport, current_activity
from butter_etl.clusters import queue_lines
from butter_etl.engines import choose_engine
from butter_etl.errors import agreeing, all_of, counted, duration, rate
from butter_etl.store import Failure, Registry, Store, read_summary
from butter_etl.studies import (
    AXES,
    Choice,
    Cube,
    DatasetInfo,
    Regularizer,
    Selection,
    Sweep,
    cube_codes,
    experiment_topology,
    float_text,
    load_rates,
)
from butter_etl.summarize import plan_summaries
from butter_etl.train_tasks import Campaign, Tally, plan_runs
from butter_etl.views.terminal import core_hours, core_time

_PLACES_SHOWN = 20
_FAILURES_SHOWN = 10
_LAST_LINES = 3


def activity_lines(activity: Activity) -> Iterator[str]:
    """Yield what goes on, in words."""
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
        done = f"{place.share:.0%} of their epochs done"
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


_TOLERANCE = "no network within 20 % of the size"
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
        "datasets": plan.datasets,
        "own_datasets": [
            {"dataset": info.name, "task": info.task, "outputs": info.outputs, **msgspec.structs.asdict(info.own)}
            for info in _own_datasets(campaign.selection)
            if info.own
        ],
        "parts": [
            {"sweep": sweep, "dataset": dataset, **_tally_facts(tally)}
            for (sweep, dataset), tally in plan.tallies.items()
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


#: The columns of `plan_tables`.
PLAN_COLUMNS = ("data set", "experiments", "infeasible", "there", "missing", "core-hours")


def plan_tables(campaign: Campaign) -> Iterator[tuple[str, list[tuple[object, ...]]]]:
    """Yield for each sweep its name and a row for each data set, in the columns `PLAN_COLUMNS`.

    An experiment of several sweeps counts in the first.
    """
    tallies = campaign.plan.tallies
    for sweep in dict.fromkeys(name for name, _ in tallies):
        of_sweep = ((dataset, tally) for (name, dataset), tally in tallies.items() if name == sweep)
        yield sweep, [(dataset, *_tally_cells(tally)) for dataset, tally in sorted(of_sweep)]


def _tally_cells(tally: Tally) -> tuple[object, ...]:
    return tally.experiments, tally.infeasible, tally.there, tally.missing, core_hours(tally.core_seconds)


def plan_lines(campaign: Campaign, at_once: int) -> Iterator[str]:
    """Yield what training would do, in words, and how long it takes where ``at_once`` tasks run at once."""
    plan = campaign.plan
    yield f"{counted(plan.experiments, 'experiment')}, {counted(plan.there, 'run')} there, {plan.missing:,} missing"
    if plan.infeasible:
        yield f"{counted(plan.infeasible, 'more experiment')} {agreeing(plan.infeasible, 'has', 'have')} {_TOLERANCE}"
    if plan.missing:
        seconds = plan.seconds(at_once)
        yield f"estimated cost: {core_time(plan.core_seconds)}"
        yield f"estimated time: {duration(seconds)} with {at_once:,} at once, done {_moment(seconds)} if begun now"
    for info in _own_datasets(campaign.selection):
        what = "a response" if info.task == "regression" else counted(max(info.outputs, 2), "class")
        size = f"{counted(info.rows, 'row')}, {counted(info.inputs, 'input')}"
        yield f"{info.name}: {size}, {what}, content {info.sha256[0][:12]}"


def _own_datasets(selection: Selection) -> list[DatasetInfo]:
    return list(dict.fromkeys(info for sweep in selection.sweeps for info in sweep.own_datasets()))


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
    }


def train_lines(campaign: Campaign, report: TrainReport) -> Iterator[str]:
    """Yield what training did, in words; the failures are told by `butter_etl.views.facts.failure_lines`."""
    plan = campaign.plan
    if plan.infeasible:
        have, were = agreeing(plan.infeasible, "has", "have"), agreeing(plan.infeasible, "was", "were")
        yield f"{counted(plan.infeasible, 'experiment')} {have} {_TOLERANCE} and {were} left out"
    if not plan.experiments:
        yield "nothing to do: the selection has no experiments to train"
        return
    if not plan.missing:
        runs, experiments = all_of(plan.there, "run"), counted(plan.experiments, "experiment")
        yield f"nothing to do: {runs} of {experiments} {agreeing(plan.there, 'is', 'are')} there"
        return
    cpu = duration(report.core_seconds)
    there = plan.there + report.present
    were = agreeing(there, "was", "were")
    yield f"{counted(report.landed, 'run')} landed ({cpu} of CPU time), {there:,} {were} there"


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
    }
    if not choice.is_empty:
        facts["selection"] = _selection_facts(registry, registry.select(choice), present)
    return facts


def _selection_facts(registry: Registry, selection: Selection, present: Mapping[int, int]) -> dict[str, int]:
    if selection.sweeps:
        plan = plan_runs(selection, registry, present, load_rates(choose_engine("auto", "cpu"), "cpu"))
        return {
            "experiments": plan.experiments,
            "infeasible": plan.infeasible,
            "runs_there": plan.there,
            "runs_missing": plan.missing,
        }
    masks = [mask for one, mask in present.items() if selection.matches(registry.experiment(one))]
    return {"experiments": len(masks), "runs_there": sum(mask.bit_count() for mask in masks)}


def status_lines(facts: dict[str, Any]) -> Iterator[str]:
    """Yield the facts of `status_facts`, in words."""
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
            yield f"{counted(infeasible, 'more experiment')} of it {have} {_TOLERANCE}"
    yield from activity_lines(Activity(facts["running"], facts["left_behind"]))
    yield from failure_lines(facts["failures"])
    if quarantined := facts["quarantined"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in quarantined.items())
        yield f"in quarantine: {counted(sum(quarantined.values()), 'file')} ({reasons})"


def best_losses(store: str) -> list[tuple[str, int, int, str, str]]:
    """Return a row for each data set of a store's summaries.

    It has the data set, the numbers of experiments and runs, the lowest median test loss of any epoch, and the network
    that has it.
    """
    columns = ["dataset", "shape", "size", "depth", "num_runs", "test_loss_median"]
    frame = read_summary(store, columns=columns).compute(scheduler="synchronous")
    frame["best"] = [_lowest(losses) for losses in frame["test_loss_median"]]
    rows = []
    for name, group in frame.groupby("dataset"):
        best = group.loc[group["best"].idxmin()]
        network = f"{best['shape']} {best['size']}, depth {best['depth']}"
        rows.append((str(name), len(group), int(group["num_runs"].sum()), f"{best['best']:.4f}", network))
    return rows


def _lowest(losses: Iterable[float | None] | None) -> float:
    """Return the lowest of the finite losses; infinity if there is none."""
    return min((loss for loss in losses or () if loss is not None and math.isfinite(loss)), default=math.inf)


def sweep_table(sweeps: Iterable[Sweep]) -> list[tuple[Any, ...]]:
    """Return a row a sweep: name, cubes, experiments, feasible ones, repetitions."""
    return [
        (
            one.name,
            len(one.cubes),
            len(one),
            sum(int(feasible_cells(cube).sum()) for cube in one.cubes),
            one.repetitions,
        )
        for one in sweeps
    ]


def distinct_row(sweeps: Iterable[Sweep]) -> tuple[Any, ...]:
    """Return a row like those of `sweep_table`, of the distinct experiments of published sweeps.

    The optimizer sweep, which came later, does not count.
    """
    cubes = [cube for sweep in sweeps if sweep.name != "optimizer" for cube in sweep.cubes]
    _, first = np.unique(np.concatenate([cube_codes(cube) for cube in cubes]), return_index=True)
    feasible = np.concatenate([feasible_cells(cube) for cube in cubes])
    return "distinct", None, first.size, int(feasible[first].sum()), None


@lru_cache(maxsize=64)
def feasible_cells(cube: Cube) -> NDArray[np.bool_]:
    """Tell which cells of a cube have a topology, bool, in the cube's order; only the first four axes matter."""
    smaller = Cube.of(**{axis: cube[axis] for axis in ("dataset", "shape", "size", "depth")})
    found = [experiment_topology(spec) is not None for spec in smaller.experiments()]
    return np.repeat(np.array(found, dtype=np.bool_), len(cube) // len(smaller))


def cube_table(sweep: Sweep) -> list[tuple[int, str, str]]:
    """Return a row an axis of each cube: number of the cube (from 1), key, values."""
    return [
        (number, key, ", ".join(map(_value_text, values)))
        for number, cube in enumerate(sweep.cubes, start=1)
        for key, values in zip(AXES, cube.axes, strict=True)
    ]


def _value_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Regularizer):
        return f"{value.type} {float_text(value.factor)}"
    if isinstance(value, tuple):
        name, momentum = value
        return name if momentum is None else f"{name} (momentum {float_text(momentum)})"
    return float_text(value) if isinstance(value, float) else str(value)
