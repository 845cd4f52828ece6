"""The page about a store: its data, and what a browser makes of it."""

import base64
import shutil

import numpy as np
import pytest

from butter_etl.cli.group import main
from butter_etl.store.failures import Failure
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.views.page import POINTS, _kept, page_data, write_page
from tests.strategies import land

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Experiments of two data sets and sizes; one has only NaN, one has failed."""
    store = Store.create(tmp_path_factory.mktemp("page") / "store")
    for dataset in ("529_pollen", "banana"):
        for size in (64, 128):
            spec = make_experiment(dataset=dataset, size=size, depth=2)
            broken = dataset == "banana" and size == 128
            losses = [float("nan") if broken else size / epoch for epoch in range(1, 201)]
            histories = {("val_loss", repetition): losses for repetition in range(3)}
            land(store, spec, BUTTER.fixed_ids.id_of(spec), [0, 1, 2], epochs=200, histories=histories)
    run_summaries(plan_summaries(store), store)
    store.record_failure(Failure(7, "a </script> b", [0, 1], "RuntimeError: no", "", "n1", 1))
    return store


@pytest.fixture(scope="module")
def data(store):
    return page_data(store, Choice())


def unpacked(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_the_data_are_those_of_the_store(data):
    assert len(data["runs"]) == 4
    assert data["runs"] == [3, 3, 3, 3]
    by_name = {one["name"]: one for one in data["filters"]}
    assert by_name["dataset"]["values"] == ["529_pollen", "banana"]
    assert by_name["size"]["values"] == ["64", "128"]
    assert by_name["size"]["of"] == [0, 1, 0, 1]
    coverage = {one["sweep"]: one for one in data["coverage"]}
    assert (coverage["primary"]["begun"], coverage["primary"]["runs"]) == (4, 12)
    assert data["failures"][0]["error"] == "RuntimeError: no"
    epochs, losses = unpacked(data["curves"]["points"]), unpacked(data["curves"]["test_loss_median"])
    end = data["curves"]["ends"][0]
    np.testing.assert_allclose(losses[:end], 64 / epochs[:end], rtol=1e-6)
    assert (epochs[0], epochs[end - 1]) == (1, 200)


def test_a_choice_limits_the_page(store):
    assert len(page_data(store, Choice(where=("size=64",)))["runs"]) == 2
    assert len(page_data(store, Choice(sweeps=("30k_epoch",)))["runs"]) == 0


@pytest.mark.parametrize("epochs", [0, 1, 2, 47, 48, 49, 3000, 30000])
def test_thinned_epochs_are_few_and_hold_both_ends(epochs):
    kept = _kept(epochs)
    assert len(kept) <= POINTS
    assert list(kept) == sorted(set(kept))
    if epochs:
        assert (kept[0], kept[-1]) == (0, epochs - 1)


def test_the_command_says_what_it_wrote(store, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", str(store), str(tmp_path / "out.html")])
    assert stop.value.code == 0
    assert "4 experiments" in capsys.readouterr().out
    page = (tmp_path / "out.html").read_text()
    assert "__DATA__" not in page
    assert page.count("</script>") == 1
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_an_unwritable_place_is_one_line(store, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", str(store), str(tmp_path / "no" / "out.html")])
    assert stop.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture(scope="module")
def page(data, tmp_path_factory):
    """The page, open in a browser, and what its console said."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(data, path)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1200, "height": 1000})
        tab.said = []
        tab.on("console", lambda message: tab.said.append(message.text))
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.on("request", lambda request: tab.said.append(request.url) if not request.url.startswith("file:") else None)
        tab.goto(path.as_uri())
        yield tab
        browser.close()


def curve(page):
    return page.locator("#curves path.curve").evaluate_all("paths => paths.map(path => path.getAttribute('d'))")


@pytest.mark.browser
def test_filters_change_what_is_drawn(page):
    assert page.inner_text("#count") == "4 of 4 experiments"
    everything = curve(page)
    assert len(everything) == 3  # of each data set and size, but for the one without finite losses
    page.select_option("#filter-dataset", label="529_pollen")
    assert page.inner_text("#count") == "2 of 4 experiments"
    assert len(curve(page)) == 2
    page.select_option("#filter-size", label="128")
    assert page.inner_text("#count") == "1 of 4 experiments"
    assert len(curve(page)) == 1
    assert page.locator("#map rect.cell").count() == 1
    page.select_option("#filter-dataset", label="banana")
    assert "nothing to draw" in page.text_content("#curves")
    page.click("button[type=reset]")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('4 of')")
    assert curve(page) == everything
    assert page.said == []


@pytest.mark.browser
def test_data_sets_are_ranked_apart(page):
    assert "64, 529_pollen" in page.text_content("#curves")
    assert "choose one dataset" in page.text_content("#map")
    ranked = page.locator("#best tbody tr").evaluate_all("rows => rows.map(row => row.cells[1].textContent)")
    assert ranked == ["529_pollen", "529_pollen", "banana"]
    page.select_option("#filter-dataset", label="529_pollen")
    assert "529_pollen" not in page.text_content("#curves")
    assert page.locator("#map rect.cell").count() == 2
    page.click("button[type=reset]")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('4 of')")
    assert page.said == []


@pytest.mark.browser
def test_series_and_grouping_change_what_is_drawn(page):
    before = curve(page)
    page.select_option("#series", "test_accuracy")
    assert curve(page) != before
    page.select_option("#by", "dataset")
    assert "529_pollen" in page.text_content("#curves")
    page.select_option("#scale", "linear")
    page.click("button[type=reset]")
    assert page.said == []


@pytest.mark.browser
def test_the_keyboard_reaches_everything(page):
    page.locator("#filter-dataset").focus()
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#count") == "2 of 4 experiments"
    reached = set()
    for _ in range(12):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.type || ''"))
        page.keyboard.press("Tab")
    assert {"filter-dataset", "filter-size", "series", "by", "scale", "reset"} <= reached
    page.click("button[type=reset]")
    assert page.said == []


@pytest.mark.browser
def test_what_failed_is_shown_as_text(page):
    assert "a </script> b" in page.inner_text("#failures")
