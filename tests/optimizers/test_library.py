"""Names of libraries lead to a class of the backend, and say who has it where that one does not."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace

import pytest

from optbench.optimizers import FAMILIES, Custom, Group, Grouped, Library, on_backend, space_of
from optbench.optimizers.custom import CustomError, fitted
from optbench.optimizers.library import EXTRAS, LIBRARY, LibraryError, extra
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError

SUITE = """
suite: s
workloads: [{dataset: iris, model: {name: mlp, hidden: [4]}, batch_size: 16, epochs: 1}]
"""


def load(folder, text):
    path = folder / "s.yaml"
    path.write_text(SUITE + text)
    return load_suite(path)


def test_every_name_has_a_class_whose_package_an_extra_brings():
    assert not set(LIBRARY) & set(FAMILIES)
    for name, entry in LIBRARY.items():
        assert entry.places(), name
        assert {extra(reference) for reference in entry.places().values()} <= set(EXTRAS.values())


def test_a_name_becomes_the_class_of_the_trials_backend_with_its_version(tmp_path):
    torch = pytest.importorskip("torch")
    suite = load(tmp_path, "optimizers: {adafactor: {lr: 0.01}}\nbackends: [torch]\nseeds: 1\n")
    (trial,) = trials(suite, lambda backend, device: "cpu")
    config = trial.spec.optimizer
    assert (config.name, config.reference, config.lr) == ("adafactor", "torch.optim:Adafactor", 0.01)
    assert config.code == f"torch=={torch.__version__}" or config.code.startswith("torch==")


def test_a_backend_without_a_class_says_who_has_it():
    with pytest.raises(
        LibraryError, match=r"tensorflow backend has no class.*torch has it \(.*optbench\[opt"
    ):
        on_backend(Library(name="soap"), "tensorflow")


@pytest.mark.skipif(importlib.util.find_spec("pytorch_optimizer") is not None, reason="is installed here")
def test_a_missing_package_is_named_with_the_extra():
    with pytest.raises(LibraryError, match=r"pytorch_optimizer:SOAP.*pip install 'optbench\[optimizers\]'"):
        on_backend(Grouped(groups=(Group(match=("rest",), config=Library(name="soap")),)), "torch")


def test_an_unknown_name_lists_the_libraries_names_too(tmp_path):
    with pytest.raises(SuiteError, match=re.compile("unknown optimizer 'soapy'.*Did you mean 'soap'", re.S)):
        load(tmp_path, "optimizers: {soapy: {lr: 0.01}}\n")


def test_a_name_has_a_range_to_search():
    assert "lr" in space_of(Library(name="prodigy"))


def test_a_custom_class_without_a_name_is_what_it_was():
    config = Custom(reference="a:B", code="a==1")
    assert replace(config, name=None) == config


@pytest.mark.parametrize(
    ("made", "given", "wanted"),
    [
        (lambda learning_rate, b1=0.9: 0, {"lr": 1, "beta1": 0.5}, {"learning_rate": 1, "b1": 0.5}),
        (lambda lr, eps=1: 0, {"learning_rate": 1, "epsilon": 2}, {"lr": 1, "eps": 2}),
        (lambda lr, betas=(0.9, 0.99): 0, {"lr": 1, "beta2": 0.5}, {"lr": 1, "betas": (0.9, 0.5)}),
        (lambda learning_rate=1, **more: 0, {"lr": 1, "beta_1": 2}, {"learning_rate": 1, "beta_1": 2}),
    ],
)
def test_arguments_are_called_by_the_classs_own_words(made, given, wanted):
    assert fitted(made, given, "m:f") == wanted


def test_an_argument_without_a_word_is_refused_with_what_there_is():
    with pytest.raises(CustomError, match="m:f takes no argument 'rho'; it takes lr"):
        fitted(lambda lr: 0, {"rho": 1}, "m:f")


def test_one_entry_serves_keras_and_optax(tmp_path):
    optax = pytest.importorskip("optax")
    from optbench.optimizers import custom
    from optbench.optimizers.optax import make_optimizer

    config = custom.from_mapping({"class": "optax:lion", "lr": 0.1}, base_dir=tmp_path)
    solver = make_optimizer(config)
    w = optax.tree.zeros_like({"a": 0.0})
    updates, _ = solver.update({"a": w["a"] + 1}, solver.init(w), w)
    assert float(updates["a"]) == pytest.approx(-0.1, rel=1e-2)
