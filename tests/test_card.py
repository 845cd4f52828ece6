"""The data card of an export: its recipes run as printed, with every reader, on every directory."""

import re
import subprocess
import sys

import dask
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

import butter_etl as be
from butter_etl.exchange import croissant
from butter_etl.exchange.card import data_card, elements_text
from butter_etl.exchange.manifest import read_manifest
from butter_etl.exchange.recipes import recipes, spelled_type
from butter_etl.store.files import Location
from butter_etl.store.fingerprints import fingerprints_metadata, read_fingerprints
from butter_etl.store.parquet import parquet_bytes, write_common_metadata
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.frames import EXECUTIVE, SUMMARY
from butter_etl.studies.study import Points
from tests.exports import export, make_store
from tests.other_study import COARSE, EXPERIMENTS, FITS, FULL, KEY_TYPES, NULLS, make_store_of_fits

READERS = ["pandas", "Dask", "Polars", "DuckDB", "pyarrow"]
HEADINGS = [
    "Description",
    "Directory structure",
    "Data Format",
    "Code Examples",
    "References",
    "Disclaimer and Attribution",
]
#: In the batch size sweep the penalty is null throughout, in the last export it never is.
NULL_THROUGHOUT, NEVER_NULL = "batch_size_sweep_summary", "regularization_sweep_runs"


LISTS = ("widths", "test_loss_q1", "test_loss_median", "test_loss_q3")


def add_executive_summary(store):
    """The executive frame beside the summary frame, where summarising has not made it."""
    for name, _ in list(store.location.walk(SUMMARY)):
        target = f"{EXECUTIVE}/{name}"
        if store.location.kind(target) == pa.fs.FileType.File or not name.endswith(".parquet"):
            continue
        table = store.location.read_table(f"{SUMMARY}/{name}")
        kept = [field.name for field in schema_of(EXECUTIVE) if field.name in table.column_names]
        made_from = read_fingerprints(store.location, f"{SUMMARY}/{name}")
        store.location.replace(target, parquet_bytes(table.select(kept), metadata=fingerprints_metadata(made_from)))
    write_common_metadata(store.location, EXECUTIVE, schema_of(EXECUTIVE))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two exports: one of everything, and one where the penalty is `l1` throughout."""
    home = tmp_path_factory.mktemp("cards")
    store = make_store(home / "store")
    add_executive_summary(store)
    export(store, home / "all", everything=True, tar=True)
    export(store, home / "l1", "regularization", where=["kernel_regularizer.type=l1"])
    return home


def printed(card):
    """The recipes of a card: directory -> reader -> code."""
    found = {}
    examples = card.partition("\n## Code Examples\n")[2].partition("\n## References\n")[0]
    for section in examples.split("\n### ")[1:]:
        name = re.match(r"`(.*)`", section)[1]
        blocks = re.findall(r"^(\w+):\n\n```\w+\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
        found[name] = dict(blocks)
    return found


def directories(folder):
    return read_manifest(Location(folder)).directories


def test_headings_are_the_published_ones(home):
    card = (home / "all/README.md").read_text()
    assert re.findall(r"^## (.*)$", card, flags=re.MULTILINE) == HEADINGS


def test_every_directory_has_a_recipe_for_every_reader(home):
    for folder in (home / "all", home / "l1"):
        found = printed((folder / "README.md").read_text())
        assert list(found) == [one.name for one in directories(folder)]
        assert all(list(by_reader) == [*READERS, "R"] for by_reader in found.values())
    assert {NULL_THROUGHOUT, "all_runs", "complete_summary"} <= {one.name for one in directories(home / "all")}


def plain(kind):
    """A type without the name of a list's elements, and with one kind of string."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"[{plain(kind.value_type)}]"
    return str(kind).replace("large_", "").replace("string_view", "string")


def as_table(frame):
    """What a recipe read, as an Arrow table, in whatever types the reader gave it."""
    if isinstance(frame, pl.DataFrame):
        return frame.to_arrow()
    if isinstance(frame, duckdb.DuckDBPyRelation):
        table = frame.to_arrow_table()
        return pa.table({name: table[name] for name in table.column_names})
    if isinstance(frame, pa.Table):
        return frame
    frame = frame if isinstance(frame, pd.DataFrame) else frame.compute(scheduler="synchronous")
    assert all(isinstance(kind, pd.ArrowDtype) for kind in frame.dtypes)
    return pa.table({name: pa.array(frame[name].array) for name in frame.columns})


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("reader", READERS)
def test_recipes_run_as_printed_with_the_right_types_and_rows(home, monkeypatch, reader):
    checked = 0
    for folder in (home / "all", home / "l1"):
        monkeypatch.chdir(folder)
        for name, by_reader in printed((folder / "README.md").read_text()).items():
            scope = {}
            with dask.config.set(scheduler="synchronous"):  # not on a cluster of other tests, in other folders
                exec(by_reader[reader], scope)  # noqa: S102 (what we printed)
                table = as_table(scope["frame"])
            schema = schema_of(name)
            assert {field.name: plain(field.type) for field in table.schema} == {
                field.name: plain(field.type) for field in schema
            }, name
            expected = as_table(be.read_export(name))
            assert rows(table, schema) == rows(expected, schema), name
            (facts,) = (one for one in directories(folder) if one.name == name)
            assert table.num_rows == facts.rows
            checked += 1
    assert checked >= 16


