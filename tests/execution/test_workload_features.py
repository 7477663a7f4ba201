"""Schedules, clipping, decay, smoothing, augmentation and metrics as a trial really applies them."""

from dataclasses import replace

import numpy as np
import pytest

from optbench import backends, matching
from optbench.datasets import registry
from optbench.datasets.base import cut
from optbench.execution.protocol import run_trial
from optbench.models.layers import Dense, Model, build
from optbench.optimizers import SGD, Adam
from optbench.trial import (
    Augment,
    ReduceOnPlateau,
    Seeds,
    Split,
    StepSchedule,
    TrialSpec,
    Workload,
    trial_id,
)

LINEAR = Model(name="linear", layers=(Dense(),))


@pytest.fixture(scope="module")
def engine():
    pytest.importorskip("torch")
    return backends.engine("torch")


def spec(optimizer=None, *, epochs=1, batch_size="full", model=LINEAR, **features):
    workload = Workload(dataset="digits", model=model, batch_size=batch_size, epochs=epochs, **features)
    return TrialSpec(
        workload=workload,
        optimizer=optimizer or SGD(lr=0.5),
        seeds=Seeds(),
        backend="torch",
        device="cpu",
        precision="float64",
    )


def run(engine, trial, on_epoch=None):
    return run_trial(trial, engine, registry.synthetic("digits"), environment={}, on_epoch=on_epoch)


def one_step(engine, **features):
    """Weights before and after one full-batch step of plain gradient descent, and its loss."""
    trial = spec(**features)
    data = cut(registry.synthetic("digits"), Split(), trial.seeds, train_eval="all")
    built = build(LINEAR, data.info.shape, data.info.outputs)
    before = matching.initial_weights(built, 0, "float64")
    session = engine.open(trial, built, data, before)
    loss = session.train_epoch(data.train.rows, 1)[0]
    return before, session.weights(), loss, data


def change(before, after):
    return np.concatenate([(after[name] - before[name]).ravel() for name in before])


def test_features_that_are_off_leave_the_trial_id_alone():
    assert trial_id(spec()) == trial_id(spec(label_smoothing=None, schedule=None, top_k=None))
    assert trial_id(spec()) != trial_id(spec(label_smoothing=0.1))


def test_label_smoothing_is_in_the_training_loss_alone(engine):
    before, _, plain, data = one_step(engine)
    _, _, smooth, _ = one_step(engine, label_smoothing=0.2)
    x = data.train.x[data.train.rows].reshape(len(data.train), -1) / 255
    logits = x @ before["dense_1/kernel"]
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    true = log_p[np.arange(len(x)), data.train.targets]
    assert plain == pytest.approx(-true.mean(), rel=1e-12)
    assert smooth == pytest.approx(-(0.8 * true + 0.2 * log_p.mean(axis=1)).mean(), rel=1e-12)
    records = [run(engine, spec(label_smoothing=s)) for s in (None, 0.2)]
    assert records[0].history["train_loss"][0] == records[1].history["train_loss"][0]


def test_clip_norm_bounds_the_whole_gradient_and_leaves_a_small_one(engine):
    before, after, _, _ = one_step(engine)
    free = change(before, after)
    _, clipped, _, _ = one_step(engine, clip_norm=0.01)
    np.testing.assert_allclose(change(before, clipped), free * 0.005 / np.linalg.norm(free), rtol=1e-9)
    _, same, _, _ = one_step(engine, clip_norm=1e6)
    np.testing.assert_array_equal(change(before, same), free)


def test_clip_value_cuts_each_element(engine):
    before, after, _, _ = one_step(engine)
    free = change(before, after) / -0.5
    _, clipped, _, _ = one_step(engine, clip_value=0.002)
    np.testing.assert_allclose(change(before, clipped) / -0.5, np.clip(free, -0.002, 0.002), atol=1e-15)
    assert np.abs(free).max() > 0.002


