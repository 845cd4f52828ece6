"""Data sets: the table against real files, the encoding rule, downloads, splits and label noise."""

from __future__ import annotations

import gzip
import hashlib
import logging
import math
import socket
from dataclasses import FrozenInstanceError, replace
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import DatasetError, SpecError, UsageError
from butter_etl.studies.butter import datasets, encoding
from butter_etl.studies.butter.costs import default_rates, load_rates
from butter_etl.studies.butter.datasets import (
    DATASETS,
    DatasetInfo,
    cached_dataset,
    dataset_info,
    dataset_path,
    ensure_dataset,
    ensure_pmlb,
    load_dataset,
)
from butter_etl.studies.butter.encoding import encode_column, encode_features, encode_target, noisy_targets, split_rows
from butter_etl.studies.user_folders import data_folder

SEEDS = st.integers(0, 2**63 - 1)

# rows, training rows, test rows, N, K, loss, output activation: the published figures, with the tasks of the document
# (201_pol and 294_satellite_image with one response).
PUBLISHED = {
    "529_pollen": (3848, 3078, 770, 4, 1, "mean_squared_error", "sigmoid"),
    "connect_4": (67557, 54045, 13512, 126, 3, "categorical_crossentropy", "softmax"),
    "537_houses": (20640, 16512, 4128, 8, 1, "mean_squared_error", "sigmoid"),
    "mnist": (70000, 56000, 14000, 784, 10, "categorical_crossentropy", "softmax"),
    "201_pol": (15000, 12000, 3000, 26, 1, "mean_squared_error", "sigmoid"),
    "sleep": (105908, 84726, 21182, 141, 5, "categorical_crossentropy", "softmax"),
    "wine_quality_white": (4898, 3918, 980, 11, 7, "categorical_crossentropy", "softmax"),
    "nursery": (12958, 10366, 2592, 26, 4, "categorical_crossentropy", "softmax"),
    "adult": (48842, 39073, 9769, 81, 1, "binary_crossentropy", "sigmoid"),
    "505_tecator": (240, 192, 48, 124, 1, "mean_squared_error", "sigmoid"),
    "294_satellite_image": (6435, 5148, 1287, 36, 1, "mean_squared_error", "sigmoid"),
    "splice": (3188, 2550, 638, 287, 3, "categorical_crossentropy", "softmax"),
    "banana": (5300, 4240, 1060, 2, 1, "mean_squared_error", "sigmoid"),
}
CARRIED = ("digits", "breast_cancer", "wine", "diabetes")

# Rows a label, labels ascending.
LABELS = {
    "connect_4": (6449, 16635, 44473),
    "sleep": (21359, 9052, 52698, 10832, 11967),
    "wine_quality_white": (20, 163, 1457, 2198, 880, 175, 5),
    "nursery": (4320, 4266, 4044, 328),
    "splice": (764, 769, 1655),
}


def real_dataset(name: str, directory: Path) -> datasets.Dataset:
    if DATASETS[name].source == "pmlb" and not dataset_path(name, directory).exists():
        pytest.skip(f"no {dataset_path(name, directory)}; name a folder that has it by BUTTER_ETL_TEST_PMLB")
    return cached_dataset(name, directory)


# --- the table -------------------------------------------------------------------------------------------------------


def test_names_are_in_the_order_of_the_document():
    assert tuple(DATASETS) == (*PUBLISHED, *CARRIED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_table_has_the_published_figures(name):
    info = dataset_info(name)
    assert PUBLISHED[name] == (
        info.rows,
        info.train_rows,
        info.test_rows,
        info.inputs,
        info.outputs,
        info.loss,
        info.output_activation,
    )
    assert all(len(digest) == 64 for digest in info.sha256)
    assert len(info.sha256) == (2 if name == "banana" else 1)


def test_infos_are_frozen():
    with pytest.raises(FrozenInstanceError):
        dataset_info("wine").rows = 1


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("294_satellite_images", "(did you mean '294_satellite_image'?)"),
        ("wine_quality", "wine_quality_white"),
        ("q", ""),
    ],
)
def test_unknown_names_are_the_users_slip(name, hint):
    with pytest.raises(SpecError) as caught:
        dataset_info(name)
    message = str(caught.value)
    assert repr(name) in message
    assert hint in message
    assert all(known in message for known in DATASETS)
    assert "\n" not in message


