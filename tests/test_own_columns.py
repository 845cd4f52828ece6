"""Columns of users' own data sets: what is filled in where values are missing, what `plan` says of each, warnings."""

import json
import random
import re
import string
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import butter_etl as be
from butter_etl.errors import DatasetError, SpecError
from butter_etl.store.copies import read_kept
from butter_etl.studies.butter.declarations import ColumnChoice, Declaration, Fill, check_declaration
from butter_etl.studies.butter.encoded_columns import EncodedColumn, describe_columns, doubt_lines
from butter_etl.studies.butter.kept_tables import TABLES, KeptTable
from butter_etl.studies.butter.own_data import load_content
from butter_etl.studies.butter.sweep_files import READER
from butter_etl.train_tasks import open_campaign

PLACE = "mine.yaml: datasets.mine"
ROWS = 60
NUMBERS = [(7 * k) % 53 for k in range(ROWS)]
WORDS = [["red", "blue", "green", "grey"][k % 7 % 4] for k in range(ROWS)]
OUTCOME = [("ill", "well")[k * k % 7 < 3] for k in range(ROWS)]


def choice(**declared):
    return ColumnChoice(**declared)


def load(path, columns, **declared):
    declaration = Declaration(
        **{"file": path.name, "task": "classification", "target": "outcome", **declared}, columns=columns
    )
    check_declaration("mine", declaration, PLACE)
    return load_content("mine", declaration, path, PLACE)