def test_weight_decay_shrinks_kernels_and_not_biases(engine):
    before, plain, _, _ = one_step(engine)
    _, decayed, _, _ = one_step(engine, weight_decay=0.1)
    kernel = "dense_1/kernel"
    np.testing.assert_allclose(decayed[kernel] - plain[kernel], -0.5 * 0.1 * before[kernel], atol=1e-15)
    np.testing.assert_array_equal(decayed["dense_1/bias"], plain["dense_1/bias"])


def test_a_schedule_reaches_the_steps_and_the_history(engine):
    record = run(engine, spec(epochs=4, schedule=StepSchedule(at=(2,), factor=1e-12)))
    assert record.history["lr"].tolist() == [0.5, 0.5, 0.5, 5e-13, 5e-13]
    loss = record.history["train_loss"]
    assert loss[2] < loss[1] < loss[0]
    np.testing.assert_allclose(loss[3:], loss[2], rtol=1e-9)


def test_the_rate_falls_on_a_plateau(engine):
    rule = ReduceOnPlateau(patience=1, min_delta=1e9, factor=0.5)
    assert run(engine, spec(epochs=4, schedule=rule)).history["lr"][1:].tolist() == [0.5, 0.5, 0.25, 0.125]


def test_top_k_and_per_class_metrics_are_recorded(engine):
    record = run(engine, spec(Adam(lr=0.01), epochs=3, top_k=(2, 10), per_class=True))
    metrics = record.metrics
    assert metrics["test_accuracy"] <= metrics["test_top2_accuracy"] <= metrics["test_top10_accuracy"] == 1.0
    test = registry.synthetic("digits").y_test
    right = record.predictions["last"] == test
    assert metrics["test_recall[3]"] == pytest.approx(right[test == 3].mean())
    assert metrics["test_f1"] == pytest.approx(np.mean([metrics[f"test_f1[{c}]"] for c in range(10)]))
    assert np.isfinite(record.history["val_f1"]).all()


def test_augmented_pixels_replace_the_inputs_and_are_the_same_for_every_optimizer(engine):
    losses = {}
    for augment in (None, Augment(rotation=30, shift=0.2)):
        for optimizer in (SGD(lr=1e-9), Adam(lr=1e-12)):
            trial = spec(optimizer, batch_size=16, augment=augment)
            losses[augment is None, type(optimizer)] = run(engine, trial).history["batch_loss"][1]
    assert losses[False, SGD] == pytest.approx(losses[False, Adam], rel=1e-6)
    assert losses[False, SGD] != pytest.approx(losses[True, SGD], rel=1e-3)


def test_augmentation_repeats(engine):
    trials = [spec(epochs=2, batch_size=16, augment=Augment(zoom=0.2)) for _ in range(2)]
    first, second = (run(engine, trial) for trial in trials)
    np.testing.assert_array_equal(first.history["batch_loss"], second.history["batch_loss"])
    assert first.timings["augment"] > 0


def test_the_published_validation_part_is_the_last_of_training():
    made = registry.synthetic("digits")
    dataset = replace(made, info=replace(made.info, validation=30))
    data = cut(dataset, Split(how="published"), Seeds(), train_eval=10)
    assert data.validation.rows.tolist() == list(range(len(dataset.y_train) - 30, len(dataset.y_train)))


def test_pixels_as_stored_are_255_times_the_scaled_ones(engine):
    data = registry.synthetic("digits")
    scaled, stored = (
        run_trial(spec(SGD(lr=rate), scale=how), engine, data, environment={})
        for rate, how in ((0.5, None), (0.5 / 255**2, "none"))
    )
    # A linear model under 255 times the inputs: the step in logits is the same at the rate over 255 squared.
    weights = scaled.history["train_loss"][0], stored.history["train_loss"][0]
    assert weights[1] > 2 * weights[0], "the same weights see larger inputs"
    assert scaled.trial_id != stored.trial_id
