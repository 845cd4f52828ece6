"""Hyperparameters of trials: published keys and ranges, drawn for good, coded and read back."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.engines import GATES
from butter_etl.errors import SpecError
from butter_etl.studies.capacity.experiments import ARCHITECTURES, TASK_TYPES, SearchCell
from butter_etl.studies.capacity.hyperparameters import (
    RANGES,
    check_hparams,
    decode,
    dimensions,
    draw,
    encode,
    free,
    hparams_text,
    parse_hparams,
)
from butter_etl.studies.capacity.networks import descent_of, network_of, start_of, trial_network

SEEDS = st.integers(0, 2**63 - 1)
CELLS = st.builds(
    lambda task_type, architecture, depth: SearchCell(
        task_type=task_type, architecture=architecture, n_layers=depth, max_params=40_000
    ),
    st.sampled_from(TASK_TYPES),
    st.sampled_from(ARCHITECTURES),
    st.integers(2, 4),
)
#: The keys of the published example, an LSTM on text8.
PUBLISHED = {
    *(f"{key}_{gate}" for key in ("recurrent_matrix_scale", "input_scale", "recurrent_bias_scale") for gate in "cgio"),
    *("recurrent_matrix_init_type", "recurrent_bias_init_type", "forget_gate_bias_hack", "train_steps", "optimizer"),
    *("lr_init", "lr_decay_rate", "optimizer_logit_momentum", "gradient_clip_val", "l2_decay"),
}


def cell(architecture="lstm", task_type="text8", **more):
    return SearchCell(**{"n_layers": 2, "max_params": 40_000, **more}, task_type=task_type, architecture=architecture)


def drawn(one, seed):
    return draw(one, network_of(one).parameters, seed)


def test_the_keys_are_those_of_the_published_example():
    assert len(PUBLISHED) == 22
    found = {one.key for one in dimensions(cell(), 1000)}
    assert found == PUBLISHED | {"nonlinearity"}


def test_a_number_has_one_set_for_good():
    found = drawn(cell("gru"), 12345)
    assert hparams_text(found) == GOLDEN
    assert parse_hparams(GOLDEN) == found


GOLDEN = (
    '{"forget_gate_bias_hack":2.21730023506,"gradient_clip_val":40.7414003125,"input_scale_c":1.7559563395,'
    '"input_scale_r":0.0880056022358,"input_scale_u":0.0872945394592,"l2_decay":0.0000769754826465,'
    '"lr_decay_rate":0.00845599486772,"lr_init":0.000193888962822,"nonlinearity":"tanh","optimizer":"ADAM",'
    '"optimizer_logit_momentum":6.44779789518,"recurrent_bias_init_type":"delta",'
    '"recurrent_bias_scale_c":1.63850111002,"recurrent_bias_scale_r":-1.16650109412,'
    '"recurrent_bias_scale_u":0.203638428356,"recurrent_matrix_init_type":"normal",'
    '"recurrent_matrix_scale_c":0.0181139912241,"recurrent_matrix_scale_r":0.0397348663609,'
    '"recurrent_matrix_scale_u":0.0124251845528,"train_steps":13632758}'
)


@given(CELLS, SEEDS)
def test_what_is_drawn_is_in_the_published_ranges(one, seed):
    found = drawn(one, seed)
    gates = GATES[one.architecture]
    for gate in gates:
        assert 0.001 <= found[f"input_scale_{gate}"] <= 2.0
        assert -2.0 <= found[f"recurrent_bias_scale_{gate}"] <= 2.0
        if found["recurrent_matrix_init_type"] == "identity":
            assert f"recurrent_matrix_scale_{gate}" not in found
        else:
            assert 0.01 <= found[f"recurrent_matrix_scale_{gate}"] <= 2.0
    assert 50_000 <= found["train_steps"] <= 20_000_000
    assert isinstance(found["train_steps"], int)
    assert found["optimizer"] in ("SGD", "Momentum", "RMSProp", "ADAM")
    for key, low, high in (
        ("lr_init", 1e-4, 1e-1),
        ("lr_decay_rate", 1e-3, 1.0),
        ("optimizer_logit_momentum", 1.0, 7.0),
        ("gradient_clip_val", 1.0, 100.0),
        ("l2_decay", 1e-8, 1e-3),
    ):
        assert low <= found[key] <= high
    momentum = descent_of(found).momentum
    assert 0.7310 < momentum < 0.9991
    if one.architecture == "irnn":
        assert (found["nonlinearity"], found["recurrent_matrix_init_type"]) == ("relu", "identity")
        assert start_of(one, found).bias_scale == (0.0,)
    if one.architecture == "rnn":
        assert found["recurrent_matrix_init_type"] in ("orthogonal", "normal")
    if one.task_type == "per_cap":
        size = network_of(one).parameters
        assert 0.1 * size <= found["dataset_size"] <= 10 * size
        assert found["input_every_step"] in (0, 1)
    if one.task_type == "arithmetic":
        assert 1 <= found["compute_steps"] <= 6
    assert ("nonlinearity" in found) == (one.architecture != "+rnn")
    network = trial_network(one, found)
    assert network.parameters == network_of(one).parameters
    assert all(0.0 <= bias <= 6.0 for bias in network.forget_bias)
    assert check_hparams(one, network.parameters, found) is None


def test_forget_biases_of_an_intersection_network_are_its_gates():
    one = cell("+rnn")
    found = drawn(one, 3)
    biases = found["forget_gate_bias_hack_y"], found["forget_gate_bias_hack_h"]
    assert trial_network(one, found).forget_bias == biases  # gy, gh


@given(CELLS, SEEDS)
def test_places_give_values_back(one, seed):
    size = network_of(one).parameters
    found = draw(one, size, seed)
    places = encode(one, size, found)
    assert all(0.0 <= place <= 1.0 for place in places.values())
    again = decode(one, size, places)
    assert again.keys() == found.keys()
    for key, value in found.items():
        if isinstance(value, float):
            assert again[key] == pytest.approx(value, rel=1e-6, abs=1e-9)
        elif isinstance(value, int):
            assert abs(again[key] - value) <= max(1, 1e-9 * value)
        else:
            assert again[key] == value


def test_each_has_a_word_of_its_own():
    one, other = cell("gru", "arithmetic"), cell("gru", "arithmetic", min_train_steps=100, max_train_steps=200)
    words = [dimension.word for dimension in free(one, 1000)]
    assert len(set(words)) == len(words)
    found, changed = drawn(one, 7), drawn(other, 7)
    assert {key for key in found if found[key] != changed[key]} == {"train_steps"}
    # What another task has besides changes nothing either.
    assert {key: value for key, value in found.items() if key != "compute_steps"} == drawn(cell("gru", "rcf"), 7)


def test_draws_are_uniform_where_they_should_be():
    one = cell("gru", "arithmetic")
    found = [drawn(one, seed) for seed in range(2000)]
    for key in ("optimizer", "nonlinearity", "recurrent_matrix_init_type", "recurrent_bias_init_type", "compute_steps"):
        counts = Counter(hparams[key] for hparams in found)
        expected = 2000 / len(counts)
        assert len(counts) == len(RANGES[key].choices or range(6))
        assert sum((count - expected) ** 2 / expected for count in counts.values()) < 25
    for key in ("lr_init", "input_scale_u", "l2_decay", "train_steps"):
        logs = sorted(math.log(hparams[key]) for hparams in found)
        low, high = (50_000, 20_000_000) if key == "train_steps" else (RANGES[key.removesuffix("_u")].low,) * 2
        high = high if key == "train_steps" else RANGES[key.removesuffix("_u")].high
        middle = (math.log(low) + math.log(high)) / 2
        assert logs[1000] == pytest.approx(middle, abs=0.06 * (math.log(high) - math.log(low)))


def test_texts_of_hyperparameters_are_canonical():
    text = '{"a":1,"b":0.1,"c":"RMSProp","d":1e-7}'
    assert hparams_text(parse_hparams(text)) == '{"a":1,"b":0.1,"c":"RMSProp","d":0.0000001}'
    assert hparams_text({"b": 1.5, "a": 2}) == '{"a":2,"b":1.5}'
    assert json.loads(hparams_text(drawn(cell(), 5))) == drawn(cell(), 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr_inti": 0.1}, r"unknown hyperparameter 'lr_inti' \(did you mean 'lr_init'\?\); known: .*lr_init"),
        ({"lr_init": None}, r"the hyperparameter 'lr_init' is missing; all are to be given: "),
        ({"optimizer": "Adam"}, r"optimizer: unknown 'Adam'.*; known: ADAM, Momentum, RMSProp, SGD"),
        ({"lr_init": "fast"}, r"lr_init: 'fast' is no number"),
        ({"lr_init": -0.1}, r"lr_init: -0.1 is not above 0"),
        ({"l2_decay": -0.1}, r"l2_decay: -0.1 is below 0"),
        ({"train_steps": 10.5}, r"train_steps: 10.5 is no whole number"),
        ({"train_steps": 0}, r"train_steps: 0 is not above 0"),
        ({"compute_steps": 7}, r"compute_steps: 7 is too many"),
        ({"recurrent_matrix_init_type": "identity"}, r"recurrent_matrix_scale_c: .*identity"),
    ],
)
def test_wrong_hyperparameters_are_named_in_one_line(change, message):
    one = cell("gru", "arithmetic")
    size, found = network_of(one).parameters, drawn(one, 3)
    assert found["recurrent_matrix_init_type"] != "identity"
    wrong = {**found, **change}
    wrong = {key: value for key, value in wrong.items() if value is not None}
    with pytest.raises(SpecError, match=message) as caught:
        check_hparams(one, size, wrong)
    assert "\n" not in str(caught.value)


def test_what_is_fixed_cannot_be_otherwise():
    one = cell("irnn", "rcf")
    with pytest.raises(SpecError, match=r"^nonlinearity: it is 'relu' in this architecture, not 'tanh'$"):
        check_hparams(one, network_of(one).parameters, {**drawn(one, 1), "nonlinearity": "tanh"})


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": [1]}', '{"a": true}'])
def test_other_texts_are_refused(text):
    with pytest.raises(SpecError, match=r"^(hyperparameters are a JSON object, not|a: .* is neither a text nor)"):
        parse_hparams(text)
