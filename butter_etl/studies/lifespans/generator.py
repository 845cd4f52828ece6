"""Random networks: what the published generator drew, as a function of (version, seed, image set, number).

Ranges are those of the study's article where it tells them. The others are choices, made so that the known networks
fit: `Ranges` says which are which. Each quantity has random words of its own, so that another range of one changes no
other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import philox
from butter_etl.errors import SpecError
from butter_etl.studies.lifespans.experiments import DROPOUT, POOL, ImageNetwork
from butter_etl.studies.lifespans.images import ImageSet

#: The version of the generator: what it draws for a seed and a number never changes.
VERSION: Final = 1
#: The words of one network: what is drawn once, then two for each fully connected layer, eight for each convolution.
_MOST_FC, _MOST_CONV = 24, 16
_ONCE, _FC, _CONV = 0, 16, 16 + 2 * _MOST_FC
_WORDS: Final = _CONV + 8 * _MOST_CONV
_AT_ONCE: Final = 4096
#: Numbers are rounded to so many digits: the last bits of powers differ from machine to machine.
_DIGITS: Final = 12
(
    _LAYERS,
    _INCREASING,
    _DROPOUT_RATE,
    _FC_LAYERS,
    _FC_DROPS,
    _FC_DROPOUT_RATE,
    _BATCH,
    _RATE,
    _HAS_MOMENTUM,
    _MOMENTUM,
    _HAS_DAMPENING,
    _DAMPENING,
    _HAS_DECAY,
    _DECAY,
) = range(14)

Range = tuple[int, int]
Span = tuple[float, float]
_Note = msgspec.Meta


class Ranges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What networks are drawn from; both ends of a range are part of it.

    The description of each says where it is from: ``published`` in the article, ``inferred`` from known networks, or
    ``chosen``, since nothing is known.
    """

    n_conv_layers: Annotated[Range, _Note(description="chosen; the known networks have 3")] = (1, 3)
    block_codes: Annotated[
        tuple[int, ...], _Note(description="the codes are published, how one is drawn is chosen: uniformly")
    ] = (1, 2, 3, 4, 5, 6, 7)
    conv_padding: Annotated[Range, _Note(description="published")] = (0, 5)
    most_filters: Annotated[int, _Note(description="inferred: the largest known is 384")] = 400
    dropout_rate: Annotated[Span, _Note(description="published")] = (0.1, 0.7)
    n_fc_layers: Annotated[Range, _Note(description="published; that the output counts is inferred")] = (1, 5)
    fc_width: Annotated[Range, _Note(description="published from 0, which cannot be built")] = (1, 400)
    fc_dropout_rate: Annotated[Span, _Note(description="published")] = (0.1, 0.7)
    batch_size: Annotated[Range, _Note(description="published")] = (25, 250)
    least_learning_rate: Annotated[float, _Note(description="chosen: added to 10^-u")] = 0.01
    most_learning_rate: Annotated[float, _Note(description="chosen")] = 1.0
    learning_rate_decades: Annotated[Span, _Note(description="chosen: u of 10^-u")] = (0.0, 5.0)
    momentum_decades: Annotated[Span, _Note(description="chosen: u of 10^-u")] = (0.0, 5.0)
    dampening_decades: Annotated[Span, _Note(description="chosen: u of 10^-u; only with momentum")] = (0.0, 5.0)
    weight_decay_decades: Annotated[Span, _Note(description="chosen: u of 10^-u")] = (0.0, 5.0)

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, tuple) and name != "block_codes" and not value[0] <= value[1]:
                raise ValueError(f"{name}: {value[0]} is above {value[1]}")
        if not (self.n_conv_layers[0] >= 1 and self.n_conv_layers[1] <= _MOST_CONV):
            raise ValueError(f"n_conv_layers: from 1 to {_MOST_CONV}, not {self.n_conv_layers}")
        if not (self.n_fc_layers[0] >= 1 and self.n_fc_layers[1] <= _MOST_FC):
            raise ValueError(f"n_fc_layers: from 1 to {_MOST_FC}, not {self.n_fc_layers}")
        if not self.block_codes or not all(1 <= code <= 7 for code in self.block_codes):
            raise ValueError(f"block_codes: some of 1 to 7, not {self.block_codes}")
        if min(self.conv_padding[0], self.fc_width[0] - 1, self.batch_size[0] - 1, self.most_filters - 1) < 0:
            raise ValueError("paddings begin at 0, widths, batches and filters at 1")


