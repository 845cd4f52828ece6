"""Rounds: what is trained next depends on what has landed, is written down before, and is never proposed anew."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from butter_etl.campaign.driver import TrainReport
from butter_etl.errors import StoreError, UsageError
from butter_etl.store.proposals import read_rounds, write_round
from butter_etl.studies.functions import study_of
from butter_etl.studies.selection import Choice
from butter_etl.studies.trainers import Proposal
from butter_etl.train_tasks import Rounds, check_batch, claim_ids, open_campaign, plan_campaign, run_training
from butter_etl.upkeep.findings import KINDS
from butter_etl.upkeep.verify import plan_verification, run_verification

QUICK = "{name: quick, repetitions: 1, cubes: {dataset: wine, size: 64, depth: 2, epochs: 1}}"
SWEEP = "{name: search, repetitions: 12, cubes: {target: [3, 20]}}"


def guess(*, target: int, resume, given) -> Iterator[dict[str, float]]:
    """The distance of a guess from a target."""
    yield {"distance": abs(target - given["guess"])}


def propose(experiment, wanted, landed):
    """Three guesses around the best so far, further apart at first; none once it is hit."""
    tried = {json.loads(one.row["command"])["given"]: one.row["distance"][0] for one in landed}
    if 0.0 in tried.values():
        return []
    best = min(tried, key=tried.get, default='{"guess":0}')
    centre, step = json.loads(best)["guess"], max(1, 9 - 3 * len(tried))
    guesses = [centre - step, centre, centre + step] if not tried else [centre + step, centre - step, centre + 2 * step]
    return [Proposal(repetition, {"guess": one}) for repetition, one in zip(wanted, guesses, strict=False)]


SEARCH = study_of(
    guess, name="search", histories=["distance"], points=1, keys=["target"], propose=propose, seconds=0.01
)

#: One of its experiments is trained at once.
PARTLY = replace(SEARCH, in_rounds=lambda one: one.target == 20)


@pytest.fixture
def campaign(tmp_path):
    (tmp_path / "search.yaml").write_text(SWEEP)
    return plan_campaign(tmp_path / "store", Choice(specs=(str(tmp_path / "search.yaml"),)), study=SEARCH)


def rows(store):
    found = [row for file in store.run_files() for row in store.read_runs(file).to_pylist()]
    return {(row["experiment_id"], row["repetition"]): (row["command"], row["distance"]) for row in found}


def test_rounds_follow_what_landed(tmp_path, campaign, client):
    store, settings = open_campaign(campaign, tmp_path)
    report = run_training(campaign, store, settings, client)
    assert report.failed == 0
    rounds = {one: read_rounds(store, one) for one in store.repetitions()}
    assert {one: [len(proposals) for proposals in found] for one, found in rounds.items()} == {
        2**24: [3, 3, 3],
        2**24 + 1: [3, 3, 3, 3],
    }
    trained = rows(store)
    assert report.landed == len(trained) == 21
    for (experiment_id, repetition), (command, _) in trained.items():
        (proposal,) = [one for proposals in rounds[experiment_id] for one in proposals if one.repetition == repetition]
        assert json.loads(json.loads(command)["given"]) == proposal.given
    checked = run_verification(plan_verification(tmp_path / "store", study=SEARCH), threads=1)
    assert [one for one in checked.findings if not KINDS[one.kind].is_note] == []
    again = plan_campaign(tmp_path / "store", campaign.choice, study=SEARCH)
    assert run_training(again, store, settings, client).landed == 0  # it was hit, or all that is wanted was tried
    assert rows(store) == trained


def test_a_second_driver_trains_what_the_first_proposed(tmp_path, campaign, client):
    store, settings = open_campaign(campaign, tmp_path)
    campaign.registry.claim(store, {one.spec: "search" for one in campaign.plan.wanted})
    other = [Proposal(0, {"guess": 3}), Proposal(5, {"guess": 100})]
    assert list(write_round(store, 2**24, 0, other)) == other
    assert list(write_round(store, 2**24, 0, [Proposal(1, {"guess": 7})])) == other  # the first one stays
    run_training(campaign, store, settings, client)
    assert {repetition: found[1] for (one, repetition), found in rows(store).items() if one == 2**24} == {
        0: [0.0],
        5: [97.0],
    }


def test_rounds_are_written_before_they_are_trained(tmp_path, campaign):
    store, _ = open_campaign(campaign, tmp_path)
    wanted = claim_ids(campaign.plan, campaign.registry, store)
    first = Rounds(store).next(wanted, TrainReport())
    assert [one.repetitions for one in first] == [(0, 1, 2), (0, 1, 2)]
    assert [[one.repetition for one in read_rounds(store, entry.experiment_id)[0]] for entry in first] == [
        [0, 1, 2]
    ] * 2
    assert Rounds(store).next(wanted, TrainReport()) == first  # as after a kill


def test_a_round_has_as_many_runs_as_are_asked_for(tmp_path, campaign, client):
    store, settings = open_campaign(campaign, tmp_path)
    report = run_training(campaign, store, settings, client, batch=2)
    assert report.failed == 0
    for one in store.repetitions():
        rounds = read_rounds(store, one)
        assert {len(proposals) for proposals in rounds} == {2}
        assert [proposal.repetition for proposals in rounds for proposal in proposals] == [*range(2 * len(rounds))]


def test_what_is_not_in_rounds_is_trained_at_once(tmp_path):
    (tmp_path / "search.yaml").write_text(SWEEP)
    campaign = plan_campaign(tmp_path / "store", Choice(specs=(str(tmp_path / "search.yaml"),)), study=PARTLY)
    store, _ = open_campaign(campaign, tmp_path)
    wanted = claim_ids(campaign.plan, campaign.registry, store)
    rounds = Rounds(store)
    first = rounds.next(wanted, TrainReport())
    assert [(one.spec.target, one.repetitions, bool(one.given)) for one in first] == [
        (3, tuple(range(12)), False),
        (20, (0, 1, 2), True),
    ]
    assert [one.spec.target for one in rounds.next(wanted, TrainReport())] == [20]


@pytest.mark.parametrize("batch", [0, 3])
def test_rounds_of_no_run_and_of_studies_that_propose_none_are_refused(tmp_path, campaign, batch):
    (tmp_path / "quick.yaml").write_text(QUICK)
    without = plan_campaign(tmp_path / "other", Choice(specs=(str(tmp_path / "quick.yaml"),)))
    with pytest.raises(UsageError, match=rf"^--batch {batch}: the study butter proposes no runs; leave it out$"):
        check_batch(without, batch, "--batch")
    if batch:
        assert check_batch(campaign, batch, "--batch") is None
    else:
        with pytest.raises(UsageError, match=r"^batch 0: a round has at least one run$"):
            check_batch(campaign, batch, "batch")


def test_a_file_that_is_no_round_is_named(tmp_path, campaign):
    store, _ = open_campaign(campaign, tmp_path)
    Path(store.location.path("proposals/7")).mkdir(parents=True)
    Path(store.location.path("proposals/7/0.json")).write_text("[{}]")
    with pytest.raises(StoreError, match=r"proposals/7/0\.json: is no round of proposals \(.*\); remove it$"):
        read_rounds(store, 7)
