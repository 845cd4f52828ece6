"""The random streams: the published generator, frozen values, and what is drawn from them."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from butter_etl.engines import streams
from butter_etl.engines.streams import Stream

SEED = 20220602
LARGE_SEED = 2**62 + 12345
SEEDS = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_has_the_known_answers_of_random123(counter, key, expected):
    found = streams.philox(np.array(counter, dtype=np.uint64)[:, np.newaxis], key)
    assert found.dtype == np.uint32
    assert " ".join(f"{word:08x}" for word in found[:, 0]) == expected


def test_numbers_of_streams_never_change():
    assert {stream.name: stream.value for stream in Stream} == {
        "ORDER": 1,
        "SPLIT": 2,
        "WEIGHTS": 3,
        "NOISE_ROWS": 4,
        "NOISE_VALUES": 5,
        "MASKS": 6,
        "HYPERPARAMETERS": 7,
        "TASK_DATA": 8,
        "RESAMPLES": 64,
    }


# The values below are frozen: a run's identity promises them. If one changes, every published seed means another run.


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (Stream.ORDER, "e26102b6 e3d366c6 f3037c84 02c36a91 5fad1180"),
        (Stream.SPLIT, "c2e7df16 861a37b6 33cecda6 2cb08484 a8c0cfd4"),
        (Stream.WEIGHTS, "8cfaa7fe 7d082c21 9cbe6cf5 18385826 5aad6613"),
        (Stream.NOISE_ROWS, "16956552 6a29f1a8 11175059 3c3d0110 7fe68248"),
        (Stream.NOISE_VALUES, "c5eb91d1 6c1fc59e 42af1552 a2084083 83b03963"),
    ],
)
def test_words_are_frozen(stream, expected):
    assert " ".join(f"{word:08x}" for word in streams.words(SEED, stream, 5)) == expected


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (Stream.ORDER, "71ebff6c 66734869 1d83ef26 ee85bcaf"),
        (Stream.SPLIT, "7ca2c81b afcce467 aef0b02f 848c1951"),
        (Stream.WEIGHTS, "2179f230 06e5a304 10977681 3aa30f99"),
        (Stream.NOISE_ROWS, "f5ddf1c9 aa9f6aa2 bf234637 4f9467bb"),
        (Stream.NOISE_VALUES, "1af74f83 a291c0de a40a2877 51996df1"),
    ],
)
def test_words_of_large_seeds_and_later_steps_are_frozen(stream, expected):
    assert " ".join(f"{word:08x}" for word in streams.words(LARGE_SEED, stream, 4, step=7)) == expected


def test_draws_are_frozen():
    assert streams.permutation(SEED, Stream.SPLIT, 10).tolist() == [0, 8, 5, 6, 2, 3, 9, 1, 4, 7]
    assert streams.epoch_order(SEED, 3, 10).tolist() == [4, 0, 2, 3, 6, 5, 1, 9, 8, 7]
    assert streams.integers(SEED, Stream.NOISE_VALUES, 8, 6).tolist() == [4, 2, 1, 3, 3, 4, 1, 3]
    assert streams.uniforms(SEED, Stream.WEIGHTS, 3).tolist() == [
        0.5506997104967013,
        0.4884059507166967,
        0.6122806643834338,
    ]
    normals = streams.normals(SEED, Stream.NOISE_VALUES, 3)
    # Logarithm and cosine may differ in the last bit between machines.
    np.testing.assert_allclose(normals, [-0.481339030454581, -1.3075578159912506, -0.18232635088888605], rtol=1e-13)


@given(SEEDS, st.sampled_from(Stream), st.integers(0, 50), st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_a_word_depends_on_its_place_alone(seed, stream, count, more, step):
    longer = streams.words(seed, stream, count + more, step)
    assert longer.size == count + more
    np.testing.assert_array_equal(streams.words(seed, stream, count, step), longer[:count])


def test_seeds_streams_and_steps_are_apart():
    seeds = [0, 1, 2**32, 2**32 + 1, LARGE_SEED]
    drawn = [tuple(streams.words(seed, stream, 4, step)) for seed in seeds for stream in Stream for step in range(3)]
    assert len(set(drawn)) == len(drawn)


@given(SEEDS, st.integers(1, 2**31), st.integers(0, 100))
def test_integers_lie_below_their_bound(seed, bound, count):
    drawn = streams.integers(seed, Stream.NOISE_VALUES, count, bound)
    assert drawn.shape == (count,)
    assert np.all((drawn >= 0) & (drawn < bound))


def test_uniforms_and_normals_have_their_distributions():
    uniforms = streams.uniforms(SEED, Stream.WEIGHTS, 20000)
    assert 0 < uniforms.min() < uniforms.max() < 1
    assert kstest(uniforms, "uniform").pvalue > 0.01
    assert kstest(streams.normals(SEED, Stream.NOISE_VALUES, 20000), "norm").pvalue > 0.01


@given(SEEDS, st.sampled_from(Stream), st.integers(0, 300), st.integers(0, 100))
def test_compiled_shuffle_equals_plain_python(seed, stream, count, step):
    order = np.arange(count, dtype=np.int64)
    streams.shuffle(order, streams.words(seed, stream, max(count - 1, 0), step))
    compiled = streams.permutation(seed, stream, count, step)
    assert compiled.dtype == np.int64
    np.testing.assert_array_equal(compiled, order)
    np.testing.assert_array_equal(np.sort(compiled), np.arange(count))


def test_permutations_are_uniform():
    counts = Counter(tuple(streams.epoch_order(SEED, epoch, 4).tolist()) for epoch in range(4800))
    assert len(counts) == math.factorial(4)
    assert chisquare(list(counts.values())).pvalue > 0.01


def test_every_row_comes_first_equally_often():
    first = [streams.permutation(seed, Stream.SPLIT, 20)[0] for seed in range(4000)]
    assert chisquare(np.bincount(first, minlength=20)).pvalue > 0.01


def test_epochs_differ_in_order():
    orders = {tuple(streams.epoch_order(SEED, epoch, 50).tolist()) for epoch in range(20)}
    assert len(orders) == 20
