"""The benchmarks: that they run, what they print, and how they exit. Tiny, and with the torch engine only."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from threadpoolctl import threadpool_limits

from benchmarks import (
    campaign,
    capacity,
    commands,
    fidelity,
    histories,
    lifespan_fidelity,
    lifespans,
    loading,
    opened_files,
    parquet_settings,
    peers,
    published_tables,
    records,
    regression,
    repartition,
    report,
    scale,
    scheduling,
    summaries,
    summary_peers,
    training,
)
from benchmarks.synthetic import make_store
from butter_etl.campaign.cutting import MOST_TASKS
from butter_etl.engines.contract import ENGINES
from butter_etl.studies.butter.datasets import DATASETS
from butter_etl.studies.lifespans.sweeps import READER
from butter_etl.summarize import plan_summaries, run_summaries
from tests.convolutions import networks

TINY = training.Settings(rounds=2, seconds=0.01, runs=2)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other make tiny runs slow on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture
def pinned(monkeypatch):
    """Let `training.main` measure in this process, without taking cores from it."""
    monkeypatch.setenv("BUTTER_ETL_BENCHMARK_PINNED", "1")
    monkeypatch.setattr(training.os, "sched_setaffinity", lambda *_: None, raising=False)


def not_installed(problem):
    raise ImportError("No module named 'jax'")


# --- training ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_engines_and_peers_are_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(peers.PEERS, "jax", not_installed)
    names = ["absent", "torch", "pytorch", "jax"]
    ((report, new),) = training.run(["wine"], [32], names, TINY, tmp_path)
    assert report.results == new
    assert report.data == {"wine": "synthetic, of the shape of wine_quality_white"}
    assert report.left_out == {"absent": "there is no engine 'absent'", "jax": "No module named 'jax'"}
    assert report.sgemm_gflops > 0
    ours, loop = new
    assert (ours.contestant, ours.runs, loop.contestant, loop.runs) == ("torch", 2, "pytorch", 1)
    assert (ours.parameters, ours.train_rows, ours.test_rows) == (30, 3918, 980)
    assert ours.ratio == 1
    assert loop.ratio == loop.milliseconds / ours.milliseconds
    assert len(ours.all_milliseconds) == TINY.rounds
    assert ours.milliseconds == np.median(ours.all_milliseconds)
    work = (6 * 3918 + 2 * 980) * 30
    rate = work / (ours.milliseconds / 1e3) / ours.share_of_sgemm
    assert rate == pytest.approx(report.sgemm_gflops * 1e9)


def test_a_size_without_a_network_is_left_out(tmp_path):
    assert list(training.run(["mnist"], [32], ["torch"], TINY, tmp_path)) == []


def test_the_table_fits_100_columns(tmp_path, capsys, pinned):
    options = ["--shapes", "nursery,wine", "--sizes", "128", "--engines", "torch", "--peers", "", "--rounds", "1"]
    options.append("--cpu-time")
    assert training.main([*options, "--seconds", "0", "--runs", "1", "--data-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == training.HEADER
    assert lines[1].split()[:4] == ["nursery", "128", "torch", "1"]
    assert "nursery: 10,366 + 2,592 rows, synthetic, of the shape of nursery" in lines
    assert "CPU time" in lines[-1]
    assert max(map(len, lines)) <= 100


def test_json_holds_everything(tmp_path, capsys, pinned):
    options = ["--shapes", "wine,mnist", "--sizes", "32", "--engines", "torch", "--peers", "", "--rounds", "1"]
    options += ["--seconds", "0", "--runs", "1", "--data-dir", str(tmp_path), "--json"]
    assert training.main(options) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.keys() >= {"cpu", "data", "left_out", "sgemm_gflops", "core_share", "results"}
    assert report["left_out"] == {"mnist of size 32": "no network is that small"}
    (result,) = report["results"]
    assert result["contestant"] == "torch"
    assert result["milliseconds"] > 0


def test_it_measures_in_a_process_of_its_own(monkeypatch, tmp_path):
    calls = []

    def record(command, **options):
        calls.append((command, options["env"]))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.delenv("BUTTER_ETL_BENCHMARK_PINNED", raising=False)
    monkeypatch.setattr(training.subprocess, "run", record)
    assert training.main(["--sizes", "32", "--data-dir", str(tmp_path)]) == 3
    ((command, environment),) = calls
    assert command[1:] == [
        "-m",
        "benchmarks.training",
        *("--sizes", "32", "--data-dir", str(tmp_path)),
        *("--data-dir", str(tmp_path)),
    ]
    assert environment["OMP_NUM_THREADS"] == environment["BUTTER_ETL_BENCHMARK_PINNED"] == "1"


@pytest.mark.parametrize("options", [["--shapes", "beer"], ["--peers", "theano"], ["--rounds", "0"]])
def test_bad_usage_exits_with_2(options, capsys):
    with pytest.raises(SystemExit) as stop:
        training.main(options)
    assert stop.value.code == 2


@pytest.mark.parametrize("shape", ["wine", "nursery", "mnist"])
def test_synthetic_rows_have_the_shape(shape, tmp_path):
    dataset, _ = training.load_shape(shape, tmp_path)
    info = DATASETS[training.SHAPES[shape]]
    assert dataset.x.shape == (info.rows, info.inputs)
    assert dataset.y.shape == (info.rows, info.outputs)
    assert dataset.x.flags.c_contiguous
    assert np.all(dataset.y.sum(axis=1) == 1)
    if shape == "nursery":
        assert set(np.unique(dataset.x[:, :19])) == {0, 1}


def test_large_networks_get_a_smaller_stack(tmp_path):
    dataset, _ = training.load_shape("wine", tmp_path)
    settings = training.Settings(rounds=1, seconds=0, runs=5)
    for size, runs in ((1024, 5), (2**24, 1)):
        topology = training.find_topology("rectangle", size, 4, 11, 7)
        topology = topology._replace(widths=(1, 1, 1, 7))  # quick to make
        assert training.make_problem(dataset, size, topology, settings).runs == runs


@pytest.mark.parametrize("name", ["pytorch", "jax", "keras"])
@pytest.mark.long
def test_peers_learn_what_the_engines_learn(name, tmp_path):
    dataset, _ = training.load_shape("wine", tmp_path)
    topology = training.find_topology("rectangle", 256, 4, 11, 7)
    problem = training.make_problem(dataset, 256, topology, TINY)
    try:
        peer = peers.make_contestant(name, problem)
    except ImportError:
        pytest.skip(f"{name} is not installed")
    assert peer.train(6) > 0
    if name == "keras":
        return
    optimization = replace(problem.optimization, epochs=6)
    engine = peers.load_engine("torch")
    ours = engine(problem.network, optimization, problem.data, problem.seeds, problem.start).histories
    theirs = [[np.mean(value) for value in epoch] for epoch in peer.history]
    for key, history in zip(("loss", "accuracy", "val_loss"), zip(*theirs, strict=True), strict=True):
        tolerance = {"atol": 0.05} if key == "accuracy" else {"rtol": 0.02}
        np.testing.assert_allclose(history, ours[key][: peer.runs].mean(axis=0), **tolerance)


# --- fidelity ----------------------------------------------------------------------------------------------------


def final(loss):
    values = np.asarray(loss, dtype=np.float64)
    return {"loss": values, "val_loss": values}


def test_an_engine_is_like_itself(monkeypatch, capsys):
    monkeypatch.setitem(ENGINES, "fused", ENGINES["torch"])
    options = ["--data", "diabetes,breast_cancer", "--runs", "3", "--epochs", "2", "--size", "256"]
    assert fidelity.main([*options, "--trainers", "fused,torch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == fidelity.HEADER
    assert [line.split()[:2] for line in lines[2:]] == [
        [data, loss] for data in ("diabetes", "breast_cancer") for loss in ("loss", "val_loss")
    ]
    assert all(line.endswith("ok") for line in lines[2:])
    assert max(map(len, lines)) <= 100


def test_nothing_to_compare_is_a_failure(monkeypatch, capsys):
    monkeypatch.setattr(fidelity, "load_keras", lambda: not_installed(None))
    options = ["--data", "diabetes", "--runs", "2", "--epochs", "1", "--size", "256", "--trainers", "torch,keras"]
    assert fidelity.main([*options, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"comparisons": [], "left_out": {"keras": "No module named 'jax'"}}


@pytest.mark.parametrize(
    ("theirs", "alike"),
    [
        ([1.0, 1.1, 0.9, 1.0], True),
        ([1.001, 1.0999, 0.9001, 0.999], True),  # no difference, narrow
        ([1.5, 1.11, 0.6, 1.2], False),  # too wide
        ([1.01, 1.11, 0.91, 1.01], False),  # a clear difference
        ([1.000001, 1.100001, 0.900001, 1.000001], True),  # rounding
        ([math.nan, 1.1, 0.9, 1.0], False),
    ],
)
def test_the_verdict(theirs, alike):
    rows = fidelity.compare("made up", {"torch": final([1.0, 1.1, 0.9, 1.0]), "keras": final(theirs)})
    assert [row.is_alike for row in rows] == [alike, alike]
    assert all(fidelity.table_line(row).endswith("ok" if alike else "DIFFER") for row in rows)


def test_the_interval_is_the_paired_t_interval():
    random = np.random.default_rng(5)
    first, second = random.normal(1, 0.1, (2, 20))
    row = fidelity.compare("made up", {"a": final(first), "b": final(second)})[0]
    expected = fidelity.stats.ttest_rel(first, second).confidence_interval(0.999)
    assert (row.low, row.high) == pytest.approx(tuple(expected))


def test_an_unknown_data_set_is_bad_usage(capsys):
    assert fidelity.main(["--data", "digit", "--trainers", "torch"]) == 2
    assert "did you mean" in capsys.readouterr().err


# --- campaign ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_campaign_is_measured(capsys):
    options = ["--epochs", "2", "--repetitions", "2", "--data", "diabetes", "--sizes", "32", "--workers", "1"]
    assert campaign.main([*options, "--engine", "torch", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"] > 0
    assert facts["runs"] % 2 == 0
    assert 0 < facts["kernel_seconds"] < facts["cpu_seconds"]
    assert facts["kernel_share"] == facts["kernel_seconds"] / facts["cpu_seconds"]
    assert facts["runs_per_core_hour"] == 3600 * facts["runs"] / facts["cpu_seconds"]
    assert facts["plan_ratio"] == facts["planned_seconds"] / facts["kernel_seconds"] > 0
    known = campaign.Campaign.__dataclass_fields__
    measured = campaign.Campaign(**{name: value for name, value in facts.items() if name in known})
    assert max(map(len, campaign.lines(measured))) <= 100


def test_a_failing_command_is_reported(capsys):
    assert campaign.main(["--epochs", "1", "--engine", "absent", "--workers", "1"]) == 1
    assert "absent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kernel_seconds", "filled"),
    [(20.0, (120, 10)), (0.2, (3000, 40)), (0.001, (3000, 255)), (1e6, (1, 1))],
)
def test_minutes_become_epochs_and_repetitions(kernel_seconds, filled):
    pilot = campaign.Campaign("torch", 2, 20, 10, 100, 10.0, 30.0, kernel_seconds, 1.0)
    assert campaign.fill(1.0, pilot) == filled


# --- repartitioning ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_repartitioning_is_measured_against_both_peers(tmp_path, capsys):
    arguments = ["--experiments", "5", "--runs", "2", "--epochs", "3", "--rounds", "1"]
    repartition.main([*arguments, "--json", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["runs"], report["raw_bytes"]) == (10, 10 * 20 * 3 * 4)
    files = {one["contestant"]: one["files"] for one in report["results"]}
    assert list(files) == list(repartition.CONTESTANTS)
    assert files["butter_etl"] == files["duckdb, a file an experiment"] == files["polars, a file an experiment"] == 5
    assert files["duckdb"] == files["polars"] == 4
    assert files["floor"] == 5
    assert all(one["wall_seconds"] > 0 and one["ratio"] > 0 for one in report["results"])
    out = capsys.readouterr().out
    assert all(name in out for name in files)


def test_a_contestant_that_fails_is_named(tmp_path):
    with pytest.raises(repartition.RepartitionError, match=r"(?s)duckdb: .*No files found"):
        repartition.measure_apart("duckdb", tmp_path / "nothing", tmp_path / "dest")


# --- summaries ---------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_peers_of_summaries_agree_with_ours(tmp_path):
    store = make_store(tmp_path / "store", 2, 3, 5, 40)
    run_summaries(plan_summaries(store), store)
    report = summaries.measure(store, list(summaries.CONTESTANTS), 1, 1, tmp_path)
    assert report.left_out == {}
    assert [one.contestant for one in report.results] == list(summaries.CONTESTANTS)
    assert (report.experiments, report.run_epochs, report.results[0].ratio) == (6, 1200, 1)
    assert report.published_core_hours > 0
    assert "| polars |" in summaries.table(report)


def test_a_peer_that_computes_something_else_is_found_out(tmp_path):
    store = make_store(tmp_path / "store", 1, 2, 5, 40)
    run_summaries(plan_summaries(store), store)
    (part,) = summary_peers.partitions(store, tmp_path)
    peer = summary_peers.Numpy(store, [part], 1)
    peer.block = lambda values: {**summary_peers.Numpy.block(values), "q1": values.min(axis=0)}
    peer.run()
    with pytest.raises(summaries.Disagreement, match="numpy: test_loss_q1 of dataset=wine"):
        summaries.check(store, part, "numpy")


@pytest.mark.long
def test_summaries_as_json(capfd):
    sizes = ["--partitions", "1", "--experiments", "1", "--runs", "2", "--epochs", "5", "--rounds", "1"]
    assert summaries.main([*sizes, "--contestants", "floor", "--json"]) == 0
    (report,) = json.loads(capfd.readouterr().out)
    assert [one["contestant"] for one in report["results"]] == ["ours", "floor"]


def test_experiments_of_many_runs_are_measured(capsys):
    assert summaries.main(["--many", "5,300", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["runs"], one["points"]) for one in found] == [(5, 20), (300, 20)]
    assert summaries.main(["--many", "300", "--rounds", "1"]) == 0
    assert "| 300 x 20 | " in capsys.readouterr().out


def test_other_statistics_of_many_runs_are_found_out():
    with pytest.raises(summaries.Disagreement, match="numpy: test_loss_avg is not ours"):
        summaries.measure_many(5, 1, block_of=lambda values: summary_peers.Numpy.block(values * 2))


def test_the_codec_is_measured(tmp_path, capsys):
    store = make_store(tmp_path / "store", 1, 1, 3, 400)
    assert histories.main(["--store", str(store.location.root), "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["what"] for one in found["results"]][:2] == ["decode columns", "encode columns"]
    assert all(one["ratio"] > 0 for one in found["results"])
    assert found["bytes"][1] == pytest.approx(found["bytes"][0], rel=0.01)
    assert histories.main(["--runs", "2", "--epochs", "30", "--rounds", "1"]) == 0
    assert "| decode columns | " in capsys.readouterr().out


def test_a_codec_that_reads_otherwise_is_found_out(monkeypatch, capsys):
    monkeypatch.setattr(histories, "read_by_codec", lambda data: histories.read_by_pyarrow(data).slice(1))
    assert histories.main(["--runs", "2", "--epochs", "30", "--rounds", "1"]) == 1
    assert capsys.readouterr().err == "histories: the codec and pyarrow do not read the same\n"


def test_parquet_settings_are_measured(tmp_path, capsys):
    store = make_store(tmp_path / "store", 1, 2, 3, 40)
    run_summaries(plan_summaries(store), store)
    assert parquet_settings.main([store.location.root, "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["run files", "summary files"]
    assert all(row["kilobytes"] > 0 and row["one_column"] > 0 for rows in found.values() for row in rows)


@pytest.mark.long
def test_commands_on_a_large_store_are_measured(capsys):
    assert scale.main(["--files", "400", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == 400
    assert [cost["command"] for cost in found["costs"]] == [
        "status --json",
        "summarize --json",
        "summarize --json, one run added",
    ]


@pytest.mark.browser
def test_the_page_of_a_made_up_store_is_measured(tmp_path):
    browser = next(filter(None, map(shutil.which, report.BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    figures = report.run(tmp_path, 6, 20, browser)
    assert figures.experiments == 6
    assert (tmp_path / "report.html").stat().st_size == round(1e6 * figures.page_megabytes)
    assert figures.choices > 10
    assert 0 < figures.choice_ms <= figures.longest_choice_ms


@pytest.mark.long
def test_an_export_of_a_large_store_is_measured(capsys):
    assert scale.main(["--files", "200", "--export", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [cost["command"] for cost in found["costs"]] == ["export --all", "export --all, again"]
    shown = found["shown"]
    assert shown["last_number"] == shown["total"] >= 200
    assert 0 < shown["first_seconds"] <= shown["last_seconds"] <= shown["seconds"]


@pytest.mark.long
def test_the_memory_of_a_large_partition_is_measured(capsys):
    assert scale.main(["--partition", "2", "--json"]) == 0
    whole, *others = json.loads(capsys.readouterr().out)["costs"]
    assert whole["command"] == "summarize --json, all"
    assert whole["peak_megabytes"] > 50
    assert [one["command"] for one in others] == [
        "status --json",
        "summarize --json",
        "summarize --json, one run added",
    ]


def test_tables_and_fits_are_measured(capsys):
    folder = Path(__file__).parent / "networks"
    assert published_tables.main([str(folder), "--tables", "3", "--fits", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["fits"], found["alike"]) == (79, 79)
    assert 0 < found["fit"] < found["scipy_fit"]
    assert published_tables.main([str(folder), "--tables", "3", "--fits", "1"]) == 0
    assert "79 of 79 predictions are alike" in capsys.readouterr().out


def test_records_are_measured(capsys):
    assert records.main(["--records", "40", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["records"], found["experiments"], found["run_files"]) == (40, 40, 40)
    assert records.main(["--records", "30"]) == 0
    said = capsys.readouterr().out
    assert "30 records, 5 files of" in said
    assert "30 run files" in said


def test_made_up_records_are_as_many_of_each_cell():
    made = records.make_records(1104)
    columns = [(one.task_type, one.architecture, one.n_layers, one.max_params) for one in made.values()]
    cells = [cell for some in columns for cell in zip(*some, strict=True)]
    assert len(set(cells)) == len(cells) == 1104


def test_loading_of_kernels_is_measured(capsys):
    assert loading.main(["--rounds", "1", "--json"]) == 0
    loaded, called = json.loads(capsys.readouterr().out)
    assert (loaded["what"], called["what"]) == ("load, CPU ms", "call, microseconds")
    assert min(one[by] for one in (loaded, called) for by in ("numba", "ours", "ratio")) > 0
    assert loading.main(["--rounds", "1"]) == 0
    assert capsys.readouterr().out.startswith("| | numba | without it | times |")


@pytest.mark.long
def test_whole_commands_are_measured(capsys, monkeypatch):
    small = ["--experiments", "3", "--partitions", "2", "--runs", "3", "--epochs", "20", "--rounds", "1"]
    assert commands.main([*small, "--json"]) == 0
    ours, theirs = json.loads(capsys.readouterr().out)
    assert (ours["command"], theirs["command"]) == ("butter-etl summarize --full", "DuckDB, one long file")
    assert ours["ratio"] == 1
    assert min(ours["cpu_seconds"], theirs["cpu_seconds"], theirs["ratio"]) > 0
    assert commands.main(small) == 0
    assert capsys.readouterr().out.startswith("| command | CPU s | wall s | times ours |")
    monkeypatch.setattr(commands, "_DUCKDB", commands._DUCKDB.replace("0.5, 0.75", "0.75, 0.75"))
    assert commands.main(small) == 1
    assert "the medians of 60 and 60 epochs are not the same" in capsys.readouterr().err


TRACE = """\
10 openat(AT_FDCWD, "/lib/a.so", O_RDONLY) = 3
10 newfstatat(AT_FDCWD, "/lib/b", 0x7ffc, 0) = -1 ENOENT (No such file or directory)
10 openat(AT_FDCWD, "/lib/b.so", O_RDONLY) = -1 ENOENT (No such file or directory)
11 openat(AT_FDCWD, "/lib/a.so", O_RDONLY) = 3
12 openat(AT_FDCWD, "/lib/a.so", O_RDONLY <unfinished ...>
12 openat(AT_FDCWD, "/lib/a.so", O_RDONLY) = 3
12 openat(AT_FDCWD, "/lib/c.so", O_RDONLY) = 4
12 readlink("/proc/self/exe", "/usr/bin/python", 4096) = 15
13 readlink("/proc/self/exe", "/usr/bin/git", 4096) = 12
"""


def test_opened_files_are_counted_by_process():
    assert opened_files.count(TRACE) == [(1, 1), (2, 1)]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_opened_files_are_traced(capsys, monkeypatch):
    monkeypatch.setattr(opened_files, "_RUNS", 1)
    assert opened_files.main(["HEAD", "--json"]) == 0
    command, worker = json.loads(capsys.readouterr().out)
    assert (command["process"], worker["process"]) == ("command", "worker")
    assert min(worker["old_opened"], worker["new_opened"], command["new_asked"]) > 300
    assert opened_files.main(["no-such-revision"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize("which", ["compact", "filtered"])
def test_exports_of_a_version_are_measured(which):
    code = regression._EXPORTS.replace("(14, 24) if compact else (56, 2)", "(2, 9)").replace("epochs=3000", "epochs=9")
    done = subprocess.run([sys.executable, "-c", code, which], check=True, capture_output=True, text=True)
    assert float(done.stdout) > 0


@pytest.mark.long
def test_scheduling_is_measured(capsys):
    small = ["--experiments", "10", "--runs", "10", "--futures", "20"]
    assert scheduling.main([*small, "--measures", "pack", "--json"]) == 0
    (packed,) = json.loads(capsys.readouterr().out)
    assert 1 <= packed["value"] <= MOST_TASKS
    assert scheduling.main([*small, "--measures", "start,futures"]) == 0
    out = capsys.readouterr().out
    assert "| start | 2,688 experiments |" in out
    assert "| futures | 2 to 20 futures |" in out
    with pytest.raises(SystemExit):
        scheduling.main(["--measures", "nothing"])


# --- lifespan_fidelity -------------------------------------------------------------------------------------------

SHORT_LIVES = ["--dataset", "digits", "--networks", "2", "--drawn", "6", "--images", "300", "--epochs", "1"]


def test_image_networks_are_trained_alike(capsys):
    assert lifespan_fidelity.main(SHORT_LIVES) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("the cheaper 2 of 6 networks within 5,000,000 multiplications")
    assert lines[2] == lifespan_fidelity.HEADER
    assert len({line.count(" | ") for line in lines[2:6]}) == 2  # all but that below the header
    assert [line for line in lines if line.endswith("within 1%: ok")] == lines[-3:-1]
    assert lines[-1].startswith("CPU seconds: ")


def lives(*losses):
    pairs = [
        {loss: dict(zip(lifespan_fidelity.ENGINES, both, strict=True)) for loss in ("loss", "val_loss")}
        for both in losses
    ]
    return [lifespan_fidelity.Pair(k, 1, one, {"compiled": 1.0, "reference": 2.0}) for k, one in enumerate(pairs)]


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (lives((1.0, 1.0), (2.001, 2.0), (3.0, 3.002)), 0),
        (lives((1.0, 1.0), (2.2, 2.0), (3.0, 3.002)), 1),  # too far, and too wide
        (lives((1.02, 1.0), (2.04, 2.0), (3.06, 3.0)), 1),  # narrow, but not within
        (lives((1.0, 1.0), (math.nan, math.nan), (3.0, 3.002)), 0),
        (lives((1.0, 1.0), (math.nan, 2.0), (3.0, 3.002)), 1),  # one alone has diverged
        (lives((1.0, 1.0)), 1),  # nothing to tell an interval by
    ],
)
def test_the_verdict_on_image_networks(monkeypatch, capsys, found, code):
    monkeypatch.setattr(lifespan_fidelity, "run", lambda options: iter(found))
    assert lifespan_fidelity.main(["--json"]) == code
    assert len(json.loads(capsys.readouterr().out)["pairs"]) == len(found)
    assert lifespan_fidelity.main([]) == code
    assert ("diverged (compiled" in capsys.readouterr().out) == any(pair.diverged for pair in found)


def test_lives_without_images_are_one_line(capsys, tmp_path):
    assert lifespan_fidelity.main(["--dataset", "SVHN", "--data-dir", str(tmp_path)]) == 1
    assert "SVHN" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        lifespan_fidelity.main(["--networks", "1"])


# --- lifespans ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_lifespans_are_measured_of_all_that_is_installed(pinned, capsys):
    options = ["--drawn-only", "--networks", "1", "--rows", "1", "--rounds", "1"]
    assert lifespans.main([*options, "--contestants", "plain,eager,channels_last,ours"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| CIFAR100 0 | every other | 192 | 192 | 0.40 | 0.31 |")
    assert [line.split(" | ")[0] for line in lines if ", all" in line] == ["| train, all", "| validation, all"]
    assert lifespans.main([*options, "--contestants", "ours", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["train"].keys() == {"ours"}


def test_lifespans_say_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(lifespans, "find_spec", lambda name: name == "torch")
    monkeypatch.setattr(lifespans.shutil, "which", lambda name: None)
    report = lifespans.Report()
    assert list(lifespans.run([], list(lifespans.CONTESTANTS), 1, 1, report)) == []
    assert report.left_out["jax"] == "jax is not installed"
    assert report.left_out["compile"] == "there is no g++"
    assert "eager" not in report.left_out


def test_lifespans_are_of_the_networks_that_the_study_draws():
    cases = lifespans.drawn_cases(20, 1)
    assert [case.name for case in cases[:4]] == ["CIFAR100 0", "FashionMNIST 0", "SVHN 1", "CIFAR100 4"]
    assert len({case.name for case in cases}) == 20
    assert max(case.network.parameters for case in cases) <= 3_000_000
    for name in lifespans.SETS:
        drawn = [int(case.name.split(" ")[1]) for case in cases if case.name.startswith(name)]
        sweep = READER.parse(
            f"name: a\nrepetitions: 1\ndraws: [{{dataset: {name}, networks: {len(drawn)}, seed: 1}}]", "a"
        )
        assert drawn == list(sweep.cubes[0]["number"])


#: Millions of multiplications of the known networks, all and those that are needed, as counted elsewhere.
NEEDED = {"example": (2.0, 1.1), "13_55": (21.3, 2.7), "13_56": (28.5, 0.8), "14_01": (11.7, 8.0)}


def test_what_is_needed_of_the_known_networks():
    cases = lifespans.known_cases()
    counts = {case.name: lifespans.count_products(case.network) for case in cases}
    assert {name: (round(one.nominal / 1e6, 1), round(one.needed / 1e6, 1)) for name, one in counts.items()} == NEEDED
    kinds = {case.name: lifespans.kind_of(case, counts[case.name]) for case in cases}
    assert kinds == dict.fromkeys(("example", "14_01"), lifespans.DENSE) | dict.fromkeys(
        ("13_55", "13_56"), lifespans.PADDED
    )


@given(networks())
def test_what_is_needed_is_what_changes(network):
    """What varies, by forward passes: of each layer, the products whose input differs between two images."""
    counts = lifespans.count_products(network)
    varies, needed = np.ones((network.size, network.size), np.bool_), 0
    for layer in network.layers:
        sees = np.pad(varies, layer.padding)
        windows = np.lib.stride_tricks.sliding_window_view(sees, (layer.kernel, layer.kernel))
        windows = windows[:: layer.stride, :: layer.stride]
        needed += layer.channels * layer.filters * int(windows.sum())
        varies = windows.any(axis=(2, 3))
        if layer.pool:
            pool = layer.pool
            sees = np.lib.stride_tricks.sliding_window_view(np.pad(varies, pool.padding), (pool.kernel, pool.kernel))
            varies = sees[:: pool.stride, :: pool.stride].any(axis=(2, 3))
    assert counts.validation == 2 * needed <= 2 * counts.nominal
    assert counts.needed >= needed
    if not any(layer.dropout for layer in network.layers):
        assert counts.needed == needed


def test_means_are_of_the_kinds_there_are():
    def result(name, kind, ours):
        rates = {"plain": 2.0, "eager": 4.0, "keras": 3.0, "ours": ours}
        limits = {"train": 16.0, "validation": 32.0}
        return lifespans.Result(name, kind, 1, 1, 1, 1, 1, 1.0, limits, False, rates, rates)

    some = [result("a", lifespans.PADDED, 4.0), result("b", lifespans.OTHER, 16.0)]
    lines = list(lifespans.means_of(some))
    assert lines[2] == "| train, all | 2 | 4.00 | 2.00 | 2.00 | 1.00 | 50% |"
    assert [line.split(" | ")[0] for line in lines[3:6]] == [
        "| train, ruled by padding",
        "| train, every other",
        "| validation, all",
    ]
    assert lines[5].endswith("| 25% |")


# --- capacity ----------------------------------------------------------------------------------------------------


def test_recurrent_networks_are_measured_of_all_that_is_installed(pinned, capsys):
    options = ["--rows", "per_cap,10k RNN", "--rounds", "1", "--seconds", "0"]
    assert capacity.main([*options, "--contestants", "eager,torch,ours"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == capacity.HEADER
    assert [line.split()[:4] for line in lines[1:3]] == [
        ["arithmetic", "rnn", "1", "86"],
        ["per_cap", "gru", "1", "43"],
    ]
    assert lines[3].startswith("10k RNN: ")
    assert "GFLOP/s" in lines[-1]
    assert capacity.main([*options, "--contestants", "ours", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]["per_cap 10k"]
    assert [result["milliseconds"].keys() for result in found] == [{"ours"}]


@pytest.mark.parametrize("cell", capacity.GATES)
def test_peers_train_the_same_recurrent_network(cell):
    """Ten steps of eager PyTorch and, where it is the same cell, of torch's own layer from a start end at one loss."""
    case = capacity.make_case("text8", cell, 1_500, 2)
    steps = {"ours": capacity.make_ours(case), "eager": capacity.make_eager(case)}
    losses = {name: [step() for _ in range(10)] for name, step in steps.items()}
    assert losses["eager"] == pytest.approx(losses["ours"], rel=1e-3)
    assert losses["ours"][-1] < losses["ours"][0]


def test_errors_of_recurrent_networks_are_compared(monkeypatch):
    monkeypatch.setattr(capacity, "GATES", ["gru"])
    lines = list(capacity.error_lines(seeds=2))
    assert [line.partition(":")[0] for line in lines] == [
        f"gru    depth {depth} {name}" for depth in (1, 4) for name in ("tanh", "relu")
    ]
    assert all(0 < float(line.partition("ours ")[2].partition(",")[0]) < 4 for line in lines)


def test_the_limit_of_a_recurrent_network_is_what_its_products_take():
    case = capacity.make_case("arithmetic", "gru", 10_000, 1)
    assert case.network.units == 48
    products = 36 * 3 * 48 * 48 + 10 * 48 * 14
    assert capacity.needed_operations(case) == 2 * 64 * 3 * products
    shown = capacity.make_case("per_cap", "gru", 10_000, 1)
    assert capacity.needed_operations(shown) == 2 * 64 * (3 * (5 * 3 * 43 * 43 + 43) + 2 * 32 * 3 * 43)
