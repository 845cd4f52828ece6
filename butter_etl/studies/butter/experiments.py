"""The experiments and runs of BUTTER as values: their parameters and their identity.

Every hyperparameter is a field of `ExperimentSpec`, and its `Axis` there says how it may vary. A field that comes later
has a default, which canonical JSON leaves out: so earlier experiments keep their identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import msgspec

from butter_etl.engines import OPTIMIZERS, Loss, OptimizerName
from butter_etl.errors import SpecError
from butter_etl.studies.axes import Above, Axis, Between, OneOf, hyperparameters
from butter_etl.studies.butter.columns import PARAMETERS, REDUCTION
from butter_etl.studies.experiments import OwnExperiment
from butter_etl.studies.identity import Value, canonical_float

TASK = "butter_etl.train"
#: The major version of the package: runs of different major versions are different experiments.
TASK_VERSION = 1
TEST_SPLIT = 0.2
TEST_SPLIT_METHOD = "shuffled_train_test_split"
HIDDEN_ACTIVATION = "relu"
#: uint8 counts in the summary frame hold no more runs of one experiment.
MAX_REPETITIONS = REDUCTION.max_runs

SHAPES = (
    "rectangle",
    "trapezoid",
    "exponential",
    "wide_first_2x",
    "wide_first_4x",
    "wide_first_8x",
    "wide_first_16x",
    "rectangle_residual",
)
_UINT32 = 2**32 - 1


class Regularizer(msgspec.Struct, frozen=True):
    """A penalty on the kernels of all layers: ``factor`` times the sum of |w| (l1) or w^2 (l2)."""

    type: Literal["l1", "l2"]
    factor: float


def read_penalty(entry: dict[str, float] | None, place: str) -> Regularizer | None:
    """Return the penalty that an entry of a sweep file stands for; raise SpecError for any other."""
    if entry is None:
        return None
    if len(entry) != 1 or not set(entry) <= {"l1", "l2"}:
        raise SpecError(f"{place}: {entry!r} must be null, {{l1: number}} or {{l2: number}}")
    ((kind, factor),) = entry.items()
    return Regularizer("l1" if kind == "l1" else "l2", canonical_float(factor, place))


def _check_penalty(name: str, penalty: Regularizer) -> None:
    if not penalty.factor > 0:
        raise SpecError(f"{name}: {penalty.factor!r} is not above 0; write null for none")


class OwnData(msgspec.Struct, frozen=True):
    """The identity of a user's own data set in an experiment: its encoded content, by hash and extent.

    ``sha256`` is that of `butter_etl.studies.butter.datasets.content_sha256`, in hexadecimal; ``inputs`` counts encoded
    columns.
    """

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    rows: Annotated[int, msgspec.Meta(ge=1)]
    inputs: Annotated[int, msgspec.Meta(ge=1)]


class ExperimentSpec(OwnExperiment, frozen=True, kw_only=True, cache_hash=True, omit_defaults=True):
    """One setting of every hyperparameter, the seed left out. Made by
    `butter_etl.studies.butter.sweeps.make_experiment`.

    Floats are canonical (see `canonical_float`). ``loss``, ``outputs`` and ``output_activation`` follow from the data
    set and are part of the identity. So is ``own``, the content of a data set that does not come with the package;
    None for those that do.
    """

    task: ClassVar[str] = TASK
    task_version: ClassVar[int] = TASK_VERSION

    dataset: Annotated[str, Axis()]
    shape: Annotated[str, Axis("rectangle", OneOf(SHAPES))]
    size: Annotated[int, Axis(check=Between(2, 2**40))]
    depth: Annotated[int, Axis(check=Between(2, 255))]
    learning_rate: Annotated[float, Axis(0.0001, Above(0))]
    batch_size: Annotated[int, Axis(256, Between(1, _UINT32))]
    kernel_regularizer: Annotated[
        Regularizer | None, Axis(None, _check_penalty, spelled=dict[str, float] | None, read=read_penalty)
    ]
    label_noise: Annotated[float, Axis(0.0, Between(0, 1))]
    epochs: Annotated[int, Axis(3000, Between(1, _UINT32))]
    optimizer: Annotated[OptimizerName, Axis("adam", OneOf(OPTIMIZERS), spelled=str)]
    momentum: Annotated[float | None, Axis(None, Between(0, 0.999999), joined="optimizer")]
    loss: Loss
    outputs: int
    output_activation: str
    own: OwnData | None = None

    def parameters(self) -> dict[str, Value]:
        """Return the parameter columns of both frames, but for `batch` and `task`, by column name."""
        values = dict(_CONSTANTS)
        for name in _FIELDS:
            values[name] = getattr(self, name)
        if (penalty := self.kernel_regularizer) is not None:
            values["kernel_regularizer.type"] = penalty.type
            values[f"kernel_regularizer.{penalty.type}"] = penalty.factor
        return values

    def canonical(self) -> dict[str, Value]:
        """Return the keys and values of the canonical JSON."""
        own, values = self.own, self.parameters()
        for name, default in _LATER.items():
            if values[name] == default:
                del values[name]
        return {
            **values,
            **({f"data.{name}": getattr(own, name) for name in OwnData.__struct_fields__} if own else {}),
            "activity_regularizer": None,
            "bias_regularizer": None,
            "loss": self.loss,
            "outputs": self.outputs,
            "run_config.shuffle": True,
            "task": TASK,
            "task_version": TASK_VERSION,
        }

    @classmethod
    def of_canonical(cls, values: Mapping[str, Any]) -> Self:
        """Return the experiment of parsed canonical JSON; raise KeyError, TypeError or ValueError for another's."""
        kind = values["kernel_regularizer.type"]
        factor = values[f"kernel_regularizer.{kind}"] if kind else None
        names = [name for name in cls.__struct_fields__ if name != "own"]
        raw = {name: values[name] for name in names if name in values or name not in _LATER}
        raw["kernel_regularizer"] = {"type": kind, "factor": factor} if kind else None
        if "data.sha256" in values:
            raw["own"] = {name: values[f"data.{name}"] for name in OwnData.__struct_fields__}
        return msgspec.convert(raw, cls)

    def describe(self) -> str:
        """Return a short name for people: what differs most, first."""
        return label(self.parameters())


