"""Tables of networks as a format of nn_lifespans: in, summarised, out again byte for byte."""

from __future__ import annotations

import io
import math
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from butter_etl.errors import SelectError, SourceError
from butter_etl.exchange.imports import run_import
from butter_etl.partition import ExportOptions, export
from butter_etl.store.store import Store
from butter_etl.studies.lifespans.experiments import TABLE_TASK
from butter_etl.studies.lifespans.formats import TABLES
from butter_etl.studies.lifespans.study import NN_LIFESPANS
from butter_etl.studies.lifespans.tables import read_table
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.upkeep.verify import plan_verification, run_verification

FOLDER = Path(__file__).parent / "networks"
FILES = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.txt"))}
DATA = next(iter(FILES.values()))
FIRST = "2021_02_15_13_55_26_539263"


def bring(source, store):
    return run_import(source, store, study=NN_LIFESPANS)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("networks") / "store"
    assert bring(FOLDER, path).landed == 3
    return path


def rows_of(store):
    opened = Store.open(store)
    return [opened.read_runs(file).to_pylist()[0] | {"partition": file.partition} for file in opened.run_files()]


def test_a_table_becomes_a_run_of_the_study(store):
    row = {one["table_id"]: one for one in rows_of(store)}[FIRST]
    assert row["partition"] == "dataset=CIFAR100/n_conv_layers=3"
    assert (row["task"], row["val_mode"], row["fc_activation"], row["epochs"]) == (TABLE_TASK, "published", None, 40)
    assert (row["random_seed"], row["seed"], row["train_gpu"]) == (2476382228, 2476382228, True)
    assert (row["conv_filters"], row["fc_filters"], row["fc_dropout_layers"]) == ([301, 297, 345], [100], [])
    assert (row["n_fc_layers"], row["num_free_parameters"] > 10**6, row["repetition"]) == (1, True, 0)
    assert (len(row["epoch"]), row["epoch"][-1], row["val_accuracy_percent"][0]) == (80, 40.0, 9.68)


def test_the_way_in_and_out_changes_no_byte(tmp_path, store):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(FOLDER, "data-CIFAR100/models")
    for number, source in enumerate((FOLDER, tmp_path / "a.tar.gz")):
        bring(source, tmp_path / f"store{number}")
        how = ExportOptions(form="tables", tar=True)
        export(tmp_path / f"store{number}", tmp_path / "out", everything=True, options=how)
        found = {path.name: path.read_bytes() for path in (tmp_path / "out/CIFAR-100_models").iterdir()}
        assert found == FILES
        assert run_verification(plan_verification(tmp_path / "out")).findings == ()


def test_tables_are_summarised(tmp_path):
    bring(FOLDER, tmp_path / "store")
    opened = Store.open(tmp_path / "store")
    run_summaries(plan_summaries(opened), opened)
    assert not [one for one in run_verification(plan_verification(opened.location.root)).findings if not one.is_note]


def test_curves_that_diverged_come_out_as_they_went_in(tmp_path):
    lines = DATA.decode().split("\n")
    for line, text in ((3, "1.5 nan inf 1.0"), (4, "2.0 -inf nan 1.0")):
        lines[line] = f"{text}{' ' * 24}"
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/{FIRST}.txt").write_text("\n".join(lines))
    bring(tmp_path / "in", tmp_path / "store")
    export(tmp_path / "store", tmp_path / "out", everything=True, options=ExportOptions(form="tables"))
    assert (tmp_path / f"out/CIFAR-100_models/{FIRST}.txt").read_text() == "\n".join(lines)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b" SGD ", b" Adam ", "optimizer is 'Adam'; networks of nn_lifespans have SGD"),
        (b" CrossEntropyLoss ", b" NLLLoss ", "loss_fn is 'NLLLoss'"),
        (b" 3-3-1 ", b" 3-3-300 ", "has a value that no run can have"),
        (b" 2476382228 ", b" 24763822280 ", "has a value that no run can have"),
        (b"epochs ", b"epoch ", "columns are missing: epochs"),
    ],
)
def test_what_is_of_no_network_of_the_study_is_refused(before, after, reason):
    with pytest.raises(SourceError, match=reason):
        TABLES.read(DATA.replace(before, after, 1))


def test_networks_that_cannot_be_built_come_in_without_a_size():
    for before, after in ((b" CIFAR100 ", b" Faces "), (b" 3-3-1 ", b" 3-3-3 "), (b" 24-2-2 ", b" 99-2-2 ")):
        row = TABLES.read(DATA.replace(before, after, 1)).rows.to_pylist()[0]
        assert row["num_free_parameters"] is None
    assert TABLES.read(DATA.replace(b" 100\n", b" \n", 1)).rows["n_fc_layers"].to_pylist() == [0]


def own_rows():
    """A run as this package trains it."""
    row = TABLES.read(DATA).rows.to_pylist()[0]
    told = dict.fromkeys(("table_id", "random_seed", "train_gpu", "torch_set_deterministic"))
    own = row | told | {"val_mode": "full", "run_id": "aa-bb", "seed": 2**40 + 5, "device": "cpu"}
    return pa.Table.from_pylist([own], schema=NN_LIFESPANS.runs)


