"""Custom sweeps from YAML, checked strictly: every complaint is one line that names the file and the place.

A function, the `Lookup`, finds the users' own data sets that a sweep declares: planning reads the files that are
declared, a store knows its own by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from butter_etl.errors import SpecError, suggestion
from butter_etl.studies.butter.datasets import DATASETS, DatasetInfo, unknown_dataset
from butter_etl.studies.butter.encoding import Encoding, Task
from butter_etl.studies.butter.experiments import HYPERPARAMETERS
from butter_etl.studies.butter.own_data import Declaration, check_declaration, describe, fetch_source
from butter_etl.studies.butter.sweeps import AXES, PUBLISHED, Cube, Optimizer, Sweep, check_momentum, check_repetitions
from butter_etl.studies.identity import canonical_float
from butter_etl.studies.yaml_files import as_list, parse_yaml, unknown_key

#: Finds a declared data set, given its name, its declaration, and its place in the sweep file for errors.
Lookup = Callable[[str, Declaration, str], DatasetInfo]

#: Folders and archives of exports are named after a sweep, and names of files end at 255 bytes.
_NAME = re.compile(r"[a-z0-9_]{1,200}")


def _cube_fields() -> list[tuple[str, Any] | tuple[str, Any, Any]]:
    """Return the keys of a cube in a sweep file, with their types and defaults; those that must be named come first."""
    named: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    others: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for name, one in HYPERPARAMETERS.items():
        if one.axis.joined is not None:
            others.append((name, tuple[float, ...] | None, None))
        elif one.axis.default is msgspec.NODEFAULT:
            named.append((name, tuple[one.spelled, ...]))  # type: ignore[name-defined]
        else:
            others.append((name, tuple[one.spelled, ...], (one.axis.default,)))  # type: ignore[name-defined]
    return named + others


if TYPE_CHECKING:
    _CubeFile = Any
else:
    _CubeFile = msgspec.defstruct("_CubeFile", _cube_fields(), frozen=True, forbid_unknown_fields=True)


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
    raw = _with_lists(parse_yaml(text, origin, SpecError))
    try:
        file = msgspec.convert(raw, _SweepFile)
    except msgspec.ValidationError as error:
        raise SpecError(f"{origin}: {_explain(str(error), raw)}") from error
    if not _NAME.fullmatch(file.name):
        raise SpecError(f"{origin}: name: {file.name!r} must consist of a-z, 0-9 and _, up to 200 of them")
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


def _with_lists(raw: Any) -> Any:
    """Return a sweep file in which one cube, and one value of a cube, are lists of one."""
    if not isinstance(raw, dict) or "cubes" not in raw:
        return raw
    cubes = as_list(raw["cubes"])
    return {**raw, "cubes": [_with_lists_of_values(cube) for cube in cubes] if isinstance(cubes, list) else cubes}


def _with_lists_of_values(cube: Any) -> Any:
    if not isinstance(cube, dict):
        return cube
    lists = {key: as_list(value) for key, value in cube.items() if key in HYPERPARAMETERS}
    # No penalty is a value.
    none = {key: [None] for key, value in lists.items() if value is None and _is_none_a_value(key)}
    return {**cube, **lists, **none}


def _is_none_a_value(key: str) -> bool:
    one = HYPERPARAMETERS[key]
    return one.is_nullable and one.axis.joined is None


_UNKNOWN_KEY = re.compile(r"Object contains unknown field `([^`]*)`(?: - at `\$\.(.*)`)?")
_NO_CHOICE = re.compile(r"Invalid enum value '([^`]*)'(?: - at `\$\.(.*)`)?")
_OTHER_TYPE = re.compile(r"Expected `(.*)`, got `(.*)` - at `\$\.(.*)`")
_NUMBERS = ("int", "float")


def _explain(message: str, raw: Any) -> str:
    """Say what msgspec found wrong with a sweep file, with the value and the way out; it names a path."""
    if match := _UNKNOWN_KEY.fullmatch(message):
        key, path = match[1], match[2] or ""
        kind = Declaration if path.startswith("datasets") else _CubeFile if path.startswith("cubes") else _SweepFile
        place = f"{path}: " if path else ""
        return f"{place}unknown key {key!r}{unknown_key(key, kind.__struct_fields__)}"
    if match := _NO_CHOICE.fullmatch(message):
        known = get_args(Encoding if ".columns" in message else Task)
        return f"{match[2]}: unknown {match[1]!r}{suggestion(match[1], known)}; known: {', '.join(known)}"
    if match := _OTHER_TYPE.fullmatch(message):
        wanted, path = match[1].split(" | "), match[3]
        found = _at(raw, path)
        shown = "" if found is _ELSEWHERE else f"; there is {found!r}"
        return f"{message}{shown}{_way_of_writing(wanted, found)}"
    return message


def _way_of_writing(wanted: list[str], found: Any) -> str:
    if isinstance(found, str) and any(kind in _NUMBERS for kind in wanted):
        return "; a number is written like 1000, 0.001 or 1e-3, without quotes, and without zeros before it"
    if "str" in wanted and isinstance(found, bool | int | float):
        return "; a text that looks like something else is written in quotes"
    return ""


_ELSEWHERE = object()


def _at(raw: Any, path: str) -> Any:
    """Return what stands at a path of msgspec's, such as ``cubes[0].size[1]``; keys of users' own it does not tell."""
    found = raw
    for key, place in re.findall(r"(\w+)|\[(\d+|\.\.\.)\]", path):
        if place == "..." or not isinstance(found, dict if key else list):
            return _ELSEWHERE
        found = found[key] if key else found[int(place)]
    return found


def _cube(file: Any, own: Mapping[str, DatasetInfo], place: str) -> Cube:
    """Return a cube whose every value has been checked; errors name the cube and the key. ``own`` are declared data."""
    for key in HYPERPARAMETERS:
        values = getattr(file, key)
        if values is not None and not values:
            raise SpecError(f"{place}.{key}: an empty list makes an empty cube")
    values = {
        axis: tuple(HYPERPARAMETERS[axis].read(entry, f"{place}.{axis}") for entry in getattr(file, axis))
        for axis in AXES
    }
    values["dataset"] = tuple(own.get(name, name) for name in file.dataset)
    values["optimizer"] = _optimizers(file, place)
    cube = Cube.of(**values)
    _check_values(cube, place, own)
    return cube


def _optimizers(file: Any, place: str) -> tuple[Optimizer, ...]:
    """Return optimizers with their momenta: null for adam, `momentum` (default 0) for the others."""
    if file.momentum is not None and "adam" in file.optimizer:
        raise SpecError(f"{place}.momentum: adam has none; put adam into a cube of its own")
    momenta = [canonical_float(value, f"{place}.momentum") for value in file.momentum or [0.0]]
    for name in file.optimizer:
        HYPERPARAMETERS["optimizer"].canonical(name, f"{place}.optimizer")
    return tuple((name, one) for name in file.optimizer for one in ([None] if name == "adam" else momenta))


def _check_values(cube: Cube, place: str, own: Collection[str]) -> None:
    """Check each value of each axis, once; ``own`` are the names of declared data sets."""
    for axis in AXES:
        key = f"{place}.{axis}"
        if len(set(cube[axis])) != len(cube[axis]):
            raise SpecError(f"{key}: a value stands there twice")
        for value in cube[axis]:
            if axis == "dataset":
                _check_dataset(value, key, own)
            elif axis == "optimizer":
                _check_optimizer(value, place)
            else:
                HYPERPARAMETERS[axis].canonical(value, key)


def _check_dataset(value: str | DatasetInfo, key: str, own: Collection[str]) -> None:
    if isinstance(value, str) and value not in DATASETS:
        raise SpecError(f"{key}: {unknown_dataset(value, own)}")


def _check_optimizer(value: Optimizer, place: str) -> None:
    name, momentum = value
    HYPERPARAMETERS["optimizer"].canonical(name, f"{place}.optimizer")
    HYPERPARAMETERS["momentum"].canonical(momentum, f"{place}.momentum")
    check_momentum(f"{place}.momentum", name, momentum)
