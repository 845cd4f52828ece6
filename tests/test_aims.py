"""Aims in a store: what was asked for, how far it is, and what has been spent."""

import pytest

from butter_etl.errors import StoreError
from butter_etl.store.aims import (
    Aim,
    AimState,
    Cell,
    keep_aim,
    note_spent,
    read_aim_state,
    read_aims,
    spent,
    write_aim_state,
)
from butter_etl.store.store import Store
from butter_etl.studies.goals import Goal
from butter_etl.upkeep.verify import plan_verification, run_verification

AIM = Aim((Goal("test_loss", 0.02, True, 0.95),), ("quick",), (), 60)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def test_an_aim_is_kept_once_whatever_its_limits(store):
    assert read_aims(store) == []
    wider = Aim(AIM.goals, AIM.sweeps, AIM.where, 80, budget=1.5)
    other = Aim(AIM.goals, AIM.sweeps, ("depth=2",), 60)
    for aim in (AIM, wider, other):
        keep_aim(store, aim)
    assert sorted(read_aims(store), key=lambda aim: aim.where) == [wider, other]
    assert AIM.key == wider.key != other.key
    assert run_verification(plan_verification(store.location.root)).faults == []


def test_how_far_an_aim_is_is_what_was_written_last(store):
    assert read_aim_state(store, AIM) is None
    state = AimState(1, (Cell(3, "a network", 20, 14, (0.1, None), 80, "open"),))
    for written in (AimState(0, ()), state):
        write_aim_state(store, AIM, written)
    assert read_aim_state(store, AIM) == state
    (store.state / "goals" / f"{AIM.key}.json").write_text("torn")
    assert read_aim_state(store, AIM) is None


def test_what_all_drivers_spent_is_added(store):
    assert spent(store, AIM) == 0
    for driver, seconds in (("a", 1.0), ("b", 5.0), ("a", 2.5)):
        note_spent(store, AIM, driver, seconds)
    assert spent(store, AIM) == 7.5


def test_a_file_that_is_no_aim_is_one_line(store):
    keep_aim(store, AIM)
    store.location.replace(f"goals/{AIM.key}.json", b"{}")
    with pytest.raises(StoreError, match="is no goal of a campaign"):
        read_aims(store)
