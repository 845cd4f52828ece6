"""Attempts: counted across processes and however tasks are cut; limited; forgotten when something got further."""

import pytest

from butter_etl.campaign.attempts import MOST_ATTEMPTS, attempts_at, begin_attempt, end_attempt, log_tail
from butter_etl.clusters.worker import JOB_LOGS
from butter_etl.errors import AttemptsError


def test_the_same_runs_are_begun_a_limited_number_of_times(tmp_path):
    assert [begin_attempt(tmp_path, 7, (0, 1, 2)) for _ in range(MOST_ATTEMPTS)] == [1, 2, 3]
    with pytest.raises(AttemptsError, match="experiment 7: repetitions 0 to 2 were begun 3 times") as caught:
        begin_attempt(tmp_path, 7, (0, 1, 2))
    assert "\n" not in str(caught.value)
    assert begin_attempt(tmp_path, 7, (3, 4)) == 1
    assert begin_attempt(tmp_path, 8, (0, 1, 2)) == 1


def test_what_gets_further_may_be_begun_again(tmp_path):
    counts = [begin_attempt(tmp_path, 7, (0,), epochs) for epochs in (0, 0, 10, 10, 10)]
    assert counts == [1, 2, 1, 2, 3]
    with pytest.raises(AttemptsError):
        begin_attempt(tmp_path, 7, (0,), 10)
    assert begin_attempt(tmp_path, 7, (0,), 11) == 1


def test_other_cuts_of_the_same_runs_count(tmp_path):
    assert begin_attempt(tmp_path, 7, (0, 1, 2, 3)) == 1
    assert begin_attempt(tmp_path, 7, (2, 3)) == 2
    assert begin_attempt(tmp_path, 7, (3, 4, 5)) == 3
    with pytest.raises(AttemptsError, match="repetitions 0 to 5"):
        begin_attempt(tmp_path, 7, (0, 1, 2, 3, 4, 5))


def test_what_has_ended_does_not_count(tmp_path):
    begin_attempt(tmp_path, 7, (0, 1))
    begin_attempt(tmp_path, 7, (4,))
    end_attempt(tmp_path, 7, (0, 1))
    assert [attempt.repetitions for attempt in attempts_at(tmp_path, 7, range(10))] == [[4]]
    assert begin_attempt(tmp_path, 7, (0, 1)) == 1


def test_an_attempt_says_where_and_finds_the_log(tmp_path, monkeypatch):
    monkeypatch.setenv(JOB_LOGS, str(tmp_path))
    (tmp_path / "butter-etl-12.err").write_text("".join(f"line {number}\n" for number in range(30)))
    monkeypatch.setattr("butter_etl.campaign.attempts.host_facts", lambda: {"job_id": "12"})
    begin_attempt(tmp_path, 7, (0,))
    (attempt,) = attempts_at(tmp_path, 7, (0,))
    assert attempt.where.endswith(", job 12")
    assert log_tail(attempt).splitlines() == [f"line {number}" for number in range(10, 30)]
