"""The page and the general pictures about searches: one task at a time, ends of training as points, the best trials."""

from __future__ import annotations

import pytest

from butter_etl.exchange.imports import run_import
from butter_etl.store.store import Store
from butter_etl.studies.capacity.study import RNN_CAPACITY
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.views import page_data, plot, write_page
from tests.test_capacity_formats import figures
from tests.test_page import CHROMIUM, table_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches")
    (folder / "in").mkdir()
    for name, data in figures().items():
        (folder / "in" / name).write_bytes(data)
    run_import(folder / "in", folder / "store", study=RNN_CAPACITY)
    opened = Store.open(folder / "store")
    run_summaries(plan_summaries(opened), opened)
    return opened


@pytest.fixture(scope="module")
def page(store, tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(page_data(store, Choice()), path)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.said = []
        tab.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.goto(path.as_uri())
        yield tab
        browser.close()


def test_the_page_lists_what_became_of_searches(store):
    told = {one["name"]: one["values"] for one in page_data(store, Choice())["told"]}
    assert list(told) == ["best eval loss", "share infeasible", "best bits per parameter"]
    assert set(told["share infeasible"]) == {0.25}
    bits = [one for one in told["best bits per parameter"] if one is not None]
    assert len(bits) == 8
    assert all(4 <= one < 4.01 for one in bits)


def test_a_median_of_one_point_is_drawn_as_a_point(store):
    summary = plot.summary_table(store.location.root, where=["task_type=text8", "n_layers=1", "architecture=gru"])
    figure = plot.learning_curves(summary, by="max_params", study=RNN_CAPACITY)
    assert [(line.get_marker(), len(line.get_xdata())) for line in figure.axes[0].get_lines()] == [("o", 1), ("o", 1)]


def test_a_map_is_of_one_task(store):
    summary = plot.summary_table(store.location.root)
    with pytest.raises(Exception, match="3 values of task_type, between which nothing can be compared"):
        plot.best_map(summary, study=RNN_CAPACITY)


@pytest.mark.browser
def test_the_page_begins_with_cells_that_compare(page):
    """Each task has its own number of unrolled steps, so that one task is enough of a choice."""
    assert page.inner_text("#count") == "8 of 24 experiments"
    chosen = {
        name: page.locator(f"#filter-{name} option:checked").text_content() for name in ("task_type", "unroll_steps")
    }
    assert chosen == {"task_type": "parens_counting", "unroll_steps": "all"}
    assert page.locator("#curves circle.curve").count() == 2
    page.select_option("#filter-task_type", label="text8")
    assert page.inner_text("#count") == "8 of 24 experiments"
    assert page.locator("#map rect.cell").count() == 4
    head, *rows = table_of(page)
    assert head[-4:] == ["best eval loss", "share infeasible", "best bits per parameter", "runs"]
    assert {tuple(row[-4:]) for row in rows} == {("2", "0.25", "", "4")}
    assert page.said == []