def test_own_runs_have_tables_called_after_them():
    (written,) = TABLES.write(own_rows())
    table = read_table(written.data)
    assert (written.name, table.network_id, table.random_seed) == ("aa-bb.txt", "aa-bb", 5)
    assert (table.train_gpu, table.torch_set_deterministic, table.respelled) == (False, False, ())
    np.testing.assert_array_equal(table.val_loss, read_table(DATA).val_loss)


def test_only_what_was_measured_as_the_published_is_written_unless_it_is_said(tmp_path):
    opened = Store.create(tmp_path / "store", study=NN_LIFESPANS)
    pq.write_table(own_rows(), tmp_path / "own.parquet")
    run_import(tmp_path / "own.parquet", opened.location.root, study=NN_LIFESPANS)
    how = ExportOptions(form="tables")
    with pytest.raises(SelectError, match="val_mode is full, not published; choose others by --where, or pass"):
        export(tmp_path / "store", tmp_path / "out", everything=True, options=how)
    how = ExportOptions(form="tables", as_measured=True)
    assert export(tmp_path / "store", tmp_path / "out", everything=True, options=how).directories[0][1] == 1


@pytest.mark.parametrize(
    ("name", "folder"),
    [("CIFAR100", "CIFAR-100_models"), ("SVHN", "SVHN_models"), ("FashionMNIST", "FashionMNIST_models")],
)
def test_folders_are_called_as_the_published_ones(name, folder):
    assert TABLES.folder({"dataset": name}) == folder


def test_lives_of_any_length_have_whole_epochs():
    lines = DATA.decode().split("\n")
    short = TABLES.read("\n".join([*lines[:4], ""]).encode()).rows.to_pylist()[0]
    assert (short["epochs"], len(short["loss"])) == (math.ceil(1.5), 3)


def with_cell(data, before, after):
    """A table with one text in place of another, which is there."""
    assert before in data
    return data.replace(before, after, 1)


@pytest.mark.parametrize("is_packed", [False, True], ids=["a folder", "an archive too"])
@pytest.mark.parametrize("change", [(b" 25 ", b" 26 "), (b"0.5 ", b"0.50001 ")], ids=["parameters", "curves"])
def test_the_second_of_two_tables_of_one_id_is_refused_by_name_and_the_others_go_on(tmp_path, change, is_packed):
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    for name, data in FILES.items():
        (source / "a" / name).write_bytes(data)
    other, second = with_cell(DATA, *change), "b/second.txt"
    if is_packed:
        second = "b.tar/second.txt"
        with tarfile.open(source / "b.tar", "w") as tar:
            member = tarfile.TarInfo("second.txt")
            member.size = len(other)
            tar.addfile(member, io.BytesIO(other))
    else:
        (source / "b").mkdir()
        (source / "b/second.txt").write_bytes(other)
    report = bring(source, tmp_path / "store")
    (line,) = report.refused
    assert line == f"{source}/{second}: is of a run that {source}/a/{FIRST}.txt tells of otherwise; keep one of them"
    assert (report.landed, report.experiments) == (3, 3)
    assert {row["table_id"] for row in rows_of(tmp_path / "store")} == {Path(name).stem for name in FILES}
    again = bring(source, tmp_path / "store")
    assert (again.landed, again.present, again.refused) == (0, 3, report.refused)


def test_two_copies_of_a_table_are_one_run(tmp_path):
    source = tmp_path / "source"
    for folder in ("a", "b"):
        (source / folder).mkdir(parents=True)
        (source / folder / f"{FIRST}.txt").write_bytes(FILES[f"{FIRST}.txt"])
    report = bring(source, tmp_path / "store")
    assert (report.landed, report.present, report.refused) == (1, 1, ())


def test_the_command_says_what_it_refused_and_which_source_it_recorded(tmp_path, run):
    source = tmp_path / "tables"
    source.mkdir()
    (source / "one.txt").write_bytes(DATA)
    (source / "two.txt").write_bytes(with_cell(DATA, b" 25 ", b" 26 "))
    options = ("--study", "nn_lifespans", "--source-doi", "10.7910/DVN/ZXTCGF", "--source-title", "Lives", "--quiet")
    code, out, err = run("import", source, tmp_path / "store", *options)
    assert code == 1
    assert 'recorded as of "Lives", https://doi.org/10.7910/DVN/ZXTCGF: no licence is stated\n' in out
    assert f"refused: {source}/two.txt: is of a run that {source}/one.txt tells of otherwise" in err
    code, out, _ = run("import", FOLDER, tmp_path / "other", "--study", "nn_lifespans", "--quiet")
    assert code == 0
    assert 'recorded as of "networks": no licence is stated, and nothing else (--source-author, ' in out
    code, out, _ = run("import", FOLDER, tmp_path / "other", "--study", "nn_lifespans", "--quiet")
    assert "recorded" not in out
