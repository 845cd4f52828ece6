"""The named errors of the package.

Every message is one line that carries the values in question and the way out. The command line prints it as it is
with the error's ``kind`` in brackets, under which docs/errors.md (`butter-etl errors KIND`) says more, and exits with
its ``exit_code``::

    ButterError                 1  something failed
    ├── UsageError              2  the user asked for something that makes no sense
    │   ├── SpecError           2  an experiment or a sweep is malformed
    │   ├── SelectError         2  an unknown sweep, a malformed --where
    │   ├── StoreError          2  the store path is not a usable store
    │   └── ClusterFileError    2  a site file is malformed
    ├── InfeasibleError         1  no topology within 20 % of the size wanted
    ├── DatasetError            1  a data set is missing, damaged, or not what it should be
    ├── TornFileError           1  a Parquet file of a store cannot be read
    ├── SourceError             1  a source of an import cannot be read as runs
    ├── DuplicateError          1  two different runs have one run_id
    ├── LandingError            1  rows could not be written durably
    │   └── FullDiskError       1  there is no space left for them
    ├── AttemptsError           1  runs were begun too often without getting further
    │   └── WorkerMemoryError   1  they need more memory than a worker has
    ├── CampaignError           1  a campaign was stopped, since nothing it did succeeded
    ├── StorageError            1  an object store refuses something or cannot be reached
    ├── CheckpointError         1  a checkpoint could not be written, or is not one to go on from
    ├── DeviceMemoryError       1  a stack does not fit into the memory of a GPU
    ├── StaleSummaryError       1  summaries do not cover all runs that are there
    └── ClusterError            1  a cluster did not start or was lost
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Final

#: The operating system's error numbers where there is no space left, or none left for this user.
FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class ButterError(Exception):
    """Base of all errors that the package raises on purpose."""

    kind = "error"
    exit_code = 1


class UsageError(ButterError):
    """The user asked for something that makes no sense: an unknown name, a malformed file, no store."""

    kind = "usage"
    exit_code = 2


class SpecError(UsageError):
    """An experiment or a sweep is malformed; the message names the place."""

    kind = "spec"


class SelectError(UsageError):
    """An unknown sweep, a malformed condition, an impossible number of repetitions."""

    kind = "select"


class StoreError(UsageError):
    """The path is not a usable store (a file, a folder that is no store, another format version)."""

    kind = "store"


class ClusterFileError(UsageError):
    """A site file is malformed; the message names the file and the key."""

    kind = "cluster-file"


class InfeasibleError(ButterError):
    """No topology of the shape and depth has a parameter count within 20 % of the size."""

    kind = "infeasible"


class DatasetError(ButterError):
    """A data set is missing, damaged, or differs from what its name stands for."""

    kind = "dataset"


class TornFileError(ButterError):
    """A Parquet file of a store or export cannot be read; the message names it."""

    kind = "torn-file"


class SourceError(ButterError):
    """A source of an import cannot be read as runs; the message names the file and the column."""

    kind = "source"


class DuplicateError(ButterError):
    """Two different runs have one run_id; the message names them."""

    kind = "duplicate"


class LandingError(ButterError):
    """Rows could not be written durably."""

    kind = "landing"


class FullDiskError(LandingError):
    """There is no space left to write to."""

    kind = "full-disk"


class AttemptsError(ButterError):
    """The same runs were begun too often without getting further."""

    kind = "attempts"


class WorkerMemoryError(AttemptsError):
    """What was to be done needs more memory than a worker has; the message says how much there was."""

    kind = "memory"


class CampaignError(ButterError):
    """A campaign was stopped, since what it met would meet every further task too."""

    kind = "campaign"


class StorageError(ButterError):
    """An object store refuses something or cannot be reached; nothing is wrong with what it holds."""

    kind = "storage"


class CheckpointError(ButterError):
    """A checkpoint could not be written, or is torn, of other versions, or of another stack; the message names it."""

    kind = "checkpoint"


class DeviceMemoryError(ButterError):
    """A stack does not fit into the memory of a GPU: train fewer runs side by side."""

    kind = "device-memory"


class StaleSummaryError(ButterError):
    """Summaries do not cover all runs that are there."""

    kind = "stale-summary"


class ClusterError(ButterError):
    """A cluster did not start, or was lost."""

    kind = "cluster"


def one_line(error: object) -> str:
    """Return the text of another library's error as one line, for a message of ours."""
    return "; ".join(line.strip() for line in str(error).split("\n") if line.strip())


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` if one of the known words is close, else an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
