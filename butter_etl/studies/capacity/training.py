"""How rnn_capacity trains: the trials of a cell one after the other, each measured at equal parts of its training.

A trial has hyperparameters of its own and a start of its own seed; batches are the same for all trials. One whose loss,
or the norm of whose gradient, is no finite number any more is infeasible, and ends there. A trial that was stopped
anywhere goes on to the same bits, on one kind of machine.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import (
    Device,
    Facts,
    arithmetic,
    draw_recurrent_start,
    load_recurrent_trainer,
    recurrent_facts,
)
from butter_etl.errors import InfeasibleError
from butter_etl.studies.capacity.columns import DIVERGED_FROM
from butter_etl.studies.capacity.experiments import SearchCell, cell_of
from butter_etl.studies.capacity.hyperparameters import HyperValue, draw, hparams_text, parse_hparams
from butter_etl.studies.capacity.networks import descent_of, network_of, products, start_of, trial_network
from butter_etl.studies.capacity.tasks import Part, TaskData, task_data
from butter_etl.studies.capacity.texts import find_letters
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.identity import Value
from butter_etl.studies.trainers import Cost, Kept, Results, State, Watch

if TYPE_CHECKING:
    from butter_etl.engines import RecurrentTrainer

#: Multiplications a second of a core, and seconds that a step of the training takes besides: by itself, and for each
#: step of a sequence in each layer; of a GPU likewise.
_RATES: Final[Mapping[tuple[str, Device], tuple[float, float, float]]] = {
    ("compiled", "cpu"): (4e10, 5e-5, 1e-5),
    ("reference", "cpu"): (1e10, 1e-3, 3e-4),
    ("reference", "cuda"): (1e12, 1e-3, 5e-4),
}
#: A training step takes about three times the multiplications of looking at a batch.
_STEP: Final = 3
_WATCH_SECONDS: Final = 1.0
DIVERGED: Final = "diverged"
#: The hyperparameters that have columns of their own.
PROMOTED: Final = (
    "lr_init",
    "lr_decay_rate",
    "train_steps",
    "optimizer",
    "optimizer_logit_momentum",
    "gradient_clip_val",
    "l2_decay",
    "recurrent_matrix_init_type",
    "recurrent_bias_init_type",
    "nonlinearity",
)
#: What is measured at each point, and the facts of a whole trial that come of its last one.
_MEASURES: Final = ("progress", "step", "train_loss", "valid_loss", "eval_loss")
_FACTS: Final = ("accuracy", "mutual_information_bits")
#: The arrays of a state that have a row a trial; the others are of the trial that is under way.
_SO_FAR, _LAST, _INFEASIBLE = "measured", "last", "infeasible"
_SUM, _NETWORK = "sum", "network."


class CapacityTrainer:
    """Trains the trials of rnn_capacity."""

    engines: Mapping[Device, tuple[str, ...]] = {"cpu": ("compiled", "reference"), "cuda": ("reference",)}
    runs_differ = False
    goes_on = True
    #: The compiled engine leaves the interpreter to others while it trains.
    threaded = ("compiled",)
    buildable_by = ()

    def can_build(self, one: SearchCell) -> bool:
        """Tell whether there is a network within the budget of a cell."""
        try:
            network_of(one)
        except InfeasibleError:
            return False
        return True

    def derive(self, one: SearchCell) -> Mapping[str, Value]:
        """Return the derived columns of a cell; raise InfeasibleError where there is no network within its budget."""
        network = network_of(one)
        return {"num_params": network.parameters, "n_units": network.units}

    def points(self, run: RunSpec) -> int:
        """Return the number of measuring points of a trial."""
        return cell_of(run.experiment).n_points

    def estimator(self, engine: str, device: Device) -> Callable[[RunSpec], Cost]:
        """Return a function that estimates the cost of a trial, as it is on average in its cell."""
        rate, batch_seconds, step_seconds = _RATES[engine, device]

        def estimate(run: RunSpec) -> Cost:
            cell = cell_of(run.experiment)
            network, steps = network_of(cell), cell.unroll_steps or 0
            sequence = products(cell) * steps / rate
            taken = _STEP * cell.batch_size * sequence + batch_seconds + step_seconds * steps * cell.n_layers
            measured = cell.n_points * 2 * cell.eval_size * sequence
            # A layer keeps its gates, its state and its input at each step of a batch, and their gradients.
            kept = 4.0 * 8 * cell.n_layers * network.units * steps * cell.batch_size
            numbers = 4.0 * 3 * network.parameters
            histories = 8.0 * len(_MEASURES) * cell.n_points
            return Cost(
                seconds=mean_train_steps(cell) * taken + measured,
                watch_seconds=_WATCH_SECONDS + taken + measured / cell.n_points,
                bytes=3.0 * numbers + 2.0 * kept,
                state_bytes=numbers + histories,
            )

        return estimate

    def stack_key(self, run: RunSpec) -> str:
        """Return a key: trials of one cell share a task, which lands them in one file."""
        return run.experiment.canonical_json()

    def fitting(self, runs: Sequence[RunSpec], data: TaskData, device: Device) -> int:
        """Return how many trials fit side by side: as they are trained one by one, all."""
        del data, device
        return len(runs)

    def fetch(self, experiments: Iterable[SearchCell], folder: Path) -> None:
        """Look for the texts that are to be learned. Raises DatasetError for one that is not there, or too short."""
        for one in {(cell.task_type, cell.text_sha256): cell for cell in experiments}.values():
            if one.task_type == "text8":
                _ = load_task(one, folder).inputs

    def load(self, one: SearchCell, folder: Path, kept: Kept) -> TaskData:
        """Return the data of a cell's task. Raises DatasetError where its text is not there."""
        del kept
        return load_task(one, folder)

    def environment(self, data: TaskData, engine: str, device: Device) -> Facts:
        """Return what carries out the arithmetic, and the SHA-256 of a text's letters."""
        return {**arithmetic(), **recurrent_facts(engine, device), "data": data.sha256}

    def prepare(self, engine: str) -> None:
        """Make an engine ready in this process: the first use of a compiled one compiles, and says so in the log."""
        cell = SearchCell(
            task_type="per_cap", architecture="gru", n_layers=1, max_params=100, eval_size=1, input_size=4
        )
        hparams = draw(cell, network_of(cell).parameters, 0)
        data, trainer = task_data(cell), _trainer(cell, hparams, task_data(cell), engine, "cpu", 0, None)
        trainer.train_batch(data.batch(hparams, 0), 0)
        trainer.evaluate(data.batch(hparams, 0))

    def train(
        self,
        runs: Sequence[RunSpec],
        data: TaskData,
        *,
        engine: str,
        device: Device,
        start: State | None = None,
        watch: Watch | None = None,
    ) -> Results:
        """Train trials of a cell one after the other, from the beginning, or from a state that they left."""
        trials = Trials(runs, data, engine, device, start)
        trials.train(watch)
        return trials.results()


