"""Pickled arrays as they are written: NumPy loads them, they name what genuine files name, equal records are equal."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butter_etl.studies.capacity.pickle_reading import read_columns
from butter_etl.studies.capacity.pickle_writing import write_columns

GENUINE = Path(__file__).parent / "records"
FIELDS = {"architecture": "O", "eval_loss": "f8", "hparams": "O", "n_layers": "i8"}
RECORDS = [
    ("lstm", 1.5, {"lr_init": 0.25, "optimizer": "ADAM", "train_steps": 7}, 4),
    ("+rnn", float("inf"), {"optimizer": "ADAM", "note": "é", "is_shown": True, "none": None}, 2**40),
]


def names_of(data):
    return {arg for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"}


def steps_of(data):
    return {op.name for op, _, _ in pickletools.genops(data)}


def load(data):
    return pickle.loads(data, encoding="latin1")  # noqa: S301 - ours


def test_numpy_loads_what_is_written():
    array = load(write_columns(FIELDS, RECORDS, 2))
    assert array.dtype == np.dtype([(name, kind if kind == "O" else f"<{kind}") for name, kind in FIELDS.items()])
    assert array.tolist() == RECORDS
    array["n_layers"] += 1  # it owns its memory, and can be written to
    assert array["n_layers"].tolist() == [5, 2**40 + 1]


def test_numpy_load_loads_it_as_a_file(tmp_path):
    (tmp_path / "a.p").write_bytes(write_columns(FIELDS, RECORDS, 2))
    assert np.load(tmp_path / "a.p", allow_pickle=True, encoding="latin1").tolist() == RECORDS


def test_it_names_and_does_only_what_a_genuine_file_does():
    genuine = (GENUINE / "object_fields_protocol2.p").read_bytes()
    ours = write_columns(FIELDS, [(*RECORDS[0][:3], number) for number in range(300)], 300)
    assert names_of(ours) == names_of(genuine) == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    assert steps_of(ours) - {"LONG_BINPUT", "LONG_BINGET"} <= steps_of(genuine)
    assert pickletools.genops(ours).__next__()[1] == 2
    pickletools.dis(ours, io.StringIO())  # it checks marks and the stack


@pytest.mark.parametrize("name", ["object_fields_protocol0", "object_fields_protocol2", "record_array_protocol2"])
def test_a_genuine_file_read_and_written_is_the_same_array(name):
    fields = {
        "architecture": "O", "eval_loss": "f8", "hparams": "O", "max_params": "i8", "n_layers": "i8",
        "num_params": "i8", "task_type": "O", "train_loss": "f8", "valid_loss": "f8", "hyper_iter": "i8",
    }  # fmt: skip
    genuine = (GENUINE / f"{name}.p").read_bytes()
    columns = read_columns(genuine)
    ours = load(write_columns(fields, zip(*columns.values(), strict=True), 8))
    theirs = load(genuine)
    assert ours.dtype.descr == np.array(theirs).astype(ours.dtype).dtype.descr
    assert ours.tolist() == np.array(theirs).tolist()


def test_equal_records_are_equal_bytes():
    """Whether two texts are one object makes no difference, as it does to Python's own pickles."""
    one = write_columns(FIELDS, RECORDS, 2)
    copied = [
        ("".join(list(a)), b, {"".join(list(key)): value for key, value in c.items()}, d) for a, b, c, d in RECORDS
    ]
    assert write_columns(FIELDS, copied, 2) == one


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
def test_any_number_of_records_is_written(count):
    made = [(f"a{number}", number / 7, {"x": number}, number) for number in range(count)]
    assert load(write_columns(FIELDS, made, count)).tolist() == made


def test_what_is_no_record_is_refused():
    with pytest.raises(TypeError, match="set is not written"):
        write_columns(FIELDS, [("a", 1.0, {"x": {1}}, 1)], 1)
    with pytest.raises(ValueError, match="1 records, not 2"):
        write_columns(FIELDS, RECORDS[:1], 2)
    with pytest.raises(ValueError, match="records without objects"):
        write_columns({"x": "i8"}, [(1,)], 1)


VALUES = st.text(st.characters(exclude_categories=["Cs"])) | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(VALUES, st.floats(allow_nan=False), st.dictionaries(st.text(), VALUES), st.integers(0, 2**62)))
)
def test_whatever_is_written_numpy_and_we_read_again(made):
    data = write_columns(FIELDS, made, len(made))
    assert load(data).tolist() == made
    assert list(zip(*read_columns(data).values(), strict=True)) == made


# --- other versions ----------------------------------------------------------------------------------------------

LOADING = """
import sys
import numpy as np
more = {"encoding": "latin1"} if sys.version_info[0] > 2 else {}
array = np.load(sys.argv[1], allow_pickle=True, **more)
assert array.dtype.names == ("architecture", "eval_loss", "hparams", "n_layers"), array.dtype
best = array[np.argmin(array["eval_loss"])]
assert best["architecture"] == "lstm" and type(best["architecture"]) is str
assert sorted(best["hparams"].items()) == [("lr_init", 0.25), ("optimizer", "ADAM"), ("train_steps", 7)], best
assert array["n_layers"].tolist() == [4, 2 ** 40]
print(np.__version__)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("python", "numpy"), [(sys.executable, "1.26.4"), (sys.executable, "2.0.2"), ("python2.7", "1.16.6")]
)
def test_other_versions_of_numpy_load_it(python, numpy, tmp_path):
    """Under Python 2 too, where one is at hand."""
    file = tmp_path / "a.p"
    file.write_bytes(write_columns(FIELDS, RECORDS, 2))
    target = tmp_path / "site"
    if (
        shutil.which(python) is None
        or subprocess.run([python, "-c", "pass"], check=False, capture_output=True).returncode
    ):
        pytest.skip(f"no {python} here")
    install = [python, "-m", "pip", "install", "--quiet", "--target", str(target), f"numpy=={numpy}"]
    installed = subprocess.run(install, check=False, capture_output=True, text=True, timeout=600)
    if installed.returncode:
        pytest.skip(f"NumPy {numpy} cannot be installed here: {installed.stderr.strip().splitlines()[-1:]}")
    environment = {**os.environ, "PYTHONPATH": str(target)}
    command = [python, "-W", "error", "-c", LOADING, str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=120)
    assert done.stdout.strip() == numpy, done.stderr
