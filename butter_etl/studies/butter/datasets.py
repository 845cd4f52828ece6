"""Data sets: which there are, how they come to this machine, and how their columns become a network's numbers.

Thirteen are PMLB's (https://github.com/EpistasisLab/pmlb), one ``.tsv.gz`` each, named by their SHA-256; others
scikit-learn carries with it; users bring their own (`butter_etl.studies.butter.own_data`). Only the driver downloads
and encodes (`ensure_dataset`, `keep_encoded`); tasks only read (`cached_dataset`).
Encoding, split and label noise follow the published framework but for the departures named at each function.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from butter_etl.engines import Loss, package_version
from butter_etl.errors import DatasetError, SpecError, suggestion
from butter_etl.studies.butter.encoded_files import encoded_path, is_encoded, read_encoded, write_encoded
from butter_etl.studies.butter.encoding import Task, count_test_rows, encode_features, encode_target
from butter_etl.studies.butter.experiments import ExperimentSpec, OwnData
from butter_etl.studies.downloads import OnDownload, UnreachableError, download

#: PMLB's repository by its present name; the pmlb package of 2020 reaches it through a redirect from the former one.
PMLB_URL = "https://github.com/EpistasisLab/pmlb/raw/master/datasets"
_LOG = logging.getLogger("butter_etl")
_LOADING = threading.Lock()


@dataclass(frozen=True)
class DatasetInfo:
    """The description of the data set that a name stands for.

    ``rows`` and ``features`` are the source's, ``inputs`` and ``outputs`` the columns after encoding. ``sha256`` holds
    the hashes of the ``.tsv.gz`` that are accepted, the present one first. With ``input_divisor``, all inputs are
    divided by it in place of the rule of `encode_column`. Of a user's own data set, made by `own_info`, ``sha256`` is
    that of the encoded content, and ``features`` are the encoded columns, since nothing else is kept.
    """

    name: str
    source: Literal["pmlb", "sklearn", "own"]
    task: Task
    rows: int
    features: int
    inputs: int
    outputs: int
    sha256: tuple[str, ...] = ()
    input_divisor: int | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def content(self) -> str:
        """Return the hash of a user's own data set, or that of the file as its makers publish it now."""
        return self.sha256[0]

    @property
    def own(self) -> OwnData | None:
        """Return what an experiment's identity says of the content; None for data sets that come with the package."""
        return OwnData(self.sha256[0], self.rows, self.inputs) if self.source == "own" else None

    @property
    def loss(self) -> Loss:
        """Return the loss that the task implies."""
        if self.task == "regression":
            return "mean_squared_error"
        return "categorical_crossentropy" if self.outputs > 1 else "binary_crossentropy"

    @property
    def output_activation(self) -> Literal["softmax", "sigmoid"]:
        """Return softmax for several classes, sigmoid for two and for regressions, whose targets lie in [0, 1]."""
        return "softmax" if self.loss == "categorical_crossentropy" else "sigmoid"

    @property
    def test_rows(self) -> int:
        """Return the number of rows that a run is tested on."""
        return count_test_rows(self.rows)

    @property
    def train_rows(self) -> int:
        """Return the number of rows that a run learns from."""
        return self.rows - self.test_rows


@dataclass(frozen=True)
class Dataset:
    """An encoded data set: ``x`` float32 (rows, inputs), C-contiguous, and ``y`` float32 (rows, outputs)."""

    info: DatasetInfo
    x: NDArray[np.float32]
    y: NDArray[np.float32]

    @cached_property
    def sha256(self) -> str:
        """Return the hash of the content; see `content_sha256`."""
        return content_sha256(self.info.task, self.x, self.y)


def content_sha256(task: Task, x: NDArray[np.float32], y: NDArray[np.float32]) -> str:
    """Return the hash by which an experiment's identity names a content: SHA-256 of a line of JSON, then both arrays.

    The line holds inputs, outputs, rows and task, keys sorted; arrays are little-endian float32, row by row.
    """
    shape = {"inputs": x.shape[1], "outputs": y.shape[1], "rows": len(x), "task": task}
    digest = hashlib.sha256(msgspec.json.encode(shape, order="sorted") + b"\n")
    for array in (x, y):
        digest.update(
            np.ascontiguousarray(array, dtype="<f4").data
        )  # without a copy, which large data have no room for
    return digest.hexdigest()


