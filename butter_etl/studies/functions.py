"""Studies made of ordinary training functions.

A function that takes parameters and ``resume`` (``seed`` and ``device`` too, where it needs them), and yields a dict
of numbers at each measuring point, becomes a study whose runs are planned, trained, resumed, summarised, shown and
published like any other's::

    def train(*, width: int, learning_rate: float = 0.01, seed, device, resume):
        model, optimizer = ...
        for epoch in range(resume.keep(model=model, optimizer=optimizer), 20):
            ...
            yield {"loss": loss, "val_loss": val_loss}

    STUDY = study_of(train, name="mine", points=20, histories=["loss", "val_loss"])

Before it is called, the generators of `random`, NumPy and torch are seeded. Their states are kept with whatever the
function gives to `Resume.keep`.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, cast, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from butter_etl.engines import (
    AVG,
    MAX,
    MEDIAN,
    MIN,
    NUM_FINITE,
    Q1,
    Q3,
    STDDEV,
    Device,
    Extremum,
    Facts,
    Reduction,
    Series,
    arithmetic,
    torch_facts,
)
from butter_etl.errors import StudyError
from butter_etl.studies.axes import Axis, hyperparameters
from butter_etl.studies.cards import Card
from butter_etl.studies.columns import FLOAT64_LIST, Column, an
from butter_etl.studies.experiments import OwnExperiment, RunSpec
from butter_etl.studies.figures import Figures
from butter_etl.studies.identity import Value
from butter_etl.studies.kept_states import pack, restore_random, seed_random, take_random, unpack
from butter_etl.studies.run_columns import run_columns, summary_columns
from butter_etl.studies.study import Points, Study
from butter_etl.studies.sweep_files import SweepReader
from butter_etl.studies.sweeps import Cube, plain_space
from butter_etl.studies.trainers import Cost, Kept, Propose, Results, State, Watch

#: The arguments of a training function that are no parameters; one that needs no seed takes none.
GIVEN: Final = ("seed", "device", "resume", "given")
#: What runs are said to be trained by.
_ENGINE: Final = "python"
#: What a run is taken to cost where nothing is said of it: the pace of a campaign is measured all the same.
_SECONDS, _BYTES = 60.0, 1e9
_TYPES: Final[Mapping[Any, pa.DataType]] = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bool: pa.bool_(),
}
_PUBLISHED: Final = (NUM_FINITE, AVG, STDDEV, MIN, MAX, MEDIAN)
_ADDED: Final = (Q1, Q3)

#: The generators that functions draw from are those of the whole process.
_TRAINING = threading.Lock()

TrainingFunction = Callable[..., Iterator[Mapping[str, float] | None]]


class Resume:
    """What a training function goes on from: the points that its run has behind it, and the states that it kept."""

    def __init__(self, points: int = 0, kept: Mapping[str, Any] | None = None) -> None:
        #: How many measuring points the run has behind it.
        self.points = points
        self._states = kept
        self._objects: dict[str, Any] = {}

    def keep(self, **objects: Any) -> int:
        """Keep what the run needs to go on, and put it back to where it was; return the points that it has behind it.

        Objects have ``state_dict`` and ``load_state_dict``, as models, optimizers and schedulers of torch do, or are
        generators of NumPy. Call it once, after they are made.
        """
        self._objects = objects
        for name, one in objects.items() if self._states is not None else ():
            state: Any = (self._states or {})["objects"][name]
            if isinstance(one, np.random.Generator):
                one.bit_generator.state = state
            else:
                one.load_state_dict(state)
        if self._states is not None:
            restore_random(self._states["random"])
        return self.points

    @property
    def is_kept(self) -> bool:
        """Tell whether the function has said what to keep."""
        return bool(self._objects)

    def take(self) -> dict[str, Any]:
        """Return the states of what is kept, as they are now."""
        states = {
            name: one.bit_generator.state if isinstance(one, np.random.Generator) else one.state_dict()
            for name, one in self._objects.items()
        }
        return {"objects": states, "random": take_random()}


@dataclass(frozen=True)
class FunctionTrainer:
    """Trains the runs of a study that is made of a function, one after the other."""

    function: TrainingFunction
    histories: tuple[str, ...]
    count: int | str
    seconds: float | Callable[..., float] = _SECONDS
    memory: float = _BYTES
    devices: tuple[Device, ...] = ("cpu", "cuda")
    runs_differ: ClassVar[bool] = False
    threaded: ClassVar[frozenset[str]] = frozenset()
    buildable_by: ClassVar[tuple[str, ...]] = ()

    @property
    def engines(self) -> Mapping[Device, tuple[str, ...]]:
        """Return the name of the only engine, for each device."""
        return dict.fromkeys(self.devices, (_ENGINE,))

    @property
    def goes_on(self) -> bool:
        """Tell whether runs that were stopped go on: the function says what to keep."""
        return "keep" in self.function.__code__.co_names

    def can_build(self, one: OwnExperiment) -> bool:  # noqa: ARG002 (the contract)
        """Tell that every experiment can be built."""
        return True

    def derive(self, one: OwnExperiment) -> Mapping[str, Value]:  # noqa: ARG002 (the contract)
        """Return that nothing follows from an experiment."""
        return {}

    def points(self, run: RunSpec) -> int:
        """Return how many measuring points a run has."""
        return self.count if isinstance(self.count, int) else int(getattr(run.experiment, self.count))

    def estimator(self, engine: str, device: Device) -> Callable[[RunSpec], Cost]:  # noqa: ARG002 (the contract)
        """Return a function that estimates the cost of a run, as the study's author says."""

        def estimate(run: RunSpec) -> Cost:
            said = self.seconds
            seconds = said(**run.experiment.parameters()) if callable(said) else said
            return Cost(seconds, seconds / max(1, self.points(run)), self.memory, self.memory / 10)

        return estimate

    def stack_key(self, run: RunSpec) -> str:
        """Return a key: repetitions of one experiment share a task."""
        return run.experiment.canonical_json()

    def fitting(self, runs: Sequence[RunSpec], data: Any, device: Device) -> int:  # noqa: ARG002 (the contract)
        """Return how many runs fit side by side: as they are trained one by one, all."""
        return len(runs)

    def fetch(self, experiments: Any, folder: Path) -> None:
        """Do nothing: the function gets its data itself."""

    def load(self, one: OwnExperiment, folder: Path, kept: Kept) -> Any:
        """Return nothing: the function loads its data itself."""

    def environment(self, data: Any, engine: str, device: Device) -> Facts:  # noqa: ARG002 (the contract)
        """Return what carries out the arithmetic; of the data, which the function loads itself, nothing is known."""
        return {**arithmetic(), **(torch_facts(device) if "torch" in sys.modules else {})}

    def prepare(self, engine: str) -> None:
        """Do nothing: there is nothing to be compiled."""

    def train(
        self,
        runs: Sequence[RunSpec],
        data: Any,  # noqa: ARG002 (the contract)
        *,
        engine: str,  # noqa: ARG002 (the contract)
        device: Device,
        start: State | None = None,
        watch: Watch | None = None,
    ) -> Results:
        """Train runs one after the other. Raises what the function raises, StudyError for what it should not yield."""
        stack = _Progress(self, runs, start)
        with _TRAINING:
            for number in range(len(runs)):
                stack.train(number, device, watch)
        return Results({name: stack.lists(name) for name in self.histories})


