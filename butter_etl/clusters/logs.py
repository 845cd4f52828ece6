"""Dask's logs: what its parts say of themselves is for its developers, and never on a user's terminal."""

from __future__ import annotations

import logging
from typing import Any

from butter_etl.errors import one_line

#: Dask's loggers, and those to which it leaves what happens to connections that end.
_LOGGERS = ("distributed", "dask", "dask_jobqueue", "tornado", "asyncio", "bokeh")


def silence_dask() -> None:
    """Keep Dask's logs off the terminal from here on, in this process, whatever Dask's own settings say.

    What is wrong with a cluster reaches its user as an error or a warning of ours. For good, since what was under way
    when a cluster ended is told when its remains are collected.
    """
    import distributed  # noqa: F401 (it installs its handlers when it is imported)

    for name in (*_LOGGERS, *logging.root.manager.loggerDict):
        if name.partition(".")[0] in _LOGGERS:
            log = logging.getLogger(name)
            log.handlers[:], log.propagate = [], name not in _LOGGERS
    for name in _LOGGERS:  # without a handler Python writes to standard error
        logging.getLogger(name).addHandler(logging.NullHandler())


class _OneLine(logging.Formatter):
    """A formatter that writes an exception as one line, where Python has its traceback."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        """Return the class and the text of an exception."""
        return f"{ei[0].__name__}: {one_line(ei[1])}"


def shorten_tracebacks() -> None:
    """Have the loggers of Dask in this process write exceptions as one line, in the form that they have."""
    for name in ("", *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            form = handler.formatter
            handler.setFormatter(_OneLine(form._fmt if form else None))


def pass_over_task_errors() -> None:
    """Leave the errors of tasks out of this worker's log: the driver hears of each."""
    log = logging.getLogger("distributed.worker")
    log.addFilter(lambda record: not record.getMessage().startswith("Compute Failed"))
