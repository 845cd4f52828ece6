"""Clusters of commands, with what the queue says of their jobs on the screen while a first worker is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

    from butter_etl.clusters import QueueState


@contextmanager
def shown_cluster(
    site: str,
    *,
    quiet: bool,
    workers: int | None = None,
    threads_per_worker: int | None = None,
    on_queue: Callable[[QueueState], None] | None = None,
) -> Iterator[Client]:
    """Start the cluster of a site file; show what its queue says until a first worker is there, and pass it on."""
    from butter_etl.clusters import queue_lines, start_cluster
    from butter_etl.views import WaitLines

    with ExitStack() as stack:
        waiting = WaitLines(quiet=quiet)

        def show(queue: QueueState) -> None:
            if on_queue is not None:
                on_queue(queue)
            if not connected:
                waiting.show(list(queue_lines(queue, time.time())))

        connected = False
        with waiting:
            client = stack.enter_context(
                start_cluster(site, workers=workers, threads_per_worker=threads_per_worker, on_queue=show)
            )
            connected = True
        yield client
