"""The tasks of rnn_capacity: the worked examples of its sheet, and data that are the same for all trials."""

from __future__ import annotations

import math
import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.engines import Shown, Stream, words
from butter_etl.errors import DatasetError
from butter_etl.studies.capacity.experiments import SearchCell
from butter_etl.studies.capacity.tasks import (
    BRACKETS,
    LETTERS,
    SAMPLES,
    STREAM_SYMBOLS,
    SYMBOLS,
    Brackets,
    question,
    symbol_indices,
    task_data,
    weights_so_far,
)
from butter_etl.studies.capacity.texts import clean, find_letters, read_letters, text_id

PARTS = ("train", "valid", "eval")
LEARNED = {"dataset_size": 150, "input_every_step": 1, "compute_steps": 3}


def data_of(task_type, letters=None, **more):
    cell = SearchCell(task_type=task_type, architecture="gru", n_layers=1, max_params=10_000, **more)
    return task_data(cell, letters)


def text_of(count=20_000, seed=3):
    return np.random.default_rng(seed).integers(0, 27, count).astype(np.uint8)


def count_open(stream, kind, kinds):
    """How many brackets of a type are open at the end, by the sheet's words."""
    opened, closed = kinds[kind]
    count = 0
    for symbol in stream:
        count = min(count + 1, 9) if symbol == opened else max(count - 1, 0) if symbol == closed else count
    return count


# --- shapes of the sheet's table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task_type", "inputs", "outputs", "steps", "scored"),
    [
        ("per_cap", 32, 1, 5, (4, 5)),
        ("mem_thru", 64, 64, 12, (11, 12)),
        ("rcf", 50, 1, 50, (49, 50)),
        ("text8", 27, 27, 50, (13, 50)),
        ("parens_counting", 300, 100, 175, (174, 175)),
        ("arithmetic", 14, 14, 36, (23, 33)),
    ],
)
def test_tasks_have_the_sizes_of_the_sheet(task_type, inputs, outputs, steps, scored):
    data = data_of(task_type, text_of())
    objective = data.objective(LEARNED)
    assert (data.inputs, data.outputs, (objective.first, objective.last)) == (inputs, outputs, scored)
    batch = data.batch(LEARNED, 0)
    assert (batch.rows, batch.steps) == (64, steps)


@pytest.mark.parametrize("task_type", ["per_cap", "mem_thru", "rcf", "text8", "parens_counting", "arithmetic"])
def test_data_are_a_function_of_task_seed_and_step(task_type):
    def numbers(batch):
        shown = batch.inputs.vectors if isinstance(batch.inputs, Shown) else batch.inputs
        return shown.tolist(), batch.targets.tolist()

    one, again, other = (
        data_of(task_type, text_of(), batch_size=8, eval_size=20, data_seed=seed) for seed in (1, 1, 2)
    )
    again.batch(LEARNED, 6)  # the order of calls makes no difference
    assert numbers(one.batch(LEARNED, 7)) == numbers(again.batch(LEARNED, 7))
    assert numbers(one.batch(LEARNED, 7)) != numbers(one.batch(LEARNED, 8))
    assert numbers(one.batch(LEARNED, 7)) != numbers(other.batch(LEARNED, 7))
    sets = [[numbers(batch) for batch in one.held_out(LEARNED, part)] for part in ("valid", "eval")]
    assert sets[0] == [numbers(batch) for batch in again.held_out(LEARNED, "valid")]
    assert (sets[0] == sets[1]) == (task_type == "per_cap")
    assert sum(batch.rows for batch in one.held_out(LEARNED, "eval")) == (150 if task_type == "per_cap" else 20)


# --- per_cap -------------------------------------------------------------------------------------------------------


def test_a_perceptron_learns_each_vector_once_a_pass():
    data = data_of("per_cap", batch_size=40, input_size=9)
    seen = np.concatenate([data.batch(LEARNED, step).inputs.vectors for step in range(15)])  # four passes of 150
    for first in range(0, 600, 150):
        assert len(np.unique(seen[first : first + 150], axis=0)) == 150
    assert seen[:150].tolist() != seen[150:300].tolist()
    assert set(np.unique(seen)) == {0.0, 1.0}


