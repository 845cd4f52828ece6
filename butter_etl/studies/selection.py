"""Selections, which say what a command works on: sweeps, conditions on parameters, repetitions."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec
import pyarrow as pa

from butter_etl.errors import SelectError, suggestion
from butter_etl.studies.butter.columns import EXPERIMENT_COLUMNS, FLAG_COLUMNS, SUMMARY_SCHEMA
from butter_etl.studies.butter.datasets import DATASETS, unknown_dataset
from butter_etl.studies.butter.experiments import CHOICES, Experiment, ExperimentSpec
from butter_etl.studies.butter.sweeps import Sweep, check_repetitions
from butter_etl.studies.identity import Value, float_text

#: Keys of `--where`: the columns that have one value an experiment, but for flags, constants and structures.
WHERE_KEYS = tuple(
    name
    for name in EXPERIMENT_COLUMNS
    if name
    not in (*FLAG_COLUMNS, "experiment_id", "widths", "network_structure", "num_free_parameters", "batch", "task")
)
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


def parse_condition(
    text: str, keys: Collection[str] = WHERE_KEYS, datasets: Collection[str] = tuple(DATASETS)
) -> Condition:
    """Return the condition on one of ``keys`` that ``text`` spells; raise SelectError in one line.

    ``datasets`` are the names that a data set may have.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise SelectError(f"--where {text!r}: write KEY OP VALUE[,VALUE…] with OP one of = != < <= > >=")
    key, op, right = match.groups()
    if key not in keys:
        raise SelectError(
            f"--where {text!r}: unknown key {key!r}{suggestion(key, keys)}; known: {', '.join(sorted(keys))}"
        )
    values = tuple(_parse_value(key, part.strip(), text) for part in right.split(","))
    # These names are known, so a misspelt one is an error rather than an empty selection.
    names = datasets if key == "dataset" else CHOICES.get(key, ())
    for value in values if names else ():
        if value is not None and value not in names:
            if key == "dataset":
                raise SelectError(f"--where {text!r}: dataset {unknown_dataset(str(value), names)}")
            close, known = suggestion(str(value), names), ", ".join(names)
            raise SelectError(f"--where {text!r}: unknown {key} {value!r}{close}; known: {known}")
    if op in _ORDERINGS and (len(values) != 1 or values[0] is None):
        raise SelectError(f"--where {text!r}: {op} takes exactly one value, and not null")
    return Condition(key, op, values)


def _parse_value(key: str, word: str, text: str) -> Value:
    """Parse a value and round it to its column's type, so that 0.05 equals what float32 made of it."""
    if not word:
        raise SelectError(f"--where {text!r}: a value is missing")
    if word == "null":
        return None
    kind = SUMMARY_SCHEMA.field(key).type
    if pa.types.is_string(kind):
        return word
    try:
        return float(float_text(float(word))) if pa.types.is_floating(kind) else int(word)
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
        if self.repetitions is not None:
            check_repetitions(self.repetitions, "--repetitions")
        if not 0 <= self.first_repetition <= MAX_REPETITION_NUMBER:
            raise SelectError(f"--first-repetition: {self.first_repetition} is not between 0 and 65535")

    def matches(self, spec: Experiment) -> bool:
        """Tell whether the conditions hold for an experiment and a sweep (if any is named) has it."""
        return self.meets_conditions(spec) and (not self.sweeps or any(spec in sweep for sweep in self.sweeps))

    def meets_conditions(self, spec: Experiment) -> bool:
        """Tell whether all conditions hold for an experiment."""
        if not self.conditions:
            return True
        parameters = spec.parameters()
        return all(condition.holds(parameters) for condition in self.conditions)

    def experiments(self) -> Iterator[tuple[str, ExperimentSpec, int]]:
        """Yield every experiment of the sweeps that meets the conditions, once, with the repetitions wanted of it.

        Each comes as the name of the first of the sweeps that has it, the experiment, and the number of repetitions.
        Infeasible experiments are included.
        """
        several = sum(len(sweep.cubes) for sweep in self.sweeps) > 1
        seen: set[ExperimentSpec] = set()
        for sweep in self.sweeps:
            for spec in sweep.experiments():
                if several:
                    if spec in seen:
                        continue
                    seen.add(spec)
                if self.meets_conditions(spec):
                    yield sweep.name, spec, self._wanted(spec, sweep)

    def _wanted(self, spec: ExperimentSpec, sweep: Sweep) -> int:
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
