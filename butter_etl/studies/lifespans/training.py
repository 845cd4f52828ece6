"""How nn_lifespans trains: one network at a time, measured in the middle and at the end of every epoch.

Half an epoch is half of the batches of one pass, the first half taking the odd one. The images are shuffled once an
epoch; the order is a function of the run's seed and the epoch, as start and dropout masks are of where they are used.
So a run that was stopped anywhere goes on to the same bits, on one kind of machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import (
    Block,
    ConvNetwork,
    Descent,
    Device,
    Facts,
    arithmetic,
    draw_start,
    epoch_order,
    load_trainer,
    trainer_facts,
)
from butter_etl.errors import DatasetError, InfeasibleError
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.identity import Value
from butter_etl.studies.lifespans.experiments import POINTS_PER_EPOCH, ImageNetwork, network_id, spec_of
from butter_etl.studies.lifespans.images import Images, Part, cached_images, ensure_images, images_of
from butter_etl.studies.lifespans.networks import descent_of, network_of, products
from butter_etl.studies.trainers import Cost, Kept, Results, State, Watch

if TYPE_CHECKING:
    from butter_etl.engines import ConvTrainer

#: Multiplications a second of a core, and seconds that a batch and an image take besides; of a GPU likewise.
_RATES: Final[Mapping[tuple[str, Device], tuple[float, float, float]]] = {
    ("compiled", "cpu"): (3e10, 3e-4, 3e-6),
    ("reference", "cpu"): (8e9, 1e-3, 5e-6),
    ("reference", "cuda"): (2e12, 5e-4, 1e-7),
}
#: A step takes about three times the multiplications of looking at a batch: forward, and backward to both sides.
_STEP: Final = 3
_WATCH_SECONDS: Final = 1.0
_VALIDATED: Final = 256
#: The arrays of a state that are no weights: sums of the half epoch, and the histories so far.
_SUMS: Final = "sums"
_SO_FAR: Final = "histories"


class LifespanTrainer:
    """Trains the networks of nn_lifespans."""

    engines: Mapping[Device, tuple[str, ...]] = {"cpu": ("compiled", "reference"), "cuda": ("reference",)}
    runs_differ = False
    goes_on = True
    #: The compiled engine leaves the interpreter to others while it trains.
    threaded = ("compiled",)
    buildable_by = ()

    def can_build(self, one: ImageNetwork) -> bool:
        """Tell whether the layers of an experiment fit its images."""
        try:
            network_of(one)
        except InfeasibleError:
            return False
        return True

    def derive(self, one: ImageNetwork) -> Mapping[str, Value]:
        """Return the derived columns of an experiment; raise InfeasibleError where it cannot be built."""
        return {
            "n_fc_layers": len(one.fc_filters),
            "num_free_parameters": network_of(one).parameters,
            "network_id": network_id(one.parameters()),
        }

    def points(self, run: RunSpec) -> int:
        """Return the number of half epochs of a run."""
        return POINTS_PER_EPOCH * spec_of(run.experiment).epochs

    def estimator(self, engine: str, device: Device) -> Callable[[RunSpec], Cost]:
        """Return a function that estimates the cost of a run on a core, or on a GPU."""
        rate, batch_seconds, image_seconds = _RATES[engine, device]

        def estimate(run: RunSpec) -> Cost:
            one = spec_of(run.experiment)
            network, images = network_of(one), images_of(one)
            count = train_count(one)
            batches = math.ceil(count / one.batch_size)
            looked_at = _STEP * count + POINTS_PER_EPOCH * images.test
            epoch = looked_at * (products(network) / rate + image_seconds) + batches * batch_seconds
            widest = sum(layer.filters * layer.conv_size**2 for layer in network.layers)
            numbers = 4.0 * network.parameters * (2 if one.momentum else 1)
            data = (images.train + images.test) * images.pixels
            return Cost(
                seconds=one.epochs * epoch,
                watch_seconds=_WATCH_SECONDS + epoch / max(1, batches),
                bytes=3.0 * numbers + 12.0 * widest * max(one.batch_size, _VALIDATED) + data,
                state_bytes=numbers,
            )

        return estimate

    def stack_key(self, run: RunSpec) -> tuple[str, int]:
        """Return a key that no other run has: networks are trained one at a time."""
        return run.experiment.canonical_json(), run.repetition

    def fitting(self, runs: Sequence[RunSpec], data: Images, device: Device) -> int:
        """Return how many runs are trained side by side: one."""
        del runs, data, device
        return 1

    def fetch(self, experiments: Iterable[ImageNetwork], folder: Path) -> None:
        """Download the image sets that are not at hand. Raises DatasetError for one that cannot be had."""
        for name in dict.fromkeys(one.dataset for one in experiments if one.own is None):
            ensure_images(name, folder)

    def load(self, one: ImageNetwork, folder: Path, kept: Kept) -> Images:
        """Return the images of an experiment: a user's own from the store, others from the data folder."""
        if one.own is None:
            return cached_images(one.dataset, folder)
        found: Images = kept.load(one)
        return found

    def environment(self, data: Images, engine: str, device: Device) -> Facts:
        """Return what carries out the arithmetic, and the SHA-256 of the images."""
        return {**arithmetic(), **trainer_facts(engine, device), "data": data.sha256}

    def prepare(self, engine: str) -> None:
        """Make an engine ready in this process: the first use of a compiled one compiles, and says so in the log."""
        network, descent = ConvNetwork(1, 2, (Block(1, 1),), (2,)), Descent(0.1)
        trainer = load_trainer(engine)(network, descent, 0, draw_start(network, descent, 0))
        images, labels = np.zeros((1, 2, 2, 1), np.uint8), np.zeros(1, np.int64)
        trainer.train_batch(images, labels, 0)
        trainer.evaluate(images, labels)

    def train(
        self,
        runs: Sequence[RunSpec],
        data: Images,
        *,
        engine: str,
        device: Device,
        start: State | None = None,
        watch: Watch | None = None,
    ) -> Results:
        """Train a run from its beginning, or from a state that it left."""
        (run,) = runs
        life = Life(run, data, engine, device, start)
        life.live(watch)
        return life.results()


