"""Where the time of the fused engine goes: each section of an epoch by itself.

``python -m benchmarks.sections [--sizes 32,256,4096,65536]`` trains the rectangles of `benchmarks.training` on the rows
of wine_quality_white. Every section is repeated over all batches of an epoch, with what it works on in the same places
as in training; the table has the microseconds an epoch, the least of several rounds of the thread's CPU time. The last
column is a whole epoch, whose caches the sections share.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.training import DEPTH, Settings, load_shape, make_problem
from butter_etl.engines import kernel_cache
from butter_etl.engines.compiling import compiled
from butter_etl.engines.fused import engine, kernels, measures, products
from butter_etl.engines.fused.lanes import LANES, flush_subnormals, restore_subnormals
from butter_etl.engines.fused.memory import INPUT, OUTPUT, Plan, Run, Scratch
from butter_etl.studies.butter.topology import find_topology
from butter_etl.studies.user_folders import data_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Prepared = tuple[Plan, Run, Scratch, NDArray[np.int64]]

SIZES = "32,256,4096,65536"
#: The sections by the numbers that `repeat` knows them by.
SECTIONS = ("order", "gather", "forward", "metrics", "backward", "step", "test gather", "test forward", "test metrics")
EPOCH = len(SECTIONS)
ORDER, GATHER, FORWARD, METRICS, BACKWARD, STEP, TEST_GATHER, TEST_FORWARD, TEST_METRICS = range(EPOCH)
ROUNDS, SECONDS_A_ROUND = 15, 0.01


@compiled
def _train_batches(section: int, plan: Plan, run: Run, scratch: Scratch, layers: NDArray[np.int64]) -> None:
    work, logits = scratch.work, layers[plan.depth - 1, OUTPUT]
    for first in range(0, plan.train_count, plan.batch_size):
        rows = min(plan.batch_size, plan.train_count - first)
        panels = (rows + LANES - 1) // LANES
        if section == GATHER:
            kernels.gather_training(plan, run, scratch, layers[0, INPUT], first, rows)
        elif section == FORWARD:
            products.forward(plan, run.weights, work, layers, panels)
        elif section == METRICS:
            measures.measure(plan, run.train_kind, run.weights, work, logits, rows, panels, scratch.sums)
        elif section == BACKWARD:
            products.backward(plan, run, scratch, layers, panels)
        else:
            kernels.optimize(plan, run, first + 1)


@compiled
def _test_batches(section: int, plan: Plan, run: Run, scratch: Scratch, layers: NDArray[np.int64]) -> None:
    work, logits = scratch.work, layers[plan.depth - 1, OUTPUT]
    for first in range(0, plan.test_count, plan.batch_size):
        rows = min(plan.batch_size, plan.test_count - first)
        panels = (rows + LANES - 1) // LANES
        if section == TEST_GATHER:
            kernels.gather_test(plan, run, scratch, layers[0, INPUT], first, rows)
        elif section == TEST_FORWARD:
            products.forward(plan, run.weights, work, layers, panels)
        else:
            measures.measure(plan, run.test_kind, run.weights, work, logits, rows, panels, scratch.sums)


@compiled
def repeat(section: int, plan: Plan, run: Run, scratch: Scratch, layers: NDArray[np.int64], times: int) -> None:
    """One section of an epoch, ``times`` times over; `EPOCH` is all of them."""
    mode = flush_subnormals()
    for epoch in range(times):
        if section == EPOCH:
            training = kernels.batches_of(plan.train_count, plan.batch_size)
            kernels.train_batches(plan, run, scratch, layers, epoch, 0, training)
            kernels.test_batches(plan, run, scratch, layers, 0, kernels.batches_of(plan.test_count, plan.batch_size))
        elif section == ORDER:
            kernels.fill_order(scratch.order, scratch.words, run.key_low, run.key_high, epoch)
        elif section < TEST_GATHER:
            _train_batches(section, plan, run, scratch, layers)
        else:
            _test_batches(section, plan, run, scratch, layers)
    restore_subnormals(mode)


def microseconds(prepared: Prepared, rounds: int = ROUNDS) -> list[float]:
    """The least time of each section and of a whole epoch of a prepared run (`engine.prepare`)."""
    plan, run, scratch, layers = prepared
    sections = range(EPOCH + 1)
    kernel_cache.ready(repeat, (EPOCH, *prepared, 2), [*engine.SOURCES, Path(__file__)])
    repeat(EPOCH, plan, run, scratch, layers, 2)
    counts = [max(1, int(SECONDS_A_ROUND / max(_seconds(section, prepared, 1), 1e-6))) for section in sections]
    start, times = run.weights.copy(), [np.inf for _ in sections]
    for _ in range(rounds):
        for section, count in zip(sections, counts, strict=True):
            # Steps with the same gradient again and again would lead to infinity.
            run.weights[:] = start
            repeat(FORWARD, plan, run, scratch, layers, 1)
            times[section] = min(times[section], _seconds(section, prepared, count) / count)
            scratch.sums[:] = 0
            scratch.test_sums[:] = 0
    return [1e6 * seconds for seconds in times]


def _seconds(section: int, prepared: Prepared, count: int) -> float:
    plan, run, scratch, layers = prepared
    started = time.thread_time()
    repeat(section, plan, run, scratch, layers, count)
    return time.thread_time() - started


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sections", description=__doc__)
    parser.add_argument("--sizes", default=SIZES, help=f"numbers of parameters ({SIZES})")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)
    dataset, source = load_shape("wine", data_folder(None))
    print(f"{'size':>8}", *(f"{name:>13}" for name in (*SECTIONS, "epoch")))
    for size in map(int, options.sizes.split(",")):
        topology = find_topology("rectangle", size, DEPTH, dataset.info.inputs, dataset.info.outputs)
        problem = make_problem(dataset, size, topology, Settings(rounds=1, seconds=1, runs=1))
        prepared = engine.prepare(problem.network, problem.optimization, problem.data, [0], problem.start)
        print(f"{size:>8}", *(f"{each:>13.1f}" for each in microseconds(prepared, options.rounds)), flush=True)
    print(source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
