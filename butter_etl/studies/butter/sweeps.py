"""Sweeps: named unions of hypercubes of experiments; the published ones and the fixed ids of their experiments.

The published sweeps also fix the ids of their experiments: the position of first occurrence over the seven sweeps in
the document's order (cubes one after the other, keys nested in the order of `AXES`), then those of the later
optimizer sweep. The ids never change; infeasible cells have one too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import OptimizerName
from butter_etl.errors import SelectError, SpecError, suggestion
from butter_etl.studies.butter.columns import FLAG_COLUMNS
from butter_etl.studies.butter.datasets import DATASETS, DatasetInfo, dataset_info, info_of
from butter_etl.studies.butter.experiments import (
    HYPERPARAMETERS,
    MAX_REPETITIONS,
    SHAPES,
    Experiment,
    ExperimentSpec,
    ForeignSpec,
    Regularizer,
)
from butter_etl.studies.butter.topology import Topology, closest_topology, is_feasible
from butter_etl.studies.identity import canonical_float

CORE = ("529_pollen", "connect_4", "537_houses", "mnist", "201_pol", "sleep", "wine_quality_white")
SECONDARY = ("nursery", "adult")
TERTIARY = ("505_tecator", "294_satellite_image", "splice", "banana")
CORE_SHAPES = SHAPES[:4]
DEPTHS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20)
DEPTHS_WITHOUT_6 = tuple(depth for depth in DEPTHS if depth != 6)
DEPTHS_TO_10 = DEPTHS_WITHOUT_6[:8]
LEARNING_RATES = (0.01, 0.001, 0.0001, 0.00001)
BATCH_SIZES = (32, 64, 128, 256, 512, 1024)
NOISES = (0.0, 0.05, 0.1, 0.15, 0.2)
PENALTIES = tuple(0.32 / 2**k for k in range(13))
REGULARIZERS: tuple[Regularizer | None, ...] = (
    None,
    *(Regularizer("l1", factor) for factor in PENALTIES),
    *(Regularizer("l2", factor) for factor in PENALTIES),
)
Optimizer = tuple[OptimizerName, float | None]
ADAM: Optimizer = ("adam", None)
SWEPT_OPTIMIZERS: tuple[Optimizer, ...] = (ADAM, ("RMSprop", 0.0), ("RMSprop", 0.9), ("SGD", 0.0), ("SGD", 0.9))

#: The axes of cubes, outermost first. A momentum goes with its optimizer: such a pair is one value.
AXES: Final = tuple(name for name, one in HYPERPARAMETERS.items() if one.axis.joined is None)
_DEFAULTS: Final[Mapping[str, Any]] = {
    **{name: HYPERPARAMETERS[name].axis.default for name in AXES},
    "optimizer": ADAM,
}

#: Ids below are the published experiments'; others are claimed in a store from here up.
FIRST_CLAIMED_ID = 2**24


def sizes(first: int, last: int) -> tuple[int, ...]:
    """Return the powers of two from 2^first to 2^last."""
    return tuple(2**k for k in range(first, last + 1))


class Cube(msgspec.Struct, frozen=True):
    """A hypercube of experiments: the product of the values of its axes, the last axis fastest.

    ``axes`` has the values of every axis, in the order of `AXES`. A user's own data set stands there as what it is, one
    that comes with the package as its name.
    """

    axes: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, **values: Iterable[Any]) -> Cube:
        """Return the cube of these values by axis; axes that are not named have their default, if there is one."""
        return cls(tuple(tuple(values[axis]) if axis in values else (_DEFAULTS[axis],) for axis in AXES))

    def __getitem__(self, axis: str) -> tuple[Any, ...]:
        return self.axes[AXES.index(axis)]

    def __len__(self) -> int:
        count = 1
        for values in self.axes:
            count *= len(values)
        return count

    def experiments(self) -> Iterator[ExperimentSpec]:
        """Yield every cell, infeasible ones included."""
        for cell in product(*self.axes):
            yield _from_cell(cell)

    def __contains__(self, spec: Experiment) -> bool:
        return all(value in values for value, values in zip(_to_cell(spec), self.axes, strict=True))


class Sweep(msgspec.Struct, frozen=True):
    """A named union of cubes and the number of repetitions its experiments should have."""

    name: str
    repetitions: int
    cubes: tuple[Cube, ...]

    def __len__(self) -> int:
        return sum(len(cube) for cube in self.cubes)

    def experiments(self) -> Iterator[ExperimentSpec]:
        """Yield the experiment of every cell of every cube in order; a cell of two cubes comes twice."""
        for cube in self.cubes:
            yield from cube.experiments()

    def own_datasets(self) -> list[DatasetInfo]:
        """Return the users' own data sets of its cubes, each once."""
        found = [value for cube in self.cubes for value in cube["dataset"] if isinstance(value, DatasetInfo)]
        return list(dict.fromkeys(found))

    def __contains__(self, spec: Experiment) -> bool:
        return any(spec in cube for cube in self.cubes)


