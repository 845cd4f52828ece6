"""What a source of an import says of itself: by its manifest, citation file, Croissant metadata, or its profile.

`state_origins` finds it, and the sources that the source itself had runs of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow.fs

from butter_etl.errors import StoreError, UsageError, one_line
from butter_etl.exchange.manifest import MANIFEST, Manifest, read_manifest
from butter_etl.exchange.sources import Source
from butter_etl.store import Location, parse_ranges, read_attribution, read_origins
from butter_etl.studies import Attribution, Origin, Study, check_origin, parse_yaml

CITATION_FILE, CROISSANT_FILE = "CITATION.cff", "croissant.json"
#: An exported directory has a folder for each key below it, and a manifest above.
_MOST_FOLDERS = 24
_CREATIVE_COMMONS = re.compile(r"https?://creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/([\d.]+)")
_SPDX_PAGE = re.compile(r"https?://spdx\.org/licenses/([\w.+-]+?)(?:\.html|\.json)?")


@dataclass(frozen=True)
class Stated:
    """What a source says of itself. ``origin`` is that of all its rows, None where they are taken for the user's own.

    ``unasked`` is what it would be without options. ``carried`` are the sources that it had runs of itself, with the
    experiments that they are of, by its own ids.
    """

    origin: Origin | None = None
    unasked: Origin | None = None
    carried: Mapping[Origin, frozenset[int]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def state_origins(study: Study, source: Source, path: Location, profile: str, given: Origin) -> Stated:
    """Return what a source at ``path`` says of itself; ``given`` comes before that, the profile's source after it.

    A store that says nothing of itself is taken for the user's own, unless something is given. Raises StoreError where
    a manifest or a store's own files cannot be read.
    """
    carried: Mapping[Origin, frozenset[int]] = {}
    warnings: list[str] = []
    folder, inside = _export_of(path)
    if source.is_store:
        said, carried = _of_attribution(read_attribution(path), study), read_origins(path)
    elif folder is not None:
        manifest = read_manifest(folder) or Manifest()
        said = _of_attribution(manifest.attribution(), study, is_published=True)
        carried = {one.origin: _ids(one.experiments, inside) for one in manifest.sources}
    else:
        said = _of_files(path, warnings)
    known = study.profiles[profile].source or Origin()
    unasked: Origin | None = said.completed(known).completed(Origin((folder or path).folder_and_name()[1]))
    if unasked is not None and source.is_store and unasked.is_silent:
        unasked = None
    origin = unasked if given == Origin() else given.completed(unasked or Origin(path.folder_and_name()[1]))
    return Stated(origin, unasked, carried, tuple(warnings))


def _ids(experiments: Mapping[str, str], inside: str | None) -> frozenset[int]:
    """Return the experiments that a manifest names of a source: of one directory, or of all."""
    texts = experiments.values() if inside is None else [experiments.get(inside, "")]
    return frozenset(one for text in texts for one in parse_ranges(text))


def _export_of(path: Location) -> tuple[Location | None, str | None]:
    """Return the export that a place is, or is in, and in which of its directories; else None."""
    inside: str | None = None
    place = path
    for _ in range(_MOST_FOLDERS):
        if place.kind(MANIFEST) == pyarrow.fs.FileType.File:
            if inside is None:
                return place, None
            try:
                manifest = read_manifest(place)
            except StoreError:  # somebody else's, of the same name
                manifest = None
            is_ours = manifest is not None and inside in {one.name for one in manifest.directories}
            return (place, inside) if is_ours else (None, None)
        above = _above(place)
        if above is None:
            break
        place, inside = above
    return None, None


def _above(place: Location) -> tuple[Location, str] | None:
    """Return the folder that a place is in, and its name there; None for a bucket, and the folders at a disk's root."""
    parent, name = place.folder_and_name()
    return None if parent == "/" or "/" not in place.root or not name else (Location(parent), name)


