"""The page about a store: its data, and what a browser makes of it."""

import base64
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest

from butter_etl.cli.group import main
from butter_etl.store.failures import Failure
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.views.curves import POINTS
from butter_etl.views.curves import thinned as _kept
from butter_etl.views.page import STEPS, _fewer, _most_points, _steps, page_data, page_series, write_page
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


def unpacked(text, kind="<f4"):
    return np.frombuffer(base64.b64decode(text), kind)


def curve_of(data, row, series, statistic):
    """The values of a statistic of an experiment, as the page makes them of steps."""
    packed, ends = data["curves"]["series"][series], [0, *data["curves"]["ends"]]
    low, high = unpacked(packed["low"])[row], unpacked(packed["high"])[row]
    steps = unpacked(packed["steps"][statistic], "<u2")[ends[row] : ends[row + 1]].astype(float)
    share = np.where(steps > STEPS, np.nan, steps / STEPS)
    return low * (high / low) ** share if low > 0 else low + (high - low) * share


def test_the_page_tells_intervals_of_all_the_runs_there_are(tmp_path):
    store, spec = Store.create(tmp_path / "store"), make_experiment(dataset="banana", size=64, depth=2)
    number = BUTTER.fixed_ids.id_of(spec)
    losses = {("val_loss", repetition): [2.0, 1.0 + repetition] for repetition in range(9)}
    land(store, spec, number, range(8), epochs=2, histories=losses)
    run_summaries(plan_summaries(store), store)
    assert page_data(store, Choice())["told"] == []
    run_summaries(plan_summaries(store, level=0.95), store)
    told = page_data(store, Choice())["told"]
    # Of eight runs the interval at 95 % goes from the smallest or second smallest to its mirror image.
    assert [one["name"].rpartition(" ")[2] for one in told] == ["low", "high"]
    (low,), (high,) = (one["values"] for one in told)
    assert 1.0 <= low < 4.5 < high <= 8.0
    assert low + high == pytest.approx(9.0)
    land(store, spec, number, [8], epochs=2, histories=losses)
    run_summaries(plan_summaries(store), store)
    assert [one["values"] for one in page_data(store, Choice())["told"]] == [[None], [None]]


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
    epochs = unpacked(data["curves"]["lists"][data["curves"]["list"][0]])
    np.testing.assert_allclose(curve_of(data, 0, "test_loss", "median"), 64 / epochs, rtol=1e-4)
    assert (epochs[0], epochs[-1]) == (1, 200)
    assert len(data["curves"]["lists"]) == 1, "experiments of as many epochs share their points"
    assert np.isnan(curve_of(data, 3, "test_loss", "median")).all()


def test_all_series_are_there_those_that_a_study_shows_first(data):
    names = tuple(data["labels"])
    assert names == page_series(BUTTER) == tuple(data["curves"]["series"])
    assert names[:4] == BUTTER.figures.shown
    assert set(names) == set(BUTTER.reduction.histories)
    assert all(set(one["steps"]) == {"median", "q1", "q3"} for one in data["curves"]["series"].values())


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [
        ([1e-30, 1.0, 1e30], 1.1e-3),
        ([0.05, 2.0, np.nan, np.inf], 3e-5),
        ([-1.0, 0.0, 3.0], 0),
        ([7.0, 7.0], 0),
        ([np.nan], 0),
        ([], 0),
    ],
)
def test_values_are_steps_of_the_range_of_their_curve(values, tolerance):
    """Beside another curve, which has a range of its own."""
    other = np.array([1.0, 2.0])
    both = np.concatenate([values, other]).astype(np.float32)[None]
    steps, low, high = _steps(both, np.array([len(values), 2]))
    assert steps[0, -2:].tolist() == [0, STEPS]
    share = np.where(steps[0, :-2] > STEPS, np.nan, steps[0, :-2] / STEPS)
    bottom, top = float(low[0]), float(high[0])
    there = bottom * (top / bottom) ** share if bottom > 0 else bottom + (top - bottom) * share
    finite = np.where(np.isfinite(values), values, np.nan)
    np.testing.assert_allclose(there, finite, rtol=tolerance + 1e-6, atol=1e-4)


def test_curves_of_very_many_experiments_have_fewer_points():
    lists = pa.array([np.arange(POINTS, dtype=np.float32)] * 1000)
    assert _most_points(pa.table({".points": lists}), 24) == POINTS
    thousands = pa.concat_tables([pa.table({".points": lists})] * 10)
    most = _most_points(thousands, 24)
    assert 20 <= most < POINTS
    kept = _fewer(POINTS, most)
    assert (len(kept), kept[0], kept[-1]) == (most, 0, POINTS - 1)
    assert _most_points(pa.concat_tables([thousands] * 9), 24) == 12


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
        tab = browser.new_context(viewport={"width": 1200, "height": 1000}).new_page()
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
    """The page begins with one data set, since values of several do not compare."""
    assert page.inner_text("#count") == "2 of 4 experiments"
    first = curve(page)
    assert len(first) == 2
    page.select_option("#filter-size", label="128")
    assert page.inner_text("#count") == "1 of 4 experiments"
    assert len(curve(page)) == 1
    assert page.locator("#map rect.cell").count() == 1
    page.select_option("#filter-dataset", label="banana")
    assert "nothing to draw" in page.text_content("#curves")
    begin_again(page)
    assert curve(page) == first
    assert page.said == []


def begin_again(page):
    page.click("button[type=reset]")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('2 of') && location.hash === ''")


