"""`audit` as users type it: tables, lines, exit codes, the certificate."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from butter_etl.errors import SelectError
from butter_etl.upkeep.auditing import certificate_folder
from butter_etl.upkeep.likening import LIKENESSES
from butter_etl.upkeep.run_frame import RunFrame
from tests.test_docs import HOW_TO
from tests.test_replaying import change, flip, rows, store, trained  # noqa: F401 (fixtures)


def test_an_audit_says_what_it_drew_and_found(run, store):  # noqa: F811
    code, out, err = run("audit", store, "--sample", "25%", "--seed", 7)
    assert code == 0
    assert "4 runs of 16 drawn by seed 7; 4 are replayed" in err
    assert "equal        4   the same bits" in out
    assert "nothing is wrong with 4 runs, drawn by seed 7\n" in out
    assert f"certificate in {store}/certificate: certificate.json; for people certificate.html" in out
    assert run("verify", store)[0] == 0


def test_a_fault_is_a_line_and_exit_1(run, store, tmp_path):  # noqa: F811
    victim = rows(store)[3]["run_id"]
    change(store, victim, lambda row: {"loss": flip(row["loss"], 1)})
    code, out, _ = run("audit", store, "--sample", "16", "--seed", 7, "--out", tmp_path / "out", "--quiet")
    assert code == 1
    assert f"\n{victim}: differs: " in out
    assert "1 of 16 runs is at fault, drawn by seed 7" in out
    code, out, _ = run("verify", store, "--certificate", tmp_path / "out" / "certificate.json")
    assert code == 1
    assert "failed-audit   " in out
    assert "drop the runs that it names" in out
    code, out, _ = run("audit", store, "--sample", "16", "--seed", 7, "--json")
    assert (code, json.loads(out)["counts"]) == (1, {"differs": 1, "equal": 15})


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "missing option '--sample'"),
        (["--sample", "x"], "write a share like 0.1%"),
        (["--sample", "1", "--seed", "-1"], "-1 is not in the range"),
        (["--sample", "1", "--level", "2"], "a probability between 0 and 1"),
    ],
)
def test_bad_wishes_are_one_line(run, trained, words, line):  # noqa: F811
    code, out, err = run("audit", trained, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert line in err


def test_in_a_bucket_a_folder_is_named(trained, tmp_path):  # noqa: F811
    frame = RunFrame.open(trained)
    assert certificate_folder(frame, None) == trained / "certificate"
    in_bucket = replace(frame, location=SimpleNamespace(is_local=False))
    assert certificate_folder(in_bucket, tmp_path) == tmp_path
    with pytest.raises(SelectError, match="name a folder by --out"):
        certificate_folder(in_bucket, None)


def test_outcomes_are_documented():
    text = HOW_TO.read_text()
    assert all(f"| `{outcome}` |" in text for outcome in LIKENESSES)
