"""Sweeps of cells: those of sweep files, checked cell by cell, and those that the figures were made of."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from butter_etl.errors import InfeasibleError, SpecError
from butter_etl.studies.capacity.experiments import (
    ARCHITECTURES,
    HYPERPARAMETERS,
    OF_TASKS,
    PROCESS,
    RANDOM,
    RERUN,
    SearchCell,
    of_task,
)
from butter_etl.studies.capacity.hyperparameters import check_hparams, hparams_text, parse_hparams
from butter_etl.studies.capacity.networks import network_of
from butter_etl.studies.capacity.tasks import ANSWER_WIDTH, MOST_COMPUTE_STEPS, NUMBER_WIDTH
from butter_etl.studies.capacity.texts import HASH_DIGITS
from butter_etl.studies.sweep_files import SweepReader
from butter_etl.studies.sweeps import Cube, Sweep, plain_space

_MOST_RUNS: Final = 2**16 - 1
#: The steps of a sum, of all that networks may have to compute it, and of its answer.
_STEPS_OF_SUMS: Final = 2 * (NUMBER_WIDTH + 1) + MOST_COMPUTE_STEPS + ANSWER_WIDTH
_HASH: Final = re.compile(rf"[0-9a-f]{{{HASH_DIGITS}}}")


class CellCube(Cube, frozen=True):
    """A cube of cells. Where an axis has None, its cells have what their task has."""

    space = plain_space(SearchCell, HYPERPARAMETERS)

    def holds(self, cell: tuple[Any, ...]) -> bool:
        """Tell whether these values, one an axis, are a cell of the cube."""
        named = dict(zip(self.space.axes, cell, strict=True))
        for axis, values in zip(self.space.axes, self.axes, strict=True):
            if axis in OF_TASKS:
                if named[axis] not in {of_task(axis, named["task_type"], value) for value in values}:
                    return False
            elif named[axis] not in values:
                return False
        return True


class CapacityReader(SweepReader):
    """Reads the study's sweep files. Hyperparameters of a rerun are a mapping there, or JSON."""

    def checked_value(self, axis: str, value: Any, place: str, own: Collection[str]) -> Any:
        """Return a value of an axis as cells have it; raise SpecError for one that it cannot have."""
        if axis == "fixed_hparams" and value is not None:
            try:
                return hparams_text(parse_hparams(value))
            except SpecError as error:
                raise SpecError(f"{place}.{axis}: {error}") from error
        if axis == "text_sha256" and value is not None and not _HASH.fullmatch(value):
            raise SpecError(
                f"{place}.{axis}: {value!r} is no text; give the first {HASH_DIGITS} hexadecimal digits of the SHA-256 "
                "of its letters"
            )
        return super().checked_value(axis, value, place, own)

    def _cube(self, file: Any, own: Mapping[str, Any], place: str) -> Cube:
        cube = super()._cube(file, own, place)
        for cell in cube.experiments():
            if isinstance(cell, SearchCell):
                try:
                    check_cell(cell)
                except SpecError as error:
                    raise SpecError(f"{place}: {error}") from error
        return cube

    def _with_lists_of_values(self, cube: Any) -> Any:
        """Return a cube in which hyperparameters that are a mapping are its JSON."""
        if isinstance(cube, dict) and "fixed_hparams" in cube:
            said = cube["fixed_hparams"]
            listed = [_as_text(one) for one in said] if isinstance(said, list) else _as_text(said)
            cube = {**cube, "fixed_hparams": listed}
        return super()._with_lists_of_values(cube)


def _as_text(said: Any) -> Any:
    """Return a mapping as JSON, where that is possible."""
    try:
        return hparams_text(said) if isinstance(said, dict) else said
    except (TypeError, ValueError):
        return said


