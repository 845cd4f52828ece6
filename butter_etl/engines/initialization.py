"""Start weights: Keras' `glorot_uniform` kernels and zero biases, drawn from the run's own stream."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from butter_etl.engines.streams import Stream, uniforms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from butter_etl.engines.contract import Network, Weights


def glorot_start(
    seed: int, inputs: int, widths: Sequence[int]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Draw one run's start weights: a (kernel, bias) a layer, float32 (fan_in, width) and (width,).

    Kernels are uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010), filled row by row from step
    ``layer`` of the weight stream, so that a layer's draw does not depend on the sizes of the others; biases are 0.
    """
    return [
        (_glorot_kernel(seed, layer, fan_in, width), np.zeros(width, dtype=np.float32))
        for layer, (fan_in, width) in enumerate(pairwise([inputs, *widths]))
    ]


def _glorot_kernel(seed: int, layer: int, fan_in: int, fan_out: int) -> NDArray[np.float32]:
    limit = math.sqrt(6.0 / (fan_in + fan_out))
    draws = uniforms(seed, Stream.WEIGHTS, fan_in * fan_out, step=layer)
    return ((2.0 * draws - 1.0) * limit).astype(np.float32).reshape(fan_in, fan_out)


def stack_starts(seeds: Sequence[int], network: Network) -> Weights:
    """Stack the start weights of several runs: a (kernel, bias) a layer, (runs, fan_in, width) and (runs, width)."""
    starts = [glorot_start(seed, network.inputs, network.widths) for seed in seeds]
    return [
        (np.stack([kernel for kernel, _ in layer]), np.stack([bias for _, bias in layer]))
        for layer in zip(*starts, strict=True)
    ]
