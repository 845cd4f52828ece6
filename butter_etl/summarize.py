"""Summaries: per-epoch statistics over the repetitions of each experiment, redone only where runs changed.

An experiment never spans partitions, so a partition is summarised exactly from its own files. `plan_summaries` compares
fingerprints, `summarize_partition` brings one partition's summary files up to date, `run_summaries` does so in threads
or on a cluster. `summarize_runs` is the same computation for any Dask dataframe of runs.

A partition streams: threads read experiments ahead, one computes, one encodes, and each row group of the result is
written as soon as it is complete. So memory holds a few experiments, however large the partition is.

With a confidence level, all of this makes the intervals at that level, in the precision frame, in place of summaries.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec
import pyarrow as pa

from butter_etl.clusters import Sealed, map_each, thread_count
from butter_etl.engines import SummaryBlock, check_level, column_of, precise_experiment
from butter_etl.errors import NotebookBar, UsageError, counted, html_table, suggestion, writing
from butter_etl.store import (
    LONG,
    Registry,
    RunFile,
    Store,
    StoredRows,
    StudyLike,
    SummaryReader,
    as_study,
    by_experiment,
    delete_summaries,
    executive_name,
    files_of,
    fingerprint,
    frame_of,
    is_executive_current,
    parse_fingerprints,
    parse_partition,
    precision_levels,
    raw_fingerprints,
    read_fingerprints,
    rows_a_group,
    write_common_metadata,
    write_summaries,
)
from butter_etl.studies import LEVEL, MAKER, RUNS, Choice, Selection, Study, default_study, groups_of

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    from distributed import Client

_T = TypeVar("_T")
_R = TypeVar("_R")


#: A Dask task has partitions of about this many run files or bytes, whichever comes first: a few seconds of work.
BATCH_FILES, BATCH_BYTES = 500, 512 * 2**20
_BATCHES_A_THREAD = 4
#: The confidence level of intervals where none is asked for.
USUAL_LEVEL = 0.95


# --- plan --------------------------------------------------------------------------------------------------------


class PartitionPlan(msgspec.Struct, frozen=True):
    """The work to do in one partition.

    ``stale`` are the experiments to compute, whatever the old file says of them with ``full``; ``fresh`` counts the
    rows to keep, ``orphans`` those whose runs are gone. ``files`` and ``size``, in bytes, are what is to be read.
    With a ``level``, rows are the intervals at that level.
    """

    partition: str
    stale: list[int]
    fresh: int
    orphans: int = 0
    files: int = 0
    size: int = 0
    full: bool = False
    level: float | None = None


@dataclass(frozen=True)
class SummaryPlan:
    """The partitions that have something to do, and how many experiments are up to date already."""

    partitions: list[PartitionPlan]
    fresh: int

    @property
    def stale(self) -> int:
        """Return the number of experiments that are to be computed."""
        return sum(len(plan.stale) for plan in self.partitions)

    @property
    def size(self) -> int:
        """Return the number of bytes that are to be read."""
        return sum(plan.size for plan in self.partitions)

    @property
    def orphans(self) -> int:
        """Return the number of summary rows that have lost their runs."""
        return sum(plan.orphans for plan in self.partitions)


def plan_summaries(
    store: Store,
    selection: Selection | None = None,
    *,
    full: bool = False,
    level: float | None = None,
    renewed: bool = False,
) -> SummaryPlan:
    """Find the experiments that have changed since their summary row was made; take all of them with ``full``.

    With a selection, only its experiments are computed; the other rows of a partition are kept as they are. With a
    ``level``, what is planned are the intervals at that level. With ``renewed``, experiments that have no row yet are
    left without. Raises SpecError for a level that is none.
    """
    selected = _selected(store, selection)
    with_runs: set[str] = set()
    plans, fresh = [], 0
    for partition, files in groupby(store.run_files(), key=lambda file: file.partition):
        with_runs.add(partition)
        plan, needed = _plan_partition(store, partition, files, selected, full=full, level=level, renewed=renewed)
        fresh += plan.fresh
        if needed:
            plans.append(plan)
    plans.extend(_orphaned_partitions(store, with_runs, level))
    return SummaryPlan(plans, fresh)


def _selected(store: Store, selection: Selection | None) -> Callable[[int], bool]:
    if selection is None or not (selection.sweeps or selection.conditions):
        return lambda experiment_id: True
    registry = Registry(store)
    return lambda experiment_id: selection.matches(registry.experiment(experiment_id))


def _plan_partition(
    store: Store,
    partition: str,
    files: Iterable[RunFile],
    selected: Callable[[int], bool],
    *,
    full: bool,
    level: float | None,
    renewed: bool,
) -> tuple[PartitionPlan, bool]:
    """Return the plan of a partition, and whether there is anything to do in it."""
    experiments, frame = by_experiment(files), frame_of(store.study, level)
    raw = raw_fingerprints(store.location, _name(store, partition, level))
    old = parse_fingerprints(raw)
    stale = [
        experiment_id
        for experiment_id, own in experiments.items()
        if (full or old.get(experiment_id) != fingerprint(own, frame))
        and (experiment_id in old or not renewed)
        and selected(experiment_id)
    ]
    orphans = len(old.keys() - experiments.keys())
    fresh = len(old.keys() - set(stale)) - orphans
    to_read = [file for experiment_id in stale for file in experiments[experiment_id]]
    size = sum(file.size for file in to_read)
    plan = PartitionPlan(partition, stale, fresh, orphans, len(to_read), size, full=full, level=level)
    is_current = not old or not store.study.executive.names or level is not None
    is_current = is_current or raw == raw_fingerprints(store.location, executive_name(partition))
    return plan, bool(stale or orphans or not is_current)


def _orphaned_partitions(store: Store, with_runs: set[str], level: float | None) -> Iterator[PartitionPlan]:
    root = frame_of(store.study, level).folder
    for name, _ in store.location.walk(root):
        partition = name.rpartition("/")[0]
        if partition not in with_runs and f"{root}/{name}" == _name(store, partition, level):
            old = read_fingerprints(store.location, f"{root}/{name}")
            yield PartitionPlan(partition, [], 0, len(old), level=level)


def _name(store: Store, partition: str, level: float | None) -> str:
    """Return the name of the file whose fingerprints say what is up to date in a partition."""
    return files_of(store.study, partition, level)[0][0]


# --- one unit of work --------------------------------------------------------------------------------------------


class SummaryReport(msgspec.Struct, frozen=True):
    """Counts of experiments that were computed, kept or dropped, and of the partitions done; reports add."""

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

    def _repr_html_(self) -> str:
        """Return the counts as a notebook shows them."""
        return html_table(
            [("experiments summarised", self.computed), ("up to date", self.kept), ("gone", self.dropped)]
        )


class _Work(NamedTuple):
    """Content of a partition's new files: rows to compute from these files, in order, and the fingerprints of all rows.

    ``points`` is how many a run of the partition has at most, as far as its keys tell; else 0.
    """

    computed: dict[int, list[RunFile]]
    fingerprints: dict[int, str]
    dropped: int
    points: int


def summarize_partition(store: Store, plan: PartitionPlan, *, readers: int = 1) -> SummaryReport:
    """Bring one partition's summary files up to date; readers see the old files or the new ones, whole.

    The partition is listed again: fingerprints are of the files that are read, runs that land later are for the next
    pass, and what somebody else has summarised since the plan was made is kept. ``readers`` is how many threads
    decode run files while others compute and encode (of long runs one at most, for memory's sake); with 0 all is
    done on this thread. Raises TornFileError, and leaves the old files as they are, if a run file cannot be read.
    """
    name, schema = files_of(store.study, plan.partition, plan.level)[0]
    with SummaryReader.open(store.location, name, schema) as old:
        work = _work(store, plan, {} if old is None else old.fingerprints)
        report = SummaryReport(len(work.computed), len(work.fingerprints) - len(work.computed), work.dropped, 1)
        if not work.fingerprints:
            delete_summaries(store.location, store.study, plan.partition, plan.level)
        elif work.computed or work.dropped or not _is_current(store, plan):
            with ExitStack() as stack:
                ahead = _Ahead(stack, readers if work.points <= LONG else min(readers, 1))
                row_groups = ahead.each(_row_groups(store, work, old, ahead, plan.level))
                write_summaries(store.location, store.study, plan.partition, row_groups, work.fingerprints, plan.level)
    return report


def _is_current(store: Store, plan: PartitionPlan) -> bool:
    """Tell whether all that is made of a partition at a time was made at one time."""
    return plan.level is not None or is_executive_current(store.location, store.study, plan.partition)


def _work(store: Store, plan: PartitionPlan, old: dict[int, str]) -> _Work:
    wanted = set(plan.stale)
    computed: dict[int, list[RunFile]] = {}
    fingerprints: dict[int, str] = {}
    frame = frame_of(store.study, plan.level)
    experiments = by_experiment(store.run_files(plan.partition))
    for experiment_id, files in experiments.items():
        current = fingerprint(files, frame) if experiment_id in wanted else ""
        if experiment_id in wanted and (plan.full or old.get(experiment_id) != current):
            computed[experiment_id] = files
            fingerprints[experiment_id] = current
        elif experiment_id in old:
            fingerprints[experiment_id] = old[experiment_id]
    keys = parse_partition(store.study.key_schema, plan.partition)
    points = store.study.most_points(keys) or 0
    return _Work(computed, fingerprints, len(old.keys() - experiments.keys()), points)


def _row_groups(
    store: Store, work: _Work, old: SummaryReader | None, ahead: _Ahead, level: float | None
) -> Iterator[list[StoredRows]]:
    """Yield the row groups of a partition in the order of the ids: rows that are computed, or kept."""
    columns = input_columns(store.study, level)
    histories = ahead.map(partial(_read_experiment, store, columns=columns), work.computed.values())
    ids = iter(work.fingerprints)
    while group := list(islice(ids, rows_a_group(work.points))):
        if old is not None and work.computed.keys().isdisjoint(group) and (kept := old.group(group)) is not None:
            yield [kept]
            continue
        rows = []
        for is_computed, some in groupby(group, key=work.computed.__contains__):
            if is_computed:
                count = len(list(some))
                some_rows = islice(histories, count)
                if level is None:
                    rows.append(summary_rows(store.study, some_rows, points=count * work.points))
                else:
                    rows.append(precision_rows(store.study, some_rows, level))
            elif old is not None:
                rows += map(old.row, some)
        yield [StoredRows.of(pa.concat_tables(rows))]


def _read_experiment(store: Store, files: list[RunFile], *, columns: Sequence[str]) -> pa.Table:
    """Read what a summary needs of all runs of an experiment; columns that are one value, of its first file alone."""
    study, wanted = store.study, list(columns)
    several = [name for name in wanted if name not in study.experiment_columns or name == study.points.column]
    tables = [
        store.location.read_table(f"{RUNS}/{file.path}", several if number else wanted, use_threads=False)
        for number, file in enumerate(files)
    ]
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="default")


def input_columns(study: Study, level: float | None = None) -> tuple[str, ...]:
    """Return the columns of the run frame that summaries are made of, or with a ``level`` intervals."""
    if level is not None:
        needed = {study.reduction.counted, *(one.history for one in study.intervals.series)}
        return (*study.experiment_columns, "repetition", *(name for name in study.histories if name in needed))
    needed = {*study.reduction.histories.values(), *(study.further.inputs if study.further else ())}
    ones = study.experiment_columns
    return (*ones, *(name for name in study.runs.names if name in needed and name not in ones))


def summary_rows(
    study: Study, experiments: Iterable[pa.Table], schema: pa.Schema | None = None, *, points: int = 0
) -> pa.Table:
    """Return the summary rows of experiments, given the runs of each: statistics, and the experiment's own columns.

    They are in ``schema``, by default that of summary files.

    The experiment's columns are taken from its first row, the names of measuring points from the first of those that
    have most. ``experiments`` are used one by one, so that an iterator need not hold them all. ``points``, of all
    together, says how much room to begin with.
    """
    wanted = study.summary_files if schema is None else schema
    first_rows, block = [], SummaryBlock(study.reduction, points)
    further: list[Mapping[str, Any]] = []
    for runs in experiments:
        first_rows.append(_own_row(study, runs))
        block.add(runs)
        if study.further is not None:
            further.append(study.further.compute(runs))
    known: dict[str, pa.ChunkedArray] = {}
    for table in (pa.concat_tables(first_rows), block.table()):
        known |= dict(zip(table.column_names, table.columns, strict=True))
    for column in study.further.columns if study.further else ():
        known[column.name] = column_of([one[column.name] for one in further], column.type)
    columns = [_column(known.get(field.name), field.type, len(block)) for field in wanted]
    return pa.table(columns, schema=wanted)


def precision_rows(study: Study, experiments: Iterable[pa.Table], level: float) -> pa.Table:
    """Return the rows of precision files for experiments, given the runs of each: their intervals at a level.

    The experiment's own columns are as in `summary_rows`.
    """
    rows = []
    for runs in experiments:
        own, made = _own_row(study, runs), precise_experiment(study.intervals, level, runs)
        known = {name: table[name] for table in (own, made) for name in table.column_names}
        known[LEVEL.name] = pa.chunked_array([pa.array([level], LEVEL.type)])
        schema = study.precision_files
        columns = [_column(known.get(field.name), field.type, 1) for field in schema]
        rows.append(pa.table(columns, schema=schema))
    return pa.concat_tables(rows)


def _own_row(study: Study, runs: pa.Table) -> pa.Table:
    """Return the columns that are the experiment's own, in one row."""
    names = set(runs.column_names)
    own = runs.select([name for name in study.experiment_columns if name in names])
    return _with_all_points(own.slice(0, 1), own, study.points.column)


def _with_all_points(row: pa.Table, runs: pa.Table, column: str | None) -> pa.Table:
    """Return the row of an experiment with the measuring points of its longest run: those of others end before."""
    if column is None or column not in row.column_names:
        return row
    import pyarrow.compute as pc  # here and below: whoever finds nothing to do does without

    lengths = pc.fill_null(pc.list_value_length(runs[column]), 0)
    longest = pc.index(lengths, pc.max(lengths)).as_py()
    return row.set_column(row.column_names.index(column), runs.field(column), runs[column].slice(longest, 1))


def _column(values: pa.ChunkedArray | None, kind: pa.DataType, rows: int) -> pa.ChunkedArray | pa.Array:
    if values is None:
        return pa.nulls(rows, kind)
    return values if values.type == kind else values.cast(kind)


class _Ahead:
    """Threads that make what is asked for next, until the stack is left; without threads, nothing is made ahead."""

    def __init__(self, stack: ExitStack, readers: int) -> None:
        self._readers = readers
        if readers:
            self._pool = stack.enter_context(ThreadPoolExecutor(readers))
            self._single = stack.enter_context(ThreadPoolExecutor(1))

    def map(self, function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
        """Yield a function's results in the order of the items, one for each reader in work before it is asked for."""
        if not self._readers:
            yield from map(function, items)
            return
        pending: deque[Future[_R]] = deque()
        for item in items:
            pending.append(self._pool.submit(function, item))
            if len(pending) > self._readers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def each(self, items: Iterator[_T]) -> Iterator[_T]:
        """Yield the items in their order, the next one made by a thread while the last one is used."""
        if not self._readers:
            yield from items
            return
        end = object()
        coming = self._single.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = self._single.submit(next, items, end)
            yield item  # type: ignore[misc]


# --- in threads, or on a cluster ---------------------------------------------------------------------------------


def summarize_store(
    store: str | os.PathLike[str],
    *,
    sweep: str | None = None,
    where: Iterable[str] = (),
    full: bool = False,
    levels: Sequence[float] | None = None,
    client: Client | None = None,
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
) -> SummaryReport:
    """Bring the summaries of a store up to date with its runs, as ``butter-etl summarize`` does; return the counts.

    A notebook shows the progress. With ``sweep`` and ``where`` (conditions as in `read_runs`) only the summaries of
    some experiments, with ``full`` also those that are up to date. With ``levels`` it also brings the intervals at
    these confidence levels up to date; where the list is empty, at those that the store has, or at 0.95. Without, those
    that experiments have. The counts are of both. Without ``client`` it computes on the cores of this process. Raises
    SelectError, SpecError for a level that is none, StoreError, TornFileError for runs that cannot be read, and
    PlaceError or FullDiskError where summaries cannot be written.
    """
    opened = Store.open(store, state, study)
    selection = Registry(opened).select(Choice(sweeps=(sweep,) if sweep else (), where=tuple(where)))
    return sum(
        (
            _summarize(opened, plan_summaries(opened, selection, full=full, level=level, renewed=renewed), client)
            for level, renewed in wanted_levels(opened, levels)
        ),
        SummaryReport(),
    )


def _summarize(store: Store, plan: SummaryPlan, client: Client | None) -> SummaryReport:
    with NotebookBar("experiments", plan.stale) as bar:
        threads = thread_count(client)
        done = run_summaries(plan, store, client, lambda report: bar.update(report.computed), threads=threads)
    return SummaryReport(done.computed, plan.fresh, done.dropped, done.partitions)


def wanted_levels(store: Store, levels: Iterable[float] | None) -> list[tuple[float | None, bool]]:
    """Return what is to be brought up to date, summaries by None, intervals by level; and whether it is only renewed.

    Of an empty list of levels they are those at which a store has intervals, or `USUAL_LEVEL`; without a list, those at
    which it has, of experiments that have them. Raises SpecError for a level that is none.
    """
    summaries = (None, False)
    if levels is None:
        return [summaries, *((level, True) for level in precision_levels(store.location))]
    asked = sorted({check_level(level) for level in levels}) or precision_levels(store.location) or [USUAL_LEVEL]
    return [summaries, *((level, False) for level in asked)]


def run_summaries(
    plan: SummaryPlan,
    store: Store,
    client: Client | None = None,
    on_progress: Callable[[SummaryReport], None] = lambda report: None,
    *,
    threads: int = 1,
) -> SummaryReport:
    """Bring every planned partition up to date, as Dask tasks on ``client``, or in threads here without one.

    Raises PlaceError or FullDiskError where summaries cannot be written; those of before are what they were then.
    """
    if plan.partitions:
        with writing(store):
            made = {frame_of(store.study, one.level).folder for one in plan.partitions}
            for frame in store.study.frames.values():  # stores of before have no executive summary
                if not frame.optional or frame.folder in made:
                    write_common_metadata(store.location, frame.folder, frame.schema)
    total = SummaryReport()
    with writing(store):
        for _, report in _reports(plan.partitions, store, client, threads):
            total += report
            on_progress(total)
    return total


def _readers(plans: list[PartitionPlan], threads: int) -> int:
    """Return how many threads help each that summarises: only where a partition is more than one's share.

    Passing experiments from thread to thread takes time, too.
    """
    largest, total = max((plan.size for plan in plans), default=0), sum(plan.size for plan in plans)
    return max(1, threads // len(plans)) if largest * threads > total else 0


def _reports(
    plans: list[PartitionPlan], store: Store, client: Client | None, threads: int
) -> Iterator[tuple[int, SummaryReport]]:
    if client is None:
        return map_each(partial(summarize_partition, store, readers=_readers(plans, threads)), plans, threads=threads)
    path, state = store.location.absolute, str(store.state) if store.has_state else None
    threads = thread_count(client)
    batch = partial(
        _summarize_batch, path=path, state=state, study=store.study, readers=min(1, _readers(plans, threads))
    )
    return map_each(batch, _batches(plans, threads), client)


def _batches(plans: list[PartitionPlan], threads: int) -> Iterator[list[PartitionPlan]]:
    """Yield partitions in batches of about as much to read, so that tiny ones do not drown in overhead.

    Every thread gets a few batches, so that all have about as much to do in the end.
    """
    shares = _BATCHES_A_THREAD * threads
    most_files = min(BATCH_FILES, sum(plan.files + 1 for plan in plans) / shares)
    most_bytes = min(BATCH_BYTES, sum(plan.size for plan in plans) / shares)
    batch: list[PartitionPlan] = []
    files = size = 0
    for plan in plans:
        batch.append(plan)
        files, size = files + plan.files + 1, size + plan.size
        if files >= most_files or size >= most_bytes:
            yield batch
            batch, files, size = [], 0, 0
    if batch:
        yield batch


def _summarize_batch(
    plans: list[PartitionPlan], path: str, state: str | None, study: Study, readers: int
) -> SummaryReport:
    store = Store.open(path, state, study)
    return sum((summarize_partition(store, plan, readers=readers) for plan in plans), SummaryReport())


# --- any Dask dataframe ------------------------------------------------------------------------------------------


def summarize_runs(
    frame: dd.DataFrame, *, colocated: bool | None = None, study: StudyLike | None = None
) -> dd.DataFrame:
    """Summarise a run frame by experiment, distributed: a groupby on ``experiment_id``, a row an experiment.

    ``frame`` has Arrow-backed list columns. Where every experiment's rows are in one of its partitions (``colocated``;
    known of frames from `butter_etl.read_runs`), nothing is moved; otherwise the rows are shuffled by experiment first,
    of the columns that are needed. Columns that the frame does not have come out null. ``study`` is the frame's, by
    default that of new stores.
    """
    import dask

    from butter_etl.store import empty_frame, is_colocated

    if colocated is None:
        colocated = is_colocated(frame)
    of = as_study(study) or default_study()
    needed = [name for name in frame.columns if name in of.summary.names or name in input_columns(of)]
    frame = frame[needed]
    if not colocated:
        with dask.config.set({"dataframe.shuffle.method": "tasks"}):  # the p2p shuffle cannot carry list columns
            frame = frame.shuffle("experiment_id")
    summary: dd.DataFrame = frame.map_partitions(
        _summarize_frame, study=Sealed(of), meta=empty_frame(of.summary), enforce_metadata=False
    )
    return summary


def _summarize_frame(frame: pd.DataFrame, study: Sealed[Study]) -> pd.DataFrame:
    from butter_etl.store import to_arrow, to_frame

    of = study.open()
    runs = to_arrow(frame, of.runs)
    empty = of.summary.empty_table()
    return to_frame(summary_rows(of, _experiments(runs), of.summary) if len(runs) else empty)


def _experiments(runs: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows of each experiment, in the order of the ids; without copies where they stand in that order."""
    import pyarrow.compute as pc

    order = pc.sort_indices(runs["experiment_id"])
    ids = runs["experiment_id"].take(order)
    starts = pc.run_end_encode(ids.combine_chunks()).run_ends.to_pylist() if len(ids) else []
    is_sorted = ids.equals(runs["experiment_id"])
    start = 0
    for stop in starts:
        yield runs.slice(start, stop - start) if is_sorted else runs.take(order.slice(start, stop - start))
        start = stop


# --- groups of experiments ---------------------------------------------------------------------------------------

#: Counts of a group are as wide as they can be: it has the runs of many experiments.
_GROUP_COUNTS: Final = pa.uint16()


def group_rows(study: Study, runs: pa.Table, by: Sequence[str]) -> pa.Table:
    """Return statistics over all runs of each group of experiments, those that have some columns in common.

    A row is a group's: its values of ``by``, of the columns that values compare within, and what made the runs, since
    statistics never mix those; how many ``experiments`` and ``num_runs`` it has; its measuring points, where columns
    name them; and the statistics of the summary frame at each point. ``runs`` are rows of the run frame with all of
    these columns. Raises UsageError for a group of more than 65,535 runs, or of runs measured at different points.
    """
    reduction, points = replace(study.reduction, counts=_GROUP_COUNTS), study.points.column
    keys = group_columns(study, by)
    block, rows = SummaryBlock(reduction), []
    for values, some in groups_of(runs, keys):
        if some.num_rows > reduction.max_runs:
            raise UsageError(f"{_said(keys, values)}: {counted(some.num_rows, 'run')} are more than can be counted")
        own = {key: [value] for key, value in zip(keys, values, strict=True)}
        named = {} if points is None else {points: [_common_points(study, some, _said(keys, values))]}
        rows.append({**own, "experiments": [len(some["experiment_id"].unique())], **named})
        block.add(some)
    statistics = block.table()
    fields = [runs.schema.field(name) for name in (*keys, *([points] if points else []))]
    schema = pa.schema([*fields, pa.field("experiments", pa.uint32())])
    table = pa.concat_tables([schema.empty_table(), *(pa.table(row, schema=schema) for row in rows)])
    for name in statistics.column_names:
        table = table.append_column(name, statistics[name])
    return table


def group_columns(study: Study, by: Sequence[str]) -> list[str]:
    """Return the columns that tell groups by ``by`` apart; raise UsageError for one that experiments do not have."""
    for name in by:
        if name not in study.group_keys:
            known = ", ".join(study.group_keys)
            raise UsageError(f"unknown column {name!r}{suggestion(name, study.group_keys)}; known: {known}")
    return [name for name in dict.fromkeys([*by, *study.figures.comparable, MAKER]) if name in study.group_keys]


def _said(keys: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in zip(keys, values, strict=True))


def _common_points(study: Study, runs: pa.Table, group: str) -> list[float]:
    """Return the measuring points of the longest of some runs; raise UsageError unless those of all others begin so."""
    lists = [tuple(one or ()) for one in runs[study.points.column].to_pylist()]
    longest = max(lists, key=len)
    for one in set(lists):
        if one != longest[: len(one)]:
            raise UsageError(f"{group}: runs were measured at other {study.points.plural}; group them by what differs")
    return list(longest)
