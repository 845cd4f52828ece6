"""The card of published lifespans: what they are, what they build on, and on what terms they are."""

from __future__ import annotations

from typing import Final

from butter_etl.studies.cards import Card
from butter_etl.studies.lifespans.experiments import TASK_VERSION

DOI: Final = "10.7910/DVN/ZXTCGF"
_ARTICLE: Final = "https://doi.org/10.1016/j.dib.2021.107780"

_CITED: Final = f"""\
  - type: article
    title: High frequency accuracy and loss data of random neural networks trained on image datasets
    doi: 10.1016/j.dib.2021.107780
    url: {_ARTICLE}
    journal: Data in Brief
    year: 2022
    authors:
      - family-names: Keller Rorabaugh
        given-names: Ariel
      - family-names: Caíno-Lores
        given-names: Silvina
      - family-names: Johnston
        given-names: Travis
      - family-names: Taufer
        given-names: Michela
"""

CARD: Final = Card(
    title="Whole lives of random image networks",
    version=f"{TASK_VERSION}.0.0",
    description=(
        "Learning curves of randomly drawn convolutional networks on image sets: training loss, validation loss and "
        "validation accuracy after every half epoch of training, of each run, and statistics over repetitions."
    ),
    uses=(
        "They serve the study of learning curves: how early the end can be told, which layers go with which lives, and "
        "what a search for architectures could have stopped."
    ),
    lists="List columns have one element for each measuring point, twice an epoch; `epoch` says which these are.",
    references=(
        "A. Keller Rorabaugh, S. Caíno-Lores, T. Johnston and M. Taufer. *High frequency accuracy and loss data of "
        f"random neural networks trained on image datasets.* Data in Brief, 2022. {_ARTICLE}",
        f"The data of that article. Harvard Dataverse, 2021. https://doi.org/{DOI}",
    ),
    terms=(
        "Networks are drawn and trained as the article of the references describes it; where it does not say how, as "
        "the documents of the software do. They are not the published networks: those have other seeds. The data are "
        "provided as they are, without warranty of any kind, and licensed under {licence}; see `LICENSE`. The images "
        "are those of the sets that are named, under their own terms; none of them are in here."
    ),
    cited=_CITED,
    summary="Learning curves of randomly drawn convolutional networks, measured every half epoch.",
    keywords=("neural networks", "learning curves", "image classification", "architecture search"),
)
