"""Users' own image sets: read from ``.npz`` files, refused in one line, kept, and trained by the real commands."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import butter_etl as be
from butter_etl.errors import DatasetError, SelectError, SpecError
from butter_etl.store import Store
from butter_etl.store.copies import difference, keep, read_copy, read_kept
from butter_etl.studies.data_kinds import DataSource
from butter_etl.studies.lifespans.experiments import ImageNetwork
from butter_etl.studies.lifespans.images import Images, ImageSet, Part, images_of
from butter_etl.studies.lifespans.own_images import IMAGE_KIND, Content, ImageDeclaration, load_content
from butter_etl.studies.lifespans.study import NN_LIFESPANS
from butter_etl.studies.lifespans.sweeps import READER
from tests.test_docs import ROOT, blocks

DECLARED = ImageDeclaration(file="bars.npz", classes=3)
#: The example of the study's page.
(SPEC,) = (
    block.text
    for block in blocks(ROOT / "docs" / "lifespans.md")
    if block.language == "yaml" and "datasets:" in block.text
)


def bars(count=60, size=10, seed=0):
    """Noise with a bright bar whose place tells the class; every fifth image is measured on."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 90, (count, size, size), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 3] += 100
    split = np.where(np.arange(count) % 5 == 4, "validation", "train")
    return {"images": images, "labels": labels, "split": split}


def write(path, **changes):
    """Write a file of bars, with some arrays changed, left out (None) or added."""
    np.savez(path, **{name: one for name, one in {**bars(), **changes}.items() if one is not None})
    return path


def read(path, **declared):
    return load_content("bars", ImageDeclaration(**{"file": path.name, "classes": 3, **declared}), path, "place")


def test_a_file_is_read_by_its_split_and_means_the_same_wherever_it_is(tmp_path):
    made = bars()
    content = read(write(tmp_path / "bars.npz"))
    info, images = content.info, content.images
    assert (info.train, info.test, info.size, info.channels, info.classes, info.brightest) == (48, 12, 10, 1, 3, 255)
    held_out = made["split"] == "validation"
    assert np.array_equal(images.train.images[..., 0], made["images"][~held_out])
    assert np.array_equal(images.test.labels, made["labels"][held_out])
    assert [one.images for one in content.parts] == [(16, 16, 16), (4, 4, 4)]
    packed = tmp_path / "elsewhere.npz"
    np.savez_compressed(packed, **{**made, "images": made["images"][..., None], "split": made["split"].astype("S")})
    assert read(packed).info == info
    assert info.content == images.sha256
    changed = made["labels"].copy()
    changed[7] = 0
    for other in (
        read(write(tmp_path / "other.npz", labels=changed)),
        read(write(tmp_path / "other.npz"), classes=4),
        read(write(tmp_path / "other.npz"), brightest=200),
    ):
        assert other.info.content != info.content


