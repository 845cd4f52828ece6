"""Sweeps: named unions of hypercubes of experiments; the published ones and the fixed ids of their experiments.

The published sweeps also fix the ids of their experiments: the position of first occurrence over the seven sweeps in
the document's order (cubes one after the other, keys nested in the order of `AXES`), then those of the later
optimizer sweep. The ids never change; infeasible cells have one too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from butter_etl.datasets import DATASETS, DatasetInfo, dataset_info, info_of
from butter_etl.errors import SelectError, SpecError
from butter_etl.spec import (
    MAX_REPETITIONS,
    MAX_SIZE,
    OPTIMIZERS,
    SHAPES,
    Experiment,
    ExperimentSpec,
    ForeignSpec,
    OptimizerName,
    Regularizer,
    canonical_float,
)
from butter_etl.topology import Topology, closest_topology, is_feasible

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
EPOCHS = (300, 3000, 30000)

Optimizer = tuple[OptimizerName, float | None]
ADAM: Optimizer = ("adam", None)
SWEPT_OPTIMIZERS: tuple[Optimizer, ...] = (ADAM, ("RMSprop", 0.0), ("RMSprop", 0.9), ("SGD", 0.0), ("SGD", 0.9))

#: Ids below are the published experiments'; others are claimed in a store from here up.
FIRST_CLAIMED_ID = 2**24


def sizes(first: int, last: int) -> tuple[int, ...]:
    """Return the powers of two from 2^first to 2^last."""
    return tuple(2**k for k in range(first, last + 1))


class Cube(msgspec.Struct, frozen=True):
    """A hypercube of experiments: the product of the values of its axes, the last axis fastest.

    On the axis ``dataset``, a data set that comes with the package is its name, and a user's own is its `DatasetInfo`.
    """

    dataset: tuple[str | DatasetInfo, ...]
    shape: tuple[str, ...]
    size: tuple[int, ...]
    depth: tuple[int, ...]
    learning_rate: tuple[float, ...] = (0.0001,)
    batch_size: tuple[int, ...] = (256,)
    kernel_regularizer: tuple[Regularizer | None, ...] = (None,)
    label_noise: tuple[float, ...] = (0.0,)
    epochs: tuple[int, ...] = (3000,)
    optimizer: tuple[Optimizer, ...] = (ADAM,)

    def axes(self) -> tuple[tuple[Any, ...], ...]:
        """Return the values of every axis, in the order of `AXES`."""
        return msgspec.structs.astuple(self)

    def __len__(self) -> int:
        count = 1
        for values in self.axes():
            count *= len(values)
        return count

    def experiments(self) -> Iterator[ExperimentSpec]:
        """Yield the experiment of every cell, infeasible ones included."""
        for cell in product(*self.axes()):
            yield _from_cell(cell)

    def __contains__(self, spec: Experiment) -> bool:
        return all(value in values for value, values in zip(_to_cell(spec), self.axes(), strict=True))


AXES = Cube.__struct_fields__


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
        found = [value for cube in self.cubes for value in cube.dataset if isinstance(value, DatasetInfo)]
        return list(dict.fromkeys(found))

    def __contains__(self, spec: Experiment) -> bool:
        return any(spec in cube for cube in self.cubes)


def _core(**axes: tuple[Any, ...]) -> Cube:
    return Cube(**{"dataset": CORE, "shape": CORE_SHAPES, "depth": DEPTHS_WITHOUT_6, "size": sizes(5, 24), **axes})


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
FLAGS = {name: f"{name}_sweep" for name in PUBLISHED}


def unknown_sweep(name: str, registered: Iterable[str] = ()) -> str:
    """Return the message about a sweep that is not known, with the closest name and the published ones."""
    return f"unknown sweep {name!r}{suggestion(name, [*PUBLISHED, *registered])}; published: {', '.join(PUBLISHED)}"


def sweep_flags(spec: Experiment) -> dict[str, bool]:
    """Tell which published sweeps hold an experiment, by its parameters: flag column -> bool."""
    return {FLAGS[name]: spec in sweep for name, sweep in PUBLISHED.items()}


def make_experiment(
    *,
    dataset: str | DatasetInfo,
    size: int,
    depth: int,
    shape: str = "rectangle",
    learning_rate: float = 0.0001,
    batch_size: int = 256,
    kernel_regularizer: Regularizer | None = None,
    label_noise: float = 0.0,
    epochs: int = 3000,
    optimizer: OptimizerName = "adam",
    momentum: float | None = None,
) -> ExperimentSpec:
    """Return an experiment with canonical floats and what follows from its data set; raise SpecError naming the key."""
    info = dataset if isinstance(dataset, DatasetInfo) else dataset_info(dataset)
    check_choice("shape", shape, SHAPES)
    check_choice("optimizer", optimizer, OPTIMIZERS)
    _check_range("size", size, 2, MAX_SIZE)
    _check_range("depth", depth, 2, 255)
    _check_range("batch_size", batch_size, 1, 2**32 - 1)
    _check_range("epochs", epochs, 1, 2**32 - 1)
    _check_range("label_noise", label_noise, 0, 1)
    if not learning_rate > 0:
        raise SpecError(f"learning_rate: {learning_rate!r} is not above 0")
    if (momentum is None) != (optimizer == "adam"):
        rule = "must be null for adam" if optimizer == "adam" else f"must be a number for {optimizer}"
        raise SpecError(f"momentum: {momentum!r} {rule}")
    if momentum is not None:
        _check_range("momentum", momentum, 0, 0.999999)
    if kernel_regularizer is not None:
        if not kernel_regularizer.factor > 0:
            raise SpecError(f"kernel_regularizer: {kernel_regularizer.factor!r} is not above 0; write null for none")
        factor = canonical_float(kernel_regularizer.factor, "kernel_regularizer")
        kernel_regularizer = Regularizer(kernel_regularizer.type, factor)
    return ExperimentSpec(
        dataset=info.name,
        shape=shape,
        size=size,
        depth=depth,
        learning_rate=canonical_float(learning_rate, "learning_rate"),
        batch_size=batch_size,
        kernel_regularizer=kernel_regularizer,
        label_noise=canonical_float(label_noise, "label_noise"),
        epochs=epochs,
        optimizer=optimizer,
        momentum=None if momentum is None else canonical_float(momentum, "momentum"),
        loss=info.loss,
        outputs=info.outputs,
        output_activation=info.output_activation,
        own=info.own,
    )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise SpecError, naming the key and the closest choice, if ``value`` is none of them."""
    if value not in choices:
        raise SpecError(f"{name}: unknown {value!r}{suggestion(value, choices)}; known: {', '.join(choices)}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SpecError(f"{name}: {value!r} is not between {low} and {high}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` if one of the known words is close, else an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _from_cell(cell: tuple[Any, ...]) -> ExperimentSpec:
    """Return an experiment of a cube, whose values were checked when the cube was made."""
    dataset, shape, size, depth, learning_rate, batch_size, regularizer, noise, epochs, (optimizer, momentum) = cell
    info = dataset if isinstance(dataset, DatasetInfo) else DATASETS[dataset]
    return ExperimentSpec(
        dataset=info.name,
        shape=shape,
        size=size,
        depth=depth,
        learning_rate=learning_rate,
        batch_size=batch_size,
        kernel_regularizer=regularizer,
        label_noise=noise,
        epochs=epochs,
        optimizer=optimizer,
        momentum=momentum,
        loss=info.loss,
        outputs=info.outputs,
        output_activation=info.output_activation,
        own=info.own,
    )


def _to_cell(spec: Experiment) -> tuple[Any, ...]:
    if isinstance(spec, ForeignSpec):
        return _foreign_cell(spec.parameters())
    return (
        spec.dataset if spec.own is None else info_of(spec),
        spec.shape,
        spec.size,
        spec.depth,
        spec.learning_rate,
        spec.batch_size,
        spec.kernel_regularizer,
        spec.label_noise,
        spec.epochs,
        (spec.optimizer, spec.momentum),
    )


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

_VALUES: tuple[tuple[Any, ...], ...] = (
    _THIRTEEN,
    SHAPES,
    sizes(5, 27),
    DEPTHS,
    LEARNING_RATES,
    BATCH_SIZES,
    REGULARIZERS,
    NOISES,
    EPOCHS,
    SWEPT_OPTIMIZERS,
)
_RADIX = tuple(len(values) for values in _VALUES)
_PLACES = tuple({value: place for place, value in enumerate(values)} for values in _VALUES)


class _PublishedIds(NamedTuple):
    codes: NDArray[np.int64]
    ids: dict[int, int]


def cube_codes(cube: Cube) -> NDArray[np.int64]:
    """Return an int64 number for each cell of a cube of published values, in its order; equal cells have equal ones."""
    codes = np.zeros(1, dtype=np.int64)
    for values, places, radix in zip(cube.axes(), _PLACES, _RADIX, strict=True):
        digits = np.array([places[value] for value in values], dtype=np.int64)
        codes = (codes[:, None] * radix + digits).reshape(-1)
    return codes


@cache
def _published_ids() -> _PublishedIds:
    cells = np.concatenate([cube_codes(cube) for sweep in PUBLISHED.values() for cube in sweep.cubes])
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
