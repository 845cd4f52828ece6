"""Folders of the user's, where data sets and what machines were found to be are kept, for all stores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from butter_etl.errors import UsageError

#: The way out for users without a home.
NO_HOME: Final = "set HOME or XDG_CACHE_HOME to a folder of yours"


def data_folder(option: str | Path | None = None) -> Path:
    """Return the folder of data sets: ``option``, else BUTTER_ETL_DATA, else butter_etl/pmlb in the user's cache."""
    chosen = option or os.environ.get("BUTTER_ETL_DATA")
    if chosen:
        return expanded(chosen)
    cache = user_cache()
    if cache is None:
        raise UsageError(f"no folder is known to keep data sets in: {NO_HOME}, or name one by --data-dir")
    return cache / "pmlb"


def user_cache() -> Path | None:
    """Return the package's folder in the user's cache; None for a user without a home, as in some containers."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "butter_etl"
    except RuntimeError:
        return None


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` expanded. Raises UsageError where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: no such home folder is known: {NO_HOME}, or give a whole path") from error
