"""How many images of random networks are trained in a second, against PyTorch's ways, Keras and JAX.

``python -m benchmarks.lifespans [--networks 20] [--seed 1] [--rounds 3] [--compile] [--json]`` takes the four networks
that are known from published tables, and the first ones that the study's generator draws for a seed and its limit of
three million parameters admits, of the three image sets in turn. Each is trained by every contestant, all in turn in
every round, on one core. It prints the median over the rounds in images a second of CPU time, for training and for
validation passes, our ratio to the plain script and to the best of the others, our share of what the core could do
at most, and the means of all these over kinds of networks.

The contestants: ``plain`` is the script that one would write: a Dataset, a DataLoader that shuffles, a module, an
optimizer. ``eager`` has the images in memory, ``channels_last`` its tensors so too. ``compile`` (with ``--compile``,
since it takes minutes) is the latter through torch.compile. ``jax`` is a step that is compiled as a whole and called
from Python, ``keras`` is ``fit``. What is not installed is named and left out
(``pip install -r benchmarks/requirements.txt``). A first round, in which they compile, is not counted. Images are made
up, so many that a pass takes about a second; a network that diverges on them is marked, and trained on.

At most the core does what a network needs at the rate of a 1024^3 float32 matrix product, which is timed in every
round. Not needed are products with padding, those that are the same for every image, since all that they see is padding
or constant, and the gradient of the images. A network is ruled by padding where less than 0.4 of its multiplications
are needed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from benchmarks.training import PINNED, pin_and_rerun, sgemm_rate
from butter_etl.engines.convolutional.contract import (
    Block,
    ConvNetwork,
    Descent,
    Pool,
    draw_start,
    load_trainer,
)
from butter_etl.studies.lifespans.generator import Candidate, Ranges, admitted
from butter_etl.studies.lifespans.images import image_set
from butter_etl.studies.lifespans.networks import descent_of, network_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Networks with more parameters are turned away, as the study does.
MOST_PARAMETERS: Final = 3_000_000
#: The image sets that networks are drawn for, in turn.
SETS: Final = ("CIFAR100", "FashionMNIST", "SVHN")
OURS: Final = "ours"
#: The kinds of networks whose means are printed.
PADDED, DENSE, OTHER = "ruled by padding", "small dense", "every other"
#: Below this share of needed multiplications a network is ruled by padding.
_RULED: Final = 0.4
#: The known networks that are small and dense.
_SMALL_DENSE: Final = ("example", "14_01")
#: A pass over the images takes about so many multiplications at most.
_PRODUCTS: Final = 4e9


class Case(NamedTuple):
    """A network, the size of its batches and its descent."""

    name: str
    network: ConvNetwork
    batch: int
    descent: Descent


def known_cases() -> list[Case]:
    """Return the networks that are known from published tables; all learn CIFAR-100."""
    return [
        Case(
            "example",
            ConvNetwork(
                3,
                32,
                (Block(304, 32, 9), Block(38, 1, 1, 4, 2, Pool(9, 5)), Block(257, 1, 1, 0, 2, Pool(1, 1))),
                (343, 100),
                fc_dropout_rate=0.23811313201015194,
            ),
            49,
            Descent(0.01005814462371971, weight_decay=0.05815562399917578),
        ),
        Case(
            "13_55",
            ConvNetwork(
                3,
                32,
                (
                    Block(301, 24, 12, 4, 3, Pool(1, 1)),
                    Block(297, 2, 2, 2, 3, Pool(1, 1)),
                    Block(345, 2, 1, 2),
                ),
                (100,),
                fc_dropout_rate=0.4558671863403917,
            ),
            25,
            Descent(0.11464760689500715, 4.877743709660678e-05, weight_decay=0.0005490215623792545),
        ),
        Case(
            "13_56",
            ConvNetwork(
                3,
                32,
                (Block(190, 32, 20, 2, 4), Block(306, 1, 1, 2), Block(383, 3, 2, 3, 3, Pool(5, 4, 1))),
                (145, 100),
                dropout_rate=0.46221952533637445,
                fc_dropout=(True,),
                fc_dropout_rate=0.4343604085634797,
            ),
            186,
            Descent(0.010439798407753376, weight_decay=0.016374529740733647),
        ),
        Case(
            "14_01",
            ConvNetwork(
                3,
                32,
                (
                    Block(321, 11, 5, 5, 5),
                    Block(63, 1, 1, 1, 3, Pool(1, 1)),
                    Block(384, 1, 1, 1, 7, Pool(10, 4, 4)),
                ),
                (358, 340, 100),
                dropout_rate=0.39971859298950596,
                fc_dropout=(False, False),
            ),
            152,
            Descent(0.7803497065523131),
        ),
    ]


def drawn_cases(count: int, seed: int, most: int = MOST_PARAMETERS) -> list[Case]:
    """Return the first networks of a seed with at most so many parameters, of `SETS` in turn."""
    each = -(-count // len(SETS))
    drawn = [admitted(Ranges(), image_set(name), seed, each, most, None).networks for name in SETS]
    return [_drawn(one) for one in islice(chain.from_iterable(zip(*drawn, strict=True)), count)]


def _drawn(one: Candidate) -> Case:
    experiment = one.network
    name = f"{experiment.dataset} {one.number}"
    return Case(name, network_of(experiment), experiment.batch_size, descent_of(experiment))


class Counts(NamedTuple):
    """Multiplications of an image, and the operations that training on it and looking at it need at least."""

    nominal: int
    needed: int
    training: int
    validation: int


def count_products(network: ConvNetwork) -> Counts:
    """Count what an image takes.

    Along one axis a layer has its pairs of an output and a tap, on a plane their square: all, or those whose input is
    inside and varies over the images. Dropout makes all vary, in training. A training image needs a product
    forward and two backward, of which the first layer needs one; each is two operations.
    """
    nominal = sum(layer.channels * layer.filters * (layer.conv_size * layer.kernel) ** 2 for layer in network.layers)
    trained, looked_at = _needed(network, drops=True), _needed(network, drops=False)
    return Counts(nominal, sum(trained), 2 * (3 * sum(trained) - trained[0]), 2 * sum(looked_at))


def _needed(network: ConvNetwork, *, drops: bool) -> list[int]:
    """Return the multiplications of each layer that are not the same for all images."""
    varies: NDArray[np.bool_] = np.ones(network.size, np.bool_)
    found = []
    for layer in network.layers:
        sees = _sees(varies, layer.conv_size, layer.kernel, layer.stride, layer.padding)
        found.append(layer.channels * layer.filters * int(sees.sum()) ** 2)
        varies = np.logical_or(sees.any(axis=1), drops and layer.dropout > 0)
        if layer.pool:
            pool = layer.pool
            varies = np.any(_sees(varies, layer.out_size, pool.kernel, pool.stride, pool.padding), axis=1)
    return found


def _sees(varies: NDArray[np.bool_], outputs: int, kernel: int, stride: int, padding: int) -> NDArray[np.bool_]:
    """Return which outputs see through which taps an input that is inside and varies, bool (outputs, kernel)."""
    source = np.arange(outputs)[:, None] * stride + np.arange(kernel) - padding
    inside = (source >= 0) & (source < len(varies))
    found: NDArray[np.bool_] = inside & varies[np.where(inside, source, 0)]
    return found


# -- contestants


class Contestant(NamedTuple):
    """What trains on all images once, and what evaluates on all, in batches of the case; ours returns its last loss."""

    train: Callable[[], float | None]
    evaluate: Callable[[], None]


def make_ours(case: Case, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Contestant:
    """Return the compiled engine."""
    start = draw_start(case.network, case.descent, 1)
    trainer = load_trainer("compiled")(case.network, case.descent, 1, start)
    steps = 0

    def train() -> float:
        nonlocal steps
        loss = math.nan
        order = np.random.default_rng(steps).permutation(len(labels))
        for first in range(0, len(labels), case.batch):
            rows = order[first : first + case.batch]
            loss = trainer.train_batch(images[rows], labels[rows], steps)
            steps += 1
        return loss

    return Contestant(train, lambda: void(trainer.evaluate(images, labels)))


def void(_value: object) -> None:
    """Return nothing."""


def make_plain(case: Case, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Contestant:
    """Return the plain script in PyTorch."""
    import torch

    model, loss_of = _torch_model(case.network), torch.nn.CrossEntropyLoss()
    optimizer = _torch_descent(case, model)
    pixels, classes = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)

    class Rows(torch.utils.data.Dataset[Any]):
        """Images one by one."""

        def __len__(self) -> int:
            return len(classes)

        def __getitem__(self, row: int) -> Any:
            return pixels[row], classes[row]

    shuffled = torch.utils.data.DataLoader(Rows(), case.batch, shuffle=True)
    plain = torch.utils.data.DataLoader(Rows(), case.batch)

    def train() -> None:
        model.train()
        for x, y in shuffled:
            optimizer.zero_grad()
            loss_of(model(x), y).backward()
            optimizer.step()

    def evaluate() -> None:
        model.eval()
        with torch.no_grad():
            for x, y in plain:
                logits = model(x)
                float(loss_of(logits, y)), int((logits.argmax(1) == y).sum())

    return Contestant(train, evaluate)


def _make_torch(
    case: Case,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    last: bool,
    compiled: bool = False,
) -> Contestant:
    import torch

    layout = torch.channels_last if last else torch.contiguous_format
    model: Any = _torch_model(case.network).to(memory_format=layout)
    loss_of, optimizer = torch.nn.CrossEntropyLoss(), _torch_descent(case, model)
    forward = torch.compile(model) if compiled else model
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    classes = torch.from_numpy(labels)

    def train() -> None:
        model.train()
        order = torch.randperm(len(classes))
        for first in range(0, len(classes), case.batch):
            rows = order[first : first + case.batch]
            optimizer.zero_grad()
            loss_of(forward(pixels[rows].contiguous(memory_format=layout)), classes[rows]).backward()
            optimizer.step()

    def evaluate() -> None:
        model.eval()
        with torch.inference_mode():
            for first in range(0, len(classes), case.batch):
                logits, wanted = forward(pixels[first : first + case.batch]), classes[first : first + case.batch]
                float(loss_of(logits, wanted)), int((logits.argmax(1) == wanted).sum())

    return Contestant(train, evaluate)


def make_eager(case: Case, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Contestant:
    """Return PyTorch with its images in memory."""
    return _make_torch(case, images, labels, last=False)


def make_channels_last(case: Case, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Contestant:
    """Return PyTorch with its images in memory, the channels last."""
    return _make_torch(case, images, labels, last=True)


def make_compile(case: Case, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Contestant:
    """Return PyTorch through torch.compile; it forgets what it has compiled of other networks, which it counts."""
    dynamo: Any = import_module("torch._dynamo")
    dynamo.reset()
    return _make_torch(case, images, labels, last=True, compiled=True)


def _torch_model(network: ConvNetwork) -> Any:
    from torch import nn

    modules: list[Any] = []
    for layer in network.layers:
        if layer.is_dense:
            modules += [nn.Flatten()] if layer.number == len(network.blocks) else []
            modules.append(nn.Linear(layer.fan_in, layer.filters))
        else:
            modules.append(nn.Conv2d(layer.channels, layer.filters, layer.kernel, layer.stride, layer.padding))
        modules += [nn.ReLU()] if layer.relu else []
        modules += [nn.Dropout(layer.dropout)] if layer.dropout else []
        modules += [nn.MaxPool2d(layer.pool.kernel, layer.pool.stride, layer.pool.padding)] if layer.pool else []
    return nn.Sequential(*modules)


def _torch_descent(case: Case, model: Any) -> Any:
    import torch

    rates = (case.descent.learning_rate, case.descent.momentum, case.descent.dampening, case.descent.weight_decay)
    return torch.optim.SGD(model.parameters(), *rates)


def make_jax(case: Case, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Contestant:
    """Return a step in JAX that is compiled as a whole and called from Python, and a compiled evaluation of a batch."""
    jax: Any = import_module("jax")
    lax, jnp = jax.lax, jax.numpy
    layers, descent = case.network.layers, case.descent

    def forward(weights: Any, x: Any, key: Any) -> Any:
        for layer in layers:
            kernel, bias = weights[layer.number]
            if layer.is_dense:
                x = x.reshape(x.shape[0], -1) @ kernel + bias
            else:
                frame = [(layer.padding, layer.padding)] * 2
                numbers = ("NHWC", "HWIO", "NHWC")
                x = lax.conv_general_dilated(x, kernel, (layer.stride,) * 2, frame, dimension_numbers=numbers) + bias
            x = jax.nn.relu(x) if layer.relu else x
            if layer.dropout and key is not None:
                kept = jax.random.bernoulli(jax.random.fold_in(key, layer.number), 1 - layer.dropout, x.shape)
                x = jnp.where(kept, x / (1 - layer.dropout), 0)
            if layer.pool:
                pool = layer.pool
                frame = [(0, 0), (pool.padding,) * 2, (pool.padding,) * 2, (0, 0)]
                windows = ((1, pool.kernel, pool.kernel, 1), (1, pool.stride, pool.stride, 1))
                x = lax.reduce_window(x, -jnp.inf, lax.max, *windows, frame)
        return x

    def loss_of(weights: Any, x: Any, y: Any, key: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(forward(weights, x, key)), y[:, None], 1).mean()

    def step(weights: Any, moments: Any, x: Any, y: Any, key: Any) -> Any:
        gradient = jax.grad(loss_of)(weights, x, y, key)
        gradient = jax.tree.map(lambda g, w: g + descent.weight_decay * w, gradient, weights)
        moments = jax.tree.map(lambda m, g: descent.momentum * m + g, moments, gradient)
        return jax.tree.map(lambda w, m: w - descent.learning_rate * m, weights, moments), moments

    def look(weights: Any, x: Any, y: Any) -> Any:
        logits = forward(weights, x, None)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean(), (logits.argmax(1) == y).sum()

    quick_step, quick_look = jax.jit(step), jax.jit(look)
    weights = _jax_weights(case)
    moments = jax.tree.map(jnp.zeros_like, weights)
    whole = len(labels) // case.batch * case.batch or len(labels)

    def train() -> None:
        nonlocal weights, moments
        key = jax.random.key(0)
        order = np.random.default_rng(0).permutation(len(labels))
        for number, first in enumerate(range(0, whole, case.batch)):
            rows = order[first : first + case.batch]
            folded = jax.random.fold_in(key, number)
            weights, moments = quick_step(weights, moments, images[rows], labels[rows], folded)
        jax.block_until_ready(weights)

    def evaluate() -> None:
        for first in range(0, whole, case.batch):
            rows = slice(first, first + case.batch)
            jax.block_until_ready(quick_look(weights, images[rows], labels[rows]))

    return Contestant(train, evaluate)


def _jax_weights(case: Case) -> Any:
    jnp: Any = import_module("jax").numpy
    start = draw_start(case.network, case.descent, 1)
    weights = []
    for layer in case.network.layers:
        kernel = start[f"{layer.name}.weight"]
        kernel = kernel.T if layer.is_dense else kernel.transpose(2, 3, 1, 0)
        weights.append((jnp.asarray(kernel), jnp.asarray(start[f"{layer.name}.bias"])))
    return weights


def make_keras(case: Case, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Contestant:
    """Return Keras' ``fit`` and ``evaluate``; pooling is over zeros in place of -infinity."""
    keras: Any = import_module("keras")
    modules: list[Any] = [keras.Input((case.network.size, case.network.size, case.network.channels))]
    for layer in case.network.layers:
        if layer.is_dense:
            modules += [keras.layers.Flatten()] if layer.number == len(case.network.blocks) else []
            modules.append(keras.layers.Dense(layer.filters))
        else:
            modules += [keras.layers.ZeroPadding2D(layer.padding)] if layer.padding else []
            modules.append(keras.layers.Conv2D(layer.filters, layer.kernel, layer.stride))
        modules += [keras.layers.ReLU()] if layer.relu else []
        modules += [keras.layers.Dropout(layer.dropout)] if layer.dropout else []
        if layer.pool:
            modules += [keras.layers.ZeroPadding2D(layer.pool.padding)] if layer.pool.padding else []
            modules.append(keras.layers.MaxPooling2D(layer.pool.kernel, layer.pool.stride))
    model = keras.Sequential(modules)
    decay = case.descent.weight_decay or None
    model.compile(
        optimizer=keras.optimizers.SGD(case.descent.learning_rate, case.descent.momentum, weight_decay=decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return Contestant(
        lambda: void(model.fit(images, labels, case.batch, 1, verbose=0)),
        lambda: void(model.evaluate(images, labels, case.batch, verbose=0)),
    )


#: Contestants by name, with the package that each needs.
CONTESTANTS: Final[dict[str, tuple[Callable[..., Contestant], str]]] = {
    "plain": (make_plain, "torch"),
    "eager": (make_eager, "torch"),
    "channels_last": (make_channels_last, "torch"),
    "compile": (make_compile, "torch"),
    "jax": (make_jax, "jax"),
    "keras": (make_keras, "keras"),
    OURS: (make_ours, "numba"),
}


# -- measuring


@dataclass
class Result:
    """What was measured of a network: images a second by contestant, in training and in validation passes.

    ``nominal`` and ``needed`` are multiplications of an image; ``limits`` are the images a second that the core could
    train on and look at, at the rate ``sgemm`` of its matrix products, operations a second. ``diverged`` tells whether
    our loss ended as no number.
    """

    name: str
    kind: str
    batch: int
    images: int
    parameters: int
    nominal: int
    needed: int
    sgemm: float
    limits: dict[str, float]
    diverged: bool
    train: dict[str, float]
    validation: dict[str, float]

    def others(self, kind: str) -> dict[str, float]:
        """Return the rates of the others."""
        return {name: rate for name, rate in getattr(self, kind).items() if name != OURS}

    def over_plain(self, kind: str) -> float:
        """Return our ratio to the plain script; NaN where there is none."""
        return float(getattr(self, kind)[OURS]) / self.others(kind).get("plain", math.nan)

    def over_best(self, kind: str) -> float:
        """Return our ratio to the best of the others but the plain script; NaN where there is none."""
        rates = [rate for name, rate in self.others(kind).items() if name != "plain"]
        return float(getattr(self, kind)[OURS]) / max(rates, default=math.nan)

    def of_limit(self, kind: str) -> float:
        """Return our share of what the core could do."""
        return float(getattr(self, kind)[OURS]) / self.limits[kind]


@dataclass
class Report:
    """Everything that a run of the benchmark found out; ``left_out`` says why something is missing."""

    left_out: dict[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)


def kind_of(case: Case, counts: Counts) -> str:
    """Return the kind of a network."""
    if counts.needed < _RULED * counts.nominal:
        return PADDED
    return DENSE if case.name in _SMALL_DENSE else OTHER


def run(cases: Sequence[Case], names: Sequence[str], rows: int, rounds: int, report: Report) -> Iterator[Result]:
    """Measure each case on about so many images at most, in rounds in which all contestants take turns."""
    report.left_out |= {name: why for name in names if (why := _missing(name))}
    present = [name for name in names if name not in report.left_out]
    for case in cases:
        report.results.append(_measured(case, present, rows, rounds))
        yield report.results[-1]


def _missing(name: str) -> str:
    """Return what a contestant lacks here, or nothing."""
    package = CONTESTANTS[name][1]
    if not find_spec(package):
        return f"{package} is not installed"
    return "there is no g++" if name == "compile" and not shutil.which("g++") else ""


def _measured(case: Case, names: Sequence[str], rows: int, rounds: int) -> Result:
    counts, network = count_products(case.network), case.network
    count = max(min(rows, int(_PRODUCTS / counts.nominal)) // case.batch, 1) * case.batch
    random = np.random.default_rng(0)
    images = random.random((count, network.size, network.size, network.channels), dtype=np.float32)
    labels = random.integers(0, network.classes, count)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    made = {name: CONTESTANTS[name][0](case, images, labels) for name in names}
    rates, loss = [], math.nan
    for turn in range(rounds + 1):
        for name, contestant in made.items():
            started = time.process_time()
            ended = contestant.train()
            trained = time.process_time()
            contestant.evaluate()
            if name == OURS and ended is not None:
                loss = ended
            if turn:  # the first is warm-up
                times[name].append((trained - started, time.process_time() - trained))
        rates.append(sgemm_rate(time.process_time))
    train, validation = (
        {name: count / max(statistics.median(pair[at] for pair in taken), 1e-9) for name, taken in times.items()}
        for at in range(2)
    )
    sgemm = statistics.median(rates)
    return Result(
        name=case.name,
        kind=kind_of(case, counts),
        batch=case.batch,
        images=count,
        parameters=network.parameters,
        nominal=counts.nominal,
        needed=counts.needed,
        sgemm=sgemm,
        limits={"train": sgemm / counts.training, "validation": sgemm / counts.validation},
        diverged=OURS in names and not math.isfinite(loss),
        train=train,
        validation=validation,
    )


# -- tables


def header_of(rates: Mapping[str, float]) -> tuple[str, str]:
    """Return the first two lines of the table of networks, for the contestants that there are rates of."""
    cells = ["network", "kind", "batch", "images", "multiplications, M", "needed, M", *rates]
    return _row([*cells, "x plain", "x best", "of limit"]), "|---" * (len(cells) + 3) + "|"


def line_of(result: Result, kind: str) -> str:
    """Return the line of a network: images a second of all, and our ratios."""
    rates = [f"{rate:,.0f}" for rate in getattr(result, kind).values()]
    name = result.name + (" (diverged)" if result.diverged else "")
    counts = [f"{result.batch}", f"{result.images:,}", f"{result.nominal / 1e6:.2f}", f"{result.needed / 1e6:.2f}"]
    ratios = [f"{result.over_plain(kind):.2f}", f"{result.over_best(kind):.2f}", f"{result.of_limit(kind):.0%}"]
    return _row([name, result.kind, *counts, *rates, *ratios])


def means_of(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of geometric means of our ratios, and the least of them, over each kind of networks and all."""
    yield _row(["", "networks", "over plain", "least", "over the best library", "least", "of the limit"])
    yield "|---" * 7 + "|"
    for kind in ("train", "validation"):
        for name in ("all", PADDED, DENSE, OTHER):
            some = [one for one in results if name in ("all", one.kind)]
            if some:
                yield _row([f"{kind}, {name}", str(len(some)), *_means(some, kind)])


def _means(results: Sequence[Result], kind: str) -> list[str]:
    plain, best = ([over(one, kind) for one in results] for over in (Result.over_plain, Result.over_best))
    share = _mean([one.of_limit(kind) for one in results])
    return [f"{_mean(plain):.2f}", f"{min(plain):.2f}", f"{_mean(best):.2f}", f"{min(best):.2f}", f"{share:.0%}"]


def _mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the options say, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=20, help="how many networks are drawn")
    parser.add_argument("--seed", type=int, default=1, help="the seed they are drawn for")
    parser.add_argument("--drawn-only", action="store_true", help="leave the known networks out")
    parser.add_argument("--most-parameters", type=int, default=MOST_PARAMETERS)
    parser.add_argument("--contestants", default=",".join(name for name in CONTESTANTS if name != "compile"))
    parser.add_argument("--compile", action="store_true", help="add torch.compile")
    parser.add_argument("--rows", type=int, default=1000, help="the most images that are trained on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if PINNED not in os.environ:
        return pin_and_rerun(list(sys.argv[1:] if arguments is None else arguments), "benchmarks.lifespans")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cases = [] if options.drawn_only else known_cases()
    cases += drawn_cases(options.networks, options.seed, options.most_parameters)
    names = [*options.contestants.split(","), *(["compile"] if options.compile else [])]
    report = Report()
    for result in run(cases, names, options.rows, options.rounds, report):
        if not options.json:
            print(*(header_of(result.train) if len(report.results) == 1 else ()), line_of(result, "train"), sep="\n")
            sys.stdout.flush()
    if options.json:
        print(json.dumps(asdict(report)))
        return 0
    print_rest(report)
    return 0


def print_rest(report: Report) -> None:
    """Print the table of validation passes, that of means, and what is missing."""
    some = report.results[:1]
    print("\nvalidation passes:\n", *(line for one in some for line in header_of(one.validation)), sep="\n")
    print(*(line_of(one, "validation") for one in report.results), "", *means_of(report.results), "", sep="\n")
    rates = [one.sgemm / 1e9 for one in report.results]
    print(
        f"matrix products: {min(rates):.0f} to {max(rates):.0f} GFLOP/s, {statistics.median(rates):.0f} in the median"
    )
    for name, reason in report.left_out.items():
        print(f"left out: {name}, {reason}")


if __name__ == "__main__":
    sys.exit(main())
