"""The declared statistics: which columns follow from them, and in which order."""

from __future__ import annotations

from butter_etl.studies.butter.columns import REDUCTION


def test_order_of_the_columns():
    names = list(REDUCTION.lists)
    assert names[:7] == ["num", *(f"test_loss_{x}" for x in ("num_finite", "avg", "stddev", "min", "max", "median"))]
    assert names[13:16] == ["test_accuracy_avg", "test_accuracy_stddev", "test_accuracy_median"]
    assert names[30] == "train_kullback_leibler_divergence_median"
    assert names[31:35] == ["test_loss_q1", "test_loss_q3", "train_loss_q1", "train_loss_q3"]
    assert len(names) == 47
    block = list(REDUCTION.scalars)
    assert block[0] == "test_loss_min_epoch_min"
    assert block[11] == "test_loss_min_value_avg"
    assert block[12:18] == [f"test_accuracy_max_epoch_{x}" for x in ("min", "q1", "median", "q3", "max", "avg")]
    assert len(block) == 48