class _Progress:
    """How far the runs of a stack are: the histories so far, and the states that the run in progress kept."""

    def __init__(self, trainer: FunctionTrainer, runs: Sequence[RunSpec], start: State | None) -> None:
        self._trainer, self._runs = trainer, runs
        self._wanted = [trainer.points(run) for run in runs]
        shape = len(runs), max(self._wanted, default=0)
        #: Points that count as done, and values that there are: a run may end before its last point.
        self._points, self._lengths = np.zeros(len(runs), np.int64), np.zeros(len(runs), np.int64)
        self._histories: dict[str, NDArray[Any]] = {name: np.full(shape, np.nan) for name in trainer.histories}
        self._kept: dict[str, NDArray[Any]] = {}
        if start is not None:
            self._points, self._lengths = np.array(start.points), np.array(start.arrays["lengths"])
            self._histories = {name: np.array(start.arrays[f"history {name}"]) for name in trainer.histories}
            self._kept = {name: start.arrays[name] for name in start.shared}

    def train(self, number: int, device: Device, watch: Watch | None) -> None:
        """Train one run to its end, from where it is; a run that kept nothing begins anew."""
        if self._points[number] >= self._wanted[number]:
            return
        states = unpack(self._kept) if self._points[number] and self._kept else None
        if states is None:
            self._points[number] = self._lengths[number] = 0
        self._kept = {}
        run, resume = self._runs[number], Resume(int(self._points[number]), states)
        seed_random(run.seed)
        proposed = None if run.given is None else json.loads(run.given)
        given = {"seed": run.seed, "device": device, "resume": resume, "given": proposed}
        wanted = inspect.signature(self._trainer.function).parameters
        given = {name: one for name, one in given.items() if name in wanted}
        steps = self._trainer.function(**run.experiment.parameters(), **given)
        with contextlib.closing(cast("Generator[Mapping[str, float] | None]", steps)):
            for measured in steps:
                if measured is not None:
                    self._measure(number, measured)
                    self._kept = pack(resume.take()) if resume.is_kept else {}
                if watch is not None:
                    watch(float(self._points.sum()), self._state)
                if self._points[number] >= self._wanted[number]:
                    break
        self._kept = {}
        self._points[number] = self._wanted[number]

    def _measure(self, number: int, measured: Mapping[str, float]) -> None:
        if set(measured) != set(self._trainer.histories):
            said, wanted = ", ".join(sorted(measured)), ", ".join(self._trainer.histories)
            raise StudyError(f"{self._trainer.function.__name__} yields {said}; its study has the histories {wanted}")
        for name, value in measured.items():
            self._histories[name][number, int(self._lengths[number])] = float(value)
        self._lengths[number] += 1
        self._points[number] += 1

    def _state(self) -> State:
        arrays = {f"history {name}": values.copy() for name, values in self._histories.items()}
        arrays["lengths"] = self._lengths.copy()
        return State(self._points.copy(), np.zeros_like(self._points), {**arrays, **self._kept}, frozenset(self._kept))

    def lists(self, name: str) -> list[NDArray[np.float64]]:
        """Return the history of each run, as long as it came."""
        return [values[:length] for values, length in zip(self._histories[name], self._lengths, strict=True)]


