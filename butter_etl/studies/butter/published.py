"""How published runs compare with ours: the experiment of ours with their parameters, and where there is none.

What is documented in docs/fidelity.md as a departure from what was run is no draw from the same distribution.
"""

from __future__ import annotations

from butter_etl.errors import SpecError
from butter_etl.studies.butter.datasets import DATASETS
from butter_etl.studies.butter.experiments import HYPERPARAMETERS, ExperimentSpec, Regularizer
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.experiments import Experiment

_OTHER_TASKS = ("201_pol", "294_satellite_image")
_RELABELLED = "categorical_crossentropy"


def twin(one: Experiment) -> ExperimentSpec:
    """Return the experiment of ours with the parameters of another maker's; raise SpecError where there is none."""
    parameters = one.parameters()
    kind = parameters["kernel_regularizer.type"]
    values = {name: parameters.get(name) for name in HYPERPARAMETERS if name != "kernel_regularizer"}
    values = {name: value for name, value in values.items() if value is not None or HYPERPARAMETERS[name].is_nullable}
    if kind in ("l1", "l2"):
        factor = parameters[f"kernel_regularizer.{kind}"]
        if not isinstance(factor, float):
            raise SpecError(f"kernel_regularizer.{kind}: {factor!r} is not a number")
        values["kernel_regularizer"] = Regularizer("l1" if kind == "l1" else "l2", factor)  # type: ignore[assignment]
    return make_experiment(**values)


def departure(one: Experiment) -> str | None:
    """Return why published runs of these parameters are not comparable with ours, as docs/fidelity.md has it."""
    parameters = one.parameters()
    dataset = str(parameters["dataset"])
    if dataset in _OTHER_TASKS:
        return f"{dataset}: what was run learned classes, this is a regression"
    info = DATASETS.get(dataset)
    if parameters["label_noise"] and info is not None and info.loss == _RELABELLED:
        return "label noise: in what was run rows of several classes traded labels"
    if parameters["optimizer"] == "RMSprop" and not parameters["momentum"]:
        return "RMSprop without momentum: what was run adds epsilon outside of the root"
    return None
