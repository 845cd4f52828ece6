"""nn_lifespans: lives measured as the published tables tell, stopped anywhere, and gone on to the same bits."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.errors import InfeasibleError, SpecError
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.known import find_study
from butter_etl.studies.lifespans import training
from butter_etl.studies.lifespans.experiments import NETWORK_PARAMETERS, ImageNetwork, network_id
from butter_etl.studies.lifespans.images import Images, Part, image_set
from butter_etl.studies.lifespans.networks import network_of
from butter_etl.studies.lifespans.study import NN_LIFESPANS
from butter_etl.studies.lifespans.sweeps import PUBLISHED, READER
from butter_etl.studies.lifespans.tables import read_table
from butter_etl.studies.lifespans.training import Life, LifespanTrainer, validate
from butter_etl.studies.trainers import State
from tests.test_lifespan_tables import GENUINE

#: The example of the study's article.
KNOWN = ImageNetwork(
    dataset="CIFAR100",
    batch_size=49,
    learning_rate=0.01005814462371971,
    weight_decay=0.05815562399917578,
    layer_types=(1, 2, 2),
    conv_kernels=(32, 1, 1),
    conv_strides=(9, 1, 1),
    conv_paddings=(0, 4, 0),
    pool_kernels=(9, 1),
    pool_strides=(5, 1),
    pool_paddings=(0, 0),
    conv_filters=(304, 38, 257),
    fc_dropout_rate=0.23811313201015194,
    fc_dropout_layers=(0,),
    fc_filters=(343, 100),
)
SMALL = ImageNetwork(
    dataset="digits",
    batch_size=7,
    learning_rate=0.05,
    momentum=0.5,
    dampening=0.1,
    weight_decay=0.001,
    layer_types=(7, 4),
    dropout_rate=0.3,
    conv_kernels=(3, 2),
    conv_strides=(1, 1),
    conv_paddings=(1, 0),
    pool_kernels=(2,),
    pool_strides=(2,),
    pool_paddings=(1,),
    conv_filters=(4, 5),
    fc_dropout_rate=0.4,
    fc_dropout_layers=(1, 0),
    fc_filters=(8, 6, 10),
    epochs=3,
    train_images=40,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def digits():
    """Some of scikit-learn's digits; 23 to measure on, which no batch of 7 divides."""
    found = LifespanTrainer().load(SMALL, None, None)
    return Images(found.info, found.train, Part(found.test.images[:23], found.test.labels[:23]))


def live(one, images, start=None, watch=None, repetition=0, engine="reference"):
    life = Life(RunSpec(one, repetition), images, engine, "cpu", start)
    life.live(watch)
    return life.results()


def test_a_known_network_has_the_parameters_that_it_has():
    derived = LifespanTrainer().derive(KNOWN)
    count = (3 * 32 * 32 + 1) * 304 + (304 + 1) * 38 + (38 + 1) * 257 + (257 + 1) * 343 + (343 + 1) * 100
    assert derived["num_free_parameters"] == network_of(KNOWN).parameters == count
    assert (derived["n_fc_layers"], KNOWN.parameters()["n_conv_layers"]) == (2, 3)


def test_twins_have_one_network_id():
    twin = msgspec.structs.replace(KNOWN, val_mode="published", epochs=3, train_images=10, fc_activation="relu")
    assert network_id(twin.parameters()) == network_id(KNOWN.parameters())
    for name in NETWORK_PARAMETERS:
        value = getattr(KNOWN, name)
        other = (*value, 1) if isinstance(value, tuple) else "SVHN" if isinstance(value, str) else value + 1
        changed = {**KNOWN.parameters(), name: other}
        assert network_id(changed) != network_id(KNOWN.parameters())


def test_the_study_is_known_by_its_name():
    assert find_study("nn_lifespans", "here") is NN_LIFESPANS
    assert NN_LIFESPANS.parse_own(KNOWN.canonical_json()) == KNOWN


# --- measuring ---------------------------------------------------------------------------------------------------


def test_whole_batches_are_measured_as_the_tables_have_them():
    """A network at chance: the loss is low by n / (n + 1), and the accuracy a count of whole batches' images."""
    images = np.zeros((10_000, 1, 1, 1), np.uint8)
    part = Part(images, np.arange(10_000) % 100)

    def at_chance(some, labels):
        return len(some) * math.log(100), int((labels == 3).sum())

    one = msgspec.structs.replace(KNOWN, batch_size=186, val_mode="published")
    loss, accuracy = validate(at_chance, one, part)
    assert loss == pytest.approx(math.log(100) * 53 / 54, rel=1e-12)
    assert accuracy == 100 * sum(1 for label in part.labels[: 53 * 186] if label == 3) / (53 * 186)
    even = msgspec.structs.replace(one, batch_size=25)
    assert validate(at_chance, even, part) == (pytest.approx(math.log(100), rel=1e-12), 1.0)
    full = msgspec.structs.replace(one, val_mode="full")
    assert validate(at_chance, full, part) == (pytest.approx(math.log(100), rel=1e-12), 1.0)
    alone = msgspec.structs.replace(one, batch_size=20_000)
    assert all(map(math.isnan, validate(at_chance, alone, part)))


