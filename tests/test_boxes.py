"""Networks as rows of layers, as pages and pictures draw them: shapes are those of the networks themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.engines.convolutional.contract import DROPOUT, POOL, RELU
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.experiments import ForeignExperiment
from butter_etl.studies.figures import Box
from butter_etl.studies.lifespans.formats import read
from butter_etl.studies.lifespans.generator import Ranges, candidate
from butter_etl.studies.lifespans.images import IMAGE_SETS
from butter_etl.studies.lifespans.networks import network_of
from butter_etl.studies.lifespans.study import NN_LIFESPANS
from tests.test_lifespan_tables import GENUINE
from tests.test_lifespans import KNOWN

#: The feature sizes of the known networks, from the image on, as they are published.
SIZES = {
    "2021_02_15_13_55_26_539263": [32, 2, 2, 3, 3, 6],
    "2021_02_15_13_56_59_917381": [32, 1, 5, 5, 1],
    "2021_02_15_14_01_32_105932": [32, 7, 9, 9, 11, 3],
}


def boxes_of(one, **derived):
    return NN_LIFESPANS.figures.boxes(one, derived)


def foreign(path):
    """The experiment of a published table."""
    (row,) = read(path.read_bytes()).rows.to_pylist()
    return NN_LIFESPANS.foreign(row["task"], row["task_version"], row)


@pytest.mark.parametrize("path", [one for one in GENUINE if one.stem in SIZES], ids=lambda path: path.stem)
def test_a_published_network_has_its_known_shapes(path):
    one = foreign(path)
    assert isinstance(one, ForeignExperiment)
    assert [box.shape[0] for box in boxes_of(one) if len(box.shape) == 3] == SIZES[path.stem]


def test_every_known_network_is_looked_at():
    assert len(SIZES.keys() & {path.stem for path in GENUINE}) == len(GENUINE)


def test_the_known_network_of_the_article_in_words():
    assert boxes_of(KNOWN) == (
        Box("image", "", (32, 32, 3)),
        Box("convolution", "32 x 32, stride 9, ReLU", (1, 1, 304)),
        Box("convolution", "1 x 1, padding 4", (9, 9, 38)),
        Box("maximum pool", "9 x 9, stride 5", (1, 1, 38)),
        Box("convolution", "1 x 1", (1, 1, 257)),
        Box("maximum pool", "1 x 1", (1, 1, 257)),
        Box("dense", "", (343,)),
        Box("output", "", (100,)),
    )


@given(st.integers(0, 10_000), st.sampled_from(["SVHN", "digits"]))
def test_the_boxes_of_drawn_networks_are_those_of_their_layers(number, name):
    one = candidate(Ranges(), IMAGE_SETS[name], 3, number).network
    layers, boxes = network_of(one).layers, boxes_of(one)
    convolutions = [box for box in boxes if box.name == "convolution"]
    assert [box.shape for box in convolutions] == [
        (layer.conv_size, layer.conv_size, layer.filters) for layer in layers if not layer.is_dense
    ]
    assert [box.name for box in boxes].count("maximum pool") == sum(bool(code & POOL) for code in one.layer_types)
    for box, code in zip(convolutions, one.layer_types, strict=True):
        assert ("ReLU" in box.detail, "dropout" in box.detail) == (bool(code & RELU), bool(code & DROPOUT))
    assert [box.shape for box in boxes if len(box.shape) == 1] == [(width,) for width in one.fc_filters]


def test_what_cannot_be_built_or_is_on_unknown_images_has_no_boxes():
    (row,) = read(GENUINE[0].read_bytes()).rows.to_pylist()
    for change in ({"dataset": "ImageNet"}, {"conv_kernels": [99, 1, 1]}, {"conv_filters": [3]}, {"fc_filters": []}):
        assert boxes_of(NN_LIFESPANS.foreign(row["task"], row["task_version"], row | change)) == ()


def test_a_dense_network_has_its_widths():
    one = make_experiment(dataset="wine", shape="rectangle_residual", size=512, depth=4)
    widths = BUTTER.trainer.derive(one)["widths"]
    boxes = BUTTER.figures.boxes(one, {"widths": widths})
    assert [box.shape for box in boxes] == [(13,), *((width,) for width in widths)]
    assert [(box.name, box.detail) for box in boxes] == [
        ("inputs", "wine"),
        ("dense", "relu"),
        *[("dense", "relu, shortcut")] * (len(widths) - 2),
        ("output", "softmax"),
    ]
    assert BUTTER.figures.boxes(one, {"widths": None}) == ()


def test_a_dense_network_of_elsewhere_has_the_widths_that_it_says():
    parameters = make_experiment(dataset="wine", size=512, depth=3).parameters()
    one = BUTTER.foreign("other", 1, parameters | {"dataset": "somebody_s"})
    assert [box.shape for box in BUTTER.figures.boxes(one, {"widths": [5, 4, 3]})] == [(5,), (4,), (3,)]
