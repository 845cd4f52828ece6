"""Claimed ids and registered sweeps, by several processes at once too."""

import multiprocessing

import pyarrow.parquet as pq
import pytest

from butter_etl.errors import SelectError, StoreError
from butter_etl.store.registry import Newcomer, Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import PUBLISHED, make_experiment
from butter_etl.studies.selection import Choice
from butter_etl.studies.sweeps import FIRST_CLAIMED_ID
from tests.strategies import POLLEN, land

MINE = [make_experiment(dataset="digits", size=size, depth=2) for size in (20_000, 30_000, 40_000)]


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "store")


def test_published_experiments_keep_their_ids(store):
    registry = Registry(store)
    registry.claim(store, {POLLEN: "mine"})
    assert registry.experiment_id(POLLEN) == 0
    assert registry.batch(0) == "primary"
    assert registry.experiment(0) == POLLEN
    assert store.location.names("experiments") == []
    assert Registry(None).experiment_id(POLLEN) == 0


def test_others_get_ids_that_stay(store):
    registry = Registry(store)
    assert registry.experiment_id(MINE[0]) is None
    registry.claim(store, dict.fromkeys(MINE[:2], "mine"))
    registry.claim(store, dict.fromkeys(MINE, "later"))
    registry.claim(store, dict.fromkeys(MINE, "again"))
    again = Registry(store)
    assert [again.experiment_id(spec) for spec in MINE] == [FIRST_CLAIMED_ID + k for k in range(3)]
    assert again.experiment(FIRST_CLAIMED_ID + 2) == MINE[2]
    assert [again.batch(FIRST_CLAIMED_ID + k) for k in range(3)] == ["mine", "mine", "later"]
    assert store.location.names("experiments") == [f"{FIRST_CLAIMED_ID}.parquet", f"{FIRST_CLAIMED_ID + 2}.parquet"]
    table = pq.read_table(store.state.parent / "experiments" / f"{FIRST_CLAIMED_ID}.parquet")
    assert table.schema.equals(BUTTER.claimed)
    assert table["canonical_json"].to_pylist() == [spec.canonical_json() for spec in MINE[:2]]


def claim_many(path, barrier, offset):
    store = Store.open(path)
    registry = Registry(store)
    for step in range(5):
        barrier.wait()
        sizes = range(20_000 + 7 * step + offset, 20_000 + 7 * step + offset + 4)
        registry.claim(store, {make_experiment(dataset="digits", size=size, depth=2): "m" for size in sizes})


