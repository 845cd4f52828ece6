"""What Parquet settings cost on real histories: the table behind decision 7.

``python -m benchmarks.parquet_settings STORE [--rounds 7] [--json]`` takes the run files of a store that `butter-etl
train` and `summarize` made, writes them anew in memory with one setting after another, all settings in turns, and
prints what they come to: bytes, and CPU milliseconds an experiment for writing and for reading what summaries need.
Summary files likewise, read whole, with different numbers of experiments a row group: ``one column`` is how many bytes
a reader takes from the file for one experiment's values of one column, footer left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from butter_etl.engines.contract import HISTORIES
from butter_etl.store.parquet import parquet_options
from butter_etl.store.store import Store
from butter_etl.store.summaries import ROWS_A_GROUP, summary_name
from butter_etl.studies.butter.study import BUTTER
from butter_etl.summarize import input_columns

Options = dict[str, Any]


def _lists(schema: pa.Schema) -> list[pa.Field]:
    return [field for field in schema if pa.types.is_list(field.type) and field.name != "widths"]


def _leaves(schema: pa.Schema, part: str = "") -> list[str]:
    """The float leaves of lists whose name holds ``part``."""
    floats = [field for field in _lists(schema) if pa.types.is_floating(field.type.value_type)]
    return [f"{field.name}.list.element" for field in floats if part in field.name]


def _others(schema: pa.Schema, leaves: Sequence[str]) -> list[str]:
    """Every leaf but these."""
    names = [f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in schema]
    return [name for name in names if name not in leaves]


def _compressed(base: Options, codec: str, level: int | None) -> Options:
    """The settings with another codec for what is compressed."""
    compressed = [leaf for leaf, used in base["compression"].items() if used != "none"]
    levels = None if level is None else dict.fromkeys(compressed, level)
    return {
        **base,
        "compression": {**base["compression"], **dict.fromkeys(compressed, codec)},
        "compression_level": levels,
    }


def _variants(schema: pa.Schema) -> dict[str, Options]:
    """Settings by name; each differs from the store's in what its name says."""
    base = parquet_options(schema)
    floats, leaves = _leaves(schema), _others(schema, [])
    split_all = {
        "column_encoding": dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
        "use_dictionary": _others(schema, floats),
    }
    whole = {"compression": "zstd", "compression_level": 3}
    return {
        "the store's": base,
        "pyarrow's defaults": {},
        "zstd 3 and dictionaries for all": {**base, **whole, "column_encoding": None, "use_dictionary": True},
        "no dictionaries, no split": {**base, "column_encoding": None, "use_dictionary": False},
        "split for accuracies too": {**base, **split_all},
        "dictionaries for all scalars": {
            **base,
            "use_dictionary": [leaf for leaf in leaves if leaf not in base["column_encoding"]],
        },
        "scalars compressed": {**base, **whole},
        "statistics of lists": {**base, "write_statistics": True},
        "no page index": {**base, "write_page_index": False},
        **{f"zstd {level}": _compressed(base, "zstd", level) for level in (-5, 1, 6, 9, 15)},
        "LZ4": _compressed(base, "lz4", None),
        "Snappy": _compressed(base, "snappy", None),
        "Brotli 6": _compressed(base, "brotli", 6),
        "no compression": _compressed(base, "none", None),
        **{f"pages of {size >> 10} kB": {**base, "data_page_size": size} for size in (2**14, 2**16, 2**18)},
        "data pages 2.0": {**base, "data_page_version": "2.0"},
    }


@dataclass(frozen=True)
class Row:
    """What a setting comes to: kilobytes, milliseconds of CPU time an experiment, bytes of one experiment's column."""

    settings: str
    kilobytes: float
    write_ms: float
    read_ms: float
    one_column: int


def _encode(tables: Sequence[pa.Table], options: Options, row_group_size: int | None = None) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, tables[0].schema, **options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=row_group_size)
    return sink.getvalue()


