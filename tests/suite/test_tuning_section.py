from __future__ import annotations

from fractions import Fraction

import pytest

from optbench.optimizers import FAMILIES
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError
from optbench.trial import Seeds, to_plain

TUNING = "seeds: 2\ntuning: "


def tuned(write_suite, section: str, *more):
    return load_suite(write_suite(("seeds: 2", TUNING + section), *more))


def test_a_section_gives_every_optimizer_a_space_and_seeds_of_its_own(write_suite):
    tuning = tuned(write_suite, "{trials: 4, space: {adam: {lr: [0.1, 0.2]}}}").tuning
    assert tuning.space["adam"][0].choices == (0.1, 0.2)
    assert tuning.space["wame"][0].high == FAMILIES["wame"].space["lr"].high
    evaluation = {0, 1}
    assert not evaluation & {number for s in tuning.seeds for number in to_plain(s).values()}
    assert len(tuning.seeds) == 3


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{}", "needs one budget"),
        ("{trials: 4, budget: {epochs: 9}}", "needs one budget"),
        ("{budget: {epochs: 9, seconds: 3}}", "needs one budget"),
        ("{trials: 0}", "tuning.trials: found 0"),
        ("{trials: 4, sampler: bayes}", "unknown value 'bayes'"),
        ("{trials: 4, seeds: [1, 2]}", "tuning.seeds: 1 is an evaluation seed too"),
        ("{trials: 4, seeds: [7, 7]}", "different whole numbers"),
        ("{trials: 4, monitor: test_accuracy}", "tuning.monitor"),
        ("{trials: 4, space: {adma: {lr: [0.1, 0.2]}}}", "Did you mean 'adam'"),
        ("{trials: 4, space: {adam: {lr: {log: [0.1, 2], foo: 1}}}}", "unknown key 'foo'"),
        ("{trials: 4, space: {adam: {beta1: {uniform: [0, 2]}}}}", "beta1"),
        (
            "{sampler: hyperband, trials: 1000000000}",
            "found 1000000000 trials; a search has 100,000 settings",
        ),
        ("{sampler: halving, budget: {epochs: 900000000}}", "found 900000000 epochs; a search has"),
        ("{budget: {epochs: 5}}", "one setting of workload digits/mlp takes 6"),
        (
            "{trials: 5, sampler: grid, space: {adam: {lr: [1, 2]}}}",
            "tuning.space.adam: its grid cannot have 5",
        ),
        ("{trials: 4, network: {model.hidden: [[8], x]}}", "tuning.network"),
        ("{trials: 4, network: {model.foo: [1, 2]}}", "unknown key 'foo'"),
    ],
)
def test_what_does_not_fit_is_named(write_suite, section, message):
    with pytest.raises(SuiteError) as error:
        tuned(write_suite, section)
    assert message in str(error.value)
    assert "tiny.yaml:" in str(error.value)


def test_tuning_needs_validation_examples(write_suite):
    with pytest.raises(SuiteError, match="no validation examples"):
        tuned(write_suite, "{trials: 4}", ("batch_size: 256", "batch_size: 256\n    split: {validation: 0}"))


def test_a_cap_counts_tuning(write_suite):
    # 4 settings x 3 seeds x 2 optimizers, and 2 x 2 evaluated, tuned and untuned.
    tuned(write_suite, "{trials: 4}\nmax_trials: 32")
    with pytest.raises(SuiteError, match="declares 32 trials"):
        tuned(write_suite, "{trials: 4}\nmax_trials: 31")
    with pytest.raises(SuiteError, match="any number"):
        tuned(write_suite, "{budget: {seconds: 5}}\nmax_trials: 1000")


@pytest.mark.parametrize("sampler", ["halving", "hyperband"])
def test_brackets_are_those_of_the_paper(write_suite, sampler):
    # Li et al. (2018), table 1: R = 81, eta = 3.
    tuning = tuned(write_suite, f"{{sampler: {sampler}, trials: 143, seeds: 1}}").tuning
    table = {
        4: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        3: [(34, 3), (11, 9), (3, 27), (1, 81)],
        2: [(15, 9), (5, 27), (1, 81)],
        1: [(8, 27), (2, 81)],
        0: [(5, 81)],
    }
    found = tuning.brackets(81)
    if sampler == "halving":
        assert found[0] == table[4]
        assert found[1][0] == (62, 1)
    else:
        assert found == [table[s] for s in (4, 3, 2, 1, 0)]


def test_a_budget_of_epochs_is_never_overspent(write_suite):
    for sampler in ("random", "halving", "hyperband"):
        for epochs in (54, 100, 333):
            section = f"{{sampler: {sampler}, budget: {{epochs: {epochs}}}, seeds: 2}}"
            suite = tuned(write_suite, section, ("epochs: 2", "epochs: 9"))
            workload = suite.workloads[0].workload
            spent = suite.tuning.epochs(workload)
            assert 0 < spent <= epochs
            assert Fraction(suite.tuning.trainings(workload), 2).denominator == 1


def test_lists_of_tuning_seeds_are_taken_as_they_are(write_suite):
    assert tuned(write_suite, "{trials: 1, seeds: [5, 9]}").tuning.seeds == (
        Seeds(split=5, init=5, order=5, dropout=5, augment=5),
        Seeds(split=9, init=9, order=9, dropout=9, augment=9),
    )
