"""The frames of a store as values: of what kind each is, where it stands, what its rows go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

#: The folders of the frames of every study, in a store and in a whole export.
RUNS: Final = "all_runs"
SUMMARY: Final = "complete_summary"
EXECUTIVE: Final = "complete_executive_summary"
PRECISION: Final = "complete_precision"


@dataclass(frozen=True)
class Frame:
    """A frame: its ``kind``, as manifests call it, its folder in a store, and its schema, partition keys included.

    ``version`` is that of the statistics of its rows, a part of their fingerprints: where it is raised, they are
    computed anew. Runs, which are not computed from others, have none. An ``optional`` frame is in stores where it has
    been asked for.
    """

    kind: str
    folder: str
    schema: pa.Schema
    version: int | str | None = None
    optional: bool = False
