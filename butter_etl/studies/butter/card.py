"""Attribution of a published data set and of what it builds on: licence, citation file, references, disclaimer."""

from __future__ import annotations

from butter_etl.studies.butter.experiments import TASK_VERSION

TITLE = "BUTTER sweeps, trained by butter_etl"
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

DISCLAIMER = f"""\
These data were made by repeating the experiments that the BUTTER data set describes. They are not that data set:
the runs are new ones, and the authors and institutions of BUTTER have neither made nor checked them. The data are
provided as they are, without warranty of any kind. Losses and accuracies are those of networks on the data
sets that are named.

The data are licensed under [{LICENSE_ID}]({LICENSE_URL}); see `LICENSE`. Cite them as `CITATION.cff` says, and cite
BUTTER too. The data sets that were learned from are PMLB's and scikit-learn's, or of whoever made the runs, under
their own terms; none of their rows are in here."""

LICENSE_TEXT = f"""\
Creative Commons Attribution 4.0 International ({LICENSE_ID})

You are free to share and to adapt these data, for any purpose, if you give appropriate credit, provide a link to the
licence, and indicate if changes were made. This is a summary; the licence itself is at
{LICENSE_URL}legalcode

Credit: name "{TITLE}" and the "BUTTER - Empirical Deep Learning Dataset" ({BUTTER_URL}),
as CITATION.cff does.
"""


def citation() -> str:
    """Return the text of ``CITATION.cff``."""
    authors = "\n".join(
        f"      - family-names: {last}\n        given-names: {first}" for last, first in _BUTTER_AUTHORS
    )
    return f"""\
cff-version: 1.2.0
message: If you use these data, please cite them, and the BUTTER data set whose experiments they repeat.
type: dataset
title: {TITLE}
version: {VERSION}
license: {LICENSE_ID}
authors:
  - name: The butter_etl authors
references:
  - type: data
    title: BUTTER - Empirical Deep Learning Dataset
    doi: {BUTTER_DOI}
    url: {BUTTER_URL}
    year: 2022
    authors:
{authors}
"""
