"""Profiles: how run frames of other schemas are brought to ours, in names, missing columns and types.

A study declares its profiles. Each says what the other schema calls our columns, and what the columns that it lacks
always were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.errors import SelectError, SourceError, one_line, suggestion
from butter_etl.studies import Profile, Study, Value, plain_column, plain_type


def never_null(study: Study) -> tuple[str, ...]:
    """Return the columns without which an experiment is not known; the other parameters may be null."""
    return ("run_id", "task", *study.varied)


def required(study: Study, profile: Profile) -> list[str]:
    """Return the columns that files of a profile must have, by its own names.

    They are what a run is, its experiment, and all of its histories.
    """
    parameters = (name for name in study.parameters if name not in study.may_be_absent)
    names = ("run_id", "task", *parameters, *study.histories)
    return [profile.theirs(name) for name in names if name not in profile.constants]


def find_profile(study: Study, name: str) -> Profile:
    """Return the profile of a study that is called ``name``; raises SelectError naming the known ones."""
    if name not in study.profiles:
        close = suggestion(name, study.profiles)
        raise SelectError(f"--profile {name!r}: unknown{close}; known: {', '.join(study.profiles)}")
    return study.profiles[name]


def check_columns(study: Study, schema: pa.Schema, keys: Iterable[str], profile: Profile, place: str) -> list[str]:
    """Return the columns of a file that the profile does not know; ``keys`` are those in its path.

    Raises SourceError, naming ``place`` and the columns, if columns are missing, there twice, or of types that cannot
    be converted.
    """
    keys = list(keys)
    missing = [name for name in required(study, profile) if name not in schema.names and name not in keys]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise SourceError(
            f"{place}: columns are missing: {', '.join(missing[:5])}{more} (profile {profile.name!r}; "
            f"known: {', '.join(study.profiles)})"
        )
    ours = {profile.theirs(field.name): field for field in study.runs if field.name not in profile.constants}
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
    """Return rows of a profile's schema as rows of ``wanted``, a part of the run schema.

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
