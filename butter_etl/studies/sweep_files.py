"""Custom sweeps of any study from YAML, checked strictly: every complaint is one line with the file and the place.

What a study's sweep files may say follows from its hyperparameters. A study whose files say more has a subclass of
`SweepReader` of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from butter_etl.errors import SpecError, suggestion
from butter_etl.studies.axes import Hyperparameter, OneOf
from butter_etl.studies.sweeps import Cube, Sweep, check_repetitions
from butter_etl.studies.yaml_files import as_list, parse_yaml, unknown_key

#: Folders and archives of exports are named after a sweep, and names of files end at 255 bytes.
_NAME = re.compile(r"[a-z0-9_]{1,200}")
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `([^`]*)`(?: - at `\$\.(.*)`)?")
_OTHER_TYPE = re.compile(r"Expected `(.*)`, got `(.*)` - at `\$\.(.*)`")
_NUMBERS = ("int", "float")
_ELSEWHERE: Final = object()
#: Finds a user's own data set that a sweep file declares, given its name, its declaration, and its place in the file
#: for errors. What declarations and data sets are is the study's affair.
Lookup = Callable[[str, Any, str], Any]


def cube_fields(hyperparameters: Mapping[str, Hyperparameter]) -> list[tuple[str, Any] | tuple[str, Any, Any]]:
    """Return the keys of a cube in a sweep file, with their types and defaults; those that must be named come first."""
    named: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    others: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for name, one in hyperparameters.items():
        if one.axis.joined is not None:
            others.append((name, tuple[float, ...] | None, None))
        elif one.axis.default is msgspec.NODEFAULT:
            named.append((name, tuple[one.spelled, ...]))  # type: ignore[name-defined]
        else:
            others.append((name, tuple[one.spelled, ...], (one.axis.default,)))  # type: ignore[name-defined]
    return named + others


class SweepReader:
    """Reads the sweep files of one study, whose cubes are of the class ``cube``.

    ``published`` are the names of published sweeps, which no custom one may have, ``max_runs`` is how many runs an
    experiment may have, ``study`` the name that a file may give as `study`.
    """

    #: Whether a sweep file must have cubes.
    needs_cubes = True
    #: Further keys of a sweep file, with their types and defaults.
    further: tuple[tuple[str, Any, Any], ...] = ()

    def __init__(
        self,
        study: str,
        cube: type[Cube],
        hyperparameters: Mapping[str, Hyperparameter],
        *,
        max_runs: int,
        sweep: type[Sweep] = Sweep,
        published: Collection[str] = (),
    ) -> None:
        self.study, self.cube, self.sweep = study, cube, sweep
        self.hyperparameters, self.published, self.max_runs = hyperparameters, published, max_runs
        self._cube_type: Any = msgspec.defstruct(
            "_CubeFile", cube_fields(hyperparameters), frozen=True, forbid_unknown_fields=True
        )
        cubes: Any = list[self._cube_type]  # type: ignore[name-defined]
        self._file_type: Any = msgspec.defstruct(
            "_SweepFile",
            [
                ("name", str),
                ("repetitions", int),
                ("cubes", cubes) if self.needs_cubes else ("cubes", cubes, []),
                ("study", str | None, None),
                *self.further,
            ],
            frozen=True,
            forbid_unknown_fields=True,
        )

    @property
    def choices(self) -> Mapping[str, Collection[str]]:
        """Return the names that hyperparameters may have, of those whose values are names."""
        checks = {name: one.axis.check for name, one in self.hyperparameters.items()}
        return {name: check.choices for name, check in checks.items() if isinstance(check, OneOf)}

    def unknown(self, key: str, value: str, known: Collection[str]) -> str:
        """Return the message about a name that a hyperparameter cannot have."""
        return f"unknown {key} {value!r}{suggestion(value, known)}; known: {', '.join(known)}"

    def unknown_sweep(self, name: str, registered: Collection[str] = ()) -> str:
        """Return the message about a sweep that is not known, with the closest name and the published ones."""
        close = suggestion(name, [*self.published, *registered])
        published = f"; published: {', '.join(self.published)}" if self.published else ""
        return f"unknown sweep {name!r}{close}{published}"

    def load(self, path: str | Path, lookup: Lookup | None = None) -> Sweep:
        """Read the custom sweep of a YAML file; raise SpecError with the file and the place in one line.

        ``lookup`` finds users' own data that the file declares, in studies that have such.
        """
        return self.parse(read_text(path), str(path), lookup)

    def parse(self, text: str, origin: str, lookup: Lookup | None = None) -> Sweep:
        """Return the custom sweep that a YAML text describes; ``origin`` names the text in errors."""
        file = self.parse_file(text, origin)
        own = self.own_values(file, origin, lookup)
        cubes = tuple(self._cube(cube, own, f"{origin}: cubes[{index}]") for index, cube in enumerate(file.cubes))
        return self.sweep(file.name, file.repetitions, cubes)

    def parse_file(self, text: str, origin: str) -> Any:
        """Return a sweep file, checked as far as it goes without its cubes' values and what lies elsewhere."""
        raw = self._with_lists(parse_yaml(text, origin, SpecError))
        study = raw.get("study") if isinstance(raw, dict) else None
        if isinstance(study, str) and study != self.study:  # whose keys are others
            raise SpecError(f"{origin}: study: it is of {study!r}, not of {self.study!r}; name that with --study")
        try:
            file = msgspec.convert(raw, self._file_type)
        except msgspec.ValidationError as error:
            raise SpecError(f"{origin}: {self.explain(str(error), raw)}") from error
        if not _NAME.fullmatch(file.name):
            raise SpecError(f"{origin}: name: {file.name!r} must consist of a-z, 0-9 and _, up to 200 of them")
        if file.name in self.published:
            raise SpecError(f"{origin}: name: {file.name!r} is a published sweep's; choose another")
        check_repetitions(file.repetitions, self.max_runs, f"{origin}: repetitions")
        if self.needs_cubes and not file.cubes:
            raise SpecError(f"{origin}: cubes: there must be at least one")
        return file

    # --- what a study with more to say has otherwise --------------------------------------------------------------

    def declarations(self, path: str | Path) -> Mapping[str, Any]:  # noqa: ARG002 (for subclasses)
        """Return the users' own data sets that a YAML file declares, by name; raise SpecError for a bad file."""
        return {}

    def own_values(self, file: Any, origin: str, lookup: Lookup | None) -> Mapping[str, Any]:  # noqa: ARG002 (likewise)
        """Return what a file declares beside its cubes, by name."""
        return {}

    def cube_values(self, file: Any, own: Mapping[str, Any], place: str) -> dict[str, tuple[Any, ...]]:  # noqa: ARG002
        """Return the values of each axis of a cube in a file, not checked yet."""
        return {
            axis: tuple(self.hyperparameters[axis].read(entry, f"{place}.{axis}") for entry in getattr(file, axis))
            for axis in self.cube.space.axes
        }

    def checked_value(self, axis: str, value: Any, place: str, own: Collection[str]) -> Any:  # noqa: ARG002
        """Return a value of an axis as experiments have it; raise SpecError for one that it cannot have."""
        return self.hyperparameters[axis].canonical(value, f"{place}.{axis}")

    def explain(self, message: str, raw: Any) -> str:
        """Say what msgspec found wrong with a sweep file, with the value and the way out; it names a path."""
        if match := _UNKNOWN_KEY.fullmatch(message):
            key, path = match[1], match[2] or ""
            place = f"{path}: " if path else ""
            return f"{place}unknown key {key!r}{unknown_key(key, self._type_at(path).__struct_fields__)}"
        if match := _OTHER_TYPE.fullmatch(message):
            wanted, path = match[1].split(" | "), match[3]
            found = _at(raw, path)
            shown = "" if found is _ELSEWHERE else f"; there is {found!r}"
            return f"{message}{shown}{_way_of_writing(wanted, found)}"
        return message

    def _type_at(self, path: str) -> Any:
        """Return the type of what stands at a path of msgspec's."""
        return self._cube_type if path.startswith("cubes") else self._file_type

    # --- parts -------------------------------------------------------------------------------------------------------

    def _cube(self, file: Any, own: Mapping[str, Any], place: str) -> Cube:
        """Return a cube whose every value has been checked; errors name the cube and the key."""
        for key in self.hyperparameters:
            values = getattr(file, key)
            if values is not None and not values:
                raise SpecError(f"{place}.{key}: an empty list makes an empty cube")
        cube = self.cube.of(**self.cube_values(file, own, place))
        checked = {}
        for axis in cube.space.axes:
            values = cube[axis]
            if len(set(values)) != len(values):
                raise SpecError(f"{place}.{axis}: a value stands there twice")
            checked[axis] = tuple(self.checked_value(axis, value, place, own) for value in values)
        return self.cube.of(**checked)

    def _with_lists(self, raw: Any) -> Any:
        """Return a sweep file in which one cube, and one value of a cube, are lists of one."""
        if not isinstance(raw, dict) or "cubes" not in raw:
            return raw
        cubes = as_list(raw["cubes"])
        some = [self._with_lists_of_values(cube) for cube in cubes] if isinstance(cubes, list) else cubes
        return {**raw, "cubes": some}

    def _with_lists_of_values(self, cube: Any) -> Any:
        if not isinstance(cube, dict):
            return cube
        lists = {key: as_list(value) for key, value in cube.items() if key in self.hyperparameters}
        none = {key: [None] for key, value in lists.items() if value is None and self._is_none_a_value(key)}
        return {**cube, **lists, **none}

    def _is_none_a_value(self, key: str) -> bool:
        one = self.hyperparameters[key]
        return one.is_nullable and one.axis.joined is None