# --- real files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PUBLISHED, *CARRIED])
def test_real_data_set_is_encoded_as_the_table_says(name, pmlb_dir):
    dataset = real_dataset(name, pmlb_dir)
    info = dataset_info(name)
    assert dataset.info is info
    assert dataset.x.shape == (info.rows, info.inputs)
    assert dataset.y.shape == (info.rows, info.outputs)
    for array in (dataset.x, dataset.y):
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.min() == 0
        assert array.max() == 1


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_mapped_in_ascending_order(name, pmlb_dir):
    y = real_dataset(name, pmlb_dir).y
    assert tuple(y.sum(axis=0, dtype=np.int64)) == LABELS[name]
    assert np.all(y.sum(axis=1) == 1)


def test_banana_is_one_where_the_target_is_the_first_rows(pmlb_dir):
    y = real_dataset("banana", pmlb_dir).y
    assert y[0] == 1
    assert y.sum() == 2924


@pytest.mark.parametrize(
    ("name", "low", "high", "mean", "std"),
    [
        ("505_tecator", 0.9, 58.5, 18.50, 14.33),
        ("529_pollen", -12.04, 10.87, 0.00, 3.14),
        ("537_houses", 14999, 500001, 206855.8, 115392.8),
    ],
)
def test_responses_are_scaled_linearly(name, low, high, mean, std, pmlb_dir):
    y = real_dataset(name, pmlb_dir).y.astype(np.float64)
    assert (high - low) * y.mean() + low == pytest.approx(mean, abs=0.01 * std)
    assert (high - low) * y.std() == pytest.approx(std, rel=0.01)


def test_201_pol_is_one_response_of_eleven_values(pmlb_dir):
    y = real_dataset("201_pol", pmlb_dir).y
    np.testing.assert_array_equal(np.unique(y), np.linspace(0, 1, 11).astype(np.float32))
    assert (np.count_nonzero(y == 0), np.count_nonzero(y == 1)) == (9342, 3005)


def test_one_hot_blocks_sum_to_one_in_each_row(pmlb_dir):
    x = real_dataset("connect_4", pmlb_dir).x
    assert np.all(x.reshape(len(x), 42, 3).sum(axis=2) == 1)


def test_breast_cancer_is_binary():
    dataset = load_dataset("breast_cancer", "unused")
    assert dataset.y.shape == (569, 1)
    assert dataset.y[0] == 1
    assert dataset.y.sum() == 212
    assert (dataset.info.loss, dataset.info.output_activation) == ("binary_crossentropy", "sigmoid")


def test_a_process_reads_a_data_set_once():
    assert cached_dataset("wine", "unused") is cached_dataset("wine", "unused")


# --- the encoding rule -----------------------------------------------------------------------------------------------


def encoded_by_hand(values: list[float]) -> list[list[float]]:
    distinct = sorted(set(values))
    if len(distinct) == 1:
        return [[] for _ in values]
    if len(distinct) == 2:
        return [[float(value == values[0])] for value in values]
    if len(distinct) <= 20:
        return [[float(value == category) for category in distinct] for value in values]
    low, high = distinct[0], distinct[-1]
    return [[(value - low) / (high - low)] for value in values]


@st.composite
def columns(draw: st.DrawFn) -> list[float]:
    number = st.one_of(st.integers(-1000, 1000), st.integers(-1000, 1000).map(lambda value: value / 7))
    distinct = draw(st.lists(number, min_size=1, max_size=draw(st.sampled_from([1, 2, 3, 20, 21, 30])), unique=True))
    repeated = draw(st.lists(st.sampled_from(distinct), max_size=20))
    return draw(st.permutations(distinct + repeated))


@given(columns())
def test_one_rule_encodes_every_column(values):
    encoded = encode_column(np.array(values))
    assert encoded.dtype == np.float32
    np.testing.assert_array_equal(encoded, np.array(encoded_by_hand(values), dtype=np.float32))


@pytest.mark.parametrize(("distinct", "width"), [(1, 0), (2, 1), (3, 3), (20, 20), (21, 1), (300, 1)])
def test_distinct_values_decide_the_width(distinct, width):
    assert encode_column(np.arange(600) % distinct).shape == (600, width)


