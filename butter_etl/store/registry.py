"""The registry of a store: experiments, with ids claimed once and for all, and sweeps by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from butter_etl.engines import column_of
from butter_etl.errors import SelectError, SpecError, StoreError, counted, one_line, writing
from butter_etl.store.layout import EXPERIMENTS, SWEEPS
from butter_etl.store.locks import FileLock
from butter_etl.store.own_datasets import OwnDatasets
from butter_etl.store.parquet import parquet_bytes
from butter_etl.store.store import Store
from butter_etl.studies import (
    FIRST_CLAIMED_ID,
    Choice,
    Experiment,
    OwnExperiment,
    Selection,
    Study,
    Sweep,
    check_repetitions,
    default_study,
    parse_condition,
)

if TYPE_CHECKING:
    from butter_etl.studies import Lookup

_CLAIM = re.compile(r"(\d+)\.parquet")
#: An id that an experiment had elsewhere is not kept from here up: new ids need room above all that are taken.
_HIGHEST_KEPT_ID = 2**31
#: A row as Python's objects takes some kilobytes, and a sweep may have hundreds of thousands.
_ROWS_AT_ONCE = 1000
#: As Arrow's columns, with the structures of networks spelled out, some thousand rows take some ten megabytes.
_ROWS_A_FILE = 10_000


class Newcomer(msgspec.Struct, frozen=True):
    """An experiment that is to get an id: the sweep that asks for it, and the id that it had elsewhere.

    ``derived`` are its derived columns as its rows have them; of the study's own experiments they are computed.
    """

    batch: str
    experiment_id: int | None = None
    derived: Mapping[str, Any] = {}


class Registry:
    """The ids and sweeps of one store; without a store, the published ones of a study alone.

    Without either, that is the study of new stores.
    """

    def __init__(self, store: Store | None, study: Study | None = None) -> None:
        self.study = store.study if store else study or default_study()
        self._store = store
        self._ids: dict[Experiment, int] = {}
        self._experiments: dict[int, Experiment] = {}
        self._batches: dict[int, str] = {}
        self._next_id = FIRST_CLAIMED_ID
        self._files_read: set[str] = set()
        self.own_datasets = OwnDatasets(store, self.study)
        self._refresh()

    def experiment_id(self, spec: Experiment) -> int | None:
        """Return the id of an experiment: the fixed one, or the claimed one; None if it has none yet."""
        fixed = self.study.fixed_ids.id_of(spec) if isinstance(spec, OwnExperiment) else None
        return self._ids.get(spec) if fixed is None else fixed

    def experiment(self, experiment_id: int) -> Experiment:
        """Return the experiment of an id; raise StoreError for an id that neither the sweeps nor the store know."""
        spec = self._experiments.get(experiment_id)
        if spec is not None:
            return spec
        try:
            return self.study.fixed_ids.experiment(experiment_id)
        except KeyError:
            raise StoreError(
                f"{self._store}: experiment {experiment_id} has runs but is in no sweep and not in {EXPERIMENTS}/"
            ) from None

    def batch(self, experiment_id: int, one: Experiment | None = None) -> str:
        """Return the name of the sweep that first asked for an experiment, which may be given if it is at hand.

        For a published experiment this is the first published sweep, in the document's order, that has it; for others
        it is the sweep that the id was claimed for.
        """
        claimed = self._batches.get(experiment_id)
        if claimed is not None:
            return claimed
        one = one or self.study.fixed_ids.experiment(experiment_id)
        return next(name for name, sweep in self.study.sweeps.items() if one in sweep)

    def claim(self, store: Store, wanted: Mapping[OwnExperiment, str]) -> None:
        """Give an id in ``store`` to each experiment that has none; the values name the sweep that asks for it.

        Raises PlaceError or FullDiskError if the store cannot be written.
        """
        self.adopt(store, {spec: Newcomer(batch) for spec, batch in wanted.items()})

    def adopt(self, store: Store, wanted: Mapping[Experiment, Newcomer]) -> None:
        """Give an id in ``store`` to each experiment that has none: the one it had elsewhere if that is free here.

        Ids are given under a lock, and taken by creating one file exclusively; whoever loses a race all the same (by
        another state folder) reads the winner's file and tries again with what is left. Raises PlaceError or
        FullDiskError if the store cannot be written, DatasetError if two contents would have one name, SpecError for
        an experiment with a value that its column cannot hold.
        """
        self._store = self.own_datasets.store = store
        self._refresh()
        if not self._without_id(wanted):
            return
        with (
            writing(store),
            FileLock(store.state / "locks" / "experiments.lock") as lock,
            lock.kept_fresh(),
        ):
            self._refresh()
            own = map(self.study.own_info, wanted)
            self.own_datasets.refuse_other_content(info for info in own if info is not None)
            while missing := self._without_id(wanted):
                self._write(store, missing)
                self._refresh()

    def _write(self, store: Store, wanted: Mapping[Experiment, Newcomer]) -> None:
        """Claim ids, some thousand a file, until all experiments have one or somebody else was faster."""
        ids = self._free_ids(wanted)
        for some in _slices(sorted(ids), _ROWS_A_FILE):
            table = _experiments_table(self.study, wanted, {one: ids[one] for one in some})
            if not store.location.write_new(
                f"{EXPERIMENTS}/{some[0]}.parquet", parquet_bytes(table, self.study.encodings)
            ):
                return

    def _without_id(self, wanted: Mapping[Experiment, Newcomer]) -> dict[Experiment, Newcomer]:
        return {spec: newcomer for spec, newcomer in wanted.items() if self.experiment_id(spec) is None}

    def _free_ids(self, wanted: Mapping[Experiment, Newcomer]) -> dict[int, Experiment]:
        """Choose an id for each experiment: its own where nobody has it, else one above all others."""
        ids: dict[int, Experiment] = {}
        others = []
        for spec, newcomer in wanted.items():
            own = newcomer.experiment_id
            if own is not None and self._is_free(own) and own not in ids:
                ids[own] = spec
            else:
                others.append(spec)
        ids.update(enumerate(others, start=max([self._next_id, *(own + 1 for own in ids)])))
        return ids

    def _is_free(self, experiment_id: int) -> bool:
        lowest = len(self.study.fixed_ids) or FIRST_CLAIMED_ID
        return lowest <= experiment_id < _HIGHEST_KEPT_ID and experiment_id not in self._experiments

    def _refresh(self) -> None:
        if self._store is None:
            return
        location = self._store.location
        for name in location.names(EXPERIMENTS):
            if name in self._files_read or not _CLAIM.fullmatch(name):
                continue
            rows = location.read_table(f"{EXPERIMENTS}/{name}", ["experiment_id", "canonical_json", "batch"])
            for row in _rows(rows):
                spec = self.study.parse_experiment(row["canonical_json"])
                self._ids[spec] = row["experiment_id"]
                self._experiments[row["experiment_id"]] = spec
                self._batches[row["experiment_id"]] = row["batch"] or ""
                if (info := self.study.own_info(spec)) is not None:
                    self.own_datasets.add(info)
                self._next_id = max(self._next_id, row["experiment_id"] + 1)
            self._files_read.add(name)

    # --- sweeps --------------------------------------------------------------------------------------------------

    def sweep(self, name: str, lookup: Lookup | None = None) -> Sweep:
        """Return the published or registered sweep called ``name``; raise SelectError naming the known ones if none is.

        ``lookup`` finds the sweep's own data sets; without it, the store's copies are taken.
        """
        if name in self.study.sweeps:
            return self.study.sweeps[name]
        registered = self.sweep_names()
        if self._store is None or name not in registered:
            known = f"; registered in the store: {', '.join(registered)}" if registered else ""
            raise SelectError(f"{self.study.reader.unknown_sweep(name, registered)}{known}")
        text = self._store.location.read_bytes(f"{SWEEPS}/{name}.yaml").decode()
        origin = f"{self._store}/{SWEEPS}/{name}.yaml"
        return self.study.reader.parse(text, origin, lookup or self.own_datasets.by_name)

    def sweep_names(self) -> list[str]:
        """List the custom sweeps that are registered."""
        names = self._store.location.names(SWEEPS) if self._store is not None else []
        return [name.removesuffix(".yaml") for name in names if name.endswith(".yaml") and not name.startswith(".")]

    def select(self, choice: Choice, directory: Path | None = None) -> Selection:
        """Return the selection that a user's choice comes to, after its custom sweeps have been read and checked.

        The store is not changed. Own data sets are read, and those of PMLB that are not at hand downloaded to
        ``directory``. Raises SelectError, SpecError or DatasetError in one line, also where the store has another
        sweep, or other data, of the same name.
        """
        if choice.repetitions is not None:
            check_repetitions(choice.repetitions, self.study.max_runs, "--repetitions")
        sweeps = self._sweeps(choice, directory)
        terms = self.study.terms(self._names(sweeps) if choice.where else {})
        conditions = tuple(parse_condition(text, terms) for text in choice.where)
        return Selection(sweeps, conditions, choice.repetitions, choice.first_repetition)

    def _sweeps(self, choice: Choice, directory: Path | None) -> tuple[Sweep, ...]:
        """Return the sweeps of a choice; refuse those of which the store has another, or other data, by that name."""
        read = self.study.reader.load
        custom = [read(path, self.own_datasets.from_files(path, directory)) for path in choice.specs]
        for sweep, path in zip(custom, choice.specs, strict=True):
            if sweep.name in self.sweep_names() and self.sweep(sweep.name, self._as_in(sweep)) != sweep:
                raise SelectError(
                    f"{path}: {self._store} has another sweep called {sweep.name!r}; choose another name, or, "
                    f"if nothing of it has run: butter-etl sweeps --store {self._store} --replace {path}"
                )
        sweeps = (*(self.sweep(name) for name in choice.sweeps), *custom)
        self.own_datasets.refuse_other_content([info for sweep in sweeps for info in sweep.own_datasets()])
        return sweeps

    def _names(self, sweeps: Iterable[Sweep]) -> dict[str, list[str]]:
        """List the names that parameters may have: the study's, of own data sets, and of the store's experiments."""
        own = [*(info.name for sweep in sweeps for info in sweep.own_datasets()), *self.own_datasets.names()]
        found = {}
        for key, choices in self.study.reader.choices.items():
            others = {str(spec.parameters()[key]) for spec in self._experiments.values()}
            found[key] = list(dict.fromkeys([*choices, *own, *sorted(others)]))
        return found

    def _as_in(self, sweep: Sweep) -> Lookup:
        """Return the look-up that finds the own data sets of another sweep, and else those of the store."""
        own = {info.name: info for info in sweep.own_datasets()}
        return lambda name, declaration, place: own.get(name) or self.own_datasets.by_name(name, declaration, place)

    def register(self, store: Store, choice: Choice, directory: Path | None = None) -> None:
        """Keep a choice's custom sweeps and their own data sets in ``store``: they can be named from now on.

        Raises DatasetError where a data set is not what it was when the choice was looked at.
        """
        self._store = self.own_datasets.store = store
        for path in choice.specs:
            content = Path(path).read_bytes()
            name = self.study.reader.load(path, self.own_datasets.from_files(path, directory)).name
            self.own_datasets.keep(store, path, directory)
            with writing(store), FileLock(store.state / "locks" / "sweeps.lock") as lock, lock.kept_fresh():
                store.location.write_new(f"{SWEEPS}/{name}.yaml", content)
        self._sweeps(choice, directory)  # whoever registered the same name first has the last word

    def replace(self, store: Store, path: str, directory: Path | None = None) -> Sweep:
        """Put the sweep of a file in the place of the registered one of its name, of which nothing may have run.

        Raises SelectError if there is none of that name, or if any experiment of it has a run or a claimed id, and
        what `select` raises.
        """
        self._store = self.own_datasets.store = store
        with FileLock(store.state / "locks" / "sweeps.lock"):
            new = self.study.reader.load(path, self.own_datasets.from_files(path, directory))
            if new.name not in self.sweep_names():
                raise SelectError(f"{path}: {store} has no sweep called {new.name!r} to be replaced; train with --spec")
            self._refuse_begun(store, self.sweep(new.name))
            self.own_datasets.refuse_other_content(new.own_datasets())
            self.own_datasets.keep(store, path, directory)
            store.location.replace(f"{SWEEPS}/{new.name}.yaml", Path(path).read_bytes())
        return new

    def _refuse_begun(self, store: Store, sweep: Sweep) -> None:
        """Raise SelectError if an experiment of a sweep has runs, or an id that was claimed for it."""
        present = store.repetitions()
        runs = sum(mask.bit_count() for one, mask in present.items() if self.experiment(one) in sweep)
        claimed = sum(1 for one, batch in self._batches.items() if batch == sweep.name)
        if runs or claimed:
            begun = counted(runs, "run") if runs else counted(claimed, "claimed experiment")
            raise SelectError(
                f"{store}: sweep {sweep.name!r} has begun ({begun}) and cannot be replaced; choose another name"
            )


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _experiments_table(study: Study, wanted: Mapping[Experiment, Newcomer], ids: Mapping[int, Experiment]) -> pa.Table:
    def rows(some: Sequence[int]) -> list[dict[str, object]]:
        return [_experiment_row(study, ids[one], wanted[ids[one]], one) for one in some]

    slices = _slices(sorted(ids), _ROWS_AT_ONCE)
    try:
        return pa.concat_tables(_table(rows(some), study.claimed) for some in slices)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise SpecError(
            f"an experiment does not fit the columns of the study {study.name} ({one_line(error)})"
        ) from error


def _table(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    return pa.table([column_of([row.get(one.name) for row in rows], one.type) for one in schema], schema=schema)


def _slices(numbers: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), most):
        yield numbers[start : start + most]


def _experiment_row(study: Study, spec: Experiment, newcomer: Newcomer, experiment_id: int) -> dict[str, object]:
    return {
        "experiment_id": experiment_id,
        "canonical_json": spec.canonical_json(),
        "batch": newcomer.batch,
        **spec.parameters(),
        "task": spec.task,
        **(study.trainer.derive(spec) if isinstance(spec, OwnExperiment) else newcomer.derived),
    }
