"""Pictures show what the frames hold; what cannot be drawn is one line."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import butter_etl as be
from butter_etl.cli.group import main
from butter_etl.errors import StaleSummaryWarning, UsageError
from butter_etl.store.store import Store
from butter_etl.studies.butter.study import BUTTER
from butter_etl.studies.butter.sweeps import make_experiment
from butter_etl.studies.selection import Choice
from butter_etl.studies.study import Points
from butter_etl.summarize import plan_summaries, run_summaries
from butter_etl.views import draw_picture, page_data, plot, selected
from tests.strategies import land

#: One of the experiments.
CHOSEN = ("--where", "size=128", "--where", "depth=3")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four experiments of the primary sweep, three repetitions each, whose losses fall with size."""
    store = Store.create(tmp_path_factory.mktemp("plot") / "store")
    for size in (64, 128):
        for depth in (2, 3):
            spec = make_experiment(dataset="529_pollen", size=size, depth=depth)
            histories = {
                (name, repetition): [size / (epoch * depth) + repetition for epoch in range(1, 51)]
                for name in ("val_loss", "val_accuracy")
                for repetition in range(3)
            }
            land(store, spec, BUTTER.fixed_ids.id_of(spec), [0, 1, 2], epochs=50, histories=histories)
    run_summaries(plan_summaries(store), store)
    return store


@pytest.fixture(scope="module")
def summary(store):
    return plot.summary_table(str(store))


def rows(summary, **values):
    """The summary's rows where columns have these values."""
    kept = [
        all(row[name] == value for name, value in values.items()) for row in summary.select(list(values)).to_pylist()
    ]
    return summary.filter(kept)


def test_curves_are_the_medians_and_the_quartiles(summary):
    figure = plot.learning_curves(rows(summary, depth=2), by="size")
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "epoch", "test loss")
    for line, size in zip(axes.lines, (64, 128), strict=True):
        assert line.get_label() == str(size)
        epochs, losses = line.get_data()
        np.testing.assert_allclose(epochs, np.arange(1, 51))
        np.testing.assert_allclose(losses, size / (2 * epochs) + 1, rtol=1e-6)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(64 / (2 * 50) + 0.5)
    assert "529_pollen" in axes.get_title(loc="left")


def test_of_several_experiments_the_best_is_drawn(summary):
    (axes,) = plot.learning_curves(summary, by="size").axes
    assert [line.get_label() for line in axes.lines] == [
        "64 (best of 2: depth 3)",
        "128 (best of 2: depth 3)",
    ]
    assert "of several experiments the one whose median ends lowest" in axes.get_title(loc="left")
    np.testing.assert_allclose(axes.lines[0].get_ydata()[-1], 64 / (50 * 3) + 1, rtol=1e-6)
    (axes,) = plot.learning_curves(summary, by="size", series="test_accuracy").axes
    np.testing.assert_allclose(axes.lines[0].get_ydata()[-1], 64 / (50 * 2) + 1, rtol=1e-6)
    assert axes.lines[0].get_label() == "64 (best of 2: depth 2)"
    assert "of several experiments the one whose median ends highest" in axes.get_title(loc="left")
    (axes,) = plot.learning_curves(rows(summary, depth=2), by="size").axes
    assert "several" not in axes.get_title(loc="left")
    (axes,) = plot.learning_curves(summary).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["best of 4: depth 3, size 64"]


def test_a_legend_names_a_few_parameters_of_the_best(summary):
    changed = summary
    for name in ("batch_size", "learning_rate", "label_noise"):
        place, field = summary.column_names.index(name), summary.schema.field(name)
        values = pa.array(range(1, summary.num_rows + 1)).cast(field.type)
        changed = changed.set_column(place, name, values)
    (axes,) = plot.learning_curves(changed).axes
    (text,) = axes.get_legend().get_texts()
    assert text.get_text().startswith("best of 4: ")
    assert text.get_text().endswith(", …")
    assert text.get_text().count(",") == 3
    axes.figure.canvas.draw()
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0  # beneath: it has two lines
    (axes,) = plot.learning_curves(rows(summary, depth=2), by="size").axes
    axes.figure.canvas.draw()
    assert axes.get_legend().get_window_extent().y0 > axes.get_window_extent().y0


