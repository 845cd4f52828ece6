"""The kernels of image and recurrent networks and of fits are plain Python too, and do the same in the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import cycle, islice, product
from pathlib import Path

import coverage
import numpy as np
import pytest

from butter_etl.engines.convolutional.contract import draw_start, load_trainer
from butter_etl.engines.recurrent.contract import GATES, load_recurrent_trainer
from butter_etl.studies.lifespans.generator import Fixed, Ranges, candidates
from butter_etl.studies.lifespans.images import IMAGE_SETS
from butter_etl.studies.lifespans.networks import descent_of, network_of
from butter_etl.studies.lifespans.penguin import fit_prefixes, predict
from tests.recurrences import FORMS, KINDS, OPTIMIZERS, PLAIN, objective_of, recurrent, sequences, started

ROOT = Path(__file__).parents[1]
RANGES = Ranges(most_filters=4, fc_width=(1, 5), batch_size=(5, 9), most_learning_rate=0.05)


def check_networks() -> None:
    """Train drawn networks by both engines: the same losses but for rounding."""
    rng = np.random.default_rng(3)
    drawn = candidates(RANGES, IMAGE_SETS["digits"], 4, fixed=Fixed(1, "full", "relu"))
    for one in islice(drawn, 25):
        network, descent = network_of(one.network), descent_of(one.network)
        start = draw_start(network, descent, 5)
        both = [load_trainer(name)(network, descent, 5, start) for name in ("compiled", "reference")]
        for step in range(2):
            images = rng.integers(0, 256, (7, 12, 12, 1), np.uint8)
            labels = rng.integers(0, 10, 7)
            ours, theirs = (trainer.train_batch(images, labels, step) for trainer in both)
            assert ours == pytest.approx(theirs, rel=1e-3, nan_ok=True)
        ours, theirs = (trainer.evaluate(images, labels)[0] for trainer in both)
        assert ours == pytest.approx(theirs, rel=1e-3, nan_ok=True)


def check_recurrent_networks() -> None:
    """Train recurrent networks by both engines: the same losses and parameters but for rounding."""
    kinds, forms, optimizers = cycle(KINDS), cycle(FORMS), cycle(OPTIMIZERS)
    for architecture, units in product(GATES, (5, 17)):
        for layers in (1, 2):
            network, objective = recurrent(architecture, layers, units), objective_of(next(kinds))
            descent = replace(PLAIN, optimizer=next(optimizers), learning_rate=0.01, clip=0.5, l2=1e-3)
            start = started(network, descent.optimizer)
            batch = sequences(network, objective, next(forms), 7)
            both = [
                load_recurrent_trainer(name)(network, objective, descent, start) for name in ("compiled", "reference")
            ]
            for step in range(2):
                ours, theirs = (trainer.train_batch(batch, step) for trainer in both)
                assert ours == pytest.approx(theirs, rel=1e-4)
            ours, theirs = (trainer.evaluate(batch) for trainer in both)
            assert ours == pytest.approx(theirs, rel=1e-4)
            parameters = [trainer.state()["parameters"] for trainer in both]
            np.testing.assert_allclose(*parameters, rtol=1e-3, atol=1e-3)


def check_fits() -> None:
    """Fit rising, falling, constant and noisy curves: finite predictions for those that saturate."""
    rng = np.random.default_rng(3)
    points = np.arange(1, 9) / 2  # few: every prefix is fitted from many starts, by an interpreter
    rising = 60 - 1.2 ** (15 - 2 * points)
    curves = [rising, 90 - points, np.full(8, 10.0), rng.uniform(0, 100, 8), np.where(points > 2, np.nan, points)]
    assert fit_prefixes(points[None], rising[None])[0, -1] == pytest.approx([60, 1.2, 15], rel=1e-3)
    assert predict(np.tile(points, (5, 1)), np.array(curves)).converged.tolist() == [True, True, True, False, False]


def check_everything() -> None:
    """Run all."""
    check_networks()
    check_recurrent_networks()
    check_fits()


@pytest.mark.long
def test_the_kernels_are_plain_python_too(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text("import tests.test_plain_kernels as t; t.check_everything()")
    # The only process that runs the kernels' lines: count them where lines are counted.
    counted = ["-m", "coverage", "run", "--parallel-mode"] if coverage.Coverage.current() else []
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *counted, script], check=True, env=environment, cwd=ROOT, timeout=400)


def test_compiled_kernels_do_the_same():
    check_everything()