def write(folder, name, columns):
    """Write a table, in which None is a missing value; empty in CSV."""
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table(columns), path)
    else:
        rows = zip(*columns.values(), strict=True)
        lines = [",".join(columns), *(",".join("" if one is None else str(one) for one in row) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    return path


def without(values, *rows):
    return [None if place in rows else one for place, one in enumerate(values)]


def column(content, name):
    (found,) = [one for one in content.columns if one.name == name]
    return found


# --- filling in --------------------------------------------------------------------------------------------------

FORMATS = pytest.mark.parametrize("name", ["a.csv", "a.parquet"])


@FORMATS
@pytest.mark.parametrize(
    ("values", "how", "value"),
    [
        (without(NUMBERS, 0, 7, 59), choice(missing="median"), float(np.median(np.delete(NUMBERS, [0, 7, 59])))),
        (without(NUMBERS, 3), choice(missing="mean"), float(np.mean(np.delete(NUMBERS, 3)))),
        (without([one / 8 for one in NUMBERS], 0, 1), choice(missing="median"), None),
        (without(NUMBERS, 3, 4), choice(missing="most-frequent"), 0),
        (without(NUMBERS, 3, 4), choice(missing=-7), -7),
        (without(NUMBERS, 3, 4), choice(missing=400.5), 400.5),
        (without(NUMBERS, 3, 4), choice(encoding="numeric", missing=Fill(value=1000)), 1000),
        (without([k % 3 for k in range(ROWS)], 5), choice(encoding="numeric", missing="mean"), None),
        (without([k % 3 for k in range(ROWS)], 5), choice(encoding="one-hot", missing=1), 1),
        (without([k % 3 for k in range(ROWS)], 0), choice(missing=9), 9),
        (without(WORDS, 0, 9), choice(missing="most-frequent"), "blue"),
        (without(WORDS, 0, 9), choice(missing=Fill(value="blue")), "blue"),
        (without(WORDS, 0, 9), choice(missing=Fill(value="new")), "new"),
        (without(["m", "f"] * 30, 0, 9), choice(encoding="one-hot", missing=Fill(value="mean")), "mean"),
        (without([True, False] * 30, 2) , choice(missing="most-frequent"), None),
    ],
)  # fmt: skip
def test_filling_in_is_as_if_the_file_had_the_value(tmp_path, name, values, how, value):
    if name == "a.csv" and isinstance(values[0], bool):
        pytest.skip("texts in CSV")
    gaps = load(write(tmp_path, name, {"a": values, "outcome": OUTCOME}), {"a": how})
    found = column(gaps, "a")
    assert found.filled == values.count(None)
    assert value is None or found.value == value
    value = bool(found.value) if isinstance(values[-1], bool) else found.value
    whole = [value if one is None else one for one in values]
    if name == "a.parquet" and any(isinstance(one, float) for one in whole):
        whole = [float(one) for one in whole]
    plain = load(write(tmp_path, name, {"a": whole, "outcome": OUTCOME}), {"a": how.encoding})
    assert gaps.info == plain.info
    assert gaps.x.tobytes() == plain.x.tobytes()


@FORMATS
@pytest.mark.parametrize(
    ("values", "encoding"),
    [
        (WORDS, "auto"),
        (WORDS, "one-hot"),
        ([k % 3 for k in range(ROWS)], "auto"),
        (NUMBERS, "one-hot"),
        ([4] * ROWS, "auto"),
    ],
)
def test_missing_values_are_a_category_of_their_own(tmp_path, name, values, encoding):
    gaps = load(
        write(tmp_path, name, {"a": without(values, 0, 9), "outcome": OUTCOME}),
        {"a": choice(encoding=encoding, missing="own-category")},
    )
    last = [f"{'~' if k in (0, 9) else chr(33 + one) if isinstance(one, int) else one}" for k, one in enumerate(values)]
    plain = load(write(tmp_path, "b.parquet", {"a": last, "outcome": OUTCOME}), {"a": encoding})
    assert gaps.info == plain.info
    assert gaps.inputs[-1] == "a=(missing)"
    assert column(gaps, "a").value is None


@FORMATS
def test_an_indicator_is_one_more_input(tmp_path, name):
    table = {"a": without(NUMBERS, 3, 8), "b": WORDS, "outcome": OUTCOME}
    columns = {"a": choice(missing="median", indicator=True)}
    content = load(write(tmp_path, name, table), columns)
    assert content.inputs[:3] == ("a", "a is missing", "b=blue")
    assert np.flatnonzero(content.x[:, 1]).tolist() == [3, 8]
    assert (column(content, "a").inputs, column(content, "a").indicator) == (2, True)
    plain = load(write(tmp_path, name, {**table, "a": NUMBERS}), columns)
    assert plain.inputs[:2] == ("a", "b=blue")
    assert not column(plain, "a").indicator


def test_what_counts_as_missing(tmp_path):
    words = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "?"]
    path = write(tmp_path, "a.csv", {"a": [*words, *NUMBERS[8:]], "outcome": OUTCOME})
    assert column(load(path, {"a": choice(missing="median")}), "a").filled == 8
    texts = write(tmp_path, "b.csv", {"a": [*words, *WORDS[8:]], "outcome": OUTCOME})
    assert column(load(texts, {"a": choice(missing="own-category")}), "a").filled == 8
    assert column(load(texts, {"a": choice(encoding="one-hot", missing="own-category")}), "a").filled == 1
    floats = write(tmp_path, "c.parquet", {"a": [None, float("nan"), *map(float, NUMBERS[2:])], "outcome": OUTCOME})
    assert column(load(floats, {"a": choice(missing="mean")}), "a").filled == 2


def test_wide_whole_numbers_stay_what_they_are(tmp_path):
    for kind, value in ((pa.int8(), 300), (pa.uint64(), -3), (pa.int64(), 2**62), (pa.decimal128(9, 2), 3)):
        values = pa.array(without([k % 100 for k in range(ROWS)], 3), kind)
        whole = [value if k == 3 else k % 100 for k in range(ROWS)]
        gaps = load(write(tmp_path, "a.parquet", {"a": values, "outcome": OUTCOME}), {"a": choice(missing=value)})
        assert gaps.info == load(write(tmp_path, "b.parquet", {"a": whole, "outcome": OUTCOME}), {}).info


cells = st.one_of(st.integers(-(2**40), 2**40), st.floats(-1e9, 1e9).map(lambda one: round(one, 3) + 0.0))
words = st.text(string.ascii_lowercase, min_size=1, max_size=3).filter(lambda word: word not in ("nan", "inf"))
RULES = st.sampled_from(["median", "mean", "most-frequent", "own-category", 0, 2.5, Fill(value="x")])


@st.composite
def gappy(draw):
    """A column, what of it is missing, and a declaration, which may not fit."""
    rows = draw(st.integers(6, 40))
    kind = draw(st.sampled_from([cells, words, st.integers(0, 3)]))
    values = draw(st.lists(kind, min_size=rows, max_size=rows))
    if any(isinstance(one, float) for one in values):
        values = [float(one) for one in values]
    gaps = draw(st.sets(st.integers(0, rows - 1), max_size=rows - 1))
    encoding = draw(st.sampled_from(["auto", "numeric", "one-hot"]))
    return values, gaps, choice(encoding=encoding, missing=draw(RULES), indicator=draw(st.booleans()))


@settings(max_examples=150)
@given(gappy())
def test_only_missing_cells_change_and_without_any_nothing_does(tmp_path_factory, case):
    values, gaps, how = case
    folder = tmp_path_factory.mktemp("any")
    others = {"k": list(range(len(values)))[::-1], "outcome": [k % 2 for k in range(len(values))]}
    try:
        whole = load(write(folder, "whole.csv", {"a": values, **others}), {"a": how})
        gaps_in = [
            load(write(folder, f"gaps.{kind}", {"a": without(values, *gaps), **others}), {"a": how})
            for kind in ("csv", "parquet")
        ]
    except (DatasetError, SpecError) as error:
        assert "\n" not in str(error)  # noqa: PT017
        reject()
    plain = load(folder / "whole.csv", {"a": how.encoding})
    assert whole.info == plain.info
    assert whole.x.tobytes() == plain.x.tobytes()
    gappy, other = gaps_in
    assert gappy.info == other.info
    assert column(gappy, "a").filled == len(gaps)
    value = column(gappy, "a").value
    if how.missing != "own-category" and not column(gappy, "a").indicator:
        if all(isinstance(one, float) for one in values) and isinstance(value, int):
            value = float(value)  # as texts, 0 and 0.0 are two categories
        filled = [value if place in gaps else one for place, one in enumerate(values)]
        assert gappy.info == load(write(folder, "filled.csv", {"a": filled, **others}), {"a": how.encoding}).info
    if column(gappy, "a").indicator:
        assert np.flatnonzero(gappy.x[:, gappy.inputs.index("a is missing")]).tolist() == sorted(gaps)


@pytest.mark.parametrize(
    ("values", "how", "message"),
    [
        (without(WORDS, 1), {"missing": "median"}, r"'a' has texts, which have no median; write `a: {missing: most"),
        (without(WORDS, 1), {"missing": 3}, r"'a' has texts; write `a: {missing: {value: '3'}}` to fill in that one"),
        (without(NUMBERS, 1), {"missing": Fill(value="none")}, r"'a' has numbers, and 'none' is none; write `a: {miss"),
        (without(NUMBERS, 1), {"missing": "own-category"}, r"to be scaled, and no categories; write `a: {missing: med"),
        (without([k % 4 for k in range(ROWS)], 1), {"missing": "mean"},
         r"4 different numbers, which become categories \(up to 20 do\), .*`a: {encoding: numeric, missing: mean}`"),
        ([None] * ROWS, {"missing": "median"}, r"'a' has no value in any row, so nothing can be filled in; write `a:"),
        ([None, *([1.7e308] * 30), *map(float, NUMBERS[:29])], {"missing": "mean"}, "too large for a mean; write"),
        ([None, "x1", *NUMBERS[2:]], {"missing": "median"}, r"column 'a' has 'x1' in row 2, which is no number"),
        (without([7] * ROWS, 1), {"encoding": "numeric", "missing": "median"}, r"'a' has one value only; write"),
        (without([float("inf"), *NUMBERS[1:]], 2), {"missing": 1}, r"not finite \(inf\) in row 1"),
        (without([*NUMBERS[:-1], float("inf")], 2), {"missing": 1}, r"not finite \(inf\) in row 60"),
    ],
)  # fmt: skip
def test_rules_that_do_not_go_with_a_column_are_refused_in_one_line(tmp_path, values, how, message):
    path = write(tmp_path, "a.csv", {"a": values, "outcome": OUTCOME})
    with pytest.raises((DatasetError, SpecError), match=message) as caught:
        load(path, {"a": choice(**how)})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(PLACE)


@pytest.mark.parametrize(
    ("values", "encoding", "way_out"),
    [
        (without(NUMBERS, 1), "auto", "`a: {missing: median}` to have it filled in"),
        (without(NUMBERS, 1), "numeric", "`a: {encoding: numeric, missing: median}`"),
        (without([k % 4 for k in range(ROWS)], 1), "auto", "`a: {missing: most-frequent}`"),
        (without(WORDS, 1), "auto", "`a: {missing: most-frequent}`"),
        (without(WORDS, 1), "one-hot", "`a: {encoding: one-hot, missing: most-frequent}`"),
        ([None] * ROWS, "auto", "write `a: drop`"),
        ([None, "x", *NUMBERS[2:]], "auto", "`a: {missing: most-frequent}`"),
    ],
)
@FORMATS
def test_missing_values_are_refused_with_a_declaration_that_fills_them_in(tmp_path, name, values, encoding, way_out):
    if name == "a.parquet":
        values = [str(one) if "x" in values and one is not None else one for one in values]
    path = write(tmp_path, name, {"a": values, "outcome": OUTCOME})
    with pytest.raises(DatasetError) as caught:
        load(path, {"a": encoding})
    assert way_out in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_target_is_refused_whatever_is_declared(tmp_path):
    path = write(tmp_path, "a.csv", {"a": NUMBERS, "outcome": without(OUTCOME, 4)})
    with pytest.raises(
        DatasetError, match=r"'outcome' has a missing value in row 5; fill it in, or leave the row out$"
    ):
        load(path, {"a": choice(missing="mean")})
    with pytest.raises(SpecError, match="'outcome' is the target; take it out"):
        load(path, {"outcome": choice(missing="most-frequent")})


SPEC = """
name: own
repetitions: 1
datasets:
  mine:
    file: mine.csv
    task: classification
    target: outcome
    columns: COLUMNS
cubes: [{dataset: [mine], size: [256], depth: [2], epochs: [2], learning_rate: [0.01]}]
"""


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("{a: {missing: mediam}}", "missing: unknown 'mediam' (did you mean 'median'?); known: median, mean"),
        ("{a: {missing: none}}", "most-frequent, own-category, a number, or a text as {value: none}"),
        ("{a: {mising: mean}}", "columns[...]: unknown key 'mising' (did you mean 'missing'?)"),
        ("{a: {missing: {val: 3}}}", "missing: unknown key 'val' (did you mean 'value'?)"),
        ("{a: {encoding: onehot}}", "encoding: unknown 'onehot' (did you mean 'one-hot'?)"),
        ("{a: {indicator: true}}", "columns.a: `indicator` goes with `missing`"),
        ("{a: {encoding: drop, missing: 1}}", "columns.a: a column that is dropped has nothing filled in"),
        ("{a: {missing: own-category, indicator: true}}", "columns.a: own-category tells what was missing by itself"),
        ("{a: {encoding: one-hot, missing: mean}}", "columns.a: categories have no mean; write `missing: most"),
        ("{a: {encoding: numeric, missing: {value: x}}}", "columns.a: 'x' is no number; write `missing: median`"),
        ("{a: {encoding: numeric, missing: own-category}}", "columns.a: own-category is no number"),
        ("{a: {missing: .nan}}", "columns.a: missing: nan is not finite"),
        ("{a: {missing: 1e30}}", f"columns.a: missing: {10**30} is not finite, or too large"),
    ],
)  # fmt: skip
def test_declarations_that_cannot_be_meant_are_refused_with_their_place(columns, message):
    with pytest.raises(SpecError) as caught:
        READER.parse_file(SPEC.replace("COLUMNS", columns), "own.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_short_form_of_a_declaration_means_the_long_one():
    short = Declaration(file="a.csv", task="regression", columns={"a": "numeric"})
    long = Declaration(file="b.csv", task="regression", columns={"a": choice(encoding="numeric")})
    assert short.means_the_same(long)
    assert not short.means_the_same(Declaration(file="a.csv", task="regression", columns={"a": choice(missing=1)}))


# --- what is probably no feature ---------------------------------------------------------------------------------


def doubt(folder, values, name="a.parquet", encoding="auto", **declared):
    target = declared.pop("outcome", OUTCOME)
    content = load(write(folder, name, {"a": values, "outcome": target}), {"a": encoding}, **declared)
    return column(content, "a").doubt


SHUFFLED = random.Random(1).sample(range(100, 100 + ROWS), ROWS)
DAYS = [f"2024-{1 + k % 12:02}-{1 + k % 28:02}" for k in range(ROWS)]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (list(range(5, 5 + 3 * ROWS, 3)), "row-numbers"), (list(range(ROWS))[::-1], "row-numbers"),
        (SHUFFLED, "row-numbers"), ([float(k) for k in range(ROWS)], "row-numbers"),
        (NUMBERS, None), ([3 * one for one in SHUFFLED], None), ([k / 2 for k in range(ROWS)], None),
        (DAYS, "dates"), ([f"{day}T10:{k:02}:00Z" for k, day in enumerate(DAYS)], "dates"),
        ([f"{1 + k % 28}.{1 + k % 12}.2024" for k in range(ROWS)], "dates"),
        ([f"{1 + k % 12}/{1 + k % 28}/24 3:15 PM" for k in range(ROWS)], "dates"),
        ([f"{1 + k % 28}-Mar-2024" for k in range(ROWS)], "dates"),
        ([f"March {1 + k % 28}, 2024" for k in range(ROWS)], "dates"),
        ([f"{k % 24}:30" for k in range(ROWS)], "dates"),
        ([20240100 + 100 * (k % 9) + 7 for k in range(ROWS)], "dates"),
        ([20240100 + 100 * (k % 9) + 40 for k in range(ROWS)], None), ([*DAYS[:-1], "later"], "names"),
        ([f"p{k}" for k in range(ROWS)], "names"), ([f"p{k % 55}" for k in range(ROWS)], "names"),
        ([f"p{k % 40}" for k in range(ROWS)], None), (WORDS, None),
        ([{"ill": "P", "well": "N"}[one] for one in OUTCOME], "target"), ([one == "ill" for one in OUTCOME], "target"),
        (["ill", *OUTCOME[1:]] if OUTCOME[0] == "well" else ["well", *OUTCOME[1:]], None),
    ],
)  # fmt: skip
def test_columns_that_are_probably_no_feature(tmp_path, values, found):
    assert doubt(tmp_path, values) == found
    if not isinstance(values[0], float | bool) and not any("," in str(one) for one in values):
        assert doubt(tmp_path, values, "a.csv") == found


