"""Tuning, really run: equal budgets, winners, resuming, halving that goes on where it stopped."""

from __future__ import annotations

import collections
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("torch", reason="runs trials with PyTorch")
pytest.importorskip("optuna", reason="tuning draws its settings with Optuna")

from optbench import api
from optbench.execution.estimate import estimate
from optbench.records.frames import load_results
from optbench.records.store import Store, StoreError
from optbench.suite.load import load_suite
from optbench.suite.tuning_section import Budget, Tuning
from optbench.tuning import journal as journals
from optbench.tuning.space import Axis
from optbench.tuning.strategies import Answer, strategy
from tests.execution.test_local import content

SAMPLERS = ("random", "quasi-random", "tpe", "halving", "hyperband")


def tuned(write_suite, section: str, *more):
    return write_suite(("seeds: 2", f"seeds: 2\ntuning: {section}"), *more)


def journal(store):
    with Store(store) as opened:
        return journals.read(opened.meta())


def spent(store) -> dict[str, int]:
    """Epochs of tuning that each optimizer really trained, a resumed training counted once."""
    frame = load_results(store).tuning
    last = frame.groupby(["optimizer", "setting", "seed"])["epochs"].max()
    return last.groupby("optimizer").sum().to_dict()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_optimizer_gets_the_same_budget_and_its_best_setting(write_suite, tmp_path, sampler):
    path = tuned(write_suite, f"{{sampler: {sampler}, trials: 5, seeds: 2}}", ("epochs: 2", "epochs: 3"))
    outcome = api.run(path, results=tmp_path)
    assert outcome.planned == outcome.completed
    results, found = load_results(outcome.store), journal(outcome.store)
    counts = results.tuning.groupby("optimizer").agg(
        trials=("trial_id", "count"), settings=("setting", "nunique")
    )
    assert counts["settings"].to_list() == [5, 5]
    assert counts["trials"].nunique() == 1
    assert len(set(spent(outcome.store).values())) == 1
    for study in found.studies:
        mine = results.tuning[
            (results.tuning["optimizer"] == study.optimizer) & (results.tuning["setting_epochs"] == 3)
        ]
        means = mine.groupby("setting")["val_accuracy"].mean()
        assert means[study.winner] == means.max()
        evaluated = results.trials[results.trials["optimizer"] == study.optimizer]
        assert set(evaluated["lr"]) == {study.settings[study.winner].values["lr"]}
    tuning_seeds = set(results.tuning["seed"])
    assert not tuning_seeds & (set(results.trials["seed"]) | set(results.untuned["seed"]))
    assert set(results.untuned["lr"]) == {0.05, 0.01}
    assert len(results.trials) == 4
    assert results.epochs["trial_id"].nunique() == 4
    assert api.run(path, results=tmp_path).run == 0


def test_a_budget_that_one_optimizer_exceeds_would_be_seen(write_suite, tmp_path):
    path = tuned(write_suite, "{trials: 2, seeds: 1}")
    outcome = api.run(path, results=tmp_path)
    found = journal(outcome.store)
    sizes = collections.Counter(study.optimizer for study in found.studies for _ in study.settings)
    assert sizes == {"wame": 2, "adam": 2}
    trained = [len(t.trials) for s in found.studies for setting in s.settings for t in setting.trainings]
    assert set(trained) == {1}


def test_the_same_scores_ask_for_the_same_settings():
    axes = [Axis(name="lr", kind="log", low=1e-4, high=1), Axis(name="k", kind="choice", choices=("a", "b"))]
    for sampler in SAMPLERS:
        tuning = Tuning(sampler=sampler, budget=Budget(trials=9), seeds=(), monitor="val_accuracy", space={})

        def play(tuning=tuning) -> list:
            search = strategy(tuning, axes, epochs=9, settings=9, seed=3)
            asked, batch = [], next(search)
            while True:
                asked.append([(ask.setting, dict(ask.values), ask.epochs) for ask in batch])
                scores = [-abs(np.log10(ask.values["lr"]) + 2) for ask in batch]
                scores = [
                    -np.inf if ask.values["lr"] > 0.3 else s for ask, s in zip(batch, scores, strict=True)
                ]
                try:
                    batch = search.send(Answer(scores=scores, seconds=0))
                except StopIteration:
                    return asked

        first = play()
        assert first == play()
        assert len({setting for batch in first for setting, _, _ in batch}) == 9


