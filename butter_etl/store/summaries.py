"""The summary files of a partition: written row group by row group, both together, and read the same way.

A partition has two: `complete_summary` with every statistic, and `complete_executive_summary` with a few of its
columns. Both carry the same fingerprints, so that one that lags behind the other is found out. Where intervals were
asked for, it has also a file in `complete_precision` for each confidence level, with fingerprints of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import islice

import pyarrow as pa
import pyarrow.fs

from butter_etl.engines import empty_table
from butter_etl.store.files import Location
from butter_etl.store.fingerprints import METADATA_KEY, fingerprints_metadata, parse_fingerprints, raw_fingerprints
from butter_etl.store.history_chunks import DamagedPageError
from butter_etl.store.history_files import HistoryFile
from butter_etl.store.layout import SUMMARY_FILE
from butter_etl.store.parquet import conform, parquet_output
from butter_etl.store.stored_rows import StoredRows
from butter_etl.studies import EXECUTIVE, PRECISION, SUMMARY, Frame, Study, float_text

#: Experiments a row group: few enough that a reader of one experiment's column reads little else.
ROWS_A_GROUP = 8
#: Runs of more epochs than this are long: an experiment of them takes tens of megabytes of memory.
LONG = 10_000


def rows_a_group(points: int) -> int:
    """Return the number of experiments in a row group: half as many where runs are long, since all are in memory."""
    return ROWS_A_GROUP if points <= LONG else ROWS_A_GROUP // 2


def summary_name(partition: str) -> str:
    """Return the name of the summary file of a partition."""
    return f"{SUMMARY}/{partition}/{SUMMARY_FILE}"


def executive_name(partition: str) -> str:
    """Return the name of the executive summary file of a partition."""
    return f"{EXECUTIVE}/{partition}/{SUMMARY_FILE}"


def precision_name(partition: str, level: float) -> str:
    """Return the name of the precision file of a partition at a level."""
    return f"{PRECISION}/{partition}/{float_text(level, 'float64')}.parquet"


def level_of(name: str) -> float | None:
    """Return the level that the name of a precision file says; None of another file."""
    base = name.rpartition("/")[2]
    try:
        level = float(base.removesuffix(".parquet"))
    except ValueError:
        return None
    return level if base == precision_name("", level).rpartition("/")[2] else None


def precision_levels(location: Location) -> list[float]:
    """Return the levels at which a store has intervals, ascending."""
    return sorted({level for name, _ in location.walk(PRECISION) if (level := level_of(name)) is not None})


def frame_of(study: Study, level: float | None) -> Frame:
    """Return the frame of summaries, or of the intervals at a level."""
    return study.frames[SUMMARY] if level is None else study.precision_frame(level)


def files_of(study: Study, partition: str, level: float | None) -> list[tuple[str, pa.Schema]]:
    """Return the names and schemas of what is made of a partition at a time; the first one has all of the rows."""
    if level is not None:
        return [(precision_name(partition, level), study.precision_files)]
    known = (summary_name(partition), study.summary_files), (executive_name(partition), study.executive_files)
    return [(name, schema) for name, schema in known if schema.names]


def write_summaries(
    location: Location,
    study: Study,
    partition: str,
    row_groups: Iterable[Sequence[StoredRows]],
    fingerprints: Mapping[int, str],
    level: float | None = None,
) -> None:
    """Replace the summary files of a partition, with the fingerprints of their rows in their metadata.

    With a ``level``, it is the file of the intervals at that level.

    Those of ``row_groups``, in the order of the experiment ids, are row groups as soon as they come. The old
    files stay as they are if one of them raises. The complete summary takes its place first: if that is all that
    happens, the fingerprints of the two differ, and the next pass writes them anew.
    """
    metadata, files = fingerprints_metadata(fingerprints), files_of(study, partition, level)
    with ExitStack() as stack:  # what is opened last is left first, and takes its place then
        outputs = [
            (stack.enter_context(parquet_output(location, name, schema, study.encodings)), schema)
            for name, schema in reversed(files)
        ]
        for rows in row_groups:
            for output, schema in outputs:
                try:
                    output.write_rows([some.select(schema.names) for some in rows])
                except DamagedPageError as error:  # of rows that are kept, encoded otherwise than by now
                    raise location.torn(files[0][0], error) from error
        for output, _ in outputs:
            output.add_key_value_metadata(metadata)


def delete_summaries(location: Location, study: Study, partition: str, level: float | None = None) -> None:
    """Remove both summary files of a partition, or that of the intervals at a level, those that are there."""
    for name, _ in reversed(files_of(study, partition, level)):
        location.remove(name)


def is_executive_current(location: Location, study: Study, partition: str) -> bool:
    """Tell whether the executive summary of a partition was made from what its complete summary was made from.

    It is where the study has none.
    """
    if not study.executive.names:
        return True
    complete, executive = (raw_fingerprints(location, name(partition)) for name in (summary_name, executive_name))
    return complete == executive


class SummaryReader:
    """One summary file, opened once: what is read belongs together, whoever replaces the file meanwhile."""

    def __init__(self, location: Location, name: str, file: HistoryFile, schema: pa.Schema) -> None:
        self._location, self._name, self._file, self._schema = location, name, file, schema
        metadata = file.metadata.metadata or {}
        #: The fingerprint of each row, by experiment id.
        self.fingerprints = parse_fingerprints(metadata.get(METADATA_KEY))
        self._group: tuple[int, pa.Table] = (-1, empty_table(schema))

    @classmethod
    @contextmanager
    def open(cls, location: Location, name: str, schema: pa.Schema) -> Iterator[SummaryReader | None]:
        """Open the file, or yield None if there is none; raise TornFileError if it cannot be read.

        Rows are returned in ``schema``.
        """
        if location.kind(name) != pa.fs.FileType.File:
            yield None
            return
        with location.parquet_file(name) as file:
            yield cls(location, name, file, schema)

    def group(self, experiments: Sequence[int]) -> StoredRows | None:
        """Return the row group that has the rows of just these experiments, its histories as they are stored.

        They are in the present schema. Returns None if there is no such row group.
        """
        number = self._group_of.get(experiments[0])
        if number is None or self._ids[number] != experiments:
            return None
        with self._reading():
            return self._file.read_stored(number).conform(self._schema)

    def row(self, experiment_id: int) -> pa.Table:
        """Return the row of an experiment, in the present schema; columns that the file does not have are null.

        Row groups are read whole, and the last one is kept: ask in the order of the file. Raises KeyError for an
        experiment that is not in the file.
        """
        number = self._group_of[experiment_id]
        if self._group[0] != number:
            self._group = (-1, self._group[1].slice(0, 0))  # not two at a time
            with self._reading():
                table = self._file.read_row_group(number, use_threads=False)
            self._group = (number, conform(table, self._schema))
        return self._group[1].slice(self._ids[number].index(experiment_id), 1)

    @cached_property
    def _ids(self) -> list[list[int]]:
        """Return the experiment ids of each row group."""
        with self._reading():
            ids = iter(self._file.read(["experiment_id"], use_threads=False)["experiment_id"].to_pylist())
        groups = range(self._file.num_row_groups)
        return [list(islice(ids, self._file.metadata.row_group(group).num_rows)) for group in groups]

    @cached_property
    def _group_of(self) -> dict[int, int]:
        """Return the number of each experiment's row group, by experiment id."""
        return {experiment_id: group for group, some in enumerate(self._ids) for experiment_id in some}

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise self._location.torn(self._name, error) from error
