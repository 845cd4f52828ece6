"""`butter-etl plan`, `train`: from a selection to landed runs."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import engine_names, known_engines
from butter_etl.cli.messages import log_level, warn
from butter_etl.cli.options import (
    INTERRUPTED,
    aim_options,
    cluster_option,
    data_option,
    json_option,
    like_option,
    print_json,
    print_lines,
    quiet_option,
    select_options,
    state_option,
    store_argument,
    study_options,
    workers_option,
)
from butter_etl.cli.waiting import shown_cluster
from butter_etl.errors import UsageError, agreeing, counted, duration, rate, suggestion

if TYPE_CHECKING:
    from distributed import Client

    from butter_etl.campaign import Heartbeat, Settings, TrainReport
    from butter_etl.store import Store
    from butter_etl.studies import Choice
    from butter_etl.train_tasks import Asked, Campaign


@click.command()
@store_argument
@select_options()
@aim_options
@data_option
@cluster_option
@workers_option
@state_option
@study_options
@json_option
@like_option
def plan(
    store: str,
    choice: Choice,
    asked: Asked,
    data_dir: str | None,
    cluster: str | None,
    workers: int | None,
    state: str | None,
    as_json: bool,
) -> None:
    """Show what `train` would do; STORE is not changed.

    \b
    butter-etl plan store --sweep primary --where 'dataset=nursery'
    butter-etl plan store --sweep primary --cluster my-site.yaml --workers 40
    """
    from butter_etl.clusters import tasks_at_once
    from butter_etl.exchange import study_of
    from butter_etl.train_tasks import plan_campaign, planned_device, threads_a_process
    from butter_etl.views import plan_columns, plan_facts, plan_lines, plan_tables

    device = planned_device(study_of(store, state, None))
    campaign = plan_campaign(store, choice, state, device=device, data_dir=data_dir, asked=asked)
    at_once = tasks_at_once(cluster, workers, threads_a_process(campaign))
    for warning in campaign.warnings:
        warn(warning)
    if as_json:
        print_json(plan_facts(campaign, at_once))
        return
    from butter_etl.views import print_table

    for sweep, rows in plan_tables(campaign):
        print_table(plan_columns(campaign), rows, title=sweep)
    print_lines(plan_lines(campaign, at_once))


@click.command()
@store_argument
@select_options()
@aim_options
@cluster_option
@workers_option
@click.option(
    "--engine",
    metavar="NAME",
    default="auto",
    help="What trains (auto); of butter fused or torch.",
    shell_complete=engine_names,
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where it trains (cpu).")
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    metavar="M",
    help="Save unfinished training every M minutes (5).",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train N runs of an experiment a round, where a study proposes them.",
)
@data_option
@state_option
@study_options
@quiet_option
@json_option
@like_option
def train(
    store: str,
    choice: Choice,
    asked: Asked,
    cluster: str | None,
    workers: int | None,
    engine: str,
    device: str,
    checkpoint_minutes: float,
    batch: int | None,
    data_dir: str | None,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Train what a selection is missing in STORE, as Dask futures.

    \b
    butter-etl train store --spec quick.yaml
    butter-etl train store --sweep primary --cluster my-site.yaml
    """
    from butter_etl.campaign import Heartbeat, TrainReport
    from butter_etl.clusters import load_site, require_folders
    from butter_etl.studies import data_folder
    from butter_etl.train_tasks import check_batch, open_campaign, plan_campaign

    if cluster is not None:
        require_folders(load_site(cluster))  # complain of it before anything is done
    if engine != "auto":
        _check_engine(store, state, engine)
    campaign = plan_campaign(
        store,
        choice,
        state,
        engine=engine,
        device="cuda" if device == "cuda" else "cpu",
        data_dir=data_dir,
        asked=asked,
    )
    check_batch(campaign, batch, "--batch")
    plan = campaign.plan
    if not plan.missing:
        report = TrainReport()
    else:
        opened, settings = open_campaign(campaign, data_folder(data_dir), 60 * checkpoint_minutes)
        if not (quiet or as_json):
            there = f"{plan.there:,} {agreeing(plan.there, 'is', 'are')} there"
            click.echo(f"training {counted(plan.missing, 'run')} ({there}) into {opened}", err=True)
        quiet = quiet or as_json
        with (
            Heartbeat(opened.state, plan.missing) as heartbeat,
            training_cluster(cluster, campaign, workers, quiet=quiet, heartbeat=heartbeat) as client,
        ):
            report = train_with_progress(
                campaign, opened, settings, client, quiet=quiet, heartbeat=heartbeat, batch=batch
            )
    if as_json:
        from butter_etl.views import train_facts

        print_json(train_facts(campaign, report))
    else:
        print_trained(campaign, report)
    return INTERRUPTED if report.interrupted else int(report.failed > 0)


def _check_engine(store: str, state: str | None, engine: str) -> None:
    """Raise UsageError for an engine that a study does not have."""
    from butter_etl.exchange import study_of

    known = known_engines(study_of(store, state, None))
    if engine not in known:
        words = ", ".join(map(repr, known))
        raise UsageError(f"invalid value for '--engine': {engine!r} is not one of {words}{suggestion(engine, known)}")


def training_cluster(
    site: str | None, campaign: Campaign, workers: int | None, *, quiet: bool, heartbeat: Heartbeat | None = None
) -> AbstractContextManager[Client]:
    """Start the cluster of a campaign: threads of one process where its engine is threaded, else a process a task.

    What a queue says of its jobs is shown, and told to the heartbeat.
    On this machine a threaded engine is made ready here first, so that the user sees why it takes a while.
    """
    from butter_etl.train_tasks import local_cluster, threads_a_process

    if site is not None:
        threads, tell = threads_a_process(campaign), heartbeat.tell_queue if heartbeat else None
        return shown_cluster(site, quiet=quiet, workers=workers, threads_per_worker=threads, on_queue=tell)
    with log_level("WARNING" if quiet else "INFO"):
        return local_cluster(campaign, workers)


def train_with_progress(
    campaign: Campaign,
    store: Store,
    settings: Settings,
    client: Client,
    *,
    quiet: bool,
    heartbeat: Heartbeat | None = None,
    batch: int | None = None,
) -> TrainReport:
    """Train what a campaign is missing, with its progress on the terminal, and what the queue says of further jobs."""
    from butter_etl.campaign import Progress
    from butter_etl.clusters import queue_lines
    from butter_etl.train_tasks import run_training
    from butter_etl.views import ProgressLine

    with ProgressLine("runs", campaign.plan.missing, quiet=quiet) as line:

        def show(progress: Progress) -> None:
            figures = {
                "in flight": f"{progress.in_flight:,}",
                "waiting": f"{progress.waiting:,}",
                "failed": f"{progress.failed:,}",
                "speed": rate(progress.landed / max(progress.seconds, 1.0), "run") if progress.landed else "",
                "CPU time": duration(progress.core_seconds),
                "work done": f"{progress.share_done:.0%}",
            }
            queue = heartbeat.queue if heartbeat else None
            lines = list(queue_lines(queue, time.time())) if queue else []
            line.update(progress.done, left=progress.left, figures=figures, lines=lines)

        return run_training(campaign, store, settings, client, show, heartbeat, batch)


def print_trained(campaign: Campaign, report: TrainReport) -> None:
    """Say how a campaign ended, and what failed."""
    from butter_etl.views import failure_line, train_lines

    print_lines(train_lines(campaign, report))
    for failure in report.failures:
        click.echo(failure_line(failure), err=True)
