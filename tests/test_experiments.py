"""Identity: canonical JSON, run ids, seeds. The golden values must never change."""

import json
import uuid

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl import __version__
from butter_etl.errors import SpecError
from butter_etl.studies.butter.experiments import TASK_VERSION, OwnData, Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.identity import canonical_float, float_text, to_json

POLLEN = make_experiment(dataset="529_pollen", size=32, depth=2)
GOLDEN_JSON = (
    '{"activation":"relu","activity_regularizer":null,"batch_size":256,"bias_regularizer":null,'
    '"dataset":"529_pollen","depth":2,"early_stopping":null,"epochs":3000,"input_activation":"relu",'
    '"kernel_regularizer":null,"kernel_regularizer.l1":null,"kernel_regularizer.l2":null,'
    '"kernel_regularizer.type":null,"label_noise":0,"learning_rate":0.0001,"loss":"mean_squared_error",'
    '"momentum":null,"optimizer":"adam","output_activation":"sigmoid","outputs":1,"run_config.shuffle":true,'
    '"shape":"rectangle","size":32,"task":"butter_etl.train","task_version":1,"test_split":0.2,'
    '"test_split_method":"shuffled_train_test_split"}'
)


def test_golden_identity():
    assert POLLEN.canonical_json() == GOLDEN_JSON
    assert RunSpec(POLLEN, 0).run_id == "780d98a9-0bcf-5236-a0be-aaf18e6891d6"
    assert RunSpec(POLLEN, 1).run_id == "ad049b4f-b529-5b18-b8b0-be18183dbe2b"
    assert RunSpec(POLLEN, 0).seed == 4325369155531821339


def test_run_id_is_the_uuid5_of_the_name():
    namespace = uuid.UUID("8b7f5d1e-64a3-5c0f-9a55-2f4f3e0c7d11")
    assert RunSpec(POLLEN, 7).run_id == str(uuid.uuid5(namespace, f"{GOLDEN_JSON}#7"))


def test_task_version_is_the_major_version():
    assert int(__version__.partition(".")[0]) == TASK_VERSION


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.01, "0.01"),
        (0.0001, "0.0001"),
        (0.00001, "0.00001"),
        (0.05, "0.05"),
        (float(np.float32(0.05)), "0.05"),
        (7.8125e-5, "0.000078125"),
        (1e20, "100000000000000000000"),
    ],
)
def test_float_text(value, text):
    assert float_text(value) == text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float_text_round_trips_float32(value):
    assert np.float32(float_text(value)) == np.float32(value)
    assert canonical_float(canonical_float(value)) == canonical_float(value)


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("value", [10**400, -(10**5000)])
def test_whole_numbers_above_all_floats_are_refused_in_a_short_line(value, kind):
    with pytest.raises(SpecError, match=r"^rate: a whole number of [\d,]+ bits is above all floats$"):
        canonical_float(value, "rate", kind)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39])
def test_canonical_float_refuses_what_float32_cannot_hold(value):
    with pytest.raises(SpecError, match="not a finite number"):
        canonical_float(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (0.1 + 0.2, "0.30000000000000004"),
        (float(np.float32(0.1)), "0.10000000149011612"),
        (0.000001, "0.000001"),
        (-1.5e-7, "-0.00000015"),
        (1e21, "1000000000000000000000"),
        (1e39, "1e+39"),
        (-1e-47, "-1e-47"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
    ],
)
def test_float_text_of_doubles(value, text):
    assert float_text(value, "float64") == text
    assert canonical_float(value, kind="float64") == value


doubles = st.floats(allow_nan=False, allow_infinity=False)


@given(doubles)
def test_float_text_round_trips_float64(value):
    text = float_text(value, "float64")
    assert float(text) == float(json.loads(text)) == value
    assert len(text) <= 66
    assert canonical_float(value, kind="float64").hex() == (value + 0.0).hex()


@given(doubles, doubles | st.sampled_from([np.nextafter(0.1, 1), 0.1]))
def test_doubles_are_one_number_if_and_only_if_they_are_spelled_alike(one, other):
    assert (float_text(one, "float64") == float_text(other, "float64")) == (one == other)