def schema_of(name):
    """The declared schema; of the executive summary, that of the summary without most lists."""
    if name.endswith("runs"):
        return BUTTER.runs
    if name != EXECUTIVE:
        return BUTTER.summary
    return pa.schema([field for field in BUTTER.summary if field.name in LISTS or not pa.types.is_list(field.type)])


def rows(table, schema):
    """The rows in an order of their own, keys and lists included."""
    columns = [*BUTTER.keys, "experiment_id", "size", "widths"]
    columns += ["run_id", "val_loss", "repetition"] if "run_id" in schema.names else ["test_loss_median", "num_runs"]
    return sorted(map(repr, table.select(columns).to_pylist()))


def test_a_key_that_is_null_throughout_is_null_and_has_its_type(home):
    export_keys = {one.name: one.values["kernel_regularizer.type"] for one in directories(home / "all")}
    assert export_keys[NULL_THROUGHOUT] == [None]
    assert directories(home / "l1")[0].values["kernel_regularizer.type"] == ["l1"]
    frame = be.read_export(home / "all" / NULL_THROUGHOUT).compute(scheduler="synchronous")
    assert frame.dtypes["kernel_regularizer.type"] == pd.ArrowDtype(pa.string())
    assert frame["kernel_regularizer.type"].isna().all()


def test_left_to_guess_readers_differ(home):
    """The traps that the recipes avoid; should readers learn better, the card need not warn any more."""
    pattern = str(home / "all" / NULL_THROUGHOUT / "**/*.parquet")
    guessed = duckdb.sql(f"from read_parquet('{pattern}', hive_partitioning = true)")
    kinds = dict(zip(guessed.columns, map(str, guessed.types), strict=True))
    assert (kinds["learning_rate"], kinds["depth"]) == ("VARCHAR", "BIGINT")
    assert pl.scan_parquet(pattern, hive_partitioning=True).collect_schema()["learning_rate"] == pl.Float64
    with pytest.raises(
        pa.ArrowInvalid, match=r"No non-null segments were available for field 'kernel_regularizer.type'"
    ):
        ds.dataset(home / "all" / NULL_THROUGHOUT, partitioning="hive", format="parquet")
    with pytest.raises(pa.ArrowInvalid, match="No non-null segments"):
        pd.read_parquet(home / "all" / NULL_THROUGHOUT)
    assert str(pd.read_parquet(home / "l1" / NEVER_NULL).dtypes["depth"]) == "category"


def test_the_executive_summary_comes_with_the_whole_and_with_conditions_only(home, tmp_path):
    names = {one.name: one for one in directories(home / "all")}
    assert (names[EXECUTIVE].rows, names[EXECUTIVE].frame) == (7, "executive")
    assert (home / "all" / f"{EXECUTIVE}.tar").is_file()
    frame = be.read_export(home / "all" / EXECUTIVE).compute(scheduler="synchronous")
    assert list(frame.columns) == schema_of(EXECUTIVE).names
    store = Store.open(home / "store")
    export(store, tmp_path / "some", where=["size=4096"])
    some = {one.name: one.rows for one in directories(tmp_path / "some")}
    assert some[EXECUTIVE] == some["complete_summary"] == 6
    export(store, tmp_path / "sweep", "primary")
    assert EXECUTIVE not in {one.name for one in directories(tmp_path / "sweep")}


def test_facts_of_the_card_are_those_of_the_rows(home):
    card = (home / "all/README.md").read_text()
    query = f"select count(*), count(distinct experiment_id) from '{home}/all/all_runs/**/*.parquet'"
    ((runs, experiments),) = duckdb.sql(query).fetchall()
    assert f"The largest directory holds {experiments} experiments and {runs} runs." in " ".join(card.split())
    assert "| `size` | `4096`, `8192` |" in card
    assert "| `momentum` | null, `0.9` |" in card
    assert re.search(r"\| `complete_summary/` \| summaries of experiments \| 7 \| 7 \| 5 \|", card)
    assert "| `complete_summary.tar` | an archive" in card
    (example,) = re.findall(r"```text\n(.*)\n```", card)
    assert (home / "all" / example).is_file()
    assert "where `kernel_regularizer.type = l1`" in (home / "l1/README.md").read_text()


def test_schema_tables_have_every_column(home):
    card = (home / "all/README.md").read_text()
    tables = [
        re.findall(r"^\| `(.*?)` \| (.*?) \|", section, flags=re.MULTILINE) for section in card.split("\n### ")[1:3]
    ]
    for table, schema in zip(tables, (BUTTER.summary, BUTTER.runs), strict=True):
        assert [name for name, _ in table] == schema.names
    assert dict(tables[1])["val_loss"] == "[float32]"
    assert dict(tables[0])["num"] == "[uint8]"


