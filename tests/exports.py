"""Stores and exports for tests of what is published."""

from __future__ import annotations

import hashlib
from pathlib import Path

from butter_etl.exchange.export_plan import ExportOptions, plan_export
from butter_etl.partition import run_export
from butter_etl.store.files import Location
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
from tests.strategies import DIGITS, land

_MNIST = {"dataset": "mnist", "depth": 3}
#: Experiments of several sweeps and partitions; two share a partition with others that are in fewer sweeps.
EXPERIMENTS = [
    make_experiment(**_MNIST, size=4096),
    make_experiment(**_MNIST, size=8192),
    make_experiment(**_MNIST, size=4096, label_noise=0.05),
    make_experiment(**_MNIST, size=4096, batch_size=32),
    make_experiment(**_MNIST, size=4096, kernel_regularizer=Regularizer("l1", 0.32)),
    make_experiment(**_MNIST, size=4096, optimizer="SGD", momentum=0.9),
]


def make_store(path: Path) -> Store:
    """A store of `EXPERIMENTS`, three runs each in two files, and one of a custom kind; summarised."""
    store = Store.create(path)
    for spec in EXPERIMENTS:
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(2), epochs=4)
        land(store, spec, BUTTER.fixed_ids.id_of(spec), range(2, 3), epochs=4)
    registry = Registry(store)
    registry.claim(store, {DIGITS: "mine"})
    land(store, DIGITS, registry.experiment_id(DIGITS), range(2), batch="mine", epochs=4)
    run_summaries(plan_summaries(store), store)
    return store


def export(store, dest, *sweeps, where=(), everything=False, on_progress=lambda files: None, **options):
    """Export a selection as the command does."""
    chosen = ExportOptions(**options)
    selection = Registry(store).select(Choice(sweeps=sweeps, where=tuple(where)))
    planned = plan_export(store, selection, chosen, everything=everything)
    return run_export(planned, store, Location(dest), chosen, on_progress)


def contents(folder):
    """Every file below a folder by its path, as SHA-256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }
