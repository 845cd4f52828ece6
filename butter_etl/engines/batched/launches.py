"""Work that is launched again and again: recorded once in a CUDA graph and replayed, or simply called on a CPU.

Launching a kernel costs the host microseconds, and an epoch of a small network is hundreds of kernels that take no
longer than that. A recorded sequence is launched by one call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from butter_etl.engines.contract import Device

Work = Callable[[], None]

logger = logging.getLogger(__name__)


def record_cuda_graph(work: Work, pool: Any) -> Work:
    """Record ``work`` in a CUDA graph, without doing it; what it allocates comes from ``pool``."""
    graph = torch.cuda.CUDAGraph()
    # Other threads of the process may use the device meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        work()
    replay: Work = graph.replay
    return replay


#: The function that records work on each device; None where recording gains nothing.
RECORD: dict[Device, Callable[[Work, Any], Work] | None] = {"cpu": None, "cuda": record_cuda_graph}


class Launcher:
    """Makes work of one stack ready to be launched many times.

    The work has no arguments and no result; it reads and writes tensors that stay where they are, never waits for the
    device, and has no state in Python that changes from call to call. What it allocates it does not keep, so that all
    recordings of a stack can share their memory.
    """

    def __init__(self, device: Device) -> None:
        self._record = RECORD[device]
        self._pool = torch.cuda.graph_pool_handle() if device == "cuda" else None

    def ready(self, work: Work) -> Work:
        """Return what is to be called in place of ``work``: the first call does it, the second one records it."""
        return work if self._record is None else _Recorded(work, self._record, self._pool)


class _Recorded:
    def __init__(self, work: Work, record: Callable[[Work, Any], Work], pool: Any) -> None:
        self._launch, self._record, self._pool = work, record, pool
        self._calls = 0

    def __call__(self) -> None:
        self._calls += 1
        if self._calls == 2:  # the first call has loaded kernels and libraries, which a recording cannot
            self._launch = self._recorded()
        self._launch()

    def _recorded(self) -> Work:
        try:
            return self._record(self._launch, self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("a CUDA graph could not be recorded (%s); launching every kernel by itself", error)
            return self._launch
