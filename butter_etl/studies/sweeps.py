"""Sweeps of any study: named unions of hypercubes of experiments, and fixed ids for the cells of some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from butter_etl.errors import SelectError
from butter_etl.studies.axes import Hyperparameter
from butter_etl.studies.experiments import Experiment, OwnExperiment
from butter_etl.studies.identity import float_text

#: Ids below are of experiments with fixed ids; others are claimed in a store from here up.
FIRST_CLAIMED_ID: Final = 2**24


@dataclass(frozen=True)
class Space:
    """The space that the cubes of a study lie in: its axes, outermost first, and their defaults.

    ``experiment(cell)`` makes the experiment of a cell, whose values were checked when its cube was made.
    ``cell(experiment)`` is the other way round, for experiments of other tasks too.
    """

    axes: tuple[str, ...]
    defaults: Mapping[str, Any]
    experiment: Callable[[tuple[Any, ...]], OwnExperiment]
    cell: Callable[[Experiment], tuple[Any, ...]]


def plain_space(experiment: type[OwnExperiment], hyperparameters: Mapping[str, Hyperparameter]) -> Space:
    """Return the space whose axes are the hyperparameters, each by itself."""
    axes = tuple(hyperparameters)

    def cell(one: Experiment) -> tuple[Any, ...]:
        parameters = one.parameters()
        return tuple(parameters[axis] for axis in axes)

    return Space(
        axes,
        {name: one.axis.default for name, one in hyperparameters.items()},
        lambda values: experiment(**dict(zip(axes, values, strict=True))),
        cell,
    )


class Cube(msgspec.Struct, frozen=True):
    """A hypercube of experiments: the product of the values of its axes, the last axis fastest.

    ``axes`` has the values of every axis, in the order of the study's space.
    """

    space: ClassVar[Space]
    axes: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, **values: Iterable[Any]) -> Self:
        """Return the cube of these values by axis; axes that are not named have their default, if there is one."""
        space = cls.space
        return cls(tuple(tuple(values[axis]) if axis in values else (space.defaults[axis],) for axis in space.axes))

    def __getitem__(self, axis: str) -> tuple[Any, ...]:
        return self.axes[self.space.axes.index(axis)]

    def __len__(self) -> int:
        count = 1
        for values in self.axes:
            count *= len(values)
        return count

    @classmethod
    def spelled(cls, value: Any) -> str:
        """Return a value of an axis as tables show it."""
        if value is None:
            return "null"
        return float_text(value, "float64") if isinstance(value, float) else str(value)

    def listed(self, axis: str) -> str:
        """Return the values of an axis as tables show them."""
        return ", ".join(map(self.spelled, self[axis]))

    def experiments(self) -> Iterator[OwnExperiment]:
        """Yield every cell, those that cannot be built included."""
        for cell in product(*self.axes):
            yield self.space.experiment(cell)

    def __contains__(self, one: Experiment) -> bool:
        return self.holds(self.space.cell(one))

    def holds(self, cell: tuple[Any, ...]) -> bool:
        """Tell whether these values, one an axis, are a cell of the cube; it is asked millions of times."""
        for value, values in zip(cell, self.axes, strict=True):  # noqa: SIM110 (a generator takes twice as long)
            if value not in values:
                return False
        return True


class Sweep(msgspec.Struct, frozen=True):
    """A named union of cubes and the number of repetitions its experiments should have."""

    name: str
    repetitions: int
    cubes: tuple[Cube, ...]

    def __len__(self) -> int:
        return sum(len(cube) for cube in self.cubes)

    def experiments(self) -> Iterator[OwnExperiment]:
        """Yield the experiment of every cell of every cube in order; a cell of two cubes comes twice."""
        for cube in self.cubes:
            yield from cube.experiments()

    def __contains__(self, one: Experiment) -> bool:
        if not self.cubes:
            return False
        cell = self.cubes[0].space.cell(one)
        for cube in self.cubes:  # noqa: SIM110 (as in `Cube.holds`)
            if cube.holds(cell):
                return True
        return False

    def own_datasets(self) -> Sequence[Any]:
        """Return the users' own data sets of its cubes, each once."""
        return []


def check_repetitions(count: int, most: int, place: str = "repetitions") -> int:
    """Return ``count`` if an experiment can have as many runs; raise SelectError otherwise."""
    if not 1 <= count <= most:
        kind = "uint8" if most < 2**8 else "uint16"
        raise SelectError(f"{place}: {count} is not between 1 and {most} (run counts are {kind})")
    return count


class FixedIds:
    """The fixed ids of the experiments of some cubes: the position of first occurrence, cube after cube, from 0.

    The ids never change, as long as cubes are only added at the end.
    """

    def __init__(self, cubes: Sequence[Cube] = ()) -> None:
        self._cubes = tuple(cubes)
        axes = self._cubes[0].space.axes if self._cubes else ()
        #: The values of each axis in the cubes, each once.
        self._values = tuple(tuple(dict.fromkeys(value for cube in cubes for value in cube[axis])) for axis in axes)
        self._radix = tuple(len(values) for values in self._values)
        self._places = tuple({value: place for place, value in enumerate(values)} for values in self._values)

    def __len__(self) -> int:
        return int(self._codes.size)

    @cached_property
    def _codes(self) -> NDArray[np.int64]:
        if not self._cubes:
            return np.zeros(0, dtype=np.int64)
        cells = np.concatenate([self.codes(cube) for cube in self._cubes])
        _, first = np.unique(cells, return_index=True)
        return cells[np.sort(first)]

    @cached_property
    def _ids(self) -> dict[int, int]:
        return dict(zip(self._codes.tolist(), range(self._codes.size), strict=True))

    def codes(self, cube: Cube) -> NDArray[np.int64]:
        """Return an int64 number for each cell of a cube of these values, in its order; equal cells have equal ones."""
        codes = np.zeros(1, dtype=np.int64)
        for values, places, radix in zip(cube.axes, self._places, self._radix, strict=True):
            digits = np.array([places[value] for value in values], dtype=np.int64)
            codes = (codes[:, None] * radix + digits).reshape(-1)
        return codes

    def id_of(self, one: OwnExperiment) -> int | None:
        """Return the fixed id of an experiment, or None for any other."""
        if not self._cubes:
            return None
        code = 0
        for value, places, radix in zip(self._cubes[0].space.cell(one), self._places, self._radix, strict=True):
            place = places.get(value)
            if place is None:
                return None
            code = code * radix + place
        return self._ids.get(code)

    def experiment(self, experiment_id: int) -> OwnExperiment:
        """Return the experiment that has a fixed id; raise KeyError for an id that none has."""
        if not 0 <= experiment_id < len(self):
            raise KeyError(experiment_id)
        code, digits = int(self._codes[experiment_id]), []
        for radix in reversed(self._radix):
            code, digit = divmod(code, radix)
            digits.append(digit)
        cell = tuple(values[digit] for values, digit in zip(self._values, reversed(digits), strict=True))
        return self._cubes[0].space.experiment(cell)
