"""A worker's nanny: what it knows of the worker's end is told to the scheduler.

This module is a preload of Dask's nannies (`dask_setup`).
"""

from __future__ import annotations

from typing import Any

from butter_etl.clusters.logs import shorten_tracebacks

#: The topic of the scheduler's events that say how worker processes ended.
WORKER_EXITS = "butter_etl.worker-exit"


def dask_setup(nanny: Any) -> None:
    """Have a nanny tell how its worker's process ended, before it starts another; Dask calls this in each nanny."""
    if not nanny.silence_logs:  # a job's, which writes a log
        shorten_tracebacks()
    restart = nanny._on_worker_exit

    async def tell(exitcode: int) -> None:
        # By then the nanny may have heard of no address: a worker can die before it has said its own.
        nanny.log_event(WORKER_EXITS, {"nanny": nanny.address, "exitcode": exitcode})
        await restart(exitcode)

    nanny._on_worker_exit = tell
