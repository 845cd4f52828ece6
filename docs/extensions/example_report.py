"""The directive ``example-report``: a link to a page that `butter-etl report` made of a small store, for the site.

The store is trained when the site is built, and kept in the folder of what Sphinx keeps; the next build finds it there.
"""

import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

#: The page, beside the one that links to it.
PAGE = "example-report.html"
#: A relative path: the page says what its store is called.
STORE = "example-store"
SPEC = Path(__file__).with_name("example.yaml")


class ExampleReport(SphinxDirective):
    """A paragraph with the link."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx where the directive stands."""
        link = nodes.reference("", "Open the example page", refuri=PAGE, internal=False)
        return [nodes.paragraph("", "", nodes.strong("", "", link))]


def make_report(app: Sphinx, error: Exception | None) -> None:
    """Train what the example's store is missing, and write the page; called by Sphinx when all pages are written."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.doctreedir)
    _run(folder, "train", STORE, "--spec", SPEC, "--quiet")
    _run(folder, "summarize", STORE, "--quiet")
    _run(folder, "report", STORE, Path(app.outdir) / "docs" / PAGE)


def _run(folder: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "butter_etl", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("example-report", ExampleReport)
    app.connect("build-finished", make_report)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
