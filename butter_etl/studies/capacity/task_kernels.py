"""Compiled parts of the tasks: streams of brackets, drawn and counted while they are drawn."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import compiled, compiled_in_place

#: Philox4x32-10, as `butter_etl.engines.streams` has it.
_MULTIPLIER_0: Final = np.uint64(0xD2511F53)
_MULTIPLIER_1: Final = np.uint64(0xCD9E8D57)
_WEYL_0: Final = np.uint64(0x9E3779B9)
_WEYL_1: Final = np.uint64(0xBB67AE85)
_LOW: Final = np.uint64(0xFFFFFFFF)
_32: Final = np.uint64(32)
_ROUNDS: Final = 10
_TYPES, _LETTERS, _MOST = 10, 10, 9
#: Blocks of four words that are drawn at once, so that vectors of them are; and symbols that a block makes.
LANES: Final = 64
_OF_BLOCK: Final = 8


@compiled
def count_brackets(
    key_0: int,
    key_1: int,
    step: int,
    stream: int,
    part: int,
    steps: int,
    indices: NDArray[np.int32],
    counts: NDArray[np.int64],
    room: NDArray[np.uint32],
) -> None:
    """Fill ``indices`` (rows · steps · 10) with symbols, and ``counts`` (rows · 10) with the brackets left open.

    ``room`` has 4 · `LANES` numbers. Symbol i, in the order of ``indices``, is made of half i mod 2, the lower one
    first, of word i // 2 of the step's part. It is a letter if the half is below 2^15, of the number 10 half / 2^15;
    else a bracket, of 20.
    """
    for place in range(counts.size):
        counts[place] = 0
    kind, left, first = 0, steps, 0
    for start in range(0, (indices.size + _OF_BLOCK - 1) // _OF_BLOCK, LANES):
        _draw(key_0, key_1, start, step, stream, part, room)
        for place in range(min(_OF_BLOCK * LANES, indices.size - _OF_BLOCK * start)):
            word = np.int64(room[(place >> 1 & 3) * LANES + (place >> 3)])
            half = (word >> 16) if place & 1 else (word & 0xFFFF)
            # Without a branch, which would be foretold wrongly half of the time.
            is_bracket, share = half >> 15, half & 0x7FFF
            symbol = ((share * (_LETTERS + _LETTERS * is_bracket)) >> 15) + 2 * _TYPES * (1 - is_bracket)
            if symbol == kind:
                counts[first + kind] = min(counts[first + kind] + 1, _MOST)
            elif symbol == _TYPES + kind:
                counts[first + kind] = max(counts[first + kind] - 1, 0)
            indices[_OF_BLOCK * start + place] = kind * (2 * _TYPES + _LETTERS) + symbol
            kind += 1
            if kind == _TYPES:
                kind, left = 0, left - 1
                if left == 0:
                    left, first = steps, first + _TYPES


@compiled_in_place
def _draw(key_0: int, key_1: int, start: int, step: int, stream: int, part: int, room: NDArray[np.uint32]) -> None:
    """Fill ``room`` (4 · `LANES`) with the words of blocks from ``start`` on, the first words of all first."""
    for lane in range(LANES):
        room[lane] = np.uint32(start + lane)
        room[LANES + lane] = np.uint32(step)
        room[2 * LANES + lane] = np.uint32(stream)
        room[3 * LANES + lane] = np.uint32(part)
    k0, k1 = np.uint64(key_0), np.uint64(key_1)
    for _ in range(_ROUNDS):
        for lane in range(LANES):
            product_0 = np.uint64(room[lane]) * _MULTIPLIER_0
            product_1 = np.uint64(room[2 * LANES + lane]) * _MULTIPLIER_1
            c1, c3 = np.uint64(room[LANES + lane]), np.uint64(room[3 * LANES + lane])
            room[lane] = np.uint32((product_1 >> _32) ^ c1 ^ k0)
            room[LANES + lane] = np.uint32(product_1 & _LOW)
            room[2 * LANES + lane] = np.uint32((product_0 >> _32) ^ c3 ^ k1)
            room[3 * LANES + lane] = np.uint32(product_0 & _LOW)
        k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