class Fixed(NamedTuple):
    """What all networks of a draw have in common."""

    epochs: int = 40
    val_mode: str = "full"
    fc_activation: str = "none"
    train_images: int | None = None


#: What is fixed where nothing is said.
USUAL: Final = Fixed()


class Candidate(NamedTuple):
    """A network that was drawn: its number, how many numbers it learns, and its products for an image."""

    number: int
    network: ImageNetwork
    parameters: int
    products: int


def candidates(
    ranges: Ranges, images: ImageSet, seed: int, first: int = 0, fixed: Fixed = USUAL
) -> Iterator[Candidate]:
    """Yield the networks of a seed for an image set, from number ``first`` on, without an end."""
    key = _key(seed, images.name)
    number = first
    while True:
        for row in _words(key, number, _AT_ONCE if number else 64).tolist():
            yield _draw(ranges, images, number, row, fixed)
            number += 1


def candidate(ranges: Ranges, images: ImageSet, seed: int, number: int, fixed: Fixed = USUAL) -> Candidate:
    """Return the network of a seed and a number for an image set."""
    (row,) = _words(_key(seed, images.name), number, 1).tolist()
    return _draw(ranges, images, number, row, fixed)


class Admitted(NamedTuple):
    """The first networks of a draw that its limits admit, and how many before the last were turned away."""

    networks: tuple[Candidate, ...]
    turned_away: int


@lru_cache(maxsize=64)
def admitted(
    ranges: Ranges,
    images: ImageSet,
    seed: int,
    count: int,
    max_parameters: int | None,
    max_products: int | None,
    fixed: Fixed = USUAL,
) -> Admitted:
    """Return the first ``count`` networks of at most so many parameters and products.

    Raises SpecError where hardly any network is within the limits.
    """
    found: list[Candidate] = []
    for one in candidates(ranges, images, seed, fixed=fixed):
        if (max_parameters is None or one.parameters <= max_parameters) and (
            max_products is None or one.products <= max_products
        ):
            found.append(one)
        if len(found) == count:
            return Admitted(tuple(found), one.number + 1 - count)
        if one.number >= 1000 * (len(found) + 10):
            raise SpecError(
                f"of {one.number + 1} networks that were drawn for {images.name}, {len(found)} are within "
                f"max_parameters={max_parameters}, max_multiplications={max_products}; raise these limits"
            )
    raise AssertionError("candidates have no end")


def _key(seed: int, name: str) -> tuple[int, int]:
    digest = hashlib.sha256(f"nn_lifespans networks {VERSION} {seed} {name}".encode()).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")


def _words(key: tuple[int, int], first: int, count: int) -> NDArray[np.uint32]:
    """Return the random words of some networks, uint32 (count, _WORDS); a network's depend on its number alone."""
    blocks = _WORDS // 4
    counters = np.zeros((4, count * blocks), np.uint64)
    counters[0] = np.tile(np.arange(blocks, dtype=np.uint64), count)
    counters[1] = np.repeat(np.arange(first, first + count, dtype=np.uint64), blocks)
    return philox(counters, key).T.reshape(count, _WORDS)


def _whole(word: int, low: int, high: int) -> int:
    return low + ((word * (high - low + 1)) >> 32)


def _fraction(word: int, span: Span) -> float:
    return float(f"{span[0] + (span[1] - span[0]) * (word + 0.5) * 2.0**-32:.{_DIGITS}g}")


def _power(word: int, decades: Span) -> float:
    """Return 10^-u, u uniform; below 1."""
    u = decades[0] + (decades[1] - decades[0]) * (word + 0.5) * 2.0**-32
    return min(float(f"{10.0**-u:.{_DIGITS}g}"), 1 - 1e-9)