ROWS = bars()["images"]
BAD = [
    ({"split": None}, "has no array 'split'; it has images, labels"),
    ({"split": None, "splits": bars()["split"]}, "has no array 'split'.*did you mean 'splits'"),
    ({"names": np.arange(3)}, "has an array 'names', which means nothing here; leave it out"),
    ({"images": ROWS.astype(object)}, "images holds Python objects, which are not unpickled"),
    ({"labels": np.array(["a"] * 60, object)}, "labels holds Python objects, which are not unpickled"),
    ({"images": ROWS / 255}, "images are float64, not uint8"),
    ({"images": ROWS.reshape(60, 100)}, r"images have shape \(60, 100\); \(images, size, size\) or"),
    ({"images": ROWS[:, :9]}, "images are 9 x 10; they must be square"),
    ({"images": ROWS[:0], "labels": np.zeros(0, int), "split": np.zeros(0, "U5")}, "has no image"),
    ({"labels": np.arange(59) % 3}, r"labels has shape \(59,\); 60 images need \(60,\)"),
    ({"split": bars()["split"][None]}, r"split has shape \(1, 60\); 60 images need \(60,\)"),
    ({"labels": np.zeros(60)}, "labels are float64, not whole numbers"),
    ({"labels": np.arange(60) % 4}, "a label is 3; `classes: 3` are numbered from 0 to 2"),
    ({"labels": np.arange(60) % 3 - 1}, "a label is -1; `classes: 3` are numbered from 0 to 2"),
    ({"split": np.zeros(60, int)}, "split is int64, not texts: write 'train' or 'validation'"),
    ({"split": np.full(60, "test")}, "split has 'test'; write 'train' or 'validation'"),
    ({"split": np.full(60, "train")}, "split has no 'validation': all 60 are 'train'"),
    ({"split": np.full(60, "validation")}, "split has no 'train': all 60 are 'validation'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_bad_file_is_one_clear_line(tmp_path, changes, message):
    with pytest.raises(DatasetError, match=message) as caught:
        read(write(tmp_path / "bars.npz", **changes))
    assert str(caught.value).startswith("place: bars.npz: ")
    assert "\n" not in str(caught.value)


def test_pixels_above_the_brightest_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"a pixel is 1\d\d, above `brightest: 16`"):
        read(write(tmp_path / "bars.npz"), brightest=16)


@pytest.mark.parametrize("kind", ["text", "array", "pickle", "torn", "packed otherwise"])
def test_what_is_no_npz_file_is_refused(tmp_path, kind):
    path = write(tmp_path / "bars.npz")
    whole = path.read_bytes()
    if kind == "text":
        path.write_text("pixels")
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "pickle":
        with path.open("wb") as file:
            np.save(file, np.array([{}]), allow_pickle=True)
    elif kind == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        with zipfile.ZipFile(path, "w") as file:
            for name in ("images.npy", "labels.npy", "split.npy"):
                file.writestr(name, b"\x93NUMPY nothing")
    with pytest.raises(DatasetError, match=r"(cannot be read as npz|is a single array)") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@given(
    st.integers(1, 4).flatmap(
        lambda channels: st.tuples(
            arrays.arrays(np.uint8, st.tuples(st.integers(2, 9), st.just(3), st.just(3), st.just(channels))),
            st.data(),
        )
    )
)
@settings(max_examples=25, deadline=None)
def test_a_copy_gives_the_same_images(drawn):
    images, data = drawn
    labels = data.draw(arrays.arrays(np.int64, len(images), elements=st.integers(0, 4)))
    cut = data.draw(st.integers(1, len(images) - 1))
    info = ImageSet("some", images.shape[3], 3, 5, cut, len(images) - cut, is_own=True)
    parts = Part(images[:cut], labels[:cut]), Part(images[cut:], labels[cut:])
    info = replace(info, sha256=Images(info, *parts).sha256)
    content = Content(Images(info, *parts), ())
    encoded = IMAGE_KIND.encode(content, DECLARED, DataSource("some.npz", "0" * 64))
    again = IMAGE_KIND.decode(content.info, encoded.table)
    assert again.sha256 == content.info.content
    assert np.array_equal(again.train.images, images[:cut])
    assert np.array_equal(again.test.labels, labels[cut:])
    assert encoded.footer.info == content.info


def test_a_store_keeps_a_copy_that_others_can_read(tmp_path):
    store, path = Store.create(tmp_path / "store", study="nn_lifespans"), write(tmp_path / "bars.npz")
    content = read(path)
    keep(store, content, DECLARED, path, IMAGE_KIND)
    found = read_copy(store.location, content.info, IMAGE_KIND)
    assert isinstance(found, Images)
    assert (found.info, found.sha256) == (content.info, content.images.sha256)
    assert read_kept(store.location, "bars", IMAGE_KIND).declaration == DECLARED
    file = store.location.path("datasets/bars.parquet")
    rows = duckdb.sql(f"select validation, label, image from '{file}'").fetchall()
    assert [row[1] for row in rows] == [*content.images.train.labels, *content.images.test.labels]
    assert rows[-1] == (True, 2, content.images.test.images[-1].tobytes())


@pytest.mark.parametrize(
    ("changes", "declared", "message"),
    [
        ({"images": ROWS[:, :9, :9]}, {}, "its images are 9 x 9, not 10 x 10"),
        ({}, {"classes": 4}, "it has 4 classes, not 3"),
        ({}, {"brightest": 200}, "its pixels go up to 200, not 255"),
        ({"split": np.where(np.arange(60) % 3, "train", "validation")}, {}, "it has 40 train images, not 48"),
        ({"labels": np.arange(60) // 20}, {}, "train label 2 differs"),
        ({"images": ROWS + (np.arange(60) == 59)[:, None, None].astype(np.uint8)}, {}, "validation image 12 differs"),
    ],
)
def test_differences_are_named(tmp_path, changes, declared, message):
    store, path = Store.create(tmp_path / "store", study="nn_lifespans"), write(tmp_path / "bars.npz")
    first = read(path)
    keep(store, first, DECLARED, path, IMAGE_KIND)
    other = read(write(tmp_path / "bars.npz", **changes), **declared)
    assert difference(store.location, first.info, other, IMAGE_KIND) == message


def test_the_identity_of_an_experiment_holds_the_content(tmp_path):
    info = read(write(tmp_path / "bars.npz")).info
    one = ImageNetwork(
        dataset="bars",
        batch_size=8,
        learning_rate=0.1,
        layer_types=(1,),
        conv_kernels=(3,),
        conv_strides=(1,),
        conv_paddings=(0,),
        conv_filters=(2,),
        fc_filters=(3,),
        own=info.own,
    )
    said = json.loads(one.canonical_json())
    assert {key: value for key, value in said.items() if key.startswith("data.")} == {
        "data.sha256": info.content,
        "data.channels": 1,
        "data.size": 10,
        "data.classes": 3,
        "data.train": 48,
        "data.test": 12,
        "data.brightest": 255,
    }
    assert "own" not in one.parameters()
    again = NN_LIFESPANS.parse_own(one.canonical_json())
    assert (again, images_of(again)) == (one, info)
    assert NN_LIFESPANS.own_info(one) == info
    assert NN_LIFESPANS.trainer.derive(one)["num_free_parameters"] == 20 + (2 * 8 * 8 + 1) * 3


def sweep_file(**datasets):
    draws = [{"dataset": "bars", "networks": 2}]
    return json.dumps({"name": "mine", "repetitions": 1, "datasets": datasets, "draws": draws})


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({}, r"draws\[0\].dataset: image set 'bars' is not known .*; declare your own image sets in a sweep file"),
        ({"bars": {"file": "bars.npz"}}, "missing required field `classes`"),
        ({"bars": {"file": "bars.npz", "classes": 3, "task": "x"}}, "datasets.*unknown key 'task'"),
        ({"bars": {"file": "bars.csv", "classes": 3}}, "datasets.bars.file: 'bars.csv' must end in .npz"),
        ({"bars": {"file": "bars.npz", "classes": 1}}, "datasets.bars.classes: 1 is not between 2 and"),
        ({"bars": {"file": "b.npz", "classes": 3, "brightest": 256}}, "brightest: 256 is not between 1 and 255"),
        ({"SVHN": {"file": "bars.npz", "classes": 3}}, "'SVHN' is the name of a data set that comes with the package"),
        ({"a/b": {"file": "bars.npz", "classes": 3}}, "a name is up to 100 letters"),
        (
            {"bars": {"file": "bars.npz", "classes": 3}, "rods": {"file": "b.npz", "classes": 3}},
            "datasets.rods: no draw and no cube has it as `dataset`; take it out",
        ),
    ],
)
def test_a_bad_declaration_is_one_clear_line(tmp_path, datasets, message):
    write(tmp_path / "bars.npz")
    with pytest.raises(SpecError, match=message) as caught:
        READER.parse(sweep_file(**datasets), str(tmp_path / "sweep.yaml"))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DatasetError, match=r"datasets.bars: .*bars.npz is not there; put the file there, or correct"):
        READER.parse(sweep_file(bars={"file": "bars.npz", "classes": 3}), str(tmp_path / "sweep.yaml"))


