"""The text of Debian's package bible-kjv-text, for tests of what is learned of texts."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest

_FILE = Path("/usr/lib/bible.data")
#: The first block begins behind a table of where blocks are; each is what `compress` writes, without its first bytes.
_TABLE, _COMPRESSED = 88, b"\x1f\x9d\x90"


@cache
def read_bible() -> bytes:
    """Return the text; skip the test where the package is not installed."""
    if not _FILE.exists():
        pytest.skip("the text of Debian's package bible-kjv-text is not installed")
    data = _FILE.read_bytes()
    count = int.from_bytes(data[_TABLE : _TABLE + 4], "big")
    table = data[_TABLE + 4 : _TABLE + 4 + 4 * count]
    starts = [int.from_bytes(table[place : place + 4], "big") for place in range(0, len(table), 4)]
    blocks = [data[first:last] for first, last in zip(starts, [*starts[1:], len(data)], strict=True)]
    unpacked = [
        subprocess.run(["gzip", "-dc"], input=_COMPRESSED + block, capture_output=True, check=True).stdout
        for block in blocks
    ]
    return b"".join(unpacked)
