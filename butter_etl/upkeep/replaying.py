"""Replaying runs: training them again from nothing but their rows, and comparing.

`plan_replay` says which runs, as data; `replay_run` does one and needs no Dask; `run_replay` does all of them, in
threads, in processes of this machine, or on a cluster. Nothing is written.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from butter_etl.campaign import Item, Stack, train_stack
from butter_etl.clusters import map_each, start_cluster
from butter_etl.engines import Device
from butter_etl.errors import (
    ButterError,
    DatasetError,
    NotebookBar,
    SelectError,
    SpecError,
    UsageError,
    agreeing,
    counted,
    html_table,
    one_line,
)
from butter_etl.store import StudyLike, cached_copy, parse_partition, partition_path
from butter_etl.studies import OwnExperiment, Study, check_own_run, data_folder
from butter_etl.upkeep.comparing import (
    Difference,
    Distance,
    distance,
    first_difference,
    has_other_data,
    judged_histories,
    other_circumstances,
)
from butter_etl.upkeep.run_frame import FrameFile, NamedRun, RunFrame, name_runs

if TYPE_CHECKING:
    from distributed import Client

EQUAL, CLOSE, DIFFERS, DEPARTS = "equal", "close", "differs", "departs"
OTHER_DATA, WRONG_ROW, UNTRAINED = "other-data", "wrong-row", "untrained"
#: What a replay can come to, gravest first, and what that means.
OUTCOMES: Final[Mapping[str, str]] = {
    DIFFERS: "not the bits that were promised",
    WRONG_ROW: "its row contradicts itself",
    OTHER_DATA: "trained on other data than are here",
    DEPARTS: "another run, as far as other circumstances can tell",
    UNTRAINED: "could not be trained here",
    CLOSE: "the same to rounding; bits were not promised",
    EQUAL: "the same bits",
}
#: Those that are no fault.
SOUND: Final = frozenset({EQUAL, CLOSE})

#: Called now and then while a run trains; it stops the training by raising.
Watch = Callable[[], None]


class Replayed(msgspec.Struct, frozen=True):
    """What became of one run. ``outcome`` is one of `OUTCOMES`, ``detail`` says in a line how it came to that.

    ``is_promised`` tells whether its bits were promised, ``circumstances`` what of those that bits depend on is other
    here. ``difference`` is where it differs first, and ``distance`` how far it is apart; None where it does not differ.
    """

    run_id: str
    experiment_id: int
    repetition: int | None
    experiment: str
    path: str
    outcome: str
    detail: str = ""
    is_promised: bool = False
    circumstances: tuple[str, ...] = ()
    difference: Difference | None = None
    distance: Distance | None = None

    @property
    def is_fault(self) -> bool:
        """Tell whether the run is not what its row says."""
        return self.outcome not in SOUND


class Replays(msgspec.Struct, frozen=True):
    """What replays found: the runs, in the order of their ids, and how many of those chosen are other makers'."""

    path: str
    runs: tuple[Replayed, ...] = ()
    foreign: int = 0

    @property
    def faults(self) -> list[Replayed]:
        """Return the runs that are not what their rows say, gravest first."""
        ranks = {outcome: rank for rank, outcome in enumerate(OUTCOMES)}
        return sorted((one for one in self.runs if one.is_fault), key=lambda one: (ranks[one.outcome], one.run_id))

    @property
    def is_sound(self) -> bool:
        """Tell whether all runs are what their rows say: what the command ends with 0 for."""
        return not self.faults

    @property
    def counts(self) -> dict[str, int]:
        """Return how many runs came to each outcome, gravest first; those that none came to are left out."""
        found = [one.outcome for one in self.runs]
        return {outcome: found.count(outcome) for outcome in OUTCOMES if outcome in found}

    def _repr_html_(self) -> str:
        """Return the outcomes as a notebook shows them; below, each run that is at fault."""
        counts = [(outcome, number, OUTCOMES[outcome]) for outcome, number in self.counts.items()]
        faults = [(one.run_id, one.outcome, one.experiment, one.detail) for one in self.faults]
        tables = html_table(counts, ("outcome", "runs", "what it means"))
        return tables + (html_table(faults, ("run", "outcome", "experiment", "what is so")) if faults else "")


