"""`butter-etl replay`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal

import click

from butter_etl.cli.completion import conditions, engine_names, folders
from butter_etl.cli.messages import log_level, warn
from butter_etl.cli.options import (
    cluster_option,
    data_option,
    json_option,
    print_json,
    print_lines,
    quiet_option,
    state_option,
    study_options,
    workers_option,
)
from butter_etl.cli.waiting import shown_cluster
from butter_etl.errors import agreeing, counted

if TYPE_CHECKING:
    from distributed import Client

    from butter_etl.upkeep import Equipment, Replayed, ReplayPlan, Replays

#: Up to this many runs each have a line of their own.
_LINES = 10


@click.command()
@click.argument("path", shell_complete=folders)
@click.argument("run_ids", metavar="[RUN_ID]...", nargs=-1)
@click.option(
    "--where",
    multiple=True,
    metavar="COND",
    help="Runs by a condition, like 'depth>4'; all must hold.",
    shell_complete=conditions,
)
@click.option("--engine", metavar="NAME", help="What trains (else what the row names).", shell_complete=engine_names)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where it trains (else where the row says).")
@cluster_option
@workers_option
@data_option
@state_option
@study_options
@quiet_option
@json_option
def replay(
    path: str,
    run_ids: tuple[str, ...],
    where: tuple[str, ...],
    engine: str | None,
    device: Literal["cpu", "cuda"] | None,
    cluster: str | None,
    workers: int | None,
    data_dir: str | None,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Train runs of PATH, a store or an export, again and compare.

    Each is trained from nothing but its row: bit for bit the same where its
    environment is that of this machine, else to rounding. Exits with 1 if
    any is not what its row says. Nothing is written.

    \b
    butter-etl replay demo-store --where 'dataset=breast_cancer' --where 'depth=3'
    """
    from butter_etl.studies import data_folder
    from butter_etl.upkeep import Equipment, RunFrame, foreign_line, plan_replay

    frame = RunFrame.open(path, state)
    with cluster_of(cluster, workers, quiet=quiet or as_json) as client:
        planned = plan_replay(frame, run_ids, where, client)
        if planned.foreign:
            warn(foreign_line(planned.foreign))
        equipment = Equipment(str(data_folder(data_dir)), engine, device)
        done = replay_with_progress(planned, equipment, client, workers, quiet=quiet or as_json)
    if as_json:
        print_json(done)
    else:
        print_replays(done)
    return int(not done.is_sound)


def cluster_of(site: str | None, workers: int | None, *, quiet: bool) -> AbstractContextManager[Client | None]:
    """Start the cluster of a site file, if one is named."""
    return nullcontext(None) if site is None else shown_cluster(site, workers=workers, quiet=quiet)


def replay_with_progress(
    planned: ReplayPlan, equipment: Equipment, client: Client | None, workers: int | None, *, quiet: bool
) -> Replays:
    """Replay what is planned, with its progress on the terminal."""
    from butter_etl.upkeep import run_replay, training_workers
    from butter_etl.views import ProgressLine

    with (
        log_level("WARNING" if quiet else "INFO"),
        training_workers(planned, equipment, client, workers) as on,
        ProgressLine("runs", len(planned.runs), quiet=quiet) as line,
    ):

        def show(done: Replays) -> None:
            faults = len(done.faults)
            line.update(len(done.runs), counted(faults, "fault") if faults else "")

        return run_replay(planned, equipment, on, workers if on is None else None, show)


def print_replays(done: Replays) -> None:
    """Say what replays came to: how many to each outcome, and each fault, or each of a few runs, by a line."""
    from butter_etl.upkeep import OUTCOMES
    from butter_etl.views import print_table

    print_table(
        ("outcome", "runs", "what it means"),
        [(outcome, number, OUTCOMES[outcome]) for outcome, number in done.counts.items()],
    )
    runs = done.runs if len(done.runs) <= _LINES else done.faults
    print_lines(replay_lines(runs))
    faults = len(done.faults)
    are = agreeing(len(done.runs), "is what its row says", "are what their rows say")
    left = f"{faults:,} of {counted(len(done.runs), 'run')} {agreeing(faults, 'is', 'are')} not what the rows say"
    click.echo(left if faults else f"{counted(len(done.runs), 'run')} {are}")


def replay_lines(runs: Iterable[Replayed]) -> Iterator[str]:
    """Yield a line for each run: its id, what it came to, and how."""
    for one in runs:
        promise = "as was promised" if one.is_promised else "though not promised"
        said = one.detail or f"{promise}" + (f" ({one.circumstances[0]})" if one.circumstances else "")
        yield f"{one.run_id}: {one.outcome}: {one.experiment + ': ' if one.experiment else ''}{said}"
