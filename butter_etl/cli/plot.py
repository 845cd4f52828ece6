"""`butter-etl plot`: pictures of what a store holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import files, kind_names, parameters, series_names
from butter_etl.cli.messages import warn
from butter_etl.cli.options import select_options, state_option, store_argument, study_options
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from butter_etl.studies import Choice
    from butter_etl.views import Interval


@click.command()
@store_argument
@click.argument("out", shell_complete=files)
@select_options(refusal="pictures are of all repetitions")
@click.option(
    "--kind",
    default="curves",
    metavar="NAME",
    help="curves, map (best value by two parameters), runs (all repetitions), network (layers), or one of the study's.",
    shell_complete=kind_names,
)
@click.option("--by", metavar="KEY", help="One curve for each value of a column.", shell_complete=parameters)
@click.option(
    "--series",
    metavar="NAME",
    help="What is drawn (of butter test_loss).",
    shell_complete=series_names,
)
@click.option(
    "--interval",
    type=click.Choice(["each", "band"]),
    help="Medians with their confidence intervals, at each point, or as a band that covers all.",
)
@click.option("--level", type=float, metavar="L", help="Confidence level of --interval (0.95).")
@state_option
@study_options
def plot(
    store: str,
    out: str,
    choice: Choice,
    kind: str,
    by: str | None,
    series: str | None,
    interval: Interval | None,
    level: float | None,
    state: str | None,
) -> None:
    """Draw a selection of STORE into OUT (.png, .pdf or .svg).

    \b
    butter-etl plot store curves.pdf --where dataset=digits --by size
    butter-etl plot store sure.pdf --where dataset=digits --interval each
    butter-etl plot store map.png --where dataset=digits --kind map
    butter-etl plot store one.svg --where size=512 --where depth=2 --kind runs
    """
    from butter_etl.summarize import USUAL_LEVEL
    from butter_etl.views import draw_picture

    if interval is not None and kind != "curves":
        raise UsageError("--interval goes with --kind curves")
    if level is not None and interval is None:
        raise UsageError("--level goes with --interval")
    picture = draw_picture(
        store, choice, kind=kind, by=by, series=series, interval=interval, level=level or USUAL_LEVEL, state=state
    )
    picture.save(out)
    click.echo(f"drew {out}")
    if picture.stale is not None:
        warn(picture.stale)
