"""States of training as arrays and JSON: nothing that is read back is ever run.

A state is made of dicts, lists, tuples, texts, numbers and None, with arrays of NumPy and tensors of torch in it. It is
packed into named arrays: each array of it by itself, and around them a tree of JSON, as bytes.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from butter_etl.errors import CheckpointError

#: The name of the tree among the arrays; others are ``kept 0``, ``kept 1``, …
TREE: Final = "kept"
_KEY: Final = "\0"


def pack(state: Any) -> dict[str, NDArray[Any]]:
    """Return a state as named arrays. Raises CheckpointError for a part of it that is none of the kinds above."""
    arrays: dict[str, NDArray[Any]] = {}
    tree = json.dumps(_packed(state, arrays, "state"), separators=(",", ":")).encode()
    return {TREE: np.frombuffer(tree, np.uint8), **arrays}


def unpack(arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Return the state that `pack` made named arrays of."""
    return _unpacked(json.loads(arrays[TREE].tobytes()), arrays)


def _packed(value: Any, arrays: dict[str, NDArray[Any]], place: str) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        of = [_packed(one, arrays, f"{place}[{number}]") for number, one in enumerate(value)]
        return of if isinstance(value, list) else {_KEY: "tuple", "of": of}
    if isinstance(value, Mapping):
        # Keys may be numbers, as in states of optimizers.
        pairs = [[_packed(key, arrays, place), _packed(one, arrays, f"{place}.{key}")] for key, one in value.items()]
        return {_KEY: "dict", "of": pairs}
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value), arrays, {_KEY: "array"})
    if _is_tensor(value):
        return _tensor(value, arrays)
    raise CheckpointError(
        f"{place}: {type(value).__name__} cannot be kept: arrays, tensors, numbers, texts, lists and dicts can"
    )


def _array(value: NDArray[Any], arrays: dict[str, NDArray[Any]], said: dict[str, Any]) -> dict[str, Any]:
    name = f"{TREE} {len(arrays)}"
    arrays[name] = np.array(value)
    return {**said, "name": name}


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _tensor(value: Any, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Keep a tensor by its bytes, since NumPy lacks some of torch's types."""
    import torch

    flat = value.detach().cpu().contiguous().reshape(-1)
    kind = str(value.dtype).removeprefix("torch.")
    said = {_KEY: "tensor", "dtype": kind, "shape": list(value.shape)}
    return _array(flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, np.uint8), arrays, said)


def _unpacked(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_unpacked(one, arrays) for one in value]
    if not isinstance(value, dict):
        return value
    match value[_KEY]:
        case "tuple":
            return tuple(_unpacked(one, arrays) for one in value["of"])
        case "dict":
            return {_unpacked(key, arrays): _unpacked(one, arrays) for key, one in value["of"]}
        case "array":
            return np.array(arrays[value["name"]])
        case _:
            import torch

            kind, data = getattr(torch, value["dtype"]), torch.from_numpy(np.array(arrays[value["name"]]))
            return data.view(kind).reshape(value["shape"]) if data.numel() else torch.empty(value["shape"], dtype=kind)


# --- generators ---------------------------------------------------------------------------------------------------


def seed_random(seed: int) -> None:
    """Seed the generators of `random`, of NumPy and, where it is loaded, of torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (what functions of users may draw from)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def take_random() -> dict[str, Any]:
    """Return the states of the generators that `seed_random` seeds."""
    states: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state()}  # noqa: NPY002
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = torch.get_rng_state()
        states["cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return states


def restore_random(states: Mapping[str, Any]) -> None:
    """Put the generators back to where `take_random` found them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    if "torch" in states and (torch := sys.modules.get("torch")) is not None:
        torch.set_rng_state(states["torch"])
        if states["cuda"]:
            torch.cuda.set_rng_state_all(states["cuda"])
