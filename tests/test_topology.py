"""Topologies against the published examples, and the structure JSON against the published form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import InfeasibleError
from butter_etl.studies.butter.experiments import SHAPES, Regularizer
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.butter.topology import (
    closest_topology,
    count_parameters,
    find_topology,
    is_feasible,
    network_structure,
)

EXAMPLES = [
    # inputs, outputs, shape, depth, size, widths, parameters
    (784, 10, "rectangle", 4, 2**14, (20, 20, 20, 10), 16750),
    (784, 10, "rectangle_residual", 4, 2**14, (20, 20, 20, 10), 16750),
    (784, 10, "trapezoid", 5, 2**16, (73, 57, 42, 26, 10), 65347),
    (784, 10, "exponential", 5, 2**16, (76, 46, 28, 17, 10), 65191),
    (784, 10, "wide_first_2x", 4, 2**14, (20, 10, 10, 10), 16130),
    (784, 10, "wide_first_16x", 4, 2**18, (325, 20, 20, 10), 262275),
    (4, 1, "wide_first_2x", 3, 2**12, (85, 42, 1), 4080),
    (4, 1, "rectangle", 3, 2**5, (3, 3, 1), 31),
    (4, 1, "wide_first_4x", 7, 2**5, (4, 1, 1, 1, 1, 1, 1), 35),
    (8, 1, "exponential", 8, 2**12, (66, 36, 20, 11, 6, 3, 2, 1), 4081),
    (26, 11, "rectangle", 5, 2**16, (141, 141, 141, 141, 11), 65435),
    (26, 11, "exponential", 3, 2**9, (11, 11, 11), 561),
    (126, 3, "wide_first_4x", 10, 2**20, (1145, *[286] * 8, 3), 1048606),
    (11, 7, "rectangle", 4, 2**10, (18, 18, 18, 7), 1033),
]
MNIST_RECTANGLE_3 = [
    *[807] * 6, 2407, 4015, 8070, 16330, 32575, 65335, 131050, 261510, 523882,
    1049407, 2097610, 4193002, 8391382, 16774831,
]  # fmt: skip
POL_RECTANGLE_5 = {16: 65435, 21: 2095723, 22: 4197155, 23: 8384951, 24: 16777181}


@pytest.mark.parametrize(("inputs", "outputs", "shape", "depth", "size", "widths", "parameters"), EXAMPLES)
def test_worked_examples(inputs, outputs, shape, depth, size, widths, parameters):
    assert find_topology(shape, size, depth, inputs, outputs) == (widths, parameters)


def test_published_parameter_counts():
    found = [closest_topology("rectangle", 2**k, 3, 784, 10).num_free_parameters for k in range(5, 25)]
    assert found == MNIST_RECTANGLE_3
    for power, parameters in POL_RECTANGLE_5.items():
        assert find_topology("rectangle", 2**power, 5, 26, 11).num_free_parameters == parameters


def test_refuses_beyond_the_tolerance():
    topology = closest_topology("rectangle", 32, 20, 4, 1)
    assert topology == ((1,) * 20, 43)
    with pytest.raises(InfeasibleError, match=r"depth 20 .* within 20% of 32: the closest has 43"):
        find_topology("rectangle", 32, 20, 4, 1)


def test_exactly_twenty_percent_passes():
    assert is_feasible(closest_topology("rectangle", 40, 2, 6, 1)._replace(num_free_parameters=48), 40)
    assert not is_feasible(closest_topology("rectangle", 40, 2, 6, 1)._replace(num_free_parameters=49), 40)


@given(
    shape=st.sampled_from(SHAPES),
    size=st.integers(5, 20).map(lambda k: 2**k),
    depth=st.integers(2, 20),
    inputs=st.integers(1, 800),
    outputs=st.integers(1, 12),
)
def test_every_topology_is_a_network_of_its_shape(shape, size, depth, inputs, outputs):
    widths, parameters = closest_topology(shape, size, depth, inputs, outputs)
    assert len(widths) == depth
    assert widths[-1] == outputs
    assert min(widths) >= 1
    assert parameters == count_parameters(inputs, widths)


@given(size=st.integers(5, 24).map(lambda k: 2**k), inputs=st.integers(1, 800), outputs=st.integers(1, 12))
def test_all_shapes_agree_at_depth_two(size, inputs, outputs):
    shapes = [shape for shape in SHAPES if shape != "exponential"]
    assert len({closest_topology(shape, size, 2, inputs, outputs) for shape in shapes}) == 1


def parse_structure(text):
    """Read the JSON back, following labels; returns the list of (type, width) from output to input and all labels."""
    labels = {}

    def resolve(node):
        if isinstance(node, str):
            return labels[node.removeprefix("*")]
        # children are spelled before the node's own label
        node["inputs"] = [resolve(child) for child in node["inputs"]]
        if "&" in node:
            labels[node["&"]] = node
        return node

    return resolve(json.loads(text)), labels


def test_structure_of_a_plain_network():
    spec = make_experiment(dataset="529_pollen", size=64, depth=3)
    assert network_structure(spec, 4, (6, 6, 1)) == (
        '{"activation":"sigmoid","activity_regularizer":null,"bias_regularizer":null,"inputs":['
        '{"activation":"relu","activity_regularizer":null,"bias_regularizer":null,"inputs":['
        '{"activation":"relu","activity_regularizer":null,"bias_regularizer":null,"inputs":['
        '{"inputs":[],"label":0,"shape":[4],"":"NInput"}],'
        '"kernel_regularizer":null,"label":0,"shape":[6],"":"NDense"}],'
        '"kernel_regularizer":null,"label":0,"shape":[6],"":"NDense"}],'
        '"kernel_regularizer":null,"label":0,"shape":[1],"":"NDense"}'
    )


def test_structure_of_a_residual_network_shares_nodes():
    spec = make_experiment(dataset="529_pollen", size=64, depth=4, shape="rectangle_residual")
    root, labels = parse_structure(network_structure(spec, 4, (6, 6, 6, 1)))
    outer = root["inputs"][0]
    inner = outer["inputs"][1]
    assert (root[""], outer[""], inner[""]) == ("NDense", "NAdd", "NAdd")
    assert outer["inputs"][0]["inputs"][0] is inner
    first = inner["inputs"][1]
    assert first[""] == "NDense"
    assert first["inputs"][0] == {"inputs": [], "label": 0, "shape": [4], "": "NInput"}
    assert len(labels) == 2


def test_structure_shares_the_regularizer_where_it_is_deepest():
    spec = make_experiment(dataset="529_pollen", size=64, depth=3, kernel_regularizer=Regularizer("l2", 0.02))
    text = network_structure(spec, 4, (6, 6, 1))
    assert text.count('{"l2":0.02,"type":"l2","&":"a"}') == 1
    assert text.count('"*a"') == 2
    assert text.index('"&":"a"') < text.index('"*a"')