def check_cell(cell: SearchCell) -> None:
    """Raise SpecError for a cell whose settings contradict each other."""
    if cell.min_train_steps > cell.max_train_steps:
        raise SpecError(f"min_train_steps: {cell.min_train_steps} is above max_train_steps, {cell.max_train_steps}")
    if (cell.search == RERUN) != (cell.fixed_hparams is not None):
        said = "must name" if cell.search == RERUN else "cannot name"
        raise SpecError(f"fixed_hparams: a cell with search {cell.search!r} {said} the hyperparameters of all trials")
    fewest = cell.min_train_steps
    if cell.fixed_hparams is not None:
        hparams = parse_hparams(cell.fixed_hparams)
        try:
            check_hparams(cell, network_of(cell).parameters, hparams)
        except InfeasibleError:
            return  # as plans say
        except SpecError as error:
            raise SpecError(f"fixed_hparams: {error}") from error
        fewest = int(hparams["train_steps"])
    if fewest < cell.n_points:
        raise SpecError(f"n_points: {cell.n_points} measuring points are more than the {fewest} steps of a training")
    if cell.task_type == "arithmetic" and (cell.unroll_steps or 0) < _STEPS_OF_SUMS:
        raise SpecError(f"unroll_steps: arithmetic takes at least {_STEPS_OF_SUMS} steps, not {cell.unroll_steps}")


# --- published ---------------------------------------------------------------------------------------------------

#: Budgets that are likely: what is known is that 1,280,000 fits the published example, and those of parens.
BUDGETS: Final = tuple(10_000 * 2**power for power in range(8))
PARENS_BUDGETS: Final = tuple(sorted({*BUDGETS, 100_000, 200_000}))
#: Budgets within which layers have around 64 units, as mem_thru asks for.
MEMORY_BUDGETS: Final = (10_000, 20_000, 40_000, 80_000)
#: Numbers of unrolled steps; the figure's own are not known.
UNROLLED: Final = (1, 2, 3, 5, 8, 12, 20)


def _cells(task_type: str, depths: tuple[int, ...], budgets: tuple[int, ...], **more: Any) -> CellCube:
    return CellCube.of(
        task_type=(task_type,),
        architecture=ARCHITECTURES,
        n_layers=depths,
        max_params=budgets,
        **{"search": (PROCESS,), **more},
    )


#: What the figures of the article show: tasks, depths, and how many trials at least, are published, as are the two
#: budgets of parens that are named; other budgets and numbers of steps are inferred or chosen. Of +rnn at depth 1 there
#: are no networks.
PUBLISHED: Final[Mapping[str, Sweep]] = {
    one.name: one
    for one in (
        Sweep("rnn_capacity_fig1_per_cap", 1000, (_cells("per_cap", (1, 2, 4), BUDGETS),)),
        Sweep("rnn_capacity_fig2_mem_thru", 1000, (_cells("mem_thru", (1, 2, 4, 8), MEMORY_BUDGETS),)),
        Sweep("rnn_capacity_fig2_unrolled", 1000, (_cells("per_cap", (1,), (10_000,), unroll_steps=UNROLLED),)),
        Sweep("rnn_capacity_fig3_text8", 1000, (_cells("text8", (1, 2, 4), BUDGETS),)),
        Sweep("rnn_capacity_fig3_rcf", 1000, (_cells("rcf", (1, 2, 4), BUDGETS),)),
        Sweep("rnn_capacity_fig4_parens", 1500, (_cells("parens_counting", (1, 2, 4, 8), PARENS_BUDGETS),)),
        Sweep("rnn_capacity_fig4_arithmetic", 1500, (_cells("arithmetic", (1, 2, 4, 8), BUDGETS),)),
        Sweep(
            "rnn_capacity_fig5_random",
            1000,
            (_cells("parens_counting", (1, 8), (200_000,), search=(RANDOM,)),),
        ),
    )
}
READER: Final = CapacityReader(
    "rnn_capacity", CellCube, HYPERPARAMETERS, max_runs=_MOST_RUNS, published=tuple(PUBLISHED)
)
