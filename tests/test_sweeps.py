"""The published sweeps, their ids, and custom sweeps from YAML."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import SelectError, SpecError
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweep_files import load_sweep, parse_sweep
from butter_etl.studies.butter.sweeps import PUBLISHED, make_experiment
from butter_etl.views.facts import cube_table, distinct_row, sweep_table

#: name: product of the cubes, of them feasible (one-response regressions), repetitions
PRODUCTS = {
    "primary": (30576, 27337, 30),
    "300_epoch": (1176, 1176, 10),
    "30k_epoch": (5488, 4486, 10),
    "learning_rate": (37440, 32672, 30),
    "label_noise": (50960, 44380, 30),
    "batch_size": (8640, 7668, 30),
    "regularization": (40824, 36450, 30),
    "optimizer": (104000, None, 20),
}


def test_products_and_feasible_counts():
    rows = {
        name: (cells, feasible, repetitions)
        for name, _, cells, feasible, repetitions in [
            *sweep_table(BUTTER, PUBLISHED.values()),
            distinct_row(BUTTER),
        ]
    }
    assert rows.pop("distinct") == (148232, 130693, None)
    for name, (cells, feasible, repetitions) in PRODUCTS.items():
        assert rows[name][0] == cells == len(PUBLISHED[name])
        assert rows[name][2] == repetitions
        if feasible is not None:
            assert rows[name][1] == feasible


def test_golden_ids():
    pollen = {"dataset": "529_pollen", "size": 32}
    golden = {
        0: make_experiment(**pollen, depth=2),
        1: make_experiment(**pollen, depth=3),
        14: make_experiment(dataset="529_pollen", size=64, depth=2),
        14 * 21: make_experiment(**pollen, depth=2, shape="trapezoid"),
        14 * 21 * 8: make_experiment(dataset="connect_4", size=32, depth=2),
        30575: make_experiment(dataset="banana", shape="rectangle_residual", size=2**25, depth=20),
        30576: make_experiment(dataset="529_pollen", size=2**25, depth=2, epochs=300),
        30576 + 1176: make_experiment(dataset="529_pollen", size=32, depth=2, epochs=30000),
        30576 + 1176 + 5488: make_experiment(**pollen, depth=2, learning_rate=0.01),
        148231: make_experiment(dataset="adult", size=2**25, depth=10, kernel_regularizer=Regularizer("l2", 7.8125e-5)),
    }
    for experiment_id, spec in golden.items():
        assert BUTTER.fixed_ids.id_of(spec) == experiment_id
        assert BUTTER.fixed_ids.experiment(experiment_id) == spec


def test_ids_are_first_occurrences_in_the_documents_order():
    expected: dict = {}
    for sweep in PUBLISHED.values():
        for spec in sweep.experiments():
            expected.setdefault(spec, len(expected))
        if sweep.name == "regularization":
            assert len(expected) == 148232
    assert len(BUTTER.fixed_ids) == len(expected)
    for spec, experiment_id in islice(expected.items(), 0, None, 97):
        assert BUTTER.fixed_ids.id_of(spec) == experiment_id
        assert BUTTER.fixed_ids.experiment(experiment_id) == spec


def test_unpublished_experiments_have_no_fixed_id():
    assert BUTTER.fixed_ids.id_of(make_experiment(dataset="digits", size=32, depth=2)) is None
    assert BUTTER.fixed_ids.id_of(make_experiment(dataset="529_pollen", size=33, depth=2)) is None
    # every value is published, but not together
    odd = make_experiment(dataset="banana", size=32, depth=2, label_noise=0.2, batch_size=32)
    assert BUTTER.fixed_ids.id_of(odd) is None
    assert not any(BUTTER.flags_of(odd).values())
    with pytest.raises(KeyError):
        BUTTER.fixed_ids.experiment(len(BUTTER.fixed_ids))
    with pytest.raises(KeyError):
        BUTTER.fixed_ids.experiment(-1)


def test_flags_follow_from_parameters():
    base = BUTTER.flags_of(make_experiment(dataset="mnist", size=1024, depth=4))
    assert [name for name, flag in base.items() if flag] == [
        "primary_sweep",
        "learning_rate_sweep",
        "label_noise_sweep",
        "batch_size_sweep",
        "regularization_sweep",
        "optimizer_sweep",
    ]
    depth_6 = BUTTER.flags_of(make_experiment(dataset="mnist", size=1024, depth=6))
    assert [name for name, flag in depth_6.items() if flag] == ["primary_sweep", "optimizer_sweep"]


@given(st.integers(0, len(BUTTER.fixed_ids) - 1))
def test_flags_are_membership(experiment_id):
    spec = BUTTER.fixed_ids.experiment(experiment_id)
    flags = BUTTER.flags_of(spec)
    assert any(flags.values())
    for name, sweep in PUBLISHED.items():
        assert flags[f"{name}_sweep"] == (spec in sweep)


QUICK = """
name: quick
repetitions: 5
cubes:
  - dataset: [wine_quality_white, nursery]
    shape: [rectangle, trapezoid]
    size: [32, 256, 2048]
    depth: [2, 4]
    learning_rate: [0.001]
    epochs: [100]
  - dataset: [nursery]
    size: [512]
    depth: [3]
    kernel_regularizer: [null, {l2: 0.01}, {l1: 0.005}]
