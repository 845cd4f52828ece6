"""YAML as people write it: numbers, keys, and what is refused with its line."""

import math

import pytest

from butter_etl.clusters.sites import load_site
from butter_etl.errors import ClusterFileError, SpecError
from butter_etl.studies.butter.sweep_files import parse_sweep
from butter_etl.studies.yaml_files import as_list, parse_yaml, unknown_key


def parse(text):
    return parse_yaml(text, "it.yaml", SpecError)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1e-3", 0.001), ("1E-3", 0.001), ("1.e-3", 0.001), ("1.0e-3", 0.001), (".001", 0.001), ("+1e-3", 0.001),
        ("-5e-2", -0.05), (".5e1", 5), ("1e3", 1000), ("2.5e+2", 250), ("1_000", 1000), ("0x10", 16), ("0", 0),
        ("0.5", 0.5), ("007.5", 7.5), ("1e400", math.inf), ("-.inf", -math.inf),
    ],
)  # fmt: skip
def test_numbers_are_what_people_write(written, number):
    assert parse(f"a: {written}") == {"a": number}
    assert parse(f'a: "{written}"') == {"a": written}
    assert parse(f"{written}: a") == {written: "a"}


def test_whole_numbers_are_whole_whatever_their_exponent():
    assert [type(one) for one in parse("[1e3, 2.5e2, 1e-3, 32.0]")] == [int, int, float, float]


@pytest.mark.parametrize("text", ["010", "12:00:00", "01:00:00", "2001-13-45", "1,5", "e5", "1e", "0o17", "10k"])
def test_what_yaml_1_1_makes_other_things_of_is_a_text(text):
    assert parse(f"a: {text}") == {"a": text}


def test_keys_are_texts():
    assert parse("{1: a, yes: b, null: c, 1e5: d, 2001-01-01: e}") == {
        "1": "a", "yes": "b", "null": "c", "1e5": "d", "2001-01-01": "e",
    }  # fmt: skip


def test_what_is_merged_in_may_be_said_again():
    merged = parse("- &one {a: 1, b: 2}\n- &two {<<: *one, b: 3}\n- <<: *two\n  a: 4\n")
    assert merged == [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 4, "b": 3}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r", line 3: 'a' stands twice \(line 1 has it too\); take one out"),
        ("a:\n  - {b: 1, c: 2,\n     b: 3}", r", line 3: 'b' stands twice \(line 2"),
        ("1: a\n'1': b", r", line 2: '1' stands twice"),
        ("- &x {a: 1}\n- <<: *x\n  <<: *x", r", line 3: '<<' stands twice"),
        ("? [a]\n: b", r", line 1: not YAML: a key must be a text"),
        ("a: [1", r", line 1: not YAML: expected"),
        ("a: 1\n---\nb: 2", r", line 2: not YAML: but found another document"),
        ("a: \x00", ": not YAML: unacceptable character"),
        ("[" * 9999, "nested too deeply"),
        (f"a: {'1' * 9999}", ": not YAML: a value is not of the kind that is said"),
        ("a: !!int x", ": not YAML: a value is not of the kind that is said"),
        ("a: !!bool x", ": not YAML: a value is not of the kind that is said"),
        ("a: !!python/object/apply:os.getcwd []", ", line 1: not YAML: could not determine a constructor"),
    ],
)
def test_what_cannot_be_meant_is_one_line_with_its_line(text, message):
    with pytest.raises(SpecError, match=f"^it.yaml{message}" if message[0] in ":," else message) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_both_kinds_of_files_are_read_by_it(tmp_path):
    """The same fault at each level of each kind of file."""
    sweep = "name: s\nrepetitions: 1\ncubes:\n- {dataset: [wine], size: [32], depth: [2]%s}\n%s"
    parse_sweep(sweep % ("", ""), "s.yaml")
    declared = "datasets:\n  mine: {file: a.csv, task: regression%s}\n%s"
    twice = [
        (", size: [64]", ""), (", kernel_regularizer: [{l1: 1, l1: 2}]", ""), ("", "name: t"), ("", "cubes: []"),
        ("", declared % (", file: b.csv", "")), ("", declared % (", columns: {a: drop, a: numeric}", "")),
        ("", declared % ("", "  mine: {file: b.csv, task: regression}")),
    ]  # fmt: skip
    for cube, more in twice:
        with pytest.raises(SpecError, match=r"s.yaml, line \d: '\w+' stands twice \(line \d has it too\)"):
            parse_sweep(sweep % (cube, more), "s.yaml")
    site = tmp_path / "site.yaml"
    site.write_text("kind: local\nworkers: 1\nworkers: 2\n")
    with pytest.raises(ClusterFileError, match=r"site.yaml, line 3: 'workers' stands twice \(line 2 has it too\)"):
        load_site(site)
    site.write_text("kind: local\nworkers: 1e1\n")
    assert load_site(site).workers == 10


def test_one_value_is_a_list_of_one():
    assert [as_list(one) for one in (3, "x", {"a": 1}, [1], None, False)] == [
        [3],
        ["x"],
        [{"a": 1}],
        [1],
        None,
        [False],
    ]
    assert as_list("module load gcc\nmodule load python\n") == ["module load gcc", "module load python"]


def test_unknown_keys_have_the_closest_or_all_known_ones_named():
    known = ("learning_rate", "size")
    for key in ("learning-rate", "Learning_Rate", "LEARNING RATE", "learning_rat"):
        assert unknown_key(key, known) == " (did you mean 'learning_rate'?)"
    assert unknown_key("momentum", known) == "; known are learning_rate, size"
