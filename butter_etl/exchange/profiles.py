"""Profiles: how run frames of other schemas are brought to ours, in names, missing columns and types.

A profile is a declared value. It says what the other schema calls our columns, and what the columns that it lacks
always were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.engines import HISTORIES, METRICS
from butter_etl.errors import SelectError, SourceError, one_line, suggestion
from butter_etl.studies import PARAMETERS, RUN_SCHEMA, TEST_SPLIT_METHOD, VARIED, Value, plain_column, plain_type

#: The columns without which an experiment is not known; the other parameters may be null.
NEVER_NULL = ("run_id", "task", *VARIED)
_MAY_BE_ABSENT = ("early_stopping", "kernel_regularizer", "momentum")
#: The columns that a source must have: what a run is, its experiment, and all of its histories.
REQUIRED = ("run_id", "task", *(name for name in PARAMETERS if name not in _MAY_BE_ABSENT), *HISTORIES)


class Profile(msgspec.Struct, frozen=True):
    """A schema of run frames. ``names`` maps our names of columns to its own, where they differ.

    ``constants`` are the values of columns that it does not have.
    """

    name: str
    names: Mapping[str, str] = {}
    constants: Mapping[str, Value] = {}

    def theirs(self, column: str) -> str:
        """Return the name that the schema has for our ``column``."""
        return self.names.get(column, column)

    def required(self) -> list[str]:
        """Return the columns that files of this schema must have, by its own names."""
        return [self.theirs(name) for name in REQUIRED if name not in self.constants]


def _v2_names() -> dict[str, str]:
    names = {name: name.replace(".", "_") for name in RUN_SCHEMA.names if "." in name}
    for metric in METRICS:
        names[f"val_{metric}"] = f"test_{metric}"
        names[metric] = f"train_{metric}"
    return names


#: The schema of the document and of our own stores, and that of the enlarged release of August 2022.
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("seed"),
        Profile(
            "oedi-2022-08",
            names=_v2_names(),
            constants={"early_stopping": None, "test_split_method": TEST_SPLIT_METHOD},
        ),
    )
}


def find_profile(name: str) -> Profile:
    """Return the profile called ``name``; raises SelectError naming the known ones."""
    if name not in PROFILES:
        close = suggestion(name, PROFILES)
        raise SelectError(f"--profile {name!r}: unknown{close}; known: {', '.join(PROFILES)}")
    return PROFILES[name]


def check_columns(schema: pa.Schema, keys: Iterable[str], profile: Profile, place: str) -> list[str]:
    """Return the columns of a file that the profile does not know; ``keys`` are those in its path.

    Raises SourceError, naming ``place`` and the columns, if columns are missing, there twice, or of types that cannot
    be converted.
    """
    keys = list(keys)
    missing = [name for name in profile.required() if name not in schema.names and name not in keys]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise SourceError(
            f"{place}: columns are missing: {', '.join(missing[:5])}{more} (profile {profile.name!r}; "
            f"known: {', '.join(PROFILES)})"
        )
    ours = {profile.theirs(field.name): field for field in RUN_SCHEMA if field.name not in profile.constants}
    twice = [name for name in ours if schema.names.count(name) > 1]
    if twice:
        raise SourceError(f"{place}: column {twice[0]!r} is there twice; name one of them otherwise, or take it out")
    for field in schema:
        if field.name in ours and not _fits(field.type, ours[field.name].type):
            raise SourceError(f"{place}: column {field.name!r} is {field.type}, expected {ours[field.name].type}")
    return [name for name in dict.fromkeys([*schema.names, *keys]) if name not in ours]


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Tell whether values of a type can stand for another: any width, but text stays text and numbers stay numbers."""
    found = plain_type(found)
    if pa.types.is_null(found):
        return True
    if pa.types.is_list(wanted):
        return bool(pa.types.is_list(found)) and _fits(found.value_type, wanted.value_type)
    if pa.types.is_floating(wanted) or pa.types.is_integer(wanted):
        is_fraction = pa.types.is_floating(found) and pa.types.is_floating(wanted)
        return bool(is_fraction or pa.types.is_integer(found) or pa.types.is_decimal(found))
    return bool(found == wanted)


def conform(
    table: pa.Table, keys: Mapping[str, str | None], profile: Profile, wanted: pa.Schema, place: str
) -> pa.Table:
    """Return rows of a profile's schema as rows of ``wanted``, a part of `RUN_SCHEMA`.

    ``keys`` are the texts in the rows' path. A column is the profile's constant if there is one, else what stands in
    the file, else what stands in the path, else null. Raises SourceError for values that do not fit into the types.
    """
    columns = []
    present = set(table.column_names)
    for field in wanted:
        theirs = profile.theirs(field.name)
        try:
            if field.name in profile.constants:
                column = _constant(profile.constants[field.name], field.type, table.num_rows)
            elif theirs in present:
                column = _cast(table[theirs], field.type)
            else:
                column = _constant(_parsed(keys.get(theirs), field.type), field.type, table.num_rows)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, OverflowError) as error:
            raise SourceError(f"{place}: column {theirs!r}: {one_line(error)}") from error
        columns.append(column)
    return pa.table(columns, schema=wanted)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type.equals(kind) else plain_column(column).cast(kind)


def _constant(value: Value, kind: pa.DataType, rows: int) -> pa.Array:
    return pa.nulls(rows, kind) if value is None else pa.repeat(pa.scalar(value, kind), rows)


def _parsed(text: str | None, kind: pa.DataType) -> Value:
    """Return the value of a type that a text in a path stands for."""
    if text is None or pa.types.is_string(kind):
        return text
    value: Value = pc.cast(pa.scalar(text), kind).as_py()
    return value
