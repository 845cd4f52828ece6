"""`butter-etl summarize`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from butter_etl.commands.options import (
    cluster_option,
    json_option,
    print_json,
    quiet_option,
    select_options,
    state_option,
    workers_option,
)

if TYPE_CHECKING:
    from butter_etl.selection import Choice
    from butter_etl.store import Store
    from butter_etl.summarize import SummaryReport


@click.command()
@click.argument("store")
@select_options
@cluster_option
@workers_option
@click.option("--full", is_flag=True, help="Recompute every summary.")
@state_option
@quiet_option
@json_option
def summarize(
    store: str,
    choice: Choice,
    cluster: str | None,
    workers: int | None,
    full: bool,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Compute per-epoch statistics over repetitions, where runs have changed.

    \b
    butter-etl summarize runs
    """
    from butter_etl.clusters import start_cluster
    from butter_etl.registry import Registry
    from butter_etl.store import Store
    from butter_etl.summarize import SummaryReport, plan_summaries

    if choice.repetitions is not None or choice.first_repetition:
        raise click.UsageError("summaries are over all repetitions; leave --repetitions and --first-repetition out")
    opened = Store.open(store, state)
    selection = Registry(opened).select(choice)
    planned = plan_summaries(opened, selection, full=full)
    report = SummaryReport()
    if planned.partitions:
        with start_cluster(cluster, workers=workers) as client:
            report = summarize_with_progress(planned, opened, client, quiet=quiet or as_json)
    facts = {"computed": report.computed, "fresh": planned.fresh, "dropped": report.dropped}
    if as_json:
        print_json(facts)
    elif not planned.partitions:
        click.echo(f"nothing to do: all {planned.fresh:,} summaries are up to date")
    else:
        dropped = f", {report.dropped:,} without runs dropped" if report.dropped else ""
        click.echo(f"{report.computed:,} experiments summarised, {planned.fresh:,} were up to date{dropped}")


def summarize_with_progress(planned: Any, store: Store, client: Any, *, quiet: bool) -> SummaryReport:
    """Bring what is planned up to date, its progress on the terminal."""
    from butter_etl.summarize import run_summaries
    from butter_etl.terminal import ProgressLine

    with ProgressLine("experiments", planned.stale, quiet=quiet) as line:
        return run_summaries(planned, store, client, lambda report: line.update(report.computed))
