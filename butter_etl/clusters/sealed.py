"""Values that travel sealed: a task opens them, so that what cannot be opened fails that task.

A worker that cannot read a message loses its scheduler, and the message's tasks wait for ever (distributed 2026.8).
Values of a user's study can be read only where its module can be imported, so tasks are given them sealed.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class Sealed(Generic[_T]):
    """A value that is pickled as bytes of its own; in the process that sealed it, it is the value itself."""

    def __init__(self, value: _T) -> None:
        self._values, self._content = [value], b""

    def __reduce__(self) -> tuple[Any, ...]:
        return _sealed, (self._bytes(),)

    def _bytes(self) -> bytes:
        from distributed.protocol.pickle import dumps

        return self._content or bytes(dumps(self._values))

    def open(self) -> _T:
        """Return the value. Raises what reading it raises, such as StudyError where its study cannot be imported."""
        if not self._values:
            from distributed.protocol.pickle import loads

            self._values = loads(self._content)
        return self._values[0]


def _sealed(content: bytes) -> Sealed[Any]:
    made: Sealed[Any] = Sealed(None)
    made._values, made._content = [], content
    return made
