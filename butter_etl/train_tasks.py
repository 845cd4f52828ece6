"""Training a selection: plan what is missing, train and land it in tasks, feed the tasks to Dask.

Three parts: `plan_runs` says what is to be done, as data; `butter_etl.campaign.tasks.train_and_land` does one task and
needs no Dask; `run_training` has a `butter_etl.campaign.driver.Driver` keep a bounded number of tasks in flight on a
cluster and record what fails. Workers return counts, never curves; what is there is decided by the store alone, so any
of this may be killed and started again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec

from butter_etl.campaign import (
    NO_HISTORY,
    Aiming,
    Checkpoints,
    Claims,
    Share,
    Wanted,
    begun_stacks,
    discard_landed,
    target_task_seconds,
)
from butter_etl.clusters import thread_count
from butter_etl.engines import LOOKS, Device
from butter_etl.errors import NotebookBar, SelectError, UsageError, counted, html_table, writing
from butter_etl.store import (
    Aim,
    Registry,
    Store,
    StudyLike,
    as_study,
    keep_aim,
    read_kept,
    read_rounds,
    require_copy,
    require_state,
    write_round,
)
from butter_etl.studies import (
    Choice,
    Experiment,
    Landed,
    Propose,
    RunSpec,
    Selection,
    Study,
    data_folder,
    parse_goal,
    text_of_one,
)

if TYPE_CHECKING:
    from distributed import Client

    from butter_etl.campaign import Heartbeat, Progress, Settings, TrainReport


@dataclass
class Tally:
    """Totals of a part of a selection. ``experiments`` counts feasible ones; ``there`` and ``missing`` count runs.

    ``core_seconds`` is the estimated cost of what is missing, ``longest_run`` that of its most expensive run.
    """

    experiments: int = 0
    infeasible: int = 0
    there: int = 0
    missing: int = 0
    core_seconds: float = 0.0
    longest_run: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.experiments + other.experiments,
            self.infeasible + other.infeasible,
            self.there + other.there,
            self.missing + other.missing,
            self.core_seconds + other.core_seconds,
            max(self.longest_run, other.longest_run),
        )


@dataclass
class TrainingPlan:
    """The runs that are to be trained, and the totals of the selection by sweep and the outermost key, ``group``."""

    group: str
    wanted: list[Wanted] = field(default_factory=list)
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)

    @cached_property
    def total(self) -> Tally:
        """Return the totals of the whole selection."""
        return sum(self.tallies.values(), Tally())

    @property
    def experiments(self) -> int:
        """Return the number of experiments that can be trained."""
        return self.total.experiments

    @property
    def infeasible(self) -> int:
        """Return the number of experiments that have no network of about their size."""
        return self.total.infeasible

    @property
    def there(self) -> int:
        """Return the number of the wanted runs that are there."""
        return self.total.there

    @property
    def missing(self) -> int:
        """Return the number of runs that are to be trained."""
        return self.total.missing

    @property
    def core_seconds(self) -> float:
        """Return the estimated cost of the missing runs, in core seconds."""
        return self.total.core_seconds

    def seconds(self, at_once: int) -> float:
        """Return how many seconds training takes where so many tasks run at once: no less than the longest run."""
        return max(self.total.core_seconds / at_once, self.total.longest_run)

    @property
    def groups(self) -> list[str]:
        """Return the values of the outermost key that the missing runs have."""
        return sorted({str(getattr(wanted.spec, self.group)) for wanted in self.wanted})


def choose_engine(study: Study, name: str, device: Device) -> str:
    """Return the name of the engine for a device: ``name`` itself, or for ``auto`` the one that the study prefers.

    Raises UsageError for an engine that does not run on the device.
    """
    known = study.trainer.engines.get(device, ())
    if not known:
        raise UsageError(f"nothing of the study {study.name} runs on {device}")
    if name == "auto":
        return known[0]
    if name not in known:
        raise UsageError(f"the {name} engine does not run on {device}; those that do: {', '.join(known)}")
    return name


def planned_device(study: Study) -> Device:
    """Return the device that a plan is for where nobody says: the CPU, unless nothing of the study runs on it."""
    devices = study.trainer.engines
    return "cpu" if "cpu" in devices else next(iter(devices), "cpu")


def plan_runs(
    selection: Selection,
    registry: Registry,
    present: Mapping[int, int],
    *,
    engine: str = "auto",
    device: Device = "cpu",
    aiming: Aiming | None = None,
) -> TrainingPlan:
    """Plan what is to be trained; write nothing.

    ``present`` are the repetitions of each experiment id that are there, as bit masks. What training costs is that of
    an engine on a device. Where a campaign is ``aiming`` at goals, all that it may train is wanted, and what is counted
    as missing is what it is expected to need. Raises SelectError where an experiment would come to more runs than
    summaries can count.
    """
    study, trainer = registry.study, registry.study.trainer
    estimate = trainer.estimator(choose_engine(study, engine, device), device)
    group = study.keys[0]
    plan = TrainingPlan(group=group)
    for sweep, spec, count in selection.experiments():
        tally = plan.tallies.setdefault((sweep, str(getattr(spec, group))), Tally())
        if not trainer.can_build(spec):
            tally.infeasible += 1
            continue
        tally.experiments += 1
        experiment_id = registry.experiment_id(spec)
        mask = 0 if experiment_id is None else present.get(experiment_id, 0)
        repetitions = selection.wanted_repetitions(count)
        missing = tuple(rep for rep in repetitions if not mask >> rep & 1)
        tally.there += len(repetitions) - len(missing)
        if not missing and aiming is None:
            continue
        if mask.bit_count() + len(missing) > study.max_runs:
            raise SelectError(
                f"{spec.describe()}: {counted(mask.bit_count(), 'run')} there, "
                f"{len(missing)} more would pass {study.max_runs}"
            )
        priced = missing or tuple(repetitions)
        costs = [estimate(RunSpec(spec, rep)) for rep in (priced if trainer.runs_differ else priced[:1])]
        cost = sum(one.seconds for one in costs) / len(costs)
        batch = registry.batch(experiment_id, spec) if experiment_id is not None else sweep
        wanted = Wanted(spec, experiment_id, batch, missing, cost, max(one.bytes for one in costs))
        expected = len(missing) if aiming is None else aiming.expected(wanted)
        tally.missing += expected
        tally.core_seconds += cost * expected
        if expected:
            tally.longest_run = max(tally.longest_run, *(one.seconds for one in costs))
        plan.wanted.append(wanted)
    return plan


# --- on a cluster ------------------------------------------------------------------------------------------------


def claim_ids(plan: TrainingPlan, registry: Registry, store: Store) -> list[Wanted]:
    """Return what is wanted, each experiment with an id; claim new ids in the store."""
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
    heartbeat: Heartbeat | None = None,
    batch: int | None = None,
) -> TrainReport:
    """Train what a campaign is missing on a cluster; record every failure in the store.

    Other drivers may work on the same store: each trains what it has claimed. ``heartbeat`` is one that beats already,
    of a driver that had to wait for its cluster. ``batch`` is how many runs of an experiment a round has at most, of
    those that are trained in rounds; None leaves it to the study. An interrupt (Ctrl-C) cancels what is in flight and
    returns a report that says so. Raises CampaignError when nothing that it does succeeds.
    """
    # Here and below: what trains, which plans and whoever asks for the status do without.
    from butter_etl.campaign import Driver, Heartbeat, TrainReport, full_disk_stops

    plan = campaign.plan
    wanted = claim_ids(plan, campaign.registry, store)
    rounds = Rounds(store, batch, campaign.aim)
    workers = thread_count(client)
    target = target_task_seconds(plan.core_seconds, workers)
    begun = begun_stacks(Checkpoints(store.state, store.study))
    beating = nullcontext(heartbeat) if heartbeat else Heartbeat(store.state, plan.missing)
    with writing(store), full_disk_stops(), beating as beat, Claims(store.state) as claims:

        def report(progress: Progress) -> None:
            beat.update(progress)
            on_progress(progress)

        own, done = msgspec.structs.replace(settings, claim=claims.token), TrainReport()
        rounds.belong_to(claims.token)
        while now := rounds.next(wanted, done):
            share = Share(now, claims, store, target, settings.device, begun, workers)
            missing = sum(len(one.repetitions) for one in now)
            more = Driver(store, own, client, share, missing, report).run(window=max(8, 3 * workers))
            done += more
            if more.interrupted or not more.landed + more.present:
                break
    discard_landed(store)
    return done


class Rounds:
    """What of a campaign can be trained now: all of it at once, or in rounds.

    Rounds are where the study proposes runs, and where the campaign has an aim. A round of proposals has at most
    ``batch`` runs of an experiment, if that is a number.
    """

    def __init__(self, store: Store, batch: int | None = None, aim: Aim | None = None) -> None:
        self._store, self._batch, self._begun = store, batch, False
        self._aiming = None if aim is None else Aiming(store.study, store, aim)

    def belong_to(self, driver: str) -> None:
        """Say which driver trains them, by its token: it writes down how far the aim is."""
        if self._aiming is not None:
            self._aiming.driver = driver

    def next(self, wanted: list[Wanted], done: TrainReport) -> list[Wanted]:
        """Return what is to be trained next, after what ``done`` reports; nothing when all is done.

        Rounds of proposals are written before they are returned.
        """
        failed = {(one.experiment_id, repetition) for one in done.failures for repetition in one.repetitions}
        if self._aiming is not None:
            return self._aiming.round(wanted, failed, done.core_seconds)
        study, begun, self._begun = self._store.study, self._begun, True
        propose = study.propose
        if propose is None:
            return [] if begun else wanted
        found = []
        for one in wanted:
            now = self._round(propose, one, failed) if study.in_rounds(one.spec) else None if begun else one
            if now is not None:
                found.append(now)
        return found

    def _round(self, propose: Propose, one: Wanted, failed: Collection[tuple[int, int]]) -> Wanted | None:
        experiment_id = one.experiment_id
        if experiment_id is None:
            raise AssertionError(one)
        rounds = read_rounds(self._store, experiment_id)
        there = self._store.repetitions_of(experiment_id, self._store.partition_of(one.spec))
        ended = there | {repetition for owner, repetition in failed if owner == experiment_id}
        proposed = [proposal for proposals in rounds for proposal in proposals]
        left = [proposal for proposal in proposed if proposal.repetition not in ended]
        if not left:
            asked = {proposal.repetition for proposal in proposed}
            unasked = [repetition for repetition in one.repetitions if repetition not in asked | ended]
            new = propose(one.spec, unasked[: self._batch], list(self._landed(one))) if unasked else []
            if not new:
                return None
            left = list(write_round(self._store, experiment_id, len(rounds), new))
        return msgspec.structs.replace(
            one,
            repetitions=tuple(proposal.repetition for proposal in left),
            given=tuple(
                (proposal.repetition, to_text(proposal.given)) for proposal in left if proposal.given is not None
            ),
        )

    def _landed(self, one: Wanted) -> Iterator[Landed]:
        partition = self._store.partition_of(one.spec)
        for file in self._store.run_files(partition):
            if file.experiment_id == one.experiment_id:
                for row in self._store.read_runs(file).to_pylist():
                    yield Landed(row["repetition"], row)


def to_text(given: object) -> str:
    """Return what was proposed for a run as JSON, its keys sorted."""
    return msgspec.json.encode(given, order="sorted").decode()


# --- the whole way -----------------------------------------------------------------------------------------------


#: The letters of a sweep's name.
_NAMES = "abcdefghijklmnopqrstuvwxyz0123456789_"
#: At most so many repetitions of an experiment are trained for goals where nothing else is said.
_USUAL_LIMIT = 100


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
    plan: TrainingPlan
    engine: str
    device: Device
    aim: Aim | None = None

    @cached_property
    def aiming(self) -> Aiming | None:
        """Return the aim, with how far each experiment is by the runs that are there; None without goals."""
        if self.aim is None:
            return None
        aiming = Aiming(self.registry.study, self.store, self.aim)
        aiming.round(self.plan.wanted)
        return aiming

    @cached_property
    def own_columns(self) -> Mapping[str, Sequence[Any]]:
        """Return what became of each column, or other part, of the users' own data sets of the sweeps, by data set.

        Where its file is gone and the store's copy does not tell, a data set has none.
        """
        infos = [info for sweep in self.selection.sweeps for info in sweep.own_datasets()]
        return {info.name: self.registry.own_datasets.details(info.name) for info in infos}

    @property
    def warnings(self) -> list[str]:
        """Return a line for each part of users' own data sets that is probably not what it was meant to be."""
        kind = self.registry.study.own_data
        if kind is None:
            return []
        return [line for name, details in self.own_columns.items() for line in kind.doubt_lines(name, details)]

    def _repr_html_(self) -> str:
        """Return what is there, and missing, of each sweep and outermost key, as a notebook shows it.

        Below are the columns of users' own data sets, and the warnings.
        """
        head = ("sweep", self.plan.group, "experiments", "there", "missing", "core-hours")
        rows = [
            (sweep, value, one.experiments, one.there, one.missing, round(one.core_seconds / 3600, 2))
            for (sweep, value), one in self.plan.tallies.items()
        ]
        return html_table(rows, head) + self._own_data_html()

    def _own_data_html(self) -> str:
        kind = self.registry.study.own_data
        if kind is None:
            return ""
        rows = [(name, *one) for name, details in self.own_columns.items() for one in kind.describe_details(details)]
        told = html_table(rows, ("data set", *kind.heads)) if rows else ""
        return told + (html_table([(line,) for line in self.warnings], ("warnings",)) if self.warnings else "")


