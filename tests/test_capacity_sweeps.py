"""Cells of rnn_capacity: sizes by budget, sweep files, published sweeps, and bad input in one line."""

from __future__ import annotations

import json

import pytest

from butter_etl.errors import InfeasibleError, SpecError
from butter_etl.studies.capacity.experiments import ARCHITECTURES, TASK_TYPES, SearchCell
from butter_etl.studies.capacity.hyperparameters import draw, hparams_text
from butter_etl.studies.capacity.networks import network_of
from butter_etl.studies.capacity.study import RNN_CAPACITY
from butter_etl.studies.capacity.sweeps import PUBLISHED, READER
from butter_etl.studies.capacity.training import CapacityTrainer
from butter_etl.studies.known import find_study
from butter_etl.studies.sweep_files import text_of_one

SWEEP = """
name: small
repetitions: 3
cubes:
  - task_type: [per_cap, rcf]
    architecture: [gru, lstm]
    n_layers: [1, 2]
    max_params: 1000
"""


def cell(**more):
    usual = {"task_type": "text8", "architecture": "lstm", "n_layers": 1, "max_params": 10_000}
    return SearchCell(**{**usual, **more})


def test_the_study_is_known_by_its_name():
    assert find_study("rnn_capacity", "here") is RNN_CAPACITY


# --- sizes ---------------------------------------------------------------------------------------------------------


def counted_by_hand(architecture, layers, n, inputs, outputs):
    """The sheet's formula."""
    gates = {"rnn": 1, "irnn": 1, "ugrnn": 2, "gru": 3, "lstm": 4, "+rnn": 4}[architecture]
    states = 2 if architecture == "lstm" else 1
    total = n * outputs + outputs
    for layer in range(layers):
        width = inputs if layer == 0 and architecture != "+rnn" else n
        total += gates * (n * width + n * n + n) + states * n
    return total + (inputs * n + n if architecture == "+rnn" else 0)


def test_the_published_example_has_its_number_of_parameters():
    network = network_of(cell(n_layers=4, max_params=1_280_000))
    assert (network.units, network.parameters) == (210, 1_268_217)
    assert counted_by_hand("lstm", 4, 210, 27, 27) == 1_268_217
    assert counted_by_hand("lstm", 4, 211, 27, 27) == 1_280_164


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_sizes_are_the_largest_within_the_budget(architecture, task_type):
    sizes = {"per_cap": (32, 1), "mem_thru": (64, 64), "rcf": (50, 1), "text8": (27, 27)}
    inputs, outputs = {**sizes, "parens_counting": (300, 100), "arithmetic": (14, 14)}[task_type]
    for layers, budget in ((2, 20_000), (4, 200_000), (1, 10_000)):
        if architecture == "+rnn" and layers == 1:
            continue
        one = cell(task_type=task_type, architecture=architecture, n_layers=layers, max_params=budget)
        n = network_of(one).units
        assert CapacityTrainer().derive(one) == {
            "num_params": counted_by_hand(architecture, layers, n, inputs, outputs),
            "n_units": n,
        }
        assert counted_by_hand(architecture, layers, n, inputs, outputs) <= budget
        assert counted_by_hand(architecture, layers, n + 1, inputs, outputs) > budget


def test_what_cannot_be_built_is_said_in_one_line():
    trainer = CapacityTrainer()
    for one, message in (
        (
            cell(max_params=100),
            "max_params 100 is too small: text8 takes 172 parameters with one unit in each of 1 layers of lstm",
        ),
        (cell(architecture="+rnn"), r"\+rnn takes at least 2 layers, not 1"),
    ):
        assert not trainer.can_build(one)
        with pytest.raises(InfeasibleError, match=f"^{message}$"):
            trainer.derive(one)
    assert trainer.can_build(cell(max_params=172))


# --- cells ---------------------------------------------------------------------------------------------------------


def test_cells_have_what_their_task_has():
    assert cell(task_type="per_cap").unroll_steps == 5
    assert cell(task_type="per_cap").input_size == 32
    assert cell(task_type="per_cap", text_sha256="0" * 16).text_sha256 is None
    assert cell(input_size=7).input_size is None
    assert cell(task_type="rcf", input_size=7, unroll_steps=9) != cell(task_type="rcf")
    assert cell(task_type="rcf", input_size=50, unroll_steps=50) == cell(task_type="rcf")
    again = RNN_CAPACITY.parse_own(cell(task_type="rcf").canonical_json())
    assert again == cell(task_type="rcf")


def test_sweep_files_are_cubes_of_cells():
    sweep = READER.parse(SWEEP, "small.yaml")
    found = list(sweep.experiments())
    assert len(found) == len(sweep) == 8
    assert found[0] == cell(task_type="per_cap", architecture="gru", max_params=1000)
    assert all(one in sweep for one in found)
    assert cell(task_type="per_cap", architecture="gru", max_params=1000, unroll_steps=6) not in sweep
    assert cell(task_type="per_cap", architecture="gru", max_params=2000) not in sweep


def rerun_text(**more):
    one = cell(task_type="per_cap", architecture="gru", max_params=1000)
    return {**draw(one, network_of(one).parameters, 1), **more}


