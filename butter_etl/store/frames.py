"""The frames of a store as Dask dataframes: Arrow-backed, so that a list column stays a list of float32."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.errors import SelectError, StoreError, StudyError, UsageError, one_line, suggestion
from butter_etl.store.files import COMMON_METADATA, Location
from butter_etl.store.layout import RunFile, parse_partition
from butter_etl.store.parquet import conform
from butter_etl.store.store import readable
from butter_etl.studies import (
    EXECUTIVE,
    LEVEL,
    PRECISION,
    RUNS,
    SUMMARY,
    Condition,
    FloatKind,
    Study,
    Terms,
    Value,
    canonical_float,
    default_study,
    parse_condition,
)

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

#: A partition of a Dask dataframe reads about this many bytes of files, experiments whole.
GROUP_BYTES = 128 * 2**20


def read_runs(store: str | os.PathLike[str], where: Iterable[str] = (), columns: Iterable[str] | None = None) -> Any:
    """Read the run frame of a store as a ``dask.dataframe.DataFrame``, a row a run; lists are ``list<float>[pyarrow]``.

    ``where`` are conditions as ``--where`` takes them, e.g. ``"dataset=nursery"``, or on ``experiment_id``. Partitions
    and row groups that cannot meet them are not read. Raises SelectError for a malformed condition or an unknown
    column, StoreError where there is no store.
    """
    return _read_frame(store, RUNS, where, columns)


def read_summary(store: str | os.PathLike[str], where: Iterable[str] = (), columns: Iterable[str] | None = None) -> Any:
    """Read the summary frame of a store as a ``dask.dataframe.DataFrame``, a row an experiment.

    ``where`` and ``columns`` are as in `read_runs`, and so are the errors.
    """
    return _read_frame(store, SUMMARY, where, columns)


def read_executive_summary(
    store: str | os.PathLike[str], where: Iterable[str] = (), columns: Iterable[str] | None = None
) -> Any:
    """Read the executive summary of a store as a ``dask.dataframe.DataFrame``, a row an experiment, few lists.

    ``where`` and ``columns`` are as in `read_runs`, and so are the errors.
    """
    return _read_frame(store, EXECUTIVE, where, columns)


def read_precision(
    store: str | os.PathLike[str], where: Iterable[str] = (), columns: Iterable[str] | None = None
) -> Any:
    """Read the precision frame of a store as a ``dask.dataframe.DataFrame``, a row an experiment and level.

    ``where`` and ``columns`` are as in `read_runs`, and so are the errors; a condition may be on ``confidence_level``.
    """
    return _read_frame(store, PRECISION, where, columns)


def read_export(folder: str | os.PathLike[str], where: Iterable[str] = (), columns: Iterable[str] | None = None) -> Any:
    """Read one exported directory (such as ``dest/primary_sweep_summary``) as a ``dask.dataframe.DataFrame``.

    ``where`` and ``columns`` are as in `read_runs`. Raises StoreError where there is no exported directory.
    """
    location = Location(folder)
    if location.kind(COMMON_METADATA) != pa.fs.FileType.File:
        location.require_bucket()
        raise StoreError(f"{location}: is no exported directory (it has no {COMMON_METADATA})")
    return _read(location, "", read_schema(location, ""), None, where, columns)


def read_schema(location: Location, root: str) -> pa.Schema:
    """Return the schema of a frame, partition keys included, from where it lies for all readers."""
    with location.parquet_file(f"{root}/{COMMON_METADATA}" if root else COMMON_METADATA) as file:
        schema: pa.Schema = file.schema_arrow.remove_metadata()
    return schema


def _read_frame(store: str | os.PathLike[str], root: str, where: Iterable[str], columns: Iterable[str] | None) -> Any:
    """Read a frame of a store. Its study need not be known here: then the frame's schema says all there is to say."""
    location, study = readable(store)
    if study is not None and root not in study.frames:
        raise StoreError(f"{location}: its study has no frame {root}")
    schema = read_schema(location, root) if study is None else study.frames[root].schema
    return _read(location, root, schema, study, where, columns)


