"""The network of an experiment as a row of layers, for pictures: its inputs, then the widths of its dense layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from butter_etl.errors import ButterError
from butter_etl.studies.butter.datasets import DATASETS, info_of
from butter_etl.studies.butter.experiments import HIDDEN_ACTIVATION, ExperimentSpec
from butter_etl.studies.butter.topology import is_residual
from butter_etl.studies.experiments import Experiment
from butter_etl.studies.figures import Box


def boxes(one: Experiment, derived: Mapping[str, Any]) -> tuple[Box, ...]:
    """Return the inputs, where the data set tells how many, and the dense layers, by their `widths`; see `Figures`."""
    widths = tuple(derived.get("widths") or ())
    parameters = one.parameters()
    inputs = _inputs(one, str(parameters["dataset"]))
    first = (Box("inputs", str(parameters["dataset"]), (inputs,)),) if inputs and widths else ()
    residual = is_residual(str(parameters["shape"]))
    return (*first, *(_dense(one, place, widths, residual=residual) for place in range(len(widths))))


def _inputs(one: Experiment, dataset: str) -> int | None:
    """Return how many inputs a data set has; None of one that is not known here."""
    try:
        return info_of(one).inputs if isinstance(one, ExperimentSpec) else DATASETS[dataset].inputs
    except (ButterError, KeyError):
        return None


def _dense(one: Experiment, place: int, widths: tuple[int, ...], *, residual: bool) -> Box:
    """Return a layer; hidden ones after the first have a shortcut around them in residual networks."""
    if place == len(widths) - 1:
        return Box("output", one.output_activation if isinstance(one, ExperimentSpec) else "", widths[-1:])
    return Box("dense", HIDDEN_ACTIVATION + (", shortcut" if residual and place else ""), (widths[place],))
