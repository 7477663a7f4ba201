"""Custom metrics, from the suite file to the leaderboard."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from optbench import api
from optbench.errors import UserError
from optbench.records.frames import load_results
from optbench.records.single import as_suite, planned
from optbench.records.store import Store
from optbench.report.analysis import analyse, side_tables
from optbench.report.combine import with_analysis
from optbench.suite import custom_metrics
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.suite.report_spec import ReportSpec
from optbench.suite.spec import SuiteError
from optbench.task import CLASSIFICATION, Metrics
from optbench.trial import block_id, trial_id

SOURCE = """
import numpy as np

def brier(probabilities, labels):
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(1).mean()

def hits(probabilities, labels):
    return (probabilities.argmax(1) == labels).mean()

def log_loss(probabilities, labels):
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()

def late(probabilities, labels):
    return float("nan") if len(labels) > 100 else 0.5

def words(probabilities, labels):
    return "0.5"

def greedy(probabilities, labels):
    labels[:] = 0
    return 1.0

number = 3
"""
HITS = "hits: {class: mine.py:hits, minimise: false}"
DECLARED = f"metrics: {{brier: mine.py:brier, {HITS}, own_loss: {{class: mine.py:log_loss, minimise: true}}}}"


@pytest.fixture
def suite_with(write_suite, tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)

    def write(declared=DECLARED, primary=None, name="tiny.yaml"):
        analysis = "{baseline: wame" + (f", primary: {primary}" if primary else "") + "}"
        return write_suite(("seeds: 2", f"seeds: 2\n{declared}"), ("{baseline: wame}", analysis), name=name)

    return write


def ids(path):
    return [trial_id(t.spec) for t in trials(load_suite(path), lambda backend, device: "cpu")]


def test_metrics_are_recorded_tested_and_shown(suite_with, tmp_path):
    pytest.importorskip("torch")
    suite = load_suite(suite_with(primary="test_brier"))
    outcome = api.run(suite, results=tmp_path / "results")
    assert (outcome.completed, outcome.crashed) == (4, 0)
    found = load_results(outcome.store).trials
    for part in ("test", "val"):
        for name, twin in (("hits", "accuracy"), ("own_loss", "loss")):
            for suffix in ("", "_best"):
                np.testing.assert_allclose(
                    found[f"{part}_{name}{suffix}"], found[f"{part}_{twin}{suffix}"], rtol=1e-5
                )
    np.testing.assert_array_equal(found["test_brier_last"], found["test_brier"])
    report = analyse(load_results(outcome.store), suite.report_spec)
    (board,) = report.boards
    means = {row.optimizer: row.mean for row in board.rows}
    assert not board.maximise
    assert board.rows[0].optimizer == min(means, key=lambda name: means[name])
    assert "test brier (lower is better)" in report.methods
    table = side_tables(report)["metrics"]
    assert table.columns[2:] == (
        "test brier (smaller is better)",
        "test hits (larger is better)",
        "test own loss (smaller is better)",
    )
    by_name = {row[1]: row[2] for row in table.values}
    assert by_name == pytest.approx(means)


def test_a_store_alone_knows_the_directions(suite_with, tmp_path):
    suite = load_suite(suite_with(primary="test_brier"))
    seen = ReportSpec.from_json(suite.report_spec.to_json())
    assert seen == suite.report_spec
    assert not seen.metrics["test_brier"].maximised
    assert not seen.metrics["val_own_loss_best"].maximised
    assert seen.metrics["test_hits"].maximised
    assert with_analysis(seen, primary="val_hits").analysis.primary == "val_hits"
    with pytest.raises(SuiteError, match=r"--primary.*test_brier"):
        with_analysis(seen, primary="test_bryer")
    old = json.loads(suite.report_spec.to_json())
    for entry in old["workloads"]:
        del entry["metrics"]
    assert ReportSpec.from_json(json.dumps(old)).metrics == Metrics()


def test_name_and_code_are_identity_and_direction_is_not(suite_with, write_suite, tmp_path):
    plain, one = ids(write_suite(name="plain.yaml")), ids(suite_with(f"metrics: {{{HITS}}}"))
    assert not set(plain) & set(one)
    upside_down = "metrics: {hits: {class: mine.py:hits, minimise: true}}"
    assert ids(suite_with(upside_down, name="b.yaml")) == one
    renamed = ids(suite_with("metrics: {hit: {class: mine.py:hits, minimise: false}}", name="c.yaml"))
    (tmp_path / "mine.py").write_text(SOURCE + "\n")
    edited = ids(suite_with(f"metrics: {{{HITS}}}", name="d.yaml"))
    assert len({*one, *renamed, *edited}) == 3 * len(one)


def test_a_workload_adds_its_own_to_those_of_the_suite(write_suite, tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    path = write_suite(
        ("seeds: 2", f"seeds: 2\nmetrics: {{{HITS}}}"),
        ("epochs: 2", "epochs: 2\n    metrics: {brier: mine.py:brier}"),
    )
    suite = load_suite(path)
    assert [m.name for m in suite.workloads[0].workload.metrics] == ["brier", "hits"]
    assert [m.minimise for m in suite.metrics.custom] == [True, False]


def test_a_recorded_trial_is_trained_again_with_its_metrics(suite_with, tmp_path):
    pytest.importorskip("torch")
    outcome = api.run(load_suite(suite_with()), results=tmp_path / "results")
    with Store(outcome.store) as store:
        (trial, *_) = store.trials(list(store.statuses()))
    assert as_suite(trial)["workloads"][0]["metrics"]["brier"] == {"class": "mine.py:brier", "minimise": True}
    _, again = planned(trial, folder=tmp_path)
    assert (trial_id(again.spec), block_id(again.spec)) == (trial.trial_id, trial.block_id)
    (tmp_path / "mine.py").write_text(SOURCE + "\n")
    with pytest.raises(Exception, match=r"the code of mine\.py:brier was sha256"):
        planned(trial, folder=tmp_path)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("metrics: [nobodys]", r"metrics.nobodys: found 'nobodys'; write `my_metric.py:function`"),
        ("metrics: {hits: mine.py:hit}", "no 'hit' in this file; it has brier, hits"),
        ("metrics: {hits: gone.py:hits}", "gone.py: there is no such file"),
        *(
            (f"metrics: {{{name}: mine.py:hits}}", rf"none of optbench's own \(.*\b{name}\b")
            for name in ("loss", *CLASSIFICATION.metrics)
        ),
        ("metrics: {hits_best: mine.py:hits}", "does not end in _best"),
        ("metrics: {hits: {class: mine.py:hits, minimize: true}}", "Did you mean 'minimise'"),
        ("metrics: {hits: {class: mine.py:hits, minimise: 1}}", "found 1; must be true or false"),
        ("metrics: {log_loss: {class: mine.py:log_loss, minimise: false}}", "minimised, as its name says"),
        ("metrics: {auc: {class: mine.py:hits, minimise: true}}", "maximised, as its name says"),
        (
            "metrics: {hits: mine.py:hits}",
            r"metric 'hits' is not known; say which is better: hits: .class: min",
        ),
        ("metrics: {own_loss: mine.py:log_loss}", "metric 'own_loss' is not known"),
        ("metrics: {accuracy_drop: mine.py:hits}", "metric 'accuracy_drop' is not known"),
        ("metrics: {lr: mine.py:hits}", "'lr' .learning rate. is neither better large nor better small"),
        ("metrics: {hits: 3}", "found 3"),
        ("metrics: {}", "map names to functions"),
    ],
)
def test_a_wrong_declaration_names_the_field(suite_with, declared, message):
    with pytest.raises(SuiteError, match=message):
        load_suite(suite_with(declared))


def test_the_primary_metric_is_one_that_every_workload_has(suite_with, write_suite, tmp_path):
    with pytest.raises(SuiteError, match=r"analysis.primary: unknown metric 'test_bier'.*'test_brier'"):
        load_suite(suite_with(primary="test_bier"))
    second = "- {name: b, dataset: wine, model: mlp, batch_size: 8, epochs: 1, metrics: {auc: mine.py:hits}}"
    path = write_suite(
        ("workloads:\n", f"workloads:\n  {second}\n"), ("{baseline: wame}", "{primary: test_auc}")
    )
    with pytest.raises(SuiteError, match="which workload digits/mlp lacks"):
        load_suite(path)


@pytest.mark.parametrize(
    ("function", "message"),
    [("words", "gave '0.5'"), ("greedy", "failed .ValueError"), ("number", "is no function")],
)
def test_a_function_that_cannot_be_used_stops_the_run_before_anything_is_trained(
    suite_with, tmp_path, function, message
):
    pytest.importorskip("torch")
    suite = load_suite(suite_with(f"metrics: {{auc: mine.py:{function}}}"))
    with pytest.raises(UserError, match=f"metric auc: mine.py:{function} {message}"):
        api.run(suite, results=tmp_path / "results")
    with Store(tmp_path / "results" / "tiny") as store:
        assert not store.statuses()


def test_a_value_that_is_no_number_at_the_end_is_a_crash_and_no_score(suite_with, tmp_path):
    pytest.importorskip("torch")
    outcome = api.run(load_suite(suite_with("metrics: {auc: mine.py:late}")), results=tmp_path / "results")
    assert outcome.crashed == 4
    with Store(outcome.store) as store:
        trial, *_ = store.trials(list(store.statuses()))
    assert "late gave nan; return one finite number" in trial.error


def test_it_travels_to_other_processes(suite_with, tmp_path):
    pytest.importorskip("torch")
    suite = load_suite(suite_with(f"metrics: {{{HITS}}}"))
    outcome = api.run(suite, results=tmp_path / "results", workers=2)
    assert outcome.completed == 4
    assert "test_hits" in load_results(outcome.store).trials
    (metric,) = pickle.loads(pickle.dumps(suite.workloads[0].workload.metrics))
    assert custom_metrics.score(metric, np.eye(3), np.arange(3)) == 1


def test_packages_offer_metrics_by_name(write_suite, tmp_path, monkeypatch):
    site = tmp_path / "site"
    info = site / "scores-2.1.dist-info"
    info.mkdir(parents=True)
    (site / "scores.py").write_text(SOURCE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scores\nVersion: 2.1\n")
    (info / "RECORD").write_text("scores.py,,\n")
    (info / "entry_points.txt").write_text(
        "[optbench.metrics]\nbrier-score = scores:brier\nmiss = scores:hits\n"
        "[optbench.metrics.maximise]\nhits = scores:hits\n[optbench.metrics.minimise]\nlate = scores:late\n"
    )
    monkeypatch.syspath_prepend(str(site))
    listed = load_suite(write_suite(("seeds: 2", "seeds: 2\nmetrics: [hits]"), name="a.yaml"))
    (hits,) = listed.metrics.custom
    assert (hits.reference, hits.code, hits.minimise) == ("scores:hits", "scores==2.1", False)
    named = load_suite(write_suite(("seeds: 2", "seeds: 2\nmetrics: {brier: brier-score}"), name="b.yaml"))
    assert [(m.reference, m.minimise) for m in named.metrics.custom] == [("scores:brier", True)]
    late = load_suite(write_suite(("seeds: 2", "seeds: 2\nmetrics: {mine: late}"), name="l.yaml"))
    assert [m.minimise for m in late.metrics.custom] == [True]
    with pytest.raises(SuiteError, match=r"metrics.miss: metric 'miss' is not known; say which is better"):
        load_suite(write_suite(("seeds: 2", "seeds: 2\nmetrics: [miss]"), name="d.yaml"))
    with pytest.raises(SuiteError, match="one of the installed brier-score, miss, hits, late"):
        load_suite(write_suite(("seeds: 2", "seeds: 2\nmetrics: [missed]"), name="c.yaml"))


def test_a_record_whose_name_became_known_keeps_its_direction(suite_with):
    suite = load_suite(suite_with("metrics: {brier_score: mine.py:brier}"))
    seen = json.loads(suite.report_spec.to_json())
    assert not ReportSpec.from_json(json.dumps(seen)).metrics["test_brier_score"].maximised
    for entry in seen["workloads"]:
        entry["metrics"][0]["minimise"] = False
    assert ReportSpec.from_json(json.dumps(seen)).metrics["test_brier_score_best"].maximised


def test_a_share_stays_one(suite_with, tmp_path):
    (metric,) = load_suite(suite_with("metrics: {auc: mine.py:hits}")).metrics.custom
    assert custom_metrics.score(metric, np.eye(3), np.arange(3)) == 1
    (tmp_path / "mine.py").write_text("def hits(probabilities, labels):\n    return 97.5\n")
    (metric,) = load_suite(suite_with("metrics: {auc: mine.py:hits}")).metrics.custom
    with pytest.raises(custom_metrics.MetricError, match=r"gave 97.5; by its name it is a share in \[0, 1\]"):
        custom_metrics.score(metric, np.eye(3), np.arange(3))


def test_probabilities_are_those_of_the_outputs_whatever_their_size():
    from optbench.execution.classification import probabilities

    found = probabilities(np.array([[1e4, 0.0], [0.0, np.log(3)]], dtype=np.float32))
    np.testing.assert_allclose(found, [[1, 0], [0.25, 0.75]], rtol=1e-6)
    assert found.dtype == np.float64
