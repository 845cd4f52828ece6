"""One more statistic is one line, one more hyperparameter two: written into a copy of the package, and used."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import butter_etl
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment

PACKAGE = Path(butter_etl.__file__).parent
COLUMNS, EXPERIMENTS = "studies/butter/columns.py", "studies/butter/experiments.py"


@pytest.fixture
def changed(tmp_path):
    """Make a copy of the package with some lines changed, and run code with it: what it prints, as JSON."""

    def run(changes: list[tuple[str, str, str]], code: str) -> object:
        shutil.copytree(PACKAGE, tmp_path / "butter_etl", ignore=shutil.ignore_patterns("__pycache__"))
        for file, before, after in changes:
            path = tmp_path / "butter_etl" / file
            text = path.read_text()
            assert text.count(before) == 1
            path.write_text(text.replace(before, after))
        check = f"import butter_etl; assert butter_etl.__file__.startswith({str(tmp_path)!r})\n"
        done = subprocess.run(
            [sys.executable, "-c", check + code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.long
def test_one_more_statistic_is_one_line(changed):
    (line,) = re.findall(r"^_ADDED = \(.*\)$", (PACKAGE / COLUMNS).read_text(), flags=re.MULTILINE)
    changes = [(COLUMNS, line, line.removesuffix(")") + ', MEDIAN.at("p90", 0.9, "90th percentile"))')]
    code = """
import json
import pyarrow as pa
from butter_etl.studies.butter.study import BUTTER
from butter_etl.summarize import summary_rows
runs = pa.table({"experiment_id": pa.array([7] * 11, pa.uint32()),
                 "val_loss": [[float(k)] for k in range(11)], "loss": [[2.0 * k] for k in range(11)]})
row = summary_rows(BUTTER, [runs]).to_pylist()[0]
new = [name for name in BUTTER.summary.names if name.endswith("_p90")]
note = BUTTER.columns["test_loss_p90"].note
print(json.dumps([new, note, row["test_loss_p90"], row["train_loss_p90"], len(BUTTER.summary)]))
"""
    new, note, test, train, columns = changed(changes, code)
    assert len(new) == 8
    assert note == "90th percentile over the runs of the loss, penalty included, test set, a value an epoch"
    assert (test, train) == ([9.0], [18.0])
    assert columns == len(BUTTER.summary) + 8


@pytest.mark.long
def test_one_more_hyperparameter_is_two_lines(changed, tmp_path):
    changes = [
        (
            COLUMNS,
            'momentum of the optimizer; null for adam"),)',
            'momentum of the optimizer; null for adam"), Column("dropout", pa.float32(), "share of units left out"))',
        ),
        (
            EXPERIMENTS,
            "    own: OwnData | None = None\n",
            "    own: OwnData | None = None\n    dropout: Annotated[float, Axis(0.0, Between(0, 0.9))] = 0.0\n",
        ),
    ]
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        "name: some\nrepetitions: 2\n"
        "cubes: [{dataset: [wine], size: [64], depth: [2], epochs: [2], dropout: [0.0, 0.2]}]\n"
    )
    code = f"""
import json
import butter_etl as be
from butter_etl.campaign.cutting import Task
from butter_etl.campaign.stacks import Item
from butter_etl.campaign.tasks import train_and_land
from butter_etl.studies import Choice
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.train_tasks import claim_ids, open_campaign, plan_campaign
from butter_etl.errors import ButterError

campaign = plan_campaign("store", Choice(specs=({str(sweep)!r},)), engine="torch")
store, settings = open_campaign(campaign, __import__("pathlib").Path("data"))
items = [Item(one.spec, one.experiment_id, one.batch, one.repetitions)
         for one in claim_ids(campaign.plan, campaign.registry, store)]
landed = train_and_land(Task(tuple(items)), settings).landed
run_summaries(plan_summaries(store), store)
runs = be.read_runs("store", where=["dropout=0.2"], columns=["dropout", "experiment_id"]).compute()
summary = be.read_summary("store", columns=["dropout", "num_runs"]).compute().sort_values("dropout")
before = make_experiment(dataset="wine", size=64, depth=2)
try:
    make_experiment(dataset="wine", size=64, depth=2, dropout=1.5)
except ButterError as error:
    refused = str(error)
print(json.dumps([
    landed, [round(value, 6) for value in runs["dropout"]], [round(value, 6) for value in summary["dropout"]],
    summary["num_runs"].tolist(), before.canonical_json(), refused,
    BUTTER.fixed_ids.id_of(make_experiment(dataset="529_pollen", shape="rectangle", size=32, depth=3)),
    BUTTER.fixed_ids.id_of(make_experiment(dataset="529_pollen", shape="rectangle", size=32, depth=3, dropout=0.2)),
]))
"""
    landed, runs, summaries, counts, before, refused, known, unknown = changed(changes, code)
    assert landed == 4
    assert runs == [0.2, 0.2]
    assert (summaries, counts) == ([0.0, 0.2], [2, 2])
    assert before == make_experiment(dataset="wine", size=64, depth=2).canonical_json()
    assert refused == "dropout: 1.5 is not between 0 and 0.9"
    assert (known, unknown) == (1, None)
