"""Start weights: bounds, moments, and their independence of everything but seed and layer."""

from __future__ import annotations

import numpy as np
import pytest

from butter_etl.engines.contract import Network
from butter_etl.engines.initialization import glorot_start, stack_starts


@pytest.mark.parametrize(("inputs", "widths"), [(1, (1,)), (11, (18, 18, 7)), (784, (300, 10))])
def test_shapes_types_and_bounds(inputs, widths):
    start = glorot_start(3, inputs, widths)
    assert len(start) == len(widths)
    for (kernel, bias), fan_in, width in zip(start, (inputs, *widths[:-1]), widths, strict=True):
        assert kernel.shape == (fan_in, width)
        assert bias.shape == (width,)
        assert kernel.dtype == bias.dtype == np.float32
        assert np.abs(kernel).max() <= np.float32(np.sqrt(6 / (fan_in + width)))
        assert not bias.any()


def test_kernels_are_uniform():
    ((kernel, _),) = glorot_start(5, 400, (250,))
    limit = np.sqrt(6 / 650)
    # Five standard errors of 100,000 draws.
    assert kernel.mean() == pytest.approx(0, abs=5 * limit / np.sqrt(3e5))
    assert kernel.var() == pytest.approx(limit**2 / 3, rel=5 * np.sqrt(0.8 / 1e5))
    counts, _ = np.histogram(kernel, bins=10, range=(-limit, limit))
    assert np.abs(counts - 1e4).max() < 5 * np.sqrt(1e4)


def test_draws_are_fixed_for_ever():
    ((kernel, _), _) = glorot_start(2**40 + 7, 2, (2, 1))
    assert kernel.tolist() == [[0.9941648244857788, 0.40808650851249695], [0.009313525632023811, -0.1795896589756012]]


def test_a_layer_depends_on_seed_position_and_its_own_shape_only():
    first = glorot_start(1, 4, (6, 3, 2))
    assert np.array_equal(first[0][0], glorot_start(1, 4, (6, 1))[0][0])
    assert np.array_equal(first[1][0], glorot_start(1, 9, (6, 3))[1][0])
    assert not np.array_equal(first[0][0], glorot_start(2, 4, (6,))[0][0])
    assert not np.array_equal(glorot_start(1, 5, (5, 5))[0][0], glorot_start(1, 5, (5, 5))[1][0])


def test_a_stack_holds_each_runs_own_start():
    network = Network(inputs=4, widths=(6, 3), loss="categorical_crossentropy")
    seeds = [8, 2**62, 8]
    stacked = stack_starts(seeds, network)
    assert [(kernel.shape, bias.shape) for kernel, bias in stacked] == [((3, 4, 6), (3, 6)), ((3, 6, 3), (3, 3))]
    for run, seed in enumerate(seeds):
        for (kernels, biases), (kernel, bias) in zip(stacked, glorot_start(seed, 4, (6, 3)), strict=True):
            assert np.array_equal(kernels[run], kernel)
            assert np.array_equal(biases[run], bias)
