"""Statistics over the runs of an experiment at each epoch, compiled: every statistic of one history from one sort.

Epochs are taken in *tiles* of `LANES`. A tile is a small matrix (runs, LANES) that stays in the first-level cache; its
columns, one an epoch, are sorted all at once by a sorting network, whose comparisons do not depend on the data and so
become minima and maxima of whole vectors. The more runs there are, the more comparators a network has for each: above
`LARGEST_NETWORK` runs, NumPy sorts one column after the other. What is left are sums down the sorted columns, and rows
that are looked up.

What is sorted are *keys*: integers of the float's width, in the order of the floats. A key is the magnitude's bits,
with a minus for negative numbers, so that -0 and 0 have one. Everything that is not finite (NaN, infinities, what the
declared type cannot hold, and what is behind the end of a run's list) has the largest key. So equal values are equal
bits, and as every sum runs over sorted values, no result depends on the order of the runs, nor on how they are sorted.
(The smaller of two integers is one instruction. That of two floats is one only if the compiler may assume that there is
no NaN.) Sums are float64, each result is rounded once to the type of the output, and no flag lets the compiler reorder
anything.

In float64, entries of float32 are far from where sums and squares overflow or vanish. Where float64 is the declared
type, they are not: there, moments are of entries that a power of two has brought near 1, which changes no bit that
could be kept, averages are held between the extremes, and quantiles are interpolated as NumPy does it, to its bits.

Lists come as Arrow lays them out: run r has the ``lengths[r]`` elements of ``values``, float32 or float64, from
``starts[r]`` on. Nothing is checked: positions must be in range, and there are 1 to 65,535 runs, or 255 for counts of
uint8. Threads may share everything but what is written. With ``NUMBA_DISABLE_JIT=1`` the same functions run in the
interpreter.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from butter_etl.engines import kernel_cache
from butter_etl.engines.compiling import compiled, compiled_in_place

if TYPE_CHECKING:
    from collections.abc import Callable

    _Function = TypeVar("_Function", bound="Callable[..., Any]")

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Float64s: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Keys: TypeAlias = npt.NDArray[np.signedinteger[Any]]
Counts: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]
Positions: TypeAlias = npt.NDArray[np.uint16]
Kind: TypeAlias = type[np.float32] | type[np.float64]
# Whether float64 is the declared type: if not, None. For that the compiler leaves the branches out that are not taken.
Wide: TypeAlias = Literal[True] | None

#: Epochs in a tile: enough to make the walk along a network cheap, few enough that a tile of 255 runs stays in cache.
LANES: Final = 64

#: The most runs that are sorted by a network. With so many, the network takes two thirds of NumPy's time for a whole
#: tile, and NumPy two thirds of the network's for a third of one.
LARGEST_NETWORK: Final = 512

#: Rows of the output before those of the quantiles.
MOMENTS: Final = ("avg", "stddev", "min", "max")
_AVG, _STDDEV, _MIN, _MAX, _QUANTILES = range(5)
#: What `_scaled_moments` needs.
_SCRATCH_ROWS: Final = 3


# The largest finite keys of entries of float32; and as float64, where the declared type is float32 and where it is not.
_LARGEST_OF_FLOAT32: Final = 0x7F7FFFFF
_FLOAT32_LARGEST: Final = 0x47EFFFFFE0000000
_FLOAT64_LARGEST: Final = 0x7FEFFFFFFFFFFFFF

_FARTHEST: Final = 1000  # powers of two of this size, and their inverses, are normal float64 numbers


@lru_cache(maxsize=256)
def sorting_network(count: int) -> Positions:
    """Return the comparators of Batcher's merge exchange for ``count`` values (1 to 65,536), uint16 (comparators, 2).

    Each orders a pair of positions, the first before the second. (D. Knuth, The Art of Computer Programming, volume 3,
    section 5.2.2, algorithm M.) 30 values take 178 comparators, 255 take 3,831, 512 take 9,727; the best known
    networks are a few percent smaller.
    """
    half = 1 << max(count - 1, 0).bit_length() >> 1
    pairs = [np.zeros((0, 2), np.int64)]
    p = half
    while p > 0:
        q, r, distance = half, 0, p
        while True:
            first = np.arange(count - distance)
            first = first[first & p == r]
            pairs.append(np.stack([first, first + distance], axis=1))
            if q == p:
                break
            distance, q, r = q - p, q >> 1, p
        p >>= 1
    network = np.concatenate(pairs).astype(np.uint16)
    network.flags.writeable = False
    return network


@compiled_in_place
def _missing(keys: Keys) -> int:
    """Return the key of everything that is not finite: the largest integer, which as the bits of a float is NaN."""
    return np.iinfo(keys.dtype).max


@compiled_in_place
def _encode(bits: Keys, keys: Keys, wide: Wide) -> None:
    """Write to ``keys`` the keys of floats that are given as bits."""
    missing = _missing(bits)
    declared = _FLOAT32_LARGEST if wide is None else _FLOAT64_LARGEST
    largest = _LARGEST_OF_FLOAT32 if missing < 2**32 else declared
    for lane in range(len(keys)):
        magnitude = bits[lane] & missing
        key = magnitude if bits[lane] >= 0 else -magnitude
        keys[lane] = key if magnitude <= largest else missing


@compiled_in_place
def _decode(keys: Keys) -> None:
    """Turn keys into the bits of their floats, in place."""
    missing = _missing(keys)
    for lane in range(len(keys)):
        keys[lane] = keys[lane] if keys[lane] >= 0 else -keys[lane] | ~missing


@compiled
def sort_columns(tile: Keys, network: Positions) -> None:
    """Sort each column of ``tile`` (runs, LANES) in place."""
    for comparator in range(len(network)):
        upper, lower = tile[network[comparator, 0]], tile[network[comparator, 1]]
        for lane in range(LANES):
            a, b = upper[lane], lower[lane]
            upper[lane] = min(a, b)
            lower[lane] = max(a, b)


@compiled
def _fill_tile(tile: Keys, bits: Keys, starts: Integers, lengths: Integers, first: int, width: int, wide: Wide) -> None:
    """Fill ``tile`` with the keys of ``width`` epochs from ``first`` on; the lanes that are left are 0."""
    missing = _missing(tile)
    for run in range(len(starts)):
        begin, count = starts[run] + first, max(min(lengths[run] - first, width), 0)
        if count == LANES:
            _encode(bits[begin : begin + LANES], tile[run, :LANES], wide)  # a length that the compiler knows
            continue
        for lane in range(LANES):
            tile[run, lane] = missing if lane < width else 0
        _encode(bits[begin : begin + count], tile[run, :count], wide)


@compiled
def _count(tile: Keys, lengths: Integers, first: int, num: Integers, num_finite: Integers, finite_only: bool) -> bool:
    """Count the runs that reach each lane's epoch, and the finite keys of the sorted columns; tell whether all are.

    With ``finite_only`` both counts are of the finite keys.
    """
    runs, missing = len(tile), _missing(tile)
    last = tile[runs - 1]
    found = last[0]
    for lane in range(LANES):
        num[lane] = num_finite[lane] = runs
        found = max(found, last[lane])
    if found < missing:
        return True
    for lane in range(LANES):
        while num_finite[lane] > 0 and tile[num_finite[lane] - 1, lane] == missing:
            num_finite[lane] -= 1
    if finite_only:
        for lane in range(LANES):
            num[lane] = num_finite[lane]
        return False
    for run in range(runs):
        for lane in range(max(lengths[run] - first, 0), LANES):
            num[lane] -= 1
    return False


@compiled
def _bound(averages: Float64s, bounds: Float64s) -> None:
    """Move averages that lie outside their bounds to the nearer one."""
    for lane in range(LANES):
        averages[lane] = min(max(averages[lane], bounds[0, lane]), bounds[1, lane])


@compiled
def _moments(
    ordered: Floats, num_finite: Integers, bounds: Float64s | None, averages: Float64s, deviations: Float64s
) -> None:
    """Compute average and sample standard deviation of each column's finite values.

    The average of none is 0, and so is the deviation of none or one. Averages stay between ``bounds`` (2, LANES), if
    there are any, whatever the rounding of their sums.
    """
    full, most = num_finite[0], num_finite[0]
    for lane in range(LANES):
        averages[lane] = deviations[lane] = 0
        full, most = min(full, num_finite[lane]), max(most, num_finite[lane])
    pairs = full - full % 2  # so many rows two at a time: the sums are loaded and stored less often
    for run in range(0, pairs, 2):
        a, b = ordered[run], ordered[run + 1]
        for lane in range(LANES):
            averages[lane] = averages[lane] + a[lane] + b[lane]
    for run in range(pairs, most):
        for lane in range(LANES):
            averages[lane] += ordered[run, lane] if run < num_finite[lane] else 0.0
    for lane in range(LANES):
        averages[lane] /= max(num_finite[lane], 1)
    if bounds is not None:
        _bound(averages, bounds)
    for run in range(0, pairs, 2):
        a, b = ordered[run], ordered[run + 1]
        for lane in range(LANES):
            first, second = a[lane] - averages[lane], b[lane] - averages[lane]
            deviations[lane] = deviations[lane] + first * first + second * second
    for run in range(pairs, most):
        for lane in range(LANES):
            last = ordered[run, lane] - averages[lane] if run < num_finite[lane] else 0.0
            deviations[lane] += last * last
    for lane in range(LANES):
        deviations[lane] = math.sqrt(deviations[lane] / max(num_finite[lane] - 1, 1))


@compiled
def _scaled_moments(
    ordered: Floats,
    num_finite: Integers,
    extremes: Float64s,
    averages: Float64s,
    deviations: Float64s,
    scratch: Float64s,
) -> None:
    """Compute `_moments` of numbers of any size, and spoil ``ordered``; ``extremes`` (2, LANES) are its `_extremes`.

    Each column is multiplied by a power of two that brings its largest magnitude near 1, and the results divided by it.
    ``scratch`` is (3, LANES).
    """
    scales, bounds = scratch[2], scratch[:2]
    for lane in range(LANES):
        _, exponent = math.frexp(max(abs(extremes[0, lane]), abs(extremes[1, lane])))
        scales[lane] = math.ldexp(1.0, -min(max(exponent, -_FARTHEST), _FARTHEST))
        bounds[0, lane], bounds[1, lane] = extremes[0, lane] * scales[lane], extremes[1, lane] * scales[lane]
    for run in range(len(ordered)):
        for lane in range(LANES):
            ordered[run, lane] *= scales[lane]
    _moments(ordered, num_finite, bounds, averages, deviations)
    for lane in range(LANES):
        averages[lane] /= scales[lane]
        deviations[lane] /= scales[lane]


@compiled
def _extremes(ordered: Floats, num_finite: Integers, complete: bool, least: Float64s, largest: Float64s) -> None:
    """Take the first and the last finite value of each column; 0 where there is none."""
    first, last = ordered[0], ordered[len(ordered) - 1]
    for lane in range(LANES):
        least[lane], largest[lane] = first[lane], last[lane]
    if complete:
        return
    for lane in range(LANES):
        if num_finite[lane] == 0:
            least[lane] = largest[lane] = 0
        else:
            largest[lane] = ordered[num_finite[lane] - 1, lane]


@compiled
def _quantiles(ordered: Floats, num: Integers, complete: bool, fraction: float, quantiles: Float64s) -> None:
    """Compute NumPy's `linear` quantile of the first ``num[lane]`` rows of each column; NaN where a NaN has a weight.

    Its position is fraction * (num - 1) counted from 0 (Hyndman & Fan, type 7); 0 where there is no value.
    """
    if complete:
        position = fraction * (len(ordered) - 1)
        below = np.uint32(position)
        weight = position - below
        low, high = ordered[below], ordered[below + (weight > 0)]
        for lane in range(LANES):
            quantiles[lane] = low[lane] + (np.float64(high[lane]) - low[lane]) * weight
        return
    for lane in range(LANES):
        position = fraction * max(num[lane] - 1, 0)
        below = np.uint32(position)
        weight = position - below
        smaller = np.float64(ordered[below, lane])
        quantile = smaller + (ordered[below + (weight > 0), lane] - smaller) * weight
        quantiles[lane] = quantile if num[lane] > 0 else 0.0


@compiled
def _wide_quantiles(ordered: Floats, num: Integers, fraction: float, quantiles: Float64s) -> None:
    """Compute `_quantiles` of numbers whose differences float64 may not hold, rounded as `numpy.quantile` rounds."""
    for lane in range(LANES):
        position = fraction * max(num[lane] - 1, 0)
        below = np.uint32(position)
        weight = position - below
        low, high = np.float64(ordered[below, lane]), np.float64(ordered[below + (weight > 0), lane])
        whole = abs(high - low) < math.inf
        low, high = (low, high) if whole else (low / 2, high / 2)  # exact: both are huge, or NaN
        quantile = low + (high - low) * weight if weight < 0.5 else high - (high - low) * (1 - weight)
        quantile = quantile if whole else quantile * 2
        quantiles[lane] = quantile if num[lane] > 0 else 0.0


@compiled_in_place
def _store(results: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Fill ``out``, of another type and maybe shorter, from the first results."""
    for lane in range(len(out)):
        out[lane] = results[lane]


