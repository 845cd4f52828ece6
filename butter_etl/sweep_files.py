"""Custom sweeps from YAML, checked strictly: every complaint is one line that names the file and the place.

A function, the `Lookup`, finds the users' own data sets that a sweep declares: planning reads the files that are
declared, a store knows its own by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from butter_etl.datasets import DATASETS, DatasetInfo
from butter_etl.errors import SpecError, one_line
from butter_etl.own_data import Declaration, check_declaration, describe, fetch_source
from butter_etl.spec import OPTIMIZERS, OptimizerName, Regularizer, canonical_float
from butter_etl.sweeps import (
    AXES,
    PUBLISHED,
    Cube,
    Optimizer,
    Sweep,
    check_choice,
    check_repetitions,
    make_experiment,
    suggestion,
)

#: Finds a declared data set, given its name, its declaration, and its place in the sweep file for errors.
Lookup = Callable[[str, Declaration, str], DatasetInfo]

_NAME = re.compile(r"[a-z0-9_]+")


class _CubeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dataset: tuple[str, ...]
    size: tuple[int, ...]
    depth: tuple[int, ...]
    shape: tuple[str, ...] = ("rectangle",)
    learning_rate: tuple[float, ...] = (0.0001,)
    batch_size: tuple[int, ...] = (256,)
    kernel_regularizer: tuple[dict[str, float] | None, ...] = (None,)
    label_noise: tuple[float, ...] = (0.0,)
    epochs: tuple[int, ...] = (3000,)
    optimizer: tuple[str, ...] = ("adam",)
    momentum: tuple[float, ...] | None = None


class _SweepFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    repetitions: int
    cubes: list[_CubeFile]
    datasets: dict[str, Declaration] = {}


def load_sweep(path: str | Path, lookup: Lookup | None = None) -> Sweep:
    """Read the custom sweep of a YAML file; raise SpecError with the file and the place in one line.

    Own data sets are read, and those of PMLB downloaded, unless ``lookup`` finds them. Raises DatasetError for those
    that cannot be had.
    """
    return parse_sweep(_read(path), str(path), lookup or from_files(Path(path).parent))


def load_declarations(path: str | Path) -> dict[str, Declaration]:
    """Return the data sets that a YAML file declares, by name, each used by a cube; raise SpecError for a bad file."""
    return dict(_parse(_read(path), str(path)).datasets)


def from_files(folder: Path) -> Lookup:
    """Return the look-up of declared data sets by their files; ``folder`` is where the sweep file is."""

    def look_up(name: str, declaration: Declaration, place: str) -> DatasetInfo:
        return describe(name, declaration, fetch_source(declaration, folder, None, place), place)

    return look_up


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error})") from error


def parse_sweep(text: str, origin: str, lookup: Lookup | None = None) -> Sweep:
    """Return the custom sweep that a YAML text describes; ``origin`` names the text in errors.

    Without ``lookup``, files of own data sets are sought from the working directory.
    """
    file = _parse(text, origin)
    look_up = lookup or from_files(Path())
    places = {name: f"{origin}: datasets.{name}" for name in file.datasets}
    own = {name: look_up(name, declared, places[name]) for name, declared in file.datasets.items()}
    cubes = tuple(_cube(cube, own, f"{origin}: cubes[{index}]") for index, cube in enumerate(file.cubes))
    return Sweep(file.name, file.repetitions, cubes)


def _parse(text: str, origin: str) -> _SweepFile:
    """Return a sweep file, checked as far as it goes without its cubes' values and its data sets' files."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{origin}: not YAML: {one_line(error)}") from error
    try:
        file = msgspec.convert(raw, _SweepFile)
    except msgspec.ValidationError as error:
        raise SpecError(f"{origin}: {error}{_key_suggestion(str(error))}") from error
    if not _NAME.fullmatch(file.name):
        raise SpecError(f"{origin}: name: {file.name!r} must consist of a-z, 0-9 and _")
    if file.name in PUBLISHED:
        raise SpecError(f"{origin}: name: {file.name!r} is a published sweep's; choose another")
    check_repetitions(file.repetitions, f"{origin}: repetitions")
    if not file.cubes:
        raise SpecError(f"{origin}: cubes: there must be at least one")
    used = {name for cube in file.cubes for name in cube.dataset}
    for name, declaration in file.datasets.items():
        check_declaration(name, declaration, f"{origin}: datasets.{name}")
        if name not in used:
            raise SpecError(f"{origin}: datasets.{name}: no cube has it as `dataset`; take it out")
    return file


