"""Two settings side by side: the table that a study's runs give."""

import math

import numpy as np
import pyarrow as pa
import pytest

from butter_etl.engines.differences import difference_of_medians
from butter_etl.errors import SelectError, SpecError, StudyError
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.comparisons import compare_runs

RNG = np.random.default_rng(4)
A, B = RNG.random((9, 5)).astype(np.float32), RNG.random((12, 4)).astype(np.float32)


def runs(values, name="val_loss"):
    columns = {"repetition": pa.array(range(len(values)), pa.uint16()), name: pa.array(list(values))}
    return pa.table(columns)


def test_rows_are_points_that_both_reach_then_the_end_and_best_values():
    table = compare_runs(BUTTER, runs(A), runs(B), "test_loss", 0.9)
    assert table["at"].to_pylist() == ["point"] * 4 + ["end", "best"]
    assert table["place"].to_pylist() == [0, 1, 2, 3, None, None]
    assert set(table["runs_a"].to_pylist()) == {9}
    assert set(table["runs_b"].to_pylist()) == {12}
    expected = difference_of_medians(A[:, :4], B, 0.9)
    np.testing.assert_allclose(table["difference"].to_numpy()[:4], expected.value)
    np.testing.assert_allclose(table["low"].to_numpy()[:4], expected.bounds.low)
    band = difference_of_medians(A[:, :4], B, 0.9, 4)
    np.testing.assert_allclose(table["band_high"].to_numpy()[:4], band.bounds.high)
    rows = table.to_pylist()
    assert {name: rows[4][name] for name in ("low", "high")} == {name: rows[3][name] for name in ("low", "high")}
    assert rows[5]["median_a"] == pytest.approx(np.median(A[:, :4].min(axis=1)))
    assert rows[4]["band_low"] is None


def test_too_few_runs_are_null_and_no_bound_is_nan():
    few = compare_runs(BUTTER, runs(A[:6]), runs(B), "test_loss", 0.95).to_pylist()[0]
    assert (few["low"], few["high"], few["difference"] is None) == (None, None, False)
    spoiled = A.copy()
    spoiled[0, 0] = np.nan
    row = compare_runs(BUTTER, runs(spoiled), runs(B), "test_loss", 0.99).to_pylist()[0]
    assert math.isfinite(row["low"])
    assert math.isnan(row["high"])


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(SpecError, match="a level of 1"):
        compare_runs(BUTTER, runs(A), runs(B), "test_loss", 1.0)
    with pytest.raises(StudyError, match=r"unknown series 'test_los' \(did you mean 'test_loss'\?\)"):
        compare_runs(BUTTER, runs(A), runs(B), "test_los", 0.95)
    for a, b, side in ((runs(A, "other"), runs(B), "a"), (runs(A), runs(B * np.nan), "b")):
        with pytest.raises(SelectError, match=f"--{side}: its runs have no val_loss"):
            compare_runs(BUTTER, a, b, "test_loss", 0.95)
