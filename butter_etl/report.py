"""What commands answer, condensed for people and for machines: facts as plain data, and the lines that say them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from butter_etl.costs import load_rates
from butter_etl.driver import TrainReport
from butter_etl.engines import choose_engine
from butter_etl.frames import read_summary
from butter_etl.heartbeats import running_drivers
from butter_etl.registry import Registry
from butter_etl.selection import Choice, Selection
from butter_etl.store import Failure, Store
from butter_etl.summarize import plan_summaries
from butter_etl.terminal import core_time, duration
from butter_etl.train_tasks import Campaign, plan_runs

_TOLERANCE = "no network within 20 % of their size"


def plan_facts(campaign: Campaign) -> dict[str, Any]:
    """What training would do, in experiments, runs and core-hours."""
    plan = campaign.plan
    return {
        "experiments": plan.experiments,
        "infeasible": plan.infeasible,
        "runs_there": plan.there,
        "runs_missing": plan.missing,
        "core_hours": plan.core_seconds / 3600,
        "datasets": plan.datasets,
    }


def plan_rows(campaign: Campaign) -> list[tuple[str, int, int, str]]:
    """A row a data set of what is missing: experiments, runs, estimated cost."""
    counts: dict[str, tuple[int, int, float]] = {}
    for wanted in campaign.plan.wanted:
        experiments, runs, seconds = counts.get(wanted.spec.dataset, (0, 0, 0.0))
        own = len(wanted.repetitions)
        counts[wanted.spec.dataset] = (experiments + 1, runs + own, seconds + own * wanted.core_seconds)
    return [(name, one, runs, core_time(seconds)) for name, (one, runs, seconds) in sorted(counts.items())]


def plan_lines(campaign: Campaign) -> Iterator[str]:
    """What training would do, in words."""
    plan = campaign.plan
    yield (
        f"{plan.experiments:,} experiments ({plan.infeasible:,} more have {_TOLERANCE}), "
        f"{plan.there:,} runs there, {plan.missing:,} missing"
    )
    if plan.missing:
        yield f"estimated cost: {core_time(plan.core_seconds)}"
    for info in dict.fromkeys(info for sweep in campaign.selection.sweeps for info in sweep.own_datasets()):
        yield (
            f"data set {info.name}: {info.task}, {info.rows:,} rows, {info.inputs:,} inputs, {info.outputs:,} outputs, "
            f"content {info.sha256[0][:12]}"
        )


def train_facts(campaign: Campaign, report: TrainReport) -> dict[str, Any]:
    """What training did, in runs."""
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
    """What training did, in words; failures are told apart by `failure_line`."""
    plan = campaign.plan
    if plan.infeasible:
        yield f"{plan.infeasible:,} experiments have {_TOLERANCE} and were left out"
    if not plan.missing:
        yield f"nothing to do: all {plan.there:,} runs of {plan.experiments:,} experiments are there"
        return
    cpu = duration(report.core_seconds)
    yield f"{report.landed:,} runs landed ({cpu} of CPU time), {plan.there + report.present:,} were there"


def failure_line(failure: Failure) -> str:
    """A failure in one line."""
    numbers = failure.repetitions
    which = f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
    return f"failed: experiment {failure.experiment_id} ({failure.experiment}), repetitions {which}: {failure.error}"


def status_facts(store: Store, choice: Choice) -> dict[str, Any]:
    """What a store holds, who trains into it, what failed; and of a choice, what is missing."""
    present = store.repetitions()
    registry = Registry(store)
    summaries = plan_summaries(store)
    facts: dict[str, Any] = {
        "store": str(store),
        "experiments": len(present),
        "runs": sum(mask.bit_count() for mask in present.values()),
        "summaries": {"fresh": summaries.fresh, "stale": summaries.stale, "orphaned": summaries.orphans},
        "sweeps": registry.sweep_names(),
        "running": running_drivers(store.state) if store.has_state else [],
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
    """The facts of `status_facts`, in words."""
    yield f"{facts['store']}: {facts['runs']:,} runs of {facts['experiments']:,} experiments"
    summaries = facts["summaries"]
    out_of_date = f", {summaries['stale']:,} missing or out of date" if summaries["stale"] else ""
    orphaned = f", {summaries['orphaned']:,} whose runs are gone" if summaries["orphaned"] else ""
    yield f"summaries: {summaries['fresh']:,} up to date{out_of_date}{orphaned}"
    if facts["sweeps"]:
        yield f"custom sweeps: {', '.join(facts['sweeps'])}"
    if selection := facts.get("selection"):
        missing = f", {selection['runs_missing']:,} missing" if "runs_missing" in selection else ""
        infeasible = f" ({selection['infeasible']:,} more have {_TOLERANCE})" if selection.get("infeasible") else ""
        there = selection["runs_there"]
        yield f"selection: {selection['experiments']:,} experiments{infeasible}, {there:,} runs there{missing}"
    for driver in facts["running"]:
        yield (
            f"running: {driver.holder.host}, process {driver.holder.pid}: {driver.landed:,} of {driver.wanted:,} runs "
            f"landed, {driver.in_flight:,} in flight, {driver.failed:,} failed"
        )
    yield from map(failure_line, facts["failures"])
    if quarantined := facts["quarantined"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in quarantined.items())
        yield f"in quarantine: {sum(quarantined.values()):,} files ({reasons})"


def best_losses(store: str) -> list[tuple[str, int, int, str, str]]:
    """A row a data set of a store's summaries: experiments, runs, lowest median test loss of any epoch, and whose."""
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
    """The lowest of the finite losses; infinity if there is none."""
    return min((loss for loss in losses or () if loss is not None and math.isfinite(loss)), default=math.inf)
