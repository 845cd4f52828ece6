"""Cards: what a published data set says of itself, and of what it builds on; attribution, licence, citation.

The data are of whom the one who exports them names (`Attribution`). The software that trained is named as software: its
authors have made none of the data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from butter_etl.errors import UsageError

#: Who is named where no author is.
UNNAMED: Final = "The authors of these data"
SOFTWARE: Final = "butter_etl"
#: The licence of data that are given none, by its identifier in the list of SPDX.
LICENSE_ID: Final = "CC-BY-4.0"
#: Where texts of licences are, of which others than SPDX's pages are better known.
_LICENSE_URLS: Final = {
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC-BY-NC-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
}
_ORCID: Final = re.compile(r"(.*\S)\s*[<(](?:https?://orcid\.org/)?(\d{4}-\d{4}-\d{4}-\d{3}[\dX])[>)]")
_DOI: Final = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:)?(10\.\d{4,9}/\S+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Card:
    """The texts of a study's published data sets; its schemas and the manifest say the rest.

    ``title`` is that of data that were given none. ``description`` comes before what was swept, ``uses`` after it.
    ``lists`` says what the elements of lists are. ``terms`` is what the disclaimer says of rights and sources, with
    ``{licence}`` for the licence, and ``credit`` what the licence asks to credit besides the data's own makers.
    ``cited`` are the references of a citation file, as YAML, with what to say of them in ``message``. ``summary``,
    ``keywords``, ``url`` and ``responsible_ai`` are for the machine-readable description. ``version`` is that of the
    data.
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
    """Who made a data set, what it is called, on what terms it is, and by what name it can be found.

    An author is written ``Family, Given``; without a comma, it is the name of a group or an institution. An ORCID may
    stand behind it: ``Family, Given <0000-0002-1825-0097>``. ``license`` is an identifier or expression of SPDX.
    """

    authors: tuple[str, ...] = ()
    title: str = ""
    license: str = ""
    doi: str = ""

    def completed(self, other: Attribution) -> Attribution:
        """Return this attribution, with what it leaves open as another one has it."""
        return Attribution(*(mine or theirs for mine, theirs in zip(_parts(self), _parts(other), strict=True)))

    @property
    def license_id(self) -> str:
        """Return the licence by its identifier."""
        return self.license or LICENSE_ID

    @property
    def license_url(self) -> str:
        """Return where the text of the licence is; of several, the list of all."""
        if self.license_id in _LICENSE_URLS:
            return _LICENSE_URLS[self.license_id]
        one = re.fullmatch(r"[\w.+-]+", self.license_id)
        return f"https://spdx.org/licenses/{self.license_id}.html" if one else "https://spdx.org/licenses/"

    @property
    def doi_url(self) -> str:
        """Return the address that the DOI resolves at; empty where there is none."""
        return f"https://doi.org/{self.doi}" if self.doi else ""

    def named(self, card: Card) -> str:
        """Return the title."""
        return self.title or card.title

    def spoken(self, card: Card) -> str:
        """Return the title in quotes, with the authors as a text has them: ``"…" by Ada Lovelace and C. Babbage``."""
        by = f" by {self.spoken_authors()}" if self.authors else ""
        return f'"{self.named(card)}"{by}'

    def spoken_authors(self) -> str:
        """Return the authors as a text has them; empty where none is named."""
        names = [" ".join(reversed(split_name(author).parts)) for author in self.authors]
        return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


#: Where nothing was given.
NOBODY: Final = Attribution()


def _parts(attribution: Attribution) -> tuple[Any, ...]:
    return msgspec.structs.astuple(attribution)


class Name(NamedTuple):
    """The family name and the given names of a person, or the one name of a group; and an ORCID, if one is given."""

    parts: tuple[str, ...]
    orcid: str = ""


def split_name(author: str) -> Name:
    """Return the parts of an author's name."""
    found = _ORCID.fullmatch(author.strip())
    name, orcid = found.groups() if found else (author, "")
    return Name(tuple(part.strip() for part in name.split(",", 1)), orcid)


def check_attribution(
    authors: tuple[str, ...],
    title: str | None,
    license_id: str | None = None,
    doi: str | None = None,
    *,
    options: str = "--",
) -> Attribution:
    """Return the attribution of these authors, title, licence and DOI; raise UsageError for what is none.

    ``options`` is what the names of the options that said it begin with.
    """
    given = [(f"{options}title", title), (f"{options}license", license_id), (f"{options}doi", doi)]
    for option, text in [*((f"{options}author", author) for author in authors), *given]:
        if text is not None and (not text.strip() or not text.isprintable()):
            raise UsageError(f"{option} {text!r}: give a name in one line")
    for author in authors:
        name = split_name(author)
        if not all(name.parts) or re.search(r"[<>]", "".join(name.parts)):
            raise UsageError(
                f"{options}author {author!r}: write 'Family, Given', or the name of a group without a comma, and an "
                "ORCID behind it as <0000-0002-1825-0097>"
            )
        if name.orcid and _check_digit(name.orcid) != name.orcid[-1]:
            raise UsageError(f"{options}author {author!r}: {name.orcid} is no ORCID (its last digit does not check)")
    return Attribution(
        tuple(author.strip() for author in authors),
        (title or "").strip(),
        "" if license_id is None else _spdx(license_id.strip(), f"{options}license"),
        "" if doi is None else _checked_doi(doi.strip(), f"{options}doi"),
    )


