"""Users' own image sets: from an ``.npz`` file, as a sweep file declares it, to images in memory and in a store.

A file has three arrays: ``images`` uint8 (images, size, size) or (images, size, size, channels), ``labels`` whole
numbers (images,) from 0, and ``split`` (images,), which says of each image whether it is learned from (``train``) or
measured on (``validation``). What an experiment is trained on are pixels and labels, so their hash is in its identity,
wherever the file is. Every complaint is one line that names the declaration, the file, the array, and the way out.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from butter_etl.errors import DatasetError, SpecError, counted, one_line, suggestion
from butter_etl.studies.data_kinds import DataSource, Encoded, check_data_name
from butter_etl.studies.experiments import Experiment
from butter_etl.studies.lifespans.experiments import ImageNetwork, OwnImages
from butter_etl.studies.lifespans.images import IMAGE_SETS, Images, ImageSet, Part, images_of
from butter_etl.studies.user_folders import expanded

ARRAYS: Final = ("images", "labels", "split")
#: What `split` says of an image.
PartName = Literal["train", "validation"]
TRAIN: Final[PartName] = "train"
VALIDATION: Final[PartName] = "validation"
_PARTS: Final = (TRAIN, VALIDATION)
_MOST_CLASSES: Final = 2**16
#: Bytes of pixels that a row group of a copy has.
_GROUP_BYTES: Final = 2**24


class ImageDeclaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image set as a sweep file declares it: a file, how many classes there are, and the largest value of a pixel.

    ``file`` is relative to the sweep file. Networks see pixels as fractions of ``brightest``.
    """

    file: str
    classes: int
    brightest: int = 255

    def means_the_same(self, other: ImageDeclaration) -> bool:
        """Tell whether two declarations differ at most in where the file is."""
        return msgspec.structs.replace(self, file="") == msgspec.structs.replace(other, file="")


def check_declaration(name: str, declaration: ImageDeclaration, place: str) -> None:
    """Raise SpecError, naming the place, for what is wrong with a declaration whatever its file holds."""
    check_data_name(name, IMAGE_SETS, place)
    if Path(declaration.file).suffix.lower() != ".npz":
        raise SpecError(f"{place}.file: {declaration.file!r} must end in .npz, as numpy.savez writes it")
    if not 2 <= declaration.classes <= _MOST_CLASSES:
        raise SpecError(f"{place}.classes: {declaration.classes} is not between 2 and {_MOST_CLASSES}")
    if not 1 <= declaration.brightest <= 255:
        raise SpecError(f"{place}.brightest: {declaration.brightest} is not between 1 and 255")


class PartCounts(msgspec.Struct, frozen=True):
    """How many images of each class, from class 0 on, a part of a file has."""

    part: PartName
    images: tuple[int, ...]


@dataclass(frozen=True)
class Content:
    """An image set that was read from a file, and how many images of each class its parts have."""

    images: Images
    parts: tuple[PartCounts, ...]

    @property
    def info(self) -> ImageSet:
        """Return the description of the image set."""
        return self.images.info


# --- from a file to its content ----------------------------------------------------------------------------------


def load_content(name: str, declaration: ImageDeclaration, path: Path, place: str) -> Content:
    """Read and check the file of a declaration that `check_declaration` has passed; DatasetError for a bad one."""
    return _File(path, place, declaration).content(name)