# --- from a function to a study -----------------------------------------------------------------------------------


def study_of(
    function: TrainingFunction,
    *,
    name: str,
    histories: Sequence[str] | Mapping[str, str],
    points: int | str,
    keys: Sequence[str] = (),
    point: str = "epoch",
    best: Mapping[str, str] | None = None,
    comparable: Sequence[str] = (),
    version: int = 1,
    seconds: float | Callable[..., float] = _SECONDS,
    memory: float = _BYTES,
    devices: Sequence[Device] = ("cpu", "cuda"),
    notes: Mapping[str, str] | None = None,
    title: str = "",
    propose: Propose | None = None,
) -> Study:
    """Return the study that trains by a function; see the top of this module for the function.

    Its parameters are the function's arguments but for ``seed``, ``device``, ``resume`` and ``given``, with their
    annotations (int, float, str, bool, tuples of these, each or None; `Axis` in an `Annotated` says what values are
    allowed) and defaults. ``histories`` are the names that it yields, or what each of them means; ``points`` is how
    often it does, at most, or the parameter that says so, and ``point`` the word for it. ``keys`` are the
    parameters by which the layout is partitioned, by default the first one that is no fraction and no list.
    ``best`` says of histories whether "min" or "max" is best: summaries have the best entry of each run of these.
    Losses are compared only where the parameters ``comparable`` agree. ``version`` is to be raised when runs of
    before and after are not to be mixed. ``seconds`` (of one core, a run: a number, or a function of the
    parameters) and ``memory`` (in bytes) are estimates for plans. Where ``propose`` is given, repetitions are
    trained as it proposes them, round by round, and the function takes what it proposes for each as ``given``.
    Raises StudyError for what cannot be a study.
    """
    parameters = _parameters(function, name)
    notes, best = notes or {}, best or {}
    meanings = histories if isinstance(histories, Mapping) else {one: one.replace("_", " ") for one in histories}
    experiment = _experiment_class(function, name, version, parameters)
    own = [Column(key, one.kind, notes.get(key, key.replace("_", " "))) for key, one in parameters.items()]
    lists = [Column(key, FLOAT64_LIST, f"{note}, a value {an(point)}") for key, note in meanings.items()]
    reduction = _reduction(meanings, best, point)
    cube = _cube_class(experiment)
    study = Study(
        name=name,
        experiment=experiment,
        keys=tuple(keys) or _usual_keys(parameters, name),
        run_columns=run_columns(own, lists),
        summary_columns=summary_columns(reduction, own, lists),
        parameters=tuple(parameters),
        derived=(),
        histories=tuple(meanings),
        reduction=reduction,
        points=Points(point, count=points if isinstance(points, str) else None),
        reader=SweepReader(name, cube, hyperparameters(experiment), max_runs=reduction.max_runs),
        trainer=FunctionTrainer(function, tuple(meanings), points, seconds, memory, tuple(devices)),
        propose=propose,
        independent=(_ENGINE,),  # runs are trained one by one, each from its own seed
        label=lambda values: " ".join(f"{key} {value}" for key, value in values.items() if value is not None),
        varied=tuple(key for key, one in parameters.items() if not one.is_nullable),
        swept=tuple(key for key, one in parameters.items() if not pa.types.is_list(one.kind)),
        discrete=tuple(key for key in keys if key in parameters and parameters[key].kind == pa.float64()),
        figures=_figures(meanings, parameters, best, comparable),
        card=Card(
            title=title or f"Runs of {name}",
            version=f"{version}.0.0",
            description=inspect.getdoc(function) or f"Runs of the study {name}.",
        ),
    )
    experiment.of_study = study  # type: ignore[attr-defined]
    return study


