"""Records of repetitions that could not be trained, a small file each in the state folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from butter_etl.errors import TornFileError


class Failure(msgspec.Struct, frozen=True):
    """Record of repetitions of an experiment that could not be trained, and why.

    ``time`` is in unix seconds; ``kind`` is that of a named error.
    """

    experiment_id: int
    experiment: str
    repetitions: list[int]
    error: str
    details: str
    host: str
    time: int
    job_id: str | None = None
    kind: str = ""

    @property
    def file_name(self) -> str:
        """Return the record's file name, which is the same for the same repetitions."""
        return f"{self.experiment_id}-{self.repetitions[0]}-{self.repetitions[-1]}.json"

    def is_missing(self, present: Mapping[int, int]) -> bool:
        """Tell whether any of the repetitions has not landed since; ``present`` has a bit mask by experiment id."""
        mask = present.get(self.experiment_id, 0)
        return any(not mask >> repetition & 1 for repetition in self.repetitions)


def read_failure(path: Path) -> Failure:
    """Read the record of a failure; raise TornFileError for a file that is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Failure)
    except msgspec.DecodeError as error:
        raise TornFileError(
            f"{path} is no record of a failure ({error}); `butter-etl verify --repair` moves it away"
        ) from error
