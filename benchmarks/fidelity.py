"""Whether the engines and Keras train alike: paired differences of the final losses over many runs.

``python -m benchmarks.fidelity [--data digits,breast_cancer,diabetes] [--runs 20] [--epochs 100]`` trains the same runs
with each engine and with Keras (same splits, start weights and orders), and prints, for each pair, the mean difference
of the final training and test loss with its confidence interval (paired t). Exit code 0: every interval contains 0 and
is at most `MAX_WIDTH` of the loss wide; 1: one does not or is not, or there was nothing to compare; 2: bad usage. What
is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from benchmarks.peers import Problem, keras_model, load_keras, set_keras_weights
from butter_etl.engines.contract import ENGINES, load_engine
from butter_etl.engines.initialization import stack_starts
from butter_etl.engines.streams import epoch_order
from butter_etl.errors import ButterError
from butter_etl.studies.butter.datasets import load_dataset
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.butter.topology import find_topology
from butter_etl.studies.butter.training import network_of, optimization_of, stack_data
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.user_folders import data_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

DATA = ("digits", "breast_cancer", "diabetes")
TRAINERS = ("fused", "torch", "keras")
LOSSES = ("loss", "val_loss")
CONFIDENCE = 0.999
#: The widest interval that says enough, as a share of the loss.
MAX_WIDTH = 0.02
#: A mean difference below this share of the loss is rounding: float32 sums taken in another order are as far apart.
ROUNDING = 1e-5

#: Final losses of the runs by `LOSSES`, float64 (runs,).
FinalLosses = dict[str, "NDArray[np.float64]"]


@dataclass(frozen=True)
class Comparison:
    """The paired difference of two trainers' final losses; ``low`` and ``high`` bound its confidence interval."""

    data: str
    loss: str
    first: str
    second: str
    mean_loss: float
    difference: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The interval's width as a share of the loss."""
        return (self.high - self.low) / self.mean_loss

    @property
    def is_alike(self) -> bool:
        """Whether the interval contains 0, but for rounding, and is narrow enough; never with a NaN."""
        is_zero = self.low <= 0 <= self.high or abs(self.difference) <= ROUNDING * self.mean_loss
        return is_zero and self.width <= MAX_WIDTH


def make_problem(name: str, folder: Path, *, runs: int, epochs: int, size: int, depth: int) -> Problem:
    """The runs that every trainer gets: repetitions of an experiment, as ``butter-etl train`` would make them."""
    dataset = load_dataset(name, folder)
    info = dataset.info
    spec = make_experiment(dataset=name, size=size, depth=depth, learning_rate=0.001, batch_size=64, epochs=epochs)
    network = network_of(spec, info.inputs, find_topology(spec.shape, size, depth, info.inputs, info.outputs).widths)
    seeds = tuple(RunSpec(spec, repetition).seed for repetition in range(runs))
    return Problem(
        name,
        network,
        optimization_of(spec),
        stack_data([spec] * runs, dataset, seeds),
        seeds,
        stack_starts(seeds, network),
    )


def final_losses(trainer: str, problem: Problem) -> FinalLosses:
    """Train all runs; raises ImportError if the trainer is not installed."""
    if trainer == "keras":
        return _keras_losses(problem)
    if trainer not in ENGINES:
        raise ImportError(f"there is no engine {trainer!r}")
    trained = load_engine(trainer)(problem.network, problem.optimization, problem.data, problem.seeds, problem.start)
    return {name: trained.histories[name][:, -1].astype(np.float64) for name in LOSSES}


def _keras_losses(problem: Problem) -> FinalLosses:
    """One run after the other with one compiled model, whose weights and optimizer are set back for each."""
    model = keras_model(load_keras(), problem.network, problem.optimization)
    model.optimizer.build(model.trainable_variables)
    fresh = [variable.numpy() for variable in model.optimizer.variables]
    losses: FinalLosses = {name: np.empty(problem.runs) for name in LOSSES}
    data = problem.data
    for run in range(problem.runs):
        set_keras_weights(model, problem.start, run)
        for variable, value in zip(model.optimizer.variables, fresh, strict=True):
            variable.assign(value)
        losses["loss"][run] = _train_keras_run(model, problem, run)
        test = data.test_rows[run]
        batch_size = problem.optimization.batch_size
        values = model.evaluate(data.x[test], data.y[test], batch_size=batch_size, verbose=0, return_dict=True)
        losses["val_loss"][run] = values["loss"]
    return losses


