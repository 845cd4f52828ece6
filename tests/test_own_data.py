"""Users' own data sets: what is read, what is refused, how it is encoded, and what makes two the same."""

import gzip
import hashlib
import re
import resource
import string
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.errors import DatasetError, SpecError
from butter_etl.studies.butter.datasets import dataset_path, load_dataset
from butter_etl.studies.butter.declarations import Declaration, check_declaration
from butter_etl.studies.butter.encoding import encode_features, encode_target
from butter_etl.studies.butter.own_data import (
    content_sha256,
    describe,
    load_content,
)
from butter_etl.studies.butter.table_columns import _NUMBER, fractions

ROOT = Path(__file__).parents[1]
PLACE = "mine.yaml: datasets.mine"
COLUMNS = {
    "code": [f"p{k}" for k in range(30)],
    "age": [20 + k for k in range(30)],
    "colour": [["red", "blue", "green"][k % 3] for k in range(30)],
    "weight": [70.5 - k / 8 for k in range(30)],
    "sex": [["m", "f"][k % 2] for k in range(30)],
    "same": [1] * 30,
    "ward": [k % 4 for k in range(30)],
    "outcome": [["yes", "no"][k % 5 == 0] for k in range(30)],
}
CLASSES = {"task": "classification", "target": "outcome", "columns": {"code": "drop"}}


def as_text(columns, delimiter=","):
    rows = zip(*([str(value) for value in values] for values in columns.values()), strict=True)
    return "\n".join(map(delimiter.join, [columns, *rows])) + "\n"


def write(folder, name, columns=COLUMNS):
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table(columns), path)
        return path
    text = as_text(columns, "\t" if ".tsv" in name else ",").encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


def load(path, **declared):
    declaration = Declaration(**{"file": path.name, **CLASSES, **declared})
    check_declaration("mine", declaration, PLACE)
    return load_content("mine", declaration, path, PLACE)


# --- encoding ----------------------------------------------------------------------------------------------------


def test_columns_are_encoded_as_the_published_ones_unless_declared(tmp_path):
    content = load(write(tmp_path, "mine.csv"))
    assert content.inputs == (
        "age", "colour=blue", "colour=green", "colour=red", "weight", "sex=m", "ward=0", "ward=1", "ward=2", "ward=3",
    )  # fmt: skip
    assert content.outputs == ("outcome=no",)
    kept = [np.array(values) for name, values in COLUMNS.items() if name not in ("code", "outcome")]
    assert content.x.tobytes() == encode_features(kept).tobytes()
    assert content.y.tobytes() == encode_target(np.array(COLUMNS["outcome"]), "classification").tobytes()
    info = content.info
    assert (info.rows, info.inputs, info.outputs, info.loss) == (30, 10, 1, "binary_crossentropy")


def test_declared_encodings(tmp_path):
    path = write(tmp_path, "mine.csv")
    columns = {"code": "one-hot", "ward": "numeric", "sex": "one-hot", "age": "drop", "same": "drop"}
    content = load(path, columns=columns)
    assert content.inputs[:30] == tuple(f"code=p{k}" for k in sorted(range(30), key=str))
    assert content.inputs[30:] == ("colour=blue", "colour=green", "colour=red", "weight", "sex=f", "sex=m", "ward")
    assert content.x[:4, -1].tolist() == [0, np.float32(1 / 3), np.float32(2 / 3), 1]
    assert (content.x[:, :30] == np.eye(30)[np.argsort(sorted(range(30), key=str))]).all()


