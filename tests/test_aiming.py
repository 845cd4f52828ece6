"""Campaigns with goals: how many runs each experiment gets, what is out of reach and why, and what stopping covers."""

import json
import math

import numpy as np
import pytest

import butter_etl as be
from butter_etl.campaign.aiming import NO_HISTORY, Aiming, look_of
from butter_etl.campaign.cutting import Wanted
from butter_etl.engines.intervals import LOOKS, look_ranks
from butter_etl.errors import SelectError
from butter_etl.store.aims import Aim, note_spent, read_aim_state, read_aims
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.goals import Goal, goal_columns
from butter_etl.studies.selection import Choice
from butter_etl.train_tasks import Asked, plan_campaign
from tests.strategies import land

SPECS = [make_experiment(dataset="529_pollen", size=size, depth=2) for size in (32, 64, 128, 256)]
GOAL = Goal("test_loss", 0.1, True, 0.95)
SPEC = """
name: quick
repetitions: 2
cubes:
  - {dataset: [wine], size: [64], depth: [2], epochs: [2], learning_rate: [0.01, 0.1]}
"""


def aim_of(*goals, limit=100, budget=None):
    return Aim(goals or (GOAL,), ("primary",), (), limit, budget)


def wanted(spec, cost=1.0):
    return Wanted(spec, BUTTER.fixed_ids.id_of(spec), "primary", (), cost, 1.0)


def landed(store, spec, losses, repetitions=None):
    """Land runs that end with these losses."""
    numbers = range(len(losses)) if repetitions is None else repetitions
    histories = {("val_loss", number): [9.0, float(one)] for number, one in zip(numbers, losses, strict=True)}
    land(store, spec, BUTTER.fixed_ids.id_of(spec), numbers, histories=histories)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def test_first_every_experiment_gets_a_few_runs_then_those_that_lack_most(store):
    aiming = Aiming(BUTTER, store, aim_of(limit=28))
    all_of_them = [wanted(spec) for spec in SPECS]
    assert [len(one.repetitions) for one in aiming.round(all_of_them)] == [LOOKS[0]] * 4
    rng = np.random.default_rng(1)
    for spec, spread in zip(SPECS, (0.01, 0.5, 0.7), strict=False):
        landed(store, spec, 1 + spread * rng.random(10))
    landed(store, SPECS[3], 10.0 ** np.linspace(0, 6, 10))
    more = {one.spec: one.repetitions for one in aiming.round(all_of_them)}
    assert SPECS[0] not in more
    assert more[SPECS[1]][0] == 10
    assert more[SPECS[2]] == tuple(range(10, LOOKS[1]))
    assert [cell.state for cell in aiming.cells] == ["reached", "open", "open", "out of reach"]
    assert "with 10 runs, about" in aiming.cells[3].reason


def test_what_seems_to_need_too_many_runs_is_out_of_reach_and_named(store):
    aiming = Aiming(BUTTER, store, aim_of(limit=40))
    modes = np.tile([1.0, 2.0], 20) + np.linspace(0, 0.01, 40)
    for spec, losses in zip(SPECS, (modes, [math.nan] * 40, np.linspace(-1, 1, 40), [1.0] * 9), strict=True):
        landed(store, spec, losses)
    assert [one.repetitions for one in aiming.round(map(wanted, SPECS))] == [(9,)]
    two, lost, zero, _ = (cell.reason for cell in aiming.cells)
    assert two.startswith("two modes: 33")
    assert "40 of 40 values are not finite: no bound with 40 runs, more runs than can be told for 10%" in lost
    assert zero == "its median may be 0, and no width is a share of that: ask for an absolute one"
    few = Aiming(BUTTER, store, aim_of(Goal("test_loss", 0.1, True, 0.95, "everywhere"), limit=14))
    assert few.round([wanted(SPECS[0])]) == []
    assert few.cells[0].reason == "too few runs are allowed: the first look is at 20 runs"


