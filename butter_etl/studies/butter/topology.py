"""From a shape, a depth and a size to layer widths and the exact parameter count. Integers only.

The rules are the published system's: rounding is half to even (Python's `round`), the widest layer is found by
bisection, and of the candidates visited the one closest to the size wins.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any, NamedTuple

from butter_etl.errors import InfeasibleError
from butter_etl.studies.butter.experiments import HIDDEN_ACTIVATION, SHAPES, ExperimentSpec, Regularizer
from butter_etl.studies.identity import float_text, quoted

#: A topology is refused when its parameter count differs from the size by more than this share of it.
TOLERANCE = 0.2
_SEARCH_LIMIT = 2**30


class Topology(NamedTuple):
    """Widths of the dense layers, the output layer last, and the number of weights and biases."""

    widths: tuple[int, ...]
    num_free_parameters: int


def count_parameters(inputs: int, widths: tuple[int, ...]) -> int:
    """Count the weights and biases of a chain of dense layers; additions cost nothing."""
    total = 0
    for width in widths:
        total += (inputs + 1) * width
        inputs = width
    return total


def layer_widths(shape: str, first: int, depth: int, outputs: int) -> tuple[int, ...]:
    """Return the ``depth`` widths of a network of ``shape`` whose first layer is about ``first`` wide.

    The last width is ``outputs``. Raises ValueError for an unknown shape.
    """
    if shape in ("rectangle", "rectangle_residual"):
        return (first,) * (depth - 1) + (outputs,)
    if shape == "trapezoid":
        step = (first - outputs) / (depth - 1)
        return tuple(round(first - k * step) for k in range(depth))
    if shape == "exponential":
        ratio = math.exp(math.log(outputs / first) / (depth - 1))
        return tuple(max(outputs, round(first * ratio**k)) for k in range(depth))
    if shape.startswith("wide_first_"):
        divisor = int(shape.removeprefix("wide_first_").removesuffix("x"))
        return (first,) + (max(1, round(first / divisor)),) * (depth - 2) + (outputs,)
    raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")


@lru_cache(maxsize=1 << 17)
def closest_topology(shape: str, size: int, depth: int, inputs: int, outputs: int) -> Topology:
    """Return the candidate closest to ``size`` among those that the bisection visits; the first one on ties."""
    low, high = 1, _SEARCH_LIMIT
    best: Topology | None = None
    while low < high:
        candidate = (low + high) // 2
        widths = layer_widths(shape, candidate, depth, outputs)
        parameters = count_parameters(inputs, widths)
        if best is None or abs(parameters - size) < abs(best.num_free_parameters - size):
            best = Topology(widths, parameters)
        if parameters == size:
            break
        if parameters < size:
            low = candidate + 1
        else:
            high = candidate
    if best is None:  # the search interval holds at least one candidate
        raise AssertionError
    return best


def is_feasible(topology: Topology, size: int) -> bool:
    """Tell whether the parameter count is within 20 % of ``size`` (exactly 20 % is)."""
    return not abs(topology.num_free_parameters - size) / size > TOLERANCE


def find_topology(shape: str, size: int, depth: int, inputs: int, outputs: int) -> Topology:
    """Return the topology of an experiment; raise InfeasibleError beyond the tolerance."""
    topology = closest_topology(shape, size, depth, inputs, outputs)
    if not is_feasible(topology, size):
        raise InfeasibleError(
            f"no {shape} network of depth {depth} with {inputs} inputs and {outputs} outputs has a parameter count "
            f"within {TOLERANCE:.0%} of {size}: the closest has {topology.num_free_parameters}"
        )
    return topology


def is_residual(shape: str) -> bool:
    """Tell whether hidden layers after the first add their input to their output."""
    return shape.endswith("_residual")


def network_structure(spec: ExperimentSpec, inputs: int, widths: tuple[int, ...]) -> str:
    """Return the published `network_structure` JSON: nodes nested from the output layer down to the input node.

    Keys are sorted, with the type ``""`` and the label ``"&"`` last; an object used twice is spelled where it stands
    deepest, labelled, and is a string ``"*label"`` afterwards.
    """
    return _structure(inputs, widths, is_residual(spec.shape), spec.kernel_regularizer, spec.output_activation)


@lru_cache(maxsize=1024)  # experiments of one topology come one after the other
def _structure(
    inputs: int, widths: tuple[int, ...], residual: bool, penalty: Regularizer | None, output_activation: str
) -> str:
    regularizer = _regularizer_node(penalty)
    node: dict[str, Any] = {"inputs": [], "label": 0, "shape": [inputs], "": "NInput"}
    last = len(widths) - 1
    for index, width in enumerate(widths):
        dense: dict[str, Any] = {
            "activation": output_activation if index == last else HIDDEN_ACTIVATION,
            "activity_regularizer": None,
            "bias_regularizer": None,
            "inputs": [node],
            "kernel_regularizer": regularizer,
            "label": 0,
            "shape": [width],
            "": "NDense",
        }
        if residual and 0 < index < last:
            node = {"inputs": [dense, node], "label": 0, "shape": [width], "": "NAdd"}
        else:
            node = dense
    uses: dict[int, int] = {}
    _count_uses(node, uses)
    return _marshal(node, uses, {})


def _regularizer_node(regularizer: Regularizer | None) -> dict[str, Any] | None:
    return {regularizer.type: regularizer.factor, "type": regularizer.type} if regularizer else None


def _count_uses(value: Any, uses: dict[int, int]) -> None:
    if isinstance(value, dict):
        uses[id(value)] = uses.get(id(value), 0) + 1
        if uses[id(value)] == 1:
            for item in value.values():
                _count_uses(item, uses)
    elif isinstance(value, list):
        for item in value:
            _count_uses(item, uses)


def _marshal(value: Any, uses: dict[int, int], labels: dict[int, str]) -> str:
    if isinstance(value, list):
        return "[" + ",".join(_marshal(item, uses, labels) for item in value) + "]"
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, str):
        return quoted(value)
    if not isinstance(value, dict):
        return json.dumps(value)
    if id(value) in labels:
        return quoted("*" + labels[id(value)])
    named = sorted(key for key in value if key)
    parts = [f"{quoted(key)}:{_marshal(value[key], uses, labels)}" for key in named]
    if "" in value:
        parts.append(f'"":{quoted(value[""])}')
    if uses[id(value)] > 1:
        labels[id(value)] = _label(len(labels))
        parts.append(f'"&":{quoted(labels[id(value)])}')
    return "{" + ",".join(parts) + "}"


def _label(index: int) -> str:
    """Return label number ``index``, from 0: a, b, … z, aa, ab, …."""
    text = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        text = chr(ord("a") + letter) + text
    return text
