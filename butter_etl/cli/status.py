"""`butter-etl status`: what a store holds, what is being trained into it, and what failed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from butter_etl.cli.options import (
    json_option,
    print_json,
    print_lines,
    select_options,
    state_option,
    store_argument,
    study_options,
)
from butter_etl.cli.output import lost_output
from butter_etl.errors import UsageError

if TYPE_CHECKING:
    from butter_etl.campaign import Activity
    from butter_etl.store import Store
    from butter_etl.studies import Choice

_REFRESH_SECONDS = 2.0


@click.command()
@store_argument
@select_options()
@click.option("--follow", is_flag=True, help="Look on until nothing is being trained.")
@state_option
@study_options
@json_option
def status(store: str, choice: Choice, follow: bool, state: str | None, as_json: bool) -> None:
    """Show what STORE holds, what runs where, and what failed.

    With a selection, also what is missing of it.

    \b
    butter-etl status store
    butter-etl status store --sweep primary
    butter-etl status store --follow
    """
    from butter_etl.store import Store, require_state
    from butter_etl.views import status_facts, status_lines

    if follow and as_json:
        raise UsageError("--follow is for people; give --json alone, as often as you like")
    opened = Store.open(store, state)
    if follow:
        require_state(store, state)
        look_on(opened)
    facts = status_facts(opened, choice)
    if as_json:
        print_json(facts)
    else:
        print_lines(status_lines(opened.study, facts))


def look_on(store: Store) -> None:
    """Show how training goes on until no driver is at work, or nobody reads; the run files are not listed meanwhile.

    On a terminal the picture is refreshed; elsewhere there is a line for each driver that has got further.
    """
    if sys.stdout.isatty():
        _refresh(store)
    else:
        _tell_changes(store)


def _activities(store: Store) -> Iterator[Activity]:
    from butter_etl.campaign import current_activity

    while lost_output() is None and (activity := current_activity(store.state)).drivers:
        yield activity
        time.sleep(_REFRESH_SECONDS)


def _refresh(store: Store) -> None:
    from rich.live import Live
    from rich.text import Text

    from butter_etl.views import activity_lines, failure_lines

    with Live(auto_refresh=False, transient=True) as live:
        for activity in _activities(store):
            began = min(driver.started for driver in activity.drivers)
            failures = [failure for failure in store.failures({}) if failure.time >= began]
            lines = [*activity_lines(store.study, activity), *failure_lines(failures)]
            live.update(Text("\n".join(lines)), refresh=True)


def _tell_changes(store: Store) -> None:
    from butter_etl.clusters import queue_lines
    from butter_etl.views import News, driver_line

    told: dict[str, tuple[int, ...]] = {}
    queues: dict[str, News] = {}
    for activity in _activities(store):
        now = time.time()
        for driver in activity.drivers:
            token = driver.holder.token
            counts = (driver.landed, driver.failed, driver.present, driver.in_flight, int(100 * driver.share_done))
            if told.get(token) != counts:
                told[token] = counts
                click.echo(driver_line(driver, now))
            lines = list(queue_lines(driver.queue, now)) if driver.queue else []
            for line in queues.setdefault(token, News()).of(lines):
                click.echo(f"    {line}")
