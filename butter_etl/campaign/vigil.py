"""Watching over training while it goes on: when to write a checkpoint, and when to stop.

Training stops of its own accord, with a checkpoint, when the job is about to end or is told to (it was cancelled, or
preempted), when the driver has lost its claim on the experiment, or when Dask's worker is being closed (its scheduler
is gone, say). What stops here goes on elsewhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from butter_etl.campaign.claims import bucket_of, is_claimed_by
from butter_etl.clusters import is_closing, job_end, told_to_end

if TYPE_CHECKING:
    from butter_etl.campaign.stacks import StackWatch, Unfinished

#: How long before the end of a job the last checkpoint is in place, at least. Queues are seconds late, or early.
SAFETY_SECONDS = 15.0
#: How often a task looks whether its driver still has its claim.
CLAIM_SECONDS = 30.0
#: The speed of writing that is assumed before it has been measured, in bytes a second.
_WRITE_RATE = 20e6


class Stopped(Exception):  # noqa: N818 (no error: training goes on elsewhere)
    """Training was stopped between two steps; ``saved`` says whether a checkpoint holds what was trained."""

    def __init__(self, reason: str, *, saved: bool) -> None:
        super().__init__(reason)
        self.saved = saved


class Vigil:
    """The watch of one thread of a worker: the time left, and what it has measured. All times are in seconds."""

    def __init__(
        self,
        state: Path,
        claim: str | None,
        checkpoint_seconds: float,
        *,
        end: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state, self._claim, self._interval = state, claim, checkpoint_seconds
        self._end = job_end(os.environ) if end is None else end
        self._clock = clock
        self._looked = 0.0
        self._write_rate = _WRITE_RATE

    def has_time_for(self, watch_seconds: float, state_bytes: float) -> bool:
        """Tell whether the watch is called and a checkpoint of that size is written before the job ends."""
        if told_to_end.is_set():
            return False
        if self._end is None:
            return True
        needed = SAFETY_SECONDS + 2 * (watch_seconds + state_bytes / self._write_rate)
        return self._clock() + needed < self._end

    def over(self, experiment_id: int, save: Callable[[Unfinished], int]) -> StackWatch:
        """Return a watch over the training of one stack.

        ``save`` writes a checkpoint and returns its size in bytes. The watch raises `Stopped` when training is to stop.
        """
        saved_at = last = self._clock()
        longest = written = 0.0

        def watch(_points: float, take_state: Callable[[], Unfinished]) -> None:
            nonlocal saved_at, last, longest, written
            now = self._clock()
            longest, last = max(longest, now - last), now
            reason = self._reason_to_stop(experiment_id, now, longest + written)
            if reason is None and now - saved_at < self._interval:
                return
            written = max(written, self._save(save, take_state))
            saved_at = last = self._clock()
            if reason is not None:
                raise Stopped(reason, saved=True)

        return watch

    def _save(self, save: Callable[[Unfinished], int], take_state: Callable[[], Unfinished]) -> float:
        began = time.perf_counter()
        size = save(take_state())
        seconds = time.perf_counter() - began
        if seconds > 0.01:
            self._write_rate = size / seconds
        return seconds

    def _reason_to_stop(self, experiment_id: int, now: float, step: float) -> str | None:
        """Return why to stop now, if at all; ``step`` is how long until the next chance, with its checkpoint."""
        if self._end is not None and now + SAFETY_SECONDS + 2 * step >= self._end:
            return "the job is about to end"
        if told_to_end.is_set():
            return "the worker was told to end"
        if is_closing():
            return "the worker is being closed"
        if self._claim is not None and now - self._looked >= CLAIM_SECONDS:
            self._looked = now
            if not is_claimed_by(self._state, bucket_of(experiment_id), self._claim):
                return "another driver has taken the experiment over"
        return None
