"""How many images of random networks are trained in a second, against PyTorch's ways, Keras and JAX.

``python -m benchmarks.lifespans [--networks 12] [--seed 0] [--rounds 3] [--json]`` takes the four networks
that are known from published tables and so many that it draws by the same rules, and trains each by every contestant,
all in turn in every round, on one core. It prints the median over the rounds in images a second of CPU time, for
training and for validation passes, our ratio to the plain script and to the best of the others, and the geometric
means.

The contestants: ``plain`` is the script that one would write: a Dataset, a DataLoader that shuffles, a module, an
optimizer. ``eager`` has the images in memory, ``channels_last`` its tensors so too. ``compile`` (with ``--compile``,
since it takes minutes) is the latter through torch.compile. ``jax`` is a step that is compiled as a whole and called
from Python, ``keras`` is ``fit``. What is not installed is named and left out
(``pip install -r benchmarks/requirements.txt``). Images are made up.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from benchmarks.training import PINNED, pin_and_rerun
from butter_etl.engines.convolutional.contract import (
    DROPOUT,
    POOL,
    Block,
    ConvNetwork,
    Descent,
    Pool,
    draw_start,
    load_trainer,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Networks with more parameters are drawn again.
MOST_PARAMETERS: Final = 3_000_000
OURS: Final = "ours"


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
            "seed",
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


def draw_case(seed: int, most: int = MOST_PARAMETERS) -> Case:
    """Draw a network by the published generator's rules, as far as they are known, of at most so many parameters."""
    random = np.random.default_rng(seed)
    while True:
        channels, size, classes = [(3, 32, 100), (1, 28, 10), (3, 32, 10)][random.integers(3)]
        network = _draw_network(random, channels, size, classes)
        if network.parameters <= most:
            rate = min(0.01 + float(10 ** -random.uniform(0, 5)), 1.0)
            decay = float(10 ** -random.uniform(0, 5)) if random.random() < 0.5 else 0.0
            momentum = min(float(10 ** -random.uniform(0, 5)), 0.999) if random.random() < 0.5 else 0.0
            # Small rates: at what the rules draw, most networks leave the numbers that processors are quick with.
            return Case(f"g{seed}", network, int(random.integers(25, 251)), Descent(rate / 100, momentum, 0.0, decay))