#: SHA-256 of each ``<name>.tsv.gz`` of PMLB that is accepted, the present one first.
_SHA256 = {
    "529_pollen": ("2e9414f0216e75296ba4211c567dd8a60d269273b38f8e00bd8fea3a37d2e654",),
    "connect_4": ("e283074e1123d23361332bd83414c172640d2596fc076d1e20e8f4a64a658137",),
    "537_houses": ("d383fd58bb79760ffaf0b615942fd47d926a19e75a8f980b79fbe9ad479d9cbf",),
    "mnist": ("5b1d8788d9512819fd46d1acf1e86e70cb5f4418c8e8bfe299ebd3abf2188217",),
    "201_pol": ("bfd1b9c6e5f6314f6ddfc285ace11381570ad688c6c857562c3155a4e478530d",),
    "sleep": ("da326113ba8074a5931eb92db0c9acbe8a0ffff62aa916b11a761bdef11231ce",),
    "wine_quality_white": ("0d39f17afc3a1712bd6c460aa941aed7835b3feb142538adfdd31ddc2451d60d",),
    "nursery": ("5e56c09fc2c6a983c031879fe7de5fc945c44db2ca65f10fc5f5b6fc770489ff",),
    "adult": ("fb8bc76eafa39558b6044907f23416faf99099cefb8afd06a2cf5afbdae1b506",),
    "505_tecator": ("4a2bfb8dd7b1b617c1d7ffe8ae85a3dade9178e5d5dd6aa049189843321e1ff3",),
    "294_satellite_image": ("4a65cdd640642af2c5d3c6a53b61e563156feb14bd26486dc9d5f47140c0690f",),
    "splice": ("30f7c126059de9f5962c41bbfbdee2926ea9432e4d620930ce6db79a43885510",),
    "banana": (
        "546c047502ad902c099a627f831f338bc77e824d2e7cadcc2733bd3d6a0a949e",
        # The file until October 2022, with targets -1 and 1: the one that BUTTER was made with.
        "f3ade821f9a0caebdd8b244319e66932c4b453ade027f42f86ed8ea1a50251ba",
    ),
}


def _pmlb(name: str, task: Task, sizes: tuple[int, int, int, int], input_divisor: int | None = None) -> DatasetInfo:
    return DatasetInfo(name, "pmlb", task, *sizes, sha256=_SHA256[name], input_divisor=input_divisor)


#: All data sets by name, those of PMLB in the order of the published document. The numbers are rows, features, inputs
#: and outputs. 201_pol, 294_satellite_image and banana are regressions on one response, as the document has it.
DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        _pmlb("529_pollen", "regression", (3848, 4, 4, 1)),
        _pmlb("connect_4", "classification", (67557, 42, 126, 3)),
        _pmlb("537_houses", "regression", (20640, 8, 8, 1)),
        _pmlb("mnist", "classification", (70000, 784, 784, 10), input_divisor=255),
        _pmlb("201_pol", "regression", (15000, 48, 26, 1)),
        _pmlb("sleep", "classification", (105908, 13, 141, 5)),
        _pmlb("wine_quality_white", "classification", (4898, 11, 11, 7)),
        _pmlb("nursery", "classification", (12958, 8, 26, 4)),
        _pmlb("adult", "classification", (48842, 14, 81, 1)),
        _pmlb("505_tecator", "regression", (240, 124, 124, 1)),
        _pmlb("294_satellite_image", "regression", (6435, 36, 36, 1)),
        _pmlb("splice", "classification", (3188, 60, 287, 3)),
        _pmlb("banana", "regression", (5300, 2, 2, 1)),
        DatasetInfo("digits", "sklearn", "classification", 1797, 64, 884, 10),
        DatasetInfo("breast_cancer", "sklearn", "classification", 569, 30, 30, 1),
        DatasetInfo("wine", "sklearn", "classification", 178, 13, 13, 3),
        DatasetInfo("diabetes", "sklearn", "regression", 442, 10, 10, 1),
    )
}


def dataset_info(name: str) -> DatasetInfo:
    """Return the data set called ``name``; raise SpecError with the names that come close."""
    if name in DATASETS:
        return DATASETS[name]
    raise SpecError(f"dataset: {unknown_dataset(str(name))}")


