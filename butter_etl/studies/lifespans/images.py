"""Image sets: which there are, where their files are looked for, and their pixels as they are stored.

Files are those that the sets' makers publish, unpacked or packed, in the data folder: nothing is converted. Whoever
trains scales pixels to [0, 1] batch by batch; nothing else is done to them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import pickle
import sys
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from butter_etl.errors import DatasetError, one_line, suggestion
from butter_etl.studies.downloads import UnreachableError, download
from butter_etl.studies.lifespans.experiments import ImageNetwork, OwnImages

_LOADING = threading.Lock()
_LOG = logging.getLogger("butter_etl")
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """The description of the image set that a name stands for: square images, and the official split.

    ``train`` and ``test`` count images, ``brightest`` is the largest value of a pixel: 1 when it is scaled. Of a user's
    own image set, ``sha256`` is that of the content.
    """

    name: str
    channels: int
    size: int
    classes: int
    train: int
    test: int
    brightest: int = 255
    is_own: bool = False
    sha256: str = ""

    @classmethod
    def of_own(cls, name: str, own: OwnImages) -> ImageSet:
        """Return a user's own image set, as experiments have its identity."""
        extent = {one: getattr(own, one) for one in OwnImages.__struct_fields__}
        return cls(name, **extent, is_own=True)

    def __str__(self) -> str:
        return self.name

    @property
    def own(self) -> OwnImages | None:
        """Return what an experiment's identity says of the content; None of sets that come with the package."""
        if not self.is_own:
            return None
        return OwnImages(**{one: getattr(self, one) for one in OwnImages.__struct_fields__})

    @property
    def content(self) -> str:
        """Return the SHA-256 of the content of a user's own image set."""
        return self.sha256

    @property
    def form(self) -> str:
        """Return the size of an image for people."""
        return f"{self.size} x {self.size}" + (f" x {self.channels}" if self.channels > 1 else "")

    @property
    def pixels(self) -> int:
        """Return how many numbers an image has."""
        return self.channels * self.size * self.size


#: The image sets by name: the published three, and one that every installation has.
IMAGE_SETS: Final[Mapping[str, ImageSet]] = {
    one.name: one
    for one in (
        ImageSet("CIFAR100", 3, 32, 100, 50_000, 10_000),
        ImageSet("FashionMNIST", 1, 28, 10, 60_000, 10_000),
        ImageSet("SVHN", 3, 32, 10, 73_257, 26_032),
        # scikit-learn's digits, 8 x 8, with a rim of two dark pixels; the last 360 are the test images.
        ImageSet("digits", 1, 12, 10, 1_437, 360, brightest=16),
    )
}
_RIM: Final = 2


class Part(NamedTuple):
    """Images uint8 (images, rows, columns, channels) and their classes int64 (images,), from 0."""

    images: Pixels
    labels: Labels


@dataclass(frozen=True)
class Images:
    """An image set in memory: what is learned from, and what is measured on. Nobody writes to it."""

    info: ImageSet
    train: Part
    test: Part

    @cached_property
    def sha256(self) -> str:
        """Return the SHA-256 of pixels and labels, those that are learned from first.

        Of a user's own image set, a line of JSON with the extent comes before: its name does not tell that.
        """
        digest = hashlib.sha256()
        if self.info.is_own:
            extent = {one: getattr(self.info, one) for one in OwnImages.__struct_fields__ if one != "sha256"}
            digest.update(msgspec.json.encode(extent, order="sorted") + b"\n")
        for part in (self.train, self.test):
            for array in part:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def image_set(name: str) -> ImageSet:
    """Return the image set called ``name``; raise DatasetError with the name that comes close."""
    if name not in IMAGE_SETS:
        raise DatasetError(unknown_image_set(name))
    return IMAGE_SETS[name]


def images_of(one: ImageNetwork) -> ImageSet:
    """Return the image set of an experiment; raise DatasetError for one that is not known.

    A user's own image set follows from the experiment alone, wherever its file is.
    """
    return image_set(one.dataset) if one.own is None else ImageSet.of_own(one.dataset, one.own)


def unknown_image_set(name: str, own: Iterable[str] = ()) -> str:
    """Return the message about an image set that is neither the package's nor ``own``, with the closest name."""
    known = [*IMAGE_SETS, *own]
    way_out = "declare your own image sets in a sweep file, under `datasets:`"
    return f"image set {name!r} is not known{suggestion(name, known)} (known: {', '.join(known)}); {way_out}"


def load_images(name: str, folder: str | Path) -> Images:
    """Read an image set from a data folder; never download.

    Raises DatasetError where its files are absent, damaged, or not what the name stands for.
    """
    info = image_set(name)
    found = Images(info, *_READERS[name](Path(folder)))
    for what, part, count in (("train", found.train, info.train), ("test", found.test, info.test)):
        wanted = count, info.size, info.size, info.channels
        if part.images.shape != wanted or part.labels.shape != (count,):
            shapes = f"{part.images.shape} and {part.labels.shape}"
            raise DatasetError(
                f"image set {name}: the {what} images and labels are {shapes}, not {wanted} and ({count},)"
            )
        if part.labels.min() < 0 or part.labels.max() >= info.classes:
            raise DatasetError(
                f"image set {name}: {what} labels go up to {part.labels.max()} of {info.classes} classes"
            )
    return found


