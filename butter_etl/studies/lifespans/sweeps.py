"""Sweeps of networks: those that are drawn, and cubes of given ones.

A draw is a cube whose axes are the image set and the numbers of the networks that its limits admit; everything else
that it is drawn by are axes of one value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from butter_etl.errors import SpecError
from butter_etl.studies.experiments import Experiment, OwnExperiment
from butter_etl.studies.lifespans.experiments import (
    FC_ACTIVATIONS,
    HYPERPARAMETERS,
    IMAGE_SETS,
    PUBLISHED_SETS,
    VAL_MODES,
    ImageNetwork,
)
from butter_etl.studies.lifespans.generator import VERSION, Candidate, Fixed, Ranges, admitted
from butter_etl.studies.lifespans.images import ImageSet, image_set, images_of, unknown_image_set
from butter_etl.studies.lifespans.own_images import IMAGE_KIND, ImageDeclaration, check_declaration
from butter_etl.studies.sweep_files import Lookup, SweepReader, read_text
from butter_etl.studies.sweeps import Cube, Space, Sweep, plain_space

#: Networks of more numbers to learn are turned away: no known one has more than 2.5 million.
MAX_PARAMETERS: Final = 3_000_000
_MOST_RUNS: Final = 2**16 - 1


_PLAIN: Final = plain_space(ImageNetwork, HYPERPARAMETERS)


def _from_cell(cell: tuple[Any, ...]) -> ImageNetwork:
    values = dict(zip(_PLAIN.axes, cell, strict=True))
    images = values.pop("dataset")
    is_own = isinstance(images, ImageSet)
    return ImageNetwork(**values, dataset=str(images), own=images.own if is_own else None)


def _to_cell(one: Experiment) -> tuple[Any, ...]:
    cell = _PLAIN.cell(one)
    if not isinstance(one, ImageNetwork) or one.own is None:
        return cell
    place = _PLAIN.axes.index("dataset")
    return (*cell[:place], images_of(one), *cell[place + 1 :])


class NetworkCube(Cube, frozen=True):
    """A cube of networks whose every layer is given.

    A user's own image set stands there as what it is, one of the package as its name.
    """

    space = Space(_PLAIN.axes, _PLAIN.defaults, _from_cell, _to_cell)


class DrawEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of `draws` in a sweep file: how many networks of which image sets, drawn by which seed from what."""

    dataset: tuple[str, ...] | str
    networks: int
    seed: int = 0
    generator: int = VERSION
    max_parameters: int | None = MAX_PARAMETERS
    max_multiplications: int | None = None
    epochs: int = 40
    val_mode: str = "full"
    fc_activation: str = "none"
    train_images: int | None = None
    ranges: Ranges = Ranges()

    @property
    def fixed(self) -> Fixed:
        """Return what all networks have in common."""
        return Fixed(self.epochs, self.val_mode, self.fc_activation, self.train_images)

    def admitted(self, dataset: str | ImageSet) -> tuple[tuple[Candidate, ...], int]:
        """Return the networks that the limits admit, and how many were turned away before the last of them."""
        images = dataset if isinstance(dataset, ImageSet) else image_set(dataset)
        limits = self.max_parameters, self.max_multiplications
        found = admitted(self.ranges, images, self.seed, self.networks, *limits, self.fixed)
        return found.networks, found.turned_away


_SETTINGS: Final = tuple(name for name in DrawEntry.__struct_fields__ if name not in ("dataset", "networks", "ranges"))
_AXES: Final = ("dataset", "number", "networks", *_SETTINGS, *Ranges.__struct_fields__)


