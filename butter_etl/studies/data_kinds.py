"""Users' own data: what a study says of data sets that sweep files declare, so that a store can keep and compare them.

A declared data set is a file with a declaration. Its content is what networks see of it; a store keeps a copy of that
under the data set's name, and an experiment's identity holds its hash. What declarations, contents and data sets are
is the study's affair; every part that passes them on knows these protocols alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from butter_etl.errors import SpecError
from butter_etl.studies.experiments import Experiment

if TYPE_CHECKING:
    import pyarrow as pa

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")


def check_data_name(name: str, known: Container[str], place: str) -> None:
    """Raise SpecError, naming the place, for what can be no name of a user's own data set; ``known`` has them all."""
    if not is_data_name(name):
        raise SpecError(f"{place}: a name is up to 100 letters, digits, _, - and ., not beginning with - or .")
    if name in known:
        raise SpecError(f"{place}: {name!r} is the name of a data set that comes with the package; choose another")


def is_data_name(name: str) -> bool:
    """Tell whether a text can be the name of a data set: that of a file and a folder, too."""
    return _NAME.fullmatch(name) is not None


class OwnInfo(Protocol):
    """The description of a user's own data set; equal ones have one name and one content. It can be hashed."""

    @property
    def name(self) -> str:
        """Return the name."""
        ...

    @property
    def content(self) -> str:
        """Return the SHA-256 of the content, in hexadecimal, as identities of experiments hold it."""
        ...

    def __hash__(self) -> int: ...


class Footer(Protocol):
    """What the footer of a copy says of its data set; a `msgspec.Struct`.

    ``details`` are what became of the parts of the file that it was made from.
    """

    @property
    def name(self) -> str:
        """Return the name of the data set."""
        ...

    @property
    def info(self) -> OwnInfo:
        """Return the description of the data set."""
        ...

    @property
    def declaration(self) -> Any:
        """Return how it was declared."""
        ...

    @property
    def details(self) -> Sequence[Any]:
        """Return what became of the parts of its file; none where the copy does not tell."""
        ...


class DataSource(NamedTuple):
    """The file that a content was read from: its name, and the SHA-256 of its bytes."""

    name: str
    sha256: str


class Encoded(NamedTuple):
    """A content as a copy has it: its footer, the rows, and how many of these a row group has."""

    footer: Footer
    table: pa.Table
    group_rows: int


class DataKind(Protocol):
    """A kind of users' own data sets; it can be hashed.

    Declarations are of the study's reader (`SweepReader.declarations`), and tell by ``means_the_same(other)`` whether
    they differ at most in where the file is. Contents, as `load_content` returns them, have their ``info``, an
    `OwnInfo`; data sets, as tasks get them from `decode`, have their ``sha256``.
    """

    def __hash__(self) -> int: ...

    @property
    def footer(self) -> type[Any]:
        """Return the class of footers."""
        ...

    @property
    def heads(self) -> tuple[str, str]:
        """Return the heads of the two columns that `describe_details` fills."""
        ...

    def info_of(self, one: Experiment) -> OwnInfo | None:
        """Return the user's own data set that an experiment learns from; None if it learns from another."""
        ...

    def find_source(self, declaration: Any, folder: Path, directory: str | Path | None) -> Path | None:
        """Return the file of a declaration in a sweep file in ``folder``; None if it is not there."""
        ...

    def fetch_source(self, declaration: Any, folder: Path, directory: str | Path | None, place: str) -> Path:
        """Return the file of a declaration; it may be downloaded to ``directory``. DatasetError if it cannot be had."""
        ...

    def describe(self, name: str, declaration: Any, path: Path, place: str) -> OwnInfo:
        """Describe a declared data set; remembered while its file stays as it is. Raises what `load_content` raises."""
        ...

    def details(self, name: str, declaration: Any, path: Path, place: str) -> Sequence[Any]:
        """Say what became of the parts of a declared data set's file; remembered, and raises, as `describe`."""
        ...

    def load_content(self, name: str, declaration: Any, path: Path, place: str) -> Any:
        """Read and check the file of a declaration.

        Raises DatasetError for what is wrong with it, SpecError for a declaration that does not fit it.
        """
        ...

    def encode(self, content: Any, declaration: Any, source: DataSource) -> Encoded:
        """Return a content as a copy has it."""
        ...

    def decode(self, info: Any, table: pa.Table) -> Any:
        """Return the data set of a copy's rows; raise ValueError or KeyError for those of another shape."""
        ...

    def differences(self, known: Any, content: Any, kept: Any, read: Callable[[], Any]) -> Iterator[str]:
        """Say how a content differs from the data set ``known``, the most telling difference first.

        ``kept`` is the footer of the copy of ``known``, or None; ``read`` returns the data set of the copy.
        """
        ...

    def spoken(self, info: Any) -> str:
        """Return a data set's extent for people."""
        ...

    def facts(self, info: Any, details: Sequence[Any]) -> Mapping[str, Any]:
        """Return what there is to know of a data set, for programs."""
        ...

    def describe_details(self, details: Sequence[Any]) -> list[tuple[str, str]]:
        """Return for people what became of the parts of a file: pairs of which, and how."""
        ...

    def doubt_lines(self, name: str, details: Sequence[Any]) -> Iterator[str]:
        """Yield a warning for each part of a file that is probably not what it was meant to be."""
        ...