def _core(**axes: tuple[Any, ...]) -> Cube:
    return Cube.of(**{"dataset": CORE, "shape": CORE_SHAPES, "depth": DEPTHS_WITHOUT_6, "size": sizes(5, 24), **axes})


_NINE = CORE + SECONDARY
_THIRTEEN = _NINE + TERTIARY
_RECTANGLE = ("rectangle",)

#: The seven published sweeps in the document's order, then the later optimizer sweep.
PUBLISHED: dict[str, Sweep] = {
    sweep.name: sweep
    for sweep in (
        Sweep("primary", 30, (_core(dataset=_THIRTEEN, shape=SHAPES, size=sizes(5, 25), depth=DEPTHS),)),
        Sweep("300_epoch", 10, (_core(size=sizes(25, 27), depth=DEPTHS, epochs=(300,)),)),
        Sweep("30k_epoch", 10, (_core(size=sizes(5, 18), depth=DEPTHS, epochs=(30000,)),)),
        Sweep("learning_rate", 30, (_core(dataset=_NINE, learning_rate=LEARNING_RATES),)),
        Sweep(
            "label_noise",
            30,
            (_core(learning_rate=(0.001,), label_noise=NOISES[:2]), _core(label_noise=NOISES)),
        ),
        Sweep(
            "batch_size",
            30,
            (_core(dataset=_NINE, shape=_RECTANGLE, depth=DEPTHS_TO_10, batch_size=BATCH_SIZES),),
        ),
        Sweep(
            "regularization",
            30,
            (
                _core(
                    dataset=_NINE,
                    shape=_RECTANGLE,
                    size=sizes(5, 25),
                    depth=DEPTHS_TO_10,
                    kernel_regularizer=REGULARIZERS,
                ),
            ),
        ),
        Sweep(
            "optimizer",
            20,
            (
                _core(
                    dataset=_THIRTEEN,
                    shape=_RECTANGLE,
                    depth=DEPTHS[:5],
                    learning_rate=LEARNING_RATES,
                    batch_size=BATCH_SIZES[:4],
                    optimizer=SWEPT_OPTIMIZERS,
                ),
            ),
        ),
    )
}
#: The flag column of each published sweep, in the order of `PUBLISHED`.
FLAGS = dict(zip(PUBLISHED, FLAG_COLUMNS, strict=True))


def unknown_sweep(name: str, registered: Iterable[str] = ()) -> str:
    """Return the message about a sweep that is not known, with the closest name and the published ones."""
    return f"unknown sweep {name!r}{suggestion(name, [*PUBLISHED, *registered])}; published: {', '.join(PUBLISHED)}"


def sweep_flags(spec: Experiment) -> dict[str, bool]:
    """Tell which published sweeps hold an experiment, by its parameters: flag column -> bool."""
    return {FLAGS[name]: spec in sweep for name, sweep in PUBLISHED.items()}


def make_experiment(**values: Any) -> ExperimentSpec:
    """Return an experiment with canonical floats and what follows from its data set.

    ``values`` are hyperparameters by name; those that are not named have the default of their axis. Raises SpecError
    naming the key, TypeError for a name that is none and for one that is missing.
    """
    if unknown := values.keys() - HYPERPARAMETERS.keys():
        raise TypeError(f"no hyperparameters: {', '.join(sorted(unknown))}")
    settings = {name: values.get(name, one.axis.default) for name, one in HYPERPARAMETERS.items()}
    if missing := [name for name, value in settings.items() if value is msgspec.NODEFAULT]:
        raise TypeError(f"missing hyperparameters: {', '.join(missing)}")
    dataset = settings.pop("dataset")
    info = dataset if isinstance(dataset, DatasetInfo) else dataset_info(dataset)
    settings = {name: HYPERPARAMETERS[name].canonical(value, name) for name, value in settings.items()}
    check_momentum("momentum", settings["optimizer"], settings["momentum"])
    if (penalty := settings["kernel_regularizer"]) is not None:
        factor = canonical_float(penalty.factor, "kernel_regularizer")
        settings["kernel_regularizer"] = Regularizer(penalty.type, factor)
    return _experiment(info, settings)


def check_momentum(name: str, optimizer: str, momentum: float | None) -> None:
    """Raise SpecError, naming the key, for a momentum of adam, and for another optimizer without one."""
    if (momentum is None) != (optimizer == "adam"):
        rule = "must be null for adam" if optimizer == "adam" else f"must be a number for {optimizer}"
        raise SpecError(f"{name}: {momentum!r} {rule}")


