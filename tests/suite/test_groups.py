"""Parameter groups as a suite file has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from optbench.records.single import planned
from optbench.suite.expand import trials
from optbench.suite.json_schema import suite_schema
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError

jsonschema = pytest.importorskip("jsonschema", reason="a suite is checked against the schema, too")

SUITE = """
suite: groups
workloads: [{dataset: iris, model: {name: mlp, hidden: [4]}, batch_size: 16, epochs: 1}]
seeds: 1
optimizers:
"""


def load(folder, *entries):
    path = Path(folder) / "s.yaml"
    path.write_text(SUITE + "".join(f"  {entry}\n" for entry in entries))
    return load_suite(path)


def config(folder, entry):
    return next(iter(load(folder, entry).workloads[0].optimizers.values()))


def test_groups_of_their_own(tmp_path):
    found = config(
        tmp_path,
        "mixed: {groups: [{match: matrix, optimizer: muon, lr: 0.02}, "
        "{match: rest, optimizer: adamw, lr: 3.0e-4, weight_decay: 0, scheduled: false}]}",
    )
    first, rest = found.groups
    assert (first.match, first.config.optimizer, found.lr) == (("matrix",), "muon", 0.02)
    assert (rest.config.weight_decay, rest.scheduled) == (0, False)


def test_groups_on_top_of_an_optimizer_keep_its_numbers_and_leave_it_the_rest(tmp_path):
    found = config(
        tmp_path, "adamw: {lr: 0.002, weight_decay: 0.1, groups: [{match: [norm, bias], weight_decay: 0}]}"
    )
    own, rest = found.groups
    assert (own.config.lr, own.config.weight_decay) == (0.002, 0)
    assert (rest.match, rest.config.weight_decay) == (("rest",), 0.1)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("mixed: {groups: []}", "list entries such as"),
        ("mixed: {groups: [{match: matrx, optimizer: sgd}]}", "unknown role 'matrx'. Did you mean 'matrix'"),
        ("mixed: {groups: [{match: matrix}]}", "names no `optimizer`"),
        ("mixed: {lr: 1, groups: [{match: rest, optimizer: sgd}]}", "lr: of which optimizer?"),
        ("mixed: {groups: [{match: rest, optimizer: sgd, lr: -1}]}", "greater than 0"),
        ("mixed: {groups: [{match: matrix, optimizer: sgd}]}", "add an entry with `match: rest`"),
        ("mixed: {groups: [{match: bias, optimizer: muon}, {match: rest, optimizer: sgd}]}", "bias are none"),
        (
            "mixed: {groups: [{match: matrix, optimizer: muon, rest_lr: 1}, {match: rest, optimizer: sgd}]}",
            "rest_lr",
        ),
        ("mixed: {groups: [{match: rest, optimizer: sgd}, {match: rest, optimizer: sgd}]}", "two match rest"),
        ("mixed: {groups: [{match: rest, optimizer: sgd, scheduled: 1}]}", "true or false"),
        ("mixed: {groups: [{match: rest, optimizer: sgd, groups: []}]}", "no other group"),
    ],
)
def test_groups_that_make_no_sense_are_refused_by_place(tmp_path, entry, words):
    with pytest.raises(SuiteError, match=r"optimizers\.mixed") as error:
        load(tmp_path, entry)
    assert words in str(error.value)


def test_the_schema_takes_what_the_program_takes(tmp_path):
    validator = jsonschema.Draft7Validator(suite_schema())

    def errors(entry):
        data = yaml.safe_load(SUITE + f"  {entry}\n")
        return [error.message for error in validator.iter_errors(json.loads(json.dumps(data)))]

    good = "adamw: {lr: 0.002, groups: [{match: [norm, bias], weight_decay: 0, scheduled: true}]}"
    assert errors(good) == []
    assert errors("own: {groups: [{match: matrix, optimizer: muon}, {match: rest, optimizer: sgd}]}") == []
    assert errors("adamw: {groups: [{match: matrx}]}")
    assert errors("adamw: {groups: []}")


def test_a_recorded_trial_with_groups_is_read_back_as_the_same_trial(tmp_path):
    pytest.importorskip("torch")
    from optbench import api
    from optbench.records.store import Store

    suite = load(tmp_path, "muon: {lr: 0.02, groups: [{match: head, optimizer: lion, lr: 0.001}]}")
    outcome = api.run(suite, results=tmp_path / "results")
    assert outcome.completed == 1
    with Store(outcome.store) as store:
        (trial,) = store.trials(list(store.statuses()))
    facts = trial.environment["groups"]
    assert [f["optimizer"] for f in facts] == ["lion", "muon", "adamw"] or len(facts) == 2
    (plan,) = trials(suite, lambda backend, device: "cpu")
    assert planned(trial, folder=tmp_path)[1].spec == plan.spec
