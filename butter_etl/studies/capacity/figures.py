"""What pictures and pages of rnn_capacity show."""

from __future__ import annotations

from typing import Final

from butter_etl.studies.figures import Figures

_LABELS: Final = {"eval_loss": "evaluation loss", "valid_loss": "validation loss", "train_loss": "training loss"}

FIGURES: Final = Figures(labels=_LABELS, infeasible="no network within the budget")
