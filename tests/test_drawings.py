"""Pictures that a study declares are of what the rows say, and never of values that cannot be compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from butter_etl.errors import UsageError
from butter_etl.studies.capacity.figures import FIGURES
from butter_etl.studies.capacity.study import RNN_CAPACITY
from butter_etl.studies.figures import Along, Drawing, OverRuns, Spread
from butter_etl.views.drawings import draw

LOSS, BITS, MINIMA, SPREAD = (FIGURES.drawings[name] for name in ("loss", "bits", "minima", "spread"))
CELL = {"task_type": "text8", "architecture": "gru", "n_layers": 1, "max_params": 10_000, "unroll_steps": 50}


def cells(*rows):
    """Return summaries of cells, of which only what differs is said."""
    schema = RNN_CAPACITY.summary
    numbered = [{**CELL, "experiment_id": number, **row} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, schema)


def trials(*rows):
    """Return runs, each of the loss that it ended with."""
    made = [{**CELL, "experiment_id": 1, **row, "eval_loss": [9.0, row["eval_loss"]]} for row in rows]
    return pa.Table.from_pylist(made, RNN_CAPACITY.runs)


def picture(drawing, rows, **options):
    return draw(RNN_CAPACITY, drawing, rows, **options)


def lines(axes):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()}


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


# --- along a parameter -------------------------------------------------------------------------------------------


def test_a_value_is_drawn_along_its_parameter_in_order():
    some = [{"max_params": 40_000, "best_eval_loss": 1.5}, {"max_params": 10_000, "best_eval_loss": 2.0}]
    more = [
        {"n_layers": 2, "max_params": 20_000, "best_eval_loss": 1.0},
        {"architecture": "lstm", "best_eval_loss": 3.0},
    ]
    figure = picture(LOSS, cells(*some, *more))
    assert titles(figure) == ["gru", "lstm"]
    assert lines(figure.axes[0]) == {"1": ([10_000, 40_000], [2.0, 1.5]), "2": ([20_000], [1.0])}
    assert lines(figure.axes[1]) == {"1": ([10_000], [3.0])}
    assert figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    (legend,) = figure.legends
    assert [one.get_text() for one in legend.get_texts()] == ["1", "2"]


def test_of_several_experiments_at_a_place_the_best_is_drawn_and_it_is_said():
    some = [{"search": "gp", "best_eval_loss": 2.0}, {"search": "random", "best_eval_loss": 1.0}]
    figure = picture(LOSS, cells(*some))
    assert lines(figure.axes[0])["1"] == ([10_000], [1.0])
    assert "of several experiments the one that is lowest" in figure.get_suptitle()
    bits = [{"num_params": 9_990, "best_bits_per_parameter": one, "task_type": "per_cap"} for one in (4.0, 5.0)]
    figure = picture(BITS, cells(*bits))
    assert lines(figure.axes[0])["gru"] == ([9_990], [5.0])
    assert "the one that is highest" in figure.get_suptitle()
    assert "several" not in picture(LOSS, cells(some[0])).get_suptitle()


def test_values_that_are_not_there_are_left_out():
    some = [
        {"best_eval_loss": None},
        {"max_params": 20_000, "best_eval_loss": np.inf},
        {"max_params": 40_000, "best_eval_loss": 1.0},
    ]
    assert lines(picture(LOSS, cells(*some)).axes[0])["1"] == ([40_000], [1.0])
    with pytest.raises(UsageError, match="nothing to draw: best_eval_loss is nowhere known in the selection"):
        picture(LOSS, cells(*some[:2]))
    with pytest.raises(UsageError, match="the selection has no summaries"):
        picture(LOSS, cells())


def test_different_tasks_are_never_in_one_panel():
    some = [
        {"task_type": task, "unroll_steps": steps, "best_eval_loss": 1.0}
        for task, steps in (("text8", 50), ("rcf", 50), ("rcf", 60))
    ]
    assert titles(picture(LOSS, cells(*some))) == [
        "rcf, unrolled steps 50, gru",
        "rcf, unrolled steps 60, gru",
        "text8, unrolled steps 50, gru",
    ]


def test_what_a_picture_is_along_may_differ():
    unrolled = FIGURES.drawings["unrolled"]
    some = [{"task_type": "per_cap", "unroll_steps": steps, "best_bits_per_parameter": 5.0} for steps in (3, 5, 12)]
    figure = picture(unrolled, cells(*some))
    assert lines(figure.axes[0])["gru"] == ([3, 5, 12], [5.0] * 3)
    assert len(figure.axes) == 1


def test_curves_and_panels_may_change_places():
    some = [
        {"architecture": one, "n_layers": depth, "best_eval_loss": 1.0} for one in ("gru", "rnn") for depth in (1, 4)
    ]
    figure = picture(LOSS, cells(*some), by="architecture")
    assert titles(figure) == ["layers 1", "layers 4"]
    assert set(lines(figure.axes[0])) == {"gru", "rnn"}
    other = picture(LOSS, cells(*some), by="search")
    assert titles(other) == ["gru", "rnn"]
    assert set(lines(other.axes[0])) == {"none"}
    with pytest.raises(UsageError, match="unknown parameter 'depth'"):
        picture(LOSS, cells(*some), by="depth")


def test_more_than_can_be_told_apart_is_refused():
    tasks = [
        {"task_type": one, "architecture": two, "best_eval_loss": 1.0} for one in ("rcf", "text8") for two in "abcd"
    ]
    with pytest.raises(
        UsageError, match="8 combinations of task_type, architecture, more than 6 panels; select less, such"
    ):
        picture(LOSS, cells(*tasks))
    depths = [{"n_layers": depth, "best_eval_loss": 1.0} for depth in range(1, 14)]
    with pytest.raises(UsageError, match="n_layers has 13 values in the selection, more than 12 curves"):
        picture(LOSS, cells(*depths))


@pytest.mark.parametrize(("values", "scale"), [((1.0, 10.0), "log"), ((1.0, 2.0), "linear"), ((-10.0, -1.0), "linear")])
def test_wide_spans_are_on_a_log_scale(values, scale):
    some = [{"max_params": 10_000 * (1 + one), "best_eval_loss": value} for one, value in enumerate(values)]
    assert picture(LOSS, cells(*some)).axes[0].get_yscale() == scale


# --- over runs ---------------------------------------------------------------------------------------------------


def test_lists_are_drawn_over_runs():
    some = [{"running_min": [np.nan, 3.0, 1.0]}, {"architecture": "rnn", "running_min": [2.0]}]
    figure = picture(MINIMA, cells(*some))
    drawn = lines(figure.axes[0])
    assert drawn["gru"][0] == [1, 2, 3]
    np.testing.assert_array_equal(drawn["gru"][1], [np.nan, 3.0, 1.0])
    assert drawn["rnn"] == ([1], [2.0])
    assert figure.axes[0].get_xlabel() == "trials"


def test_of_several_lists_the_one_that_ends_best_is_drawn():
    lists = [[5.0, 2.0], [4.0, 1.0], [0.5, np.nan], [np.nan], None]
    figure = picture(MINIMA, cells(*({"search": str(at), "running_min": one} for at, one in enumerate(lists))))
    np.testing.assert_array_equal(lines(figure.axes[0])["gru"][1], [0.5, np.nan])
    assert "the one that is lowest" in figure.get_suptitle()
    with pytest.raises(UsageError, match="no finite values"):
        picture(MINIMA, cells({"running_min": [np.nan]}))


# --- spread ------------------------------------------------------------------------------------------------------


def boxes(axes):
    return [(round(one.get_y(), 9), round(one.get_y() + one.get_height(), 9)) for one in axes.patches]


def medians(axes):
    return [float(path[0][1]) for one in axes.collections for path in one.get_segments()]


def test_the_spread_of_runs_counts_those_that_diverged_as_the_worst():
    losses = [1.0, 2.0, 3.0, 4.0, np.inf]
    figure = picture(SPREAD, trials(*({"eval_loss": one} for one in losses)))
    assert (boxes(figure.axes[0]), medians(figure.axes[0])) == ([(2.0, 4.0)], [3.0])
    (label,) = [one.get_text() for one in figure.axes[0].get_xticklabels()]
    assert label == "gru\n5 runs\n20.0%\nnot finite"
    assert sorted(figure.axes[0].get_lines()[0].get_ydata()) == losses[:4]


def test_quartiles_that_are_not_finite_reach_to_the_worst_that_is():
    figure = picture(SPREAD, trials(*({"eval_loss": one} for one in (1.0, 2.0, np.inf, np.nan, np.inf))))
    assert (boxes(figure.axes[0]), medians(figure.axes[0])) == ([(2.0, 2.0)], [])
    higher = replace(SPREAD, higher_is_better=True)
    figure = picture(higher, trials(*({"eval_loss": one} for one in (1.0, 2.0, 3.0, 4.0, np.nan))))
    assert (boxes(figure.axes[0]), medians(figure.axes[0])) == ([(1.0, 3.0)], [2.0])


def test_runs_of_several_experiments_are_said_to_be():
    rows = trials({"eval_loss": 1.0}, {"eval_loss": 2.0, "experiment_id": 2}, {"eval_loss": 3.0, "architecture": "rnn"})
    labels = [one.get_text() for one in picture(SPREAD, rows).axes[0].get_xticklabels()]
    assert labels[0].startswith("gru\n2 experiments\n2 runs")
    assert labels[1].startswith("rnn\n1 run\n")


def test_every_declared_picture_is_of_columns_that_there_are():
    for drawing in FIGURES.drawings.values():
        schema = RNN_CAPACITY.runs if isinstance(drawing, Spread) else RNN_CAPACITY.summary
        names = {drawing.column, drawing.by, drawing.apart} | ({drawing.along} if isinstance(drawing, Along) else set())
        assert names <= set(schema.names)
        assert isinstance(drawing, Along | OverRuns | Spread)
        assert type(drawing) is not Drawing
