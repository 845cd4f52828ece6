"""Certificates as files, pages and crates: what stands in them."""

from __future__ import annotations

import hashlib
import html.parser
import json
import shutil

import pytest

from butter_etl.errors import StoreError
from butter_etl.upkeep.auditing import PAGE
from butter_etl.upkeep.certificate_page import page_bytes
from butter_etl.upkeep.certificates import (
    FILE,
    AuditedData,
    AuditedFile,
    Certificate,
    Drawn,
    Method,
    certificate_bytes,
    read_certificate,
)
from butter_etl.upkeep.comparing import Difference
from butter_etl.upkeep.likening import Compared
from butter_etl.upkeep.replaying import Replayed
from butter_etl.upkeep.run_crate import CRATE, crate_bytes

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DIFFERENCE = Difference("loss", 3, "0.5", "0.25", 1, 80)
CERTIFICATE = Certificate(
    data=AuditedData(
        "export", "butter", 2000, "ab" * 32, "cd" * 32, (AuditedFile("all_runs/x.parquet", 7, "ef" * 32),)
    ),
    drawn=Drawn("a rule", 7, "0.1%", ("run 1", "run 2", "run 3", "run 4")),
    began="2026-01-01T00:00:00+00:00",
    ended="2026-01-01T00:01:00+00:00",
    software={"butter-etl": "1.0", "numpy": None},
    counts={"differs": 1, "equal": 1, "incompatible": 1, "compatible": 1},
    is_sound=False,
    replayed=(
        Replayed("run 1", 0, 0, "wine <small>", "x", "differs", "loss at epoch 3", True, difference=DIFFERENCE),
        Replayed("run 2", 0, 1, "wine", "x", "equal", is_promised=True),
    ),
    compared=(
        Compared("run 3", 1, "wine of Maker", "Maker", "x", "incompatible", "1 of 100 curves", 99, 0.01, 0.02),
        Compared("run 4", 1, "wine of Maker", "Maker", "x", "compatible", "50 of 100 curves", 99, 0.5, 0.5),
    ),
    method=Method(("val_loss", "loss"), 99, 0.05, 0.01, "Holm", "a statement", ("a source",)),
)


class Texts(html.parser.HTMLParser):
    """The texts of a page; a tag that is not closed, or anything that is loaded, is an error."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.open = [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert not {"src", "href"} & {name for name, _ in attributes}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def test_a_certificate_is_read_as_it_was_written(tmp_path):
    (tmp_path / FILE).write_bytes(certificate_bytes(CERTIFICATE))
    assert read_certificate(tmp_path / FILE) == CERTIFICATE
    assert json.loads((tmp_path / FILE).read_text())["data"]["rows"] == 2000
    for content in (b"", b"{}", b"\xff"):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(StoreError, match="not readable as a certificate"):
            read_certificate(tmp_path / FILE)
    with pytest.raises(StoreError, match="not readable as a certificate"):
        read_certificate(tmp_path / "absent")


def test_faults_are_the_runs_at_fault():
    assert [one.run_id for one in CERTIFICATE.faults] == ["run 1", "run 3"]


def test_the_page_says_all_of_it_and_loads_nothing():
    page = page_bytes(CERTIFICATE).decode()
    texts = " ".join(Texts(page).texts)
    for said in (
        "Of 4 runs that were drawn, 2 are at fault.",
        "2,000 runs of an export",
        "0.1%: 4 runs",
        "not the bits that were promised",
        "wine <small>",
        "1 of 100 curves; p = 0.01, corrected 0.02",
        "as was promised",
        "0.05, corrected by Holm",
        "a statement",
        "a source",
        "cd" * 32,
        "ef" * 32,
    ):
        assert said in texts, said
    assert len(page) < 8000


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_the_page(tmp_path):
    from playwright.sync_api import sync_playwright

    (tmp_path / PAGE).write_bytes(page_bytes(CERTIFICATE))
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"file://{tmp_path / PAGE}")
        assert page.locator(".verdict").inner_text() == "Of 4 runs that were drawn, 2 are at fault."
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert said == []


def test_the_crate_is_a_process_run():
    """What RO-Crate 1.1 and Process Run Crate 0.5 demand; a validator of theirs accepts it."""
    files = {FILE: b"{}", PAGE: b"<!doctype html>"}
    crate = json.loads(crate_bytes(CERTIFICATE, files))
    nodes = {node["@id"]: node for node in crate["@graph"]}
    assert len(nodes) == len(crate["@graph"])
    assert nodes[CRATE]["about"] == {"@id": "./"}
    root = nodes["./"]
    assert root["conformsTo"] == {"@id": "https://w3id.org/ro/wfrun/process/0.5"}
    assert {"name", "description", "datePublished", "license"} <= root.keys()
    assert [part["@id"] for part in root["hasPart"]] == list(files)
    action = nodes[root["mentions"]["@id"]]
    assert action["@type"] == "CreateAction"
    assert nodes[action["instrument"]["@id"]]["@type"] == "SoftwareApplication"
    assert [one["@id"] for one in action["result"]] == list(files)
    assert action["endTime"] == CERTIFICATE.ended
    assert nodes[FILE]["sha256"] == hashlib.sha256(b"{}").hexdigest()
    assert nodes[action["object"]["@id"]]["identifier"] == "cd" * 32
    referred = [value["@id"] for node in crate["@graph"] for value in node.values() if isinstance(value, dict)]
    assert {one for one in referred if not one.startswith("https://w3id.org/ro/crate")} <= nodes.keys()