def test_networks_are_drawn_for_the_size_of_own_images(tmp_path):
    write(tmp_path / "bars.npz", images=ROWS[:, :5, :5])
    sweep = READER.parse(sweep_file(bars={"file": "bars.npz", "classes": 3}), str(tmp_path / "sweep.yaml"))
    (info,) = sweep.own_datasets()
    drawn = list(sweep.experiments())
    assert [(one.dataset, images_of(one), one.fc_filters[-1]) for one in drawn] == [("bars", info, 3)] * 2
    assert all(one.conv_kernels[0] <= 5 and NN_LIFESPANS.trainer.can_build(one) for one in drawn)
    assert all(one in sweep for one in drawn)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the file of the study's page, and its sweep file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUTTER_ETL_STUDY", "nn_lifespans")
    (tmp_path / "shapes.yaml").write_text(SPEC)
    write(tmp_path / "shapes.npz")
    return tmp_path


def test_the_plan_shows_what_was_read(here, run):
    code, out, err = run("plan", "store", "--spec", "shapes.yaml")
    assert (code, err) == (0, "")
    assert re.search(
        r"shapes: 48 images to learn from and 12 to measure on, 10 x 10 in 3 classes, content [0-9a-f]{12}\n"
        r"  train: 48 images, 16 of a class\n  validation: 12 images, 4 of a class\n",
        out,
    )
    assert not (here / "store").exists()
    code, out, _ = run("plan", "store", "--spec", "shapes.yaml", "--json")
    (told,) = json.loads(out)["own_datasets"]
    assert (told["dataset"], told["train"], told["parts"][1]) == (
        "shapes",
        48,
        {"part": "validation", "images": [4, 4, 4]},
    )
    write(here / "shapes.npz", labels=np.zeros(60, int))
    code, _, err = run("plan", "store", "--spec", "shapes.yaml")
    assert (code, "shapes: no train image is of class 1, 2" in err) == (0, True)
    campaign = be.plan("store", spec="shapes.yaml")
    assert [one.part for one in campaign.own_columns["shapes"]] == ["train", "validation"]
    assert "no validation image is of class 1, 2" in campaign._repr_html_()


