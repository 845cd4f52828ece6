"""`butter-etl curves`: curves as a table, for whatever draws or computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import files, parameters, series_names
from butter_etl.cli.messages import warn
from butter_etl.cli.options import select_options, state_option, store_argument, study_options
from butter_etl.errors import counted

if TYPE_CHECKING:
    from butter_etl.studies import Choice
    from butter_etl.views import Thinning


@click.command()
@store_argument
@click.argument("out", shell_complete=files)
@select_options(refusal="curves are of all repetitions")
@click.option(
    "--series",
    multiple=True,
    metavar="NAME",
    help="Which (of butter test_loss); may be given again.",
    shell_complete=series_names,
)
@click.option(
    "--epochs",
    type=click.Choice(["all", "log"]),
    default="all",
    help="All points, or 48 spaced on a log scale.",
)
@click.option(
    "--by",
    multiple=True,
    metavar="KEY",
    help="Statistics over all runs with one value of a column; may be given again.",
    shell_complete=parameters,
)
@state_option
@study_options
def curves(
    store: str,
    out: str,
    choice: Choice,
    series: tuple[str, ...],
    epochs: Thinning,
    by: tuple[str, ...],
    state: str | None,
) -> None:
    """Write curves of STORE to OUT (.csv or .parquet), in long form.

    A row is an experiment's, at an epoch, of a statistic over repetitions; with --by, a group's of experiments.

    \b
    butter-etl curves store curves.csv --where dataset=digits --epochs log
    butter-etl curves store all.parquet --series test_loss --series test_accuracy
    butter-etl curves store groups.csv --by dataset --by depth
    """
    from butter_etl.store import Registry, Store
    from butter_etl.views import curves_table, group_table, selected, stale_line, write_curves

    opened = Store.open(store, state)
    summary = group_table(store, choice, by, state) if by else selected(store, choice, state)
    table = curves_table(summary, series=series or None, epochs=epochs, study=opened.study)
    write_curves(table, out)
    of = counted(summary.num_rows, "group" if by else "experiment")
    click.echo(f"wrote {out}: {counted(table.num_rows, 'row')} of {of}")
    stale = None if by else stale_line(opened, Registry(opened).select(choice))  # groups are made of the runs
    if stale is not None:
        warn(stale)
