"""The experiments and runs of BUTTER as values: their parameters and their identity.

Every hyperparameter is a field of `ExperimentSpec`, and its `Axis` there says how it may vary. A field that comes later
has a default, which canonical JSON leaves out: so earlier experiments keep their identity. An experiment of another
task is a `ForeignSpec`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from butter_etl.engines import OPTIMIZERS, Loss, OptimizerName
from butter_etl.errors import SpecError
from butter_etl.studies.axes import Above, Axis, Between, OneOf, hyperparameters
from butter_etl.studies.butter.columns import FLOAT_PARAMETERS, PARAMETERS
from butter_etl.studies.identity import Value, canonical_float, run_id, run_seed, to_json

TASK = "butter_etl.train"
#: The major version of the package: runs of different major versions are different experiments.
TASK_VERSION = 1
TEST_SPLIT = 0.2
TEST_SPLIT_METHOD = "shuffled_train_test_split"
HIDDEN_ACTIVATION = "relu"
#: uint8 counts in the summary frame hold no more runs of one experiment.
MAX_REPETITIONS = 255

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

#: The keys that a run's command holds beside those of its experiment's canonical JSON.
_COMMAND_KEYS = ("batch", "repetition", "seed")


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

    ``sha256`` is that of `butter_etl.studies.butter.own_data.content_sha256`, in hexadecimal; ``inputs`` counts encoded
    columns.
    """

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    rows: Annotated[int, msgspec.Meta(ge=1)]
    inputs: Annotated[int, msgspec.Meta(ge=1)]


class ExperimentSpec(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True, omit_defaults=True):
    """One setting of every hyperparameter, the seed left out. Made by
    `butter_etl.studies.butter.sweeps.make_experiment`.

    Floats are canonical (see `canonical_float`). ``loss``, ``outputs`` and ``output_activation`` follow from the data
    set and are part of the identity. So is ``own``, the content of a data set that does not come with the package;
    None for those that do.
    """

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

    def canonical_json(self) -> str:
        """Return the identity of the experiment, as text."""
        return to_json(self.canonical())

    def describe(self) -> str:
        """Return a short name for people: what differs most, first."""
        return f"{self.dataset} {self.shape} size {self.size} depth {self.depth}"


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


class ForeignSpec(msgspec.Struct, frozen=True, cache_hash=True):
    """An experiment of another task, or of another major version of ours, as its rows describe it.

    ``values`` are those of `PARAMETERS`, in that order, floats canonical. ``task_version`` is part of the identity for
    versions of our own task only: other tasks count revisions by it, within an experiment.
    """

    task: str
    task_version: int | None
    values: tuple[Value, ...]

    def parameters(self) -> dict[str, Value]:
        """Return the parameter columns of both frames, but for `batch` and `task`, by column name."""
        return dict(zip(PARAMETERS, self.values, strict=True))

    def canonical_json(self) -> str:
        """Return the identity of the experiment, as text."""
        return to_json({**self.parameters(), "task": self.task, "task_version": self.task_version})

    def describe(self) -> str:
        """Return a short name for people: what differs most, first."""
        values = self.parameters()
        return f"{values['dataset']} {values['shape']} size {values['size']} depth {values['depth']} of {self.task}"


Experiment = ExperimentSpec | ForeignSpec


def is_own(task: object, task_version: object) -> bool:
    """Tell whether rows of this task are what this version of the package trains."""
    return task == TASK and task_version == TASK_VERSION


def foreign_experiment(task: str, task_version: int | None, parameters: Mapping[str, Value]) -> ForeignSpec:
    """Return the experiment of a row that is not `is_own`; raise SpecError for numbers that are not finite."""
    version = task_version if task == TASK else None
    return ForeignSpec(task, version, tuple(_canonical_value(name, parameters[name]) for name in PARAMETERS))


def _canonical_value(name: str, value: Value) -> Value:
    if name not in FLOAT_PARAMETERS or value is None:
        return value
    if isinstance(value, str):
        raise SpecError(f"{name}: {value!r} is not a number")
    return canonical_float(value, name)


def parse_canonical(text: str) -> ExperimentSpec:
    """Return the experiment of a canonical JSON made by this package; raise SpecError for any other."""
    try:
        values = json.loads(text)
        kind = values["kernel_regularizer.type"]
        factor = values[f"kernel_regularizer.{kind}"] if kind else None
        names = [name for name in ExperimentSpec.__struct_fields__ if name != "own"]
        raw = {name: values[name] for name in names if name in values or name not in _LATER}
        raw["kernel_regularizer"] = {"type": kind, "factor": factor} if kind else None
        if "data.sha256" in values:
            raw["own"] = {name: values[f"data.{name}"] for name in OwnData.__struct_fields__}
        spec = msgspec.convert(raw, ExperimentSpec)
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(f"not the canonical JSON of an experiment ({error}): {text[:200]}") from error
    if spec.canonical_json() != text:
        raise SpecError(f"the canonical JSON has parameters that this version does not know: {text[:200]}")
    return spec


def parse_experiment(text: str) -> Experiment:
    """Return the experiment of any canonical JSON that a store may hold; raise SpecError for other text."""
    try:
        values: dict[str, Value] = json.loads(text)
        task, version = values["task"], values["task_version"]
        if is_own(task, version):
            return parse_canonical(text)
        spec = foreign_experiment(str(task), None if version is None else int(version), values)
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(f"not the canonical JSON of an experiment ({error}): {text[:200]}") from error
    if spec.canonical_json() != text:
        raise SpecError(f"the canonical JSON has parameters that this version does not know: {text[:200]}")
    return spec


def parse_command(text: str) -> ExperimentSpec:
    """Return the experiment of a run's `command` made by this package; raise SpecError for any other."""
    try:
        values: dict[str, Value] = json.loads(text)
        canonical = {key: value for key, value in values.items() if key not in _COMMAND_KEYS}
    except (ValueError, AttributeError) as error:
        raise SpecError(f"not the command of a run ({error}): {text[:200]}") from error
    return parse_canonical(to_json(canonical))


class RunSpec(msgspec.Struct, frozen=True):
    """One repetition of an experiment, counted from 0."""

    experiment: ExperimentSpec
    repetition: int

    @property
    def run_id(self) -> str:
        """Return the UUIDv5 (RFC 4122) of the canonical JSON and the repetition number."""
        return run_id(self.experiment.canonical_json(), self.repetition)

    @property
    def seed(self) -> int:
        """Return the top 63 bits of the same SHA-1: a non-negative int64 that keys all random streams of the run."""
        return run_seed(self.experiment.canonical_json(), self.repetition)

    def command(self, batch: str) -> str:
        """Return the whole task as JSON: the canonical JSON with `batch`, `repetition` and `seed` beside its keys."""
        extra: dict[str, Value] = {"batch": batch, "repetition": self.repetition, "seed": self.seed}
        return to_json({**self.experiment.canonical(), **extra})


def run_ids(experiment: ExperimentSpec, repetitions: Iterable[int]) -> list[str]:
    """Return the `run_id` of each repetition of an experiment."""
    text = experiment.canonical_json()
    return [run_id(text, repetition) for repetition in repetitions]
