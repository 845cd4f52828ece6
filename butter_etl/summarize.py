"""Summaries: per-epoch statistics over the repetitions of each experiment, redone only where runs changed.

An experiment never spans partitions, so a partition is summarised exactly from its own files. `plan_summaries` compares
fingerprints, `summarize_partition` brings one partition's ``summary.parquet`` up to date, `run_summaries` does so on a
cluster. `summarize_runs` is the same computation for any Dask dataframe of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs

from butter_etl.aggregations import summarize_experiment
from butter_etl.fingerprints import fingerprint, read_fingerprints, write_summary
from butter_etl.registry import Registry
from butter_etl.schema import (
    EXPERIMENT_COLUMNS,
    HISTORIES,
    RUN_SCHEMA,
    SERIES,
    SUMMARY_FILE_SCHEMA,
    SUMMARY_SCHEMA,
)
from butter_etl.selection import Selection
from butter_etl.store import SUMMARY, SUMMARY_FILE, RunFile, Store

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    from distributed import Client

#: The columns of the run frame that summaries are made of.
INPUT_COLUMNS = (*EXPERIMENT_COLUMNS, *(name for name in HISTORIES if name in SERIES.values()))
_BATCH_FILES = 2000


# --- plan --------------------------------------------------------------------------------------------------------


class PartitionPlan(msgspec.Struct, frozen=True):
    """What is to be done in one partition.

    ``stale`` holds the run files of each experiment to compute, ``fresh`` the experiments whose rows are kept,
    ``fingerprints`` what the new file will say of itself; ``orphans`` counts rows whose runs are gone.
    """

    partition: str
    stale: dict[int, list[RunFile]]
    fresh: list[int]
    fingerprints: dict[int, str]
    orphans: int = 0


@dataclass(frozen=True)
class SummaryPlan:
    """The partitions that have something to do, and how many experiments are up to date already."""

    partitions: list[PartitionPlan]
    fresh: int

    @property
    def stale(self) -> int:
        """How many experiments are to be computed."""
        return sum(len(plan.stale) for plan in self.partitions)

    @property
    def orphans(self) -> int:
        """How many summary rows have lost their runs."""
        return sum(plan.orphans for plan in self.partitions)


def plan_summaries(store: Store, selection: Selection | None = None, *, full: bool = False) -> SummaryPlan:
    """Which experiments have changed since their summary row was made; all of them with ``full``.

    With a selection, only its experiments are computed; the other rows of a partition are kept as they are.
    """
    selected = _selected(store, selection)
    with_runs: set[str] = set()
    plans, fresh = [], 0
    for partition, files in groupby(store.run_files(), key=lambda file: file.partition):
        with_runs.add(partition)
        plan = _plan_partition(store, partition, list(files), selected, full=full)
        fresh += len(plan.fresh)
        if plan.stale or plan.orphans:
            plans.append(plan)
    plans.extend(_orphaned_partitions(store, with_runs))
    return SummaryPlan(plans, fresh)


def _selected(store: Store, selection: Selection | None) -> Callable[[int], bool]:
    if selection is None or not (selection.sweeps or selection.conditions):
        return lambda experiment_id: True
    registry = Registry(store)
    return lambda experiment_id: selection.matches(registry.experiment(experiment_id))


def _plan_partition(
    store: Store, partition: str, files: list[RunFile], selected: Callable[[int], bool], *, full: bool
) -> PartitionPlan:
    by_experiment: dict[int, list[RunFile]] = {}
    for file in files:
        by_experiment.setdefault(file.experiment_id, []).append(file)
    old = read_fingerprints(store.location, f"{SUMMARY}/{partition}/{SUMMARY_FILE}")
    stale: dict[int, list[RunFile]] = {}
    kept: dict[int, str] = {}
    for experiment_id, own in by_experiment.items():
        current = fingerprint(own)
        is_fresh = old.get(experiment_id) == current
        if (full or not is_fresh) and selected(experiment_id):
            stale[experiment_id] = own
        elif experiment_id in old:
            kept[experiment_id] = old[experiment_id]
    made = {experiment_id: fingerprint(own) for experiment_id, own in stale.items()}
    orphans = len(old.keys() - by_experiment.keys())
    return PartitionPlan(partition, stale, sorted(kept), {**kept, **made}, orphans)


def _orphaned_partitions(store: Store, with_runs: set[str]) -> Iterator[PartitionPlan]:
    for name, _ in store.location.walk(SUMMARY):
        partition, _, file = name.rpartition("/")
        if file == SUMMARY_FILE and partition not in with_runs:
            old = read_fingerprints(store.location, f"{SUMMARY}/{name}")
            yield PartitionPlan(partition, {}, [], {}, len(old))


# --- one unit of work --------------------------------------------------------------------------------------------


class SummaryReport(msgspec.Struct, frozen=True):
    """What was done, in experiments; reports add."""

    computed: int = 0
    kept: int = 0
    dropped: int = 0
    partitions: int = 0

    def __add__(self, other: SummaryReport) -> SummaryReport:
        return SummaryReport(
            self.computed + other.computed,
            self.kept + other.kept,
            self.dropped + other.dropped,
            self.partitions + other.partitions,
        )


def summarize_partition(store: Store, plan: PartitionPlan) -> SummaryReport:
    """Bring one partition's summary file up to date; readers see the old file or the new one, whole.

    Raises TornFileError, and leaves the old file as it is, if a run file cannot be read.
    """
    name = f"{SUMMARY}/{plan.partition}/{SUMMARY_FILE}"
    report = SummaryReport(len(plan.stale), len(plan.fresh), plan.orphans, 1)
    if not plan.fingerprints:
        store.location.remove(name)
        return report
    rows = [_experiment_summary(store, files) for files in plan.stale.values()]
    if plan.fresh:
        old = store.location.read_table(name).cast(SUMMARY_FILE_SCHEMA)
        rows.append(old.filter(pc.is_in(old["experiment_id"], pa.array(plan.fresh, pa.uint32()))))
    table = pa.concat_tables(rows)
    write_summary(store.location, name, table, plan.fingerprints)
    return report


def _experiment_summary(store: Store, files: list[RunFile]) -> pa.Table:
    tables = [store.read_runs(file, list(INPUT_COLUMNS)) for file in files]
    return summary_rows(pa.concat_tables(tables), SUMMARY_FILE_SCHEMA)


def summary_rows(runs: pa.Table, schema: pa.Schema) -> pa.Table:
    """The summary row of one experiment's runs: the statistics, and what its first row says of the experiment."""
    statistics = summarize_experiment(runs)
    columns = {}
    for field in schema:
        if field.name in statistics.column_names:
            columns[field.name] = statistics[field.name].cast(field.type)
        elif field.name in runs.column_names:
            columns[field.name] = runs[field.name].slice(0, 1).cast(field.type)
        else:
            columns[field.name] = pa.nulls(1, field.type)
    return pa.table(columns, schema=schema)