def _read(
    location: Location,
    root: str,
    schema: pa.Schema,
    study: Study | None,
    where: Iterable[str],
    columns: Iterable[str] | None,
) -> Any:
    dd = _dask_dataframe()
    wanted = schema if columns is None else _columns(schema, list(columns))
    everything = [(name, size) for name, size in location.walk(root) if _is_rows(name.rpartition("/")[2])]
    keys = _keys_of(schema, everything)
    conditions = _conditions(where, schema, keys, study, [name for name, _ in everything])
    files = [(name, size) for name, size in everything if _may_hold(keys, name.rpartition("/")[0], conditions)]
    groups = list(_groups(files)) or [[]]
    prefix = f"{root}/" if root else ""
    return dd.from_map(
        read_group,
        [[prefix + name for name in group] for group in groups],
        url=location.absolute,
        root=root,
        schema=wanted,
        keys=keys,
        conditions=conditions,
        meta=empty_frame(wanted),
        enforce_metadata=False,
    )


def _dask_dataframe() -> Any:
    """Import Dask's dataframes, which refuse to be where the user's Dask settings ask for those of before.

    Raises UsageError where the settings are malformed.
    """
    try:
        import dask
    except ValueError as error:
        raise UsageError(
            f"Dask cannot be started with its settings here: {one_line(error)}; mend or move them"
        ) from error
    with dask.config.set({"dataframe.query-planning": True}):
        import dask.dataframe
    return dask.dataframe


def _is_rows(name: str) -> bool:
    """Tell whether a file of a frame has rows: what other tools keep beside it begins with a dot or an underscore."""
    return name.endswith(".parquet") and not name.startswith((".", "_"))


def _keys_of(schema: pa.Schema, files: list[tuple[str, int]]) -> pa.Schema:
    """Return the partition keys of a frame: those columns of its schema that the paths of its files name."""
    segments = files[0][0].split("/")[:-1] if files else []
    return pa.schema([schema.field(segment.partition("=")[0]) for segment in segments])


def _conditions(
    where: Iterable[str], schema: pa.Schema, keys: pa.Schema, study: Study | None, files: list[str]
) -> tuple[Condition, ...]:
    """Parse what ``where`` spells; names are known by the study, or by the paths of the frame's files."""
    texts = list(where)
    if not texts:
        return ()
    if study is None:
        study = _study_of_columns(schema)
    if study is None:
        plain = {field.name: field.type for field in schema if not pa.types.is_nested(field.type)}
        return tuple(parse_condition(text, Terms(plain)) for text in texts)
    partitions = [parse_partition(keys, one) for one in {file.rpartition("/")[0] for file in files}]
    further = {LEVEL.name: LEVEL.type} if LEVEL.name in schema.names else {}
    return parse_conditions(texts, study, partitions, further)


def parse_conditions(
    where: Iterable[str],
    study: Study,
    partitions: Collection[Mapping[str, Value]],
    further: Mapping[str, pa.DataType] | None = None,
) -> tuple[Condition, ...]:
    """Parse conditions on rows of a study, which ``where`` spells, on their ``experiment_id`` too.
    They may speak of ``further`` columns, of these types.

    Names are known by the study, or by the partitions that there are. Raises SelectError for a malformed one.
    """
    names = {
        key: list(dict.fromkeys([*choices, *sorted(str(one[key]) for one in partitions)]))
        for key, choices in study.reader.choices.items()
        if all(key in one for one in partitions)
    }
    terms = study.terms(names, with_id=True)
    terms = replace(terms, types={**terms.types, **(further or {})})
    return tuple(parse_condition(text, terms) for text in where)


def _study_of_columns(schema: pa.Schema) -> Study | None:
    """Return the study of new stores if an exported frame has its columns, which are then spoken of as in a store.

    Where none is known, such as of a variable that names nothing, the frame's schema says all there is to say.
    """
    try:
        study = default_study()
    except StudyError:
        return None
    return study if all(name in schema.names for name in study.where_keys) else None


def _columns(schema: pa.Schema, names: list[str]) -> pa.Schema:
    unknown = [name for name in names if name not in schema.names]
    if unknown:
        raise SelectError(f"unknown column {unknown[0]!r}{suggestion(unknown[0], schema.names)}")
    return pa.schema([schema.field(name) for name in names])


def _may_hold(keys: pa.Schema, partition: str, conditions: tuple[Condition, ...]) -> bool:
    """Tell whether the conditions on partition keys hold for a partition; the others are checked row by row."""
    values = parse_partition(keys, partition)
    return all(condition.holds(values) for condition in conditions if condition.key in values)


