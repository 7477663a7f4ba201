import io

import pytest
from rich.console import Console

from optbench.optimizers import FAMILIES
from optbench.verification import checks, verify
from optbench.verification.checks import Check
from optbench.verification.verify import Section, VerificationReport

torch = pytest.importorskip("torch", reason="needs PyTorch")

GOOD = """
import torch
class Good(torch.optim.SGD):
    def __init__(self, params, lr=0.001):
        super().__init__(params, lr=lr, momentum=0.9)
"""

FORGETFUL = """
import torch
class Forgetful(torch.optim.Optimizer):
    def __init__(self, params, lr=0.001):
        super().__init__(params, {"lr": lr})
        self.buffers = {}
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for w in group["params"]:
                buffer = self.buffers.setdefault(w, torch.zeros_like(w))
                buffer.mul_(0.9).add_(w.grad)
                w.sub_(0.001 * buffer)
"""


def names(found):
    return {check.name for check in found}


def test_wame_passes_on_pytorch():
    report = verify.run("wame", backends=["torch"])
    assert report.failures == ()
    assert report.passed
    assert len(report.sections[0].checks) > 20


def test_the_report_says_what_ran_and_where_epsilon_stands():
    report = verify.run("adam", backends=["torch"])
    (ran,) = [check.figure for check in report.sections[0].checks if check.name == "optimizer that runs"]
    assert ran == "torch.optim.adam.Adam, fused"
    console = Console(file=io.StringIO(), width=100)
    console.print(verify.render(report))
    assert "Epsilon: outside the root, after the bias correction" in console.file.getvalue()


def test_a_rule_over_whole_tensors_is_not_held_to_concatenation(monkeypatch):
    from dataclasses import replace

    whole = replace(FAMILIES["sgd"], elementwise=False)
    monkeypatch.setattr(checks, "family_of", lambda config: whole)
    found = {check.name: check for check in checks.invariances(FAMILIES["sgd"].config(lr=1e-3), "torch")}
    assert found["two tensors or one concatenated"].passed is None


def test_a_good_class_of_the_users_passes_all_that_needs_no_reference(tmp_path):
    (tmp_path / "good.py").write_text(GOOD)
    report = verify.run("good.py:Good", base_dir=tmp_path)
    assert report.failures == ()
    assert "state saved and loaded half-way" in names(report.sections[0].checks)


def test_state_outside_the_state_dict_and_a_fixed_learning_rate_are_found(tmp_path):
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    report = verify.run("forgetful.py:Forgetful", base_dir=tmp_path)
    assert not report.passed
    assert names(report.failures) == {
        "state saved and loaded half-way",
        "a schedule that halves lr is obeyed",
    }


def test_an_error_in_a_users_class_is_a_failed_check(tmp_path):
    (tmp_path / "bad.py").write_text(GOOD.replace("momentum=0.9", "momentum=-1"))
    (failure,) = verify.run("bad.py:Good", base_dir=tmp_path).failures
    assert failure.name == "stopped by an error"
    assert "Invalid momentum" in failure.figure


@pytest.mark.parametrize("wrong", [{"lr": 0.0101}, {"alpha": 0.91}, {"eps_mode": "outside", "eps": 1e-5}])
def test_a_wrong_rule_fails_every_trajectory(wrong, monkeypatch):
    from dataclasses import replace

    from optbench.verification import steppers

    right = steppers.make
    monkeypatch.setattr(
        checks, "make", lambda backend, config, *rest: right(backend, replace(config, **wrong), *rest)
    )
    found = list(checks.trajectories(FAMILIES["wame"].cases()[:1], "torch", []))
    assert not any(check.passed for check in found if "float64" in check.name)


def test_unknown_optimizers_and_backends_are_refused():
    with pytest.raises(ValueError, match="choose from wame"):
        verify.run("wmae")
    with pytest.raises(ValueError, match="unknown backend"):
        verify.run("wame", backends=["mxnet"])


def test_a_report_without_a_single_pass_has_not_passed():
    skipped = Check(name="all", backend="jax", passed=None, figure="skipped")
    assert not VerificationReport(sections=(Section(title="WAME", checks=(skipped,)),)).passed


def test_a_report_is_rendered_with_its_failures():
    good = Check(name="one", backend="torch", passed=True, figure="1e-16", bar="1e-10")
    bad = Check(name="two", backend="torch", passed=False, figure="[3]", bar="1e-10")
    console = Console(file=io.StringIO(), width=100)
    console.print(verify.render(VerificationReport(sections=(Section(title="WAME", checks=(good, bad)),))))
    text = console.file.getvalue()
    assert "FAIL" in text
    assert "[3]" in text
    assert "1 passed, 1 failed, 0 without a bar" in text


def test_a_rule_on_matrices_is_recognised_and_held_to_shape_scale_and_rotation():
    report = verify.run("muon", backends=["torch"])
    assert report.passed, report.failures
    found = {check.name: check for check in report.sections[0].checks}
    assert found["two tensors or one concatenated"].figure == "works on whole matrices"
    for name in ("singular values", "gradient x 100", "turned as the gradient is"):
        assert found[f"first step of a matrix: {name}"].passed


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_a_class_on_matrices_that_refuses_vectors_fails_no_check_for_being_one():
    report = verify.run("torch.optim:Muon", backends=["torch"])
    found = {check.name: check for check in report.sections[0].checks}
    assert found["two tensors or one concatenated"].figure == "works on whole matrices"
    assert found["first step of a matrix: turned as the gradient is"].passed is None
    assert not [check for check in report.failures if "concatenated" in check.name]
