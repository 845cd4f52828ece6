"""Searches by a Gaussian process: they find what is good sooner than chance does, and propose the same twice."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from scipy import integrate, stats

from butter_etl.studies.capacity.experiments import SearchCell
from butter_etl.studies.capacity.hyperparameters import check_hparams, draw, encode, free, hparams_text
from butter_etl.studies.capacity.networks import network_of
from butter_etl.studies.capacity.search import (
    DRAWN,
    ROUND,
    expected_improvement,
    features,
    is_searched,
    next_places,
    normal_scores,
    propose,
)
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.trainers import Landed


def cell(**more):
    usual = {"task_type": "arithmetic", "architecture": "gru", "n_layers": 1, "max_params": 2000, "search": "gp"}
    return SearchCell(**{**usual, **more})


def loss_of(hparams):
    """A made-up loss: least at a learning rate of 0.01 with ADAM; ReLU with a large clip diverges."""
    if hparams["nonlinearity"] == "relu" and hparams["gradient_clip_val"] > 30:
        return math.nan
    return math.log10(hparams["lr_init"] / 0.01) ** 2 + (hparams["optimizer"] != "ADAM") + hparams["input_scale_c"] / 10


def landed(one, proposals):
    rows = []
    for repetition, hparams in proposals:
        loss = loss_of(hparams)
        row = {"hparams": hparams_text(hparams), "valid_loss": [3.0, loss], "infeasible": math.isnan(loss)}
        rows.append(Landed(repetition, row))
    return rows


def searched(one, rounds, batch):
    """The losses of a search of so many rounds, in the order of its trials."""
    tried = []
    for _ in range(rounds):
        done = {repetition for repetition, _ in tried}
        wanted = [number for number in range(1000) if number not in done]
        proposals = propose(one, wanted[:batch], landed(one, tried))
        assert [proposal.repetition for proposal in proposals] == wanted[: len(proposals)]
        tried += [(proposal.repetition, proposal.given) for proposal in proposals]
    return tried


def test_only_cells_that_ask_for_it_are_searched():
    assert is_searched(cell())
    assert not is_searched(cell(search="random"))


def test_the_first_trials_are_those_of_a_random_search():
    one = cell()
    found = propose(one, range(5, 500), [])
    assert len(found) == min(DRAWN, ROUND)
    size = network_of(one).parameters
    assert [proposal.given for proposal in found] == [
        draw(one, size, RunSpec(one, number).seed) for number in range(5, 5 + len(found))
    ]
    assert len(propose(one, range(3), [])) == 3


def test_proposals_can_be_trained_and_are_the_same_again():
    one = cell()
    tried = searched(one, 3, 8)
    assert len(tried) == 8 + 8 + 4
    found = propose(one, range(20, 28), landed(one, tried))
    assert len(found) == 8
    again = propose(one, range(20, 28), list(reversed(landed(one, tried))))
    assert msgspec.json.encode(found) == msgspec.json.encode(again)
    size = network_of(one).parameters
    for proposal in found:
        assert check_hparams(one, size, proposal.given) is None
    assert len({hparams_text(proposal.given) for proposal in found}) == 8


def test_a_search_finds_better_trials_than_chance():
    one = cell()
    size = network_of(one).parameters
    tried = searched(one, 7, 10)
    assert len(tried) == 70
    by_search = [loss_of(hparams) for _, hparams in tried[DRAWN:]]
    by_chance = [loss_of(draw(one, size, RunSpec(one, number).seed)) for number in range(1000)]
    finite = [loss for loss in by_search if math.isfinite(loss)]
    assert np.nanmedian(by_search) < np.nanquantile(by_chance, 0.2)
    assert min(finite) < np.nanquantile(by_chance, 0.02)
    assert np.isnan(by_search).mean() < np.isnan(by_chance).mean()


def test_ranks_become_normal_scores():
    losses = np.array([5.0, math.inf, -1.0, 5.0, math.inf])
    found = normal_scores(losses)
    ranks = stats.rankdata(losses)
    assert found == pytest.approx(stats.norm.ppf((ranks - 0.5) / 5))


def test_improvement_is_its_expectation():
    for mean, deviation, best in ((0.3, 0.5, 0.1), (-1.0, 0.2, 0.0), (2.0, 0.1, 0.0)):
        expected, _ = integrate.quad(
            lambda value, mean=mean, deviation=deviation, best=best: (
                max(best - value, 0.0) * stats.norm.pdf(value, mean, deviation)
            ),
            mean - 12 * deviation,
            best,
        )
        assert expected_improvement(np.array([mean]), np.array([deviation]), best)[0] == pytest.approx(
            expected, abs=1e-9
        )
    assert expected_improvement(np.array([1.0]), np.array([0.0]), 3.0)[0] == pytest.approx(2.0)


def test_choices_are_corners():
    one = cell()
    size = network_of(one).parameters
    dimensions = free(one, size)
    places = np.array([list(encode(one, size, draw(one, size, seed)).values()) for seed in range(30)])
    found = features(dimensions, places)
    width = sum(len(dimension.range.choices) or 1 for dimension in dimensions)
    assert found.shape == (30, width)
    assert ((found >= 0) & (found <= 1)).all()
    at = [dimension.key for dimension in dimensions].index("optimizer")
    before = sum(len(dimension.range.choices) or 1 for dimension in dimensions[:at])
    corners = found[:, before : before + 4]
    assert (corners.sum(axis=1) == 1).all()


def test_few_or_equal_losses_are_no_hindrance():
    one = cell()
    size = network_of(one).parameters
    places = np.array([list(encode(one, size, draw(one, size, seed)).values()) for seed in range(DRAWN)])
    for losses in (np.full(DRAWN, math.inf), np.zeros(DRAWN), np.arange(float(DRAWN))):
        found = next_places(free(one, size), places, losses, 3, 1)
        assert found.shape == (3, places.shape[1])
        assert ((found > 0) & (found < 1)).all()
        assert len(np.unique(found, axis=0)) == 3
