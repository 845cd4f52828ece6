"""Samples: drawn by a seed, the same in whatever order runs are listed, each run as likely as any other."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import SelectError
from butter_etl.upkeep.drawing import draw, names_sha256, sample_size


@pytest.mark.parametrize(
    ("sample", "rows", "size"),
    [("0.1%", 10_000, 10), ("1%", 10_000, 100), ("0.1%", 5, 1), ("100%", 7, 7), ("3", 7, 3), (" 2.5 % ", 40, 1)],
)
def test_sizes(sample, rows, size):
    assert sample_size(sample, rows) == size


@pytest.mark.parametrize(
    ("sample", "rows"), [("0", 5), ("0%", 5), ("6", 5), ("101%", 5), ("-1", 5), ("a%", 5), ("1", 0)]
)
def test_what_is_no_sample_is_refused(sample, rows):
    with pytest.raises(SelectError, match="--sample"):
        sample_size(sample, rows)


@given(st.sets(st.text("abcdef0123456789-", min_size=1), min_size=1), st.integers(0, 2**63), st.randoms())
def test_order_does_not_matter_and_more_contain_fewer(run_ids, seed, shuffler):
    shuffled = list(run_ids)
    shuffler.shuffle(shuffled)
    for size in range(len(run_ids) + 1):
        drawn = draw(shuffled, seed, size)
        assert drawn == sorted(drawn) == draw(sorted(run_ids), seed, size)
        assert len(set(drawn) & run_ids) == size
        assert set(drawn) <= set(draw(run_ids, seed, len(run_ids)))


def test_anybody_can_draw_again():
    run_ids = [f"run {number}" for number in range(100)]
    by_hand = sorted(run_ids, key=lambda run_id: hashlib.sha256(f"7/{run_id}".encode()).hexdigest())[:5]
    assert draw(run_ids, 7, 5) == sorted(by_hand)
    assert draw(run_ids, 8, 5) != sorted(by_hand)


def test_each_is_drawn_as_often_as_any_other():
    counts = dict.fromkeys((f"run {number}" for number in range(20)), 0)
    for seed in range(4000):
        for run_id in draw(counts, seed, 5):
            counts[run_id] += 1
    assert all(abs(count - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5 for count in counts.values())


def test_names_are_hashed_a_line_each():
    assert names_sha256(["a", "b"]) == hashlib.sha256(b"a\nb\n").hexdigest()