def label(parameters: Mapping[str, Value]) -> str:
    """Return a short name for people of the experiment that has these parameters."""
    return "{dataset} {shape} size {size} depth {depth}".format_map(parameters)


#: The hyperparameters, by name.
HYPERPARAMETERS: Final = hyperparameters(ExperimentSpec)
#: The hyperparameters that every run has; penalty and momentum, which may be null, are not among them.
VARIED: Final = tuple(name for name, one in HYPERPARAMETERS.items() if not one.is_nullable)
#: The names that hyperparameters may have, of those whose values are names.
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    name: one.axis.check.choices for name, one in HYPERPARAMETERS.items() if isinstance(one.axis.check, OneOf)
}

#: Every parameter in the order of the columns; the constants among them, and null for the others.
_CONSTANTS: Final[dict[str, Value]] = {
    **dict.fromkeys(PARAMETERS),
    "activation": HIDDEN_ACTIVATION,
    "input_activation": HIDDEN_ACTIVATION,
    "test_split_method": TEST_SPLIT_METHOD,
    "test_split": TEST_SPLIT,
}
#: The parameters that are fields of an experiment; a penalty has three columns of its own.
_FIELDS = tuple(
    name for name in PARAMETERS if name in ExperimentSpec.__struct_fields__ and name != "kernel_regularizer"
)
#: The parameters that came later, with the values that experiments of before have.
_LATER: Final[Mapping[str, Any]] = {
    field.name: field.default
    for field in msgspec.structs.fields(ExperimentSpec)
    if field.name in _FIELDS and field.default is not msgspec.NODEFAULT
}
