"""Every shipped suite at its full plan, and suites of any shape, from the last trial to the report."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from optbench import api
from optbench.cli import listing
from optbench.cli.plan_table import render_plan
from optbench.execution import estimate as estimating
from optbench.execution.estimate import estimate
from optbench.records.frames import load_results
from optbench.records.merge import merge
from optbench.records.store import Store
from optbench.report import html, watch
from optbench.report.analysis import Report, analyse, main_tables
from optbench.report.build import write_report
from optbench.report.exports import write_frames
from optbench.report.figures import report_plots
from optbench.report.terminal import rich_table
from optbench.suite.load import load_suite
from optbench.task import TASKS
from tests import made_store

FOLDER = Path(__file__).resolve().parents[2] / "suites"
SUITES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
TEXTS = ("markdown", "latex", "csv", "json")
#: Outcomes of a whole suite beside the usual one.
ODD = ("low", "diverged", "crashed", "tie", "unmeasured", "one crashes", "one diverges", "half missing")
ODD += ("one workload", "one trial", "nothing", "mixed", "one seed", "one optimizer", "backends", "pass")
#: One odd outcome a suite is quick enough for every run of the tests; the others are slow together.
QUICK = {
    "emnist": "low",
    "fashion_mnist": "one crashes",
    "deepobs": "one seed",
    "digits_augmented": "diverged",
    "digits_augmented_mini": "half missing",
    "fashion_mnist_mini": "tie",
    "quick": "backends",
    "versions": "pass",
}


@pytest.fixture(autouse=True)
def guessed_times(monkeypatch):
    """A plan guesses what a trial takes, and trains nothing for it."""
    monkeypatch.setattr(estimating, "calibrate", lambda spec, context: estimating.work(spec))


def case(name, outcome, folder):
    """A shipped suite with an outcome, in a store."""
    suite = load_suite(FOLDER / f"{name}.yaml")
    if suite.tuning is not None:
        pytest.importorskip("optuna", reason="the search is made for real")
    options = {}
    if outcome == "one seed":
        suite = replace(suite, seeds=suite.seeds[:1])
    elif outcome == "one optimizer":
        first = [replace(w, optimizers=dict([next(iter(w.optimizers.items()))])) for w in suite.workloads]
        suite = replace(suite, workloads=tuple(first))
    elif outcome == "backends":
        suite = replace(suite, backends=("torch", "jax", "tensorflow"), seeds=suite.seeds[:3])
    elif outcome == "pass":
        options = {"passes": True, "facts": {"concurrent": 2}}
    fate = outcome if outcome in made_store.OUTCOMES else "usual"
    return suite, made_store.fill(suite, folder / "results" / suite.name, fate, **options)


def reported(store: Path, folder: Path, **analysis) -> Report:
    """Take a store through the leaderboard, the terminal, the page's text and every format but plots."""
    suite, path = api.find_store(store)
    suite = replace(suite, analysis=replace(suite.analysis, **analysis))
    results = load_results(path)
    report = analyse(results, suite)
    console = Console(width=100, file=io.StringIO())
    for table in main_tables(report):
        console.print(rich_table(table, width=console.width))
    page = html.render(report, pictures=[])
    write_report(results, suite, folder / "report", formats=TEXTS, report=report)
    assert not report.failures
    for board in report.boards:
        assert board.title in page
        assert all(len(row.letters) for row in board.rows)
        assert board.title in console.file.getvalue().replace("\n", "") or len(board.title) > 60
    trials = report.results.trials
    recorded = set(trials["workload"]) if len(trials) else set()
    assert {board.workload for board in report.boards} == recorded
    return report


def carried(suite, store: Path, folder: Path) -> None:
    """Take a store through watch, export, merge, show, list and plan."""
    results = load_results(store)
    console = Console(width=100, file=io.StringIO())
    with Store(store) as opened:
        standing = watch.look(opened, metric=suite.metrics[suite.analysis.primary])
        ids = [trial.trial_id for trial in opened.trials()]
    console.print(watch.render(standing, metric=suite.metrics[suite.analysis.primary]))
    assert sum(standing.counts.values()) == len(ids)
    for kind in ("csv", "json"):
        write_frames(store, folder / "tables", kind)
    if len(results.trials):
        assert len(pd.read_csv(folder / "tables" / "trials.csv")) == len(results.trials)
    for key in ids[:1] + ids[-1:]:
        assert key in listing.show(key, stores=[store])
    assert listing.rows("results", results=store.parent.parent)
    planned = replace(suite, device="cpu")
    console.print(render_plan(planned, estimate(planned, results=store.parent.parent)))
    half = made_store.fill(suite, folder / "half", "half missing" if suite.tuning is None else "usual")
    both = merge([store, half], folder / "both")
    assert len(load_results(both.store).trials) >= len(results.trials)
    together, found, _ = api.gather_results(store, half)
    if len(found.trials):
        write_report(found, together, folder / "together", formats=("markdown", "csv"))


