"""Published records as a format of rnn_capacity: every record becomes a run, and goes out again as it came."""

from __future__ import annotations

import json
import math
import pickle
import pickletools
import re
import shlex
import shutil
import tarfile
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from butter_etl.cli.group import main
from butter_etl.errors import LandingError, SelectError, SourceError
from butter_etl.exchange import imports
from butter_etl.exchange.imports import run_import
from butter_etl.exchange.manifest import read_manifest
from butter_etl.partition import ExportOptions, export
from butter_etl.store.files import Location
from butter_etl.store.store import Store
from butter_etl.studies.capacity.experiments import ARCHITECTURES, SearchCell
from butter_etl.studies.capacity.formats import FILES, RECORD_TASK, RECORDS, file
from butter_etl.studies.capacity.hyperparameters import hparams_text
from butter_etl.studies.capacity.records import write_records
from butter_etl.studies.capacity.study import RNN_CAPACITY
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.upkeep.verify import plan_verification, run_verification
from tests.test_capacity_records import RECORD, pickled, trials
from tests.test_docs import ROOT, blocks, check_command, commands_of
from tests.test_pickle_writing import names_of

GENUINE = Path(__file__).parent / "records"
FOLDER = "rnn_hp_dataset"


def bring(source, store, **options):
    return run_import(source, store, study=RNN_CAPACITY, **options)


def out(store, dest, **options):
    how = ExportOptions(form="records", **options)
    return export(store, dest, everything=True, options=how)


def load(path):
    return np.load(path, allow_pickle=True, encoding="latin1")


def rows_of(store):
    opened = Store.open(store)
    parts = [opened.read_runs(one).to_pylist() for one in opened.run_files()]
    return sorted((row for part in parts for row in part), key=lambda row: (row["source_file"], row["source_row"]))


def values(array):
    """Return the records of an array by field, texts as texts and numbers as Python's."""
    found = {name: array[name].tolist() for name in array.dtype.names}
    for name in ("architecture", "task_type"):
        found[name] = [one.decode() if isinstance(one, bytes) else one for one in found[name]]
    found["hparams"] = [
        {key: one.item() if isinstance(one, np.generic) else one for key, one in row.items()}
        for row in found["hparams"]
    ]
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "store"
    assert bring(GENUINE, path).landed == 32
    return path


# --- in ----------------------------------------------------------------------------------------------------------


def test_every_record_becomes_a_run_of_its_file_and_its_row(store):
    rows = rows_of(store)
    assert len({row["run_id"] for row in rows}) == 32
    for path in GENUINE.glob("*.p"):
        theirs = values(load(path))
        ours = [row for row in rows if row["source_file"] == path.name]
        assert [row["source_row"] for row in ours] == list(range(8))
        assert [json.loads(row["hparams"]) for row in ours] == theirs["hparams"]
        assert [row["hyper_iter"] for row in ours] == theirs["hyper_iter"]
        for name in ("train_loss", "valid_loss", "eval_loss"):
            assert [row[name] for row in ours] == [[loss] for loss in theirs[name]]
        assert [row["step"] for row in ours] == [[one["train_steps"]] for one in theirs["hparams"]]
        assert [row["lr_init"] for row in ours] == [one["lr_init"] for one in theirs["hparams"]]
        assert {tuple(row["progress"]) for row in ours} == {(1.0,)}
        assert {(row["task"], row["seed"], row["batch_size"]) for row in ours} == {(RECORD_TASK, None, None)}
        assert [row["infeasible"] for row in ours] == [math.isinf(loss) for loss in theirs["eval_loss"]]


def test_runs_lie_where_their_cells_are(store):
    folders = {str(one.partition) for one in Store.open(store).run_files()}
    assert "task_type=arithmetic/architecture=%2Brnn/n_layers=4/max_params=10000" in folders


