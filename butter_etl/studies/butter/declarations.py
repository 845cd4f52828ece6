"""Users' own data sets as sweep files declare them: what they say, and the files that they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from butter_etl.errors import DatasetError, SpecError
from butter_etl.studies.butter.datasets import DATASETS, dataset_path, ensure_pmlb
from butter_etl.studies.butter.encoding import Encoding, Task
from butter_etl.studies.data_kinds import check_data_name, is_data_name
from butter_etl.studies.user_folders import data_folder, expanded

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_COMPRESSED = (".gz", ".bz2", ".zst")
#: By what missing values are filled in, where that is no value.
Rule = Literal["median", "mean", "most-frequent", "own-category"]
#: Whole numbers that JSON and Arrow can hold.
_LARGEST = 2**63


class Fill(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value that is filled in for missing ones; texts must be written so, since a word alone is a rule."""

    value: str | int | float


class ColumnChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How an input column is encoded, and what stands for its missing values, which else are refused.

    With ``indicator``, one more input is 1 where a value was missing.
    """

    encoding: Encoding = "auto"
    missing: Rule | int | float | Fill | None = None
    indicator: bool = False


class Declaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set as a sweep file declares it: a file, or a data set of PMLB by name; what to predict, and how.

    ``file`` is relative to the sweep file. ``columns`` says how input columns are encoded, where that is not ``auto``,
    and what is filled in where values are missing.
    """

    task: Task
    file: str | None = None
    pmlb: str | None = None
    target: str = "target"
    columns: dict[str, Encoding | ColumnChoice] = {}

    @property
    def choices(self) -> Mapping[str, ColumnChoice]:
        """Return what is declared of columns, by name."""
        return {
            name: one if isinstance(one, ColumnChoice) else ColumnChoice(encoding=one)
            for name, one in self.columns.items()
        }

    def means_the_same(self, other: Declaration) -> bool:
        """Tell whether two declarations differ at most in where the file is."""
        ours, theirs = (msgspec.structs.replace(one, file=None, columns=dict(one.choices)) for one in (self, other))
        return ours == theirs


def check_declaration(name: str, declaration: Declaration, place: str) -> None:
    """Raise SpecError, naming the place, for what is wrong with a declaration whatever its file holds."""
    check_data_name(name, DATASETS, place)
    if (declaration.file is None) == (declaration.pmlb is None):
        raise SpecError(f"{place}: say where the data are: either `file: PATH` or `pmlb: NAME`")
    if declaration.pmlb is not None and not is_data_name(declaration.pmlb):
        raise SpecError(f"{place}.pmlb: {declaration.pmlb!r} is no name of a data set of PMLB")
    if declaration.file is not None:
        file_format(Path(declaration.file), place)
    if declaration.target in declaration.columns:
        raise SpecError(f"{place}.columns: {declaration.target!r} is the target; take it out")
    for column, choice in declaration.choices.items():
        if wrong := _wrong(choice):
            raise SpecError(f"{place}.columns.{column}: {wrong}")


def _wrong(choice: ColumnChoice) -> str:
    """Say what cannot go together in what is declared of a column, whatever it holds; nothing if all can."""
    encoding, rule = choice.encoding, choice.missing
    if rule is None:
        return "`indicator` goes with `missing`, which says what is filled in" if choice.indicator else ""
    if encoding == "drop":
        return "a column that is dropped has nothing filled in; take `missing` out"
    if choice.indicator and rule == "own-category":
        return "own-category tells what was missing by itself; take `indicator` out"
    return _wrong_rule(encoding, rule)


def _wrong_rule(encoding: Encoding, rule: Rule | int | float | Fill) -> str:
    if encoding == "one-hot" and rule in ("median", "mean"):
        return f"categories have no {rule}; write `missing: most-frequent` or own-category"
    value = rule.value if isinstance(rule, Fill) else rule
    is_text = isinstance(rule, Fill) and isinstance(value, str)
    if encoding == "numeric" and (is_text or rule == "own-category"):
        what = repr(value) if is_text else value
        return f"{what} is no number; write `missing: median`, mean, most-frequent or a number"
    if isinstance(value, int | float) and not (math.isfinite(value) and -_LARGEST <= value < _LARGEST):
        return f"missing: {value} is not finite, or too large; write another number"
    return ""


def yaml_key(name: str) -> str:
    """Return the name of a column as a sweep file has it."""
    return "'" + name.replace("'", "''") + "'" if re.search(r"\W", name) or not name else name


def file_format(path: Path, place: str) -> str:
    """Return the suffix that tells the format, ``.csv``, ``.tsv`` or ``.parquet``; raise SpecError for any other."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".parquet":
        return ".parquet"
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in DELIMITERS:
        raise SpecError(f"{place}.file: {path.name!r} must end in .csv, .tsv (also with .gz, .bz2, .zst) or .parquet")
    return suffixes[-1]


def find_source(declaration: Declaration, folder: Path, directory: str | Path | None) -> Path | None:
    """Return the file of a declaration in a sweep file in ``folder``; None if it is not there. Download nothing."""
    path = _source_path(declaration, folder, directory)
    return path if path.is_file() else None


def fetch_source(declaration: Declaration, folder: Path, directory: str | Path | None, place: str) -> Path:
    """Return the file of a declaration; download it to ``directory`` where it is PMLB's and absent.

    Raises DatasetError if it cannot be had.
    """
    if declaration.pmlb is not None:
        return ensure_pmlb(declaration.pmlb, data_folder(directory))
    path = _source_path(declaration, folder, directory)
    if not path.is_file():
        raise DatasetError(f"{place}: {path} is not there; put the file there, or correct `file`")
    return path


def _source_path(declaration: Declaration, folder: Path, directory: str | Path | None) -> Path:
    if declaration.pmlb is not None:
        return dataset_path(declaration.pmlb, data_folder(directory))
    return folder / expanded(declaration.file or "")
