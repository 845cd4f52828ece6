"""The declared statistics: which columns follow from them, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from butter_etl.engines.statistics import AVG, NUM
from butter_etl.errors import SpecError
from butter_etl.studies.butter.columns import FLOAT_LIST, REDUCTION
from butter_etl.studies.columns import Column, extremum_columns, schema_of, series_columns

WIDE = replace(REDUCTION, counts=pa.uint16(), floats=pa.float64())


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


def test_butter_has_bytes_and_float32():
    assert (REDUCTION.counts, REDUCTION.floats, REDUCTION.max_runs) == (pa.uint8(), pa.float32(), 255)
    assert (WIDE.max_runs, WIDE.type_of(NUM), WIDE.type_of(AVG)) == (65535, pa.uint16(), pa.float64())


def test_types_of_columns_follow_from_the_widths():
    histories = {one: Column(one, FLOAT_LIST, "a history") for one in REDUCTION.histories.values()}
    for reduction, counts, floats in ((REDUCTION, pa.uint8(), pa.float32()), (WIDE, pa.uint16(), pa.float64())):
        lists = schema_of(series_columns(reduction, "published", histories))
        assert lists.field("test_loss_num_finite").type == pa.list_(counts)
        assert lists.field("test_loss_median").type == pa.list_(floats)
        assert {str(kind.value_type) for kind in lists.types} == {str(counts), str(floats)}
        scalars = schema_of(extremum_columns(reduction))
        assert scalars.field("test_loss_min_epoch_max").type == pa.uint32()
        assert scalars.field("test_loss_min_epoch_avg").type == floats
        assert scalars.field("test_loss_min_value_max").type == floats


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"counts": pa.uint32()}, "^counts: summaries have uint8 or uint16, not uint32$"),
        ({"floats": pa.float16()}, "^floats: summaries have float or double, not halffloat$"),
    ],
)
def test_other_widths_are_refused(widths, message):
    with pytest.raises(SpecError, match=message):
        replace(REDUCTION, **widths)
