"""Users' own data sets by the real commands: the example of the documents, trained, exported, imported, damaged."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import butter_etl as be
from butter_etl.errors import DatasetError
from butter_etl.exchange.imports import run_import
from butter_etl.studies.butter.datasets import content_sha256
from butter_etl.studies.selection import Choice
from butter_etl.train_tasks import claim_ids, open_campaign, plan_campaign
from tests.strategies import land

DOCUMENTS = "\n".join(path.read_text() for path in (Path(__file__).parents[1] / "docs").rglob("*.md"))
(SPEC,) = re.findall(r"```yaml\n(name: own_data\n.*?)```", DOCUMENTS, flags=re.DOTALL)
ROWS = 60


def heart(changed=None):
    """The lines of a table, with one age changed."""
    lines = ["patient,age,clinic,smoker,outcome"]
    for k in range(ROWS):
        age = changed if changed is not None and k == 7 else 30 + k * 7 % 41
        lines.append(f"p{k},{age},{k % 3},{'yes' if k % 4 else 'no'},{'ill' if age > 50 else 'well'}")
    return lines


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """What the document's example says is there, trained by the real command: files, ``own-data.yaml``, ``store``."""
    home = tmp_path_factory.mktemp("study")
    (home / "data").mkdir()
    (home / "data/heart.csv").write_text("\n".join(heart()) + "\n")
    numbers = np.arange(ROWS)
    table = {"heat": numbers * 1.5, "solvent": ["a", "b", "c", "d", "e"] * (ROWS // 5), "yield": np.sin(numbers)}
    pq.write_table(pa.table(table), home / "data/reactions.parquet")
    mushrooms = "\n".join(["cap\tsmell\ttarget", *(f"{k % 6}\t{k % 2}\t{(k // 2) % 2}" for k in range(ROWS))]) + "\n"
    (home / "pmlb/mushroom").mkdir(parents=True)
    (home / "pmlb/mushroom/mushroom.tsv.gz").write_bytes(gzip.compress(mushrooms.encode()))
    (home / "own-data.yaml").write_text(SPEC)
    command = [sys.executable, "-m", "butter_etl", "train", "store", "--spec", "own-data.yaml", "--engine", "torch"]
    options = ["--data-dir", "pmlb", "--workers", "1", "--json"]
    done = subprocess.run([*command, *options], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["landed"] == 16
    return home


@pytest.fixture
def here(study, tmp_path, monkeypatch):
    """A copy of the study, and the working directory."""
    shutil.copytree(study, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("BUTTER_ETL_DATA", "pmlb")
    return tmp_path / "here"


def missing(run, *arguments):
    code, out, err = run("plan", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)["runs_missing"]


def fails(run, *arguments):
    """The one line that a command ends with."""
    code, out, err = run(*arguments)
    assert (code, out) in {(1, ""), (2, "")}
    assert err.count("\n") == 1
    return err


@pytest.mark.long
def test_the_whole_way(here, run):
    code, out, _ = run("plan", "elsewhere", "--spec", "own-data.yaml")
    assert code == 0
    assert "\nheart: 60 rows, 5 inputs, 2 classes, content " in out
    assert "\nyield_of_reactions: 60 rows, 6 inputs, a response, content " in out
    assert max(map(len, out.splitlines())) <= 80
    assert not (here / "elsewhere").exists()
    assert missing(run, "store", "--spec", "own-data.yaml") == missing(run, "store", "--sweep", "own_data") == 0
    assert run("summarize", "store", "--quiet")[0] == 0
    assert run("export", "store", "dest", "--sweep", "own_data", "--quiet")[0] == 0
    for place in ("store", "dest"):
        code, out, err = run("verify", place, "--quiet")
        assert code == 0, out + err
    runs = be.read_runs("store", where=["dataset=heart"], columns=["dataset", "size", "command"]).compute()
    assert (len(runs), set(runs["dataset"])) == (4, {"heart"})
    command = json.loads(runs["command"].iloc[0])
    copy = pq.read_table("store/datasets/heart.parquet")
    x, y = (np.array(copy[name].to_pylist(), np.float32) for name in "xy")
    assert command["data.sha256"] == content_sha256("classification", x, y)
    assert (command["data.rows"], command["data.inputs"]) == (60, 5)
    query = "select distinct dataset from read_parquet('dest/own_data_sweep_runs/**/*.parquet', hive_partitioning=true)"
    names = {"heart", "mushroom", "wine", "yield_of_reactions"}
    assert {name for (name,) in duckdb.sql(query).fetchall()} == names
    assert "custom sweeps: own_data" in run("status", "store", "--sweep", "own_data", "--where", "dataset=heart")[1]


def test_the_same_content_elsewhere_is_the_same_experiment(here, run):
    (here / "heart.tsv").write_text("\n".join(heart()).replace(",", "\t") + "\n")
    other = SPEC.replace("name: own_data", "name: other").replace("data/heart.csv", "../here/heart.tsv")
    (here / "other.yaml").write_text(other)
    assert missing(run, "store", "--spec", "other.yaml") == 0


def test_a_changed_file_is_named_and_another_name_makes_other_experiments(here, run):
    (here / "data/heart.csv").write_text("\n".join(heart(changed=69)) + "\n")
    line = fails(run, "train", "store", "--spec", "own-data.yaml")
    assert "own-data.yaml: datasets.heart: data/heart.csv is not what store has runs or a copy of as 'heart': " in line
    assert "column 'age' differs in row 8; restore the file and the declaration, or give the data set another" in line
    (here / "new.yaml").write_text(SPEC.replace("heart", "heart_2").replace("heart_2.csv", "heart.csv"))
    assert "another sweep called 'own_data'" in fails(run, "plan", "store", "--spec", "new.yaml")
    (here / "new.yaml").write_text((here / "new.yaml").read_text().replace("name: own_data", "name: new"))
    assert missing(run, "store", "--spec", "new.yaml") == 4
    (here / "data/heart.csv").write_text("\n".join(heart()) + "\n")
    (here / "own-data.yaml").write_text(SPEC.replace("patient: drop", "patient: drop, age: drop"))
    assert "it has 4 inputs, not 5 ('age' is gone)" in fails(run, "plan", "store", "--spec", "own-data.yaml")


@pytest.mark.long
def test_training_goes_on_where_the_files_are_gone(here, run, client):
    shutil.rmtree(here / "data")
    shutil.rmtree(here / "pmlb")
    where = ["dataset!=wine", "size=64"]
    report = be.train("store", client=client, spec="own-data.yaml", where=where, repetitions=3, engine="torch")
    assert (report.landed, report.failed) == (3, 0)
    assert (
        missing(run, "store", "--sweep", "own_data", "--where", where[0], "--where", where[1], "--repetitions", "3")
        == 0
    )
    (here / "own-data.yaml").write_text(SPEC.replace("target: outcome", "target: smoker"))
    line = fails(run, "plan", "store", "--spec", "own-data.yaml")
    assert "own-data.yaml: datasets.heart: data/heart.csv is not there; put the file there, or correct `file`" in line


def test_imports_bring_the_data_along_and_never_mix_them(here, run):
    assert run_import("store", "whole").landed == 16
    for name in ("heart", "mushroom", "yield_of_reactions"):
        path = f"datasets/{name}.parquet"
        assert (here / "whole" / path).read_bytes() == (here / "store" / path).read_bytes()
    assert run("verify", "whole", "--quiet")[0] == 0
    assert missing(run, "whole", "--sweep", "own_data") == 0
    assert run_import("store/all_runs", "runs_only").landed == 16
    assert not (here / "runs_only/datasets").exists()
    assert missing(run, "runs_only", "--spec", "own-data.yaml", "--repetitions", "3") == 8
    (here / "data/heart.csv").write_text("\n".join(heart(changed=69)) + "\n")
    assert "as 'heart': its numbers differ" in fails(run, "plan", "runs_only", "--spec", "own-data.yaml")


def test_two_contents_of_one_name_are_never_in_one_store(here, run):
    (here / "data/heart.csv").write_text("\n".join(heart(changed=69)) + "\n")
    campaign = plan_campaign("rival", Choice(specs=("own-data.yaml",), where=("dataset=heart", "size=64")))
    rival, _ = open_campaign(campaign, here / "pmlb")
    (wanted,) = claim_ids(campaign.plan, campaign.registry, rival)
    land(rival, wanted.spec, wanted.experiment_id, range(2), epochs=20, batch="own_data")
    for source in ("rival", "rival/all_runs"):
        with pytest.raises(DatasetError, match=r"data set heart: .*store has that name for other content .SHA-256"):
            run_import(source, "store")
    assert run("verify", "store", "--quiet")[0] == 0
    shutil.copy(here / "rival/datasets/heart.parquet", here / "store/datasets/heart.parquet")
    code, out, _ = run("verify", "store", "--quiet")
    assert code == 1
    assert "wrong-data" in out
    line = fails(run, "train", "store", "--sweep", "own_data", "--repetitions", "3")
    assert "data set heart: " in line
    assert "has that name for other content" in line


def test_a_damaged_copy_is_found_moved_away_and_made_again(here, run):
    copy = here / "store/datasets/heart.parquet"
    data = copy.read_bytes()
    copy.write_bytes(data[:200] + bytes(20) + data[220:])
    code, out, _ = run("verify", "store", "--quiet", "--json")
    assert (
        code,
        [finding["kind"] for finding in json.loads(out)["checked"]["findings"] if "data" in finding["kind"]],
    ) == (1, ["wrong-data"])
    assert run("verify", "store", "--repair", "--quiet")[0] == 0
    assert not copy.exists()
    more = ("--where", "dataset=heart", "--where", "size=64", "--repetitions", "3")
    line = fails(run, "train", "store", "--sweep", "own_data", *more)
    assert "keeps no copy of data set heart; train with --spec" in line
    campaign = plan_campaign("store", Choice(specs=("own-data.yaml",), repetitions=3))
    open_campaign(campaign, here / "pmlb")
    assert copy.read_bytes() == data
    assert run("verify", "store", "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("file: data/heart.csv", "file: data/hearts.csv", "datasets.heart: data/hearts.csv is not there; put the file"),
        (
            "target: outcome",
            "target: outcme",
            "heart.csv has no column 'outcme' (did you mean 'outcome'?); it has patient",
        ),
        (
            "target: outcome",
            "targets: outcome",
            "datasets[...]: unknown key 'targets' (did you mean 'target'?)",
        ),
        ("clinic: one-hot", "clinic: onehot", "datasets[...].columns[...]: unknown 'onehot' (did you mean 'one-hot'?)"),
        ("task: regression", "task: regresion", "datasets[...].task: unknown 'regresion' (did you mean 'regression'?)"),
        ("dataset: [heart, ", "dataset: [", "datasets.heart: no cube has it as `dataset`; take it out"),
        ("dataset: [heart, ", "dataset: [hart, heart, ", "cubes[0].dataset: 'hart' is not known"),
        ("  heart:\n", "  wine:\n", "datasets.wine: 'wine' is the name of a data set that comes with the package"),
        (
            "target: yield",
            "target: solvent",
            "reactions.parquet: column 'solvent' has 'a' in row 1, which is no number",
        ),
    ],
)
def test_what_is_wrong_shows_when_planning(here, run, old, new, message):
    assert old in SPEC
    (here / "own-data.yaml").write_text(SPEC.replace(old, new))
    line = fails(run, "plan", "elsewhere", "--spec", "own-data.yaml")
    assert line.startswith("butter-etl: own-data.yaml: ")
    assert message in line
