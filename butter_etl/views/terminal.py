"""Output for a person on the terminal: tables, progress, counts. Plain lines where there is no terminal."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import click

from butter_etl.errors import duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_PLAIN_SECONDS = 30.0
#: Where there is no terminal, a wait of which nothing new is to be said is told again this often.
_WAIT_SECONDS = 600.0
_NUMBER = re.compile(r"<?[\d,]+(\.\d+)?(e[+-]\d+)?")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print a table that fits 80 columns; numbers are right-aligned with thousands separators."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for index, name in enumerate(columns):
        is_number = bool(rows) and all(_is_number(row[index]) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    Console(highlight=False).print(table)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | None) or (isinstance(value, str) and _NUMBER.fullmatch(value) is not None)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return count(value) if isinstance(value, int) else str(value)


def count(number: int) -> str:
    """Return ``12345`` as ``12,345``."""
    return f"{number:,}"


def core_time(core_seconds: float) -> str:
    """Return an amount of computing for people, in core-hours from an hour up."""
    return f"{core_hours(core_seconds)} core-hours" if core_seconds >= 3600 else f"{duration(core_seconds)} of one core"


def core_hours(core_seconds: float) -> str:
    """Return an amount of computing as a number of hours of one core."""
    hours = core_seconds / 3600
    if 0 < hours < 0.005:
        return "<0.01"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2f}"


class _Shown:
    """What is shown while a block runs: in its place on a terminal, as lines elsewhere, not at all when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live: Live | None = None
        self._began = time.monotonic()
        self._news = News()

    @property
    def _has_place(self) -> bool:
        return not self._quiet and sys.stderr.isatty()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


class WaitLines(_Shown):
    """Lines of what is waited for: in their place on a terminal, as they come elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)

    def __enter__(self) -> WaitLines:
        if self._has_place:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True, refresh_per_second=4)
            self._live.start()
        return self

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines from now on."""
        if self._live is not None:
            from rich.text import Text

            waited = f"(for {duration(int(time.monotonic() - self._began))})" if lines else ""
            self._live.update(Text("\n".join([*lines, waited])))
        elif not self._quiet:
            for line in self._news.of(lines):
                click.echo(line, err=True)


class News:
    """Tells which of some lines are new, for output that stays: those that were not there the last time.

    After ten minutes without any, all of them are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: frozenset[str] = frozenset()
        self._told = clock()

    def of(self, lines: Sequence[str]) -> list[str]:
        """Return the lines that are new."""
        now = self._clock()
        new = [line for line in lines if line not in self._last]
        if not new and now - self._told >= _WAIT_SECONDS:
            new = list(lines)
        if new:
            self._told = now
        self._last = frozenset(lines)
        return new


class ProgressLine(_Shown):
    """Progress of long work: a bar on a terminal, a line every half minute elsewhere, nothing when quiet."""

    def __init__(self, what: str, total: int, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._what, self._total = what, total
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._last = self._began

    def __enter__(self) -> ProgressLine:
        if self._has_place:
            from rich.console import Console
            from rich.live import Live
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            # One hue: nothing is said by colour alone.
            bar = BarColumn(24, complete_style="cyan", finished_style="cyan")
            note = TextColumn("{task.fields[left]}{task.fields[note]}")
            self._bar = Progress(TextColumn("{task.description}"), bar, MofNCompleteColumn(), note)
            self._task = self._bar.add_task(self._what, total=self._total, left="", note="")
            self._live = Live(self._bar, console=Console(stderr=True), refresh_per_second=8)
            self._live.start()
        return self

    def update(
        self,
        done: int,
        note: str = "",
        *,
        left: float | None = None,
        figures: Mapping[str, str] | None = None,
        lines: Sequence[str] = (),
    ) -> None:
        """Show that ``done`` of the total are done, with ``note`` beside it.

        ``figures`` by name and ``lines`` come below. ``left`` is how many seconds are left, as far as is known; without
        figures it is reckoned from the number done.
        """
        if self._quiet:
            return
        now, figures = time.monotonic(), figures or {}
        if left is None and done and not figures:
            left = (now - self._began) * (self._total - done) / done
        words = f"{duration(left)} left" if left is not None else ""
        if self._bar is not None and self._task is not None and self._live is not None:
            self._bar.update(self._task, completed=done, left=words and f"{words} ", note=note)
            if figures:
                self._live.update(_with_figures(self._bar, figures, lines))
            return
        for line in self._news.of(lines):
            click.echo(line, err=True)
        if now - self._last >= _PLAIN_SECONDS:
            self._last = now
            parts = [f"{count(done)} of {count(self._total)}", words, *(f"{name} {figures[name]}" for name in figures)]
            click.echo(f"{self._what}: {', '.join(filter(None, parts))} {note}".rstrip(), err=True)


def _with_figures(bar: Bar, figures: Mapping[str, str], lines: Sequence[str]) -> RenderableType:
    """Return a bar with a row of names, a row of values, and lines below it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_edge=False, padding=(0, 2), header_style="dim")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row(*figures.values())
    return Group(bar, table, *map(Text, lines))