def test_all_goals_count_at_one_look(store):
    landed(store, SPECS[0], np.linspace(1, 1.1, 20))
    loose, tight = GOAL, Goal("test_loss", 0.01, False, 0.99)
    assert Aiming(BUTTER, store, aim_of(loose)).round([wanted(SPECS[0])]) == []
    aiming = Aiming(BUTTER, store, aim_of(loose, tight))
    assert len(aiming.round([wanted(SPECS[0])])) == 1
    (cell,) = aiming.cells
    assert cell.half_widths[0] < 0.1
    assert cell.half_widths[1] > 0.01


def test_runs_are_looked_at_in_the_order_of_their_repetitions(store):
    """What landed early, perhaps because it diverged soon, does not stand for what is still to come."""
    landed(store, SPECS[0], [1.0] * 9)
    landed(store, SPECS[0], np.linspace(1, 9, 20), range(12, 32))
    aiming = Aiming(BUTTER, store, aim_of())
    assert [one.repetitions for one in aiming.round([wanted(SPECS[0])])] == [(9,)]
    experiment_id = BUTTER.fixed_ids.id_of(SPECS[0])
    failed = {(experiment_id, number) for number in (9, 10, 11)}
    aiming = Aiming(BUTTER, store, aim_of())
    aiming.round([wanted(SPECS[0])], failed)
    assert (aiming.cells[0].runs, aiming.cells[0].looked_at) == (29, 28)


def test_a_budget_goes_where_a_core_second_narrows_most(store):
    rng = np.random.default_rng(2)
    for spec in SPECS[:2]:
        landed(store, spec, 1 + 0.5 * rng.random(10))
    cheap, dear = wanted(SPECS[0], cost=1.0), wanted(SPECS[1], cost=50.0)
    aiming = Aiming(BUTTER, store, aim_of(budget=20 / 3600))
    assert [one.spec for one in aiming.round([dear, cheap])] == [SPECS[0]]
    assert aiming.cells[0].reason.startswith("what is left of 0.0055")
    aiming.driver = "token"
    assert [one.spec for one in aiming.round([dear, cheap], core_seconds=19.5)] == []
    note_spent(store, aiming.aim, "another", 0.0)
    assert read_aim_state(store, aiming.aim).cells == aiming.cells


def test_without_histories_nothing_more_is_trained(store):
    empty = {("val_loss", number): None for number in range(12)}
    land(store, SPECS[0], BUTTER.fixed_ids.id_of(SPECS[0]), range(12), histories=empty)
    aiming = Aiming(BUTTER, store, aim_of())
    assert aiming.round([wanted(SPECS[0])]) == []
    assert aiming.cells[0].reason == NO_HISTORY


def test_the_interval_at_the_moment_it_stops_covers(store):
    """Runs are added until they are narrow enough; of skewed ones, naive intervals cover less then."""
    rng = np.random.default_rng(3)
    aim, one, columns = aim_of(Goal("test_loss", 0.25, True, 0.8), limit=226), wanted(SPECS[0]), goal_columns
    assert columns(BUTTER, aim.goals) == ["repetition", "val_loss"]
    covered = stopped = 0
    for _ in range(150):
        losses, count = np.exp(0.6 * rng.normal(size=226)).astype(np.float32), LOOKS[0]
        while True:
            look = look_of(BUTTER, aim, one, _runs(losses[:count]), count)
            if not look.runs:
                break
            count = look.runs
        stopped += look.cell.state == "reached"
        first = np.sort(losses[: look.cell.looked_at])
        rank = look_ranks(0.8)[LOOKS.index(look.cell.looked_at)]
        covered += first[rank - 1] <= 1.0 <= first[-rank]
    assert stopped > 120
    assert covered / 150 >= 0.8 - 3 * math.sqrt(0.16 / 150)


def _runs(losses):
    import pyarrow as pa

    lists = pa.array([[one] for one in losses.tolist()], pa.list_(pa.float32()))
    return pa.table({"repetition": pa.array(range(len(losses)), pa.uint16()), "val_loss": lists})


# --- the whole way -----------------------------------------------------------------------------------------------


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "quick.yaml"
    path.write_text(SPEC)
    return path


