"""Image networks: shapes and counts of known networks, starts, masks, descent, and what the reference engine does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.engines.convolutional.contract import (
    Block,
    ConvNetwork,
    Descent,
    Pool,
    draw_start,
    dropout_mask,
    keep_scale,
    keep_threshold,
    load_trainer,
)
from butter_etl.engines.convolutional.reference import ReferenceTrainer
from butter_etl.engines.streams import Stream, uniforms, words
from butter_etl.errors import UsageError
from tests.convolutions import KNOWN, SMALL, batches, descents, networks

ENGINES = ["reference", "compiled"]
MOMENTUM = Descent(0.1, momentum=0.9, dampening=0.5, weight_decay=0.01)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("name", "sizes", "parameters"),
    [
        ("example", [32, 1, 9, 1, 1, 1], 1_078_699),
        ("13_55", [32, 2, 2, 3, 3, 6], 2_530_619),
        ("13_56", [32, 1, 5, 5, 1], 1_767_761),
        ("14_01", [32, 7, 9, 9, 11, 3], 1_555_472),
    ],
)
def test_known_networks_have_their_shapes_and_counts(name, sizes, parameters):
    network = KNOWN[name].network
    convolutions = network.layers[: len(network.blocks)]
    pooled = [[layer.conv_size, *([layer.out_size] if layer.pool else [])] for layer in convolutions]
    assert [32, *(size for pair in pooled for size in pair)] == sizes
    assert network.parameters == parameters
    start = draw_start(network, KNOWN[name].descent, 3)
    assert sum(start[key].size for key in start if key.endswith((".weight", ".bias"))) == parameters


@settings(max_examples=30, deadline=None)
@given(networks())
def test_shapes_are_those_of_torch(network):
    x = torch.zeros(1, network.channels, network.size, network.size)
    for layer in network.layers[: len(network.blocks)]:
        x = torch.nn.Conv2d(layer.channels, layer.filters, layer.kernel, layer.stride, layer.padding)(x)
        assert x.shape[2:] == (layer.conv_size,) * 2
        if layer.pool:
            x = torch.nn.MaxPool2d(layer.pool.kernel, layer.pool.stride, layer.pool.padding)(x)
        assert x.shape[1:] == (layer.filters, *[layer.out_size] * 2)
    assert x.numel() == network.layers[len(network.blocks)].fan_in


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ConvNetwork(3, 8, (Block(4, 9),), (3,)), "kernel 9"),
        (ConvNetwork(3, 8, (Block(4, 3, code=3),), (3,)), "code 3"),
        (ConvNetwork(3, 8, (Block(4, 3, code=2, pool=Pool(2, 1, 2)),), (3,)), "above half"),
        (ConvNetwork(3, 8, (Block(4, 3),), (0,)), "at least 1"),
        (ConvNetwork(3, 8, (), (3,), fc_dropout=(True,)), "1 dropout flags for 0"),
        (ConvNetwork(3, 8, (), (3,), dropout_rate=1.0), "not 1.0"),
    ],
)
def test_what_cannot_be_built_is_refused(network, message):
    with pytest.raises(UsageError, match=message):
        network.layers  # noqa: B018


def test_a_start_is_uniform_and_a_function_of_seed_layer_and_position():
    network = ConvNetwork(3, 8, (Block(5, 3),), (7, 4))
    start = draw_start(network, Descent(0.1), 12)
    draws = uniforms(12, Stream.WEIGHTS, 5 * 27 + 5, step=0)
    bound = 1 / np.sqrt(27)
    np.testing.assert_array_equal(start["conv1.weight"].ravel(), ((2 * draws[:-5] - 1) * bound).astype(np.float32))
    np.testing.assert_array_equal(start["conv1.bias"], ((2 * draws[-5:] - 1) * bound).astype(np.float32))
    other = draw_start(ConvNetwork(3, 8, (Block(5, 3),), (9, 4)), Descent(0.1), 12)
    np.testing.assert_array_equal(start["conv1.weight"], other["conv1.weight"])
    assert start["steps"] == 0
    assert "fc2.bias.momentum" in draw_start(network, MOMENTUM, 12)


def test_a_mask_is_what_its_definition_says():
    layer = ConvNetwork(1, 5, (Block(20, 2, code=4),), (2,), dropout_rate=0.4).layers[0]
    kept = dropout_mask(77, 9, layer, 3)
    assert kept.shape == (3, 4, 4, 20)
    for row, y, x, channel in [(0, 0, 0, 0), (2, 3, 1, 19), (1, 0, 3, 7)]:
        element = ((y * 4 + x) * 3 + row) * 32 + channel
        half, block = element // 16 % 8, 16 * (element // 128) + element % 16
        word = words(77, Stream.MASKS, 4 * block + 4, 9, layer.number)[4 * block + half // 2]
        assert kept[row, y, x, channel] == ((int(word) >> 16 * (half % 2)) % 65536 < keep_threshold(0.4))
    assert not np.array_equal(kept, dropout_mask(77, 10, layer, 3))
    assert not np.array_equal(kept, dropout_mask(78, 9, layer, 3))


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.7, 0.99999])
def test_masks_keep_the_share_that_scales_make_up_for(rate):
    layer = ConvNetwork(1, 32, (Block(40, 1, code=4),), (2,), dropout_rate=rate).layers[0]
    kept = dropout_mask(1, 2, layer, 5)
    share = 1 / keep_scale(rate)
    assert abs(share - (1 - rate)) < 2**-16
    assert abs(kept.mean() - share) < 5 * np.sqrt(share * (1 - share) / kept.size)


@pytest.mark.parametrize("descent", [Descent(0.1), Descent(0.1, weight_decay=0.1), MOMENTUM], ids=str)
def test_descent_is_that_of_torch(descent):
    network = ConvNetwork(2, 6, (Block(5, 3, 1, 1, 3, Pool(2, 2)),), (7, 4), fc_activation="relu")
    start = draw_start(network, descent, 4)
    ours = ReferenceTrainer(network, descent, 4, start, dtype=torch.float64)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 5, 3, 1, 1), torch.nn.ReLU(), torch.nn.MaxPool2d(2, 2),
        torch.nn.Flatten(), torch.nn.Linear(45, 7), torch.nn.ReLU(), torch.nn.Linear(7, 4),
    ).double()  # fmt: skip
    names = [name for name in start if name.endswith((".weight", ".bias"))]
    for name, parameter in zip(names, model.parameters(), strict=True):
        parameter.data = torch.tensor(start[name], dtype=torch.float64)
    rates = (descent.momentum, descent.dampening, descent.weight_decay)
    theirs = torch.optim.SGD(model.parameters(), descent.learning_rate, *rates)
    for step, (images, labels) in enumerate(batches(network, 9, 4)):
        loss = torch.nn.functional.cross_entropy(
            model(torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)), torch.from_numpy(labels)
        )
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert ours.train_batch(images, labels, step) == pytest.approx(loss.item(), rel=1e-12)
    for name, parameter in zip(names, model.parameters(), strict=True):
        np.testing.assert_allclose(ours.state()[name], parameter.detach().numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_training_goes_on_from_a_state_to_the_same_bits(engine):
    trainer = load_trainer(engine)
    start = draw_start(SMALL, MOMENTUM, 8)
    whole = trainer(SMALL, MOMENTUM, 8, start)
    half = trainer(SMALL, MOMENTUM, 8, start)
    given = batches(SMALL, 10, 6)
    losses = [whole.train_batch(*batch, step) for step, batch in enumerate(given)]
    begun = [half.train_batch(*batch, step) for step, batch in enumerate(given[:3])]
    half.evaluate(*given[0])
    rest = trainer(SMALL, MOMENTUM, 8, half.state())
    begun += [rest.train_batch(*batch, step) for step, batch in enumerate(given[3:], start=3)]
    assert losses == begun
    for name, values in whole.state().items():
        np.testing.assert_array_equal(values, rest.state()[name])
        assert values.dtype == start[name].dtype


@pytest.mark.parametrize("engine", ENGINES)
def test_bytes_are_images_of_255ths(engine):
    network = SMALL
    images = np.random.default_rng(1).integers(0, 256, (9, network.size, network.size, network.channels), np.uint8)
    labels = np.arange(9) % network.classes
    one, other = (load_trainer(engine)(network, MOMENTUM, 8, draw_start(network, MOMENTUM, 8)) for _ in range(2))
    scaled = images.astype(np.float32) / np.float32(255)
    assert one.evaluate(images, labels) == other.evaluate(scaled, labels)
    assert one.train_batch(images, labels, 0) == other.train_batch(scaled, labels, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_of_another_network_or_step_is_refused(engine):
    start = draw_start(SMALL, MOMENTUM, 8)
    with pytest.raises(UsageError, match="another network"):
        load_trainer(engine)(KNOWN["example"].network, MOMENTUM, 8, start)
    trainer = load_trainer(engine)(SMALL, MOMENTUM, 8, start)
    with pytest.raises(UsageError, match="at step 0, not at 1"):
        trainer.train_batch(*batches(SMALL, 4, 1)[0], 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_images_and_labels_of_another_kind_are_refused(engine):
    trainer = load_trainer(engine)(SMALL, MOMENTUM, 8, draw_start(SMALL, MOMENTUM, 8))
    images, labels = batches(SMALL, 4, 1)[0]
    for odd in (images[:3], images[:, :8], images.astype(np.float64)):
        with pytest.raises(UsageError, match="images are float32 or uint8"):
            trainer.train_batch(odd, labels, 0)
    with pytest.raises(UsageError, match="a batch has no image to learn from"):
        trainer.train_batch(images[:0], labels[:0], 0)
    assert trainer.evaluate(images[:0], labels[:0]) == (0.0, 0)
    for wrong in (labels + 4, labels - 4, labels.astype(np.int32)):
        with pytest.raises(UsageError, match="labels are int64 from 0 to 3"):
            trainer.evaluate(images, wrong)


@settings(max_examples=10, deadline=None)
@given(networks(), descents(), st.integers(0, 2**40))
def test_the_reference_in_float32_follows_float64(network, descent, seed):
    start = draw_start(network, descent, seed)
    one = ReferenceTrainer(network, descent, seed, start)
    other = ReferenceTrainer(network, descent, seed, start, dtype=torch.float64)
    images, labels = batches(network, 7, 1)[0]
    assert one.train_batch(images, labels, 0) == pytest.approx(other.train_batch(images, labels, 0), rel=1e-4)
