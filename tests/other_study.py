"""A study that shares nothing with BUTTER but the contract: keys of every type, other widths, histories of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from butter_etl.engines.statistics import AVG, MEDIAN, Q1, Q3, Extremum, Reduction, Series
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.axes import Axis, hyperparameters
from butter_etl.studies.cards import Card
from butter_etl.studies.columns import UINT8_LIST, UINT32_LIST, Column, extremum_columns, series_columns
from butter_etl.studies.experiments import OwnExperiment, RunSpec
from butter_etl.studies.figures import Figures
from butter_etl.studies.profiles import Profile
from butter_etl.studies.study import Points, Study
from butter_etl.studies.sweep_files import SweepReader
from butter_etl.studies.sweeps import Cube, Sweep, plain_space
from butter_etl.studies.trainers import Cost
from butter_etl.summarize import plan_summaries, run_summaries

#: A key of every type that a key may have, with its largest value, or one that is written with many digits.
KEY_TYPES = {
    "solver": (pa.string(), "tree/ä b"),
    "centred": (pa.bool_(), True),
    "shift": (pa.int8(), -128),
    "offset": (pa.int16(), -(2**15)),
    "bias": (pa.int32(), -(2**31)),
    "start": (pa.int64(), -(2**63)),
    "order": (pa.uint8(), 2**8 - 1),
    "degree": (pa.uint16(), 2**16 - 1),
    "rows": (pa.uint32(), 2**32 - 1),
    "bytes": (pa.uint64(), 2**64 - 1),
    "rate": (pa.float32(), 0.1),
    "decay": (pa.float64(), 1 / 3),
}
DOUBLES = pa.list_(pa.field("element", pa.float64()))
WHOLES = pa.list_(pa.field("element", pa.int64()))


class Fit(OwnExperiment, frozen=True, kw_only=True, cache_hash=True, omit_defaults=True):
    """A curve that is fitted; every parameter may be null but the solver and the number of steps."""

    study: ClassVar[str] = "fits"
    task: ClassVar[str] = "fits.fit"
    task_version: ClassVar[int] = 3

    solver: Annotated[str, Axis()]
    centred: Annotated[bool | None, Axis(None)] = None
    shift: Annotated[int | None, Axis(None)] = None
    offset: Annotated[int | None, Axis(None)] = None
    bias: Annotated[int | None, Axis(None)] = None
    start: Annotated[int | None, Axis(None)] = None
    order: Annotated[int | None, Axis(None)] = None
    degree: Annotated[int | None, Axis(None)] = None
    rows: Annotated[int | None, Axis(None)] = None
    bytes: Annotated[int | None, Axis(None)] = None
    rate: Annotated[float | None, Axis(None)] = None
    decay: Annotated[float | None, Axis(None, bits=64)] = None
    knots: Annotated[tuple[int, ...], Axis((1, 2))] = (1, 2)
    steps: Annotated[int, Axis(9)] = 9


HYPERPARAMETERS = hyperparameters(Fit)


class FitCube(Cube, frozen=True):
    """A cube of fits."""

    space = plain_space(Fit, HYPERPARAMETERS)


class Fitter:
    """What fits; nothing is fitted here."""

    engines: Mapping[str, tuple[str, ...]] = {"cpu": ("newton", "bisection")}
    threaded = ()
    buildable_by = ("steps",)
    runs_differ = False
    goes_on = True

    def estimator(self, engine: str, device: str) -> Callable[[RunSpec], Cost]:
        """Return the cost of any run."""
        return lambda run: Cost(3600.0, 1.0, 1.0, 1.0)

    def can_build(self, one: Fit) -> bool:
        """Tell whether there is such a curve: always."""
        return one.steps > 0

    def derive(self, one: Fit) -> Mapping[str, Any]:
        """Return the derived columns."""
        return {"terms": len(one.knots)}


def _series(name: str) -> Series:
    return Series(f"fit_{name}", name, name, f"{name} of the fit", (AVG, MEDIAN), (Q1, Q3))


REDUCTION = Reduction("error", (_series("error"), _series("norm")), (Extremum("error_min", "error", "min", "error"),))
_HISTORIES = {
    "error": Column("error", DOUBLES, "error of the fit, a value a step"),
    "norm": Column("norm", DOUBLES, "norm of the residuals, a value a step"),
    "rejected": Column("rejected", WHOLES, "steps that were tried in vain, a value a step"),
}
_ID = Column("experiment_id", pa.uint64(), "the fit")
_PARAMETERS = (
    *(Column(name, kind, f"parameter {name}") for name, (kind, _) in KEY_TYPES.items()),
    Column("knots", UINT32_LIST, "places of the knots"),
    Column("steps", pa.uint32(), "steps of the fit, at most"),
)
_TERMS = Column("terms", pa.uint32(), "number of terms")
_FLAG = Column("coarse_sweep", pa.bool_(), "whether the fit is part of the coarse sweep")

COARSE = Sweep("coarse", 2, (FitCube.of(solver=("direct", "tree/ä b"), steps=(9,)),))

#: The study.
FITS = Study(
    name="fits",
    experiment=Fit,
    keys=tuple(KEY_TYPES),
    run_columns=(
        Column("run_id", pa.string(), "the repetition of a fit"),
        _ID,
        Column("repetition", pa.uint32(), "number of the repetition"),
        Column("task", pa.string(), "what made it"),
        Column("task_version", pa.uint8(), "its version"),
        Column("batch", pa.string(), "the sweep that asked for it"),
        Column("command", pa.string(), "the whole task as JSON"),
        Column("seed", pa.int64(), "its seed"),
        _FLAG,
        *_PARAMETERS,
        _TERMS,
        *_HISTORIES.values(),
        Column("seconds", pa.float64(), "time that it took"),
    ),
    summary_columns=(
        _ID,
        _FLAG,
        *_PARAMETERS,
        _TERMS,
        Column("num_runs", pa.uint8(), "number of repetitions"),
        Column("num", UINT8_LIST, "number of repetitions that reach the step"),
        *series_columns(REDUCTION, "published", _HISTORIES),
        *series_columns(REDUCTION, "added", _HISTORIES),
        *extremum_columns(REDUCTION),
    ),
    parameters=(*KEY_TYPES, "knots", "steps"),
    derived=("terms",),
    histories=tuple(_HISTORIES),
    reduction=REDUCTION,
    reader=SweepReader("fits", FitCube, HYPERPARAMETERS, max_runs=REDUCTION.max_runs, published=("coarse",)),
    trainer=Fitter(),
    figures=Figures({"fit_error": "error"}),
    card=Card(title="Fits", version="3.0.0", description="Curves that were fitted.", cited=""),
    label=lambda parameters: f"fit by {parameters['solver']}",
    discrete=("decay",),
    varied=("solver", "steps"),
    swept=("solver", "decay", "knots", "steps"),
    points=Points("step", count="steps"),
    executive_names=("experiment_id", *KEY_TYPES, "steps", "fit_norm_median", "fit_error_median", "fit_error_q1"),
    flags={"coarse_sweep": "coarse"},
    sweeps={"coarse": COARSE},
    profiles={
        "seed": Profile("seed"),
        "old": Profile("old", names={"error": "residual"}, constants={"shift": None}),
    },
)

#: All keys null that may be, and none.
NULLS, FULL = Fit(solver="direct"), Fit(**{name: value for name, (_, value) in KEY_TYPES.items()}, knots=(3, 4, 5))
MANY = Fit(solver="many", rate=0.25, steps=4)
EXPERIMENTS = (NULLS, FULL, MANY)


def make_fits(one: Fit, experiment_id: int, repetitions: range, batch: str = "coarse") -> pa.Table:
    """Rows of the run schema, with histories that depend on the repetition only."""
    rows = []
    for repetition in repetitions:
        run = RunSpec(one, repetition)
        noise = np.random.default_rng(repetition).random((2, one.steps))
        rows.append(
            {
                **one.parameters(),
                **FITS.flags_of(one),
                "experiment_id": experiment_id,
                "run_id": run.run_id,
                "repetition": repetition,
                "task": one.task,
                "task_version": one.task_version,
                "batch": batch,
                "command": run.command(batch),
                "seed": run.seed,
                "terms": len(one.knots),
                "error": noise[0],
                "norm": noise[1],
                "rejected": range(one.steps),
                "seconds": repetition / 3,
            }
        )
    return pa.Table.from_pylist(rows, schema=FITS.runs)


def land_fits(store: Store) -> None:
    """Claim `EXPERIMENTS` and land three repetitions of each."""
    registry = Registry(store)
    registry.claim(store, dict.fromkeys(EXPERIMENTS, "coarse"))
    for one in EXPERIMENTS:
        number = registry.experiment_id(one)
        rows = make_fits(one, number, range(3)).select(FITS.run_files.names)
        store.land(store.partition_of(one), number, rows)


def make_store_of_fits(path: Path) -> Store:
    """A store of the study with all of `EXPERIMENTS`, summarised."""
    store = Store.create(path, study=FITS)
    land_fits(store)
    run_summaries(plan_summaries(store), store)
    return store
