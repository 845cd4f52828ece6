"""Which experiments an export holds, against the published sweeps evaluated by other means."""

import os

import duckdb
import pytest

import butter_etl as be
from butter_etl.errors import StaleSummaryError
from butter_etl.exchange.export_plan import ExportOptions, parameter_values, plan_export, plan_key
from butter_etl.exchange.manifest import read_manifest
from butter_etl.store.files import Location
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.experiments import Regularizer
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweep_files import parse_sweep
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.selection import Choice
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.exports import EXPERIMENTS as SUMMARISED
from tests.exports import export
from tests.exports import make_store as make_summarised
from tests.strategies import land

#: The sweeps as the published document words them, in SQL: nothing of `butter_etl.studies.butter.sweeps` takes part.
CORE = "('529_pollen', 'connect_4', '537_houses', 'mnist', '201_pol', 'sleep', 'wine_quality_white')"
NINE = f"{CORE[:-1]}, 'nursery', 'adult')"
THIRTEEN = f"{NINE[:-1]}, '505_tecator', '294_satellite_image', 'splice', 'banana')"
FOUR_SHAPES = "('rectangle', 'trapezoid', 'exponential', 'wide_first_2x')"
EIGHT_SHAPES = f"{FOUR_SHAPES[:-1]}, 'wide_first_4x', 'wide_first_8x', 'wide_first_16x', 'rectangle_residual')"
DEPTHS = "(2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20)"
WITHOUT_6, TO_10 = DEPTHS.replace(" 6,", ""), "(2, 3, 4, 5, 7, 8, 9, 10)"
PLAIN = '"kernel_regularizer.type" is null'
PENALTIES = "0.32, 0.16, 0.08, 0.04, 0.02, 0.01, 0.005, 0.0025, 0.00125, 0.000625, 0.0003125, 0.00015625, 0.000078125"
PENALTY = f"[{PENALTIES}]::float[]"


def sizes(first, last):
    return f"size in ({', '.join(str(2**k) for k in range(first, last + 1))})"


def where(datasets, shapes, depths, size, *, rate="= 0.0001", batch="= 256", noise="= 0", epochs=3000, penalty=PLAIN):
    return (
        f"dataset in {datasets} and shape in {shapes} and depth in {depths} and {size} and learning_rate {rate} "
        f"and batch_size {batch} and label_noise {noise} and epochs = {epochs} and ({penalty}) and optimizer = 'adam'"
    )


SWEEPS = {
    "primary": where(THIRTEEN, EIGHT_SHAPES, DEPTHS, sizes(5, 25)),
    "300_epoch": where(CORE, FOUR_SHAPES, DEPTHS, sizes(25, 27), epochs=300),
    "30k_epoch": where(CORE, FOUR_SHAPES, DEPTHS, sizes(5, 18), epochs=30000),
    "learning_rate": where(NINE, FOUR_SHAPES, WITHOUT_6, sizes(5, 24), rate="in (0.01, 0.001, 0.0001, 0.00001)"),
    "label_noise": (
        f"({where(CORE, FOUR_SHAPES, WITHOUT_6, sizes(5, 24), noise='in (0, 0.05, 0.1, 0.15, 0.2)')}) or "
        f"({where(CORE, FOUR_SHAPES, WITHOUT_6, sizes(5, 24), rate='= 0.001', noise='in (0, 0.05)')})"
    ),
    "batch_size": where(NINE, "('rectangle')", TO_10, sizes(5, 24), batch="in (32, 64, 128, 256, 512, 1024)"),
    "regularization": where(
        NINE,
        "('rectangle')",
        TO_10,
        sizes(5, 25),
        penalty=" or ".join(
            [PLAIN, *(f'list_contains({PENALTY}, "kernel_regularizer.{one}")' for one in ("l1", "l2"))]
        ),
    ),
}

