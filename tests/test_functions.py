"""Studies made of functions: what they are, that runs go on to the same bits, and what is refused."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from butter_etl.errors import CheckpointError, StudyError
from butter_etl.studies.axes import Axis, Between
from butter_etl.studies.experiments import RunSpec
from butter_etl.studies.functions import study_of
from butter_etl.studies.kept_states import pack, unpack
from butter_etl.studies.selection import Choice
from butter_etl.train_tasks import plan_campaign
from butter_etl.views.facts import plan_lines

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_states_are_packed_and_unpacked(state):
    assert unpack(pack(state)) == state


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_tensors_of_any_type_are_kept(kind, shape):
    tensor = torch.ones(shape).to(getattr(torch, kind))
    found = unpack(pack({"tensor": tensor, "array": np.ones(shape)}))
    assert found["tensor"].dtype == tensor.dtype
    assert torch.equal(found["tensor"], tensor)
    assert np.array_equal(found["array"], np.ones(shape))


def test_what_cannot_be_kept_is_named():
    with pytest.raises(CheckpointError, match=r"^state\.model\[1\]: object cannot be kept"):
        pack({"model": [1, object()]})


# --- training -----------------------------------------------------------------------------------------------------


def walk(*, steps: int, scale: float = 1.0, seed, device, resume) -> Iterator[dict[str, float]]:
    """A model of one weight that three generators push around."""
    model, generator = torch.nn.Linear(1, 1), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(resume.keep(model=model, optimizer=optimizer, generator=generator), steps):
        pushed = model(torch.rand(4, 1)).sum() * (random.random() + np.random.rand() + generator.random())  # noqa: NPY002
        optimizer.zero_grad()
        pushed.backward()
        optimizer.step()
        yield {"loss": scale * model.weight.item(), "noise": float("nan") if pushed > 0 else 1e300}


def forgetful(*, steps: int, seed, device, resume) -> Iterator[dict[str, float]]:
    """What keeps nothing."""
    for _ in range(steps):
        yield {"loss": random.random()}


WALK = study_of(walk, name="walk", points="steps", histories=["loss", "noise"], keys=["steps"])
FORGETFUL = study_of(forgetful, name="forgetful", points="steps", histories=["loss"])


class StoppedError(Exception):
    """Raised by a watch that has seen enough."""


def trained(study, runs, **options):
    return study.trainer.train(runs, None, engine="python", device="cpu", **options)


def stopped_at(study, runs, points, start=None):
    """The state at which training was stopped."""
    taken = []

    def watch(done, take_state):
        if done >= points:
            taken.append(take_state())
            raise StoppedError

    with pytest.raises(StoppedError):
        trained(study, runs, start=start, watch=watch)
    return taken[0]


@given(st.integers(1, 11), st.integers(0, 3))
def test_runs_go_on_to_the_same_bits(points, draws):
    runs = [RunSpec(WALK.experiment(steps=4), repetition) for repetition in range(3)]
    state = stopped_at(WALK, runs, points)
    random.seed(draws)  # whatever else draws meanwhile
    torch.manual_seed(draws)
    whole, gone_on = trained(WALK, runs), trained(WALK, runs, start=state)
    for name in WALK.histories:
        for one, other in zip(whole.histories[name], gone_on.histories[name], strict=True):
            assert one.tobytes() == other.tobytes()


def test_a_part_of_a_stopped_stack_goes_on():
    runs = [RunSpec(WALK.experiment(steps=4), repetition) for repetition in range(3)]
    state, whole = stopped_at(WALK, runs, 6), trained(WALK, runs)
    for first, last in ((0, 2), (2, 3), (1, 2)):
        part = trained(WALK, runs[first:last], start=state.part(slice(first, last)))
        for one, other in zip(whole.histories["loss"][first:last], part.histories["loss"], strict=True):
            assert one.tobytes() == other.tobytes()


def test_what_keeps_nothing_begins_anew():
    runs = [RunSpec(FORGETFUL.experiment(steps=5), 0)]
    gone_on = trained(FORGETFUL, runs, start=stopped_at(FORGETFUL, runs, 3))
    assert gone_on.histories["loss"][0].tobytes() == trained(FORGETFUL, runs).histories["loss"][0].tobytes()
    assert (WALK.trainer.goes_on, FORGETFUL.trainer.goes_on) == (True, False)


def test_a_run_may_end_before_its_last_point():
    def short(*, steps: int, seed, device, resume) -> Iterator[dict[str, float]]:
        yield {"loss": 1.0}

    study = study_of(short, name="short", points="steps", histories=["loss"])
    found = trained(study, [RunSpec(study.experiment(steps=9), 0)])
    assert [one.tolist() for one in found.histories["loss"]] == [[1.0]]


def test_what_is_yielded_must_be_the_histories():
    def other(*, steps: int, seed, device, resume) -> Iterator[dict[str, float]]:
        yield {"lost": 1.0}

    study = study_of(other, name="other", points="steps", histories=["loss"])
    with pytest.raises(StudyError, match=r"^other yields lost; its study has the histories loss$"):
        trained(study, [RunSpec(study.experiment(steps=9), 0)])


# --- declarations -------------------------------------------------------------------------------------------------


def declared(*, widths: tuple[int, ...], name: str | None = None, rate: Annotated[float, Axis(check=Between(0, 1))] = 0.1, seed, device, resume) -> Iterator[dict[str, float]]:  # fmt: skip # noqa: E501
    yield {"loss": 1.0}


def test_columns_follow_from_the_function():
    study = study_of(declared, name="declared", points=1, histories=["loss"], keys=["name"], best={"loss": "min"})
    types = {name: study.runs.field(name).type for name in study.parameters}
    assert types == {"widths": pa.list_(pa.field("element", pa.int64())), "name": pa.string(), "rate": pa.float64()}
    assert study.max_runs == 2**16 - 1
    assert study.runs.field("loss").type.value_type == pa.float64()
    assert study.summary.field("loss_min_value_median").type == pa.float64()
    (one,) = study.reader.parse("{name: a, repetitions: 3, cubes: {widths: [[3, 4]]}}", "a.yaml").experiments()
    assert one.parameters() == {"widths": (3, 4), "name": None, "rate": 0.1}
    assert study.parse_experiment(one.canonical_json()) == one
    assert '"study":"declared"' in one.canonical_json()
    assert '"widths":[3,4]' in one.canonical_json()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": ["nme"]}, r"there is no column 'nme' \(did you mean 'name'\?\)"),
        ({"keys": ["widths"]}, "key 'widths' is a list; keys are one value"),
        ({"best": {"lost": "min"}}, 'best: lost: \'min\'; name histories, and "min" or "max" for each'),
    ],
)
def test_declarations_that_do_not_hold_are_refused(options, message):
    with pytest.raises(StudyError, match=message):
        study_of(declared, **{"name": "declared", "points": 1, "histories": ["loss"], **options})


def test_functions_that_cannot_be_studies_are_refused():
    def untyped(*, size, seed, device, resume): ...
    def without(*, size: int, seed, device): ...
    def odd(*, size: dict, seed, device, resume): ...

    for function, message in (
        (untyped, "write the type of size"),
        (without, "must take `resume`, and may take `seed` and `device`"),
        (odd, "is no type of a parameter"),
    ):
        with pytest.raises(StudyError, match=message):
            study_of(function, name="bad", points=1, histories=["loss"])


def test_a_plan_says_that_runs_begin_anew(tmp_path):
    for study, says in ((WALK, False), (FORGETFUL, True)):
        (tmp_path / "s.yaml").write_text("{name: s, repetitions: 1, cubes: {steps: 2}}")
        campaign = plan_campaign(tmp_path / "store", Choice(specs=(str(tmp_path / "s.yaml"),)), study=study)
        assert any("begins anew" in line for line in plan_lines(campaign, 1)) is says


def test_the_example_is_a_study(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    study = __import__("own_study").STUDY
    assert study.keys == ("activation", "width")
    assert len((Path(__file__).parents[1] / "examples" / "own_study.py").read_text().splitlines()) < 80
    assert "own_study" in sys.modules