def test_regressions_are_scaled_and_classes_are_one_hot(tmp_path):
    path = write(tmp_path, "mine.tsv")
    response = load(path, task="regression", target="weight", columns={"code": "drop", "outcome": "drop"})
    assert (response.info.loss, response.outputs, response.y.min(), response.y.max()) == (
        "mean_squared_error", ("weight",), 0, 1,
    )  # fmt: skip
    classes = load(path, target="colour", columns={"code": "drop"})
    assert classes.outputs == ("colour=blue", "colour=green", "colour=red")
    assert classes.y[:3].tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_the_same_table_in_another_format_or_place_is_the_same_data_set(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    names = ["a.csv", "b.tsv", "c.tsv.gz", "d.parquet", "elsewhere/e.csv"]
    assert len({load(write(tmp_path, name)).info for name in names}) == 1
    spaced = tmp_path / "f.csv"
    spaced.write_bytes(b"\xef\xbb\xbf" + as_text(COLUMNS, " , ").replace("\n", "\r\n").encode())
    table = pa.table(COLUMNS)
    pq.write_table(
        table.set_column(2, "colour", table["colour"].dictionary_encode())
        .set_column(0, "code", table["code"].cast(pa.large_string()))
        .set_column(1, "age", table["age"].cast(pa.decimal128(20, 0))),
        tmp_path / "g.parquet",
    )
    numbered = {"code": "one-hot", "ward": "one-hot"}
    for name in ("f.csv", "g.parquet"):
        assert load(tmp_path / name).info == load(tmp_path / "a.csv").info
        assert load(tmp_path / name, columns=numbered).info == load(tmp_path / "a.csv", columns=numbered).info


def test_types_of_other_tools_are_the_same_data_set(tmp_path):
    table = pa.table(COLUMNS)
    packed = {
        "code": table["code"].cast(pa.string_view()),
        "age": pa.array(COLUMNS["age"], pa.decimal64(10, 2)),
        "colour": table["colour"].cast(pa.large_string()).dictionary_encode(),
        "weight": table["weight"].cast(pa.float16()).cast(pa.float32()),
        "ward": pa.array(COLUMNS["ward"]).dictionary_encode(),
        "outcome": table["outcome"].dictionary_encode(),
    }
    pq.write_table(pa.table({**COLUMNS, **packed}), tmp_path / "packed.parquet")
    for columns in ({"code": "drop"}, {"code": "one-hot", "ward": "one-hot"}):
        plain = load(write(tmp_path, "a.csv", {**COLUMNS, "weight": packed["weight"].to_pylist()}), columns=columns)
        assert load(tmp_path / "packed.parquet", columns=columns).info == plain.info


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int8(), [1, 2]), (pa.uint64(), [1, 2]), (pa.float16(), [1, 2]), (pa.bool_(), [True, False]),
        (pa.decimal32(5, 1), [1, 2]), (pa.decimal256(50, 3), [1, 2]), (pa.date32(), [1, 2]), (pa.time64("us"), [1, 2]),
        (pa.timestamp("ns", "UTC"), [1, 2]), (pa.duration("s"), [1, 2]), (pa.string(), ["a", "b"]),
        (pa.large_string(), ["a", "b"]), (pa.string_view(), ["a", "b"]), (pa.binary(), [b"a", b"b"]),
        (pa.large_binary(), [b"a", b"b"]), (pa.binary_view(), [b"a", b"b"]), (pa.binary(1), [b"a", b"b"]),
        (pa.uuid(), [b"a" * 16, b"b" * 16]), (pa.list_(pa.int8()), [[1], [2]]), (pa.list_view(pa.int8()), [[1], [2]]),
        (pa.large_list(pa.int8()), [[1], [2]]), (pa.list_(pa.int8(), 1), [[1], [2]]), (pa.null(), [None, None]),
        (pa.map_(pa.int8(), pa.int8()), [[(1, 1)], [(2, 2)]]), (pa.struct([("a", pa.int8())]), [{"a": 1}, {"a": 2}]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b"]), (pa.dictionary(pa.int8(), pa.float64()), [1.5, 2.5]),
    ],
    ids=str,
)  # fmt: skip
def test_every_type_of_parquet_is_read_or_refused_in_one_line(tmp_path, kind, values):
    table = pa.table(COLUMNS).set_column(1, "age", pa.array(values * 15, kind))
    pq.write_table(table, tmp_path / "a.parquet")
    for encoding in ("auto", "numeric", "one-hot"):
        try:
            inputs = load(tmp_path / "a.parquet", columns={"code": "drop", "age": encoding}).inputs
            assert any(name.startswith("age") for name in inputs)
        except DatasetError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert "column 'age' " in str(error)  # noqa: PT017
    assert len(load(tmp_path / "a.parquet", columns={"code": "drop", "age": "drop"}).inputs) == 9


# --- an index that became a column -------------------------------------------------------------------------------


