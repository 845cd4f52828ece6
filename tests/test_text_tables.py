"""CSV, TSV and what goes by those names: compression, separators, wide rows, quotes."""

import bz2
import gzip

import pyarrow as pa
import pytest

from butter_etl.studies.butter.text_tables import read_text_table

ROWS = {"length": [f"{k}.25" for k in range(12)], "kind": ["rod", "pipe"] * 6, "target": ["0", "1", "0"] * 4}


def text_of(columns=ROWS, separator=","):
    rows = zip(*columns.values(), strict=True)
    return "".join(f"{separator.join(row)}\n" for row in [tuple(columns), *rows])


def read(folder, text, name="it.csv", separator=","):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_text_table(path, separator).to_pydict()


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("promised", [",", "\t"])
def test_the_first_line_tells_the_separator(tmp_path, separator, promised):
    assert read(tmp_path, text_of(separator=separator), separator=promised) == ROWS


def test_the_promised_separator_goes_first(tmp_path):
    columns = {"a;b|c": ["1", "2"], "d\te": ["3;4", "5"]}
    assert read(tmp_path, text_of(columns)) == columns
    ambiguous = read(tmp_path, text_of({"a;b": ["1"], "c;d": ["2"]}), separator="\t")
    assert list(ambiguous) == ["a;b,c;d"]


@pytest.mark.parametrize("name", ["X.CSV.GZ", "x.csv.gz", "x.csv", "x.csv.bz2"])
def test_the_content_tells_the_compression(tmp_path, name):
    data = text_of().encode()
    packed = [gzip.compress(data), bz2.compress(data), pa.compress(data, "zstd", asbytes=True)]
    packed.append(gzip.compress(data[:50]) + gzip.compress(data[50:]))
    for content in (data, *packed):
        assert read(tmp_path, content, name) == ROWS


def test_rows_wider_and_values_longer_than_arrows_blocks_are_read(tmp_path):
    """Arrow's own block is 1 MB, and a row that is longer than one it refuses."""
    many = {f"c{k:06}": [f"{k}.5", "0"] for k in range(20_000)}
    assert read(tmp_path, text_of({name: [f"{one}{'0' * 60}" for one in values] for name, values in many.items()}))
    long = {"a": ["1", "2", "3"], "note": ["x" * 3_000_000, "y", "z"], "target": ["0", "1", "0"]}
    assert read(tmp_path, text_of(long)) == long
    quoted = {**long, "note": [f'"{"x, " * 1_000_000}\n"', "y", "z"]}
    assert read(tmp_path, text_of(quoted))["note"] == [("x, " * 1_000_000).strip(), "y", "z"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"pipe"', "pipe"), ('12" pipe', '12" pipe'), ('"12"" pipe"', '12" pipe'), ('""', ""), ('""""', '"'),
        ('"a, b"', "a, b"), ('"a\nb"', "a\nb"), ('"a\r\nb"', "a\r\nb"), ('"pipe" ', "pipe"), ('5"', '5"'),
        ('"two\nlines, and a comma"', "two\nlines, and a comma"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quotes_that_are_right_are_read(tmp_path, written, value, end):
    text = text_of({**ROWS, "kind": [written, *ROWS["kind"][1:-1], written]})
    found = read(tmp_path, text if end == "\n" else text.replace("\r\n", "\n").replace("\n", end))
    value = value if end == "\n" else value.replace("\r\n", "\n").replace("\n", end)
    assert found["kind"] == [value, *ROWS["kind"][1:-1], value]
    last = {"length": ROWS["length"], "target": [*ROWS["kind"][:-1], '"pipe"']}
    assert read(tmp_path, text_of(last).rstrip("\n"))["target"] == ROWS["kind"]


def changed(row, kind, more=None):
    kinds = list(ROWS["kind"])
    kinds[row] = kind
    if more:
        kinds[more[0]] = more[1]
    return {**ROWS, "kind": kinds}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (changed(4, '"pipe'), "the quote in line 6 is never closed; close it, or take it out"),
        ({**ROWS, "target": [*ROWS["target"][:-1], '"0']}, "the quote in line 13 is never closed"),
        ({'"length': ROWS["length"], "target": ROWS["target"]}, "is never closed|cannot be read"),
        (
            changed(4, '"pipe', (8, 'pipe"')),
            "quote in line 6 is closed in line 10 only, and the lines between are rows",
        ),
        (changed(4, '"pipe', (5, 'pipe"')), "the quote in line 6 is closed in line 7 only"),
        (
            changed(4, '"pipe', (8, '"pipe"')),
            "value in line 6 goes on after the quote in line 10; .* written twice",
        ),
        (changed(4, '"12" pipe"'), "quoted value in line 6 goes on after the quote in line 6"),
        (changed(4, r'"12\" pipe"'), "quoted value in line 6 goes on after the quote in line 6"),
        (changed(4, "a,b"), "Expected 3 columns, got 4"),
    ],
)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_quotes_that_swallow_rows_are_refused_with_their_line(tmp_path, columns, message, separator):
    columns = {name: [one.replace(",", separator) for one in values] for name, values in columns.items()}
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text_of(columns, separator), separator=separator)


def test_empty_lines_and_files(tmp_path):
    assert read(tmp_path, "\n" + text_of().replace("\n", "\n\n")) == ROWS
    assert read(tmp_path, "a,b\n") == read(tmp_path, "a,b") == {"a": [], "b": []}
    for text in ("", "\n", b"\xef\xbb\xbf"):
        with pytest.raises(ValueError, match="it is empty"):
            read(tmp_path, text)


def test_names_are_quoted_as_values_are(tmp_path):
    columns = {'" a, ""b"" " ': ["1", "2"], ' "c"': ["3", "4"], '"d\ne"': ["5", "6"]}
    assert list(read(tmp_path, text_of(columns))) == ['a, "b"', '"c"', "d\ne"]
    assert list(read(tmp_path, b"\xef\xbb\xbf" + text_of().encode())) == list(ROWS)
