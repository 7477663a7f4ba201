from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from optbench.report import plots
from optbench.report.across import across
from optbench.report.leaderboard import leaderboards
from optbench.report.plots.cost import pareto_front
from optbench.report.style import line_styles, short_labels
from optbench.stats.families import Settings, compare_family
from optbench.task import Metrics
from tests.report.conftest import ODD_NAMES

TEST_ACCURACY, VAL_ACCURACY = (Metrics()[f"{part}_accuracy"] for part in ("test", "val"))


@pytest.fixture
def parts(two_workloads):
    results, suite, _ = two_workloads
    boards = leaderboards(results, suite)
    board = boards[0]
    return {
        "board": board,
        "epochs": results.epochs[results.epochs["workload"] == board.workload],
        "trials": results.trials[results.trials["workload"] == board.workload],
        "across": across(boards, suite)[0],
    }


def thick_lines(axes):
    return {line.get_label(): line for line in axes.lines if line.get_linewidth() == 2}


def test_loss_curves_show_medians_seeds_and_bands(parts):
    figure = plots.loss_curves(parts["epochs"], title="t")
    left, right = figure.axes
    assert left.get_title() == "training loss"
    assert right.get_title() == "validation loss"
    assert left.get_yscale() == "log"
    lines = thick_lines(left)
    assert set(lines) == {"wame", "adam", "sgd"}
    thin = [part for part in left.collections if isinstance(part, LineCollection)]
    assert sum(len(part.get_segments()) for part in thin) == 18
    assert len(left.collections) - len(thin) == 3
    mine = parts["epochs"][parts["epochs"]["optimizer"] == "adam"]
    medians = mine.groupby("epoch")["train_loss"].median()
    assert lines["adam"].get_ydata() == pytest.approx(medians.to_numpy())
    assert {text.get_text() for text in figure.legends[0].texts} == {"wame", "adam", "sgd"}


def test_curves_against_time_have_the_median_time_of_each_epoch(parts):
    figure = plots.loss_curves(parts["epochs"], title="t", against="seconds")
    line = thick_lines(figure.axes[0])["adam"]
    mine = parts["epochs"][parts["epochs"]["optimizer"] == "adam"]
    assert line.get_xdata() == pytest.approx(mine.groupby("epoch")["seconds"].median().to_numpy())
    assert figure.axes[0].get_xlabel() == "training time, s"


def test_a_diverged_seed_counts_as_infinitely_bad_from_where_it_ended(parts):
    epochs = parts["epochs"][parts["epochs"]["optimizer"] == "wame"].copy()
    ended = list(dict.fromkeys(epochs["trial_id"]))[:4]
    cut = epochs[~(epochs["trial_id"].isin(ended) & (epochs["epoch"] > 2))]
    line = thick_lines(plots.loss_curves(cut, title="t", diverged=ended).axes[0])["wame"]
    assert np.isfinite(line.get_ydata()[:3]).all()
    assert np.isnan(line.get_ydata()[3:]).all()


def test_accuracy_panel_has_a_dot_a_trial_and_counts_the_diverged(parts):
    figure = plots.accuracy_curves(parts["epochs"], parts["trials"], title="t", metric=TEST_ACCURACY)
    left, right = figure.axes
    assert left.get_title() == "val accuracy, %"
    assert sum(len(line.get_ydata()) for line in right.lines) == 6 + 6 + 4
    assert [label.get_text() for label in right.get_xticklabels()] == ["wame", "adam", "sgd"]
    assert any(text.get_text() == "2 diverged" for text in right.texts)


def test_paired_differences_are_those_of_the_blocks(parts):
    board = parts["board"]
    axes = plots.paired_differences(board).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [row.optimizer for row in board.rows if row.comparison]
    table = board.table
    expected = (table["adam"] - table["wame"]) * 100
    place = labels.index("adam")
    drawn = [
        line.get_xdata()[0]
        for line in axes.lines
        if len(line.get_xdata()) == 1 and 0.1 < line.get_ydata()[0] - place < 0.4
    ]
    assert sorted(drawn) == pytest.approx(sorted(expected))
    words = [text.get_text() for text in axes.texts]
    assert any("2 diverged" in text for text in words)
    assert any(text.startswith(("better, p 0.062", "inconclusive")) for text in words)


def test_critical_difference_shows_every_mean_rank(parts):
    family = parts["board"].all_pairs
    axes = plots.critical_difference(family, title="t").axes[0]
    text = " ".join(t.get_text() for t in axes.texts)
    for name, rank in zip(family.optimizers, family.friedman.mean_ranks, strict=True):
        assert name in text
        assert f"{rank:.2f}" in text
    assert f"critical difference {family.critical_difference:.2f}" in text


def test_bars_join_ranks_within_the_critical_difference():
    from optbench.report.plots.comparison import _bars

    assert _bars(np.array([1.0, 1.5, 3.0, 3.2]), 0.6) == [(0, 1), (2, 3)]
    assert _bars(np.array([1.0, 2.0, 3.0]), 1.0) == [(0, 1), (1, 2)]
    assert _bars(np.array([1.0, 3.0]), 0.5) == []


def test_the_heatmap_is_antisymmetric():
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(i, 0.1, 12) for i in range(3)])
    family = compare_family(table, ["a", "b", "c"], settings=Settings(None, "all"), scope="t")
    axes = plots.verdict_heatmap(family, title="t").axes[0]
    cells = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(cells) == 6
    signs = {(round(t.xy[1] + 0.12), t.xy[0]): t.get_text() for t in axes.texts if len(t.get_text()) == 1}
    for (row, column), sign in signs.items():
        assert {sign, signs[column, row]} == {"+", "−"}


