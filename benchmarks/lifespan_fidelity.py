"""Whether the compiled engine for image networks trains as PyTorch does: whole trainings, paired.

``python -m benchmarks.lifespan_fidelity [--networks 20] [--drawn 40] [--images 10000] [--epochs 10] [--json]`` takes
the first networks that the study draws for a seed, within five million multiplications, and trains the cheaper ones of
them on the first images of FashionMNIST: by the compiled engine, and by the readable one, which is PyTorch's functions
and its autograd. Both have the same start weights, orders and dropout masks. It prints the final losses and their
relative difference, and the confidence interval of its mean (paired t). Where both diverge there is nothing to compare:
such a network is named, and the next one is taken in its place.

Exit code 0: the intervals of both losses lie within `MOST` on both sides; 1: one does not, or one engine alone
diverges; 2: bad usage, or no images.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
from scipy import stats

from benchmarks.fidelity import LOSSES
from butter_etl.errors import ButterError
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.lifespans.experiments import IMAGE_SETS
from butter_etl.studies.lifespans.generator import Candidate, Ranges, admitted
from butter_etl.studies.lifespans.images import Images, image_set, load_images
from butter_etl.studies.lifespans.networks import network_of
from butter_etl.studies.lifespans.training import Life
from butter_etl.studies.user_folders import data_folder

ENGINES: Final = ("compiled", "reference")
CONFIDENCE: Final = 0.9
#: The most that the mean relative difference may be, as far as the interval goes.
MOST: Final = 0.01
MOST_PARAMETERS: Final = 3_000_000
MOST_PRODUCTS: Final = 5_000_000
#: An element of a mask takes NumPy about as long as so many multiplications.
_A_MASK: Final = 80


@dataclass(frozen=True)
class Pair:
    """A network that both engines trained: its final losses by loss and engine, and CPU seconds by engine."""

    number: int
    products: int
    losses: dict[str, dict[str, float]]
    seconds: dict[str, float]

    @property
    def diverged(self) -> list[str]:
        """The engines whose training has diverged."""
        return [name for name in ENGINES if not math.isfinite(self.losses["loss"][name])]

    def difference(self, loss: str) -> float:
        """By how much the compiled engine's final loss is larger, as a share of the other's."""
        ours, theirs = (self.losses[loss][name] for name in ENGINES)
        return (ours - theirs) / theirs


class Interval(NamedTuple):
    """The mean of the relative differences and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def is_narrow(self) -> bool:
        """Whether it lies within `MOST`; never with a NaN."""
        return self.low >= -MOST and self.high <= MOST


def interval_of(differences: Sequence[float]) -> Interval:
    """The paired t interval of some differences."""
    values = np.array(differences)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(values.size)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, values.size - 1)) * error
    return Interval(mean, mean - reach, mean + reach)


def cheapest(dataset: str, seed: int, count: int, most: int) -> list[Candidate]:
    """The first so many networks of a seed within the limits, the cheapest first."""
    limits = MOST_PARAMETERS, most
    return sorted(admitted(Ranges(), image_set(dataset), seed, count, *limits).networks, key=_cost)


def _cost(one: Candidate) -> float:
    """What an image costs the readable engine, in multiplications: it draws masks by NumPy."""
    dropped = sum(layer.filters * layer.conv_size**2 for layer in network_of(one.network).layers if layer.dropout)
    return one.products + _A_MASK * dropped


def _trained(one: Candidate, options: argparse.Namespace, data: Images) -> Pair:
    experiment = msgspec.structs.replace(one.network, epochs=options.epochs, train_images=options.images)
    losses: dict[str, dict[str, float]] = {loss: {} for loss in LOSSES}
    seconds: dict[str, float] = {}
    for engine in ENGINES:
        started = time.process_time()
        life = Life(RunSpec(experiment, 0), data, engine, "cpu", None)
        life.live(None)
        seconds[engine] = time.process_time() - started
        histories = life.results().histories
        for loss in LOSSES:
            losses[loss][engine] = float(histories[loss][0][-1])
    return Pair(one.number, one.products, losses, seconds)


