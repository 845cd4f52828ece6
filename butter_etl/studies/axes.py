"""Axes: how a hyperparameter may vary in the cubes of a study, declared where the experiment declares its field.

An experiment is a `msgspec.Struct`. A field of it that is annotated with an `Axis` can be swept::

    class Setting(msgspec.Struct, frozen=True):
        size: Annotated[int, Axis(check=Between(2, 2**40))]
        learning_rate: Annotated[float, Axis(0.0001, Above(0))]

Everything else (cubes, the keys of sweep files, checks) follows from these declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec

from butter_etl.errors import SpecError, suggestion
from butter_etl.studies.identity import canonical_float

#: The whole numbers that a column can hold.
_LEAST, _MOST = -(2**63), 2**64 - 1
#: The default of an axis that a cube must name.
REQUIRED: Final = msgspec.NODEFAULT

#: ``check(name, value)`` raises SpecError, naming the key, for a value that an axis cannot have.
Check = Callable[[str, Any], None]


@dataclass(frozen=True)
class OneOf:
    """A check: the value is one of some names."""

    choices: tuple[str, ...]

    def __call__(self, name: str, value: Any) -> None:
        """Raise SpecError, naming the key and the closest choice, if ``value`` is none of them."""
        if value not in self.choices:
            hint = suggestion(str(value), self.choices)
            raise SpecError(f"{name}: unknown {value!r}{hint}; known: {', '.join(self.choices)}")


@dataclass(frozen=True)
class Between:
    """A check: the value is between two numbers, both included."""

    low: float
    high: float

    def __call__(self, name: str, value: Any) -> None:
        """Raise SpecError, naming the key, if ``value`` is outside."""
        if not self.low <= value <= self.high:
            raise SpecError(f"{name}: {value!r} is not between {self.low} and {self.high}")


@dataclass(frozen=True)
class Above:
    """A check: the value is larger than a number."""

    low: float

    def __call__(self, name: str, value: Any) -> None:
        """Raise SpecError, naming the key, if ``value`` is not larger."""
        if not value > self.low:
            raise SpecError(f"{name}: {value!r} is not above {self.low}")


def _anything(_name: str, _value: Any) -> None:
    """Accept any value: what is wrong with it is found out elsewhere."""


@dataclass(frozen=True)
class Axis:
    """How a hyperparameter may vary: its default in cubes, and the values that it may have.

    ``spelled`` is its type in sweep files, where that is not the type of the field; ``read(entry, place)`` makes a
    value of what a sweep file says. ``joined`` names the axis whose values this one's go with, pair by pair: it is none
    of its own. ``bits`` is the width of a fraction's column, 32 or 64.
    """

    default: Any = REQUIRED
    check: Check = _anything
    spelled: Any = None
    read: Callable[[Any, str], Any] | None = None
    joined: str | None = None
    bits: Literal[32, 64] = 32


@dataclass(frozen=True)
class Hyperparameter:
    """A field of an experiment that can be swept: its name, its type, and its axis."""

    name: str
    type: Any
    axis: Axis

    @property
    def is_nullable(self) -> bool:
        """Tell whether an experiment may have none."""
        return type(None) in get_args(self.type)

    @property
    def spelled(self) -> Any:
        """Return the type of a value in a sweep file."""
        return self.axis.spelled or self.type

    def canonical(self, value: Any, name: str) -> Any:
        """Return a checked value as an experiment has it; ``name`` is what errors call the key. Raises SpecError."""
        if value is None and self.is_nullable:
            return None
        self.axis.check(name, value)
        return self._checked(value, name)

    def read(self, entry: Any, place: str) -> Any:
        """Return the value that an entry of a sweep file stands for; ``place`` is its place. Raises SpecError."""
        return self._checked(entry, place) if self.axis.read is None else self.axis.read(entry, place)

    def _checked(self, value: Any, name: str) -> Any:
        """Return a value as identities have it: fractions canonical, in lists too, and whole numbers of 64 bits."""
        if isinstance(value, list | tuple):
            return tuple(self._checked(one, name) for one in value)
        if isinstance(value, float) or (self._is_fraction and value is not None):
            return canonical_float(value, name) if self.axis.bits == 32 else canonical_float(value, name, "float64")
        if isinstance(value, int) and not _LEAST <= value <= _MOST:
            raise SpecError(f"{name}: {value} takes more than 64 bits")
        return value

    @property
    def _is_fraction(self) -> bool:
        return self.type is float or (get_origin(self.type) is not tuple and float in get_args(self.type))


def hyperparameters(experiment: type[msgspec.Struct]) -> Mapping[str, Hyperparameter]:
    """Return the fields of an experiment that can be swept, by name, in the order of its fields."""
    found = {}
    for name, hint in get_type_hints(experiment, include_extras=True).items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Axis):
                found[name] = Hyperparameter(name, get_args(hint)[0], extra)
    return {name: found[name] for name in experiment.__struct_fields__ if name in found}
