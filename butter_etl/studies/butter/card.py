"""Attribution of a published data set and of what it builds on: licence, citation file, references, disclaimer.

The data are of whom the one who exports them names (`Attribution`). The software that trained is named as software: its
authors have made none of the data.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from butter_etl.errors import UsageError
from butter_etl.studies.butter.experiments import TASK_VERSION

#: The title of data that were given none.
TITLE = "BUTTER sweeps, trained by butter_etl"
#: Who is named where no author is.
UNNAMED = "The authors of these data"
SOFTWARE = "butter_etl"
LICENSE_ID = "CC-BY-4.0"
LICENSE_URL = "https://creativecommons.org/licenses/by/4.0/"
BUTTER_DOI = "10.25984/1872441"
BUTTER_URL = f"https://doi.org/{BUTTER_DOI}"
#: Version of the data: that of the task, since runs of different ones are different experiments.
VERSION = f"{TASK_VERSION}.0.0"

_BUTTER_AUTHORS = (("Tripp", "Charles"), ("Perr-Sauer", "Jordan"), ("Hayne", "Lucas"), ("Lunacek", "Monte"))

REFERENCES = (
    f"C. Tripp, J. Perr-Sauer, L. Hayne and M. Lunacek. *BUTTER - Empirical Deep Learning Dataset.* 2022. {BUTTER_URL}",
    "C. Tripp, J. Perr-Sauer, L. Hayne and M. Lunacek. *An Empirical Deep Dive into Deep Learning's Driving Dynamics.* "
    "2022. https://arxiv.org/abs/2207.12547",
    "R. S. Olson, W. La Cava, P. Orzechowski, R. J. Urbanowicz and J. H. Moore. *PMLB: a large benchmark suite for "
    "machine learning evaluation and comparison.* BioData Mining 10, 36 (2017). "
    "https://doi.org/10.1186/s13040-017-0154-4",
)


class Attribution(msgspec.Struct, frozen=True):
    """Who made a data set, and what it is called.

    An author is written ``Family, Given``; without a comma, it is the name of a group or an institution.
    """

    authors: tuple[str, ...] = ()
    title: str = ""

    def named(self) -> str:
        """Return the title."""
        return self.title or TITLE

    def spoken(self) -> str:
        """Return the title in quotes, with the authors as a text has them: ``"…" by Ada Lovelace and C. Babbage``."""
        by = f" by {self.spoken_authors()}" if self.authors else ""
        return f'"{self.named()}"{by}'

    def spoken_authors(self) -> str:
        """Return the authors as a text has them; empty where none is named."""
        names = [" ".join(reversed(split_name(author))) for author in self.authors]
        return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


#: Where nothing was given.
NOBODY = Attribution()


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


def disclaimer(attribution: Attribution) -> str:
    """Return what a data card says of who made the data, and on what terms."""
    return f"""\
{attribution.spoken()} was made with the software {SOFTWARE}, whose authors have neither made nor checked the data.

{_DISCLAIMER}"""


_DISCLAIMER = f"""\
These data were made by repeating the experiments that the BUTTER data set describes. They are not that data set:
the runs are new ones, and the authors and institutions of BUTTER have neither made nor checked them. The data are
provided as they are, without warranty of any kind. Losses and accuracies are those of networks on the data
sets that are named.

The data are licensed under [{LICENSE_ID}]({LICENSE_URL}); see `LICENSE`. Cite them as `CITATION.cff` says, and cite
BUTTER too. The data sets that were learned from are PMLB's and scikit-learn's, or of whoever made the runs, under
their own terms; none of their rows are in here."""


def license_text(attribution: Attribution) -> str:
    """Return the text of ``LICENSE``."""
    return f"""\
Creative Commons Attribution 4.0 International ({LICENSE_ID})

You are free to share and to adapt these data, for any purpose, if you give appropriate credit, provide a link to the
licence, and indicate if changes were made. This is a summary; the licence itself is at
{LICENSE_URL}legalcode

Credit: name {attribution.spoken()}, and the "BUTTER - Empirical Deep Learning Dataset" ({BUTTER_URL}),
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


def citation(attribution: Attribution = NOBODY) -> str:
    """Return the text of ``CITATION.cff``: the data's own authors, and the software and BUTTER as references."""
    authors = "\n".join(map(_cff_author, attribution.authors or (UNNAMED,)))
    butter_authors = "\n".join(
        f"      - family-names: {last}\n        given-names: {first}" for last, first in _BUTTER_AUTHORS
    )
    return f"""\
cff-version: 1.2.0
message: If you use these data, please cite them, and the BUTTER data set whose experiments they repeat.
type: dataset
title: {json.dumps(attribution.named(), ensure_ascii=False)}
version: {VERSION}
license: {LICENSE_ID}
authors:
{authors}
references:
  - type: data
    title: BUTTER - Empirical Deep Learning Dataset
    doi: {BUTTER_DOI}
    url: {BUTTER_URL}
    year: 2022
    authors:
{butter_authors}
  - type: software
    title: {SOFTWARE}
    authors:
      - name: The {SOFTWARE} authors
"""