class _File:
    """A file that is read by a declaration; every method complains of it in one line."""

    def __init__(self, path: Path, place: str, declaration: ImageDeclaration) -> None:
        self._path, self._place, self._declared = path, place, declaration

    def _refuse(self, what: str) -> NoReturn:
        raise DatasetError(f"{self._place}: {self._path.name}: {what}")

    def content(self, name: str) -> Content:
        """Return the image set, under a name."""
        arrays = self._arrays()
        images = self._images(arrays["images"])
        count = len(images)
        for key in ("labels", "split"):
            if arrays[key].shape != (count,):
                self._refuse(f"{key} has shape {arrays[key].shape}; {counted(count, 'image')} need ({count},)")
        labels, held_out = self._labels(arrays["labels"]), self._held_out(arrays["split"])
        parts = [Part(np.ascontiguousarray(images[of]), labels[of]) for of in (~held_out, held_out)]
        for part, what in zip(parts, _PARTS, strict=True):
            if not len(part.labels):
                other = VALIDATION if what == TRAIN else TRAIN
                self._refuse(f"split has no {what!r}: all {count} are {other!r}; there must be some of either")
        info = ImageSet(
            name,
            channels=images.shape[3],
            size=images.shape[1],
            classes=self._declared.classes,
            train=len(parts[0].labels),
            test=len(parts[1].labels),
            brightest=self._declared.brightest,
            is_own=True,
        )
        info = replace(info, sha256=Images(info, *parts).sha256)
        told = tuple(PartCounts(what, self._counts(part)) for what, part in zip(_PARTS, parts, strict=True))
        return Content(Images(info, *parts), told)

    def _counts(self, part: Part) -> tuple[int, ...]:
        return tuple(np.bincount(part.labels, minlength=self._declared.classes).tolist())

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name; nothing is unpickled."""
        try:
            with self._path.open("rb") as opened:  # else numpy leaves the file of a torn archive open
                file = np.load(opened, allow_pickle=False)
                if not isinstance(file, np.lib.npyio.NpzFile):
                    self._refuse("is a single array; save all three by numpy.savez(file, images=…, labels=…, split=…)")
                with file:
                    self._check_names(file.files)
                    return {key: self._array(file, key) for key in ARRAYS}
        except MemoryError as error:
            raise DatasetError(f"{self._place}: {self._path.name}: there is not memory enough to read it") from error
        except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise DatasetError(f"{self._place}: {self._path} cannot be read as npz ({one_line(error)})") from error

    def _check_names(self, names: Sequence[str]) -> None:
        if missing := [key for key in ARRAYS if key not in names]:
            hint = suggestion(missing[0], names)
            self._refuse(f"has no array {missing[0]!r}{hint}; it has {', '.join(names) or 'none'}")
        if others := [name for name in names if name not in ARRAYS]:
            self._refuse(f"has an array {others[0]!r}, which means nothing here; leave it out")

    def _array(self, file: Any, key: str) -> NDArray[Any]:
        try:
            found: NDArray[Any] = file[key]
        except ValueError as error:
            if "allow_pickle" in str(error):
                self._refuse(f"{key} holds Python objects, which are not unpickled; save numbers, or texts as such")
            raise
        return found

    def _images(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        """Return images as uint8 (images, size, size, channels)."""
        if images.dtype != np.uint8:
            self._refuse(f"images are {images.dtype}, not uint8: save pixels as whole numbers from 0 to 255")
        if images.ndim not in (3, 4) or 0 in images.shape[1:]:
            self._refuse(f"images have shape {images.shape}; (images, size, size) or (images, size, size, channels)")
        if images.shape[1] != images.shape[2]:
            self._refuse(f"images are {images.shape[1]} x {images.shape[2]}; they must be square: pad or cut them")
        if not len(images):
            self._refuse("has no image")
        if (most := int(images.max())) > self._declared.brightest:
            self._refuse(f"a pixel is {most}, above `brightest: {self._declared.brightest}`")
        return images[..., None] if images.ndim == 3 else images

    def _labels(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        if labels.dtype.kind not in "iu":
            self._refuse(f"labels are {labels.dtype}, not whole numbers: number the classes from 0")
        classes, least, most = self._declared.classes, int(labels.min()), int(labels.max())
        if least < 0 or most >= classes:
            wrong = least if least < 0 else most
            self._refuse(f"a label is {wrong}; `classes: {classes}` are numbered from 0 to {classes - 1}")
        return labels.astype(np.int64)

    def _held_out(self, split: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which images are measured on."""
        words = split.astype(str) if split.dtype.kind in "SU" else None
        if words is None:
            self._refuse(f"split is {split.dtype}, not texts: write {TRAIN!r} or {VALIDATION!r} for each image")
        if unknown := sorted(set(words.tolist()) - {TRAIN, VALIDATION}):
            self._refuse(f"split has {unknown[0]!r}; write {TRAIN!r} or {VALIDATION!r}")
        held_out: NDArray[np.bool_] = words == VALIDATION
        return held_out


