"""Origins: what sources of imported runs say of themselves, and how a data set that has such runs says it in turn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from butter_etl.errors import UsageError, agreeing, counted
from butter_etl.studies.cards import (
    Attribution,
    Card,
    cff_author,
    check_attribution,
    creators,
)


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a source of runs says of itself: whose they are, on what terms, and how they are cited.

    ``name`` is what the source was called where it was taken from, without its path. ``license`` is an identifier or
    expression of SPDX, empty where none is stated. ``citation`` is a text, as people cite.
    """

    name: str = ""
    title: str = ""
    authors: tuple[str, ...] = ()
    license: str = ""
    doi: str = ""
    citation: str = ""

    def completed(self, other: Origin) -> Origin:
        """Return this origin, with what it leaves open as another one has it."""
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Origin(*(one or another for one, another in zip(mine, theirs, strict=True)))

    @property
    def is_silent(self) -> bool:
        """Tell whether it says nothing but what the source was called."""
        return self == Origin(self.name)

    @property
    def attribution(self) -> Attribution:
        """Return who made the runs, and what they are called: by the source's name, if it has no title."""
        return Attribution(self.authors, self.title or self.name, self.license, self.doi)

    def says_the_same(self, card: Card, attribution: Attribution) -> bool:
        """Tell whether a data set of this attribution says all of it by itself."""
        own = (attribution.authors, attribution.named(card), attribution.license_id, attribution.doi, "")
        return (self.authors, self.title, self.license, self.doi, self.citation) == own

    def spoken(self, card: Card) -> str:
        """Return the title in quotes, the authors, and the DOI's address, as a text has them."""
        where = f", {self.attribution.doi_url}" if self.doi else ""
        return f"{self.attribution.spoken(card)}{where}"


#: Origins of runs, each with the number of experiments that have such runs.
Origins = Mapping[Origin, int]


def check_origin(
    authors: tuple[str, ...] = (),
    title: str | None = None,
    license_id: str | None = None,
    doi: str | None = None,
    citation: str | None = None,
) -> Origin:
    """Return the origin that options of an import say; raise UsageError for what is none."""
    said = check_attribution(authors, title, license_id, doi, options="--source-")
    if citation is not None and (not citation.strip() or not citation.isprintable()):
        raise UsageError(f"--source-citation {citation!r}: give it in one line")
    return Origin("", said.title, said.authors, said.license, said.doi, (citation or "").strip())


def origin_notes(card: Card, origins: Origins) -> str:
    """Return what a data card says of the sources of its runs, as Markdown; empty where there are none."""
    return "\n".join(f"- {line}" for line in _lines(card, origins, linked=True))


def origin_terms(card: Card, origins: Origins) -> str:
    """Return what ``LICENSE`` says of the sources of runs: what it does not cover; empty where there are none."""
    if not origins:
        return ""
    lines = "".join(f"- {line}\n" for line in _lines(card, origins, linked=False))
    return f"""
This does not cover runs that were made by others, nor what summaries have of them. They stay on the terms of their
sources; manifest.json says which experiments they are of:

{lines}"""


def source_note(card: Card, origin: Origin) -> str:
    """Return what is known of a source in a line: its title, authors and DOI, and its licence."""
    terms = f"licensed under {origin.license}" if origin.license else "no licence is stated"
    if origin.is_silent:
        terms += ", and nothing else (--source-author, --source-title, --source-license and --source-doi say it)"
    return f"{origin.spoken(card)}: {terms}"


def _lines(card: Card, origins: Origins, *, linked: bool) -> Iterable[str]:
    for origin, experiments in origins.items():
        licence = origin.attribution.license_url
        stated = f"[{origin.license}]({licence})" if linked else f"{origin.license}, {licence}"
        terms = f"licensed under {stated}" if origin.license else "no licence is stated"
        cite = f' Cite: "{origin.citation}"' if origin.citation else ""
        yield f"{origin.spoken(card)} ({counted(experiments, 'experiment')}): {terms}.{cite}"


def origin_warning(origins: Origins) -> str:
    """Return what stands before all that a data card says of its makers and terms; empty where there are no origins."""
    if not origins:
        return ""
    most = sum(origins.values())
    of = f"up to {counted(most, 'experiment')}" if len(origins) > 1 else counted(most, "experiment")
    sources = agreeing(len(origins), "the source", "the sources")
    return (
        f"Not all runs were made for this data set: those of {of} come from {sources} at the end of this section, on "
        "other terms. What follows is said of the others."
    )


def origin_collection(origins: Origins) -> str:
    """Return what machine-readable metadata say of how imported runs came to be: that others made them."""
    most = sum(origins.values())
    of = f"up to {counted(most, 'experiment')}" if len(origins) > 1 else counted(most, "experiment")
    sources = agreeing(len(origins), "the source", "the sources")
    made = f"made by others, as {sources} in isBasedOn may say"
    return f"Runs of {of} were imported, and {made}: this is not said of them."


def origin_references(card: Card, origins: Origins) -> str:
    """Return entries of ``references`` in a citation file; a source that the card cites already is left out."""
    return "".join(_reference(origin) for origin in origins if not (origin.doi and origin.doi in card.cited))


def _reference(origin: Origin) -> str:
    """Return an entry of a citation file; a JSON text is one of YAML too."""
    title = origin.attribution.title
    authors = "\n".join(map(cff_author, origin.authors or (f"The authors of {title}",))).replace("\n", "\n    ")
    licence = _identifier(origin.license)
    terms = "" if licence else f"licence: {origin.license}" if origin.license else "no licence is stated"
    notes = "; ".join(filter(None, [origin.citation, terms]))
    found = [("title", title), ("license", licence), ("doi", origin.doi), ("notes", notes)]
    fields = "".join(f"    {key}: {json.dumps(text, ensure_ascii=False)}\n" for key, text in found if text)
    return f"  - type: data\n{fields}    authors:\n    {authors}\n"


def _identifier(license_id: str) -> str:
    """Return a licence if it is one that citation files have a word for: no expression of several."""
    return license_id if re.fullmatch(r"[\w.+-]+", license_id) else ""


def origin_nodes(card: Card, origins: Origins) -> list[dict[str, Any]]:
    """Return the sources of runs in the words of schema.org."""
    return [_node(card, origin) for origin in origins]


def _node(card: Card, origin: Origin) -> dict[str, Any]:
    of = origin.attribution
    return {
        "@type": "sc:Dataset",
        "name": of.title,
        **({"creator": creators(of)} if origin.authors else {}),
        **({"license": of.license_url} if origin.license else {}),
        **({"identifier": of.doi_url, "url": of.doi_url} if origin.doi else {}),
        "citation": origin.citation or origin.spoken(card),
    }