def test_the_model_based_sampler_learns():
    """TPE's later draws lie nearer to the optimum than random ones, over several seeds."""
    axes = [Axis(name="lr", kind="log", low=1e-6, high=1)]

    def late(sampler: str, seed: int) -> float:
        tuning = Tuning(sampler=sampler, budget=Budget(trials=40), seeds=(), monitor="val_accuracy", space={})
        search, far = strategy(tuning, axes, epochs=1, settings=40, seed=seed), []
        batch = next(search)
        while True:
            distances = [abs(np.log10(ask.values["lr"]) + 2) for ask in batch]
            far += distances
            try:
                batch = search.send(Answer(scores=[-d for d in distances], seconds=0))
            except StopIteration:
                return float(np.mean(far[20:]))

    tpe, plain = (np.mean([late(sampler, seed) for seed in range(5)]) for sampler in ("tpe", "random"))
    assert tpe < 0.6 * plain


def test_a_setting_that_diverges_ranks_last(write_suite, tmp_path):
    space = "space: {adam: {lr: [1.0e+9, 0.01]}, wame: {lr: [0.05, 0.5]}}"
    path = tuned(write_suite, f"{{sampler: grid, trials: 2, seeds: 1, {space}}}")
    outcome = api.run(path, results=tmp_path)
    study = journal(outcome.store).study("digits/mlp", "adam")
    assert [setting.trainings[-1].score is None for setting in study.settings] == [True, False]
    assert study.config["lr"] == 0.01


def test_where_everything_diverges_the_declared_numbers_are_kept(write_suite, tmp_path):
    space = "space: {adam: {lr: [1.0e+9, 1.0e+10]}, wame: {lr: [0.05, 0.5]}}"
    path = tuned(write_suite, f"{{sampler: grid, trials: 2, seeds: 1, {space}}}")
    results = load_results(api.run(path, results=tmp_path).store)
    assert set(results.trials.loc[results.trials["optimizer"] == "adam", "lr"]) == {0.01}


def test_an_edge_is_searched_again_at_equal_cost_for_all(write_suite, tmp_path):
    space = "space: {adam: {lr: {log: [1.0e-6, 1.0e-4]}}, wame: {lr: {log: [1.0e-2, 1.0]}}}"
    longer = (("epochs: 2", "epochs: 5"), ("batch_size: 256", "batch_size: 32"))
    path = tuned(write_suite, f"{{sampler: grid, trials: 3, seeds: 1, widen: 1, {space}}}", *longer)
    found = journal(api.run(path, results=tmp_path).store)
    adam, wame = (found.study("digits/mlp", name) for name in ("adam", "wame"))
    assert len(adam.settings) == len(wame.settings) == 6
    assert adam.searches[1][0].high == pytest.approx(1e-3)
    assert adam.settings[adam.winner].values["lr"] > 1e-4
    assert adam.edges == {"lr": "upper"}


def test_the_network_is_searched_first_and_shared(write_suite, tmp_path):
    section = "{trials: 3, seeds: 1, network: {model.hidden: [[4], [16]], model.dropout: [0.0, 0.2]}}"
    path = tuned(write_suite, section)
    outcome = api.run(path, results=tmp_path)
    found, results = journal(outcome.store), load_results(outcome.store)
    assert [study.stage for study in found.studies] == ["network"] * 2 + ["optimizer"] * 2
    best = max(
        (s.settings[s.winner] for s in found.studies[:2]), key=lambda setting: setting.trainings[-1].score
    )
    assert found.networks["digits/mlp"] == {
        name: list(v) if isinstance(v, tuple) else v for name, v in best.values.items() if "model" in name
    }
    assert results.trials["block"].nunique() == 2
    assert not results.refusals


def test_seconds_are_a_budget_too(write_suite, tmp_path):
    path = tuned(write_suite, "{budget: {seconds: 0.2}, seeds: 1}")
    outcome = api.run(path, results=tmp_path)
    frame = load_results(outcome.store).tuning
    for _, mine in frame.groupby("optimizer"):
        seconds = mine.sort_values("setting")["total_seconds"].cumsum().to_numpy()
        assert seconds[-1] >= 0.2
        assert (seconds[:-1] < 0.2).all()
    assert api.run(path, results=tmp_path).run == 0


