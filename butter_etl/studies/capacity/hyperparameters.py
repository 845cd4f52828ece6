"""The hyperparameters of trials: what each may be, by its published name, and how they are drawn.

`dimensions` declares those of a cell. A number between 0 and 1 for each makes a set of hyperparameters (`decode`), and
the other way round (`encode`): so they are drawn, and so a search looks at them. Keys are those of the published
example; what it does not show is called in its manner.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import GATES, Stream, words
from butter_etl.errors import SpecError, suggestion
from butter_etl.studies.capacity.experiments import SearchCell
from butter_etl.studies.identity import float_text, quoted

#: A value of a hyperparameter, as published: a text or a number.
HyperValue = str | int | float
Hparams = Mapping[str, HyperValue]
#: Numbers are rounded to so many digits: the last bits of powers differ from machine to machine.
_DIGITS: Final = 12
#: The random words of a trial: some that are drawn once, then some for each gate. They keep their places.
_GATE_WORDS: Final = 4
_ONCE: Final = (
    "nonlinearity",
    "recurrent_matrix_init_type",
    "recurrent_bias_init_type",
    "forget_gate_bias_hack",
    "forget_gate_bias_hack_y",
    "forget_gate_bias_hack_h",
    "train_steps",
    "optimizer",
    "lr_init",
    "lr_decay_rate",
    "optimizer_logit_momentum",
    "gradient_clip_val",
    "l2_decay",
    "dataset_size",
    "input_every_step",
    "compute_steps",
)
_OF_GATES: Final = ("recurrent_matrix_scale", "input_scale", "recurrent_bias_scale")
_GATES_FROM: Final = 32

IDENTITY: Final = "identity"
MATRIX_TYPE: Final = "recurrent_matrix_init_type"


@dataclass(frozen=True)
class Range:
    """What a hyperparameter is drawn from. ``evidence`` is ``published``, ``inferred``, or ``chosen``.

    ``log`` numbers are uniform in their logarithms, ``uniform`` ones as they are; ``whole`` and ``log whole`` ones are
    such numbers, rounded. Both ends are part of a range. ``choices`` are as likely as each other.
    """

    kind: Literal["log", "uniform", "whole", "log whole", "choices"]
    low: float = 0.0
    high: float = 0.0
    choices: tuple[HyperValue, ...] = ()
    evidence: str = "published"


#: What hyperparameters are drawn from, by their published keys; those of gates have a suffix, ``_c`` say.
RANGES: Final[Mapping[str, Range]] = {
    "nonlinearity": Range("choices", choices=("relu", "tanh")),
    "recurrent_matrix_init_type": Range("choices", choices=(IDENTITY, "normal", "orthogonal")),
    "recurrent_matrix_scale": Range("log", 0.01, 2.0),
    "input_scale": Range("log", 0.001, 2.0),
    "recurrent_bias_init_type": Range("choices", choices=("delta", "normal")),
    "recurrent_bias_scale": Range("uniform", -2.0, 2.0),
    "forget_gate_bias_hack": Range("uniform", 0.0, 6.0),
    "train_steps": Range("log whole", evidence="published ends, logarithms inferred"),
    "optimizer": Range("choices", choices=("ADAM", "Momentum", "RMSProp", "SGD")),
    "lr_init": Range("log", 1e-4, 1e-1),
    "lr_decay_rate": Range("log", 1e-3, 1.0),
    "optimizer_logit_momentum": Range("uniform", 1.0, 7.0),
    "gradient_clip_val": Range("log", 1.0, 100.0),
    "l2_decay": Range("log", 1e-8, 1e-3),
    "dataset_size": Range("log whole", 0.1, 10.0, evidence="published ends, by parameter; logarithms inferred"),
    "input_every_step": Range("choices", choices=(0, 1)),
    "compute_steps": Range("whole", 1, 6),
}


@dataclass(frozen=True)
class Dimension:
    """A hyperparameter of a cell: its key, its range, and the place of its random word.

    Unless ``unless`` is None, it is none where the hyperparameter of that key has that value.
    """

    key: str
    range: Range
    word: int
    unless: tuple[str, HyperValue] | None = None

    def at(self, place: float) -> HyperValue:
        """Return the value at a place between 0 and 1."""
        low, high = self.range.low, self.range.high
        match self.range.kind:
            case "choices":
                return self.range.choices[min(int(place * len(self.range.choices)), len(self.range.choices) - 1)]
            case "whole":
                return min(int(low + place * (high - low + 1)), int(high))
            case "log":
                return _rounded(math.exp(math.log(low) + place * (math.log(high) - math.log(low))), low, high)
            case "log whole":
                power = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
                return int(min(max(round(power), low), high))
            case _:
                return _rounded(low + place * (high - low), low, high)

    def place_of(self, value: HyperValue) -> float:
        """Return the place between 0 and 1 of a value: of choices, and of whole numbers, the middle of theirs."""
        low, high = self.range.low, self.range.high
        if self.range.kind == "choices":
            return (self.range.choices.index(value) + 0.5) / len(self.range.choices)
        number = float(value)
        if self.range.kind == "whole":
            return (number - low + 0.5) / (high - low + 1)
        if self.range.kind == "uniform":
            return _within((number - low) / (high - low))
        return _within(math.log(number / low) / math.log(high / low)) if high > low else 0.5


def _rounded(value: float, low: float, high: float) -> float:
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)


def _within(place: float) -> float:
    return min(max(place, 0.0), 1.0)


@dataclass(frozen=True)
class Fixed:
    """A hyperparameter that all trials of an architecture have."""

    key: str
    value: HyperValue


@lru_cache(maxsize=512)
def dimensions(cell: SearchCell, num_params: int) -> tuple[Dimension | Fixed, ...]:
    """Return the hyperparameters of a cell whose networks have so many parameters, in the order of their words."""
    found: list[Dimension | Fixed] = [*_of_networks(cell), *_of_gates(cell), *_of_training(cell)]
    if cell.task_type == "per_cap":
        share = RANGES["dataset_size"]
        most = 2 ** min(cell.input_size or 0, 40)
        low = min(max(1, math.ceil(share.low * num_params)), most)
        high = min(max(low, math.floor(share.high * num_params)), most)
        found.append(_once("dataset_size", Range(share.kind, low, high)))
        found.append(_once("input_every_step", RANGES["input_every_step"]))
    if cell.task_type == "arithmetic":
        found.append(_once("compute_steps", RANGES["compute_steps"]))
    return tuple(found)


def _once(key: str, drawn_from: Range | None = None) -> Dimension:
    return Dimension(key, drawn_from or RANGES[key], _ONCE.index(key))


def _of_networks(cell: SearchCell) -> Sequence[Dimension | Fixed]:
    if cell.architecture == "irnn":
        fixed = {"nonlinearity": "relu", MATRIX_TYPE: IDENTITY, "recurrent_bias_init_type": "delta"}
        return [Fixed(key, value) for key, value in fixed.items()]
    matrices = RANGES[MATRIX_TYPE]
    if cell.architecture == "rnn":
        matrices = Range("choices", choices=tuple(one for one in matrices.choices if one != IDENTITY))
    found: list[Dimension | Fixed] = [_once(MATRIX_TYPE, matrices), _once("recurrent_bias_init_type")]
    if cell.architecture != "+rnn":  # which has one of each
        found.append(_once("nonlinearity"))
    if cell.architecture == "+rnn":
        hack = RANGES["forget_gate_bias_hack"]
        found += [_once(f"forget_gate_bias_hack_{gate}", hack) for gate in ("y", "h")]
    elif cell.architecture != "rnn":
        found.append(_once("forget_gate_bias_hack"))
    return found


def _of_gates(cell: SearchCell) -> Sequence[Dimension | Fixed]:
    found: list[Dimension | Fixed] = []
    for number, gate in enumerate(gates_of(cell)):
        for place, key in enumerate(_OF_GATES):
            word = _GATES_FROM + _GATE_WORDS * number + place
            if cell.architecture == "irnn" and key != "input_scale":
                if key == "recurrent_bias_scale":
                    found.append(Fixed(f"{key}_{gate}", 0.0))
                continue
            unless = (MATRIX_TYPE, IDENTITY) if key == "recurrent_matrix_scale" else None
            found.append(Dimension(f"{key}_{gate}", RANGES[key], word, unless))
    return found


def _of_training(cell: SearchCell) -> Sequence[Dimension]:
    steps = Range("log whole", cell.min_train_steps, cell.max_train_steps)
    keys = ("optimizer", "lr_init", "lr_decay_rate", "optimizer_logit_momentum", "gradient_clip_val", "l2_decay")
    return [_once("train_steps", steps), *map(_once, keys)]


def gates_of(cell: SearchCell) -> tuple[str, ...]:
    """Return the gates of a cell's architecture."""
    architecture: Any = cell.architecture
    return GATES[architecture]