@pytest.mark.browser
def test_data_sets_are_ranked_apart_and_never_drawn_together(page):
    page.select_option("#filter-dataset", label="all")
    assert page.inner_text("#count") == "4 of 4 experiments"
    assert curve(page) == []
    for picture in ("#curves", "#map"):
        assert "choose one dataset: between several, values do not compare" in page.text_content(picture)
    ranked = page.locator("#best tbody tr").evaluate_all("rows => rows.map(row => row.cells[1].textContent)")
    assert ranked == ["529_pollen", "529_pollen", "banana"]
    begin_again(page)
    assert page.locator("#map rect.cell").count() == 2
    assert page.said == []


def table_of(page):
    return page.locator("#best tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )


@pytest.mark.browser
def test_the_best_of_each_group_is_listed_and_the_title_says_by_what(page):
    assert page.inner_text("#best-title") == "Best experiments"
    page.select_option("#group", "size")
    assert page.inner_text("#best-title") == "Best experiment of each size"
    assert page.inner_text("#best-rule") == "Ranked by the lowest median test loss at any epoch."
    head, *rows = table_of(page)
    assert head == ["size", "best median test loss", "dataset", "shape", "depth", "runs", "experiments"]
    assert [(row[0], row[1], row[-1]) for row in rows] == [("64", "0.32", "1"), ("128", "0.64", "1")]
    assert page.url.endswith("#group=size")
    page.select_option("#series", "test_accuracy")
    assert "by the highest median test accuracy" in page.inner_text("#best-rule")
    page.select_option("#series", "test_loss")
    page.select_option("#filter-dataset", label="all")
    assert page.inner_text("#best-title") == "Best experiment of each dataset and size"
    assert "Of each dataset by itself" in page.inner_text("#best-rule")
    assert [row[:2] for row in table_of(page)[1:]] == [["529_pollen", "64"], ["529_pollen", "128"], ["banana", "64"]]
    page.select_option("#group", "dataset")
    assert page.inner_text("#best-title") == "Best experiment of each dataset"
    assert [(row[0], row[-1]) for row in table_of(page)[1:]] == [("529_pollen", "2"), ("banana", "1")]
    other = page.context.new_page()
    other.goto(page.url)
    assert table_of(other) == table_of(page)
    other.close()
    begin_again(page)
    assert page.said == []


@pytest.mark.browser
def test_every_series_can_be_drawn(page):
    drawn = set()
    for name in page_series(BUTTER):
        page.select_option("#series", name)
        assert page.text_content("#curves").endswith(BUTTER.figures.label(name))
        drawn.add(tuple(curve(page)))
    assert len(drawn) > 1
    begin_again(page)
    assert page.said == []


@pytest.mark.browser
def test_of_several_experiments_the_legend_says_which_is_drawn(page):
    assert page.locator("#legend li").all_text_contents() == ["64", "128"]
    page.select_option("#by", "dataset")
    assert page.locator("#legend li").all_text_contents() == ["529_pollen (best of 2: size 64)"]
    begin_again(page)


@pytest.mark.browser
def test_a_link_shows_the_same_view(page):
    page.select_option("#filter-dataset", label="banana")
    page.select_option("#filter-size", label="64")
    page.select_option("#series", "test_accuracy")
    address, drawn, counted = page.url, curve(page), page.inner_text("#count")
    assert address.endswith("#dataset=banana&size=64&series=test_accuracy")
    begin_again(page)
    page.goto(address)
    page.wait_for_function("document.getElementById('count').textContent.startsWith('1 of')")
    assert (curve(page), page.inner_text("#count")) == (drawn, counted)
    other = page.context.new_page()
    other.goto(address)
    assert (curve(other), other.inner_text("#count")) == (drawn, counted)
    other.goto(address.replace("banana", "no_such_data_set"))  # what is not there is as at first
    other.close()
    page.evaluate("location.hash = ''")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('2 of')")
    assert page.said == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1300])
def test_it_fits_and_can_be_read_at_any_width_and_on_dark_paper(page, width, scheme):
    tab = page.context.new_page()
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(page.url)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    paper, curves = (
        tab.evaluate("getComputedStyle(document.body).backgroundColor"),
        tab.locator("#curves path.curve").evaluate_all("paths => paths.map(path => path.getAttribute('stroke'))"),
    )
    for colour in curves:
        assert contrast(colour, paper) > 1.5
    clipped = """items => items.some(item => item.getBoundingClientRect().right > innerWidth)"""
    assert not tab.locator("#legend li").evaluate_all(clipped)
    outside = """texts => texts.some(text => {
        const own = text.getBoundingClientRect(), all = text.ownerSVGElement.getBoundingClientRect();
        return own.left < all.left - 1 || own.right > all.right + 1;
    })"""
    assert not tab.locator("svg text").evaluate_all(outside)
    heights = tab.locator("svg text").evaluate_all("texts => texts.map(text => text.getBoundingClientRect())")
    assert min(min(one["height"], one["width"]) for one in heights) > 5
    tab.select_option("#group", "size")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.close()


def contrast(one, other):
    """How much brighter one of two colours is (WCAG 2.2, contrast ratio)."""
    lights = []
    for colour in (one, other):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05)
    return max(lights) / min(lights)


@pytest.mark.browser
def test_series_and_grouping_change_what_is_drawn(page):
    before = curve(page)
    page.select_option("#series", "test_accuracy")
    assert curve(page) != before
    page.select_option("#scale", "linear")
    begin_again(page)
    assert page.said == []


@pytest.mark.browser
def test_the_keyboard_reaches_everything(page):
    page.locator("#filter-size").focus()
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#count") == "1 of 4 experiments"
    reached = set()
    for _ in range(12):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.type || ''"))
        page.keyboard.press("Tab")
    assert {"filter-size", "series", "by", "scale", "reset"} <= reached
    begin_again(page)
    assert page.said == []


@pytest.mark.browser
def test_what_failed_is_shown_as_text(page):
    assert "a </script> b" in page.inner_text("#failures")
