"""One trial in every framework that is installed, and what is said where they part."""

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from optbench import backends
from optbench.backends.base import BackendMissingError
from optbench.optimizers import FAMILIES, SGD
from optbench.verification import parity


def shown(report) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(parity.render(report))
    return console.export_text()


@pytest.fixture
def two_backends(monkeypatch):
    """Two backends whose loss curves the test decides: the exponents of their relative difference."""

    def pretend(*apart: float):
        monkeypatch.setattr(backends, "engine", lambda name, context=None: None)
        gaps = {"torch": 0.0, "jax": np.array(apart)}

        def losses(config, model, precision, backend, context=None):
            return np.linspace(2, 1, len(apart)) * (1 + gaps[backend])

        monkeypatch.setattr(parity, "losses", losses)
        return parity.run("adagrad", backends=["torch", "jax"])

    return pretend


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_frameworks_train_alike(precision):
    if len(backends.installed()) < 2:
        pytest.skip("parity needs two frameworks; one or none is installed")
    report = parity.run("wame", precisions=[precision])
    assert {row.model for row in report.rows} == {model.name for model in parity.MODELS}
    assert report.passed, shown(report)


@pytest.mark.parametrize(
    "precision",
    [pytest.param("float64", marks=pytest.mark.slow), pytest.param("float32", marks=pytest.mark.nightly)],
)
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "wame"])
def test_frameworks_train_alike_with_every_canonical_optimizer(family, precision):
    if len(backends.installed()) < 2:
        pytest.skip("parity needs two frameworks; one or none is installed")
    report = parity.run(family, precisions=[precision])
    assert report.passed, shown(report)


@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_frameworks_train_alike_with_every_optimizer_on_every_network(family, monkeypatch):
    if len(backends.installed()) < 2:
        pytest.skip("parity needs two frameworks; one or none is installed")
    everywhere = tuple(replace(case, families=()) for case in parity.MODELS)
    monkeypatch.setattr(parity, "MODELS", everywhere)
    report = parity.run(family, precisions=["float64"])
    assert len(report.rows) == len(everywhere) * len(FAMILIES[family].parity_cases())
    assert report.passed, shown(report)


def test_every_family_is_compared(monkeypatch):
    asked = []
    monkeypatch.setattr(backends, "engine", lambda name, context=None: None)
    monkeypatch.setattr(parity, "losses", lambda config, *rest: asked.append(config) or np.ones(50))
    parity.run(backends=["torch", "jax"], precisions=["float64"])
    assert {config.optimizer for config in asked} == set(FAMILIES)


def test_the_training_that_is_compared_learns():
    if "torch" not in backends.installed():
        pytest.skip("the loss is looked at in torch, which is not installed")
    curve = parity.losses(SGD(lr=0.1), parity.MODELS[1], "float64", "torch")
    assert len(curve) == parity.STEPS
    assert curve[-10:].mean() < 0.5 * curve[:10].mean()


def test_the_step_where_curves_part_is_named_and_fails(two_backends):
    apart = np.zeros(50)
    apart[29:] = 1e-7
    report = two_backends(*apart)
    rows = {(row.precision, row.model): row for row in report.rows}
    assert rows["float64", "mlp"].parts_at == 30
    assert rows["float64", "mlp"].late == pytest.approx(1e-7, rel=1e-3)
    assert rows["float64", "mlp"].early == 0
    assert not rows["float64", "mlp"].passed
    assert rows["float32", "mlp"].passed
    assert not report.passed
    assert "FAIL" in shown(report)
    passed = sum(row.passed for row in report.rows)
    assert 0 < passed < len(report.rows)
    assert f"{passed} of {len(report.rows)} within their bars" in shown(report)


def test_rounding_may_grow_in_float32_on_the_cnn_alone(two_backends):
    apart = np.zeros(50)
    apart[29:] = 1e-4
    rows = {(row.precision, row.model): row.passed for row in two_backends(*apart).rows}
    assert rows["float32", "cnn with batch norm"]
    assert not rows["float32", "mlp"]


def test_a_loss_that_is_no_number_fails(two_backends):
    assert not any(row.passed for row in two_backends(*[0.0] * 49, np.nan).rows)


def test_one_backend_is_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(backends, "engine", lambda name, context=None: None)
    report = parity.run(backends=["torch"])
    assert not report.passed
    assert "needs two backends" in shown(report)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown optimizer 'abacus'; choose from wame"):
        parity.run("abacus")
    with pytest.raises(BackendMissingError, match="choose one of torch"):
        parity.run(backends=["abacus"])
