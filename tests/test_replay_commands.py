"""`replay` as users type it: tables, lines, exit codes."""

import json

import pytest

import butter_etl as be
from butter_etl.upkeep.replaying import OUTCOMES
from tests.test_docs import HOW_TO
from tests.test_replaying import change, flip, rows, store, trained  # noqa: F401 (fixtures)


def test_one_run_is_a_line(run, trained):  # noqa: F811
    run_id = rows(trained)[0]["run_id"]
    code, out, err = run("replay", trained, run_id, "--workers", 1)
    assert (code, err) == (0, "")
    assert f"{run_id}: equal: diabetes rectangle" in out
    assert out.endswith(": as was promised\n1 run is what its row says\n")


def test_several_are_a_table_and_faults_are_lines(run, store):  # noqa: F811
    victim = rows(store)[3]["run_id"]
    change(store, victim, lambda row: {"loss": flip(row["loss"], 1)})
    code, out, _ = run("replay", store, "--where", "depth>=2", "--quiet")
    assert code == 1
    assert "equal       15   the same bits" in out
    assert f"\n{victim}: differs: " in out
    assert out.count(": equal: ") == 0
    assert out.endswith("1 of 16 runs is not what the rows say\n")
    code, out, _ = run("replay", store, victim, "--json")
    (found,) = json.loads(out)["runs"]
    assert (code, found["outcome"], found["difference"]["point"]) == (1, "differs", 2)


def test_what_is_compared_says_why_it_is_not_promised(run, trained):  # noqa: F811
    code, out, _ = run("replay", trained, "--where", "dataset=wine", "--engine", "torch")
    assert (code, out.splitlines()[-1]) == (0, "8 runs are what their rows say")
    assert out.count("engine: fused, here torch") == 8


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "name what to replay"),
        (["nonsense"], "has no run nonsense"),
        (["--where", "size"], "write KEY OP VALUE"),
        (["x", "--device", "tpu"], "is not one of"),
    ],
)
def test_bad_wishes_are_one_line(run, trained, words, line):  # noqa: F811
    code, out, err = run("replay", trained, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line in err


def test_outcomes_are_documented():
    text = HOW_TO.read_text()
    assert all(f"| `{outcome}` |" in text for outcome in OUTCOMES)
    assert be.replay.__doc__