def _train_keras_run(model: Any, problem: Problem, run: int) -> float:
    """Train a run in the engines' order; the last epoch's mean training loss."""
    x, y = problem.data.x[problem.data.train_rows[run]], problem.data.train_targets[run]
    batch_size, loss_sum = problem.optimization.batch_size, math.nan
    for epoch in range(problem.optimization.epochs):
        order, loss_sum = epoch_order(problem.seeds[run], epoch, len(x)), 0.0
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            model.reset_metrics()  # some versions of `train_on_batch` return means since then, some of the batch
            loss_sum += model.train_on_batch(x[rows], y[rows], return_dict=True)["loss"] * len(rows)
    return float(loss_sum) / len(x)


def compare(data: str, losses: Mapping[str, FinalLosses]) -> list[Comparison]:
    """Every pair of trainers, for both losses."""
    return [
        _paired(data, loss, first, second, losses[first][loss], losses[second][loss])
        for first, second in combinations(losses, 2)
        for loss in LOSSES
    ]


def _paired(
    data: str, loss: str, first: str, second: str, ours: NDArray[np.float64], theirs: NDArray[np.float64]
) -> Comparison:
    difference = ours - theirs
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(difference.size)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, difference.size - 1)) * error
    return Comparison(data, loss, first, second, float(theirs.mean()), mean, mean - reach, mean + reach)


HEADER = f"{'data':<14}{'loss':<9}{'pair':<16}{'mean loss':>10}{'difference':>12}{'interval':>22}{'width':>9}"


def table_line(row: Comparison) -> str:
    """A line under `HEADER`."""
    interval = f"{row.low:+.1e} {row.high:+.1e}"
    return (
        f"{row.data:<14}{row.loss:<9}{row.first + ' - ' + row.second:<16}{row.mean_loss:>10.4g}"
        f"{row.difference:>+12.1e}{interval:>22}{row.width:>9.3%}  {'ok' if row.is_alike else 'DIFFER'}"
    )


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options; lists are separated by commas."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__)
    parser.add_argument("--data", type=_names, default=list(DATA), help=f"data sets ({','.join(DATA)})")
    parser.add_argument("--data-dir", type=Path, help="data sets in PMLB's layout (else BUTTER_ETL_DATA, else a cache)")
    parser.add_argument("--trainers", type=_names, default=list(TRAINERS), help=f"of {','.join(TRAINERS)} (all)")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    if unknown := set(options.trainers) - set(TRAINERS):
        parser.error(f"--trainers: unknown {', '.join(sorted(unknown))}; known: {', '.join(TRAINERS)}")
    if options.runs < 2 or options.epochs < 1:
        parser.error("--runs wants at least 2, --epochs at least 1")
    return options


def run(options: argparse.Namespace, left_out: dict[str, str]) -> list[Comparison]:
    """Compare all trainers on all data sets; those that are not installed are put on the list ``left_out``."""
    rows = []
    for name in options.data:
        problem = make_problem(
            name,
            data_folder(options.data_dir),
            runs=options.runs,
            epochs=options.epochs,
            size=options.size,
            depth=options.depth,
        )
        losses: dict[str, FinalLosses] = {}
        for trainer in options.trainers:
            if trainer in left_out:
                continue
            try:
                losses[trainer] = final_losses(trainer, problem)
            except ImportError as error:
                left_out[trainer] = str(error)
        rows += compare(name, losses)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; the exit code."""
    options = parse(arguments)
    left_out: dict[str, str] = {}
    try:
        rows = run(options, left_out)
    except ButterError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.json:
        values = [{**asdict(row), "width": row.width, "alike": row.is_alike} for row in rows]
        print(json.dumps({"comparisons": values, "left_out": left_out}, indent=1))
    else:
        print(
            f"{options.runs} runs of {options.epochs} epochs, {CONFIDENCE:.1%} confidence intervals", HEADER, sep="\n"
        )
        print(*map(table_line, rows), sep="\n")
        for name, why in left_out.items():
            print(f"left out: {name} ({why})")
    return 0 if rows and all(row.is_alike for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
