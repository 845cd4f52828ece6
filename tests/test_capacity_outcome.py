"""What summaries say of a search, against NumPy; and searches by a Gaussian process."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.studies.capacity.outcome import OUTCOME, conclude, running_median

LOSSES = st.lists(st.one_of(st.floats(0, 100), st.just(math.nan), st.just(math.inf)), min_size=1, max_size=30)


def table(losses, numbers=None, valid=None, bits=None):
    """Trials whose last losses are given; a loss that is no number is of an infeasible one."""
    count = len(losses)
    return pa.table(
        {
            "hyper_iter": pa.array(range(count) if numbers is None else numbers, pa.int64()),
            "infeasible": [not math.isfinite(loss) for loss in losses],
            "valid_loss": [[9.0, loss] for loss in (losses if valid is None else valid)],
            "eval_loss": [[8.0, loss] for loss in losses],
            "mutual_information_bits": pa.array([None] * count if bits is None else bits, pa.float64()),
            "bits_per_parameter": pa.array(
                [None] * count if bits is None else [one / 10 for one in bits], pa.float64()
            ),
        }
    )


def or_nan(value):
    return value if math.isfinite(value) else math.nan


@given(LOSSES)
def test_searches_are_concluded_as_numpy_concludes_them(losses):
    found = conclude(table(losses))
    ranked = np.array([loss if math.isfinite(loss) else math.inf for loss in losses])
    assert found.keys() == {one.name for one in OUTCOME.columns}
    assert found["share_infeasible"] == np.mean(~np.isfinite(losses))
    assert found["running_min"] == pytest.approx(
        [or_nan(ranked[: count + 1].min()) for count in range(len(losses))], nan_ok=True
    )
    with np.errstate(invalid="ignore"):
        medians = [or_nan(float(np.median(ranked[: count + 1]))) for count in range(len(losses))]
    assert found["running_median"] == pytest.approx(medians, nan_ok=True)
    if np.isfinite(ranked).any():
        assert found["best_trial"] == ranked.argmin()
        assert found["best_valid_loss"] == found["best_eval_loss"] == ranked.min()
    else:
        assert found["best_trial"] is found["best_valid_loss"] is found["best_eval_loss"] is None
    if np.isfinite(ranked).all():
        for name, percent in (("q1", 25), ("median", 50), ("q3", 75)):
            assert found[f"final_loss_{name}"] == pytest.approx(np.percentile(ranked, percent))


def test_the_best_is_chosen_by_validation_and_reported_by_evaluation():
    found = conclude(table([1.0, 2.0, 3.0], valid=[5.0, 4.0, 4.0]))
    assert (found["best_trial"], found["best_valid_loss"], found["best_eval_loss"]) == (1, 4.0, 2.0)


def test_trials_are_in_the_order_of_their_numbers():
    found = conclude(table([3.0, 1.0, 2.0, 5.0], numbers=[7, 9, 2, 7]))
    assert found["running_min"] == [2.0, 2.0, 2.0, 1.0]
    assert found["best_trial"] == 9
    assert conclude(table([3.0, 1.0], numbers=[None, 4]))["running_min"] == [3.0, 1.0]


def test_infeasible_trials_are_the_worst():
    found = conclude(table([math.nan, 1.0, 2.0, math.inf]))
    assert found["running_median"][0] != found["running_median"][0]
    assert found["final_loss_q1"] == 1.75
    assert found["final_loss_q3"] is None
    assert running_median([math.inf, 1.0, 1.0]) == pytest.approx([math.nan, math.nan, 1.0], nan_ok=True)


def test_bits_are_those_of_the_trial_that_knows_most():
    found = conclude(table([-5.0, -7.0], bits=[5.0, 7.0]))
    assert (found["best_information_bits"], found["best_bits_per_parameter"]) == (7.0, 0.7)
    assert conclude(table([1.0]))["best_information_bits"] is None