@given(st.floats(1e-6, 1e20) | st.floats(-1e20, -1e-6))
def test_no_spelling_of_a_double_is_shorter(value):
    """`repr` has as few digits as a number needs."""
    digits = [text.replace(".", "").strip("-0") for text in (float_text(value, "float64"), repr(value).split("e")[0])]
    assert digits[0] == digits[1]


def test_json_of_doubles():
    text = to_json({"b": 1e-8, "a": 0.1 + 1e-12, "c": None, "d": (0.5, 1e300)})
    assert text == '{"a":0.10000000000100001,"b":0.00000001,"c":null,"d":[0.5,1e+300]}'
    assert json.loads(text) == {"b": 1e-8, "a": 0.1 + 1e-12, "c": None, "d": [0.5, 1e300]}


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_canonical_float32_is_spelled_alike_in_both_widths(value):
    assert float_text(canonical_float(value), "float64") == float_text(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_canonical_float_refuses_what_float64_cannot_hold(value):
    with pytest.raises(SpecError, match="not a finite number"):
        canonical_float(value, kind="float64")
    assert canonical_float(1e39, kind="float64") == 1e39


experiments = st.builds(
    make_experiment,
    dataset=st.sampled_from(["529_pollen", "nursery", "digits", "adult"]),
    size=st.integers(2, 2**30),
    depth=st.integers(2, 20),
    learning_rate=st.floats(1e-8, 1),
    batch_size=st.integers(1, 4096),
    kernel_regularizer=st.none() | st.builds(Regularizer, st.sampled_from(["l1", "l2"]), st.floats(1e-6, 1)),
    label_noise=st.floats(0, 1),
    epochs=st.integers(1, 30000),
)


@given(experiments, st.integers(0, 65535))
def test_canonical_json_and_command_hold_the_whole_experiment(spec, repetition):
    text = spec.canonical_json()
    assert BUTTER.parse_own(text) == spec
    assert list(json.loads(text)) == sorted(json.loads(text))
    run = RunSpec(spec, repetition)
    command = run.command("primary")
    assert BUTTER.parse_command(command) == spec
    assert json.loads(command)["seed"] == run.seed
    assert 0 <= run.seed < 2**63


@given(experiments, experiments)
def test_equal_json_is_equal_experiment(first, second):
    assert (first == second) == (first.canonical_json() == second.canonical_json())


def test_every_parameter_is_part_of_the_identity():
    other = {
        "dataset": "537_houses",
        "shape": "trapezoid",
        "size": 64,
        "depth": 3,
        "learning_rate": 0.001,
        "batch_size": 32,
        "kernel_regularizer": Regularizer("l1", 0.01),
        "label_noise": 0.1,
        "epochs": 300,
        "optimizer": "SGD",
        "momentum": 0.9,
        "loss": "binary_crossentropy",
        "outputs": 2,
        "output_activation": "softmax",
        "own": OwnData("0" * 64, 100, 3),
    }
    assert set(other) == set(POLLEN.__struct_fields__)
    texts = {msgspec.structs.replace(POLLEN, **{key: value}).canonical_json() for key, value in other.items()}
    assert len(texts | {GOLDEN_JSON}) == len(other) + 1


def test_the_content_of_own_data_is_part_of_the_identity_and_of_nothing_else():
    own = msgspec.structs.replace(POLLEN, dataset="heart", own=OwnData("ab" * 32, 303, 13))
    text = own.canonical_json()
    added = {"data.sha256": "ab" * 32, "data.rows": 303, "data.inputs": 13}
    assert json.loads(text) == {**json.loads(GOLDEN_JSON), "dataset": "heart", **added}
    assert BUTTER.parse_own(text) == own
    assert BUTTER.parse_command(RunSpec(own, 3).command("mine")) == own
    assert own.parameters() == {**POLLEN.parameters(), "dataset": "heart"}
    for broken in ('"data.inputs":0', '"data.inputs":"13"', '"data.in":13'):
        with pytest.raises(SpecError, match="not the canonical JSON of an experiment"):
            BUTTER.parse_own(text.replace('"data.inputs":13', broken))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"task":"AspectTestTask"}', GOLDEN_JSON.replace("relu", "tanh")]
)
def test_foreign_json_is_refused(text):
    with pytest.raises(SpecError):
        BUTTER.parse_own(text)
    with pytest.raises(SpecError):
        BUTTER.parse_command(text)