def text_of_one(
    reader: SweepReader,
    name: str,
    parameters: Mapping[str, Any],
    repetitions: int,
    declared: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of a sweep file of one experiment, that of some parameters; what is null of them has its default.

    ``declared`` are the user's own data sets that the file is to declare, by name. Raises SpecError where the study's
    files spell an axis otherwise than its column does.
    """
    for axis, one in reader.hyperparameters.items():
        if axis not in parameters or one.axis.read is not None or one.axis.joined is not None:
            raise SpecError(
                f"study {reader.study}: sweep files spell {axis!r} otherwise than runs do; write one by hand"
            )
    axes = reader.hyperparameters.items()
    cube = {axis: [parameters[axis]] for axis, one in axes if one.is_nullable or parameters[axis] is not None}
    said = {"name": name, "study": reader.study, "repetitions": repetitions, "cubes": [cube]}
    if declared:
        said["datasets"] = msgspec.to_builtins(declared)
    return json.dumps(said, indent=1)


def read_text(path: str | Path) -> str:
    """Return the text of a sweep file; raise SpecError where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error})") from error


def _way_of_writing(wanted: list[str], found: Any) -> str:
    if isinstance(found, str) and any(kind in _NUMBERS for kind in wanted):
        return "; a number is written like 1000, 0.001 or 1e-3, without quotes, and without zeros before it"
    if "str" in wanted and isinstance(found, bool | int | float):
        return "; a text that looks like something else is written in quotes"
    return ""


def _at(raw: Any, path: str) -> Any:
    """Return what stands at a path of msgspec's, such as ``cubes[0].size[1]``; keys of users' own it does not tell."""
    found = raw
    for key, place in re.findall(r"(\w+)|\[(\d+|\.\.\.)\]", path):
        if place == "..." or not isinstance(found, dict if key else list):
            return _ELSEWHERE
        found = found[key] if key else found[int(place)]
    return found
