"""What several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Compiling on first use and busy machines make single examples slow; pytest-timeout guards the tests.
settings.register_profile("butter_etl", deadline=None)
settings.load_profile("butter_etl")

#: A folder in the layout of PMLB's cache, with real files; tests that need one which is not there are skipped.
PMLB = Path(os.environ.get("BUTTER_ETL_TEST_PMLB") or Path(__file__).parents[2] / "shared" / "pmlb")


@pytest.fixture(scope="session")
def pmlb_dir() -> Path:
    """The folder of PMLB files; skips the test if there is none."""
    if not PMLB.is_dir():
        pytest.skip(f"no PMLB folder at {PMLB}; name one by BUTTER_ETL_TEST_PMLB")
    return PMLB


@pytest.fixture(scope="session")
def client():
    """A client of a real cluster of two worker processes on this machine, encrypted as always."""
    from butter_etl.clusters import start_cluster

    with start_cluster(workers=2) as client:
        yield client
