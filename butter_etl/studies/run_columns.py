"""The columns that runs and summaries of any study have, around those that are its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from butter_etl.engines import Reduction
from butter_etl.studies.columns import FACTS, LONG_TEXT, Column, extremum_columns, series_columns

EXPERIMENT_ID: Final = Column("experiment_id", pa.uint32(), "the experiment: every parameter, the seed left out")
RUN_ID: Final = Column("run_id", pa.string(), "the run: one repetition of an experiment", LONG_TEXT)
BATCH: Final = Column("batch", pa.string(), "the sweep that first asked for the experiment")
TASK: Final = Column("task", pa.string(), "what made the run")
PYTHON: Final = Column("python_version", pa.string(), "version of Python")
#: What tells where a run was trained, and by what.
PLACE: Final = (
    Column("platform", pa.string(), "operating system and machine"),
    Column("git_hash", pa.string(), "commit of the software; null outside a checkout"),
    Column("hostname", pa.string(), "machine that trained the run"),
    Column("task_version", pa.uint16(), "major version of what made the run"),
)
#: What tells which run it is, and when it was trained.
TOLD: Final = (
    Column("command", pa.string(), "the whole task as JSON", LONG_TEXT),
    Column("seed", pa.int64(), "seed of all that is random in the run"),
    Column("start_time", pa.int64(), "when training began, unix seconds"),
    Column("update_time", pa.int64(), "when training ended, unix seconds"),
)
#: What tells how a run was trained.
TRAINING: Final = (
    Column("repetition", pa.uint16(), "number of the repetition, from 0"),
    Column("torch_version", pa.string(), "version of torch"),
    Column("engine", pa.string(), "engine that trained the run"),
    Column("device", pa.string(), "cpu or cuda"),
    Column("cpu_family", pa.string(), "vendor, family and model of the processor"),
    Column("stack", pa.uint16(), "runs trained side by side with this one, itself included"),
    Column("core_seconds", pa.float32(), "CPU time of the run, seconds"),
    Column("job_id", pa.string(), "id of the job in the site's queue; null outside a job"),
    Column("end_reason", pa.string(), "why training ended"),
)

#: Files from before it was declared lack it.
ENVIRONMENT: Final = Column(
    "environment",
    pa.string(),
    "what the bits of the run depend on besides: versions, kernels, threads, hash of the data; JSON",
    FACTS,
    later=True,
)

#: Columns in which the same run may say something else when it is trained again: where, when, by what, at what cost.
CIRCUMSTANCES: Final = frozenset(
    {
        *(one.name for one in (PYTHON, *PLACE, *TRAINING, ENVIRONMENT)),
        "start_time",
        "update_time",
    }
    - {"task_version", "repetition"}
)


def run_columns(own: Iterable[Column], histories: Iterable[Column]) -> tuple[Column, ...]:
    """Return the columns of a run frame: ``own`` are parameters, what follows from them, and details of runs."""
    return EXPERIMENT_ID, RUN_ID, BATCH, TASK, *own, PYTHON, *PLACE, *TOLD, *TRAINING, *histories, ENVIRONMENT


def summary_columns(reduction: Reduction, own: Iterable[Column], histories: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns of a summary frame: ``own`` are parameters, and what follows from them."""
    by_name = {one.name: one for one in histories}
    kind = pa.list_(pa.field("element", reduction.counts))
    return (
        EXPERIMENT_ID,
        BATCH,
        TASK,
        *own,
        Column("num_runs", reduction.counts, "number of runs of the experiment"),
        Column("num", kind, f"number of runs that reach the {reduction.point}"),
        *series_columns(reduction, "published", by_name),
        *series_columns(reduction, "added", by_name),
        *extremum_columns(reduction),
    )
