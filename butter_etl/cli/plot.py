"""`butter-etl plot`: pictures of what a store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import files, kind_names, parameters, series_names
from butter_etl.cli.messages import warn
from butter_etl.cli.options import select_options, state_option, store_argument, study_options

if TYPE_CHECKING:
    from butter_etl.studies import Choice


@click.command()
@store_argument
@click.argument("out", shell_complete=files)
@select_options(refusal="pictures are of all repetitions")
@click.option(
    "--kind",
    default="curves",
    metavar="NAME",
    help="curves, map (best value by two parameters), runs (all repetitions), or one of the study's.",
    shell_complete=kind_names,
)
@click.option("--by", metavar="KEY", help="One curve for each value of a parameter.", shell_complete=parameters)
@click.option(
    "--series",
    metavar="NAME",
    help="What is drawn (of butter test_loss).",
    shell_complete=series_names,
)
@state_option
@study_options
def plot(
    store: str, out: str, choice: Choice, kind: str, by: str | None, series: str | None, state: str | None
) -> None:
    """Draw a selection of STORE into OUT (.png, .pdf or .svg).

    \b
    butter-etl plot store curves.pdf --where dataset=digits --by size
    butter-etl plot store map.png --where dataset=digits --kind map
    butter-etl plot store one.svg --where size=512 --where depth=2 --kind runs
    """
    from butter_etl.views import draw_picture

    picture = draw_picture(store, choice, kind=kind, by=by, series=series, state=state)
    picture.save(out)
    click.echo(f"drew {out}")
    if picture.stale is not None:
        warn(picture.stale)