def plan_campaign(
    path: str | Path,
    choice: Choice,
    state: str | Path | None = None,
    *,
    engine: str = "auto",
    device: Device = "cpu",
    data_dir: str | Path | None = None,
    study: StudyLike | None = None,
    asked: Asked | None = None,
) -> Campaign:
    """Plan the training of a choice into the store at ``path``; write nothing there.

    Own data sets that are PMLB's are downloaded to ``data_dir``: only their content tells what is to be done. Raises
    SelectError if no sweep is named, and whatever is wrong with the choice, its data sets, what is asked of precision,
    or the store.
    """
    if not choice.sweeps and not choice.specs:
        raise SelectError("name what to train: --sweep NAME or --spec FILE.yaml")
    store = Store.find(path, state, study)
    registry = Registry(store, as_study(study))
    aim = None
    if asked is not None and asked.is_anything:
        choice = asked.limited(choice, registry.study)
    selection = registry.select(choice, data_folder(data_dir))
    if asked is not None and asked.is_anything:
        aim = asked.aim(registry.study, selection)
    present = store.repetitions() if store else {}
    engine = choose_engine(registry.study, engine, device)
    aiming = None if aim is None else Aiming(registry.study, store, aim)
    plan = plan_runs(selection, registry, present, engine=engine, device=device, aiming=aiming)
    campaign = Campaign(
        str(path), str(state) if state else None, choice, selection, store, registry, present, plan, engine, device, aim
    )
    _refuse_blind(campaign)
    return campaign


