"""PyYAML's safe loader, with what people mean in place of YAML 1.1's surprises; see `butter_etl.studies.yaml_files`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import yaml

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


class TwiceError(Exception):
    """A key stands twice in one place: in these lines, from 1."""

    def __init__(self, key: str, first: int, line: int) -> None:
        super().__init__(key)
        self.key, self.first, self.line = key, first, line


class Loader(yaml.SafeLoader):
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
                raise TwiceError(key.value, lines[key.value], line)
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


Loader.add_implicit_resolver(_INT, _WHOLE, list("-+0123456789"))
Loader.add_implicit_resolver(_FLOAT, _FRACTION, list("-+.0123456789"))
Loader.add_constructor(_FLOAT, Loader.construct_number)