# --- on a cluster ------------------------------------------------------------------------------------------------


def run_summaries(
    plan: SummaryPlan,
    store: Store,
    client: Client | None = None,
    on_progress: Callable[[SummaryReport], None] = lambda report: None,
) -> SummaryReport:
    """Bring every planned partition up to date, as Dask tasks on ``client`` or here without one."""
    total = SummaryReport()
    if client is None:
        for partition in plan.partitions:
            total += summarize_partition(store, partition)
            on_progress(total)
        return total
    from distributed import as_completed

    path, state = store.location.absolute, str(store.state) if store.has_state else None
    futures = client.map(_summarize_batch, list(_batches(plan.partitions)), path=path, state=state, pure=False)
    for future in as_completed(futures):
        total += future.result()
        future.release()
        on_progress(total)
    return total


def _batches(plans: list[PartitionPlan]) -> Iterator[list[PartitionPlan]]:
    """Partitions in batches of about as many run files, so that tiny ones do not drown in overhead."""
    batch: list[PartitionPlan] = []
    files = 0
    for plan in plans:
        batch.append(plan)
        files += sum(map(len, plan.stale.values()))
        if files >= max(16, min(_BATCH_FILES, len(plans) // 8)):
            yield batch
            batch, files = [], 0
    if batch:
        yield batch


def _summarize_batch(plans: list[PartitionPlan], path: str, state: str | None) -> SummaryReport:
    store = Store.open(path, state)
    return sum((summarize_partition(store, plan) for plan in plans), SummaryReport())


# --- any Dask dataframe ------------------------------------------------------------------------------------------


def summarize_runs(frame: dd.DataFrame, *, colocated: bool | None = None) -> dd.DataFrame:
    """The distributed groupby on ``experiment_id``: a summary frame from a run frame, a row an experiment.

    ``frame`` has Arrow-backed list columns. Where every experiment's rows are in one of its partitions
    (``colocated``; known of frames from `butter_etl.read_runs`), nothing is moved; otherwise the rows are shuffled by
    experiment first. Columns that the frame does not have come out null.
    """
    import dask

    from butter_etl.frames import empty_frame, is_colocated

    if colocated is None:
        colocated = is_colocated(frame)
    if not colocated:
        with dask.config.set({"dataframe.shuffle.method": "tasks"}):  # the p2p shuffle cannot carry list columns
            frame = frame.shuffle("experiment_id")
    summary: dd.DataFrame = frame.map_partitions(
        _summarize_frame, meta=empty_frame(SUMMARY_SCHEMA), enforce_metadata=False
    )
    return summary


def _summarize_frame(frame: pd.DataFrame) -> pd.DataFrame:
    from butter_etl.frames import to_arrow, to_frame

    runs = to_arrow(frame, RUN_SCHEMA)
    ids = runs["experiment_id"].unique().sort()
    rows = [summary_rows(runs.filter(pc.equal(runs["experiment_id"], one)), SUMMARY_SCHEMA) for one in ids]
    return to_frame(pa.concat_tables(rows) if rows else SUMMARY_SCHEMA.empty_table())
