"""Comparing a run with the same run trained again: bits, distances, circumstances."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.identity import to_json
from butter_etl.studies.lifespans.study import NN_LIFESPANS
from butter_etl.upkeep.comparing import (
    RELATIVE,
    differing_points,
    distance,
    first_difference,
    has_other_data,
    judged_histories,
    other_circumstances,
    told_by_training,
)
from tests.descents import DESCENTS
from tests.strategies import POLLEN, make_runs

FACTS = {"blas": "openblas 0.3", "butter-etl": "1", "data": "ab", "numpy": "2", "target": "x", "threads": 1}


def row(**changed):
    """A run of one value a history, some histories other."""
    histories = {(name, 0): values for name, values in changed.items()}
    return make_runs(POLLEN, 0, [0], epochs=4, histories=histories)


def said(**changed):
    facts = {"engine": "fused", "device": "cpu", "python_version": "3.11", "environment": to_json(FACTS), "stack": 1}
    return facts | changed


@given(st.integers(0, 19), st.integers(0, 3), st.integers(0, 31))
def test_every_bit_of_every_history_counts(history, place, bit):
    name = BUTTER.histories[history]
    stored = row()
    values = np.array(stored[name][0].as_py(), np.float32)
    values.view(np.uint32)[place] ^= np.uint32(1 << bit)
    found = first_difference(BUTTER, stored, row(**{name: values}))
    assert (found.column, found.point, found.values, found.of) == (name, place + 1, 1, 80)
    assert found.stored == str(np.float32(stored[name][0].as_py()[place]))


def test_the_same_bits_are_no_difference_whatever_they_mean():
    values = [np.nan, np.inf, -0.0, 1.0]
    assert first_difference(BUTTER, row(loss=values), row(loss=values)) is None
    assert first_difference(BUTTER, row(loss=values), row(loss=[np.nan, np.inf, 0.0, 1.0])).point == 3


def test_the_earliest_point_is_named_of_whichever_history():
    found = first_difference(BUTTER, row(), row(val_loss=[0, 0, 0, 0], loss=[*row()["loss"][0].as_py()[:1], 0, 0, 0]))
    assert (found.column, found.point, found.values) == ("val_loss", 1, 7)


@given(st.lists(st.floats(width=32), max_size=6), st.lists(st.floats(width=32), max_size=6))
def test_lengths_differ_where_one_has_no_value(one, other):
    one, other = np.array(one, np.float32), np.array(other, np.float32)
    wanted = [
        place
        for place in range(max(len(one), len(other)))
        if place >= min(len(one), len(other)) or one[place].tobytes() != other[place].tobytes()
    ]
    assert differing_points(one, other).tolist() == wanted


def test_what_training_alone_tells_is_compared_too():
    assert told_by_training(NN_LIFESPANS) == ["table_id", "random_seed", "train_gpu", "torch_set_deterministic"]
    assert not {"core_seconds", "hostname", "environment"} & set(told_by_training(DESCENTS))
    table = row()
    place = table.column_names.index("test_split")
    assert "test_split" not in told_by_training(BUTTER)
    other = table.set_column(place, table.schema.field("test_split"), pa.array([0.5], pa.float32()))
    assert first_difference(BUTTER, table, other) is None  # it follows from the experiment: rows are judged by that


def test_bits_are_promised_where_all_is_equal_that_they_depend_on():
    assert other_circumstances(BUTTER, said(), said()) == []
    assert other_circumstances(BUTTER, said(stack=30), said()) == []
    torch = other_circumstances(BUTTER, said(engine="torch", stack=30), said(engine="torch"))
    assert torch == ["stack: of 30 runs, here 1; which others were in it is not recorded"]
    unsaid = said(environment=None)
    assert "nothing is promised" in other_circumstances(BUTTER, unsaid, said())[0]


@pytest.mark.parametrize(
    ("name", "value", "phrase"),
    [
        ("numpy", "1", "version: numpy 1, here 2"),
        ("target", "y", "processor: target y, here x"),
        ("blas", "mkl", "processor: blas mkl, here openblas 0.3"),
        ("threads", 2, "threads: threads 2, here 1"),
        ("data", "cd", "data set: content cd…, here ab…"),
        ("torch", "2.9", "version: torch 2.9, here None"),
    ],
)
def test_each_circumstance_is_named(name, value, phrase):
    other = said(environment=to_json(FACTS | {name: value}))
    assert other_circumstances(BUTTER, other, said()) == [phrase]
    assert has_other_data(other, said()) == (name == "data")
    assert not has_other_data(other | {"environment": None}, said())


# --- distances ---------------------------------------------------------------------------------------------------


def apart(stored, trained, beside=None):
    table = None if beside is None else pa.concat_tables([row(val_loss=one, loss=one) for one in beside])
    return distance(BUTTER, row(val_loss=stored, loss=stored), row(val_loss=trained, loss=trained), table)


def test_early_points_are_held_to_what_is_stated():
    near = apart([1, 1, 1, 1], [1, 1, 1 + RELATIVE / 2, 2])
    assert (near.is_close, near.spread) == (True, None)
    assert near.largest == pytest.approx(1 / 1.01)
    assert not apart([1, 1, 1, 1], [1, 1, 1 + 2 * RELATIVE, 1]).is_close
    assert apart([1, np.nan, 1, 1], [1, np.nan, 1, 1]).early == 0
    assert apart([1, np.nan, 1, 1], [1, 1, 1, 1]).early == np.inf
    assert apart([1, 1, 1, 1], [1, 1]).early == np.inf


def test_later_points_are_held_against_the_repetitions():
    repetitions = [[1, 1, 1, 1.0], [1, 1, 1, 3.0], [1, 1, 1, np.nan]]
    assert apart([1, 1, 1, 1], [1, 1, 1, 2], repetitions).spread == 0  # the median over points
    far = apart([1.0, 1.0, 1.0, 1.0], [1.00001] * 4, [[1.0] * 4, [1.000001] * 4])
    assert far.early < RELATIVE
    assert (far.is_close, far.spread > 1) == (False, True)
    assert apart([1] * 4, [1] * 4, [[np.nan] * 4, [np.nan] * 4]).spread == 0


def test_studies_say_what_they_judge_by():
    assert judged_histories(BUTTER) == ("val_loss", "loss")
    assert judged_histories(DESCENTS) == DESCENTS.histories
