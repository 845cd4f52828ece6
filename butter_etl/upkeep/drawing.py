"""Drawing a sample of runs: by a seed, so that nobody chose them, and anybody can draw them again.

The runs that are drawn are those whose SHA-256 of ``SEED/RUN_ID`` comes first: no generator of a library takes part,
and the order in which runs are listed does not matter.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final

from butter_etl.errors import SelectError

#: How runs are drawn, for people.
RULE: Final = "the runs whose SHA-256 of 'SEED/RUN_ID' comes first"
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def sample_size(sample: str, rows: int) -> int:
    """Return how many of so many rows a sample has: ``0.1%`` of them, rounded up, or a number of them, at least one.

    Raises SelectError for anything else, and for more than there are.
    """
    share = _SHARE.fullmatch(sample.strip())
    if share is None and not sample.strip().isdecimal():
        raise SelectError(f"--sample {sample!r}: write a share like 0.1%, or a number of runs")
    size = math.ceil(Fraction(share.group(1)) * rows / 100) if share else int(sample)
    if not 0 < size <= rows:
        raise SelectError(f"--sample {sample!r}: comes to {size:,} of {rows:,} runs")
    return size


def draw(run_ids: Iterable[str], seed: int, size: int) -> list[str]:
    """Return so many of the runs, drawn by a seed, sorted."""
    return sorted(sorted(run_ids, key=lambda run_id: _place(seed, run_id))[:size])


def _place(seed: int, run_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{run_id}".encode()).digest()


def names_sha256(run_ids: Sequence[str]) -> str:
    """Return the SHA-256 of sorted run ids, a line each, in hex: what was drawn from."""
    digest = hashlib.sha256()
    for run_id in run_ids:
        digest.update(f"{run_id}\n".encode())
    return digest.hexdigest()
