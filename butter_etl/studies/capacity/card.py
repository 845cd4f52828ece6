"""The card of published searches: what they are, what they build on, and on what terms they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from butter_etl.studies.capacity.experiments import TASK_VERSION
from butter_etl.studies.cards import Card
from butter_etl.studies.origins import Origin
from butter_etl.studies.profiles import SEED, Profile

_ARTICLE: Final = "https://arxiv.org/abs/1611.09913"
_DATA: Final = "https://github.com/jazcollins/cap-n-train-hps"
_TITLE: Final = "Capacity and Trainability in Recurrent Neural Networks"
_AUTHORS: Final = "J. Collins, J. Sohl-Dickstein and D. Sussillo"

_CITED: Final = f"""\
  - type: conference-paper
    title: {_TITLE}
    url: {_ARTICLE}
    year: 2017
    conference:
      name: International Conference on Learning Representations
    authors:
      - family-names: Collins
        given-names: Jasmine
      - family-names: Sohl-Dickstein
        given-names: Jascha
      - family-names: Sussillo
        given-names: David
"""

#: The published data set, as imports of it say with ``--profile published``.
PUBLISHED_DATA: Final = Origin(
    title="cap-n-train-hps",
    authors=("Google Inc.",),
    license="CC-BY-4.0",
    citation=f"{_AUTHORS}. {_TITLE}. ICLR 2017. {_ARTICLE}. Data: {_DATA}",
)
PUBLISHED: Final = Profile("published", source=PUBLISHED_DATA)
PROFILES: Final[Mapping[str, Profile]] = {one.name: one for one in (SEED, PUBLISHED)}

CARD: Final = Card(
    title="What trains recurrent networks: searches by task, architecture and size",
    version=f"{TASK_VERSION}.0.0",
    description=(
        "Searches for the hyperparameters of recurrent networks. A *cell* is a task, an architecture, a number of "
        "layers and a budget of parameters; an experiment is the search of one cell, a run is one of its trials: a set "
        "of hyperparameters and the training with it. Losses on training, validation and evaluation data were recorded "
        "at equal parts of each training. Trials that diverged are infeasible, and part of the data."
    ),
    uses=(
        "They serve the study of how much recurrent networks can hold and how easily they are trained, and as a "
        "benchmark of methods that choose hyperparameters."
    ),
    lists=(
        "Lists of runs, and statistics over runs, have one element for each measuring point; `progress` says at which "
        "share of the training they are. `running_min` and `running_median` have one for each trial."
    ),
    references=(
        f"{_AUTHORS}. *{_TITLE}.* International Conference on Learning Representations, 2017. {_ARTICLE}",
        f"The data of that article. Google Inc., CC BY 4.0. {_DATA}",
    ),
    terms=(
        "Cells, tasks and ranges of hyperparameters are those of the article of the references; where it does not say "
        "how, networks are trained as the documents of the software say. Runs that were made for this data set are not "
        "the published ones, and the authors of the article have neither made nor checked them. The data are provided "
        "as they are, without warranty of any kind, and licensed under {licence}; see `LICENSE`."
    ),
    credit=f'"{_TITLE}" by {_AUTHORS} ({_ARTICLE})',
    message="If you use these data, please cite them, and the article whose searches they repeat.",
    cited=_CITED,
    summary="Searches for the hyperparameters of recurrent networks, by task, architecture, depth and size.",
    url=_DATA,
    keywords=("recurrent neural networks", "hyperparameters", "capacity", "trainability"),
)
