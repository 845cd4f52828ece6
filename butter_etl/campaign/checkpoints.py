"""Checkpoints: stacks that were stopped between two steps, in files that can be trusted.

A file holds all that `butter_etl.campaign.stacks.train_stack` needs to go on, and nothing that runs when it is read::

    magic · length of the header, 8 bytes · header, JSON · arrays, as the header lists them · SHA-256 of all before

It is written aside, synced and renamed, so a reader sees a whole file or none. What is torn all the same, was made by
other versions of what results depend on, or is of another stack, is found out on reading. How to use them::

    checkpoints = Checkpoints(store.state, store.study)
    unfinished = checkpoints.read(stack)         # None: from the start

    def watch(points, take):                     # called between points, and every few seconds within them
        if time_to_keep_or_to_end():
            checkpoints.write(take())
        if time_to_end():
            raise Yielded                        # any exception of the caller's

    tables = train_stack(study, stack, data, resume=unfinished, watch=watch)
    ...                                          # land the tables
    checkpoints.discard(stack)
"""

from __future__ import annotations

import hashlib
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np

from butter_etl.campaign.stacks import Item, Stack, Unfinished
from butter_etl.engines import package_version
from butter_etl.errors import CheckpointError, one_line, unwritten
from butter_etl.store import files_in, sync_folder, write_durably
from butter_etl.studies import State, Study

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_MAGIC = b"butter_etl checkpoint 1\n"
_LENGTH = 8
_DIGEST = hashlib.sha256().digest_size

#: The packages that the bits of a result may depend on, besides the processor.
_PACKAGES = ("butter-etl", "numpy", "scipy", "numba", "llvmlite", "torch")

logger = logging.getLogger(__name__)


