"""How often intervals cover, on pools of real histories, and what it costs to reach a goal.

``python -m benchmarks.coverage STORE [--data-dir DIR] [--draws 10000] [--limit 160] [--goal 2] [--processes 2]
[--json]`` trains 200 repetitions of 48 small experiments of four data sets of PMLB into STORE, unless they are there,
and takes the final test losses of each experiment as what is to be known: its median and its mean are the truth. A
draw takes runs from a pool with replacement, so that all are independent, and makes the intervals of the package.
Printed are

- how often nominal 95 % intervals for medians cover: of all draws, and of the worst experiment, over all numbers of
  runs. A share of so many draws has an error of a fifth of a percent; the worst of 48 is a little below its truth;
- the same at the moment at which a goal is reached, or at the limit: by the rule of the package, by its looks with
  intervals that are made for one look, and by looking again after each run;
- how often the intervals for means cover;
- what the goal costs, on runs in random orders: the core-hours of a campaign with the planner of the package, beside
  those of the least equal number of runs at which all experiments reach it that can, and the share of experiments that
  fixed 30 repetitions leave short. An experiment can if its interval at the last look, as expected from all of its
  pool, is narrow enough.

Exit code 1: the intervals for medians cover less than 94.5 % of all draws, or 94 % of the worst experiment's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import butter_etl as be
from butter_etl.campaign.aiming import look_of
from butter_etl.campaign.cutting import Wanted
from butter_etl.engines.intervals import (
    LOOKS,
    bootstrapped,
    look_ranks,
    mean_and_t,
    median_rank,
    medians,
    ranked,
)
from butter_etl.engines.reaching import Aimed, expected_width
from butter_etl.store.aims import Aim
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.goals import Goal

Float64s = NDArray[np.float64]

SPEC = """
name: pools
repetitions: 200
cubes:
  - dataset: [529_pollen, wine_quality_white, banana, 505_tecator]
    size: [256, 2048]
    depth: [2, 4]
    learning_rate: [0.001, 0.01, 0.1]
    batch_size: [64]
    epochs: [15]
"""
LEVEL = 0.95
COUNTS = (6, 7, 8, 10, 12, 15, 20, 30, 50, 70, 100)
#: Runs after each of which naive looking looks again; and how many draws do so, and are bootstrapped.
NAIVE, FEWER = range(6, 101), 500
#: Half-widths that are asked for, relative to the median, and in those that 40 runs have.
ASKED = (0.02, 0.05, None)


@dataclass(frozen=True)
class Pool:
    """The final losses of an experiment, and what a run of it costs, in core-seconds."""

    name: str
    losses: Float64s
    seconds: float
    wanted: Wanted


def train_pools(path: Path, data_dir: str | None) -> None:
    """Train what is missing of the pools."""
    with TemporaryDirectory() as folder:
        spec = Path(folder) / "pools.yaml"
        spec.write_text(SPEC)
        report = be.train(path, spec=spec, data_dir=data_dir)
    print(f"{report.landed:,} runs trained in {report.core_seconds:.0f} core-seconds", file=sys.stderr)


def read_pools(path: Path) -> list[Pool]:
    """Return the pools of a store, of experiments whose final losses are all finite."""
    store = Store.open(path)
    registry, pools = Registry(store), []
    losses: dict[int, list[tuple[int, float, float]]] = {}
    for file in store.run_files():
        for row in store.read_runs(file, ["repetition", "val_loss", "core_seconds"]).to_pylist():
            found = row["repetition"], row["val_loss"][-1], row["core_seconds"] or 0.0
            losses.setdefault(file.experiment_id, []).append(found)
    for experiment_id, rows in sorted(losses.items()):
        spec: Any = registry.experiment(experiment_id)
        values = np.array([loss for _, loss, _ in sorted(rows)], np.float64)
        seconds = mean(cost for _, _, cost in rows)
        pools.append(Pool(spec.describe(), values, seconds, Wanted(spec, experiment_id, "pools", (), seconds, 0.0)))
    return [one for one in pools if np.isfinite(one.losses).all()]


# --- coverage ----------------------------------------------------------------------------------------------------


def drawn(pool: Pool, draws: int, runs: int, rng: np.random.Generator) -> Float64s:
    """Return runs of a pool, drawn with replacement, (runs, draws)."""
    return pool.losses[rng.integers(0, len(pool.losses), (runs, draws))]


def coverage_of(place: int, pool: Pool, draws: int, limit: int) -> dict[str, Any]:
    """Return how often intervals for a pool's median and mean cover, by the number of runs, and where goals stop."""
    return {
        "medians": median_coverage(place, pool, draws),
        "means": mean_coverage(place, pool, draws),
        "stopping": {_words(asked): stopping_coverage(place, pool, draws, asked, limit) for asked in ASKED},
    }


def median_coverage(place: int, pool: Pool, draws: int) -> list[float]:
    """Return how often intervals for the median cover, for each of `COUNTS`."""
    some, truth = drawn(pool, draws, COUNTS[-1], np.random.default_rng(place)), np.median(pool.losses)
    bounds = [ranked(np.sort(some[:count], axis=0), median_rank(count, LEVEL)) for count in COUNTS]
    return [float(np.mean((low <= truth) & (truth <= high))) for low, high in bounds]


