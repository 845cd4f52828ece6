"""`butter-etl drop`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from butter_etl.cli.options import (
    json_option,
    print_json,
    quiet_option,
    select_options,
    state_option,
    store_argument,
    study_options,
)
from butter_etl.errors import UsageError, agreeing, counted

if TYPE_CHECKING:
    from butter_etl.store import Store
    from butter_etl.studies import Choice
    from butter_etl.upkeep import DropPlan


@click.command()
@store_argument
@select_options(
    repetitions="Withdraw the first N of each experiment.", first_repetition="Withdraw from repetition K on."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@state_option
@study_options
@quiet_option
@json_option
def drop(store: str, choice: Choice, yes: bool, state: str | None, quiet: bool, as_json: bool) -> int:
    """Withdraw runs from STORE: moved to quarantine, then missing.

    --repetitions and --first-repetition together withdraw N from K on.

    \b
    butter-etl drop store --where 'dataset=nursery'
    butter-etl drop store --sweep primary --first-repetition 20 --yes
    """
    from butter_etl.store import QUARANTINE, Registry, Store
    from butter_etl.upkeep import plan_drop

    if choice.is_empty:
        raise UsageError("name what to drop: --sweep NAME, --spec FILE.yaml, --where COND or --repetitions N")
    opened = Store.open(store, state)
    _ = opened.state  # complain of it before anything is asked
    planned = plan_drop(opened, Registry(opened).select(choice))
    dropped = 0
    if planned.runs and not _is_wanted(planned, opened, yes=yes):
        click.echo("nothing was dropped", err=True)
        return 1
    if planned.runs:
        dropped = _drop_with_progress(planned, opened, quiet=quiet or as_json)
    if as_json:
        print_json({"dropped": dropped, "experiments": planned.experiments, "files": len(planned.withdrawals)})
    elif not planned.runs:
        click.echo(f"nothing to do: {opened} has no such runs")
    else:
        what = f"{counted(dropped, 'run')} of {counted(planned.experiments, 'experiment')}"
        click.echo(f"{what} moved to {opened.location.address(QUARANTINE)}")
        click.echo("their summaries are out of date now: run `butter-etl summarize`")
    return 0


def _is_wanted(planned: DropPlan, store: Store, *, yes: bool) -> bool:
    """Ask whether the user means it; where nobody can be asked, raise UsageError unless `--yes` says so."""
    if yes:
        return True
    files = f"{counted(planned.parted, 'file')} {agreeing(planned.parted, 'is', 'are')} parted"
    parted = f" ({files})" if planned.parted else ""
    what = f"{counted(planned.runs, 'run')} of {counted(planned.experiments, 'experiment')} of {store}{parted}"
    if not sys.stdin.isatty():
        raise UsageError(f"this would withdraw {what}; pass --yes")
    return click.confirm(f"Withdraw {what}?", err=True)


def _drop_with_progress(planned: DropPlan, store: Store, *, quiet: bool) -> int:
    from butter_etl.upkeep import run_drop
    from butter_etl.views import ProgressLine

    with ProgressLine("runs", planned.runs, quiet=quiet) as line:
        return run_drop(planned, store, line.update)
