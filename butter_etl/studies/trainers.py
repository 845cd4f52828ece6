"""The contract of a trainer: what a study tells of its runs before they are trained, and how it trains them.

A campaign cuts tasks by what trainers say of cost and stacks, gives them data, watches over them, and lands what they
return. A trainer knows no store, no cluster and no files but those of its data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import msgspec

from butter_etl.engines import Device, Facts
from butter_etl.studies.experiments import OwnExperiment, RunSpec
from butter_etl.studies.identity import Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    #: Numbers by name.
    Arrays = Mapping[str, NDArray[Any]]


E_contra = TypeVar("E_contra", bound=OwnExperiment, contravariant=True)


class Cost(NamedTuple):
    """An estimate of what a run costs: it plans, and never touches results.

    ``seconds`` are of one core for the whole run, ``watch_seconds`` for the longest that training goes on between two
    calls of its `Watch`. ``bytes`` are what it takes of a worker's memory beside others of its stack, ``state_bytes``
    what it adds to a checkpoint.
    """

    seconds: float
    watch_seconds: float
    bytes: float
    state_bytes: float


@dataclass(frozen=True)
class State:
    """A stack between two steps of training: all that its trainer needs to go on, to the same bits.

    ``points`` int64 (runs,) are the measuring points that each run has behind it, ``steps`` int64 (runs,) how far it is
    within the next. ``arrays`` are the trainer's own, by name: each has a row a run, but those that ``shared`` names,
    which are of the whole stack. Sums that a point is made of are among them.
    """

    points: NDArray[Any]
    steps: NDArray[Any]
    arrays: Arrays
    shared: frozenset[str] = frozenset()

    def part(self, runs: slice) -> State:
        """Return the state of some of the stack's runs."""
        arrays = {name: array if name in self.shared else array[runs] for name, array in self.arrays.items()}
        return replace(self, points=self.points[runs], steps=self.steps[runs], arrays=arrays)


#: ``propose(experiment, wanted, landed)`` returns proposals for some of the wanted repetitions, which are trained next;
#: it is asked for more when these have landed. It returns none where no more are to be trained.
Propose = Callable[[Any, Sequence[int], Sequence["Landed"]], Sequence["Proposal"]]

#: ``watch(points, take_state)`` is called between points, and within them at least every few seconds, with the number
#: of points trained so far, added up over the stack's runs (fractions count), and a function that copies the stack's
#: `State` out. Training ends where it is by the watch raising: the exception passes through the trainer. Neither
#: watching nor stopping and going on changes a bit of the result.
Watch = Callable[[float, Callable[[], State]], None]


@dataclass(frozen=True)
class Results:
    """What training made of the runs of a stack, in their order.

    ``histories`` has for each history of the study an array (runs, points), or a sequence of an array a run where runs
    differ in length, in the type of its column. ``details`` has further columns of run files, a value a run, such as
    derived ones that only training tells. ``end_reasons`` say why each run ended; None is of one at its last point.
    """

    histories: Mapping[str, Sequence[Any] | NDArray[Any]]
    details: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    end_reasons: Sequence[str | None] | None = None


class Kept(Protocol):
    """What a store keeps for tasks: users' own data."""

    def load(self, one: OwnExperiment) -> Any:
        """Return the data of an experiment as the store keeps them; raise DatasetError where it does not."""
        ...


class Proposal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A repetition that is to be trained, and what its trainer is given for it: JSON, such as settings to be tried."""

    repetition: int
    given: Any = None


class Landed(NamedTuple):
    """A run that has landed, as proposals look at it: its repetition, and its row of the run frame."""

    repetition: int
    row: Mapping[str, Any]


class Trainer(Protocol[E_contra]):
    """How a study trains its experiments.

    Where a method takes a run, runs of one experiment may differ in what it says.
    """

    @property
    def engines(self) -> Mapping[Device, tuple[str, ...]]:
        """Return the names of the engines that run on each device, the preferred one first."""
        ...

    @property
    def runs_differ(self) -> bool:
        """Tell whether runs of one experiment differ in cost or stack; else the first one speaks for all."""
        ...

    @property
    def threaded(self) -> Collection[str]:
        """Return the engines whose tasks run side by side in threads of one process; others have a process a task."""
        ...

    @property
    def buildable_by(self) -> Collection[str]:
        """Return the axes of cubes that `can_build` depends on; without any, it depends on all of them."""
        ...

    @property
    def goes_on(self) -> bool:
        """Tell whether runs that are stopped go on from a checkpoint; else they begin anew."""
        ...

    def can_build(self, one: E_contra) -> bool:
        """Tell whether there is what an experiment asks for, such as a network of about its size."""
        ...

    def derive(self, one: E_contra) -> Mapping[str, Value]:
        """Return the derived columns of an experiment; raise InfeasibleError where it cannot be built."""
        ...

    def points(self, run: RunSpec) -> int:
        """Return how many measuring points a run has, at most."""
        ...

    def estimator(self, engine: str, device: Device) -> Callable[[RunSpec], Cost]:
        """Return a function that estimates the cost of a run on this machine's kind of core, or on a GPU.

        It is called for each experiment of a plan, so it should take microseconds.
        """
        ...

    def stack_key(self, run: RunSpec) -> Hashable:
        """Return a key: runs of equal key can be trained in one stack. Keys of one study can be sorted."""
        ...

    def fitting(self, runs: Sequence[RunSpec], data: Any, device: Device) -> int:
        """Return how many of these runs fit side by side into the memory that is free here now; at least one."""
        ...

    def fetch(self, experiments: Iterable[E_contra], folder: Path) -> None:
        """Have at hand what the experiments learn from; the driver alone calls it, and it may download.

        Raises DatasetError for what cannot be had.
        """
        ...

    def load(self, one: E_contra, folder: Path, kept: Kept) -> Any:
        """Return what an experiment learns from; tasks call it. It is shared by all threads of a process.

        Raises DatasetError for what is not there or not what it should be.
        """
        ...

    def environment(self, data: Any, engine: str, device: Device) -> Facts:
        """Return what else the bits of runs on ``data`` depend on here, besides the other columns of their rows.

        Such as versions, kernels, threads, and a hash of the data, texts and whole numbers by name. A row whose
        environment is the same again can be trained again to the same bits. It is asked for after training.
        """
        ...

    def prepare(self, engine: str) -> None:
        """Make an engine ready in this process, such as by compiling it."""
        ...

    def train(
        self,
        runs: Sequence[RunSpec],
        data: Any,
        *,
        engine: str,
        device: Device,
        start: State | None = None,
        watch: Watch | None = None,
    ) -> Results:
        """Train runs of equal `stack_key` side by side, from the beginning or from a state that the same runs left.

        Raises InfeasibleError for runs that cannot be built, DeviceMemoryError where they are too many for a GPU.
        """
        ...