@pytest.mark.parametrize("name", ["rnn_hp_dataset.tar.gz", "a.tar", "a.zip"])
def test_archives_are_read_as_folders_are(tmp_path, store, name):
    if name.endswith("zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path in GENUINE.glob("*.p"):
                archive.write(path, path.name)
    else:
        with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
            for path in GENUINE.glob("*.p"):
                archive.add(path, f"dataset/{path.name}")
    report = bring(tmp_path / name, tmp_path / "store")
    assert (report.landed, report.refused) == (32, ())
    assert rows_of(tmp_path / "store") == rows_of(store)
    assert (bring(GENUINE, tmp_path / "store").landed, bring(tmp_path / name, tmp_path / "store").present) == (0, 32)


def test_imported_trials_are_summarised_and_checked(tmp_path, store):
    shutil.copytree(store, tmp_path / "store")
    opened = Store.open(tmp_path / "store")
    run_summaries(plan_summaries(opened), opened)
    assert not [one for one in run_verification(plan_verification(opened.location.root)).findings if not one.is_note]


def read(*records, name="fig4_parens.p"):
    return RECORDS.read(pickled(*records), name).rows.to_pylist()


def test_trials_with_equal_numbers_are_counted_on_and_numbers_may_be_left_out():
    numbers = [7, 3, 3, 900_000, 3, 0]
    rows = read(*(RECORD | {"hyper_iter": one, "eval_loss": float(place)} for place, one in enumerate(numbers)))
    assert [row["hyper_iter"] for row in rows] == numbers
    assert [row["repetition"] for row in rows] == [4, 1, 2, 5, 3, 0]
    other = read(RECORD, RECORD | {"architecture": "gru"}, RECORD, RECORD | {"n_layers": 2})
    assert [row["repetition"] for row in other] == [0, 0, 1, 0]


def test_the_same_record_again_is_another_trial(tmp_path):
    (tmp_path / "fig4_parens.p").write_bytes(pickled(*[RECORD] * 5))
    report = bring(tmp_path / "fig4_parens.p", tmp_path / "store")
    assert (report.landed, report.experiments) == (5, 1)
    assert len(list(Store.open(tmp_path / "store").run_files())) == 1
    assert bring(tmp_path / "fig4_parens.p", tmp_path / "store").present == 5


def test_the_same_cell_of_two_figures_is_two_experiments(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("fig4_parens.p", "fig5_randhp.p"):
        (tmp_path / "in" / name).write_bytes(pickled(RECORD, RECORD))
    assert bring(tmp_path / "in", tmp_path / "store").experiments == 2


def test_two_files_of_one_name_and_other_records_are_refused(tmp_path):
    for place, record in (("a", RECORD), ("b", RECORD | {"n_layers": 2})):
        (tmp_path / "in" / place).mkdir(parents=True)
        (tmp_path / "in" / place / "fig4_parens.p").write_bytes(pickled(record))
    with pytest.raises(Exception, match="stands in the source twice"):
        bring(tmp_path / "in", tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("name", "task", "search", "steps"),
    [
        ("fig1_percap.p", "per_cap", "gp", 5),
        ("fig2_memthru.p", "mem_thru", "gp", 12),
        ("fig2_percap.p", "per_cap", "gp", None),
        ("figure_5.p", "parens_counting", "random", 175),
        ("fig5_randhp.p", "parens_counting", "random", 175),
        ("fig12.p", "text8", None, 50),
        ("mine.p", "another", None, None),
    ],
)
def test_what_a_file_is_called_tells_how_its_trials_were_found(name, task, search, steps):
    (row,) = read(RECORD | {"task_type": task}, name=name)
    assert (row["search"], row["unroll_steps"], row["source_figure"]) == (search, steps, Path(name).stem)


def test_losses_below_zero_are_mutual_information():
    rows = read(*(RECORD | {"task_type": "per_cap", "eval_loss": loss} for loss in (-4990.0, 0.0, math.inf)))
    assert [row["mutual_information_bits"] for row in rows] == [4990.0, 0.0, None]
    assert [row["bits_per_parameter"] for row in rows] == [0.5, 0.0, None]
    rows = read(*(RECORD | {"task_type": "per_cap", "eval_loss": loss} for loss in (0.5, 0.0)))
    assert [row["mutual_information_bits"] for row in rows] == [None, None]
    assert read(RECORD | {"task_type": "rcf", "eval_loss": -1.0})[0]["mutual_information_bits"] is None


def test_hyperparameters_are_spelled_so_that_their_kinds_are_kept():
    values = {"b": 1.0, "a": 1, "e": 1e-05, "d": 1e300, "c": "é\n", "f": -0.0, "t": True, "n": None, "x": 0.1}
    text = hparams_text(values)
    assert text == ('{"a":1,"b":1.0,"c":"\\u00e9\\n","d":1e+300,"e":0.00001,"f":0.0,"n":null,"t":true,"x":0.1}'), text
    assert {key: type(one) for key, one in json.loads(text).items()} == {key: type(one) for key, one in values.items()}


@pytest.mark.parametrize(
    ("hparams", "reason"),
    [
        ({"lr_init": "x"}, "record 0: hparams has 'x' for lr_init, which is no number"),
        ({"train_steps": 1.5}, "record 0: hparams has 1.5 for train_steps, which is no whole number"),
        ({"train_steps": -1}, "record 0: hparams has -1 for train_steps"),
        ({"optimizer": 3}, "record 0: hparams has 3 for optimizer, which is no text"),
        ({"l2_decay": True}, "record 0: hparams has True for l2_decay, which is no number"),
    ],
)
def test_hyperparameters_that_have_columns_are_of_their_kinds(hparams, reason):
    with pytest.raises(SourceError, match=reason):
        read(RECORD | {"hparams": hparams})


def test_hyperparameters_that_are_missing_are_null():
    (row,) = read(RECORD | {"hparams": {}})
    assert (row["hparams"], row["train_steps"], row["step"], row["optimizer"]) == ("{}", None, None, None)


@pytest.mark.parametrize("change", [{"n_layers": 2**20}, {"n_layers": 70_000}], ids=str)
def test_what_no_column_can_have_is_refused(change):
    with pytest.raises(SourceError, match="has a value that no trial can have"):
        read(RECORD | change)


def test_more_trials_than_a_cell_can_have_are_refused():
    columns = {name: [RECORD[name]] * 65_536 for name in RECORD}
    with pytest.raises(SourceError, match="has 65,536 trials of text8 lstm 1 10000; a cell has at most 65,535"):
        RECORDS.read(write_records(trials(**columns)), "fig3_txt8rcf.p")


def test_files_that_cannot_be_read_are_named_and_the_others_brought_in(tmp_path):
    (tmp_path / "in").mkdir()
    good = pickled(RECORD)
    for name, data in (("a.p", good), ("torn.p", good[:-9]), ("os.p", b"cos\nsystem\n(S'true'\ntR."), ("x.p", b"x")):
        (tmp_path / "in" / name).write_bytes(data)
    report = bring(tmp_path / "in", tmp_path / "store")
    assert report.landed == 1
    reasons = [line.partition(": ")[2] for line in report.refused]
    assert reasons[0] == "names os.system, which no array of records needs: nothing of the file was run"
    assert reasons[1].startswith("is torn")
    assert len(reasons) == 3


def test_an_import_that_loses_a_run_fails(tmp_path, monkeypatch):
    (tmp_path / "a.p").write_bytes(pickled(RECORD, RECORD))
    whole = imports.bring_in

    def loses(*arguments):
        report = whole(*arguments)
        return type(report)(report.experiments, report.landed - 1, report.present, report.replaced)

    monkeypatch.setattr(imports, "bring_in", loses)
    with pytest.raises(LandingError, match="of 2 runs that were read, 1 are in the store"):
        bring(tmp_path / "a.p", tmp_path / "store")


def test_a_large_set_is_at_most_a_file_a_cell(tmp_path):
    """As many records as one in thirty of the published ones, with numbers that are left out and there again."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(1)
    cells = [(task, one, layers) for task in FILES for one in ARCHITECTURES for layers in (1, 4)]
    total = 0
    for name in sorted(set(FILES.values())):
        own = [cell for cell in cells if FILES[cell[0]] == name]
        of = rng.integers(0, len(own), 4000)
        total += of.size
        some = trials(
            task_type=[own[one][0] for one in of],
            architecture=[own[one][1] for one in of],
            n_layers=[own[one][2] for one in of],
            hyper_iter=rng.integers(0, 2500, of.size).tolist(),
            eval_loss=rng.random(of.size).tolist(),
        )
        (tmp_path / "in" / name).write_bytes(write_records(some))
    report = bring(tmp_path / "in", tmp_path / "store")
    assert (report.landed, report.experiments) == (total, len(cells)) == (20_000, 72)
    files = list(Store.open(tmp_path / "store").run_files())
    assert (len(files), sum(len(one.repetitions) for one in files)) == (72, 20_000)


# --- as documented -----------------------------------------------------------------------------------------------


def run(arguments):
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code or 0


def figures():
    """Return made-up records of the published figures, by their files."""
    found = {}
    for name, task, budgets, depths in (
        ("fig1_percap.p", "per_cap", (10_000, 20_000), (1, 2)),
        ("fig3_txt8rcf.p", "text8", (10_000, 20_000), (1, 2)),
        ("fig4_parens.p", "parens_counting", (100_000,), (1, 8)),
        ("fig5_randhp.p", "parens_counting", (200_000,), (1, 8)),
    ):
        cells = list(product(("gru", "lstm"), depths, budgets, range(4)))
        losses = [-(trial + 1.0) * budget if task == "per_cap" else 2.0 + trial for _, _, budget, trial in cells]
        made = trials(
            task_type=[task] * len(cells),
            architecture=[cell[0] for cell in cells],
            n_layers=[cell[1] for cell in cells],
            max_params=[cell[2] for cell in cells],
            num_params=[cell[2] - 7 for cell in cells],
            hyper_iter=[cell[3] for cell in cells],
            infeasible=[cell[3] == 2 for cell in cells],
            **dict.fromkeys(("train_loss", "valid_loss", "eval_loss"), losses),
        )
        found[name] = write_records(made)
    return found


def test_what_the_page_says_of_records_and_pictures_is_so(tmp_path, monkeypatch, capsys):
    page = ROOT / "docs/capacity.md"
    lines = [line for line, is_whole in commands_of(page) if is_whole and re.search(r"\bsearches\b", line)]
    assert len(lines) > 8
    with tarfile.open(tmp_path / "rnn_hp_dataset.tar.gz", "w:gz") as archive:
        for name, data in figures().items():
            (tmp_path / "one.p").write_bytes(data)
            archive.add(tmp_path / "one.p", name)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        check_command(line, complete=True)
        assert run(shlex.split(line)[1:]) == 0, line
        assert "Traceback" not in capsys.readouterr().err
    assert load("text8/rnn_hp_dataset/text8.p").size == 32
    (script,) = [block.text for block in blocks(page) if block.language == "python" and "rnn_hp_dataset" in block.text]
    exec(script, {})  # noqa: S102 - ours
    assert "('lstm', 2.0, {'lr_init': 0.25" in capsys.readouterr().out
    assert all(
        (tmp_path / one).stat().st_size > 1000 for one in re.findall(r"\b[\w-]+\.(?:png|pdf|html)\b", " ".join(lines))
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["export", "s", "out", "--all", "--format", "records", "--file", "x"], "--file 'x': wants OLD=NEW"),
        (["export", "s", "out", "--all", "--format", "records", "--file", "x.p=y.p"], "no run goes to 'x.p'"),
        (["plot", "s", "x.png", "--kind", "los"], "unknown kind 'los' (did you mean 'loss'?)"),
        (["plot", "s", "x.png", "--kind", "loss", "--series", "eval_loss"], "loss is always of best_eval_loss"),
        (["plot", "s", "x.png", "--kind", "loss", "--by", "x"], "unknown parameter 'x'"),
        (["plot", "s", "x.png", "--kind", "bits"], "has no summaries"),
    ],
)
def test_bad_usage_is_one_line(tmp_path, store, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").symlink_to(store)
    assert run(options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


# --- out ---------------------------------------------------------------------------------------------------------


def test_records_go_out_as_they_came_in(tmp_path, store):
    report = out(store, tmp_path / "out", tar=True)
    assert report.directories == ((FOLDER, 4, 31),)
    for path in GENUINE.glob("*.p"):
        assert values(load(tmp_path / "out" / FOLDER / path.name)) == values(load(path))
    assert run_verification(plan_verification(tmp_path / "out")).findings == ()
    bring(tmp_path / "out", tmp_path / "again")
    assert rows_of(tmp_path / "again") == rows_of(store)
    out(tmp_path / "again", tmp_path / "twice", tar=True)
    for name in (*(f"{FOLDER}/{path.name}" for path in GENUINE.glob("*.p")), f"{FOLDER}.tar"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_what_goes_out_names_what_genuine_files_name(tmp_path, store):
    out(store, tmp_path / "out")
    genuine = names_of((GENUINE / "object_fields_protocol2.p").read_bytes())
    for path in (tmp_path / "out" / FOLDER).iterdir():
        data = path.read_bytes()
        assert names_of(data) == genuine
        assert max(op.proto for op, _, _ in pickletools.genops(data)) == 2


def own(task_type, *, trial=0, loss=1.0, **more):
    """Return a run of this package, as far as records tell of it."""
    cell = SearchCell(task_type=task_type, architecture="lstm", n_layers=1, max_params=10_000, **more)
    return {
        **cell.parameters(),
        "run_id": f"{task_type} {trial} {more}",
        "task": "elsewhere",
        "repetition": trial,
        "hyper_iter": trial,
        "num_params": 9_980,
        "hparams": '{"lr_init":0.5,"train_steps":100}',
        "infeasible": loss is None,
        "progress": [0.5, 1.0],
        "step": [50, 100],
        **{name: [9.0, math.nan if loss is None else loss] for name in ("train_loss", "valid_loss", "eval_loss")},
    }


def stored(path, *rows):
    pq.write_table(pa.Table.from_pylist(list(rows), RNN_CAPACITY.runs), path.with_suffix(".parquet"))
    bring(path.with_suffix(".parquet"), path)
    return path


@pytest.fixture
def own_store(tmp_path):
    text8 = [own("text8", trial=number, loss=loss) for number, loss in enumerate((2.0, 1.5, None))]
    return stored(tmp_path / "own", *text8, own("rcf", loss=0.1), own("per_cap", loss=-100.0))


def test_own_trials_go_to_the_files_of_the_figures(tmp_path, own_store):
    out(own_store, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / FOLDER).iterdir()) == ["fig1_percap.p", "fig3_txt8rcf.p"]
    array = load(tmp_path / "out" / FOLDER / "fig3_txt8rcf.p")
    assert array["task_type"].tolist() == ["rcf", "text8", "text8", "text8"]
    assert array["eval_loss"].tolist() == [0.1, 2.0, 1.5, math.inf]
    assert array["train_loss"].tolist() == [0.1, 2.0, 1.5, math.inf]
    assert array["hyper_iter"].tolist() == [0, 0, 1, 2]
    assert array["hparams"][0] == {"lr_init": 0.5, "train_steps": 100}


def test_the_published_sample_script_finds_the_best_network(tmp_path, own_store):
    """As the README of the data set has it, but for what NumPy asks for today."""
    out(own_store, tmp_path / "out")
    data = np.load(tmp_path / "out" / FOLDER / "fig3_txt8rcf.p", allow_pickle=True, encoding="latin1")
    is_wanted = np.logical_and(data["architecture"] == "lstm", data["task_type"] == "text8")
    data = data[is_wanted]
    best = data[np.argmin(data["eval_loss"])]
    assert (best["eval_loss"], best["hyper_iter"], best["hparams"]["train_steps"]) == (1.5, 1, 100)


def test_files_have_other_names_where_that_is_wanted(tmp_path, own_store):
    out(own_store, tmp_path / "a", renamed={"fig1_percap.p": "capacity.p"})
    assert {path.name for path in (tmp_path / "a" / FOLDER).iterdir()} == {"capacity.p", "fig3_txt8rcf.p"}
    out(own_store, tmp_path / "b", renamed={"fig1_percap.p": "all.p", "fig3_txt8rcf.p": "all.p"}, folders={FOLDER: "d"})
    assert load(tmp_path / "b/d/all.p").size == 5
    (one,) = [one for one in read_manifest(Location(tmp_path / "b")).files if one.path == "d/all.p"]
    assert one.rows == 5
    with pytest.raises(
        SelectError, match=r"--file x.p=y.p: no run goes to 'x.p'; files: fig1_percap.p, fig3_txt8rcf.p"
    ):
        out(own_store, tmp_path / "c", renamed={"x.p": "y.p"})
    for name in ("", "a/b.p", ".a.p", "a.txt"):
        with pytest.raises(SelectError, match=r"is no name of a record file, such as new\.p"):
            out(own_store, tmp_path / "c", renamed={"fig1_percap.p": name})


def test_cells_that_records_would_not_tell_the_truth_of_are_refused(tmp_path):
    other = stored(tmp_path / "other", own("per_cap", unroll_steps=8))
    with pytest.raises(SelectError, match="a record file would not say how it was measured: unroll_steps is 8, not 5"):
        out(other, tmp_path / "out")
    text = stored(tmp_path / "text", own("text8", text_sha256="0" * 16))
    with pytest.raises(SelectError, match="the text is not that of text8"):
        out(text, tmp_path / "out")
    assert out(text, tmp_path / "out", as_measured=True).directories[0][1] == 1


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"task_type": "arithmetic"}, "fig4_arith.p"),
        ({"task_type": "parens_counting", "max_params": 200_000}, "fig5_randhp.p"),
        ({"task_type": "parens_counting", "max_params": 200_000, "search": "gp"}, "fig4_parens.p"),
        ({"task_type": "parens_counting"}, "fig4_parens.p"),
        ({"task_type": "another"}, "another.p"),
        ({"task_type": "rcf", "source_figure": "mine"}, "mine.p"),
    ],
)
def test_cells_belong_to_the_files_of_figures(parameters, name):
    usual = {"max_params": 10_000, "search": "random", "source_figure": None}
    assert file(usual | parameters) == name


def test_a_run_without_its_size_cannot_be_a_record(tmp_path):
    bare = stored(tmp_path / "bare", own("rcf") | {"num_params": None})
    with pytest.raises(SourceError, match="a record needs num_params, which the run does not have"):
        out(bare, tmp_path / "out")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_card_says_whose_published_records_are(tmp_path):
    bring(GENUINE, tmp_path / "store", profile="published")
    out(tmp_path / "store", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert '"cap-n-train-hps" by Google Inc. (31 experiments): licensed under [CC-BY-4.0]' in card
    assert "| `rnn_hp_dataset/` | training runs, many a record file | 31 | 32 | 4 |" in card
    assert "arxiv.org/abs/1611.09913" in (tmp_path / "out/LICENSE").read_text()
    assert "conference-paper" in (tmp_path / "out/CITATION.cff").read_text()
    described = json.loads((tmp_path / "out/croissant.json").read_text())
    (files,) = [one for one in described["distribution"] if one["@type"] == "cr:FileSet"]
    assert (files["includes"], files["encodingFormat"]) == (f"{FOLDER}/*.p", "application/octet-stream")
    mlcroissant = pytest.importorskip("mlcroissant")
    assert not mlcroissant.Dataset(str(tmp_path / "out/croissant.json")).metadata.ctx.issues.errors


def test_a_pickle_of_protocol_2_is_what_python_itself_reads(tmp_path, store):
    out(store, tmp_path / "out")
    for path in (tmp_path / "out" / FOLDER).iterdir():
        assert pickle.loads(path.read_bytes()).size == 8  # noqa: S301 - ours; ASCII texts need no encoding
