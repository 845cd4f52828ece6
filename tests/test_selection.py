"""Conditions and repetitions as users write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import SelectError
from butter_etl.store.registry import Registry
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import PUBLISHED, make_experiment
from butter_etl.studies.selection import Choice, Condition, Selection, parse_condition

PARAMETERS = make_experiment(
    dataset="nursery", size=1024, depth=4, label_noise=0.05, kernel_regularizer=Regularizer("l2", 0.02)
).parameters()


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("dataset=nursery", True),
        ("dataset = adult,nursery", True),
        ("dataset!=nursery", False),
        ("dataset != adult,mnist", True),
        ("size<=1024", True),
        ("size<1024", False),
        ("size>1023", True),
        ("depth>=5", False),
        ("label_noise=0.05", True),
        ("label_noise=0.0500000007", True),
        ("label_noise>0.05", False),
        ("learning_rate=1e-4", True),
        ("kernel_regularizer.type=null", False),
        ("kernel_regularizer.type!=null", True),
        ("kernel_regularizer.l1=null", True),
        ("kernel_regularizer.l1<1", False),
        ("kernel_regularizer.l2=null,0.02", True),
        ("momentum=null", True),
        ("momentum!=0.9", True),
    ],
)
def test_conditions(text, holds):
    assert parse_condition(text, BUTTER.terms()).holds(PARAMETERS) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset", "write KEY OP VALUE"),
        ("dataset==mnist", "dataset '=mnist' is not known"),
        ("shape=rectangel", r"unknown shape 'rectangel' \(did you mean 'rectangle'"),
        ("=mnist", "write KEY OP VALUE"),
        ("datset=mnist", "unknown key 'datset'"),
        ("dataset=", "a value is missing"),
        ("dataset=mnist,,adult", "a value is missing"),
        ("size=big", "'big' is not a whole number"),
        ("size=10.5", "'10.5' is not a whole number"),
        ("label_noise=much", "'much' is not a number"),
        ("size<1,2", "< takes exactly one value"),
        ("size>null", "> takes exactly one value, and not null"),
    ],
)
def test_malformed_conditions(text, message):
    with pytest.raises(SelectError, match=message) as caught:
        parse_condition(text, BUTTER.terms())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, -1, 256, 300])
def test_impossible_repetitions(count):
    with pytest.raises(SelectError, match=f"--repetitions: {count} is not between 1 and 255"):
        Registry(None).select(Choice(sweeps=("primary",), repetitions=count))


def test_repetition_numbers_stay_in_uint16():
    with pytest.raises(SelectError, match="--first-repetition: -1"):
        Selection(first_repetition=-1)
    late = Selection(first_repetition=65530)
    assert late.wanted_repetitions(6) == range(65530, 65536)
    with pytest.raises(SelectError, match="go up to 65535, not 65536"):
        late.wanted_repetitions(7)


def test_experiments_of_several_sweeps_come_once_with_the_most_repetitions():
    conditions = tuple(
        parse_condition(text, BUTTER.terms()) for text in ["dataset=mnist", "shape=rectangle", "size=1024", "depth=4"]
    )
    selection = Selection((PUBLISHED["optimizer"], PUBLISHED["primary"]), conditions)
    found = list(selection.experiments())
    assert len({spec for _, spec, _ in found}) == len(found) == 4 * 4 * 5
    wanted = {spec: count for _, spec, count in found}
    assert {name for name, spec, _ in found if spec in PUBLISHED["optimizer"]} == {"optimizer"}
    baseline = make_experiment(dataset="mnist", size=1024, depth=4)
    assert wanted[baseline] == 30
    assert sorted(set(wanted.values())) == [20, 30]
    assert selection.matches(baseline)
    assert not selection.matches(make_experiment(dataset="mnist", size=2048, depth=4))


def test_no_sweep_means_whatever_a_store_has():
    selection = Selection((), (parse_condition("dataset=digits", BUTTER.terms()),))
    assert selection.matches(make_experiment(dataset="digits", size=77, depth=2))
    assert list(selection.experiments()) == []


@given(
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
)
def test_what_may_hold_between_holds_for_no_less(op, wanted, values):
    condition = Condition("size", op, tuple(wanted if op in {"=", "!="} else wanted[:1]))
    any_holds = any(condition.holds({"size": value}) for value in values)
    assert condition.may_hold_between(min(values), max(values)) >= any_holds
    if len(set(values)) == 1:
        assert condition.may_hold_between(values[0], values[0]) == any_holds