def test_vectors_are_distinct_and_labels_belong_to_them():
    few, many = data_of("per_cap", input_size=8), data_of("per_cap", input_size=8)
    small = [*few.held_out({"dataset_size": 20, "input_every_step": 0}, "eval")]
    whole = [*many.held_out({"dataset_size": 256, "input_every_step": 1}, "eval")]
    assert len({tuple(row) for batch in whole for row in batch.inputs.vectors.tolist()}) == 256
    assert (small[0].inputs.every_step, whole[0].inputs.every_step) == (False, True)
    assert small[0].inputs.vectors.tolist() == whole[0].inputs.vectors[:20].tolist()
    assert small[0].targets.tolist() == whole[0].targets[:20].tolist()
    labels = np.concatenate([batch.targets for batch in whole])
    assert 90 < labels.sum() < 166
    with pytest.raises(DatasetError, match=r"^there are no 257 distinct vectors of 8 bits; give a larger input_size$"):
        next(few.held_out({"dataset_size": 257, "input_every_step": 1}, "eval"))


def test_vectors_may_be_longer_than_a_word():
    data = data_of("per_cap", input_size=70)
    (batch,) = data.held_out({"dataset_size": 200, "input_every_step": 1}, "eval")
    assert batch.inputs.vectors.shape == (200, 70)
    assert batch.inputs.vectors.mean() == pytest.approx(0.5, abs=0.02)


# --- mem_thru, rcf -------------------------------------------------------------------------------------------------


def test_memory_gives_back_what_it_was_shown_once():
    batch = data_of("mem_thru", batch_size=500).batch({}, 3)
    assert batch.inputs.vectors.tolist() == batch.targets.tolist()
    assert not batch.inputs.every_step
    assert np.abs(batch.targets).max() <= math.sqrt(3.0)
    assert batch.targets.var() == pytest.approx(1.0, abs=0.02)
    assert batch.targets.mean() == pytest.approx(0.0, abs=0.02)


def test_weights_of_the_random_function_add_up_as_the_sheet_says():
    assert weights_so_far().size == SAMPLES == 10**6
    assert weights_so_far()[-1] == pytest.approx(5.3032, abs=5e-5)


def test_a_random_function_is_a_table():
    data = data_of("rcf", batch_size=4000)
    batch = data.batch({}, 0)
    numbers = np.arange(10)
    vectors, values = data.entries(numbers)
    assert np.array_equal(data.entries(numbers[4:5])[0], vectors[4:5])
    assert vectors.shape == (10, 50)
    assert values.shape == (10, 1)
    assert batch.inputs.vectors.std() == pytest.approx(1.0, abs=0.01)
    assert batch.targets.std() == pytest.approx(1.0, abs=0.04)
    # Of 5,000 early entries, of weight 1/5001 … 1/10000, there is a share of (ln 2) / 5.3032.
    early = {vector.tobytes() for vector in data.entries(np.arange(5000))[0]}
    share = np.mean([vector.tobytes() in early for vector in batch.inputs.vectors])
    assert share == pytest.approx(math.log(2.0) / 5.3032, abs=0.03)


# --- text8 ---------------------------------------------------------------------------------------------------------


def test_a_text_is_cleaned_as_text8_was():
    found = clean("In 1984, Anarchism (originated)\nas  a term—über".encode())
    assert "".join(LETTERS[one] for one in found) == "in one nine eight four anarchism originated as a term ber"
    clean_already = b" anarchism originated as a term of abuse"
    assert "".join(LETTERS[one] for one in clean(clean_already)).encode() == clean_already


def test_the_next_characters_of_a_text_are_foretold():
    letters = text_of()
    data = data_of("text8", letters)
    bounds = {"train": (0, 18_000), "valid": (18_000, 19_000), "eval": (19_000, 20_000)}
    for part, (first, last) in bounds.items():
        batch = data.sequences({}, part, 0, 200)
        text = letters[first:last].tobytes()
        for shown, wanted in zip(batch.inputs[:, :, 0], batch.targets[:, :, 0], strict=True):
            place = text.index(shown.astype(np.uint8).tobytes())
            assert wanted.astype(np.uint8).tobytes() == text[place + 14 : place + 51]
    assert len(data.sha256) == 64


def test_texts_are_found_by_their_letters(tmp_path):
    (tmp_path / "one.txt").write_text("Some words. " * 100)
    (tmp_path / "two.txt").write_text("some words " * 100)
    (tmp_path / "three.txt").write_text("other words " * 100)
    name = text_id(read_letters(tmp_path / "two.txt"))
    assert text_id(read_letters(tmp_path / "one.txt")) == name  # the letters count
    assert np.array_equal(find_letters(name, tmp_path), clean(b"some words " * 100))
    other = text_id(read_letters(tmp_path / "three.txt"))
    with pytest.raises(DatasetError) as caught:
        find_letters("0" * 16, tmp_path)
    assert (
        str(caught.value)
        == f"text {'0' * 16} is not in {tmp_path} (one.txt is {name}, three.txt is {other}, two.txt is {name})"
    )


