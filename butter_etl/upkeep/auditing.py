"""Audits: a random sample of runs, each replayed if it is ours, and else held against runs of ours; and a certificate.

`plan_audit` draws, `run_audit` replays and compares, `write_certificate` leaves what was found for machines and for
people. The data are not changed.
"""

from __future__ import annotations

import os
import platform
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from butter_etl.engines import Device, arithmetic, cpu_family
from butter_etl.errors import NotebookBar, SelectError, html_table, writing
from butter_etl.store import StudyLike, write_whole
from butter_etl.studies import data_folder
from butter_etl.upkeep.certificate_page import page_bytes
from butter_etl.upkeep.certificates import (
    FILE,
    Certificate,
    Drawn,
    Method,
    audited_data,
    certificate_bytes,
)
from butter_etl.upkeep.comparing import judged_histories
from butter_etl.upkeep.drawing import RULE, draw, sample_size
from butter_etl.upkeep.export_inventory import CERTIFICATE_FOLDER
from butter_etl.upkeep.likening import LIKENESSES, Compared, LikeningPlan, plan_likening, run_likening
from butter_etl.upkeep.replaying import (
    OUTCOMES,
    Equipment,
    Replayed,
    ReplayPlan,
    fetch_experiments,
    raise_if_stopped,
    run_replay,
    training_workers,
)
from butter_etl.upkeep.run_crate import CRATE, crate_bytes
from butter_etl.upkeep.run_frame import NamedRun, RunFrame, name_runs

if TYPE_CHECKING:
    from distributed import Client

PAGE: Final = "certificate.html"
#: The probability that any run at all is found incompatible where all are runs of their experiments.
LEVEL: Final = 0.05
_CORRECTION: Final = "Holm"
_STATEMENT: Final = (
    "Each run's curves are ranked by extremal depth among repetitions of this package, trained for the audit. The "
    "p-value is the share of curves, its own among them, that are no deeper. p-values are corrected by Holm's "
    "procedure: where all runs are runs of their experiments, any of them is found incompatible with at most the "
    "probability of the level."
)
_SOURCES: Final = (
    "N. N. Narisetty, V. N. Nair: Extremal depth for functional data and applications. JASA 111 (2016) 1705-1714",
    "M. Myllymäki et al.: Global envelope tests for spatial processes. JRSS B 79 (2017) 381-404",
    "S. Holm: A simple sequentially rejective multiple test procedure. Scand. J. Stat. 6 (1979) 65-70",
)


@dataclass(frozen=True)
class AuditPlan:
    """What is audited: all runs by their names, those that were drawn, and how."""

    frame: RunFrame
    named: tuple[NamedRun, ...]
    drawn: Drawn
    own: tuple[NamedRun, ...]
    likening: LikeningPlan
    level: float

    @property
    def chosen(self) -> list[NamedRun]:
        """Return the runs that were drawn."""
        wanted = set(self.drawn.run_ids)
        return [run for run in self.named if run.run_id in wanted]

    @property
    def replays(self) -> ReplayPlan:
        """Return the runs of ours that are replayed."""
        return ReplayPlan(self.frame, self.own)

    @property
    def runs(self) -> int:
        """Return how many runs are trained."""
        return len(self.own) + self.likening.runs

    @property
    def least_p(self) -> float:
        """Return the least p-value that a rank among the repetitions can have."""
        return 1 / (self.likening.repetitions + 1)

    @property
    def is_blind(self) -> bool:
        """Tell whether there are too few repetitions for any run to be found incompatible."""
        compared = sum(one.one is not None for one in self.likening.strangers)
        return bool(compared) and compared * self.least_p > self.level


def plan_audit(
    frame: RunFrame,
    sample: str,
    seed: int | None = None,
    *,
    repetitions: int | None = None,
    level: float = LEVEL,
    client: Client | None = None,
) -> AuditPlan:
    """Draw a sample of a frame's runs; without a seed, by one that nobody knew before.

    Raises SelectError for a sample that is none, for fewer than one repetition, and for a level not between 0 and 1.
    """
    if repetitions is not None and repetitions < 1:
        raise SelectError(f"--repetitions {repetitions}: at least 1")
    if not 0 < level < 1:
        raise SelectError(f"--level {level:g}: a probability between 0 and 1, such as 0.05")
    named = tuple(name_runs(frame, client=client))
    chosen_seed = secrets.randbits(63) if seed is None else seed
    size = sample_size(sample, len(named))
    run_ids = tuple(draw((run.run_id for run in named), chosen_seed, size))
    wanted = set(run_ids)
    chosen = [run for run in named if run.run_id in wanted]
    own = tuple(run for run in chosen if frame.study.is_own(run.task, run.task_version))
    foreign = [run for run in chosen if not frame.study.is_own(run.task, run.task_version)]
    likening = plan_likening(frame, foreign, level, repetitions)
    return AuditPlan(frame, named, Drawn(RULE, chosen_seed, sample, run_ids), own, likening, level)


