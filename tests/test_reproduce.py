"""The command that finds the article's results again: what it prints, and that it goes on where it was stopped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks import reproduce


@given(st.integers(1, 200).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_intervals_are_wilsons(pair):
    count, of = pair
    expected = binomtest(count, of).proportion_ci(0.95, method="wilson")
    assert reproduce.wilson(count, of) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_what_needs_the_other_says_so(tmp_path):
    with pytest.raises(SystemExit, match=r"infeasible is not there; run `infeasible` first$"):
        reproduce.main(["reruns", str(tmp_path)])


@pytest.mark.long
def test_tables_have_the_articles_numbers_beside_ours(tmp_path, capsys):
    few = ("--trials", "3", "--steps", "6", "--workers", "1")

    def printed(*arguments):
        assert reproduce.main([arguments[0], str(tmp_path), *few, *arguments[1:]]) == 0
        return capsys.readouterr().out

    lines = printed("infeasible", "--budgets", "6000")
    assert "| irnn | " in lines
    assert " | 56.7 % |" in lines
    assert printed("infeasible", "--budgets", "6000") == lines  # nothing is trained again
    lines = printed("reruns", "--budgets", "5000")
    assert lines.count("| | article |") == 5
    assert "| | article | 0.00042 | 0.000224 | 0.000502 | 0.000869 | 48 % |" in lines
    lines = printed("capacity", "--budgets", "300", "--longer", "60")
    assert [line.split(" | ")[0] for line in lines.splitlines() if line.endswith("about 5 |")] == [
        "| rnn",
        "| gru",
        "| lstm",
    ]
