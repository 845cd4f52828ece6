"""Compiled parts of the tasks: streams of brackets, drawn and counted while they are drawn."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import compiled

#: Philox4x32-10, as `butter_etl.engines.streams` has it.
_MULTIPLIER_0: Final = np.uint64(0xD2511F53)
_MULTIPLIER_1: Final = np.uint64(0xCD9E8D57)
_WEYL_0: Final = np.uint64(0x9E3779B9)
_WEYL_1: Final = np.uint64(0xBB67AE85)
_LOW: Final = np.uint64(0xFFFFFFFF)
_32: Final = np.uint64(32)
_ROUNDS: Final = 10
_HALF: Final = 1 << 15
_TYPES, _LETTERS, _MOST = 10, 10, 9
#: Symbols that a block of four words makes.
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
    halves: NDArray[np.int64],
) -> None:
    """Fill ``indices`` (rows · steps · 10) with symbols, and ``counts`` (rows · 10) with the brackets left open.

    ``halves`` (8) is room. Symbol i, in the order of ``indices``, is made of half i mod 2, the lower one first, of word i // 2 of the step's
    part. It is a letter if the half is below 2^15, of the number 10 half / 2^15; else a bracket, of 20.
    """
    for place in range(counts.size):
        counts[place] = 0
    for block in range((indices.size + _OF_BLOCK - 1) // _OF_BLOCK):
        c0, c1 = np.uint64(block), np.uint64(step)
        c2, c3 = np.uint64(stream), np.uint64(part)
        k0, k1 = np.uint64(key_0), np.uint64(key_1)
        for _ in range(_ROUNDS):
            product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
            c0 = (product_1 >> _32) ^ c1 ^ k0
            c2 = (product_0 >> _32) ^ c3 ^ k1
            c1, c3 = product_1 & _LOW, product_0 & _LOW
            k0, k1 = (k0 + _WEYL_0) & _LOW, (k1 + _WEYL_1) & _LOW
        halves[0], halves[1] = np.int64(c0) & 0xFFFF, np.int64(c0) >> 16
        halves[2], halves[3] = np.int64(c1) & 0xFFFF, np.int64(c1) >> 16
        halves[4], halves[5] = np.int64(c2) & 0xFFFF, np.int64(c2) >> 16
        halves[6], halves[7] = np.int64(c3) & 0xFFFF, np.int64(c3) >> 16
        for place in range(min(_OF_BLOCK, indices.size - block * _OF_BLOCK)):
            position = block * _OF_BLOCK + place
            kind, half = position % _TYPES, halves[place]
            if half < _HALF:
                symbol = 2 * _TYPES + (half * _LETTERS) // _HALF
            else:
                symbol = ((half - _HALF) * 2 * _TYPES) // _HALF
                counted = position // (_TYPES * steps) * _TYPES + kind
                if symbol == kind:
                    counts[counted] = min(counts[counted] + 1, _MOST)
                elif symbol == _TYPES + kind:
                    counts[counted] = max(counts[counted] - 1, 0)
            indices[position] = kind * (2 * _TYPES + _LETTERS) + symbol
