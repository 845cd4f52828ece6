"""The comparison with Keras: that it passes, that it can fail, and what it says of folders it cannot use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import keras_parity
from butter_etl.errors import UsageError

GOLDEN = Path(__file__).parent / "golden"
CASE = GOLDEN / "softmax_sgd_momentum.npz"


def altered(folder, key, change):
    """A copy of one case in ``folder`` whose array ``key`` is changed."""
    with np.load(CASE) as file:
        arrays = dict(file)
    arrays[key] = change(arrays[key])
    np.savez(folder / "altered.npz", **arrays)
    return folder


def scale_third(values, factor):
    values = values.copy()
    values[2] *= factor
    return values


def test_every_case_agrees(capsys):
    assert keras_parity.main([str(GOLDEN)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert all(line.endswith("ok") for line in lines[:-1])
    assert lines[-1] == "10 of 10 cases agree with Keras (torch)"


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("history_val_loss", lambda values: scale_third(values, 1.0003)),
        ("history_hinge", lambda values: scale_third(values, 0.9997)),
        ("history_accuracy", lambda values: scale_third(values, np.nan)),
        ("weight1_0", lambda values: values + np.float32(2e-4)),
        ("weight1_3", lambda values: values * np.float32(np.inf)),
        ("weight0_0", lambda values: values * np.float32(1.01)),
    ],
)
def test_a_difference_beyond_tolerance_fails(tmp_path, capsys, key, change):
    assert keras_parity.main([str(altered(tmp_path, key, change))]) == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("DIFFERS")
    assert last.startswith("0 of 1 cases")


def test_a_difference_within_tolerance_passes(tmp_path):
    folder = altered(tmp_path, "history_val_loss", lambda values: scale_third(values, 1.00005))
    assert keras_parity.main([str(folder)]) == 0


def test_the_line_names_the_worst_history(tmp_path):
    folder = altered(tmp_path, "history_cosine_similarity", lambda values: scale_third(values, 1.01))
    (path,) = keras_parity.find_cases(folder)
    case = keras_parity.load_case(path)
    parity = keras_parity.compare(case, keras_parity.train_case(keras_parity.load_engine("torch"), case))
    assert parity.history == "cosine_similarity"
    assert parity.history_difference == pytest.approx(0.01, rel=0.1)
    assert not parity.within_tolerance


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_same_non_finite_value_agrees_and_any_other_differs(value):
    difference = keras_parity._largest_difference
    ours, one = np.array([1, value], dtype=np.float32), np.ones(2)
    assert difference(ours, ours.astype(np.float64), one) == 0
    assert difference(ours, one, one) == np.inf
    assert difference(np.ones(2, np.float32), ours, one) == np.inf


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_cases_is_bad_usage(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    assert keras_parity.main([str(tmp_path / name)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / name}: no .npz files" in line


def npy_bytes(folder):
    np.save(folder / "a.npy", np.zeros(3))
    return (folder / "a.npy").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        lambda _: b"",
        lambda _: b"text",
        lambda _: CASE.read_bytes()[:5000],
        npy_bytes,
        lambda folder: np.savez(folder / "b.npz", x_train=np.zeros(3)) or (folder / "b.npz").read_bytes(),
    ],
    ids=["empty", "text", "truncated", "npy", "other arrays"],
)
def test_a_file_that_is_no_recording_is_bad_usage(tmp_path, capsys, content):
    data = content(tmp_path)
    for file in tmp_path.iterdir():
        file.unlink()
    (tmp_path / "bad.npz").write_bytes(data)
    assert keras_parity.main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'bad.npz'}: not a recorded history" in line


def test_the_functions_raise_what_main_reports(tmp_path):
    with pytest.raises(UsageError, match=r"no \.npz files"):
        keras_parity.find_cases(tmp_path)


def test_an_unknown_engine_is_bad_usage(capsys):
    with pytest.raises(SystemExit, match="2"):
        keras_parity.main([str(GOLDEN), "--engine", "abacus"])
    assert "invalid choice" in capsys.readouterr().err