@pytest.mark.parametrize("values", [SHUFFLED, DAYS, [f"p{k}" for k in range(ROWS)]])
def test_what_is_declared_is_not_doubted_but_where_it_gives_the_target_away(tmp_path, values):
    for encoding in ("one-hot", "drop", *(["numeric"] if values is SHUFFLED else [])):
        if encoding != "drop":
            assert doubt(tmp_path, values, encoding=encoding) is None
    copy = [f"is {one}" for one in OUTCOME]
    assert doubt(tmp_path, copy, encoding="one-hot") == "target"
    assert (
        column(load(write(tmp_path, "b.csv", {"a": copy, "b": WORDS, "outcome": OUTCOME}), {"a": "drop"}), "a").doubt
        is None
    )


def test_a_response_is_given_away_by_what_has_its_order(tmp_path):
    response = [one**1.5 for one in SHUFFLED]
    for values in (SHUFFLED, [-one / 7 for one in SHUFFLED], np.log(SHUFFLED).tolist()):
        assert doubt(tmp_path, values, task="regression", outcome=response) == "target"
    swapped = [SHUFFLED[1] + 0.5, SHUFFLED[0] + 0.5, *SHUFFLED[2:]]
    assert doubt(tmp_path, [float(one) for one in swapped], task="regression", outcome=response) is None


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=6, max_size=40), st.permutations(range(6)), st.booleans())
def test_renamed_targets_are_told_and_others_are_not(tmp_path_factory, classes, names, is_changed):
    folder = tmp_path_factory.mktemp("any")
    values = [f"c{names[one]}" for one in classes]
    if is_changed:
        values[-1] = values[0]
    pairs = set(zip(values, classes, strict=True))
    is_told = len(pairs) == len(set(values)) == len(set(classes))
    table = {"a": values, "k": [k * k for k in range(len(classes))], "outcome": classes}
    try:
        content = load(write(folder, "a.csv", table), {})
    except DatasetError:
        reject()
    if len(set(values)) > 1:
        assert (column(content, "a").doubt == "target") is is_told