def unknown_dataset(name: str, known: Iterable[str] = ()) -> str:
    """Return the message about a data set that is neither the package's nor ``known``, with the name that comes close.

    That may be one of PMLB's, which a sweep file declares.
    """
    names = list(dict.fromkeys([*DATASETS, *known]))
    close = "" if name in pmlb_names() else suggestion(name, names) or suggestion(name, pmlb_names())
    meant = name if name in pmlb_names() else close.split("'")[1] if close else name
    if meant in pmlb_names() and meant not in names:
        way_out = f"{meant} is a data set of PMLB: declare it in a sweep file, under `datasets:`, by `pmlb: {meant}`"
    else:
        way_out = "declare your own data sets in a sweep file, under `datasets:`"
    return f"{name!r} is not known{close} (known: {', '.join(names)}); {way_out}"


def pmlb_names() -> tuple[str, ...]:
    """Return the names of PMLB's data sets, those that the package does not have too; none where pmlb is absent."""
    try:
        from pmlb import dataset_names
    except ModuleNotFoundError:
        return ()
    return tuple(dataset_names)


def own_info(name: str, task: Task, outputs: int, own: OwnData) -> DatasetInfo:
    """Return the description of a user's own data set."""
    return DatasetInfo(name, "own", task, own.rows, own.inputs, own.inputs, outputs, sha256=(own.sha256,))


def info_of(spec: ExperimentSpec) -> DatasetInfo:
    """Return the data set of an experiment.

    A user's own data set follows from the experiment alone, wherever its file is. Raises SpecError for an unknown name.
    """
    return dataset_info(spec.dataset) if spec.own is None else _own_info_of(spec)


@lru_cache(maxsize=4096)
def _own_info_of(spec: ExperimentSpec) -> DatasetInfo:
    if spec.own is None:
        raise AssertionError(spec)
    task: Task = "regression" if spec.loss == "mean_squared_error" else "classification"
    return own_info(spec.dataset, task, spec.outputs, spec.own)


def dataset_path(name: str, directory: str | Path) -> Path:
    """Return the path of a PMLB data set in ``directory``, in the layout of PMLB's own cache."""
    return Path(directory) / name / f"{name}.tsv.gz"


def ensure_dataset(
    name: str, directory: str | Path, *, base_url: str | None = None, on_progress: OnDownload | None = None
) -> None:
    """Make a data set available: download it to ``directory`` if it is absent, and check its SHA-256 either way.

    ``base_url`` is the folder URL of PMLB or of a mirror with its layout; by default BUTTER_ETL_PMLB_URL, else
    `PMLB_URL`. Several processes may do this at once: a file appears whole or not at all. Raises DatasetError if the
    file cannot be had or is not the one that the name stands for.
    """
    info = dataset_info(name)
    if info.source != "pmlb":
        return
    path = dataset_path(info.name, directory)
    if path.exists():
        found = _checked_sha256(info, path)
        if found != info.sha256[0]:
            _LOG.info("data set %s: %s is a version that PMLB has replaced since; accepted", name, path)
        return
    _download(info.name, info.sha256, path, base_url, on_progress)


def ensure_pmlb(name: str, directory: str | Path) -> Path:
    """Return the file of any data set of PMLB; download it to ``directory`` if it is absent.

    Its SHA-256 is checked if it is one that the package knows. Raises DatasetError if it cannot be had.
    """
    path = dataset_path(name, directory)
    if name in DATASETS and DATASETS[name].source == "pmlb":
        ensure_dataset(name, directory)
    elif not path.exists():
        _download(name, (), path, None, None)
    return path


def _download(
    name: str, sha256: tuple[str, ...], path: Path, base_url: str | None, on_progress: OnDownload | None
) -> None:
    """Download a file of PMLB, and check it against the hashes if any."""
    base = base_url or os.environ.get("BUTTER_ETL_PMLB_URL") or PMLB_URL
    url = f"{base.rstrip('/')}/{name}/{name}.tsv.gz"

    def check(downloaded: Path) -> None:
        found = _sha256(downloaded)
        if sha256 and found not in sha256:
            raise DatasetError(
                f"data set {name}: {url} has SHA-256 {found}, expected {' or '.join(sha256)}; "
                f"put PMLB's {path.name} at {path}, or name a mirror by BUTTER_ETL_PMLB_URL"
            )

    try:
        download(url, path, check, on_progress)
    except UnreachableError as error:
        close = "" if name in pmlb_names() else suggestion(name, pmlb_names())
        raise DatasetError(f"data set {name}{close}: {url} cannot be had ({error}); {_way_out(path)}") from error
    except OSError as error:
        raise DatasetError(f"data set {name}: {path} cannot be written ({error}); {_way_out(path)}") from error


