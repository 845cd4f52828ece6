"""Predictions of fitness: fits against SciPy's, and the published results of the sample networks."""

from __future__ import annotations

import math
import os
import warnings
from decimal import Decimal, localcontext
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import OptimizeWarning, curve_fit

from butter_etl.studies.lifespans import penguin
from butter_etl.studies.lifespans.curve_kernels import _log, power
from butter_etl.studies.lifespans.penguin import (
    Rule,
    fit_prefixes,
    predict,
    results_file,
    results_name,
    stacked,
    training_ends,
    value_at,
)
from butter_etl.studies.lifespans.tables import read_table

TABLES = [read_table(path.read_bytes()) for path in sorted((Path(__file__).parent / "networks").glob("*.txt"))]
EPOCHS = TABLES[0].epochs
#: Whole lives of 100 networks that this package drew and trained: 91 on images of digits, the others on 1,000 images
#: of FashionMNIST; how many of so many validation images each had right after each half epoch.
RECORDED_LIVES = np.load(Path(__file__).parent / "recorded" / "accuracies.npz")
TRAINED = 100.0 * RECORDED_LIVES["correct"] / RECORDED_LIVES["images"][:, None]
#: Which tenths of them are fitted at all their prefixes: all ten take twelve minutes.
TENTHS = range(10) if "BUTTER_ETL_TEST_FITS" in os.environ else (3, 5)
#: What PENGUIN's `TestRun.md` expects of them: when predictions agree, the largest accuracy, `a`, and the accuracies
#: that are predicted and found at epoch 20.
EXPECTED = {
    "2021_02_15_13_55_26_539263": (4.0, 28.77, 25.712119946140604, 25.712058774260818, 26.99),
    "2021_02_15_13_56_59_917381": (3.0, 1.29843781700142, 2.0336024481156483, 1.1887354107299024, 1.125989044430919),
    "2021_02_15_14_01_32_105932": (8.5, 17.105263157894736, 24.314136828801946, 22.819695012835464, 16.842105263157894),
}

#: What is predicted of them where SciPy is not asked, as it was when this was written: the bits depend on nothing but
#: the measures.
RECORDED = ["0x1.9b6497c4421b4p+4", "0x1.30540c4b0b158p+0", "0x1.6d1d7827ca8a1p+4"]


def by_scipy(accuracies, count):
    """The accuracy at epoch 20 that SciPy predicts from the first points, NaN if it fits no curve."""

    def curve(x, a, b, c):
        return a - b ** (c - x)

    bounds = [(0.5, 1.0, 0.0), (200.0, np.inf, np.inf)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            found, _ = curve_fit(curve, 2 * EPOCHS[:count], accuracies[:count], p0=[10, 1.001, 100], bounds=bounds)
        except (RuntimeError, ValueError):
            return np.nan
        return curve(40.0, *found)


def assert_scipys(accuracies, counts):
    """Hold what is predicted from so many first points against SciPy, failures included."""
    own = value_at(fit_prefixes(EPOCHS[None, : max(counts)], accuracies[None, : max(counts)])[0], 20.0)
    own[~np.isfinite(own)] = np.nan
    theirs = [by_scipy(accuracies, count) for count in counts]
    np.testing.assert_allclose(own[np.array(counts) - 1], theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.network_id)
def test_fits_of_genuine_curves_are_scipys(table):
    assert_scipys(table.val_accuracy_percent, range(2, 81, 3))


@pytest.mark.long
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.network_id)
def test_fits_of_all_prefixes_of_genuine_curves_are_scipys(table):
    assert_scipys(table.val_accuracy_percent, range(2, 81))


def test_fits_of_trained_curves_are_scipys():
    for number, accuracies in list(enumerate(TRAINED))[::3]:
        assert_scipys(accuracies, [2 + 37 * number % 79])


