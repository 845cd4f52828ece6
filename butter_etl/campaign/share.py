"""The share of a campaign that one driver works on, claimed bucket by bucket."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import partial

import msgspec

from butter_etl.campaign.claims import Claims, bucket_of
from butter_etl.campaign.cutting import Begun, Task, Wanted, cut_tasks
from butter_etl.campaign.stacks import Item
from butter_etl.engines import Device
from butter_etl.store import Store, partition_path

#: How long to wait for other drivers before looking at their buckets again.
POLL_SECONDS = 5.0


class Share:
    """The part of a campaign that this driver works on, bucket by bucket."""

    def __init__(
        self,
        wanted: Iterable[Wanted],
        claims: Claims,
        store: Store,
        target_seconds: float,
        device: Device,
        begun: Begun | None = None,
    ) -> None:
        self._claims, self._store = claims, store
        self._cut = partial(cut_tasks, target_seconds=target_seconds, device=device, begun=begun)
        self._cost = self._cost_done = 0.0
        buckets: dict[int, list[Wanted]] = {}
        for entry in wanted:
            buckets.setdefault(bucket_of(_id(entry)), []).append(entry)
            self._cost += len(entry.repetitions) * entry.core_seconds
        # Drivers that begin together begin at different buckets.
        order = sorted(buckets)
        start = random.randrange(len(order)) if order else 0
        self._waiting = {bucket: buckets[bucket] for bucket in order[start:] + order[:start]}
        self._contested: set[int] = set()
        self._open: dict[int, dict[int, Wanted]] = {}
        self._left: dict[int, int] = {}
        self.present = 0

    @property
    def share_done(self) -> float:
        """Return the share of the estimated cost of everything that is done, by whomever, between 0 and 1."""
        return min(self._cost_done / self._cost, 1.0) if self._cost else 1.0

    @property
    def is_waiting(self) -> bool:
        """Tell whether there are buckets that this driver has not had yet."""
        return bool(self._waiting)

    def tasks(self) -> Iterator[Task]:
        """Return the tasks of those buckets not had yet that can be claimed, in one pass over them."""
        return self._cut(self._claimable())

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
            there = self._store.repetitions_of(_id(entry), partition_path(entry.spec.parameters()))
            missing = tuple(rep for rep in entry.repetitions if rep not in there)
            self.present += len(entry.repetitions) - len(missing)
            self._cost_done += (len(entry.repetitions) - len(missing)) * entry.core_seconds
            if missing:
                yield msgspec.structs.replace(entry, repetitions=missing)

    def done(self, experiment_id: int, runs: int) -> None:
        """Count so many runs of an experiment as done: they have landed, were there, or have failed for good."""
        bucket = bucket_of(experiment_id)
        if bucket not in self._left:  # lost to another driver meanwhile
            return
        self._left[bucket] -= runs
        if entry := self._open[bucket].get(experiment_id):
            self._cost_done += runs * entry.core_seconds
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
        del self._open[bucket], self._left[bucket]
        self._claims.release(bucket)


def _id(entry: Wanted) -> int:
    if entry.experiment_id is None:
        raise AssertionError(entry)
    return entry.experiment_id
