"""What every format says first."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from optbench import api
from optbench.report.analysis import analyse
from optbench.report.answer import Finding, Quantity, Scope, by_workload, verdict_sentence
from optbench.report.answer_of import suite_answer, table_answer
from optbench.report.build import write_report
from optbench.report.terminal import answer_lines
from optbench.report.text import escape_markdown

LOW = [0.80, 0.81, 0.82, 0.79, 0.80, 0.81, 0.83, 0.80]
HIGH = [0.85, 0.87, 0.86, 0.84, 0.86, 0.88, 0.87, 0.85]


def told(answer, kind):
    return [sentence.text for sentence in answer.sentences if sentence.kind == kind]


def test_one_comparison_is_told_with_difference_interval_p_and_the_smallest_p(made_results):
    results, spec = made_results({"wame": LOW, "adam": HIGH})
    answer = analyse(results, spec).answer
    (verdict,) = told(answer, "verdict")
    (board,) = analyse(results, spec).boards
    (c,) = board.family.comparisons
    low, high = (f"{100 * end:+.2f}" for end in (c.average.low, c.average.high))
    assert verdict == (
        f"On digits/mlp (main question) adam is better than wame in the typical run: test accuracy "
        f"{100 * c.mean.estimate:+.2f} percentage points, 95% interval [{low}, {high}], p 0.008. No run of 8 "
        "collapsed, which leaves a rate of up to 31% possible."
    )
    assert told(answer, "test") == [
        "p: exact signed-rank test of the pairs (the typical run); the smallest that 8 pairs can reach is "
        "0.0078."
    ]
    assert told(answer, "sample")[0].startswith(
        "It rests on 8 seeds of digits/mlp, and on its test examples ("
    )
    assert told(answer, "missing") == ["All 16 planned trials completed."]
    assert 3 <= len(answer.sentences) <= 6


def test_too_few_seeds_are_told_as_such(made_results):
    results, spec = made_results({"wame": LOW[:4], "adam": HIGH[:4]})
    answer = analyse(results, spec).answer
    (test,) = (sentence for sentence in answer.sentences if sentence.kind == "test")
    assert test.caution
    assert "the smallest that 4 pairs can reach is 0.12" in test.text
    assert "no test can reject, whatever the difference: run more seeds" in test.text


def test_what_crashed_diverged_or_was_not_run_is_counted_and_named(made_results):
    wame = [*LOW[:5], "crashed", None, 0.8]
    results, spec = made_results({"wame": wame, "adam": [*HIGH[:7], "diverged"]})
    (missing,) = (s for s in analyse(results, spec).answer.sentences if s.kind == "missing")
    assert missing.caution
    assert "Of 16 planned trials 13 completed, 1 diverged (adam), 1 crashed (wame), 1 have not been run" in (
        missing.text
    )


def test_several_workloads_are_told_together_and_one_by_one(two_workloads):
    results, spec, _ = two_workloads
    answer = analyse(results, spec).answer
    over, single = told(answer, "verdict")
    assert over.startswith(
        "On these 2 workloads (main question), against wame (test accuracy in percentage points, 95% "
        "intervals that hold together;"
    )
    assert re.search(r"adam \w+, [+-]\d", over)
    assert single.startswith("Workload by workload (exploratory): ")
    assert single.endswith("2 workloads say nothing of new ones (6 are the least).")
    assert len(answer.sentences) <= 6


def test_steps_are_told_beside_the_baselines(two_workloads):
    results, spec, _ = two_workloads
    report = analyse(results, spec)
    boards = [
        replace(
            board,
            rows=tuple(
                replace(row, step_ms={"wame": 2.0, "adam": 1.0}.get(row.optimizer, 3.0)) for row in board.rows
            ),
        )
        for board in report.boards
    ]
    (cost,) = told(suite_answer(report.results, spec, boards, report.overall), "cost")
    assert cost.startswith("Time of a step, wame's as 1: ")
    assert "adam 0.50" in cost
    assert "sgd 1.50" in cost


def test_every_format_opens_with_the_same_words(made_results, tmp_path):
    results, spec = made_results({"wame": LOW, "adam": HIGH})
    answer = analyse(results, spec).answer
    folder = write_report(results, spec, tmp_path / "r", formats=("html", "markdown", "latex", "json")).folder
    page = (folder / "index.html").read_text("utf-8")
    listed = re.search(r'<ul class="answer">(.*?)</ul>', page, re.DOTALL)[1]
    assert re.findall(r"<li[^>]*>(.*?)</li>", listed) == [
        sentence.text.replace("'", "&#39;") for sentence in answer.sentences
    ]
    markdown = (folder / "leaderboard.md").read_text("utf-8")
    short = markdown[: markdown.index("| \\# |")]
    found = [line.strip("-* ") for line in short.splitlines() if line.startswith("- ")]
    assert found[: len(answer.sentences)] == [escape_markdown(s.text) for s in answer.sentences]
    facts = '<p class="lead">'
    assert page.index('<ul class="answer">') < page.index(facts), "the answer comes before all other facts"
    latex = (folder / "leaderboard.tex").read_text("utf-8")
    assert latex.index("adam is better than wame") < latex.index("\\begin{table}")
    stored = json.loads((folder / "report.json").read_text("utf-8"))["answer"]
    assert " ".join(sentence["text"] for sentence in stored) == answer.text


def test_a_terminal_of_eighty_columns_holds_every_word(made_results):
    results, spec = made_results({"wame": LOW, "adam": HIGH})
    answer = analyse(results, spec).answer
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(answer_lines(answer))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert " ".join(text.split()) == f"In short {answer.text}"


def test_nothing_to_compare_is_said(made_results):
    results, spec = made_results({"wame": LOW, "adam": [None] * 8})
    (verdict,) = told(analyse(results, spec).answer, "verdict")
    assert verdict == "Only wame has trials on a workload, so nothing is compared and no verdict is possible."


def finding(word, candidate="a", baseline="b", estimate=0.1, reason=""):
    return Finding(
        candidate=candidate,
        baseline=baseline,
        word=word,
        estimate=estimate,
        low=estimate - 0.05,
        high=estimate + 0.05,
        p=0.01,
        smallest_p=0.001,
        n=9,
        reason=reason,
    )


QUANTITY = Quantity(name="loss", unit="nats", level=0.95, write=lambda value: f"{value:+.2f}")


@pytest.mark.parametrize(
    ("word", "phrase"),
    [
        ("better", "a is better than b in the typical run: loss +0.10 nats"),
        ("worse", "a is worse than b in the typical run: loss"),
        ("equivalent", "a and b are equivalent in the typical run within the margin of 0.30 nats: loss"),
        ("inconclusive", "a against b is inconclusive: loss"),
        ("mixed", "a against b is mixed: loss +0.10 nats, 95% interval [+0.05, +0.15], p 0.010 (why)."),
    ],
)
def test_each_verdict_has_its_own_words(word, phrase):
    scope = Scope(where="w", findings=(finding(word, reason="why."),))
    assert phrase in verdict_sentence(scope, QUANTITY, margin=0.3)


def test_what_was_found_is_told_first_and_the_rest_is_counted():
    names = "cdefgh"
    some = [finding("inconclusive", candidate=name, estimate=0.01) for name in names]
    some += [finding("worse", candidate="z", estimate=-0.4), finding("better", candidate="y", estimate=0.2)]
    text = verdict_sentence(Scope(where="w", findings=tuple(some)), QUANTITY, margin=None)
    assert text.startswith(
        "On w, against b (loss in nats, 95% interval; positive is better; better and worse: in the typical "
        "run): y better, +0.20 "
    )
    assert text.index("z worse") < text.index("c inconclusive")
    assert text.endswith("; 4 more inconclusive.")


def test_what_words_leave_open_is_told_once_or_below_the_table():
    alike = [replace(finding("better", candidate=name), left_open="no run of 9 collapsed") for name in "cd"]
    text = verdict_sentence(Scope(where="w", findings=tuple(alike)), QUANTITY, margin=None)
    assert text.endswith(". No run of 9 collapsed.")
    other = replace(finding("worse", candidate="e"), left_open="collapsed runs: 2 of 9 of e, 0 of 9 of b")
    text = verdict_sentence(Scope(where="w", findings=(*alike, other)), QUANTITY, margin=None)
    assert text.endswith(". Runs that collapsed, and the rates that stay possible, stand below the table.")


def test_a_difference_that_does_not_exist_is_no_number():
    lost = replace(finding("worse"), estimate=math.nan, low=math.nan, high=math.nan)
    text = verdict_sentence(Scope(where="w", findings=(lost,)), QUANTITY, margin=None)
    assert "no mean difference, as trials diverged" in text
    assert "nan" not in text


def test_equal_patterns_over_workloads_are_told_together():
    scopes = [
        Scope(where=f"w{i}", findings=(finding("better", "x"), finding("better", "y"), finding("worse", "z")))
        for i in range(5)
    ]
    assert by_workload(scopes, ["x", "y", "z"]) == "x and y better on each of 5; z worse on each of 5"


def test_a_table_opens_with_its_answer_too():
    rows = [("mnist", o, s, v + s / 100) for o, v in (("adam", 0.9), ("wame", 0.92)) for s in range(6)]
    frame = pd.DataFrame(rows, columns=["dataset", "optimizer", "seed", "accuracy"])
    answer = table_answer(api.compare(frame, metric="accuracy", baseline="adam"))
    assert told(answer, "verdict")[0].startswith(
        "On mnist wame is better than adam in the typical run: accuracy +0.02"
    )
    assert told(answer, "sample") == [
        "It rests on 6 seeds of mnist and 12 results; costs are not in the table."
    ]
