"""Selections, which say what a command works on: sweeps, conditions on parameters, repetitions."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from butter_etl.errors import SelectError, suggestion
from butter_etl.studies.experiments import Experiment, OwnExperiment
from butter_etl.studies.identity import Value, float_text
from butter_etl.studies.sweeps import Sweep

MAX_REPETITION_NUMBER = 2**16 - 1
_CONDITION = re.compile(r"\s*([A-Za-z0-9_.]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")
_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Condition(msgspec.Struct, frozen=True):
    """``key op values``: `=` holds for any of the values, `!=` for none of them, orderings take one value."""

    key: str
    op: str
    values: tuple[Value, ...]

    def may_hold_between(self, low: Value, high: Value) -> bool:
        """Tell whether a value from ``low`` to ``high`` may meet the condition."""
        if self.op == "=":
            return any(value is None or low <= value <= high for value in self.values)  # type: ignore[operator]
        if self.op == "!=":
            return low != high or low not in self.values
        return _ORDERINGS[self.op](low if self.op[0] == "<" else high, self.values[0])

    def holds(self, parameters: Mapping[str, Value]) -> bool:
        """Tell whether an experiment of these parameters meets the condition; null equals null and has no order."""
        value = parameters[self.key]
        if self.op == "=":
            return value in self.values
        if self.op == "!=":
            return value not in self.values
        return value is not None and _ORDERINGS[self.op](value, self.values[0])


def _unknown(key: str, value: str, known: Collection[str]) -> str:
    return f"unknown {key} {value!r}{suggestion(value, known)}; known: {', '.join(known)}"


@dataclass(frozen=True)
class Terms:
    """What conditions may speak of: keys with their types, and the names that are known of some of them.

    ``unknown(key, value, known)`` is the message about a name that is not known.
    """

    types: Mapping[str, pa.DataType]
    names: Mapping[str, Collection[str]] = field(default_factory=dict)
    unknown: Callable[[str, str, Collection[str]], str] = _unknown


def parse_condition(text: str, terms: Terms) -> Condition:
    """Return the condition that ``text`` spells; raise SelectError in one line."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise SelectError(f"--where {text!r}: write KEY OP VALUE[,VALUE…] with OP one of = != < <= > >=")
    key, op, right = match.groups()
    if key not in terms.types:
        known = ", ".join(sorted(terms.types))
        raise SelectError(f"--where {text!r}: unknown key {key!r}{suggestion(key, terms.types)}; known: {known}")
    values = tuple(_parse_value(terms.types[key], part.strip(), text) for part in right.split(","))
    # These names are known, so a misspelt one is an error rather than an empty selection.
    names = terms.names.get(key, ())
    for value in values if names else ():
        if value is not None and value not in names:
            raise SelectError(f"--where {text!r}: {terms.unknown(key, str(value), names)}")
    if op in _ORDERINGS and (len(values) != 1 or values[0] is None):
        raise SelectError(f"--where {text!r}: {op} takes exactly one value, and not null")
    return Condition(key, op, values)


def _parse_value(kind: pa.DataType, word: str, text: str) -> Value:
    """Parse a value and round it to its column's type, so that 0.05 equals what float32 made of it."""
    if not word:
        raise SelectError(f"--where {text!r}: a value is missing")
    if word == "null":
        return None
    if pa.types.is_string(kind):
        return word
    if pa.types.is_boolean(kind) and word in ("true", "false"):
        return word == "true"
    try:
        if pa.types.is_floating(kind):
            return float(float_text(float(word))) if pa.types.is_float32(kind) else float(word)
        return int(word)
    except ValueError as error:
        what = "a number" if pa.types.is_floating(kind) else "a whole number"
        raise SelectError(f"--where {text!r}: {word!r} is not {what}") from error


class Selection(msgspec.Struct, frozen=True):
    """SELECT of the commands. Without sweeps it takes in every experiment of a store; all conditions must hold.

    ``repetitions`` is the total wanted of each experiment (None: what its sweep says), from ``first_repetition`` on.
    """

    sweeps: tuple[Sweep, ...] = ()
    conditions: tuple[Condition, ...] = ()
    repetitions: int | None = None
    first_repetition: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.first_repetition <= MAX_REPETITION_NUMBER:
            raise SelectError(f"--first-repetition: {self.first_repetition} is not between 0 and 65535")

    def matches(self, one: Experiment) -> bool:
        """Tell whether the conditions hold for an experiment and a sweep (if any is named) has it."""
        return self.meets_conditions(one) and (not self.sweeps or any(one in sweep for sweep in self.sweeps))

    def meets_conditions(self, one: Experiment) -> bool:
        """Tell whether all conditions hold for an experiment."""
        if not self.conditions:
            return True
        parameters = one.parameters()
        return all(condition.holds(parameters) for condition in self.conditions)

    def experiments(self) -> Iterator[tuple[str, OwnExperiment, int]]:
        """Yield every experiment of the sweeps that meets the conditions, once, with the repetitions wanted of it.

        Each comes as the name of the first of the sweeps that has it, the experiment, and the number of repetitions.
        Infeasible experiments are included.
        """
        several = sum(len(sweep.cubes) for sweep in self.sweeps) > 1
        seen: set[OwnExperiment] = set()
        for sweep in self.sweeps:
            for spec in sweep.experiments():
                if several:
                    if spec in seen:
                        continue
                    seen.add(spec)
                if self.meets_conditions(spec):
                    yield sweep.name, spec, self._wanted(spec, sweep)

    def _wanted(self, spec: OwnExperiment, sweep: Sweep) -> int:
        if self.repetitions is not None:
            return self.repetitions
        return max(other.repetitions for other in self.sweeps if other is sweep or spec in other)

    def wanted_repetitions(self, count: int) -> range:
        """Return the numbers of ``count`` repetitions; raise SelectError if they leave uint16."""
        stop = self.first_repetition + count
        if stop > MAX_REPETITION_NUMBER + 1:
            raise SelectError(f"--first-repetition {self.first_repetition}: repetitions go up to 65535, not {stop - 1}")
        return range(self.first_repetition, stop)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """SELECT as a user writes it: names of sweeps, files of custom sweeps, conditions; see `Registry.select`."""

    sweeps: tuple[str, ...] = ()
    specs: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    repetitions: int | None = None
    first_repetition: int = 0

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing at all is chosen."""
        return self == Choice()
