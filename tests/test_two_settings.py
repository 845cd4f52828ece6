"""`compare`, as a command and in Python: the table, the files, and one line for what cannot be compared."""

import json

import numpy as np
import pandas as pd
import pytest

import butter_etl as be
from butter_etl.errors import SelectError, UsageError
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from tests.other_study import FITS, make_store_of_fits
from tests.strategies import land

POLLEN = {"dataset": "529_pollen", "depth": 2}
SPECS = [make_experiment(**POLLEN, size=size) for size in (64, 128)]
OTHER = make_experiment(dataset="mnist", size=4096, depth=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("compare") / "store")
    for place, spec in enumerate([*SPECS, OTHER]):
        losses = np.random.default_rng(place).random((20, 6)).astype(np.float32) + 2 * place
        histories = {("val_loss", number): losses[number].tolist() for number in range(20)}
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(20), histories=histories)
    return store.location.root


def test_the_table_is_shown_and_written(store, tmp_path, run):
    csv, pdf = tmp_path / "difference.csv", tmp_path / "difference.pdf"
    code, out, _ = run("compare", store, csv, pdf, "--where", "depth=2", "--a", "size=64", "--b", "size=128")
    assert code == 0
    assert max(map(len, out.splitlines())) <= max(80, len(str(pdf)) + 6)
    assert out.splitlines()[0].split() == ["epoch", "a", "b", "a", "-", "b", "from", "to", "apart", "runs"]
    assert "a: size 64 (20 runs)" in out
    assert "yes" in out
    assert f"wrote {csv}" in out
    table = pd.read_csv(csv)
    assert list(table["at"]) == ["epoch"] * 6 + ["end", "best"]
    assert list(table["epoch"])[:6] == [1, 2, 3, 4, 5, 6]
    assert (table["high"] < 0).all()
    assert (table["runs_apart"] == 7).all()
    assert pdf.read_bytes().startswith(b"%PDF")


def test_json_and_python_say_the_same(store, run):
    code, out, _ = run("compare", store, "--a", "size=64", "--b", "size=128", "--level", 0.9, "--json")
    facts = json.loads(out)
    found = be.compare(store, "size=64", ["size=128"], level=0.9)
    assert (code, facts["a"], facts["level"]) == (0, "size 64", 0.9)
    assert facts["rows"] == found.table.to_pylist()
    assert "<table" in found._repr_html_()
    (axes,) = found.figure().axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [row["difference"] for row in facts["rows"][:6]])
    assert axes.get_title(loc="left") == "size 64 minus size 128"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0.9, of all at once", "0.9, of each"]


def test_an_experiment_with_itself_is_not_apart(store):
    found = be.compare(store, "size=64", "size=64")
    assert found.a.startswith("experiment ")
    assert {row[-2:] for row in found.rows} == {("no", ">10,000")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--a", "size=64"], "--b: say which setting it is"),
        (["--a", "size=64", "--b", "size=32"], "has no such runs"),
        (["--a", "size>=64", "--b", "size=64"], "3 experiments, which differ in dataset, "),
        (["--a", "size=64", "--b", "dataset=mnist"], "a and b differ in dataset, between which test_loss cannot be"),
        (["--a", "size=64", "--b", "size=128", "--level", "1"], "a level of 1: confidence levels lie between"),
        (["--a", "size=64", "--b", "size=128", "--series", "loss"], "unknown series 'loss'"),
        (["--a", "siz=64", "--b", "size=128"], "unknown key 'siz' (did you mean 'size'?)"),
        (["x.gif", "--a", "size=64", "--b", "size=128"], "comparisons are written to .csv, .parquet, .pdf, .png, .svg"),
        (["--a", "size=64", "--b", "size=128", "--series", "test_accuracy"], None),
    ],
)
def test_what_cannot_be_compared_is_one_line(store, run, arguments, message):
    code, _, err = run("compare", store, *arguments)
    assert (code, err.count("\n")) == ((2, 1) if message else (0, 0))
    assert (message or "") in err


def test_stores_without_histories_are_one_line(tmp_path, run):
    store = Store.create(tmp_path / "store")
    empty = {(name, number): None for name in ("val_loss", "loss") for number in range(8)}
    for spec in SPECS:
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(8), histories=empty)
    code, _, err = run("compare", tmp_path / "store", "--a", "size=64", "--b", "size=128")
    assert (code, err.count("\n")) == (2, 1)
    assert "--a: its runs have no val_loss: there is nothing to compare" in err


def test_errors_in_python_are_of_the_same_kinds(store, tmp_path):
    with pytest.raises(SelectError):
        be.compare(store, "depth=2", "size=64")
    with pytest.raises(UsageError):
        be.compare(store, "size=64", "size=128").save(tmp_path / "x")


def test_any_study_is_compared(tmp_path):
    store = make_store_of_fits(tmp_path / "store").location.root
    ids = be.read_runs(store, columns=["experiment_id"]).compute(scheduler="synchronous")["experiment_id"].unique()
    one = f"experiment_id={ids[0]}"
    found = be.compare(store, one, one, study=FITS)
    assert (found.series, found.table.num_rows > 1) == (FITS.figures.default, True)
