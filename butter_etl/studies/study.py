"""A study as one declared value, which all other parts read: what its runs are, say, cost, and look like.

Whatever differs between studies is a field of `Study` or a method of its `Trainer`; no other part names a column, a
key or a metric of a particular study. How to write one: docs/own-study.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from butter_etl.engines import Precision, Reduction, check_level
from butter_etl.errors import SpecError, StudyError, one_line, suggestion
from butter_etl.studies.columns import LONG_TEXT, Column, PageEncoding, schema_of
from butter_etl.studies.experiments import COMMAND_KEYS, Experiment, ForeignExperiment, OwnExperiment
from butter_etl.studies.formats import PARQUET, Format
from butter_etl.studies.frames import EXECUTIVE, PRECISION, RUNS, SUMMARY, Frame
from butter_etl.studies.identity import Value, canonical_float, to_json
from butter_etl.studies.profiles import SEED, Profile
from butter_etl.studies.references import import_reference, reference_to
from butter_etl.studies.selection import Terms
from butter_etl.studies.sweeps import FixedIds, Sweep

if TYPE_CHECKING:
    from butter_etl.studies.cards import Card
    from butter_etl.studies.data_kinds import DataKind, OwnInfo
    from butter_etl.studies.figures import Figures
    from butter_etl.studies.sweep_files import SweepReader
    from butter_etl.studies.trainers import Propose, Trainer

#: Columns of runs that every study has, in whatever place: what landing and looking runs up needs.
RUN_COLUMNS: Final = ("experiment_id", "run_id", "repetition", "task", "task_version", "batch", "command", "seed")
CANONICAL_JSON: Final = Column("canonical_json", pa.string(), "the identity of the experiment", LONG_TEXT)
#: The column of precision frames that says at which level a row's intervals are.
LEVEL: Final = Column("confidence_level", pa.float64(), "confidence level of the intervals")
#: The columns of an experiment that `--where` does not speak of.
_NOT_ASKED_FOR: Final = ("experiment_id", "batch", "task")
#: The column that says what made runs. Those of different makers are never merged into one curve or statistic.
MAKER: Final = "task"


@dataclass(frozen=True)
class Points:
    """The measuring points of a run, which its histories have a value for each of.

    They are numbered from ``first`` in steps of ``step``, or named by the list column ``column`` of both frames, the
    same in all runs of an experiment as far as each goes.
    ``count`` is the parameter that says how many a run has at most, where one does.
    """

    name: str = "epoch"
    first: float = 1
    step: float = 1
    column: str | None = None
    count: str | None = None

    @property
    def plural(self) -> str:
        """Return the word for several."""
        return f"{self.name}s"


@dataclass(frozen=True)
class Further:
    """Columns of summaries that are no statistics at a point: what ``compute`` makes of all runs of an experiment.

    It is given their rows, of the columns ``inputs``, and returns a value for each of ``columns``, by name; None is
    null. Whoever changes what it returns raises the version of the study's reduction.
    """

    columns: tuple[Column, ...]
    inputs: tuple[str, ...]
    compute: Callable[[pa.Table], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """A study: its runs' columns and identity, its sweeps, and how its networks are trained and shown.

    ``parameters`` are the columns of an experiment's identity, ``derived`` those that follow from it, one value an
    experiment. ``flags`` maps a column to the published sweep that it tells of. ``keys`` are the hive keys of the
    layout, outermost first; one of float64 must be ``discrete``: of few values, which people write as they are stored.
    ``varied`` are the parameters that are never null, ``swept`` those whose values a card lists, ``may_be_absent``
    those that a source of an import need not have. ``claimed_names`` are the columns of STORE/experiments after the id
    and the identity, where their order is not that of the run frame. ``executive_names`` are the columns of the
    executive summary; without any there is none. ``experiment`` is the class of what is trained, ``label(parameters)``
    names an experiment for people. ``own_data`` is the kind of data sets that users may bring, if they may.
    ``further`` are columns of the summary frame that no statistic makes. ``precise`` are the series that precision
    frames have intervals of, by default the one that figures draw where none is asked for.
    Where ``propose`` is declared, repetitions of experiments that are ``in_rounds`` are trained in rounds, as it
    proposes them; all others at once.
    ``formats`` are those of its files besides Parquet, by name.
    ``independent`` are the engines of which a run's bits do not depend on the others of its stack. ``judged`` are the
    histories by which runs are told to be alike where bits may differ: smooth ones, such as losses; by default all.
    ``twin(experiment)`` is the study's own experiment with the parameters of another maker's, and raises SpecError
    where there is none; without it, parameters are the fields of experiments. ``departure(experiment)`` is why runs of
    other makers with its parameters are no draws from the distribution of ours, as documented; None where they are.
    """

    name: str
    experiment: type[OwnExperiment]
    keys: tuple[str, ...]
    run_columns: tuple[Column, ...]
    summary_columns: tuple[Column, ...]
    parameters: tuple[str, ...]
    derived: tuple[str, ...]
    histories: tuple[str, ...]
    reduction: Reduction
    reader: SweepReader
    trainer: Trainer[Any]
    figures: Figures
    card: Card
    label: Callable[[Mapping[str, Value]], str]
    varied: tuple[str, ...]
    swept: tuple[str, ...]
    points: Points = Points()
    may_be_absent: tuple[str, ...] = ()
    claimed_names: tuple[str, ...] = ()
    executive_names: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    sweeps: Mapping[str, Sweep] = field(default_factory=dict)
    fixed_ids: FixedIds = field(default_factory=FixedIds)
    profiles: Mapping[str, Profile] = field(default_factory=lambda: {SEED.name: SEED})
    own_data: DataKind | None = None
    discrete: tuple[str, ...] = ()
    propose: Propose | None = None
    in_rounds: Callable[[Experiment], bool] = lambda one: True
    further: Further | None = None
    precise: tuple[str, ...] = ()
    formats: Mapping[str, Format] = field(default_factory=dict)
    independent: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    twin: Callable[[Experiment], OwnExperiment] | None = None
    departure: Callable[[Experiment], str | None] = lambda one: None

    def __post_init__(self) -> None:
        _check(self)

    def __repr__(self) -> str:
        return f"<study {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the study by where it stands: other processes import it. Raises StudyError if it is in no module."""
        return import_reference, self.reference

    @property
    def reference(self) -> tuple[str, str | None]:
        """Return by what reference, and from which folder, other processes import the study: see `__reduce__`."""
        return reference_to(self, self.name, self.modules)

    @property
    def modules(self) -> list[str]:
        """Return the modules that the study may stand in."""
        parts = (self.experiment, type(self.trainer), type(self.reader), getattr(self.trainer, "function", None))
        return list(dict.fromkeys(part.__module__ for part in parts if part is not None))

    # --- identity ----------------------------------------------------------------------------------------------------

    @property
    def task(self) -> str:
        """Return what makes the study's own runs."""
        return self.experiment.task

    @property
    def task_version(self) -> int:
        """Return the major version of what makes them: runs of different ones are different experiments."""
        return self.experiment.task_version

    @property
    def max_runs(self) -> int:
        """Return how many runs an experiment may have: as many as summaries can count."""
        return self.reduction.max_runs

    def is_own(self, task: object, task_version: object) -> bool:
        """Tell whether rows of this task are what this version of the study trains."""
        return bool(task == self.task and task_version == self.task_version)

    def canonical(self, name: str, value: Any) -> Value:
        """Return a value of a parameter as identities have it: floats as the decimal of their width, lists as tuples.

        Raises SpecError for what is no value of the column.
        """
        kind = self.columns[name].type
        if value is None:
            return None
        if pa.types.is_list(kind):
            return tuple(self._of_list(name, kind.value_type, one) for one in value)
        if not pa.types.is_floating(kind):
            return value  # type: ignore[no-any-return]
        if isinstance(value, str):
            raise SpecError(f"{name}: {value!r} is not a number")
        return canonical_float(value, name) if pa.types.is_float32(kind) else canonical_float(value, name, "float64")

    def _of_list(self, name: str, kind: pa.DataType, value: Any) -> Any:
        if not pa.types.is_floating(kind):
            return value
        return canonical_float(value, name, "float32" if pa.types.is_float32(kind) else "float64")

    def foreign(self, task: str, task_version: int | None, parameters: Mapping[str, Any]) -> ForeignExperiment:
        """Return the experiment of a row that is not `is_own`; raise SpecError for numbers that are not finite."""
        values = tuple(self.canonical(name, parameters[name]) for name in self.parameters)
        label = self.label(dict(zip(self.parameters, values, strict=True)))
        version = task_version if task == self.task else None
        return ForeignExperiment(task, version, self.parameters, values, label, self.experiment.study)

    def twin_of(self, one: Experiment) -> OwnExperiment:
        """Return the study's own experiment with another's parameters; raise SpecError where there is none."""
        parameters = one.parameters()
        try:
            made = self.experiment.of_canonical(parameters) if self.twin is None else self.twin(one)
        except (ValueError, KeyError, TypeError) as error:
            raise SpecError(f"study {self.name} trains no such experiment ({one_line(error)})") from error
        for name, value in made.parameters().items():
            if value != parameters[name]:
                raise SpecError(f"{name} is {parameters[name]!r}; study {self.name} trains {value!r}")
        return made

    def parse_experiment(self, text: str) -> Experiment:
        """Return the experiment of any canonical JSON that a store may hold; raise SpecError for other text."""
        try:
            values: dict[str, Any] = json.loads(text)
            task, version = values["task"], values["task_version"]
            if self.is_own(task, version):
                return self.parse_own(text)
            one = self.foreign(str(task), None if version is None else int(version), values)
        except (ValueError, KeyError, TypeError) as error:
            raise SpecError(f"not the canonical JSON of an experiment ({error}): {text[:200]}") from error
        if one.canonical_json() != text:
            raise SpecError(f"the canonical JSON has parameters that this version does not know: {text[:200]}")
        return one

    def parse_own(self, text: str) -> OwnExperiment:
        """Return the experiment of a canonical JSON made by this study; raise SpecError for any other."""
        try:
            one = self.experiment.of_canonical(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise SpecError(f"not the canonical JSON of an experiment ({error}): {text[:200]}") from error
        if one.canonical_json() != text:
            raise SpecError(f"the canonical JSON has parameters that this version does not know: {text[:200]}")
        return one

    def parse_command(self, text: str) -> OwnExperiment:
        """Return the experiment of a run's `command` made by this study; raise SpecError for any other."""
        try:
            values: dict[str, Value] = json.loads(text)
            canonical = {key: value for key, value in values.items() if key not in COMMAND_KEYS}
        except (ValueError, AttributeError) as error:
            raise SpecError(f"not the command of a run ({error}): {text[:200]}") from error
        return self.parse_own(to_json(canonical))

    def most_points(self, parameters: Mapping[str, Any]) -> int | None:
        """Return how many measuring points runs of these parameters have at most; None where they do not tell."""
        count = self.points.count
        return None if count is None or parameters.get(count) is None else int(parameters[count])

    def own_info(self, one: Experiment) -> OwnInfo | None:
        """Return the user's own data set that an experiment learns from, if it does."""
        return None if self.own_data is None else self.own_data.info_of(one)

    def flags_of(self, one: Experiment) -> dict[str, bool]:
        """Tell which published sweeps hold an experiment, by its parameters: flag column -> bool."""
        return {column: one in self.sweeps[name] for column, name in self.flags.items()}

    # --- frames ------------------------------------------------------------------------------------------------------

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """Return every column of all frames, by name."""
        declared = (*self.run_columns, *self.summary_columns, CANONICAL_JSON)
        made = (Column(name, one.type, one.note) for name, one in self.intervals.columns.items())
        return {column.name: column for column in (LEVEL, *made, *declared)}

    @cached_property
    def runs(self) -> pa.Schema:
        """Return the schema of the run frame, a row a run."""
        return schema_of(self.run_columns)

    @cached_property
    def summary(self) -> pa.Schema:
        """Return the schema of the summary frame, a row an experiment."""
        return schema_of(self.summary_columns)

    @cached_property
    def executive(self) -> pa.Schema:
        """Return the schema of the executive summary; empty where there is none."""
        return pa.schema([self.summary.field(name) for name in self.executive_names])

    @cached_property
    def intervals(self) -> Precision:
        """Return what the precision frame has intervals of."""
        known = self.reduction.histories
        names = self.precise or [one for one in self.figures.labels if one in known][:1]
        return Precision(self.reduction, tuple(names))

    @cached_property
    def precision(self) -> pa.Schema:
        """Return the schema of the precision frame, a row an experiment and level; empty where there is none."""
        if not self.intervals.names:
            return pa.schema([])
        counts = (one for one in self.summary_columns if one.name in ("num_runs", "num"))
        own = (self.columns[name] for name in self.experiment_columns)
        return schema_of((*own, LEVEL, *counts, *(self.columns[name] for name in self.intervals.columns)))

    @cached_property
    def frames(self) -> Mapping[str, Frame]:
        """Return the frames of the study's stores by their folders, the runs first."""
        version = self.reduction.version
        known = (
            Frame("runs", RUNS, self.runs),
            Frame("summary", SUMMARY, self.summary, version),
            Frame("executive", EXECUTIVE, self.executive, version),
            Frame("precision", PRECISION, self.precision, optional=True),
        )
        return {one.folder: one for one in known if one.schema.names}

    def precision_frame(self, level: float) -> Frame:
        """Return the precision frame as far as it is of one level.

        Raises SpecError for a level that is none, StudyError where the study has no series.
        """
        if PRECISION not in self.frames:
            raise StudyError(f"the study {self.name} has no series, and so no intervals")
        return replace(self.frames[PRECISION], version=self.intervals.version(check_level(level)))

    @cached_property
    def key_schema(self) -> pa.Schema:
        """Return the columns that are keys of the layout."""
        return schema_of(self.columns[key] for key in self.keys)

    @cached_property
    def run_files(self) -> pa.Schema:
        """Return the schema of run files."""
        return self.without_keys(self.runs)

    @cached_property
    def later_columns(self) -> frozenset[str]:
        """Return the columns that files from before they were declared lack."""
        return frozenset(column.name for column in self.columns.values() if column.later)

    def without_later(self, schema: pa.Schema) -> pa.Schema:
        """Return a schema as files from before have it."""
        return pa.schema([one for one in schema if one.name not in self.later_columns])

    @cached_property
    def summary_files(self) -> pa.Schema:
        """Return the schema of summary files."""
        return self.without_keys(self.summary)

    @cached_property
    def executive_files(self) -> pa.Schema:
        """Return the schema of the files of the executive summary."""
        return self.without_keys(self.executive)

    @cached_property
    def precision_files(self) -> pa.Schema:
        """Return the schema of the files of the precision frame."""
        return self.without_keys(self.precision)

    @cached_property
    def claimed(self) -> pa.Schema:
        """Return the schema of STORE/experiments: the experiments that have no fixed id."""
        wanted = {*self.parameters, *self.derived, "batch", "task"}
        names = self.claimed_names or tuple(name for name in self.runs.names if name in wanted)
        return schema_of(self.columns[name] for name in ("experiment_id", "canonical_json", *names))

    @cached_property
    def encodings(self) -> Mapping[str, PageEncoding]:
        """Return how files encode each column, by name."""
        return {name: column.encoding for name, column in self.columns.items()}

    @cached_property
    def experiment_columns(self) -> tuple[str, ...]:
        """Return the columns of both frames that are one value an experiment, as the summary frame has them."""
        return tuple(name for name in self.summary.names if name in self.runs.names)

    @cached_property
    def long_texts(self) -> tuple[str, ...]:
        """Return the derived columns that are encoded as long texts: no check compares them, as that takes long."""
        columns = [self.columns[name] for name in self.derived]
        return tuple(one.name for one in columns if pa.types.is_string(one.type) and one.encoding == LONG_TEXT)

    @cached_property
    def where_keys(self) -> tuple[str, ...]:
        """Return what `--where` can speak of: the parameters in both frames that are one plain value."""
        left_out = {*self.flags, *_NOT_ASKED_FOR, *self.derived}
        return tuple(
            name
            for name in self.experiment_columns
            if name not in left_out and not pa.types.is_list(self.columns[name].type)
        )

    @cached_property
    def group_keys(self) -> tuple[str, ...]:
        """Return what experiments can be grouped by: the columns of both frames that are one value an experiment."""
        left_out = {*self.flags, *self.long_texts, *_NOT_ASKED_FOR, self.points.column} - {MAKER}
        return tuple(name for name in self.experiment_columns if name not in left_out)

    def without_keys(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of the files: the partition columns are in the path."""
        return pa.schema([one for one in schema if one.name not in self.keys])

    def terms(self, names: Mapping[str, Collection[str]] | None = None, *, with_id: bool = False) -> Terms:
        """Return what conditions may speak of. ``names`` are those that are known of some keys, besides the study's."""
        keys = ("experiment_id", *self.where_keys) if with_id else self.where_keys
        return Terms(
            {key: self.columns[key].type for key in keys}, {**self.reader.choices, **(names or {})}, self.reader.unknown
        )

    @property
    def is_declared_by_stores(self) -> bool:
        """Tell whether stores keep the declaration's hash, and identities the study's name: all but BUTTER's do."""
        return self.experiment.study is not None

    @cached_property
    def declaration(self) -> str:
        """Return a hash of what stores depend on: columns, keys, parameters, statistics and the task; in hex."""
        said = {
            "keys": self.keys,
            "parameters": self.parameters,
            "runs": [(one.name, str(one.type)) for one in self.runs if one.name not in self.later_columns],
            "summary": [(one.name, str(one.type)) for one in self.summary],
            "task": self.task,
            "task_version": self.task_version,
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def _check(study: Study) -> None:
    """Raise StudyError for a declaration that does not hold together."""
    known = set(study.columns)
    for what, names in (
        ("keys", study.keys),
        ("parameters", study.parameters),
        ("derived", study.derived),
        ("histories", study.histories),
        ("judged histories", study.judged),
        ("flags", tuple(study.flags)),
        ("columns that every study has", RUN_COLUMNS),
    ):
        for name in names:
            if name not in known:
                raise StudyError(f"study {study.name}: {what}: there is no column {name!r}{suggestion(name, known)}")
    for key in study.keys:
        if key not in study.parameters:
            raise StudyError(f"study {study.name}: key {key!r} is no parameter")
        if pa.types.is_nested(study.columns[key].type):
            raise StudyError(f"study {study.name}: key {key!r} is a list; keys are one value")
        if study.columns[key].type == pa.float64() and key not in study.discrete:
            raise StudyError(
                f"study {study.name}: key {key!r} is a float64; declare it discrete, if its values are few"
            )
    _check_precision(study)
    if not study.keys:
        raise StudyError(f"study {study.name}: the layout needs a key")
    for name, form in study.formats.items():
        if name != form.name or name in (PARQUET, *(frame.kind for frame in study.frames.values())):
            raise StudyError(f"study {study.name}: a format cannot be called {name!r}")


def _check_precision(study: Study) -> None:
    """Raise StudyError where a precision frame cannot be made."""
    known = study.reduction.histories
    if LEVEL.name in {column.name for column in (*study.run_columns, *study.summary_columns)}:
        raise StudyError(f"study {study.name}: a column cannot be called {LEVEL.name!r}")
    for name in study.precise:
        if name not in known:
            raise StudyError(f"study {study.name}: precise: there is no series {name!r}{suggestion(name, known)}")
