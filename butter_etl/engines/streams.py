"""Named streams of random numbers, the same on every machine, version and engine.

One generator serves everything that is random about a run: Philox4x32-10 (Salmon et al., "Parallel random numbers:
as easy as 1, 2, 3", SC'11), keyed by the run's seed. Its counter is (block, step, stream, part), so that word ``i`` of
any step of any stream is a pure function of (seed, stream, step, part, i): no state, no order of calls. NumPy's own
generators are not used because their streams may change between versions (NEP 19).
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_ROUNDS = 10
_LOW = 0xFFFFFFFF


class Stream(IntEnum):
    """The purposes of streams. The numbers are part of every run's identity: never change them."""

    ORDER = 1
    SPLIT = 2
    WEIGHTS = 3
    NOISE_ROWS = 4
    NOISE_VALUES = 5
    MASKS = 6
    HYPERPARAMETERS = 7
    TASK_DATA = 8
    #: Of statistics, not of runs.
    RESAMPLES = 64


def philox(counters: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Apply Philox4x32-10 to ``counters`` (4, n), four 32-bit words each in uint64; return uint32 words (4, n)."""
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in counters)
    low, shift = np.uint64(_LOW), np.uint64(32)
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0 = c0 * np.uint64(_MULTIPLIER_0)
        product_1 = c2 * np.uint64(_MULTIPLIER_1)
        c0, c1, c2, c3 = (
            (product_1 >> shift) ^ c1 ^ np.uint64(k0),
            product_1 & low,
            (product_0 >> shift) ^ c3 ^ np.uint64(k1),
            product_0 & low,
        )
        k0 = (k0 + _WEYL_0) & _LOW
        k1 = (k1 + _WEYL_1) & _LOW
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def words(seed: int, stream: Stream, count: int, step: int = 0, part: int = 0) -> NDArray[np.uint32]:
    """Return the first ``count`` 32-bit words of one part of one step of a stream, uint32; most steps have one part."""
    blocks = np.arange(-(-count // 4), dtype=np.uint64)
    counters = np.zeros((4, blocks.size), dtype=np.uint64)
    counters[0] = blocks
    counters[1] = step
    counters[2] = int(stream)
    counters[3] = part
    return philox(counters, (seed & _LOW, (seed >> 32) & _LOW)).T.reshape(-1)[:count]


def uniforms(seed: int, stream: Stream, count: int, step: int = 0, part: int = 0) -> NDArray[np.float64]:
    """Return ``count`` float64 in the open interval (0, 1): (word + 1/2) / 2^32."""
    return (words(seed, stream, count, step, part).astype(np.float64) + 0.5) * 2.0**-32


def integers(seed: int, stream: Stream, count: int, bound: int) -> NDArray[np.int64]:
    """Return ``count`` int64 in [0, bound), by multiply and shift (bias below bound / 2^32)."""
    return ((words(seed, stream, count).astype(np.uint64) * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def normals(seed: int, stream: Stream, count: int, step: int = 0, part: int = 0) -> NDArray[np.float64]:
    """Return ``count`` standard normal float64, by the Box-Muller transform of two uniforms each."""
    first, second = uniforms(seed, stream, 2 * count, step, part).reshape(2, count)
    return np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)


def permutation(seed: int, stream: Stream, count: int, step: int = 0) -> NDArray[np.int64]:
    """Return a uniformly drawn order of 0 … count-1, int64 (count,).

    It is a Fisher-Yates shuffle from the end. The swap partner of position i is word (count-1-i) of the step, scaled to
    [0, i] by multiply and shift.
    """
    order = np.arange(count, dtype=np.int64)
    _compiled_shuffle()(order, words(seed, stream, max(count - 1, 0), step))
    return order


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the order in which a run sees its ``count`` training rows in ``epoch`` (from 0), whatever the engine."""
    return permutation(seed, Stream.ORDER, count, epoch)


def shuffle(order: NDArray[np.int64], random_words: NDArray[np.uint32]) -> None:
    """Shuffle ``order`` in place by Fisher and Yates' method; plain Python that numba compiles."""
    for k in range(order.size - 1):
        i = order.size - 1 - k
        j = np.int64((np.uint64(random_words[k]) * np.uint64(i + 1)) >> np.uint64(32))
        order[i], order[j] = order[j], order[i]


@cache
def _compiled_shuffle() -> Callable[[NDArray[np.int64], NDArray[np.uint32]], None]:
    import numba

    compiled: Callable[[NDArray[np.int64], NDArray[np.uint32]], None] = numba.njit(
        "void(int64[::1], uint32[::1])", nogil=True
    )(shuffle)
    return compiled
