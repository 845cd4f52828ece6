"""The ``butter-etl`` command: parse, call, print, set the exit code.

Exit codes: 0 done, 1 something failed and was reported, 2 bad usage, 130 stopped by Ctrl-C. Stages are imported by the
commands that need them, so that ``--help`` answers at once and summarising never loads torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from butter_etl import __version__
from butter_etl.errors import ButterError

if TYPE_CHECKING:
    from distributed import Client

    from butter_etl.selection import Choice
    from butter_etl.store import Store
    from butter_etl.summarize import SummaryReport
    from butter_etl.train_tasks import Campaign, TrainReport

INTERRUPTED = 130
#: What the extra `train` brings; summarising and exporting do without.
TRAIN_EXTRA = ("torch", "pmlb", "requests", "sklearn")
#: The sweep of `butter-etl demo`.
DEMO_SPEC = Path(__file__).with_name("demo.yaml")
F = TypeVar("F", bound=Callable[..., Any])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; an error of ours is one line on standard error and its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = cli.main(args=arguments, prog_name="butter-etl", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        if error.name not in TRAIN_EXTRA or "--debug" in arguments:
            raise
        click.echo(f"butter-etl: {error.name} is not installed; pip install 'butter-etl[train]'", err=True)
        sys.exit(1)
    except ButterError as error:
        if "--debug" in arguments:
            raise
        click.echo(f"butter-etl: {error}", err=True)
        sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(__version__, prog_name="butter-etl")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Train sweeps of fully connected networks, summarise and publish them.

    A STORE is a folder (or a URL) that holds one study. Every command can be
    stopped at any moment and started again: it goes on where it was.

    \b
    butter-etl demo                              the whole way, in about a minute
    butter-etl train runs --spec sweep.yaml      train what is missing
    butter-etl summarize runs                    statistics over repetitions
    butter-etl export runs out --sweep quick     the published layout
    """


# --- options that several commands share -------------------------------------------------------------------------


def select_options(command: F) -> F:
    """SELECT: which experiments, and how many runs of each."""
    options = [
        click.option("--sweep", "sweeps", multiple=True, metavar="NAME", help="A published or registered sweep."),
        click.option("--spec", "specs", multiple=True, metavar="FILE", help="A custom sweep (YAML)."),
        click.option(
            "--where", multiple=True, metavar="COND", help="'KEY OP VALUE[,VALUE]', OP one of = != < <= > >=."
        ),
        click.option("--repetitions", type=int, metavar="N", help="Runs wanted of each experiment, in all."),
        click.option("--first-repetition", type=int, default=0, metavar="K", help="Count repetitions from K."),
    ]

    @wraps(command)
    def with_choice(
        *args: Any,
        sweeps: tuple[str, ...],
        specs: tuple[str, ...],
        where: tuple[str, ...],
        repetitions: int | None,
        first_repetition: int,
        **rest: Any,
    ) -> Any:
        from butter_etl.selection import Choice

        choice = Choice(
            sweeps=sweeps, specs=specs, where=where, repetitions=repetitions, first_repetition=first_repetition
        )
        return command(*args, choice=choice, **rest)

    wrapped: Any = with_choice
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
state_option = click.option("--state", metavar="DIR", help="Locks and failures; needed where STORE is a URL.")
cluster_option = click.option("--cluster", metavar="FILE", help="A site file; without one, this machine.")
workers_option = click.option("--workers", type=click.IntRange(min=1), metavar="N", help="How many workers.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress.")
data_option = click.option(
    "--data-dir", metavar="DIR", help="Data sets in PMLB's layout (else BUTTER_ETL_DATA, else the user's cache)."
)


def _print_json(value: object) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


# --- what there is to train --------------------------------------------------------------------------------------


