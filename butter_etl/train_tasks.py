"""Training a selection: plan what is missing, train and land it in tasks, feed the tasks to Dask.

Three parts: `plan_runs` says what is to be done, as data; `train_and_land` does one task and needs no Dask;
`run_training` keeps a bounded number of tasks in flight on a cluster and records what fails. Workers return counts,
never curves; what is there is decided by the store alone, so any of this may be killed and started again.
"""

from __future__ import annotations

import logging
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from butter_etl import costs, datasets
from butter_etl.datasets import Dataset, cached_dataset, dataset_info, ensure_dataset
from butter_etl.drivers import Heartbeat
from butter_etl.engines import Device, choose_engine
from butter_etl.errors import ButterError, DeviceMemoryError, SelectError, one_line
from butter_etl.registry import Registry
from butter_etl.selection import Choice, Selection
from butter_etl.spec import MAX_REPETITIONS, ExperimentSpec
from butter_etl.store import Failure, Store, partition_path, require_state
from butter_etl.sweeps import experiment_topology
from butter_etl.training import Item, Stack, cut_stack, fitting_stacks, stack_key, train_stack

if TYPE_CHECKING:
    from distributed import Client, Future

#: A task takes between these many estimated seconds, so that scheduling is nothing beside training and a lost
#: worker loses little. The lower bound only matters when there is less work than the cluster could share out.
SHORTEST_TASK, LONGEST_TASK = 0.5, 600.0
_TASKS_PER_WORKER = 4
#: How often a single experiment's task is tried before its error is recorded.
ATTEMPTS = 3

logger = logging.getLogger(__name__)


class Wanted(msgspec.Struct, frozen=True):
    """Repetitions of one experiment that are to be trained. ``experiment_id`` is None until the store has claimed one.

    ``batch`` names the sweep that asked; ``core_seconds`` is the estimate for one run.
    """

    spec: ExperimentSpec
    experiment_id: int | None
    batch: str
    repetitions: tuple[int, ...]
    num_free_parameters: int
    core_seconds: float


@dataclass
class Plan:
    """What a selection comes to. ``experiments`` counts feasible ones; ``there`` and ``missing`` count runs."""

    experiments: int = 0
    infeasible: int = 0
    there: int = 0
    missing: int = 0
    core_seconds: float = 0.0
    wanted: list[Wanted] = field(default_factory=list)

    @property
    def datasets(self) -> list[str]:
        """The data sets that what is missing needs."""
        return sorted({wanted.spec.dataset for wanted in self.wanted})


def plan_runs(selection: Selection, registry: Registry, present: Mapping[int, int], rates: costs.Rates) -> Plan:
    """What is to be trained. ``present`` are the repetitions of each experiment id that are there, as bit masks.

    ``rates`` say what training costs. Pure: nothing is written.
    Raises SelectError where an experiment would come to more than 255 runs.
    """
    plan = Plan()
    for spec, count in selection.experiments():
        topology = experiment_topology(spec)
        if topology is None:
            plan.infeasible += 1
            continue
        plan.experiments += 1
        experiment_id = registry.experiment_id(spec)
        mask = 0 if experiment_id is None else present.get(experiment_id, 0)
        repetitions = selection.wanted_repetitions(count)
        missing = tuple(rep for rep in repetitions if not mask >> rep & 1)
        plan.there += len(repetitions) - len(missing)
        if not missing:
            continue
        if mask.bit_count() + len(missing) > MAX_REPETITIONS:
            raise SelectError(
                f"{spec.describe()}: {mask.bit_count()} runs are there, "
                f"{len(missing)} more would pass {MAX_REPETITIONS}"
            )
        cost = costs.core_seconds(spec, topology.num_free_parameters, dataset_info(spec.dataset), rates)
        batch = registry.batch(experiment_id) if experiment_id is not None else _asking_sweep(spec, selection)
        plan.missing += len(missing)
        plan.core_seconds += cost * len(missing)
        plan.wanted.append(Wanted(spec, experiment_id, batch, missing, topology.num_free_parameters, cost))
    return plan


def _asking_sweep(spec: ExperimentSpec, selection: Selection) -> str:
    return next(sweep.name for sweep in selection.sweeps if spec in sweep)


# --- one unit of work --------------------------------------------------------------------------------------------


