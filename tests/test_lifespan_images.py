"""Image sets: read as their makers publish them, refused in one line where they are damaged or absent."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import pickletools
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from butter_etl.errors import DatasetError
from butter_etl.studies.lifespans import images
from butter_etl.studies.lifespans.images import ImageSet, cached_images, ensure_images, image_set, load_images

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
RNG = np.random.default_rng(1)


@pytest.fixture
def tiny(monkeypatch):
    """All sets with twelve images to learn from and five to measure on."""
    small = {
        name: ImageSet(name, one.channels, one.size, one.classes, 12, 5, one.brightest)
        for name, one in images.IMAGE_SETS.items()
    }
    monkeypatch.setattr(images, "IMAGE_SETS", small)


def part(count, channels, size, classes):
    return RNG.integers(0, 256, (count, size, size, channels), np.uint8), RNG.integers(0, classes, count)


def idx(array):
    head = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


def write_fashion(folder, train, test, packed=True):
    folder.mkdir(parents=True)
    names = images._IDX
    for name, array in zip(names, (train[0][..., 0], train[1], test[0][..., 0], test[1]), strict=True):
        path = folder / f"{name}.gz" if packed else folder / name
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))


def assert_is(found, train, test):
    for mine, theirs in ((found.train, train), (found.test, test)):
        assert mine.images.dtype == np.uint8
        assert np.array_equal(mine.images, theirs[0])
        assert mine.labels.dtype == np.int64
        assert np.array_equal(mine.labels, theirs[1])


@pytest.mark.parametrize("place", ["FashionMNIST/raw", "FashionMNIST", "fashion-mnist"])
@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist(tiny, tmp_path, place, packed):
    train, test = part(12, 1, 28, 10), part(5, 1, 28, 10)
    write_fashion(tmp_path / place, train, test, packed)
    assert_is(load_images("FashionMNIST", tmp_path), train, test)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_as_debian_has_it(tmp_path):
    found = load_images("FashionMNIST", tmp_path)
    assert found.train.images.shape == (60_000, 28, 28, 1)
    assert np.bincount(found.train.labels).tolist() == [6_000] * 10
    assert np.bincount(found.test.labels).tolist() == [1_000] * 10
    assert found.train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    assert found.sha256 == "ece172613115fb18b120bec8f6c02271af90b8b8f0a5af5c51cbd5ceed68e619"
    ensure_images("FashionMNIST", tmp_path)
    assert list(tmp_path.iterdir()) == []


def cifar_binary(one):
    pixels, labels = one
    records = [np.zeros((len(labels), 1), np.uint8), labels[:, None].astype(np.uint8)]
    return np.concatenate([*records, pixels.transpose(0, 3, 1, 2).reshape(len(labels), -1)], axis=1).tobytes()


def cifar_pickle(one):
    pixels, labels = one
    data = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).reshape(len(labels), -1))
    return as_python_2(pickle.dumps({b"data": data, b"fine_labels": labels.tolist(), b"filenames": [b"a.png"]}, 3))


def as_python_2(data):
    """The pickle with its bytes as Python 2 wrote them: as the same texts of its own."""
    old = bytearray(data)
    for operation, _, place in pickletools.genops(data):
        if operation.name == "PROTO":
            old[place + 1] = 2
        elif operation.name in ("SHORT_BINBYTES", "BINBYTES"):
            old[place] = ord("U" if operation.name == "SHORT_BINBYTES" else "T")
    return bytes(old)


@pytest.mark.parametrize("form", ["binary", "python", "binary.tar.gz", "python.tar.gz"])
@pytest.mark.parametrize("inner", ["", "CIFAR100"])
def test_cifar_100(tiny, tmp_path, form, inner):
    train, test = part(12, 3, 32, 100), part(5, 3, 32, 100)
    kind, _, packed = form.partition(".")
    name = f"cifar-100-{kind}"
    write = cifar_binary if kind == "binary" else cifar_pickle
    contents = dict(zip(images._CIFAR[name], map(write, (train, test)), strict=True))
    place = tmp_path / inner
    place.mkdir(exist_ok=True)
    if packed:
        with tarfile.open(place / f"{name}.tar.gz", "w:gz") as tar:
            for part_name, data in contents.items():
                member = tarfile.TarInfo(f"{name}/{part_name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    else:
        (place / name).mkdir()
        for part_name, data in contents.items():
            (place / name / part_name).write_bytes(data)
    assert_is(load_images("CIFAR100", tmp_path), train, test)


def test_a_pickle_that_asks_for_more_than_arrays_is_refused(tiny, tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps({b"data": Path("harmless")}))
    with pytest.raises(DatasetError, match=r"train: cannot be read \(asks for pathlib\.\w+, which no array needs\)"):
        load_images("CIFAR100", tmp_path)


def test_svhn(tiny, tmp_path):
    train, test = part(12, 3, 32, 10), part(5, 3, 32, 10)
    (tmp_path / "SVHN").mkdir()
    for name, (pixels, labels) in zip(images._SVHN, (train, test), strict=True):
        written = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(tmp_path / "SVHN" / name, {"X": pixels.transpose(1, 2, 3, 0), "y": written})
    assert_is(load_images("SVHN", tmp_path), train, test)


def test_digits_have_a_rim():
    found = load_images("digits", "unused")
    assert found.train.images.shape == (1437, 12, 12, 1)
    assert found.train.images.max() == found.info.brightest == 16
    assert not found.train.images[:, :2].any()
    assert found.train.images[0, 2:-2, 2:-2, 0].sum() == 294
    assert cached_images("digits", "unused") is cached_images("digits", "unused")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FashionMNIST", r"train-images-idx3-ubyte\(\.gz\) and three more are in none of .*dataset-fashion-mnist"),
        ("CIFAR100", r"neither cifar-100-binary nor cifar-100-python, or the \.tar\.gz of one, is in"),
        ("SVHN", r"train_32x32\.mat and test_32x32\.mat are not in"),
    ],
)
def test_absent_files_are_named_with_the_way_out(name, message, tmp_path, monkeypatch):
    monkeypatch.setattr(images.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(images, "_SYSTEM", ())
    with pytest.raises(DatasetError, match=message) as caught:
        load_images(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_none_has_the_closest_one_named():
    with pytest.raises(DatasetError, match=r"'CIFAR10' is not known.*CIFAR100.*known: CIFAR100, FashionMNIST"):
        image_set("CIFAR10")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], r"has 47 bytes for \[12, 2, 2\]"),
        (lambda data: b"PNG" + data[3:], "is no IDX file of bytes"),
        (lambda data: b"", "is no IDX file of bytes"),
    ],
)
def test_damaged_idx_files(damage, message, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(damage(idx(np.zeros((12, 2, 2), np.uint8))))
    with pytest.raises(DatasetError, match=message):
        images._read_idx(path)


def test_a_set_of_another_size_is_refused(tiny, tmp_path):
    write_fashion(tmp_path / "FashionMNIST", part(11, 1, 28, 10), part(5, 1, 28, 10))
    with pytest.raises(DatasetError, match=r"train images and labels are \(11, 28, 28, 1\) and \(11,\), not \(12, 28"):
        load_images("FashionMNIST", tmp_path)


# --- downloads -------------------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No package of the system has image sets."""
    monkeypatch.setattr(images.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(images, "_SYSTEM", ())


def test_absent_files_are_downloaded_with_a_word(tiny, nowhere, mirror, tmp_path, monkeypatch, caplog):
    train, test = part(12, 1, 28, 10), part(5, 1, 28, 10)
    write_fashion(tmp_path / "made", train, test)
    source = images._SOURCES["FashionMNIST"]
    contents = {name: (tmp_path / "made" / name).read_bytes() for name in source.files}
    mirror.files |= {f"/datasets/{name}": data for name, data in contents.items()}
    hashes = {name: hashlib.md5(data, usedforsecurity=False).hexdigest() for name, data in contents.items()}
    monkeypatch.setitem(images._SOURCES, "FashionMNIST", source._replace(files=hashes))
    for _ in range(2):
        ensure_images("FashionMNIST", tmp_path / "data", base_url=mirror.url)
    assert mirror.asked == [f"/datasets/{name}" for name in hashes]
    assert_is(load_images("FashionMNIST", tmp_path / "data"), train, test)
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if line.startswith("downloading ")] == said
    assert len(said) == 4


def test_a_file_without_a_published_hash_is_recorded(tiny, nowhere, mirror, tmp_path, caplog):
    mirror.files |= {f"/datasets/{name}": name.encode() for name in images._SVHN}
    ensure_images("SVHN", tmp_path, base_url=mirror.url)
    recorded = [record.getMessage() for record in caplog.records if "publish no hash" in record.getMessage()]
    for name, line in zip(images._SVHN, recorded, strict=True):
        assert hashlib.sha256(name.encode()).hexdigest() in line


def test_another_file_is_refused_and_not_kept(nowhere, mirror, tmp_path):
    mirror.files["/datasets/cifar-100-binary.tar.gz"] = b"another"
    with pytest.raises(DatasetError, match=r"has MD5 \w{32}, not 03b5dce01913d631647c71ecec9e9cb8, which its makers"):
        ensure_images("CIFAR100", tmp_path / "data", base_url=mirror.url)
    assert not (tmp_path / "data").exists()


def test_without_a_network_the_way_out_is_named(nowhere, mirror, tmp_path):
    with pytest.raises(DatasetError, match=r"put those of http://ufldl.* cannot be had: 404") as caught:
        ensure_images("SVHN", tmp_path, base_url=mirror.url)
    assert "\n" not in str(caught.value)
