"""Goals: the words that spell them, and one line for words that do not."""

import math

import numpy as np
import pyarrow as pa
import pytest

from butter_etl.engines.intervals import LOOKS
from butter_etl.errors import SelectError, SpecError
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.goals import Goal, goal_columns, look_at, parse_goal


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("test_loss_median: 2% at 95%", Goal("test_loss", 0.02, True, 0.95)),
        (" test_loss_median :0.5 at 0.99 , best ", Goal("test_loss", 0.5, False, 0.99, "best")),
        ("train_loss_median: 1e-3 at 90% everywhere", Goal("train_loss", 0.001, False, 0.9, "everywhere")),
        ("test_accuracy_median: 10 % at 99.9 % at the end", Goal("test_accuracy", 0.1, True, 0.999)),
    ],
)
def test_goals_are_spelled(text, goal):
    assert parse_goal(text, BUTTER) == goal
    assert parse_goal(goal.text, BUTTER) == goal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test_los_median: 2% at 95%", "unknown 'test_los_median' (did you mean 'test_loss_median'?)"),
        ("test_loss_q1: 2% at 95%", "goals are on test_loss_median, "),
        ("test_loss_median: 0% at 95%", "a half-width is more than 0"),
        ("test_loss_median: -1 at 95%", "a half-width is more than 0"),
        ("test_loss_median: inf at 95%", "a half-width is more than 0"),
        ("test_loss_median: two at 95%", "'two' is no number"),
        ("test_loss_median: 2% at 95% always", "unknown 'always'; known: end, best, everywhere"),
        ("train_loss_median: 2% at 95% best", "the study butter has no best values of train_loss"),
        ("test_loss_median: 2%", "write NAME: WIDTH at LEVEL"),
        ("test_loss_avg: 2% at 95%", "ask for test_loss_median, or pass --approximate"),
    ],
)
def test_what_is_no_goal_is_one_line(text, message):
    with pytest.raises(SelectError) as caught:
        parse_goal(text, BUTTER)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", ["1", "100%", "0", "95"])
def test_what_is_no_level_is_refused(level):
    with pytest.raises(SpecError, match="confidence levels lie between"):
        parse_goal(f"test_loss_median: 2% at {level}", BUTTER)


def test_goals_on_means_are_approximate():
    goal = parse_goal("test_loss_avg: 2% at 95%", BUTTER, approximate=True)
    assert (goal.mean, goal.text) == (True, "test_loss_avg: 2% at 95% end")
    assert parse_goal(goal.text, BUTTER, approximate=True) == goal


def test_runs_are_looked_at_where_the_goal_says():
    losses = np.random.default_rng(1).random((20, 4)).astype(np.float32) + np.arange(4, 0, -1, dtype=np.float32)
    losses[:, 1] -= 2.5
    runs = pa.table({"repetition": pa.array(range(20), pa.uint16()), "val_loss": pa.array(list(losses))})
    found = {where: look_at(BUTTER, Goal("test_loss", 0.1, False, 0.95, where), runs) for where in ("end", "best")}
    assert found["end"].estimate == pytest.approx(np.median(losses[:, 3]))
    assert found["best"].estimate == pytest.approx(np.median(losses.min(axis=1)))
    band = look_at(BUTTER, Goal("test_loss", 0.1, False, 0.95, "everywhere"), runs)
    assert band.width >= found["end"].width
    assert {one.look for one in (*found.values(), band)} == {LOOKS.index(20)}
    assert goal_columns(BUTTER, (Goal("train_loss", 1, False, 0.9),)) == ["repetition", "loss", "val_loss"]


def test_without_histories_there_is_no_look():
    runs = pa.table({"repetition": pa.array(range(20), pa.uint16())})
    assert look_at(BUTTER, Goal("test_loss", 0.1, False, 0.95), runs).look == -1
    assert look_at(BUTTER, Goal("test_loss", 0.1, False, 0.95), runs.slice(0, 0)).width == math.inf