@lru_cache(maxsize=16)
def load_task(cell: SearchCell, folder: Path) -> TaskData:
    """Return the data of a cell's task. Raises DatasetError where its text is not there, or too short."""
    if cell.task_type != "text8":
        return task_data(cell)
    found = task_data(cell, find_letters(cell.text_sha256, folder))
    found.batch({}, 0)  # which looks at how long the text is
    return found


def mean_train_steps(cell: SearchCell) -> float:
    """Return how many steps trials of a cell take on average."""
    if cell.fixed_hparams is not None:
        return float(parse_hparams(cell.fixed_hparams)["train_steps"])
    low, high = cell.min_train_steps, cell.max_train_steps
    return (high - low) / math.log(high / low) if high > low else float(low)


def hparams_of(run: RunSpec) -> dict[str, HyperValue]:
    """Return the hyperparameters of a trial: what was proposed, or its cell's, or what its seed draws."""
    cell = cell_of(run.experiment)
    if run.given is not None:
        given: dict[str, HyperValue] = json.loads(run.given)
        return given
    if cell.fixed_hparams is not None:
        return parse_hparams(cell.fixed_hparams)
    return draw(cell, network_of(cell).parameters, run.seed)


def steps_at(train_steps: int, point: int, points: int) -> int:
    """Return how many steps a trial has behind it at a measuring point, counted from 1; at the last one, all."""
    return train_steps * point // points