def test_published_accuracies_are_counts_of_whole_batches():
    """As the mode has it: every accuracy of the genuine tables is a whole number of the images of whole batches."""
    for path in GENUINE:
        table = read_table(path.read_bytes())
        images = 10_000 // table.batch_size * table.batch_size
        right = table.val_accuracy_percent * images / 100
        np.testing.assert_allclose(right, np.round(right), rtol=1e-12)


def test_points_are_the_middles_and_ends_of_epochs(digits):
    """The odd batch is the first half's, and a half's training loss is the mean over its own batches."""
    life = Life(RunSpec(SMALL, 0), digits, "reference", "cpu", None)
    assert [life._half(point) for point in range(4)] == [(0, 3), (3, 6), (0, 3), (3, 6)]
    odd = msgspec.structs.replace(SMALL, batch_size=9)
    assert Life(RunSpec(odd, 0), digits, "reference", "cpu", None)._half(0) == (0, 3)
    losses = []
    step = life._trainer.train_batch
    life._trainer.train_batch = lambda *given: losses.append(step(*given)) or losses[-1]
    life.live(None)
    found = life.results()
    assert found.histories["epoch"].tolist() == [[0.5, 1.0, 1.5, 2.0, 2.5, 3.0]]
    assert found.histories["loss"][0].tolist() == [sum(losses[k : k + 3]) / 3 for k in range(0, 18, 3)]
    assert found.end_reasons == [None]


def test_every_image_is_seen_once_an_epoch_in_another_order(digits):
    seen = []
    life = Life(RunSpec(SMALL, 0), digits, "reference", "cpu", None)
    step = life._trainer.train_batch
    life._trainer.train_batch = lambda images, *rest: seen.append(images) or step(images, *rest)
    life.live(None)
    epochs = [np.concatenate(seen[k : k + 6]) for k in range(0, 18, 6)]
    first = digits.train.images[:40].astype(np.float32) / 16
    for epoch in epochs:
        assert sorted(map(bytes, epoch)) == sorted(map(bytes, first))
    assert not np.array_equal(epochs[0], epochs[1])


# --- going on ----------------------------------------------------------------------------------------------------


class StoppedError(Exception):
    """What these watches stop training by."""


def stop_at(calls):
    taken = []

    def watch(points, take_state):
        if len(taken) + 1 == calls:
            taken.append((points, take_state()))
            raise StoppedError
        taken.append(None)

    return watch, taken


@pytest.mark.parametrize("engine", ["compiled", "reference"])
@settings(max_examples=15)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=3), st.sampled_from([0.0, 1e9]), st.integers(0, 1))
def test_a_life_goes_on_to_the_same_bits(digits, engine, stops, seconds, repetition):
    """Stopped within half epochs and between them, again and again, through arrays as checkpoints keep them."""
    whole = live(SMALL, digits, repetition=repetition, engine=engine)
    start = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_WATCH_SECONDS", seconds)
        for calls in stops:
            watch, taken = stop_at(calls)
            try:
                found = live(SMALL, digits, start, watch, repetition, engine)
                break
            except StoppedError:
                points, state = taken[-1]
                assert points == pytest.approx(state.points[0] + state.steps[0] / 3)
                start = State(state.points.copy(), state.steps.copy(), {k: v.copy() for k, v in state.arrays.items()})
        else:
            found = live(SMALL, digits, start, repetition=repetition, engine=engine)
    for name, history in whole.histories.items():
        np.testing.assert_array_equal(found.histories[name], history)


def test_repetitions_differ(digits):
    first, second = (live(SMALL, digits, repetition=number).histories["loss"] for number in (0, 1))
    assert not np.array_equal(first, second)


def test_both_engines_live_the_same_lives(digits):
    """Same starts, orders and masks: what differs is the rounding of float32."""
    ours, theirs = (live(SMALL, digits, engine=engine).histories for engine in ("compiled", "reference"))
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)
    np.testing.assert_array_equal(ours["epoch"], theirs["epoch"])


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_a_network_that_diverges_is_a_row_all_the_same(digits, engine):
    wild = msgspec.structs.replace(SMALL, learning_rate=1e30, momentum=0.0, dampening=0.0)
    found = live(wild, digits, engine=engine)
    assert found.end_reasons == ["diverged"]
    assert found.histories["epoch"].shape == found.histories["loss"].shape == (1, 6)
    assert np.isnan(found.histories["loss"]).all()
    assert np.isnan(found.histories["val_accuracy_percent"]).all()