def cached_images(name: str, folder: str | Path) -> Images:
    """Call `load_images`, remembering the last sets; all threads of a process share one copy."""
    with _LOADING:
        return _remembered(name, str(folder))


@lru_cache(maxsize=2)
def _remembered(name: str, folder: str) -> Images:
    return load_images(name, folder)


def ensure_images(name: str, folder: str | Path, *, base_url: str | None = None) -> None:
    """Have the files of an image set at hand: download those that are nowhere to a data folder, with a word in the log.

    ``base_url`` is the folder that has them, by default that of their makers. A file whose makers publish its MD5 is
    held against it; of another, the log records its SHA-256. Raises DatasetError where they cannot be had.
    """
    if name not in _PLACES:
        return
    try:
        _PLACES[name](Path(folder))
    except DatasetError as missing:
        source = _SOURCES[name]
        for file, md5 in source.files.items():
            _fetch(f"{(base_url or source.url).rstrip('/')}/{file}", Path(folder) / source.folder / file, md5, missing)


def _fetch(url: str, path: Path, md5: str | None, missing: DatasetError) -> None:
    if path.is_file():
        return

    def check(downloaded: Path) -> None:
        with downloaded.open("rb") as file:
            found = hashlib.file_digest(file, "md5" if md5 else "sha256").hexdigest()
        if md5 is not None and found != md5:
            raise DatasetError(f"{url}: has MD5 {found}, not {md5}, which its makers publish; get it again")
        if md5 is None:
            _LOG.warning("%s: its makers publish no hash; it has SHA-256 %s", url, found)

    _LOG.warning("downloading %s to %s", url, path)
    try:
        download(url, path, check)
    except UnreachableError as error:
        raise DatasetError(f"{missing} ({url} cannot be had: {error})") from error
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be written ({one_line(error)}); name another folder by --data-dir"
        ) from error


class _Source(NamedTuple):
    """Where the makers of an image set publish its files, with the MD5 that they give; and where these go."""

    url: str
    folder: str
    files: Mapping[str, str | None]


#: The MD5 of FashionMNIST's files stand in its README, those of CIFAR-100's on its page; SVHN's makers give none.
_SOURCES: Final[Mapping[str, _Source]] = {
    "CIFAR100": _Source(
        "https://www.cs.toronto.edu/~kriz",
        "CIFAR100",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
    ),
    "FashionMNIST": _Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "FashionMNIST",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "SVHN": _Source(
        "http://ufldl.stanford.edu/housenumbers", "SVHN", {"train_32x32.mat": None, "test_32x32.mat": None}
    ),
}


# --- FashionMNIST: IDX (http://yann.lecun.com/exdb/mnist) ------------------------------------------------------------

#: Where packages of a system put their files.
_SYSTEM: Final = ("/usr/local", "/usr")
_IDX: Final = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _idx_files(folder: Path) -> list[Path]:
    """Return the four files, from the first folder that has them all: packed or not."""
    folders = [
        folder / "FashionMNIST" / "raw",
        folder / "FashionMNIST",
        folder / "fashion-mnist",
        *(Path(prefix) / "share" / "datasets" / "fashion-mnist" for prefix in (sys.prefix, *_SYSTEM)),
    ]
    for one in folders:
        files = [_first_of(one / name, one / f"{name}.gz") for name in _IDX]
        if None not in files:
            return [file for file in files if file is not None]
    raise DatasetError(
        f"image set FashionMNIST: {_IDX[0]}(.gz) and three more are in none of {', '.join(map(str, folders))}; put the "
        "files of https://github.com/zalandoresearch/fashion-mnist there, or install Debian's dataset-fashion-mnist"
    )


