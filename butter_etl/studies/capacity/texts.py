"""Texts of 27 letters: cleaned as text8 was, and found in the data folder by the hash of their letters.

text8 itself is a file of that name, of 100,000,000 letters. Any other text is a file that ends in ``.txt``; sweep files
name it by the beginning of the SHA-256 of its letters, so that no other text is ever taken for it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from butter_etl.errors import DatasetError
from butter_etl.studies.capacity.tasks import LETTERS, letters_sha256

TEXT8: Final = "text8"
TEXT8_LETTERS: Final = 100_000_000
#: Digits of a hash that name a text.
HASH_DIGITS: Final = 16
_SPOKEN: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def clean(data: bytes) -> NDArray[np.uint8]:
    """Return the letters of a text, uint8, 0 to 25 for a to z and 26 for a space.

    Letters become small, digits are spelled out, whatever else there is is a space, and so are several in a row: what
    Mahoney's script made text8 of Wikipedia by, once marks were taken out.
    """
    small = data.lower()
    for digit, spoken in enumerate(_SPOKEN):
        small = small.replace(str(digit).encode(), f" {spoken} ".encode())
    spaced = re.sub(rb" +", b" ", small.translate(_TO_LETTERS))
    return _NUMBER_OF[np.frombuffer(spaced, np.uint8)]


_TO_LETTERS: Final = bytes(code if chr(code) in LETTERS else ord(" ") for code in range(256))
_NUMBER_OF: Final = np.full(256, 26, np.uint8)
_NUMBER_OF[np.frombuffer(LETTERS.encode(), np.uint8)] = np.arange(27)


def read_letters(path: Path) -> NDArray[np.uint8]:
    """Return the letters of a file; raise DatasetError where it cannot be read or has none."""
    try:
        status = path.stat()
        return _letters(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from error


@lru_cache(maxsize=8)
def _letters(path: Path, size: int, changed: int) -> NDArray[np.uint8]:
    del size, changed
    found = clean(path.read_bytes())
    if not (found < len(LETTERS) - 1).any():
        raise DatasetError(f"{path}: has no letters")
    return found


def text_id(letters: NDArray[np.uint8]) -> str:
    """Return the name of a text in sweep files: the beginning of the hash of its letters."""
    return letters_sha256(letters)[:HASH_DIGITS]


@lru_cache(maxsize=64)
def _id_of(path: Path, size: int, changed: int) -> str:
    return text_id(_letters(path, size, changed))


def find_letters(name: str | None, folder: Path) -> NDArray[np.uint8]:
    """Return the letters of the text that a cell names; None is text8. Raises DatasetError where it is not there."""
    if name is None:
        return _text8(folder / TEXT8)
    known = {}
    for path in sorted(folder.glob("*.txt")):
        status = path.stat()
        known[path] = _id_of(path, status.st_size, status.st_mtime_ns)
        if known[path] == name:
            return read_letters(path)
    there = ", ".join(f"{path.name} is {one}" for path, one in known.items()) or "there is no *.txt"
    raise DatasetError(f"text {name} is not in {folder} ({there})")


def _text8(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise DatasetError(
            f"{path} is not there; put text8 there (mattmahoney.net/dc/text8.zip, unpacked), or name another text by "
            "`text_sha256`"
        )
    found = read_letters(path)
    if found.size != TEXT8_LETTERS:
        raise DatasetError(f"{path} has {found.size} letters, text8 has {TEXT8_LETTERS}; name it by `text_sha256`")
    return found