# --- what cannot be built, and sweep files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_kernels": (40, 1, 1)}, "conv1: kernel 40, stride 9, padding 0 on size 32"),
        ({"pool_paddings": (5, 0)}, "conv2: pool padding 5 is above half its kernel"),
        ({"pool_kernels": (9,)}, "pool_kernels has 1 entries, not 2"),
        ({"conv_filters": (304, 38)}, "conv_filters has 2 entries, not 3"),
        ({"fc_dropout_layers": ()}, "fc_dropout_layers has 0 entries, not 1"),
        ({"fc_filters": (), "fc_dropout_layers": ()}, "fc_filters is empty; its last entry is the width of the output"),
        ({"fc_filters": (343, 10)}, "fc_filters: the last is 10; CIFAR100 has 100 classes"),
    ],
)
def test_networks_that_cannot_be_built_say_why(change, message):
    one = msgspec.structs.replace(KNOWN, **change)
    assert not LifespanTrainer().can_build(one)
    with pytest.raises(InfeasibleError, match=message) as caught:
        LifespanTrainer().derive(one)
    assert "\n" not in str(caught.value)


DRAWS = """
name: drawn
study: nn_lifespans
repetitions: 2
draws:
  - {dataset: [digits, SVHN], networks: 5, seed: 3, epochs: 4, ranges: {batch_size: [30, 40]}}
"""


def test_draws_of_a_sweep_file():
    sweep = READER.parse(DRAWS, "draws.yaml")
    found = list(sweep.experiments())
    assert len(sweep) == len(found) == len(set(found)) == 10
    assert [one.dataset for one in found] == ["digits"] * 5 + ["SVHN"] * 5
    assert all(30 <= one.batch_size <= 40 and one.epochs == 4 for one in found)
    assert all(one in sweep for one in found)
    assert KNOWN not in sweep
    longer = READER.parse(DRAWS.replace("networks: 5", "networks: 8"), "draws.yaml")
    assert list(longer.experiments())[:5] == found[:5]


def test_a_sweep_file_of_another_study_is_named_before_its_keys():
    with pytest.raises(
        SpecError, match=r"^draws.yaml: study: it is of 'nn_lifespans', not of 'butter'; name that with"
    ):
        BUTTER.reader.parse(DRAWS, "draws.yaml")


def test_given_networks_of_a_sweep_file():
    given_network = """
cubes:
  - {dataset: digits, batch_size: [16, 32], learning_rate: 0.1, layer_types: [[1]], conv_kernels: [[3]],
     conv_strides: [[1]], conv_paddings: [[0]], conv_filters: [[4]], fc_filters: [[10]]}
"""
    both = READER.parse(DRAWS + given_network, "both.yaml")
    assert len(both) == 12
    found = list(both.experiments())[10:]
    assert [one.batch_size for one in found] == [16, 32]
    assert all(one in both for one in found)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("digits, SVHN", "digits, CIFAR10", r"draws\[0\]\.dataset: image set 'CIFAR10' is not known.*CIFAR100"),
        ("digits, SVHN", "digits, digits", r"draws\[0\]\.dataset: digits, digits; name each image set once"),
        ("networks: 5", "networks: 0", r"draws\[0\]\.networks: 0 is below 1"),
        ("seed: 3", "generator: 9", r"draws\[0\]\.generator: 9 is not known; this version draws by 1"),
        ("seed: 3", "val_mode: half", r"draws\[0\]\.val_mode: 'half' is none of full, published"),
        ("seed: 3", "max_parameters: 1", r"draws\[0\]: of \d+ networks that were drawn for digits, 0 are within"),
        ("seed: 3", "sed: 3", r"draws\[0\]: unknown key 'sed' .did you mean 'seed'"),
        ("batch_size", "batch_sise", r"ranges: unknown key 'batch_sise' .did you mean 'batch_size'"),
        ("[30, 40]", "[40, 30]", r"batch_size: 40 is above 30"),
        ("draws:", "cubes: []\nsweeps:", r"unknown key 'sweeps'"),
    ],
)
def test_what_is_wrong_with_a_sweep_file_is_one_line(old, new, message):
    with pytest.raises(SpecError, match=message) as caught:
        READER.parse(DRAWS.replace(old, new), "draws.yaml")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("draws.yaml: ")


@pytest.mark.long
def test_the_published_sweep_has_a_third_of_each_set():
    sweep = PUBLISHED["nn_lifespans_2021"]
    assert list(PUBLISHED) == ["nn_lifespans_2021"]
    assert len(sweep) == 6_000
    by_set = [one.dataset for one in sweep.experiments()]
    assert [by_set.count(name) for name in ("CIFAR100", "FashionMNIST", "SVHN")] == [2_000] * 3
    assert all(network_of(one).parameters <= 3_000_000 for one in list(sweep.experiments())[::100])


def test_costs_grow_with_images_and_layers():
    estimate = LifespanTrainer().estimator("reference", "cpu")
    usual = estimate(RunSpec(KNOWN, 0))
    assert 1 < usual.seconds < 1e5
    assert usual.bytes > image_set("CIFAR100").pixels * 60_000
    fewer = estimate(RunSpec(msgspec.structs.replace(KNOWN, train_images=1_000), 0))
    assert fewer.seconds < usual.seconds