def _draw_network(random: np.random.Generator, channels: int, size: int, classes: int) -> ConvNetwork:
    def draw(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    blocks, feature_size, fewest, is_increasing = [], size, channels, random.random() < 0.5
    for _ in range(draw(1, 3)):
        kernel, code = draw(1, feature_size), draw(1, 7)
        block = Block(draw(fewest, 400), kernel, draw(1, kernel), draw(0, 5), code & ~POOL)
        feature_size = (feature_size + 2 * block.padding - kernel) // block.stride + 1
        if code & POOL:
            window = draw(1, feature_size)
            pool = Pool(window, draw(1, window), draw(0, window // 2))
            block = Block(block.filters, kernel, block.stride, block.padding, code, pool)
            feature_size = pool.size(feature_size)
        blocks.append(block)
        fewest = block.filters if is_increasing else channels
    widths = (*(draw(1, 400) for _ in range(draw(0, 4))), classes)
    drops = any(block.code & DROPOUT for block in blocks)
    flags = tuple(bool(random.integers(2)) for _ in widths[1:])
    rate, fc_rate = float(random.uniform(0.1, 0.7)), float(random.uniform(0.1, 0.7))
    return ConvNetwork(channels, size, tuple(blocks), widths, rate if drops else 0.0, flags, fc_rate)


# -- contestants


class Contestant(NamedTuple):
    """What trains on all images once, and what evaluates on all, in batches of the case."""

    train: Callable[[], None]
    evaluate: Callable[[], None]


def make_ours(case: Case, images: NDArray[np.float32], labels: NDArray[np.int64]) -> Contestant:
    """Return the compiled engine."""
    start = draw_start(case.network, case.descent, 1)
    trainer = load_trainer("compiled")(case.network, case.descent, 1, start)
    steps = 0

    def train() -> None:
        nonlocal steps
        order = np.random.default_rng(steps).permutation(len(labels))
        for first in range(0, len(labels), case.batch):
            rows = order[first : first + case.batch]
            trainer.train_batch(images[rows], labels[rows], steps)
            steps += 1

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
    """Return PyTorch through torch.compile."""
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
    model.compile(
        keras.optimizers.SGD(case.descent.learning_rate, case.descent.momentum, weight_decay=case.descent.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
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
    """What was measured of a network: images a second by contestant, in training and in validation passes."""

    name: str
    batch: int
    parameters: int
    train: dict[str, float]
    validation: dict[str, float]

    def ratios(self, kind: str) -> tuple[float, float]:
        """Return our ratios, to the plain script and to the best of the others; NaN where there is none."""
        rates = getattr(self, kind)
        others = [rate for name, rate in rates.items() if name != OURS]
        plain = rates.get("plain", float("nan"))
        return rates[OURS] / plain, rates[OURS] / max(others, default=float("nan"))


@dataclass
class Report:
    """Everything that a run of the benchmark found out; ``left_out`` says why something is missing."""

    left_out: dict[str, str] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)


def run(cases: Sequence[Case], names: Sequence[str], rows: int, rounds: int, report: Report) -> Iterator[Result]:
    """Measure each case on about so many images, made up, in rounds in which all contestants take turns."""
    present = [name for name in names if find_spec(CONTESTANTS[name][1])]
    report.left_out |= {name: f"{CONTESTANTS[name][1]} is not installed" for name in names if name not in present}
    for case in cases:
        count = max(rows // case.batch, 1) * case.batch
        random, network = np.random.default_rng(0), case.network
        images = random.random((count, network.size, network.size, network.channels), dtype=np.float32)
        labels = random.integers(0, network.classes, count)
        times: dict[str, list[tuple[float, float]]] = {}
        made = {name: CONTESTANTS[name][0](case, images, labels) for name in present}
        for turn in range(rounds + 1):
            for name, contestant in made.items():
                taken = _seconds(contestant.train), _seconds(contestant.evaluate)
                if turn:  # the first is warm-up
                    times.setdefault(name, []).append(taken)
        rates = [
            {name: count / statistics.median(pair[kind] for pair in taken) for name, taken in times.items()}
            for kind in range(2)
        ]
        report.results.append(Result(case.name, case.batch, network.parameters, *rates))
        yield report.results[-1]


def _seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return max(time.process_time() - started, 1e-9)


def line_of(result: Result) -> str:
    """Return what is printed about a network."""
    parts = [f"{result.name:>8} batch {result.batch:3} parameters {result.parameters:8,}"]
    for kind in ("train", "validation"):
        rates = " ".join(f"{name} {rate:.0f}" for name, rate in getattr(result, kind).items())
        plain, best = result.ratios(kind)
        parts.append(f"{kind}: {rates}, {plain:.2f} x plain, {best:.2f} x best")
    return "\n         ".join(parts)


def means_of(results: Sequence[Result]) -> Iterator[str]:
    """Return the lines of geometric means of our ratios."""
    for kind in ("train", "validation"):
        plain, best = zip(*(result.ratios(kind) for result in results), strict=True)
        worst = min(best)
        yield (
            f"{kind}, {len(results)} networks: {_mean(plain):.2f} x plain, {_mean(best):.2f} x best, worst {worst:.2f}"
        )


def _mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the options say, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=12, help="how many networks are drawn")
    parser.add_argument("--seed", type=int, default=0, help="the first drawn network's seed; the others' follow")
    parser.add_argument("--drawn-only", action="store_true", help="leave the known networks out")
    parser.add_argument("--most-parameters", type=int, default=MOST_PARAMETERS)
    parser.add_argument("--contestants", default=",".join(name for name in CONTESTANTS if name != "compile"))
    parser.add_argument("--compile", action="store_true", help="add torch.compile")
    parser.add_argument("--rows", type=int, default=500, help="about how many images are trained on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if PINNED not in os.environ:
        return pin_and_rerun(list(sys.argv[1:] if arguments is None else arguments), "benchmarks.lifespans")
    cases = [] if options.drawn_only else known_cases()
    cases += [draw_case(options.seed + number, options.most_parameters) for number in range(options.networks)]
    names = [*options.contestants.split(","), *(["compile"] if options.compile else [])]
    report = Report()
    for result in run(cases, names, options.rows, options.rounds, report):
        if not options.json:
            print(line_of(result), flush=True)
    if options.json:
        print(json.dumps(asdict(report)))
        return 0
    for name, reason in report.left_out.items():
        print(f"left out: {name}, {reason}")
    for line in means_of(report.results):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
