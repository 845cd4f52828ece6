"""The published records of trials: what a pickled array of them has, as columns, and columns as such an array.

A record is one training of one network, with the losses at its end. It says nothing of the seed, of batches, or of how
its hyperparameters were found. Trials that diverged have losses that are not finite.

`read_records` and `write_records` are inverse to each other up to how the same values are pickled; where a file has
something that would be written otherwise, `Records.respelled` says so.

Source of the format: https://github.com/jazcollins/cap-n-train-hps, its README.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from butter_etl.errors import SourceError, agreeing, counted
from butter_etl.studies.capacity.columns import DIVERGED_FROM
from butter_etl.studies.capacity.pickle_reading import read_columns, shown
from butter_etl.studies.capacity.pickle_writing import FieldType, write_columns

#: The fields of a record, in the published order, with the types that they are written in.
FIELDS: Final[Mapping[str, FieldType]] = {
    "architecture": "O",
    "eval_loss": "f8",
    "hparams": "O",
    "max_params": "i8",
    "n_layers": "i8",
    "num_params": "i8",
    "task_type": "O",
    "train_loss": "f8",
    "valid_loss": "f8",
    "hyper_iter": "i8",
}
LOSSES: Final = ("train_loss", "valid_loss", "eval_loss")
#: What is written for the losses of a trial that diverged.
INFEASIBLE: Final = math.inf
_LEAST, _MOST = -(2**63), 2**63 - 1

#: A hyperparameter's value; published ones are texts and numbers.
HyperValue = str | int | float | bool | None


class Records(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Trials as records tell them: a list of a value each for every field, and whether each one diverged.

    Whole numbers are int, losses float, which may not be finite. ``respelled`` says what would be written otherwise.
    """

    architecture: list[str]
    task_type: list[str]
    n_layers: list[int]
    max_params: list[int]
    num_params: list[int]
    hyper_iter: list[int]
    hparams: list[dict[str, HyperValue]]
    train_loss: list[float]
    valid_loss: list[float]
    eval_loss: list[float]
    infeasible: list[bool]
    respelled: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.architecture)


# --- values ------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"{_said(value)} is no text")
    return value


def _whole(least: int, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise ValueError(f"{_said(value)} is no whole number from {least} on")
    return value


def _size(value: Any) -> int:
    return _whole(1, value)


def _number_of_trial(value: Any) -> int:
    return _whole(0, value)


def _loss(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{_said(value)} is no number")
    try:
        return float(value)
    except OverflowError:
        return INFEASIBLE if value > 0 else -INFEASIBLE


def _hparams(value: Any) -> dict[str, HyperValue]:
    if not isinstance(value, dict):
        raise TypeError(f"{_said(value)} is no dictionary")
    for key, one in value.items():
        if not isinstance(one, str | int | float | bool | None):
            raise TypeError(f"has {_said(one)} for '{shown(key)}', which is neither a text nor a number")
        if isinstance(one, float) and not math.isfinite(one):
            raise ValueError(f"has {one} for '{shown(key)}', which is no finite number")
        if isinstance(one, int) and not _LEAST <= one <= _MOST:
            raise ValueError(f"has a number of more than 64 bits for '{shown(key)}'")
    return value


def _said(value: Any) -> str:
    """Return a value as a line can show it, or what kind of thing it is."""
    if isinstance(value, str):
        return f"'{shown(value)}'"
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        return "a number of more than 64 bits"
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "architecture": _text,
    "eval_loss": _loss,
    "hparams": _hparams,
    "max_params": _size,
    "n_layers": _size,
    "num_params": _size,
    "task_type": _text,
    "train_loss": _loss,
    "valid_loss": _loss,
    "hyper_iter": _number_of_trial,
}


# --- reading -----------------------------------------------------------------------------------------------------


def read_records(data: bytes) -> Records:
    """Return the trials of a pickled array of records, as many as it has.

    Fields may stand in any order and be of any width; texts may be objects or of a fixed width. Fields that no
    published record has are left out. Raises SourceError, one line, for all else: what `read_columns` refuses, fields
    that are missing, and values that no trial can have, with the record's number from 0.
    """
    columns = read_columns(data)
    if missing := [name for name in FIELDS if name not in columns]:
        raise SourceError(f"fields are missing: {', '.join(missing)}")
    read = {name: _column(name, columns[name]) for name in FIELDS}
    infeasible = [_is_infeasible(*losses) for losses in zip(*(read[name] for name in LOSSES), strict=True)]
    unknown = [name for name in columns if name not in FIELDS]
    respelled = tuple(_respelled(unknown, [read[name] for name in LOSSES], infeasible))
    return Records(**read, infeasible=infeasible, respelled=respelled)


def _column(name: str, values: Sequence[Any]) -> list[Any]:
    read, found = _READ[name], []
    try:
        for value in values:
            found.append(read(value))  # noqa: PERF401 - how far it came tells which record it is
    except (TypeError, ValueError) as error:
        raise SourceError(f"record {len(found)}: {name} {error}") from None
    return found


def _is_infeasible(*losses: float) -> bool:
    return not all(abs(loss) < DIVERGED_FROM for loss in losses)


def _respelled(unknown: Sequence[str], losses: Sequence[Sequence[float]], infeasible: Sequence[bool]) -> Iterator[str]:
    """Yield a line for each kind of thing that would be written otherwise."""
    if unknown:
        yield f"{agreeing(len(unknown), 'the field', 'the fields')} {', '.join(map(shown, unknown))} would be left out"
    others = [
        number
        for number, ended in enumerate(infeasible)
        if ended and any(column[number] != INFEASIBLE for column in losses)
    ]
    if others:
        more = f", and {counted(len(others) - 1, 'more record')}" if len(others) > 1 else ""
        yield f"record {others[0]} diverged; all its losses would be written as inf{more}"


# --- writing -----------------------------------------------------------------------------------------------------


def write_records(records: Records) -> bytes:
    """Return trials as a pickled array of the published fields, the same bytes for the same trials.

    The losses of those that diverged are infinite, never NaN. Hyperparameters stand in the order of their names.
    """
    plain = [records.hparams if name == "hparams" else getattr(records, name) for name in FIELDS]
    return write_columns(FIELDS, map(_record, zip(*plain, strict=True), records.infeasible), len(records))


class _Place(NamedTuple):
    """Where the losses and the hyperparameters stand in a record."""

    losses: tuple[int, ...]
    hparams: int


_AT: Final = _Place(tuple(list(FIELDS).index(name) for name in LOSSES), list(FIELDS).index("hparams"))


def _record(values: tuple[Any, ...], infeasible: bool) -> tuple[Any, ...]:
    found = list(values)
    found[_AT.hparams] = dict(sorted(values[_AT.hparams].items()))
    for place in _AT.losses:
        if infeasible or not math.isfinite(found[place]):
            found[place] = INFEASIBLE
    return tuple(found)
