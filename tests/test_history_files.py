"""History columns by the codec: to the bit what pyarrow reads and writes, and what is damaged is told."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import coverage
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.store import compact_kernels, footer_kernels, history_files, page_reading, page_writing, row_order
from butter_etl.store.history_chunks import DamagedPageError, Passed, check_footer, is_history
from butter_etl.store.history_files import HistoryFile
from butter_etl.store.page_writing import HistoryWriter
from butter_etl.store.parquet import ZSTD_LEVEL, ParquetFileWriter, parquet_options
from butter_etl.store.row_order import take_rows
from butter_etl.store.thrift import read_struct
from butter_etl.studies.columns import LEVELS, NOISE, PageEncoding, usual_encoding

ROOT = Path(__file__).parents[1]
KINDS = {"singles": pa.float32(), "doubles": pa.float64(), "bytes": pa.uint8(), "shorts": pa.uint16()}
#: Bit patterns that arithmetic would not keep.
ODD = {
    pa.float32(): np.array([0x7FC00001, 0xFFC00000, 0x7F800000, 0xFF800000, 0x80000000, 1, 0], np.uint32).view("f4"),
    pa.float64(): np.array([0x7FF8000000000001, 0xFFF0000000000000, 0x8000000000000000, 1, 0], np.uint64).view("f8"),
}


@pytest.fixture(autouse=True)
def every_size(monkeypatch):
    """The codec reads files and columns of any size."""
    monkeypatch.setattr(history_files, "SMALL_FILE", 0)
    monkeypatch.setattr(page_reading, "_FEW_ENTRIES", 0)


def list_of(kind):
    return pa.list_(pa.field("element", kind))


def column(kind, lengths, seed=0, few=False):
    """A list column: lists of these lengths, None for null ones."""
    rng = np.random.default_rng(seed)
    count, plain = sum(filter(None, lengths)), kind.to_pandas_dtype()
    if pa.types.is_integer(kind):
        values = rng.integers(0, 4 if few else np.iinfo(plain).max, count, plain, endpoint=True)
    else:
        values = rng.choice(ODD[kind], count) if few else rng.standard_normal(count).astype(plain)
    offsets = np.cumsum([0, *(length or 0 for length in lengths)]).astype(np.int32)
    mask = pa.array([length is None for length in lengths])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=mask).cast(list_of(kind))


def with_null_entry(lists):
    """The column with a null in its first list that has an entry."""
    values = lists.to_pylist()
    for row, value in enumerate(values):
        if value:
            values[row] = [None, *value[1:]]
            break
    return pa.array(values, lists.type)


LENGTHS = st.lists(st.sampled_from([None, 0, 1, 2, 7, 8, 9, 40, 1000]), min_size=1, max_size=30)
COLUMNS = st.tuples(st.sampled_from(list(KINDS)), st.integers(0, 9), st.booleans(), st.booleans())


@st.composite
def tables(draw):
    """Tables of list columns of all kinds, and others among them, whose rows may have any lengths."""
    lengths = draw(LENGTHS)
    columns = {"id": pa.array(range(len(lengths)), pa.uint32())}
    for number, (kind, seed, few, has_null) in enumerate(draw(st.lists(COLUMNS, min_size=1, max_size=4))):
        own = lengths if draw(st.booleans()) else draw(st.permutations(lengths))
        lists = column(KINDS[kind], own, seed, few)
        columns[f"{kind} {number}"] = with_null_entry(lists) if has_null else lists
    columns["name"] = pa.array([draw(st.sampled_from(["a", "bb", None]))] * len(lengths))
    columns["widths"] = pa.array([[1, 2]] * len(lengths), pa.list_(pa.uint32()))
    return pa.table(columns)


def written(table, encodings=None, row_group_size=None, metadata=None):
    """The bytes of a file of the codec's."""
    encodings = {field.name: (encodings or {}).get(field.name, usual_encoding(field.type)) for field in table.schema}
    memory, options = io.BytesIO(), partial(parquet_options, encodings=encodings)
    with HistoryWriter(memory, table.schema, encodings, options, level=ZSTD_LEVEL) as writer:
        writer.write_table(table, row_group_size)
        writer.add_key_value_metadata(metadata or {})
    return memory.getvalue()


def read(data, **options):
    with HistoryFile(pa.BufferReader(data)) as file:
        return file.read(**options)