def beside(summary, **others):
    """The summary's rows, and again as experiments that have other values."""
    again = summary
    for name, value in others.items():
        place, kind = summary.column_names.index(name), summary.schema.field(name).type
        again = again.set_column(place, name, pa.array([value] * summary.num_rows, kind))
    return pa.concat_tables([summary, again])


def labels(axes):
    return [line.get_label() for line in axes.lines]


def test_data_sets_are_drawn_in_panels_of_their_own(summary):
    """Three data sets: no curve of one is in the panel of another, and the best is chosen within each."""
    pollen = rows(summary, depth=2)
    three = pa.concat_tables(
        [pollen, beside(pollen, dataset="banana").slice(2), beside(pollen, dataset="mnist").slice(2)]
    )
    figure = plot.learning_curves(three, by="size")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["529_pollen", "banana", "mnist"]
    for axes in figure.axes:
        assert labels(axes) == ["64", "128"]
        assert axes.get_legend().get_title().get_text() == "size"
    colours = [[line.get_color() for line in axes.lines] for axes in figure.axes]
    assert colours[0] == colours[1] == colours[2]
    assert "depth 2" in figure.get_suptitle()
    assert "several" not in figure.get_suptitle()
    for by in (None, "dataset"):
        figure = plot.learning_curves(three, by=by)
        assert [labels(axes) for axes in figure.axes] == [["best of 2: size 64"]] * 3
        assert "of several experiments the one whose median ends lowest" in figure.get_suptitle()
    many = pa.concat_tables([three, *(beside(pollen, dataset=f"data {number}").slice(2) for number in range(6))])
    with pytest.raises(
        UsageError,
        match="9 combinations of dataset, between which nothing can be compared, more than 6 panels; select less, such",
    ):
        plot.learning_curves(many, by="size")


def test_whatever_a_study_declares_is_drawn_apart(summary):
    """As of a study whose losses compare only where optimizers are the same too, since each has a loss of its own."""
    study = replace(BUTTER, figures=replace(BUTTER.figures, comparable=("dataset", "optimizer")))
    pollen = rows(summary, depth=2)
    two = pa.concat_tables([beside(pollen, optimizer=name).slice(2) for name in ("SGD", "adam")])
    figure = plot.learning_curves(two, by="size", study=study)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["SGD", "adam"]
    both = pa.concat_tables([two, beside(two, dataset="banana").slice(4)])
    figure = plot.learning_curves(both, by="size", study=study)
    titles = ["529_pollen, SGD", "529_pollen, adam", "banana, SGD", "banana, adam"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == titles
    with pytest.raises(UsageError, match=r"2 values of optimizer, between which nothing can be compared; select one"):
        plot.best_map(two, study=study)


def test_a_map_of_several_data_sets_is_refused(summary):
    both = beside(summary, dataset="banana")
    with pytest.raises(UsageError, match=r"2 values of dataset, .*; select one, such as --where dataset=529_pollen"):
        plot.best_map(both)


@pytest.mark.parametrize(
    ("points", "expected", "scale"),
    [
        (Points("step", first=0), list(range(50)), "linear"),
        (Points("step", first=100, step=50), [100 + 50 * place for place in range(50)], "log"),
        (Points("hour", column="num"), [3.0] * 50, "log"),
        (Points("hour", column="no_such_column"), list(range(1, 51)), "log"),
    ],
)
def test_measuring_points_are_numbered_or_named(summary, points, expected, scale):
    study = replace(BUTTER, points=points)
    (axes,) = plot.learning_curves(rows(summary, depth=2), by="size", study=study).axes
    assert (axes.get_xscale(), axes.get_xlabel()) == (scale, points.name)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), expected)


def test_a_study_without_maps_says_so(summary):
    study = replace(BUTTER, figures=replace(BUTTER.figures, map_axes=None))
    with pytest.raises(UsageError, match="the study butter declares no parameters for maps"):
        plot.best_map(summary, study=study)


def test_a_map_is_along_what_a_study_declares(summary):
    along = (("depth", "layers"), ("shape", "form"))
    study = replace(BUTTER, figures=replace(BUTTER.figures, map_axes=along, higher_is_better=frozenset({"test_loss"})))
    figure = plot.best_map(summary, study=study)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layers", "form")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rectangle"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[128 / 2 + 1, 128 / 3 + 1]], rtol=1e-6)


