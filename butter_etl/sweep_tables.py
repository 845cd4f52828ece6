"""What the terminal shows of sweeps, as rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from butter_etl.spec import Regularizer, float_text
from butter_etl.sweeps import AXES, Sweep, experiment_topology, published_id


def sweep_table(sweeps: Iterable[Sweep]) -> list[tuple[Any, ...]]:
    """A row a published sweep: name, cubes, experiments, feasible ones, repetitions; then the seven, each once."""
    rows: list[tuple[Any, ...]] = []
    distinct: dict[int | None, bool] = {}
    for sweep in sweeps:
        feasible = 0
        for spec in sweep.experiments():
            is_feasible = experiment_topology(spec) is not None
            feasible += is_feasible
            if sweep.name != "optimizer":
                distinct[published_id(spec)] = is_feasible
        rows.append((sweep.name, len(sweep.cubes), len(sweep), feasible, sweep.repetitions))
    rows.append(("distinct", None, len(distinct), sum(distinct.values()), None))
    return rows


def cube_table(sweep: Sweep) -> list[tuple[int, str, str]]:
    """A row an axis of each cube: number of the cube, key, values."""
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