def _timed(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return 1000 * (time.process_time() - started)


def _chunk_bytes(data: pa.Buffer, leaf: str) -> int:
    """Bytes of the first row group's chunk of a leaf."""
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return next(int(column.total_compressed_size) for column in columns if column.path_in_schema == leaf)


def measure(
    writers: Mapping[str, Callable[[], list[pa.Buffer]]],
    columns: list[str] | None,
    leaf: str,
    experiments: int,
    rounds: int,
) -> list[Row]:
    """The rows of a table: every writer makes the same experiments' files, all in turns."""
    written = {name: write() for name, write in writers.items()}

    def read(buffers: list[pa.Buffer]) -> None:
        for buffer in buffers:
            pq.ParquetFile(pa.BufferReader(buffer)).read(columns=columns, use_threads=False)

    times: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
    for _ in range(rounds):
        for name, write in writers.items():
            times[name].append((_timed(write), _timed(lambda name=name: read(written[name]))))  # type: ignore[misc]
    return [
        Row(
            name,
            sum(buffer.size for buffer in written[name]) / 1000 / experiments,
            median(one for one, _ in times[name]) / experiments,
            median(one for _, one in times[name]) / experiments,
            _chunk_bytes(written[name][0], leaf),
        )
        for name in writers
    ]


def run_rows(store: Store, rounds: int) -> tuple[list[Row], float]:
    """The table of run files, one an experiment, and the kilobytes of values of an experiment."""
    tables = []
    for _, files in groupby(store.run_files(), key=lambda file: file.experiment_id):
        whole = pa.concat_tables([store.read_runs(file) for file in files])
        tables.append(whole.combine_chunks().cast(BUTTER.run_files))
    values = sum(len(table[name].combine_chunks().flatten()) for table in tables for name in HISTORIES)
    writers = {
        name: lambda options=options: [_encode([table], options) for table in tables]
        for name, options in _variants(BUTTER.run_files).items()
    }
    rows = measure(writers, list(input_columns(BUTTER)), "val_loss.list.element", len(tables), rounds)
    return rows, values * 4 / 1000 / len(tables)


def summary_rows(store: Store, rounds: int) -> tuple[list[Row], float]:
    """The table of a summary file of all experiments of the store, and the kilobytes of values of an experiment."""
    partitions = dict.fromkeys(file.partition for file in store.run_files())
    tables = [store.location.read_table(summary_name(partition)) for partition in partitions]
    table = pa.concat_tables(tables).combine_chunks().cast(BUTTER.summary_files)
    kilobytes = sum(table[field.name].nbytes for field in _lists(BUTTER.summary_files)) / 1000 / len(table)
    base = parquet_options(BUTTER.summary_files)
    writers = {
        name: lambda options=options: [_encode([table], options, ROWS_A_GROUP)]
        for name, options in _variants(BUTTER.summary_files).items()
    }
    writers |= {
        f"{size} experiments a row group": lambda size=size: [_encode([table], base, size)]
        for size in (1, 2, 4, 8, 16, 32)
    }
    return measure(writers, None, "test_loss_median.list.element", len(table), rounds), kilobytes


def _table(title: str, rows: list[Row], kilobytes: float) -> str:
    lines = [
        f"{title}: {kilobytes:,.0f} kB of values an experiment",
        "",
        "| settings | kB | write, ms | read, ms | one column, kB |",
        "|---|---|---|---|---|",
        *(
            f"| {one.settings} | {one.kilobytes:,.0f} | {one.write_ms:.1f} | {one.read_ms:.1f} "
            f"| {one.one_column / 1000:.1f} |"
            for one in rows
        ),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the two tables, or JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parquet_settings", description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    store = Store.open(options.store)
    found = {"run files": run_rows(store, options.rounds), "summary files": summary_rows(store, options.rounds)}
    if options.json:
        print(json.dumps({title: [asdict(row) for row in rows] for title, (rows, _) in found.items()}, indent=1))
    else:
        print("\n\n".join(_table(title, rows, kilobytes) for title, (rows, kilobytes) in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