class DrawCube(Cube, frozen=True):
    """The networks of one image set that a draw admits, in the order of their numbers; own sets as in `NetworkCube`."""

    space = Space(_AXES, {}, lambda cell: DrawCube(tuple((value,) for value in cell)).one, lambda one: (one,))

    @classmethod
    def of_entry(cls, entry: DrawEntry, dataset: str | ImageSet) -> DrawCube:
        """Return the draw of an entry for one of its image sets."""
        networks, _ = entry.admitted(dataset)
        settings = [(getattr(entry, name),) for name in ("networks", *_SETTINGS)]
        ranges = [(getattr(entry.ranges, name),) for name in Ranges.__struct_fields__]
        return cls(((dataset,), tuple(one.number for one in networks), *settings, *ranges))

    @property
    def entry(self) -> DrawEntry:
        """Return the entry that it is of."""
        ranges = Ranges(**{name: self[name][0] for name in Ranges.__struct_fields__})
        return DrawEntry(
            dataset=str(self["dataset"][0]),
            ranges=ranges,
            networks=self["networks"][0],
            **{name: self[name][0] for name in _SETTINGS},
        )

    @property
    def turned_away(self) -> int:
        """Return how many networks were turned away before the last that was admitted."""
        return self.entry.admitted(self["dataset"][0])[1]

    def experiments(self) -> Iterator[OwnExperiment]:
        """Yield the networks."""
        networks, _ = self.entry.admitted(self["dataset"][0])
        wanted = set(self["number"])
        yield from (one.network for one in networks if one.number in wanted)

    @property
    def one(self) -> OwnExperiment:
        """Return the network, the only one."""
        (found,) = self.experiments()
        return found

    def holds(self, cell: tuple[Any, ...]) -> bool:
        """Tell whether an experiment, the only one of the cell, is one of the networks."""
        return cell[0] in _members(self)

    @classmethod
    def spelled(cls, value: Any) -> str:
        """Return a value of an axis as tables show it."""
        if not isinstance(value, tuple):
            return super().spelled(value)
        return " to ".join(map(super().spelled, value)) if len(value) == 2 else ", ".join(map(str, value))

    def listed(self, axis: str) -> str:
        """Return the values of an axis in a few words."""
        if axis != "number":
            return super().listed(axis)
        numbers = self[axis]
        return f"{numbers[0]} to {numbers[-1]}, but for {self.turned_away} above the limits"


@lru_cache(maxsize=16)
def _members(cube: DrawCube) -> frozenset[Experiment]:
    return frozenset(cube.experiments())


class LifespanSweep(Sweep, frozen=True):
    """A sweep of networks, drawn or given."""

    def __contains__(self, one: Experiment) -> bool:
        return any(one in cube for cube in self.cubes)

    def own_datasets(self) -> list[ImageSet]:
        """Return the users' own image sets of its cubes, each once."""
        found = [value for cube in self.cubes for value in cube["dataset"] if isinstance(value, ImageSet)]
        return list(dict.fromkeys(found))


class LifespanReader(SweepReader):
    """Reads the study's sweep files: `draws`, `cubes`, or both, of image sets that the package has or they declare."""

    further = (("draws", list[DrawEntry], []), ("datasets", dict[str, ImageDeclaration], {}))
    needs_cubes = False

    def parse(self, text: str, origin: str, lookup: Lookup | None = None) -> Sweep:
        """Return the sweep that a YAML text describes; ``origin`` names the text in errors."""
        file = self.parse_file(text, origin)
        if not file.cubes and not file.draws:
            raise SpecError(f"{origin}: there must be at least one entry in `draws` or in `cubes`")
        own = self.own_values(file, origin, lookup)
        drawn = [
            cube for number, entry in enumerate(file.draws) for cube in _cubes(entry, f"{origin}: draws[{number}]", own)
        ]
        given = [self._cube(cube, own, f"{origin}: cubes[{number}]") for number, cube in enumerate(file.cubes)]
        return LifespanSweep(file.name, file.repetitions, (*drawn, *given))

    def parse_file(self, text: str, origin: str) -> Any:
        """Return a sweep file, checked as far as it goes without its cubes' values and its image sets' files."""
        file = super().parse_file(text, origin)
        used = {name for entry in file.draws for name in _sets(entry)}
        used |= {name for cube in file.cubes for name in cube.dataset}
        for name, declaration in file.datasets.items():
            check_declaration(name, declaration, f"{origin}: datasets.{name}")
            if name not in used:
                raise SpecError(f"{origin}: datasets.{name}: no draw and no cube has it as `dataset`; take it out")
        return file

    def declarations(self, path: str | Path) -> Mapping[str, ImageDeclaration]:
        """Return the image sets that a YAML file declares, by name; raise SpecError for a bad file."""
        return dict(self.parse_file(read_text(path), str(path)).datasets)

    def own_values(self, file: Any, origin: str, lookup: Lookup | None) -> Mapping[str, ImageSet]:
        """Return the image sets that a file declares, by name; without ``lookup``, from where the sweep file is."""
        look_up = lookup or _from_files(Path(origin).parent)
        places = {name: f"{origin}: datasets.{name}" for name in file.datasets}
        return {name: look_up(name, declared, places[name]) for name, declared in file.datasets.items()}

    def cube_values(self, file: Any, own: Mapping[str, Any], place: str) -> dict[str, tuple[Any, ...]]:
        """Return the values of each axis of a cube in a file, not checked yet; ``own`` are declared image sets."""
        values = super().cube_values(file, own, place)
        return {**values, "dataset": tuple(own.get(name, name) for name in file.dataset)}

    def checked_value(self, axis: str, value: Any, place: str, own: Collection[str]) -> Any:
        """Return a value of an axis as experiments have it; raise SpecError for one that it cannot have."""
        if axis != "dataset":
            return super().checked_value(axis, value, place, own)
        if isinstance(value, str) and value not in IMAGE_SETS:
            raise SpecError(f"{place}.{axis}: {unknown_image_set(value, own)}")
        return value

    def _type_at(self, path: str) -> Any:
        if path.startswith("datasets"):
            return ImageDeclaration
        if path.startswith("draws"):
            return Ranges if path.endswith("ranges") else DrawEntry
        return super()._type_at(path)