def run_audit(
    plan: AuditPlan,
    equipment: Equipment,
    client: Client | None = None,
    threads: int | None = None,
    on_progress: Callable[[int], None] = lambda runs: None,
) -> Certificate:
    """Replay and compare what was drawn; return the certificate. ``on_progress`` is told how many runs are trained."""
    began = _now()
    replays = run_replay(plan.replays, equipment, client, threads, lambda done: on_progress(len(done.runs)))
    stop = threading.Event()
    fetch_experiments(plan.frame.study, plan.likening.ones, equipment)
    compared = run_likening(
        plan.likening,
        plan.frame,
        equipment,
        plan.level,
        client,
        threads,
        lambda runs: on_progress(len(plan.own) + runs),
        stop.set,
        partial(raise_if_stopped, stop),
    )
    found: list[Replayed | Compared] = [*replays.runs, *compared]
    outcomes = [one.outcome for one in found]
    return Certificate(
        data=audited_data(plan.frame, plan.named, plan.chosen),
        drawn=plan.drawn,
        began=began,
        ended=_now(),
        software={**arithmetic(), "python": platform.python_version(), "processor": cpu_family()},
        counts={name: outcomes.count(name) for name in (*OUTCOMES, *LIKENESSES) if name in outcomes},
        is_sound=not any(one.is_fault for one in found),
        replayed=replays.runs,
        compared=tuple(compared),
        method=_method(plan) if compared else None,
    )


def _method(plan: AuditPlan) -> Method:
    histories = tuple(judged_histories(plan.frame.study))
    repetitions = plan.likening.repetitions
    return Method(histories, repetitions, plan.level, plan.least_p, _CORRECTION, _STATEMENT, _SOURCES)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def audit_workers(
    plan: AuditPlan, equipment: Equipment, client: Client | None = None, workers: int | None = None
) -> Iterator[Client | None]:
    """Yield what an audit runs on, as `training_workers` does for replays."""
    more = [equipment.engine_of(plan.frame.study, {})[0]] if plan.likening.ones else []
    with training_workers(plan.replays, equipment, client, workers, more) as on:
        yield on


def write_certificate(certificate: Certificate, folder: str | os.PathLike[str]) -> list[Path]:
    """Write a certificate, its page and the crate around both into a folder, made if it is not there; return the files.

    Raises PlaceError or FullDiskError where they cannot be written.
    """
    place = Path(folder)
    text, page = certificate_bytes(certificate), page_bytes(certificate)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    contents = {FILE: text, PAGE: page, CRATE: crate_bytes(certificate, {FILE: text, PAGE: page})}
    for name, content in contents.items():
        write_whole(place / name, content)
    return [place / name for name in contents]


def certificate_folder(frame: RunFrame, out: str | os.PathLike[str] | None) -> Path:
    """Return where a certificate goes: ``out``, else beside the data; raise SelectError where these are in a bucket."""
    if out is not None:
        return Path(out)
    if not frame.location.is_local:
        raise SelectError(f"{frame.location}: a certificate is not written into a bucket; name a folder by --out")
    return Path(frame.location.path(CERTIFICATE_FOLDER))


class Audit:
    """What an audit found, in Python: the certificate, and the files that it was written to."""

    def __init__(self, certificate: Certificate, files: list[Path]) -> None:
        #: What was drawn, compared and found.
        self.certificate = certificate
        #: The certificate, its page and the crate around them.
        self.files = files

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing is wrong with any run that was drawn: what the command ends with 0 for."""
        return self.certificate.is_sound

    def _repr_html_(self) -> str:
        """Return the outcomes as a notebook shows them; below, each run that is at fault."""
        meanings = {**OUTCOMES, **LIKENESSES}
        counts = [(name, number, meanings[name]) for name, number in self.certificate.counts.items()]
        faults = [(one.run_id, one.outcome, one.experiment, one.detail) for one in self.certificate.faults]
        tables = html_table(counts, ("outcome", "runs", "what it means"))
        return tables + (html_table(faults, ("run", "outcome", "experiment", "what is so")) if faults else "")


def audit(
    path: str | os.PathLike[str],
    *,
    sample: str,
    seed: int | None = None,
    repetitions: int | None = None,
    level: float = LEVEL,
    out: str | os.PathLike[str] | None = None,
    client: Client | None = None,
    workers: int | None = None,
    engine: str | None = None,
    device: Device | None = None,
    data_dir: str | Path | None = None,
    state: str | os.PathLike[str] | None = None,
    study: StudyLike | None = None,
) -> Audit:
    """Audit a random sample of the runs of a store or an export at ``path``, as ``butter-etl audit`` does.

    ``sample`` is a share, ``"0.1%"``, or a number of runs. Runs of ours are replayed; others are ranked among
    ``repetitions`` of ours, by default as many as it takes for one of them to be found incompatible at ``level``. The
    certificate is written to the folder ``out``, by default ``certificate`` beside the data. It works on ``client``,
    else on ``workers`` cores of this machine. Raises SelectError, StoreError, StudyError; PlaceError where the
    certificate cannot be written.
    """
    frame = RunFrame.open(path, state, study)
    folder = certificate_folder(frame, out)
    plan = plan_audit(frame, sample, seed, repetitions=repetitions, level=level, client=client)
    equipment = Equipment(str(data_folder(data_dir)), engine, device)
    with audit_workers(plan, equipment, client, workers) as on, NotebookBar("runs", plan.runs) as bar:
        certificate = run_audit(plan, equipment, on, workers if on is None else None, bar.update)
    return Audit(certificate, write_certificate(certificate, folder))
