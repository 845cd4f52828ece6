"""The compiled engine for recurrent networks: held against PyTorch in float64 on anything, and against itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from butter_etl.engines.compiling import compiled
from butter_etl.engines.fused.lanes import load
from butter_etl.engines.recurrent import engine, lanes, memory, products
from butter_etl.engines.recurrent.contract import GATES, Sequences, parameter_layout
from butter_etl.engines.recurrent.engine import CompiledTrainer, trainer
from butter_etl.engines.recurrent.reference import ReferenceTrainer
from butter_etl.errors import UsageError
from tests.recurrences import (
    FORMS,
    KINDS,
    OPTIMIZERS,
    PLAIN,
    cases,
    descents,
    objective_of,
    recurrent,
    sequences,
    started,
)

#: A rounding of the largest element.
ROUNDING = 2.0**-24


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def three(network, objective, descent, start):
    """Ours, PyTorch's in float32, and PyTorch's in float64."""
    arguments = (network, objective, descent, start)
    return (
        CompiledTrainer(*arguments), ReferenceTrainer(*arguments), ReferenceTrainer(*arguments, dtype=torch.float64),
    )  # fmt: skip


def errors_of(values, exact):
    """The error of the largest element, relative to the largest element, of two arrays."""
    largest = np.abs(exact).max() or 1.0
    return [np.abs(np.asarray(one) - exact).max() / largest for one in values]


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("architecture", GATES)
def test_losses_outputs_and_gradients_are_as_exact_as_those_of_torch(architecture, layers, nonlinearity):
    """At most twice as far from float64 as torch's float32, by the largest element of each array, on average."""
    network = recurrent(architecture, layers, 18, nonlinearity=nonlinearity)
    found = {}
    for number, (kind, form) in enumerate((kind, form) for kind in KINDS for form in FORMS):
        objective = objective_of(kind, 6)
        batch = sequences(network, objective, form, 66, seed=number, steps=6)
        trainers = three(network, objective, replace(PLAIN, l2=1e-4), started(network, seed=number))
        (ours, gradient), (theirs, their_gradient), (loss, exact) = (one.gradient(batch) for one in trainers)
        found.setdefault("loss", []).append(errors_of([ours, theirs], np.array(loss)))
        sums = [one.evaluate(batch) for one in trainers]
        found.setdefault("forward", []).append(errors_of([sums[0].loss, sums[1].loss], np.array(sums[2].loss)))
        assert sums[0][1:] == sums[2][1:]
        for name, (place, _) in parameter_layout(network).items():
            parts = [gradient[place], their_gradient.numpy()[place]]
            found.setdefault(name, []).append(errors_of(parts, exact.numpy()[place]))
    for name, errors in found.items():
        ours, theirs = np.mean(errors, axis=0)
        assert ours <= 2 * theirs + ROUNDING, name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_follows_float64(optimizer):
    network, objective = recurrent("gru", 2, 21), objective_of("softmax")
    start = started(network, optimizer)
    descent = replace(PLAIN, optimizer=optimizer, learning_rate=0.01, decay=0.1, clip=0.5, l2=1e-4)
    ours, theirs, exact = three(network, objective, descent, start)
    for step in range(5):
        batch = sequences(network, objective, "indices", 64, seed=step)
        taken = [one.train_batch(batch, step) for one in (ours, theirs, exact)]
        assert taken[0] == pytest.approx(taken[2], rel=1e-5)
    states = [one.state() for one in (ours, theirs, exact)]
    for name in states[0]:
        if name != "steps":
            mine, its = errors_of([states[0][name], states[1][name]], states[2][name])
            assert mine <= 2 * its + ROUNDING, name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), descents(), st.integers(0, 2**40), st.sampled_from(["identity", "orthogonal", "normal"]))
def test_any_network_is_trained_as_by_torch(case, descent, seed, matrix):
    network, objective, form, rows, steps = case
    start = started(network, descent.optimizer, seed, matrix, 0.7)
    ours, _, exact = three(network, objective, descent, start)
    batch = sequences(network, objective, form, rows, seed=seed, steps=steps, streams=seed % 3 + 1)
    assert ours.train_batch(batch, 0) == pytest.approx(exact.train_batch(batch, 0), rel=1e-4, abs=1e-6)
    one, other = ours.evaluate(batch), exact.evaluate(batch)
    assert one.loss == pytest.approx(other.loss, rel=1e-3, abs=1e-5 * rows)
    assert one.answers == other.answers
    if descent.optimizer in ("SGD", "Momentum"):  # the others divide by what may be all rounding
        found, expected = ours.state(), exact.state()
        np.testing.assert_allclose(found["parameters"], expected["parameters"], rtol=1e-3, atol=1e-4)


