"""The one reader of YAML that people write: sweep files and site files.

It reads what is meant, or says in one line what is wrong: a key that stands twice is refused with its line, keys are
texts as they stand, and numbers are what people write (``1e-3``), where YAML 1.1 has surprises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import yaml

from butter_etl.errors import UsageError, one_line, suggestion

_TAG = "tag:yaml.org,2002:"
_INT, _FLOAT, _MERGE, _STR = (f"{_TAG}{kind}" for kind in ("int", "float", "merge", "str"))
#: What YAML 1.1 makes other things of than people mean: 010 is 8 in it, 12:00:00 is 43200, a date is no text.
_RESOLVED_OTHERWISE = (_INT, _FLOAT, f"{_TAG}timestamp")
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0b[01]+)\Z")
_FRACTION = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))\Z"
    r"|\.(?:nan|NaN|NAN)\Z"
)
#: Larger numbers with an exponent stay fractions: nothing that is counted goes so far.
_LARGEST_WHOLE = 10**30


class _TwiceError(Exception):
    """A key stands twice in one place: in these lines, from 1."""

    def __init__(self, key: str, first: int, line: int) -> None:
        super().__init__(key)
        self.key, self.first, self.line = key, first, line


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but for keys and numbers."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (so it is in PyYAML)
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _RESOLVED_OTHERWISE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping whose keys are texts and stand there once.

        It is looked at here, since anchors that are merged in later may have the same keys.
        """
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for place, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key.start_mark)
            line = key.start_mark.line + 1
            if key.value in lines:
                raise _TwiceError(key.value, lines[key.value], line)
            lines[key.value] = line
            if key.tag != _MERGE:
                text = yaml.ScalarNode(_STR, key.value, key.start_mark, key.end_mark)
                node.value[place] = (text, value)
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Return a number with a point or an exponent; ``1e3`` is a whole one."""
        text = node.value.replace("_", "")
        if "e" in text.lower():
            exact = Decimal(text)
            if abs(exact) <= _LARGEST_WHOLE and exact == exact.to_integral_value():
                return int(exact)
        number: float = self.construct_yaml_float(node)
        return number


_Loader.add_implicit_resolver(_INT, _WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver(_FLOAT, _FRACTION, list("-+.0123456789"))
_Loader.add_constructor(_FLOAT, _Loader.construct_number)


def parse_yaml(text: str | bytes, origin: str, error: type[UsageError]) -> Any:
    """Return what a YAML text says, as dictionaries, lists, texts, numbers, booleans and None.

    ``origin`` names it in errors. Raises ``error``, in one line with the number of the line of the text, for what is no
    YAML, and for a key that stands twice at any level.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (it is a safe loader)
    except _TwiceError as twice:
        what = f"{twice.key!r} stands twice (line {twice.first} has it too); take one out"
        raise error(f"{origin}, line {twice.line}: {what}") from None
    except yaml.YAMLError as wrong:
        mark = getattr(wrong, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise error(f"{origin}{line}: not YAML: {getattr(wrong, 'problem', None) or one_line(wrong)}") from wrong
    except RecursionError as wrong:
        raise error(f"{origin}: not YAML that is meant: it is nested too deeply") from wrong
    except (ValueError, ArithmeticError, AttributeError, KeyError) as wrong:  # PyYAML, of a value that its tag forbids
        raise error(f"{origin}: not YAML: a value is not of the kind that is said ({one_line(wrong)})") from wrong


def as_list(value: Any) -> Any:
    """Return what stands where a list is wanted as a list: one value is a list of one, a text of several lines of many.

    Nothing stays nothing.
    """
    if value is None or isinstance(value, list):
        return value
    return value.splitlines() if isinstance(value, str) else [value]


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return what to say of a key that is none of the known ones: the closest of them, or all."""
    known = sorted(known)
    return suggestion(key, known) or f"; known are {', '.join(known)}"