HEADER = (
    "| network | multiplications, M | loss, compiled | PyTorch | difference "
    "| val_loss, compiled | PyTorch | difference |"
)


def table_line(pair: Pair) -> str:
    """A line under `HEADER`."""
    cells = [str(pair.number), f"{pair.products / 1e6:.2f}"]
    for loss in LOSSES:
        cells += [f"{pair.losses[loss][name]:.5f}" for name in ENGINES]
        cells.append(f"{pair.difference(loss):+.4%}")
    return f"| {' | '.join(cells)} |"


def interval_line(loss: str, interval: Interval) -> str:
    """What is said of the differences of a loss."""
    verdict = "ok" if interval.is_narrow else "DIFFER"
    return (
        f"{loss}: mean difference {interval.mean:+.3%}, {CONFIDENCE:.0%} interval {interval.low:+.3%} to "
        f"{interval.high:+.3%}, within {MOST:.0%}: {verdict}"
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lifespan_fidelity", description=__doc__)
    parser.add_argument("--dataset", choices=IMAGE_SETS, default="FashionMNIST")
    parser.add_argument("--data-dir", type=Path, help="where image sets are (else BUTTER_ETL_DATA, else a cache)")
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--drawn", type=int, default=40, help="of how many the cheaper ones are trained")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=10_000, help="how many of its first images are learned from")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--max-multiplications", type=int, default=MOST_PRODUCTS)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    if options.networks < 2 or options.drawn < options.networks or options.epochs < 1 or options.images < 1:
        parser.error("--networks wants at least 2, --drawn as many, --images and --epochs at least 1")
    return options


def run(options: argparse.Namespace) -> Iterator[Pair]:
    """Yield pairs until there are so many networks as wanted that did not diverge in both engines."""
    import torch

    torch.set_num_threads(1)
    data = load_images(options.dataset, data_folder(options.data_dir))
    found = 0
    for one in cheapest(options.dataset, options.seed, options.drawn, options.max_multiplications):
        pair = _trained(one, options, data)
        yield pair
        found += not pair.diverged
        if found == options.networks or len(pair.diverged) == 1:
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; the exit code."""
    options = parse(arguments)
    found: list[Pair] = []
    if not options.json:
        print(
            f"{options.epochs} epochs on {options.images:,} images of {options.dataset}, the cheaper "
            f"{options.networks} of {options.drawn} networks within {options.max_multiplications:,} multiplications\n",
            HEADER,
            sep="\n",
        )
        print("|---" * HEADER.count(" | ") + "|---|")
    try:
        for pair in run(options):
            found.append(pair)
            if not options.json:
                print(table_line(pair), flush=True)
    except ButterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    alike = [pair for pair in found if not pair.diverged]
    intervals = {loss: interval_of([pair.difference(loss) for pair in alike]) for loss in LOSSES} if alike[1:] else {}
    if options.json:
        values = {loss: one._asdict() for loss, one in intervals.items()}
        print(json.dumps({"pairs": [asdict(pair) for pair in found], "intervals": values}))
    else:
        print("", *(interval_line(loss, one) for loss, one in intervals.items()), *rest_of(found), sep="\n")
    agree = all(len(pair.diverged) != 1 for pair in found) and bool(intervals)
    return 0 if agree and all(one.is_narrow for one in intervals.values()) else 1


def rest_of(found: Sequence[Pair]) -> Iterator[str]:
    """Yield what else is to be said: which networks diverged, and CPU seconds."""
    for pair in found:
        if pair.diverged:
            yield f"network {pair.number} diverged ({' and '.join(pair.diverged)})"
    ours, theirs = (sum(pair.seconds[name] for pair in found) for name in ENGINES)
    yield f"CPU seconds: {ours:.0f} compiled, {theirs:.0f} by PyTorch"


if __name__ == "__main__":
    sys.exit(main())
