"""The whole procedure on tidy tables: published tables, and a defined answer for every kind of odd input."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from optbench.stats.common import StatsError
from optbench.stats.compare import DOCUMENTED_KEYS, SCHEMA, compare_table, direction_of
from optbench.stats.datasets import collapse, leave_one_out, on_these_datasets
from optbench.stats.families import Settings
from optbench.stats.paired import sign_flip, signed_rank
from tests.stats.published_tables import DEMSAR


def trials(values, *, dataset="mnist", optimizers=("adam", "wame")):
    """One row per trial from a blocks x optimizers table."""
    rows = [
        (dataset, name, seed, value)
        for seed, row in enumerate(values)
        for name, value in zip(optimizers, row, strict=True)
    ]
    return pd.DataFrame(rows, columns=["dataset", "optimizer", "seed", "accuracy"])


def sample(n=11, shift=0.02, seed=0, **more):
    rng = np.random.default_rng(seed)
    base = 0.9 + 0.02 * rng.normal(size=n)
    return trials(np.column_stack([base, base + shift + 0.005 * rng.normal(size=n)]), **more)


def only(result):
    return result.within[0].comparisons[0]


def test_demsar_end_to_end():
    long = DEMSAR.melt("dataset", var_name="optimizer", value_name="auc").assign(seed=0)
    result = compare_table(long, metric="auc", maximise=True)
    family = result.new_datasets
    pair = {(c.candidate, c.baseline): c for c in family.comparisons}["C4.5", "C4.5+m"]
    assert pair.signed_rank.statistic == 12 - 1.5
    assert pair.signed_rank.n_zeros == 2
    assert pair.verdict.word == "worse"
    assert family.n_blocks == 14
    assert round(family.critical_difference, 2) == 1.25
    assert family.means[0] == pytest.approx(DEMSAR["C4.5"].mean())
    assert result.within == ()
    assert any("one trial per dataset" in n for n in result.notes)


def test_two_optimizers_on_one_dataset():
    result = compare_table(sample(), metric="accuracy", baseline="adam")
    c = only(result)
    wide = sample().pivot(index="seed", columns="optimizer", values="accuracy")
    d = (wide["wame"] - wide["adam"]).to_numpy()
    assert c.signed_rank.pvalue == signed_rank(d).pvalue
    assert c.t.pvalue == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert c.verdict.word == "better"
    assert result.new_datasets is None
    assert any("cannot be generalised" in n for n in result.notes)


def test_orientation_swaps_with_the_direction_and_with_the_roles():
    frame = sample()
    assert only(compare_table(frame, metric="accuracy", baseline="wame")).verdict.word == "worse"
    flipped = compare_table(frame, metric="accuracy", baseline="adam", maximise=False)
    assert only(flipped).verdict.word == "worse"
    assert flipped.within[0].means[0] == pytest.approx(frame[frame.optimizer == "adam"].accuracy.mean())


def test_equivalence_needs_a_margin_and_large_p_is_never_called_sameness():
    frame = sample(shift=0.0, seed=4)
    assert only(compare_table(frame, metric="accuracy")).verdict.word == "inconclusive"
    assert only(compare_table(frame, metric="accuracy", margin=0.02)).verdict.word == "equivalent"


def test_five_pairs_say_that_no_test_can_reject():
    c = only(compare_table(sample(n=5), metric="accuracy"))
    assert c.signed_rank.pvalue == 0.0625
    assert c.verdict.word == "inconclusive"
    assert "6 pairs are needed" in c.attainable


def test_diverged_is_an_outcome_and_crashed_is_missing():
    frame = sample(n=8)
    frame["status"] = "completed"
    frame.loc[frame.index[frame.optimizer == "adam"][:3], "status"] = "diverged"
    frame.loc[frame.index[frame.optimizer == "adam"][:3], "accuracy"] = np.nan
    frame.loc[frame.index[frame.optimizer == "wame"][7], "status"] = "crashed"
    result = compare_table(frame, metric="accuracy", baseline="adam")
    c = only(result)
    assert (c.n, c.n_missing, c.n_diverged_baseline) == (7, 1, 3)
    assert c.signed_rank.pvalue == 2 / 2**7
    assert math.isnan(c.mean.estimate)
    assert "diverged" in c.mean.reason
    assert c.verdict.word == "better"
    assert (result.input.diverged, result.input.missing) == (3, 1)
    assert "wame lacks 1 of 8 seeds" in result.within[0].notes


def test_an_infinite_loss_is_a_diverged_trial_and_an_infinite_accuracy_an_error():
    frame = sample(n=6).rename(columns={"accuracy": "loss"})
    frame.loc[0, "loss"] = np.inf
    assert compare_table(frame, metric="loss").input.diverged == 1
    with pytest.raises(StatsError, match=r"row 0 is infinitely good \(inf\)"):
        compare_table(frame, metric="loss", maximise=True)


def test_unequal_seeds_are_paired_by_label_and_counted():
    frame = sample(n=10)
    frame = frame[~((frame.optimizer == "wame") & (frame.seed < 3))]
    c = only(compare_table(frame, metric="accuracy"))
    assert (c.n, c.n_missing) == (7, 3)
    disjoint = sample(n=4)
    disjoint.loc[disjoint.optimizer == "wame", "seed"] += 100
    none = compare_table(disjoint, metric="accuracy")
    assert only(none).n == 0
    assert only(none).verdict.word == "inconclusive"
    assert "no usable pairs" in only(none).verdict.reason


def test_labels_of_seeds_may_be_words():
    frame = sample(n=7)
    named = frame.assign(seed=frame.seed.map(lambda s: f"init{s}/order{s}"))
    assert (
        only(compare_table(named, metric="accuracy")).signed_rank
        == only(compare_table(frame, metric="accuracy")).signed_rank
    )


def test_constant_columns_have_ties_and_no_interval():
    c = only(compare_table(trials([[0.9, 0.9]] * 7), metric="accuracy", margin=0.01))
    assert (c.signed_rank.pvalue, c.signed_rank.n_zeros) == (1.0, 7)
    assert math.isnan(c.mean.low)
    assert "standard deviation is 0" in c.equivalence.reason
    assert c.verdict.word == "inconclusive"
    assert "7 of 7 pairs are equal" in c.attainable


def test_two_rows_are_enough_for_an_answer():
    result = compare_table(trials([[0.9, 0.8]]), metric="accuracy")
    assert result.within == ()
    assert result.new_datasets is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: pd.concat([f, f.iloc[[3]]]), r"\(mnist, wame, 1\) appears 2 times"),
        (lambda f: f[f.optimizer == "adam"], "found only adam; a comparison needs at least 2"),
        (lambda f: f.drop(columns="seed"), "seed not found; found are dataset, optimizer, accuracy"),
        (
            lambda f: f.assign(status="halted"),
            "status: found halted; allowed are completed, diverged, crashed",
        ),
        (lambda f: f.assign(accuracy="high"), "not a number"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.assign(dataset=[None, *["mnist"] * (len(f) - 1)]), "dataset: row 0 is empty"),
        (lambda f: f.assign(seed=[*f.seed[:-1], "0"]), "two labels read the same"),
    ],
)
def test_unusable_tables_say_what_was_found_and_what_is_allowed(change, message):
    with pytest.raises(StatsError, match=message):
        compare_table(change(sample(n=6)), metric="accuracy")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"baseline": "sgd"}, "baseline: found 'sgd', allowed are adam, wame"),
        ({"correction": "sidak"}, "correction: found 'sidak'"),
        ({"baseline": "adam", "correction": "shaffer"}, "against a baseline use holm"),
        ({"alpha": 1.0}, "alpha: found 1.0"),
        ({"margin": -1.0}, "margin: found -1.0"),
    ],
)
def test_unusable_settings_name_the_choices(settings, message):
    with pytest.raises(StatsError, match=message):
        compare_table(sample(n=6), metric="accuracy", **settings)


def test_the_direction_is_never_guessed_when_the_name_does_not_tell():
    assert direction_of("val_loss")[0] is False
    assert direction_of("test_accuracy")[0] is True
    for name in ("value", "score_loss", "x"):
        with pytest.raises(StatsError, match="--maximise or --minimise"):
            direction_of(name)


def many(datasets=8, n=5, k=3, shift=0.01, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for d in range(datasets):
        base = rng.normal(0.8, 0.05) + 0.01 * rng.normal(size=(n, 1))
        values = base + shift * np.arange(k) + 0.005 * rng.normal(size=(n, k))
        frames.append(trials(values, dataset=f"d{d}", optimizers=tuple("abcdef"[:k])))
    return pd.concat(frames, ignore_index=True)


def test_two_questions_over_datasets_have_their_own_n():
    result = compare_table(many(), metric="accuracy", baseline="a")
    assert result.new_datasets.comparisons[0].n == 8
    assert result.these_datasets[0].n_pairs == 40
    assert result.conjunctions[0].n_datasets == 8
    assert all(f.comparisons[0].verdict.word == "inconclusive" for f in result.within)
    assert result.these_datasets[1].verdict.word == "better"
    assert result.new_datasets.comparisons[1].signed_rank.pvalue == 2 / 2**8


def test_seeds_are_not_pooled_into_datasets():
    few = compare_table(many(datasets=3, n=30), metric="accuracy")
    assert {c.verdict.word for c in few.new_datasets.comparisons} == {"inconclusive"}
    assert any("cannot generalise" in n for n in few.notes)


def test_the_test_on_these_datasets_is_on_one_dataset_the_sign_flip_test_of_the_mean():
    table = np.random.default_rng(0).normal(size=(9, 2))
    these = on_these_datasets({"d": table}, ["x", "y"], settings=Settings("y", "baseline"))[0]
    d = table[:, 0] - table[:, 1]
    assert these.pvalue == sign_flip(d).pvalue
    assert these.estimate == these.statistic == pytest.approx(d.mean())


def test_these_datasets_with_a_diverged_trial_are_tested_by_ranks_and_no_mean_is_said():
    table = np.random.default_rng(0).normal(size=(9, 2))
    table[0, 0] = -np.inf
    these = on_these_datasets({"d": table}, ["x", "y"], settings=Settings("y", "baseline"))[0]
    assert these.pvalue == signed_rank(np.r_[-np.inf, table[1:, 0] - table[1:, 1]]).pvalue
    assert math.isnan(these.estimate)
    assert "diverged" in these.reason


def test_cells_are_medians_where_a_trial_diverged_and_only_there():
    table = np.array([[1.0, 2.0], [3.0, -np.inf], [5.0, 6.0]])
    cells, medians = collapse({"a": table, "b": table[[0, 2]]})
    assert cells.tolist() == [[3.0, 2.0], [3.0, 4.0]]
    assert medians == ("a",)
    missing = np.array([[1.0, np.nan], [3.0, 4.0]])
    assert collapse({"a": missing})[0].tolist() == [[3.0, 4.0]]


def test_leaving_one_out_can_flip_mean_ranks():
    # y beats x on most datasets, but x's rank gains from z's presence between them on the last one.
    cells = np.array([[2.0, 3.0, 1.0], [2.0, 3.0, 1.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0]])
    assert leave_one_out(cells, ["x", "y", "z"]).flips == ("x and y without z",)


def test_json_keys_are_stable_documented_and_plain():
    frame = sample(n=5)
    frame["reached"], frame["time"], frame["budget"] = frame.seed < 4, frame.seed + 1.0, 5.0
    tree = compare_table(frame, metric="accuracy", baseline="adam").to_dict()
    assert list(tree) == list(DOCUMENTED_KEYS)
    assert tree["schema"] == SCHEMA
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    c = tree["within"][0]["comparisons"][0]
    assert c["hodges_lehmann"]["low"] == "-inf"
    assert c["equivalence"] is None
    assert tree["time_to_target"][0]["summaries"][0]["successes"] == 4


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(2, 9), st.integers(1, 3), st.integers(0, 10**6))
def test_any_table_of_small_integers_with_holes_gets_a_complete_answer(k, n, datasets, seed):
    rng = np.random.default_rng(seed)
    frame = pd.concat(
        trials(rng.integers(0, 4, size=(n, k)).astype(float), dataset=f"d{d}", optimizers=tuple("abcd"[:k]))
        for d in range(datasets)
    )
    frame["status"] = rng.choice(["completed", "diverged", "crashed"], size=len(frame), p=[0.7, 0.15, 0.15])
    frame = frame.sample(frac=0.9, random_state=seed)
    if frame.optimizer.nunique() < 2:
        return
    result = compare_table(frame, metric="accuracy", margin=0.5)
    json.dumps(result.to_dict(), allow_nan=False)
    for family in result.within:
        for c in family.comparisons:
            assert c.verdict.word in ("better", "worse", "equivalent", "mixed", "inconclusive", "crashed")
            assert c.n + c.n_missing == family.n_blocks


def test_order_of_rows_does_not_matter():
    frame = many()
    shuffled = frame.sample(frac=1.0, random_state=1)
    a = compare_table(frame, metric="accuracy", baseline="a")
    b = compare_table(shuffled, metric="accuracy", baseline="a")
    pvalues = {(f.scope, c.candidate): c.signed_rank.pvalue for f in a.within for c in f.comparisons}
    assert pvalues == {(f.scope, c.candidate): c.signed_rank.pvalue for f in b.within for c in f.comparisons}


def test_times_without_a_budget_or_a_time_are_counted_not_guessed():
    frame = sample(n=7)
    frame["time"] = frame.seed + np.where(frame.optimizer == "adam", 5.0, 2.0)
    frame["reached"] = True
    frame.loc[frame.seed == 0, "reached"] = False
    frame.loc[frame.seed == 0, "time"] = np.inf
    frame.loc[(frame.seed == 1) & (frame.optimizer == "adam"), "time"] = np.nan
    result = compare_table(frame, metric="accuracy", baseline="adam")
    (t,) = result.time_to_target
    assert t.budget == 11.0  # the longest finite time
    assert (t.family.comparisons[0].n, t.family.comparisons[0].n_missing) == (6, 1)
    assert [s.successes for s in t.summaries] == [5, 6]
    assert any("no column budget" in n for n in result.notes)
    with pytest.raises(StatsError, match="reached: found something else"):
        compare_table(frame.assign(reached="no"), metric="accuracy")


def test_a_missing_pair_turns_an_all_pairs_correction_into_holm():
    frame = pd.concat(
        [sample(n=8), sample(n=8, seed=1, optimizers=("sgd", "wame")).query("optimizer == 'sgd'")]
    )
    whole = compare_table(frame, metric="accuracy", correction="shaffer").within[0]
    assert whole.correction == "shaffer"
    frame.loc[frame.optimizer == "sgd", "seed"] += 100
    apart = compare_table(frame, metric="accuracy", correction="shaffer").within[0]
    assert apart.correction == "holm"
    assert [c.n for c in apart.comparisons] == [8, 0, 0]


def test_a_very_large_family_is_analysed_in_brief_says_so_and_says_the_same_words():
    rng = np.random.default_rng(0)
    names = [f"o{i}" for i in range(33)]
    values = rng.normal(size=(24, 1)) + 0.2 * rng.normal(size=(24, 33)) + 0.05 * np.arange(33)
    brief = compare_table(trials(values, optimizers=names), metric="accuracy").within[0]
    assert len(brief.comparisons) == 528
    assert any("in brief" in note for note in brief.notes)
    assert brief.comparisons[0].hodges_lehmann is None
    assert {c.verdict.word for c in brief.comparisons} >= {"worse", "inconclusive"}
    for c in brief.comparisons[::50]:
        d = values[:, names.index(c.candidate)] - values[:, names.index(c.baseline)]
        assert c.signed_rank.pvalue == signed_rank(d).pvalue
    json.dumps(compare_table(trials(values, optimizers=names), metric="accuracy").to_dict(), allow_nan=False)


def test_rounded_results_of_many_seeds_are_compared_in_a_moment():
    rng = np.random.default_rng(0)
    values = np.round(0.9 + 0.01 * rng.normal(size=(20_000, 2)), 2)
    c = only(compare_table(trials(values), metric="accuracy"))
    assert c.hodges_lehmann.estimate == pytest.approx(0, abs=0.01)
    assert c.hodges_lehmann.low <= 0 <= c.hodges_lehmann.high


def test_an_optimizer_whose_every_trial_crashed_is_called_crashed_in_every_question():
    rng = np.random.default_rng(0)
    frame = pd.concat(
        trials(rng.normal(0.9, 0.01, size=(7, 3)), dataset=f"d{d}", optimizers=("adam", "sgd", "wame"))
        for d in range(2)
    )
    frame["status"] = "completed"
    frame.loc[(frame.optimizer == "sgd") & (frame.dataset == "d0"), "status"] = "crashed"
    result = compare_table(frame, metric="accuracy", baseline="adam")
    words = [{c.candidate: c.verdict.word for c in f.comparisons} for f in result.within]
    assert (words[0]["sgd"], words[0]["wame"]) == ("crashed", "inconclusive")
    assert words[1]["sgd"] != "crashed"
    assert all(c.verdict.word != "crashed" for c in result.these_datasets)
    frame.loc[frame.optimizer == "sgd", "status"] = "crashed"
    result = compare_table(frame, metric="accuracy")
    found = [*result.these_datasets, *result.new_datasets.comparisons, *result.within[1].comparisons]
    assert {c.verdict.word == "crashed" for c in found if "sgd" in (c.candidate, c.baseline)} == {True}
    assert "every trial of sgd crashed" in found[0].verdict.reason


def test_posteriors_stand_beside_the_tests_and_change_no_verdict():
    rng = np.random.default_rng(3)
    frame = pd.concat(
        trials(rng.normal(0.9, 0.01, size=(7, 2)), dataset=f"d{d}", optimizers=("adam", "wame"))
        for d in range(3)
    )
    plain = compare_table(frame, metric="accuracy", baseline="adam")
    found = compare_table(frame, metric="accuracy", baseline="adam", rope=0.002)
    assert plain.posteriors == ()
    assert replace(found, posteriors=()).to_dict() == plain.to_dict()
    assert [p.scope for p in found.posteriors] == ["d0", "d1", "d2", "new datasets"]
    for p in found.posteriors:
        assert p.posterior.worse + p.posterior.equivalent + p.posterior.better == pytest.approx(1)
    d = found.within[0].comparisons[0].mean.estimate
    assert (found.posteriors[0].posterior.better > found.posteriors[0].posterior.worse) == (d > 0)