_Described = tuple[ImageSet, tuple[PartCounts, ...]]


@lru_cache(maxsize=64)
def _described(name: str, declared: bytes, path: str, place: str, version: tuple[int, ...]) -> _Described:  # noqa: ARG001 (of the key)
    content = load_content(name, msgspec.json.decode(declared, type=ImageDeclaration), Path(path), place)
    return content.info, content.parts


def _remembered(name: str, declaration: ImageDeclaration, path: Path, place: str) -> _Described:
    try:
        stat = path.stat()
    except OSError as error:
        raise DatasetError(f"{place}: {path} cannot be read ({one_line(error)})") from error
    declared = msgspec.json.encode(declaration, order="deterministic")
    return _described(name, declared, str(path), place, (stat.st_size, stat.st_mtime_ns, stat.st_ino))


# --- in a store --------------------------------------------------------------------------------------------------


class KeptImages(msgspec.Struct, frozen=True):
    """The contents of a copy's footer.

    ``source`` is the name of the file that the copy was made from, ``source_sha256`` that of its bytes.
    """

    name: str
    own: OwnImages
    parts: tuple[PartCounts, ...]
    declaration: ImageDeclaration
    source: str
    source_sha256: str
    version: Literal[1] = 1

    @property
    def info(self) -> ImageSet:
        """Return the description of the image set."""
        return ImageSet.of_own(self.name, self.own)

    @property
    def details(self) -> tuple[PartCounts, ...]:
        """Return how many images of each class the parts have."""
        return self.parts


