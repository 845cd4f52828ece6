"""Recurrent networks: counts, starts, descent as TensorFlow 1 has it, and what each engine does."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.engines.recurrent.contract import (
    FORGETTING,
    GATES,
    Objective,
    RecurrentDescent,
    RecurrentNetwork,
    RecurrentStart,
    Sequences,
    Shown,
    draw_recurrent_start,
    largest_units,
    load_recurrent_trainer,
    parameter_layout,
    recurrent_facts,
)
from butter_etl.engines.recurrent.reference import ReferenceTrainer
from butter_etl.engines.streams import Stream, normals
from butter_etl.errors import UsageError
from tests.recurrences import FORMS, KINDS, OPTIMIZERS, PLAIN, objective_of, recurrent, sequences, started

ENGINES = ["reference", "compiled"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# -- networks


def test_the_published_lstm_has_its_parameters_and_units():
    network = RecurrentNetwork("lstm", 4, 210, 27, 27, forget_bias=(1.0,))
    assert network.parameters == 1_268_217
    assert largest_units("lstm", 4, 27, 27, 1_280_000) == 210
    assert replace(network, units=211).parameters == 1_280_164


def counted(architecture, layers, n, n_in, n_out):
    """Count the numbers that each equation has, one by one."""
    sums = {"rnn": 1, "irnn": 1, "ugrnn": 2, "gru": 3, "lstm": 4, "+rnn": 4}[architecture]
    total, inputs = n * n_out + n_out, n_in
    if architecture == "+rnn":
        total, inputs = total + n_in * n + n, n
    for _ in range(layers):
        total += sum(inputs * n + n * n + n for _ in range(sums)) + (2 * n if architecture == "lstm" else n)
        inputs = n
    return total


@given(*[st.integers(1, 50)] * 4, st.sampled_from(list(GATES)))
def test_parameters_are_those_of_the_equations(layers, n, n_in, n_out, architecture):
    network = recurrent(architecture, layers, n, n_in, n_out)
    assert network.parameters == counted(architecture, layers, n, n_in, n_out)
    layout = parameter_layout(network)
    ends = [0, *(place.stop for place, _ in layout.values())]
    assert [place.start for place, _ in layout.values()] == ends[:-1]
    assert ends[-1] == network.parameters


@given(st.sampled_from(list(GATES)), st.integers(1, 8), st.integers(1, 300), st.integers(1, 100), st.integers(0, 10**6))
def test_the_largest_size_fits_and_the_next_does_not(architecture, layers, inputs, outputs, budget):
    units = largest_units(architecture, layers, inputs, outputs, budget)
    assert not units or counted(architecture, layers, units, inputs, outputs) <= budget
    assert counted(architecture, layers, units + 1, inputs, outputs) > budget


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cnn", 1, 4, 3, 2), "no architecture 'cnn'"),
        (("rnn", 1, 0, 3, 2), "at least 1"),
        (("rnn", 1, 4, 3, 2, "selu"), "no nonlinearity 'selu'"),
        (("lstm", 1, 4, 3, 2), "lstm takes 1 forget biases, not 0"),
        (("rnn", 1, 4, 3, 2, "tanh", (1.0,)), "rnn takes 0 forget biases, not 1"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        RecurrentNetwork(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Objective("hinge", 0, 1), "no objective 'hinge'"),
        (lambda: Objective("softmax", 3, 3), "at steps 3 to 3"),
        (lambda: Objective("squared", 0, 2), "squared scores one group at one step"),
        (lambda: replace(PLAIN, optimizer="LBFGS"), "no optimizer 'LBFGS'"),
        (lambda: replace(PLAIN, clip=0.0), "a clip and a decay above 0"),
    ],
)
def test_objectives_and_descents_that_cannot_be_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


# -- starts


def arrays_of(network, state):
    return {
        name: state["parameters"][place].reshape(shape) for name, (place, shape) in parameter_layout(network).items()
    }


def test_a_start_is_what_its_streams_say():
    network = recurrent("gru", 2, 9, 5)
    start = RecurrentStart("normal", (0.5, 1.0, 2.0), (0.1, 0.2, 0.3), "normal", (1.0, -2.0, 0.5))
    state = draw_recurrent_start(network, start, "ADAM", 12)
    found = arrays_of(network, state)
    drawn = normals(12, Stream.WEIGHTS, 81, step=2, part=6) * 2 / 3
    np.testing.assert_array_equal(found["layer2.recurrent"][2].ravel(), drawn.astype(np.float32))
    drawn = normals(12, Stream.WEIGHTS, 45, step=1, part=4) * 0.2 / np.sqrt(5)
    np.testing.assert_array_equal(found["layer1.input"][1].ravel(), drawn.astype(np.float32))
    drawn = normals(12, Stream.WEIGHTS, 9, step=1, part=5) * -2.0
    np.testing.assert_array_equal(found["layer1.bias"][1], drawn.astype(np.float32))
    drawn = normals(12, Stream.WEIGHTS, 54, part=1) / 3
    np.testing.assert_array_equal(found["read_out.weight"].ravel(), drawn.astype(np.float32))
    for name in ("read_out.bias", "layer1.initial", "layer2.initial"):
        assert not found[name].any()
    assert {name: values.sum() for name, values in state.items() if name != "parameters"} == {
        "moment1": 0, "moment2": 0, "steps": 0,
    }  # fmt: skip


def test_identities_are_not_scaled_and_constant_biases_are_their_scale():
    network = recurrent("lstm", 1, 6)
    start = RecurrentStart("identity", (0.5,) * 4, (1.0,) * 4, "constant", (1.0, -2.0, 0.5, 0.0))
    found = arrays_of(network, draw_recurrent_start(network, start, "RMSProp", 1))
    np.testing.assert_array_equal(found["layer1.recurrent"], np.stack([np.eye(6)] * 4))
    np.testing.assert_array_equal(found["layer1.bias"], np.repeat([[1.0], [-2.0], [0.5], [0.0]], 6, axis=1))


def test_orthogonal_matrices_are_so_gate_by_gate_and_not_biased():
    network = recurrent("ugrnn", 2, 30)
    scales = (0.5, 2.0)
    traces = []
    for seed in range(40):
        start = RecurrentStart("orthogonal", scales, (1.0,) * 2, "constant", (0.0,) * 2)
        found = arrays_of(network, draw_recurrent_start(network, start, "SGD", seed))
        for layer in (1, 2):
            for matrix, scale in zip(found[f"layer{layer}.recurrent"].astype(float), scales, strict=True):
                np.testing.assert_allclose(matrix @ matrix.T, scale**2 * np.eye(30), atol=2e-6 * scale**2)
                traces.append(np.trace(matrix) / scale)
    # The trace of a uniformly distributed orthogonal matrix has mean 0 and variance 1.
    assert abs(np.mean(traces)) < 4 / np.sqrt(len(traces))


def test_a_start_needs_a_scale_for_each_gate():
    start = RecurrentStart("normal", (1.0,) * 3, (1.0,) * 3, "constant", (1.0,) * 3)
    with pytest.raises(UsageError, match=r"lstm takes 4 scales of each kind, not \[3, 3, 3\]"):
        draw_recurrent_start(recurrent("lstm"), start, "SGD", 1)


# -- descent, by both engines


def one_number(engine, descent, gradients):
    """Train a network of which only the read-out's bias, from 1, has a gradient, and return the bias."""
    network = RecurrentNetwork("rnn", 1, 1, 1, 1)
    start = draw_recurrent_start(
        network, RecurrentStart("normal", (1.0,), (1.0,), "constant", (0.0,)), descent.optimizer, 1
    )
    place = parameter_layout(network)["read_out.bias"][0]
    start["parameters"][:] = 0
    start["parameters"][place] = 1
    made = load_recurrent_trainer(engine)(network, Objective("squared", 0, 1), descent, start)
    for step, gradient in enumerate(gradients):
        wanted = made.state()["parameters"][place] - np.float32(gradient / 2)
        taken = made.train_batch(Sequences(Shown(np.zeros((1, 1), np.float32), 1, True), wanted[None]), step)
        assert taken.norm == pytest.approx(abs(gradient), rel=1e-6)
    state = made.state()
    assert np.count_nonzero(state["parameters"]) == 1
    return float(state["parameters"][place][0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("optimizer", "expected"), [
    ("SGD", 0.94), ("Momentum", 0.8725), ("RMSProp", 0.9355093), ("ADAM", 0.8109960),
])  # fmt: skip
def test_descent_is_that_of_tensorflow_1(engine, optimizer, expected):
    """Values of ``tf.compat.v1.train`` in TensorFlow 2.21, epsilon at its defaults."""
    descent = RecurrentDescent(optimizer, 0.1, 1.0, 1, 0.9, 100.0, 0.0)
    assert one_number(engine, descent, [0.5, -0.2, 0.3]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_rmsprop_starts_as_in_tensorflow_1_and_not_as_in_torch_or_keras(engine, monkeypatch):
    # After these gradients torch comes to 0.643256, Keras to 0.647460.
    module = {"reference": "reference", "compiled": "engine"}[engine]
    monkeypatch.setattr(import_module(f"butter_etl.engines.recurrent.{module}"), "RMSPROP_EPSILON", 1e-3)
    descent = RecurrentDescent("RMSProp", 0.1, 1.0, 1, 0.9, 100.0, 0.0)
    assert one_number(engine, descent, [0.5, -0.2, 0.3]) == pytest.approx(0.935547, abs=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_rates_decay_and_gradients_are_clipped(engine):
    descent = RecurrentDescent("SGD", 0.1, 0.25, 2, 0.9, 0.4, 0.0)
    # 0.1 (0.4 from 0.5) + 0.05 (0.3) + 0.025 (-0.4 from -1).
    assert one_number(engine, descent, [0.5, 0.3, -1.0]) == pytest.approx(1 - 0.04 - 0.015 + 0.01, abs=2e-7)


@pytest.mark.parametrize("engine", ENGINES)
def test_l2_is_in_the_gradient_and_its_norm_but_not_in_the_loss(engine):
    network = recurrent("gru")
    objective = objective_of("softmax")
    batch = sequences(network, objective, "indices", 9)
    start = started(network)
    plain, decaying = (
        load_recurrent_trainer(engine)(network, objective, replace(PLAIN, learning_rate=1.0, l2=l2), start)
        for l2 in (0.0, 0.01)
    )
    one, other = plain.train_batch(batch, 0), decaying.train_batch(batch, 0)
    assert one.loss == other.loss
    moved = [start["parameters"] - made.state()["parameters"] for made in (plain, decaying)]
    np.testing.assert_allclose(moved[1] - moved[0], 0.01 * start["parameters"], atol=1e-6)
    assert other.norm == pytest.approx(np.linalg.norm(moved[1].astype(float)), rel=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_norms_that_float32_cannot_square_are_finite(engine):
    network = RecurrentNetwork("rnn", 1, 3, 2, 1, "relu")
    start = started(network)
    start["parameters"][:] = 500
    objective = Objective("squared", 2, 3)
    batch = sequences(network, objective, "every step", 3, steps=3)
    batch = batch._replace(inputs=batch.inputs._replace(vectors=np.abs(batch.inputs.vectors)))
    exact = ReferenceTrainer(network, objective, replace(PLAIN, clip=1.0), start, dtype=torch.float64)
    made = load_recurrent_trainer(engine)(network, objective, replace(PLAIN, clip=1.0, learning_rate=1e6), start)
    expected, found = exact.train_batch(batch, 0), made.train_batch(batch, 0)
    assert found.norm == pytest.approx(expected.norm, rel=1e-5)
    assert found.norm > 1e21
    moved = (made.state()["parameters"] - start["parameters"]).astype(float)
    assert np.linalg.norm(moved) == pytest.approx(1e6, rel=1e-2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [1e30, np.inf, np.nan])
def test_a_step_that_is_not_finite_changes_nothing(engine, value):
    network = recurrent("lstm", nonlinearity="relu")
    objective, start = objective_of("squared"), started(network, "ADAM")
    odd = {**start, "parameters": start["parameters"] * np.float32(value)}
    made = load_recurrent_trainer(engine)(network, objective, replace(PLAIN, optimizer="ADAM"), odd)
    batch = sequences(network, objective, "every step", 5)
    taken = made.train_batch(batch, 0)
    assert not np.isfinite([taken.loss, taken.norm]).all()
    for name, values in made.state().items():
        np.testing.assert_array_equal(values, odd[name])
    again = made.train_batch(batch, 0)
    np.testing.assert_array_equal(again, taken)


# -- training, by both engines


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_goes_on_from_a_state_to_the_same_bits(engine, optimizer):
    network, objective = recurrent("lstm", 2, 19), objective_of("softmax")
    descent = RecurrentDescent(optimizer, 0.01, 0.1, 6, 0.9, 0.5, 1e-4)
    given = [sequences(network, objective, "indices", rows, seed=rows) for rows in (10, 64, 3, 70, 10, 64)]
    make, start = load_recurrent_trainer(engine), started(network, optimizer)
    whole = make(network, objective, descent, start)
    taken = [whole.train_batch(batch, step) for step, batch in enumerate(given)]
    for stop in range(1, 6):
        begun = make(network, objective, descent, start)
        parts = [begun.train_batch(batch, step) for step, batch in enumerate(given[:stop])]
        begun.evaluate(given[0])
        rest = make(network, objective, descent, begun.state())
        parts += [rest.train_batch(batch, step) for step, batch in enumerate(given[stop:], start=stop)]
        assert parts == taken
        for name, values in whole.state().items():
            np.testing.assert_array_equal(values, rest.state()[name])
            assert values.dtype == start[name].dtype


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_counted_and_losses_added_up(engine, kind):
    network, objective = recurrent("ugrnn"), objective_of(kind)
    batch = sequences(network, objective, "indices", 300)
    made = load_recurrent_trainer(engine)(network, objective, PLAIN, started(network))
    found = made.evaluate(batch)
    halves = [made.evaluate(Sequences(batch.inputs[part], batch.targets[part])) for part in (np.s_[:128], np.s_[128:])]
    assert found.loss == pytest.approx(sum(half.loss for half in halves), rel=1e-6)
    assert found.right == sum(half.right for half in halves)
    assert found.answers == (0 if kind == "squared" else batch.targets.size)
    assert found.loss / 300 == pytest.approx(made.train_batch(batch, 0).loss, rel=1e-6)
    assert kind == "squared" or 0 < found.right < found.answers


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", FORMS)
def test_steps_after_the_last_scored_one_do_not_matter(engine, form):
    network, objective = recurrent("gru", 2), Objective("softmax", 1, 3, 2)
    made = load_recurrent_trainer(engine)(network, objective, PLAIN, started(network))
    short, long = (sequences(network, objective, form, 6, steps=steps) for steps in (3, 5))
    if form == "indices":
        long = long._replace(inputs=np.concatenate([short.inputs, long.inputs[:, 3:]], axis=1), targets=short.targets)
    else:
        long = long._replace(inputs=short.inputs._replace(steps=5), targets=short.targets)
    assert made.evaluate(short) == made.evaluate(long)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_of_another_network_descent_or_step_is_refused(engine):
    network, objective = recurrent("gru"), objective_of("softmax")
    make, start = load_recurrent_trainer(engine), started(network, "ADAM")
    with pytest.raises(UsageError, match="another network or descent: moment1, moment2, parameters"):
        make(recurrent("gru", 2), objective, replace(PLAIN, optimizer="ADAM"), start)
    with pytest.raises(UsageError, match=r"another network or descent: moment1, moment2$"):
        make(network, objective, PLAIN, start)
    with pytest.raises(UsageError, match="6 outputs are not 4 groups"):
        make(network, Objective("softmax", 0, 1, 4), PLAIN, started(network))
    with pytest.raises(UsageError, match="at step 0, not at 1"):
        make(network, objective, PLAIN, started(network)).train_batch(sequences(network, objective, "indices", 4), 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_batches_of_another_kind_are_refused(engine):
    network, objective = recurrent("gru"), objective_of("softmax")
    made = load_recurrent_trainer(engine)(network, objective, PLAIN, started(network))
    good = sequences(network, objective, "indices", 4)
    vectors = Shown(np.zeros((4, 5), np.float32), 4, True)
    for inputs, message in [
        (good.inputs[:3], r"indices are int32 \(4, steps, streams\), not int32 \(3, 4, 2\)"),
        (good.inputs.astype(np.int64), "indices are int32"),
        (good.inputs + np.int32(5), "indices are from 0 to 4"),
        (good.inputs[:, :2], "sequences of 2 steps have no step 2"),
        (vectors._replace(vectors=vectors.vectors[:, 1:]), r"vectors are float32 \(4, 5\), not float32 \(4, 4\)"),
        (vectors._replace(vectors=vectors.vectors.astype(float)), "vectors are float32"),
    ]:
        with pytest.raises(UsageError, match=message):
            made.train_batch(good._replace(inputs=inputs), 0)
    for targets, message in [
        (good.targets + 3, "targets of softmax are from 0 to 2"),
        (good.targets.astype(np.int32), "targets of softmax are int64"),
        (good.targets[:, :1], r"targets of softmax are int64 \(4, 2, 2\), not int64 \(4, 1, 2\)"),
    ]:
        with pytest.raises(UsageError, match=message):
            made.evaluate(good._replace(targets=targets))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_refused():
    network = recurrent("rnn")
    with pytest.raises(UsageError, match="finds no CUDA device"):
        load_recurrent_trainer("reference")(network, objective_of("softmax"), PLAIN, started(network), device="cuda")


@pytest.mark.parametrize("engine", ENGINES)
def test_facts_say_what_bits_depend_on(engine):
    assert {"target", "threads"} <= set(recurrent_facts(engine, "cpu"))


# -- the reference engine, held against torch's own layers and equations written out


@pytest.mark.parametrize(("architecture", "own", "order"), [
    ("rnn", torch.nn.RNN, [0]), ("lstm", torch.nn.LSTM, [2, 1, 0, 3]),
])  # fmt: skip
def test_rnn_and_lstm_are_those_of_torch(architecture, own, order):
    network = replace(recurrent(architecture, 2), forget_bias=(0.0,) * len(FORGETTING[architecture]))
    objective = objective_of("softmax")
    start = started(network)
    arrays = {name: torch.tensor(values) for name, values in arrays_of(network, start).items()}
    theirs = own(network.inputs, network.units, 2, batch_first=True)
    # torch's gates are i, f, c, o.
    for layer in (1, 2):
        for name, ours in (("ih", "input"), ("hh", "recurrent")):
            wide = torch.cat([arrays[f"layer{layer}.{ours}"][gate].T for gate in order])
            getattr(theirs, f"weight_{name}_l{layer - 1}").data = wide
        getattr(theirs, f"bias_ih_l{layer - 1}").data = torch.cat(
            [arrays[f"layer{layer}.bias"][gate] for gate in order]
        )
        getattr(theirs, f"bias_hh_l{layer - 1}").data.zero_()
    batch = sequences(network, objective, "indices", 9)
    x = torch.nn.functional.one_hot(torch.from_numpy(batch.inputs).long(), network.inputs).sum(2).float()
    initial = [
        torch.stack([arrays[f"layer{layer}.initial"][state] for layer in (1, 2)])[:, None].expand(2, 9, -1).contiguous()
        for state in range(network.states)
    ]
    found, _ = theirs(x, tuple(initial) if len(initial) == 2 else initial[0])
    outputs = found[:, 1:3] @ arrays["read_out.weight"] + arrays["read_out.bias"]
    logits = outputs.reshape(9 * 2 * 2, 3)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.targets).reshape(-1), reduction="sum")
    made = ReferenceTrainer(network, objective, PLAIN, start)
    assert made.evaluate(batch).loss == pytest.approx(loss.item(), rel=1e-5)


def written_out(network, arrays, x):
    """Return the outputs of one sequence after each step, by the paper's equations 1 to 20 in NumPy."""
    s = (lambda z: np.maximum(z, 0)) if network.is_relu else np.tanh
    sigm, gates = (lambda z: 1 / (1 + np.exp(-z))), network.gates
    states = [list(arrays[f"layer{layer + 1}.initial"]) for layer in range(network.layers)]
    outputs = []
    for shown in x:
        below = shown @ arrays["read_in.weight"] + arrays["read_in.bias"] if network.reads_in else shown
        for layer, state in enumerate(states):
            w, u, b = (arrays[f"layer{layer + 1}.{name}"] for name in ("input", "recurrent", "bias"))
            h = state[0]

            def z(gate, h, w=w, u=u, b=b, below=below):
                k = gates.index(gate)
                return below @ w[k] + h @ u[k] + b[k]

            forget = dict(zip(FORGETTING[network.architecture], network.forget_bias, strict=True))
            up = None
            if network.architecture in ("rnn", "irnn"):
                h = s(z("h", h))
            elif network.architecture == "ugrnn":
                g = sigm(z("g", h) + forget["g"])
                h = g * h + (1 - g) * s(z("c", h))
            elif network.architecture == "gru":
                r, u_ = sigm(z("r", h)), sigm(z("u", h) + forget["u"])
                h = u_ * h + (1 - u_) * s(z("c", r * h))
            elif network.architecture == "lstm":
                i, o, g = sigm(z("i", h)), sigm(z("o", h)), sigm(z("g", h) + forget["g"])
                state[1] = g * state[1] + i * s(z("c", h))
                h = o * np.tanh(state[1])
            else:
                gy, gh = sigm(z("gy", h) + forget["gy"]), sigm(z("gh", h) + forget["gh"])
                up = gy * below + (1 - gy) * np.maximum(z("y", h), 0)
                h = gh * h + (1 - gh) * np.tanh(z("h", h))
            state[0] = h
            below = h if up is None else up
        outputs.append(below @ arrays["read_out.weight"] + arrays["read_out.bias"])
    return np.array(outputs)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("architecture", GATES)
def test_cells_are_the_equations(architecture, layers, nonlinearity):
    network = recurrent(architecture, layers, nonlinearity=nonlinearity)
    objective, start = Objective("softmax", 0, 4, 2), started(network)
    arrays = {name: values.astype(float) for name, values in arrays_of(network, start).items()}
    made = ReferenceTrainer(network, objective, PLAIN, start, dtype=torch.float64)
    for form in FORMS:
        batch = sequences(network, objective, form, 2)
        if form == "indices":
            x = np.eye(network.inputs)[batch.inputs].sum(2)
        else:
            x = np.repeat(batch.inputs.vectors[:, None], 4, axis=1).astype(float)
            x[:, 1:] *= form == "every step"
        losses = 0.0
        for row in range(2):
            logits = written_out(network, arrays, x[row]).reshape(4, 2, 3)
            logs = np.log(np.exp(logits).sum(2))
            losses += (logs - np.take_along_axis(logits, batch.targets[row][..., None], 2)[..., 0]).sum()
        assert made.evaluate(batch).loss == pytest.approx(losses, rel=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(list(GATES)), st.sampled_from(KINDS), st.sampled_from(FORMS), st.integers(0, 2**40))
def test_the_reference_in_float32_follows_float64(architecture, kind, form, seed):
    network, objective = recurrent(architecture, 2), objective_of(kind)
    start = started(network, seed=seed)
    one = ReferenceTrainer(network, objective, PLAIN, start)
    other = ReferenceTrainer(network, objective, PLAIN, start, dtype=torch.float64)
    batch = sequences(network, objective, form, 7)
    assert one.train_batch(batch, 0) == pytest.approx(other.train_batch(batch, 0), rel=1e-4)
