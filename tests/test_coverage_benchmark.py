"""The benchmark of coverage, on made-up pools whose truth is known."""

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.coverage import COUNTS, Pool, campaign_cost, lines, mean_coverage, measure, median_coverage
from butter_etl.campaign.cutting import Wanted
from tests.strategies import POLLEN


def pool(losses, seconds=1.0):
    return Pool("made up", np.asarray(losses, np.float64), seconds, Wanted(POLLEN, 0, "pools", (), seconds, 0.0))


@pytest.fixture
def pools():
    rng = np.random.default_rng(1)
    return [pool(1 + 0.05 * rng.random(200)), pool(np.exp(rng.normal(size=200)), 2.0)]


def test_intervals_for_medians_cover_and_those_for_means_fall_short(pools):
    for place, one in enumerate(pools):
        covered = median_coverage(place, one, 2000)
        assert len(covered) == len(COUNTS)
        assert min(covered) > 0.935
    shares = mean_coverage(1, pools[1], 2000)
    assert shares["bootstrap"][0] < shares["t"][0] < 0.93


def test_a_campaign_costs_less_where_experiments_differ(pools):
    cost = campaign_cost(pools, 0.02, 160, 1)
    assert (cost["reached"], cost["short after 30"]) == (1, 0.5)
    assert cost["campaign runs each"] < 50
    assert cost["ratio"] == cost["campaign core-hours"] / cost["uniform core-hours"]


def test_all_figures_are_printed(pools, monkeypatch):
    monkeypatch.setattr(coverage, "FEWER", 50)
    text = list(lines(measure(pools, 100, 0.02, 28, orders=2)))
    assert text[0] == "2 experiments, 100 draws each; 5-95 % spread of final losses over the"
    for words in ("median, by ranks", "mean, by bootstrap", "each run, naive", "ratio"):
        assert any(words in line for line in text)