def _from_files(folder: Path) -> Lookup:
    """Return the look-up of declared image sets by their files; ``folder`` is where the sweep file is."""

    def look_up(name: str, declaration: ImageDeclaration, place: str) -> ImageSet:
        path = IMAGE_KIND.fetch_source(declaration, folder, None, place)
        return IMAGE_KIND.describe(name, declaration, path, place)

    return look_up


def _sets(entry: DrawEntry) -> tuple[str, ...]:
    return (entry.dataset,) if isinstance(entry.dataset, str) else entry.dataset


def _cubes(entry: DrawEntry, place: str, own: Mapping[str, ImageSet]) -> Iterator[DrawCube]:
    sets = _sets(entry)
    for name, choices in (("val_mode", VAL_MODES), ("fc_activation", FC_ACTIVATIONS)):
        if getattr(entry, name) not in choices:
            raise SpecError(f"{place}.{name}: {getattr(entry, name)!r} is none of {', '.join(choices)}")
    if entry.generator != VERSION:
        raise SpecError(f"{place}.generator: {entry.generator} is not known; this version draws by {VERSION}")
    for name in ("networks", "epochs", "max_parameters", "max_multiplications", "train_images"):
        value = getattr(entry, name)
        if value is not None and value < 1:
            raise SpecError(f"{place}.{name}: {value} is below 1")
    if len(set(sets)) != len(sets) or not sets:
        raise SpecError(f"{place}.dataset: {', '.join(sets) or 'there is none'}; name each image set once")
    for name in sets:
        if name not in own and name not in IMAGE_SETS:
            raise SpecError(f"{place}.dataset: {unknown_image_set(name, own)}")
        try:
            yield DrawCube.of_entry(entry, own.get(name, name))
        except SpecError as error:
            raise SpecError(f"{place}: {error}") from error


class _Published(Mapping[str, Sweep]):
    """The published sweeps, drawn when they are asked for: that takes most of a second."""

    def __getitem__(self, name: str) -> Sweep:
        """Return a sweep."""
        return _published(_ENTRIES[name], name)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(_ENTRIES)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(_ENTRIES)


@lru_cache(maxsize=2)
def _published(entry: DrawEntry, name: str) -> Sweep:
    return LifespanSweep(name, 1, tuple(_cubes(entry, name, {})))


#: 6,000 networks, as the article counts them. That each image set has a third is inferred; the networks are others,
#: since the article's generator and seeds are not published.
_ENTRIES: Final = {"nn_lifespans_2021": DrawEntry(dataset=PUBLISHED_SETS, networks=2000)}
PUBLISHED: Final[Mapping[str, Sweep]] = _Published()
READER: Final = LifespanReader(
    "nn_lifespans", NetworkCube, HYPERPARAMETERS, max_runs=_MOST_RUNS, sweep=LifespanSweep, published=PUBLISHED
)