def drawn(report: Report) -> int:
    """Draw every plot of a report, without writing it; how many there are."""
    return sum(plot.draw() is not None for plot in report_plots(report))


@pytest.mark.parametrize("name", SUITES)
def test_a_shipped_suite_at_full_size(name, tmp_path):
    suite, store = case(name, "usual", tmp_path)
    report = reported(store, tmp_path)
    assert len(report.results.trials) == report.results.planned
    assert [board.workload for board in report.boards] == [entry.label for entry in report.spec.workloads]
    winners = 1 if suite.tuning is None else suite.tuning.winners
    assert len(report.boards) == len(suite.workloads) * (
        winners if winners > 1 and suite.tuning.network else 1
    )
    if suite.tuning is not None:
        assert all(study.winner is not None for study in report.results.journals[0].studies)


@pytest.mark.parametrize(("name", "outcome"), QUICK.items())
def test_a_shipped_suite_with_an_odd_outcome(name, outcome, tmp_path):
    suite, store = case(name, outcome, tmp_path)
    reported(store, tmp_path)
    if name in ("quick", "versions", "deepobs"):
        carried(suite, store, tmp_path)


OUTCOMES = ("usual", "tuning stopped", *ODD)


def pairs():
    """Every suite with every outcome: by day one a suite, another for each, so that all outcomes come."""
    for number, name in enumerate(SUITES):
        for place, outcome in enumerate(OUTCOMES):
            by_day = (place - number) % len(SUITES) == 0 and (name, outcome) != (
                "optimizers_offline",
                "backends",
            )
            mark = pytest.mark.slow if by_day else pytest.mark.nightly
            yield pytest.param(name, outcome, marks=mark)


@pytest.mark.parametrize(("name", "outcome"), list(pairs()))
def test_every_shipped_suite_with_every_outcome(name, outcome, tmp_path):
    if outcome == "tuning stopped" and load_suite(FOLDER / f"{name}.yaml").tuning is None:
        pytest.skip("this suite is not tuned")
    suite, store = case(name, outcome, tmp_path)
    tasks = [TASKS[entry.workload.task].primaries for entry in suite.workloads]
    shared = [name for name in tasks[0] if all(name in other for other in tasks)]
    for primary in shared[:3]:
        reported(store, tmp_path, primary=primary)
    # Plots are slow to draw: those of few workloads stand for many.
    if len(suite.workloads) < 3 or outcome in ("usual", "mixed"):
        drawn(reported(store, tmp_path))
    carried(suite, store, tmp_path)


@pytest.mark.slow
def test_the_largest_suite_with_all_plots(tmp_path):
    _, store = case("fashion_mnist", "mixed", tmp_path)
    written = api.report(store, out=tmp_path / "report", formats=("html", "plots", "csv"))
    page = written.index.read_text()
    assert page.count("<figure>") * 3 == sum(
        path.suffix in (".png", ".svg", ".pdf") for path in written.files
    )


@pytest.mark.parametrize("outcome", ["one crashes", pytest.param("diverged", marks=pytest.mark.slow)])
def test_plots_of_a_suite_in_which_an_optimizer_has_no_score(outcome, tmp_path):
    _, store = case("quick", outcome, tmp_path)
    assert drawn(reported(store, tmp_path)) > 4


def test_a_made_record_has_what_a_real_one_has(tmp_path, write_suite):
    pytest.importorskip("torch", reason="the real trial is trained in PyTorch")
    text = "\n    top_k: [2]\n    per_class: true\n    early_stopping: {patience: 1}"
    path = write_suite(("epochs: 2", f"epochs: 2{text}"), ("seeds: 2", "seeds: 1\ndevice: cpu"))
    real = api.run(path, results=tmp_path).store
    made = made_store.fill(load_suite(path), tmp_path / "made", lambda trial: "usual")
    with Store(real) as a, Store(made) as b:
        assert a.plan() == b.plan()
        # A real run declares its analysis, with the time.
        assert b.meta() == {k: v for k, v in a.meta().items() if k != "declaration"}
        for ours, theirs in zip(b.trials(), a.trials(), strict=True):
            for name in ("trial_id", "block_id", "spec", "status"):
                assert getattr(ours, name) == getattr(theirs, name)
            for name in ("metrics", "timings", "history", "fingerprints"):
                assert list(getattr(ours, name)) == list(getattr(theirs, name)), name
            assert set(theirs.environment) >= set(ours.environment)
            kept, truth = b.predictions(ours.trial_id), a.predictions(ours.trial_id)
            assert {k: v.dtype for k, v in kept.items()} == {k: v.dtype for k, v in truth.items()}


