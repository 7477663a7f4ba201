"""Everything that a report says, computed once for all formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from optbench.errors import UserError
from optbench.records.frames import Results
from optbench.records.integrity import NAMED
from optbench.report.across import Across, SettingComparison, across, settings_compared
from optbench.report.answer import Answer
from optbench.report.answer_of import suite_answer
from optbench.report.board_notes import mixed_in
from optbench.report.class_tables import class_tables, errors_table, models_table
from optbench.report.curve_tests import curves_table
from optbench.report.declared import UNKNOWN, Declared, declared
from optbench.report.failures import Failure, Failures
from optbench.report.fair_times import with_fair_times, without_times
from optbench.report.grids import grids_compared, grids_table
from optbench.report.leaderboard import LEADERBOARD, Leaderboard, leaderboards
from optbench.report.leaderboard_columns import leaderboard_table
from optbench.report.methods import methods_paragraph
from optbench.report.new_examples import NewExamples, new_examples, new_examples_table
from optbench.report.questions import marked, with_question
from optbench.report.sequential import described, standing
from optbench.report.side_tables import (
    across_table,
    metrics_table,
    pairs_table,
    settings_table,
    times_table,
    top_k_table,
)
from optbench.report.text import EXPLORATORY, TextTable
from optbench.report.timing_table import pass_table
from optbench.report.titles import with_titles
from optbench.report.trained import NOTHING, Trained, by_class, trained_models
from optbench.report.tuning import tuning_cost, tuning_table, untuned_table
from optbench.suite.declaration import Published
from optbench.suite.report_spec import ReportSpec

NEW_EXAMPLES = "verdicts over new test examples"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Results with what the statistics make of them; ``answer`` is what every format says first.

    ``failures`` names what could not be made, and grows while the formats are written.
    """

    spec: ReportSpec
    results: Results
    boards: tuple[Leaderboard, ...]
    overall: tuple[Across, ...]
    settings: tuple[SettingComparison, ...]
    grids: tuple[SettingComparison, ...]
    answer: Answer
    warnings: tuple[str, ...]
    methods: str
    new_examples: tuple[NewExamples, ...] = ()
    declared: Declared = UNKNOWN
    failures: Failures = field(default_factory=Failures)

    @cached_property
    def trained(self) -> Trained:
        """What the stored predictions say; read when a format first asks for it."""
        return self.failures.attempt("errors of the models", lambda: trained_models(self.results)) or NOTHING


def analyse(results: Results, spec: ReportSpec, *, published: Published | None = None) -> Report:
    """Run the whole analysis of some results.

    Parameters
    ----------
    results : Results
    spec : ReportSpec
        Labels, targets, and what to test.
    published : Published, optional
        A declaration file to compare with.

    Returns
    -------
    Report
        A part of the analysis that raises is named in ``failures``, and the others stand.
    """
    failures = Failures()
    _name_unfit(results, failures)
    attempt = failures.attempt
    stored, requested = results, spec
    when_declared = attempt("when it was declared", lambda: declared(stored, requested, published)) or UNKNOWN
    results, spec = attempt("titles", lambda: with_titles(results, spec)) or (results, spec)
    raw = results
    fair = attempt("times", lambda: with_fair_times(raw))
    timed = without_times(raw) if fair is None else fair
    results = attempt("what tuning cost", lambda: _with_tuning_cost(timed)) or timed
    boards = attempt("leaderboards", lambda: leaderboards(results, spec, failures=failures)) or []
    overall = attempt("tables across workloads", lambda: _across(boards, spec, failures)) or []
    boards, overall = attempt("questions", lambda: marked(boards, overall, spec, when_declared)) or (
        boards,
        overall,
    )
    settings = attempt(
        "comparison of backends, devices and precisions",
        lambda: settings_compared(results, spec) if len(results.trials) else [],
    )
    grids = tuple(attempt("comparison of a grid's settings", lambda: grids_compared(results, spec)) or ())
    return Report(
        spec=spec,
        results=results,
        boards=tuple(boards),
        overall=tuple(overall),
        settings=tuple(settings or ()),
        grids=grids,
        new_examples=tuple(attempt(NEW_EXAMPLES, lambda: new_examples(boards, results)) or ()),
        answer=attempt("answer", lambda: suite_answer(results, spec, boards, overall, grids)) or Answer(),
        warnings=(*(attempt("warnings", lambda: _warnings(results, spec)) or ()), *when_declared.warnings),
        methods=attempt(
            "paragraph on the method", lambda: methods_paragraph(results, spec, boards, when_declared)
        )
        or "",
        declared=attempt("question", lambda: _with_looks(when_declared, boards, overall, spec))
        or when_declared,
        failures=failures,
    )