# --- what is shown -----------------------------------------------------------------------------------------------


def messy():
    return {
        "visit": [3 * k + 7 for k in range(ROWS)],
        "day": [f"2024-0{1 + k % 9}-1{k % 9}" for k in range(ROWS)],
        "age": without(NUMBERS, 4, 9, 30),
        "job": without(WORDS, 0, 11),
        "sex": ["m" if k % 5 < 2 else "f" for k in range(ROWS)],
        "const": ["x"] * ROWS,
        "who": [f"p{k}" for k in range(ROWS)],
        "a rather long name of a column of a table": [k % 7 / 8 + k for k in range(ROWS)],
        "ward": without([k % 4 for k in range(ROWS)], 5),
        "note": WORDS,
        "result": [one[0] for one in OUTCOME],
        "outcome": OUTCOME,
    }


DECLARED = (
    "{age: {missing: median, indicator: true}, job: {missing: own-category}, note: drop,"
    " ward: {encoding: one-hot, missing: most-frequent}}"
)
ENCODED = """\
  visit: scaled, 1 input
  day: one-hot, 9 inputs
  age: scaled, 2 inputs (one tells what was missing); 3 missing: median 25
  job: one-hot, 5 inputs; 2 missing: a category of their own
  sex: 0/1, 1 input
  const: one value, dropped
  who: one-hot, 60 inputs
  a rather long name of a column …: scaled, 1 input
  ward: one-hot, 4 inputs; 1 missing: most-frequent 0
  note: dropped as declared
  result: 0/1, 1 input
"""
WARNINGS = [
    "mine: column 'visit' numbers the rows; write `visit: drop`, or declare it numeric to learn from it",
    "mine: column 'day' has dates or times, which are no measure; write `day: drop`, put numbers in, or"
    " declare it one-hot",
    "mine: column 'who' has a text of its own in nearly every row; write `who: drop`, or declare it one-hot",
    "mine: column 'result' gives the target away, one value for each; write `result: drop` unless it is known before"
    " the target",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a messy table and its sweep file."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "mine.csv", messy())
    (tmp_path / "own.yaml").write_text(SPEC.replace("COLUMNS", DECLARED))
    return tmp_path


def test_plan_lists_the_encoding_of_each_column_and_warns(here, run):
    code, out, err = run("plan", "store", "--spec", "own.yaml")
    assert code == 0
    assert out.split("content ")[1].partition("\n")[2] == ENCODED
    assert max(map(len, out[out.index("mine: ") :].splitlines())) <= 80
    assert err.splitlines() == [f"butter-etl: warning: {line}" for line in WARNINGS]
    code, out, err = run("plan", "store", "--spec", "own.yaml", "--json")
    facts = json.loads(out)
    assert facts["warnings"] == WARNINGS
    (mine,) = facts["own_datasets"]
    assert [one["inputs"] for one in mine["columns"]] == [1, 9, 2, 5, 1, 0, 60, 1, 4, 0, 1]
    assert mine["columns"][2] == {
        "name": "age", "encoding": "scaled", "inputs": 2, "filled": 3, "missing": "median", "value": 25,
        "indicator": True, "doubt": None,
    }  # fmt: skip


def test_the_example_of_the_documents_is_planned(tmp_path, monkeypatch, run):
    text = (Path(__file__).parents[1] / "docs/how-to.md").read_text()
    (example,) = re.findall(r"```yaml\n(name: filled_in\n.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    names = {"dose": NUMBERS, "hand": ["left" if k % 5 else "right" for k in range(ROWS)]}
    table = {name: messy()[name] for name in ("age", "job", "ward", "note")} | names
    write(
        tmp_path,
        "data/patients.csv",
        {**{name: without(values, 1) for name, values in table.items()}, "outcome": OUTCOME},
    )
    (tmp_path / "filled-in.yaml").write_text(example)
    code, out, err = run("plan", "store", "--spec", "filled-in.yaml")
    assert (code, err) == (0, "")
    assert [line.partition("; ")[2] for line in out.split("content ")[1].splitlines()[1:]] == [
        "4 missing: median 25.5", "3 missing: a category of their own", "2 missing: most-frequent 0", "",
        "1 missing: 0", "1 missing: 'right'",
    ]  # fmt: skip


def test_python_has_the_same_as_values(here):
    campaign = be.plan("store", spec="own.yaml")
    assert campaign.warnings == WARNINGS
    ages = campaign.own_columns["mine"][2]
    assert ages == EncodedColumn(
        name="age", encoding="scaled", inputs=2, filled=3, missing="median", value=25, indicator=True
    )
    shown = campaign._repr_html_()
    assert "scaled, 2 inputs (one tells what was missing); 3 missing: median 25" in shown
    assert "gives the target away" in shown
    assert be.plan("store", sweep="primary", where=["dataset=wine_quality_white", "size=64"]).own_columns == {}


def test_a_registered_sweep_tells_what_its_copy_does(here, run):
    campaign = be.plan("store", spec="own.yaml")
    open_campaign(campaign, here)
    (here / "mine.csv").unlink()
    for choice in (("--sweep", "own"), ("--spec", "own.yaml")):
        code, out, err = run("plan", "store", *choice)
        assert code == 0
        assert out.endswith(ENCODED)
        assert err.count("warning: ") == len(WARNINGS)


def test_copies_of_before_are_read_and_do_not_tell(here, run):
    store, _ = open_campaign(be.plan("store", spec="own.yaml"), here)
    kept = read_kept(store.location, "mine", TABLES)
    before = {key: value for key, value in msgspec.to_builtins(kept).items() if key != "columns"}
    assert msgspec.convert(before, KeptTable) == msgspec.structs.replace(kept, columns=())
    table = pq.read_table("store/datasets/mine.parquet")
    footer = {b"butter_etl.dataset": msgspec.json.encode(before)}
    pq.write_table(table.replace_schema_metadata(footer), "store/datasets/mine.parquet")
    code, out, err = run("plan", "store", "--sweep", "own")
    assert (code, err) == (0, "")
    assert out.split("content ")[1].count("\n") == 1


def test_many_columns_are_told_by_their_encoding(here, run):
    table = {f"gene {k}": [(k + 7 * row) % 53 + (k + row) % 3 for row in range(ROWS)] for k in range(300)}
    table |= {f"day{k}": [f"2024-{1 + row % 12:02}" for row in range(ROWS)] for k in range(40)} | {
        "flag": [k % 2 for k in range(ROWS)],
        "one": [1] * ROWS,
    }
    for k in range(25):
        table[f"gene {k}"] = without(table[f"gene {k}"], k, 30)
    write(here, "mine.csv", {**table, "outcome": OUTCOME})
    declared = {f"gene {k}": {"missing": "mean"} for k in range(25)} | {"gene 99": "drop"}
    (here / "own.yaml").write_text(SPEC.replace("COLUMNS", json.dumps(declared)))
    code, out, err = run("plan", "store", "--spec", "own.yaml")
    assert code == 0
    lines = out.split("content ")[1].splitlines()[1:]
    assert lines[:5] == [
        "  scaled, 1 input each: 299 columns (gene 0, gene 1, gene 2, …)",
        "  dropped as declared: 1 column (gene 99)",
        "  one-hot, 12 inputs each: 40 columns (day0, day1, day2, day3, day4, …)",
        "  0/1, 1 input: 1 column (flag)",
        "  one value, dropped: 1 column (one)",
    ]
    assert len(lines) == 5 + 20 + 1
    assert lines[-1] == "  5 more columns: 10 missing and filled in"
    assert max(map(len, out[out.index("mine: ") :].splitlines())) <= 80
    assert err.count("warning: ") == 11
    assert err.splitlines()[-1].endswith("mine: 30 more columns are probably no features (--json has all)")


@given(
    st.lists(
        st.builds(
            EncodedColumn,
            name=st.text(max_size=60), inputs=st.integers(0, 10**6), filled=st.integers(0, 10**7),
            encoding=st.sampled_from(["scaled", "0/1", "one-hot", "one value", "dropped", "row numbers"]),
            missing=st.sampled_from(["median", "mean", "most-frequent", "own-category", "value"]),
            value=st.one_of(st.text(max_size=50), st.floats(), st.integers()), indicator=st.booleans(),
            doubt=st.sampled_from([None, "names", "dates", "row-numbers", "target"]),
        ),
        max_size=60,
    )
)  # fmt: skip
def test_any_columns_are_told_in_lines(columns):
    assert len(describe_columns(columns)) <= 20 + 6 + 21
    assert all(len((which + how).splitlines()) <= 1 for which, how in describe_columns(columns))
    lines = list(doubt_lines("mine", columns))
    assert len(lines) <= 11
    assert all(len(line.splitlines()) == 1 for line in lines)