@pytest.mark.long
def test_claims_at_the_same_moment_never_share_an_id(store):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [context.Process(target=claim_many, args=(store.location.root, barrier, offset)) for offset in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    rows = [
        row
        for name in store.location.names("experiments")
        for row in store.location.read_table(f"experiments/{name}").to_pylist()
    ]
    ids = [row["experiment_id"] for row in rows]
    assert sorted(ids) == list(range(FIRST_CLAIMED_ID, FIRST_CLAIMED_ID + len(ids)))
    assert len({row["canonical_json"] for row in rows}) == len(rows) == 30


def test_unknown_ids_are_named(store):
    with pytest.raises(StoreError, match="experiment 99999999 has runs but is in no sweep"):
        Registry(store).experiment(99999999)
    assert Registry(store).experiment(5) == BUTTER.fixed_ids.experiment(5)


def write_spec(path, size):
    path.write_text(f"name: mine\nrepetitions: 2\ncubes:\n- {{dataset: [digits], size: [{size}], depth: [2]}}\n")
    return Choice(specs=(str(path),))


def test_sweeps_are_registered_once(store, tmp_path):
    first = write_spec(tmp_path / "a.yaml", 20_000)
    registry = Registry(store)
    with pytest.raises(SelectError, match=r"unknown sweep 'mine'; published: primary"):
        registry.select(Choice(sweeps=("mine",)))
    registry.register(store, first)
    registry.register(store, first)
    by_name = Registry(store).select(Choice(sweeps=("mine",)))
    assert by_name == registry.select(first)
    assert registry.sweep_names() == ["mine"]
    other = write_spec(tmp_path / "b.yaml", 30_000)
    with pytest.raises(SelectError, match="has another sweep called 'mine'; choose another name"):
        Registry(store).select(other)
    with pytest.raises(
        SelectError, match=r"unknown sweep 'mime' \(did you mean 'mine'\?\).*registered in the store: mine"
    ):
        Registry(store).sweep("mime")


def test_experiments_of_another_task_are_kept_under_their_own_ids(store):
    parameters = {**POLLEN.parameters(), "label_noise": 0.05}
    ours = BUTTER.foreign("X", 3, POLLEN.parameters())
    specs = [ours, BUTTER.foreign("X", 4, parameters), BUTTER.foreign("Y", None, parameters), MINE[0]]
    assert len({POLLEN.canonical_json(), *(spec.canonical_json() for spec in specs)}) == 5
    assert BUTTER.foreign("X", 4, POLLEN.parameters()) == ours  # revisions of another task share an experiment
    wanted = dict(zip(specs, [0, 600_000, 600_000, 2**24 + 9], strict=True))
    registry = Registry(store)
    registry.adopt(
        store, {spec: Newcomer("b", own, {"num_free_parameters": 33, "widths": (4, 1)}) for spec, own in wanted.items()}
    )
    again = Registry(store)
    assert [again.experiment_id(spec) for spec in specs] == [2**24 + 10, 600_000, 2**24 + 11, 2**24 + 9]
    assert [again.experiment(again.experiment_id(spec)) for spec in specs] == specs
    assert again.experiment(0) == POLLEN
    again.adopt(store, {MINE[1]: Newcomer("b", 2**31)})  # kept ids leave room above
    assert again.experiment_id(MINE[1]) == 2**24 + 12
    assert specs[0] in PUBLISHED["primary"]
    assert specs[1] not in PUBLISHED["primary"]
    assert BUTTER.flags_of(ours) == BUTTER.flags_of(POLLEN)
    table = pq.read_table(store.state.parent / "experiments/600000.parquet")
    row = table.slice(0, 1).to_pylist()[0]
    assert (row["task"], row["num_free_parameters"], row["widths"]) == ("X", 33, [4, 1])


def register(store, spec):
    Registry(store).register(store, Choice(specs=(str(spec),)))


def test_a_sweep_is_replaced_while_nothing_of_it_has_begun(store, tmp_path):
    spec = tmp_path / "mine.yaml"
    write_spec(spec, 20_000)
    register(store, spec)
    write_spec(spec, 30_000)
    with pytest.raises(SelectError, match=r"has another sweep .*butter-etl sweeps --store .* --replace .*mine.yaml$"):
        register(store, spec)
    assert Registry(store).replace(store, str(spec)).cubes[0]["size"] == (30_000,)
    assert Registry(store).sweep("mine").cubes[0]["size"] == (30_000,)
    register(store, spec)


def test_a_sweep_that_has_begun_is_not_replaced(store, tmp_path):
    spec = tmp_path / "mine.yaml"
    write_spec(spec, 20_000)
    register(store, spec)
    registry = Registry(store)
    (experiment,) = registry.sweep("mine").experiments()
    registry.claim(store, {experiment: "mine"})
    before = (tmp_path / "store/sweeps/mine.yaml").read_bytes()
    write_spec(spec, 30_000)
    with pytest.raises(SelectError, match=r"sweep 'mine' has begun \(1 claimed experiment\) and cannot be replaced"):
        Registry(store).replace(store, str(spec))
    land(store, experiment, registry.experiment_id(experiment), range(2), batch="mine")
    with pytest.raises(SelectError, match=r"has begun \(2 runs\)"):
        Registry(store).replace(store, str(spec))
    assert (tmp_path / "store/sweeps/mine.yaml").read_bytes() == before


def test_only_what_is_registered_is_replaced(store, tmp_path):
    write_spec(tmp_path / "mine.yaml", 20_000)
    with pytest.raises(SelectError, match="has no sweep called 'mine' to be replaced; train with --spec"):
        Registry(store).replace(store, str(tmp_path / "mine.yaml"))
    assert store.location.names("sweeps") == []
