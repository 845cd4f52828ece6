"""Claims of drivers on buckets of experiments, so that two drivers on one store share the work.

Experiments fall into `BUCKETS` buckets by a hash of their id. A driver claims a bucket by exclusively creating
``state/claims/<bucket>.json`` and renews all its claims every `RENEW_SECONDS`. A claim is stale when its driver was a
process of this machine that is no more, or when it is older than `STALE_SECONDS` by the file server's own clock; of
those that find it so, one takes it over.

Claims save work. Landing keeps each run once whatever claims say.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import msgspec

from butter_etl.store import Holder, create_exclusively, files_in, is_stale, read_holder, take_over, this_process

BUCKETS = 1024
RENEW_SECONDS = 30.0
#: Four renewals missed.
STALE_SECONDS = 120.0


def bucket_of(experiment_id: int) -> int:
    """Return the bucket of an experiment by Knuth's multiplicative hash, so that neighbouring ids part."""
    return (experiment_id * 2654435761 % 2**32) * BUCKETS >> 32


def claim_path(state: Path, bucket: int) -> Path:
    """Return where the claim on a bucket lies."""
    return state / "claims" / f"{bucket}.json"


def is_claimed_by(state: Path, bucket: int, token: str) -> bool:
    """Tell whether a bucket is claimed by the driver of ``token``; a task asks this of its own driver's claim."""
    holder = read_holder(claim_path(state, bucket))
    return holder is not None and holder.token == token


class Claims:
    """``with Claims(state) as claims``: the buckets of one driver, renewed until the block is left, then given back."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._holder = this_process()
        self._buckets: set[int] = set()
        self._guard = threading.Lock()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="butter-etl claims", daemon=True)

    @property
    def token(self) -> str:
        """Return the token that this driver's claims are known by."""
        return self._holder.token

    def __enter__(self) -> Claims:
        claim_path(self._state, 0).parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        self._thread.join()
        for bucket in list(self._buckets):
            self.release(bucket)
        if kind is None:
            self._clear_stale()

    def take(self, bucket: int) -> bool:
        """Claim a bucket; return False while another driver has it."""
        if bucket in self._buckets:
            return True
        path = claim_path(self._state, bucket)
        if not create_exclusively(path, self._holder):
            holder = read_holder(path)
            if holder is None or not is_stale(path, holder, STALE_SECONDS):
                return False
            if not take_over(path, holder, self._holder, STALE_SECONDS):
                return False
        with self._guard:
            self._buckets.add(bucket)
        return True

    def release(self, bucket: int) -> None:
        """Give a bucket back."""
        with self._guard:
            self._buckets.discard(bucket)
        if is_claimed_by(self._state, bucket, self.token):
            claim_path(self._state, bucket).unlink(missing_ok=True)

    def _clear_stale(self) -> None:
        """Remove what killed drivers left on buckets of which nothing is missing: nobody would take those over."""
        for path in files_in(claim_path(self._state, 0).parent, ".json"):
            holder = read_holder(path)
            # By a takeover, so that nobody's fresh claim is removed.
            if holder is not None and is_stale(path, holder, STALE_SECONDS) and self.take(int(path.stem)):
                self.release(int(path.stem))

    def forget_lost(self) -> set[int]:
        """Forget and return the buckets that another driver has taken over (this process was suspended, say)."""
        lost = {bucket for bucket in self._buckets if not is_claimed_by(self._state, bucket, self.token)}
        with self._guard:
            self._buckets -= lost
        return lost

    def _renew(self) -> None:
        while not self._leave.wait(RENEW_SECONDS):
            with self._guard:
                buckets = sorted(self._buckets)
            for bucket in buckets:
                if is_claimed_by(self._state, bucket, self.token):
                    with suppress(FileNotFoundError):
                        claim_path(self._state, bucket).touch()


class Claim(msgspec.Struct, frozen=True):
    """A bucket and the driver that works on it, for `status`."""

    bucket: int
    holder: Holder


def current_claims(state: Path) -> list[Claim]:
    """Return the claims of drivers that are alive, as far as can be known."""
    found = []
    for path in files_in(state / "claims", ".json"):
        holder = read_holder(path)
        if holder is not None and not is_stale(path, holder, STALE_SECONDS):
            found.append(Claim(int(path.stem), holder))
    return found
