"""Answers of commands, condensed for people and for machines: facts as plain data, and the lines that say them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from butter_etl.activity import Activity, activity_lines, current_activity, failure_lines
from butter_etl.costs import load_rates
from butter_etl.datasets import DatasetInfo
from butter_etl.driver import TrainReport
from butter_etl.engines import choose_engine
from butter_etl.frames import read_summary
from butter_etl.registry import Registry
from butter_etl.selection import Choice, Selection
from butter_etl.store import Store
from butter_etl.summarize import plan_summaries
from butter_etl.terminal import core_hours, core_time, duration
from butter_etl.train_tasks import Campaign, Tally, plan_runs

_TOLERANCE = "no network within 20 % of their size"
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
    yield (f"{plan.experiments:,} experiments, {plan.there:,} runs there, {plan.missing:,} missing")
    if plan.infeasible:
        yield f"{plan.infeasible:,} more experiments have {_TOLERANCE}"
    if plan.missing:
        seconds = plan.seconds(at_once)
        yield f"estimated cost: {core_time(plan.core_seconds)}"
        yield f"estimated time: {duration(seconds)} with {at_once:,} at once, done {_moment(seconds)} if begun now"
    for info in _own_datasets(campaign.selection):
        what = "a response" if info.task == "regression" else f"{max(info.outputs, 2):,} classes"
        yield f"{info.name}: {info.rows:,} rows, {info.inputs:,} inputs, {what}, content {info.sha256[0][:12]}"


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
    """Yield what training did, in words; the failures are told by `butter_etl.activity.failure_lines`."""
    plan = campaign.plan
    if plan.infeasible:
        yield f"{plan.infeasible:,} experiments have {_TOLERANCE} and were left out"
    if not plan.missing:
        yield f"nothing to do: all {plan.there:,} runs of {plan.experiments:,} experiments are there"
        return
    cpu = duration(report.core_seconds)
    yield f"{report.landed:,} runs landed ({cpu} of CPU time), {plan.there + report.present:,} were there"


def status_facts(store: Store, choice: Choice) -> dict[str, Any]:
    """Return what a store holds, who trains into it and what failed; of a choice, also what is missing."""
    present = store.repetitions()
    registry = Registry(store)
    summaries = plan_summaries(store)
    activity = current_activity(store.state) if store.has_state else Activity((), (), 0)
    facts: dict[str, Any] = {
        "store": str(store),
        "experiments": len(present),
        "runs": sum(mask.bit_count() for mask in present.values()),
        "summaries": {"fresh": summaries.fresh, "stale": summaries.stale, "orphaned": summaries.orphans},
        "sweeps": registry.sweep_names(),
        "running": activity.drivers,
        "training": activity.places,
        "left_behind": activity.left_behind,
        "failures": store.failures(present),
        "quarantined": store.quarantined(),
    }
    if not choice.is_empty:
        facts["selection"] = _selection_facts(registry, registry.select(choice), present)
    return facts


def _selection_facts(registry: Registry, selection: Selection, present: Mapping[int, int]) -> dict[str, int]:
    if selection.sweeps:
        plan = plan_runs(selection, registry, present, load_rates(choose_engine("auto", "cpu")))
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
    yield f"{facts['store']}: {facts['runs']:,} runs of {facts['experiments']:,} experiments"
    summaries = facts["summaries"]
    out_of_date = f", {summaries['stale']:,} missing or out of date" if summaries["stale"] else ""
    orphaned = f", {summaries['orphaned']:,} whose runs are gone" if summaries["orphaned"] else ""
    yield f"summaries: {summaries['fresh']:,} up to date{out_of_date}{orphaned}"
    if facts["sweeps"]:
        yield f"custom sweeps: {', '.join(facts['sweeps'])}"
    if selection := facts.get("selection"):
        missing = f", {selection['runs_missing']:,} missing" if "runs_missing" in selection else ""
        yield f"selection: {selection['experiments']:,} experiments, {selection['runs_there']:,} runs there{missing}"
        if selection.get("infeasible"):
            yield f"{selection['infeasible']:,} more experiments of it have {_TOLERANCE}"
    yield from activity_lines(Activity(facts["running"], facts["training"], facts["left_behind"]))
    yield from failure_lines(facts["failures"])
    if quarantined := facts["quarantined"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in quarantined.items())
        yield f"in quarantine: {sum(quarantined.values()):,} files ({reasons})"


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
