"""Amounts as people say them: counts with their nouns, lengths of time, rates.

Below all other parts, beside `errors`, so that every message can use them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400
_YEAR: Final = 365.25 * _DAY
_MONTH: Final = _YEAR / 12
#: Units of two parts: from how many seconds on, their names, and up to how many seconds they are used.
_CLOCK: Final = (
    (_HOUR, _MINUTE, "min", 1, "s"),
    (_DAY, _HOUR, "h", _MINUTE, "min"),
    (14 * _DAY, _DAY, "d", _HOUR, "h"),
)
#: Units of rates: how many seconds they have, and their words.
_RATE_UNITS: Final = ((1, "a second"), (_MINUTE, "a minute"), (_HOUR, "an hour"), (_DAY, "a day"), (_YEAR, "a year"))


def plural(noun: str) -> str:
    """Return the plural of a noun, or of the last word of several: ``summary`` becomes ``summaries``."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 run``, ``12,345 runs``."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def all_of(number: int, noun: str) -> str:
    """Return what stands for all of several things: ``all 4 runs``, ``both runs``, ``the only run``."""
    return {1: f"the only {noun}", 2: f"both {plural(noun)}"}.get(number, f"all {counted(number, noun)}")


def agreeing(number: int, one: str, several: str) -> str:
    """Return the form of a verb that goes with a number: ``1 run is there``, ``2 runs are there``."""
    return one if number == 1 else several


def duration(seconds: float) -> str:
    """Return a length of time in two units at most: ``420 ms``, ``3 min 20 s``, ``3 d 4 h``, ``509 years``."""
    if seconds < 0.0005:
        return "0 s" if seconds <= 0 else "less than 1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE - 0.5:
        return f"{seconds:.0f} s"
    for end, unit, name, part, part_name in _CLOCK:
        parts = round(seconds / part) if math.isfinite(seconds) else math.inf
        if parts * part < end:
            whole, rest = divmod(int(parts), unit // part)
            return f"{whole} {name} {rest} {part_name}" if rest else f"{whole} {name}"
    return _long_time(seconds)


def _long_time(seconds: float) -> str:
    """Return a time of two weeks or more in one unit."""
    if seconds < 2 * _MONTH:
        return counted(round(seconds / _DAY), "day")
    if seconds < 2 * _YEAR:
        return counted(round(seconds / _MONTH), "month")
    years = seconds / _YEAR
    if years < 10:
        return f"{_decimal(years)} years"
    return counted(round(years), "year") if years < 1e6 else "more than a million years"


def rate(a_second: float, noun: str) -> str:
    """Return a rate in the unit of time that makes the number one or more: ``12 runs a minute``."""
    seconds, unit = next((one for one in _RATE_UNITS if a_second * one[0] >= 1), _RATE_UNITS[-1])
    number = a_second * seconds
    text = _decimal(number) if number < 9.95 else f"{number:,.0f}"
    return f"{text} {noun if text == '1' else plural(noun)} {unit}"


def _decimal(number: float) -> str:
    """Return a small number with one decimal, if that is not 0."""
    return f"{number:.1f}".removesuffix(".0")


def html_table(rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> str:
    """Return a table as notebooks show it; numbers have commas and stand on the right."""
    lines = [_html_row("th", head)] if head else []
    lines += [_html_row("td", row) for row in rows]
    return f'<table style="margin-bottom: 0.6em">{"".join(lines)}</table>'


def _html_row(tag: str, cells: Sequence[object]) -> str:
    return f"<tr>{''.join(_html_cell(tag, cell) for cell in cells)}</tr>"


def _html_cell(tag: str, cell: object) -> str:
    is_number = isinstance(cell, (int, float)) and not isinstance(cell, bool)
    text = f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
    side = "right" if is_number else "left"
    return f'<{tag} style="text-align: {side}">{html.escape(text)}</{tag}>'
