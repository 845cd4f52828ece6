"""`butter-etl plot`: pictures of what a store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import files, parameters, series_names
from butter_etl.cli.options import select_options, state_option, store_argument
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from butter_etl.studies import Choice


@click.command()
@store_argument
@click.argument("out", shell_complete=files)
@select_options(refusal="pictures are of all repetitions")
@click.option(
    "--kind",
    type=click.Choice(["curves", "map", "runs"]),
    default="curves",
    help="Learning curves; best value by size and depth; all repetitions.",
)
@click.option("--by", metavar="KEY", help="One curve for each value of a parameter.", shell_complete=parameters)
@click.option(
    "--series",
    default="test_loss",
    metavar="NAME",
    help="What is drawn (test_loss).",
    shell_complete=series_names,
)
@state_option
def plot(store: str, out: str, choice: Choice, kind: str, by: str | None, series: str, state: str | None) -> None:
    """Draw a selection of STORE into OUT (.png, .pdf or .svg).

    \b
    butter-etl plot store curves.pdf --where dataset=digits --by size
    butter-etl plot store map.png --where dataset=digits --kind map
    butter-etl plot store one.svg --where size=512 --where depth=2 --kind runs
    """
    from butter_etl.views import learning_curves, repetitions, save, selected, size_depth_map

    if by is not None and kind != "curves":
        raise UsageError("--by goes with --kind curves")
    rows = selected(store, choice, state, runs=kind == "runs")
    if kind == "runs":
        figure = repetitions(rows, series=series)
    elif kind == "map":
        figure = size_depth_map(rows, series=series)
    else:
        figure = learning_curves(rows, by=by, series=series)
    save(figure, out)
    click.echo(f"drew {out}")