def test_what_scipy_is_asked_is_what_curve_fit_answers():
    for accuracies in TRAINED[::9]:
        for count in (2, 3, 5, 9, 17, 40):
            a, b, c = penguin._by_scipy(2 * EPOCHS[:count], accuracies[:count])
            foretold = a - b ** (c - 40.0) if math.isfinite(a) else math.nan
            assert foretold == pytest.approx(by_scipy(accuracies, count), abs=1e-9, nan_ok=True)


@pytest.mark.long
@pytest.mark.parametrize("tenth", TENTHS)
def test_fits_of_all_prefixes_of_trained_curves_are_scipys(tenth):
    for accuracies in TRAINED[tenth::10]:
        assert_scipys(accuracies, range(2, 81))


def test_scipy_is_asked_where_last_bits_decide(monkeypatch):
    """SciPy's own prediction moves there where nothing but the last bits of measures changes."""
    asked, ask = [], penguin._by_scipy
    monkeypatch.setattr(penguin, "_by_scipy", lambda *some: asked.append(len(some[0])) or ask(*some))
    accuracies = TABLES[2].val_accuracy_percent
    predictions = value_at(fit_prefixes(EPOCHS[None], accuracies[None])[0], 20.0)
    assert asked
    assert len(asked) <= 24
    moved = [by_scipy(accuracies * (1 + bits * 2.0**-52), 7) for bits in (-9, -5, -4, 0, 4, 5, 9)]
    assert 7 in asked
    assert max(moved) - min(moved) > 1e-3
    assert predictions[6] == by_scipy(accuracies, 7)


def saturating(rng):
    """A noisy curve of 80 points that saturates."""
    top, rate = rng.uniform(2, 95), np.exp(rng.uniform(np.log(0.02), 0))
    noise = rng.normal(0, rng.choice([0.05, 0.3, 1.5]), 80)
    return top - (top - rng.uniform(0, top)) * np.exp(-rate * np.arange(80)) + noise


@pytest.mark.parametrize("number", range(12))
def test_fits_of_other_curves_are_scipys(number):
    assert_scipys(saturating(np.random.default_rng(number)), (2, 3, 5, 8, 13, 21, 40))


def test_the_published_results_come_out():
    lines = results_file(TABLES).decode().splitlines()
    assert lines[0].split(" ")[:4] == ["modelID", "numConvLayers", "learningRate", "batchSize"]
    for line, table in zip(lines[1:], TABLES, strict=True):
        name, layers, rate, batch, stabilized, ends, most, a, error, predicted, actual = line.split(" ")
        expected = EXPECTED[table.network_id]
        assert (name, layers, rate) == (f"{table.network_id}.txt", "3", repr(table.learning_rate))
        assert (batch, ends) == (f"{table.batch_size}.0", "20.0")
        assert float(stabilized) == expected[0]
        np.testing.assert_allclose(
            [float(text) for text in (most, a, predicted, actual)], expected[1:], atol=1e-4, rtol=1e-12
        )
        assert float(error) == abs(float(actual) - float(predicted))
    assert results_name("CIFAR100") == "CIFAR100-PENGUIN_results-N_3-t_0.5.csv"


def test_networks_with_losses_that_are_not_finite_are_left_out():
    loss = TABLES[0].val_loss.copy()
    loss[70] = np.inf
    diverged = msgspec.structs.replace(TABLES[0], val_loss=loss)
    assert results_file([diverged, *TABLES[1:]]) == results_file(TABLES[1:])
    assert results_file([]).count(b"\n") == 1


def test_predictions_that_are_not_scipys_have_the_same_bits_everywhere(monkeypatch):
    monkeypatch.setattr(penguin, "_are_settled", lambda points, *_: np.ones(len(points), np.bool_))
    found = predict(stacked([one.epochs for one in TABLES]), stacked([one.val_accuracy_percent for one in TABLES]))
    assert [float(one).hex() for one in found.predicted] == RECORDED