def test_the_map_has_the_best_of_each_size_and_depth(summary):
    figure = plot.best_map(summary)
    image = figure.axes[0].images[0].get_array()
    expected = [[size / (50 * depth) + 1 for size in (64, 128)] for depth in (2, 3)]
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["2", "3"]
    assert sorted(text.get_text() for text in figure.axes[0].texts) == sorted(
        f"{v:.3g}" for row in expected for v in row
    )


@pytest.fixture
def stale(tmp_path):
    """A store with two experiments, one of which has a run that its summary lacks."""
    store = Store.create(tmp_path / "store")
    specs = [make_experiment(dataset=name, size=64, depth=2) for name in ("529_pollen", "banana")]
    for spec in specs:
        land(store, spec, BUTTER.fixed_ids.id_of(spec), [0, 1], epochs=50)
    run_summaries(plan_summaries(store), store)
    land(store, specs[0], BUTTER.fixed_ids.id_of(specs[0]), [2], epochs=50)
    return store


def test_summaries_that_miss_runs_are_told_wherever_they_are_shown(stale, tmp_path, capsys):
    said = "the summaries of 1 experiment are missing or out of date; run `butter-etl summarize`"
    with pytest.warns(StaleSummaryWarning, match=said):
        plot.summary_table(str(stale))
    plot.summary_table(str(stale), where=["dataset=banana"])  # nothing of this is out of date
    for arguments, wanted in (
        (["plot", str(stale), str(tmp_path / "curves.png")], said),
        (["plot", str(stale), str(tmp_path / "curves.png"), "--where", "dataset=banana"], None),
        (["plot", str(stale), str(tmp_path / "map.png"), "--where", "dataset=529_pollen", "--kind", "map"], said),
        (["plot", str(stale), str(tmp_path / "runs.png"), "--where", "dataset=529_pollen", "--kind", "runs"], None),
        (["report", str(stale), str(tmp_path / "report.html")], said),
        (["report", str(stale), str(tmp_path / "report.html"), "--where", "dataset=banana"], None),
    ):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        assert done.value.code in (0, None)
        assert capsys.readouterr().err == (f"butter-etl: warning: {wanted}\n" if wanted else "")
    assert page_data(stale, Choice())["stale"] == said
    run_summaries(plan_summaries(stale), stale)
    plot.summary_table(str(stale))
    assert page_data(stale, Choice())["stale"] is None


def test_repetitions_are_drawn_one_by_one(store):
    choice = Choice(where=("size=64", "depth=2"))
    runs = plot.selected(str(store), choice, runs=True)
    (axes,) = plot.repetitions(runs).axes
    assert len(axes.lines) == 3
    assert axes.lines[2].get_ydata()[0] == 64 / 2 + 2
    with pytest.raises(UsageError, match="is of one experiment; the selection has 4"):
        plot.repetitions(plot.selected(str(store), Choice(), runs=True))


def test_a_sweep_selects(store):
    assert plot.selected(str(store), Choice(sweeps=("primary",))).num_rows == 4
    assert plot.selected(str(store), Choice(sweeps=("30k_epoch",))).num_rows == 0


