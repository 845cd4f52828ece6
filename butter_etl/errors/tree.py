"""The named errors of the package.

Every message is one line that carries the values in question and the way out. The command line prints it as it is
with the error's ``kind`` in brackets, under which docs/errors.md (`butter-etl errors KIND`) says more, and exits with
its ``exit_code``::

    ButterError                 1  something failed
    ├── UsageError              2  the user asked for something that makes no sense
    │   ├── SpecError           2  an experiment or a sweep is malformed
    │   ├── SelectError         2  an unknown sweep, a malformed --where
    │   ├── StoreError          2  the store path is not a usable store
    │   ├── StudyError          2  a study is not known, or its declaration is not usable
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
    ├── PlaceError              1  a file or folder cannot be written, or not looked at
    ├── StorageError            1  an object store refuses something or cannot be reached
    ├── CheckpointError         1  a checkpoint could not be written, or is not one to go on from
    ├── DeviceMemoryError       1  a stack does not fit into the memory of a GPU
    ├── StaleSummaryError       1  summaries do not cover all runs that are there
    ├── OutputError             1  what a command printed could not be written
    ├── ClusterError            1  a cluster did not start or was lost
    └── ExtraError              1  an extra of the package is not installed
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

#: The operating system's error numbers where there is no space left, or none left for this user.
FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Its error numbers where it refuses a file or folder, and the ways out.
WAYS_OUT: Final[Mapping[int, str]] = {
    **dict.fromkeys(FULL_DISK, "make space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "ask its owner for permission, or name another place"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file is in the way: move it away, or name another place"),
    errno.EISDIR: "a folder is in the way: move it away, or name another place",
    errno.ENOENT: "make the folder that it is to be in, or name another place",
    errno.EROFS: "name another place, where files can be written",
    errno.ENAMETOOLONG: "name a place with shorter names",
    errno.ELOOP: "remove the link that leads in a circle",
    errno.ENOTEMPTY: "move away what is in it, or name another place",
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EFBIG, errno.EMLINK, errno.ENOTSUP, errno.ETXTBSY),
        "mend its file system, or name another place",
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files (`ulimit -n`)"),
}


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


class StudyError(UsageError):
    """A study is not known here, is declared otherwise than a store has it, or does not hold together."""

    kind = "study"


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


class PlaceError(ButterError):
    """A file or folder cannot be written, or not looked at: no permission, something in the way, a broken link."""

    kind = "place"


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


class StaleSummaryWarning(UserWarning):
    """Summaries that are looked at do not cover all runs that are there."""


class OutputError(ButterError):
    """Standard output could not be written whole; what the command did is done."""

    kind = "output"


class ClusterError(ButterError):
    """A cluster did not start, or was lost."""

    kind = "cluster"


class ExtraError(ButterError):
    """A command needs an extra of the package that is not installed; the message names it."""

    kind = "extra"


@contextmanager
def writing(place: object) -> Iterator[None]:
    """Raise what the operating system refuses while the block writes to a place as an error of ours, in one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in WAYS_OUT:
            raise
        raise refused(error, f"{place}: cannot be written") from error


def unwritten(error: OSError, message: str, kind: type[ButterError] | None = None) -> ButterError:
    """Return the error for what could not be written: FullDiskError for want of space, else one of ``kind``.

    Without ``kind`` that is LandingError.
    """
    return (FullDiskError if error.errno in FULL_DISK else kind or LandingError)(message)


def refused(error: OSError, what: str) -> PlaceError | FullDiskError:
    """Return the error of ours, in one line with the way out, for what the operating system refuses.

    ``what`` says which place cannot be what; the file that the operating system names is added.
    """
    number = error.errno or 0
    reason = os.strerror(number)
    name = error.filename if isinstance(error.filename, str) else ""
    where = f" ({name})" if name and not what.startswith(f"{name}:") else ""
    kind = FullDiskError if number in FULL_DISK else PlaceError
    return kind(f"{what}: {reason}{where}; {WAYS_OUT[number]}")


def one_line(error: object) -> str:
    """Return the text of another library's error as one line, for a message of ours."""
    return "; ".join(line.strip() for line in str(error).split("\n") if line.strip())


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` if one of the known words is close, else an empty text.

    Upper case, and ``-`` or blanks in place of ``_``, make no difference.
    """
    plain = {_plain(one): one for one in known}
    close = difflib.get_close_matches(_plain(word), plain, n=1)
    return f" (did you mean {plain[close[0]]!r}?)" if close else ""


def _plain(word: str) -> str:
    return word.casefold().replace("-", "_").replace(" ", "_")