@cli.command()
@click.argument("name", required=False)
@json_option
def sweeps(name: str | None, as_json: bool) -> None:
    """Show the published sweeps, or the cubes of one.

    \b
    butter-etl sweeps
    butter-etl sweeps label_noise
    """
    from butter_etl.registry import Registry
    from butter_etl.sweep_tables import cube_table, sweep_table
    from butter_etl.sweeps import PUBLISHED

    if name is not None:
        sweep = Registry(None).sweep(name)
        rows: list[tuple[Any, ...]] = list(cube_table(sweep))
        columns: tuple[str, ...] = ("cube", "key", "values")
        title: str | None = f"{name}: {len(sweep):,} experiments"
    else:
        rows = sweep_table(PUBLISHED.values())
        columns, title = ("sweep", "cubes", "experiments", "feasible", "repetitions"), None
    if as_json:
        _print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    from butter_etl.terminal import print_table

    print_table(columns, rows, title)
    if name is None:
        click.echo("distinct: experiments of the first seven sweeps, each counted once.")


@cli.command()
@click.argument("store")
@select_options
@state_option
@json_option
def plan(store: str, choice: Choice, state: str | None, as_json: bool) -> None:
    """Show what `train` would do; nothing is written.

    \b
    butter-etl plan runs --sweep primary --where 'dataset=nursery'
    """
    from butter_etl import report
    from butter_etl.train_tasks import plan_campaign

    campaign = plan_campaign(store, choice, state)
    if as_json:
        _print_json(report.plan_facts(campaign))
        return
    from butter_etl.terminal import print_table

    if rows := report.plan_rows(campaign):
        print_table(("missing of data set", "experiments", "runs", "estimate"), rows)
    _print_lines(report.plan_lines(campaign))


# --- train -------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("store")
@select_options
@cluster_option
@workers_option
@click.option("--engine", type=click.Choice(["auto", "fused", "torch"]), default="auto", help="Which engine trains.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where the torch engine trains.")
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
    from butter_etl import datasets
    from butter_etl.sites import load_site
    from butter_etl.train_tasks import TrainReport, open_campaign, plan_campaign

    if cluster is not None:
        load_site(cluster)  # complain of it before anything is done
    campaign = plan_campaign(store, choice, state, engine=engine, device="cuda" if device == "cuda" else "cpu")
    plan = campaign.plan
    if not plan.missing:
        report = TrainReport()
    else:
        opened, settings = open_campaign(campaign, datasets.data_dir(data_dir))
        if not (quiet or as_json):
            click.echo(f"training {plan.missing:,} runs ({plan.there:,} are there) into {store}", err=True)
        with _training_cluster(cluster, campaign.engine, workers, quiet=quiet or as_json) as client:
            report = _train(campaign, opened, settings, client, quiet=quiet or as_json)
    if as_json:
        from butter_etl.report import train_facts

        _print_json(train_facts(campaign, report))
    else:
        _print_trained(campaign, report)
    return INTERRUPTED if report.interrupted else int(report.failed > 0)


def _training_cluster(
    site: str | None, engine: str, workers: int | None, *, quiet: bool
) -> AbstractContextManager[Client]:
    """The cluster of a campaign: threads of one process for the fused engine, else a process for each task.

    On this machine a compiled engine is compiled here first, so that the user sees why it takes a while.
    """
    from butter_etl.clusters import start_cluster
    from butter_etl.training import prepare_engine

    if site is not None:
        return start_cluster(site, workers=workers, threads_per_worker=None if engine == "fused" else 1)
    if engine != "fused":
        return start_cluster(workers=workers)
    with _log_shown(quiet=quiet):
        prepare_engine(engine)
    return start_cluster(workers=1, threads_per_worker=workers or len(os.sched_getaffinity(0)))


@contextmanager
def _log_shown(*, quiet: bool) -> Iterator[None]:
    """Let what the package logs be seen on standard error."""
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