class ImageKind:
    """Image sets of users' own. A copy has a row an image: ``validation``, ``label``, and its ``image``, row by row."""

    footer: type[Any] = KeptImages
    heads = ("part", "images")

    def info_of(self, one: Experiment) -> ImageSet | None:
        """Return the user's own image set that an experiment learns from; None for those of the package."""
        return images_of(one) if isinstance(one, ImageNetwork) and one.own else None

    def find_source(self, declaration: ImageDeclaration, folder: Path, directory: str | Path | None) -> Path | None:
        """Return the file of a declaration in a sweep file in ``folder``; None if it is not there."""
        del directory  # nothing is downloaded
        path = folder / expanded(declaration.file)
        return path if path.is_file() else None

    def fetch_source(
        self, declaration: ImageDeclaration, folder: Path, directory: str | Path | None, place: str
    ) -> Path:
        """Return the file of a declaration; raise DatasetError if it is not there."""
        path = self.find_source(declaration, folder, directory)
        if path is None:
            there = folder / expanded(declaration.file)
            raise DatasetError(f"{place}: {there} is not there; put the file there, or correct `file`")
        return path

    def describe(self, name: str, declaration: ImageDeclaration, path: Path, place: str) -> ImageSet:
        """Describe a declared image set; the answer is remembered while the file has the same size and time."""
        return _remembered(name, declaration, path, place)[0]

    def details(self, name: str, declaration: ImageDeclaration, path: Path, place: str) -> tuple[PartCounts, ...]:
        """Say how many images of each class the parts of a declared image set have."""
        return _remembered(name, declaration, path, place)[1]

    def load_content(self, name: str, declaration: ImageDeclaration, path: Path, place: str) -> Content:
        """Read and check the file of a declaration."""
        return load_content(name, declaration, path, place)

    def encode(self, content: Content, declaration: ImageDeclaration, source: DataSource) -> Encoded:
        """Return a content as a copy has it."""
        info, images = content.info, content.images
        if info.own is None:
            raise AssertionError(info)
        kept = KeptImages(info.name, info.own, content.parts, declaration, *source)
        pixels = np.concatenate([part.images.reshape(len(part.labels), -1) for part in (images.train, images.test)])
        columns = {
            "validation": pa.array(np.repeat([False, True], [info.train, info.test])),
            "label": pa.array(np.concatenate([images.train.labels, images.test.labels])),
            "image": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(info.pixels), len(pixels), [None, pa.py_buffer(pixels)]
            ),
        }
        return Encoded(kept, pa.table(columns), max(1, _GROUP_BYTES // info.pixels))

    def decode(self, info: ImageSet, table: pa.Table) -> Images:
        """Return the image set of a copy's rows; raise ValueError or KeyError for those of another shape."""
        labels, held_out = table["label"].to_numpy(), table["validation"].to_numpy()
        if table["image"].type != pa.binary(info.pixels):
            raise ValueError(f"images are {table['image'].type}, not of {info.pixels} bytes")
        shape = len(labels), info.size, info.size, info.channels
        pixels = np.concatenate([_bytes_of(chunk, info.pixels) for chunk in table["image"].chunks]).reshape(shape)
        parts = [Part(pixels[of], labels[of].astype(np.int64)) for of in (~held_out, held_out)]
        return Images(info, *parts)

    def differences(
        self, known: ImageSet, content: Content, kept: KeptImages | None, read: Callable[[], Images]
    ) -> Iterator[str]:
        """Say how a content differs from the image set ``known``, the most telling difference first."""
        info = content.info
        if info.form != known.form:
            yield f"its images are {info.form}, not {known.form}"
        if info.classes != known.classes:
            yield f"it has {info.classes} classes, not {known.classes}"
        if info.brightest != known.brightest:
            yield f"its pixels go up to {info.brightest}, not {known.brightest}"
        for what, count, before in ((TRAIN, info.train, known.train), (VALIDATION, info.test, known.test)):
            if count != before:
                yield f"it has {counted(count, f'{what} image')}, not {before:,}"
        if kept is None or kept.info != known:
            return
        mine, there = content.images, read()
        for what, ours, theirs in ((TRAIN, mine.train, there.train), (VALIDATION, mine.test, there.test)):
            for array, one, other in (("image", ours.images, theirs.images), ("label", ours.labels, theirs.labels)):
                differ = np.flatnonzero((one.reshape(len(one), -1) != other.reshape(len(one), -1)).any(axis=1))
                if differ.size:
                    yield f"{what} {array} {int(differ[0]) + 1} differs"

    def spoken(self, info: ImageSet) -> str:
        """Return an image set's extent for people."""
        of = f"{info.form} in {counted(info.classes, 'class')}"
        return f"{counted(info.train, 'image')} to learn from and {info.test:,} to measure on, {of}"

    def facts(self, info: ImageSet, details: Sequence[PartCounts]) -> Mapping[str, Any]:
        """Return content and extent of an image set, and how many images of each class its parts have."""
        extent = msgspec.structs.asdict(info.own) if info.own else {}
        return {**extent, "parts": [msgspec.to_builtins(one) for one in details]}

    def describe_details(self, details: Sequence[PartCounts]) -> list[tuple[str, str]]:
        """Return for people how many images of a class the parts have."""
        return [(one.part, f"{counted(sum(one.images), 'image')}, {_range(one.images)} of a class") for one in details]

    def doubt_lines(self, name: str, details: Sequence[PartCounts]) -> Iterator[str]:
        """Yield a warning for each part that lacks classes."""
        for one in details:
            if absent := [str(number) for number, count in enumerate(one.images) if not count]:
                some = ", ".join(absent[:10]) + (" and more" if len(absent) > 10 else "")
                yield f"{name}: no {one.part} image is of class {some}"


def _range(counts: Sequence[int]) -> str:
    few, many = min(counts), max(counts)
    return f"{few:,}" if few == many else f"{few:,} to {many:,}"


def _bytes_of(chunk: pa.FixedSizeBinaryArray, width: int) -> NDArray[np.uint8]:
    """Return the bytes of an array (images,) of ``width`` bytes each, uint8 (images * width,)."""
    buffer = np.frombuffer(chunk.buffers()[1], np.uint8)
    return buffer[chunk.offset * width : (chunk.offset + len(chunk)) * width]


#: The kind of users' own data sets of nn_lifespans.
IMAGE_KIND: Final = ImageKind()
