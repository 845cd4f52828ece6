"""`butter-etl plan`, `train`: from a selection to landed runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import click

from butter_etl.cli.options import (
    INTERRUPTED,
    cluster_option,
    data_option,
    json_option,
    print_json,
    print_lines,
    quiet_option,
    select_options,
    state_option,
    store_argument,
    workers_option,
)

if TYPE_CHECKING:
    from distributed import Client

    from butter_etl.campaign import Settings, TrainReport
    from butter_etl.store import Store
    from butter_etl.studies import Choice
    from butter_etl.train_tasks import Campaign


@click.command()
@store_argument
@select_options
@data_option
@cluster_option
@workers_option
@state_option
@json_option
def plan(
    store: str,
    choice: Choice,
    data_dir: str | None,
    cluster: str | None,
    workers: int | None,
    state: str | None,
    as_json: bool,
) -> None:
    """Show what `train` would do; STORE is not changed.

    \b
    butter-etl plan runs --sweep primary --where 'dataset=nursery'
    butter-etl plan runs --sweep primary --cluster cluster/slurm.yaml --workers 40
    """
    from butter_etl.clusters import tasks_at_once
    from butter_etl.train_tasks import plan_campaign
    from butter_etl.views import PLAN_COLUMNS, plan_facts, plan_lines, plan_tables

    campaign = plan_campaign(store, choice, state, data_dir=data_dir)
    at_once = tasks_at_once(cluster, workers, None if campaign.engine == "fused" else 1)
    if as_json:
        print_json(plan_facts(campaign, at_once))
        return
    from butter_etl.views import print_table

    for sweep, rows in plan_tables(campaign):
        print_table(PLAN_COLUMNS, rows, title=sweep)
    print_lines(plan_lines(campaign, at_once))


@click.command()
@store_argument
@select_options
@cluster_option
@workers_option
@click.option("--engine", type=click.Choice(["auto", "fused", "torch"]), default="auto", help="Which engine trains.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where the torch engine trains.")
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    metavar="M",
    help="Save unfinished training every M minutes (5).",
)
@data_option
@state_option
@quiet_option
@json_option
def train(
    store: str,
    choice: Choice,
    cluster: str | None,
    workers: int | None,
    engine: str,
    device: str,
    checkpoint_minutes: float,
    data_dir: str | None,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Train what a selection is missing in STORE, as Dask futures.

    \b
    butter-etl train runs --spec sweep.yaml
    butter-etl train runs --sweep primary --cluster cluster/slurm.yaml
    """
    from butter_etl.campaign import TrainReport
    from butter_etl.clusters import load_site
    from butter_etl.studies import data_folder
    from butter_etl.train_tasks import open_campaign, plan_campaign

    if cluster is not None:
        load_site(cluster)  # complain of it before anything is done
    campaign = plan_campaign(
        store, choice, state, engine=engine, device="cuda" if device == "cuda" else "cpu", data_dir=data_dir
    )
    plan = campaign.plan
    if not plan.missing:
        report = TrainReport()
    else:
        opened, settings = open_campaign(campaign, data_folder(data_dir), 60 * checkpoint_minutes)
        if not (quiet or as_json):
            click.echo(f"training {plan.missing:,} runs ({plan.there:,} are there) into {opened}", err=True)
        with training_cluster(cluster, campaign.engine, workers, quiet=quiet or as_json) as client:
            report = train_with_progress(campaign, opened, settings, client, quiet=quiet or as_json)
    if as_json:
        from butter_etl.views import train_facts

        print_json(train_facts(campaign, report))
    else:
        print_trained(campaign, report)
    return INTERRUPTED if report.interrupted else int(report.failed > 0)


def training_cluster(
    site: str | None, engine: str, workers: int | None, *, quiet: bool
) -> AbstractContextManager[Client]:
    """Start the cluster of a campaign: threads of one process for the fused engine, else a process for each task.

    On this machine a compiled engine is compiled here first, so that the user sees why it takes a while.
    """
    from butter_etl.clusters import start_cluster
    from butter_etl.studies import prepare_engine

    if site is not None:
        return start_cluster(site, workers=workers, threads_per_worker=None if engine == "fused" else 1)
    if engine != "fused":
        return start_cluster(workers=workers)
    with _log_shown(quiet=quiet):
        prepare_engine(engine)
    return start_cluster(workers=1, threads_per_worker=workers or len(os.sched_getaffinity(0)))


@contextmanager
def _log_shown(*, quiet: bool) -> Iterator[None]:
    """Show what the package logs on standard error."""
    import logging

    log = logging.getLogger("butter_etl")
    handler, level = logging.StreamHandler(), log.level
    if not quiet:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def train_with_progress(
    campaign: Campaign, store: Store, settings: Settings, client: Client, *, quiet: bool
) -> TrainReport:
    """Train what a campaign is missing, with its progress on the terminal."""
    from butter_etl.campaign import Progress
    from butter_etl.train_tasks import run_training
    from butter_etl.views import ProgressLine, duration

    began = time.monotonic()
    with ProgressLine("runs", campaign.plan.missing, quiet=quiet) as line:

        def show(progress: Progress) -> None:
            elapsed, share = time.monotonic() - began, progress.share_done
            a_minute = 60 * progress.landed / elapsed
            figures = {
                "in flight": f"{progress.runs_in_flight:,}",
                "failed": f"{progress.failed:,}",
                "runs a minute": f"{a_minute:,.0f}" if a_minute >= 10 else f"{a_minute:.2g}",
                "CPU time": duration(progress.core_seconds),
            }
            # By what is left of the estimated cost: the last runs of a sweep are often the largest.
            left = elapsed * (1 - share) / share if share else None
            line.update(progress.landed + progress.present, left=left, figures=figures)

        return run_training(campaign, store, settings, client, show)


def print_trained(campaign: Campaign, report: TrainReport) -> None:
    """Say how a campaign ended, and what failed."""
    from butter_etl.views import failure_line, train_lines

    print_lines(train_lines(campaign, report))
    for failure in report.failures:
        click.echo(failure_line(failure), err=True)
    if report.interrupted:
        click.echo("stopped; the same command goes on from here", err=True)
