"""The identity of experiments and runs: canonical JSON, and what is derived from it.

Two experiments are the same if and only if their canonical JSON is the same text. Everything else that names a run
(`run_id`, `seed`) is derived from that text and the repetition number.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from butter_etl.errors import SpecError

_RUN_NAMESPACE = uuid.UUID("8b7f5d1e-64a3-5c0f-9a55-2f4f3e0c7d11")

Value = str | int | float | bool | None | tuple[str | int | float, ...]


@lru_cache(maxsize=4096)
def float_text(value: float) -> str:
    """Return the shortest decimal that rounds to ``value`` as float32, without exponent or trailing zeros: `0.0001`."""
    text: str = np.format_float_positional(np.float32(value), unique=True, trim="-")
    return "0" if text == "-0" else text


def canonical_float(value: float, name: str = "value") -> float:
    """Return ``value`` as the float64 that `float_text` spells; raise SpecError if it is not finite in float32."""
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(np.float32(value))
    if not is_finite:
        raise SpecError(f"{name}: {value!r} is not a finite number")
    return float(float_text(value))


@lru_cache(maxsize=4096)
def exact_text(value: float) -> str:
    """Return the shortest decimal that stands for ``value`` as float64, without exponent or trailing zeros.

    Of a `canonical_float` that is what `float_text` says.
    """
    text: str = np.format_float_positional(np.float64(value), unique=True, trim="-")
    return "0" if text == "-0" else text


def finite_float(value: float, name: str = "value") -> float:
    """Return ``value`` as the float64 that `exact_text` spells; raise SpecError if it is not finite."""
    if not math.isfinite(value):
        raise SpecError(f"{name}: {value!r} is not a finite number")
    return 0.0 if value == 0 else float(value)


def to_json(values: Mapping[str, Value]) -> str:
    """Return compact JSON with sorted keys, floats (which are canonical) as `exact_text` spells them, nulls kept."""
    return "{" + ",".join([f"{quoted(key)}:{_json_value(values[key])}" for key in sorted(values)]) + "}"


def _json_value(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return exact_text(value)
    if isinstance(value, tuple | list):
        return f"[{','.join(map(_json_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


@lru_cache(maxsize=4096)
def quoted(text: str) -> str:
    """Return a text as JSON spells it; cached, since the same few names and values are spelled millions of times."""
    return json.dumps(text)


def run_id(canonical_json: str, repetition: int) -> str:
    """Return the id of a run: a UUIDv5 (RFC 4122) of its experiment's canonical JSON and its repetition number."""
    return str(uuid.UUID(bytes=_digest(canonical_json, repetition)[:16], version=5))


def run_seed(canonical_json: str, repetition: int) -> int:
    """Return the top 63 bits of the same SHA-1: a non-negative int64 that keys all random streams of the run."""
    return int.from_bytes(_digest(canonical_json, repetition)[:8], "big") >> 1


def _digest(canonical_json: str, repetition: int) -> bytes:
    name = f"{canonical_json}#{repetition}"
    return hashlib.sha1(_RUN_NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest()
