"""What several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

#: A folder in the layout of PMLB's cache, with real files; tests that need one which is not there are skipped.
PMLB = Path(os.environ.get("BUTTER_ETL_TEST_PMLB") or Path(__file__).parents[2] / "shared" / "pmlb")


@pytest.fixture(scope="session")
def pmlb_dir() -> Path:
    """The folder of PMLB files; skips the test if there is none."""
    if not PMLB.is_dir():
        pytest.skip(f"no PMLB folder at {PMLB}; name one by BUTTER_ETL_TEST_PMLB")
    return PMLB
