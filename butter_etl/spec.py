"""Experiments and runs as values, and their identity.

Two experiments are the same if and only if their canonical JSON is the same text. Everything else that names a run
(`run_id`, `seed`) is derived from that text and the repetition number.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np

from butter_etl.errors import SpecError

TASK = "butter_etl.train"
#: The major version of the package: runs of different major versions are different experiments.
TASK_VERSION = 1
TEST_SPLIT = 0.2
TEST_SPLIT_METHOD = "shuffled_train_test_split"
HIDDEN_ACTIVATION = "relu"
#: The most runs of one experiment: the summary frame counts them in uint8.
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
OptimizerName = Literal["adam", "RMSprop", "SGD"]
Loss = Literal["categorical_crossentropy", "binary_crossentropy", "mean_squared_error"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
MAX_SIZE = 2**40

_RUN_NAMESPACE = uuid.UUID("8b7f5d1e-64a3-5c0f-9a55-2f4f3e0c7d11")

#: The parameters that are numbers with a fraction.
_FLOATS = ("kernel_regularizer.l1", "kernel_regularizer.l2", "label_noise", "learning_rate", "test_split", "momentum")

#: The keys that a run's command holds beside those of its experiment's canonical JSON.
_COMMAND_KEYS = ("batch", "repetition", "seed")

Value = str | int | float | bool | None


@lru_cache(maxsize=4096)
def float_text(value: float) -> str:
    """Return the shortest decimal that rounds to ``value`` as float32, without exponent or trailing zeros: `0.0001`.

    Every writer of canonical JSON and of hive paths uses this one function, so a number has one spelling.
    """
    text: str = np.format_float_positional(np.float32(value), unique=True, trim="-")
    return "0" if text == "-0" else text


def canonical_float(value: float, name: str = "value") -> float:
    """Return ``value`` as the float64 that `float_text` spells; raise SpecError if it is not finite in float32."""
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(np.float32(value))
    if not is_finite:
        raise SpecError(f"{name}: {value!r} is not a finite number")
    return float(float_text(value))


class Regularizer(msgspec.Struct, frozen=True):
    """A penalty on the kernels of all layers: ``factor`` times the sum of |w| (l1) or w^2 (l2)."""

    type: Literal["l1", "l2"]
    factor: float


class OwnData(msgspec.Struct, frozen=True):
    """The identity of a user's own data set in an experiment: its encoded content, by hash and extent.

    ``sha256`` is that of `butter_etl.own_data.content_sha256`, in hexadecimal; ``inputs`` counts encoded columns.
    """

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    rows: Annotated[int, msgspec.Meta(ge=1)]
    inputs: Annotated[int, msgspec.Meta(ge=1)]


class ExperimentSpec(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True, omit_defaults=True):
    """One setting of every hyperparameter, the seed left out. Made by `butter_etl.sweeps.make_experiment`.

    Floats are canonical (see `canonical_float`). ``loss``, ``outputs`` and ``output_activation`` follow from the data
    set and are part of the identity. So is ``own``, the content of a data set that does not come with the package;
    None for those that do.
    """

    dataset: str
    shape: str
    size: int
    depth: int
    learning_rate: float
    batch_size: int
    kernel_regularizer: Regularizer | None
    label_noise: float
    epochs: int
    optimizer: OptimizerName
    momentum: float | None
    loss: Loss
    outputs: int
    output_activation: str
    own: OwnData | None = None

    def parameters(self) -> dict[str, Value]:
        """Return the parameter columns of both frames, but for `batch` and `task`, by column name."""
        regularizer = self.kernel_regularizer
        kind = regularizer.type if regularizer else None
        return {
            "activation": HIDDEN_ACTIVATION,
            "dataset": self.dataset,
            "early_stopping": None,
            "input_activation": HIDDEN_ACTIVATION,
            "kernel_regularizer": None,
            "kernel_regularizer.type": kind,
            "optimizer": self.optimizer,
            "output_activation": self.output_activation,
            "shape": self.shape,
            "test_split_method": TEST_SPLIT_METHOD,
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "depth": self.depth,
            "kernel_regularizer.l1": regularizer.factor if regularizer and kind == "l1" else None,
            "kernel_regularizer.l2": regularizer.factor if regularizer and kind == "l2" else None,
            "label_noise": self.label_noise,
            "learning_rate": self.learning_rate,
            "test_split": TEST_SPLIT,
            "size": self.size,
            "momentum": self.momentum,
        }

    def canonical(self) -> dict[str, Value]:
        """Return the keys and values of the canonical JSON."""
        own = self.own
        return {
            **self.parameters(),
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

#: The parameters that studies vary and that every run has; penalty and momentum, which may be null, are not among them.
VARIED = (
    "dataset",
    "shape",
    "size",
    "depth",
    "learning_rate",
    "batch_size",
    "label_noise",
    "epochs",
    "optimizer",
)
#: The parameter columns of both frames, but for `batch` and `task`, in the order of `ExperimentSpec.parameters`.
PARAMETERS = (
    "activation",
    "dataset",
    "early_stopping",
    "input_activation",
    "kernel_regularizer",
    "kernel_regularizer.type",
    "optimizer",
    "output_activation",
    "shape",
    "test_split_method",
    "batch_size",
    "epochs",
    "depth",
    "kernel_regularizer.l1",
    "kernel_regularizer.l2",
    "label_noise",
    "learning_rate",
    "test_split",
    "size",
    "momentum",
)


def is_own(task: object, task_version: object) -> bool:
    """Tell whether rows of this task are what this version of the package trains."""
    return task == TASK and task_version == TASK_VERSION


def foreign_experiment(task: str, task_version: int | None, parameters: Mapping[str, Value]) -> ForeignSpec:
    """Return the experiment of a row that is not `is_own`; raise SpecError for numbers that are not finite."""
    version = task_version if task == TASK else None
    return ForeignSpec(task, version, tuple(_canonical_value(name, parameters[name]) for name in PARAMETERS))


def _canonical_value(name: str, value: Value) -> Value:
    if name not in _FLOATS or value is None:
        return value
    if isinstance(value, str):
        raise SpecError(f"{name}: {value!r} is not a number")
    return canonical_float(value, name)


def to_json(values: Mapping[str, Value]) -> str:
    """Return compact JSON with sorted keys, floats as `float_text` spells them, nulls kept."""
    return "{" + ",".join([f"{quoted(key)}:{_json_value(values[key])}" for key in sorted(values)]) + "}"


def _json_value(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


@lru_cache(maxsize=4096)
def quoted(text: str) -> str:
    """Return a text as JSON spells it; cached, since the same few names and values are spelled millions of times."""
    return json.dumps(text)


def parse_canonical(text: str) -> ExperimentSpec:
    """Return the experiment of a canonical JSON made by this package; raise SpecError for any other."""
    try:
        values = json.loads(text)
        kind = values["kernel_regularizer.type"]
        factor = values[f"kernel_regularizer.{kind}"] if kind else None
        raw = {key: values[key] for key in ExperimentSpec.__struct_fields__ if key != "own"}
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

    def _digest(self) -> bytes:
        return _run_digest(self.experiment.canonical_json(), self.repetition)

    @property
    def run_id(self) -> str:
        """Return the UUIDv5 (RFC 4122) of the canonical JSON and the repetition number."""
        return _uuid5(self._digest())

    @property
    def seed(self) -> int:
        """Return the top 63 bits of the same SHA-1: a non-negative int64 that keys all random streams of the run."""
        return int.from_bytes(self._digest()[:8], "big") >> 1

    def command(self, batch: str) -> str:
        """Return the whole task as JSON: the canonical JSON with `batch`, `repetition` and `seed` beside its keys."""
        extra: dict[str, Value] = {"batch": batch, "repetition": self.repetition, "seed": self.seed}
        return to_json({**self.experiment.canonical(), **extra})


def run_ids(experiment: ExperimentSpec, repetitions: Iterable[int]) -> list[str]:
    """Return the `run_id` of each repetition of an experiment."""
    text = experiment.canonical_json()
    return [_uuid5(_run_digest(text, repetition)) for repetition in repetitions]


def _run_digest(canonical_json: str, repetition: int) -> bytes:
    name = f"{canonical_json}#{repetition}"
    return hashlib.sha1(_RUN_NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest()


def _uuid5(digest: bytes) -> str:
    return str(uuid.UUID(bytes=digest[:16], version=5))
