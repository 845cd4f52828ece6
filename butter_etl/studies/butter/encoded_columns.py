"""What became of the columns of a user's own data set: encoding, inputs, what was filled in, and what is doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec

from butter_etl.errors import agreeing, counted
from butter_etl.studies.butter.declarations import ColumnChoice, Fill, yaml_key
from butter_etl.studies.butter.encoding import Form

#: What a column is taken for that is probably no feature.
Doubt = Literal["target", "row-numbers", "dates", "names"]

#: Of more columns than this, those of one encoding are told together.
MOST_TOLD = 20
_WARNINGS_TOLD = 10
_LONGEST_KEY = 100
_LONGEST_NAME, _LONGEST_VALUE, _LONGEST_LIST = 32, 20, 28
_UNENCODED: Final = {
    "dropped": "dropped as declared",
    "row numbers": "row numbers, dropped",
    "one value": "one value, dropped",
}


class EncodedColumn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a column of a table: its encoding, and how many inputs, that of an indicator among them.

    ``filled`` of its rows had no value; ``missing`` says by what rule they have one, ``value`` which. ``doubt`` says
    what a column is taken for that is probably no feature, and whose encoding is not declared.
    """

    name: str
    encoding: Form | Literal["row numbers"]
    inputs: int
    filled: int = 0
    missing: str | None = None
    value: float | int | str | None = None
    indicator: bool = False
    doubt: Doubt | None = None


def rule_name(choice: ColumnChoice) -> str | None:
    """Return what a declaration says of missing values, in one word."""
    rule = choice.missing
    return "value" if isinstance(rule, Fill | int | float) else rule


def describe_columns(columns: Sequence[EncodedColumn]) -> list[tuple[str, str]]:
    """Return for people what became of columns: pairs of what, and how. Many are told by their encoding."""
    if len(columns) <= MOST_TOLD:
        return [(_short(one.name, _LONGEST_NAME), f"{_how(one)}{_and_filled(one)}") for one in columns]
    return [*_groups(columns), *_filled(columns)]


def doubt_lines(name: str, columns: Sequence[EncodedColumn]) -> Iterator[str]:
    """Yield a warning for each column of the data set ``name`` that is probably no feature, for the first ten."""
    doubtful = [one for one in columns if one.doubt is not None]
    for one in doubtful[:_WARNINGS_TOLD]:
        yield f"{name}: {_doubt(one)}"
    if more := len(doubtful[_WARNINGS_TOLD:]):
        are = agreeing(more, "is probably no feature", "are probably no features")
        yield f"{name}: {counted(more, 'more column')} {are} (--json has all)"


def _doubt(one: EncodedColumn) -> str:
    name = _short(one.name, _LONGEST_KEY)
    key = yaml_key(name)
    declared = "numeric" if one.encoding == "scaled" else "one-hot"
    column, drop = f"column {name!r}", f"write `{key}: drop`"
    texts = {
        "target": f"gives the target away, one value for each; {drop} unless it is known before the target",
        "row-numbers": f"numbers the rows; {drop}, or declare it {declared} to learn from it",
        "dates": f"has dates or times, which are no measure; {drop}, put numbers in, or declare it {declared}",
        "names": f"has a text of its own in nearly every row; {drop}, or declare it {declared}",
    }
    return f"{column} {texts[one.doubt or '']}"


def _how(one: EncodedColumn) -> str:
    indicator = " (one tells what was missing)" if one.indicator else ""
    if one.encoding == "one value" and one.indicator:
        return "one value, 1 input (it tells what was missing)"
    return _UNENCODED.get(one.encoding, f"{one.encoding}, {counted(one.inputs, 'input')}{indicator}")


def _and_filled(one: EncodedColumn) -> str:
    return f"; {one.filled:,} missing: {_with_what(one)}" if one.filled else ""


def _with_what(one: EncodedColumn) -> str:
    if one.missing == "own-category":
        return "a category of their own"
    value = _short(f"{one.value:g}" if isinstance(one.value, float) else repr(one.value), _LONGEST_VALUE)
    return value if one.missing == "value" else f"{one.missing} {value}"


def _groups(columns: Sequence[EncodedColumn]) -> Iterator[tuple[str, str]]:
    for encoding in dict.fromkeys(one.encoding for one in columns):
        some = [one for one in columns if one.encoding == encoding]
        few, many = min(one.inputs for one in some), max(one.inputs for one in some)
        inputs = counted(many, "input") if few == many else f"{few:,} to {many:,} inputs"
        each = " each" if len(some) > 1 else ""
        yield (
            _UNENCODED.get(encoding, f"{encoding}, {inputs}{each}"),
            f"{counted(len(some), 'column')} ({_some_of([_short(one.name, _LONGEST_VALUE) for one in some])})",
        )


def _filled(columns: Sequence[EncodedColumn]) -> Iterator[tuple[str, str]]:
    some = [one for one in columns if one.filled]
    for one in some[:MOST_TOLD]:
        yield _short(one.name, _LONGEST_NAME), f"{one.filled:,} missing: {_with_what(one)}"
    if len(some) > MOST_TOLD:
        cells = sum(one.filled for one in some[MOST_TOLD:])
        yield counted(len(some) - MOST_TOLD, "more column"), f"{cells:,} missing and filled in"


def _some_of(names: Sequence[str]) -> str:
    """Return the first names, as many as a line has room for."""
    count, length = 1, len(names[0])
    while count < len(names) and length + len(names[count]) + 2 <= _LONGEST_LIST:
        length += len(names[count]) + 2
        count += 1
    return ", ".join([*names[:count], *(["…"] if count < len(names) else [])])


def _short(text: str, most: int) -> str:
    """Return a text in one line, cut where it is longer than that."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