class Task(msgspec.Struct, frozen=True):
    """What one future does. ``attempt`` counts from 1."""

    items: tuple[Item, ...]
    attempt: int = 1

    @property
    def runs(self) -> int:
        """How many runs the task trains."""
        return sum(len(item.repetitions) for item in self.items)


class Settings(msgspec.Struct, frozen=True):
    """What every task of a campaign needs to know."""

    store: str
    state: str | None
    data_dir: str
    engine: str = "torch"
    device: Device = "cpu"


class TaskReport(msgspec.Struct, frozen=True):
    """What a task did; reports add. ``present`` runs had landed before."""

    landed: int = 0
    present: int = 0
    core_seconds: float = 0.0

    def __add__(self, other: TaskReport) -> TaskReport:
        return TaskReport(
            self.landed + other.landed, self.present + other.present, self.core_seconds + other.core_seconds
        )


def cut_tasks(wanted: Iterable[Wanted], target_seconds: float, device: Device = "cpu") -> Iterator[Task]:
    """Tasks of about ``target_seconds`` each: small experiments share one, an expensive one is cut into stacks.

    For a GPU, experiments that can be trained in one stack come one after the other.
    """
    if device == "cuda":
        wanted = sorted(wanted, key=lambda entry: stack_key(entry.spec))
    items: list[Item] = []
    load = 0.0
    for entry in wanted:
        for item in _stacks(entry, target_seconds, device):
            cost = len(item.repetitions) * entry.core_seconds
            if items and load + cost > target_seconds:
                yield Task(tuple(items))
                items, load = [], 0.0
            items.append(item)
            load += cost
    if items:
        yield Task(tuple(items))


def _stacks(entry: Wanted, target_seconds: float, device: Device) -> Iterator[Item]:
    if entry.experiment_id is None:
        raise AssertionError(entry)
    most = costs.stack_limit(entry.num_free_parameters, dataset_info(entry.spec.dataset), device)
    most = max(1, min(most, int(target_seconds / entry.core_seconds)))
    for start in range(0, len(entry.repetitions), most):
        yield Item(entry.spec, entry.experiment_id, entry.batch, entry.repetitions[start : start + most])


def target_task_seconds(total_core_seconds: float, workers: int) -> float:
    """How long tasks should be: long enough to matter, short enough that all workers share the end."""
    return min(max(total_core_seconds / (_TASKS_PER_WORKER * max(workers, 1)), SHORTEST_TASK), LONGEST_TASK)


def train_and_land(task: Task, settings: Settings) -> TaskReport:
    """Train what of a task is still missing and land it, experiment by experiment.

    Safe to run twice, even at the same time: what has landed is not trained again, and a landing keeps each
    repetition once. Raises whatever stops it; what landed before stays.
    """
    store = Store.open(settings.store, settings.state)
    report = TaskReport()
    for items in _side_by_side(task.items, settings.device):
        left = [_missing(store, item) for item in items]
        runs = sum(len(item.repetitions) for item in left)
        report += TaskReport(present=sum(len(item.repetitions) for item in items) - runs)
        if runs:
            stack = Stack(tuple(item for item in left if item.repetitions), settings.engine, settings.device)
            report += _train_and_land_stack(stack, store, cached_dataset(items[0].spec.dataset, settings.data_dir))
    return report


def _side_by_side(items: Iterable[Item], device: Device) -> Iterator[list[Item]]:
    """Items that are trained together: each by itself on a CPU, neighbours that fit together on a GPU."""
    if device == "cuda":
        yield from (list(group) for _, group in groupby(items, key=lambda item: stack_key(item.spec)))
    else:
        yield from ([item] for item in items)


def _missing(store: Store, item: Item) -> Item:
    there = store.repetitions_of(item.experiment_id, partition_path(item.spec.parameters()))
    return msgspec.structs.replace(item, repetitions=tuple(rep for rep in item.repetitions if rep not in there))