def test_a_rerun_names_its_hyperparameters_as_a_mapping_or_as_text():
    hparams = rerun_text(train_steps=500)
    for said in (hparams, [hparams], hparams_text(hparams)):
        cube = {"task_type": "per_cap", "architecture": "gru", "n_layers": 1, "max_params": 1000}
        cube |= {"search": "rerun", "fixed_hparams": said}
        sweep = READER.parse(json.dumps({"name": "again", "repetitions": 20, "cubes": [cube]}), "again.yaml")
        (one,) = sweep.experiments()
        assert one.fixed_hparams == hparams_text(hparams)
    text = text_of_one(READER, "like", one.parameters(), 5)
    assert next(READER.parse(text, "like.yaml").experiments()) == one


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[gru, lstm]",
            "[gru, lstn]",
            r"cubes\[0\]\.architecture: unknown 'lstn' \(did you mean 'lstm'\?\); known: rnn, ",
        ),
        (
            "[per_cap, rcf]",
            "[percap]",
            r"cubes\[0\]\.task_type: unknown 'percap' \(did you mean 'per_cap'\?\); known: ",
        ),
        ("max_params: 1000", "max_params: 0", r"cubes\[0\]\.max_params: 0 is not between 1 and "),
        ("n_layers: [1, 2]", "n_layers: [0]", r"cubes\[0\]\.n_layers: 0 is not between 1 and 64"),
        ("n_layers: [1, 2]", "layers: [1]", r"cubes\[0\]: .*`?n_layers`?|cubes\[0\]: unknown key 'layers'"),
        (
            "max_params: 1000",
            "max_params: 1000\n    min_train_steps: 9\n    max_train_steps: 8",
            r"cubes\[0\]: min_train_steps: 9 is above max_train_steps, 8",
        ),
        (
            "max_params: 1000",
            "max_params: 1000\n    min_train_steps: 9\n    max_train_steps: 80",
            r"cubes\[0\]: n_points: 20 measuring points are more than the 9 steps of a training",
        ),
        (
            "max_params: 1000",
            "max_params: 1000\n    search: rerun",
            r"cubes\[0\]: fixed_hparams: a cell with search 'rerun' must name the hyperparameters of all trials",
        ),
        (
            "max_params: 1000",
            "max_params: 1000\n    fixed_hparams: {lr_init: 0.1}",
            r"cubes\[0\]: fixed_hparams: a cell with search 'random' cannot name the hyperparameters of all trials",
        ),
        (
            "max_params: 1000",
            "max_params: 1000\n    search: rerun\n    fixed_hparams: {lr_inti: 0.1}",
            r"cubes\[0\]: fixed_hparams: unknown hyperparameter 'lr_inti' \(did you mean 'lr_init'\?\); known: ",
        ),
        (
            "max_params: 1000",
            "max_params: 1000\n    search: rerun\n    fixed_hparams: '[1]'",
            r"cubes\[0\]\.fixed_hparams: hyperparameters are a JSON object, not '\[1\]'",
        ),
        (
            "max_params: 1000",
            "max_params: 1000\n    search: rerun\n    fixed_hparams: {lr_init: [0.1]}",
            r"cubes\[0\]\.fixed_hparams: lr_init: \[0.1\] is neither a text nor a number",
        ),
        (
            "[per_cap, rcf]",
            "text8\n    text_sha256: kjv.txt",
            r"cubes\[0\]\.text_sha256: 'kjv.txt' is no text; give the first 16 hexadecimal digits",
        ),
        (
            "[per_cap, rcf]",
            "arithmetic\n    unroll_steps: 30",
            r"cubes\[0\]: unroll_steps: arithmetic takes at least 36 steps, not 30",
        ),
    ],
)
def test_bad_sweep_files_are_refused_in_one_line(old, new, message):
    with pytest.raises(SpecError, match=message) as caught:
        READER.parse(SWEEP.replace(old, new), "small.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("small.yaml: ")


# --- published -----------------------------------------------------------------------------------------------------


def test_the_published_sweeps_are_what_the_figures_show():
    depths = {
        "rnn_capacity_fig1_per_cap": (1, 2, 4),
        "rnn_capacity_fig2_mem_thru": (1, 2, 4, 8),
        "rnn_capacity_fig2_unrolled": (1,),
        "rnn_capacity_fig3_text8": (1, 2, 4),
        "rnn_capacity_fig3_rcf": (1, 2, 4),
        "rnn_capacity_fig4_parens": (1, 2, 4, 8),
        "rnn_capacity_fig4_arithmetic": (1, 2, 4, 8),
        "rnn_capacity_fig5_random": (1, 8),
    }
    assert list(PUBLISHED) == list(depths)
    for name, wanted in depths.items():
        (cube,) = PUBLISHED[name].cubes
        assert cube["n_layers"] == wanted
        assert cube["architecture"] == ARCHITECTURES
    (random,) = PUBLISHED["rnn_capacity_fig5_random"].cubes
    assert (random["max_params"], random["search"], PUBLISHED["rnn_capacity_fig5_random"].repetitions) == (
        (200_000,),
        ("random",),
        1000,
    )
    trainer = CapacityTrainer()
    cells = [one for sweep in PUBLISHED.values() for one in sweep.experiments()]
    assert {one.architecture for one in cells if not trainer.can_build(one)} == {"+rnn"}


def test_layers_of_memory_have_about_64_units():
    cells = PUBLISHED["rnn_capacity_fig2_mem_thru"].experiments()
    units = [network_of(one).units for one in cells if one.n_layers == 1 and one.architecture != "+rnn"]
    assert min(units) < 64 < max(units)
