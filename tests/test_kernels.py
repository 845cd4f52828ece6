"""The compiled kernels in pieces: the order of the rows, gathering, and what they do with the compiler switched off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import coverage
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.engines.batched.parameters import adam_rate
from butter_etl.engines.contract import HISTORIES, Network, Optimization, StackData
from butter_etl.engines.fused import kernels
from butter_etl.engines.fused.engine import train
from butter_etl.engines.initialization import stack_starts
from butter_etl.engines.streams import Stream, epoch_order

ROOT = Path(__file__).parents[1]
WORD = 2**32 - 1


@given(seed=st.integers(-(2**63), 2**63 - 1), epoch=st.integers(0, 2**31), count=st.integers(1, 300))
def test_the_order_is_that_of_every_engine(seed, epoch, count):
    order = np.empty(count, dtype=np.int64)
    words = np.empty(-(-count // 4) * 4, dtype=np.uint32)
    kernels.fill_order(order, words, seed & WORD, (seed >> 32) & WORD, epoch)
    np.testing.assert_array_equal(order, epoch_order(seed, epoch, count))


def test_the_order_has_its_own_stream():
    assert kernels.ORDER_STREAM == Stream.ORDER


@pytest.mark.parametrize("columns", [4, 5, 7, 8, 11, 16, 26])
def test_a_panel_is_the_transpose_of_its_rows(columns):
    table = np.arange(20 * columns, dtype=np.float32)
    rows = np.random.default_rng(1).integers(0, 20, 16)
    work = np.full(16 * columns + 32, -1, dtype=np.float32)
    starts = np.concatenate([[-1, -1, -1], rows * columns])
    kernels.gather_panel(table, columns, starts, 3, work, 16)
    np.testing.assert_array_equal(work[16:-16].reshape(columns, 16), table.reshape(20, columns)[rows].T)
    assert (work[:16] == -1).all()
    assert (work[-16:] == -1).all()


@pytest.mark.parametrize("step", [1, 2, 3, 10, 1000, 480_000, 10**7])
def test_adams_rate_is_that_of_every_engine(step):
    assert kernels.adam_rate(0.001, step) == pytest.approx(adam_rate(0.001, step), rel=1e-7)


def tiny_trainings():
    """Histories and weights of small trainings that reach every kernel, as one flat dictionary."""
    rng = np.random.default_rng(3)
    results = {}
    cases = [
        (Network(3, (7, 7, 7, 3), "categorical_crossentropy", residual=True), "adam"),
        (Network(271, (18, 4, 1), "binary_crossentropy", regularizer="l1", penalty=0.01), "RMSprop"),
        (Network(10, (2, 14, 2), "mean_squared_error", regularizer="l2", penalty=0.01), "SGD"),
    ]
    for number, (network, optimizer) in enumerate(cases):
        rows, outputs = 45, network.widths[-1]
        x = rng.random((rows, network.inputs), dtype=np.float32)
        y = rng.random((rows, outputs), dtype=np.float32).round(1 if number == 2 else 0)
        order = rng.permutation(rows)[None]
        data = StackData(x, y, order[:, :30], order[:, 30:], y[order[:, :30]])
        optimization = Optimization(optimizer, 0.003, 20, epochs=2, momentum=0.9)
        trained = train(network, optimization, data, [7], stack_starts([7], network))
        results |= {f"{number} {name}": trained.histories[name] for name in HISTORIES}
        results |= {
            f"{number} {layer} {part}": values
            for layer, pair in enumerate(trained.weights)
            for part, values in enumerate(pair)
        }
    return results


@pytest.mark.long
def test_the_kernels_are_plain_python_too(tmp_path):
    """With the compiler switched off the same functions run in the interpreter, on NumPy arrays."""
    file, script = tmp_path / "plain.npz", tmp_path / "plain.py"
    script.write_text(f"import numpy, tests.test_kernels as t; numpy.savez({str(file)!r}, **t.tiny_trainings())")
    # The only process that runs the kernels' lines: count them where lines are counted.
    counted = ["-m", "coverage", "run", "--parallel-mode"] if coverage.Coverage.current() else []
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *counted, script], check=True, env=environment, cwd=ROOT)
    compiled, plain = tiny_trainings(), np.load(file)
    assert set(compiled) == set(plain)
    for name, values in compiled.items():
        np.testing.assert_allclose(values, plain[name], rtol=2e-5, atol=2e-6, err_msg=name)