def test_a_promoted_training_goes_on_from_its_checkpoint_to_the_same_bits(write_suite, tmp_path):
    section = "{sampler: halving, trials: 3, seeds: 1, eta: 3}"
    path = tuned(write_suite, section, ("epochs: 2", "epochs: 9"))
    resumed = api.run(path, results=tmp_path / "resumed", checkpoint_minutes=5)
    scratch = api.run(path, results=tmp_path / "scratch", checkpoint_minutes=0)
    assert content(resumed.store) == content(scratch.store)
    with Store(resumed.store) as a, Store(scratch.store) as b:
        notes = [{t.environment.get("checkpoint") for t in store.trials()} for store in (a, b)]
    assert notes == [{None, "resumed"}, {None}]
    assert not (resumed.store.parent / "checkpoints").exists()


def test_a_part_of_the_optimizers_is_tuned_and_the_rest_later(write_suite, tmp_path):
    path = tuned(write_suite, "{sampler: tpe, trials: 3, seeds: 1}")
    part = api.run(path, results=tmp_path / "a", only=lambda trial: trial.optimizer == "adam")
    assert not journal(part.store).done
    assert load_results(part.store).trials.empty
    whole = api.run(path, results=tmp_path / "a")
    other = api.run(path, results=tmp_path / "b")
    assert content(whole.store) == content(other.store)


def test_an_edited_space_is_another_search(write_suite, tmp_path):
    space = "{{trials: 2, seeds: 1, space: {{adam: {{lr: {{log: [{}, 0.1]}}}}}}}}"
    api.run(tuned(write_suite, space.format("1.0e-3")), results=tmp_path)
    again = tuned(write_suite, space.format("1.0e-2"))
    outcome = api.run(again, results=tmp_path)
    assert outcome.run > 0
    frame = load_results(outcome.store).tuning
    assert (frame.loc[frame["optimizer"] == "adam", "lr"] >= 1e-2).all()
    assert journal(outcome.store).of == load_suite(again).hash


