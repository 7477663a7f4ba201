"""Which verdicts answer the confirmatory question of a suite; all others are exploratory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from optbench.report.across import Across
from optbench.report.declared import Declared
from optbench.report.leaderboard import Leaderboard
from optbench.report.text import CONFIRMATORY, EXPLORATORY, MAIN
from optbench.suite.report_spec import Question, ReportSpec

#: What each question asks.
QUESTION_TEXTS: Mapping[Question, str] = {
    "these": "better on these workloads together?",
    "new": "better on new workloads of this kind?",
    "each": "better on each workload by itself?",
}


#: Of a report on some of a suite's workloads.
PART = (
    "The suite asks its question of all its workloads, and only some were read: all verdicts are exploratory."
)


def marked(
    boards: Sequence[Leaderboard], overall: Sequence[Across], spec: ReportSpec, declared: Declared
) -> tuple[list[Leaderboard], list[Across]]:
    """Mark what answers the confirmatory question, and put it first.

    Verdicts are called confirmatory only where all was declared before the first trial, and else the main
    question's. Where trials ran in several settings, the question is asked of the first backend of the suite
    (and its first device and precision); the other settings repeat it, as exploration. Of some of the
    workloads nothing answers it.
    """
    first = None if declared.part else _first_setting(boards, spec)
    word = CONFIRMATORY if declared.before else MAIN
    new_boards = [
        replace(
            board,
            evidence=word if spec.question == "each" and _setting(board) == first else EXPLORATORY,
            declared=declared.short,
        )
        for board in boards
    ]
    new_overall = [
        replace(
            item,
            question=spec.question if item.setting == first else None,
            declared=declared.short,
            confirms=word,
        )
        for item in overall
    ]
    return new_boards, new_overall


def _setting(board: Leaderboard) -> tuple[str, str, str]:
    return board.backend, board.device, board.precision


def _first_setting(boards: Sequence[Leaderboard], spec: ReportSpec) -> tuple[str, str, str] | None:
    place = {backend: number for number, backend in enumerate(spec.backends)}
    settings = list(dict.fromkeys(map(_setting, boards)))
    return min(settings, key=lambda s: place.get(s[0], len(place)), default=None)


def with_question(
    declared: Declared, boards: Sequence[Leaderboard], overall: Sequence[Across], spec: ReportSpec
) -> Declared:
    """Add which question is the confirmatory one; nothing where there is no trial."""
    if not boards:
        return declared
    return replace(declared, sentences=(*declared.sentences, _question(boards, overall, spec, declared)))


def _question(
    boards: Sequence[Leaderboard], overall: Sequence[Across], spec: ReportSpec, declared: Declared
) -> str:
    """Say which question is the confirmatory one, and whether it could be asked."""
    if declared.part:
        return PART
    named = "" if spec.analysis.question else ", taken because the suite declares none"
    what = "Confirmatory question" if declared.before else "Main question, not confirmatory"
    text = f"{what} (`{spec.question}`{named}): {QUESTION_TEXTS[spec.question]} "
    if not declared.before:
        text += f"When it was declared: {declared.short}. "
    settings = list(dict.fromkeys(map(_setting, boards)))
    if len(settings) > 1 and (first := _first_setting(boards, spec)) is not None:
        text += f"Asked of {' '.join(first)}. "
    if spec.question != "each" and not any(item.question == spec.question for item in overall):
        return f"{text}It has no answer yet, without trials of two workloads. All verdicts are exploratory."
    return f"{text}All other verdicts are exploratory."