def _refuse_blind(campaign: Campaign) -> None:
    """Raise SelectError where there are runs, and no goal can look at any of them."""
    cells = campaign.aiming.cells if campaign.aiming is not None else ()
    if any(cell.reason == NO_HISTORY for cell in cells) and not any(cell.looked_at for cell in cells):
        raise SelectError(f"{campaign.path}: no goal can look at its runs: they have no history of what is asked for")


class Asked(msgspec.Struct, frozen=True):
    """What a user asks of precision: goals as `parse_goal` takes them, and limits.

    ``budget`` is in core-hours. ``approximate`` allows goals on means.
    """

    goals: tuple[str, ...] = ()
    max_repetitions: int | None = None
    budget: float | None = None
    approximate: bool = False

    @property
    def is_anything(self) -> bool:
        """Tell whether anything is asked for."""
        return self != Asked()

    def limited(self, choice: Choice, study: Study) -> Choice:
        """Return a choice of as many repetitions as are allowed; raise SelectError for limits that are none."""
        most = min(LOOKS[-1], study.max_runs)
        limit = min(_USUAL_LIMIT, most) if self.max_repetitions is None else self.max_repetitions
        if not self.goals:
            raise SelectError("--max-repetitions, --budget and --approximate go with --precision")
        if choice.repetitions is not None:
            raise SelectError("--precision decides on repetitions: give --max-repetitions in place of --repetitions")
        if study.propose is not None:
            raise SelectError(f"the study {study.name} proposes its runs itself: leave --precision out")
        if not LOOKS[0] <= limit <= most:
            raise SelectError(f"--max-repetitions {limit}: goals take {LOOKS[0]} to {most} repetitions")
        if self.budget is not None and not 0 < self.budget < float("inf"):
            raise SelectError(f"--budget {self.budget:g}: a budget is more than 0 core-hours")
        return msgspec.structs.replace(choice, repetitions=limit)

    def aim(self, study: Study, selection: Selection) -> Aim:
        """Return the aim of a campaign; raise SelectError for a goal that is none."""
        goals = tuple(parse_goal(text, study, approximate=self.approximate) for text in self.goals)
        return Aim(
            goals,
            tuple(sweep.name for sweep in selection.sweeps),
            tuple(str(condition) for condition in selection.conditions),
            selection.repetitions or LOOKS[0],
            self.budget,
            selection.first_repetition,
        )


