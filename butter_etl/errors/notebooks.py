"""Progress in notebooks: one line that changes in its place. Elsewhere, and without IPython, there is none.

IPython is never imported: where it runs this code, it is loaded already.
"""

from __future__ import annotations

import html
import sys
import time
from types import TracebackType
from typing import Any, Final

from butter_etl.errors.words import duration

#: A line is shown anew after so many seconds at the earliest: each time is a message to the browser.
_PAUSE: Final = 0.25


class NotebookBar:
    """Progress of long work in a notebook: a bar, counts and a note, in one line that stays when the work is done.

    Where this code is not run by a notebook, or nothing is to be done, nothing is shown.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._done, self._note, self._left = 0, "", ""
        self._began = self._last = time.monotonic()
        self._display = _display()
        self._place: Any = None

    def __enter__(self) -> NotebookBar:
        self._show()
        return self

    def update(self, done: int, note: str = "", *, left: float | None = None) -> None:
        """Show that ``done`` of the total are done, with ``note`` behind it, and ``left`` as how many seconds are left.

        Without ``left``, that is reckoned from the number done.
        """
        now = time.monotonic()
        if left is None and done:
            left = (now - self._began) * (self._total - done) / done
        self._done, self._note = done, note
        self._left = f"{duration(left)} left" if left is not None and done < self._total else ""
        if now - self._last >= _PAUSE:
            self._last = now
            self._show()

    def step(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of the ``total`` parts of a step are done, of work that has several steps."""
        if what != self._what:
            self._what, self._began = what, time.monotonic()
        self._total = total
        self.update(done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = f"{'after' if error else 'in'} {duration(time.monotonic() - self._began)}"
        self._show()

    def _show(self) -> None:
        if self._place is not None:
            self._place.update(self)
        elif self._display is not None and self._total:
            self._place = self._display(self, display_id=True)

    def __repr__(self) -> str:
        """Return the line as text."""
        parts = [f"{self._done:,} of {self._total:,} {self._what}", self._left, self._note]
        return ", ".join(filter(None, parts))

    def _repr_html_(self) -> str:
        """Return the line as a notebook shows it, with a bar."""
        return f'<progress value="{self._done}" max="{self._total}"></progress> {html.escape(repr(self))}'


def _display() -> Any:
    """Return what shows values in a notebook; None where no notebook runs this code."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None
    if getattr(shell, "kernel", None) is None:
        return None
    return sys.modules["IPython.display"].display if "IPython.display" in sys.modules else None
