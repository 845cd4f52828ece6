"""`verify` and `drop` as users type them: tables, exit codes, questions."""

import json

import pytest

from butter_etl.store.store import Store
from butter_etl.summarize import plan_summaries, run_summaries
from tests.strategies import POLLEN, land


@pytest.fixture
def store(tmp_path):
    store = Store.create(tmp_path / "store")
    land(store, POLLEN, 0, range(6))
    run_summaries(plan_summaries(store), store)
    return store


def truncate(store):
    (file,) = store.run_files()
    path = store.state.parent / "all_runs" / file.path
    path.write_bytes(path.read_bytes()[:-9])


def test_a_sound_store_is_one_line(run, store):
    code, out, err = run("verify", store, "--summaries", "--workers", 1)
    assert (code, err) == (0, "")
    assert out.startswith(f"{store}: 3 files with 8 rows (0.")
    assert out.endswith(" MB) are as they should be, 1 summary recomputed\n")


def test_findings_are_a_table_and_exit_1(run, store):
    truncate(store)
    code, out, err = run("verify", store)
    assert code == 1
    assert "torn-file           1   verify --repair, then train" in out
    assert "\ntorn-file: all_runs/dataset=529_pollen/" in out
    assert "/0-0-5.parquet: cannot be read (" in out
    assert "`butter-etl errors FINDING` explains each" in err
    table = out.partition("\ntorn-file:")[0]
    assert max(map(len, table.splitlines())) <= 80
    found = json.loads(run("verify", store, "--json")[1])["checked"]["findings"]
    assert [one["kind"] for one in found] == ["torn-file", "stale-summary"]


def test_repair_says_what_is_missing_and_what_is_left(run, store):
    truncate(store)
    code, out, _ = run("verify", store, "--repair", "--quiet")
    assert code == 1
    assert f"1 file moved to {store}/quarantine" in out
    assert "1 finding cannot be mended by moving files: stale-summary" in out
    assert "6 runs of 1 experiment are missing now; `butter-etl train` makes them again" in out
    assert "  experiment 0: repetitions 0-5" in out
    assert run("summarize", store, "--workers", 1)[0] == 0
    code, out, _ = run("verify", store, "--repair", "--json")
    assert (code, json.loads(out)["repaired"]) == (0, {"moved": [], "left": [], "missing": {}})
    assert "in quarantine: 1 file (1 torn-file)" in run("status", store)[1]
    assert json.loads(run("status", store, "--json")[1])["quarantined"] == {"torn-file": 1}


def test_exports_are_not_repaired(run, store, tmp_path):
    assert run("export", store, tmp_path / "dest", "--where", "size=32", "--quiet")[0] == 0
    code, out, _ = run("verify", tmp_path / "dest")
    assert code == 0
    assert "are as they should be" in out
    code, _, err = run("verify", tmp_path / "dest", "--repair")
    assert code == 2
    assert "--repair is for stores" in err
    (tmp_path / "dest" / "all_runs" / "_common_metadata").write_bytes(b"PAR1")
    code, out, _ = run("verify", tmp_path / "dest")
    assert code == 1
    assert "wrong-metadata       1   export again" in out


def test_drop_wants_to_be_told(run, store):
    code, _, err = run("drop", store)
    assert code == 2
    assert "name what to drop" in err
    code, _, err = run("drop", store, "--where", "size=32")
    assert code == 2
    assert "this would withdraw 6 runs of 1 experiment" in err
    assert "pass --yes" in err
    assert store.repetitions() == {0: 0b111111}


@pytest.mark.parametrize(("answer", "left"), [("y\n", {0: 0b110000}), ("n\n", {0: 0b111111})])
def test_drop_asks_on_a_terminal(store, monkeypatch, capsys, answer, left):
    import os
    import pty
    import sys

    from butter_etl.cli.group import main

    ours, theirs = pty.openpty()
    os.write(ours, answer.encode())
    with os.fdopen(theirs, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(SystemExit) as stop:
            main(["drop", str(store), "--repetitions", "4"])
    os.close(ours)
    assert (stop.value.code or 0) == int(answer == "n\n")
    assert "Withdraw 4 runs of 1 experiment" in capsys.readouterr().err
    assert store.repetitions() == left


def test_drop_and_then_it_is_missing(run, store):
    code, out, _ = run("drop", store, "--first-repetition", 4, "--yes")
    assert code == 0
    assert f"2 runs of 1 experiment moved to {store}/quarantine" in out
    assert "run `butter-etl summarize`" in out
    assert store.repetitions() == {0: 0b1111}
    code, out, _ = run("drop", store, "--first-repetition", 4, "--yes")
    assert (code, out) == (0, f"nothing to do: {store} has no such runs\n")
    code, out, _ = run("drop", store, "--where", "size=32", "--yes", "--json", "--quiet")
    assert json.loads(out) == {"dropped": 4, "experiments": 1, "files": 1}
    assert "1 dropped" not in run("status", store)[1]
    assert "in quarantine: 2 files (2 dropped)" in run("status", store)[1]
