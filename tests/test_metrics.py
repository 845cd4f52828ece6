"""The ten metrics against the same formulas in float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from butter_etl.engines.batched import metrics
from butter_etl.engines.contract import METRICS

LOSSES = ("categorical_crossentropy", "binary_crossentropy", "mean_squared_error")


def numpy_rows(p, y):
    """Values a row, float64 (rows,), of the metrics of predictions; p and y are (rows, outputs) of one batch."""
    p, y = p.astype(np.float64), y.astype(np.float64)
    outputs = y.shape[1]
    converted = 2 * y - 1 if np.isin(y, (0, 1)).all() else y
    margin = np.maximum(0, 1 - converted * p)
    norm = lambda v: np.sqrt(np.maximum((v**2).sum(1), 1e-12))  # noqa: E731
    clip = lambda v: np.clip(v, 1e-7, 1)  # noqa: E731
    log = lambda v: np.log(1 + np.maximum(v, 1e-7))  # noqa: E731
    return {
        "accuracy": (y == (p > 0.5))[:, 0] if outputs == 1 else y.argmax(1) == p.argmax(1),
        "mean_squared_error": ((p - y) ** 2).mean(1),
        "mean_absolute_error": np.abs(p - y).mean(1),
        "mean_squared_logarithmic_error": ((log(p) - log(y)) ** 2).mean(1),
        "hinge": margin.mean(1),
        "squared_hinge": (margin**2).mean(1),
        "cosine_similarity": (p * y).sum(1) / norm(p) / norm(y),
        "kullback_leibler_divergence": (clip(y) * np.log(clip(y) / clip(p))).sum(1),
    }


def torch_sums(p, y):
    """The same metrics from the module: float64 (batches,) each, of p and y (batches, rows, outputs)."""
    p, y = outputs_first(p), outputs_first(y)
    hinge, squared_hinge = metrics.hinges(p, y)
    named = [name for name in METRICS if name in vars(metrics)]
    return {name: getattr(metrics, name)(p, y) for name in named} | {"hinge": hinge, "squared_hinge": squared_hinge}


def outputs_first(values):
    return torch.from_numpy(np.ascontiguousarray(values.swapaxes(1, 2)))


@st.composite
def batches(draw, largest_logit=30.0):
    """Logits and targets (batches, rows, outputs); targets one-hot, noisy, or anything."""
    shape = draw(npst.array_shapes(min_dims=3, max_dims=3, max_side=7))
    z = draw(npst.arrays(np.float32, shape, elements=st.floats(-largest_logit, largest_logit, width=32)))
    kind = draw(st.sampled_from(["one-hot", "zero or two-hot", "in [0, 1]", "noisy"]))
    if kind == "one-hot":
        hot = draw(npst.arrays(np.int64, shape[:2], elements=st.integers(0, shape[2] - 1)))
        return z, np.eye(shape[2], dtype=np.float32)[hot]
    elements = {
        "zero or two-hot": st.sampled_from([0.0, 1.0]),
        "in [0, 1]": st.floats(0, 1, width=32),
        "noisy": st.floats(-3, 4, width=32),
    }[kind]
    return z, draw(npst.arrays(np.float32, shape, elements=elements))


@pytest.mark.parametrize("loss", LOSSES)
@given(batch=batches())
def test_metrics_of_predictions_are_the_formulas(loss, batch):
    z, y = batch
    p = metrics.activate(loss, outputs_first(z)).numpy().swapaxes(1, 2)
    sums = torch_sums(p, y)
    for index in range(len(y)):
        for name, rows in numpy_rows(p[index], y[index]).items():
            assert sums[name].dtype == torch.float64
            assert sums[name][index] == pytest.approx(rows.sum(), rel=1e-5, abs=2e-6 * rows.size * y.shape[2]), name


@given(batch=batches(largest_logit=2.0**100))
def test_cross_entropies_come_from_logits_without_clipping(batch):
    z, y = batch
    wide = z.astype(np.float64)
    shifted = wide - wide.max(2, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(2, keepdims=True))
    categorical = -(y * log_softmax).sum(2)
    binary = (np.maximum(wide, 0) - wide * y + np.log1p(np.exp(-np.abs(wide)))).mean(2)
    for function, rows in (("categorical_crossentropy", categorical), ("binary_crossentropy", binary)):
        sums = getattr(metrics, function)(outputs_first(z), outputs_first(y))
        # Terms cancel: float32 keeps six digits of the largest.
        np.testing.assert_allclose(sums.numpy(), rows.sum(1), rtol=1e-5, atol=1e-5 * max(1, np.abs(z * y).max()))


def test_a_cross_entropy_far_exceeds_that_of_a_clipped_probability():
    logits, targets = torch.tensor([[[200.0], [0.0]]]), torch.tensor([[[0.0], [1.0]]])
    assert metrics.categorical_crossentropy(logits, targets).item() == 200
    assert metrics.binary_crossentropy(logits[:, :1], targets[:, :1]).item() == 200


@pytest.mark.parametrize("loss", LOSSES)
def test_metric_sums_are_the_ten_in_order(loss):
    rng = np.random.default_rng(1)
    outputs = 1 if loss == "binary_crossentropy" else 4
    z = outputs_first(rng.normal(size=(3, 50, outputs)).astype(np.float32))
    y = outputs_first(rng.integers(0, 2, (3, 50, outputs)).astype(np.float32))
    sums = dict(zip(METRICS, metrics.metric_sums(loss, z, y), strict=True))
    p = metrics.activate(loss, z)
    for name in set(METRICS) - {"loss", "hinge", "squared_hinge", "root_mean_squared_error"}:
        assert torch.equal(sums[name], getattr(metrics, name)(p, y))
    assert torch.equal(torch.stack(metrics.hinges(p, y)), torch.stack([sums["hinge"], sums["squared_hinge"]]))
    own = {"mean_squared_error": p}.get(loss, z)
    assert torch.equal(sums["loss"], getattr(metrics, loss)(own, y))


def test_argmax_takes_the_first_index_on_ties():
    predictions = torch.tensor([[[0.5, 0.2], [0.5, 0.4], [0.0, 0.4]]])  # two rows, three outputs
    targets = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])  # all zero: class 0; two-hot: class 1
    assert metrics.accuracy(predictions, targets).item() == 2


def test_accuracy_of_one_output_needs_targets_of_exactly_0_or_1():
    predictions, targets = torch.tensor([[[0.9, 0.9, 0.5, 0.2]]]), torch.tensor([[[1.0, 0.999, 0.0, 0.2]]])
    assert metrics.accuracy(predictions, targets).item() == 2


def test_hinge_targets_are_converted_batch_by_batch():
    p = torch.full((2, 1, 2), 0.25)
    y = torch.tensor([[[0.0, 1.0]], [[0.0, 0.5]]])
    hinge, squared_hinge = metrics.hinges(p, y)
    assert hinge.tolist() == [1.25 + 0.75, 1.0 + 0.875]
    assert squared_hinge.tolist() == [1.25**2 + 0.75**2, 1.0 + 0.875**2]


@pytest.mark.parametrize("target", [-1.0, 2.0, 1.0 + 2**-23, 1.0 - 2**-24, 1e-45, float("inf"), float("nan")])
def test_no_other_target_passes_for_binary(target):
    p, y = torch.full((1, 1, 2), 0.25), torch.tensor([[[target, 0.0]]])
    hinge, _ = metrics.hinges(p, y)
    unconverted = torch.relu(1 - 0.25 * y).double().sum()
    assert torch.equal(hinge, unconverted[None]) or hinge.isnan().item()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_values_stay_in_their_batch(loss, value):
    rng = np.random.default_rng(2)
    z = outputs_first(rng.normal(size=(3, 20, 3)).astype(np.float32))
    y = outputs_first(np.eye(3, dtype=np.float32)[rng.integers(0, 3, (3, 20))])
    healthy = metrics.metric_sums(loss, z, y)
    z[1, 0, 0] = value
    hit = metrics.metric_sums(loss, z, y)
    assert torch.equal(hit[:, [0, 2]], healthy[:, [0, 2]])
    if np.isnan(value):
        counted = METRICS.index("accuracy")
        assert hit[:, 1].isnan().sum() == len(METRICS) - 1
        assert 0 <= hit[counted, 1] <= 20


def test_epoch_values_pool_the_squared_error_and_add_the_penalty_to_the_loss_alone():
    sums = torch.full((len(METRICS), 2), 9.0, dtype=torch.float64)
    values = metrics.epoch_values(sums, torch.tensor([0.0, 8.0], dtype=torch.float64), rows=4)
    assert values.dtype == torch.float32
    by_name = dict(zip(METRICS, values.tolist(), strict=True))
    assert by_name.pop("loss") == [2.25, 4.25]
    assert by_name.pop("root_mean_squared_error") == [1.5, 1.5]
    assert set(map(tuple, by_name.values())) == {(2.25, 2.25)}
