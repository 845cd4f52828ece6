"""The identity of experiments and runs: canonical JSON, and what is derived from it.

Two experiments are the same if and only if their canonical JSON is the same text. Everything else that names a run
(`run_id`, `seed`) is derived from that text and the repetition number. So a float has one spelling, the shortest that
gives it back in the type of its column, float32 unless a study says float64.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from butter_etl.errors import SpecError

_RUN_NAMESPACE = uuid.UUID("8b7f5d1e-64a3-5c0f-9a55-2f4f3e0c7d11")

Value = str | int | float | bool | None | tuple[str | int | float, ...]
FloatKind = Literal["float32", "float64"]

# The magnitudes that are spelled without exponent, from and below: all that float32 can hold.
_PLAIN_FROM, _PLAIN_BELOW = 1e-46, 1e39


@lru_cache(maxsize=4096)
def float_text(value: float, kind: FloatKind = "float32") -> str:
    """Return the shortest decimal that rounds to ``value`` in a type of float, without trailing zeros: `0.0001`.

    Numbers that float32 cannot hold have an exponent: without, a name in a path could be longer than file systems take.
    Of a canonical float32, both types give the same text. Every writer of canonical JSON and of hive paths uses this
    one function, so a number has one spelling.
    """
    if kind == "float64" and value and not _PLAIN_FROM <= abs(value) < _PLAIN_BELOW:
        return str(np.format_float_scientific(np.float64(value), unique=True, trim="-", exp_digits=1))
    text: str = np.format_float_positional(_rounded(value, kind), unique=True, trim="-")
    return "0" if text == "-0" else text


def canonical_float(value: float, name: str = "value", kind: FloatKind = "float32") -> float:
    """Return ``value`` as the float64 that `float_text` spells; raise SpecError if it is not finite in its type."""
    try:
        with np.errstate(over="ignore"):
            is_finite = bool(np.isfinite(_rounded(value, kind)))
    except OverflowError:  # a whole number above all floats, which may have more digits than a line
        raise SpecError(f"{name}: a whole number of {int(value).bit_length():,} bits is above all floats") from None
    if not is_finite:
        raise SpecError(f"{name}: {value!r} is not a finite number")
    return float(float_text(value, kind))


def _rounded(value: float, kind: FloatKind) -> np.floating[Any]:
    return np.float32(value) if kind == "float32" else np.float64(value)


def to_json(values: Mapping[str, Value]) -> str:
    """Return compact JSON with sorted keys, floats (which are canonical) as `float_text` spells them, nulls kept."""
    return "{" + ",".join([f"{quoted(key)}:{_json_value(values[key])}" for key in sorted(values)]) + "}"


def _json_value(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return float_text(value, "float64")
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
