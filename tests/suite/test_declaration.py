"""What a suite declares, its hash, and the file that can be published before a run."""

import json
from dataclasses import replace

import pytest

from optbench.suite.declaration import DeclarationError, changes, check, declare, hash_of, read, write
from optbench.suite.load import load_suite, parse_seeds
from optbench.suite.report_spec import Sequential, analysis_of


def test_comments_titles_and_the_device_are_no_part_of_it_and_what_decides_a_verdict_is(write_suite):
    first = load_suite(write_suite())
    same = load_suite(
        write_suite(("suite: tiny", "# a comment\ndevice: cpu\ntitle: Other\nsuite: tiny"), name="same.yaml")
    )
    assert hash_of(declare(first)) == hash_of(declare(same))
    for old, new, said in (
        ("{baseline: wame}", "{baseline: adam}", ["baseline (wame to adam)"]),
        ("{baseline: wame}", "{baseline: wame, margin: 0.01, alpha: 0.1}", ["alpha (0.05 to 0.1)", "margin"]),
        (
            "{baseline: wame}",
            "{baseline: wame, sequential: pocock}",
            ["sequential (none to pocock, looks at"],
        ),
        ("seeds: 2", "seeds: 3", ["seeds (2 to 3)"]),
        ("seeds: 2", "seeds: [0, 7]", ["seeds (others)"]),
        ("epochs: 2", "epochs: 3", ["workload digits/mlp (epochs)"]),
        ("epochs: 2", "epochs: 2\n    targets: {val_accuracy: 0.9}", ["targets of digits/mlp"]),
        ("lr: 0.01", "lr: 0.02", ["optimizer adam on digits/mlp"]),
        ("  adam:", "  sgd: {lr: 0.1}\n  adam:", ["optimizer sgd on digits/mlp (added)"]),
    ):
        other = declare(load_suite(write_suite((old, new), name="other.yaml")))
        found = changes(declare(first), other)
        assert len(found) == len(said), found
        assert all(a.startswith(b) for a, b in zip(found, said, strict=True)), found


def test_running_a_part_of_the_seeds_declares_those_of_the_file(write_suite):
    suite = load_suite(write_suite(("seeds: 2", "seeds: 6")))
    part = replace(suite, seeds=parse_seeds(2, option="--seeds"))
    beyond = replace(suite, seeds=parse_seeds(8, option="--seeds"))
    assert declare(part) == declare(suite)
    assert declare(beyond)["seeds"] == list(range(8))


def test_a_file_is_written_once_checked_by_its_hash_and_names_what_differs(write_suite, tmp_path):
    suite, path = load_suite(write_suite()), tmp_path / "declared.json"
    written = write(suite, path)
    assert read(path) == written
    check(suite, written)
    with pytest.raises(DeclarationError, match="a file already"):
        write(suite, path)
    changed = load_suite(write_suite(("{baseline: wame}", "{alpha: 0.1}"), name="changed.yaml"))
    with pytest.raises(
        DeclarationError, match=r"declared\.json: the suite differs .* in alpha \(0.05 to 0.1\)"
    ):
        check(changed, written)
    entry = json.loads(path.read_text())
    entry["content"]["analysis"]["alpha"] = 0.1
    path.write_text(json.dumps(entry))
    with pytest.raises(DeclarationError, match="the file was edited"):
        read(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "optbench-declaration-1"}', "\ud800"])
def test_a_file_that_is_none_is_named(tmp_path, text):
    path = tmp_path / "none.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DeclarationError, match=r"none\.json"):
        read(path)


def test_a_design_reads_back_and_plans_its_looks(write_suite):
    suite = load_suite(
        write_suite(
            ("seeds: 2", "seeds: 10"), ("{baseline: wame}", "{sequential: {design: pocock, looks: [4, 8]}}")
        )
    )
    analysis = suite.report_spec.analysis
    assert analysis_of(json.loads(suite.report_spec.to_json())["analysis"]) == analysis
    assert analysis.sequential.planned(10) == (4, 8, 10)
    assert Sequential().planned(30) == (6, 12, 18, 24, 30)
    assert Sequential(design="anytime").planned(4) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("analysis", "seeds", "said"),
    [
        ("{question: these}", "2", "analysis.question: found 'these', a question about several workloads"),
        ("{question: both}", "2", "analysis.question: unknown value 'both'"),
        ("{sequential: late}", "6", "analysis.sequential: unknown design 'late'"),
        ("{sequential: {looks: [4, 4]}}", "6", "analysis.sequential.looks: found [4, 4] with 6 seeds"),
        ("{sequential: {looks: [4, 9]}}", "6", "analysis.sequential.looks: found [4, 9] with 6 seeds"),
        ("{sequential: pocock}", "1", "with 1 seeds"),
        ("{sequential: pocock}", "{init: 2, order: 3}", "the seeds of several streams are crossed"),
    ],
)
def test_a_question_or_design_that_does_not_fit_is_refused_by_name(write_suite, analysis, seeds, said):
    with pytest.raises(ValueError, match=r"tiny\.yaml") as error:
        load_suite(write_suite(("{baseline: wame}", analysis), ("seeds: 2", f"seeds: {seeds}")))
    assert said in str(error.value)