def _check_digit(orcid: str) -> str:
    """Return the last digit that an ORCID should have (ISO 7064, MOD 11-2)."""
    total = 0
    for digit in orcid.replace("-", "")[:-1]:
        total = (total + int(digit)) * 2
    found = (12 - total % 11) % 11
    return "X" if found == 10 else str(found)


def _spdx(text: str, option: str) -> str:
    """Return a licence as SPDX spells it."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression as error:
        raise UsageError(
            f"{option} {text!r}: is no identifier of SPDX, such as {', '.join(_LICENSE_URLS)}; "
            "https://spdx.org/licenses/ has all"
        ) from error


def _checked_doi(text: str, option: str) -> str:
    found = _DOI.fullmatch(text)
    if found is None:
        raise UsageError(f"{option} {text!r}: is no DOI, such as 10.5281/zenodo.1234567")
    return found[1]


def disclaimer(card: Card, attribution: Attribution) -> str:
    """Return what a data card says of who made the data, and on what terms."""
    made_with = f"was made with the software {SOFTWARE}, whose authors have neither made nor checked the data."
    licence = f"[{attribution.license_id}]({attribution.license_url})"
    found_at = f"Its DOI is [{attribution.doi}]({attribution.doi_url})." if attribution.doi else ""
    terms = card.terms.replace("{licence}", licence)
    return "\n\n".join(filter(None, [f"{attribution.spoken(card)} {made_with}", found_at, terms]))


def license_text(card: Card, attribution: Attribution) -> str:
    """Return the text of ``LICENSE``."""
    credit = f", and {card.credit}" if card.credit else ""
    if attribution.license_id != LICENSE_ID:
        return f"""\
These data are licensed under {attribution.license_id}, whose text is at
{attribution.license_url}

Credit: name {attribution.spoken(card)}{credit},
as CITATION.cff does.
"""
    return f"""\
Creative Commons Attribution 4.0 International ({LICENSE_ID})

You are free to share and to adapt these data, for any purpose, if you give appropriate credit, provide a link to the
licence, and indicate if changes were made. This is a summary; the licence itself is at
{attribution.license_url}legalcode

Credit: name {attribution.spoken(card)}{credit},
as CITATION.cff does.
"""


def creators(attribution: Attribution) -> list[dict[str, Any]]:
    """Return the authors in the words of schema.org."""
    return [_creator(split_name(author)) for author in attribution.authors or (UNNAMED,)]


def _creator(name: Name) -> dict[str, Any]:
    orcid = {"identifier": f"https://orcid.org/{name.orcid}"} if name.orcid else {}
    if len(name.parts) == 1:
        return {"@type": "sc:Organization", "name": name.parts[0], **orcid}
    family, given = name.parts
    return {"@type": "sc:Person", "name": f"{given} {family}", "familyName": family, "givenName": given, **orcid}


def cff_author(author: str) -> str:
    """Return an entry of ``authors`` in a citation file; a JSON text is one of YAML too."""
    split = split_name(author)
    name = [json.dumps(part, ensure_ascii=False) for part in split.parts]
    orcid = f"\n    orcid: https://orcid.org/{split.orcid}" if split.orcid else ""
    if len(name) == 1:
        return f"  - name: {name[0]}{orcid}"
    return f"  - family-names: {name[0]}\n    given-names: {name[1]}{orcid}"


def citation(card: Card, attribution: Attribution = NOBODY, references: str = "") -> str:
    """Return the text of ``CITATION.cff``: the data's own authors, and software and sources as references.

    ``references`` are further entries, as YAML.
    """
    authors = "\n".join(map(cff_author, attribution.authors or (UNNAMED,)))
    doi = f"doi: {json.dumps(attribution.doi)}\n" if attribution.doi else ""
    return f"""\
cff-version: 1.2.0
message: {card.message}
type: dataset
title: {json.dumps(attribution.named(card), ensure_ascii=False)}
version: {card.version}
license: {attribution.license_id}
{doi}authors:
{authors}
references:
{card.cited}{references}  - type: software
    title: {SOFTWARE}
    authors:
      - name: The {SOFTWARE} authors
"""
