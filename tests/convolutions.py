"""Networks for tests: those that are known from the published tables, and random ones."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from benchmarks.lifespans import known_cases
from butter_etl.engines.convolutional.contract import Block, ConvNetwork, Descent, Pool

#: Networks of the published tables by name, each with its batch size and descent.
KNOWN = {case.name: case for case in known_cases()}

#: A network with everything in it.
SMALL = ConvNetwork(
    2,
    9,
    (Block(5, 4, 2, 1, 7, Pool(2, 1, 1)), Block(20, 1, 1, 2, 5), Block(6, 3, 2, 2, 6, Pool(3, 2, 1))),
    (11, 8, 4),
    dropout_rate=0.3,
    fc_dropout=(True, False),
    fc_dropout_rate=0.5,
    fc_activation="relu",
)


def batches(network, rows, count, seed=5):
    """Random images and labels, so many batches."""
    rng = np.random.default_rng(seed)
    shape = (rows, network.size, network.size, network.channels)
    return [(rng.random(shape, dtype=np.float32), rng.integers(0, network.classes, rows)) for _ in range(count)]


@st.composite
def networks(draw):
    """Networks of up to three blocks, drawn as the study draws them but small."""
    channels, size = draw(st.sampled_from([1, 2, 3])), draw(st.integers(3, 12))
    blocks, feature_size = [], size
    for _ in range(draw(st.integers(0, 3))):
        kernel = draw(st.integers(1, feature_size))
        block = [draw(st.integers(1, 40)), kernel, draw(st.integers(1, kernel)), draw(st.integers(0, 3))]
        code, pool = draw(st.integers(0, 7)), None
        feature_size = (feature_size + 2 * block[3] - kernel) // block[2] + 1
        if code & 2:
            kernel = draw(st.integers(1, feature_size))
            pool = Pool(kernel, draw(st.integers(1, kernel)), draw(st.integers(0, kernel // 2)))
            feature_size = pool.size(feature_size)
        blocks.append(Block(*block, code, pool))
    widths = draw(st.lists(st.integers(1, 70), min_size=1, max_size=3))
    return ConvNetwork(
        channels,
        size,
        tuple(blocks),
        (*widths[1:], max(widths[0], 2)),
        draw(st.sampled_from([0.0, 0.1, 0.5])),
        tuple(draw(st.booleans()) for _ in widths[1:]),
        draw(st.sampled_from([0.0, 0.7])),
        draw(st.sampled_from(["none", "relu"])),
    )


def descents():
    """Settings of descent, each of them on or off."""
    return st.builds(
        Descent,
        st.sampled_from([0.01, 0.3]),
        st.sampled_from([0.0, 0.9]),
        st.sampled_from([0.0, 0.5]),
        st.sampled_from([0.0, 0.02]),
    )
