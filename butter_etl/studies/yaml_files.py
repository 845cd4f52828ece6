"""The one reader of YAML that people write: sweep files and site files.

It reads what is meant, or says in one line what is wrong: a key that stands twice is refused with its line, keys are
texts as they stand, and numbers are what people write (``1e-3``), where YAML 1.1 has surprises.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from butter_etl.errors import UsageError, one_line, suggestion


def parse_yaml(text: str | bytes, origin: str, error: type[UsageError]) -> Any:
    """Return what a YAML text says, as dictionaries, lists, texts, numbers, booleans and None.

    ``origin`` names it in errors. Raises ``error``, in one line with the number of the line of the text, for what is no
    YAML, and for a key that stands twice at any level.
    """
    import yaml  # which most commands do without

    from butter_etl.studies.yaml_loader import Loader, TwiceError

    try:
        return yaml.load(text, Loader)  # noqa: S506 (it is a safe loader)
    except TwiceError as twice:
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
