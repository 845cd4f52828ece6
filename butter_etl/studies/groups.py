"""Rows of a table by what they have in common, whatever the type of that is: numbers, texts, lists, nulls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa


def groups_of(table: pa.Table, keys: Sequence[str]) -> list[tuple[tuple[Any, ...], pa.Table]]:
    """Return the rows of each combination of values of some columns, in order, null first; lists as tuples.

    Without keys all rows are one group.
    """
    if not keys:
        return [((), table)]
    rows: dict[tuple[Any, ...], list[int]] = {}
    columns = [[tuple(one) if isinstance(one, list) else one for one in table[key].to_pylist()] for key in keys]
    for row, values in enumerate(zip(*columns, strict=True)):
        rows.setdefault(values, []).append(row)
    return [(values, table.take(rows[values])) for values in in_order(rows)]


def in_order(values: Iterable[Any]) -> list[Any]:
    """Return different values in their order, null first, those of tuples one by one."""

    def key(value: Any) -> Any:
        return [key(part) for part in value] if isinstance(value, tuple) else (value is not None, value)

    return sorted(set(values), key=key)
