"""Recurrent networks for tests: random ones of every architecture, and batches of every form."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from butter_etl.engines.recurrent.contract import (
    FORGETTING,
    GATES,
    MOMENTS,
    Objective,
    RecurrentDescent,
    RecurrentNetwork,
    RecurrentStart,
    Sequences,
    Shown,
    draw_recurrent_start,
)

#: Without clipping or decay.
PLAIN = RecurrentDescent("SGD", 0.1, 1.0, 10, 0.9, 1e6, 0.0)
OPTIMIZERS = list(MOMENTS)
FORMS = ["indices", "every step", "first step"]


def recurrent(architecture, layers=1, units=7, inputs=5, outputs=6, nonlinearity="tanh"):
    """A network with forget biases of its own."""
    biases = (1.5, 0.5)[: len(FORGETTING[architecture])]
    return RecurrentNetwork(architecture, layers, units, inputs, outputs, nonlinearity, biases)


def started(network, optimizer="SGD", seed=3, matrix="orthogonal", scale=1.0):
    """A start whose gates differ, and in which nothing is 0."""
    gates = len(network.gates)
    scales = tuple(scale * (1 + gate / 8) for gate in range(gates))
    state = draw_recurrent_start(
        network, RecurrentStart(matrix, scales, scales, "normal", (0.5,) * gates), optimizer, seed
    )
    rng = np.random.default_rng(seed)
    flat = state["parameters"]
    return {**state, "parameters": flat + np.where(flat == 0, rng.normal(size=flat.shape) / 4, 0).astype(np.float32)}


def objective_of(kind, steps=4):
    """An objective for networks of six outputs, that leaves the last step unscored where it scores several."""
    if kind == "softmax":
        return Objective("softmax", 1, steps - 1, 2)
    if kind == "mean":
        return Objective("softmax", 1, steps - 1, 3, mean_over_steps=True)
    return Objective(kind, steps - 1, steps)


KINDS = ["softmax", "mean", "logistic", "squared"]


def sequences(network, objective, form, rows, seed=5, steps=4, streams=2):
    """A random batch."""
    rng = np.random.default_rng(seed)
    if form == "indices":
        inputs = rng.integers(0, network.inputs, (rows, steps, streams)).astype(np.int32)
    else:
        vectors = rng.normal(size=(rows, network.inputs)).astype(np.float32)
        inputs = Shown(vectors, steps, form == "every step")
    if objective.kind == "softmax":
        classes = network.outputs // objective.groups
        return Sequences(inputs, rng.integers(0, classes, (rows, objective.scored, objective.groups)))
    if objective.kind == "logistic":
        return Sequences(inputs, rng.integers(0, 2, (rows, network.outputs)).astype(np.uint8))
    return Sequences(inputs, rng.normal(size=(rows, network.outputs)).astype(np.float32))


@st.composite
def cases(draw):
    """A network, an objective, a form of inputs, rows and steps."""
    kind = draw(st.sampled_from(KINDS))
    steps = draw(st.integers(3 if kind in ("softmax", "mean") else 1, 8))
    network = recurrent(
        draw(st.sampled_from(list(GATES))),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 20)),
        6 * draw(st.integers(1, 6)),
        draw(st.sampled_from(["tanh", "relu"])),
    )
    return network, objective_of(kind, steps), draw(st.sampled_from(FORMS)), draw(st.integers(1, 70)), steps


def descents():
    """Descents by every optimizer, that clip or do not."""
    return st.builds(
        RecurrentDescent,
        st.sampled_from(OPTIMIZERS),
        st.sampled_from([0.001, 0.1]),
        st.sampled_from([0.01, 1.0]),
        st.just(10),
        st.sampled_from([0.75, 0.99]),
        st.sampled_from([1e-3, 100.0]),
        st.sampled_from([0.0, 1e-3]),
    )
