"""Trials of rnn_capacity: measured at equal parts, stopped anywhere, and gone on with to the same bits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.engines import draw_recurrent_start, load_recurrent_trainer
from butter_etl.errors import DatasetError
from butter_etl.studies.capacity import training
from butter_etl.studies.capacity.experiments import SearchCell
from butter_etl.studies.capacity.hyperparameters import draw, hparams_text
from butter_etl.studies.capacity.networks import descent_of, network_of, start_of, trial_network
from butter_etl.studies.capacity.tasks import task_data
from butter_etl.studies.capacity.texts import clean, text_id
from butter_etl.studies.capacity.training import (
    CapacityTrainer,
    Trials,
    hparams_of,
    mean_train_steps,
    mutual_information,
    steps_at,
)
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.trainers import State
from tests.bible import read_bible

HISTORIES = ("progress", "step", "train_loss", "valid_loss", "eval_loss")


def cell(**more):
    usual = {"task_type": "per_cap", "architecture": "gru", "n_layers": 1, "max_params": 200, "input_size": 10}
    fast = {"min_train_steps": 20, "max_train_steps": 40, "n_points": 4, "batch_size": 5, "eval_size": 6}
    return SearchCell(**{**usual, **fast, **more})


def trained(one, repetitions=(0,), engine="compiled", start=None, watch=None, given=None, letters=None):
    runs = [RunSpec(one, repetition, given) for repetition in repetitions]
    trials = Trials(runs, task_data(one, letters), engine, "cpu", start)
    trials.train(watch)
    return trials.results()


def assert_same(ours, theirs):
    for name in HISTORIES:
        assert np.array_equal(ours.histories[name], theirs.histories[name], equal_nan=True), name
    assert ours.details == theirs.details
    assert ours.end_reasons == theirs.end_reasons


def test_points_are_equal_parts_of_the_training():
    assert [steps_at(10, point, 4) for point in range(5)] == [0, 2, 5, 7, 10]
    one = cell(n_points=7)
    found = trained(one, (0, 1, 2))
    assert found.histories["progress"].tolist() == [[point / 7 for point in range(1, 8)]] * 3
    for number, steps in enumerate(found.details["train_steps"]):
        assert found.histories["step"][number].tolist() == [steps * point // 7 for point in range(1, 8)]
    assert found.histories["step"].dtype == np.int64
    assert len(set(found.details["train_steps"])) > 1


@pytest.mark.parametrize("task_type", ["per_cap", "mem_thru", "rcf", "text8", "parens_counting", "arithmetic"])
def test_losses_are_those_of_the_engine(task_type):
    """Step by step, by hand: the mean of the batches since the last point, and both sets."""
    more = {"input_size": None, "max_params": 4000} if task_type != "per_cap" else {}
    one = cell(task_type=task_type, n_points=3, max_train_steps=20, **more)
    letters = np.random.default_rng(1).integers(0, 27, 4000).astype(np.uint8)
    found = trained(one, (3,), letters=letters)
    run, data = RunSpec(one, 3), task_data(one, letters)
    hparams = draw(one, network_of(one).parameters, run.seed)
    assert found.details["hparams"] == [hparams_text(hparams)]
    network, descent = trial_network(one, hparams), descent_of(hparams)
    start = draw_recurrent_start(network, start_of(one, hparams), descent.optimizer, run.seed)
    trainer = load_recurrent_trainer("compiled")(network, data.objective(hparams), descent, start)
    unit = math.log(2.0) if task_type == "text8" else 1.0
    done = 0
    for point, until in enumerate((6, 13, 20)):
        losses = [trainer.train_batch(data.batch(hparams, step), step).loss for step in range(done, until)]
        done = until
        assert found.histories["train_loss"][0, point] == pytest.approx(np.mean(losses) / unit, rel=1e-12)
        for name, part in (("valid_loss", "valid"), ("eval_loss", "eval")):
            measured = [(trainer.evaluate(batch), batch.rows) for batch in data.held_out(hparams, part)]
            if task_type == "per_cap":
                right = sum(one.right for one, _ in measured)
                expected = -mutual_information(right, hparams["dataset_size"])
            else:
                expected = sum(one.loss for one, _ in measured) / sum(rows for _, rows in measured) / unit
            assert found.histories[name][0, point] == pytest.approx(expected, rel=1e-12)
    if task_type == "per_cap":
        bits = -found.histories["eval_loss"][0, -1]
        assert found.details["mutual_information_bits"] == [bits]
        assert found.details["bits_per_parameter"] == [bits / network.parameters]
        assert found.details["accuracy"] == [right / hparams["dataset_size"]]
    else:
        assert found.details["mutual_information_bits"] == [None]
        assert (found.details["accuracy"] == [None]) == (task_type in ("mem_thru", "rcf"))


def test_information_is_what_the_sheet_says():
    assert mutual_information(8, 8) == mutual_information(0, 8) == 8.0
    assert mutual_information(4, 8) == 0.0
    assert mutual_information(6, 8) == pytest.approx(8 * (1 + 0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))


@settings(max_examples=15)
@given(st.integers(0, 200), st.sampled_from(["compiled", "reference"]))
def test_stopped_anywhere_it_goes_on_to_the_same_bits(when, engine):
    """Stopped after so many calls of the watch, which is called at each step."""
    one, repetitions = cell(n_points=3), (0, 1, 2, 3)
    whole = trained(one, repetitions, engine)

    class StopError(Exception):
        pass

    calls, kept = 0, []

    def watch(points, take):
        nonlocal calls
        calls += 1
        if calls == when + 1:
            kept.append(take())
            raise StopError

    before, training._WATCH_SECONDS = training._WATCH_SECONDS, -1.0
    try:
        trained(one, repetitions, engine, watch=watch)
    except StopError:
        (state,) = kept
        again = trained(one, repetitions, engine, start=state)
        assert_same(again, whole)
        for part in (slice(0, 2), slice(2, 4)):  # as after a death
            cut = trained(one, repetitions[part], engine, start=state.part(part))
            for name in HISTORIES:
                assert np.array_equal(cut.histories[name], whole.histories[name][part], equal_nan=True)
    else:
        assert not kept
    finally:
        training._WATCH_SECONDS = before


def test_a_trial_is_the_same_whatever_it_is_trained_beside():
    one = cell()
    whole = trained(one, (0, 1, 2))
    alone = trained(one, (2,))
    assert alone.histories["eval_loss"].tolist() == whole.histories["eval_loss"][2:].tolist()


def wild(one, **more):
    """Hyperparameters by which a ReLU network grows beyond all numbers."""
    hparams = dict(draw(one, network_of(one).parameters, 1))
    return hparams_text({**hparams, "nonlinearity": "relu", **more})


def test_a_trial_that_diverges_is_infeasible_and_ends():
    one = cell(task_type="rcf", architecture="rnn", input_size=None, max_params=4000, n_points=3, unroll_steps=400)
    huge = {"recurrent_matrix_init_type": "normal", "recurrent_matrix_scale_h": 30.0, "input_scale_h": 2.0}
    found = trained(one, (5,), given=wild(one, **huge))
    assert found.details["infeasible"] == [True]
    assert found.end_reasons == ["diverged"]
    assert found.details["accuracy"] == [None]
    for name in ("train_loss", "valid_loss", "eval_loss"):
        assert np.isnan(found.histories[name]).all()
    assert found.histories["progress"][0].tolist() == [1 / 3, 2 / 3, 1.0]
    assert np.isfinite(found.histories["step"]).all()


@pytest.mark.parametrize(("scale", "diverges"), [(2.1, False), (2.3, True)])
def test_losses_beyond_all_sense_diverge_though_they_are_finite(scale, diverges):
    """As in records that are imported: what is exported comes back as it was."""
    one = cell(task_type="rcf", architecture="rnn", input_size=None, max_params=4000, n_points=3, unroll_steps=60)
    large = {"recurrent_matrix_init_type": "normal", "recurrent_matrix_scale_h": scale, "input_scale_h": 2.0}
    found = trained(one, (5,), given=wild(one, lr_init=1e-4, **large))
    assert found.details["infeasible"] == [diverges]
    losses = found.histories["train_loss"][0]
    assert np.isnan(losses).all() if diverges else (losses > 1e28).all()


def test_it_may_diverge_later():
    one = cell(architecture="rnn", n_points=4, max_train_steps=20)
    found = trained(one, (0,), given=wild(one, optimizer="SGD", lr_init=30.0, l2_decay=3.0, gradient_clip_val=1e30))
    assert found.details["infeasible"] == [True]
    losses = found.histories["train_loss"][0]
    first = int(np.isnan(losses).argmax())
    assert np.isfinite(losses[:first]).all()
    assert np.isnan(losses[first:]).all()


def test_hyperparameters_are_proposed_fixed_or_drawn():
    one = cell()
    hparams = draw(one, network_of(one).parameters, 77)
    again = cell(search="rerun", fixed_hparams=hparams_text(hparams))
    assert hparams_of(RunSpec(one, 0, json.dumps(hparams))) == hparams
    assert hparams_of(RunSpec(again, 4)) == hparams
    assert hparams_of(RunSpec(one, 1)) == draw(one, network_of(one).parameters, RunSpec(one, 1).seed)
    assert hparams_of(RunSpec(one, 1)) != hparams_of(RunSpec(one, 2))
    found = trained(again, (0, 1))
    assert len(set(found.details["hparams"])) == 1
    assert found.histories["train_loss"][0].tolist() != found.histories["train_loss"][1].tolist()  # other starts
    assert mean_train_steps(again) == hparams["train_steps"]
    assert 20 < mean_train_steps(one) < 40


def test_promoted_columns_say_what_the_text_says():
    found = trained(cell(), (0, 1))
    for number, text in enumerate(found.details["hparams"]):
        hparams = json.loads(text)
        for key in training.PROMOTED:
            assert found.details[key][number] == hparams.get(key)
    assert found.details["hyper_iter"] == [0, 1]


def test_a_state_says_which_trial_is_under_way():
    states = []
    trained(cell(), (0, 1), watch=lambda points, take: states.append((points, take())))
    assert all(isinstance(state, State) for _, state in states)
    assert [points for points, _ in states] == [1.0, 2.0, 3.0, 5.0, 6.0, 7.0]
    for _, state in states:
        assert {"sum", "network.parameters", "network.steps"} <= state.shared
        assert state.arrays["measured"].shape == (2, 4, 5)


def test_costs_grow_with_what_is_trained():
    trainer = CapacityTrainer()
    estimate = trainer.estimator("compiled", "cpu")
    small, large = cell(), cell(max_params=20_000)
    assert estimate(RunSpec(large, 0)).seconds > estimate(RunSpec(small, 0)).seconds > 0
    longer = cell(min_train_steps=2000, max_train_steps=4000)
    assert estimate(RunSpec(longer, 0)).seconds > estimate(RunSpec(small, 0)).seconds
    assert estimate(RunSpec(large, 0)).bytes > estimate(RunSpec(small, 0)).bytes
    assert trainer.fitting([RunSpec(small, 0)] * 5, task_data(small), "cpu") == 5
    assert trainer.stack_key(RunSpec(small, 0)) == trainer.stack_key(RunSpec(small, 1))


def test_texts_are_looked_for_before_anything_is_trained(tmp_path):
    trainer = CapacityTrainer()
    one = cell(task_type="text8", text_sha256="0" * 16)
    with pytest.raises(DatasetError, match=rf"^text 0{{16}} is not in {tmp_path} \(there is no \*\.txt\)$"):
        trainer.fetch([cell(), one], tmp_path)
    trainer.fetch([cell()], tmp_path)


def test_a_real_text_is_learned():
    """From the 27 letters of a bible, a small network soon foretells better than by how often letters come."""
    letters = clean(read_bible())
    assert letters.size > 4_000_000
    one = cell(
        task_type="text8", max_params=10_000, batch_size=32, min_train_steps=300, max_train_steps=300, eval_size=64,
        text_sha256=text_id(letters), n_points=2,
    )  # fmt: skip
    found = trained(one, given=hparams_text(learning(one)), letters=letters)
    shares = np.bincount(letters) / letters.size
    entropy = -sum(share * math.log2(share) for share in shares)
    assert 1.0 < found.histories["eval_loss"][0, -1] < entropy - 0.5
    assert found.histories["eval_loss"][0, -1] < found.histories["eval_loss"][0, 0]


def learning(one):
    """Hyperparameters by which a GRU learns."""
    drawn = draw(one, network_of(one).parameters, 1)
    plain = {key: 1.0 for key in drawn if key.startswith(("input_scale", "recurrent_matrix_scale"))}
    plain |= {key: 0.0 for key in drawn if key.startswith("recurrent_bias_scale")}
    chosen = {"optimizer": "ADAM", "lr_init": 0.01, "lr_decay_rate": 0.1, "optimizer_logit_momentum": 2.2}
    chosen |= {"nonlinearity": "tanh", "recurrent_matrix_init_type": "orthogonal", "recurrent_bias_init_type": "delta"}
    scales = {f"recurrent_matrix_scale_{gate}": 1.0 for gate in "cru"}
    return {**drawn, **plain, **chosen, **scales, "l2_decay": 1e-8, "forget_gate_bias_hack": 1.0}