def _train(campaign: Campaign, store: Store, settings: Any, client: Any, *, quiet: bool) -> TrainReport:
    from butter_etl.terminal import ProgressLine, duration
    from butter_etl.train_tasks import Progress, run_training

    with ProgressLine("runs", campaign.plan.missing, quiet=quiet) as line:

        def show(progress: Progress) -> None:
            failed = f", {progress.failed} failed" if progress.failed else ""
            note = f"{progress.runs_in_flight} in flight{failed}, {duration(progress.core_seconds)} CPU"
            line.update(progress.landed + progress.present, note)

        return run_training(campaign, store, settings, client, show)


def _print_trained(campaign: Campaign, report: TrainReport) -> None:
    from butter_etl.report import failure_line, train_lines

    _print_lines(train_lines(campaign, report))
    for failure in report.failures:
        click.echo(failure_line(failure), err=True)
    if report.interrupted:
        click.echo("stopped; the same command goes on from here", err=True)


# --- status ------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("store")
@select_options
@state_option
@json_option
def status(store: str, choice: Choice, state: str | None, as_json: bool) -> None:
    """Show what STORE holds, what a selection is missing, and what failed.

    \b
    butter-etl status runs
    butter-etl status runs --sweep primary
    """
    from butter_etl.report import status_facts, status_lines
    from butter_etl.store import Store

    opened = Store.open(store, state)
    facts = status_facts(opened, choice)
    if as_json:
        _print_json(facts)
    else:
        _print_lines(status_lines(facts))


# --- summarize and export ----------------------------------------------------------------------------------------


@cli.command()
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
            report = _summarize(planned, opened, client, quiet=quiet or as_json)
    facts = {"computed": report.computed, "fresh": planned.fresh, "dropped": report.dropped}
    if as_json:
        _print_json(facts)
    elif not planned.partitions:
        click.echo(f"nothing to do: all {planned.fresh:,} summaries are up to date")
    else:
        dropped = f", {report.dropped:,} without runs dropped" if report.dropped else ""
        click.echo(f"{report.computed:,} experiments summarised, {planned.fresh:,} were up to date{dropped}")


def _summarize(planned: Any, store: Store, client: Any, *, quiet: bool) -> SummaryReport:
    from butter_etl.summarize import run_summaries
    from butter_etl.terminal import ProgressLine

    with ProgressLine("experiments", planned.stale, quiet=quiet) as line:
        return run_summaries(planned, store, client, lambda report: line.update(report.computed))


