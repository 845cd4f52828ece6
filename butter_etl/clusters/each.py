"""A function of each of many tasks, on the workers of a cluster or in threads of this process, some at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from butter_etl.clusters.sealed import Sealed

if TYPE_CHECKING:
    from distributed import Client

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def thread_count(client: Client | None) -> int:
    """Return how many threads a cluster's workers have now, at least 1; without one, the cores of this process."""
    if client is None:
        return len(os.sched_getaffinity(0))
    return max(1, sum(int(threads) for threads in client.nthreads().values()))


def map_each(
    function: Callable[[_Task], _Result],
    tasks: Iterable[_Task],
    client: Client | None = None,
    *,
    threads: int | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, _Result]]:
    """Yield the place of each task and the function's result for it, as they get done.

    Without ``client`` so many threads of this process work, by default one a core. Two tasks a thread are taken from
    ``tasks`` at a time: nothing piles up at a scheduler, and workers that come later get their share. The first error
    ends it, and what has not begun is cancelled then. ``stop`` is called at the end, whatever it is, before threads
    are waited for.
    """
    if client is None:
        return _in_threads(function, tasks, threads or thread_count(None), stop)
    return _on_cluster(function, tasks, client)


def _in_threads(
    function: Callable[[_Task], _Result], tasks: Iterable[_Task], threads: int, stop: Callable[[], None]
) -> Iterator[tuple[int, _Result]]:
    coming = enumerate(tasks)
    pending: dict[Future[_Result], int] = {}
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                for place, task in islice(coming, 2 * threads - len(pending)):
                    pending[pool.submit(function, task)] = place
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    yield pending.pop(future), future.result()
        finally:
            stop()
            pool.shutdown(wait=True, cancel_futures=True)


def _on_cluster(
    function: Callable[[_Task], _Result], tasks: Iterable[_Task], client: Client
) -> Iterator[tuple[int, _Result]]:
    from distributed import as_completed

    coming = enumerate(tasks)
    places: dict[Any, int] = {}
    running = as_completed()

    def submit() -> None:
        for place, task in islice(coming, max(0, 2 * thread_count(client) - len(places))):
            future = client.submit(_call, Sealed((function, task)), pure=False)
            places[future] = place
            running.add(future)

    submit()
    try:
        for future in running:
            place, result = places.pop(future), future.result()
            future.release()
            submit()
            yield place, result
    finally:
        client.cancel(list(places))


def _call(sealed: Sealed[tuple[Callable[[_Task], _Result], _Task]]) -> _Result:
    function, task = sealed.open()
    return function(task)