def _asked(
    precision: str | Sequence[str], max_repetitions: int | None, budget: float | None, *, approximate: bool
) -> Asked:
    """Return what is asked of precision in one goal or several."""
    goals = (precision,) if isinstance(precision, str) else tuple(precision)
    return Asked(goals, max_repetitions, budget, approximate)


def plan(
    store: str | Path,
    *,
    sweep: str | None = None,
    spec: str | Path | None = None,
    where: Iterable[str] = (),
    repetitions: int | None = None,
    first_repetition: int = 0,
    engine: str = "auto",
    device: Device = "cpu",
    data_dir: str | Path | None = None,
    state: str | Path | None = None,
    study: StudyLike | None = None,
    like: str | None = None,
    precision: str | Sequence[str] = (),
    max_repetitions: int | None = None,
    budget: float | None = None,
    approximate: bool = False,
) -> Campaign:
    """Tell what `train` would do with the same arguments, and what it would cost; write nothing.

    Raises what `train` raises of its arguments.
    """
    choice = _choice(sweep, spec, where, repetitions, first_repetition)
    asked = _asked(precision, max_repetitions, budget, approximate=approximate)
    with _with_like(store, like, choice, state, study) as chosen:
        return plan_campaign(
            store, chosen, state, engine=engine, device=device, data_dir=data_dir, study=study, asked=asked
        )


