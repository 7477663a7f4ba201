from __future__ import annotations

import pytest

from optbench import api
from optbench.suite.report_spec import Factor, ReportSpec
from tests.conftest import TINY

MORE = """
  - name: large-batch
    dataset: digits
    model: {name: mlp, hidden: [8]}
    batch_size: 512
    epochs: 2
    per_class: true
  - name: penalty
    dataset: digits
    model: {name: mlp, hidden: [8], l2: 0.1}
    batch_size: 256
    epochs: 2
optimizers:
"""


def suite(write_suite, compare):
    text = TINY.replace("\noptimizers:\n", MORE)
    return write_suite(("{baseline: wame}", f"{{baseline: wame, compare: {compare}}}"), text=text)


def test_workloads_that_differ_in_one_field_alone_are_its_settings(write_suite):
    spec = api.load_suite(suite(write_suite, "[optimizer, batch_size, model.l2]")).report_spec
    found = {entry.label: entry.factors for entry in spec.workloads}
    first = "digits/mlp"
    assert found == {
        first: (
            Factor(field="batch_size", group=first, setting="batch_size 256"),
            Factor(field="model.l2", group=first, setting="no l2"),
        ),
        "large-batch": (Factor(field="batch_size", group=first, setting="batch_size 512"),),
        "penalty": (Factor(field="model.l2", group=first, setting="l2 0.1"),),
    }
    assert ReportSpec.from_json(spec.to_json()).workloads == spec.workloads


@pytest.mark.parametrize(
    ("field", "given", "absent"), [("initializer", "he_normal", "default"), ("l1", 0.1, "no")]
)
def test_a_field_that_is_absent_is_none_or_the_default(field, given, absent, write_suite):
    changed = MORE.replace("l2: 0.1", f"{field}: {given}")
    path = suite(write_suite, f"[model.{field}]")
    path.write_text(path.read_text().replace(MORE, changed))
    first, *_ = api.load_suite(path).report_spec.workloads
    assert [factor.setting for factor in first.factors] == [f"{absent} {field}"]


def test_a_field_in_which_nothing_differs_alone_is_refused(write_suite):
    with pytest.raises(api.SuiteError, match=r"analysis.compare\[0\]: found 'epochs'; no two workloads"):
        api.load_suite(suite(write_suite, "[epochs]"))


def test_the_report_tests_the_settings_and_says_what_pairs_share(write_suite, tmp_path):
    pytest.importorskip("torch", reason="runs trials with PyTorch")
    path = suite(write_suite, "[batch_size, model.l2]")
    api.run(path, results=tmp_path)
    written = api.report(path, results=tmp_path, formats=("markdown",))
    text = (written.folder / "leaderboard.md").read_text()
    rows = [line for line in text.splitlines() if " vs " in line and "split" in line]
    assert len(rows) == 2 * 2, "two factors, two optimizers"
    assert all("split, order, first weights" in row for row in rows)
