"""Formats: how a study's runs stand in files of another kind than Parquet, as declared values.

A study declares those that its runs are published in, or come in. Everything else about them, from archives to
manifests, is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import pyarrow as pa

from butter_etl.studies.identity import Value

#: What stores and exports consist of, which is no study's format.
PARQUET: Final = "parquet"
_MOST_BYTES: Final = 64 * 2**20


class Readout(NamedTuple):
    """What a file of a format has: its runs, rows of the study's run schema with all of its columns.

    ``respelled`` says, line by line, what would be written otherwise than it was read.
    """

    rows: pa.Table
    respelled: tuple[str, ...] = ()


class Written(NamedTuple):
    """A file of a format, as it is written: its name, its content, and how many runs it has.

    The name is empty where the format has ``file`` tell it.
    """

    name: str
    data: bytes
    rows: int = 1


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of files. ``--format`` calls it ``name``, people one of its files a ``noun``; ``note`` says what it is.

    Names of its files end in ``suffix``, in lower case, and in nothing that archives or Parquet files end in.
    ``read(data, name)`` returns the runs of a file; it raises SourceError, one line that does not name the file. Files
    are held whole; larger ones than ``most_bytes`` are refused. ``write(rows)`` yields the files of rows of the run
    schema, the same for the same rows. Their names are unique among all runs of a study. ``folder(parameters)`` is the
    folder that files of an experiment are published in. Where ``file(parameters)`` names the file in it, the runs of
    all experiments that it names it for are written as one. ``doubt(parameters)`` says in a few words in what its runs
    are not what such a file says they are; None where they are that.
    """

    name: str
    noun: str
    note: str
    suffix: str
    media_type: str
    read: Callable[[bytes, str], Readout]
    write: Callable[[pa.Table], Iterable[Written]]
    folder: Callable[[Mapping[str, Value]], str]
    file: Callable[[Mapping[str, Value]], str] | None = None
    most_bytes: int = _MOST_BYTES
    doubt: Callable[[Mapping[str, Value]], str | None] = lambda parameters: None
