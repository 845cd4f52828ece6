"""The spool: local files with the rows of a source, in which those of an experiment lie together.

This is the shuffle of an import. Groups of rows that hold many experiments are read once, in portions of bounded size.
Each portion is sorted by experiment and becomes one file: an Arrow file of one record batch, which readers map into
memory.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from butter_etl.errors import LandingError, one_line
from butter_etl.schema import RUN_SCHEMA
from butter_etl.sources import SLICE_BYTES, FileScan, Group, GroupScan, Reader, hash_ids, scan_rows


def spool_groups(reader: Reader, scans: Iterable[GroupScan], folder: str) -> list[GroupScan]:
    """Rewrite groups as spool files in which the rows of each experiment lie together; return the scans of these.

    Experiments are those of ``keys``, which mean the same in all groups. Rows of as many groups as fit into
    `SLICE_BYTES` are sorted at once, and no more are read. Raises LandingError if a file cannot be written.
    """
    made: list[GroupScan] = []
    held: list[tuple[pa.Table, NDArray[np.int32], NDArray[np.uint64]]] = []
    size = 0
    for scan in scans:
        row_bytes = max(scan.bytes // max(scan.keys.size, 1), 1)
        start = 0
        for rows in reader.slices(scan.group, max(1, SLICE_BYTES // row_bytes)):
            if size + rows.num_rows * row_bytes > SLICE_BYTES:
                made += _write_held(held, folder)
                held, size = [], 0
            stop = start + rows.num_rows
            held.append((rows, scan.keys[start:stop], scan.run_ids[start:stop]))
            size += rows.num_rows * row_bytes
            start = stop
    return made + _write_held(held, folder)


def spool_rows(rows: pa.Table, folder: str, place: str) -> FileScan:
    """Write rows of any source to a spool file, those of an experiment together, and return its scan.

    Raises what `scan_rows` raises, and LandingError if the file cannot be written.
    """
    codes, examples = scan_rows(rows, place)
    hashes = hash_ids(rows["run_id"]) if rows.num_rows else np.zeros(0, np.uint64)
    return FileScan(_write_spool(rows, codes, hashes, folder), examples, [])


def _write_held(held: list[tuple[pa.Table, NDArray[np.int32], NDArray[np.uint64]]], folder: str) -> list[GroupScan]:
    if not held:
        return []
    tables, codes, hashes = zip(*held, strict=True)
    return _write_spool(pa.concat_tables(tables), np.concatenate(codes), np.concatenate(hashes), folder)


def _write_spool(rows: pa.Table, codes: NDArray[np.int32], hashes: NDArray[np.uint64], folder: str) -> list[GroupScan]:
    """Write rows to a spool file and return a scan for each experiment.

    Rows of an experiment lie in the order of their repetition numbers, in which they are landed.
    """
    name = f"{uuid.uuid4().hex}.tmp"
    order = np.lexsort((pc.fill_null(rows["repetition"], 0).to_numpy(), codes))
    if not order.size:
        return []
    ordered = rows.take(pa.array(order)).combine_chunks()
    try:
        with pa.OSFile(f"{folder}/{name}", "wb") as sink, pa.ipc.new_file(sink, RUN_SCHEMA) as writer:
            writer.write_table(ordered)
    except OSError as error:
        raise LandingError(f"{folder}: rows could not be spooled ({one_line(error)})") from error
    codes, hashes = codes[order], hashes[order]
    row_bytes = ordered.nbytes // codes.size
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    return [
        GroupScan(Group(name, start, stop - start), row_bytes * (stop - start), codes[start:stop], hashes[start:stop])
        for start, stop in pairwise([*starts, codes.size])
    ]