def test_success_rises_to_the_share_that_reached_the_target(parts):
    figure = plots.success_over_time(parts["board"])
    lines = thick_lines(figure.axes[0])
    assert len(lines) == 3
    ends = sorted(float(line.get_ydata()[-1]) for line in lines.values())
    shares = sorted(s.successes / s.n for s in parts["board"].times.summaries)
    assert ends == pytest.approx(shares)
    assert any("(0 of 6)" in t.get_text() or "of 6" in t.get_text() for t in figure.legends[0].texts)


def test_profiles_begin_at_the_share_of_fastest(parts):
    figure = plots.performance_profiles(parts["across"])
    starts = [line.get_ydata()[0] for line in figure.axes[0].lines]
    assert len(starts) == 3
    assert max(starts) == 1.0


def test_step_times_are_medians_in_milliseconds(parts):
    axes = plots.step_time_bars(parts["trials"], title="t").axes[0]
    done = parts["trials"][parts["trials"]["status"] == "completed"]
    steps = 1000 * done["step_seconds"] / done["epochs"] / done["steps_per_epoch"]
    medians = steps.groupby(done["optimizer"], sort=False).median()
    bars = [patch.get_width() for patch in axes.patches]
    assert bars == pytest.approx(list(medians))
    assert axes.get_xlabel() == "step, ms"


def test_accuracy_against_time_has_a_large_mark_an_optimizer(parts):
    axes = plots.accuracy_against_time(parts["trials"], title="t", metric=TEST_ACCURACY).axes[0]
    large = [line for line in axes.lines if line.get_markersize() == 10]
    assert len(large) == 3
    assert axes.get_ylabel() == "test accuracy, %"


def test_pareto_front_keeps_what_no_other_beats():
    points = [(3.0, 0.97), (1.0, 0.9), (2.0, 0.89), (2.5, 0.97)]
    assert pareto_front(points, maximise=True) == [(1.0, 0.9), (2.5, 0.97)]
    assert pareto_front(points, maximise=False) == [(1.0, 0.9), (2.0, 0.89)]


def test_tuning_curves_end_at_the_best_result():
    figure = plots.tuning_curves({"adam": [0.1, 0.3, 0.2]}, title="t", metric=VAL_ACCURACY)
    thick = [line for line in figure.axes[0].lines if line.get_linewidth() == 2]
    assert thick[0].get_ydata()[-1] == pytest.approx(30)
    assert plots.tuning_curves({}, title="t", metric=VAL_ACCURACY) is None


def test_learning_rate_sensitivity_marks_where_trials_diverged():
    trials = pd.DataFrame(
        {
            "family": ["adam"] * 4,
            "lr": [0.001, 0.001, 0.01, 0.1],
            "status": ["completed"] * 3 + ["diverged"],
            "test_accuracy": [0.8, 0.9, 0.95, math.nan],
        }
    )
    axes = plots.lr_sensitivity(trials, title="t", metric=TEST_ACCURACY).axes[0]
    (line,) = [line for line in axes.lines if line.get_linewidth() == 2]
    assert list(line.get_xdata()) == [0.001, 0.01]
    assert line.get_ydata() == pytest.approx([85, 95])
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [0.1]
    assert axes.get_xscale() == "log"
    one_rate = trials[trials["lr"] == 0.001]
    assert plots.lr_sensitivity(one_rate, title="t", metric=TEST_ACCURACY) is None


def test_variance_bars_fill_one_hundred_percent():
    rows = [
        {"optimizer": o, "seed_init": i, "seed_order": j, "test_accuracy": 0.9 + i * 0.01 + j * 0.002 * i}
        for o in ("a", "b")
        for i in range(3)
        for j in range(3)
    ]
    axes = plots.variance_bars(pd.DataFrame(rows), title="t", metric=TEST_ACCURACY).axes[0]
    widths = [patch.get_width() for patch in axes.patches]
    assert sum(widths) == pytest.approx(200)
    same = pd.DataFrame(rows).assign(seed_order=lambda f: f["seed_init"])
    assert plots.variance_bars(same, title="t", metric=TEST_ACCURACY) is None


def test_an_optimizer_keeps_its_colour_and_no_two_look_alike():
    few, many = line_styles(["sgd", "mine"]), line_styles(["mine", "adam", "sgd", "other"])
    assert few["sgd"] == many["sgd"]
    styles = line_styles([f"o{i}" for i in range(24)])
    assert len(set(styles.values())) == 24


def test_short_labels_differ_and_hide_nothing():
    names = [*ODD_NAMES, "x" * 199, "x" * 201]
    labels = short_labels(names)
    assert len(set(labels.values())) == len(names)
    assert all(len(text) <= 30 and not text.startswith("_") for text in labels.values())


def test_files_carry_hover_texts_and_odd_names_as_text(parts, tmp_path):
    epochs = parts["epochs"].assign(
        optimizer=parts["epochs"]["optimizer"]
        .astype(str)
        .map(dict(zip(("wame", "adam", "sgd"), ODD_NAMES, strict=False)))
    )
    figure = plots.loss_curves(epochs, title=ODD_NAMES[1])
    paths = plots.save(figure, tmp_path / "a.b")
    assert [path.name for path in paths] == ["a.b.png", "a.b.svg", "a.b.pdf"]
    svg = paths[1].read_text("utf-8")
    assert "<script" not in svg
    assert "<title>&lt;script&gt;alert(1)&lt;/script&gt;: median" in svg
    page = plots.svg_for_page(svg, number=3)
    assert page.startswith("<svg viewBox")
    assert 'id="f3-' in page
    assert "currentColor" in page
