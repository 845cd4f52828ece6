"""Cards: what a published data set says of itself, and of what it builds on; attribution, licence, citation.

The data are of whom the one who exports them names (`Attribution`). The software that trained is named as software: its
authors have made none of the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from butter_etl.errors import UsageError

#: Who is named where no author is.
UNNAMED: Final = "The authors of these data"
SOFTWARE: Final = "butter_etl"
LICENSE_ID: Final = "CC-BY-4.0"
LICENSE_URL: Final = "https://creativecommons.org/licenses/by/4.0/"


@dataclass(frozen=True, kw_only=True)
class Card:
    """The texts of a study's published data sets; its schemas and the manifest say the rest.

    ``title`` is that of data that were given none. ``description`` comes before what was swept, ``uses`` after it.
    ``lists`` says what the elements of lists are. ``terms`` is what the disclaimer says of rights and sources, and
    ``credit`` what the licence asks to credit besides the data's own makers. ``cited`` are the references of a
    citation file, as YAML, with what to say of them in ``message``. ``summary``, ``keywords``, ``url`` and
    ``responsible_ai`` are for the machine-readable description. ``version`` is that of the data.
    """

    title: str
    version: str
    description: str
    uses: str = ""
    lists: str = ""
    references: tuple[str, ...] = ()
    terms: str = ""
    credit: str = ""
    message: str = "If you use these data, please cite them."
    cited: str = ""
    summary: str = ""
    url: str | None = None
    keywords: tuple[str, ...] = ()
    responsible_ai: Mapping[str, Any] = field(default_factory=dict)


class Attribution(msgspec.Struct, frozen=True):
    """Who made a data set, and what it is called.

    An author is written ``Family, Given``; without a comma, it is the name of a group or an institution.
    """

    authors: tuple[str, ...] = ()
    title: str = ""

    def named(self, card: Card) -> str:
        """Return the title."""
        return self.title or card.title

    def spoken(self, card: Card) -> str:
        """Return the title in quotes, with the authors as a text has them: ``"…" by Ada Lovelace and C. Babbage``."""
        by = f" by {self.spoken_authors()}" if self.authors else ""
        return f'"{self.named(card)}"{by}'

    def spoken_authors(self) -> str:
        """Return the authors as a text has them; empty where none is named."""
        names = [" ".join(reversed(split_name(author))) for author in self.authors]
        return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


#: Where nothing was given.
NOBODY: Final = Attribution()


def split_name(author: str) -> tuple[str, ...]:
    """Return the family name and the given names of a person, or the one name of a group."""
    return tuple(part.strip() for part in author.split(",", 1))


def check_attribution(authors: tuple[str, ...], title: str | None) -> Attribution:
    """Return the attribution of these authors and this title; raise UsageError for one that is no name."""
    for option, text in [
        *(("--author", author) for author in authors),
        *([("--title", title)] if title is not None else []),
    ]:
        if not text.strip() or not text.isprintable():
            raise UsageError(f"{option} {text!r}: give a name in one line")
    for author in authors:
        if not all(split_name(author)):
            raise UsageError(f"--author {author!r}: write 'Family, Given', or the name of a group without a comma")
    return Attribution(tuple(author.strip() for author in authors), (title or "").strip())


def disclaimer(card: Card, attribution: Attribution) -> str:
    """Return what a data card says of who made the data, and on what terms."""
    made_with = f"was made with the software {SOFTWARE}, whose authors have neither made nor checked the data."
    return "\n\n".join(filter(None, [f"{attribution.spoken(card)} {made_with}", card.terms]))


def license_text(card: Card, attribution: Attribution) -> str:
    """Return the text of ``LICENSE``."""
    credit = f", and {card.credit}" if card.credit else ""
    return f"""\
Creative Commons Attribution 4.0 International ({LICENSE_ID})

You are free to share and to adapt these data, for any purpose, if you give appropriate credit, provide a link to the
licence, and indicate if changes were made. This is a summary; the licence itself is at
{LICENSE_URL}legalcode

Credit: name {attribution.spoken(card)}{credit},
as CITATION.cff does.
"""


def creators(attribution: Attribution) -> list[dict[str, Any]]:
    """Return the authors in the words of schema.org."""
    return [_creator(split_name(author)) for author in attribution.authors or (UNNAMED,)]


def _creator(name: tuple[str, ...]) -> dict[str, Any]:
    if len(name) == 1:
        return {"@type": "sc:Organization", "name": name[0]}
    return {"@type": "sc:Person", "name": f"{name[1]} {name[0]}", "familyName": name[0], "givenName": name[1]}


def _cff_author(author: str) -> str:
    """Return an entry of ``authors`` in a citation file; a JSON text is one of YAML too."""
    name = [json.dumps(part, ensure_ascii=False) for part in split_name(author)]
    if len(name) == 1:
        return f"  - name: {name[0]}"
    return f"  - family-names: {name[0]}\n    given-names: {name[1]}"


def citation(card: Card, attribution: Attribution = NOBODY) -> str:
    """Return the text of ``CITATION.cff``: the data's own authors, and software and sources as references."""
    authors = "\n".join(map(_cff_author, attribution.authors or (UNNAMED,)))
    return f"""\
cff-version: 1.2.0
message: {card.message}
type: dataset
title: {json.dumps(attribution.named(card), ensure_ascii=False)}
version: {card.version}
license: {LICENSE_ID}
authors:
{authors}
references:
{card.cited}  - type: software
    title: {SOFTWARE}
    authors:
      - name: The {SOFTWARE} authors
"""
