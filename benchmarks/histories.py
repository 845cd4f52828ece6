"""How fast history columns become bytes of Parquet and arrays again, against pyarrow with the same settings.

``python -m benchmarks.histories [--store STORE] [--runs 30] [--epochs 3000] [--rounds 15] [--json]`` takes the eight
histories that summaries read, of a store's run files or made up, and lets the codec and pyarrow take turns in this
process, on one thread. ``columns`` are chunks between bytes in memory and Arrow arrays, without footers; ``file`` is a
file of these columns, footer included; ``run file`` has all columns of a run file; ``order rows`` takes the rows of
these columns in another order. The table has medians of CPU
milliseconds, and how often the codec fits into pyarrow's. Exit code 1: what one wrote, the other reads otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.synthetic import run_table
from butter_etl.store.history_chunks import DOUBLE, FLOAT, INT32, UNCOMPRESSED, ZSTD, Passed, chunk_of, is_history
from butter_etl.store.history_files import HistoryFile
from butter_etl.store.lists import lists_of
from butter_etl.store.page_reading import read_lists
from butter_etl.store.page_writing import ChunkEncoder, HistoryWriter
from butter_etl.store.parquet import ZSTD_LEVEL, parquet_options
from butter_etl.store.row_order import take_rows
from butter_etl.store.store import Store
from butter_etl.studies import usual_encoding
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.summarize import input_columns

HISTORIES = [name for name in input_columns(BUTTER) if name in BUTTER.histories]


@dataclass(frozen=True)
class Result:
    """What is measured, CPU milliseconds of pyarrow and of the codec, medians, and the median of the rounds' ratios."""

    what: str
    pyarrow: float
    codec: float
    ratio: float


class Disagreement(Exception):  # noqa: N818
    """What one wrote, the other read otherwise."""


class _Pieces(list[Any]):
    write = list.append


def tables(store: str | None, runs: int, epochs: int) -> pa.Table:
    """The rows of the largest run file of a store, or made-up ones."""
    if store is None:
        spec = make_experiment(dataset="mnist", size=4096, depth=3, epochs=epochs)
        return run_table(0, spec, runs, epochs)
    opened = Store.open(store)
    file = max(opened.run_files(), key=lambda one: one.size)
    return opened.read_runs(file)


def _encodings(schema: pa.Schema) -> dict[str, Any]:
    return {field.name: BUTTER.encodings.get(field.name) or usual_encoding(field.type) for field in schema}


def by_pyarrow(table: pa.Table) -> bytes:
    """A file of pyarrow's, with a store's settings."""
    memory = pa.BufferOutputStream()
    with pq.ParquetWriter(memory, table.schema, **parquet_options(table.schema, _encodings(table.schema))) as writer:
        writer.write_table(table)
    data: bytes = memory.getvalue().to_pybytes()
    return data


def by_codec(table: pa.Table) -> bytes:
    """The same of the codec's."""
    pieces, encodings = _Pieces(), _encodings(table.schema)
    options = partial(parquet_options, encodings=encodings)
    with HistoryWriter(pieces, table.schema, encodings, options, level=ZSTD_LEVEL) as writer:
        writer.write_table(table)
    return b"".join(pieces)