def mean_coverage(place: int, pool: Pool, draws: int) -> dict[str, list[float]]:
    """Return how often intervals for the mean cover, for each of `COUNTS`: by t, and by the bootstrap."""
    covered: dict[str, list[float]] = {"t": [], "bootstrap": []}
    some, truth = drawn(pool, draws, COUNTS[-1], np.random.default_rng(1000 + place)), pool.losses.mean()
    for count in COUNTS:
        few = np.sort(some[:count, :FEWER], axis=0)
        by = {"t": mean_and_t(some[:count], LEVEL)[1], "bootstrap": bootstrapped(few, LEVEL)}
        for name, (low, high) in by.items():
            covered[name].append(float(np.mean((low <= truth) & (truth <= high))))
    return covered


def stopping_coverage(
    place: int, pool: Pool, draws: int, asked: float | None, limit: int
) -> dict[str, tuple[float, float]]:
    """Return how often the interval covers at which a goal is reached, or at the limit, by three ways of looking.

    With each stands how many runs there are then.
    """
    looks = [number for number in LOOKS if number <= limit]
    ways: dict[str, tuple[list[int], list[float], int]] = {
        "looks": (looks, list(look_ranks(LEVEL)[: len(looks)]), draws),
        "looks, naive": (looks, [median_rank(number, LEVEL) for number in looks], draws),
        "each run, naive": (list(NAIVE), [median_rank(number, LEVEL) for number in NAIVE], min(draws, FEWER)),
    }
    width, truth = _half_width(pool, asked), float(np.median(pool.losses))
    found = {}
    for name, (counts, ranks, number) in ways.items():
        some = drawn(pool, number, counts[-1], np.random.default_rng(2000 + place))
        found[name] = _at_stop(some, counts, ranks, width, truth)
    return found


def _words(asked: float | None) -> str:
    return "own" if asked is None else f"{asked:.0%}"


def _half_width(pool: Pool, asked: float | None) -> float:
    """Return the relative half-width that is asked for: where none is said, about what 40 runs have."""
    if asked is not None:
        return asked
    fraction = look_ranks(LEVEL)[LOOKS.index(40)] / 41
    low, middle, high = np.quantile(pool.losses, [fraction, 0.5, 1 - fraction])
    return float((high - low) / 2 / middle)


def _at_stop(
    some: Float64s, counts: Sequence[int], ranks: Sequence[float], width: float, truth: float
) -> tuple[float, float]:
    """Return the share of draws (runs, draws) whose interval covers where they stop, and how many runs they have."""
    going = np.ones(some.shape[1], bool)
    covers, runs = np.zeros(some.shape[1], bool), np.zeros(some.shape[1])
    for count, rank in zip(counts, ranks, strict=True):
        if not rank:
            continue
        ordered = np.sort(some[:count], axis=0)
        low, high = ranked(ordered, rank)
        narrow = (high - low) / 2 <= width * np.abs(medians(ordered))
        now = going & (narrow | (count == counts[-1]))
        covers[now], runs[now] = ((low <= truth) & (truth <= high))[now], count
        going &= ~now
    return float(covers.mean()), float(runs.mean())


# --- cost --------------------------------------------------------------------------------------------------------


def campaign_cost(pools: Sequence[Pool], goal: float, limit: int, seed: int) -> dict[str, float]:
    """Return what a goal costs on runs of pools in a random order: by the planner, and by an equal number of runs."""
    rng = np.random.default_rng(seed)
    aim = Aim((Goal("test_loss", goal, True, LEVEL),), ("pools",), (), limit)
    orders = [rng.permutation(pool.losses) for pool in pools]
    adaptive, reached, used = 0.0, [], []
    for pool, losses in zip(pools, orders, strict=True):
        state, runs = _campaign(aim, pool, losses)
        reached.append(state == "reached")
        adaptive += runs * pool.seconds
        used.append(runs)
    can = [_can_reach(pool, goal, limit) for pool in pools]
    equal = _least_equal([losses for losses, one in zip(orders, can, strict=True) if one], goal)
    uniform = equal * sum(pool.seconds for pool in pools)
    return {
        "campaign core-hours": adaptive / 3600,
        "uniform core-hours": uniform / 3600,
        "ratio": adaptive / uniform,
        "campaign runs each": mean(used),
        "uniform runs each": equal,
        "reached": sum(reached),
        "can": sum(can),
        "reached of these": sum(one and other for one, other in zip(can, reached, strict=True)),
        "short after 30": mean(_width(losses[:30]) > goal for losses in orders),
    }


def _least_equal(orders: Sequence[Float64s], goal: float) -> int:
    """Return the least number of runs at which all intervals are narrow enough, of those made for one look."""
    most = min(map(len, orders))
    return next((count for count in range(6, most) if all(_width(one[:count]) <= goal for one in orders)), most)