def test_a_campaign_trains_until_its_goal_is_reached(tmp_path, spec, run):
    place, goal = tmp_path / "store", "test_loss_median: 20% at 90%"
    code, out, _ = run("plan", place, "--spec", spec, "--precision", goal)
    assert (code, "0 runs there, 20 more expected to be needed" in out) == (0, True)
    arguments = ("train", place, "--spec", spec, "--precision", goal, "--engine", "torch", "--max-repetitions", 40)
    code, out, _ = run(*arguments)
    assert (code, "goal test_loss_median: 20% at 90% end: reached by" in out) == (0, True)
    store = Store.open(place)
    (aim,) = read_aims(store)
    cells = read_aim_state(store, aim).cells
    assert {cell.state for cell in cells} <= {"reached", "out of reach"}
    masks = store.repetitions()
    assert {cell.experiment_id: cell.runs for cell in cells} == {one: mask.bit_count() for one, mask in masks.items()}
    code, out, _ = run(*arguments)
    assert out.startswith("nothing to do: all goals are reached, or out of reach")
    status = run("status", place)[1]
    assert "goal test_loss_median: 20% at 90% end: reached by" in status
    assert "widths asked 20%, there" in status
    (facts,) = json.loads(run("status", place, "--json")[1])["goals"]
    assert [one["state"] for one in facts["experiments"]] == [cell.state for cell in cells]
    planned = be.plan(place, spec=spec, precision=goal, max_repetitions=40)
    assert (planned.plan.missing, planned.aiming.cells) == (0, cells)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "test_loss_median: 0% at 95%"], "a half-width is more than 0"),
        (["--precision", "test_loss_median: 2% at 1"], "a level of 1"),
        (["--precision", "test_loss_medain: 2% at 95%"], "did you mean 'test_loss_median'?"),
        (["--precision", "test_loss_avg: 2% at 95%"], "pass --approximate"),
        (["--precision", "test_loss_median: 2% at 95%", "--max-repetitions", "9"], "goals take 10 to 226 repetitions"),
        (["--precision", "test_loss_median: 2% at 95%", "--budget", "0"], "a budget is more than 0 core-hours"),
        (["--precision", "test_loss_median: 2% at 95%", "--repetitions", "9"], "--precision decides on repetitions"),
        (["--budget", "9"], "go with --precision"),
    ],
)
def test_bad_goals_are_one_line(tmp_path, spec, run, arguments, message):
    for command in ("plan", "train"):
        code, _, err = run(command, tmp_path / "store", "--spec", spec, *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    assert not (tmp_path / "store").exists()


def test_a_store_without_histories_is_one_line(tmp_path):
    spec = tmp_path / "pollen.yaml"
    spec.write_text("name: pollen\nrepetitions: 2\ncubes:\n  - {dataset: [529_pollen], size: [32], depth: [2]}\n")
    empty = {("val_loss", number): None for number in range(12)}
    land(Store.create(tmp_path / "store"), SPECS[0], BUTTER.fixed_ids.id_of(SPECS[0]), range(12), histories=empty)
    asked = Asked(("test_loss_median: 2% at 95%",))
    with pytest.raises(SelectError, match="no goal can look at its runs"):
        plan_campaign(tmp_path / "store", Choice(specs=(str(spec),)), asked=asked)


def test_a_campaign_that_was_stopped_goes_on_and_two_drivers_train_each_run_once(tmp_path, spec):
    """What is there in the end is the same as without: everything follows from the runs that have landed."""
    goal, stores = "test_loss_median: 20% at 90%", [tmp_path / name for name in ("whole", "stopped")]
    options = {"spec": spec, "precision": goal, "max_repetitions": 28, "engine": "torch", "workers": 1}
    be.train(stores[0], **options)
    be.train(stores[1], spec=spec, repetitions=4, engine="torch", workers=1)  # some of the first round
    be.train(stores[1], **options)
    contents = [Store.open(store).repetitions() for store in stores]
    assert contents[0] == contents[1]
    first, second = (
        Aiming(BUTTER, store, read_aims(store)[0], name) for name in "ab" for store in [Store.open(stores[1])]
    )
    campaign = be.plan(stores[1], spec=spec, precision=goal, max_repetitions=28)
    assert first.round(campaign.plan.wanted) == second.round(campaign.plan.wanted) == []
    assert first.cells == second.cells == read_aim_state(Store.open(stores[0]), first.aim).cells
