"""`cluster init` and `cluster check`: site files from the package, and what a worker says of itself."""

import json
import shutil

import msgspec
import pytest

from butter_etl.cli.group import main
from butter_etl.clusters.probing import WorkerFacts, _findings, probe_workers
from butter_etl.clusters.sites import SiteFile, load_site, site_templates
from tests.test_clusters import change_site, queued, wait_until


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_every_kind_of_site_has_a_template():
    assert sorted(site_templates()) == ["htcondor", "local", "lsf", "oar", "pbs", "sge", "slurm", "slurm-gpu"]


def test_init_writes_a_site_file_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("cluster", "init", "slurm") == 0
    assert load_site("slurm.yaml").kind == "slurm"
    capsys.readouterr()
    assert run("cluster", "init", "slurm") == 2
    assert capsys.readouterr().err == "butter-etl: slurm.yaml: is there already; name another file [usage]\n"
    assert run("cluster", "init", "slrm") == 2
    assert "unknown kind of site 'slrm' (did you mean 'slurm'?)" in capsys.readouterr().err
    assert run("cluster", "init", "pbs", "no/such/folder.yaml") == 1
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_a_worker_of_this_machine_is_as_this_process(client, tmp_path):
    facts, findings = probe_workers(client, SiteFile(kind="local", logs=str(tmp_path)), dict)
    assert [one for one in findings if one.state == "wrong"] == []
    assert facts.address.startswith("tls://")
    assert facts.seconds_left is None
    assert list(tmp_path.iterdir()) == []


FACTS = WorkerFacts(
    host="n1", job_id="7", python="2.7", versions={}, cpu_family="x", cores=2, tasks=2, threads="2", memory=1,
    address="tcp://n1:1", seconds_left=60, read="other",
)  # fmt: skip


def test_what_would_keep_a_campaign_from_working_is_told(tmp_path):
    from butter_etl.clusters.probing import _PACKAGES

    facts = msgspec.structs.replace(FACTS, versions=dict.fromkeys(_PACKAGES, "0"))
    found = {one.subject: one for one in _findings(facts, "token", tmp_path / "answer", tmp_path)}
    wrong = {subject for subject, one in found.items() if one.state == "wrong"}
    assert wrong == {"versions", "cores", "encryption", "shared files"}
    assert "python is 2.7 there" in found["versions"].said
    assert found["shared files"].said == f"{tmp_path} is another folder there"
    failed = msgspec.structs.replace(facts, error="Permission denied: x")
    assert "cannot use" in _findings(failed, "token", tmp_path / "answer", tmp_path)[-2].said


@pytest.mark.long
@pytest.mark.slurm
def test_check_on_a_real_queue(slurm, capsys):
    assert run("cluster", "check", str(slurm), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["worker"]["job_id"]
    assert 0 < facts["worker"]["seconds_left"] <= 600
    assert {one["subject"]: one["state"] for one in facts["findings"]}["shared files"] == "ok"


@pytest.mark.slurm
@pytest.mark.long
@pytest.mark.skipif(shutil.which("qsub") is None, reason="Slurm's Torque commands (slurm-wlm-torque) are not installed")
def test_check_through_the_commands_of_pbs(slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # these commands leave a job's output where it was submitted
    words = {"kind": "pbs", "resources": "nodes=1:ppn=1,mem=1gb"}
    assert run("cluster", "check", str(change_site(slurm, tmp_path, **words)), "--json") == 0
    assert json.loads(capsys.readouterr().out)["worker"]["job_id"]
    wait_until(lambda: not queued())
