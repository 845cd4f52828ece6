"""The share of a campaign that one driver works on, claimed bucket by bucket."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import msgspec

from butter_etl.campaign.claims import Claims, bucket_of
from butter_etl.campaign.cutting import Begun, End, Task, Wanted, cut_tasks
from butter_etl.campaign.stacks import Item
from butter_etl.engines import Device
from butter_etl.store import Store

#: How long to wait for other drivers before looking at their buckets again.
POLL_SECONDS = 5.0


class Share:
    """The part of a campaign that this driver works on, bucket by bucket, the dearest runs first.

    ``workers`` share its end, if that is said.
    """

    def __init__(
        self,
        wanted: Iterable[Wanted],
        claims: Claims,
        store: Store,
        target_seconds: float,
        device: Device,
        begun: Begun | None = None,
        workers: int | None = None,
    ) -> None:
        self._claims, self._store, self._workers = claims, store, workers
        self._cut = partial(cut_tasks, study=store.study, target_seconds=target_seconds, device=device, begun=begun)
        self.cost = self.cost_done = 0.0
        buckets: dict[int, list[Wanted]] = {}
        for entry in wanted:
            buckets.setdefault(bucket_of(_id(entry)), []).append(entry)
            self.cost += len(entry.repetitions) * entry.core_seconds
        self._waiting = {bucket: _dearest_first(buckets[bucket]) for bucket in _in_order(buckets)}
        self._contested: set[int] = set()
        self._open: dict[int, dict[int, Wanted]] = {}
        self._left: dict[int, int] = {}
        #: Of experiments in buckets that were had and not given back, how many runs have been counted as done.
        self._counted: dict[int, int] = {}
        self._by_cost = sorted(
            (entry for entries in buckets.values() for entry in entries), key=lambda entry: entry.core_seconds
        )
        self.present = 0

    def run_cost(self, item: Item) -> float:
        """Return the estimated cost of a run of an item that is not done; 0 of others."""
        entry = self._entry(item.experiment_id)
        return entry.core_seconds if entry else 0.0

    def _entry(self, experiment_id: int) -> Wanted | None:
        bucket = bucket_of(experiment_id)
        if bucket in self._open:
            return self._open[bucket].get(experiment_id)
        return next((entry for entry in self._waiting.get(bucket, ()) if entry.experiment_id == experiment_id), None)

    def dearest_run(self) -> float:
        """Return the estimated cost of the dearest run of the buckets that this driver has not had yet."""
        while self._by_cost and bucket_of(_id(self._by_cost[-1])) not in self._waiting:
            self._by_cost.pop()
        return self._by_cost[-1].core_seconds if self._by_cost else 0.0

    @property
    def is_waiting(self) -> bool:
        """Tell whether there are buckets that this driver has not had yet."""
        return bool(self._waiting)

    def tasks(self) -> Iterator[Task]:
        """Return the tasks of those buckets not had yet that can be claimed, in one pass over them."""
        end = None if self._workers is None else End(self.cost - self.cost_done, self._workers)
        return self._cut(self._claimable(), end=end)

    def _claimable(self) -> Iterator[Wanted]:
        for bucket in list(self._waiting):
            if not self._claims.take(bucket):
                self._contested.add(bucket)
                continue
            entries = self._waiting.pop(bucket)
            if bucket in self._contested:
                entries = list(self._still_missing(entries))
            self._open[bucket] = {_id(entry): entry for entry in entries}
            self._left[bucket] = sum(len(entry.repetitions) for entry in entries)
            if self._left[bucket] == 0:
                self._give_back(bucket)
            yield from entries

    def _still_missing(self, entries: list[Wanted]) -> Iterator[Wanted]:
        """Yield what another driver has left of a bucket that it had."""
        for entry in entries:
            there = self._store.repetitions_of(_id(entry), self._store.partition_of(entry.spec))
            missing = tuple(rep for rep in entry.repetitions if rep not in there)
            new = max(0, len(entry.repetitions) - len(missing) - self._counted.pop(_id(entry), 0))
            self.present += new
            self.cost_done += new * entry.core_seconds
            if missing:
                yield msgspec.structs.replace(entry, repetitions=missing)

    def done(self, experiment_id: int, runs: int) -> None:
        """Count so many runs of an experiment as done: they have landed, were there, or have failed for good."""
        bucket = bucket_of(experiment_id)
        if entry := self._entry(experiment_id):
            self.cost_done += runs * entry.core_seconds
            self._counted[experiment_id] = self._counted.get(experiment_id, 0) + runs
        if bucket not in self._left:  # lost to another driver meanwhile
            return
        self._left[bucket] -= runs
        if self._left[bucket] <= 0:
            self._give_back(bucket)

    def again(self, items: Iterable[Item]) -> list[Task]:
        """Return tasks that go on with items that were yielded; wait for those of buckets that were lost."""
        lost = self._claims.forget_lost()
        for bucket in lost & self._open.keys():
            self._waiting[bucket] = list(self._open.pop(bucket).values())
            self._contested.add(bucket)
            del self._left[bucket]
        return [Task((item,)) for item in items if bucket_of(item.experiment_id) in self._open]

    def _give_back(self, bucket: int) -> None:
        for experiment_id in self._open.pop(bucket):
            self._counted.pop(experiment_id, None)
        del self._left[bucket]
        self._claims.release(bucket)


def _dearest_first(entries: Sequence[Wanted]) -> list[Wanted]:
    return sorted(entries, key=lambda entry: -entry.core_seconds)


def _in_order(buckets: Mapping[int, Sequence[Wanted]]) -> Iterator[int]:
    """Yield buckets by their dearest run, the dearest first: what comes last is short, and all workers share the end.

    Among those whose runs are within twice as dear, drivers that begin together begin at different ones.
    """
    alike: dict[int, list[int]] = {}
    for bucket in sorted(buckets):
        _, magnitude = math.frexp(max(entry.core_seconds for entry in buckets[bucket]))
        alike.setdefault(magnitude, []).append(bucket)
    for _, some in sorted(alike.items(), reverse=True):
        start = random.randrange(len(some))
        yield from some[start:] + some[:start]


def _id(entry: Wanted) -> int:
    if entry.experiment_id is None:
        raise AssertionError(entry)
    return entry.experiment_id
