"""`butter-etl compare`: two settings side by side."""

from __future__ import annotations

import click

from butter_etl.cli.completion import conditions, files, series_names
from butter_etl.cli.options import json_option, print_json, print_lines, store_argument, study_options


@click.command()
@store_argument
@click.argument("out", nargs=-1, shell_complete=files)
@click.option(
    "--a", "a", multiple=True, metavar="COND", help="What the one is, like 'depth=2'.", shell_complete=conditions
)
@click.option("--b", "b", multiple=True, metavar="COND", help="What the other is.", shell_complete=conditions)
@click.option("--where", multiple=True, metavar="COND", help="What both are.", shell_complete=conditions)
@click.option("--series", metavar="NAME", help="What is compared (of butter test_loss).", shell_complete=series_names)
@click.option("--level", type=float, metavar="L", default=0.95, help="Confidence level of the intervals (0.95).")
@study_options
@json_option
def compare(
    store: str,
    out: tuple[str, ...],
    a: tuple[str, ...],
    b: tuple[str, ...],
    where: tuple[str, ...],
    series: str | None,
    level: float,
    as_json: bool,
) -> None:
    """Compare the medians of two experiments of STORE.

    Each OUT is the whole table (.csv, .parquet) or a picture (.png, .pdf, .svg).

    \b
    butter-etl compare store --where dataset=diabetes --a size=128 --b size=512
    butter-etl compare store x.csv x.pdf --where depth=2 --a size=128 --b size=512
    """
    from butter_etl.views import compare, print_table

    found = compare(store, a, b, where=where, series=series, level=level)
    for file in out:
        found.save(file)
    if as_json:
        print_json(
            {"series": found.series, "level": level, "a": found.a, "b": found.b, "rows": found.table.to_pylist()}
        )
        return
    print_table(found.columns, found.rows)
    print_lines(found.lines)
    for file in out:
        click.echo(f"wrote {file}")
