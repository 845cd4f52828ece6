"""Aims: the goals that campaigns were given, kept in a store, and how far its experiments were when last looked at.

``goals/<key>.json`` says what was asked for; whoever asks for the same with other limits replaces it. How far it is
lies in the state folder, ``goals/<key>.json`` there, and beside it what each driver has spent.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

import msgspec

from butter_etl.errors import StoreError, one_line, writing
from butter_etl.store.files import files_in, new_folder, write_durably
from butter_etl.store.store import Store
from butter_etl.studies import Goal

GOALS: Final = "goals"


class Aim(msgspec.Struct, frozen=True):
    """What a campaign is for: goals, on the experiments that sweeps and conditions choose, within limits.

    ``budget`` is in core-hours, None without a limit.
    """

    goals: tuple[Goal, ...]
    sweeps: tuple[str, ...]
    where: tuple[str, ...]
    max_repetitions: int
    budget: float | None = None
    first_repetition: int = 0

    @property
    def key(self) -> str:
        """Return what the aim is known by, whatever its limits."""
        said = msgspec.json.encode([self.goals, self.sweeps, self.where, self.first_repetition])
        return hashlib.blake2b(said, digest_size=8).hexdigest()


class Cell(msgspec.Struct, frozen=True):
    """How far an experiment is: how many runs it has, of how many the last look was, and the half-widths there.

    There is a width for each goal, None where there is no interval. ``needed`` is how many runs would reach all goals,
    as far as can be seen; None for more than can be told. ``reason`` says why it is out of reach.
    """

    experiment_id: int
    experiment: str
    runs: int
    looked_at: int
    half_widths: tuple[float | None, ...]
    needed: int | None
    state: Literal["reached", "open", "out of reach"]
    reason: str = ""


class AimState(msgspec.Struct, frozen=True):
    """How far an aim was at a ``time``, unix seconds."""

    time: int
    cells: tuple[Cell, ...]


def keep_aim(store: Store, aim: Aim) -> None:
    """Write an aim; raise PlaceError or FullDiskError if that cannot be done."""
    with writing(store):
        data = msgspec.json.format(msgspec.json.encode(aim)) + b"\n"
        store.location.replace(f"{GOALS}/{aim.key}.json", data)


def read_aims(store: Store) -> list[Aim]:
    """Return the aims of a store; raise StoreError for a file that is none."""
    return [_read(store, f"{GOALS}/{name}") for name in store.location.names(GOALS) if name.endswith(".json")]


def _read(store: Store, name: str) -> Aim:
    try:
        return msgspec.json.decode(store.location.read_bytes(name), type=Aim)
    except msgspec.DecodeError as error:
        raise StoreError(f"{store}/{name}: is no goal of a campaign ({one_line(error)}); remove it") from error


def write_aim_state(store: Store, aim: Aim, state: AimState) -> None:
    """Write how far an aim is, in place of what was said before."""
    with writing(store.state), new_folder(store.state / GOALS) as folder:
        data = msgspec.json.encode(state)
        write_durably(folder, lambda file: file.write(data)).replace(folder / f"{aim.key}.json")


def read_aim_state(store: Store, aim: Aim) -> AimState | None:
    """Return how far an aim was when it was last looked at; None where it never was, or where that cannot be read."""
    if not store.has_state:
        return None
    try:
        return msgspec.json.decode((store.state / GOALS / f"{aim.key}.json").read_bytes(), type=AimState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def note_spent(store: Store, aim: Aim, driver: str, core_seconds: float) -> None:
    """Write what a driver, by its token, has spent on an aim."""
    with writing(store.state), new_folder(store.state / GOALS / aim.key) as folder:
        data = msgspec.json.encode(core_seconds)
        write_durably(folder, lambda file: file.write(data)).replace(folder / f"{driver}.json")


def spent(store: Store, aim: Aim) -> float:
    """Return the core-seconds that all drivers have spent on an aim, as far as they have said."""
    if not store.has_state:
        return 0.0
    total = 0.0
    for path in files_in(store.state / GOALS / aim.key, ".json"):
        try:
            total += msgspec.json.decode(path.read_bytes(), type=float)
        except (FileNotFoundError, msgspec.DecodeError):
            continue
    return total
