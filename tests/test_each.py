"""A bounded map: places and results, few tasks taken ahead, the first error ends it; in threads and on a cluster."""

import os
import threading

import pytest

from butter_etl.clusters import map_each, start_cluster, thread_count


@pytest.fixture(scope="module")
def client():
    with start_cluster(workers=1, threads_per_worker=2) as client:
        yield client


@pytest.fixture(params=["threads", "cluster"])
def where(request):
    """Where tasks run: None for threads of this process."""
    return None if request.param == "threads" else request.getfixturevalue("client")


def double(number):
    if number < 0:
        raise ValueError("a negative number")
    return 2 * number


def test_every_result_comes_once_with_its_place(where):
    found = dict(map_each(double, range(100, 150), where, threads=3 if where is None else None))
    assert found == {place: 2 * (100 + place) for place in range(50)}
    assert list(map_each(double, [], where)) == []


def test_few_tasks_are_taken_ahead(where):
    taken, most = [], 2 * (2 if where is None else thread_count(where))

    def tasks():
        for number in range(40):
            taken.append(number)
            yield number

    for done, _ in enumerate(map_each(double, tasks(), where, threads=2), start=1):
        assert len(taken) <= done + most
    assert len(taken) == 40


def test_the_first_error_ends_it(where):
    taken = []

    def tasks():
        for number in (1, -1, *range(1000)):
            taken.append(number)
            yield number

    with pytest.raises(ValueError, match="a negative number"):
        list(map_each(double, tasks(), where, threads=1))
    assert len(taken) < 50


def test_whoever_leaves_waits_only_for_what_runs():
    release, ran = threading.Event(), []

    def task(number):
        ran.append(number)
        if number:
            release.wait(60)
        return number

    results = map_each(task, range(100), threads=1)
    assert next(results) == (0, 0)
    threading.Timer(0.1, release.set).start()
    results.close()
    assert len(ran) <= 2


def test_threads_of_a_cluster_and_of_this_process_are_counted(client):
    assert thread_count(client) == 2
    assert thread_count(None) == len(os.sched_getaffinity(0))


def test_what_is_under_way_is_told_before_threads_are_waited_for():
    stopped = threading.Event()

    def wait(number):
        if number == 0:
            raise ValueError("the first")
        assert stopped.wait(30)

    with pytest.raises(ValueError, match="the first"):
        list(map_each(wait, range(2), threads=2, stop=stopped.set))