class Equipment(msgspec.Struct, frozen=True):
    """What replays train with: where data are, and an engine and a device in place of those that rows name."""

    data_dir: str
    engine: str | None = None
    device: Device | None = None

    def engine_of(self, study: Study, row: Mapping[str, Any]) -> tuple[str, Device]:
        """Return the engine and the device for a row; raise UsageError where the study has no such."""
        device: Device = self.device or ("cuda" if row.get("device") == "cuda" else "cpu")
        known = study.trainer.engines.get(device, ())
        if not known:
            raise UsageError(f"nothing of the study {study.name} runs on {device}")
        name = self.engine or row.get("engine") or known[0]
        if name not in known and (self.engine or not self.device):
            raise UsageError(f"the engine {name!r} does not run on {device}; those that do: {', '.join(known)}")
        return (name if name in known else known[0]), device


# --- plan --------------------------------------------------------------------------------------------------------


class ReplayPlan(msgspec.Struct, frozen=True):
    """The runs that are to be replayed, and how many of those chosen are of other makers."""

    frame: RunFrame
    runs: tuple[NamedRun, ...]
    foreign: tuple[NamedRun, ...] = ()


def plan_replay(
    frame: RunFrame,
    run_ids: Collection[str] = (),
    where: Collection[str] = (),
    client: Client | None = None,
) -> ReplayPlan:
    """Choose runs of a frame: those of ``run_ids``, or those that meet all conditions.

    Raises SelectError where nothing is named, a run is not there, or none of them was trained by this study here.
    """
    if not run_ids and not where:
        raise SelectError("name what to replay: RUN_ID or --where COND; `butter-etl audit` draws some")
    if run_ids and where:
        raise SelectError("name runs by their ids or by --where, not by both")
    named = name_runs(frame, where, client)
    chosen = [run for run in named if not run_ids or run.run_id in set(run_ids)]
    if lacking := sorted(set(run_ids) - {run.run_id for run in chosen}):
        raise SelectError(f"{frame.location}: has no run {lacking[0]}")
    if not chosen:
        raise SelectError(f"{frame.location}: has no runs that meet {' and '.join(where)}")
    own = [run for run in chosen if frame.study.is_own(run.task, run.task_version)]
    foreign = [run for run in chosen if not frame.study.is_own(run.task, run.task_version)]
    if not own:
        raise SelectError(f"{frame.location}: {foreign_line(foreign)}")
    return ReplayPlan(frame, tuple(own), tuple(foreign))


def foreign_line(runs: Collection[NamedRun]) -> str:
    """Return the line about runs of other makers, which nobody here can train again."""
    makers = ", ".join(sorted({f"{run.task} {run.task_version}" for run in runs}))
    what = f"{counted(len(runs), 'run')} {agreeing(len(runs), 'was', 'were')} made by {makers}"
    it = agreeing(len(runs), "it is", "they are")
    return f"{what}: {it} not ours to replay; `butter-etl audit` compares such with ours"


# --- one unit of work --------------------------------------------------------------------------------------------


class ReplayTask(NamedTuple):
    """A run that is to be replayed, and the part of its frame around its file."""

    run_id: str
    frame: RunFrame


def replay_run(task: ReplayTask, equipment: Equipment, watch: Watch | None = None) -> Replayed:
    """Train a run of a frame again and compare. What is wrong is in the result, also what its training raises."""
    frame, study, file = task.frame, task.frame.study, task.frame.files[0]
    stored = frame.read_run(task.run_id)
    row = _plain_row(study, stored, file)
    found = Replayed(task.run_id, row["experiment_id"], row["repetition"], "", file.path, EQUAL)
    try:
        one = _experiment_of(study, row, file)
    except SpecError as error:
        return msgspec.structs.replace(found, outcome=WRONG_ROW, detail=str(error))
    found = msgspec.structs.replace(found, experiment=one.describe())
    try:
        trained = _train(study, one, row, frame, equipment, watch)
    except Exception as error:  # noqa: BLE001 (a study's function may raise anything; the result says it)
        return msgspec.structs.replace(found, outcome=UNTRAINED, detail=_line(error))
    return _judged(found, frame, stored, row, trained)


def _plain_row(study: Study, stored: pa.Table, file: FrameFile) -> dict[str, Any]:
    """Return a row without its histories, the partition's columns among the others."""
    (row,) = stored.drop_columns(list(study.histories)).to_pylist()
    return {**row, **parse_partition(study.key_schema, file.partition)}


def _experiment_of(study: Study, row: Mapping[str, Any], file: FrameFile) -> OwnExperiment:
    """Return the experiment of a row; raise SpecError unless all of the row follows from its command."""
    one = check_own_run(study, row)
    repetition = json.loads(row["command"])["repetition"]
    if row["repetition"] != repetition:
        raise SpecError(f"repetition is {row['repetition']}, that of its command is {repetition}")
    if partition_path(study.keys, one.parameters()) != file.partition:
        raise SpecError(f"belongs in {partition_path(study.keys, one.parameters())}")
    return one