def _experiment(info: DatasetInfo, settings: Mapping[str, Any]) -> ExperimentSpec:
    return ExperimentSpec(
        dataset=info.name,
        loss=info.loss,
        outputs=info.outputs,
        output_activation=info.output_activation,
        own=info.own,
        **settings,
    )


def _from_cell(cell: tuple[Any, ...]) -> ExperimentSpec:
    """Return an experiment of a cube, whose values were checked when the cube was made."""
    settings = dict(zip(AXES, cell, strict=True))
    dataset = settings.pop("dataset")
    settings["optimizer"], settings["momentum"] = settings["optimizer"]
    return _experiment(dataset if isinstance(dataset, DatasetInfo) else DATASETS[dataset], settings)


def _to_cell(spec: Experiment) -> tuple[Any, ...]:
    if isinstance(spec, ForeignSpec):
        return _foreign_cell(spec.parameters())
    joined = {
        "dataset": spec.dataset if spec.own is None else info_of(spec),
        "optimizer": (spec.optimizer, spec.momentum),
    }
    return tuple(joined[axis] if axis in joined else getattr(spec, axis) for axis in AXES)


def _foreign_cell(values: dict[str, Any]) -> tuple[Any, ...]:
    kind = values["kernel_regularizer.type"]
    regularizer = None if kind is None else Regularizer(kind, values.get(f"kernel_regularizer.{kind}") or 0.0)
    plain = {name: values[name] for name in AXES if name in values}
    optimizer = (values["optimizer"], values["momentum"])
    return tuple({**plain, "kernel_regularizer": regularizer, "optimizer": optimizer}[axis] for axis in AXES)


def experiment_topology(spec: ExperimentSpec) -> Topology | None:
    """Return the topology of an experiment, or None where none is within 20 % of its size."""
    info = info_of(spec)
    topology = closest_topology(spec.shape, spec.size, spec.depth, info.inputs, info.outputs)
    return topology if is_feasible(topology, spec.size) else None


# --- ids of published experiments ---------------------------------------------------------------------------------

_CUBES = [cube for sweep in PUBLISHED.values() for cube in sweep.cubes]
#: The values of each axis in the published sweeps, each once.
_VALUES = tuple(tuple(dict.fromkeys(value for cube in _CUBES for value in cube[axis])) for axis in AXES)
_RADIX = tuple(len(values) for values in _VALUES)
_PLACES = tuple({value: place for place, value in enumerate(values)} for values in _VALUES)


class _PublishedIds(NamedTuple):
    codes: NDArray[np.int64]
    ids: dict[int, int]


def cube_codes(cube: Cube) -> NDArray[np.int64]:
    """Return an int64 number for each cell of a cube of published values, in its order; equal cells have equal ones."""
    codes = np.zeros(1, dtype=np.int64)
    for values, places, radix in zip(cube.axes, _PLACES, _RADIX, strict=True):
        digits = np.array([places[value] for value in values], dtype=np.int64)
        codes = (codes[:, None] * radix + digits).reshape(-1)
    return codes


@cache
def _published_ids() -> _PublishedIds:
    cells = np.concatenate([cube_codes(cube) for cube in _CUBES])
    _, first = np.unique(cells, return_index=True)
    codes = cells[np.sort(first)]
    return _PublishedIds(codes, dict(zip(codes.tolist(), range(codes.size), strict=True)))


def published_id(spec: ExperimentSpec) -> int | None:
    """Return the fixed id of an experiment of the published sweeps, or None for any other."""
    code = 0
    for value, places, radix in zip(_to_cell(spec), _PLACES, _RADIX, strict=True):
        place = places.get(value)
        if place is None:
            return None
        code = code * radix + place
    return _published_ids().ids.get(code)


def published_experiment(experiment_id: int) -> ExperimentSpec:
    """Return the experiment that has a fixed id; raise KeyError for an id that none has."""
    codes = _published_ids().codes
    if not 0 <= experiment_id < codes.size:
        raise KeyError(experiment_id)
    code, digits = int(codes[experiment_id]), []
    for radix in reversed(_RADIX):
        code, digit = divmod(code, radix)
        digits.append(digit)
    return _from_cell(tuple(values[digit] for values, digit in zip(_VALUES, reversed(digits), strict=True)))


def count_published() -> int:
    """Count the experiments that have fixed ids."""
    return int(_published_ids().codes.size)


def check_repetitions(count: int, place: str = "repetitions") -> int:
    """Return ``count`` if an experiment can have as many runs; raise SelectError otherwise."""
    if not 1 <= count <= MAX_REPETITIONS:
        raise SelectError(f"{place}: {count} is not between 1 and {MAX_REPETITIONS} (run counts are uint8)")
    return count
