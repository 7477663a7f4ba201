from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optbench.optimizers import Adam
from optbench.records.step_times import config_id, median
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.trial import Seeds, to_plain


def test_the_median_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(0).exponential(size=(4000, 9))
    found = [median(list(row)) for row in draws]
    inside = np.mean([m.low <= np.log(2) <= m.high for m in found])
    assert found[0].level == pytest.approx(1 - 2 * 10 / 512)
    assert abs(inside - found[0].level) < 0.01


def test_few_values_claim_no_more_than_they_can():
    assert median([3.0]).level == 0.0
    assert median([1.0, 2.0, 3.0]).level == 0.75
    assert (median([1.0, 2.0, 9.0]).low, median([1.0, 2.0, 9.0]).high) == (1.0, 9.0)


def test_a_config_is_a_trial_without_its_seed_and_names(write_suite):
    (trial, other, *_) = trials(load_suite(write_suite()), lambda *_: "cpu")
    spec = trial.spec
    model = replace(spec.workload.model, name="renamed")
    same = replace(spec, seeds=Seeds(init=9), workload=replace(spec.workload, model=model))
    key = config_id(to_plain(spec))
    assert config_id(to_plain(same)) == key
    for different in (other.spec, replace(spec, optimizer=Adam(lr=0.5)), replace(spec, precision="float64")):
        assert config_id(to_plain(different)) != key