def _train(
    study: Study,
    one: OwnExperiment,
    row: Mapping[str, Any],
    frame: RunFrame,
    equipment: Equipment,
    watch: Watch | None,
) -> pa.Table:
    """Train a run from its command, alone in its stack; return its row."""
    said = json.loads(row["command"])
    engine, device = equipment.engine_of(study, row)
    given = ((said["repetition"], said["given"]),) if said.get("given") is not None else ()
    item = Item(one, row["experiment_id"], said["batch"], (said["repetition"],), given)
    data = study.trainer.load(one, Path(equipment.data_dir), _Kept(frame))
    stack = Stack((item,), engine, device)
    (trained,) = train_stack(study, stack, data, watch=lambda points, take: watch() if watch is not None else None)
    return trained


class _Kept:
    """What a store keeps for its trainer; an export keeps nothing."""

    def __init__(self, frame: RunFrame) -> None:
        self._frame = frame

    def load(self, one: OwnExperiment) -> Any:
        """Return the user's own data of an experiment; raise DatasetError where they are not kept as they were."""
        kind, info = self._frame.study.own_data, self._frame.study.own_info(one)
        if kind is None or info is None:
            raise AssertionError(one)
        if not self._frame.is_store:
            raise DatasetError(f"data set {info.name}: exports do not hold it; replay the run in its store")
        return cached_copy(self._frame.location, info, kind)


def _line(error: Exception) -> str:
    line = one_line(error) or type(error).__name__
    return line if isinstance(error, ButterError) else f"{type(error).__name__}: {line}"


def _judged(found: Replayed, frame: RunFrame, stored: pa.Table, row: Mapping[str, Any], trained: pa.Table) -> Replayed:
    """Return what a run and the one trained again come to."""
    study = frame.study
    again = trained.drop_columns(list(study.histories)).to_pylist()[0]
    others = tuple(other_circumstances(study, row, again))
    found = msgspec.structs.replace(found, is_promised=not others, circumstances=others)
    difference = first_difference(study, stored, trained)
    if difference is None:
        return found
    apart = distance(study, stored, trained, None if found.is_promised else _repetitions(frame, found))
    outcome = DIFFERS if found.is_promised else CLOSE if apart.is_close else DEPARTS
    outcome = OTHER_DATA if outcome == DEPARTS and has_other_data(row, again) else outcome
    detail = _detail(study, difference, apart, found.circumstances, outcome)
    return msgspec.structs.replace(found, outcome=outcome, detail=detail, difference=difference, distance=apart)


def _repetitions(frame: RunFrame, found: Replayed) -> pa.Table:
    """Return the judged histories of the repetitions of a run's experiment that are there, itself among them."""
    columns = ["experiment_id", *judged_histories(frame.study)]
    table = pa.concat_tables([frame.read(one, columns) for one in frame.files])
    return table.filter(pc.equal(table["experiment_id"], found.experiment_id))


def _detail(study: Study, one: Difference, apart: Distance, circumstances: tuple[str, ...], outcome: str) -> str:
    """Say in a line what differs first, and how far it is apart."""
    where = f"{one.column} at {study.points.name} {_point(study, one.point)}" if one.point else one.column
    values = f"{where}: {one.stored} is stored, {one.trained} trained again"
    if one.point:
        values += f" ({one.values:,} of {counted(one.of, 'value')})"
    if outcome == DIFFERS:
        return values
    spread = "" if apart.spread is None else f", {apart.spread:.2g} of the range of repetitions"
    return f"{circumstances[0]}; {values}; largest relative difference {apart.largest:.1g}{spread}"


def _point(study: Study, number: int) -> str:
    """Return what the point of a number, from 1, is called: where a column names points, its number."""
    return str(number) if study.points.column else f"{study.points.first + (number - 1) * study.points.step:g}"


# --- all of them -------------------------------------------------------------------------------------------------