@compiled
def _tile_statistics(
    tile: Keys,
    ordered: Floats,
    lengths: Integers,
    first: int,
    width: int,
    fractions: Float64s,
    finite_only: bool,
    wide: Wide,
    num: Integers,
    num_finite: Integers,
    results: Float64s,
    counts: Counts,
    out: Floats,
    begin: int,
) -> None:
    """Compute `epoch_statistics` of one tile of sorted keys, and spoil it; ``ordered`` is the tile again, as floats.

    ``num``, ``num_finite`` (LANES,) and ``results`` (as many as of ``out`` and `_SCRATCH_ROWS`, LANES) are scratch,
    ``begin`` is the position of the first lane.
    """
    complete = _count(tile, lengths, first, num, num_finite, finite_only)
    least = tile[0, 0]
    for lane in range(LANES):
        least = min(least, tile[0, lane])
    if least < 0:  # else keys are the bits of their floats
        for run in range(len(tile)):
            _decode(tile[run])
    _extremes(ordered, num_finite, complete, results[_MIN], results[_MAX])
    for number in range(len(fractions)):
        if wide is None:
            _quantiles(ordered, num, complete, fractions[number], results[_QUANTILES + number])
        else:
            _wide_quantiles(ordered, num, fractions[number], results[_QUANTILES + number])
    if wide is None:
        _moments(ordered, num_finite, None, results[_AVG], results[_STDDEV])
    else:
        extremes, scratch = results[_MIN : _MAX + 1], results[len(out) :]
        _scaled_moments(ordered, num_finite, extremes, results[_AVG], results[_STDDEV], scratch)
    _store(num, counts[0, begin : begin + width])
    _store(num_finite, counts[1, begin : begin + width])
    for row in range(len(out)):
        _store(results[row], out[row, begin : begin + width])