@given(
    st.one_of(st.floats(1, 1 + 1e-6), st.floats(1, 3), st.floats(1, 1e300)),
    st.floats(-30, 30),
)
@example(1.0, 1e300)
@example(math.nextafter(1, 2), -1e17)
def test_powers_are_rounded_as_well_as_libraries(base, logarithm):
    exponent = logarithm / math.log(base) if base > 1 else logarithm
    with localcontext() as context:
        context.prec = 60
        exact = (Decimal(base).ln() * Decimal(exponent)).exp()
        found = power(*_log(base), exponent)
        assert abs(Decimal(found) - exact) <= Decimal((0.6 + abs(logarithm) / 40) * math.ulp(found))


def test_powers_end_where_numbers_do():
    high, low = _log(2.0)
    assert [power(high, low, one) for one in (1024.0, math.inf, -1076.0, -math.inf)] == [math.inf, math.inf, 0.0, 0.0]
    assert math.isnan(power(high, low, math.nan))
    assert (power(high, low, 10.0), power(high, low, -1074.0), power(high, low, 1023.0)) == (1024.0, 5e-324, 2.0**1023)


def one_by_one(accuracies, rule):
    """The published rule for one network, in its own words."""
    curves = fit_prefixes(EPOCHS[None, : len(accuracies)], accuracies[None])[0]
    kept = []
    for count in range(2, len(accuracies)):
        a, predicted = curves[count - 1, 0], value_at(curves[count - 1], rule.epoch)
        if not np.isfinite(a) or not np.isfinite(predicted):
            continue
        if a >= 199.99:
            kept = []
            continue
        kept.append(predicted)
        if len(kept) >= rule.last:
            agree = all(abs(one - np.median(kept)) <= rule.within for one in kept)
            kept = kept[1:]
            if agree and 0 < predicted <= 100:
                return True, predicted, EPOCHS[count - 1]
    return False, accuracies[-1], EPOCHS[len(accuracies) - 1]


@pytest.mark.parametrize("rule", [Rule(), Rule(last=2, within=3.0), Rule(last=5, within=0.2), Rule(last=1)])
def test_runs_are_predicted_as_each_alone(rule):
    rng = np.random.default_rng(4)
    lists = [saturating(rng)[: rng.integers(1, 41)] for _ in range(40)]
    lists[3][0] = np.nan
    lists[5] = lists[5] + 150
    found = predict(stacked([EPOCHS[: len(one)] for one in lists]), stacked(lists), rule)
    for run, one in enumerate(lists):
        converged, predicted, epoch = one_by_one(one, rule)
        assert (found.converged[run], found.epoch[run]) == (converged, epoch)
        np.testing.assert_equal(found.predicted[run], predicted)
    assert 5 < found.converged.sum() < 40


def test_only_measures_up_to_the_epoch_are_looked_at():
    epochs, accuracies = EPOCHS[None], TABLES[2].val_accuracy_percent[None]
    later = np.where(epochs > 20, np.nan, accuracies)
    found, again = predict(epochs, accuracies, Rule(within=0.001)), predict(epochs, later, Rule(within=0.001))
    assert not found.converged[0]
    assert found.epoch[0] == again.epoch[0] == 20.0
    assert found.predicted[0] == again.predicted[0] == accuracies[0, 39]


def test_runs_without_points_have_no_predictions():
    for shape in ((2, 0), (2, 3)):
        found = predict(np.full(shape, np.nan), np.full(shape, np.nan))
        assert not found.converged.any()
        assert np.isnan(found.predicted).all()
        assert np.isnan(found.epoch).all()
        assert np.isinf(found.a).all()
    assert predict(np.empty((0, 5)), np.empty((0, 5))).converged.shape == (0,)


def test_training_ends_ten_epochs_after_the_last_fall():
    epochs = np.tile(np.arange(1.0, 31.0), (4, 1))
    losses = np.tile(np.linspace(3, 1, 30), (4, 1))
    losses[1, 4:] = 5.0  # falls last at epoch 4
    losses[2, :] = np.nan  # never falls
    epochs[3, 12:] = losses[3, 12:] = np.nan
    np.testing.assert_array_equal(training_ends(epochs, losses, 20.0), [20.0, 14.0, 10.0, 12.0])
    assert np.isnan(training_ends(np.empty((1, 0)), np.empty((1, 0)), 20.0)).all()
