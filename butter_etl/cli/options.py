"""Options and ways of printing that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

import click

from butter_etl.cli.completion import conditions, files, folders, sweep_names

#: What a command returns that was stopped by a signal; the exit code is the signal's.
INTERRUPTED = 130
F = TypeVar("F", bound=Callable[..., Any])


def select_options(command: F) -> F:
    """Add the options of SELECT to a command: which experiments, and how many runs of each."""
    options = [
        click.option(
            "--sweep",
            "sweeps",
            multiple=True,
            metavar="NAME",
            help="A published or registered sweep.",
            shell_complete=sweep_names,
        ),
        click.option(
            "--spec", "specs", multiple=True, metavar="FILE", help="A custom sweep (YAML).", shell_complete=files
        ),
        click.option(
            "--where",
            multiple=True,
            metavar="COND",
            help="'KEY OP VALUE[,VALUE]', OP one of = != < <= > >=.",
            shell_complete=conditions,
        ),
        click.option("--repetitions", type=int, metavar="N", help="Runs wanted of each experiment, in all."),
        click.option("--first-repetition", type=int, default=0, metavar="K", help="Count repetitions from K."),
    ]

    @wraps(command)
    def with_choice(
        *args: Any,
        sweeps: tuple[str, ...],
        specs: tuple[str, ...],
        where: tuple[str, ...],
        repetitions: int | None,
        first_repetition: int,
        **rest: Any,
    ) -> Any:
        from butter_etl.studies import Choice

        choice = Choice(
            sweeps=sweeps, specs=specs, where=where, repetitions=repetitions, first_repetition=first_repetition
        )
        return command(*args, choice=choice, **rest)

    wrapped: Any = with_choice
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


store_argument = click.argument("store", shell_complete=folders)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
state_option = click.option(
    "--state", metavar="DIR", help="Locks and failures; needed where STORE is a URL.", shell_complete=folders
)
cluster_option = click.option(
    "--cluster", metavar="FILE", help="A site file; without one, this machine.", shell_complete=files
)
workers_option = click.option("--workers", type=click.IntRange(min=1), metavar="N", help="How many workers.")
quiet_option = click.option("--quiet", is_flag=True, help="No progress.")
data_option = click.option(
    "--data-dir",
    metavar="DIR",
    help="Data sets in PMLB's layout (else BUTTER_ETL_DATA, else the user's cache).",
    shell_complete=folders,
)


def print_json(value: object) -> None:
    """Print a value of plain types or msgspec structs as indented JSON."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def print_lines(lines: Iterable[str]) -> None:
    """Print each line."""
    for line in lines:
        click.echo(line)