@compiled
def _epoch_statistics(
    bits: Keys,
    starts: Integers,
    lengths: Integers,
    epochs: int,
    fractions: Float64s,
    finite_only: bool,
    wide: Wide,
    counts: Counts,
    out: Floats,
    at: int,
    network: Positions,
    tile: Keys,
    ordered: Floats,
    num: Integers,
    num_finite: Integers,
    results: Float64s,
) -> None:
    """Compute `epoch_statistics`, given the floats' bits, the network for so many runs, and scratch.

    That is ``tile`` (runs, LANES), the same memory as floats in ``ordered``, and what `_tile_statistics` takes.
    """
    for first in range(0, epochs, LANES):
        width = min(LANES, epochs - first)
        _fill_tile(tile, bits, starts, lengths, first, width, wide)
        sort_columns(tile, network)
        _tile_statistics(
            tile, ordered, lengths, first, width, fractions, finite_only, wide, num, num_finite, results, counts, out,
            at + first,
        )  # fmt: skip


def _statistics_of_many(
    bits: Keys,
    starts: Integers,
    lengths: Integers,
    epochs: int,
    fractions: Float64s,
    finite_only: bool,
    wide: Wide,
    counts: Counts,
    out: Floats,
    at: int,
    tile: Keys,
    ordered: Floats,
    num: Integers,
    num_finite: Integers,
    results: Float64s,
) -> None:
    """Compute `epoch_statistics` without a network: not compiled but for its parts, as numba's sort is a slow one."""
    what = fractions, finite_only, wide, num, num_finite, results, counts, out
    for first in range(0, epochs, LANES):
        width = min(LANES, epochs - first)
        _fill_tile(tile, bits, starts, lengths, first, width, wide)
        tile[:, :width] = np.sort(tile[:, :width].T).T
        _tile_statistics(tile, ordered, lengths, first, width, *what, at + first)