def test_columns_are_described_one_by_one():
    described = {name: BUTTER.columns[name].note for schema in (BUTTER.runs, BUTTER.summary) for name in schema.names}
    assert len(set(described.values())) == len(described)
    assert described["test_accuracy_max_epoch_q1"] == (
        "first quartile over the runs of the epoch (from 1) of the largest accuracy, test set"
    )
    assert described["train_loss_stddev"].startswith("sample standard deviation over the runs of the loss, penalty")
    for name in ("nothing", "test_nothing_avg", "dev_loss_avg"):
        with pytest.raises(KeyError):
            BUTTER.columns[name]


def test_an_empty_data_set_has_a_card_without_recipes(tmp_path, home):
    export(Store.open(home / "store"), tmp_path / "none", "30k_epoch")
    card = (tmp_path / "none/README.md").read_text()
    assert printed(card) == {}
    assert "| `30k_epoch_sweep_runs/` | training runs of the 30k_epoch sweep | 0 | 0 | 0 |" in card
    assert data_card(BUTTER, [], []).count("\n## ") == len(HEADINGS)


@pytest.mark.long
def test_recipes_need_nothing_but_their_reader(home):
    """A reader of the data has no need of this package."""
    code = "\n".join(recipes(BUTTER.key_schema, "complete_summary")[reader][1] for reader in READERS)
    assert "butter_etl" not in code
    script = f"{code}\nimport sys; assert 'butter_etl' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=home / "all")


# --- another study -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fits(tmp_path_factory):
    home = tmp_path_factory.mktemp("fits")
    export(make_store_of_fits(home / "store"), home / "out", everything=True)
    return home / "out"


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("reader", READERS)
def test_recipes_read_keys_of_every_type(fits, monkeypatch, reader):
    monkeypatch.chdir(fits)
    scope = {}
    with dask.config.set(scheduler="synchronous"):
        exec(printed((fits / "README.md").read_text())["all_runs"][reader], scope)  # noqa: S102 (what we printed)
        table = as_table(scope["frame"]).sort_by([("experiment_id", "ascending"), ("repetition", "ascending")])
    assert {name: plain(table.schema.field(name).type) for name in FITS.keys} == {
        name: str(kind) for name, (kind, _) in KEY_TYPES.items()
    }
    first = dict(zip(EXPERIMENTS, table.to_pylist()[::3], strict=True))
    assert [first[NULLS][name] for name in FITS.keys] == ["direct", *[None] * 11]
    assert {name: FITS.canonical(name, first[FULL][name]) for name in FITS.keys} == {
        name: value for name, (_, value) in KEY_TYPES.items()
    }


def test_a_card_says_what_its_study_declares(fits):
    card = (fits / "README.md").read_text()
    text = " ".join(card.split())
    assert re.findall(r"^## (.*)$", card, flags=re.MULTILINE) == [one for one in HEADINGS if one != "References"]
    assert card.startswith("# Fits\n\n## Description\n\nCurves that were fitted.\n")
    assert "| `knots` | `(1, 2)`, `(3, 4, 5)` |" in card
    assert "partitioned by twelve keys" in text
    assert "have one element for each step; the first element is the first step." in text
    assert "| `decay` | float64 | parameter decay; a partition key |" in card
    assert "| `rejected` | [int64] | steps that were tried in vain, a value a step |" in card
    assert "The executive summary has only some of these columns: `experiment_id`, `solver`, " in text
    assert "The keys `rate` are float32" in text
    assert f"training runs of the {COARSE.name} sweep" in card
    assert text.endswith(
        '"Fits" was made with the software butter_etl, whose authors have neither made nor checked the data.'
    )
    for word in ("epoch", "PMLB", "val_loss"):
        assert word not in card.partition("### Experiment Summary Schema")[0]


@pytest.mark.parametrize(
    ("points", "text"),
    [
        (Points(), "one element for each epoch; the first element is the first epoch."),
        (Points("step", first=0), "one element for each step: the first is of step 0, and each of the next by 1 more."),
        (
            Points("horizon", first=0.5, step=0.25),
            "one element for each horizon: the first is of horizon 0.5, and each of the next by 0.25 more.",
        ),
        (Points("step", column="steps"), "one element for each step; the column `steps` says which these are."),
    ],
)
def test_elements_of_lists_are_measuring_points(points, text):
    assert elements_text(points) == f"Histories, and the statistics of them, have {text}"


@pytest.mark.parametrize(
    ("kind", "spelled", "described"),
    [
        (pa.float32(), "float32", "cr:Float32"),
        (pa.float64(), "float64", "cr:Float64"),
        (pa.uint16(), "uint16", "cr:UInt16"),
        (pa.int64(), "int64", "cr:Int64"),
    ],
)
def test_types_are_spelled_with_their_width(kind, spelled, described):
    assert (spelled_type(kind), spelled_type(pa.list_(kind))) == (spelled, f"[{spelled}]")
    assert croissant._data_type(kind) == described
