"""The experiments and runs of any study as values: their parameters and their identity.

A study declares its hyperparameters as the fields of a subclass of `OwnExperiment`. An experiment of another task,
which the study can keep and summarise but not train, is a `ForeignExperiment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Protocol, Self

import msgspec

from butter_etl.studies.identity import Value, run_id, run_seed, to_json

#: The keys that a run's command holds beside those of its experiment's canonical JSON.
COMMAND_KEYS = ("batch", "given", "repetition", "seed")


class Experiment(Protocol):
    """One setting of every hyperparameter, the seed left out. Equal ones have equal canonical JSON."""

    @property
    def is_own(self) -> bool:
        """Tell whether the study can train it."""
        ...

    @property
    def task(self) -> str:
        """Return what makes its runs."""
        ...

    def parameters(self) -> dict[str, Value]:
        """Return its parameter columns, by name."""
        ...

    def canonical_json(self) -> str:
        """Return its identity, as text."""
        ...

    def describe(self) -> str:
        """Return a short name for people: what differs most, first."""
        ...


class OwnExperiment(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True, omit_defaults=True):
    """An experiment that its study can train; a subclass declares the hyperparameters as its fields.

    Floats are canonical for the width of their column. ``study`` is None where canonical JSON does not name it.
    """

    study: ClassVar[str | None] = None
    task: ClassVar[str]
    task_version: ClassVar[int]
    is_own: ClassVar[bool] = True

    def parameters(self) -> dict[str, Value]:
        """Return the parameter columns, by name."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def canonical(self) -> dict[str, Value]:
        """Return the keys and values of the canonical JSON."""
        named = {} if self.study is None else {"study": self.study}
        return {**self.parameters(), **named, "task": self.task, "task_version": self.task_version}

    @classmethod
    def of_canonical(cls, values: Mapping[str, Any]) -> Self:
        """Return the experiment of parsed canonical JSON; raise KeyError, TypeError or ValueError for another's."""
        return msgspec.convert({name: values[name] for name in cls.__struct_fields__}, cls)

    def canonical_json(self) -> str:
        """Return the identity of the experiment, as text."""
        return to_json(self.canonical())

    def describe(self) -> str:
        """Return a short name for people."""
        return " ".join(f"{name} {value}" for name, value in self.parameters().items() if value is not None)


class ForeignExperiment(msgspec.Struct, frozen=True, cache_hash=True):
    """An experiment of another task, or of another major version of the study's own, as its rows describe it.

    ``values`` are those of the study's parameters, which ``names`` names, floats canonical; ``label`` is for people.
    ``task_version`` is part of the identity for versions of the study's own task only: other tasks count revisions by
    it, within an experiment. ``study`` is None where canonical JSON does not name it.
    """

    task: str
    task_version: int | None
    names: tuple[str, ...]
    values: tuple[Value, ...]
    label: str
    study: str | None = None
    is_own: ClassVar[bool] = False

    def parameters(self) -> dict[str, Value]:
        """Return the parameter columns, by name."""
        return dict(zip(self.names, self.values, strict=True))

    def canonical_json(self) -> str:
        """Return the identity of the experiment, as text."""
        named = {} if self.study is None else {"study": self.study}
        return to_json({**self.parameters(), **named, "task": self.task, "task_version": self.task_version})

    def describe(self) -> str:
        """Return a short name for people: what differs most, first."""
        return f"{self.label} of {self.task}"


class RunSpec(msgspec.Struct, frozen=True):
    """One repetition of an experiment, counted from 0. ``given`` is what was proposed for it, as JSON, if anything."""

    experiment: OwnExperiment
    repetition: int
    given: str | None = None

    @property
    def run_id(self) -> str:
        """Return the UUIDv5 (RFC 4122) of the canonical JSON and the repetition number."""
        return run_id(self.experiment.canonical_json(), self.repetition)

    @property
    def seed(self) -> int:
        """Return the top 63 bits of the same SHA-1: a non-negative int64 that keys all random streams of the run."""
        return run_seed(self.experiment.canonical_json(), self.repetition)

    def command(self, batch: str) -> str:
        """Return the whole task as JSON: the canonical JSON, and `batch`, `repetition`, `seed` and `given`."""
        extra: dict[str, Value] = {"batch": batch, "repetition": self.repetition, "seed": self.seed}
        if self.given is not None:
            extra["given"] = self.given
        return to_json({**self.experiment.canonical(), **extra})


def run_ids(experiment: Experiment, repetitions: Iterable[int]) -> list[str]:
    """Return the `run_id` of each repetition of an experiment."""
    text = experiment.canonical_json()
    return [run_id(text, repetition) for repetition in repetitions]