@pytest.mark.slow
def test_killed_while_tuning_it_finds_the_same_winner_and_store(write_suite, tmp_path):
    path = tuned(write_suite, "{sampler: hyperband, trials: 4, seeds: 2}", ("epochs: 2", "epochs: 9"))
    undisturbed = api.run(path, results=tmp_path / "whole")
    command = [sys.executable, "-m", "optbench.cli", "run", str(path), "--results", str(tmp_path / "killed")]
    store = tmp_path / "killed" / "tiny" / "store.sqlite"
    before = 0
    for more in (1, 4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while stored(store) < before + more and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before, found = stored(store), journal(store)
        assert found is None or not found.done, "the search was over before it could be killed"
    outcome = api.run(path, results=tmp_path / "killed")
    assert outcome.store == store
    assert content(store) == content(undisturbed.store)
    mine, whole = journal(store), journal(undisturbed.store)
    assert mine == whole
    assert all(study.winner is not None for study in mine.studies)


def stored(path):
    """Count the trials of a store that a run may be writing."""
    try:
        with Store(path) as store:
            return len(store.statuses())
    except StoreError:
        return 0


def test_workers_change_nothing(write_suite, tmp_path):
    path = tuned(write_suite, "{sampler: tpe, trials: 3, seeds: 2}")
    one = api.run(path, results=tmp_path / "one")
    two = api.run(path, results=tmp_path / "two", workers=2)
    assert content(one.store) == content(two.store)
    assert journal(one.store) == journal(two.store)


def test_a_schedule_spans_the_steps_of_a_search_of_its_own_length(write_suite, tmp_path):
    steps = "steps: 40\n    evaluate_every: 10\n    schedule: {kind: wsd, warmup: 2, decay: 0.5}"
    path = tuned(write_suite, "{trials: 2, seeds: 1, epochs: 3, untuned: false}", ("epochs: 2", steps))
    suite = load_suite(path)
    rows = [row for row in estimate(suite, results=tmp_path) if row.role == "tuning"]
    assert {(row.epochs, row.steps) for row in rows} == {(3, 30)}
    outcome = api.run(path, results=tmp_path)
    with Store(outcome.store) as store:
        for trial in store.trials():
            assert trial.spec["workload"]["steps"] == trial.metrics["steps"]
            assert trial.history["lr"][-1] < 0.2 * trial.spec["optimizer"]["lr"]


def test_a_search_has_epochs_of_its_own_and_any_recorded_metric_picks(write_suite, tmp_path):
    section = "{trials: 3, seeds: 1, epochs: 1, monitor: val_f1, untuned: false}"
    outcome = api.run(tuned(write_suite, section), results=tmp_path)
    results, found = load_results(outcome.store), journal(outcome.store)
    assert set(results.tuning["epochs"]) == {1.0}
    assert set(results.trials["epochs"]) == {2.0}
    for study in found.studies:
        mine = results.tuning[results.tuning["optimizer"] == study.optimizer]
        best = mine.loc[mine["val_f1"].idxmax()]
        assert study.settings[study.winner].trainings[-1].score == best["val_f1"]
        assert int(best["setting"]) == study.winner


def test_folds_share_out_the_training_part(write_suite, tmp_path):
    outcome = api.run(tuned(write_suite, "{trials: 2, seeds: 1, folds: 3, untuned: false}"), results=tmp_path)
    with Store(outcome.store) as store:
        journaled = journals.read(store.meta())
        trials = {trial.trial_id: trial for trial in store.trials()}
    for study in journaled.studies:
        for setting in study.settings:
            (training,) = setting.trainings
            found = [trials[key] for key in training.trials]
            splits = [trial.spec["workload"]["split"] for trial in found]
            assert [(s["how"], s["folds"], s["fold"]) for s in splits] == [("folds", 3, k) for k in range(3)]
            assert len({trial.fingerprints["split"] for trial in found}) == 3
            assert training.score == np.mean([trial.metrics["val_accuracy"] for trial in found])
    assert {t.metrics["epochs"] for t in trials.values()} == {2.0}


def test_the_best_settings_are_evaluated_under_labels_of_their_own(write_suite, tmp_path):
    path = tuned(write_suite, "{trials: 4, seeds: 1, epochs: 1, winners: 2, untuned: false}")
    outcome = api.run(path, results=tmp_path)
    results, found = load_results(outcome.store), journal(outcome.store)
    assert list(results.trials["optimizer"].unique()) == ["wame #1", "wame #2", "adam #1", "adam #2"]
    for study in found.studies:
        rates = [study.settings[k].values["lr"] for k in study.ranking()[:2]]
        for rank, rate in enumerate(rates, start=1):
            label = f"{study.optimizer} #{rank}"
            assert set(results.trials.loc[results.trials["optimizer"] == label, "lr"]) == {rate}
    spec, _ = api.find_store(path, results=tmp_path)
    assert spec.analysis.baseline == "wame #1"
    report = api.report(path, results=tmp_path, formats=("csv",))
    assert "adam #2" in (report.folder / "tables" / "leaderboard.csv").read_text()


def test_the_best_networks_are_evaluated_as_workloads(write_suite, tmp_path):
    section = (
        "{trials: 5, seeds: 1, epochs: 1, winners: 3, untuned: false, network: {model.hidden: {list: "
        "{length: {int: [1, 3]}, of: [4, 8, 12]}}, "
        "model.dropout: {list: {length: model.hidden, of: [0.0, 0.2]}}}}"
    )
    path = tuned(write_suite, section, ("  wame: {lr: 0.05}\n", ""), ("analysis: {baseline: wame}", ""))
    outcome = api.run(path, results=tmp_path)
    found = journal(outcome.store)
    (study,) = found.studies
    assert {len(setting.values["model.hidden"]) for setting in study.settings} > {1}
    with Store(outcome.store) as store:
        units = {}
        for workload, optimizer, trial in store.planned():
            if "#" in workload:
                layers = trial.spec["workload"]["model"]["layers"]
                units[workload] = tuple(x["units"] for x in layers if x["kind"] == "dense" and "units" in x)
                assert optimizer == "adam"
    wanted = [study.settings[k].values["model.hidden"] for k in study.ranking()[:3]]
    assert list(units.values()) == [tuple(hidden) for hidden in wanted]
    assert list(units) == [f"digits/mlp #{rank}" for rank in (1, 2, 3)]
    assert len(load_results(outcome.store).trials) == 3 * 2


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{trials: 4, winners: 2}", "untuned: false"),
        ("{trials: 4, winners: 2, untuned: false, network: {model.dropout: [0.0, 0.2]}}", "one optimizer"),
        ("{trials: 4, winners: 5, untuned: false}", "found 5 of 4 settings"),
        ("{trials: 4, monitor: val_rmse}", "found 'val_rmse'; workload digits/mlp records val_loss"),
        ("{trials: 4, monitor: test_accuracy}", "found 'test_accuracy'"),
    ],
)
def test_searches_that_cannot_be_are_refused(write_suite, section, message):
    with pytest.raises(api.SuiteError, match=message):
        load_suite(tuned(write_suite, section))
