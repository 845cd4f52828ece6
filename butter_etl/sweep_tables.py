"""Tables of sweeps for the terminal, as rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from butter_etl.spec import Regularizer, float_text
from butter_etl.sweeps import AXES, Cube, Sweep, cube_codes, experiment_topology


def sweep_table(sweeps: Iterable[Sweep]) -> list[tuple[Any, ...]]:
    """Return a row a published sweep: name, cubes, experiments, feasible ones, repetitions.

    A last row counts the distinct experiments of all of them but the optimizer sweep.
    """
    rows: list[tuple[Any, ...]] = []
    cells: list[NDArray[np.int64]] = []
    are_feasible: list[NDArray[np.bool_]] = []
    for sweep in sweeps:
        feasible = [feasible_cells(cube) for cube in sweep.cubes]
        rows.append(
            (sweep.name, len(sweep.cubes), len(sweep), sum(int(one.sum()) for one in feasible), sweep.repetitions)
        )
        if sweep.name != "optimizer":
            cells.extend(map(cube_codes, sweep.cubes))
            are_feasible.extend(feasible)
    _, first = np.unique(np.concatenate(cells), return_index=True)
    rows.append(("distinct", None, first.size, int(np.concatenate(are_feasible)[first].sum()), None))
    return rows


def feasible_cells(cube: Cube) -> NDArray[np.bool_]:
    """Tell which cells of a cube have a topology, bool, in the cube's order; only the first four axes matter."""
    smaller = Cube(cube.dataset, cube.shape, cube.size, cube.depth)
    found = [experiment_topology(spec) is not None for spec in smaller.experiments()]
    return np.repeat(np.array(found, dtype=np.bool_), len(cube) // len(smaller))


def cube_table(sweep: Sweep) -> list[tuple[int, str, str]]:
    """Return a row an axis of each cube: number of the cube (from 1), key, values."""
    return [
        (number, key, ", ".join(map(_value_text, values)))
        for number, cube in enumerate(sweep.cubes, start=1)
        for key, values in zip(AXES, cube.axes(), strict=True)
    ]


def _value_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Regularizer):
        return f"{value.type} {float_text(value.factor)}"
    if isinstance(value, tuple):
        name, momentum = value
        return name if momentum is None else f"{name} (momentum {float_text(momentum)})"
    return float_text(value) if isinstance(value, float) else str(value)