def _choice(
    sweep: str | None, spec: str | Path | None, where: Iterable[str], repetitions: int | None, first_repetition: int
) -> Choice:
    return Choice(
        sweeps=(sweep,) if sweep else (),
        specs=(str(spec),) if spec else (),
        where=tuple(where),
        repetitions=repetitions,
        first_repetition=first_repetition,
    )


def _with_like(
    store: str | Path, like: str | None, choice: Choice, state: str | Path | None, study: StudyLike | None
) -> AbstractContextManager[Choice]:
    """Return a block in which a choice is that of the run ``like``, if there is one, else the choice as it is."""
    return nullcontext(choice) if like is None else choosing_like(store, like, choice, state, study)


@contextmanager
def choosing_like(
    store: str | Path, run_id: str, choice: Choice, state: str | Path | None = None, study: StudyLike | None = None
) -> Iterator[Choice]:
    """Choose the experiment of ours with the parameters of a run of a store, whoever trained that: its twin.

    Yields a choice of a custom sweep, whose file is there until the block is left. Raises SelectError where there is no
    such run, or more is chosen than ``--repetitions``; SpecError where the study cannot train such parameters.
    """
    if choice.sweeps or choice.specs or choice.where:
        raise SelectError("--like chooses an experiment by itself; leave --sweep, --spec and --where out")
    opened = Store.open(store, state, study)
    one = Registry(opened).experiment(_experiment_of(opened, run_id))
    name = "like_" + "".join(letter if letter in _NAMES else "_" for letter in run_id.lower())[:60]
    # Whatever the choice says of repetitions: the sweep is the same one, that its name stands for in the store.
    text = text_of_one(opened.study.reader, name, one.parameters(), 1, _declared(opened, one))
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        yield msgspec.structs.replace(choice, specs=(str(file),))


def _declared(store: Store, one: Experiment) -> Mapping[str, Any]:
    """Return the declaration of the user's own data set of an experiment, by its name, as the store's copy has it."""
    kind, info = store.study.own_data, store.study.own_info(one)
    if kind is None or info is None:
        return {}
    require_copy(store.location, info, kind)
    return {info.name: read_kept(store.location, info.name, kind).declaration}


def _experiment_of(store: Store, run_id: str) -> int:
    """Return the id of the experiment of a run; raise SelectError where a store does not have it."""
    for file in store.run_files():
        if run_id in store.read_runs(file, ["run_id"])["run_id"].to_pylist():
            return file.experiment_id
    raise SelectError(f"--like {run_id}: {store} has no such run")


def open_campaign(campaign: Campaign, folder: Path, checkpoint_seconds: float = 300.0) -> tuple[Store, Settings]:
    """Get the data sets, then open or make the store, with the campaign's sweeps and own data sets registered.

    The store is returned with the settings of its tasks; unfinished training is saved every ``checkpoint_seconds``. The
    driver alone downloads, before anything is written; tasks never do. Raises DatasetError.
    """
    from butter_etl.campaign import Settings

    require_state(campaign.path, campaign.state)
    _ = campaign.registry.study.reference  # tasks import the study; one that cannot be is told before anything is made
    study, specs = campaign.registry.study, [wanted.spec for wanted in campaign.plan.wanted]
    study.trainer.fetch(specs, folder)
    store = Store.create(campaign.path, campaign.state, study)
    campaign.registry.register(store, campaign.choice, folder)
    if campaign.aim is not None:
        keep_aim(store, campaign.aim)
    if (kind := study.own_data) is not None:
        for info in {info for spec in specs if (info := kind.info_of(spec)) is not None}:
            require_copy(store.location, info, kind)
    settings = Settings(
        store=store.location.absolute,
        state=str(store.state),
        study=study,
        data_dir=str(folder.absolute()),
        engine=campaign.engine,
        device=campaign.device,
        checkpoint_seconds=checkpoint_seconds,
    )
    return store, settings


