"""Checkpoints: what is written is read back and gone on from; what is torn or foreign is refused, with a word."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from butter_etl.campaign import checkpoints, stacks
from butter_etl.campaign.checkpoints import Checkpoints, read_checkpoint
from butter_etl.campaign.stacks import (
    COMPLETED,
    COMPLETED_ELSEWHERE,
    Item,
    Stack,
    Unfinished,
    cut_stack,
    cut_unfinished,
    train_stack,
)
from butter_etl.engines.batched import engine as torch_engine
from butter_etl.engines.batched import passes
from butter_etl.engines.contract import ENGINES, HISTORIES
from butter_etl.engines.fused import engine
from butter_etl.errors import CheckpointError, FullDiskError
from butter_etl.studies.butter.datasets import load_dataset
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.trainers import State

SETTINGS = {"dataset": "wine", "size": 128, "depth": 3, "batch_size": 64, "epochs": 5}
ITEM = Item(make_experiment(**SETTINGS, optimizer="SGD", momentum=0.9, learning_rate=0.01), 7, "b", (0, 2))
STACK = Stack((ITEM,), "torch", "cpu")


class YieldedError(Exception):
    """What a watch stops training by."""


@pytest.fixture(autouse=True)
def every_batch(monkeypatch):
    """Engines call the watch after every batch."""
    monkeypatch.setattr(engine, "SECONDS_PER_CALL", 0.0)
    monkeypatch.setattr(torch_engine, "SECONDS_PER_WATCH", 0.0)
    monkeypatch.setattr(passes, "OUTPUTS_AT_ONCE", {"cpu": 1})


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("wine", None)


def stop(dataset, stack=STACK, epochs=4, resume=None):
    """The stack as it is when so many epochs have been trained."""
    taken = []

    def watch(done, take):
        if done >= epochs:
            taken.append(take())
            raise YieldedError

    with pytest.raises(YieldedError):
        train_stack(BUTTER, stack, dataset, resume=resume, watch=watch)
    return taken[0]


@pytest.mark.parametrize("stops", [(4, 7), (1.3, 3.9), (0.1, 9.4)])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_stack_goes_on_from_its_file_to_the_same_bits(tmp_path, dataset, engine, stops):
    kept, stack = Checkpoints(tmp_path, BUTTER), Stack((ITEM,), engine, "cpu")
    assert kept.read(stack) is None
    (expected,) = train_stack(BUTTER, stack, dataset)
    size = kept.write(stop(dataset, stack, epochs=stops[0]))
    assert size == kept.path(stack).stat().st_size
    kept.write(stop(dataset, stack, epochs=stops[1], resume=kept.read(stack)))
    assert kept.stacks() == [stack]
    earlier = kept.read(stack)
    (rows,) = train_stack(BUTTER, stack, dataset, resume=earlier)
    for name in HISTORIES:
        assert rows[name].equals(expected[name])
    assert rows["end_reason"].to_pylist() == [COMPLETED] * 2
    assert rows["start_time"].to_pylist() == [earlier.started] * 2
    assert rows["core_seconds"][0].as_py() > earlier.core_seconds / 2 > 0
    kept.discard(stack)
    kept.discard(stack)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("epochs", [2, 2.7, 7, 7.2])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_stack_that_was_begun_is_cut_and_its_parts_go_on(dataset, engine, epochs):
    """After two epochs the fused engine has not begun the second run; after seven it has finished the first."""
    stack = Stack((ITEM,), engine, "cpu")
    (expected,) = train_stack(BUTTER, stack, dataset)
    parts = cut_unfinished(stop(dataset, stack, epochs=epochs), 1)
    assert [part.stack for part in parts] == cut_stack(stack, 1)
    assert sum(int(part.state.points.sum() + (part.state.steps > 0).sum()) for part in parts) >= epochs
    rows = pa.concat_tables(train_stack(BUTTER, part.stack, dataset, resume=part)[0] for part in parts)
    for name in HISTORIES:
        ours, theirs = (np.stack(table[name].to_pylist()) for table in (rows, expected))
        np.testing.assert_allclose(ours, theirs, rtol=0 if engine == "fused" else 1e-5, err_msg=name)


def test_a_file_holds_everything_to_the_bit(tmp_path, dataset):
    regularized = make_experiment(**SETTINGS, kernel_regularizer=Regularizer("l2", 0.1), label_noise=0.2)
    unfinished = stop(dataset, Stack((Item(regularized, 2**24, "b", (0, 1)),), "torch", "cpu"))
    kept = Checkpoints(tmp_path, BUTTER)
    kept.write(unfinished)
    back = kept.read(unfinished.stack)
    for field in ("stack", "core_seconds", "started", "cpu_families"):
        assert getattr(back, field) == getattr(unfinished, field)
    ours, theirs = (list(checkpoints._arrays_of(one.state)) for one in (back, unfinished))
    assert [name for name, _ in ours] == [name for name, _ in theirs]
    for (name, our_array), (_, their_array) in zip(ours, theirs, strict=True):
        assert our_array.dtype == their_array.dtype
        np.testing.assert_array_equal(our_array, their_array, err_msg=name)


@pytest.fixture
def written(tmp_path, dataset):
    kept = Checkpoints(tmp_path, BUTTER)
    kept.write(stop(dataset))
    return kept, kept.path(STACK)


def test_a_file_torn_anywhere_is_refused(written):
    _, path = written
    content = path.read_bytes()
    header = content.index(b'"arrays"') + 400
    ends = [*range(header), *range(header, len(content), 499), *range(len(content) - 40, len(content))]
    for end in ends:
        path.write_bytes(content[:end])
        with pytest.raises(CheckpointError, match="torn"):
            read_checkpoint(path, STACK, BUTTER)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="torn"):
        read_checkpoint(path, STACK, BUTTER)


def test_a_file_with_any_byte_changed_is_refused(written):
    _, path = written
    content = path.read_bytes()
    for place in [*range(600), *range(600, len(content), 997), *range(len(content) - 40, len(content))]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(CheckpointError):
            read_checkpoint(path, STACK, BUTTER)


def test_what_cannot_be_gone_on_from_is_removed_with_a_word(written, caplog):
    kept, path = written
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert kept.read(STACK) is None
    assert "it is torn; it is removed, and the stack starts from the beginning" in caplog.text
    assert not path.exists()
    path.write_bytes(b"")
    assert kept.stacks() == []


def test_other_versions_start_over(written, monkeypatch):
    _, path = written
    monkeypatch.setattr(checkpoints, "package_version", lambda name: "2.0" if name == "torch" else None)
    with pytest.raises(CheckpointError, match=r"made by other versions .*torch"):
        read_checkpoint(path, STACK, BUTTER)


def test_the_checkpoint_of_another_stack_is_refused(written, dataset, caplog):
    kept, path = written
    fewer = Stack((msgspec.structs.replace(ITEM, repetitions=(0,)),), "torch", "cpu")
    unfinished = read_checkpoint(path, STACK, BUTTER)
    with pytest.raises(CheckpointError, match="wine rectangle size 128 depth 3: what was stopped is another stack"):
        train_stack(BUTTER, fewer, dataset, resume=unfinished)
    with pytest.raises(CheckpointError, match="another stack"):
        train_stack(BUTTER, Stack((ITEM,), "fused", "cpu"), dataset, resume=unfinished)
    other = kept.path(fewer)
    assert other != path != kept.path(Stack((ITEM,), "fused", "cpu"))
    path.rename(other)
    assert kept.read(fewer) is None
    assert "it is of another stack" in caplog.text


def test_a_run_that_went_on_on_another_kind_of_processor_says_so(dataset, monkeypatch):
    unfinished = stop(dataset)
    monkeypatch.setattr(stacks, "cpu_family", lambda: "AnotherKind-1-2")
    moved = stop(dataset, epochs=8, resume=unfinished)
    monkeypatch.undo()
    (rows,) = train_stack(BUTTER, STACK, dataset, resume=moved)
    assert rows["end_reason"].to_pylist() == [COMPLETED_ELSEWHERE] * 2


def test_a_disk_that_is_full_leaves_the_earlier_checkpoint(written, monkeypatch, dataset):
    kept, path = written
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    later = replace(read_checkpoint(path, STACK, BUTTER), core_seconds=99.0)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FullDiskError, match=r"checkpoint: cannot be written \(.*No space left"):
        kept.write(later)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_arrays_of_any_name_and_shape_are_kept(tmp_path):
    names = ("epochs", "steps", "own epochs", "own own", "whole", "none")
    arrays = {name: np.full((2, 3), number, np.float64) for number, name in enumerate(names)}
    arrays |= {"whole": np.array(0.1), "none": np.zeros((0, 4), np.float16)}
    stack, points = Stack((ITEM,), "torch", "cpu"), np.array([1, 2])
    kept = Checkpoints(tmp_path, BUTTER)
    for steps in (np.array([0, 0]), np.array([3, 4])):
        kept.write(Unfinished(stack, State(points, steps, arrays, frozenset({"whole", "steps"})), 0.0, 0, ()))
        state = kept.read(stack).state
        assert (state.points.tolist(), state.steps.tolist()) == ([1, 2], steps.tolist())
        assert (list(state.arrays), state.shared) == (list(names), {"whole", "steps"})
        for name, array in arrays.items():
            assert (state.arrays[name].shape, state.arrays[name].dtype) == (array.shape, array.dtype)
            np.testing.assert_array_equal(state.arrays[name], array)


@pytest.mark.parametrize("array", [np.array([None]), np.zeros(1, [("a", "i4")])])
def test_arrays_that_bytes_do_not_tell_are_refused(tmp_path, array):
    zero = np.zeros(1, np.int64)
    unfinished = Unfinished(Stack((ITEM,), "torch", "cpu"), State(zero, zero, {"odd": array}), 0.0, 0, ())
    said = r"array 'odd' of a state has the type .*: only plain numbers can be kept"
    with pytest.raises(CheckpointError, match=said):
        Checkpoints(tmp_path, BUTTER).write(unfinished)
    assert not any(tmp_path.rglob("*.checkpoint"))
