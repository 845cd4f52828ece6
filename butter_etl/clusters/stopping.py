"""Signals that end work: SIGTERM and SIGHUP do what Ctrl-C does, and a second one does not disturb the ending."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

#: What Ctrl-C sends, what queues and `kill` send, and what a terminal sends that is closed.
INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: For so many seconds after a signal others are passed over: shells, terminals and queues send several, and people
#: press Ctrl-C twice. A later one interrupts again, should the ending itself hang.
PATIENCE_SECONDS: Final = 30.0

Handler = Callable[[int, FrameType | None], Any] | int | None


class Stop:
    """A request to stop. ``number`` is the signal that asked first, None as long as none has."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._until = 0.0
        self._told = False
        self._before: dict[int, Handler] = {}

    def listen(self, *numbers: int) -> None:
        """Take signals over, in the main thread; leave one that is ignored (nohup) or has a handler."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in numbers:
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = handler
                signal.signal(number, self._hear)

    def leave(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @property
    def exit_code(self) -> int:
        """Return the exit code by which a shell knows the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def words(self) -> str:
        """Return ``stopped``, with the signal unless it was Ctrl-C's."""
        by = "" if self.number in (None, signal.SIGINT) else f" by {signal.Signals(self.number).name}"
        return f"stopped{by}"

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now < self._until:
            self._tell_once()
            return
        self._until = now + PATIENCE_SECONDS
        self.number = self.number or number
        raise KeyboardInterrupt

    def _tell_once(self) -> None:
        """Say that the process is ending; by the operating system, since the streams may be in use at this moment."""
        if not self._told:
            self._told = True
            words = f"still stopping; `kill -KILL {os.getpid()}` ends this at once and leaves jobs and keys behind\n"
            with contextlib.suppress(OSError):
                os.write(2, words.encode())


@contextlib.contextmanager
def ended_cleanly() -> Iterator[None]:
    """Have SIGTERM and SIGHUP unwind this block, as Ctrl-C does, and then end the process with their exit code.

    For scripts: the command listens by itself.
    """
    stop = Stop()
    stop.listen(signal.SIGTERM, signal.SIGHUP)
    try:
        yield
    except KeyboardInterrupt:
        if stop.number is None:
            raise
        raise SystemExit(stop.exit_code) from None
    finally:
        stop.leave()
