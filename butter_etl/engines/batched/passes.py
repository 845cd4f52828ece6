"""Passes over a stack's rows on a torch device: batches, what is done with each, and the metrics of the whole pass.

All tensors are made once and stay where they are, and which batch comes next is counted on the device. So one batch is
work that can be recorded and replayed (`butter_etl.engines.batched.launches`), and nothing is copied to the host within
a pass.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from butter_etl.engines.batched.metrics import epoch_values, metric_sums
from butter_etl.engines.contract import METRICS

if TYPE_CHECKING:
    from butter_etl.engines.batched.launches import Launcher, Work
    from butter_etl.engines.contract import Device, Loss

#: Metrics are computed for several batches at once, up to so many outputs: fewer calls, and still in cache on a CPU.
OUTPUTS_AT_ONCE: dict[Device, int] = {"cpu": 2**15, "cuda": 2**22}


class Step(Protocol):
    """The work that a pass does on each batch."""

    def __call__(self, x: Tensor, y: Tensor, rate: Tensor) -> tuple[Tensor, Tensor | None]:
        """Work on x (runs, inputs, rows) and y (runs, outputs, rows) at the rates of this step, (1,) or (runs,).

        Returns the logits (runs, outputs, rows), which must stay as they are, and the runs' penalties (runs,), both as
        they were before the step changed anything.
        """
        ...


class Pass:
    """A way through rows of the tables ``x`` (rows, inputs) and ``y`` (rows, outputs) in batches of ``batch_size``.

    Each run has ``count`` rows; the last, partial batch is kept. ``rates`` is how many rates a step has, 1 or runs.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        runs: int,
        count: int,
        batch_size: int,
        loss: Loss,
        step: Step,
        launcher: Launcher,
        rates: int = 1,
    ) -> None:
        self._count = count
        self._sums = torch.zeros((len(METRICS), runs), dtype=torch.float64, device=x.device)
        self._penalty = torch.zeros(runs, dtype=torch.float64, device=x.device)
        whole, rest = divmod(count, batch_size)
        shapes = [(number, size) for number, size in ((whole, batch_size), (1, rest)) if number * size]
        self._parts = [_Batches(x, y, runs, number, size, rates) for number, size in shapes]
        # What is launched refers to tensors and not to this object: a circle would keep them from being freed at once.
        self._launches: list[Work] = []
        for batches in self._parts:
            work = launcher.ready(partial(_work_on, batches, step, self._penalty))
            groups = batches.groups()
            measures = {
                filled: launcher.ready(partial(_measure, batches, filled, loss, self._sums)) for filled in set(groups)
            }
            for filled in groups:
                self._launches += [work] * filled + [measures[filled]]

    def arrange(self, x_rows: Tensor, y_rows: Tensor, rates: Tensor | None = None) -> None:
        """Set the rows of ``x`` and of ``y``, int64 (runs, count), in order, and the rates (steps, 1 or runs)."""
        batch, begin = 0, 0
        for batches in self._parts:
            end = begin + batches.number * batches.size
            batches.arrange(x_rows[:, begin:end], y_rows[:, begin:end])
            if rates is not None:
                batches.rates.copy_(rates[batch : batch + batches.number])
            batch, begin = batch + batches.number, end

    def run(self) -> None:
        """Launch the pass without waiting for the device."""
        self._sums.zero_()
        self._penalty.zero_()
        for launch in self._launches:
            launch()

    def values(self) -> Tensor:
        """Return the recorded values of the last pass, float32 (metrics, runs)."""
        return epoch_values(self._sums, self._penalty, self._count)


def _work_on(batches: _Batches, step: Step, penalty: Tensor) -> None:
    x, y, rate = batches.take()
    logits, penalties = step(x, y, rate)
    if penalties is not None:
        penalty.add_(penalties, alpha=batches.size)
    batches.keep(logits, y)


def _measure(batches: _Batches, filled: int, loss: Loss, sums: Tensor) -> None:
    values = metric_sums(loss, *batches.kept(filled))
    # One after the other, so that the result does not depend on how many batches are measured at once.
    for batch_values in torch.split(values, sums.shape[1], dim=1):
        sums += batch_values


class _Batches:
    """The batches of one size: ``number`` of ``size`` rows of each run, and the logits of those not yet measured."""

    def __init__(self, x: Tensor, y: Tensor, runs: int, number: int, size: int, rates: int) -> None:
        self.number, self.size = number, size
        self._x, self._y, self._runs = x, y, runs
        outputs = runs * y.shape[1] * size
        self._slots = min(number, -(-OUTPUTS_AT_ONCE["cuda" if x.is_cuda else "cpu"] // outputs))
        self._x_rows = torch.zeros((number, runs * size), dtype=torch.int64, device=x.device)
        self._y_rows = torch.zeros_like(self._x_rows)
        self.rates = torch.zeros((number, rates), device=x.device)
        self._next = torch.zeros(1, dtype=torch.int64, device=x.device)
        self._slot = torch.zeros_like(self._next)
        self._logits = torch.zeros((self._slots, runs, y.shape[1], size), device=x.device)
        self._targets = torch.zeros_like(self._logits)

    def groups(self) -> list[int]:
        """Return the numbers of batches that are measured at once, in turn."""
        whole, rest = divmod(self.number, self._slots)
        return [self._slots] * whole + [rest] * (rest > 0)

    def arrange(self, x_rows: Tensor, y_rows: Tensor) -> None:
        """Set the rows, int64 (runs, number * size)."""
        for mine, rows in ((self._x_rows, x_rows), (self._y_rows, y_rows)):
            by_batch = rows.reshape(self._runs, self.number, self.size).transpose(0, 1)
            mine.view(self.number, self._runs, self.size).copy_(by_batch)

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next batch: x as a view that matrix products take without a copy, y, and the rates."""
        x = self._x.index_select(0, self._x_rows.index_select(0, self._next).view(-1))
        y = self._y.index_select(0, self._y_rows.index_select(0, self._next).view(-1))
        shape = self._runs, self.size, -1
        return x.view(shape).mT, y.view(shape).mT.contiguous(), self.rates.index_select(0, self._next).view(-1)

    def keep(self, logits: Tensor, targets: Tensor) -> None:
        """Keep what the metrics of this batch are computed from, and go on to the next."""
        self._logits.index_copy_(0, self._slot, logits.unsqueeze(0))
        self._targets.index_copy_(0, self._slot, targets.unsqueeze(0))
        self._next.add_(1).remainder_(self.number)
        torch.remainder(self._next, self._slots, out=self._slot)

    def kept(self, filled: int) -> tuple[Tensor, Tensor]:
        """Return logits and targets of the last ``filled`` batches, each (filled * runs, outputs, size)."""
        return self._logits[:filled].flatten(0, 1), self._targets[:filled].flatten(0, 1)