def _key_suggestion(message: str) -> str:
    unknown = re.search(r"unknown field `([^`]+)`", message)
    kind = Declaration if "`$.datasets" in message else _CubeFile if "`$.cubes" in message else _SweepFile
    return suggestion(unknown.group(1), kind.__struct_fields__) if unknown else ""


def _cube(file: _CubeFile, own: Mapping[str, DatasetInfo], place: str) -> Cube:
    """Return a cube whose every value has been checked; name the cube and the key in errors.

    ``own`` are the declared data sets by name.
    """
    for key in file.__struct_fields__:
        values = getattr(file, key)
        if values is not None and not values:
            raise SpecError(f"{place}.{key}: an empty list makes an empty cube")
    optimizers = _optimizers(file, place)
    regularizers = tuple(_regularizer(entry, f"{place}.kernel_regularizer") for entry in file.kernel_regularizer)

    def canonical(key: str) -> tuple[float, ...]:
        return tuple(canonical_float(value, f"{place}.{key}") for value in getattr(file, key))

    cube = Cube(
        dataset=tuple(own.get(name, name) for name in file.dataset),
        shape=tuple(file.shape),
        size=tuple(file.size),
        depth=tuple(file.depth),
        learning_rate=canonical("learning_rate"),
        batch_size=tuple(file.batch_size),
        kernel_regularizer=regularizers,
        label_noise=canonical("label_noise"),
        epochs=tuple(file.epochs),
        optimizer=optimizers,
    )
    _check_values(cube, place)
    return cube


def _optimizers(file: _CubeFile, place: str) -> tuple[Optimizer, ...]:
    """Return the optimizers with their momenta: null for adam, `momentum` (default 0) for the others."""
    if file.momentum is not None and "adam" in file.optimizer:
        raise SpecError(f"{place}.momentum: adam has none; put adam into a cube of its own")
    momenta = [canonical_float(value, f"{place}.momentum") for value in file.momentum or [0.0]]
    known: dict[str, OptimizerName] = {name: name for name in OPTIMIZERS}
    for name in file.optimizer:
        check_choice(f"{place}.optimizer", name, OPTIMIZERS)
    names = [known[name] for name in file.optimizer]
    return tuple((name, momentum) for name in names for momentum in ([None] if name == "adam" else momenta))


def _regularizer(entry: dict[str, float] | None, place: str) -> Regularizer | None:
    if entry is None:
        return None
    if len(entry) != 1 or not set(entry) <= {"l1", "l2"}:
        raise SpecError(f"{place}: {entry!r} must be null, {{l1: number}} or {{l2: number}}")
    ((kind, factor),) = entry.items()
    return Regularizer("l1" if kind == "l1" else "l2", canonical_float(factor, place))


def _check_values(cube: Cube, place: str) -> None:
    """Check each value of each axis once, by `make_experiment`, which checks all experiments."""
    base: dict[str, Any] = {"dataset": "banana", "size": 32, "depth": 2}
    for key, values in zip(AXES, cube.axes(), strict=True):
        if len(set(values)) != len(values):
            raise SpecError(f"{place}.{key}: a value stands there twice")
        for value in values:
            axes = {"optimizer": value[0], "momentum": value[1]} if key == "optimizer" else {key: value}
            if key == "dataset" and isinstance(value, str) and value not in DATASETS:
                hint = f"{suggestion(value, DATASETS)}; declare your own data sets under `datasets:`"
                raise SpecError(f"{place}.dataset: {value!r} is not known{hint} (known: {', '.join(DATASETS)})")
            try:
                make_experiment(**{**base, **axes})
            except SpecError as error:
                raise SpecError(f"{place}.{error}") from error
