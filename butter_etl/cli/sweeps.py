"""`butter-etl sweeps`: what there is to train."""

from __future__ import annotations

from typing import Any

import click

from butter_etl.cli.completion import sweep_names
from butter_etl.cli.options import json_option, print_json


@click.command()
@click.argument("name", required=False, shell_complete=sweep_names)
@json_option
def sweeps(name: str | None, as_json: bool) -> None:
    """Show the published sweeps, or the cubes of one.

    \b
    butter-etl sweeps
    butter-etl sweeps label_noise
    """
    from butter_etl.store import Registry
    from butter_etl.studies import PUBLISHED
    from butter_etl.views import cube_table, sweep_table

    if name is not None:
        sweep = Registry(None).sweep(name)
        rows: list[tuple[Any, ...]] = list(cube_table(sweep))
        columns: tuple[str, ...] = ("cube", "key", "values")
        title: str | None = f"{name}: {len(sweep):,} experiments"
    else:
        rows = sweep_table(PUBLISHED.values())
        columns, title = ("sweep", "cubes", "experiments", "feasible", "repetitions"), None
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    from butter_etl.views import print_table

    print_table(columns, rows, title)
    if name is None:
        click.echo("distinct: experiments of the first seven sweeps, each counted once.")
