"""A published network and its twin of ours: side by side in pages and pictures, apart in every statistic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import butter_etl as be
from butter_etl.partition import ExportOptions
from butter_etl.store import Store
from butter_etl.studies.lifespans.experiments import TABLE_TASK
from butter_etl.studies.lifespans.study import NN_LIFESPANS
from butter_etl.studies.selection import Choice
from butter_etl.views import page_data, plot, write_page
from tests.test_page import CHROMIUM

DRAWS = """
name: lives
repetitions: 1
draws:
  - {dataset: digits, networks: 3, seed: 5, epochs: 1, max_multiplications: 200000, val_mode: published}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three networks from tables, the first of which has a twin with two runs."""
    home = tmp_path_factory.mktemp("twins")
    (home / "lives.yaml").write_text(DRAWS)
    be.train(home / "ours", spec=home / "lives.yaml", study="nn_lifespans", workers=1)
    be.export(home / "ours", home / "tables", everything=True, options=ExportOptions(form="tables"))
    be.import_runs(home / "tables", home / "store", study="nn_lifespans")
    published = be.read_runs(home / "store").compute().sort_values("run_id")
    be.train(home / "store", like=published["run_id"].iloc[0], repetitions=2, workers=1)
    be.summarize_store(home / "store")
    return Store.open(home / "store")


@pytest.fixture(scope="module")
def twins(store):
    """The summaries of the network that both have trained: the published one's first."""
    summary = be.read_summary(store.location.root).compute()
    shared = summary["network_id"].value_counts().idxmax()
    return summary[summary["network_id"] == shared].sort_values("task", ignore_index=True)


def test_statistics_never_mix_them(store, twins):
    assert twins["task"].tolist() == [TABLE_TASK, NN_LIFESPANS.task]
    assert twins["num_runs"].tolist() == [1, 2]
    assert twins["experiment_id"].nunique() == 2
    runs = be.read_runs(store.location.root).compute()
    for _, row in twins.iterrows():
        own = runs[runs["experiment_id"] == row["experiment_id"]]
        assert set(own["task"]) == {row["task"]}
        assert row["val_loss_avg"][-1] == pytest.approx(own["val_loss"].map(lambda values: values[-1]).mean())


def test_a_picture_has_a_curve_for_each_of_who_trained_it(store, twins):
    table = plot.summary_table(store.location.root)
    kept = [one == twins["network_id"][0] for one in table["network_id"].to_pylist()]
    for by, named in ((None, ""), ("layer_types", "-".join(map(str, twins["layer_types"][0])) + ", "), ("task", "")):
        figure = plot.learning_curves(table.filter(kept), by=by, study=NN_LIFESPANS)
        (axes,) = figure.axes
        assert [line.get_label() for line in axes.lines] == [f"{named}{TABLE_TASK}", f"{named}{NN_LIFESPANS.task}"]
        for line, curve in zip(axes.lines, twins["val_accuracy_percent_median"], strict=True):
            assert line.get_ydata().tolist() == list(curve)


def test_a_curve_of_several_networks_is_of_one_maker(store):
    figure = plot.learning_curves(plot.summary_table(store.location.root), study=NN_LIFESPANS)
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert len(labels) == 2
    assert labels[0].startswith(f"{TABLE_TASK} (best of 3: ")
    assert labels[1] == NN_LIFESPANS.task


def test_the_page_knows_the_twins_and_draws_the_layers(store, twins):
    data = page_data(store, Choice())
    summary = be.read_summary(store.location.root).compute()
    assert len(data["twins"]) == len(summary) == 4
    assert len(set(data["twins"])) == 3
    (made,) = (one for one in data["filters"] if one["name"] == "task")
    assert made["values"] == [TABLE_TASK, NN_LIFESPANS.task]
    boxes = [[data["networks"]["boxes"][number] for number in one] for one in data["networks"]["of"]]
    assert all(one[0] == ("image", "", (12, 12, 1)) and one[-1] == ("output", "", (10,)) for one in boxes)
    pairs = [row for row, group in enumerate(data["twins"]) if data["twins"].count(group) == 2]
    assert boxes[pairs[0]] == boxes[pairs[1]]


@pytest.mark.browser
def test_a_browser_draws_layers_and_twins(store, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    data = page_data(store, Choice())
    write_page(data, tmp_path / "page.html")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_context(viewport={"width": 1200, "height": 1000}).new_page()
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto((tmp_path / "page.html").as_uri())
        assert tab.locator("#network option:checked").text_content().startswith("n fc layers ")  # not blank
        shown = []
        for value in tab.locator("#network option").evaluate_all("all => all.map(one => one.value)"):
            tab.select_option("#network", value)
            boxes = [data["networks"]["boxes"][number] for number in data["networks"]["of"][int(value)]]
            names = tab.locator("#layers text.name").all_text_contents()
            assert names == [name for name, _, _ in boxes]
            texts = tab.locator("#layers text").all_text_contents()
            assert {" x ".join(map(str, shape)) for _, _, shape in boxes} <= set(texts)
            assert tab.locator("#layers rect.layer").count() == len(boxes)
            shown.append((tab.locator("#twins").is_visible(), tab.locator("#makers li").all_text_contents()))
        browser.close()
    assert said == []
    both = [f"{TABLE_TASK}, 1 run", f"{NN_LIFESPANS.task}, 2 runs"]
    assert [makers for is_shown, makers in shown if is_shown] == [both, both]
    assert [is_shown for is_shown, _ in shown].count(False) == 2


def test_an_export_says_that_not_all_runs_were_made_by_the_software(store, tmp_path):
    be.export(store.location.root, tmp_path / "out", everything=True, authors="Lovelace, Ada")
    document = json.loads((tmp_path / "out/croissant.json").read_text())
    said = document["rai:dataCollection"]
    assert said.startswith(f"Every run whose task is {NN_LIFESPANS.task} is the training of")
    assert "Runs of 3 experiments were imported, and made by others, as the source in isBasedOn may say" in said
    (based_on,) = document["isBasedOn"]
    assert based_on["name"] == "Whole lives of random image networks"
    card = " ".join((tmp_path / "out/README.md").read_text().split())
    assert "Not all runs were made for this data set: those of 3 experiments come from the source" in card
    assert "whose licence is not known to the software" in card
    assert "10.7910/DVN/ZXTCGF" in card


def test_an_export_of_own_runs_speaks_of_no_others(store, tmp_path):
    be.export(Path(store.location.root).parent / "ours", tmp_path / "out", everything=True, summary=False)
    document = json.loads((tmp_path / "out/croissant.json").read_text())
    assert document["rai:dataCollection"] == NN_LIFESPANS.card.responsible_ai["rai:dataCollection"]
    assert "isBasedOn" not in document
    assert "Not all runs were made" not in (tmp_path / "out/README.md").read_text()