def read_by_pyarrow(data: bytes) -> pa.Table:
    """All columns of a file."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(use_threads=False)


def read_by_codec(data: bytes) -> pa.Table:
    """The same by the codec."""
    with HistoryFile(pa.BufferReader(data)) as file:
        return file.read(use_threads=False)


def _chunk_reader(data: bytes, table: pa.Table) -> Callable[[], object]:
    """Decode the chunks of a file that lies in memory and whose footer has been read."""
    numbers = {"FLOAT": FLOAT, "DOUBLE": DOUBLE, "INT32": INT32}
    codecs = {"ZSTD": ZSTD, "UNCOMPRESSED": UNCOMPRESSED}
    chunks = []
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        group = file.metadata.row_group(0)
        for place, field in enumerate(table.schema):
            one = group.column(place)
            sizes = (one.num_values, one.total_uncompressed_size, one.total_compressed_size, one.data_page_offset)
            said = (numbers[one.physical_type], codecs[one.compression], *sizes, one.dictionary_page_offset or -1)
            chunk = chunk_of(said, field.type, len(data))
            if chunk is None:
                raise AssertionError(field)
            chunks.append((chunk, field.type))
    view, rows = memoryview(data), table.num_rows
    return lambda: [read_lists(view[c.start : c.start + c.size], c, kind, rows) for c, kind in chunks]


def _chunk_writer(table: pa.Table) -> Callable[[], object]:
    """Encode the columns of a table, and forget them."""
    encodings = _encodings(table.schema)
    encoders = {f.name: ChunkEncoder(f.name, f.type, encodings[f.name], ZSTD_LEVEL) for f in table.schema}

    def write() -> None:
        for name, encoder in encoders.items():
            lists = lists_of(table[name].chunk(0))
            if lists is None:
                raise AssertionError(name)
            encoder.encode(lists, 4, len)

    return write


def measure(table: pa.Table, rounds: int) -> list[Result]:
    """Let both take turns; raises Disagreement where one reads otherwise than the other."""
    Passed.worth_loading = Passed.worth_compiling = 0  # from the first file on, as in a process that has read many
    table = table.combine_chunks()
    histories = table.select([name for name in HISTORIES if is_history(table[name].type)])
    order = np.random.default_rng(0).permutation(table.num_rows)
    theirs, ours, whole = by_pyarrow(histories), by_codec(histories), by_codec(table)
    for data, wanted in ((theirs, histories), (ours, histories), (whole, table)):
        if not read_by_codec(data).equals(read_by_pyarrow(data)) or not read_by_pyarrow(data).equals(wanted):
            raise Disagreement("the codec and pyarrow do not read the same")
    with pq.ParquetFile(pa.BufferReader(theirs)) as file:
        pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "decode columns": (lambda: file.read_row_group(0, use_threads=False), _chunk_reader(theirs, histories)),
            "encode columns": (partial(by_pyarrow, histories), _chunk_writer(histories)),
            "read file": (partial(read_by_pyarrow, theirs), partial(read_by_codec, theirs)),
            "write file": (partial(by_pyarrow, histories), partial(by_codec, histories)),
            "read run file": (partial(read_by_pyarrow, whole), partial(read_by_codec, whole)),
            "write run file": (partial(by_pyarrow, table), partial(by_codec, table)),
            "order rows": (
                lambda: histories.take(pa.array(order)).combine_chunks(),
                lambda: take_rows(histories, order),
            ),
        }
        return [_result(what, *pair, rounds) for what, pair in pairs.items()]


def _result(what: str, theirs: Callable[[], object], ours: Callable[[], object], rounds: int) -> Result:
    taken = [(_time(theirs), _time(ours)) for _ in range(rounds + 1)][1:]
    ratio = median(their / our for their, our in taken)
    return Result(what, 1000 * median(t for t, _ in taken), 1000 * median(o for _, o in taken), ratio)


def _time(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def show(results: list[Result], sizes: tuple[int, int]) -> None:
    """Print a table."""
    print("| | pyarrow, ms | codec, ms | times |\n|---|---|---|---|")
    for one in results:
        print(f"| {one.what} | {one.pyarrow:.2f} | {one.codec:.2f} | {one.ratio:.1f} |")
    print(f"\nrun file: {sizes[0]:,} bytes by pyarrow, {sizes[1]:,} by the codec")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--store", type=Path, help="a store whose largest run file is taken (else made-up runs)")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    table = tables(None if options.store is None else str(options.store), options.runs, options.epochs)
    try:
        results = measure(table, options.rounds)
    except Disagreement as error:
        print(f"histories: {error}", file=sys.stderr)
        return 1
    sizes = len(by_pyarrow(table)), len(by_codec(table))
    if options.json:
        print(json.dumps({"results": [asdict(one) for one in results], "bytes": sizes}))
    else:
        show(results, sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
