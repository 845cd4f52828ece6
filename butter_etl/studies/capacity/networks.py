"""Networks and their descent as engines take them, made of a cell and the hyperparameters of a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

from butter_etl.engines import (
    FORGETTING,
    GATES,
    RecurrentDescent,
    RecurrentNetwork,
    RecurrentStart,
    largest_units,
)
from butter_etl.errors import InfeasibleError
from butter_etl.studies.capacity.experiments import SearchCell
from butter_etl.studies.capacity.hyperparameters import Hparams
from butter_etl.studies.capacity.tasks import sizes

#: The cell in whose first layer inputs and outputs are as wide as each other needs a layer of another kind below.
_NEVER_ALONE: Final = "+rnn"


@lru_cache(maxsize=4096)
def network_of(cell: SearchCell) -> RecurrentNetwork:
    """Return the widest network within a cell's budget, its hyperparameters left out.

    Raises InfeasibleError where there is none: a budget too small for a single unit, or an architecture that takes more
    than one layer.
    """
    if cell.architecture == _NEVER_ALONE and cell.n_layers == 1:
        raise InfeasibleError(f"{cell.architecture} takes at least 2 layers, not 1")
    inputs, outputs = sizes(cell)
    architecture: Any = cell.architecture
    units = largest_units(architecture, cell.n_layers, inputs, outputs, cell.max_params)
    if not units:
        least = _network(cell, 1, inputs, outputs).parameters
        raise InfeasibleError(
            f"max_params {cell.max_params} is too small: {cell.task_type} takes {least} parameters with one unit in "
            f"each of {cell.n_layers} layers of {cell.architecture}"
        )
    return _network(cell, units, inputs, outputs)


def _network(cell: SearchCell, units: int, inputs: int, outputs: int, **more: Any) -> RecurrentNetwork:
    architecture: Any = cell.architecture
    biases = more.pop("forget_bias", (0.0,) * len(FORGETTING[architecture]))
    return RecurrentNetwork(architecture, cell.n_layers, units, inputs, outputs, forget_bias=biases, **more)


def trial_network(cell: SearchCell, hparams: Hparams) -> RecurrentNetwork:
    """Return the network of a trial."""
    whole = network_of(cell)
    forgetting = FORGETTING[whole.architecture]
    keys = [f"forget_gate_bias_hack_{one.removeprefix('g')}" for one in forgetting]
    if len(forgetting) == 1:
        keys = ["forget_gate_bias_hack"]
    biases = tuple(float(hparams[key]) for key in keys)
    nonlinearity = hparams.get("nonlinearity", "tanh")
    return _network(cell, whole.units, whole.inputs, whole.outputs, nonlinearity=nonlinearity, forget_bias=biases)


def descent_of(hparams: Hparams) -> RecurrentDescent:
    """Return how a trial descends; momentum is the logistic function of its logit."""
    values = cast("Mapping[str, Any]", hparams)
    return RecurrentDescent(
        optimizer=values["optimizer"],
        learning_rate=float(values["lr_init"]),
        decay=float(values["lr_decay_rate"]),
        steps=int(values["train_steps"]),
        momentum=1.0 / (1.0 + math.exp(-float(values["optimizer_logit_momentum"]))),
        clip=float(values["gradient_clip_val"]),
        l2=float(values["l2_decay"]),
    )


def start_of(cell: SearchCell, hparams: Hparams) -> RecurrentStart:
    """Return how a trial's start is drawn."""
    values, gates = cast("Mapping[str, Any]", hparams), GATES[network_of(cell).architecture]

    def scales(key: str) -> tuple[float, ...]:
        return tuple(float(values.get(f"{key}_{gate}", 1.0)) for gate in gates)

    return RecurrentStart(
        matrix=values["recurrent_matrix_init_type"],
        matrix_scale=scales("recurrent_matrix_scale"),
        input_scale=scales("input_scale"),
        bias="constant" if values["recurrent_bias_init_type"] == "delta" else "normal",
        bias_scale=scales("recurrent_bias_scale"),
    )


#: Streams of symbols that networks are shown, by task: each adds a row of weights, and multiplies nothing.
_STREAMS: Final[Mapping[str, int]] = {"text8": 1, "parens_counting": 10, "arithmetic": 1}


def products(cell: SearchCell) -> int:
    """Return about how many multiplications a cell's network takes at each step of a sequence, of matrices alone."""
    network = network_of(cell)
    gates, units = len(GATES[network.architecture]), network.units
    shown = _STREAMS.get(cell.task_type, network.inputs)
    inputs = shown + units * (network.layers - (0 if network.reads_in else 1))
    return gates * units * (inputs + network.layers * units)
