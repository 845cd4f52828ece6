"""BUTTER's sweep files: those of any study, with users' own data sets, and optimizers that go with momenta.

A function, the `Lookup`, finds the users' own data sets that a sweep declares: planning reads the files that are
declared, a store knows its own by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

from butter_etl.errors import SpecError, suggestion
from butter_etl.studies.butter.datasets import DATASETS, DatasetInfo, unknown_dataset
from butter_etl.studies.butter.declarations import (
    ColumnChoice,
    Declaration,
    Fill,
    Rule,
    check_declaration,
    fetch_source,
)
from butter_etl.studies.butter.encoding import Encoding, Task
from butter_etl.studies.butter.experiments import HYPERPARAMETERS, MAX_REPETITIONS
from butter_etl.studies.butter.sweeps import PUBLISHED, Cube, Optimizer, Sweep, check_momentum
from butter_etl.studies.identity import canonical_float
from butter_etl.studies.sweep_files import Lookup, SweepReader, read_text

_NO_CHOICE = re.compile(r"Invalid enum value '([^`]*)'(?: - at `\$\.(.*)`)?")


class ButterReader(SweepReader):
    """Reads BUTTER's sweep files."""

    further = (("datasets", dict[str, Declaration], {}),)

    @property
    def choices(self) -> Mapping[str, Collection[str]]:
        """Return the names that hyperparameters may have, of those whose values are names."""
        return {**super().choices, "dataset": tuple(DATASETS)}

    def unknown(self, key: str, value: str, known: Collection[str]) -> str:
        """Return the message about a name that a hyperparameter cannot have."""
        return f"dataset {unknown_dataset(value, known)}" if key == "dataset" else super().unknown(key, value, known)

    def parse_file(self, text: str, origin: str) -> Any:
        """Return a sweep file, checked as far as it goes without its cubes' values and its data sets' files."""
        file = super().parse_file(text, origin)
        used = {name for cube in file.cubes for name in cube.dataset}
        for name, declaration in file.datasets.items():
            check_declaration(name, declaration, f"{origin}: datasets.{name}")
            if name not in used:
                raise SpecError(f"{origin}: datasets.{name}: no cube has it as `dataset`; take it out")
        return file

    def declarations(self, path: str | Path) -> Mapping[str, Declaration]:
        """Return the data sets that a YAML file declares, by name, each used by a cube; SpecError for a bad file."""
        return dict(self.parse_file(read_text(path), str(path)).datasets)

    def own_values(self, file: Any, origin: str, lookup: Lookup | None) -> Mapping[str, DatasetInfo]:
        """Return the data sets that a file declares, by name.

        Without ``lookup``, their files are sought from where the sweep file is, and PMLB's are downloaded. Raises
        DatasetError for those that cannot be had.
        """
        look_up = lookup or from_files(Path(origin).parent)
        places = {name: f"{origin}: datasets.{name}" for name in file.datasets}
        return {name: look_up(name, declared, places[name]) for name, declared in file.datasets.items()}

    def cube_values(self, file: Any, own: Mapping[str, Any], place: str) -> dict[str, tuple[Any, ...]]:
        """Return the values of each axis of a cube in a file, not checked yet; ``own`` are declared data sets."""
        values = super().cube_values(file, own, place)
        values["dataset"] = tuple(own.get(name, name) for name in file.dataset)
        values["optimizer"] = _optimizers(file, place)
        return values

    def checked_value(self, axis: str, value: Any, place: str, own: Collection[str]) -> Any:
        """Return a value of an axis as experiments have it; raise SpecError for one that it cannot have."""
        if axis == "dataset":
            if isinstance(value, str) and value not in DATASETS:
                raise SpecError(f"{place}.{axis}: {unknown_dataset(value, own)}")
            return value
        if axis == "optimizer":
            name, momentum = value
            HYPERPARAMETERS["optimizer"].canonical(name, f"{place}.optimizer")
            HYPERPARAMETERS["momentum"].canonical(momentum, f"{place}.momentum")
            check_momentum(f"{place}.momentum", name, momentum)
            return value
        return super().checked_value(axis, value, place, own)

    def explain(self, message: str, raw: Any) -> str:
        """Say what msgspec found wrong with a sweep file, with the value and the way out; it names a path."""
        if match := _NO_CHOICE.fullmatch(message):
            word, path = match[1], match[2]
            is_rule = _is_of_column(path) and path.endswith(".missing")
            known = get_args(Rule if is_rule else Encoding if _is_of_column(path) else Task)
            text = f", a number, or a text as {{value: {word}}}" if is_rule else ""
            return f"{path}: unknown {word!r}{suggestion(word, known)}; known: {', '.join(known)}{text}"
        return super().explain(message, raw)

    def _type_at(self, path: str) -> Any:
        if not path.startswith("datasets"):
            return super()._type_at(path)
        return Declaration if not _is_of_column(path) else Fill if path.endswith(".missing") else ColumnChoice


def _is_of_column(path: str) -> bool:
    """Tell whether a path of msgspec's leads to what is declared of a column."""
    return ".columns[" in path


#: The reader of BUTTER's sweep files.
READER = ButterReader(
    "butter", Cube, HYPERPARAMETERS, max_runs=MAX_REPETITIONS, sweep=Sweep, published=tuple(PUBLISHED)
)


def load_sweep(path: str | Path, lookup: Lookup | None = None) -> Sweep:
    """Read the custom sweep of a YAML file; raise SpecError with the file and the place in one line.

    Own data sets are read, and those of PMLB downloaded, unless ``lookup`` finds them. Raises DatasetError for those
    that cannot be had.
    """
    return parse_sweep(read_text(path), str(path), lookup)


def parse_sweep(text: str, origin: str, lookup: Lookup | None = None) -> Sweep:
    """Return the custom sweep that a YAML text describes; ``origin`` names the text in errors."""
    found: Sweep = READER.parse(text, origin, lookup)  # type: ignore[assignment]
    return found


def from_files(folder: Path) -> Lookup:
    """Return the look-up of declared data sets by their files; ``folder`` is where the sweep file is."""

    # Here, as it needs most of Arrow, and most commands read no data set.
    from butter_etl.studies.butter.own_data import describe

    def look_up(name: str, declaration: Declaration, place: str) -> DatasetInfo:
        return describe(name, declaration, fetch_source(declaration, folder, None, place), place)

    return look_up


def _optimizers(file: Any, place: str) -> tuple[Optimizer, ...]:
    """Return optimizers with their momenta: null for adam, `momentum` (default 0) for the others."""
    if file.momentum is not None and "adam" in file.optimizer:
        raise SpecError(f"{place}.momentum: adam has none; put adam into a cube of its own")
    momenta = [canonical_float(value, f"{place}.momentum") for value in file.momentum or [0.0]]
    for name in file.optimizer:
        HYPERPARAMETERS["optimizer"].canonical(name, f"{place}.optimizer")
    return tuple((name, one) for name in file.optimizer for one in ([None] if name == "adam" else momenta))
