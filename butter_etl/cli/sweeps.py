"""`butter-etl sweeps`: what there is to train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from butter_etl.cli.completion import files, folders, sweep_names
from butter_etl.cli.options import data_option, json_option, print_json, state_option, study_options
from butter_etl.errors import SelectError, UsageError, counted

if TYPE_CHECKING:
    from butter_etl.store import Registry, Store

_COLUMNS = ("sweep", "cubes", "experiments", "feasible", "repetitions")


@click.command()
@click.argument("name", required=False, shell_complete=sweep_names)
@click.option("--store", metavar="STORE", help="Show the custom sweeps of a store too.", shell_complete=folders)
@click.option(
    "--replace",
    metavar="FILE",
    help="Replace STORE's sweep by this file's, if nothing has run.",
    shell_complete=files,
)
@data_option
@state_option
@study_options
@json_option
def sweeps(
    name: str | None, store: str | None, replace: str | None, data_dir: str | None, state: str | None, as_json: bool
) -> None:
    """Show the sweeps that there are, or the cubes of one.

    \b
    butter-etl sweeps
    butter-etl sweeps label_noise
    butter-etl sweeps --store store
    butter-etl sweeps quick --store store
    """
    from butter_etl.store import Registry, Store

    if store is None and (replace or state):
        raise UsageError("--replace and --state are of a store; name it by --store")
    opened = Store.open(store, state) if store is not None else None
    registry = Registry(opened)
    if replace is not None and opened is not None:
        _replace(opened, registry, replace, data_dir)
    elif name is not None:
        _show_one(registry, name, as_json=as_json)
    else:
        _show_all(registry, store, as_json=as_json)


def _replace(store: Store, registry: Registry, file: str, data_dir: str | None) -> None:
    from butter_etl.campaign import current_activity

    if current_activity(store.state).drivers:
        raise SelectError(f"{store}: runs are being trained; stop that before a sweep is replaced")
    sweep = registry.replace(store, file, Path(data_dir) if data_dir else None)
    click.echo(f"replaced {sweep.name}: {counted(len(sweep), 'experiment')}")


def _show_one(registry: Registry, name: str, *, as_json: bool) -> None:
    from butter_etl.views import cube_table, print_table

    sweep = registry.sweep(name)
    rows, columns = cube_table(sweep), ("cube", "key", "values")
    if as_json:
        print_json(_records(columns, rows))
    else:
        repetitions = counted(sweep.repetitions, "repetition")
        print_table(columns, rows, f"{name}: {counted(len(sweep), 'experiment')}, {repetitions} each")


def _show_all(registry: Registry, store: str | None, *, as_json: bool) -> None:
    from butter_etl.views import distinct_line, distinct_row, print_table, sweep_table

    study = registry.study
    distinct = [distinct_row(study)] if study.figures.distinct else []
    published = [*sweep_table(study, study.sweeps.values()), *distinct]
    custom = sweep_table(study, map(registry.sweep, registry.sweep_names()))
    if as_json:
        print_json(_records(_COLUMNS, [*published, *custom]))
        return
    if published:
        print_table(_COLUMNS, published)
    else:
        click.echo(f"the study {study.name} has no sweeps of its own; train one with --spec FILE")
    if distinct:
        click.echo(distinct_line(study))
    if custom:
        click.echo()
        print_table(_COLUMNS, custom, f"custom sweeps of {store}")
    elif store is not None:
        click.echo(f"{store} has no custom sweeps")


def _records(columns: tuple[str, ...], rows: list[Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in rows]
