"""`butter-etl summarize`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from butter_etl.cli.options import (
    cluster_option,
    json_option,
    print_json,
    quiet_option,
    select_options,
    state_option,
    store_argument,
    study_options,
    workers_option,
)
from butter_etl.cli.waiting import shown_cluster
from butter_etl.errors import UsageError, agreeing, all_of, counted

#: How many threads of one process summarise side by side; more would wait for the interpreter.
_THREADS = 4
#: From this many bytes on, processes are worth the seconds that starting them takes: they hold each other up less than
#: threads, which wait for the interpreter (`benchmarks.summaries --cores 1,2` measures both).
_BYTES_FOR_PROCESSES = 4e9

if TYPE_CHECKING:
    from distributed import Client

    from butter_etl.store import Store
    from butter_etl.studies import Choice
    from butter_etl.summarize import SummaryPlan, SummaryReport


@click.command()
@store_argument
@select_options(refusal="summaries are over all repetitions")
@cluster_option
@workers_option
@click.option("--full", is_flag=True, help="Recompute every summary.")
@click.option("--precision", is_flag=True, help="Also confidence intervals for medians and means.")
@click.option(
    "--level",
    "levels",
    type=float,
    multiple=True,
    metavar="L",
    help="Confidence level of --precision (that of before, or 0.95); may be given again.",
)
@state_option
@study_options
@quiet_option
@json_option
def summarize(
    store: str,
    choice: Choice,
    cluster: str | None,
    workers: int | None,
    full: bool,
    precision: bool,
    levels: tuple[float, ...],
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Compute statistics over repetitions, where runs have changed.

    \b
    butter-etl summarize store
    butter-etl summarize store --precision
    """
    from butter_etl.store import Registry, Store
    from butter_etl.summarize import plan_summaries, wanted_levels

    if levels and not precision:
        raise UsageError("--level goes with --precision")
    opened = Store.open(store, state)
    selection = Registry(opened).select(choice)
    facts: dict[str, Any] = {}
    for level, renewed in wanted_levels(opened, levels if precision else None):
        planned = plan_summaries(opened, selection, full=full, level=level, renewed=renewed)
        report = _summarized(planned, opened, cluster, workers, quiet=quiet or as_json)
        counts = {"computed": report.computed, "fresh": planned.fresh, "dropped": report.dropped}
        if level is None:
            facts |= counts
        else:
            facts.setdefault("precision", []).append({"level": level, **counts})
        if not as_json:
            click.echo(_said(planned, report, level))
    if as_json:
        print_json(facts)


def _summarized(
    planned: SummaryPlan, store: Store, site: str | None, workers: int | None, *, quiet: bool
) -> SummaryReport:
    from butter_etl.summarize import SummaryReport

    if not planned.partitions:
        return SummaryReport()
    with _workers(planned, site, workers, quiet=quiet) as (client, threads):
        return summarize_with_progress(planned, store, client, quiet=quiet, threads=threads)


def _said(planned: SummaryPlan, report: SummaryReport, level: float | None) -> str:
    """Return what was done, of summaries or of the intervals at a level, in words."""
    if not planned.partitions:
        are = agreeing(planned.fresh, "is", "are")
        what = f"{all_of(planned.fresh, 'summary')} {are} up to date"
        if level is not None:
            what = f"the intervals at {level:.6g} of {all_of(planned.fresh, 'experiment')} are up to date"
        return f"nothing to do: {what if planned.fresh else 'there are no runs of it'}"
    dropped = f", {report.dropped:,} without runs dropped" if report.dropped else ""
    fresh = f"{planned.fresh:,} {agreeing(planned.fresh, 'was', 'were')} up to date"
    done = "summarised" if level is None else f"with intervals at {level:.6g}"
    return f"{counted(report.computed, 'experiment')} {done}, {fresh}{dropped}"


@contextmanager
def _workers(
    planned: SummaryPlan, site: str | None, workers: int | None, *, quiet: bool
) -> Iterator[tuple[Client | None, int]]:
    """Yield a cluster's client and 1, or None and the number of threads of this process that do the work.

    Most of the time is spent where threads do not hold each other up. So on one machine a few of them do nearly as well
    as processes, and start at once.
    """
    from butter_etl.clusters import start_cluster

    wanted = workers or len(os.sched_getaffinity(0))
    processes = min(wanted, len(planned.partitions)) if planned.size >= _BYTES_FOR_PROCESSES else 1
    if site is None and processes == 1:
        yield None, min(wanted, _THREADS)
    elif site is None:
        with start_cluster(workers=processes, threads_per_worker=1) as client:
            yield client, 1
    else:
        with shown_cluster(site, workers=workers, quiet=quiet) as client:
            yield client, 1


def summarize_with_progress(
    planned: SummaryPlan, store: Store, client: Client | None, *, quiet: bool, threads: int = 1
) -> SummaryReport:
    """Bring what is planned up to date, with its progress on the terminal."""
    from butter_etl.summarize import run_summaries
    from butter_etl.views import ProgressLine

    with ProgressLine("experiments", planned.stale, quiet=quiet) as line:
        return run_summaries(planned, store, client, lambda report: line.update(report.computed), threads=threads)
