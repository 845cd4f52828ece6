"""Formats of rnn_capacity: the published records, a pickled array for each figure, as files that trials come and go by.

A trial that comes in is of the task `RECORD_TASK`. Its cell is that of its file: a figure's name is part of it, so that
the same cell of two figures is two experiments, as their searches were. What records do not say of a cell is null; how
many steps a network is unrolled for is what the article says of the task.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa

from butter_etl.errors import SourceError, counted, one_line
from butter_etl.studies.capacity.columns import PROGRESS, RUN_COLUMNS
from butter_etl.studies.capacity.experiments import PROCESS, RANDOM, UNROLL_STEPS
from butter_etl.studies.capacity.hyperparameters import hparams_text
from butter_etl.studies.capacity.records import INFEASIBLE, LOSSES, Records, read_records, write_records
from butter_etl.studies.columns import schema_of
from butter_etl.studies.formats import Format, Readout, Written
from butter_etl.studies.identity import Value

#: What made the trials of records.
RECORD_TASK: Final = "rnn_capacity.published"
RECORD_TASK_VERSION: Final = 1
#: The folder of published files, and the file of each task.
FOLDER: Final = "rnn_hp_dataset"
FILES: Final[Mapping[str, str]] = {
    "per_cap": "fig1_percap.p",
    "mem_thru": "fig2_memthru.p",
    "rcf": "fig3_txt8rcf.p",
    "text8": "fig3_txt8rcf.p",
    "parens_counting": "fig4_parens.p",
    "arithmetic": "fig4_arith.p",
}
#: The file of random sets of hyperparameters, and the task and the budget that they were tried with.
RANDOM_FILE: Final = "fig5_randhp.p"
_RANDOM_CELLS: Final = ("parens_counting", 200_000)
_FIGURE: Final = re.compile(r"fig(?:ure)?_?([1-5])(?![0-9])", re.IGNORECASE)
_RANDOM_FIGURE: Final = "5"
_UNROLLED_FIGURE: Final = "2"

_RUNS: Final = uuid.UUID("0f6d8a52-3c1e-5d0b-8f57-a9e24c7b61d3")
_SCHEMA: Final = schema_of(RUN_COLUMNS)
#: The most trials that a cell can have: repetitions are counted by 16 bits.
_MOST_TRIALS: Final = 2**16 - 1
#: The most bytes of a file that are held at once: more than all that was published takes.
_MOST_BYTES: Final = 2**30
#: Hyperparameters with columns of their own, by the type of these.
_NUMBERS: Final = ("lr_init", "lr_decay_rate", "optimizer_logit_momentum", "gradient_clip_val", "l2_decay")
_WHOLES: Final = ("train_steps",)
_TEXTS: Final = ("optimizer", "recurrent_matrix_init_type", "recurrent_bias_init_type", "nonlinearity")
#: What makes two trials of a file be of one cell, and what else own cells can differ in.
_CELL: Final = ("task_type", "architecture", "n_layers", "max_params")
_OF_SEARCH: Final = ("search", "unroll_steps", "batch_size")


# --- in ----------------------------------------------------------------------------------------------------------


def read(data: bytes, name: str) -> Readout:
    """Return the trials of the file ``name``, a run for each of its records, in their order.

    Trials of a cell are numbered by the number that they have in their search; where two have the same, or numbers are
    left out, they are counted on. Raises SourceError for what are no records of trials.
    """
    records = read_records(data)
    file = PurePosixPath(name).name
    columns: dict[str, Sequence[Any]] = {
        **{field: getattr(records, field) for field in (*_CELL, "num_params", "hyper_iter", "infeasible")},
        **_of_file(file, records),
        **_of_hparams(records),
        **_of_losses(records),
        "repetition": _repetitions(records),
    }
    try:
        arrays = [_array(field, columns.get(field.name), len(records)) for field in _SCHEMA]
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise SourceError(f"has a value that no trial can have ({one_line(error)})") from error
    return Readout(pa.table(arrays, schema=_SCHEMA), records.respelled)


def _array(field: pa.Field, values: Sequence[Any] | None, count: int) -> pa.Array:
    return pa.nulls(count, field.type) if values is None else pa.array(values, field.type)


def _of_file(file: str, records: Records) -> dict[str, Sequence[Any]]:
    """Return the columns that tell where trials were published, and what that tells of them."""
    count = len(records)
    figure = PurePosixPath(file).stem
    found = _FIGURE.match(figure)
    number = found[1] if found else None
    search = None if number is None else RANDOM if number == _RANDOM_FIGURE else PROCESS
    steps = dict(UNROLL_STEPS)
    if number == _UNROLLED_FIGURE:  # a part of it is of several numbers of steps, which records do not say
        del steps["per_cap"]
    return {
        "source_file": [file] * count,
        "source_row": range(count),
        "source_figure": [figure] * count,
        "search": [search] * count,
        "unroll_steps": [steps.get(task) for task in records.task_type],
        "run_id": [str(uuid.uuid5(_RUNS, f"{RECORD_TASK} {file} {row}")) for row in range(count)],
        "task": [RECORD_TASK] * count,
        "task_version": [RECORD_TASK_VERSION] * count,
        "batch": ["published"] * count,
    }


def _of_hparams(records: Records) -> dict[str, Sequence[Any]]:
    """Return the hyperparameters as JSON, and the columns of those that have one."""
    kinds: dict[str, Callable[[int, str, Any], Any]] = dict.fromkeys(_NUMBERS, _number)
    kinds |= dict.fromkeys(_WHOLES, _whole) | dict.fromkeys(_TEXTS, _text)
    columns: dict[str, Sequence[Any]] = {"hparams": [hparams_text(one) for one in records.hparams]}
    for name, kind in kinds.items():
        columns[name] = [kind(number, name, one.get(name)) for number, one in enumerate(records.hparams)]
    return columns


def _number(record: int, name: str, value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise SourceError(f"record {record}: hparams has {value!r} for {name}, which is no number")
    return None if value is None else float(value)


def _whole(record: int, name: str, value: Any) -> int | None:
    number = _number(record, name, value)
    if number is not None and (number < 0 or not number.is_integer()):
        raise SourceError(f"record {record}: hparams has {value!r} for {name}, which is no whole number from 0 on")
    return None if number is None else int(value)


def _text(record: int, name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise SourceError(f"record {record}: hparams has {value!r} for {name}, which is no text")
    return value


def _of_losses(records: Records) -> dict[str, Sequence[Any]]:
    """Return the histories, of one point, and what the losses of per_cap say of mutual information.

    Such losses are cross entropies or, as the search was told, the mutual information with a minus before it. Since the
    former are never below 0, a file with one that is has the latter.
    """
    steps = [one.get("train_steps") for one in records.hparams]
    is_per_cap = [task == "per_cap" for task in records.task_type]
    trials = list(zip(is_per_cap, records.infeasible, records.eval_loss, records.num_params, strict=True))
    is_information = any(one and not ended and loss < 0 for one, ended, loss, _ in trials)
    bits = [-loss + 0.0 if is_information and one and not ended else None for one, ended, loss, _ in trials]
    return {
        **{name: [[loss] for loss in getattr(records, name)] for name in LOSSES},
        PROGRESS: [[1.0]] * len(records),
        "step": [None if one is None else [int(one)] for one in steps],
        "mutual_information_bits": bits,
        "bits_per_parameter": [
            None if one is None else one / size for one, size in zip(bits, records.num_params, strict=True)
        ],
    }


def _repetitions(records: Records) -> Sequence[int]:
    """Return the place of each trial among those of its cell, by its number, and by its row where numbers are equal."""
    cells: dict[tuple[Any, ...], int] = {}
    keys = zip(*(getattr(records, name) for name in _CELL), strict=True)
    of = np.array([cells.setdefault(key, len(cells)) for key in keys], np.int64)
    order = np.lexsort((np.array(records.hyper_iter, np.int64), of))
    sizes = np.bincount(of, minlength=len(cells))
    if sizes.size and sizes.max() > _MOST_TRIALS:
        cell = list(cells)[int(sizes.argmax())]
        trials = counted(int(sizes.max()), "trial")
        raise SourceError(f"has {trials} of {' '.join(map(str, cell))}; a cell has at most {_MOST_TRIALS:,}")
    places = np.empty(of.size, np.int64)
    places[order] = np.arange(of.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return places.tolist()


# --- out ---------------------------------------------------------------------------------------------------------


def write(rows: pa.Table) -> Iterator[Written]:
    """Yield the file of some trials: imported ones in the order that they came in, others by cell and number."""
    trials = sorted(rows.select(list(_WRITTEN)).to_pylist(), key=_order)
    yield Written("", write_records(_records(trials)), len(trials))


_WRITTEN: Final = (
    *_CELL, "num_params", "hyper_iter", "repetition", "hparams", "infeasible", *LOSSES, "source_file", "source_row",
    "run_id", *_OF_SEARCH,
)  # fmt: skip


def _order(trial: Mapping[str, Any]) -> tuple[Any, ...]:
    is_own = trial["source_row"] is None
    came = (trial["source_file"] or "", trial["source_row"] or 0)
    cell = [(trial[name] is not None, trial[name]) for name in (*_CELL, *_OF_SEARCH)]
    return (is_own, *came, *cell, trial["repetition"], trial["run_id"])


def _records(trials: Sequence[Mapping[str, Any]]) -> Records:
    def all_of(name: str) -> list[Any]:
        return [one[name] for one in trials]

    for one in trials:
        if one["num_params"] is None:
            raise SourceError(f"run {one['run_id']}: a record needs num_params, which the run does not have")
    numbers = [one["repetition"] if one["hyper_iter"] is None else one["hyper_iter"] for one in trials]
    return Records(
        task_type=all_of("task_type"),
        architecture=all_of("architecture"),
        n_layers=all_of("n_layers"),
        max_params=all_of("max_params"),
        num_params=all_of("num_params"),
        hyper_iter=numbers,
        hparams=[json.loads(one or "{}") for one in all_of("hparams")],
        infeasible=[bool(one) for one in all_of("infeasible")],
        train_loss=[_last(one["train_loss"]) for one in trials],
        valid_loss=[_last(one["valid_loss"]) for one in trials],
        eval_loss=[_last(one["eval_loss"]) for one in trials],
    )


def _last(losses: Sequence[float | None] | None) -> float:
    """Return the loss at the end of a training; infinite where there is none."""
    last = losses[-1] if losses else None
    return INFEASIBLE if last is None else last


def folder(_parameters: Mapping[str, Value]) -> str:
    """Return the folder that all files are in."""
    return FOLDER


def file(parameters: Mapping[str, Value]) -> str:
    """Return the file of a cell's trials: that of its figure, or of one that it would belong to."""
    if parameters["source_figure"] is not None:
        return f"{parameters['source_figure']}.p"
    task = str(parameters["task_type"])
    is_random = parameters["search"] == RANDOM and (task, parameters["max_params"]) == _RANDOM_CELLS
    return RANDOM_FILE if is_random else FILES.get(task, f"{task}.p")


def doubt(parameters: Mapping[str, Value]) -> str | None:
    """Return in what a cell is not what records of it are taken to be; None if it is."""
    if parameters["source_figure"] is not None:
        return None
    steps, usual = parameters["unroll_steps"], UNROLL_STEPS.get(str(parameters["task_type"]))
    if steps is not None and steps != usual:
        return f"unroll_steps is {steps}, not {usual}"
    if parameters["text_sha256"] is not None:
        return "the text is not that of text8"
    return None


RECORDS: Final = Format(
    name="records",
    noun="record file",
    note=(
        "A record file is a pickled NumPy array, a record a trial: `architecture`, `task_type`, `n_layers`, "
        "`max_params`, `num_params`, `hyper_iter` (the number of the trial), `hparams` (a dictionary), and the losses "
        "at the end of the training, `train_loss`, `valid_loss` and `eval_loss`, infinite where it diverged. Load it "
        "by `numpy.load(name, allow_pickle=True, encoding='latin1')`."
    ),
    suffix=".p",
    media_type="application/octet-stream",
    most_bytes=_MOST_BYTES,
    read=read,
    write=write,
    folder=folder,
    file=file,
    doubt=doubt,
)