def _checked_sha256(info: DatasetInfo, path: Path) -> str:
    try:
        found = _sha256(path)
    except OSError as error:
        raise DatasetError(f"data set {info.name}: {path} cannot be read ({error})") from error
    if found not in info.sha256:
        raise DatasetError(
            f"data set {info.name}: {path} has SHA-256 {found}, expected {' or '.join(info.sha256)}; "
            f"delete it to have it downloaded again, or put PMLB's file there"
        )
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _way_out(path: Path) -> str:
    return f"put PMLB's {path.name} at {path}, or name another folder by --data-dir or BUTTER_ETL_DATA"


def load_dataset(name: str, directory: str | Path) -> Dataset:
    """Read and encode a data set; never download.

    Raises DatasetError if its file is absent or not the one that the name stands for.
    """
    info = dataset_info(name)
    columns, target = _read_pmlb(info, directory) if info.source == "pmlb" else _read_sklearn(info)
    if info.input_divisor is None:
        x = encode_features(columns)
    else:
        x = np.stack(columns, axis=1, dtype=np.float32) / np.float32(info.input_divisor)
    y = encode_target(target, info.task)
    found = (len(target), len(columns), x.shape[1], y.shape[1])
    expected = (info.rows, info.features, info.inputs, info.outputs)
    if found != expected:
        raise DatasetError(
            f"data set {name}: (rows, features, inputs, outputs) are {found}, expected {expected}; "
            f"a version of pmlb, pandas or scikit-learn may read it differently"
        )
    return Dataset(info, x, y)


def cached_dataset(name: str, directory: str | Path) -> Dataset:
    """Return what `load_dataset` does, of its encoded file if there is one, remembering the last few data sets.

    There is one copy for all threads of a worker process: do not write to it.
    """
    with _LOADING:  # else two threads would load the same one
        return _remembered_dataset(name, directory)


@lru_cache(maxsize=3)
def _remembered_dataset(name: str, directory: str | Path) -> Dataset:
    info = dataset_info(name)
    found = read_encoded(encoded_path(name, directory), _source(info, directory))
    if found is None:
        return load_dataset(name, directory)
    x, y, sha256 = found
    dataset = Dataset(info, x, y)
    if dataset.sha256 == sha256 and (x.shape, y.shape) == ((info.rows, info.inputs), (info.rows, info.outputs)):
        return dataset
    _LOG.warning("%s has other content than it says; the data set is encoded anew", encoded_path(name, directory))
    return load_dataset(name, directory)


def keep_encoded(name: str, directory: str | Path) -> None:
    """Write the encoded file of a data set, unless there is one: workers read it in place of the source.

    Where the folder may only be read, they encode the source themselves; the log says so. Raises what `load_dataset`
    raises.
    """
    info, path = dataset_info(name), encoded_path(name, directory)
    source = _source(info, directory)
    if is_encoded(path, source):
        return
    dataset = load_dataset(name, directory)
    try:
        write_encoded(path, source, dataset.x, dataset.y, dataset.sha256)
    except OSError as error:
        _LOG.info("data set %s: %s cannot be written (%s); each worker encodes it", name, path, error)


def _source(info: DatasetInfo, directory: str | Path) -> str:
    """Return what a data set is encoded from: the SHA-256 of PMLB's file, or scikit-learn by its version.

    Raises DatasetError if the file is absent or not the one that the name stands for.
    """
    if info.source != "pmlb":
        return f"scikit-learn {package_version('scikit-learn')}"
    return _checked_sha256(info, _present(info, directory))


def _present(info: DatasetInfo, directory: str | Path) -> Path:
    path = dataset_path(info.name, directory)
    if not path.is_file():
        raise DatasetError(f"data set {info.name}: {path} is absent; {_way_out(path)}")
    return path


def _read_pmlb(info: DatasetInfo, directory: str | Path) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    # pmlb would download an absent file, and reads a damaged one as far as it goes: both are ruled out before.
    _checked_sha256(info, _present(info, directory))
    from pmlb import fetch_data

    # No file has a missing value; pmlb's way to drop them is deprecated in pandas 3.
    frame = fetch_data(info.name, local_cache_dir=str(directory), dropna=False)
    features = frame.drop(columns="target")
    return [features[column].to_numpy() for column in features], frame["target"].to_numpy()


def _read_sklearn(info: DatasetInfo) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{info.name}")()
    return list(bunch.data.T), bunch.target