def _name_unfit(results: Results, failures: Failures) -> None:
    """Name the records that are not as they were written: the report is made without them."""
    unfit = [refusal for refusal in results.refusals if refusal.unfit]
    for refusal in unfit[:NAMED]:
        failures.add(Failure.missing(f"trial {refusal.trial_id} of {refusal.optimizer}", refusal.reason))
    if len(unfit) > NAMED:
        more = f"{len(unfit) - NAMED} more trials"
        failures.add(Failure.missing(more, "not as they were written; `optbench doctor STORE` names all"))


def without_analysis(results: Results, spec: ReportSpec, failures: Failures) -> Report:
    """Make a report of the records alone, where the analysis has failed."""
    nothing: dict[str, tuple[()]] = dict.fromkeys(("boards", "overall", "settings", "grids", "warnings"), ())
    return Report(
        spec=spec,
        results=without_times(results),
        answer=Answer(),
        methods="",
        declared=UNKNOWN,
        failures=failures,
        **nothing,
    )


def _with_looks(
    when_declared: Declared, boards: Sequence[Leaderboard], overall: Sequence[Across], spec: ReportSpec
) -> Declared:
    """Add the question, and where there is one the sequential design and how far it is."""
    found = with_question(when_declared, boards, overall, spec)
    state = standing(boards, overall, spec) if boards else None
    return (
        found
        if state is None
        else replace(found, sentences=(*found.sentences, described(spec), state.sentence))
    )


def _across(boards: Sequence[Leaderboard], spec: ReportSpec, failures: Failures) -> list[Across]:
    """Compare over workloads, unless one is missing by a fault: the claim would be about fewer than ran."""
    if any(found.part.startswith(LEADERBOARD) for found in failures):
        raise UserError("not made, as the leaderboard of a workload is missing")
    return across(boards, spec)


def _with_tuning_cost(results: Results) -> Results:
    """Charge every trial's optimizer with what its search on that workload took, as ``tuning_seconds``."""
    cost: dict[tuple[str, str], float] = {}
    for (workload, optimizer, _), seconds in tuning_cost(results.tuning).items():
        cost[workload, optimizer] = cost.get((workload, optimizer), 0.0) + seconds
    if not cost or results.trials.empty:
        return results
    labels = zip(results.trials["workload"], results.trials["optimizer"], strict=True)
    charged = results.trials.assign(tuning_seconds=[cost.get(label, math.nan) for label in labels])
    return replace(results, trials=charged)


def main_tables(report: Report) -> list[TextTable]:
    """Tables that every format shows: leaderboards, across workloads, and :func:`side_tables`."""
    tables = [table for _, table in leading_tables(report) if table is not None]
    return tables + list(side_tables(report).values())


def by_class_tables(report: Report) -> list[TextTable]:
    """Lay out the scores of every class, a table a workload that records them."""
    made = report.failures.attempt(
        "tables by class", lambda: class_tables(report.boards, report.results.trials)
    )
    return made or []


