"""Passes over a stack's rows on a torch device: batches, what is done with each, and the metrics of the whole pass.

All tensors are made once and stay where they are, and which batch comes next is counted on the device. So one batch is
work that can be recorded and replayed (`butter_etl.engines.batched.launches`), and nothing is copied to the host within
a pass.
"""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from butter_etl.engines.batched.metrics import epoch_values, metric_sums
from butter_etl.engines.contract import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from butter_etl.engines.batched.launches import Launcher
    from butter_etl.engines.contract import Device, Loss

#: Metrics are computed for several batches at once, up to so many outputs: fewer calls, and still in cache on a CPU.
OUTPUTS_AT_ONCE: dict[Device, int] = {"cpu": 2**15, "cuda": 2**22}
#: And up to so many multiplications of those batches in training, some ten seconds: a pass is left only in between.
PRODUCTS_AT_ONCE: dict[Device, float] = {"cpu": 2e11, "cuda": 2e14}


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

    Each run has ``count`` rows; the last, partial batch is kept. ``products`` are the multiplications that a row takes,
    ``rates`` is how many rates a step has, 1 or runs.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        runs: int,
        count: int,
        batch_size: int,
        loss: Loss,
        products: int,
        step: Step,
        launcher: Launcher,
        rates: int = 1,
    ) -> None:
        self._count = count
        self._sums = torch.zeros((len(METRICS), runs), dtype=torch.float64, device=x.device)
        self._penalty = torch.zeros(runs, dtype=torch.float64, device=x.device)
        whole, rest = divmod(count, batch_size)
        shapes = [(number, size) for number, size in ((whole, batch_size), (1, rest)) if number * size]
        # What is launched refers to tensors and not to this object: a circle would keep them from being freed at once.
        self._parts = [
            _Part(_Batches(x, y, runs, number, size, products, rates), step, loss, self._sums, self._penalty, launcher)
            for number, size in shapes
        ]
        #: The number of batches.
        self.batches = sum(number for number, _ in shapes)

    def arrange(self, x_rows: Tensor, y_rows: Tensor, rates: Tensor | None = None) -> None:
        """Set the rows of ``x`` and of ``y``, int64 (runs, count), in order, and the rates (steps, 1 or runs)."""
        batch, begin = 0, 0
        for batches in (part.batches for part in self._parts):
            end = begin + batches.number * batches.size
            batches.arrange(x_rows[:, begin:end], y_rows[:, begin:end])
            if rates is not None:
                batches.rates.copy_(rates[batch : batch + batches.number])
            batch, begin = batch + batches.number, end

    def run(self, first: int, due: Callable[[], bool]) -> Iterator[int]:
        """Launch the pass from batch ``first`` on, without waiting for the device.

        Yields the number of batches launched, ``first`` included, wherever all of them are measured and ``due`` returns
        true: there the pass can be left, to be gone on with from `sums`. Batches are measured at once as they would be
        in a pass that is not left, on which the last bits of metrics depend.
        """
        if first == 0:
            self._sums.zero_()
            self._penalty.zero_()
        before = 0
        for part in self._parts:
            if first < before + part.batches.number:
                for done in part.run(max(first - before, 0), due):
                    yield before + done
            before += part.batches.number

    def sums(self) -> NDArray[np.float64]:
        """Return a copy of what has been added up, float64 (runs, metrics + 1)."""
        return torch.cat([self._sums, self._penalty[None]]).T.contiguous().cpu().numpy()

    def restore(self, sums: NDArray[np.float64]) -> None:
        """Set what has been added up to that of a pass that was left, as `sums` returned it."""
        both = torch.from_numpy(sums.T.copy())
        self._sums.copy_(both[:-1])
        self._penalty.copy_(both[-1])

    def values(self) -> Tensor:
        """Return the recorded values of the last pass, float32 (metrics, runs)."""
        return epoch_values(self._sums, self._penalty, self._count)


def _work_on(batches: _Batches, step: Step, penalty: Tensor) -> None:
    x, y, rate = batches.take()
    logits, penalties = step(x, y, rate)
    if penalties is not None:
        penalty.add_(penalties, alpha=batches.size)
    batches.keep(logits, y)


def _measure(batches: _Batches, slots: slice, loss: Loss, sums: Tensor) -> None:
    values = metric_sums(loss, *batches.kept(slots))
    # One after the other, so that sums do not depend on how many batches are measured at once. (The last bits of
    # torch's sigmoid do.)
    for batch_values in torch.split(values, sums.shape[1], dim=1):
        sums += batch_values


class _Part:
    """The batches of one size in a pass, and what is launched for them."""

    def __init__(
        self, batches: _Batches, step: Step, loss: Loss, sums: Tensor, penalty: Tensor, launcher: Launcher
    ) -> None:
        self.batches = batches
        self._work = launcher.ready(partial(_work_on, batches, step, penalty))
        self._measure = partial(_measure, batches, loss=loss, sums=sums)
        self._ready = {group: launcher.ready(partial(self._measure, slice(*group))) for group in batches.groups(0)}

    def run(self, first: int, due: Callable[[], bool]) -> Iterator[int]:
        """Launch the batches from ``first`` on; see `Pass.run`."""
        if first:
            self.batches.go_to(first)
        done = first
        for group in self.batches.groups(first):
            begin, end = group
            for _ in range(begin, end):
                self._work()
            # A stack that was cut, or comes from another device, may go on from within one of its groups.
            (self._ready.get(group) or partial(self._measure, slice(*group)))()
            done += end - begin
            if due():
                yield done


class _Batches:
    """The batches of one size: ``number`` of ``size`` rows of each run, and the logits of those not yet measured."""

    def __init__(self, x: Tensor, y: Tensor, runs: int, number: int, size: int, products: int, rates: int) -> None:
        self.number, self.size = number, size
        self._x, self._y, self._runs = x, y, runs
        device: Device = "cuda" if x.is_cuda else "cpu"
        few, short = OUTPUTS_AT_ONCE[device] / y.shape[1], PRODUCTS_AT_ONCE[device] / products
        self._slots = min(number, ceil(min(few, short) / (runs * size)))
        self._x_rows = torch.zeros((number, runs * size), dtype=torch.int64, device=x.device)
        self._y_rows = torch.zeros_like(self._x_rows)
        self.rates = torch.zeros((number, rates), device=x.device)
        self._next = torch.zeros(1, dtype=torch.int64, device=x.device)
        self._slot = torch.zeros_like(self._next)
        self._logits = torch.zeros((self._slots, runs, y.shape[1], size), device=x.device)
        self._targets = torch.zeros_like(self._logits)

    def groups(self, first: int) -> list[tuple[int, int]]:
        """Return the slots, from one to before another, of the batches from ``first`` on that are measured at once."""
        return [
            (max(first - begin, 0), min(self._slots, self.number - begin))
            for begin in range(first - first % self._slots, self.number, self._slots)
        ]

    def go_to(self, batch: int) -> None:
        """Make a batch the next one."""
        self._next.fill_(batch)
        self._slot.fill_(batch % self._slots)

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

    def kept(self, slots: slice) -> tuple[Tensor, Tensor]:
        """Return logits and targets of the batches in some slots, each (batches * runs, outputs, size)."""
        return self._logits[slots].flatten(0, 1), self._targets[slots].flatten(0, 1)