@dataclass(frozen=True)
class _Parameter:
    """An argument of a training function: its annotation, its default, its column's type."""

    hint: Any
    default: Any
    kind: pa.DataType
    is_nullable: bool


def _parameters(function: TrainingFunction, name: str) -> dict[str, _Parameter]:
    hints = get_type_hints(function, include_extras=True)
    found = {}
    arguments = inspect.signature(function).parameters
    if "resume" not in arguments:
        raise StudyError(f"study {name}: {function.__name__} must take `resume`, and may take `seed` and `device`")
    for key, one in arguments.items():
        if key in GIVEN:
            continue
        if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) or key not in hints:
            raise StudyError(f"study {name}: {function.__name__}: write the type of {key}, such as `{key}: int`")
        kind, is_nullable = _column_type(hints[key], f"study {name}: {key}")
        default = msgspec.NODEFAULT if one.default is one.empty else one.default
        found[key] = _Parameter(hints[key], default, kind, is_nullable)
    if not found:
        raise StudyError(f"study {name}: {function.__name__} has no parameters")
    return found


def _column_type(hint: Any, place: str) -> tuple[pa.DataType, bool]:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    options = [one for one in get_args(hint) if one is not type(None)] if get_origin(hint) is not tuple else []
    is_nullable = type(None) in get_args(hint)
    if is_nullable and len(options) == 1:
        hint = options[0]
    if hint in _TYPES:
        return _TYPES[hint], is_nullable
    if get_origin(hint) is tuple and get_args(hint)[0] in _TYPES and get_args(hint)[1:] == (...,):
        return pa.list_(pa.field("element", _TYPES[get_args(hint)[0]])), is_nullable
    raise StudyError(
        f"{place}: {hint!r} is no type of a parameter; there are int, float, str, bool and tuple[int, ...]"
    )


