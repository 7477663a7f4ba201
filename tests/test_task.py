"""Metrics as declarations: what is known, what is not, and that everything recorded is."""

from __future__ import annotations

import math

import pytest

from optbench import api
from optbench.records.store import Store
from optbench.stats.common import StatsError
from optbench.stats.compare import direction_of
from optbench.suite.load import load_suite
from optbench.task import (
    METRICS,
    NAMES,
    CustomMetric,
    Metrics,
    UndeclaredError,
    is_time,
    known,
    sign_of,
    undeclared,
)

HIGHER = """
accuracy acc test_acc val_categorical_accuracy Validation-Accuracy eval/accuracy metrics/accuracy
test.accuracy epoch_val_accuracy best_val_acc test_accuracy_best accuracy_final mean_accuracy top1 top5
acc1 acc@5 val_top5 test_top3_accuracy prec@1 top_5_categorical_accuracy balanced_accuracy f1 macro_f1
F1-Score auc AUROC roc_auc val_auc_1 average_precision mAP mAP50 mAP50-95 iou mIoU dice r2 R2_score mcc
kappa bleu BLEU-4 rouge1 rougeL rougeLsum rouge1_fmeasure psnr ssim neg_mean_squared_error neg_log_loss
neg_brier_score neg_loss steps_per_sec test_samples_per_second throughput precision recall precision[a]
test_recall[x_y] test_f1[7] log_likelihood reward recall@10 ndcg@10 hits@1
"""
LOWER = """
loss val_loss train_loss test_loss_last eval/loss batch_loss error err error_rate test_error err1
top5_error nll negative_log_likelihood neg_log_likelihood mse MAE rmse val_root_mean_squared_error
perplexity ppl bits_per_byte brier brier_score Brier-Score brier_loss log_loss cross_entropy cross-entropy
ece wer cer fid runtime seconds time train_time step_seconds eval_seconds time_to_target neg_accuracy
test_runtime mape hamming_loss sparse_categorical_crossentropy
"""
UNKNOWN = """
accuracy_std accuracy_drop my_score score value x my_loss own_error score_loss lossy blossom accuracyish
accuracy_epoch best_loss_epoch std_accuracy accuracy_gap val_ test best mean neg_ class_accuracy_7b
hyper_loss loss[a] accuracy[a] precision[a map_to losses timestamp lr_loss
"""


@pytest.mark.parametrize("name", HIGHER.split())
def test_larger_is_better_of(name):
    assert known(name).direction == "higher"


@pytest.mark.parametrize("name", LOWER.split())
def test_smaller_is_better_of(name):
    assert known(name).direction == "lower"


@pytest.mark.parametrize("name", UNKNOWN.split())
def test_no_part_of_a_name_is_taken_for_it(name):
    assert known(name) is None
    with pytest.raises(StatsError, match=r"is not known; say which is better: --maximise or --minimise"):
        direction_of(name)


@pytest.mark.parametrize("name", ["epochs", "steps", "lr", "test_epochs", "best_epoch"])
def test_a_fact_that_is_no_merit_is_asked_about_too(name):
    assert known(name).direction is None
    with pytest.raises(StatsError, match=r"neither better large nor better small.*--maximise"):
        direction_of(name)
    with pytest.raises(UndeclaredError, match="neither better large"):
        Metrics()[name]


def test_the_table_is_complete_and_no_name_means_two_things():
    for name, metric in METRICS.items():
        assert known(name) == metric
        assert metric.title
        assert metric.low < metric.high
        assert (metric.unit == "share") == (metric.symbol == "%") == (metric.factor == 100)
    listed = [name for metric in METRICS.values() for name in NAMES if NAMES[name] is metric]
    assert len(listed) == len(set(listed)) == len(NAMES)


def test_titles_and_units_are_those_of_the_metric():
    assert known("test_accuracy").heading == "test accuracy, %"
    assert known("validation/acc").heading == "val accuracy, %"
    assert known("val_loss").heading == "val loss"
    assert known("test_top5_accuracy").heading == "test top-5, %"
    assert known("test_f1[cat]").title == "test F1 of cat"
    assert (known("test_accuracy").digits, known("test_loss").digits) == (2, 4)
    assert known("neg_ece").unit == "number"
    assert (known("neg_mean_squared_error").low, known("neg_mean_squared_error").high) == (-math.inf, 0)
    assert (sign_of("val_accuracy"), sign_of("val_loss")) == (1, -1)
    assert is_time("step_seconds")
    assert not is_time("val_loss")
    assert "say which is better: so" in undeclared("nobodys", "so")


def test_a_metric_turned_round_keeps_its_unit_unless_it_was_a_share():
    for name, metric in METRICS.items():
        turned = known(f"neg_{name}")
        if NAMES.get(f"neg_{name}") is not None:
            continue
        assert turned.unit == ("number" if metric.unit == "share" else metric.unit), name
        assert (turned.low, turned.high) == (-metric.high, -metric.low), name
        assert {turned.direction, metric.direction} in ({"higher", "lower"}, {None}), name


def test_a_direction_may_be_declared_against_the_name_and_is_said_so():
    assert direction_of("test_loss", True) == (
        True,
        "larger test_loss is better (declared, against what its name means elsewhere)",
    )
    assert direction_of("my_score", False) == (False, "smaller my_score is better (declared)")


def test_a_declared_metric_is_found_under_its_columns():
    metrics = Metrics((CustomMetric(name="doubt", reference="a.py:f", code="c", minimise=True),))
    for name in ("test_doubt", "val_doubt", "test_doubt_best", "val_doubt_last"):
        assert metrics[name].direction == "lower"
    assert metrics["test_doubt_best"].heading == "test doubt best"
    for name in ("doubt", "train_doubt", "test_doubts", "test_doubt_sd"):
        with pytest.raises(UndeclaredError, match="is not known"):
            metrics[name]
    other = CustomMetric(name="doubt", reference="a.py:f", code="c", minimise=False)
    for both in ([*metrics.custom, other], [other, *metrics.custom]):
        with pytest.raises(UndeclaredError, match="minimised in one place and maximised in another"):
            Metrics.of(both)


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_every_name_that_a_trial_records_is_known(write_suite, tmp_path, backend):
    pytest.importorskip(backend)
    extras = "epochs: 2\n    top_k: [2, 5]\n    per_class: true\n    early_stopping: {patience: 5}"
    changes = [("epochs: 2", extras), ("seeds: 2", f"seeds: 1\nbackends: [{backend}]")]
    outcome = api.run(load_suite(write_suite(*changes)), results=tmp_path)
    with Store(outcome.store) as store:
        trials = list(store.trials())
    assert len(trials) == 2
    for trial in trials:
        assert trial.status == "completed"
        assert {"train_loss", "val_f1", "step_seconds"} <= set(trial.history)
        assert {"test_top5_accuracy", "test_precision[0]", "val_loss_best"} <= set(trial.metrics)
        names = [*trial.history, *trial.metrics, *(f"{name}_seconds" for name in trial.timings)]
        assert not [name for name in names if known(name) is None]
        assert all(is_time(f"{name}_seconds") for name in trial.timings)
        for name, value in trial.metrics.items():
            assert known(name).low <= value <= known(name).high, name
