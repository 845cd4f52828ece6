"""The card of BUTTER's published data sets: what they are, what they build on, and on what terms they are."""

from __future__ import annotations

from typing import Final

from butter_etl.studies.butter.experiments import TASK_VERSION
from butter_etl.studies.cards import Card
from butter_etl.studies.origins import Origin

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

#: The published data set. What is known here of it says no licence.
PUBLISHED_DATA: Final = Origin(
    title="BUTTER - Empirical Deep Learning Dataset",
    authors=tuple(f"{family}, {given}" for family, given in _BUTTER_AUTHORS),
    doi=BUTTER_DOI,
    citation=REFERENCES[0].replace("*", ""),
)

_TERMS = """\
These data were made by repeating the experiments that the BUTTER data set describes. They are not that data set:
the runs are new ones, and the authors and institutions of BUTTER have neither made nor checked them. The data are
provided as they are, without warranty of any kind. Losses and accuracies are those of networks on the data
sets that are named.

The data are licensed under {licence}; see `LICENSE`. Cite them as `CITATION.cff` says, and cite
BUTTER too. The data sets that were learned from are PMLB's and scikit-learn's, or of whoever made the runs, under
their own terms; none of their rows are in here."""

_CITED = f"""\
  - type: data
    title: BUTTER - Empirical Deep Learning Dataset
    doi: {BUTTER_DOI}
    url: {BUTTER_URL}
    year: 2022
    authors:
""" + "".join(f"      - family-names: {last}\n        given-names: {first}\n" for last, first in _BUTTER_AUTHORS)

_RESPONSIBLE_AI = {
    "rai:dataCollection": (
        "Every run whose task is butter_etl.train is the training of a fully connected network from a seed, on the "
        "data set that it names, by the software butter_etl. Twenty statistics were recorded after every epoch. "
        "Nothing was collected from people."
    ),
    "rai:dataCollectionType": ["Software Collection", "Experiments"],
    "rai:dataCollectionMissingData": (
        "Experiments without a network within 20 % of the size that they ask for do not exist. Values that diverged "
        "are kept as they are, NaN or infinite."
    ),
    "rai:dataCollectionRawData": (
        "The data sets of PMLB and scikit-learn that were learned from, and those that whoever made the runs brought "
        "along under other names; their rows are not here."
    ),
    "rai:dataPreprocessingProtocol": [
        "Inputs and targets are one-hot encoded or scaled to [0, 1], by one rule for all data sets. Each run has its "
        "own random split into 80 % training and 20 % test rows."
    ],
    "rai:dataManipulationProtocol": (
        "Where label_noise is above 0, that share of the training labels was made wrong on purpose. Test labels never "
        "were."
    ),
    "rai:dataImputationProtocol": "None: no value was filled in.",
    "rai:dataAnnotationProtocol": ["None: the data have no annotations."],
    "rai:dataLimitations": [
        "Small fully connected networks and tabular or small image data only; conclusions may not carry over to other "
        "architectures, data or scales.",
        "Runs of one experiment share data and differ in seed, split and start weights: their spread says nothing of "
        "other data.",
    ],
    "rai:dataBiases": [
        "The data sets that were learned from are few, old and widely used; what networks learn well on them is not a "
        "sample of all problems.",
        "Experiments are points of grids chosen by their authors.",
    ],
    "rai:dataUseCases": [
        "Study of how architecture, size, regularization, noise and optimization shape learning curves.",
        "Benchmarks of methods that predict learning curves or choose hyperparameters.",
    ],
    "rai:dataSocialImpact": "They spare others the computation. They hold no model that could be put to use.",
    "rai:personalSensitiveInformation": [
        "None. One of the data sets that were learned from, adult, is of a census; none of its rows are here."
    ],
    "rai:dataReleaseMaintenancePlan": (
        "Experiments and runs keep their ids; a later release adds runs and recomputes summaries. manifest.json says "
        "what a release holds."
    ),
}

CARD: Final = Card(
    title="Learning curves of the BUTTER sweeps",
    version=VERSION,
    description="""
        Learning curves of dense, fully connected networks over sweeps of their hyperparameters. An *experiment* is one
        setting of every hyperparameter; a *run* is one training of it, with its own random seed, split of the data and
        start weights. Twenty statistics were recorded after every epoch, on the training and on the test set. Summaries
        give the distribution of a statistic over the runs of an experiment, epoch by epoch.
    """,
    uses="""
        The curves serve the study of how architecture, size, regularization, noise and optimization shape learning,
        and as a benchmark for the prediction of learning curves. The data sets that were learned from are public ones,
        of PMLB and scikit-learn, but for those that whoever made the runs brought along under other names.
    """,
    lists="""
        A list has one element an epoch (`widths`: one a layer); the first element is the first epoch. Statistics of the
        training set are means over the batches of an epoch, each measured before its update; statistics of the
        test set are of the weights at the end of the epoch.
    """,
    references=REFERENCES,
    terms=_TERMS,
    credit=f'the "BUTTER - Empirical Deep Learning Dataset" ({BUTTER_URL})',
    message="If you use these data, please cite them, and the BUTTER data set whose experiments they repeat.",
    cited=_CITED,
    summary=(
        "Learning curves of fully connected networks over sweeps of their hyperparameters: runs, and summaries over "
        "the runs of each experiment, as partitioned Parquet."
    ),
    url=BUTTER_URL,
    keywords=("deep learning", "learning curves", "hyperparameters", "fully connected networks"),
    responsible_ai=_RESPONSIBLE_AI,
)