def _experiment_class(
    function: TrainingFunction, name: str, version: int, parameters: Mapping[str, _Parameter]
) -> type[OwnExperiment]:
    """Return the class of the study's experiments, with an axis for each parameter."""

    def restore(self: Any) -> tuple[Any, ...]:
        return _experiment, (type(self).of_study, msgspec.structs.astuple(self))

    made: Any = msgspec.defstruct(
        f"{name.title().replace('_', '')}Experiment",
        [(key, _with_axis(one), one.default) for key, one in parameters.items()],
        bases=(OwnExperiment,),
        module=function.__module__,
        namespace={
            "study": name,
            "task": f"{name}.{function.__name__}",
            "task_version": version,
            "of_study": None,
            "__reduce__": restore,
        },
        frozen=True,
        kw_only=True,
        cache_hash=True,
    )
    return cast("type[OwnExperiment]", made)


def _experiment(study: Study, values: tuple[Any, ...]) -> OwnExperiment:
    """Return an experiment of a study that was found by its name: how experiments are pickled."""
    return study.experiment(**dict(zip(study.parameters, values, strict=True)))


def _with_axis(one: _Parameter) -> Any:
    said = [extra for extra in getattr(one.hint, "__metadata__", ()) if isinstance(extra, Axis)]
    axis = replace(said[0] if said else Axis(), default=one.default, bits=64)
    plain = get_args(one.hint)[0] if get_origin(one.hint) is Annotated else one.hint
    return Annotated[plain, axis]


def _cube_class(experiment: type[OwnExperiment]) -> type[Cube]:
    class FunctionCube(Cube, frozen=True):
        """A cube of the study."""

    FunctionCube.space = plain_space(experiment, hyperparameters(experiment))
    return FunctionCube


def _usual_keys(parameters: Mapping[str, _Parameter], name: str) -> tuple[str, ...]:
    for key, one in parameters.items():
        if not pa.types.is_floating(one.kind) and not pa.types.is_list(one.kind):
            return (key,)
    raise StudyError(f"study {name}: no parameter can be a key of the layout by itself; name one: keys=[…]")


def _reduction(meanings: Mapping[str, str], best: Mapping[str, str], point: str) -> Reduction:
    for key, which in best.items():
        if key not in meanings or which not in ("min", "max"):
            raise StudyError(f'best: {key}: {which!r}; name histories, and "min" or "max" for each')
    return Reduction(
        counted=next(iter(meanings)),
        series=tuple(
            Series(key, key, note, f"{note}, of each run", _PUBLISHED, _ADDED) for key, note in meanings.items()
        ),
        extrema=tuple(
            Extremum(f"{key}_{which}", key, "max" if which == "max" else "min", meanings[key])
            for key, which in best.items()
        ),
        counts=pa.uint16(),
        floats=pa.float64(),
        point=point,
    )


def _figures(
    meanings: Mapping[str, str],
    parameters: Mapping[str, _Parameter],
    best: Mapping[str, str],
    comparable: Sequence[str],
) -> Figures:
    plain = tuple(key for key, one in parameters.items() if not pa.types.is_list(one.kind))
    numbers = [key for key in plain if pa.types.is_integer(parameters[key].kind)]
    shown = tuple(best) + tuple(key for key in meanings if key not in best)
    return Figures(
        labels={key: meanings[key] for key in shown},
        higher_is_better=frozenset(key for key, which in best.items() if which == "max"),
        title=plain[:6],
        names=tuple(key for key in plain if parameters[key].kind == pa.string()),
        map_axes=((numbers[0], numbers[0]), (numbers[1], numbers[1])) if len(numbers) > 1 else None,
        shown=shown[:4],
        filters=plain,
        comparable=tuple(comparable),
    )