def mutual_information(right: int, count: int) -> float:
    """Return the bits that a network knows of ``count`` random labels, of which it gives so many right.

    It is b + b (p log2 p + (1 - p) log2 (1 - p)), p the share that is right.
    """
    share = right / count
    entropy = -sum(part * math.log2(part) for part in (share, 1.0 - share) if part > 0)
    return count * (1.0 - entropy)


def _trainer(
    cell: SearchCell,
    hparams: Mapping[str, HyperValue],
    data: TaskData,
    engine: str,
    device: Device,
    seed: int,
    state: Mapping[str, NDArray[Any]] | None,
) -> RecurrentTrainer:
    network, descent = trial_network(cell, hparams), descent_of(hparams)
    start = state or draw_recurrent_start(network, start_of(cell, hparams), descent.optimizer, seed)
    return load_recurrent_trainer(engine)(network, data.objective(hparams), descent, start, device=device)


class _Measured(NamedTuple):
    """What a set says of a network: its loss, and the share of answers that are right, if there are any."""

    loss: float
    right: int
    answers: int


class Trials:
    """The trials of a stack in training: which are done, where the one under way is, and what was measured."""

    def __init__(
        self, runs: Sequence[RunSpec], data: TaskData, engine: str, device: Device, start: State | None
    ) -> None:
        self._runs, self._data, self._engine, self._device = runs, data, engine, device
        self._cell = cell_of(runs[0].experiment)
        self._hparams = [hparams_of(run) for run in runs]
        count, points = len(runs), self._cell.n_points
        self._points, self._steps = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self._measured = np.full((count, points, len(_MEASURES)), np.nan)
        self._last = np.full((count, len(_FACTS)), np.nan)
        self._infeasible = np.zeros(count, np.bool_)
        for number, hparams in enumerate(self._hparams):
            steps = [steps_at(int(hparams["train_steps"]), point, points) for point in range(1, points + 1)]
            self._measured[number, :, 0] = np.arange(1, points + 1) / points
            self._measured[number, :, 1] = steps
        self._sum, self._trainer = 0.0, None
        self._left: Mapping[str, NDArray[Any]] | None = None
        if start is not None:
            self._points, self._steps = np.array(start.points), np.array(start.steps)
            self._measured, self._last = np.array(start.arrays[_SO_FAR]), np.array(start.arrays[_LAST])
            self._infeasible = np.array(start.arrays[_INFEASIBLE], np.bool_)
            names = [name for name in start.arrays if name.startswith(_NETWORK)]
            self._left = {name.removeprefix(_NETWORK): start.arrays[name] for name in names}
            self._left_sum = float(start.arrays[_SUM][0]) if names else 0.0

    _trainer: RecurrentTrainer | None

    def train(self, watch: Watch | None) -> None:
        """Train all to their ends, or until the watch raises."""
        for number in range(len(self._runs)):
            if self._points[number] < self._cell.n_points:
                self._train_one(number, watch)

    def _train_one(self, number: int, watch: Watch | None) -> None:
        """Train a trial to its end; one that diverges is not trained on."""
        is_under_way = bool(self._points[number] or self._steps[number])
        state, self._sum = (self._left, self._left_sum) if is_under_way else (None, 0.0)
        hparams, seed = self._hparams[number], self._runs[number].seed
        self._trainer = _trainer(self._cell, hparams, self._data, self._engine, self._device, seed, state)
        called = time.monotonic()
        while self._points[number] < self._cell.n_points:
            first, last = self._stretch(number)
            while self._steps[number] < last - first:
                if not self._step(number, first + int(self._steps[number])):
                    self._end(number)
                    return
                if watch is not None and time.monotonic() - called >= _WATCH_SECONDS:
                    share = int(self._steps[number]) / (last - first)
                    watch(float(self._points.sum()) + share, self.state)
                    called = time.monotonic()
            self._measure(number, last - first)
            if watch is not None and self._points[number] < self._cell.n_points:
                watch(float(self._points.sum()), self.state)
                called = time.monotonic()
        self._trainer = None

    def _stretch(self, number: int) -> tuple[int, int]:
        """Return the steps before the next measuring point: the first, and the one behind the last."""
        steps, point = int(self._hparams[number]["train_steps"]), int(self._points[number])
        return tuple(steps_at(steps, one, self._cell.n_points) for one in (point, point + 1))  # type: ignore[return-value]

    @property
    def _training(self) -> RecurrentTrainer:
        if self._trainer is None:
            raise AssertionError("no trial is under way")
        return self._trainer

    def _step(self, number: int, step: int) -> bool:
        """Take a step; tell whether the training goes on: it has not diverged."""
        taken = self._training.train_batch(self._data.batch(self._hparams[number], step), step)
        self._sum += taken.loss
        self._steps[number] += 1
        return taken.loss < DIVERGED_FROM and math.isfinite(taken.norm)

    def _end(self, number: int) -> None:
        """End a trial that diverged: its losses are no numbers from here on."""
        self._points[number], self._steps[number] = self._cell.n_points, 0
        self._infeasible[number], self._last[number] = True, np.nan
        self._trainer = None

    def _measure(self, number: int, steps: int) -> None:
        point = int(self._points[number])
        train, valid, evaluated = (
            self._sum / steps,
            self._evaluated(number, "valid"),
            self._evaluated(number, "eval"),
        )
        self._points[number], self._steps[number], self._sum = point + 1, 0, 0.0
        if not (valid.loss < DIVERGED_FROM and evaluated.loss < DIVERGED_FROM):
            self._end(number)
            return
        information = math.nan
        losses = [train, valid.loss, evaluated.loss]
        if self._cell.task_type == "per_cap":
            information = mutual_information(evaluated.right, evaluated.answers)
            losses[1:] = [-mutual_information(valid.right, valid.answers), -information]
        if self._cell.task_type == "text8":  # in bits
            losses = [loss / math.log(2.0) for loss in losses]
        self._measured[number, point, 2:] = losses
        share = evaluated.right / evaluated.answers if evaluated.answers else math.nan
        self._last[number] = share, information

    def _evaluated(self, number: int, part: Part) -> _Measured:
        loss, right, answers, rows = 0.0, 0, 0, 0
        for sequences in self._data.held_out(self._hparams[number], part):
            found = self._training.evaluate(sequences)
            loss, right, answers = loss + found.loss, right + found.right, answers + found.answers
            rows += sequences.rows
        return _Measured(loss / rows, right, answers)

    def state(self) -> State:
        """Return all that is needed to go on."""
        arrays: dict[str, NDArray[Any]] = {
            _SO_FAR: self._measured.copy(),
            _LAST: self._last.copy(),
            _INFEASIBLE: self._infeasible.astype(np.uint8),
        }
        shared: dict[str, NDArray[Any]] = {}
        if self._trainer is not None:
            shared = {f"{_NETWORK}{name}": np.asarray(values) for name, values in self._trainer.state().items()}
            shared[_SUM] = np.array([self._sum])
        return State(self._points.copy(), self._steps.copy(), {**arrays, **shared}, frozenset(shared))

    def results(self) -> Results:
        """Return the histories, the hyperparameters, and the facts of each trial."""
        histories: dict[str, Any] = {name: self._measured[:, :, at] for at, name in enumerate(_MEASURES)}
        histories["step"] = histories["step"].astype(np.int64)
        size = network_of(self._cell).parameters
        facts = [[None if math.isnan(value) else float(value) for value in row] for row in self._last.tolist()]
        details: dict[str, Sequence[Any]] = {
            "hyper_iter": [run.repetition for run in self._runs],
            "hparams": [hparams_text(one) for one in self._hparams],
            **{key: [one.get(key) for one in self._hparams] for key in PROMOTED},
            "infeasible": self._infeasible.tolist(),
            **{name: [row[at] for row in facts] for at, name in enumerate(_FACTS)},
            "bits_per_parameter": [None if bits is None else bits / size for _, bits in facts],
        }
        ends = [DIVERGED if ended else None for ended in self._infeasible.tolist()]
        return Results(histories, details, ends)
