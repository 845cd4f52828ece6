"""Messages of the command beside its answers: one line on standard error that begins with ``butter-etl:``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from butter_etl.errors import UsageError, suggestion

_LOG = logging.getLogger("butter_etl")
_CHOICE = re.compile(r"(.*)'(.*)' is not one of ('.*')")


class Commands(click.Group):
    """A group of commands that asks whether another was meant where one is not known."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called, its name and its arguments; raise UsageError for one that there is not."""
        if (
            args
            and not args[0].startswith("-")
            and self.get_command(ctx, args[0]) is None
            and not ctx.resilient_parsing
        ):
            close = suggestion(args[0], self.list_commands(ctx))
            raise UsageError(f"no such command {args[0]!r}{close}; {ctx.command_path} --help lists them")
        return super().resolve_command(ctx, args)


def usage_error(error: click.ClickException) -> UsageError:
    """Return an error of click's as one of ours."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    way_out = f"; {context.command_path} --help shows how" if context else ""
    return UsageError(f"{_said(error)}{way_out}")


def _said(error: click.ClickException) -> str:
    """Return what an error of click's says, in the words and the form of ours."""
    if isinstance(error, click.NoSuchOption):
        return f"no such option {error.option_name!r}{suggestion(error.option_name, error.possibilities or ())}"
    text = " ".join(error.format_message().split()).removesuffix(".")
    if choice := _CHOICE.fullmatch(text):
        before, word, known = map(str, choice.groups())
        close = suggestion(word, known.strip("'").split("', '"))
        text = f"{before}{word!r} is not one of {known}{close}"
    return text[:1].lower() + text[1:]


def warn(text: str) -> None:
    """Print a warning."""
    click.echo(f"butter-etl: warning: {text}", err=True)


class _Echo(logging.Handler):
    """Prints what the package logs."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            warn(record.getMessage())
        else:
            click.echo(f"butter-etl: {record.getMessage()}", err=True)


@contextmanager
def log_shown() -> Iterator[None]:
    """Print what the package logs, warnings and worse, while a command runs."""
    handler = _Echo()
    _LOG.addHandler(handler)
    try:
        yield
    finally:
        _LOG.removeHandler(handler)


@contextmanager
def log_level(level: str) -> Iterator[Any]:
    """Let the package log from a level on, for a while."""
    before = _LOG.level
    _LOG.setLevel(level)
    try:
        yield
    finally:
        _LOG.setLevel(before)