class _Array(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class _Header(msgspec.Struct, frozen=True):
    stack: Any
    versions: dict[str, str]
    core_seconds: float
    started: int
    cpu_families: tuple[str, ...]
    arrays: tuple[_Array, ...]
    shared: tuple[str, ...] = ()
    environment: str | None = None


class Checkpoints:
    """The checkpoints in the state folder of a store of some study, a file a stack."""

    def __init__(self, state: Path, study: Study) -> None:
        self._folder, self._study = state / "checkpoints", study

    def path(self, stack: Stack) -> Path:
        """Return where the checkpoint of a stack lies, whether it is there or not."""
        digest = hashlib.sha256(msgspec.json.encode(stack)).hexdigest()
        return self._folder / f"{stack.items[0].experiment_id}-{digest[:16]}.checkpoint"

    def write(self, unfinished: Unfinished) -> int:
        """Write a stack's checkpoint durably, in place of the one that may be there; return its size in bytes.

        Raises CheckpointError, or FullDiskError, if it cannot be written; the earlier one is then still there.
        """
        path = self.path(unfinished.stack)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = write_durably(self._folder, lambda file: _write(file, unfinished))
            size = temporary.stat().st_size
            temporary.replace(path)
            sync_folder(self._folder)
        except OSError as error:
            raise unwritten(error, f"{path}: cannot be written ({one_line(error)})", CheckpointError) from error
        return size

    def read(self, stack: Stack) -> Unfinished | None:
        """Return what a stack goes on from; None if it is to start at the beginning.

        A file that is torn, or that this version cannot go on from, is removed, with a warning in the log.
        """
        path = self.path(stack)
        try:
            return read_checkpoint(path, stack, self._study)
        except FileNotFoundError:
            return None
        except CheckpointError as error:
            logger.warning("%s; it is removed, and the stack starts from the beginning", error)
            path.unlink(missing_ok=True)
            return None

    def discard(self, stack: Stack) -> None:
        """Remove a stack's checkpoint, if there is one: its runs have landed."""
        self.path(stack).unlink(missing_ok=True)

    def stacks(self) -> list[Stack]:
        """Return the stacks that have a checkpoint, as far as their files can be made out; contents are not checked."""
        found = []
        for path in files_in(self._folder, ".checkpoint"):
            try:
                with path.open("rb") as file:
                    found.append(_read_header(path, file, self._study).stack)
            except (FileNotFoundError, CheckpointError):  # landed meanwhile; or `read` will say so
                continue
        return found


def read_checkpoint(path: Path, stack: Stack, study: Study) -> Unfinished:
    """Return what ``stack`` goes on from, as a file has it, checked.

    Raises FileNotFoundError, and CheckpointError for a file that is torn, was made by other versions, or is of another
    stack.
    """
    with path.open("rb") as file:
        header = _read_header(path, file, study)
        begin = file.tell()
        file.seek(0)
        content = memoryview(file.read())
    if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
        raise CheckpointError(f"{path}: it is torn")
    ours = _versions()
    if header.versions != ours:
        other = [f"{name} {header.versions.get(name)}" for name in ours if header.versions.get(name) != ours[name]]
        raise CheckpointError(f"{path}: it was made by other versions ({', '.join(other)})")
    if header.stack != stack:
        raise CheckpointError(f"{path}: it is of another stack")
    state = _state_of(_split(content[begin:], header.arrays), header.shared)
    return Unfinished(stack, state, header.core_seconds, header.started, header.cpu_families, header.environment)


def _read_header(path: Path, file: BinaryIO, study: Study) -> _Header:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise CheckpointError(f"{path}: it is torn, or no checkpoint of this version")
    length = int.from_bytes(file.read(_LENGTH), "little")
    try:
        header = msgspec.json.decode(file.read(min(length, path.stat().st_size)), type=_Header)
        return msgspec.structs.replace(header, stack=_stack_of(header.stack, study))
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: it is torn, or of another study ({one_line(error)})") from error


def _stack_of(raw: Any, study: Study) -> Stack:
    """Return a stack as a header has it; its experiments are of the study's class."""
    stack = msgspec.convert({**raw, "items": []}, Stack)
    items = (
        Item(
            msgspec.convert(item["spec"], study.experiment),
            item["experiment_id"],
            item["batch"],
            tuple(item["repetitions"]),
            tuple((repetition, given) for repetition, given in item.get("given", ())),
        )
        for item in raw["items"]
    )
    return msgspec.structs.replace(stack, items=tuple(items))


def _split(content: memoryview, arrays: Sequence[_Array]) -> dict[str, NDArray[Any]]:
    """Return the arrays that lie one after the other in ``content``, by name; read-only views."""
    found: dict[str, NDArray[Any]] = {}
    begin = 0
    for array in arrays:
        values = np.frombuffer(content, array.dtype, math.prod(array.shape), begin).reshape(array.shape)
        found[array.name] = values
        begin += values.nbytes
    return found


def _write(file: BinaryIO, unfinished: Unfinished) -> None:
    digest = hashlib.sha256()
    for piece in _pieces(unfinished):
        digest.update(piece)
        file.write(piece)
    file.write(digest.digest())


def _pieces(unfinished: Unfinished) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a file, but for the digest; the arrays are not copied."""
    arrays = {name: _plain(name, array) for name, array in _arrays_of(unfinished.state)}
    header = msgspec.json.encode(
        _Header(
            unfinished.stack,
            _versions(),
            unfinished.core_seconds,
            unfinished.started,
            unfinished.cpu_families,
            tuple(_Array(name, array.dtype.str, array.shape) for name, array in arrays.items()),
            tuple(sorted(unfinished.state.shared)),
            unfinished.environment,
        )
    )
    yield _MAGIC + len(header).to_bytes(_LENGTH, "little") + header
    for array in arrays.values():
        yield array.reshape(-1).view(np.uint8).data


def _plain(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as its bytes tell all of it; raise CheckpointError where they do not."""
    if array.dtype.hasobject or array.dtype.names is not None:
        raise CheckpointError(f"array {name!r} of a state has the type {array.dtype}: only plain numbers can be kept")
    return np.asarray(array, order="C")


#: The names of the arrays that every state has, beside the trainer's own.
_POINTS, _STEPS = "epochs", "steps"
#: What is put before the name of a trainer's own array that would be taken for another.
_OWN = "own "


def _own_name(name: str) -> str:
    return f"{_OWN}{name}" if name in (_POINTS, _STEPS) or name.startswith(_OWN) else name


def _arrays_of(state: State) -> Iterator[tuple[str, NDArray[Any]]]:
    yield _POINTS, state.points
    if state.steps.any():
        yield _STEPS, state.steps
    for name, array in state.arrays.items():
        yield _own_name(name), array


def _state_of(arrays: dict[str, NDArray[Any]], shared: tuple[str, ...]) -> State:
    """Return the state that `_arrays_of` made the arrays of."""
    points = arrays.pop(_POINTS)
    steps = arrays.pop(_STEPS, np.zeros_like(points))
    own = {name.removeprefix(_OWN): array for name, array in arrays.items()}
    return State(points, steps, own, frozenset(shared))


def _versions() -> dict[str, str]:
    return {name: package_version(name) or "none" for name in _PACKAGES}