def free(cell: SearchCell, num_params: int) -> tuple[Dimension, ...]:
    """Return the hyperparameters of a cell that trials differ in."""
    return tuple(one for one in dimensions(cell, num_params) if isinstance(one, Dimension))


def decode(cell: SearchCell, num_params: int, places: Mapping[str, float]) -> dict[str, HyperValue]:
    """Return the hyperparameters at these places, by key, each between 0 and 1."""
    found: dict[str, HyperValue] = {}
    for one in dimensions(cell, num_params):
        if isinstance(one, Fixed):
            found[one.key] = one.value
        elif one.unless is None or found.get(one.unless[0]) != one.unless[1]:
            found[one.key] = one.at(places[one.key])
    return found


def encode(cell: SearchCell, num_params: int, hparams: Hparams) -> dict[str, float]:
    """Return the places of hyperparameters; those that are not there for others' sake are in the middle."""
    return {one.key: one.place_of(hparams[one.key]) if one.key in hparams else 0.5 for one in free(cell, num_params)}


def draw(cell: SearchCell, num_params: int, seed: int) -> dict[str, HyperValue]:
    """Return the hyperparameters of the trial of a seed, which the cell and the trial's number determine.

    Each has a random word of its own, so that another range of one changes no other.
    """
    return decode(cell, num_params, drawn_places(cell, num_params, seed))