@compiled
def _best_entries(
    values: Floats,
    bits: Keys,
    starts: Integers,
    lengths: Integers,
    epochs: int,
    sign: int,
    wide: Wide,
    entries: Floats,
    at: int,
    keys: Keys,
) -> None:
    """Find `best_entries`, given also the floats' bits; the best is the least with ``sign`` 1, the largest with -1.

    ``keys`` (LANES,), of the type of the bits, is scratch.
    """
    missing = _missing(bits)
    for run in range(len(starts)):
        best, epoch = missing, 0
        count = min(lengths[run], epochs)
        for first in range(0, count, LANES):
            width, begin = min(LANES, count - first), starts[run] + first
            _encode(bits[begin : begin + width], keys[:width], wide)
            if sign < 0:
                for lane in range(width):
                    keys[lane] = -keys[lane] if keys[lane] < missing else missing
            least = keys[0]
            for lane in range(width):
                least = min(least, keys[lane])
            if least < best:
                best, epoch = least, first + 1
                while keys[epoch - 1 - first] != least:
                    epoch += 1
        entries[run, at] = epoch if epoch > 0 else math.nan
        entries[run, at + 1] = values[starts[run] + epoch - 1] + 0.0 if epoch > 0 else math.nan


_BITS: Final = {np.dtype(np.float32): np.int32, np.dtype(np.float64): np.int64}
_SOURCES: Final = [Path(__file__)]


