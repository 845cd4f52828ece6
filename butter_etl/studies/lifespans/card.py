"""The card of published lifespans: what they are, what they build on, and on what terms they are."""

from __future__ import annotations

from typing import Final

from butter_etl.studies.cards import Card
from butter_etl.studies.lifespans.experiments import TABLE_TASK, TASK, TASK_VERSION

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

_RESPONSIBLE_AI: Final = {
    "rai:dataCollection": (
        f"Every run whose task is {TASK} is the training of a randomly drawn convolutional network from a seed, on "
        "the image set that it names, by the software butter_etl. Training loss, validation loss and validation "
        f"accuracy were recorded after every half epoch. Runs whose task is {TABLE_TASK} were read from text "
        f"tables in the form of those that are published at https://doi.org/{DOI}. Nothing was collected from "
        "people."
    ),
    "rai:dataCollectionType": ["Software Collection", "Experiments"],
    "rai:dataCollectionMissingData": (
        "Candidates above the limits of a draw were turned away, and are not here. From the first batch whose loss is "
        "not finite, the values of a run are NaN."
    ),
    "rai:dataCollectionRawData": (
        "The image sets CIFAR-100, FashionMNIST, SVHN and scikit-learn's digits, and those that whoever made the runs "
        "brought along under other names; none of the images are here."
    ),
    "rai:dataPreprocessingProtocol": [
        "Pixels are scaled to [0, 1]. Images are split as their makers split them; validation is on the test images."
    ],
    "rai:dataManipulationProtocol": (
        "Where val_mode is published, validation leaves out the last, partial batch and divides the loss by the "
        "number of batches rounded up, as the published tables do: such losses are low by up to a batch's share."
    ),
    "rai:dataImputationProtocol": "None: no value was filled in.",
    "rai:dataAnnotationProtocol": ["None: the data have no annotations."],
    "rai:dataLimitations": [
        "Small convolutional networks without normalisation or skip connections, plain gradient descent, and small "
        "images only; conclusions may not carry over to other architectures, data or scales.",
        "Some ranges that networks are drawn from were chosen, since the article does not tell them.",
    ],
    "rai:dataBiases": ["Most drawn networks learn little: they are a sample of a generator, not of what people build."],
    "rai:dataUseCases": [
        "Study of learning curves: how early the end can be told, and what a search could have stopped.",
        "Benchmarks of methods that predict learning curves.",
    ],
    "rai:dataSocialImpact": "They spare others the computation. They hold no model that could be put to use.",
    "rai:personalSensitiveInformation": ["None."],
    "rai:dataReleaseMaintenancePlan": (
        "Experiments and runs keep their ids; a later release adds runs and recomputes summaries. manifest.json "
        "says what a release holds."
    ),
}

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
        f"Networks of the task `{TASK}` are drawn and trained as the article of the references describes it; where "
        "it does not say how, as the documents of the software do. They are not the published networks: those "
        f"have other seeds. Runs of the task `{TABLE_TASK}` were read from tables in the form of the published "
        "ones; where they are these, they are of the data set of the references, whose licence is not known to "
        "the software. The data are provided as they are, without warranty of any kind, and licensed under "
        "{licence}; see `LICENSE`. The images are those of the sets that are named, under their own terms; none "
        "of them are in here."
    ),
    cited=_CITED,
    summary="Learning curves of randomly drawn convolutional networks, measured every half epoch.",
    responsible_ai=_RESPONSIBLE_AI,
    keywords=("neural networks", "learning curves", "image classification", "architecture search"),
)
