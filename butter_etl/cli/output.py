"""Standard streams that may be closed, full, or gone: work goes on without them, and lost output is told at the end."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Final, TextIO

from butter_etl.errors import OutputError

#: Whoever read the output has gone: a pipe without a reader, a terminal that was closed.
_NOBODY: Final = frozenset({errno.EPIPE, errno.EIO, errno.ENXIO})
#: What a shell shows of a program that wrote to a pipe without a reader: 128 and the number of SIGPIPE.
_BROKEN_PIPE: Final = 141


class Sink(io.RawIOBase):
    """A file descriptor to write to, on which writing never fails: what cannot be written is dropped.

    ``lost`` is the first error. Each write is tried, so that a log is written again once its disk has space again.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.lost: OSError | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tell whether the descriptor is a terminal's, and the terminal is there."""
        return os.isatty(self._descriptor)

    def write(self, data: object) -> int:
        """Write what can be written; return as if all were."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        written = 0
        while written < len(view):
            try:
                written += os.write(self._descriptor, view[written:])
            except BlockingIOError:
                select.select([], [self._descriptor], [])  # some other program made the terminal non-blocking
            except OSError as error:
                self.lost = self.lost or error
                break
        return len(view)


def secure_streams() -> None:
    """Make standard output and error streams on which writing never fails; those that are closed lead nowhere.

    They stay so until the process ends, since the interpreter writes to them to the end. Streams that are not the
    process's own, such as those of a test or a notebook, are left alone.
    """
    _open_closed()
    if _is_own(sys.stdout, 1):
        sys.stdout = _never_failing(sys.stdout, 1)
    if _is_own(sys.stderr, 2):
        sys.stderr = _never_failing(sys.stderr, 2)


def lost_output() -> OSError | None:
    """Return the error with which standard output was lost, so that nobody reads what is printed from here on."""
    sys.stdout.flush()
    sink = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return sink.lost if isinstance(sink, Sink) else None


def final_code(code: int) -> int:
    """Return the exit code of a command, given that of its work. Raises OutputError where output was lost.

    A reader that has gone knows what it has read: that is told by the exit code alone, as a shell does. A closed
    terminal is not told of: nobody asked it for anything.
    """
    lost = lost_output()
    if code or lost is None:
        return code
    if lost.errno not in _NOBODY:
        raise OutputError(f"standard output could not be written whole: {lost.strerror}; what was to be done is done")
    return _BROKEN_PIPE if lost.errno == errno.EPIPE else code


def _open_closed() -> None:
    """Open what is closed: else the next files that are opened would take its number, and get what programs print."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: the one that is closed
            os.set_inheritable(number, number <= 2)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _is_own(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError, AttributeError):
        return False


def _never_failing(stream: TextIO, number: int) -> TextIO:
    """Return a stream like another into a sink; a character that its encoding lacks is escaped."""
    stream.flush()
    buffered = getattr(stream, "line_buffering", True)
    return io.TextIOWrapper(
        io.BufferedWriter(Sink(number)), encoding=stream.encoding, errors="backslashreplace", line_buffering=buffered
    )