_NO_LISTS: Final = np.zeros(1, np.int64), np.zeros(1, np.int64), 0


@cache
def _prepare_statistics(
    values: np.dtype[Any], counts: np.dtype[Any], out: np.dtype[Any], wide: Wide, with_network: bool
) -> None:
    """Load or compile the kernels for inputs and outputs of these types."""
    _, bits = _as_kernels_take(np.zeros(0, values))
    what, results = (np.zeros(1), False, wide), (np.zeros((2, 1), counts), np.zeros((1, 1), out), 0)
    scratch = _scratch(1, values, 1)
    if with_network:
        whole = bits, *_NO_LISTS, *what, *results, sorting_network(1), *scratch
        kernel_cache.ready(_epoch_statistics, whole, _SOURCES)
        return
    tile, ordered, num, num_finite, numbers = scratch
    kernel_cache.ready(_fill_tile, (tile, bits, *_NO_LISTS, 0, wide), _SOURCES)
    part = tile, ordered, num, 0, 0, *what, num, num_finite, numbers, *results
    kernel_cache.ready(_tile_statistics, part, _SOURCES)


@cache
def _prepare_entries(values: np.dtype[Any], entries: np.dtype[Any], wide: Wide) -> None:
    floats, bits = _as_kernels_take(np.zeros(0, values))
    what = floats, bits, *_NO_LISTS, 1, wide, np.zeros((1, 2), entries), 0, np.zeros(LANES, bits.dtype)
    kernel_cache.ready(_best_entries, what, _SOURCES)


