"""`butter-etl errors`: the catalogue of errors and findings."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from butter_etl.cli.completion import among
from butter_etl.errors import UsageError, suggestion

#: The catalogue: in an installed package beside its modules, in a checkout among the documents.
_PLACES = (Path(__file__).parents[1] / "errors.md", Path(__file__).parents[2] / "docs" / "errors.md")


@click.command()
@click.argument("kind", required=False, shell_complete=among(lambda _context: read_catalogue()))
def errors(kind: str | None) -> None:
    """Explain a kind of error or finding, or list all kinds.

    The kind stands in brackets at the end of an error.

    \b
    butter-etl errors torn-file
    """
    entries = read_catalogue()
    if kind is None:
        click.echo("\n".join(entries))
        return
    if kind not in entries:
        raise UsageError(f"unknown kind {kind!r}{suggestion(kind, entries)}; `butter-etl errors` lists them")
    click.echo(_for_terminal(entries[kind]))


def _for_terminal(entry: str) -> str:
    """Return an entry as plain paragraphs of 80 columns."""
    heading, *parts = entry.split("\n- ")
    paragraphs = [textwrap.fill(" ".join(part.replace("**", "").split()), 80, break_on_hyphens=False) for part in parts]
    return "\n\n".join([heading.strip(), *paragraphs])


def read_catalogue() -> dict[str, str]:
    """Return each kind's entry of the catalogue, by kind, in the document's order."""
    path = next(place for place in _PLACES if place.is_file())
    entries: dict[str, str] = {}
    kind = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            level, _, kind = line.partition(" ")
            kind = kind if level == "###" else ""
        if kind:
            entries[kind] = f"{entries.get(kind, '')}{line.removeprefix('### ')}\n"
    return {kind: text.strip() for kind, text in entries.items()}