def _train_and_land_stack(stack: Stack, store: Store, dataset: Dataset) -> TaskReport:
    """Train a stack, in parts if it is too large for the device's memory; each part lands as soon as it is done."""
    report = TaskReport()
    parts = deque(fitting_stacks(stack, dataset))
    while parts:
        part = parts.popleft()
        try:
            tables = train_stack(part, dataset)
        except DeviceMemoryError as error:
            runs = len(part.runs())
            if runs == 1:
                raise
            logger.warning("%s; trying halves", error)
            parts.extendleft(reversed(cut_stack(part, -(-runs // 2))))
            continue
        for item, table in zip(part.items, tables, strict=True):
            landing = store.land(partition_path(item.spec.parameters()), item.experiment_id, table)
            report += TaskReport(landing.landed, landing.present, sum(table["core_seconds"].to_pylist()))
    return report


# --- on a cluster ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """How far a campaign is, in runs; those in flight are with the cluster now."""

    wanted: int
    landed: int
    present: int
    failed: int
    runs_in_flight: int
    core_seconds: float


@dataclass(frozen=True)
class TrainReport:
    """How a campaign ended, in runs. ``interrupted`` says that somebody asked it to stop."""

    landed: int = 0
    present: int = 0
    failed: int = 0
    core_seconds: float = 0.0
    interrupted: bool = False
    failures: tuple[Failure, ...] = ()


def claim_ids(plan: Plan, registry: Registry, store: Store) -> list[Wanted]:
    """What is wanted, each experiment with an id; new ids are claimed in the store."""
    registry.claim(store, {wanted.spec: wanted.batch for wanted in plan.wanted if wanted.experiment_id is None})
    return [
        wanted
        if wanted.experiment_id is not None
        else msgspec.structs.replace(wanted, experiment_id=registry.experiment_id(wanted.spec))
        for wanted in plan.wanted
    ]


def run_training(
    campaign: Campaign,
    store: Store,
    settings: Settings,
    client: Client,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> TrainReport:
    """Train what a campaign is missing on a cluster; every failure is recorded in the store.

    An interrupt (Ctrl-C) cancels what is in flight and returns a report that says so.
    """
    plan = campaign.plan
    wanted = claim_ids(plan, campaign.registry, store)
    workers = sum(int(info["nthreads"]) for info in client.scheduler_info(n_workers=-1)["workers"].values())
    tasks = cut_tasks(wanted, target_task_seconds(plan.core_seconds, workers), settings.device)
    with Heartbeat(store.state, plan.missing) as heartbeat:

        def report(progress: Progress) -> None:
            runs = {"landed": progress.landed, "failed": progress.failed, "in_flight": progress.runs_in_flight}
            heartbeat.update(**runs)
            on_progress(progress)

        driver = _Driver(store, settings, client, tasks, plan.missing, report)
        return driver.run(window=max(8, 3 * workers))


class _Driver:
    """The driver's loop: a bounded window of futures, retries, records of what fails."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        client: Client,
        tasks: Iterator[Task],
        wanted: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._store, self._settings, self._client = store, settings, client
        self._tasks, self._again = tasks, deque[Task]()
        self._wanted, self._on_progress = wanted, on_progress
        self._running: dict[Future[Any], Task] = {}
        self._done = TaskReport()
        self._failures: list[Failure] = []
        self._failed = 0

    def run(self, window: int) -> TrainReport:
        from distributed import as_completed

        interrupted = False
        completed = as_completed(with_results=True, raise_errors=False)
        try:
            self._refill(completed, window)
            for batch in completed.batches():
                for future, result in batch:
                    self._finish(future, result)
                self._refill(completed, window)
        except KeyboardInterrupt:
            interrupted = True
            self._client.cancel(list(self._running), force=True)
        return TrainReport(
            self._done.landed,
            self._done.present,
            self._failed,
            self._done.core_seconds,
            interrupted,
            tuple(self._failures),
        )

    def _next_task(self) -> Task | None:
        return self._again.popleft() if self._again else next(self._tasks, None)

    def _refill(self, completed: Any, window: int) -> None:
        new: list[Task] = []
        while len(self._running) + len(new) < window and (task := self._next_task()) is not None:
            new.append(task)
        if new:
            futures = self._client.map(train_and_land, new, settings=self._settings, pure=False)
            self._running.update(zip(futures, new, strict=True))
            completed.update(futures)
        self._report()

    def _report(self) -> None:
        done = self._done
        in_flight = sum(task.runs for task in self._running.values())
        self._on_progress(Progress(self._wanted, done.landed, done.present, self._failed, in_flight, done.core_seconds))

    def _finish(self, future: Future[Any], result: Any) -> None:
        task = self._running.pop(future)
        if future.status == "finished":
            self._done += result
        else:
            self._retry(task, _error_of(future, result))
        future.release()

    def _retry(self, task: Task, error: tuple[str, str]) -> None:
        """Try a failed task again, its experiments one by one, until its attempts are used up; then record it."""
        if len(task.items) > 1:
            self._again.extend(Task((item,)) for item in task.items)
        elif task.attempt < ATTEMPTS:
            self._again.append(Task(task.items, task.attempt + 1))
        else:
            self._record(task.items[0], error)

    def _record(self, item: Item, error: tuple[str, str]) -> None:
        failure = Failure(
            experiment_id=item.experiment_id,
            experiment=item.spec.describe(),
            repetitions=list(item.repetitions),
            error=error[0],
            details=error[1],
            host=socket.gethostname(),
            time=int(time.time()),
        )
        self._store.record_failure(failure)
        self._failures.append(failure)
        self._failed += len(item.repetitions)


def _error_of(future: Future[Any], result: Any) -> tuple[str, str]:
    """One line that names the error, and its traceback, of a future that did not finish."""
    if future.status != "error":
        return f"the task was {future.status}", ""
    kind, error, trace = result
    line = one_line(error) or kind.__name__
    text = line if isinstance(error, ButterError) else f"{kind.__name__}: {line}"
    return text, "".join(traceback.format_exception(kind, error, trace))


# --- the whole way -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Campaign:
    """A selection of experiments and what a store is missing of it; ``store`` is None as long as there is none."""

    path: str
    state: str | None
    choice: Choice
    selection: Selection
    store: Store | None
    registry: Registry
    present: Mapping[int, int]
    plan: Plan
    engine: str
    device: Device


def plan_campaign(
    path: str | Path,
    choice: Choice,
    state: str | Path | None = None,
    *,
    engine: str = "auto",
    device: Device = "cpu",
) -> Campaign:
    """What training a choice into the store at ``path`` would mean; nothing is written.

    Raises SelectError if no sweep is named, and whatever is wrong with the choice or the store.
    """
    if not choice.sweeps and not choice.specs:
        raise SelectError("name what to train: --sweep NAME or --spec FILE.yaml")
    store = Store.find(path, state)
    registry = Registry(store)
    selection = registry.select(choice)
    present = store.repetitions() if store else {}
    engine = choose_engine(engine, device)
    plan = plan_runs(selection, registry, present, costs.load_rates(engine, device))
    return Campaign(
        str(path), str(state) if state else None, choice, selection, store, registry, present, plan, engine, device
    )


def open_campaign(campaign: Campaign, folder: Path) -> tuple[Store, Settings]:
    """Have the data sets at hand, then the store, with the campaign's sweeps registered.

    The driver alone downloads, before anything is written; tasks never do. Raises DatasetError.
    """
    require_state(campaign.path, campaign.state)
    for name in campaign.plan.datasets:
        ensure_dataset(name, folder)
    store = campaign.store or Store.create(campaign.path, campaign.state)
    campaign.registry.register(store, campaign.choice)
    settings = Settings(
        store=store.location.absolute,
        state=str(store.state),
        data_dir=str(folder.absolute()),
        engine=campaign.engine,
        device=campaign.device,
    )
    return store, settings


def train(
    store: str | Path,
    *,
    client: Client,
    sweep: str | None = None,
    spec: str | Path | None = None,
    where: Iterable[str] = (),
    repetitions: int | None = None,
    first_repetition: int = 0,
    engine: str = "auto",
    device: Device = "cpu",
    data_dir: str | Path | None = None,
    state: str | Path | None = None,
) -> TrainReport:
    """Train what a sweep (published, registered, or of a YAML file ``spec``) is missing in a store, on ``client``.

    The same as ``butter-etl train``: the store is made if it is not there, data sets are downloaded if they are not
    at hand. Raises SelectError, SpecError, StoreError, DatasetError; what fails in training is in the report and
    recorded in the store.
    """
    choice = Choice(
        sweeps=(sweep,) if sweep else (),
        specs=(str(spec),) if spec else (),
        where=tuple(where),
        repetitions=repetitions,
        first_repetition=first_repetition,
    )
    campaign = plan_campaign(store, choice, state, engine=engine, device=device)
    opened, settings = open_campaign(campaign, datasets.data_dir(data_dir))
    return run_training(campaign, opened, settings, client)
