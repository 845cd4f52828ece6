"""Measured rates: plausible, kept by kind of core, and never a reason to fail."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from butter_etl.cli.group import cli
from butter_etl.engines.contract import ENGINES
from butter_etl.studies.butter import calibration, costs


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "_SECONDS_EACH", 0.0)
    monkeypatch.setattr(calibration, "_SIZES", (2**6, 2**12))
    monkeypatch.setattr(calibration, "_SHAPES", [replace(shape, rows=400) for shape in calibration._SHAPES])


def test_measured_rates_are_used(tmp_path):
    assert costs.load_rates("torch", "cpu") == costs.DEFAULT_RATES["torch"]
    measured = calibration.measure_rates("torch")
    assert measured.flops > 1e8
    assert measured.step_seconds + measured.layer_seconds + measured.metric_seconds > 0
    path = costs.save_rates("torch", measured)
    assert tmp_path in path.parents
    assert costs.load_rates("torch", "cpu") == measured


def test_rates_of_another_version_are_passed_over():
    path = costs.save_rates("torch", costs.DEFAULT_RATES["torch"])
    path.write_text('{"speed": 3}')
    assert costs.load_rates("torch", "cpu") == costs.DEFAULT_RATES["torch"]


def test_the_command():
    done = CliRunner().invoke(cli, ["calibrate", "--json"])
    assert done.exit_code == 0
    assert set(json.loads(done.output)) == set(ENGINES)
    assert costs.rates_path("torch").exists()
    table = CliRunner().invoke(cli, ["calibrate"])
    assert "GFLOP/s" in table.output


def test_every_engine_has_default_rates():
    assert set(costs.DEFAULT_RATES) == set(ENGINES)
