"""Amounts as people say them, from nothing to more than anybody will wait for."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors.words import agreeing, all_of, counted, duration, plural, rate

YEAR = 365.25 * 86400


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("run", "runs"), ("summary", "summaries"), ("class", "classes"), ("batch", "batches"), ("day", "days"),
        ("more experiment", "more experiments"), ("repetition", "repetitions"), ("index", "indexes"),
    ],
)  # fmt: skip
def test_plurals(noun, several):
    assert plural(noun) == several
    assert counted(1, noun) == f"1 {noun}"
    assert [counted(number, noun) for number in (0, 2, 12345)] == [f"{text} {several}" for text in ("0", "2", "12,345")]


def test_all_and_verbs_agree_with_their_number():
    assert [all_of(number, "run") for number in (1, 2, 3, 4000)] == [
        "the only run", "both runs", "all 3 runs", "all 4,000 runs",
    ]  # fmt: skip
    assert [agreeing(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0 s"), (0, "0 s"), (0.0001, "less than 1 ms"), (0.0006, "1 ms"), (0.42, "420 ms"), (0.9996, "1 s"),
        (1.4, "1 s"), (42, "42 s"), (59.4, "59 s"), (59.6, "1 min"), (61, "1 min 1 s"), (200, "3 min 20 s"),
        (3599.7, "1 h"), (18720, "5 h 12 min"), (86399, "1 d"), (273600, "3 d 4 h"), (13.99 * 86400, "14 days"),
        (20 * 86400, "20 days"), (60 * 86400, "60 days"), (100 * 86400, "3 months"), (YEAR, "12 months"),
        (2 * YEAR, "2 years"), (3.44 * YEAR, "3.4 years"), (185_696 * 86400, "508 years"),
        (12345 * YEAR, "12,345 years"),
        (2e6 * YEAR, "more than a million years"), (math.inf, "more than a million years"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


@given(st.floats(min_value=0.001, max_value=1e13))
def test_durations_have_numbers_that_people_say(seconds):
    text = duration(seconds)
    numbers = [float(word.replace(",", "")) for word in re.findall(r"[\d,.]+", text)]
    assert all(number < 1000 for number in numbers) or text.endswith(" years")
    assert "e+" not in text
    assert not re.search(r"\b1 \w+s$", text.replace(" ms", "").replace(" s", ""))


@pytest.mark.parametrize(
    ("a_second", "text"),
    [
        (1280, "1,280 runs a second"), (12, "12 runs a second"), (9.97, "10 runs a second"), (1.3, "1.3 runs a second"),
        (1, "1 run a second"), (0.2, "12 runs a minute"), (1 / 60, "1 run a minute"), (0.001, "3.6 runs an hour"),
        (1 / 86400, "1 run a day"), (1e-6, "32 runs a year"), (0.0, "0 runs a year"),
    ],
)  # fmt: skip
def test_rates(a_second, text):
    assert rate(a_second, "run") == text