def test_words_are_one_hot_however_many():
    words = np.array([f"w{i:02d}" for i in range(30)], dtype=object)
    np.testing.assert_array_equal(encode_column(words), np.eye(30))
    np.testing.assert_array_equal(encode_column(words[[1, 0, 1]]), [[1], [0], [1]])


def test_columns_keep_the_source_order():
    x = encode_features([np.array([5, 5, 5]), np.array([2, 9, 2]), np.array([3, 1, 2]), np.array([7, 7, 8])])
    np.testing.assert_array_equal(x, [[1, 0, 0, 1, 1], [0, 1, 0, 0, 1], [1, 0, 1, 0, 0]])
    assert x.flags.c_contiguous


def test_scaled_columns_join_row_by_row():
    x = encode_features([np.arange(40.0), np.arange(40.0) ** 2])
    assert x.flags.c_contiguous
    assert x.shape == (40, 2)


def test_targets_are_classes_or_a_response():
    labels = np.array([7, 3, 5, 3])
    np.testing.assert_array_equal(encode_target(labels, "classification"), [[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(encode_target(labels, "regression"), [[1], [0], [0.5], [0]])
    many = np.arange(30)
    np.testing.assert_array_equal(encode_target(many, "classification"), np.eye(30))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("values", [[-1.0, 1.0, -1.0], [0, 1, 0]])
def test_targets_of_two_values_are_one_where_they_equal_the_first(task, values):
    np.testing.assert_array_equal(encode_target(np.array(values), task), [[1], [0], [1]])


# --- folders and files -----------------------------------------------------------------------------------------------


def test_data_dir_is_the_option_else_the_variable_else_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BUTTER_ETL_DATA", "/from/variable")
    assert data_folder("/from/option") == Path("/from/option")
    assert data_folder("~/data") == tmp_path / "data"
    assert data_folder(None) == Path("/from/variable")
    monkeypatch.setenv("BUTTER_ETL_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert data_folder(None) == Path("/cache/butter_etl/pmlb")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_folder() == tmp_path / ".cache" / "butter_etl" / "pmlb"


@pytest.fixture
def content(monkeypatch) -> bytes:
    """The file of a data set called `tiny`, three rows and two features, that is added to the table."""
    compressed = gzip.compress(b"a\tb\ttarget\n1\t4\t0\n2\t5\t1\n3\t5\t2\n", mtime=0)
    digest = hashlib.sha256(compressed).hexdigest()
    tiny = DatasetInfo("tiny", "pmlb", "classification", 3, 2, 4, 3, sha256=(digest,))
    monkeypatch.setitem(DATASETS, "tiny", tiny)
    return compressed


def place(content: bytes, directory: Path) -> Path:
    path = dataset_path("tiny", directory)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def one_line(caught: pytest.ExceptionInfo[DatasetError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_loading_reads_what_lies_there(content, tmp_path):
    place(content, tmp_path)
    dataset = load_dataset("tiny", tmp_path)
    np.testing.assert_array_equal(dataset.x, [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(dataset.y, np.eye(3))


def test_a_divisor_replaces_the_rule_for_inputs(content, monkeypatch, tmp_path):
    monkeypatch.setitem(DATASETS, "tiny", replace(DATASETS["tiny"], inputs=2, input_divisor=2))
    place(content, tmp_path)
    dataset = load_dataset("tiny", tmp_path)
    np.testing.assert_array_equal(dataset.x, [[0.5, 2], [1, 2.5], [1.5, 2.5]])
    assert dataset.x.dtype == np.float32
    assert dataset.x.flags.c_contiguous


def test_loading_never_downloads(content, monkeypatch, tmp_path):
    monkeypatch.setattr("requests.get", lambda *args, **kwargs: pytest.fail("asked the network"))
    with pytest.raises(DatasetError) as caught:
        load_dataset("tiny", tmp_path)
    message = one_line(caught)
    assert str(dataset_path("tiny", tmp_path)) in message
    assert "--data-dir" in message
    assert "BUTTER_ETL_DATA" in message


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"version https://git-lfs"])
def test_a_damaged_file_is_refused(damage, content, tmp_path):
    path = place(damage(content), tmp_path)
    for step in (load_dataset, ensure_dataset):
        with pytest.raises(DatasetError) as caught:
            step("tiny", tmp_path)
        message = one_line(caught)
        assert str(path) in message
        assert hashlib.sha256(path.read_bytes()).hexdigest() in message
        assert DATASETS["tiny"].sha256[0] in message
        assert "delete it" in message
    assert path.read_bytes() == damage(content)


@pytest.mark.parametrize("field_name", ["rows", "features", "inputs", "outputs"])
def test_a_data_set_of_other_sizes_is_refused(field_name, content, monkeypatch, tmp_path):
    tiny = DATASETS["tiny"]
    monkeypatch.setitem(DATASETS, "tiny", replace(tiny, **{field_name: getattr(tiny, field_name) + 1}))
    place(content, tmp_path)
    with pytest.raises(DatasetError, match="expected"):
        load_dataset("tiny", tmp_path)


def test_a_folder_in_place_of_the_file_is_named(content, tmp_path):
    dataset_path("tiny", tmp_path).mkdir(parents=True)
    with pytest.raises(DatasetError, match="cannot be read"):
        ensure_dataset("tiny", tmp_path)


# --- downloads -------------------------------------------------------------------------------------------------------


def files_under(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_an_absent_file_is_downloaded_once(content, mirror, tmp_path):
    mirror.files["/datasets/tiny/tiny.tsv.gz"] = content
    progress = []
    target = tmp_path / "new" / "folder"
    for _ in range(2):
        ensure_dataset("tiny", target, base_url=mirror.url, on_progress=lambda *counts: progress.append(counts))
    assert files_under(tmp_path) == [dataset_path("tiny", target)]
    assert dataset_path("tiny", target).read_bytes() == content
    assert mirror.asked == ["/datasets/tiny/tiny.tsv.gz"]
    assert progress[-1] == (len(content), len(content))
    assert load_dataset("tiny", target).x.shape == (3, 4)


def test_the_length_need_not_be_announced(content, mirror, tmp_path):
    mirror.files["/datasets/tiny/tiny.tsv.gz"] = content
    mirror.announce = False
    progress = []
    ensure_dataset("tiny", tmp_path, base_url=mirror.url, on_progress=lambda *counts: progress.append(counts))
    assert progress[-1] == (len(content), None)


def test_other_data_sets_of_pmlb_are_downloaded_unless_they_are_there(mirror, monkeypatch, tmp_path):
    monkeypatch.setenv("BUTTER_ETL_PMLB_URL", mirror.url)
    mirror.files["/datasets/mushroom/mushroom.tsv.gz"] = b"whatever it holds"
    for _ in range(2):
        path = ensure_pmlb("mushroom", tmp_path)
        assert path.read_bytes() == b"whatever it holds"
    assert (path, mirror.asked) == (dataset_path("mushroom", tmp_path), ["/datasets/mushroom/mushroom.tsv.gz"])
    with pytest.raises(
        DatasetError, match=r"data set mushrom \(did you mean 'mushroom'\?\): .*404.*put PMLB's mushrom.tsv.gz at"
    ):
        ensure_pmlb("mushrom", tmp_path)
    dataset_path("banana", tmp_path).parent.mkdir()
    dataset_path("banana", tmp_path).write_bytes(b"another file")
    with pytest.raises(DatasetError, match=r"data set banana: .* has SHA-256"):
        ensure_pmlb("banana", tmp_path)


def test_the_variable_names_a_mirror(content, mirror, monkeypatch, tmp_path):
    mirror.files["/datasets/tiny/tiny.tsv.gz"] = content
    monkeypatch.setenv("BUTTER_ETL_PMLB_URL", f"{mirror.url}/")
    ensure_dataset("tiny", tmp_path)
    assert dataset_path("tiny", tmp_path).read_bytes() == content


def test_a_real_file_comes_through(mirror, pmlb_dir, tmp_path):
    real_dataset("nursery", pmlb_dir)
    mirror.files["/datasets/nursery/nursery.tsv.gz"] = dataset_path("nursery", pmlb_dir).read_bytes()
    ensure_dataset("nursery", tmp_path, base_url=mirror.url)
    assert load_dataset("nursery", tmp_path).x.shape == (12958, 26)


def test_other_content_is_refused_and_removed(content, mirror, tmp_path):
    mirror.files["/datasets/tiny/tiny.tsv.gz"] = other = b"something else"
    with pytest.raises(DatasetError) as caught:
        ensure_dataset("tiny", tmp_path, base_url=mirror.url)
    message = one_line(caught)
    assert str(dataset_path("tiny", tmp_path)) in message
    assert hashlib.sha256(other).hexdigest() in message
    assert DATASETS["tiny"].sha256[0] in message
    assert files_under(tmp_path) == []


def connection_problem(directory: Path, url: str) -> str:
    with pytest.raises(DatasetError) as caught:
        ensure_dataset("tiny", directory, base_url=url)
    message = one_line(caught)
    assert f"put PMLB's tiny.tsv.gz at {dataset_path('tiny', directory)}" in message
    assert "--data-dir" in message
    assert "BUTTER_ETL_DATA" in message
    assert files_under(directory) == []
    return message


def test_a_missing_page_says_where_to_put_the_file(content, mirror, tmp_path):
    assert "404" in connection_problem(tmp_path, mirror.url)


def test_a_cut_connection_says_where_to_put_the_file(content, mirror, tmp_path):
    mirror.files["/datasets/tiny/tiny.tsv.gz"] = content
    mirror.cut = True
    assert f"{mirror.url}/tiny/tiny.tsv.gz cannot be had (" in connection_problem(tmp_path, mirror.url)


def test_a_refused_connection_says_where_to_put_the_file(content, monkeypatch, tmp_path):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert f"{url}/tiny/tiny.tsv.gz cannot be had (" in connection_problem(tmp_path, url)


def test_a_folder_that_cannot_be_written_is_named(content, mirror, tmp_path):
    mirror.files["/datasets/tiny/tiny.tsv.gz"] = content
    (tmp_path / "tiny").write_text("a file where the folder should be")
    with pytest.raises(DatasetError, match="cannot be written"):
        ensure_dataset("tiny", tmp_path, base_url=mirror.url)


def test_the_older_banana_is_accepted_with_a_word(caplog, pmlb_dir):
    path = dataset_path("banana", pmlb_dir)
    real_dataset("banana", pmlb_dir)
    older = hashlib.sha256(path.read_bytes()).hexdigest() == DATASETS["banana"].sha256[1]
    with caplog.at_level(logging.INFO, logger="butter_etl"):
        ensure_dataset("banana", pmlb_dir)
    assert any("replaced" in message for message in caplog.messages) == older


@pytest.mark.parametrize("name", CARRIED)
def test_what_scikit_learn_carries_needs_no_file(name, tmp_path):
    ensure_dataset(name, tmp_path / "absent")
    assert load_dataset(name, tmp_path / "absent").info is DATASETS[name]
    assert not (tmp_path / "absent").exists()


# --- split and label noise -------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 400))
def test_splits_are_disjoint_complete_and_reproducible(seed, rows):
    train, tested = split_rows(seed, rows)
    assert tested.size == math.ceil(rows / 5)
    assert train.dtype == tested.dtype == np.int64
    np.testing.assert_array_equal(np.sort(np.concatenate([train, tested])), np.arange(rows))
    again = split_rows(seed, rows)
    np.testing.assert_array_equal(again[0], train)
    np.testing.assert_array_equal(again[1], tested)


def test_every_run_has_its_own_split():
    assert len({tuple(split_rows(seed, 100)[1]) for seed in range(50)}) == 50


def test_splits_are_frozen():
    train, tested = split_rows(20220602, 12)
    assert train.tolist() == [6, 11, 8, 4, 10, 1, 2, 5, 9]
    assert tested.tolist() == [0, 3, 7]


LEVELS = st.integers(0, 100).map(lambda percent: percent / 100)


def rows_to_change(level: float, rows: int) -> int:
    return int((Decimal(str(level)) * rows).to_integral_value(rounding=ROUND_FLOOR))


@given(SEEDS, LEVELS, st.integers(2, 8), st.integers(1, 120))
def test_noise_moves_exactly_so_many_rows_to_wrong_classes(seed, level, classes, rows):
    labels = np.arange(rows) * 7 % classes
    targets = np.eye(classes, dtype=np.float32)[labels]
    before = targets.copy()
    noisy = noisy_targets(seed, targets, level, "categorical_crossentropy")
    assert noisy.dtype == np.float32
    assert set(np.unique(noisy)) <= {0.0, 1.0}
    assert np.all(noisy.sum(axis=1) == 1)
    assert np.count_nonzero(noisy.argmax(axis=1) != labels) == rows_to_change(level, rows)
    np.testing.assert_array_equal(targets, before)


@given(SEEDS, LEVELS, st.integers(1, 120))
def test_noise_flips_exactly_so_many_binary_rows(seed, level, rows):
    targets = (np.arange(rows) % 3 == 0).astype(np.float32)[:, np.newaxis]
    noisy = noisy_targets(seed, targets, level, "binary_crossentropy")
    assert set(np.unique(noisy)) <= {0.0, 1.0}
    assert np.count_nonzero(noisy != targets) == rows_to_change(level, rows)


@pytest.mark.parametrize(("level", "rows", "expected"), [(0.29, 100, 29), (0.05, 3078, 153), (0.15, 60, 9)])
@pytest.mark.parametrize("kind", [float, np.float32])
def test_noisy_rows_are_counted_in_decimals(kind, level, rows, expected):
    assert encoding.count_noisy_rows(kind(level), rows) == expected


def test_wrong_classes_are_drawn_uniformly():
    targets = np.tile(np.eye(5, dtype=np.float32)[2], (8000, 1))
    moved = noisy_targets(3, targets, 1.0, "categorical_crossentropy").sum(axis=0)
    assert moved[2] == 0
    np.testing.assert_allclose(moved[[0, 1, 3, 4]], 2000, atol=150)


def test_noisy_rows_are_drawn_uniformly():
    targets = np.zeros((20, 1), dtype=np.float32)
    flipped = sum(noisy_targets(seed, targets, 0.2, "binary_crossentropy") for seed in range(1000))
    np.testing.assert_allclose(flipped, 200, atol=60)


def test_noise_of_a_response_is_gaussian_in_all_rows():
    targets = (split_rows(1, 25000)[0] / 25000).astype(np.float32)[:, np.newaxis]
    noisy = noisy_targets(5, targets, 0.2, "mean_squared_error")
    assert noisy.dtype == np.float32
    added = noisy.astype(np.float64) - targets
    assert np.count_nonzero(added) > 0.999 * added.size
    assert added.mean() == pytest.approx(0, abs=0.001)
    assert added.std() == pytest.approx(0.2 * targets.std(), rel=0.02)
    assert noisy.min() < 0
    assert noisy.max() > 1


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy", "mean_squared_error"])
def test_no_noise_leaves_the_targets(loss):
    targets = np.eye(4, dtype=np.float32)
    assert noisy_targets(1, targets, 0.0, loss) is targets


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy", "mean_squared_error"])
def test_noise_is_the_runs_own_and_reproducible(loss):
    targets = np.zeros((200, 1 if loss == "binary_crossentropy" else 3), dtype=np.float32)
    targets[::2, 0] = 1
    first, second, other = (noisy_targets(seed, targets, 0.1, loss) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)


def test_noise_touches_no_test_target():
    dataset = load_dataset("wine", "unused")
    before = dataset.y.copy()
    train, tested = split_rows(9, len(before))
    noisy = noisy_targets(9, dataset.y[train], 0.2, dataset.info.loss)
    assert np.any(noisy != before[train])
    np.testing.assert_array_equal(dataset.y, before)
    np.testing.assert_array_equal(dataset.y[tested], before[tested])


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    """As in containers: neither a variable nor an entry of the user."""
    for name in ("HOME", "XDG_CACHE_HOME", "BUTTER_ETL_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**30)
    with pytest.raises(UsageError, match="set HOME or XDG_CACHE_HOME"):
        data_folder(None)
    with pytest.raises(UsageError, match=r"~nobody-of-that-name/x: no such home folder"):
        data_folder("~nobody-of-that-name/x")
    assert load_rates("fused", "cpu") == default_rates("fused", "cpu")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert data_folder(None) == Path("/cache/butter_etl/pmlb")
