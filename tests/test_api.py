from __future__ import annotations

import numpy as np
import pytest

import optbench
from optbench.stats.common import StatsError
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError
from optbench.trial import trial_id

PLAIN = {
    "workloads": [
        {"dataset": "digits", "model": {"name": "mlp", "hidden": [8]}, "batch_size": 256, "epochs": 2}
    ],
    "optimizers": {"wame": {"lr": 0.05}, "adam": {"lr": 0.01}},
    "seeds": 2,
    "analysis": {"baseline": "wame"},
}


def ids(suite):
    return [trial_id(trial.spec) for trial in trials(suite, lambda backend, device: "cpu")]


def test_a_suite_made_in_code_is_the_one_of_the_file(write_suite):
    made, read = optbench.make_suite("tiny", **PLAIN), load_suite(write_suite())
    assert ids(made) == ids(read)
    assert made.path is None
    numbers = {**PLAIN, "optimizers": {"wame": {"lr": np.float64(0.05)}, "adam": {"lr": 0.01}}}
    sizes = np.array([8])
    numbers["workloads"] = ({**PLAIN["workloads"][0], "model": {"name": "mlp", "hidden": sizes}},)
    assert optbench.make_suite("tiny", **numbers).hash == made.hash


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": 3}, "suite tiny: sedes: unknown key 'sedes'. Did you mean 'seeds'"),
        ({"seeds": 0}, "suite tiny: seeds: found 0"),
        ({"optimizers": {"adam": {"lr": "0.1"}}}, "suite tiny: optimizers.adam.lr: found '0.1'"),
        ({"optimizers": {"adam": {"lr": object()}}}, "optimizers.adam.lr: found <object"),
        ({"workloads": []}, "suite tiny: workloads: "),
    ],
)
def test_an_error_names_the_field(changes, words):
    with pytest.raises(SuiteError) as caught:
        optbench.make_suite("tiny", **{**PLAIN, **changes})
    assert str(caught.value).startswith(words)


def test_from_code_to_a_verdict(tmp_path):
    pytest.importorskip("torch")
    outcome = optbench.run(optbench.make_suite("tiny", **{**PLAIN, "seeds": 6}), results=tmp_path)
    results = optbench.load_results(outcome.store)
    found = optbench.compare(results, baseline="adam")
    assert [c.candidate for c in found.within[0].comparisons] == ["wame"]
    assert found.within[0].comparisons[0].n == 6
    assert optbench.compare(results.trials, baseline="adam").to_dict() == found.to_dict()
    mixed = results.trials.assign(device=["cpu", "cuda"] * 6)
    with pytest.raises(StatsError, match="several settings"):
        optbench.compare(mixed)
    assert optbench.report(outcome.store).index == tmp_path / "tiny" / "report" / "index.html"


def test_the_types_are_part_of_the_package(repository):
    assert (repository / "optbench" / "py.typed").is_file()
    assert set(optbench.__all__) <= set(dir(optbench))
    assert all(getattr(optbench, name) is not None for name in optbench.__all__)