@pytest.mark.parametrize("name", ["curves.png", "curves.pdf", "curves.svg"])
def test_the_command_draws_files(store, tmp_path, name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plot", str(store), str(tmp_path / name), "--by", "size"])
    assert stop.value.code == 0, capsys.readouterr().err
    head = (tmp_path / name).read_bytes()[:5]
    assert head == {"png": b"\x89PNG\r", "pdf": b"%PDF-", "svg": b"<?xml"}[name[-3:]]
    if name.endswith("png"):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 600


def test_a_network_is_drawn_as_a_row_of_layers(store, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plot", str(store), str(tmp_path / "x.png"), "--kind", "network", *CHOSEN])
    assert stop.value.code == 0, capsys.readouterr().err
    with Image.open(tmp_path / "x.png") as image:
        assert min(image.size) > 400
    (row,) = selected(str(store), Choice(where=tuple(CHOSEN[1::2]))).to_pylist()
    picture = draw_picture(str(store), Choice(where=tuple(CHOSEN[1::2])), kind="network")
    (axes,) = picture.figure.axes
    said = [text.get_text() for text in axes.texts]
    assert said[::2] == ["inputs", *["dense"] * (len(row["widths"]) - 1), "output"]
    assert [text.split("\n")[0] for text in said[1::2]] == ["4", *map(str, row["widths"])]
    assert axes.get_title(loc="left") == "529_pollen rectangle size 128 depth 3"


def test_of_what_no_layers_are_known_nothing_is_drawn():
    with pytest.raises(UsageError, match="the layers of this network cannot be told"):
        plot.network(())


def test_curves_can_be_told_apart_in_grey(summary):
    (axes,) = plot.learning_curves(summary, by="size").axes
    from matplotlib.colors import to_rgb

    greys = [float(np.dot(to_rgb(line.get_color()), (0.299, 0.587, 0.114))) for line in axes.lines]
    assert greys == sorted(greys)
    assert np.diff(greys).min() > 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.gif"], "pictures end in one of .pdf, .png, .svg"),
        (["no/folder/x.png"], "cannot be written: No such file or directory"),
        (["x.png", "--by", "siz"], "unknown parameter 'siz' (did you mean 'size'?)"),
        (["x.png", "--series", "test_los"], "unknown series 'test_los' (did you mean 'test_loss'?)"),
        (["x.png", "--where", "size=32"], "nothing to draw"),
        (["x.png", "--kind", "map", "--where", "size=32"], "nothing to draw"),
        (["x.png", "--kind", "runs"], "the selection has 4"),
        (["x.png", "--kind", "network"], "a picture of a network is of one experiment; the selection has 4"),
        (["x.png", "--kind", "map", "--by", "size"], "--by goes with --kind curves"),
        (["x.png", "--repetitions", "3"], "pictures are of all repetitions"),
        (["x.png", "--kind", "map", "--interval", "each"], "--interval goes with --kind curves"),
        (["x.png", "--level", "0.9"], "--level goes with --interval"),
        (["x.png", "--interval", "band", "--level", "1"], "confidence levels lie between"),
        (["x.png", "--interval", "each"], "no intervals at 0.95; run `butter-etl summarize --precision --level 0.95`"),
        (["x.png", "--interval", "each", "--series", "train_loss"], "has intervals of test_loss, not of train_loss"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(store, tmp_path, arguments, message, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["plot", str(store), *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == (1 if "cannot be written" in message else 2)
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("interval", "words"), [("each", "90 % interval at each epoch"), ("band", "90 % band over")])
def test_intervals_are_drawn_around_medians(tmp_path, interval, words):
    store = Store.create(tmp_path / "store")
    spec = BUTTER.fixed_ids.experiment(0)
    land(store, spec, 0, range(10), epochs=5)
    with pytest.raises(UsageError, match="has no intervals"):
        be.plot(tmp_path / "store", interval=interval)
    be.summarize_store(tmp_path / "store", levels=[0.9])
    figure = be.plot(tmp_path / "store", interval=interval, level=0.9, out=tmp_path / "x.svg").figure
    (axes,) = figure.axes
    (row,) = be.read_precision(tmp_path / "store").compute(scheduler="synchronous").to_dict("records")
    name = "median" if interval == "each" else "band"
    bounds = axes.collections[0].get_paths()[0].get_extents()
    assert bounds.y0 == pytest.approx(min(row[f"test_loss_{name}_low"]))
    assert bounds.y1 == pytest.approx(max(row[f"test_loss_{name}_high"]))
    assert words in axes.get_title(loc="left")
    land(store, spec, 0, range(10, 11), epochs=5)
    with pytest.warns(StaleSummaryWarning, match=r"intervals of 1 experiment are .*--precision --level 0.9"):
        be.plot(tmp_path / "store", interval=interval, level=0.9)


def test_unknown_intervals_are_refused(store):
    with pytest.raises(UsageError, match="unknown interval 'all'"):
        be.plot(store.location.root, interval="all")
    with pytest.raises(UsageError, match="interval='each' goes with curves"):
        be.plot(store.location.root, kind="map", interval="each")
