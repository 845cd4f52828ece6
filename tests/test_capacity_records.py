"""The published records of trials: what they say is read, what no trial can have is refused by its record."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.errors import SourceError
from butter_etl.studies.capacity.records import FIELDS, Records, read_records, write_records

GENUINE = sorted((Path(__file__).parent / "records").glob("*.p"))
HPARAMS = {"optimizer": "ADAM", "lr_init": 0.25, "train_steps": 70_000}
RECORD = {
    "architecture": "lstm",
    "eval_loss": 1.5,
    "hparams": HPARAMS,
    "max_params": 10_000,
    "n_layers": 1,
    "num_params": 9_980,
    "task_type": "text8",
    "train_loss": 1.25,
    "valid_loss": 1.75,
    "hyper_iter": 0,
}
KINDS = {name: kind if kind == "O" else f"<{kind}" for name, kind in FIELDS.items()}


def pickled(*records, kinds=KINDS):
    rows = [tuple(one[name] for name in kinds) for one in records]
    return pickle.dumps(np.array(rows, list(kinds.items())), 2)


def trials(**columns):
    """Return some trials, of which only some columns are said."""
    count = len(next(iter(columns.values())))
    all_columns = {name: [RECORD[name]] * count for name in FIELDS} | {"infeasible": [False] * count}
    return Records(**(all_columns | columns))


def same(one, other):
    return msgspec.structs.asdict(one) == msgspec.structs.asdict(other)


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", GENUINE, ids=lambda file: file.stem)
def test_genuine_files_have_a_trial_for_each_record(file):
    found, theirs = read_records(file.read_bytes()), np.load(file, allow_pickle=True, encoding="latin1")
    assert len(found) == theirs.size == 8
    assert found.eval_loss == theirs["eval_loss"].tolist()
    assert found.num_params == theirs["num_params"].tolist()
    assert found.hparams == theirs["hparams"].tolist()
    assert found.infeasible == np.isinf(theirs["eval_loss"]).tolist()
    assert found.respelled == ()


def test_the_order_and_the_width_of_fields_make_no_difference():
    narrow = {
        "hyper_iter": "u1", "valid_loss": "<f4", "train_loss": ">f4", "task_type": "S5", "num_params": ">u2",
        "n_layers": "i1", "max_params": "<i4", "hparams": "O", "eval_loss": "<f2", "architecture": "U4",
    }  # fmt: skip
    assert same(read_records(pickled(RECORD, kinds=narrow)), read_records(pickled(RECORD)))


def test_whole_numbers_may_be_written_as_floats():
    kinds = KINDS | dict.fromkeys(("max_params", "hyper_iter"), "<f8")
    found = read_records(pickled(RECORD, kinds=kinds))
    assert (found.max_params, found.hyper_iter) == ([10_000], [0])
    assert type(found.max_params[0]) is int


def test_hyperparameters_keep_the_kind_of_each_number():
    values = {"a": 1, "b": 1.0, "c": True, "d": None, "e": "1", "f": np.float32(0.5), "g": np.int8(3)}
    (found,) = read_records(pickled(RECORD | {"hparams": values})).hparams
    assert found == values
    assert [type(one) for one in found.values()] == [int, float, bool, type(None), str, float, int]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 1e31])
@pytest.mark.parametrize("name", ["train_loss", "valid_loss", "eval_loss"])
def test_a_loss_that_is_not_finite_or_absurd_is_of_a_trial_that_diverged(name, loss):
    found = read_records(pickled(RECORD, RECORD | {name: loss}, RECORD))
    assert found.infeasible == [False, True, False]
    assert found.respelled == ("record 1 diverged; all its losses would be written as inf",)


def test_what_would_be_left_out_is_said():
    more = pickled(RECORD | {"seed": 3, "host": 1}, kinds=KINDS | {"seed": "<i8", "host": "<i8"})
    assert read_records(more).respelled == ("the fields seed, host would be left out",)


# --- what is refused ---------------------------------------------------------------------------------------------


def test_missing_fields_are_named():
    kinds = {name: kind for name, kind in KINDS.items() if name not in ("hparams", "task_type")}
    with pytest.raises(SourceError, match=r"^fields are missing: hparams, task_type$"):
        read_records(pickled(RECORD, kinds=kinds))


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("architecture", "", "architecture '' is no text"),
        ("architecture", 3, "architecture 3 is no text"),
        ("task_type", "a\nb", r"task_type 'a\\nb' is no text"),
        ("n_layers", 0, "n_layers 0 is no whole number from 1 on"),
        ("n_layers", 1.5, "n_layers 1.5 is no whole number"),
        ("max_params", 2**70, "max_params a number of more than 64 bits is no whole number"),
        ("num_params", True, "num_params True is no whole number"),
        ("hyper_iter", -1, "hyper_iter -1 is no whole number from 0 on"),
        ("eval_loss", "1.5", "eval_loss '1.5' is no number"),
        ("eval_loss", None, "eval_loss None is no number"),
        ("hparams", "{}", "hparams '{}' is no dictionary"),
        ("hparams", {"x": [1]}, "hparams has a list for 'x', which is neither a text nor a number"),
        ("hparams", {"x": {"y": 1}}, "hparams has a dict for 'x', which is neither a text nor a number"),
        ("hparams", {"x": math.nan}, "hparams has nan for 'x', which is no finite number"),
        ("hparams", {"x": 2**64}, "hparams has a number of more than 64 bits for 'x'"),
        ("hparams", {"x": 10**5000}, "hparams has a number of more than 64 bits for 'x'"),
    ],
)
def test_what_no_trial_can_have_is_refused_by_its_record(name, value, reason):
    kinds = KINDS | {name: "O"}
    with pytest.raises(SourceError, match=f"^record 1: {reason}"):
        read_records(pickled(RECORD, RECORD | {name: value}, kinds=kinds))


# --- what is written ---------------------------------------------------------------------------------------------


def load(data):
    return pickle.loads(data, encoding="latin1")  # noqa: S301 - ours


def test_diverged_trials_are_written_as_infinite_and_nothing_as_nan():
    some = trials(eval_loss=[1.0, math.nan, 3.0, -math.inf], infeasible=[False, False, True, False])
    array = load(write_records(some))
    assert array["eval_loss"].tolist() == [1.0, math.inf, math.inf, math.inf]
    assert array["train_loss"].tolist() == [1.25, 1.25, math.inf, 1.25]
    assert int(np.argmin(array["eval_loss"])) == 0


def test_fields_stand_in_the_published_order_with_their_types():
    array = load(write_records(trials(eval_loss=[1.0])))
    genuine = np.load(GENUINE[1], allow_pickle=True, encoding="latin1")
    assert array.dtype == genuine.dtype
    assert list(array.dtype.names) == list(FIELDS)


def test_the_order_of_hyperparameters_makes_no_difference():
    turned = dict(reversed(HPARAMS.items()))
    assert write_records(trials(hparams=[HPARAMS, HPARAMS])) == write_records(trials(hparams=[turned, HPARAMS]))


LOSS = st.floats(-1e29, 1e29)
TRIAL = st.fixed_dictionaries(
    {
        "architecture": st.sampled_from(["rnn", "+rnn"]),
        "eval_loss": LOSS,
        "hparams": st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-9, 9) | LOSS),
        "max_params": st.integers(1, 2**63 - 1),
        "n_layers": st.integers(1, 9),
        "num_params": st.integers(1, 2**40),
        "task_type": st.sampled_from(["rcf", "per_cap"]),
        "train_loss": LOSS,
        "valid_loss": LOSS,
        "hyper_iter": st.integers(0, 2**62),
    }
)


@settings(max_examples=60, deadline=None)
@given(st.lists(TRIAL))
def test_what_is_written_is_read_again(some):
    columns = {name: [one[name] for one in some] for name in FIELDS}
    written = Records(**columns, infeasible=[False] * len(some))
    assert same(read_records(write_records(written)), written)