def run_replay(
    plan: ReplayPlan,
    equipment: Equipment,
    client: Client | None = None,
    threads: int | None = None,
    on_progress: Callable[[Replays], None] = lambda done: None,
) -> Replays:
    """Replay everything planned: as Dask tasks on ``client``, else in ``threads`` (as many as there are cores).

    Data sets are fetched first, by this process alone. Training that is under way in threads stops with an interrupt.
    """
    fetch_experiments(plan.frame.study, _experiments(plan), equipment)
    done = Replays(str(plan.frame.location), foreign=len(plan.foreign))
    stop = threading.Event()
    watch = partial(raise_if_stopped, stop) if client is None else None
    replay_one = partial(replay_run, equipment=equipment, watch=watch)
    tasks = (ReplayTask(run.run_id, plan.frame.around(run.file)) for run in plan.runs)
    for _, one in map_each(replay_one, tasks, client, threads=threads, stop=stop.set):
        done = msgspec.structs.replace(done, runs=(*done.runs, one))
        on_progress(done)
    return msgspec.structs.replace(done, runs=tuple(sorted(done.runs, key=lambda one: one.run_id)))


def raise_if_stopped(stop: threading.Event) -> None:
    """Raise KeyboardInterrupt if an event is set."""
    if stop.is_set():
        raise KeyboardInterrupt


def fetch_experiments(study: Study, ones: Iterable[OwnExperiment], equipment: Equipment) -> None:
    """Have at hand what experiments learn from; training says of which it cannot be had."""
    for one in dict.fromkeys(ones):
        with suppress(DatasetError):
            study.trainer.fetch([one], Path(equipment.data_dir))


def _experiments(plan: ReplayPlan) -> Iterable[OwnExperiment]:
    """Yield the experiments of the runs, by their commands; those of rows that contradict themselves are left out."""
    wanted: dict[int, set[str]] = {}
    for run in plan.runs:
        wanted.setdefault(run.file, set()).add(run.run_id)
    for place, run_ids in wanted.items():
        for row in plan.frame.read(plan.frame.files[place], ["run_id", "command"]).to_pylist():
            if row["run_id"] in run_ids:
                with suppress(SpecError):
                    yield plan.frame.study.parse_command(row["command"] or "")


@contextmanager
def training_workers(
    plan: ReplayPlan,
    equipment: Equipment,
    client: Client | None = None,
    workers: int | None = None,
    engines: Iterable[str] = (),
) -> Iterator[Client | None]:
    """Yield what replays, and what else is trained by ``engines``, run on.

    That is a given client, None for threads of this process, or processes of this machine. Threads are for engines that
    leave the interpreter to others, which are made ready here first; other engines have a process a run, with as many
    threads within as in a campaign, since bits may depend on these.
    """
    trainer = plan.frame.study.trainer
    used = {*_engines(plan, equipment), *engines}
    if client is not None:
        yield client
    elif used <= set(trainer.threaded):
        for engine in sorted(used):
            trainer.prepare(engine)
        yield None
    else:
        with start_cluster(workers=workers) as own:
            yield own


def _engines(plan: ReplayPlan, equipment: Equipment) -> set[str]:
    """Return the engines that the runs are trained by, as far as there are such."""
    columns = [name for name in ("engine", "device") if name in plan.frame.study.run_files.names]
    found = set()
    for place in sorted({run.file for run in plan.runs}):
        for row in plan.frame.read(plan.frame.files[place], ["run_id", *columns]).to_pylist():
            with suppress(UsageError):
                found.add(equipment.engine_of(plan.frame.study, row)[0])
    return found


def replay(
    path: str | os.PathLike[str],
    *run_ids: str,
    where: Iterable[str] = (),
    client: Client | None = None,
    workers: int | None = None,
    engine: str | None = None,
    device: Device | None = None,
    data_dir: str | Path | None = None,
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
) -> Replays:
    """Train runs of a store or an export at ``path`` again and compare, as ``butter-etl replay`` does.

    Runs are named by their ids, or by conditions as in `read_runs`. Each is trained from nothing but its row, by the
    engine and on the device that this names, unless ``engine`` or ``device`` say otherwise. It works on ``client``,
    else on ``workers`` cores of this machine, by default all. What differs is in the result and raises nothing. Raises
    SelectError where there is no such run, or none that this package trained; StoreError, StudyError.
    """
    frame = RunFrame.open(path, state, study)
    plan = plan_replay(frame, run_ids, list(where), client)
    equipment = Equipment(str(data_folder(data_dir)), engine, device)
    with training_workers(plan, equipment, client, workers) as on, NotebookBar("runs", len(plan.runs)) as bar:

        def show(done: Replays) -> None:
            bar.update(len(done.runs), counted(len(done.faults), "fault") if done.faults else "")

        return run_replay(plan, equipment, on, workers if on is None else None, show)
