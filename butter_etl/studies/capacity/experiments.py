"""An experiment of rnn_capacity: a search cell, the task, architecture, depth and budget that trials are made for.

The hyperparameters of a trial are not the cell's: they are drawn, or proposed, for each repetition. Only a cell that
trains one set of them again and again names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import msgspec

from butter_etl.studies.axes import Axis, Between, OneOf, hyperparameters
from butter_etl.studies.experiments import Experiment, OwnExperiment

TASK: Final = "rnn_capacity.train"
TASK_VERSION: Final = 1
TASK_TYPES: Final = ("per_cap", "mem_thru", "rcf", "text8", "parens_counting", "arithmetic")
ARCHITECTURES: Final = ("rnn", "irnn", "ugrnn", "gru", "lstm", "+rnn")
#: How the hyperparameters of trials are found: drawn, proposed by a Gaussian process, or the same for all.
RANDOM, PROCESS, RERUN = "random", "gp", "rerun"
SEARCHES: Final = (RANDOM, PROCESS, RERUN)
#: Where a cell does not say: steps that a network is unrolled for, and widths of vectors that are shown to it.
UNROLL_STEPS: Final[Mapping[str, int]] = {
    "per_cap": 5,
    "mem_thru": 12,
    "rcf": 50,
    "text8": 50,
    "parens_counting": 175,
    "arithmetic": 36,
}
INPUT_SIZES: Final[Mapping[str, int]] = {"per_cap": 32, "mem_thru": 64, "rcf": 50}
BATCH_SIZE: Final = 64
#: The steps that trials are published to take, at least and at most.
MIN_TRAIN_STEPS: Final = 50_000
MAX_TRAIN_STEPS: Final = 20_000_000
#: Measuring points of a trial.
N_POINTS: Final = 20
#: Sequences that a trial is validated on, and as many others that it is evaluated on.
EVAL_SIZE: Final = 1000


class SearchCell(OwnExperiment, frozen=True, kw_only=True, cache_hash=True, omit_defaults=True):
    """A cell: what is trained on what, within which budget, and how the hyperparameters of its trials are found.

    ``unroll_steps`` and ``input_size`` that are None become those of the task; what a task does not have is None.
    ``fixed_hparams`` are the hyperparameters of all trials of a rerun as canonical JSON, None of any other search.
    ``text_sha256`` is the beginning of the hash of the letters of a text, None for text8 itself.
    ``source_figure`` is of imported cells.
    """

    study: ClassVar[str | None] = "rnn_capacity"
    task: ClassVar[str] = TASK
    task_version: ClassVar[int] = TASK_VERSION

    task_type: Annotated[str, Axis(check=OneOf(TASK_TYPES))]
    architecture: Annotated[str, Axis(check=OneOf(ARCHITECTURES))]
    n_layers: Annotated[int, Axis(check=Between(1, 64))]
    max_params: Annotated[int, Axis(check=Between(1, 2**40))]
    unroll_steps: Annotated[int | None, Axis(None, Between(1, 2**16))] = None
    batch_size: Annotated[int, Axis(BATCH_SIZE, Between(1, 2**20))] = BATCH_SIZE
    search: Annotated[str, Axis(RANDOM, OneOf(SEARCHES))] = RANDOM
    fixed_hparams: Annotated[str | None, Axis(None)] = None
    min_train_steps: Annotated[int, Axis(MIN_TRAIN_STEPS, Between(1, 2**31))] = MIN_TRAIN_STEPS
    max_train_steps: Annotated[int, Axis(MAX_TRAIN_STEPS, Between(1, 2**31))] = MAX_TRAIN_STEPS
    n_points: Annotated[int, Axis(N_POINTS, Between(1, 2**16))] = N_POINTS
    data_seed: Annotated[int, Axis(0, Between(0, 2**63 - 1))] = 0
    eval_size: Annotated[int, Axis(EVAL_SIZE, Between(1, 2**24))] = EVAL_SIZE
    input_size: Annotated[int | None, Axis(None, Between(1, 2**16))] = None
    text_sha256: Annotated[str | None, Axis(None)] = None
    source_figure: str | None = None

    def __post_init__(self) -> None:
        """Complete what is not said by what the task has."""
        for name in OF_TASKS:
            value = of_task(name, self.task_type, getattr(self, name))
            if value != getattr(self, name):
                msgspec.structs.force_setattr(self, name, value)


#: The fields whose values depend on the task.
OF_TASKS: Final = ("unroll_steps", "input_size", "text_sha256")


def of_task(name: str, task_type: str, value: Any) -> Any:
    """Return the value that a field of `OF_TASKS` has in cells of a task, for the one that was said."""
    if name == "text_sha256":
        return value if task_type == "text8" else None
    defaults = UNROLL_STEPS if name == "unroll_steps" else INPUT_SIZES
    return (value or defaults[task_type]) if task_type in defaults else None


HYPERPARAMETERS: Final = hyperparameters(SearchCell)


def label(parameters: Mapping[str, Any]) -> str:
    """Return a short name of a cell for people."""
    shown = [parameters["task_type"], parameters["architecture"], f"depth {parameters['n_layers']}"]
    return " ".join([*shown, f"{parameters['max_params']} parameters", str(parameters["search"])])


def cell_of(one: Experiment) -> SearchCell:
    """Return an experiment of ours; raise TypeError for any other."""
    if not isinstance(one, SearchCell):
        raise TypeError(f"{one.describe()} is none of {TASK}")
    return one
