"""Audits of our own runs: drawn, replayed, certified; and whether a certificate still speaks of its data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import butter_etl as be
from butter_etl.errors import SelectError
from butter_etl.store.store import Store
from butter_etl.upkeep.auditing import write_certificate
from butter_etl.upkeep.certificates import check_certificate, read_certificate
from butter_etl.upkeep.run_frame import RunFrame
from tests.exports import contents, export
from tests.test_replaying import change, elsewhere, flip, rows, store, trained  # noqa: F401 (fixtures)


@pytest.fixture(scope="module")
def audited(trained, tmp_path_factory):  # noqa: F811
    """A certificate of half of the runs of a store, beside a copy of it."""
    copy = tmp_path_factory.mktemp("audited") / "store"
    shutil.copytree(trained, copy)
    return copy, be.audit(copy, sample="50%", seed=7)


@pytest.fixture
def here(audited, tmp_path):
    """A copy of the audited store, to be changed."""
    shutil.copytree(audited[0], tmp_path / "store")
    return tmp_path / "store"


def findings(path, certificate=None):
    return [(one.kind, one.detail) for one in be.verify(path, certificate=certificate).checked.findings]


def kinds(path, certificate=None):
    return [kind for kind, _ in findings(path, certificate) if "certificate" in kind or "audit" in kind]


def rewrite(path, make):
    file = path / "certificate/certificate.json"
    said = json.loads(file.read_text())
    make(said)
    file.write_text(json.dumps(said))


def test_a_certificate_names_each_run(audited):
    path, done = audited
    certificate = read_certificate(path / "certificate/certificate.json")
    assert certificate == done.certificate
    assert done.is_sound
    assert certificate.counts == {"equal": 8}
    named = {row["run_id"] for row in rows(path)}
    assert (certificate.data.rows, certificate.data.kind, certificate.data.study) == (16, "store", "butter")
    assert len(certificate.drawn.run_ids) == 8
    assert set(certificate.drawn.run_ids) <= named
    assert [one.run_id for one in certificate.replayed] == list(certificate.drawn.run_ids)
    assert {one.path for one in certificate.replayed} == {file.path for file in certificate.data.files}
    assert certificate.method is None
    assert certificate.software["butter-etl"] == be.__version__
    assert certificate.began <= certificate.ended
    assert [file.name for file in done.files] == [
        "certificate.json",
        "certificate.html",
        "ro-crate-metadata.json",
    ]
    assert "equal" in done._repr_html_()


def test_the_same_seed_draws_the_same_and_without_one_it_is_published(trained, audited, tmp_path):  # noqa: F811
    again = be.audit(trained, sample="8", seed=7, out=tmp_path / "again").certificate
    assert again.drawn.run_ids == audited[1].certificate.drawn.run_ids
    seeds = {be.audit(trained, sample="1", out=tmp_path / name).certificate.drawn.seed for name in ("a", "b")}
    assert len(seeds) == 2
    for seed in seeds:
        assert be.audit(trained, sample="1", seed=seed, out=tmp_path / "c").certificate.drawn.seed == seed


def test_faults_are_certified_and_fail_verify(store):  # noqa: F811
    drawn = be.audit(store, sample="50%", seed=7).certificate.drawn.run_ids
    change(store, drawn[2], lambda row: {"loss": flip(row["loss"], 3)})
    change(store, drawn[4], lambda row: {"seed": 5})
    change(store, drawn[6], elsewhere(numpy="1"))
    done = be.audit(store, sample="50%", seed=7)
    assert not done.is_sound
    assert done.certificate.counts == {"differs": 1, "wrong-row": 1, "equal": 6}
    assert [one.run_id for one in done.certificate.faults] == sorted([drawn[2], drawn[4]])
    assert drawn[2] in done._repr_html_()
    assert kinds(store) == ["failed-audit"]
    assert f"2 runs at fault, the first {min(drawn[2], drawn[4])}" in dict(findings(store))["failed-audit"]


def test_a_certificate_is_held_against_its_data(here):
    assert kinds(here) == []
    victim = json.loads((here / "certificate/certificate.json").read_text())["drawn"]["run_ids"][0]
    change(here, victim, lambda row: {"batch": "other"})
    assert kinds(here) == ["wrong-certificate"]
    assert "has other bytes than those that were audited" in dict(findings(here))["wrong-certificate"]


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda said: said["drawn"].update(seed=8), "seed 8 draws other runs than it names"),
        (lambda said: said["drawn"].update(sample="9"), "seed 7 draws other runs"),
        (lambda said: said["drawn"].update(sample="many"), "write a share like"),
        (lambda said: said.update(is_sound=False), "says that the data are not sound, and its runs say otherwise"),
        (lambda said: said["replayed"].pop(), "are not those that it drew"),
        (lambda said: said["data"].update(study="nn_lifespans"), "is of the study nn_lifespans"),
        (lambda said: said.update(format=2), "has format 2, this version reads 1"),
        (lambda said: said.pop("drawn"), "not readable as a certificate"),
    ],
)
def test_a_certificate_that_was_changed_is_found(here, make, line):
    rewrite(here, make)
    assert set(kinds(here)) == {"wrong-certificate"}
    assert line in dict(findings(here))["wrong-certificate"]
    assert not be.verify(here).is_sound


def test_data_that_have_grown_or_shrunk_make_it_outdated(here, trained, tmp_path):  # noqa: F811
    file = next(iter(Store.open(here).run_files()))
    (here / "all_runs" / file.path).unlink()
    assert set(kinds(here)) == {"outdated-certificate"}
    assert "speaks of 16 runs, other ones than the 12 that are here" in str(findings(here))
    frame = RunFrame.open(here)
    outdated = check_certificate(frame, here / "certificate/certificate.json")
    assert all(one.is_note for one in outdated)


def test_exports_name_their_manifest(trained, tmp_path):  # noqa: F811
    export(Store.open(trained), tmp_path / "dest", "few", compact=True)
    before = contents(tmp_path / "dest")
    done = be.audit(tmp_path / "dest", sample="25%", seed=1)
    assert done.certificate.counts == {"equal": 4}
    assert done.certificate.data.manifest_sha256 == before["manifest.json"]
    assert {name: one for name, one in contents(tmp_path / "dest").items() if "certificate/" not in name} == before
    assert findings(tmp_path / "dest") == []
    export(Store.open(trained), tmp_path / "dest", where=["dataset=wine"])
    assert kinds(tmp_path / "dest") == ["outdated-certificate"]
    assert "another manifest" in dict(findings(tmp_path / "dest"))["outdated-certificate"]
    assert be.verify(tmp_path / "dest").is_sound


def test_on_a_cluster(trained, client, tmp_path):  # noqa: F811
    done = be.audit(trained, sample="4", seed=3, client=client, out=tmp_path / "certificate")
    assert done.certificate.counts == {"equal": 4}
    assert be.verify(trained, certificate=tmp_path / "certificate/certificate.json", client=client).is_sound


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"sample": "0"}, "comes to 0 of 16 runs"),
        ({"sample": "some"}, "write a share like 0.1%"),
        ({"sample": "1", "repetitions": 0}, "--repetitions 0: at least 1"),
        ({"sample": "1", "level": 1.0}, "--level 1: a probability between 0 and 1"),
    ],
)
def test_bad_wishes_are_one_line(trained, tmp_path, options, line):  # noqa: F811
    with pytest.raises(SelectError, match=line):
        be.audit(trained, out=tmp_path, **options)


def test_certificates_are_written_whole(audited, tmp_path):
    files = write_certificate(audited[1].certificate, tmp_path / "deep" / "folder")
    assert [file.parent for file in files] == [tmp_path / "deep" / "folder"] * 3
    assert files[0].read_bytes() == Path(audited[1].files[0]).read_bytes()
    assert files[1].read_bytes() == Path(audited[1].files[1]).read_bytes()


LARGE = """
name: large
repetitions: 250
cubes:
  - {dataset: [wine, diabetes], size: [32, 64, 128, 256, 512], depth: [2], epochs: [2], learning_rate: [RATES]}
"""


@pytest.mark.long
def test_a_store_of_ten_thousand_rows_on_a_cluster(tmp_path, client):
    (tmp_path / "large.yaml").write_text(LARGE.replace("RATES", "0.001, 0.01, 0.02, 0.03, 0.04"))
    landed = be.train(tmp_path / "store", spec=tmp_path / "large.yaml").landed
    assert landed >= 10_000
    certificate = be.audit(tmp_path / "store", sample="1%", seed=11, client=client).certificate
    assert certificate.data.rows == landed
    assert len(certificate.replayed) == -(-landed // 100)
    assert certificate.counts == {"equal": -(-landed // 100)}
    assert [one.run_id for one in certificate.replayed] == list(certificate.drawn.run_ids)
    assert be.verify(tmp_path / "store").is_sound
