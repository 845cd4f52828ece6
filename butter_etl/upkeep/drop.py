"""Withdrawing runs: their files go to quarantine, and then they are missing like any that were never trained.

`plan_drop` says which runs of which files go, `withdraw` does one file, `run_drop` all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from butter_etl.errors import one_line, unwritten
from butter_etl.store import LAST_REPETITION, Pending, Registry, RunFile, Store, encode_runs, quarantine_stamp
from butter_etl.studies import RUNS, Selection

#: The reason that quarantine names for what was withdrawn.
DROPPED = "dropped"


class Withdrawal(msgspec.Struct, frozen=True):
    """A run file of which repetitions ``first`` to ``last`` are to be withdrawn."""

    file: RunFile
    first: int
    last: int

    @property
    def runs(self) -> int:
        """Return how many runs go."""
        return self.last - self.first + 1

    @property
    def is_whole(self) -> bool:
        """Tell whether nothing of the file stays."""
        return self.runs == len(self.file.repetitions)


@dataclass(frozen=True)
class DropPlan:
    """The withdrawals that a selection asks for."""

    withdrawals: tuple[Withdrawal, ...]

    @property
    def runs(self) -> int:
        """Return how many runs go."""
        return sum(one.runs for one in self.withdrawals)

    @property
    def experiments(self) -> int:
        """Return how many experiments lose runs."""
        return len({one.file.experiment_id for one in self.withdrawals})

    @property
    def parted(self) -> int:
        """Return of how many files a part stays and is written anew."""
        return sum(not one.is_whole for one in self.withdrawals)


def plan_drop(store: Store, selection: Selection) -> DropPlan:
    """Plan the withdrawal of the runs of a store that a selection chooses.

    ``repetitions`` and ``first_repetition`` restrict them: to the N numbers from K on, or to all from K on.
    """
    low = selection.first_repetition
    high = LAST_REPETITION if selection.repetitions is None else low + selection.repetitions - 1
    registry = Registry(store)
    chosen: dict[int, bool] = {}
    withdrawals = []
    for file in store.run_files():
        one = file.experiment_id
        if one not in chosen:
            restricts = selection.sweeps or selection.conditions
            chosen[one] = not restricts or selection.matches(registry.experiment(one))
        first, last = max(low, file.first), min(high, file.last)
        if chosen[one] and first <= last:
            withdrawals.append(Withdrawal(file, first, last))
    return DropPlan(tuple(withdrawals))


def withdraw(store: Store, withdrawal: Withdrawal, stamp: str) -> int:
    """Move a run file to quarantine, after landing anew the repetitions that stay; return how many runs went.

    The order, under the experiment's lock: files of what stays get their names, then the old file is moved. If it is
    killed between the two, every run is there, some twice, and none has gone. `verify --repair` then keeps the file
    with more runs, the old one, and dropping again finishes what was begun. Raises LandingError, or TornFileError for a
    file that cannot be read.
    """
    try:
        while (runs := _try_withdraw(store, withdrawal, stamp)) is None:
            pass
    except OSError as error:
        path = withdrawal.file.path
        raise unwritten(error, f"{store}/{RUNS}/{path} could not be withdrawn ({one_line(error)})") from error
    return runs


def _try_withdraw(store: Store, withdrawal: Withdrawal, stamp: str) -> int | None:
    """Return how many runs went; None, and nothing has, if what lies beside the file changed meanwhile."""
    file = withdrawal.file
    elsewhere = _held_elsewhere(store, file)
    staying = set(file.repetitions) - set(range(withdrawal.first, withdrawal.last + 1)) - elsewhere
    files = {}
    if staying:
        rows = store.read_runs(file)
        kept = rows.filter(pc.is_in(rows["repetition"], pa.array(sorted(staying), pa.uint16())))
        ordered = kept.sort_by("repetition")
        files = encode_runs(store.study, file.partition, file.experiment_id, ordered, sorted(staying))
    with Pending(store.location, files) as pending, store.lock(file.experiment_id) as lock, lock.kept_fresh():
        if store.location.kind(f"{RUNS}/{file.path}") != pa.fs.FileType.File:
            return 0  # somebody else withdrew it
        if _held_elsewhere(store, file) != elsewhere or not lock.is_held() or not pending.publish():
            return None
        return withdrawal.runs if store.quarantine(f"{RUNS}/{file.path}", DROPPED, stamp) else 0


def _held_elsewhere(store: Store, file: RunFile) -> set[int]:
    """Return the repetitions of a file's experiment that other files of its partition hold."""
    others = (other for other in store.run_files(file.partition) if other.path != file.path)
    return {rep for other in others if other.experiment_id == file.experiment_id for rep in other.repetitions}


def run_drop(plan: DropPlan, store: Store, on_progress: Callable[[int], None] = lambda runs: None) -> int:
    """Withdraw everything planned; return how many runs went. What went before an error stays in quarantine."""
    stamp = quarantine_stamp()
    runs = 0
    for withdrawal in plan.withdrawals:
        runs += withdraw(store, withdrawal, stamp)
        on_progress(runs)
    return runs