def assert_same(found, expected):
    """Two tables are the same to the bit: types, nulls, lengths, and the bits of numbers, NaN's too."""
    assert found.schema.remove_metadata().equals(expected.schema.remove_metadata())
    found.validate(full=True)
    for name in expected.column_names:
        ours, theirs = found[name].combine_chunks(), expected[name].combine_chunks()
        if not is_history(theirs.type):
            assert ours.equals(theirs)
            continue
        assert ours.is_valid().equals(theirs.is_valid())
        assert pc.list_value_length(ours).equals(pc.list_value_length(theirs))
        ours, theirs = ours.flatten(), theirs.flatten()
        assert ours.is_valid().equals(theirs.is_valid())
        assert ours.drop_null().to_numpy().tobytes() == theirs.drop_null().to_numpy().tobytes()


# --- to the bit --------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(tables(), st.sampled_from([32, 4000, 2**20]), st.sampled_from([2, 4096]), st.data())
def test_what_is_written_is_what_pyarrow_reads(table, page_bytes, most_entries, data):
    encodings = {
        name: data.draw(st.sampled_from([NOISE, LEVELS, PageEncoding("split", compressed=False)]))
        for name in table.column_names
        if is_history(table[name].type)
    }
    size = data.draw(st.integers(1, table.num_rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_writing, "PAGE_BYTES", page_bytes)
        patch.setattr(page_writing, "MOST_ENTRIES", most_entries)
        file = written(table, encodings, size, {"butter": "etl"})
    with pq.ParquetFile(pa.BufferReader(file), page_checksum_verification=True) as theirs:
        assert_same(theirs.read(), table)
        assert theirs.metadata.num_row_groups == -(-table.num_rows // size)
        assert theirs.metadata.metadata[b"butter"] == b"etl"
        assert theirs.metadata.created_by == f"parquet-cpp-arrow version {pa.__version__}"
    assert_same(read(file), table)


PYARROW = st.fixed_dictionaries(
    {},
    optional={
        "compression": st.sampled_from(["zstd", "none", "snappy", "gzip"]),
        "use_dictionary": st.booleans(),
        "data_page_size": st.sampled_from([64, 2000]),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "write_page_checksum": st.booleans(),
        "write_page_index": st.booleans(),
        "dictionary_pagesize_limit": st.sampled_from([16, 2**20]),
        "version": st.sampled_from(["1.0", "2.6"]),
    },
)


@settings(max_examples=60)
@given(tables(), PYARROW, st.integers(1, 30))
def test_files_of_pyarrow_are_read_as_it_reads_them(table, options, size):
    memory = io.BytesIO()
    pq.write_table(table, memory, row_group_size=size, **options)
    data = memory.getvalue()
    with pq.ParquetFile(pa.BufferReader(data)) as theirs, HistoryFile(pa.BufferReader(data)) as ours:
        assert_same(ours.read(), theirs.read())
        names = theirs.schema_arrow.names[::-2]
        assert_same(ours.read(columns=names), theirs.read(columns=names))
        groups = list(range(theirs.num_row_groups))[::-1]
        assert_same(ours.read_row_groups(groups), theirs.read_row_groups(groups))
        assert_same(ours.read_row_group(0, columns=[]), theirs.read_row_group(0, columns=[]))


def lengths_in(data, columns, group=0):
    with HistoryFile(pa.BufferReader(data)) as file:
        return file.read_lengths(group, columns)


@settings(max_examples=60)
@given(tables(), st.sampled_from([32, 4000, 2**20]), st.sampled_from([0, 8, 2**12]), st.data())
def test_lengths_are_those_of_the_lists(table, page_bytes, beginning, data):
    """However little of a page is decompressed first, and of pyarrow's files with checksums too."""
    names = [name for name in table.column_names if is_history(table[name].type)]
    size = data.draw(st.integers(1, table.num_rows))
    has_null_entry = any(table[name].combine_chunks().flatten().null_count for name in names)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_writing, "PAGE_BYTES", page_bytes)
        patch.setattr(page_reading, "_LEVELS", beginning)
        memory = pa.BufferOutputStream()
        pq.write_table(table, memory, compression="zstd", row_group_size=size, write_page_checksum=True)
        for file in (written(table, None, size), memory.getvalue().to_pybytes()):
            for group, start in enumerate(range(0, table.num_rows, size)):
                found = lengths_in(file, names, group)
                if has_null_entry and found is None:
                    continue
                rows = table.slice(start, size)
                assert list(found) == names
                for name, lengths in found.items():
                    assert lengths.equals(pc.list_value_length(rows[name]).combine_chunks().cast(pa.int32()))


def test_lengths_are_told_only_of_histories_whose_pages_have_checksums():
    table, data = damageable()
    names = [name for name in table.column_names if is_history(table[name].type)]
    assert set(lengths_in(data, names)) == set(names)
    assert lengths_in(data, [*names, "identity"]) is None
    assert lengths_in(data, ["absent"]) is None
    memory = pa.BufferOutputStream()
    pq.write_table(table, memory, compression="zstd")
    assert lengths_in(memory.getvalue().to_pybytes(), names) is None


def test_a_flipped_bit_of_a_page_is_found_by_who_asks_for_lengths():
    table, data = damageable()
    names = [name for name in table.column_names if is_history(table[name].type)]
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        group = file.metadata.row_group(0)
        columns = [group.column(place) for place in range(group.num_columns)]
    found = 0
    for column in columns[1:]:
        start = column.dictionary_page_offset or column.data_page_offset
        for place in range(start, start + column.total_compressed_size):
            damaged = bytearray(data)
            damaged[place] ^= 1
            try:
                lengths = lengths_in(bytes(damaged), names)
            except DamagedPageError:
                found += 1
                continue
            # A bit in a header of what is not needed here, such as the encoding; else pyarrow is asked.
            assert lengths is None or all(
                lengths[name].equals(pc.list_value_length(table[name]).combine_chunks()) for name in names
            )
    assert found > 200


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_a_run_of_a_million_epochs(kind):
    table = pa.table({"long": column(kind, [10**6, None, 3])})
    data = written(table)
    assert_same(read(data), table)
    assert_same(pq.ParquetFile(pa.BufferReader(data)).read(), table)


def test_lists_of_a_slice_and_below_null_ones_are_not_written():
    whole = pa.ListArray.from_arrays(
        pa.array([0, 2, 5, 6, 9], pa.int32()),
        pa.array(np.arange(9, dtype=np.float32)),
        mask=pa.array([False, True] * 2),
    ).cast(list_of(pa.float32()))
    for table in (pa.table({"x": whole}), pa.table({"x": whole.slice(1, 2)}), pa.table({"x": whole}).slice(2)):
        assert_same(read(written(table)), pa.table({"x": pa.array(table["x"].to_pylist(), whole.type)}))


def test_columns_of_several_pieces():
    parts = [pa.table({"x": column(pa.float32(), [3, None, 4], seed)}) for seed in range(3)]
    table = pa.concat_tables(parts)
    assert_same(read(written(table)), table)


@pytest.mark.parametrize("is_entry", [False, True])
def test_columns_that_must_not_be_null_are_left_to_pyarrow(is_entry):
    """Their levels are others."""
    entry = pa.field("element", pa.float32(), nullable=not is_entry)
    schema = pa.schema([pa.field("x", pa.list_(entry), nullable=is_entry), pa.field("y", list_of(pa.float32()))])
    lists = column(pa.float32(), [40, 0, 7])
    table = pa.table([lists.cast(schema.field("x").type), lists], schema=schema)
    data = written(table)
    assert_same(pq.ParquetFile(pa.BufferReader(data)).read(), table)
    assert_same(read(data, columns=["x", "y"]), table)
    with HistoryFile(pa.BufferReader(data), checked=True) as file:
        file.check_columns()


def test_rows_of_another_schema_are_refused():
    table = pa.table({"x": column(pa.float32(), [3])})
    writer = HistoryWriter(io.BytesIO(), table.schema, {"x": NOISE}, parquet_options, level=1)
    with pytest.raises(ValueError, match="rows of another schema"):
        writer.write_table(table.rename_columns(["y"]))


def footer_of(data):
    struct, _ = read_struct(data[-8 - int.from_bytes(data[-8:-4], "little") : -8])
    return struct


def test_footers_say_what_pyarrows_do():
    """All but where pages lie and how many bytes they take."""
    lengths = [40, None, 0, 7, 7, 40]
    columns = {"id": pa.array(range(6), pa.uint32())}
    for name, kind in KINDS.items():
        columns[name] = column(kind, lengths, few=True)
    table = pa.table({**columns, "name": ["a"] * 6})
    encodings = {field.name: LEVELS if is_history(field.type) else usual_encoding(field.type) for field in table.schema}
    memory = io.BytesIO()
    with pq.ParquetWriter(memory, table.schema, **parquet_options(table.schema, encodings)) as writer:
        writer.write_table(table, row_group_size=4)
    ours, theirs = footer_of(written(table, encodings, 4)), footer_of(memory.getvalue())
    assert ours.keys() == theirs.keys()
    for number in ours.keys() - {4}:
        assert ours[number] == theirs[number]
    for our_group, their_group in zip(ours[4].value.values, theirs[4].value.values, strict=True):
        assert our_group.keys() == their_group.keys()
        assert our_group[3] == their_group[3]
        for our_chunk, their_chunk in zip(our_group[1].value.values, their_group[1].value.values, strict=True):
            assert our_chunk.keys() == their_chunk.keys()
            our_column, their_column = our_chunk[3].value, their_chunk[3].value
            assert our_column.keys() == their_column.keys()
            for number in our_column.keys() - {6, 7, 9, 11}:
                assert our_column[number] == their_column[number], number


# --- other readers and writers -----------------------------------------------------------------------------------


@pytest.fixture
def plain():
    """A table without null entries, which readers show alike."""
    lengths = [300, None, 0, 7, 300, 1]
    columns = {name: column(kind, lengths, seed) for seed, (name, kind) in enumerate(KINDS.items())}
    return pa.table({"id": pa.array(range(6), pa.uint32()), **columns})


def test_other_readers_read_what_is_written(plain, tmp_path):
    path = tmp_path / "ours.parquet"
    path.write_bytes(written(plain, row_group_size=4))
    expected = plain.to_pylist()
    assert pl.read_parquet(path).to_dicts() == expected
    found = duckdb.sql(f"select * from '{path}' order by id")
    assert [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()] == expected


def test_what_other_writers_write_is_read(plain, tmp_path):
    paths = [tmp_path / "polars.parquet", tmp_path / "duckdb.parquet", tmp_path / "split.parquet"]
    pl.from_arrow(plain).write_parquet(paths[0], compression="zstd")
    duckdb.sql(f"copy (select * from plain) to '{paths[1]}' (compression zstd)")
    duckdb.sql(f"copy (select * from plain) to '{paths[2]}' (compression zstd, parquet_version v2)")
    for path in paths:
        with pq.ParquetFile(path) as theirs:
            assert_same(read(path.read_bytes()), theirs.read())


# --- damage ------------------------------------------------------------------------------------------------------


def damageable():
    lengths = [40] * 4 + [None, 0]
    columns = {f"the {name}": column(kind, lengths, few=pa.types.is_integer(kind)) for name, kind in KINDS.items()}
    table = pa.table({"identity": pa.array(range(6), pa.uint32()), **columns})
    return table, written(table, {"the doubles": LEVELS})


def outcome(data, expected):
    """What reading a damaged file comes to."""
    try:
        with HistoryFile(pa.BufferReader(data), checked=True) as file:
            file.check_columns()
            found = file.read(use_threads=False)
    except DamagedPageError:
        return "damaged"
    except (pa.ArrowException, OSError):
        return "refused"
    if not found.schema.equals(expected.schema):
        return "another schema"
    try:
        assert_same(found, expected)
    except AssertionError:
        return "other values"
    return "the same"


def test_a_flipped_bit_of_any_page_is_found():
    """Each byte of the pages of histories, one bit of it: found, or without any effect."""
    table, data = damageable()
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        group = file.metadata.row_group(0)
        chunks = [group.column(k) for k in range(1, group.num_columns)]
    counts = Counter()
    for chunk in chunks:
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        for place in range(start, start + chunk.total_compressed_size):
            damaged = bytearray(data)
            damaged[place] ^= 1 << (place % 8)
            counts[outcome(bytes(damaged), table)] += 1
    assert not counts["other values"] + counts["another schema"]
    assert counts["damaged"] > 0.9 * counts.total()


MUTATE = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.test_history_files import mutate
mutate(int(sys.argv[2]), int(sys.argv[3]))
"""


def mutate(seed, count):
    """Read so many damaged files, and print how many came to what; raise if values changed without a word."""
    history_files.SMALL_FILE = page_reading._FEW_ENTRIES = 0
    Passed.worth_loading = Passed.worth_compiling = 0
    table, data = damageable()
    rng = np.random.default_rng(seed)
    counts = Counter()
    while counts.total() < count:
        damaged, place = bytearray(data), int(rng.integers(4, len(data)))
        match rng.integers(5):
            case 0 | 1:
                damaged[place] ^= 1 << int(rng.integers(8))
            case 2:
                damaged[place : place + 4] = rng.bytes(4)
            case 3:
                del damaged[place : place + int(rng.integers(1, 9))]
            case 4:
                damaged[place : place + 4] = [b"\\xff" * 4, b"\\x00" * 4, b"\\x80\\x80\\x80\\x01"][int(rng.integers(3))]
        if bytes(damaged) != data:
            counts[outcome(bytes(damaged), table)] += 1
    print(dict(counts))
    assert not counts["other values"]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_damaged_files(seed):
    """In a process of its own, of little memory: whatever is wrong, it neither dies nor asks for more than is there."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31)); {MUTATE.strip()}"
    done = subprocess.run(
        [sys.executable, "-c", limited, str(ROOT), str(seed), "10000"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_names_and_levels_of_a_footer_are_held_against_its_schema():
    """The slow way, without compiled code, as the quick one."""
    table, data = damageable()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    check_footer(footer, table.schema)
    renamed = table.schema.set(1, table.schema.field(1).with_name("the single"))
    required = table.schema.set(1, table.schema.field(1).with_nullable(False))
    for schema, message in ((renamed, "is called 'the singles', too"), (required, "has 4 definition levels, not 3")):
        with pytest.raises(DamagedPageError, match=message):
            check_footer(footer, schema)
    for cut in range(1, len(footer), 7):
        with pytest.raises(DamagedPageError, match="the footer is not one"):
            check_footer(footer[:cut], table.schema)


def test_little_is_left_to_pyarrow_until_much_has_passed(monkeypatch):
    monkeypatch.setattr(Passed, "total", 0)
    monkeypatch.setattr(Passed, "worth_loading", 70)
    monkeypatch.setattr(Passed, "worth_compiling", 140)
    asked = iter([False, True])
    assert [Passed.are_many(40, partial(next, asked)) for _ in range(5)] == [False, False, True, True, True]


def test_lying_sizes_are_one_line():
    table, data = damageable()
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        chunk = file.metadata.row_group(0).column(1)
    start, end = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
    facts = np.empty(footer_kernels.HEADER_FACTS, np.int64)
    assert footer_kernels.read_header(np.frombuffer(data, np.uint8), start, end, facts) == compact_kernels.OK
    for place, value, message in (
        (footer_kernels.UNCOMPRESSED, 2**31 - 1, "does not hold so many"),
        (footer_kernels.VALUES, 10**9, "entries, not"),
        (footer_kernels.COMPRESSED, 1, "checksum"),
    ):
        lie = facts.copy()
        lie[place] = value
        header = np.zeros(footer_kernels.HEADER_ROOM, np.uint8)
        size = footer_kernels.put_header(lie, header)
        body = data[int(facts[footer_kernels.BODY]) : end]
        lying = page_reading.Chunk(start, size + len(body), chunk.num_values, chunk.total_uncompressed_size, True)
        with pytest.raises(DamagedPageError, match=message):
            page_reading.read_lists(header[:size].tobytes() + body, lying, table["the singles"].type, table.num_rows)


def test_files_of_few_or_no_histories_are_pyarrows(tmp_path):
    small, path = pa.table({"id": [1, 2], "x": column(pa.float32(), [3, 4])}), tmp_path / "small.parquet"
    with path.open("wb") as file, ParquetFileWriter(file, small.schema) as writer:
        writer.write_table(small)
    assert_same(read(path.read_bytes()), small)
    empty = small.slice(0, 0)
    with ParquetFileWriter(memory := io.BytesIO(), empty.schema) as writer:
        writer.write_table(empty)
    assert_same(read(memory.getvalue()), empty)


# --- without the compiler ----------------------------------------------------------------------------------------


def check_everything():
    """Write and read small tables of every kind, and damaged ones."""
    history_files.SMALL_FILE = page_reading._FEW_ENTRIES = row_order.SMALL_BYTES = 0
    Passed.worth_loading = Passed.worth_compiling = 0
    page_writing.PAGE_BYTES = 400
    lengths = [40, None, 0, 7, 1, 8, 9, 16, 300]
    for few in (False, True):
        columns = {name: column(kind, lengths, few=few) for name, kind in KINDS.items()}
        null = with_null_entry(columns["singles"])
        same = pa.array([None if length is None else [7] * length for length in lengths], list_of(pa.uint8()))
        table = pa.table({"id": range(9), **columns, "null": null, "same": same, "name": ["x"] * 9})
        for encoding in (NOISE, LEVELS):
            data = written(table, dict.fromkeys(KINDS, encoding), 5)
            assert_same(read(data), table)
            assert_same(pq.ParquetFile(pa.BufferReader(data)).read(), table)
        places = np.array([8, 0, 0, 3])
        assert_same(take_rows(table, places), table.take(pa.array(places)))
    mutate(1, 400)


@pytest.mark.long
def test_the_kernels_are_plain_python_too(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text("import tests.test_history_files as t; t.check_everything()")
    # The only process that runs the kernels' lines: count them where lines are counted.
    counted = ["-m", "coverage", "run", "--parallel-mode"] if coverage.Coverage.current() else []
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *counted, script], check=True, env=environment, cwd=ROOT)