@cli.command()
@click.argument("store")
@click.argument("dest")
@select_options
@click.option("--all", "everything", is_flag=True, help="Every sweep of which STORE has runs, and the whole.")
@click.option("--runs/--no-runs", default=True, help="Export the run frames.")
@click.option("--summary/--no-summary", default=True, help="Export the summary frames.")
@click.option("--tar", is_flag=True, help="Make an archive of each summary.")
@click.option("--compact", is_flag=True, help="Gather run files into few large ones.")
@click.option("--allow-stale", is_flag=True, help="Export summaries that miss some runs.")
@state_option
@quiet_option
@json_option
def export(
    store: str,
    dest: str,
    choice: Choice,
    everything: bool,
    runs: bool,
    summary: bool,
    tar: bool,
    compact: bool,
    allow_stale: bool,
    state: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy a part of STORE to DEST in the published layout, with archives.

    \b
    butter-etl export runs published --sweep primary --tar
    butter-etl export runs published --all --tar
    """
    from butter_etl.partition import ExportOptions
    from butter_etl.store import Store

    if choice.is_empty and not everything:
        raise click.UsageError("name what to export: --sweep NAME, --spec FILE.yaml, --where COND or --all")
    if choice.repetitions is not None or choice.first_repetition:
        raise click.UsageError("exports hold all repetitions; leave --repetitions and --first-repetition out")
    options = ExportOptions(runs=runs, summary=summary, tar=tar, compact=compact, allow_stale=allow_stale)
    report = _export(Store.open(store, state), dest, choice, options, everything=everything, quiet=quiet or as_json)
    if as_json:
        _print_json(report)
        return
    from butter_etl.terminal import print_table

    print_table(("directory", "files", "experiments"), report.directories)
    for archive in report.archives:
        click.echo(f"archive: {dest}/{archive}")


def _export(
    store: Store, dest: str, choice: Choice, options: Any, *, everything: bool = False, quiet: bool = False
) -> Any:
    from butter_etl.location import Location
    from butter_etl.partition import plan_export, run_export
    from butter_etl.registry import Registry
    from butter_etl.terminal import ProgressLine

    planned = plan_export(store, Registry(store).select(choice), options, everything=everything)
    with ProgressLine("files", sum(len(one.files) for one in planned), quiet=quiet) as line:
        return run_export(planned, store, Location(dest), options, line.update)


@cli.command()
@json_option
def calibrate(as_json: bool) -> None:
    """Measure what training costs on this machine, for better estimates.

    Takes about half a minute an engine. Without it, plans use the rates of
    an ordinary server core. Results never depend on it.
    """
    from butter_etl.calibrate import measure_rates
    from butter_etl.costs import save_rates
    from butter_etl.engines import ENGINES
    from butter_etl.terminal import print_table

    measured = {engine: measure_rates(engine) for engine in ENGINES}
    files = [save_rates(engine, rates) for engine, rates in measured.items()]
    if as_json:
        _print_json(measured)
        return
    rows = [
        (name, f"{one.flops / 1e9:.1f}", *(f"{1e6 * seconds:.3f}" for seconds in
         (one.step_seconds, one.layer_seconds, one.metric_seconds)))
        for name, one in measured.items()
    ]  # fmt: skip
    print_table(("engine", "GFLOP/s", "µs a batch", "µs a layer", "µs an output"), rows)
    for file in files:
        click.echo(f"kept in {file}")


# --- demo --------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("store", default="demo-store")
@workers_option
@quiet_option
def demo(store: str, workers: int | None, quiet: bool) -> int:
    """The whole way on real data, on this machine, without a network.

    Trains a small sweep on three data sets that scikit-learn carries,
    summarises it and exports it. STORE is ./demo-store unless named.
    """
    from butter_etl.datasets import data_dir
    from butter_etl.partition import ExportOptions
    from butter_etl.selection import Choice
    from butter_etl.summarize import plan_summaries
    from butter_etl.train_tasks import open_campaign, plan_campaign

    choice = Choice(specs=(str(DEMO_SPEC),))
    campaign = plan_campaign(store, choice)
    opened, settings = open_campaign(campaign, data_dir(None))
    with _training_cluster(None, campaign.engine, workers, quiet=quiet) as client:
        report = _train(campaign, opened, settings, client, quiet=quiet)
        _print_trained(campaign, report)
        if report.interrupted or report.failed:
            return INTERRUPTED if report.interrupted else 1
        _summarize(plan_summaries(opened), opened, client, quiet=quiet)
    dest = f"{store.rstrip('/')}-export"
    exported = _export(opened, dest, choice, ExportOptions(tar=True), quiet=quiet)
    _print_demo(opened, dest, exported)
    return 0


def _print_demo(store: Store, dest: str, exported: Any) -> None:
    from butter_etl.report import best_losses
    from butter_etl.terminal import print_table

    click.echo(f"\nTrained into {store}, with the lowest median test loss over repetitions:")
    print_table(("data set", "experiments", "runs", "loss", "network"), best_losses(str(store)))
    click.echo(f"Exported to {dest}:")
    print_table(("directory", "files", "experiments"), exported.directories)
    for archive in exported.archives:
        click.echo(f"archive: {dest}/{archive}")
    click.echo(
        "\nRead it from Python:\n\n"
        "  import butter_etl as be\n"
        f'  runs = be.read_runs("{store}", where=["dataset=digits"]).compute()\n'
        f'  summary = be.read_export("{dest}/demo_sweep_summary").compute()\n'
    )