def _first_of(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read_fashion(folder: Path) -> tuple[Part, Part]:
    images, labels, test_images, test_labels = (_read_idx(path) for path in _idx_files(folder))
    return (
        Part(images[..., None], labels.astype(np.int64)),
        Part(test_images[..., None], test_labels.astype(np.int64)),
    )


def _read_idx(path: Path) -> Pixels:
    """Return the array of an IDX file of bytes; raise DatasetError for any other."""
    with _reading(path):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = data[:2], data[2:3], data[3] if len(data) > 3 else 0
        if zeros != b"\0\0" or kind != b"\x08" or not dimensions:
            raise ValueError("is no IDX file of bytes")
        head = 4 + 4 * dimensions
        shape = np.frombuffer(data[4:head], ">u4").tolist()
        if len(data) - head != int(np.prod(shape)):
            raise ValueError(f"has {len(data) - head} bytes for {shape}")
        # torch warns of arrays that may not be written to.
        return np.frombuffer(data, np.uint8, offset=head).reshape(shape).copy()


# --- CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html) ---------------------------------------------------------

_CIFAR: Final = {
    "cifar-100-binary": ("train.bin", "test.bin"),
    "cifar-100-python": ("train", "test"),
}
_RECORD: Final = 2 + 3 * 32 * 32


def _cifar_files(folder: Path) -> list[Path]:
    """Return the two files, or the archive that has them."""
    for name, parts in _CIFAR.items():
        for place in (folder / "CIFAR100", folder):
            if all((place / name / part).is_file() for part in parts):
                return [place / name / part for part in parts]
            if archive := _first_of(place / f"{name}.tar.gz", place / f"{name}.tar"):
                return [archive]
    raise DatasetError(
        f"image set CIFAR100: neither cifar-100-binary nor cifar-100-python, or the .tar.gz of one, is in {folder}; "
        "put one from https://www.cs.toronto.edu/~kriz/cifar.html there"
    )


def _read_cifar(folder: Path) -> tuple[Part, Part]:
    files = _cifar_files(folder)
    contents = [(path, path.read_bytes()) for path in files] if len(files) == 2 else list(_members(files[0]))
    first, second = (_cifar_part(path, data) for path, data in contents)
    return first, second


def _members(archive: Path) -> Iterator[tuple[Path, bytes]]:
    name = archive.name.partition(".")[0]
    with _reading(archive), tarfile.open(archive) as tar:
        for part in _CIFAR[name]:
            member = tar.extractfile(f"{name}/{part}")
            if member is None:
                raise ValueError(f"{name}/{part} is no file")
            yield archive / part, member.read()


def _cifar_part(path: Path, data: bytes) -> Part:
    with _reading(path):
        if path.suffix == ".bin":
            if len(data) % _RECORD:
                raise ValueError(f"has {len(data)} bytes, which are no records of {_RECORD}")
            records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
            return Part(_channels_last(records[:, 2:]), records[:, 1].astype(np.int64))
        content = _Arrays(io.BytesIO(data)).load()
        pixels = np.asarray(content[b"data"], np.uint8)
        return Part(_channels_last(pixels), np.asarray(content[b"fine_labels"], np.int64))


def _channels_last(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


class _Arrays(pickle.Unpickler):
    """Reads pickles of arrays, bytes, numbers, lists and dicts; whatever else one asks for is refused by its name."""

    _KNOWN: Final = {
        ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"): ("numpy", "ndarray"),
        ("numpy", "dtype"): ("numpy", "dtype"),
    }

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few names that arrays are made of; raise UnpicklingError for others."""
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"asks for {module}.{name}, which no array needs")
        return super().find_class(*self._KNOWN[module, name])


# --- SVHN (http://ufldl.stanford.edu/housenumbers) --------------------------------------------------------------------

_SVHN: Final = ("train_32x32.mat", "test_32x32.mat")


def _svhn_files(folder: Path) -> list[Path]:
    for place in (folder / "SVHN", folder):
        if all((place / name).is_file() for name in _SVHN):
            return [place / name for name in _SVHN]
    raise DatasetError(
        f"image set SVHN: {' and '.join(_SVHN)} are not in {folder / 'SVHN'} or {folder}; put those of "
        "http://ufldl.stanford.edu/housenumbers there"
    )


def _read_svhn(folder: Path) -> tuple[Part, Part]:
    first, second = (_svhn_part(path) for path in _svhn_files(folder))
    return first, second


def _svhn_part(path: Path) -> Part:
    from scipy.io import loadmat

    with _reading(path):
        content = loadmat(path, variable_names=["X", "y"])
        pixels, labels = np.asarray(content["X"]), np.asarray(content["y"]).reshape(-1)
        if pixels.dtype != np.uint8 or pixels.ndim != 4:
            raise ValueError(f"has X of {pixels.dtype} {pixels.shape}")
        # The digit 0 has label 10.
        return Part(np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)), labels.astype(np.int64) % 10)


# --- digits -----------------------------------------------------------------------------------------------------------


def _read_digits(folder: Path) -> tuple[Part, Part]:
    del folder  # they come with scikit-learn
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.pad(bunch.images.astype(np.uint8), ((0, 0), (_RIM, _RIM), (_RIM, _RIM)))[..., None]
    labels, cut = bunch.target.astype(np.int64), IMAGE_SETS["digits"].train
    return Part(images[:cut], labels[:cut]), Part(images[cut:], labels[cut:])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise DatasetError, with the file, for whatever is wrong with its content."""
    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        raise DatasetError(
            f"{path}: cannot be read ({one_line(error)}); get it again from where it is published"
        ) from error
    except tarfile.TarError as error:
        raise DatasetError(
            f"{path}: is no archive ({one_line(error)}); get it again from where it is published"
        ) from error


_READERS: Final[Mapping[str, Callable[[Path], tuple[Part, Part]]]] = {
    "CIFAR100": _read_cifar,
    "FashionMNIST": _read_fashion,
    "SVHN": _read_svhn,
    "digits": _read_digits,
}
_PLACES: Final[Mapping[str, Callable[[Path], Sequence[Path]]]] = {
    "CIFAR100": _cifar_files,
    "FashionMNIST": _idx_files,
    "SVHN": _svhn_files,
}