"""


def test_custom_sweep(tmp_path):
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK)
    sweep = load_sweep(path)
    assert (sweep.name, sweep.repetitions, len(sweep)) == ("quick", 5, 27)
    experiments = list(sweep.experiments())
    assert experiments[0] == make_experiment(
        dataset="wine_quality_white", size=32, depth=2, learning_rate=0.001, epochs=100
    )
    assert experiments[-1] == make_experiment(
        dataset="nursery", size=512, depth=3, kernel_regularizer=Regularizer("l1", 0.005)
    )
    assert experiments[-3].epochs == 3000
    assert ("size", "32, 256, 2048") in [(key, values) for _, key, values in cube_table(sweep)]
    assert ("kernel_regularizer", "null, l2 0.01, l1 0.005") in [(key, values) for _, key, values in cube_table(sweep)]


def test_custom_optimizers():
    text = "name: o\nrepetitions: 1\ncubes:\n- {dataset: [banana], size: [32], depth: [2], optimizer: [SGD, RMSprop]"
    plain = parse_sweep(text + "}", "o.yaml")
    assert [(spec.optimizer, spec.momentum) for spec in plain.experiments()] == [("SGD", 0.0), ("RMSprop", 0.0)]
    swept = parse_sweep(text + ", momentum: [0, 0.9]}", "o.yaml")
    assert [(s.optimizer, s.momentum) for s in swept.experiments()] == [
        ("SGD", 0.0), ("SGD", 0.9), ("RMSprop", 0.0), ("RMSprop", 0.9),
    ]  # fmt: skip


def test_one_value_is_a_list_of_one_and_numbers_are_what_people_write():
    text = """
    name: one
    repetitions: 2
    cubes:
      dataset: digits
      size: 1e3
      depth: 3
      learning_rate: [1e-3, 1e-4]
      kernel_regularizer: {l2: 1e-4}
      optimizer: SGD
      momentum: 9e-1
    """
    lists = """
    name: one
    repetitions: 2
    cubes:
      - dataset: [digits]
        size: [1000]
        depth: [3]
        learning_rate: [0.001, 0.0001]
        kernel_regularizer: [{l2: 0.0001}]
        optimizer: [SGD]
        momentum: [0.9]
    """
    assert parse_sweep(text, "one.yaml") == parse_sweep(lists, "one.yaml")
    none = text.replace("{l2: 1e-4}", "null").replace("momentum: 9e-1", "momentum:")
    assert {(spec.kernel_regularizer, spec.momentum) for spec in parse_sweep(none, "one.yaml").experiments()} == {
        (None, 0.0)
    }


CUBE = "dataset: [banana], size: [32], depth: [2]"


@pytest.mark.parametrize(
    ("cube", "message"),
    [
        (
            "datasets: [banana], size: [32], depth: [2]",
            r"bad.yaml: cubes\[0\]: unknown key 'datasets' \(did you mean 'dataset'\?\)",
        ),
        ("dataset: [bananna], size: [32], depth: [2]", r"cubes\[0\].*'bananna'.*banana"),
        ("dataset: [], size: [32], depth: [2]", r"cubes\[0\].dataset: an empty list"),
        ("size: [32], depth: [2]", r"missing required field `dataset`.*cubes\[0\]"),
        ("dataset: [banana], size: [32], depth: ", r"Expected `array`, got `null`.*cubes\[0\].depth"),
        ("dataset: [banana], size: [32], learning-rate: [1]", r"cubes\[0\]: unknown key .* mean 'learning_rate'"),
        ("dataset: [banana], size: [32], dropout: [1]", r"unknown key 'dropout'; known are batch_size, dataset, depth"),
        (
            "dataset: [yes], size: [32], depth: [2]",
            r"dataset\[0\]`; there is True; a text that looks like .* in quotes",
        ),
        (CUBE + ", kernel_regularizer: [l2]", r"kernel_regularizer\[0\]`; there is 'l2'$"),
        ("dataset: [banana], size: [3.5], depth: [2]", r"Expected `int`, got `float`.*size"),
        (
            "dataset: [banana], size: ['32'], depth: [2]",
            r"Expected `int`, got `str`.*size\[0\]`; there is '32'; a number is written like 1000, 0.001 or 1e-3",
        ),
        (
            "dataset: [banana], size: 010, depth: [2]",
            r"size\[0\]`; there is '010'; a number .* without zeros before it",
        ),
        ("dataset: [banana], size: [0], depth: [2]", r"cubes\[0\].size: 0 is not between"),
        ("dataset: [banana], size: [32], depth: [1]", r"cubes\[0\].depth: 1 is not between 2"),
        ("dataset: [banana], size: [32], depth: [2, 2]", r"cubes\[0\].depth: a value stands there twice"),
        (CUBE + ", shape: [rectangel]", r"cubes\[0\].shape: unknown 'rectangel' \(did you mean 'rectangle'"),
        (CUBE + ", learning_rate: [0]", r"cubes\[0\].learning_rate: 0.0 is not above 0"),
        (CUBE + ", learning_rate: [.inf]", r"cubes\[0\].learning_rate: inf is not a finite number"),
        (CUBE + ", label_noise: [1.5]", r"cubes\[0\].label_noise: 1.5 is not between 0 and 1"),
        (CUBE + ", epochs: [0]", r"cubes\[0\].epochs: 0 is not between 1"),
        (CUBE + ", batch_size: [-1]", r"cubes\[0\].batch_size: -1 is not between 1"),
        (CUBE + ", kernel_regularizer: [{l3: 0.1}]", r"cubes\[0\].kernel_regularizer: .*must be null"),
        (CUBE + ", kernel_regularizer: [{l1: 0}]", r"cubes\[0\].kernel_regularizer: .*write null for none"),
        (CUBE + ", optimizer: [Adam]", r"cubes\[0\].optimizer: unknown 'Adam' \(did you mean 'adam'"),
        (CUBE + ", momentum: [0.9]", r"cubes\[0\].momentum: adam has none"),
    ],
)
def test_bad_cubes_name_the_place(cube, message):
    with pytest.raises((SpecError, SelectError), match=message) as caught:
        parse_sweep(f"name: bad\nrepetitions: 3\ncubes:\n- {{{cube}}}\n", "bad.yaml")
    assert str(caught.value).startswith("bad.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not YAML"),
        ("just text", "Expected `object`"),
        ("name: Bad Name\nrepetitions: 3\ncubes: []", "name: 'Bad Name' must consist"),
        (f"name: {'x' * 201}\nrepetitions: 3\ncubes: []", "must consist of a-z, 0-9 and _, up to 200 of them"),
        ("name: primary\nrepetitions: 3\ncubes: []", "name: 'primary' is a published sweep's"),
        ("name: x\nrepetitions: 300\ncubes: []", "repetitions: 300 is not between 1 and 255"),
        ("name: x\nrepetitions: -2\ncubes: []", "repetitions: -2 is not between 1 and 255"),
        ("name: x\nrepetitions: 3\ncubes: []", "cubes: there must be at least one"),
        ("name: x\nrepetition: 3\ncubes: []", r"^bad.yaml: unknown key 'repetition' \(did you mean 'repetitions'\?\)"),
        ("name: x\nrepetitions: 3\ncubes: 7", r"Expected `object`, got `int` - at `\$.cubes\[0\]`; there is 7"),
        ("name: 1e3\nrepetitions: 3\ncubes: []", "there is 1000; a text that looks like something else is written in"),
        (
            "name: x\nrepetitions: 3\ncubes: []\ndatasets: {a: {tsk: regression}}",
            r"datasets\[...\]: unknown key 'tsk' \(did you mean 'task'",
        ),
        (
            "name: x\nrepetitions: 3\ncubes: []\ndatasets: {a: {task: clasification}}",
            r"datasets\[...\].task: unknown 'clasification' \(did you mean 'classification'\?\); known: class",
        ),
        (
            "name: x\nrepetitions: 3\ncubes: []\ndatasets: {a: {task: regression, columns: {b: onehot}}}",
            r"columns\[...\]: unknown 'onehot' \(did you mean 'one-hot'\?\); known: auto, numeric, one-hot, drop",
        ),
    ],
)
def test_bad_sweep_files(text, message):
    with pytest.raises((SpecError, SelectError), match=message) as caught:
        parse_sweep(text, "bad.yaml")
    assert str(caught.value).startswith("bad.yaml")
    assert "\n" not in str(caught.value)


def test_unreadable_sweep_file(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        load_sweep(tmp_path / "none.yaml")