@st.composite
def suites(draw, most=400):
    """A suite of 1 to 400 trials on 1 to 9 workloads, and what becomes of each cell's trials."""
    workloads, optimizers = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    where = draw(st.sampled_from([["torch"], ["torch"], ["jax", "torch"]]))
    cells = workloads * optimizers * len(where)
    seeds = draw(st.integers(1, max(1, min(most // cells, draw(st.sampled_from([3, 12, 400]))))))
    families = ("wame", "adam", "sgd", "rmsprop")
    lines = ["suite: drawn", "workloads:"]
    for number in range(workloads):
        epochs = draw(st.integers(1, 6))
        fields = f"name: w{number}, dataset: {draw(st.sampled_from(['digits', 'iris', 'wine']))}, "
        fields += f"batch_size: {draw(st.sampled_from(['32', 'full']))}, epochs: {epochs}, model: mlp"
        validation = draw(st.sampled_from([True, True, False]))
        if not validation:
            fields += ", split: {validation: 0}"
        goals = draw(st.sampled_from(["", "val_accuracy: 0.9", "val_loss: 0.4", "val_accuracy: 0.3"]))
        if goals and validation:
            fields += f", targets: {{{goals}}}"
        if draw(st.booleans()) and validation:
            fields += ", early_stopping: {patience: 1}, top_k: [2]"
        lines.append(f"  - {{{fields}}}")
    lines.append("optimizers:")
    lines += [
        f"  o{k}: {{optimizer: {families[k % 4]}, lr: {draw(st.sampled_from([1, 10])) / (100 + k)}}}"
        for k in range(optimizers)
    ]
    lines += [f"seeds: {seeds}", f"backends: [{', '.join(where)}]"]
    primary = draw(st.sampled_from(["test_accuracy", "test_loss", "val_accuracy", "val_loss"]))
    margin = draw(st.sampled_from(["", ", margin: 0.01"]))
    lines.append(f"analysis: {{primary: {primary}{margin}}}")
    fates = draw(
        st.lists(
            st.sampled_from(("each its own", *made_store.FATES, "usual", "usual")),
            min_size=cells,
            max_size=cells,
        )
    )
    return "\n".join(lines), fates


def check_drawn(drawn_suite, folder: Path) -> None:
    text, fates = drawn_suite
    path = folder / "drawn.yaml"
    path.write_text(text)
    suite = load_suite(path)
    cells: dict[tuple[str, str, str], str] = {}

    def fate(trial):
        word = cells.setdefault(
            (trial.workload, trial.optimizer, trial.spec.backend), fates[len(cells) % len(fates)]
        )
        chance = made_store.drawn("fate", made_store.trial_id(trial.spec)).random()
        return made_store.FATES[int(chance * len(made_store.FATES))] if word == "each its own" else word

    store = made_store.fill(suite, folder / "results" / suite.name, fate)
    report = reported(store, folder)
    for board in report.boards:
        mine = report.results.trials[report.results.trials["workload"] == board.workload]
        assert sum(row.completed + row.diverged + row.crashed for row in board.rows) <= len(mine)
        for row in board.rows:
            assert np.isnan(row.mean) or row.completed
            assert row.target_reached <= row.completed + row.diverged
    carried(suite, store, folder)


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=5, **QUIET)
@given(drawn_suite=suites(most=120))
def test_a_suite_of_any_shape_has_a_report(drawn_suite, tmp_path_factory):
    check_drawn(drawn_suite, tmp_path_factory.mktemp("drawn"))


@pytest.mark.slow
@settings(max_examples=20, **QUIET)
@given(drawn_suite=suites())
def test_a_suite_of_any_size_has_a_report(drawn_suite, tmp_path_factory):
    check_drawn(drawn_suite, tmp_path_factory.mktemp("drawn"))


@pytest.mark.nightly
@settings(max_examples=400, **QUIET)
@given(drawn_suite=suites())
def test_hundreds_of_suites_of_any_size_have_reports(drawn_suite, tmp_path_factory):
    check_drawn(drawn_suite, tmp_path_factory.mktemp("drawn"))


def test_tuned_and_declared_numbers_that_both_diverge_are_a_tie(write_suite, tmp_path):
    pytest.importorskip("optuna", reason="the search is made for real")
    space = "{wame: {lr: {log: [0.001, 0.1]}}, adam: {lr: {log: [0.001, 0.1]}}}"
    tuning = f"tuning: {{trials: 2, seeds: 1, untuned: true, space: {space}}}"
    suite = load_suite(write_suite(("seeds: 2", f"seeds: 3\ndevice: cpu\n{tuning}")))
    report = reported(made_store.fill(suite, tmp_path / "store", "diverged"), tmp_path)
    (table,) = (table for table in main_tables(report) if table.title.startswith("Tuned against"))
    assert [row[2:] for row in table.rows] == [("diverged", "diverged", "+0.00", "3")] * 2
