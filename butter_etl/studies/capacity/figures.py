"""What pictures and pages of rnn_capacity show: the article's figures, of a store, and curves of single trials.

Losses of different tasks are never compared, nor those of networks that are unrolled for different numbers of steps,
nor those on different texts.
"""

from __future__ import annotations

from typing import Final

from butter_etl.studies.figures import Along, Figures, OverRuns, Spread

_LABELS: Final = {"eval_loss": "evaluation loss", "valid_loss": "validation loss", "train_loss": "training loss"}
_LOSS: Final = "evaluation loss"
_BITS: Final = "bits per parameter"

FIGURES: Final = Figures(
    labels=_LABELS,
    title=("task_type", "architecture", "n_layers", "max_params", "search"),
    names=("task_type", "architecture"),
    map_axes=(("max_params", "budget of parameters"), ("n_layers", "layers")),
    shown=tuple(_LABELS),
    filters=("task_type", "architecture", "n_layers", "max_params", "unroll_steps", "search", "source_figure"),
    comparable=("task_type", "unroll_steps", "text_sha256"),
    network={"architecture": "", "n_layers": " depth ", "n_units": ", units "},
    told=("best_eval_loss", "share_infeasible", "best_bits_per_parameter"),
    words={"task_type": "task", "n_layers": "layers", "max_params": "budget", "unroll_steps": "unrolled steps"},
    infeasible="no network within the budget",
    drawings={
        "loss": Along(
            note="evaluation loss of the best trial by validation",
            column="best_eval_loss",
            label=_LOSS,
            along="max_params",
            words="budget of parameters",
            by="n_layers",
            apart="architecture",
        ),
        "bits": Along(
            note="most mutual information of a trial by number of parameters",
            column="best_bits_per_parameter",
            label=_BITS,
            along="num_params",
            words="parameters",
            by="architecture",
            apart="n_layers",
            higher_is_better=True,
        ),
        "unrolled": Along(
            note="most mutual information of a trial by number of parameters",
            column="best_bits_per_parameter",
            label=_BITS,
            along="unroll_steps",
            words="steps that a network is unrolled for",
            by="architecture",
            apart="n_layers",
            higher_is_better=True,
        ),
        "minima": OverRuns(
            note="least evaluation loss of the trials so far",
            column="running_min",
            label=_LOSS,
            words="trials",
            by="architecture",
            apart="n_layers",
        ),
        "medians": OverRuns(
            note="median evaluation loss of the trials so far",
            column="running_median",
            label=_LOSS,
            words="trials",
            by="architecture",
            apart="n_layers",
        ),
        "spread": Spread(
            note="evaluation losses of all trials, median and quartiles; what diverged counts as the worst",
            column="eval_loss",
            label=_LOSS,
            by="architecture",
            apart="n_layers",
        ),
    },
)
