"""The report of a large store: how big its page is, what making it takes, and how long a browser is busy with it.

``python -m benchmarks.report [--experiments 5000] [--epochs 300]`` makes a store of made-up runs of the primary sweep
in a temporary folder, summarises it, runs ``butter-etl report``, and opens the page in headless Chromium. A choice is
timed in the page, from the event that a person causes to the frame that shows what came of it. Needs playwright, and a
Chromium or Chrome that is installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scale import measure
from benchmarks.synthetic import run_table
from butter_etl.store.layout import partition_path, run_file_name
from butter_etl.store.parquet import parquet_bytes
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import PUBLISHED, experiment_topology
from butter_etl.studies.frames import RUNS
from butter_etl.summarize import plan_summaries, run_summaries

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of the primary sweep's experiments, which come data set by data set, every so-manieth is taken.
STEP = 5
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

#: Chooses an option of a select element; resolves with the milliseconds until the frame after it is drawn.
_CHOOSE = """([id, index]) => new Promise(resolve => {
    const element = document.getElementById(id), began = performance.now();
    element.selectedIndex = index;
    element.dispatchEvent(new Event("input", {bubbles: true}));
    element.dispatchEvent(new Event("change", {bubbles: true}));
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
})"""


@dataclass(frozen=True)
class Figures:
    """What a report took: bytes of the page, CPU seconds and memory of the command, milliseconds in the browser."""

    experiments: int
    page_megabytes: float
    cpu_seconds: float
    peak_megabytes: float
    open_ms: float
    choices: int
    choice_ms: float
    longest_choice_ms: float


def make_store(folder: Path, experiments: int, epochs: int) -> Store:
    """A summarised store of two made-up runs of each of so many experiments of the primary sweep."""
    store = Store.create(folder)
    feasible = (spec for spec in PUBLISHED["primary"].experiments() if experiment_topology(spec) is not None)
    for spec in islice(feasible, 0, STEP * experiments, STEP):
        target = Path(store.location.path(RUNS)) / partition_path(BUTTER.keys, spec.parameters())
        target.mkdir(parents=True, exist_ok=True)
        experiment_id = BUTTER.fixed_ids.id_of(spec)
        assert experiment_id is not None
        rows = run_table(experiment_id, spec, 2, epochs)
        (target / run_file_name(experiment_id, 0, 1)).write_bytes(parquet_bytes(rows))
    run_summaries(plan_summaries(store), store)
    return store


def browse(page: Path, browser: str) -> tuple[float, list[float]]:
    """Milliseconds until the page can be used, and those of each choice that its selection boxes offer, in turn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page(viewport={"width": 1200, "height": 1000})
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(page.as_uri())
        opened = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        boxes = tab.locator("select").evaluate_all("all => all.map(one => [one.id, one.options.length])")
        times = [tab.evaluate(_CHOOSE, [name, k]) for name, count in boxes for k in (*range(1, count), 0)]
        chromium.close()
    if said:
        raise SystemExit(f"the browser's console said: {said[0]}")
    return opened, times


def run(folder: Path, experiments: int, epochs: int, browser: str) -> Figures:
    """The whole measurement, in an empty folder."""
    store = make_store(folder / "store", experiments, epochs)
    page = folder / "report.html"
    cost, _ = measure(store, "report", str(page))
    opened, times = browse(page, browser)
    return Figures(
        experiments=experiments,
        page_megabytes=page.stat().st_size / 1e6,
        cpu_seconds=cost.cpu_seconds,
        peak_megabytes=cost.peak_megabytes,
        open_ms=opened,
        choices=len(times),
        choice_ms=statistics.median(times),
        longest_choice_ms=max(times),
    )


def lines(figures: Figures) -> list[str]:
    """What people read."""
    return [
        f"{figures.experiments:,} experiments",
        f"page                {figures.page_megabytes:>10,.1f} MB",
        f"making it           {figures.cpu_seconds:>10,.1f} CPU s, {figures.peak_megabytes:,.0f} MB at most",
        f"opening it          {figures.open_ms:>10,.0f} ms",
        f"{f'{figures.choices} choices':<20}{figures.choice_ms:>10,.0f} ms, "
        f"the longest {figures.longest_choice_ms:,.0f} ms",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a few lines, or JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--experiments", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    options = parser.parse_args(arguments)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"no browser is installed: {', '.join(BROWSERS)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), options.experiments, options.epochs, browser)
    print(json.dumps(asdict(figures), indent=1) if options.json else "\n".join(lines(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
