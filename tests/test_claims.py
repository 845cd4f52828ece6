"""Claims: one driver a bucket, the dead are taken over, the living are not."""

import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.campaign import claims
from butter_etl.campaign.claims import BUCKETS, Claims, bucket_of, claim_path, current_claims, is_claimed_by


@given(st.integers(0, 2**32 - 1))
def test_every_experiment_has_a_bucket(experiment_id):
    assert 0 <= bucket_of(experiment_id) < BUCKETS


def test_buckets_fill_evenly():
    counts = [0] * BUCKETS
    for experiment_id in range(148_232):
        counts[bucket_of(experiment_id)] += 1
    assert min(counts) > 100
    assert max(counts) < 200


def test_a_bucket_has_one_driver(tmp_path):
    with Claims(tmp_path) as first, Claims(tmp_path) as second:
        assert first.take(3)
        assert first.take(3)
        assert not second.take(3)
        assert second.take(4)
        assert is_claimed_by(tmp_path, 3, first.token)
        assert not is_claimed_by(tmp_path, 3, second.token)
        assert {(one.bucket, one.holder.token) for one in current_claims(tmp_path)} == {
            (3, first.token),
            (4, second.token),
        }
        first.release(3)
        assert second.take(3)
    assert current_claims(tmp_path) == []
    assert list((tmp_path / "claims").iterdir()) == []


def test_a_killed_drivers_claims_are_taken_over_at_once(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from butter_etl.campaign.claims import Claims\n"
        "claims = Claims(Path(sys.argv[1])).__enter__(); assert claims.take(7); print('taken', flush=True)\n"
        "time.sleep(600)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    assert driver.stdout.readline() == "taken\n"
    with Claims(tmp_path) as ours:
        assert not ours.take(7)
        driver.kill()
        driver.wait()
        driver.stdout.close()
        assert ours.take(7)


def test_what_a_killed_driver_left_is_cleared_away_by_the_next_that_ends(tmp_path):
    claim_path(tmp_path, 0).parent.mkdir()
    code = (
        "import sys; from pathlib import Path; from butter_etl.campaign.claims import Claims\n"
        "claims = Claims(Path(sys.argv[1])); assert claims.take(7) and claims.take(8)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    with Claims(tmp_path) as living:
        assert living.take(9)
        with pytest.raises(OSError, match="disk"), Claims(tmp_path):
            raise OSError("the disk is full")
        assert (claim_path(tmp_path, 7).exists(), claim_path(tmp_path, 8).exists()) == (True, True)
        with Claims(tmp_path) as ours:
            assert ours.take(7)
        assert list((tmp_path / "claims").iterdir()) == [claim_path(tmp_path, 9)]
        assert is_claimed_by(tmp_path, 9, living.token)
    assert list((tmp_path / "claims").iterdir()) == []


def test_an_old_claim_of_another_machine_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr("butter_etl.store.locks._machine", lambda: "elsewhere")
    theirs = Claims(tmp_path)
    monkeypatch.undo()
    claim_path(tmp_path, 0).parent.mkdir()
    assert theirs.take(5)
    with Claims(tmp_path) as ours:
        assert not ours.take(5)
        old = time.time() - claims.STALE_SECONDS - 10
        os.utime(claim_path(tmp_path, 5), (old, old))
        assert ours.take(5)
        assert theirs.forget_lost() == {5}
        assert ours.forget_lost() == set()
        theirs.release(5)
        assert is_claimed_by(tmp_path, 5, ours.token)


def test_claims_are_renewed_while_the_driver_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.05)
    with Claims(tmp_path) as ours:
        assert ours.take(1)
        path = claim_path(tmp_path, 1)
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 300
        while path.stat().st_mtime == 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def compete(drivers, bucket):
    """What of many drivers that want a bucket at the same moment get it."""
    got, ready = [], threading.Barrier(len(drivers))

    def take(driver):
        ready.wait()
        if driver.take(bucket):
            got.append(driver.token)

    threads = [threading.Thread(target=take, args=(driver,)) for driver in drivers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def dead_process():
    """The id of a process that has ended."""
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return done.stdout.strip()


def abandon(path, dead):
    """Let a claim be that of a process that has ended."""
    path.write_bytes(path.read_bytes().replace(f'"pid":{os.getpid()}'.encode(), b'"pid":' + dead))


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_drivers_at_once_one_gets_the_bucket(tmp_path, stale):
    claim_path(tmp_path, 0).parent.mkdir()
    abandoned, dead = Claims(tmp_path), dead_process()
    drivers = [Claims(tmp_path) for _ in range(8)]
    for bucket in range(40):
        if stale:
            assert abandoned.take(bucket)
            abandon(claim_path(tmp_path, bucket), dead)
        got = compete(drivers, bucket)
        assert len(got) == 1
        assert is_claimed_by(tmp_path, bucket, got[0])
    assert sorted(path.name for path in claim_path(tmp_path, 0).parent.iterdir()) == sorted(
        claim_path(tmp_path, bucket).name for bucket in range(40)
    )


def test_a_takeover_that_was_killed_halfway_is_taken_over_itself(tmp_path):
    claim_path(tmp_path, 0).parent.mkdir()
    abandoned, dead = Claims(tmp_path), dead_process()
    for bucket in range(20):
        path = claim_path(tmp_path, bucket)
        assert abandoned.take(bucket)
        abandon(path, dead)
        turn = path.with_name(f".{path.name}.{abandoned.token}.turn")
        turn.write_bytes(path.read_bytes().replace(abandoned.token.encode(), b"halfway"))
        got = compete([Claims(tmp_path) for _ in range(8)], bucket)
        assert len(got) == 1
        assert is_claimed_by(tmp_path, bucket, got[0])
        assert not turn.exists()
