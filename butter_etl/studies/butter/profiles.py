"""The schemas of BUTTER's run frames: that of the document and of our stores, and that of the enlarged release."""

from __future__ import annotations

from typing import Final

from butter_etl.engines import METRICS
from butter_etl.studies.butter.card import PUBLISHED_DATA
from butter_etl.studies.butter.columns import RUN_SCHEMA
from butter_etl.studies.butter.experiments import TEST_SPLIT_METHOD
from butter_etl.studies.profiles import SEED, Profile


def _v2_names() -> dict[str, str]:
    names = {name: name.replace(".", "_") for name in RUN_SCHEMA.names if "." in name}
    for metric in METRICS:
        names[f"val_{metric}"] = f"test_{metric}"
        names[metric] = f"train_{metric}"
    return names


#: The schema of the document and of our own stores, and that of the enlarged release of August 2022.
PROFILES: Final = {
    profile.name: profile
    for profile in (
        SEED,
        Profile(
            "oedi-2022-08",
            names=_v2_names(),
            constants={"early_stopping": None, "test_split_method": TEST_SPLIT_METHOD},
            source=PUBLISHED_DATA,
        ),
    )
}
