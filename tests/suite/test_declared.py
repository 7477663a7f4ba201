"""Schedules, features and custom models, as suite files write them."""

from __future__ import annotations

import pytest

from optbench.models.layers import Dense
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError
from optbench.trial import Augment, CosineSchedule, ReduceOnPlateau, StepSchedule

SUITE = """
suite: features
workloads:
  - dataset: digits
    model: {name: mlp, hidden: [4]}
    batch_size: 8
    epochs: 4
    FEATURE
optimizers: {adam: {lr: 0.01}}
seeds: 1
"""


def workload(folder, feature, *replacements):
    path = folder / "suite.yaml"
    text = SUITE.replace("FEATURE", feature)
    for old, new in replacements:
        text = text.replace(old, new)
    path.write_text(text)
    return load_suite(path).workloads[0].workload


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant", None),
        ("cosine", CosineSchedule()),
        ("{kind: cosine, floor: 0.1}", CosineSchedule(floor=0.1)),
        ("{kind: step, at: [2, 3]}", StepSchedule(at=(2, 3))),
        ("{kind: reduce_on_plateau, patience: 3}", ReduceOnPlateau(patience=3)),
    ],
)
def test_schedules(tmp_path, text, expected):
    assert workload(tmp_path, f"schedule: {text}").schedule == expected


def test_other_features(tmp_path):
    found = workload(tmp_path, "augment: {rotation: 10, fill: wrap}\n    top_k: [2, 3]\n    clip_norm: 1")
    assert found.augment == Augment(rotation=10, fill="wrap")
    assert (found.top_k, found.clip_norm, found.label_smoothing) == ((2, 3), 1, None)


def test_a_grid_may_hold_a_schedule(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE.replace("FEATURE", "grid: {schedule: [constant, cosine]}"))
    assert [w.workload.schedule for w in load_suite(path).workloads] == [None, CosineSchedule()]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("schedule: cosin", "unknown schedule 'cosin'. Did you mean 'cosine'"),
        ("schedule: {kind: step, at: []}", r"schedule.at: found \[\]"),
        ("schedule: {kind: step, every: 3}", "unknown key 'every'"),
        (
            "schedule: reduce_on_plateau\n    split: {validation: 0}",
            "schedule: needs validation examples",
        ),
        ("split: {how: published}", "digits has no published validation part"),
        ("label_smoothing: 1", "label_smoothing: found 1; must be less than 1"),
        ("top_k: [1]", "must be greater than 1"),
        ("augment: {fill: mirror}", "unknown value 'mirror'"),
        ("per_class: false", "per_class"),
    ],
)
def test_errors_name_the_field(tmp_path, feature, message):
    with pytest.raises(SuiteError, match=message):
        workload(tmp_path, feature)


def test_augmentation_needs_images(tmp_path):
    with pytest.raises(SuiteError, match=r"augment: needs images, but wine has shape"):
        workload(tmp_path, "augment: {zoom: 0.1}", ("digits", "wine"))


def test_a_model_from_a_function_beside_the_suite(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from optbench.models.layers import Dense\n"
        "def net(units):\n    return [Dense(units=units, activation='tanh'), Dense()]\n"
        "def broken():\n    return 'layers'\n"
    )
    own = ("{name: mlp, hidden: [4]}", "{class: nets.py:net, units: 5}")
    model = workload(tmp_path, "", own).model
    assert (model.name, model.layers) == ("net", (Dense(units=5, activation="tanh"), Dense()))
    for text, message in (
        ("{class: nets.py:broken}", "gave 'layers'; return a Model"),
        ("{class: nets.py:net}", "failed .TypeError.*units"),
        ("{class: nets.py:none}", "has no 'none'"),
        ("{class: none.py:net}", "none.py: there is no such file"),
    ):
        with pytest.raises(SuiteError, match=message):
            workload(tmp_path, "", (own[0], text))


def test_the_budget_counts_all_trials(tmp_path):
    with pytest.raises(SuiteError, match=r"the suite declares 3 trials .* budget is 2"):
        workload(tmp_path, "", ("seeds: 1", "seeds: 3\nmax_trials: 2"))
    assert workload(tmp_path, "", ("seeds: 1", "seeds: 2\nmax_trials: 2"))