def test_a_run_does_not_depend_on_threads_beside_it_nor_on_what_was_trained_before():
    network, objective = recurrent("lstm", 2, 33), objective_of("softmax")
    descent, start = replace(PLAIN, optimizer="ADAM", learning_rate=0.01), started(network, "ADAM")
    given_ = [sequences(network, objective, "indices", 64, seed=step) for step in range(6)]

    def train(_number):
        made = trainer(network, objective, descent, start)
        taken = [made.train_batch(batch, step) for step, batch in enumerate(given_)]
        return taken, made.evaluate(given_[0]), made.state()

    alone = train(0)
    with ThreadPoolExecutor(4) as pool:
        for taken, measured, state in pool.map(train, range(4)):
            assert (taken, measured) == alone[:2]
            for name, values in state.items():
                np.testing.assert_array_equal(values, alone[2][name])


@pytest.mark.parametrize("architecture", GATES)
def test_what_is_not_a_number_stays_so(architecture):
    network, objective = recurrent(architecture), objective_of("softmax")
    start = started(network)
    start["parameters"][parameter_layout(network)["layer1.recurrent"][0].start] = np.nan
    ours, theirs, _ = three(network, objective, PLAIN, start)
    batch = sequences(network, objective, "indices", 9)
    for made in (ours, theirs):
        assert np.isnan(made.train_batch(batch, 0).loss)
    found, expected = ours.evaluate(batch), theirs.evaluate(batch)
    assert np.isnan([found.loss, expected.loss]).all()
    assert found[1:] == expected[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_evaluated_of_no_rows(kind):
    network, objective = recurrent("rnn"), objective_of(kind)
    batch = sequences(network, objective, "indices", 3)
    none = Sequences(batch.inputs[:0], batch.targets[:0])
    assert trainer(network, objective, PLAIN, started(network)).evaluate(none) == (0.0, 0, 0)


@pytest.mark.parametrize("architecture", GATES)
def test_what_fills_vectors_up_stays_zero(architecture):
    network, objective = recurrent(architecture, 2, 7), objective_of("softmax")
    made = CompiledTrainer(network, objective, replace(PLAIN, optimizer="Momentum"), started(network, "Momentum"))
    for step in range(3):
        made.train_batch(sequences(network, objective, "indices", 9, seed=step), step)
    places = made._places
    for values in (made._weights, *made._moments.values()):
        rest = np.ones(places.size, bool)
        rest[places.numbers] = False
        assert not values[rest].any()
    assert not made._gradient.any()


@given(cases())
@settings(max_examples=30, deadline=None)
def test_each_parameter_has_a_place_of_its_own(case):
    network = case[0]
    places = memory.weight_places(network)
    assert len(np.unique(places.numbers)) == network.parameters
    assert 0 <= places.numbers.min() <= places.numbers.max() < places.size


def test_another_device_is_refused():
    network = recurrent("rnn")
    with pytest.raises(UsageError, match="a CPU only, not on cuda"):
        trainer(network, objective_of("softmax"), PLAIN, started(network), device="cuda")


def test_facts_name_what_kernels_are_compiled_for():
    assert engine.facts("cpu")["threads"] == 1


# -- instructions: what is compiled does what the definition does


@compiled
def _multiply(rows, vectors, scalars, table, values, results, adds):
    steps = (np.int64(11), np.int64(2), np.int64(64), np.int64(70))
    products.multiply(
        rows, vectors, scalars, steps[0], steps[1], table, np.int64(2), values, steps[2], results, np.int64(3),
        steps[3], adds,
    )  # fmt: skip


@pytest.mark.parametrize("adds", [0, 1])
@pytest.mark.parametrize(("rows", "vectors"), [(0, 1), (1, 1), (3, 2), (6, 4), (13, 3), (25, 4)])
def test_tiles_are_their_definition(rows, vectors, adds):
    random = np.random.default_rng(rows)
    scalars, values = (random.normal(size=1000).astype(np.float32) for _ in range(2))
    results = random.normal(size=rows * 70 + 67).astype(np.float32)
    table = np.array([3, 5, 5, 7, 1, 3], np.int64)
    expected = results.copy()
    for row in range(rows):
        lanes.tiles(1, vectors, 1, scalars, 11, 2, table, 2, values, 64, expected, 3 + row * 70, 70, adds, row * 11)
    _multiply(rows, vectors, scalars, table, values, results, adds)
    np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-5)
    # By definition: the first term's five numbers from 3 on, and the second's three from 7 on.
    if rows:
        sums = [scalars[3 + 2 * k] * values[5 + 64 * k] for k in range(5)]
        sums += [scalars[7 + 2 * k] * values[1 + 64 * k] for k in range(3)]
        assert adds or expected[3] == pytest.approx(sum(sums), rel=1e-5)


@compiled
def _add(values, sums):
    lanes.add_squares(sums, 3, load(values, 2))


def test_squares_are_added_in_float64():
    values = (np.random.default_rng(2).normal(size=18) * 1e25).astype(np.float32)
    sums = np.ones(19)
    expected = sums.copy()
    _add(values, sums)
    lanes.add_squares(expected, 3, load(values, 2))
    np.testing.assert_array_equal(sums, expected)
    np.testing.assert_allclose(sums[3:], 1 + values[2:].astype(float) ** 2)
