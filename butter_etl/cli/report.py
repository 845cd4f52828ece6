"""`butter-etl report`: one page about a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from butter_etl.cli.completion import files
from butter_etl.cli.messages import warn
from butter_etl.cli.options import select_options, state_option, store_argument, study_options
from butter_etl.errors import counted

if TYPE_CHECKING:
    from butter_etl.studies import Choice


@click.command()
@store_argument
@click.argument("out", shell_complete=files)
@select_options()
@state_option
@study_options
def report(store: str, out: str, choice: Choice, state: str | None) -> None:
    """Write a page about STORE to OUT (.html).

    It shows all curves, with filters. It needs no network and no server: open
    it in any browser.

    \b
    butter-etl report store report.html
    butter-etl report store digits.html --where dataset=digits
    """
    from butter_etl.store import Store
    from butter_etl.views import page_data, write_page

    data = page_data(Store.open(store, state), choice)
    size = write_page(data, out)
    if data["stale"] is not None:
        warn(data["stale"])
    click.echo(f"wrote {out}: {counted(len(data['runs']), 'experiment')}, {size / 1e6:.1f} MB")
