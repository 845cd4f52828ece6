"""nn_lifespans as a study: random image networks, measured every half epoch of their whole lives."""

from __future__ import annotations

from typing import Final

from butter_etl.studies.figures import Figures
from butter_etl.studies.lifespans.boxes import boxes
from butter_etl.studies.lifespans.card import CARD
from butter_etl.studies.lifespans.columns import (
    DERIVED,
    HISTORIES,
    PARAMETERS,
    REDUCTION,
    RUN_COLUMNS,
    SUMMARY_COLUMNS,
)
from butter_etl.studies.lifespans.experiments import ImageNetwork, label
from butter_etl.studies.lifespans.fitness import FITNESS
from butter_etl.studies.lifespans.formats import TABLES
from butter_etl.studies.lifespans.own_images import IMAGE_KIND
from butter_etl.studies.lifespans.sweeps import PUBLISHED, READER
from butter_etl.studies.lifespans.training import LifespanTrainer
from butter_etl.studies.study import Points, Study

_LABELS: Final = {
    "val_accuracy_percent": "validation accuracy, %",
    "val_loss": "validation loss",
    "train_loss": "training loss",
}

#: The study nn_lifespans.
NN_LIFESPANS: Final = Study(
    name="nn_lifespans",
    experiment=ImageNetwork,
    keys=("dataset", "n_conv_layers"),
    run_columns=RUN_COLUMNS,
    summary_columns=(*SUMMARY_COLUMNS, *FITNESS.columns),
    parameters=PARAMETERS,
    derived=DERIVED,
    histories=HISTORIES,
    reduction=REDUCTION,
    further=FITNESS,
    own_data=IMAGE_KIND,
    points=Points("epoch", first=0.5, step=0.5, column="epoch"),
    reader=READER,
    trainer=LifespanTrainer(),
    label=label,
    varied=("dataset", "batch_size", "learning_rate", "epochs", "val_mode"),
    swept=("dataset", "n_conv_layers", "batch_size", "epochs", "val_mode"),
    may_be_absent=("train_images", "fc_activation"),
    sweeps=PUBLISHED,
    judged=("val_loss", "loss"),
    figures=Figures(
        labels=_LABELS,
        higher_is_better=frozenset({"val_accuracy_percent"}),
        title=("dataset", "n_conv_layers", "learning_rate", "batch_size"),
        names=("dataset",),
        map_axes=(("n_conv_layers", "convolutions"), ("n_fc_layers", "fully connected layers")),
        shown=tuple(_LABELS),
        filters=("dataset", "n_conv_layers", "n_fc_layers", "val_mode", "learning_rate", "batch_size"),
        comparable=("dataset", "val_mode", "train_images"),
        network={"conv_filters": "filters ", "fc_filters": ", widths "},
        words={"dataset": "image set"},
        infeasible="no network that can be built",
        boxes=boxes,
        twins="network_id",
    ),
    card=CARD,
    formats={TABLES.name: TABLES},
)
