"""Published runs and ours: which experiment of ours has their parameters, and what is not comparable."""

import pytest

from butter_etl.errors import SpecError
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.lifespans.study import NN_LIFESPANS

OURS = [
    make_experiment(dataset="wine", size=64, depth=2),
    make_experiment(dataset="mnist", size=4096, depth=5, shape="trapezoid", label_noise=0.1),
    make_experiment(dataset="banana", size=64, depth=2, kernel_regularizer=Regularizer("l2", 0.01)),
    make_experiment(dataset="banana", size=64, depth=2, optimizer="SGD", momentum=0.9),
]


def theirs(one, **changed):
    return BUTTER.foreign("AspectTestTask", 3, one.parameters() | changed)


@pytest.mark.parametrize("one", OURS, ids=lambda one: one.dataset)
def test_the_twin_has_all_parameters(one):
    assert BUTTER.twin_of(theirs(one)) == one


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dataset": "wime"}, "wime"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
        ({"kernel_regularizer.type": "l1_l2"}, "kernel_regularizer.type is 'l1_l2'"),
        ({"kernel_regularizer.type": "l1"}, "kernel_regularizer.l1: None is not a number"),
        ({"shape": "ring"}, "shape"),
        ({"momentum": 0.5}, "momentum"),
        ({"test_split": 0.3}, "test_split is 0.3"),
    ],
)
def test_what_this_package_does_not_train_has_none(changed, said):
    with pytest.raises(SpecError, match=said):
        BUTTER.twin_of(theirs(OURS[0], **changed))


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (make_experiment(dataset="201_pol", size=64, depth=2), "learned classes"),
        (make_experiment(dataset="294_satellite_image", size=64, depth=2), "learned classes"),
        (OURS[1], "traded labels"),
        (make_experiment(dataset="banana", size=64, depth=2, optimizer="RMSprop", momentum=0.0), "epsilon"),
        (make_experiment(dataset="banana", size=64, depth=2, label_noise=0.1), None),
        (make_experiment(dataset="adult", size=64, depth=2, label_noise=0.1), None),
        (OURS[0], None),
    ],
)
def test_documented_departures_are_not_comparable(one, said):
    found = BUTTER.departure(theirs(one))
    assert (found is None) == (said is None)
    assert said is None or said in found


def test_studies_without_a_twin_of_their_own_have_that_of_their_fields():
    one = next(NN_LIFESPANS.sweeps["lifespans"].experiments()) if "lifespans" in NN_LIFESPANS.sweeps else None
    if one is None:
        one = next(next(iter(NN_LIFESPANS.sweeps.values())).experiments())
    found = NN_LIFESPANS.foreign("nn_lifespans", 1, one.parameters())
    assert NN_LIFESPANS.twin_of(found) == one
    with pytest.raises(SpecError, match="trains no such experiment"):
        NN_LIFESPANS.twin_of(NN_LIFESPANS.foreign("nn_lifespans", 1, one.parameters() | {"epochs": None}))
