"""Sweeps: named unions of hypercubes of experiments; the published ones and the fixed ids of their experiments.

The published sweeps also fix the ids of their experiments: the position of first occurrence over the seven sweeps in
the document's order (cubes one after the other, keys nested in the order of `AXES`), then those of the later
optimizer sweep. The ids never change; infeasible cells have one too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from operator import attrgetter
from typing import Any, Final

import msgspec

from butter_etl.engines import OptimizerName
from butter_etl.errors import SpecError
from butter_etl.studies import sweeps
from butter_etl.studies.butter.columns import FLAG_COLUMNS
from butter_etl.studies.butter.datasets import DATASETS, DatasetInfo, dataset_info, info_of
from butter_etl.studies.butter.experiments import HYPERPARAMETERS, SHAPES, ExperimentSpec, Regularizer
from butter_etl.studies.butter.topology import Topology, closest_topology, is_feasible
from butter_etl.studies.experiments import Experiment
from butter_etl.studies.identity import canonical_float, float_text

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


def sizes(first: int, last: int) -> tuple[int, ...]:
    """Return the powers of two from 2^first to 2^last."""
    return tuple(2**k for k in range(first, last + 1))


class Cube(sweeps.Cube, frozen=True):
    """A cube of BUTTER. A user's own data set stands there as what it is, one of the package as its name."""

    def experiments(self) -> Iterator[ExperimentSpec]:
        """Yield every cell, infeasible ones included."""
        for cell in product(*self.axes):
            yield _from_cell(cell)

    @classmethod
    def spelled(cls, value: Any) -> str:
        """Return a value of an axis as tables show it: a penalty or an optimizer in one text."""
        if isinstance(value, Regularizer):
            return f"{value.type} {float_text(value.factor)}"
        if isinstance(value, tuple):
            name, momentum = value
            return name if momentum is None else f"{name} (momentum {float_text(momentum)})"
        return super().spelled(value)


class Sweep(sweeps.Sweep, frozen=True):
    """A sweep of BUTTER."""

    cubes: tuple[Cube, ...]

    def experiments(self) -> Iterator[ExperimentSpec]:
        """Yield the experiment of every cell of every cube in order; a cell of two cubes comes twice."""
        for cube in self.cubes:
            yield from cube.experiments()

    def own_datasets(self) -> list[DatasetInfo]:
        """Return the users' own data sets of its cubes, each once."""
        found = [value for cube in self.cubes for value in cube["dataset"] if isinstance(value, DatasetInfo)]
        return list(dict.fromkeys(found))


def _from_cell(cell: tuple[Any, ...]) -> ExperimentSpec:
    """Return an experiment of a cube, whose values were checked when the cube was made."""
    settings = dict(zip(AXES, cell, strict=True))
    dataset = settings.pop("dataset")
    settings["optimizer"], settings["momentum"] = settings["optimizer"]
    return _experiment(dataset if isinstance(dataset, DatasetInfo) else DATASETS[dataset], settings)


_axes_of = attrgetter(*AXES)
_DATASET, _OPTIMIZER = AXES.index("dataset"), AXES.index("optimizer")


def _to_cell(one: Experiment) -> tuple[Any, ...]:
    if not isinstance(one, ExperimentSpec):
        return _foreign_cell(one.parameters())
    cell = list(_axes_of(one))
    cell[_OPTIMIZER] = one.optimizer, one.momentum
    if one.own is not None:
        cell[_DATASET] = info_of(one)
    return tuple(cell)


def _foreign_cell(values: dict[str, Any]) -> tuple[Any, ...]:
    kind = values["kernel_regularizer.type"]
    regularizer = None if kind is None else Regularizer(kind, values.get(f"kernel_regularizer.{kind}") or 0.0)
    plain = {name: values[name] for name in AXES if name in values}
    optimizer = (values["optimizer"], values["momentum"])
    return tuple({**plain, "kernel_regularizer": regularizer, "optimizer": optimizer}[axis] for axis in AXES)


Cube.space = sweeps.Space(AXES, _DEFAULTS, _from_cell, _to_cell)


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
#: The published sweep that each flag column tells of, in their order.
FLAGS: Final = dict(zip(FLAG_COLUMNS, PUBLISHED, strict=True))


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


def experiment_topology(spec: ExperimentSpec) -> Topology | None:
    """Return the topology of an experiment, or None where none is within 20 % of its size."""
    info = info_of(spec)
    topology = closest_topology(spec.shape, spec.size, spec.depth, info.inputs, info.outputs)
    return topology if is_feasible(topology, spec.size) else None


#: The ids of the published experiments.
FIXED_IDS: Final = sweeps.FixedIds([cube for sweep in PUBLISHED.values() for cube in sweep.cubes])
