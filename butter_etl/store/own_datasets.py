"""Own data sets as a store knows them, by name: from the experiments that were trained on them, and its copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from butter_etl.errors import DatasetError
from butter_etl.store.copies import copy_names, difference, keep, other_content, read_kept
from butter_etl.store.store import Store
from butter_etl.studies import DataKind, Lookup, OwnInfo, Study


class OwnDatasets:
    """The own data sets of one store; without a store, none. A name stands for one content, for good."""

    def __init__(self, store: Store | None, study: Study) -> None:
        self.store, self._kind = store, study.own_data
        self._of_experiments: dict[str, OwnInfo] = {}
        self._details: dict[str, Sequence[Any]] = {}

    def add(self, info: OwnInfo) -> None:
        """Note a data set that an experiment of the store is trained on."""
        self._of_experiments.setdefault(info.name, info)

    def names(self) -> list[str]:
        """List the data sets that the store has copies of."""
        return copy_names(self.store.location) if self.store else []

    def info(self, name: str) -> OwnInfo | None:
        """Return the data set that a name stands for in the store; None if it stands for none yet."""
        if name in self._of_experiments or self.store is None:
            return self._of_experiments.get(name)
        kept = read_kept(self.store.location, name, self._kind)
        found: OwnInfo | None = kept and kept.info
        return found

    def details(self, name: str) -> Sequence[Any]:
        """Say what became of each part of a data set: of its file where that was read, else of the store's copy.

        Copies of before do not tell.
        """
        if name not in self._details and self.store is not None:
            kept = read_kept(self.store.location, name, self._kind)
            if kept is not None:
                self._details[name] = kept.details
        return self._details.get(name, ())

    def refuse_other_content(self, infos: Iterable[OwnInfo]) -> None:
        """Raise DatasetError if data sets are not what their names stand for in the store, or share a name."""
        known: dict[str, OwnInfo] = {}
        for info in infos:
            in_store = self.info(info.name)
            there = known.setdefault(info.name, in_store or info)
            if there != info:
                raise DatasetError(other_content(info, there, str(self.store) if in_store else "another experiment"))

    def from_files(self, spec_file: str, directory: Path | None) -> Lookup:
        """Return a look-up of the data sets that a sweep file declares, by their files or by the store's copies."""
        folder = Path(spec_file).parent

        def look_up(name: str, declaration: Any, place: str) -> OwnInfo:
            kind = _kind(self._kind, name)
            known = self.info(name)
            if known and not kind.find_source(declaration, folder, directory) and self._was_declared(name, declaration):
                return known
            path = kind.fetch_source(declaration, folder, directory, place)
            info = kind.describe(name, declaration, path, place)
            if known and self.store and info != known:
                content = kind.load_content(name, declaration, path, place)
                how = difference(self.store.location, known, content, kind)
                raise DatasetError(
                    f"{place}: {path} is not what {self.store} has runs or a copy of as {name!r}: {how}; "
                    "restore the file and the declaration, or give the data set another name"
                )
            self._details[name] = kind.details(name, declaration, path, place)
            return info

        return look_up

    def _was_declared(self, name: str, declaration: Any) -> bool:
        """Tell whether the store keeps a data set of the same declaration, wherever its file was."""
        kept = read_kept(self.store.location, name, self._kind) if self.store else None
        return kept is not None and bool(kept.declaration.means_the_same(declaration))

    def by_name(self, name: str, _declaration: Any, place: str) -> OwnInfo:
        """Return the data set of a registered sweep; raise DatasetError if the store keeps no copy of it."""
        info = self.info(name)
        if info is None:
            raise DatasetError(f"{place}: the store keeps no copy of it; train with --spec and the data set's file")
        return info

    def keep(self, store: Store, spec_file: str, directory: Path | None) -> None:
        """Copy the data sets that a sweep file declares into ``store``, those that it does not keep yet.

        Raises DatasetError where one is not what its name stands for there.
        """
        self.store = store
        for name, declaration in store.study.reader.declarations(spec_file).items():
            kind = _kind(self._kind, name)
            if read_kept(store.location, name, kind) is None:
                place = f"{spec_file}: datasets.{name}"
                path = kind.fetch_source(declaration, Path(spec_file).parent, directory, place)
                content = kind.load_content(name, declaration, path, place)
                self.refuse_other_content([content.info])
                keep(store, content, declaration, path, kind)


def _kind(kind: DataKind | None, name: str) -> DataKind:
    """Return the kind of the study's own data, which one whose sweep files declare some has."""
    if kind is None:
        raise AssertionError(name)
    return kind
