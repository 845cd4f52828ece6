"""The benchmark of the fused engine's sections."""

from __future__ import annotations

import numpy as np

from benchmarks import sections


def test_every_section_of_an_epoch_has_a_time(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BUTTER_ETL_DATA", str(tmp_path))
    monkeypatch.setattr(sections, "SECONDS_A_ROUND", 1e-4)
    assert sections.main(["--sizes", "32", "--rounds", "2"]) == 0
    header, row, source = capsys.readouterr().out.splitlines()
    assert header.split()[0] == "size"
    size, *times = map(float, row.split())
    assert size == 32
    assert len(times) == len(sections.SECTIONS) + 1
    assert np.isfinite(times).all()
    assert source.startswith("synthetic")