def leading_tables(
    report: Report, *, boards: bool = True
) -> list[tuple[Leaderboard | Across, TextTable | None]]:
    """Lay out every leaderboard and comparison over workloads, what confirms first; None for one that fails.

    Without ``boards`` those over workloads alone.
    """

    def make(found: Leaderboard | Across) -> TextTable:
        return leaderboard_table(found) if isinstance(found, Leaderboard) else across_table(found)

    parts: list[Leaderboard | Across] = [*(report.boards if boards else ()), *report.overall]
    parts.sort(key=lambda part: not _confirms(part))
    attempt = report.failures.attempt
    return [(found, attempt(f"table {found.title}", partial(make, found))) for found in parts]


def _confirms(part: Leaderboard | Across) -> bool:
    """Whether a part answers the confirmatory question."""
    if isinstance(part, Across):
        return part.question in ("these", "new")
    return part.evidence != EXPLORATORY


def comparisons_table(report: Report) -> TextTable | None:
    """Lay out every comparison that was made; None where that fails."""
    return report.failures.attempt("table of every comparison", lambda: pairs_table(report.boards))


def side_tables(report: Report) -> dict[str, TextTable]:
    """Tables beside the leaderboards, by the name of their file; those with nothing to show are left out."""
    boards, results, spec = report.boards, report.results, report.spec
    makers: dict[str, Callable[[], TextTable | None]] = {
        "new_examples": lambda: new_examples_table(report.new_examples),
        "curves": lambda: curves_table(boards, results),
        "targets": lambda: times_table(boards),
        "top_k": lambda: top_k_table(boards, results.trials),
        "metrics": lambda: metrics_table(boards, results),
        "errors": lambda: (
            errors_table(boards, results.trials, spec, report.trained) if by_class(results.trials) else None
        ),
        "models": lambda: models_table(report.trained),
        "timing": lambda: pass_table(results),
        "tuning": lambda: tuning_table(results),
        "untuned": lambda: untuned_table(results, boards),
        "grids": lambda: grids_table(report.grids, results.metrics[spec.analysis.primary]),
        "settings": lambda: (
            settings_table(report.settings, results.metrics[spec.analysis.primary])
            if report.settings
            else None
        ),
    }
    tables = {name: report.failures.attempt(f"table {name}", make) for name, make in makers.items()}
    return {name: table for name, table in tables.items() if table is not None}


def _confounded(results: Results) -> list[str]:
    """Warn of workloads whose optimizers ran under different settings, each under its own."""
    found: list[str] = []
    if results.trials.empty:
        return found
    for (workload, backend), trials in results.trials.groupby(["workload", "backend"], sort=False):
        mixed = mixed_in(trials, results)
        if mixed.confounded:
            found.append(
                f"{workload} ({backend}): the optimizers ran under different settings ({mixed.words}), which "
                "are part of what is compared: train them under the same ones."
            )
    return found


def _warnings(results: Results, spec: ReportSpec) -> list[str]:
    found = []
    if any(meta.get("smoke") for meta in results.meta):
        found.append("Dry run on synthetic data: these numbers are no result.")
    count = len(results.trials)
    unfit = sum(refusal.unfit for refusal in results.refusals)
    if not count and not unfit:
        found.append("No trial of this suite has been run: there is nothing to report yet.")
        return found
    if results.unplanned:
        found.append(
            f"{results.unplanned} more records are in no plan (other seeds, or an earlier state of the suite "
            "file) and left out; `optbench run SUITE` takes in those that the suite declares."
        )
    if unmatched := len(results.refusals) - unfit:
        found.append(f"{unmatched} trials do not match their block and were not paired.")
    found += _confounded(results)
    found += [integrity.without_digest for integrity in results.integrity if integrity.bare]
    if len({meta.get("hash") for meta in results.meta}) == 1 and len(results.meta) == 1:
        meta = results.meta[0]
        if meta.get("hash") and meta.get("source") != spec.text and meta["hash"] != spec.hash:
            found.append("The suite file has changed since the store was last run with it.")
    return found