def test_the_whole_way(here, run):
    """Trained from a file, by its copy where that is gone, summarised, published, and brought into another store."""
    for arguments in (
        ("train", "store", "--spec", "shapes.yaml", "--workers", "1", "--quiet"),
        ("summarize", "store", "--quiet"),
        ("export", "store", "out", "--all", "--author", "Lovelace, Ada", "--quiet"),
        ("verify", "store", "--quiet"),
        ("verify", "out", "--quiet"),
        ("import", "store", "again", "--quiet"),
        ("verify", "again", "--quiet"),
    ):
        code, out, err = run(*arguments)
        assert code == 0, (arguments, out, err)
    runs = be.read_runs("store").compute()
    assert set(runs["dataset"]) == {"shapes"}
    assert all("data.sha256" in json.loads(one) for one in runs["command"])
    assert {json.loads(one)["data"] for one in runs["environment"]} == {
        json.loads(runs["command"].iloc[0])["data.sha256"]
    }
    assert "| `dataset` | `shapes` |" in (here / "out/README.md").read_text()
    manifest = json.loads((here / "out/manifest.json").read_text())
    assert all(one["values"]["dataset"] == ["shapes"] for one in manifest["directories"])
    (here / "shapes.npz").rename(here / "gone.npz")
    code, out, err = run("train", "store", "--spec", "shapes.yaml", "--repetitions", "3", "--workers", "1", "--quiet")
    assert (code, err) == (0, ""), err
    assert len(be.read_runs("store").compute()) == len(runs) // 2 * 3
    code, out, err = run("train", "again", "--sweep", "shapes", "--quiet")
    assert (code, "nothing to do" in out) == (0, True)
    write(here / "shapes.npz", labels=np.arange(60) // 20)
    code, out, err = run("train", "store", "--spec", "shapes.yaml")
    assert (code, out) == (1, "")
    assert re.search(r"shapes.npz is not what store has runs or a copy of as 'shapes': train label 2 differs; ", err)


def test_more_runs_like_one_on_own_images_and_never_more_than_asked_for(here):
    be.train("store", spec="shapes.yaml", workers=1)
    one = be.read_runs("store").compute().iloc[0]
    for repetitions, landed in ((3, 1), (4, 1), (4, 0)):
        assert be.plan("store", like=one["run_id"], repetitions=repetitions).plan.missing == landed
        assert be.train("store", like=one["run_id"], repetitions=repetitions, workers=1).landed == landed
    runs = be.read_runs("store").compute()
    assert sorted(runs[runs["experiment_id"] == one["experiment_id"]]["repetition"]) == [0, 1, 2, 3]
    with pytest.raises(SelectError, match="--like chooses an experiment by itself; leave --sweep, --spec and"):
        be.train("store", like=one["run_id"], sweep="shapes")


@pytest.mark.parametrize("damage", ["other content", "other form"])
def test_damage_of_a_copy_is_found(here, run, damage):
    be.train("store", spec="shapes.yaml", workers=1)
    path = here / "store/datasets/shapes.parquet"
    table, footer = pq.read_table(path), pq.read_metadata(path).metadata
    name = "label" if damage == "other content" else "image"
    column = pa.array([0] * 60) if name == "label" else table["image"].cast(pa.binary())
    other = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(other.replace_schema_metadata({b"butter_etl.dataset": footer[b"butter_etl.dataset"]}), path)
    code, out, _ = run("verify", "store", "--quiet")
    assert code == 1
    found = "has content" if name == "label" else "images are binary, not of 100 bytes"
    assert re.search(rf"wrong-data.*datasets/shapes.parquet: .*{found}", out, flags=re.DOTALL)