def _groups(files: list[tuple[str, int]]) -> Iterator[list[str]]:
    """Yield files in groups of about `GROUP_BYTES`; the files of one experiment stay together."""
    group: list[str] = []
    size = 0
    for _, same in groupby(files, key=lambda file: _experiment_key(file[0])):
        members = list(same)
        size += sum(file_size for _, file_size in members)
        group.extend(name for name, _ in members)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _experiment_key(name: str) -> tuple[str, int | str]:
    file = RunFile.parse(name, 0)
    return (file.partition, file.experiment_id) if file else (name, name)


def read_group(
    names: list[str], url: str, root: str, schema: pa.Schema, keys: pa.Schema, conditions: tuple[Condition, ...]
) -> pd.DataFrame:
    """Read one partition of a Dask dataframe: files with their hive keys as columns, rows that meet the conditions."""
    location = Location(url)
    tables = [_read_file(location, name, root, schema, keys, conditions) for name in names]
    return to_frame(pa.concat_tables(tables) if tables else schema.empty_table())


def _read_file(
    location: Location,
    name: str,
    root: str,
    schema: pa.Schema,
    key_schema: pa.Schema,
    conditions: tuple[Condition, ...],
) -> pa.Table:
    keys = parse_partition(key_schema, name.removeprefix(f"{root}/").rpartition("/")[0])
    needed = dict.fromkeys([*schema.names, *(condition.key for condition in conditions)])
    own = [column for column in needed if column not in keys]
    table = location.read_table(name, own, keep_group=partial(_group_may_hold, conditions=conditions))
    for key in needed:
        if key in keys:
            table = table.append_column(key, pa.array([keys[key]] * table.num_rows, type=key_schema.field(key).type))
    rows = _parameters(table, conditions)
    keep = pa.array([all(condition.holds(row) for condition in conditions) for row in rows], pa.bool_())
    selected = table.filter(keep) if conditions else table
    return conform(selected, schema)


def _group_may_hold(group: pq.RowGroupMetaData, conditions: tuple[Condition, ...]) -> bool:
    """Tell whether rows of a row group may meet the conditions, by what the footer says of its whole numbers."""
    if not conditions:
        return True
    columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
    return all(
        condition.may_hold_between(facts.min, facts.max)
        for condition in conditions
        if isinstance(condition.values[0], int) and (facts := _statistics(columns.get(condition.key))) is not None
    )


def _statistics(column: pq.ColumnChunkMetaData | None) -> pq.Statistics | None:
    """Return the range of a column's values, if the footer has it and no value is null; else None."""
    if column is None or not column.is_stats_set:
        return None
    facts = column.statistics
    return facts if facts.has_min_max and facts.null_count == 0 else None


def _parameters(table: pa.Table, conditions: tuple[Condition, ...]) -> list[dict[str, Any]]:
    asked_for = table.select(list({condition.key for condition in conditions}))
    rows: list[dict[str, Any]] = asked_for.to_pylist()
    floats: dict[str, FloatKind] = {
        field.name: "float32" if pa.types.is_float32(field.type) else "float64"
        for field in asked_for.schema
        if pa.types.is_floating(field.type)
    }
    for row in rows:
        for key, kind in floats.items():
            if isinstance(row[key], float):
                row[key] = canonical_float(row[key], key, kind)
    return rows


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert a table to an Arrow-backed pandas DataFrame."""
    import pandas as pd

    return table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)


def to_arrow(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Convert a pandas DataFrame of runs or summaries to a table, in the types of ``schema`` for the columns it has."""
    known = pa.schema([field for field in schema if field.name in frame.columns])
    return pa.Table.from_pandas(frame[known.names], schema=known, preserve_index=False).replace_schema_metadata(None)


def empty_frame(schema: pa.Schema) -> pd.DataFrame:
    """Return the ``meta`` of a Dask dataframe of this schema: a frame without rows."""
    return to_frame(schema.empty_table())


def is_colocated(frame: dd.DataFrame) -> bool:
    """Tell whether a frame is `read_runs` followed only by row-wise steps, so that experiments are still whole."""
    from dask.dataframe.dask_expr._expr import Blockwise
    from dask.dataframe.dask_expr.io.io import FromMap

    nodes = list(frame.expr.walk())
    sources = [node for node in nodes if isinstance(node, FromMap)]
    return (
        len(sources) == 1
        and sources[0].func is read_group
        and all(isinstance(node, Blockwise) for node in nodes)
        and "experiment_id" in frame.columns
    )