def frame():
    """A filtered frame, whose index is no range any more, sorted by what is to be predicted."""
    columns = pd.DataFrame({name: COLUMNS[name] for name in ("colour", "weight", "ward", "outcome")})
    return columns.sort_values("outcome")[lambda rows: rows["ward"] > 0]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_an_index_without_a_name_is_no_input(tmp_path, name):
    def write_frame(table, path, **options):
        getattr(table, f"to_{name[2:]}")(path, **options)
        return load(path, columns=declared).info

    declared = {}
    plain = write_frame(frame(), tmp_path / name, index=False)
    assert write_frame(frame(), tmp_path / name) == plain
    declared = {"__index_level_0__" if name == "a.parquet" else "": "numeric"}
    assert write_frame(frame(), tmp_path / name).inputs == plain.inputs + 1


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_an_index_with_a_name_is_asked_about(tmp_path, name):
    """In CSV nothing tells it from any other column, but for names that tools give."""
    named = frame().rename_axis("patient")
    named.to_parquet(tmp_path / "a.parquet")
    frame().reset_index().sort_values("index").to_csv(tmp_path / "a.csv", index=False)
    key = "patient" if name == "a.parquet" else "index"
    with pytest.raises(
        DatasetError, match=rf"column '{key}' .*; write `{key}: drop`, or `{key}: numeric` to learn from"
    ):
        load(tmp_path / name, columns={})
    assert key in load(tmp_path / name, columns={key: "numeric"}).inputs
    assert key not in load(tmp_path / name, columns={key: "drop"}).inputs


@pytest.mark.parametrize("name", ["Unnamed: 0", "index", "level_0", "id", "Row.names", "row_number", "X", "...1"])
def test_what_counts_rows_is_asked_about(tmp_path, name):
    table = {name: [3 * k for k in range(30)], **{key: COLUMNS[key] for key in ("colour", "outcome")}}
    with pytest.raises(DatasetError, match=r"column '.*' counts the rows; write `.*: drop`, or `.*: numeric` to learn"):
        load(write(tmp_path, "a.csv", table), columns={})
    assert name not in load(tmp_path / "a.csv", columns={name: "drop"}).inputs
    unsorted = {**table, name: table[name][::-1]}
    assert name in load(write(tmp_path, "a.csv", unsorted), columns={}).inputs


def test_columns_without_a_name(tmp_path):
    table = {"": ["x"] * 30, "colour": COLUMNS["colour"], "outcome": COLUMNS["outcome"]}
    with pytest.raises(DatasetError, match="column 1 has no name, and is no row number; name it, or write `'': drop`"):
        load(write(tmp_path, "a.csv", table), columns={})
    assert len(load(tmp_path / "a.csv", columns={"": "drop"}).inputs) == 3
    (tmp_path / "a.csv").write_text(as_text({**COLUMNS, "end": [""] * 30}).replace("end", ""))
    with pytest.raises(DatasetError, match="column 9 has no name; name it, or take it out"):
        load(tmp_path / "a.csv")


# --- long texts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_one_long_text_among_short_ones_takes_its_own_room_only(tmp_path, name):
    """As an array of NumPy these texts would take 30,000 times 4 MB."""
    words = ["short", "x" * 1_000_000, *(f"w{k % 40}" for k in range(29_998))]
    table = {"word": words, "outcome": [k % 2 for k in range(30_000)]}
    before = peak_megabytes()
    content = load(write(tmp_path, name, table), columns={})
    assert len(content.inputs) == 42
    assert content.inputs[-1] == f"word={words[1]}"
    several = {**table, "word": [f"{word}{k}" for k, word in enumerate(words)]}
    with pytest.raises(DatasetError, match=r"'word' has 30000 distinct texts, nearly one .*; write `word: drop`"):
        load(write(tmp_path, name, several), columns={})
    with pytest.raises(DatasetError, match="target 'word' has 30000 classes in 30000 rows"):
        load(tmp_path / name, target="word", columns={})
    assert peak_megabytes() - before < 500


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_too_little_memory_is_one_line(tmp_path):
    path = write(tmp_path, "large.csv", {"a": list(range(400_000)), "outcome": [0, 1] * 200_000})
    write(tmp_path, "small.csv")
    limited = (
        "import resource, sys; from pathlib import Path; from tests.test_own_data import load\n"
        "folder = Path(sys.argv[1])\n"
        "load(folder / 'small.csv')\n"  # for threads, which take room themselves
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 10_000_000,) * 2)\n"
        "load(folder / 'large.csv', columns={})"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].endswith(f"{path.name}: there is not memory enough to read and encode it")