def after(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the width of a map behind a convolution or a pool: floor((size + 2 padding - kernel) / stride) + 1."""
    return (size + 2 * padding - kernel) // stride + 1


def _is_heads(word: int) -> bool:
    return word >= 2**31


def _draw(ranges: Ranges, images: ImageSet, number: int, words: list[int], fixed: Fixed) -> Candidate:
    drawn: dict[str, Any] = {
        name: [] for name in ("kernels", "strides", "paddings", "filters", "codes", "pools", "jumps", "rims")
    }
    channels, size, count, products = images.channels, images.size, 0, 0
    increasing = _is_heads(words[_INCREASING])
    for layer in range(_whole(words[_LAYERS], *ranges.n_conv_layers)):
        w = words[_CONV + 8 * layer : _CONV + 8 * layer + 8]
        kernel = _whole(w[0], 1, size)
        stride, padding = _whole(w[1], 1, kernel), _whole(w[2], *ranges.conv_padding)
        least = channels if increasing else images.channels
        filters = _whole(w[3], min(least, ranges.most_filters), ranges.most_filters)
        code = ranges.block_codes[_whole(w[4], 0, len(ranges.block_codes) - 1)]
        size = after(size, kernel, stride, padding)
        count += (channels * kernel * kernel + 1) * filters
        products += channels * kernel * kernel * filters * size * size
        for name, value in zip(drawn, (kernel, stride, padding, filters, code), strict=False):
            drawn[name].append(value)
        channels = filters
        if code & POOL:
            pool = _whole(w[5], 1, size)
            jump, rim = _whole(w[6], 1, pool), _whole(w[7], 0, pool // 2)
            size = after(size, pool, jump, rim)
            for name, value in (("pools", pool), ("jumps", jump), ("rims", rim)):
                drawn[name].append(value)
    hidden = _whole(words[_FC_LAYERS], *ranges.n_fc_layers) - 1
    pairs = [words[_FC + 2 * layer : _FC + 2 * layer + 2] for layer in range(hidden)]
    widths = [_whole(pair[0], *ranges.fc_width) for pair in pairs] + [images.classes]
    inputs = channels * size * size
    for width in widths:
        count, products, inputs = count + (inputs + 1) * width, products + inputs * width, width
    has_dropout = any(code & DROPOUT for code in drawn["codes"])
    momentum = _power(words[_MOMENTUM], ranges.momentum_decades) if _is_heads(words[_HAS_MOMENTUM]) else 0.0
    is_dampened = momentum > 0 and _is_heads(words[_HAS_DAMPENING])
    rate = ranges.least_learning_rate + _power(words[_RATE], ranges.learning_rate_decades)
    network = ImageNetwork(
        dataset=images.name,
        batch_size=_whole(words[_BATCH], *ranges.batch_size),
        learning_rate=float(f"{min(rate, ranges.most_learning_rate):.{_DIGITS}g}"),
        momentum=momentum,
        dampening=_power(words[_DAMPENING], ranges.dampening_decades) if is_dampened else 0.0,
        weight_decay=_power(words[_DECAY], ranges.weight_decay_decades) if _is_heads(words[_HAS_DECAY]) else 0.0,
        layer_types=tuple(drawn["codes"]),
        dropout_rate=_fraction(words[_DROPOUT_RATE], ranges.dropout_rate) if has_dropout else 0.0,
        conv_kernels=tuple(drawn["kernels"]),
        conv_strides=tuple(drawn["strides"]),
        conv_paddings=tuple(drawn["paddings"]),
        pool_kernels=tuple(drawn["pools"]),
        pool_strides=tuple(drawn["jumps"]),
        pool_paddings=tuple(drawn["rims"]),
        conv_filters=tuple(drawn["filters"]),
        fc_dropout_rate=_fraction(words[_FC_DROPOUT_RATE], ranges.fc_dropout_rate)
        if _is_heads(words[_FC_DROPS])
        else 0.0,
        fc_dropout_layers=tuple(int(_is_heads(pair[1])) for pair in pairs),
        fc_filters=tuple(widths),
        fc_activation=fixed.fc_activation,
        val_mode=fixed.val_mode,
        epochs=fixed.epochs,
        train_images=fixed.train_images,
        own=images.own,
    )
    return Candidate(number, network, count, products)