def test_what_is_no_text_is_named_in_one_line(tmp_path):
    (tmp_path / "none.txt").write_text("--- !!! ---")
    with pytest.raises(DatasetError, match=r"none\.txt: has no letters$"):
        read_letters(tmp_path / "none.txt")
    with pytest.raises(DatasetError, match=r"absent\.txt: cannot be read \("):
        read_letters(tmp_path / "absent.txt")
    with pytest.raises(DatasetError, match=r"text8 is not there; put text8 there .*, or name another text by"):
        find_letters(None, tmp_path)
    (tmp_path / "text8").write_text("too short")
    with pytest.raises(DatasetError, match=r"text8 has 9 letters, text8 has 100000000; name it by `text_sha256`$"):
        find_letters(None, tmp_path)
    with pytest.raises(DatasetError, match=r"^a text of 1000 letters is too short: a twentieth of it must have more "):
        data_of("text8", text_of(1000)).batch({}, 0)
    with pytest.raises(DatasetError, match=r"^text8 needs a text$"):
        data_of("text8").batch({}, 0)


# --- parens_counting -----------------------------------------------------------------------------------------------


def test_the_example_of_the_sheet_leaves_one_open():
    kinds = [("(", ")"), ("<", ">"), ("[", "]"), ("b", "~")]
    assert count_open("(a<a<bcb>[[[)", 1, kinds) == 1
    assert count_open("(a<a<bcb>[[[)", 0, kinds) == 0
    assert count_open("(a<a<bcb>[[[)", 2, kinds) == 3
    assert count_open("<" * 12 + ">", 1, kinds) == 8  # up to nine
    assert count_open(">><", 1, kinds) == 1  # from nothing


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1), st.sampled_from(PARTS))
def test_brackets_are_counted_in_streams_of_their_own(data_seed, step, part):
    data = data_of("parens_counting", data_seed=data_seed, unroll_steps=175)
    batch = data.sequences({}, part, step, 3)
    assert batch.inputs.dtype == np.int32
    kinds = [(number, BRACKETS + number) for number in range(BRACKETS)]
    for kind in range(BRACKETS):
        symbols = batch.inputs[:, :, kind] - kind * STREAM_SYMBOLS
        assert ((symbols >= 0) & (symbols < STREAM_SYMBOLS)).all()
        assert batch.targets[:, 0, kind].tolist() == [count_open(row, kind, kinds) for row in symbols.tolist()]


def test_symbols_are_made_of_halves_of_words():
    data = data_of("parens_counting", unroll_steps=7)
    batch = data.sequences({}, "valid", 5, 4)
    halves = words(data.seed, Stream.TASK_DATA, 140, 5, 1).astype("<u4").view("<u2").astype(np.int64)
    letters, brackets = 20 + halves * 10 // 2**15, (halves - 2**15) * 20 // 2**15
    symbols = np.where(halves < 2**15, letters, brackets).reshape(4, 7, 10)
    assert np.array_equal(batch.inputs, symbols + 30 * np.arange(10))


def test_half_of_the_symbols_are_noise():
    data = data_of("parens_counting")
    assert isinstance(data, Brackets)
    symbols = data.batch({}, 0).inputs % STREAM_SYMBOLS
    assert (symbols >= 2 * BRACKETS).mean() == pytest.approx(0.5, abs=0.01)
    shares = np.bincount(symbols.reshape(-1), minlength=STREAM_SYMBOLS) / symbols.size
    assert shares[:20] == pytest.approx(1 / 40, abs=0.003)
    assert shares[20:] == pytest.approx(1 / 20, abs=0.003)


# --- arithmetic ----------------------------------------------------------------------------------------------------


def spelled(indices):
    return "".join(SYMBOLS[one] for one in indices.reshape(-1))


def test_sums_are_written_as_the_sheet_writes_them():
    assert question(-343243, 93851) == "  -343243+    93851="
    assert len(question(-(10**7), -(10**7))) == 20
    assert spelled(symbol_indices("-343243+93851=")) == "-343243+93851="


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_answers_are_the_sums(step, compute_steps):
    data = data_of("arithmetic", batch_size=5)
    batch = data.batch({"compute_steps": compute_steps}, step)
    objective = data.objective({"compute_steps": compute_steps})
    assert (objective.first, objective.scored) == (20 + compute_steps, 10)
    for shown, wanted in zip(batch.inputs, batch.targets, strict=True):
        text = spelled(shown)
        first, second = text[:20].rstrip("=").split("+")
        assert max(abs(int(first)), abs(int(second))) <= 10**7
        assert text[20:] == "=" * 16
        assert spelled(wanted) == f"{int(first) + int(second)}".rjust(10)
        assert set(text) <= set(string.digits + "+-= ")