def train(
    store: str | Path,
    *,
    client: Client | None = None,
    workers: int | None = None,
    sweep: str | None = None,
    spec: str | Path | None = None,
    where: Iterable[str] = (),
    repetitions: int | None = None,
    first_repetition: int = 0,
    engine: str = "auto",
    device: Device = "cpu",
    data_dir: str | Path | None = None,
    state: str | Path | None = None,
    study: StudyLike | None = None,
    like: str | None = None,
    batch: int | None = None,
    precision: str | Sequence[str] = (),
    max_repetitions: int | None = None,
    budget: float | None = None,
    approximate: bool = False,
) -> TrainReport:
    """Train what a sweep (published, registered, or of a YAML file ``spec``) is missing in a store.

    ``like`` is the `run_id` of a run of the store: what has its parameters is trained, whoever trained that.
    The same as ``butter-etl train``: the store is made if it is not there, data sets are downloaded if they are not
    at hand. With ``precision``, goals such as ``"test_loss_median: 2% at 95%"``, it decides on the repetitions of each
    experiment, of at most ``max_repetitions`` and within a ``budget`` of core-hours; goals on means need
    ``approximate``. It trains on ``client``; without one on ``workers`` cores of this machine, by default all. A script
    then calls it under ``if __name__ == "__main__":``, since worker processes import the script. A notebook shows the
    progress. ``batch`` is how many runs of an experiment a round has, in studies that propose them. Raises SelectError,
    SpecError, StoreError, DatasetError, UsageError for a ``batch`` that cannot be, and PlaceError or FullDiskError
    where the store cannot be written; what fails in training is in the report and recorded in the store.
    """
    from butter_etl.campaign import TrainReport

    choice = _choice(sweep, spec, where, repetitions, first_repetition)
    asked = _asked(precision, max_repetitions, budget, approximate=approximate)
    with _with_like(store, like, choice, state, study) as chosen:
        campaign = plan_campaign(
            store, chosen, state, engine=engine, device=device, data_dir=data_dir, study=study, asked=asked
        )
        check_batch(campaign, batch, "batch")
        opened, settings = open_campaign(campaign, data_folder(data_dir))
    there = TrainReport(present=campaign.plan.there)
    if client is None and not campaign.plan.missing:
        return there
    cluster = local_cluster(campaign, workers) if client is None else nullcontext(client)
    with NotebookBar("runs", campaign.plan.missing) as bar, cluster as its_client:

        def show(progress: Progress) -> None:
            failed = f"{progress.failed:,} failed" if progress.failed else ""
            bar.update(progress.done, failed, left=progress.left)

        return there + run_training(campaign, opened, settings, its_client, show, batch=batch)


def check_batch(campaign: Campaign, batch: int | None, option: str) -> None:
    """Raise UsageError where rounds are to have so many runs, and there are no rounds, or that is no number of runs."""
    study = campaign.registry.study
    if batch is not None and study.propose is None:
        raise UsageError(f"{option} {batch}: the study {study.name} proposes no runs; leave it out")
    if batch is not None and batch < 1:
        raise UsageError(f"{option} {batch}: a round has at least one run")


def threads_a_process(campaign: Campaign) -> int | None:
    """Return how many tasks a process of a campaign's cluster runs at once; None for as many as it has cores."""
    return None if campaign.engine in campaign.registry.study.trainer.threaded else 1


def local_cluster(campaign: Campaign, workers: int | None = None) -> AbstractContextManager[Client]:
    """Start a campaign's cluster on this machine, with so many workers, by default one a core.

    They are threads of one process where the engine is threaded, which is made ready here first; else processes.
    """
    from butter_etl.clusters import start_cluster

    if threads_a_process(campaign) == 1:
        return start_cluster(workers=workers)
    campaign.registry.study.trainer.prepare(campaign.engine)
    return start_cluster(workers=1, threads_per_worker=workers or len(os.sched_getaffinity(0)))
