"""A study that is trained: noisy descents on small surfaces, in stacks, by NumPy alone.

Its runs end early, diverge, and are measured at points that a list column names. They can be stopped at any step. Its
frames have none of the columns that only BUTTER or studies of functions have.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from butter_etl.engines.statistics import AVG, MAX, MEDIAN, MIN, NUM_FINITE, Q1, Q3, STDDEV, Extremum, Reduction, Series
from butter_etl.studies.axes import Above, Axis, Between, OneOf, hyperparameters
from butter_etl.studies.cards import Card
from butter_etl.studies.columns import FLOAT64_LIST, UINT16_LIST, Column, extremum_columns, series_columns
from butter_etl.studies.experiments import OwnExperiment, RunSpec
from butter_etl.studies.figures import Figures
from butter_etl.studies.study import Points, Study
from butter_etl.studies.sweep_files import SweepReader
from butter_etl.studies.sweeps import Cube, Sweep, plain_space
from butter_etl.studies.trainers import Cost, Results, State, Watch

SURFACES = ("bowl", "ridge/ä b")
WHOLES = pa.list_(pa.field("element", pa.int64()))
LARGEST, SMALLEST = 1e9, 1e-4
#: Where it is set, nothing can be trained: what training raises must then be told.
BROKEN = "BUTTER_ETL_TEST_DESCENTS_BROKEN"


class Descent(OwnExperiment, frozen=True, kw_only=True, cache_hash=True, omit_defaults=True):
    """A descent from a place, on a surface with a valley as wide as the sizes say."""

    study: ClassVar[str] = "descents"
    task: ClassVar[str] = "descents.descend"
    task_version: ClassVar[int] = 2

    surface: Annotated[str, Axis(check=OneOf(SURFACES))]
    rate: Annotated[float, Axis(1 / 3, Above(0), bits=64)] = 1 / 3
    noisy: Annotated[bool | None, Axis(None)] = None
    place: Annotated[tuple[float, ...], Axis((1.0, 1 / 3), bits=64)] = (1.0, 1 / 3)
    sizes: Annotated[tuple[int, ...], Axis((1, 2))] = (1, 2)
    inner: Annotated[int, Axis(3, Between(1, 2**20))] = 3
    measured: Annotated[int, Axis(5, Between(0, 2**10))] = 5


AXES = hyperparameters(Descent)


class DescentCube(Cube, frozen=True):
    """A cube of descents."""

    space = plain_space(Descent, AXES)


def noise(seeds: NDArray[np.uint64], step: int, width: int) -> NDArray[np.float64]:
    """Numbers from -0.5 to 0.5 for each run and each of so many places, which depend on seed and step alone."""
    mixed = seeds[:, None] + np.uint64(step * 0x9E3779B97F4A7C15 % 2**64) + np.arange(1, width + 1, dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53 - 0.5


class Descender:
    """Trains descents, all runs of a stack at once."""

    engines: Mapping[str, tuple[str, ...]] = {"cpu": ("numpy", "also_numpy")}
    threaded = ()
    buildable_by = ("sizes", "place")
    runs_differ = False

    def can_build(self, one: Descent) -> bool:
        """Tell whether the place has as many coordinates as there are sizes."""
        return len(one.sizes) == len(one.place)

    def derive(self, one: Descent) -> Mapping[str, Any]:
        """Return the derived columns, but for one that only training tells."""
        return {"dimensions": len(one.sizes)}

    def points(self, run: RunSpec) -> int:
        """Return how many measuring points a run has, at most."""
        return run.experiment.measured

    def estimator(self, engine: str, device: str) -> Callable[[RunSpec], Cost]:
        """Return an estimate: some hundred runs a task."""
        return lambda run: Cost(0.01, 0.001, 1e4, 1e3)

    def stack_key(self, run: RunSpec) -> Hashable:
        """Return a key: all runs of one experiment are trained in one stack."""
        return run.experiment.canonical_json()

    def fitting(self, runs: Sequence[RunSpec], data: Any, device: str) -> int:
        """Return how many runs are trained side by side: at most 128."""
        return min(len(runs), 128)

    def fetch(self, experiments: Iterable[Descent], folder: Path) -> None:
        """Have nothing at hand."""

    def load(self, one: Descent, folder: Path, kept: Any) -> NDArray[np.float64]:
        """Return how steep a surface is along each coordinate."""
        return 1.0 / np.array(one.sizes, np.float64)

    def environment(self, data: NDArray[np.float64], engine: str, device: str) -> dict[str, str]:
        """Return a hash of the surface."""
        return {"data": hashlib.sha256(data.tobytes()).hexdigest()}

    def prepare(self, engine: str) -> None:
        """Compile nothing."""

    def train(
        self,
        runs: Sequence[RunSpec],
        data: NDArray[np.float64],
        *,
        engine: str,
        device: str,
        start: State | None = None,
        watch: Watch | None = None,
    ) -> Results:
        """Descend; between any two steps training can be stopped."""
        if os.environ.get(BROKEN):
            raise ArithmeticError("nothing descends here")
        stack = _Stack(runs, data, start)
        while stack.is_going:
            stack.step()
            if watch is not None and stack.is_going:
                watch(stack.done(), stack.state)
        return stack.results()


REASONS = ("completed", "diverged", "converged")


class _Stack:
    """Runs on their way. Those of one stack take their steps together, until they end."""

    def __init__(self, runs: Sequence[RunSpec], data: NDArray[np.float64], start: State | None) -> None:
        self.one = runs[0].experiment
        self.seeds = np.array([run.seed for run in runs], np.uint64)
        count, most = len(runs), self.one.measured
        self.points, self.within = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.arrays = {
            "place": np.tile(np.array(self.one.place, np.float64), (count, 1)),
            "total": np.zeros(count),
            # Of these names are what every state has, too.
            "steps": np.zeros(count, np.int64),
            "epochs": np.zeros(count, np.int64),
            "reason": np.zeros(count, np.int8),
            "loss": np.full((count, most), np.nan),
            "norm": np.full((count, most), np.nan),
            "uphill": np.zeros((count, most), np.int64),
        }
        self.shared = {"steepness": data, "heat": np.array(data.mean() / 64)}
        if start is not None:
            self.points, self.within = np.array(start.points), np.array(start.steps)
            self.arrays = {name: np.array(start.arrays[name]) for name in self.arrays}
            self.shared = {name: start.arrays[name] for name in self.shared}
            assert start.shared == set(self.shared)
            assert self.shared["heat"].shape == ()

    @property
    def going(self) -> NDArray[np.bool_]:
        """Which runs have not ended."""
        return self.points < self.one.measured

    @property
    def is_going(self) -> bool:
        return bool(self.going.any())

    def losses(self) -> NDArray[np.float64]:
        place, steepness = self.arrays["place"], self.shared["steepness"]
        with np.errstate(over="ignore"):
            return (steepness * (place**2 / 2 if self.one.surface == "bowl" else np.abs(place))).sum(axis=1)

    def step(self) -> None:
        """Take a step with all runs that are going, and measure those that are at a point."""
        a, going = self.arrays, self.going
        before, number = self.losses(), int(a["steps"].max())
        slope = a["place"] if self.one.surface == "bowl" else np.sign(a["place"])
        heat = self.shared["heat"] if self.one.noisy else 0.0
        pushed = a["place"] - self.one.rate * slope * self.shared["steepness"]
        pushed = pushed + heat * noise(self.seeds, number, pushed.shape[1])
        a["place"] = np.where(going[:, None], pushed, a["place"])
        after = self.losses()
        a["total"] += np.where(going, after, 0.0)
        a["epochs"] += going & (after > before)
        a["steps"] += going
        self.within += going
        self.measure(going & (self.within == self.one.inner), after)

    def measure(self, here: NDArray[np.bool_], losses: NDArray[np.float64]) -> None:
        """Measure some runs, the mean of the losses since their last point; end those that have gone too far."""
        a, rows = self.arrays, np.flatnonzero(here)
        at, is_far = self.points[rows], ~(losses[rows] < LARGEST)
        a["loss"][rows, at] = np.where(is_far, np.nan, a["total"][rows] / self.one.inner)
        a["norm"][rows, at] = np.sqrt((a["place"][rows] ** 2).sum(axis=1))
        a["uphill"][rows, at] = a["epochs"][rows]
        a["total"][rows] = 0.0
        a["epochs"][rows] = self.within[rows] = 0
        self.points[rows] += 1
        is_near = losses[rows] < SMALLEST
        a["reason"][rows] = np.where(self.points[rows] == self.one.measured, 0, is_far + 2 * is_near)
        a["place"][rows[is_far]] = np.inf
        self.points[rows[is_far | is_near]] = self.one.measured

    def done(self) -> float:
        return float(self.points.sum() + self.within.sum() / self.one.inner)

    def state(self) -> State:
        arrays = {name: np.array(array) for name, array in {**self.arrays, **self.shared}.items()}
        return State(self.points.copy(), self.within.copy(), arrays, frozenset(self.shared))

    def results(self) -> Results:
        lengths = (~np.isnan(self.arrays["norm"])).sum(axis=1)
        names = {"loss": "loss", "norm": "norm", "uphill": "uphill"}
        return Results(
            {
                name: [values[:length] for values, length in zip(self.arrays[array], lengths, strict=True)]
                for name, array in names.items()
            },
            {
                "moments": [moments(self.one, length) for length in lengths],
                "steepest": [float(self.shared["steepness"].max())] * len(lengths),
                "steps_taken": self.arrays["steps"].tolist(),
            },
            [REASONS[code] for code in self.arrays["reason"]],
        )


def moments(one: Descent, count: int) -> NDArray[np.float64]:
    """The measuring points of a run: how many steps it has taken, in hundreds, squared."""
    return (np.arange(1, count + 1) * one.inner / 100.0) ** 2


def _series(name: str, note: str) -> Series:
    return Series(f"descent_{name}", name, name, note, (NUM_FINITE, AVG, STDDEV, MIN, MAX, MEDIAN), (Q1, Q3))


REDUCTION = Reduction(
    "norm",
    (_series("loss", "mean loss"), _series("norm", "distance"), _series("uphill", "steps uphill")),
    (Extremum("loss_min", "loss", "min", "loss"),),
    counts=pa.uint16(),
    floats=pa.float64(),
    point="moment",
)
HISTORIES = {
    "loss": Column("loss", FLOAT64_LIST, "mean loss since the moment before, a value a moment"),
    "norm": Column("norm", FLOAT64_LIST, "distance from the valley, a value a moment"),
    "uphill": Column("uphill", WHOLES, "steps that went uphill, a value a moment"),
}
PARAMETERS = (
    Column("surface", pa.string(), "surface"),
    Column("rate", pa.float64(), "step size"),
    Column("noisy", pa.bool_(), "whether steps are noisy"),
    Column("place", FLOAT64_LIST, "where it begins"),
    Column("sizes", WHOLES, "how wide the valley is, a value a coordinate"),
    Column("inner", pa.uint32(), "steps between two moments"),
    Column("measured", pa.uint32(), "moments, at most"),
)
DERIVED = (
    Column("dimensions", pa.uint8(), "number of coordinates"),
    Column("steepest", pa.float64(), "largest steepness"),
)
MOMENTS = Column("moments", FLOAT64_LIST, "when it was measured")
ID = Column("experiment_id", pa.uint32(), "the descent")
FLAG = Column("plain_sweep", pa.bool_(), "whether the descent is part of the plain sweep")
PLAIN = Sweep(
    "plain",
    4,
    (DescentCube.of(surface=SURFACES, rate=(1 / 3, 3.5), noisy=(None, True), place=((1.0, 1 / 3), (1e-3, -0.0))),),
)

#: The study.
DESCENTS = Study(
    name="descents",
    experiment=Descent,
    keys=("surface", "rate", "noisy"),
    run_columns=(
        *PARAMETERS,
        *DERIVED,
        FLAG,
        ID,
        Column("run_id", pa.string(), "the run"),
        Column("repetition", pa.uint16(), "number of the repetition"),
        Column("task", pa.string(), "what made it"),
        Column("task_version", pa.uint8(), "its version"),
        Column("batch", pa.string(), "the sweep that asked for it"),
        Column("command", pa.string(), "the whole task as JSON"),
        Column("seed", pa.int64(), "its seed"),
        Column("end_reason", pa.string(), "why it ended"),
        Column("steps_taken", pa.int32(), "steps that it took"),
        MOMENTS,
        *HISTORIES.values(),
    ),
    summary_columns=(
        ID,
        FLAG,
        *PARAMETERS,
        *DERIVED,
        Column("num_runs", pa.uint16(), "number of runs"),
        Column("num", UINT16_LIST, "number of runs that reach the moment"),
        MOMENTS,
        *series_columns(REDUCTION, "published", HISTORIES),
        *series_columns(REDUCTION, "added", HISTORIES),
        *extremum_columns(REDUCTION),
    ),
    parameters=tuple(one.name for one in PARAMETERS),
    derived=tuple(one.name for one in DERIVED),
    histories=tuple(HISTORIES),
    reduction=REDUCTION,
    reader=SweepReader("descents", DescentCube, AXES, max_runs=REDUCTION.max_runs, published=("plain",)),
    trainer=Descender(),
    figures=Figures({"descent_loss": "mean loss", "descent_norm": "distance"}, comparable=("surface",)),
    card=Card(title="Descents", version="2.0.0", description="Descents on small surfaces."),
    label=lambda parameters: f"descent on {parameters['surface']} at {parameters['rate']}",
    varied=("surface", "rate", "inner"),
    swept=("surface", "rate", "noisy", "inner"),
    points=Points("moment", column="moments", count="measured"),
    flags={"plain_sweep": "plain"},
    sweeps={"plain": PLAIN},
    discrete=("rate",),
)