def test_what_networks_see_makes_another_data_set(tmp_path):
    first = load(write(tmp_path, "a.csv")).info
    changes = [
        {"age": [*COLUMNS["age"][:-2], 48.5, 49]},
        {"outcome": ["yes", *COLUMNS["outcome"][1:]]},
        {name: values[:-1] for name, values in COLUMNS.items()},
        {name: values[::-1] for name, values in COLUMNS.items()},
    ]
    others = {load(write(tmp_path, "a.csv", {**COLUMNS, **change})).info for change in changes}
    others.add(load(write(tmp_path, "a.csv"), columns={"code": "drop", "ward": "numeric"}).info)
    assert len(others | {first}) == 6
    unseen = {**COLUMNS, "code": COLUMNS["code"][::-1], "weight": [2 * value for value in COLUMNS["weight"]]}
    assert load(write(tmp_path, "a.csv", unseen)).info == first


def test_the_hash_of_a_known_table():
    """What `docs/data-format.md` says of the hash; it must never change."""
    x, y = np.array([[0, 0.25], [1, 0.5]], np.float32), np.array([[1], [0]], np.float32)
    line = b'{"inputs":2,"outputs":1,"rows":2,"task":"regression"}\n'
    zero, quarter, half, one = b"\0\0\0\0", b"\0\0\x80\x3e", b"\0\0\0\x3f", b"\0\0\x80\x3f"
    expected = hashlib.sha256(line + zero + quarter + one + half + one + zero).hexdigest()
    assert content_sha256("regression", x, y) == expected


def test_the_content_of_a_known_file(tmp_path):
    """Reading or encoding otherwise would make other experiments of the same files."""
    assert load(write(tmp_path, "a.csv")).info.sha256[0].startswith("efda3762ee7bd27af95e7ce9559cfb89")
    columns = {"code": "one-hot", "ward": "numeric", "sex": "one-hot", "age": "auto", "same": "drop"}
    declared = load(tmp_path / "a.csv", columns=columns).info
    assert declared.sha256[0].startswith("3644e23627ca09f278477690bea2c19f")
    response = load(tmp_path / "a.csv", task="regression", target="weight").info
    assert response.sha256[0].startswith("1baa2f5d907506d2a8bc220e0f23de67")


texts = st.text(string.ascii_lowercase, min_size=1, max_size=3).filter(lambda word: word not in ("nan", "inf"))
numbers = st.one_of(st.integers(-(2**40), 2**40), st.floats(-1e9, 1e9).map(lambda value: round(value, 3) + 0.0))


@st.composite
def tables(draw):
    rows = draw(st.integers(6, 40))
    columns = {
        f"c{k}": draw(
            st.lists(draw(st.sampled_from([texts, numbers, st.integers(0, 3)])), min_size=rows, max_size=rows)
        )
        for k in range(draw(st.integers(1, 4)))
    }
    return {**columns, "varied": list(range(rows)), "target": [k % 2 for k in range(rows)]}


@settings(max_examples=300)
@given(st.lists(st.one_of(st.text("0123456789.eE+-xnaif_ ", max_size=6), st.floats().map(repr)), min_size=1))
def test_the_short_way_to_numbers_is_the_long_one(texts):
    column = pa.array(texts, pa.large_string())
    found = fractions(column)
    if found is not None:
        assert all(re.search(_NUMBER.replace("(?i:inf(inity)?)", "x"), text) for text in texts)
        assert found.tolist() == [float(text) for text in texts]