def drawn_places(cell: SearchCell, num_params: int, seed: int) -> dict[str, float]:
    """Return the places that the hyperparameters of a seed are drawn at."""
    drawn = _uniforms(seed, _GATES_FROM + _GATE_WORDS * len(gates_of(cell)))
    return {one.key: float(drawn[one.word]) for one in free(cell, num_params)}


def _uniforms(seed: int, count: int) -> NDArray[np.float64]:
    return (words(seed, Stream.HYPERPARAMETERS, count).astype(np.float64) + 0.5) * 2.0**-32


def hparams_text(hparams: Mapping[str, HyperValue | None]) -> str:
    """Return hyperparameters as canonical JSON: keys sorted, floats as the shortest decimals with a point.

    So whole numbers stay whole, and others floats, when it is read.
    """
    return "{" + ",".join([f"{quoted(key)}:{_spelled(hparams[key])}" for key in sorted(hparams)]) + "}"


def _spelled(value: HyperValue | None) -> str:
    if isinstance(value, float):
        text = float_text(value, "float64")
        return text if "." in text or "e" in text else f"{text}.0"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def parse_hparams(text: str) -> dict[str, HyperValue]:
    """Return the hyperparameters of a JSON object; raise SpecError for any other text."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise SpecError(f"hyperparameters are a JSON object, not {text[:200]!r}") from error
    if not isinstance(found, dict):
        raise SpecError(f"hyperparameters are a JSON object, not {text[:200]!r}")
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SpecError(f"{key}: {value!r} is neither a text nor a number")
    return found


def check_hparams(cell: SearchCell, num_params: int, hparams: Hparams) -> None:
    """Raise SpecError unless hyperparameters have the keys of a cell, and values that they can have.

    Numbers need not be in the ranges that trials draw from, as long as they mean something.
    """
    wanted = {one.key: one for one in dimensions(cell, num_params)}
    for key in hparams:
        if key not in wanted:
            raise SpecError(f"unknown hyperparameter {key!r}{suggestion(key, wanted)}; known: {', '.join(wanted)}")
        one = wanted[key]
        if isinstance(one, Dimension) and one.unless is not None and hparams.get(one.unless[0]) == one.unless[1]:
            raise SpecError(f"{key}: there is none where {one.unless[0]} is {one.unless[1]}; leave it out")
    for key, one in wanted.items():
        if key not in hparams:
            if isinstance(one, Dimension) and one.unless is not None and hparams.get(one.unless[0]) == one.unless[1]:
                continue
            raise SpecError(f"the hyperparameter {key!r} is missing; all are to be given: {', '.join(wanted)}")
        _check_value(one, hparams[key])


_WHOLE: Final = ("whole", "log whole")
#: What numbers must be above, by key: those that would make no sense else.
_ABOVE_ZERO: Final = ("lr_init", "lr_decay_rate", "gradient_clip_val", "train_steps", "dataset_size", "compute_steps")


def _check_value(one: Dimension | Fixed, value: HyperValue) -> None:
    if isinstance(one, Fixed):
        if value != one.value:
            raise SpecError(f"{one.key}: it is {one.value!r} in this architecture, not {value!r}")
        return
    kind = one.range.kind
    if kind == "choices":
        if value not in one.range.choices:
            hint = suggestion(str(value), list(map(str, one.range.choices)))
            raise SpecError(f"{one.key}: unknown {value!r}{hint}; known: {', '.join(map(str, one.range.choices))}")
        return
    is_number = isinstance(value, int) or (isinstance(value, float) and kind not in _WHOLE)
    if not is_number or not math.isfinite(float(value)):
        raise SpecError(f"{one.key}: {value!r} is no {'whole ' if kind in _WHOLE else ''}number")
    if one.key in _ABOVE_ZERO and not float(value) > 0:
        raise SpecError(f"{one.key}: {value!r} is not above 0")
    if one.key == "l2_decay" and float(value) < 0:
        raise SpecError(f"{one.key}: {value!r} is below 0")
    if one.key in ("compute_steps", "train_steps") and float(value) > (6 if one.key == "compute_steps" else 2**31):
        raise SpecError(f"{one.key}: {value!r} is too many")