def train_count(one: ImageNetwork) -> int:
    """Return how many images an experiment learns from."""
    there = images_of(one).train
    return there if one.train_images is None else min(one.train_images, there)


class Life:
    """A run in training: where it is, and what was measured of it."""

    def __init__(self, run: RunSpec, data: Images, engine: str, device: Device, start: State | None) -> None:
        self._run, self._one, self._data = run, spec_of(run.experiment), data
        self._count = train_count(self._one)
        if len(data.train.labels) < self._count:
            raise DatasetError(
                f"image set {data.info}: has {len(data.train.labels)} images to learn from, not {self._count}"
            )
        self._batches = math.ceil(self._count / self._one.batch_size)
        network, descent = network_of(self._one), descent_of(self._one)
        arrays = None if start is None else {name: array[0] for name, array in start.arrays.items()}
        self._points, self._batch = (0, 0) if start is None else (int(start.points[0]), int(start.steps[0]))
        self._sums = np.zeros(1) if arrays is None else arrays.pop(_SUMS).copy()
        self._measured = [] if arrays is None else [tuple(row) for row in arrays.pop(_SO_FAR).tolist()]
        self._diverged = False
        weights = draw_start(network, descent, run.seed) if arrays is None else arrays
        self._trainer: ConvTrainer = load_trainer(engine)(network, descent, run.seed, weights, device=device)
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def _all_points(self) -> int:
        return POINTS_PER_EPOCH * self._one.epochs

    def live(self, watch: Watch | None) -> None:
        """Train to the end, or until the watch raises; a network that diverges is not trained on."""
        called = time.monotonic()
        while self._points < self._all_points and not self._diverged:
            first, last = self._half(self._points)
            while self._batch < last - first:
                if not self._step(first + self._batch):
                    return
                if watch is not None and time.monotonic() - called >= _WATCH_SECONDS:
                    watch(self._points + self._batch / max(1, last - first), self.state)
                    called = time.monotonic()
            self._measure(last - first)
            if watch is not None and self._points < self._all_points:
                watch(float(self._points), self.state)
                called = time.monotonic()

    def _half(self, point: int) -> tuple[int, int]:
        """Return the batches of a half epoch: the first, and the one behind the last."""
        middle = (self._batches + 1) // 2
        return (middle, self._batches) if point % POINTS_PER_EPOCH else (0, middle)

    def _step(self, batch: int) -> bool:
        """Take a step on a batch; tell whether there is a loss still."""
        epoch, size = self._points // POINTS_PER_EPOCH, self._one.batch_size
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, epoch_order(self._run.seed, epoch, self._count)
        rows = self._order[1][batch * size : (batch + 1) * size]
        images, labels = self._data.train.images[rows], self._data.train.labels[rows]
        loss = self._trainer.train_batch(self._scaled(images), labels, epoch * self._batches + batch)
        self._sums += loss
        self._batch += 1
        self._diverged = not math.isfinite(loss)
        return not self._diverged

    def _scaled(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Return pixels as engines take them: bytes of 255 as they are, others as fractions."""
        brightest = self._data.info.brightest
        return images if brightest == np.iinfo(np.uint8).max else images.astype(np.float32) / np.float32(brightest)

    def _measure(self, batches: int) -> None:
        mean = float(self._sums[0]) / batches if batches else math.nan
        self._points += 1
        self._batch, self._sums = 0, np.zeros(1)
        validated = validate(self._validated, self._one, self._data.test)
        self._measured.append((self._points / POINTS_PER_EPOCH, mean, *validated))

    def _validated(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[float, int]:
        return self._trainer.evaluate(self._scaled(images), labels)

    def state(self) -> State:
        """Return all that is needed to go on."""
        arrays: dict[str, NDArray[Any]] = {name: array[None] for name, array in self._trainer.state().items()}
        arrays[_SUMS] = self._sums[None].copy()
        arrays[_SO_FAR] = np.array(self._measured, np.float64).reshape(1, len(self._measured), 4)
        return State(np.array([self._points]), np.array([self._batch]), arrays)

    def results(self) -> Results:
        """Return the histories; from where a network diverged, its losses and accuracies are NaN."""
        missing = range(len(self._measured) + 1, self._all_points + 1)
        rows = [*self._measured, *((point / POINTS_PER_EPOCH, *3 * (math.nan,)) for point in missing)]
        columns = np.array(rows, np.float64).reshape(-1, 4).T[:, None]
        histories = dict(zip(("epoch", "loss", "val_loss", "val_accuracy_percent"), columns, strict=True))
        return Results(histories, end_reasons=["diverged" if self._diverged else None])


#: A function that returns the sum of the losses of some images, and how many are classified right.
Evaluate = Callable[[NDArray[np.uint8], NDArray[np.int64]], tuple[float, int]]


def validate(evaluate: Evaluate, one: ImageNetwork, part: Part) -> tuple[float, float]:
    """Return the validation loss, and the accuracy in percent, as the mode of an experiment has them.

    ``full``: means over all images. ``published``: of the n whole batches only; the accuracy is over their images, the
    loss is the sum of their mean losses by the number of batches rounded up, so that it is low by n / (n + 1) where a
    batch is left over, as the published tables are.
    """
    count, size = len(part.labels), one.batch_size
    if one.val_mode == "full":
        loss, correct = evaluate(part.images, part.labels)
        return loss / count, 100.0 * correct / count
    whole = count // size
    if not whole:
        return math.nan, math.nan
    losses, correct = 0.0, 0
    for first in range(0, whole * size, size):
        loss, right = evaluate(part.images[first : first + size], part.labels[first : first + size])
        losses, correct = losses + loss / size, correct + right
    return losses / math.ceil(count / size), 100.0 * correct / (whole * size)
