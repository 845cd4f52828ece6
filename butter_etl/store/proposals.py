"""Proposals: which repetitions of an experiment are trained next, where that depends on what has landed.

A round of proposals is written before any of its runs is trained, to ``proposals/<experiment id>/<round>.json``, and
never rewritten. So a driver that was killed, and another one, train what was proposed, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from butter_etl.errors import StoreError, one_line, writing
from butter_etl.store.store import Store
from butter_etl.studies import Proposal

PROPOSALS = "proposals"
_ROUND = re.compile(r"(\d+)\.json")


def read_rounds(store: Store, experiment_id: int) -> list[tuple[Proposal, ...]]:
    """Return the rounds of proposals of an experiment, in order; raise StoreError for a file that is none."""
    folder = f"{PROPOSALS}/{experiment_id}"
    names = [name for name in store.location.names(folder) if _ROUND.fullmatch(name)]
    return [_read(store, f"{folder}/{name}") for name in sorted(names, key=lambda name: int(name.partition(".")[0]))]


def _read(store: Store, name: str) -> tuple[Proposal, ...]:
    try:
        return msgspec.json.decode(store.location.read_bytes(name), type=tuple[Proposal, ...])
    except msgspec.DecodeError as error:
        raise StoreError(f"{store}/{name}: is no round of proposals ({one_line(error)}); remove it") from error


def write_round(store: Store, experiment_id: int, number: int, proposals: Sequence[Proposal]) -> tuple[Proposal, ...]:
    """Write a round of proposals, unless somebody else was faster; return the round that is there.

    Raises PlaceError or FullDiskError if it cannot be written.
    """
    name = f"{PROPOSALS}/{experiment_id}/{number}.json"
    with writing(store), store.lock(experiment_id) as lock, lock.kept_fresh():
        store.location.write_new(name, msgspec.json.format(msgspec.json.encode(list(proposals))) + b"\n")
    return _read(store, name)