def _campaign(aim: Aim, pool: Pool, losses: Float64s) -> tuple[str, int]:
    count = 0
    while True:
        runs = _runs(losses[:count]) if count >= LOOKS[0] else None
        look = look_of(BUTTER, aim, pool.wanted, runs, count)
        if not look.runs:
            return look.cell.state, count
        count = look.runs


def _runs(losses: Float64s) -> pa.Table:
    lists = pa.array([[one] for one in losses.tolist()], pa.list_(pa.float32()))
    return pa.table({"repetition": pa.array(range(len(losses)), pa.uint16()), "val_loss": lists})


def _width(losses: Float64s) -> float:
    ordered = np.sort(losses)[:, None]
    low, high = ranked(ordered, median_rank(len(losses), LEVEL))
    return float((high - low)[0] / 2 / abs(medians(ordered)[0]))


def _can_reach(pool: Pool, goal: float, limit: int) -> bool:
    """Tell whether the interval at the last look is expected to be narrow enough, given all of the pool."""
    last = max(place for place, look in enumerate(LOOKS) if look <= limit)
    return expected_width(pool.losses[:, None], last, Aimed(LEVEL, goal, is_relative=True)) <= goal


# --- report ------------------------------------------------------------------------------------------------------


def measure(
    pools: Sequence[Pool], draws: int, goal: float, limit: int, orders: int = 20, processes: int = 1
) -> dict[str, Any]:
    """Return all figures."""
    with ProcessPoolExecutor(processes) as workers:
        of = partial(coverage_of, draws=draws, limit=limit)
        futures = [workers.submit(of, place, pool) for place, pool in enumerate(pools)]
        costs = list(workers.map(partial(campaign_cost, pools, goal, limit), range(orders)))
        found = [future.result() for future in futures]
    covered = np.array([one["medians"] for one in found])
    stops = {
        asked: {name: [one["stopping"][asked][name] for one in found] for name in found[0]["stopping"][asked]}
        for asked in map(_words, ASKED)
    }
    return {
        "experiments": len(pools),
        "draws": draws,
        "spread": [float(np.ptp(np.quantile(one.losses, [0.05, 0.95])) / np.median(one.losses)) for one in pools],
        "medians": {
            "all": float(covered.mean()),
            "worst experiment": float(covered.mean(axis=1).min()),
            "by count": dict(zip(COUNTS, covered.mean(axis=0).tolist(), strict=True)),
        },
        "stopping": {
            asked: {
                name: {
                    "all": mean(c for c, _ in some),
                    "worst": min(c for c, _ in some),
                    "runs": mean(r for _, r in some),
                }
                for name, some in ways.items()
            }
            for asked, ways in stops.items()
        },
        "means": {name: np.mean([one["means"][name] for one in found], axis=0).tolist() for name in found[0]["means"]},
        "cost": {name: _middle_and_ends([one[name] for one in costs]) for name in costs[0]},
    }


def _middle_and_ends(values: Sequence[float]) -> tuple[float, float, float]:
    return median(values), min(values), max(values)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the figures as text."""
    spread = sorted(found["spread"])
    yield f"{found['experiments']} experiments, {found['draws']:,} draws each; 5-95 % spread of final losses over the"
    yield f"median: {spread[0]:.0%} to {spread[-1]:.0%}, {spread[len(spread) // 2]:.0%} in the middle"
    yield ""
    yield f"{'runs':>24} " + " ".join(f"{count:6}" for count in COUNTS)
    yield f"{'median, by ranks':>24} " + _row(found["medians"]["by count"].values())
    for name, shares in found["means"].items():
        yield f"{f'mean, by {name}':>24} " + _row(shares)
    of = found["medians"]
    yield ""
    yield f"medians: all draws {of['all']:.2%}, worst experiment {of['worst experiment']:.2%}"
    yield ""
    yield f"{'at the moment it stops':>24} {'goal':>6} {'all':>8} {'worst':>8} {'runs':>6}"
    for asked, ways in found["stopping"].items():
        for name, one in ways.items():
            yield f"{name:>24} {asked:>6} {one['all']:8.2%} {one['worst']:8.2%} {one['runs']:6.1f}"
    yield ""
    yield f"{'cost, of 20 orders':>24} {'median':>8} {'least':>8} {'most':>8}"
    for name, (middle, least, most) in found["cost"].items():
        yield f"{name:>24} {middle:8.3g} {least:8.3g} {most:8.3g}"


def _row(shares: Any) -> str:
    return " ".join(f"{100 * one:6.1f}" for one in shares)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--limit", type=int, default=160)
    parser.add_argument("--goal", type=float, default=2.0, help="relative half-width, percent (2)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    train_pools(options.store, options.data_dir)
    found = measure(
        read_pools(options.store), options.draws, options.goal / 100, options.limit, processes=options.processes
    )
    print(json.dumps(found, indent=1) if options.json else "\n".join(lines(found)))
    stopped = [ways["looks"] for ways in found["stopping"].values()]
    shares = [found["medians"]["all"], *(one["all"] for one in stopped)]
    worst = [found["medians"]["worst experiment"], *(one["worst"] for one in stopped)]
    return int(min(shares) < 0.945 or min(worst) < 0.94)


if __name__ == "__main__":
    sys.exit(main())
