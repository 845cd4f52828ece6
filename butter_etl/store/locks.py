"""Exclusive lock files on shared file systems.

A lock is a file that came into being by a hard link, which is atomic on NFS, Lustre and GPFS alike; `flock` is not
dependable on all of them. It says who holds it. A lock is taken over when its holder was a process of this machine that
is no more, or when it is older than `STALE_SECONDS` by the file server's own clock.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import TracebackType

import msgspec

from butter_etl.errors import FULL_DISK, LandingError
from butter_etl.store.files import new_folder

STALE_SECONDS = 120.0
_TIMEOUT_SECONDS = 600.0
_LONGEST_PAUSE = 0.5
#: The error numbers of one who may not write to a folder, or of a disk that takes nothing.
_ONLY_LOOKING = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, *FULL_DISK})


class Holder(msgspec.Struct, frozen=True):
    """Holder of a lock: a token of this one acquisition, and the process that made it."""

    token: str
    machine: str
    pid: int
    started: str
    host: str


@cache
def _machine() -> str:
    """Return an id of this kernel instance and process-id namespace, in which a process id is unique."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux: judge by age alone
        return f"unknown/{uuid.uuid4().hex}"


def _start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty if there is none. Guards against reused ids."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


class FileLock:
    """``with FileLock(path) as lock``: nobody else holds it; raises LandingError after ten minutes of waiting."""

    def __init__(self, path: Path, timeout: float = _TIMEOUT_SECONDS) -> None:
        self.path = path
        self._timeout = timeout
        self._holder = this_process()

    def __enter__(self) -> FileLock:
        with new_folder(self.path.parent):
            self._acquire()
        return self

    def _acquire(self) -> None:
        deadline = time.monotonic() + self._timeout
        pause = 0.002
        while not (create_exclusively(self.path, self._holder) or self._take_over()):
            if time.monotonic() > deadline:
                raise LandingError(f"{self.path}: still locked by {read_holder(self.path)} after {self._timeout:.0f} s")
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_held():
            self.path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Tell whether the lock is still ours (a process that slept too long may have lost it)."""
        holder = read_holder(self.path)
        return holder is not None and holder.token == self._holder.token

    @contextmanager
    def kept_fresh(self) -> Iterator[None]:
        """Renew the lock while the block runs: for work under it that may take long, such as sending a file."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(STALE_SECONDS / 4):
                with suppress(FileNotFoundError):
                    os.utime(self.path)

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _take_over(self) -> bool:
        holder = read_holder(self.path)
        if holder is None or not is_stale(self.path, holder, STALE_SECONDS):
            return False
        return take_over(self.path, holder, self._holder, STALE_SECONDS)


def is_stale(path: Path, holder: Holder, seconds: float) -> bool:
    """Tell whether a lock or claim file may be taken over: its holder is dead, or did not renew it for ``seconds``."""
    try:
        return is_dead(holder) or file_age(path) > seconds
    except FileNotFoundError:
        return False


def take_over(path: Path, stale: Holder, holder: Holder, seconds: float) -> bool:
    """Put a holder in the place of a stale one, atomically; return False, with nothing done, where another came first.

    Of all that found the same stale holder, the one that creates the file of this takeover decides, so that nobody
    replaces the claim of a winner. That file may itself be left by a dead process: then it is taken over likewise.
    """
    turn = path.with_name(f".{path.name}.{stale.token}.turn")
    if not create_exclusively(turn, holder):
        former = read_holder(turn)
        if former is None or not is_stale(turn, former, seconds) or not take_over(turn, former, holder, seconds):
            return False
    try:
        present = read_holder(path)
        if present is None or present.token != stale.token:
            return False
        _write_new(path, holder).replace(path)
        return True
    finally:
        turn.unlink(missing_ok=True)


def file_age(path: Path) -> float:
    """Return a file's age in seconds, by the clock of the machine that keeps it; raise FileNotFoundError if gone.

    Who may not write there can only look, and takes nothing over: for that, this machine's clock will do.
    """
    probe = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        probe.touch()
    except OSError as error:
        if error.errno not in _ONLY_LOOKING:
            raise
        return time.time() - path.stat().st_mtime
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def create_exclusively(path: Path, holder: Holder) -> bool:
    """Create a file that names its holder, by a hard link; return False, with nothing done, where there is one."""
    aside = _write_new(path, holder)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def _write_new(path: Path, holder: Holder) -> Path:
    """Write a whole file that names a holder, beside ``path``, and return where it lies."""
    aside = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        aside.write_bytes(msgspec.json.encode(holder))
    except OSError:  # a full disk leaves an empty file
        aside.unlink(missing_ok=True)
        raise
    return aside


def read_holder(path: Path) -> Holder | None:
    """Return the holder that a lock or claim file names; None where there is no file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except FileNotFoundError:
        return None


def this_process() -> Holder:
    """Return this process as a holder, with a token of its own for each call."""
    pid = os.getpid()
    return Holder(uuid.uuid4().hex, _machine(), pid, _start_time(pid), socket.gethostname())


def is_dead(holder: Holder) -> bool:
    """Tell whether a holder was a process of this machine that is no more; False where that cannot be known."""
    return holder.machine == _machine() and _start_time(holder.pid) != holder.started
