"""Formats of nn_lifespans: the published text tables, one a network, as files that runs come in and go out by.

A run that comes in is of the task `TABLE_TASK`, an experiment of its own, with ``val_mode`` ``published``: tables do
not tell how else they could have been measured, nor what follows fully connected layers.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from butter_etl.errors import ButterError, SourceError, one_line
from butter_etl.studies.columns import schema_of
from butter_etl.studies.formats import Format, Readout, Written
from butter_etl.studies.identity import Value
from butter_etl.studies.lifespans.columns import RUN_COLUMNS
from butter_etl.studies.lifespans.experiments import NETWORK_PARAMETERS, TABLE_TASK, ImageNetwork, network_id
from butter_etl.studies.lifespans.networks import network_of
from butter_etl.studies.lifespans.tables import MEASURES, Table, read_table, write_table

TABLE_TASK_VERSION: Final = 1
#: What all published networks were trained with, which is no column of runs.
_FIXED: Final = {"loss_fn": "CrossEntropyLoss", "optimizer": "SGD"}
_FOLDERS: Final = {"CIFAR100": "CIFAR-100_models"}
_RUNS: Final = uuid.UUID("6f0a0d4e-6f3c-5c8e-9a55-7c1d0a6f2b11")
#: The histories of runs, and the measures of tables.
_HISTORIES: Final = dict(zip(("epoch", "loss", "val_loss", "val_accuracy_percent"), MEASURES.values(), strict=True))
_LISTS: Final = frozenset(one.name for one in RUN_COLUMNS if pa.types.is_list(one.type))
_SCHEMA: Final = schema_of(RUN_COLUMNS)
_TOLD: Final = ("random_seed", "train_gpu", "torch_set_deterministic")


def read(data: bytes, _name: str = "") -> Readout:
    """Return the run of a table; raise SourceError for what is no table, or of no network of this study."""
    table = read_table(data)
    for name, wanted in _FIXED.items():
        if getattr(table, name) != wanted:
            raise SourceError(f"{name} is {getattr(table, name)!r}; networks of nn_lifespans have {wanted}")
    try:
        rows = pa.Table.from_pylist([_row_of(table)], schema=_SCHEMA)
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise SourceError(f"has a value that no run can have ({one_line(error)})") from error
    return Readout(rows, table.respelled)


def _row_of(table: Table) -> dict[str, Any]:
    network = ImageNetwork(
        **{name: getattr(table, name) for name in NETWORK_PARAMETERS},
        val_mode="published",
        epochs=math.ceil(table.epochs[-1]),
    )
    return {
        **network.parameters(),
        **{name: getattr(table, name) for name in _TOLD},
        **{history: getattr(table, name) for history, name in _HISTORIES.items()},
        "fc_activation": None,
        "n_fc_layers": len(table.fc_filters),
        "num_free_parameters": _size_of(network),
        "network_id": network_id(network.parameters()),
        "table_id": table.network_id,
        "run_id": str(uuid.uuid5(_RUNS, f"{TABLE_TASK} {table.network_id}")),
        "task": TABLE_TASK,
        "task_version": TABLE_TASK_VERSION,
        "batch": "published",
        "seed": table.random_seed,
        "device": "cuda" if table.train_gpu else "cpu",
    }


def _size_of(network: ImageNetwork) -> int | None:
    """Return the number of weights and biases; None of a network that cannot be built, or on an unknown image set."""
    try:
        return network_of(network).parameters
    except ButterError:
        return None


def write(rows: pa.Table) -> Iterator[Written]:
    """Yield the table of each run, called after the table that it came from, or else after itself.

    The seed of a run of this package is cut to the 32 bits that a table has for it.
    """
    for row in rows.to_pylist():
        table = _table_of(row)
        yield Written(f"{table.network_id}.txt", write_table(table))


def _table_of(row: Mapping[str, Any]) -> Table:
    seed, on_gpu = row["random_seed"], row["train_gpu"]
    values: dict[str, Any] = dict(_FIXED)
    for name in NETWORK_PARAMETERS:
        values[name] = tuple(row[name] or ()) if name in _LISTS else row[name]
    for history, name in _HISTORIES.items():
        values[name] = np.array(row[history], np.float64)
    return Table(
        **values,
        network_id=row["table_id"] or row["run_id"],
        random_seed=(row["seed"] or 0) % 2**32 if seed is None else seed,
        train_gpu=row["device"] == "cuda" if on_gpu is None else on_gpu,
        torch_set_deterministic=bool(row["torch_set_deterministic"]),
    )


def folder(parameters: Mapping[str, Value]) -> str:
    """Return the folder of a network's table: one for each image set, called as the published ones are."""
    return _FOLDERS.get(str(parameters["dataset"]), f"{parameters['dataset']}_models")


def doubt(parameters: Mapping[str, Value]) -> str | None:
    """Return in what a run is not measured as those of tables are, None if it is."""
    mode = parameters["val_mode"]
    return None if mode == "published" else f"val_mode is {mode}, not published"


TABLES: Final = Format(
    name="tables",
    noun="table",
    note=(
        "A table is a text file of one network, fields separated by single spaces: a line of column names, and a line "
        "for each half epoch with `epochs`, `trainLoss`, `valLoss` and `valAcc` (percent). The first line has the "
        "network's parameters too. Lists are joined by dashes."
    ),
    suffix=".txt",
    media_type="text/plain",
    read=read,
    write=write,
    folder=folder,
    doubt=doubt,
)
