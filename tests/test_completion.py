"""Tab, as the shells do it: the script is loaded in a real bash, and asked through its variables."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from butter_etl.cli.completion import SHELLS
from butter_etl.store.registry import Registry
from butter_etl.store.store import Store
from butter_etl.studies.butter.datasets import DATASETS
from butter_etl.studies.butter.sweeps import PUBLISHED
from butter_etl.studies.selection import Choice

SPEC = "{name: learned, repetitions: 2, cubes: [{dataset: [digits], size: [256], depth: [2]}]}"

#: Loads the script, then does what Tab does after the words given; `compopt` works only while bash itself completes.
ASK = """
eval "$(butter-etl completion bash)"
complete -p butter-etl >&2
compopt() { echo "(shell: $2)"; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_butter_etl_completion butter-etl
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A PATH on which ``butter-etl`` is this package under this interpreter."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "butter-etl"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m butter_etl "$@"\n')
    command.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.fixture
def tab(path, tmp_path):
    """What bash completes after some words, the last of them begun."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    root = str(Path(__file__).parents[1])

    def complete(*words):
        done = subprocess.run(
            ["bash", "-c", ASK, "bash", "butter-etl", *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "PYTHONPATH": root},
            timeout=300,
        )
        assert done.stderr == "complete -o nosort -F _butter_etl_completion butter-etl\n"
        return done.stdout.split("\n")[:-1]

    return complete


def test_bash_completes_commands_and_options(tab):
    assert tab("pl") == ["plan", "plot"]
    assert tab("train", "store", "--dev") == ["--device"]
    assert tab("train", "store", "--device", "") == ["cpu", "cuda"]


def test_bash_completes_names(tab, tmp_path):
    (tmp_path / "learned.yaml").write_text(SPEC)
    store = Store.create(tmp_path / "store")
    Registry(store).register(store, Choice(specs=(str(tmp_path / "learned.yaml"),)))
    assert tab("train", "store", "--sweep", "l") == ["learning_rate", "label_noise", "learned"]
    assert tab("plan", "elsewhere", "--sweep", "") == list(PUBLISHED)
    assert tab("plan", "store", "--where", "'dataset=") == [f"dataset={name}" for name in DATASETS]
    assert tab("plot", "store", "out.pdf", "--by", "lea") == ["learning_rate"]
    assert tab("plot", "store", "out.pdf", "--series", "test_a") == ["test_accuracy"]
    assert tab("errors", "torn") == ["torn-file"]
    assert tab("cluster", "init", "sl") == ["slurm", "slurm-gpu"]


def test_bash_leaves_paths_to_the_shell(tab):
    assert tab("status", "st") == ["(shell: dirnames)", ""]
    assert tab("train", "store", "--spec", "") == ["(shell: default)", ""]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_takes_its_script(run, shell):
    code, script, _ = run("completion", shell)
    assert code == 0
    assert f"{shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=300)
