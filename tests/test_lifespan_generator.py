"""Random networks: what is published of the generator holds, and a number has one network for good."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import SpecError
from butter_etl.studies.lifespans.experiments import DROPOUT, POOL
from butter_etl.studies.lifespans.generator import USUAL, Fixed, Ranges, admitted, candidate, candidates
from butter_etl.studies.lifespans.images import IMAGE_SETS
from butter_etl.studies.lifespans.networks import network_of, products

SETS = st.sampled_from(list(IMAGE_SETS.values()))
SEEDS, NUMBERS = st.integers(0, 2**64 - 1), st.integers(0, 2**32)


def check(one, images, ranges):
    """All that the sheet of the study says of a drawn network."""
    network = one.network
    count = len(network.conv_kernels)
    assert ranges.n_conv_layers[0] <= count <= ranges.n_conv_layers[1]
    pools = iter(zip(network.pool_kernels, network.pool_strides, network.pool_paddings, strict=True))
    size = images.size
    for code, kernel, stride, padding, filters in zip(
        network.layer_types, network.conv_kernels, network.conv_strides, network.conv_paddings, network.conv_filters,
        strict=True,
    ):  # fmt: skip
        assert 1 <= stride <= kernel <= size
        assert ranges.conv_padding[0] <= padding <= ranges.conv_padding[1]
        assert min(images.channels, ranges.most_filters) <= filters <= ranges.most_filters
        assert code in ranges.block_codes
        size = (size + 2 * padding - kernel) // stride + 1
        if code & POOL:
            pool, jump, rim = next(pools)
            assert 1 <= jump <= pool <= size
            assert 0 <= rim <= pool // 2
            size = (size + 2 * rim - pool) // jump + 1
        assert size >= 1
    assert next(pools, None) is None
    assert ranges.n_fc_layers[0] <= len(network.fc_filters) <= ranges.n_fc_layers[1]
    assert all(ranges.fc_width[0] <= width <= ranges.fc_width[1] for width in network.fc_filters[:-1])
    assert network.fc_filters[-1] == images.classes
    assert len(network.fc_dropout_layers) == len(network.fc_filters) - 1
    drops = any(code & DROPOUT for code in network.layer_types)
    assert network.dropout_rate == 0 if not drops else ranges.dropout_rate[0] <= network.dropout_rate
    assert network.dropout_rate <= ranges.dropout_rate[1]
    assert network.fc_dropout_rate == 0 or 0.1 <= network.fc_dropout_rate <= 0.7
    assert ranges.batch_size[0] <= network.batch_size <= ranges.batch_size[1]
    assert ranges.least_learning_rate < network.learning_rate <= ranges.most_learning_rate
    assert 0 <= network.momentum < 1
    assert 0 <= network.dampening < 1
    assert network.dampening == 0 or network.momentum > 0


@given(SEEDS, NUMBERS, SETS)
def test_what_is_published_holds_for_any_number(seed, number, images):
    one = candidate(Ranges(), images, seed, number)
    check(one, images, Ranges())
    assert network_of(one.network).parameters == one.parameters
    assert products(network_of(one.network)) == one.products


@pytest.mark.long
def test_what_is_published_holds_for_very_many():
    images, seen = IMAGE_SETS["CIFAR100"], Counter()
    for one in islice(candidates(Ranges(), images, 1), 100_000):
        check(one, images, Ranges())
        seen.update(f"code {code}" for code in one.network.layer_types)
        seen[f"layers {len(one.network.conv_kernels)}"] += 1
        seen["momentum"] += one.network.momentum > 0
        widths = (images.channels, *one.network.conv_filters)
        seen["increasing"] += all(low <= high for low, high in pairwise(widths))
    assert min(seen[f"layers {count}"] for count in (1, 2, 3)) > 30_000
    assert min(seen[f"code {code}"] for code in range(1, 8)) > 25_000
    assert 45_000 < seen["momentum"] < 55_000
    # All of one layer, of two and three the enforced half and some by chance.
    assert 65_000 < seen["increasing"] < 90_000


def test_a_number_has_one_network_for_good():
    """Recorded: who draws others has changed the generator, which is another version then."""
    one = candidate(Ranges(), IMAGE_SETS["FashionMNIST"], 1, 7)
    assert msgspec.json.decode(one.network.canonical_json()) == RECORDED
    assert one == next(islice(candidates(Ranges(), IMAGE_SETS["FashionMNIST"], 1), 7, None))
    assert one == next(candidates(Ranges(), IMAGE_SETS["FashionMNIST"], 1, first=7))


RECORDED = {
    "batch_size": 179,
    "conv_filters": [240],
    "conv_kernels": [9],
    "conv_paddings": [5],
    "conv_strides": [8],
    "dampening": 0.0178181395483,
    "dataset": "FashionMNIST",
    "dropout_rate": 0.174929827475,
    "epochs": 40,
    "fc_activation": "none",
    "fc_dropout_layers": [1, 0, 1],
    "fc_dropout_rate": 0.281796984444,
    "fc_filters": [104, 42, 248, 10],
    "layer_types": [5],
    "learning_rate": 0.0107261848519,
    "momentum": 7.30305323239e-05,
    "n_conv_layers": 1,
    "pool_kernels": [],
    "pool_paddings": [],
    "pool_strides": [],
    "study": "nn_lifespans",
    "task": "nn_lifespans.train",
    "task_version": 1,
    "train_images": None,
    "val_mode": "full",
    "weight_decay": 0,
}


def test_another_range_of_one_quantity_changes_no_other():
    images = IMAGE_SETS["SVHN"]
    for number in range(50):
        usual = candidate(Ranges(), images, 3, number).network
        other = candidate(Ranges(batch_size=(7, 7), momentum_decades=(1, 1)), images, 3, number).network
        assert (other.batch_size, other.momentum) == (7, 0.1 if usual.momentum else 0)
        same = {"batch_size": 0, "momentum": 0}
        assert usual.parameters() | same == other.parameters() | same


def test_networks_above_the_limits_are_turned_away_and_counted():
    images = IMAGE_SETS["CIFAR100"]
    few = admitted(Ranges(), images, 1, 20, 3_000_000, None)
    more = admitted(Ranges(), images, 1, 40, 3_000_000, None)
    assert more.networks[:20] == few.networks
    assert [one.parameters <= 3_000_000 for one in more.networks] == [True] * 40
    last = more.networks[-1].number
    turned_away = [one for one in islice(candidates(Ranges(), images, 1), last) if one.parameters > 3_000_000]
    assert len(turned_away) == more.turned_away > 0
    small = admitted(Ranges(), images, 1, 5, None, 100_000)
    assert max(one.products for one in small.networks) <= 100_000
    with pytest.raises(SpecError, match=r"within max_parameters=10, max_multiplications=None; raise these"):
        admitted(Ranges(), images, 1, 5, 10, None)


def test_what_all_have_in_common_is_part_of_each():
    fixed = Fixed(4, "published", "relu", 6_000)
    one = candidate(Ranges(), IMAGE_SETS["SVHN"], 1, 1, fixed).network
    assert (one.epochs, one.val_mode, one.fc_activation, one.train_images) == fixed
    assert (USUAL.epochs, USUAL.val_mode) == (40, "full")


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"batch_size": (9, 3)}, "batch_size: 9 is above 3"),
        ({"n_conv_layers": (0, 3)}, "n_conv_layers: from 1 to 16"),
        ({"n_fc_layers": (1, 99)}, "n_fc_layers: from 1 to 24"),
        ({"block_codes": (0, 8)}, "block_codes: some of 1 to 7"),
        ({"fc_width": (0, 3)}, "widths, batches and filters at 1"),
    ],
)
def test_ranges_that_cannot_be(ranges, message):
    with pytest.raises(ValueError, match=message):
        Ranges(**ranges)
