"""The compiled engine for images: held against PyTorch in float64 on anything, and against itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from butter_etl.engines.compiling import compiled
from butter_etl.engines.convolutional import engine, kernels, lanes, memory, products
from butter_etl.engines.convolutional.contract import (
    Block,
    ConvNetwork,
    Descent,
    Pool,
    draw_start,
    dropout_mask,
    keep_threshold,
    padded,
)
from butter_etl.engines.convolutional.engine import CompiledTrainer, trainer
from butter_etl.engines.convolutional.reference import ReferenceTrainer
from butter_etl.errors import UsageError
from tests.convolutions import KNOWN, SMALL, batches, descents, networks

MOMENTUM = Descent(0.1, momentum=0.9, dampening=0.5, weight_decay=0.01)
PLAIN = Descent(0.1, weight_decay=0.05)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_follows(network, descent, seed, given, *, slack=0.0):
    """Ours is at most twice as far from float64 as PyTorch's float32, by the largest element of each array.

    A rounding error of the largest element is allowed besides.
    """
    start = draw_start(network, descent, seed)
    ours = CompiledTrainer(network, descent, seed, start)
    theirs = ReferenceTrainer(network, descent, seed, start)
    exact = ReferenceTrainer(network, descent, seed, start, dtype=torch.float64)
    for step, batch in enumerate(given):
        losses = [one.train_batch(*batch, step) for one in (ours, theirs, exact)]
        assert losses[0] == pytest.approx(losses[2], rel=1e-4, abs=1e-6)
    found, float32, float64 = (one.state() for one in (ours, theirs, exact))
    for name in start:
        largest = np.abs(float64[name]).max()
        errors = [np.abs(one[name] - float64[name]).max() for one in (found, float32)]
        assert errors[0] <= 2 * errors[1] + largest * (2.0**-23 + slack), name
    ours_now, exactly = ours.evaluate(*given[0]), exact.evaluate(*given[0])
    assert ours_now[0] == pytest.approx(exactly[0], rel=1e-4, abs=1e-6 * len(given[0][1]))
    assert ours_now[1] == exactly[1]


@pytest.mark.parametrize("name", KNOWN)
def test_known_networks_are_trained_as_by_torch(name):
    case = KNOWN[name]
    assert_follows(case.network, case.descent, 3, batches(case.network, 26, 2))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), descents(), st.integers(0, 2**63 - 1), st.integers(1, 40))
def test_any_network_is_trained_as_by_torch(network, descent, seed, rows):
    # A maximum may be at another place after rounding, and a ReLU on or off: one step only.
    assert_follows(network, descent, seed, batches(network, rows, 1), slack=1e-5)


@pytest.mark.parametrize("descent", [MOMENTUM, PLAIN], ids=["momentum", "plain"])
def test_batches_of_different_sizes_and_parts_are_trained_as_by_torch(descent, monkeypatch):
    monkeypatch.setattr(engine, "PART_BYTES", 1)
    monkeypatch.setattr(engine, "LEAST_ROWS", 7)
    given = [batches(SMALL, rows, 1, seed=rows)[0] for rows in (30, 30, 1, 13, 30)]
    assert_follows(SMALL, descent, 11, given, slack=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 8])
def test_weights_that_see_only_padding_still_decay(kernel):
    network = ConvNetwork(2, 8, (Block(20, kernel, kernel, 5), Block(18, 3, 3, 5, 2, Pool(3, 2, 1))), (4,))
    assert_follows(network, PLAIN, 2, batches(network, 9, 3), slack=1e-5)


def test_what_nothing_reads_is_not_computed():
    # Of 9 x 9 outputs a pooling 4 x 4 sees 8 x 8; of those a kernel 2 x 2 every other.
    network = ConvNetwork(1, 9, (Block(16, 1, code=2, pool=Pool(4, 4)),), (3,))
    plan = memory.make_plan(network, 5, training=True, batch=5)
    row = plan.layers[0]
    assert (row[memory.OUTPUTS_END] - row[memory.OUTPUTS]) // memory.OUTPUT_COLUMNS == 64
    assert_follows(network, PLAIN, 2, batches(network, 9, 2), slack=1e-5)


def test_outputs_of_padding_have_one_row_until_dropout():
    blocks = (Block(16, 4, 4), Block(32, 1, 1, 2, 4), Block(16, 1))
    network = ConvNetwork(1, 4, blocks, (3,))
    vary = [_varying(network, training=True)[1], _varying(network, training=False)[1]]
    assert vary == [1, 1]  # of 5 x 5
    dropping = replace(network, dropout_rate=0.5)
    assert _varying(dropping, training=True)[1:3] == [1, 25]
    assert _varying(dropping, training=False)[1:3] == [1, 1]


def _varying(network, *, training):
    plan = memory.make_plan(network, 7, training=training, batch=7)
    counts = []
    for row in plan.layers:
        table = plan.tables[row[memory.OUTPUTS] : row[memory.OUTPUTS_END]].reshape(-1, memory.OUTPUT_COLUMNS)
        counts.append(int(table[:, memory.VARIES].sum()))
    return counts


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_masks_are_those_of_the_contract(seed, step, filters, rows):
    network = ConvNetwork(1, 3, (Block(filters, 1, code=4),), (2,), dropout_rate=0.3)
    layer, width = network.layers[0], padded(filters)
    plan = memory.make_plan(network, rows, training=True, batch=rows)
    bits = np.zeros(plan.shape.bits, np.uint16)
    kernels.draw_masks(plan.layers, np.array([9, 1]), rows, bits, seed & 0xFFFFFFFF, seed >> 32, step)
    kept = np.unpackbits(bits.astype("<u2").view(np.uint8), bitorder="little").astype(bool)
    kept = kept[: 9 * rows * width].reshape(3, 3, rows, width)[..., :filters].transpose(2, 0, 1, 3)
    np.testing.assert_array_equal(kept, dropout_mask(seed, step, layer, rows))


def test_a_run_does_not_depend_on_threads_beside_it_nor_on_what_was_trained_before():
    start = draw_start(SMALL, PLAIN, 8)
    given = batches(SMALL, 33, 4)

    def train(_number):
        made = trainer(SMALL, PLAIN, 8, start)
        losses = [made.train_batch(*batch, step) for step, batch in enumerate(given)]
        return losses, made.state()

    alone = train(0)
    with ThreadPoolExecutor(4) as pool:
        for losses, state in pool.map(train, range(4)):
            assert losses == alone[0]
            for name, values in state.items():
                np.testing.assert_array_equal(values, alone[1][name])


def test_what_is_not_a_number_stays_so():
    start = draw_start(SMALL, PLAIN, 8)
    start["conv1.weight"][0, 0, 0, 0] = np.nan
    ours, theirs = CompiledTrainer(SMALL, PLAIN, 8, start), ReferenceTrainer(SMALL, PLAIN, 8, start)
    batch = batches(SMALL, 9, 1)[0]
    assert np.isnan(ours.train_batch(*batch, 0))
    assert np.isnan(theirs.train_batch(*batch, 0))
    (loss, correct), (their_loss, their_correct) = ours.evaluate(*batch), theirs.evaluate(*batch)
    assert np.isnan([loss, their_loss]).all()
    assert correct == their_correct
    for name, values in ours.state().items():
        np.testing.assert_array_equal(np.isnan(values).any(), np.isnan(theirs.state()[name]).any(), err_msg=name)


def test_nothing_is_evaluated_of_no_images():
    images, labels = batches(SMALL, 9, 1)[0]
    assert trainer(SMALL, PLAIN, 8, draw_start(SMALL, PLAIN, 8)).evaluate(images[:0], labels[:0]) == (0.0, 0)


def test_another_device_is_refused():
    with pytest.raises(UsageError, match="a CPU only, not on cuda"):
        trainer(SMALL, PLAIN, 8, draw_start(SMALL, PLAIN, 8), device="cuda")


def test_facts_name_what_kernels_are_compiled_for():
    assert engine.facts("cpu")["threads"] == 1


@given(networks())
@settings(max_examples=20, deadline=None)
def test_packed_weights_come_back(network):
    for layer in network.layers:
        values = np.random.default_rng(1).random(layer.weight_shape, dtype=np.float32)
        np.testing.assert_array_equal(memory.unpack(layer, memory.pack(layer, values)), values)


# -- instructions: what is compiled does what the definition does


@pytest.mark.parametrize("finish", [lanes.WRITE, lanes.RELU, lanes.CHANGE, lanes.MOVE])
@pytest.mark.parametrize(("rows", "vectors"), [(1, 1), (3, 2), (6, 4), (13, 3)])
def test_a_tile_is_its_definition(rows, vectors, finish):
    random = np.random.default_rng(rows)
    scalars, values = (random.normal(size=2000).astype(np.float32) for _ in range(2))
    starts, results = (random.normal(size=size).astype(np.float32) for size in (64, rows * 70))
    table = np.array([-9, 3, 4, 5, 7, 1, 0, 3], np.int64)
    expected = results.copy()
    rates, moments = np.array([0.5, -2.0, 0.3, 0.6], np.float32), np.ones(rows * 70, np.float32)
    expected_moments = moments.copy()
    for row in range(rows):
        arguments = (1, vectors, scalars, 11, 2, table, 1, 7, values, 8, 3, 64, starts)
        at = row * 11
        lanes.tile(*arguments, expected, row * 70, 70, finish, rates, expected_moments, at)
    _multiply(rows, vectors, scalars, table, values, starts, results, finish, rates, moments)
    np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments, expected_moments, rtol=1e-5, atol=1e-5)


@compiled
def _multiply(rows, vectors, scalars, table, values, starts, results, finish, rates, moments):
    products.multiply_rows(
        rows, vectors, scalars, np.int64(11), np.int64(2), table, np.int64(1), np.int64(7), values, np.int64(8),
        np.int64(3), np.int64(64), starts, results, np.int64(0), np.int64(70), finish, rates, moments,
    )  # fmt: skip


@compiled
def _turn(source, result, count):
    lanes.turn(source, 3, 20, count, result, 16, 16)


@pytest.mark.parametrize("count", [1, 7, 16, 40])
def test_a_turned_block_is_its_definition(count):
    source = np.random.default_rng(2).random(20 * 16 + 3, dtype=np.float32)
    found, expected = np.zeros(17 * 16, np.float32), np.zeros(17 * 16, np.float32)
    _turn(source, found, count)
    lanes.turn(source, 3, 20, count, expected, 16, 16)
    np.testing.assert_array_equal(found, expected)


@compiled
def _keep(bits, values, key, threshold):
    lanes.keep_bits(bits, 8, 16, 3, 6, 2, key, key + 1, threshold)
    lanes.scale_kept(values, 4, bits, 9, 1.5)


@pytest.mark.parametrize("rate", [0.1, 0.99999, 0.5])
def test_bits_are_their_definition(rate):
    bits, values = np.zeros(16, np.uint16), np.ones(20, np.float32)
    expected, kept = bits.copy(), values.copy()
    _keep(bits, values, 2**32 - 3, keep_threshold(rate))
    lanes.keep_bits(expected, 8, 16, 3, 6, 2, 2**32 - 3, 2**32 - 2, keep_threshold(rate))
    lanes.scale_kept(kept, 4, expected, 9, 1.5)
    np.testing.assert_array_equal(bits, expected)
    np.testing.assert_array_equal(values, kept)