def _scratch(runs: int, values: np.dtype[Any], rows: int) -> tuple[Keys, Floats, Integers, Integers, Float64s]:
    """Return what `_epoch_statistics` takes as scratch for so many runs and rows of its output."""
    ordered: Floats = np.empty((runs, LANES), values)
    num, num_finite = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    return ordered.view(_BITS[values]), ordered, num, num_finite, np.empty((rows + _SCRATCH_ROWS, LANES))


def _wide(kind: Kind) -> Wide:
    return True if kind is np.float64 else None


def _as_kernels_take(values: Floats) -> tuple[Floats, Keys]:
    """Return the values, always read-only so that compiled code sees one type whatever it is given, and their bits."""
    values = values.view()
    values.flags.writeable = False
    return values, values.view(_BITS[values.dtype])


def epoch_statistics(
    values: Floats,
    starts: Integers,
    lengths: Integers,
    epochs: int,
    fractions: Float64s,
    counts: Counts,
    out: Floats,
    at: int = 0,
    *,
    finite_only: bool = False,
    kind: Kind = np.float32,
) -> None:
    """Write all statistics of the first ``epochs`` epochs of one history from position ``at`` on.

    Row 0 of ``counts`` (uint8 or uint16, 2, positions) gets how many runs reach an epoch, row 1 how many have a finite
    value there: one that ``kind`` can hold. Row r of ``out`` (float32 or float64, `MOMENTS` and ``fractions``,
    positions) gets statistic r: `MOMENTS`, then the quantiles of these ``fractions``, for which everything that is not
    finite ranks behind the finite values, or is left out with ``finite_only``. What has too few values is 0.
    """
    runs, wide, (_, bits) = len(starts), _wide(kind), _as_kernels_take(values)
    _prepare_statistics(values.dtype, counts.dtype, out.dtype, wide, runs <= LARGEST_NETWORK)
    scratch = _scratch(runs, values.dtype, len(out))
    arguments = bits, starts, lengths, epochs, fractions, finite_only, wide, counts, out, at
    if runs <= LARGEST_NETWORK:
        _epoch_statistics(*arguments, sorting_network(runs), *scratch)
    else:
        _statistics_of_many(*arguments, *scratch)


def best_entries(
    values: Floats,
    starts: Integers,
    lengths: Integers,
    epochs: int,
    best: Literal["min", "max"],
    entries: Floats,
    at: int = 0,
    *,
    kind: Kind = np.float32,
) -> None:
    """Find each run's best finite entry among its first ``epochs``: its epoch, from 1, and its value.

    An entry is finite if ``kind`` can hold it. Among equal entries the best is the earliest. Epoch and value are
    written to columns ``at`` and ``at + 1`` of ``entries`` (runs, columns), NaN for a run without such an entry.
    """
    sign, wide = 1 if best == "min" else -1, _wide(kind)
    _prepare_entries(values.dtype, entries.dtype, wide)
    floats, bits = _as_kernels_take(values)
    _best_entries(floats, bits, starts, lengths, epochs, sign, wide, entries, at, np.empty(LANES, bits.dtype))