def _of_attribution(said: Attribution, study: Study, *, is_published: bool = False) -> Origin:
    """Return the origin that an attribution says; what is published has a title and a licence in any case."""
    if not is_published and said == Attribution():
        return Origin()
    return Origin("", said.named(study.card), said.authors, said.license_id, said.doi)


# --- files that other tools write --------------------------------------------------------------------------------


def _of_files(path: Location, warnings: list[str]) -> Origin:
    """Return what a citation file or Croissant metadata say, in the folder of a source or in the one above it."""
    said = Origin()
    for number, place in enumerate(_places(path)):
        for name, read in ((CITATION_FILE, _of_citation), (CROISSANT_FILE, _of_croissant)):
            if place.kind(name) != pyarrow.fs.FileType.File:
                continue
            try:
                said = said.completed(read(place.read_bytes(name)))
            except (UsageError, ValueError, TypeError, AttributeError, KeyError) as error:
                if not number:  # the folder above may be of anything
                    warnings.append(f"{place}/{name} does not say whose the runs are ({one_line(error)})")
    return said


def _places(path: Location) -> Iterator[Location]:
    if path.kind() != pyarrow.fs.FileType.File:
        yield path
    if (above := _above(path)) is not None:
        yield above[0]


def _of_citation(data: bytes) -> Origin:
    """Return what a citation file says (CFF 1.2)."""
    found = parse_yaml(data, CITATION_FILE, UsageError)
    if not isinstance(found, dict) or found.get("type") != "dataset":
        raise UsageError("it cites no data set: it has no `type: dataset`")
    licence = found.get("license") or ""
    return _checked(
        _one_line(found.get("title")),
        [_cff_name(one) for one in found.get("authors") or ()],
        " OR ".join(licence) if isinstance(licence, list) else licence,
        found.get("doi"),
    )


def _cff_name(one: Mapping[str, Any]) -> str:
    family = " ".join(filter(None, [one.get("name-particle"), one.get("family-names")]))
    name = one.get("name") or ", ".join(filter(None, [family, one.get("given-names")]))
    return _with_orcid(name, one.get("orcid"))


def _of_croissant(data: bytes) -> Origin:
    """Return what Croissant metadata say."""
    found = msgspec.json.decode(data, type=dict[str, Any])
    creator = found.get("creator") or ()
    people = [creator] if isinstance(creator, dict | str) else creator
    doi = next((found[key] for key in ("identifier", "url") if "doi.org/10." in str(found.get(key))), None)
    return _checked(_one_line(found.get("name")), list(map(_croissant_name, people)), _spdx(found.get("license")), doi)


def _croissant_name(one: Mapping[str, Any] | str) -> str:
    if isinstance(one, str):
        return one.replace(",", "")
    parts = [one.get("familyName"), one.get("givenName")]
    name = ", ".join(map(str, parts)) if all(parts) else str(one.get("name", "")).replace(",", "")
    return _with_orcid(name, one.get("identifier"))


def _with_orcid(name: str, orcid: object) -> str:
    number = re.search(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", str(orcid or ""))
    return f"{name} <{number[0]}>" if number else name


def _spdx(said: object) -> str:
    """Return a licence by its identifier, where its address says which it is."""
    text = str((said[0] if isinstance(said, list) and said else said) or "")
    if common := _CREATIVE_COMMONS.match(text):
        kind, version = common.groups()
        return f"CC0-{version}" if kind == "zero" else f"CC-{kind.upper()}-{version}"
    page = _SPDX_PAGE.fullmatch(text)
    return page[1] if page else text


def _one_line(text: object) -> str:
    return " ".join(str(text or "").split())


def _checked(title: str, authors: list[str], license_id: object, doi: object) -> Origin:
    """Return the origin that a file says; raise UsageError where one of these is not what it should be."""
    names = tuple(filter(None, map(_one_line, authors)))
    said = [None if one in (None, "") else str(one) for one in (title, license_id, doi)]
    return check_origin(names, *said)