@settings(max_examples=60)
@given(table=tables(), encodings=st.lists(st.sampled_from(["auto", "one-hot"]), min_size=4, max_size=4))
def test_any_table_is_one_data_set_in_every_format(table, encodings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    columns = {
        name: how
        for name, how in zip((name for name in table if name.startswith("c")), encodings, strict=False)
        if len(set(table[name])) > 1
    }
    floats = {name: [float(v) for v in vs] if any(type(v) is float for v in vs) else vs for name, vs in table.items()}
    found = [
        load(write(folder, name, floats), target="target", columns=columns)
        for name in ("a.csv", "b.tsv.gz", "c.parquet")
    ]
    assert len({content.info for content in found}) == 1
    x = found[0].x
    assert x.dtype == np.float32
    assert x.shape == (found[0].info.rows, len(found[0].inputs))
    assert (x.min(), x.max()) == (0, 1)
    assert not np.signbit(x).any()
    for name, how in columns.items():
        if how == "one-hot":
            own = [place for place, label in enumerate(found[0].inputs) if label.startswith(f"{name}=")]
            assert (x[:, own].sum(axis=1) == 1).all()


# --- what is refused ---------------------------------------------------------------------------------------------


def changed(name, row, value):
    return {**COLUMNS, name: [value if place == row else old for place, old in enumerate(COLUMNS[name])]}


@pytest.mark.parametrize(
    ("table", "declared", "message"),
    [
        (COLUMNS, {"target": "outcom"}, r"target: mine.csv has no column 'outcom' \(did you mean 'outcome'.*has code"),
        (COLUMNS, {"columns": {"cod": "drop"}}, r"columns: mine.csv has no column 'cod' \(did you mean 'code'"),
        (COLUMNS, {"columns": {"outcome": "drop"}}, r"columns: 'outcome' is the target; take it out"),
        (COLUMNS, {"columns": {"code": "numeric"}}, r"mine.csv: column 'code' has 'p0' in row 1, which is no number"),
        (COLUMNS, {"columns": {"code": "drop", "same": "numeric"}}, r"'same' has one value only; write `same: drop`"),
        (changed("age", 6, ""), {}, r"mine.csv: column 'age' has a missing value in row 7; fill it in, .*`age: drop`"),
        (changed("colour", 29, "?"), {}, r"column 'colour' has a missing value \(\?\) in row 30; fill it in"),
        (changed("weight", 2, "NA"), {}, r"column 'weight' has a missing value \(NA\) in row 3"),
        (changed("weight", 2, "inf"), {}, r"column 'weight' has a value that is not finite \(inf\) in row 3"),
        (changed("weight", 2, "1e999"), {}, r"column 'weight' has a value that is not finite \(inf\) in row 3"),
        ({**COLUMNS, "age": ["1e308", "-1e308"] * 15}, {"columns": {"code": "drop", "age": "numeric"}},
         r"column 'age' cannot be scaled: its values are too large or too close"),
        ({**COLUMNS, "age": [2**60 + k % 2 for k in range(30)]}, {"columns": {"code": "drop", "age": "numeric"}},
         r"column 'age' cannot be scaled"),
        ({**COLUMNS, "age": [f'"{k},5"' for k in range(30)]}, {},
         r"'age' has '0,5' in row 1, a decimal comma; write numbers with a point, .*`age: one-hot` for texts"),
        (changed("age", 4, "4o"), {}, r"'age' has '4o' in row 5, which is no number; .*`age: one-hot` for texts"),
        (changed("outcome", 4, ""), {}, r"'outcome' has a missing value in row 5; fill it in, or leave the row out$"),
        ({**COLUMNS, "outcome": ["yes"] * 30}, {}, r"target 'outcome' has one value only"),
        (COLUMNS, {"target": "age"}, r"target 'age' has 30 classes in 30 rows; if it is a response"),
        (COLUMNS, {"task": "regression"}, r"column 'outcome' has 'no' in row 1, .*write `task: classification`"),
        ({name: values[:4] for name, values in COLUMNS.items()}, {}, r"mine.csv: has 4 rows; 5 are the least"),
        ({"same": COLUMNS["same"], "outcome": COLUMNS["outcome"]}, {"columns": {}}, r"has no column to learn from"),
        ({"a": [f"x{k}" for k in range(300)], "outcome": [k % 2 for k in range(300)]}, {"columns": {}},
         r"'a' has 300 distinct texts, nearly one for each row, as names and ids are; write `a: drop`, or"),
        ({"a": [f"1.{1 + k % 12}.{2000 + k // 12}" for k in range(240)], "outcome": [0, 1] * 120}, {"columns": {}},
         r"column 'a' has \d+ distinct texts, all of them dates or times; write `a: drop`"),
        ({"age ": COLUMNS["age"], **COLUMNS}, {}, r"mine.csv: column 'age' is there twice; rename one"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line(tmp_path, table, declared, message):
    with pytest.raises((DatasetError, SpecError), match=message) as caught:
        load(write(tmp_path, "mine.csv", table), **declared)
    assert str(caught.value).startswith(PLACE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([None, *range(29)]), r"column 'age' has no value in row 1; fill it in"),
        (pa.array([1.5, float("nan"), *range(28)]), r"column 'age' has no value \(nan\) in row 2"),
        (pa.array([float("-inf"), *range(29)]), r"column 'age' has a value that is not finite \(-inf\) in row 1"),
        (pa.array([[1]] * 30), r"column 'age' is of type list<.*; turn it into numbers or texts, or write `age: drop`"),
        (pa.array([0] * 30, pa.timestamp("ms")), r"column 'age' is of type timestamp\[ms\]"),
    ],
)
def test_columns_of_parquet_that_are_refused(tmp_path, values, message):
    table = pa.table(COLUMNS)
    pq.write_table(table.set_column(1, "age", values), tmp_path / "mine.parquet")
    with pytest.raises(DatasetError, match=message) as caught:
        load(tmp_path / "mine.parquet")
    assert "\n" not in str(caught.value)
    assert "age" not in load(tmp_path / "mine.parquet", columns={"code": "drop", "age": "drop"}).inputs


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.csv", b"", "cannot be read as csv"),
        ("mine.csv", b"a,outcome\n1,2,3\n", "cannot be read as csv .*Expected 2 columns, got 3"),
        ("mine.csv", b"a,outcome\n\xff\xfe\xfa,2\n" * 9, "cannot be read as csv"),
        ("mine.tsv.gz", gzip.compress(as_text(COLUMNS, "\t").encode())[:-40], "cannot be read as tsv"),
        ("mine.parquet", b"PAR1", "cannot be read as parquet"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "declared", "message"),
    [
        ("wine", {"file": "a.csv"}, "'wine' is the name of a data set that comes with the package"),
        ("../x", {"file": "a.csv"}, "a name is up to 100 letters"),
        ("mine", {}, "either `file: PATH` or `pmlb: NAME`"),
        ("mine", {"file": "a.csv", "pmlb": "mushroom"}, "either `file: PATH` or `pmlb: NAME`"),
        ("mine", {"pmlb": "../mushroom"}, "is no name of a data set of PMLB"),
        ("mine", {"file": "a.xlsx"}, r"'a.xlsx' must end in .csv, .tsv \(also with"),
    ],
)
def test_declarations_are_checked(name, declared, message):
    with pytest.raises(SpecError, match=message):
        check_declaration(name, Declaration(task="regression", **declared), PLACE)


def test_a_changed_file_is_described_anew(tmp_path):
    path = write(tmp_path, "mine.csv")
    declaration = Declaration(file="mine.csv", **CLASSES)
    first = describe("mine", declaration, path, PLACE)
    assert describe("mine", declaration, path, PLACE) is first
    assert (
        describe("mine", msgspec.structs.replace(declaration, columns={"code": "drop", "age": "drop"}), path, PLACE)
        != first
    )
    write(tmp_path, "mine.csv", changed("age", 3, 21.5))
    assert describe("mine", declaration, path, PLACE) != first


@pytest.mark.parametrize("name", ["529_pollen", "wine_quality_white", "nursery", "201_pol"])
def test_the_published_data_sets_come_out_as_the_package_has_them(name, pmlb_dir):
    """Declared as if they were somebody's own, from PMLB's own files."""
    there = load_dataset(name, pmlb_dir)
    declaration = Declaration(pmlb=name, task=there.info.task)
    content = load_content("mine", declaration, dataset_path(name, pmlb_dir), PLACE)
    assert content.x.tobytes() == there.x.tobytes()
    assert content.y.tobytes() == there.y.tobytes()
