"""Own data sets as a store knows them, by name: from the experiments that were trained on them, and its copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from butter_etl.errors import DatasetError
from butter_etl.store.copies import copy_names, difference, keep, other_content, read_kept
from butter_etl.store.store import Store
from butter_etl.studies import DatasetInfo, Declaration, EncodedColumn, Lookup, fetch_source, find_source


class OwnDatasets:
    """The own data sets of one store; without a store, none. A name stands for one content, for good."""

    def __init__(self, store: Store | None) -> None:
        self.store = store
        self._of_experiments: dict[str, DatasetInfo] = {}
        self._columns: dict[str, Sequence[EncodedColumn]] = {}

    def add(self, info: DatasetInfo) -> None:
        """Note a data set that an experiment of the store is trained on."""
        self._of_experiments.setdefault(info.name, info)

    def names(self) -> list[str]:
        """List the data sets that the store has copies of."""
        return copy_names(self.store.location) if self.store else []

    def info(self, name: str) -> DatasetInfo | None:
        """Return the data set that a name stands for in the store; None if it stands for none yet."""
        if name in self._of_experiments or self.store is None:
            return self._of_experiments.get(name)
        kept = read_kept(self.store.location, name)
        return kept.info if kept else None

    def columns(self, name: str) -> Sequence[EncodedColumn]:
        """Say what became of each column of a data set: of its file where that was read, else of the store's copy.

        Copies of before do not tell.
        """
        if name not in self._columns and self.store is not None and (kept := read_kept(self.store.location, name)):
            self._columns[name] = kept.columns
        return self._columns.get(name, ())

    def refuse_other_content(self, infos: Iterable[DatasetInfo]) -> None:
        """Raise DatasetError if data sets are not what their names stand for in the store, or share a name."""
        known: dict[str, DatasetInfo] = {}
        for info in infos:
            in_store = self.info(info.name)
            there = known.setdefault(info.name, in_store or info)
            if there != info:
                raise DatasetError(other_content(info, there, str(self.store) if in_store else "another experiment"))

    def from_files(self, spec_file: str, directory: Path | None) -> Lookup:
        """Return a look-up of the data sets that a sweep file declares, by their files or by the store's copies."""
        from butter_etl.studies import describe, encoded_columns, load_content  # which most commands do without

        folder = Path(spec_file).parent

        def look_up(name: str, declaration: Declaration, place: str) -> DatasetInfo:
            known = self.info(name)
            if known and not find_source(declaration, folder, directory) and self._was_declared(name, declaration):
                return known
            path = fetch_source(declaration, folder, directory, place)
            info = describe(name, declaration, path, place)
            if known and self.store and info != known:
                how = difference(self.store.location, known, load_content(name, declaration, path, place))
                raise DatasetError(
                    f"{place}: {path} is not what {self.store} has runs or a copy of as {name!r}: {how}; "
                    "restore the file and the declaration, or give the data set another name"
                )
            self._columns[name] = encoded_columns(name, declaration, path, place)
            return info

        return look_up

    def _was_declared(self, name: str, declaration: Declaration) -> bool:
        """Tell whether the store keeps a data set of the same declaration, wherever its file was."""
        kept = read_kept(self.store.location, name) if self.store else None
        return kept is not None and kept.declaration.means_the_same(declaration)

    def by_name(self, name: str, _declaration: Declaration, place: str) -> DatasetInfo:
        """Return the data set of a registered sweep; raise DatasetError if the store keeps no copy of it."""
        info = self.info(name)
        if info is None:
            raise DatasetError(f"{place}: the store keeps no copy of it; train with --spec and the data set's file")
        return info

    def keep(self, store: Store, spec_file: str, directory: Path | None) -> None:
        """Copy the data sets that a sweep file declares into ``store``, those that it does not keep yet.

        Raises DatasetError where one is not what its name stands for there.
        """
        from butter_etl.studies import load_content  # which most commands do without

        self.store = store
        for name, declaration in store.study.reader.declarations(spec_file).items():
            if read_kept(store.location, name) is None:
                place = f"{spec_file}: datasets.{name}"
                path = fetch_source(declaration, Path(spec_file).parent, directory, place)
                content = load_content(name, declaration, path, place)
                self.refuse_other_content([content.info])
                keep(store, content, declaration, path)