MNIST = {"dataset": "mnist", "size": 2**16, "depth": 3}
#: Experiments inside each sweep, just outside its edges, in several sweeps, and in none.
EXPERIMENTS = [
    make_experiment(**one)
    for one in (
        MNIST,
        MNIST | {"depth": 6},
        MNIST | {"depth": 12},
        MNIST | {"shape": "wide_first_8x"},
        MNIST | {"shape": "trapezoid"},
        MNIST | {"size": 2**25},
        MNIST | {"size": 2**26},
        MNIST | {"size": 2**26, "epochs": 300},
        MNIST | {"size": 2**25, "epochs": 300, "shape": "trapezoid"},
        MNIST | {"size": 2**24, "epochs": 300},
        MNIST | {"size": 2**25, "epochs": 300, "shape": "wide_first_4x"},
        MNIST | {"epochs": 30000},
        MNIST | {"epochs": 30000, "depth": 6},
        MNIST | {"epochs": 30000, "size": 2**18},
        MNIST | {"epochs": 30000, "size": 2**19},
        MNIST | {"dataset": "nursery", "epochs": 30000},
        MNIST | {"learning_rate": 0.01},
        MNIST | {"learning_rate": 0.00001, "shape": "exponential"},
        MNIST | {"learning_rate": 0.01, "depth": 6},
        MNIST | {"learning_rate": 0.01, "size": 2**25},
        MNIST | {"learning_rate": 0.1},
        MNIST | {"dataset": "adult", "learning_rate": 0.001},
        MNIST | {"dataset": "banana", "learning_rate": 0.001},
        MNIST | {"dataset": "banana"},
        MNIST | {"label_noise": 0.2},
        MNIST | {"label_noise": 0.05, "learning_rate": 0.001},
        MNIST | {"label_noise": 0.1, "learning_rate": 0.001},
        MNIST | {"dataset": "nursery", "label_noise": 0.1},
        MNIST | {"batch_size": 32},
        MNIST | {"batch_size": 1024, "dataset": "nursery"},
        MNIST | {"batch_size": 2048},
        MNIST | {"batch_size": 64, "shape": "trapezoid"},
        MNIST | {"batch_size": 64, "depth": 12},
        MNIST | {"kernel_regularizer": Regularizer("l1", 0.32)},
        MNIST | {"kernel_regularizer": Regularizer("l2", 0.00015625), "size": 2**25},
        MNIST | {"kernel_regularizer": Regularizer("l2", 0.3)},
        MNIST | {"kernel_regularizer": Regularizer("l2", 0.01), "shape": "exponential"},
        MNIST | {"kernel_regularizer": Regularizer("l1", 0.01), "batch_size": 32},
        MNIST | {"optimizer": "RMSprop", "momentum": 0.9},
        {"dataset": "digits", "size": 1024, "depth": 3},
    )
]
CUSTOM = """
name: mine
repetitions: 1
cubes:
  - {dataset: [mnist], size: [65536], depth: [3], batch_size: [2048, 32]}
  - {dataset: [digits], size: [1024], depth: [3]}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("sweeps") / "store")
    registry = Registry(store)
    registry.claim(store, {spec: "mine" for spec in EXPERIMENTS if BUTTER.fixed_ids.id_of(spec) is None})
    for spec in EXPERIMENTS:
        land(store, spec, registry.experiment_id(spec), range(1), epochs=2)
    assert len(parse_sweep(CUSTOM, "mine")) == 3
    store.location.write_new("sweeps/mine.yaml", CUSTOM.encode())
    return store


def ids(store, condition, folder="all_runs"):
    """The experiments of a directory that meet a condition, as DuckDB sees them; keys are compared as float64."""
    root = store.location.path(folder) if isinstance(store, Store) else store / folder
    keys = "hive_types = {'learning_rate': double, 'label_noise': double, 'kernel_regularizer.type': varchar}"
    files = f"read_parquet('{root}/**/*.parquet', hive_partitioning = true, {keys})"
    query = f"select distinct experiment_id from {files} where {condition}"
    return {row[0] for row in duckdb.sql(query).fetchall()}


def test_every_sweep_has_experiments_inside_and_outside(store):
    everything = ids(store, "true")
    assert len(everything) == len(EXPERIMENTS)
    for condition in SWEEPS.values():
        assert 2 <= len(ids(store, condition)) < len(everything)
    union = set().union(*(ids(store, condition) for condition in SWEEPS.values()))
    assert union < everything
    assert sum(len(ids(store, condition)) for condition in SWEEPS.values()) > len(union)


def test_exported_sweeps_are_the_published_ones(store, tmp_path):
    export(store, tmp_path / "out", *SWEEPS, summary=False)
    for name, condition in SWEEPS.items():
        assert ids(tmp_path / "out", "true", f"{name}_sweep_runs") == ids(store, condition), name
        flagged = ids(store, f'"{name}_sweep"')
        assert flagged == ids(store, condition), name


def test_overlaps_are_in_both_and_conditions_cut_each(store, tmp_path):
    export(store, tmp_path / "out", "primary", "regularization", summary=False, where=["size<=65536", "depth=3"])
    for name in ("primary", "regularization"):
        expected = ids(store, f"({SWEEPS[name]}) and size <= 65536 and depth = 3")
        assert ids(tmp_path / "out", "true", f"{name}_sweep_runs") == expected
    both = ids(store, f"({SWEEPS['primary']}) and ({SWEEPS['regularization']}) and size <= 65536 and depth = 3")
    assert len(both) >= 1
    (facts, _) = read_manifest(Location(tmp_path / "out")).directories
    assert facts.where == ("size <= 65536", "depth = 3")


def test_custom_sweeps_and_conditions(store, tmp_path):
    export(store, tmp_path / "out", "mine", summary=False)
    mine = "batch_size in (32, 2048) and shape = 'rectangle' and depth = 3 and dataset = 'mnist' and size = 65536"
    expected = ids(store, f"({mine} and {PLAIN}) or dataset = 'digits'")
    assert len(expected) == 3
    assert ids(tmp_path / "out", "true", "mine_sweep_runs") == expected
    export(store, tmp_path / "out", summary=False, where=["label_noise>=0.05", "learning_rate=0.0001"])
    assert ids(tmp_path / "out", "true") == ids(store, "label_noise > 0.04 and learning_rate = 0.0001")


def test_everything_is_every_sweep_that_has_runs_and_the_whole(store, tmp_path):
    report = export(store, tmp_path / "out", everything=True, summary=False)
    names = [name for name, _, _ in report.directories]
    assert names == [*(f"{name}_sweep_runs" for name in (*SWEEPS, "optimizer", "mine")), "all_runs"]
    assert ids(tmp_path / "out", "true") == ids(store, "true")


def test_what_experiments_have_in_common(store):
    values = parameter_values(BUTTER.swept, EXPERIMENTS)
    assert values["momentum"] == [None, 0.9]
    assert values["kernel_regularizer.type"] == [None, "l1", "l2"]
    assert values["kernel_regularizer.l1"] == [None, 0.01, 0.32]
    assert values["epochs"] == [300, 3000, 30000]
    assert values["dataset"] == sorted(values["dataset"])


def test_a_plan_has_one_key_until_its_sources_change(store, tmp_path):
    def key(*sweeps, **options):
        selection = Registry(store).select(Choice(sweeps=sweeps))
        return plan_key(plan_export(store, selection, ExportOptions(summary=False, **options)), store.location)

    keys = [key("primary"), key("batch_size"), key("primary", "batch_size"), key("primary", compact=True)]
    assert len(set(keys)) == 4
    assert key("primary") == keys[0]
    (file,) = (one for one in store.run_files() if one.experiment_id == BUTTER.fixed_ids.id_of(EXPERIMENTS[0]))
    path = store.location.path(f"all_runs/{file.path}")
    os.utime(path, ns=(1, 1))
    assert key("primary") != keys[0]
    assert key("300_epoch") == key("300_epoch")


def test_intervals_come_with_summaries_by_their_levels(tmp_path):
    store = make_summarised(tmp_path / "store")
    export(store, tmp_path / "before", everything=True)
    assert not [one.name for one in read_manifest(Location(tmp_path / "before")).directories if "precision" in one.name]
    for level in (0.95, 0.8):
        run_summaries(plan_summaries(store, level=level), store)
    export(store, tmp_path / "out", everything=True, tar=True)
    manifest = read_manifest(Location(tmp_path / "out"))
    frames = {one.name: (one.frame, one.rows, one.experiments) for one in manifest.directories}
    assert frames["complete_precision"] == ("precision", 14, 7)
    assert frames["primary_sweep_precision"] == ("precision", 4, 2)
    assert run_verification(plan_verification(tmp_path / "out")).faults == []
    read = be.read_export(tmp_path / "out" / "primary_sweep_precision", where=["confidence_level=0.8"])
    assert len(read.compute(scheduler="synchronous")) == 2
    card, croissant = ((tmp_path / "out" / name).read_text() for name in ("README.md", "croissant.json"))
    assert "### Precision Schema" in card
    assert "`test_loss_end_looks_low`" in card
    assert '"complete_precision/confidence_level"' in croissant


def test_intervals_out_of_date_are_refused_and_those_that_were_not_asked_for_are_not(tmp_path):
    store = make_summarised(tmp_path / "store")
    selection = Registry(store).select(Choice(where=("label_noise=0.05",)))
    run_summaries(plan_summaries(store, selection, level=0.95), store)
    export(store, tmp_path / "some", everything=True)
    rows = {one.name: one.rows for one in read_manifest(Location(tmp_path / "some")).directories}
    assert (rows["complete_precision"], rows["complete_summary"]) == (1, 7)
    land(store, SUMMARISED[2], BUTTER.fixed_ids.id_of(SUMMARISED[2]), range(3, 4), epochs=4)
    run_summaries(plan_summaries(store), store)
    with pytest.raises(StaleSummaryError, match=r"of 1 experiment are .*butter-etl summarize`"):
        export(store, tmp_path / "more", everything=True)
