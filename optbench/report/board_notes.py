"""The notes below a leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from optbench.records.frames import Results
from optbench.records.machines import Mixed, mixed_rounding, mixed_settings, settings_of
from optbench.records.pairing import DECLARED
from optbench.report.fair_times import step_ways, time_notes
from optbench.report.reasons import reasons
from optbench.report.text import listed
from optbench.stats.crashes import crashed_optimizers
from optbench.stats.families import PairedComparison
from optbench.suite.report_spec import ReportSpec

if TYPE_CHECKING:
    from optbench.report.leaderboard import Row


#: A note that is about more rows than this calls them the others.
MOST_NAMED = 3


def board_notes(
    rows: Sequence[Row],
    trials: pd.DataFrame,
    results: Results,
    spec: ReportSpec,
    *,
    examples: int | None = None,
) -> list[str]:
    """Say what a reader must know beside the numbers of a leaderboard."""
    comparisons = [row.comparison for row in rows if row.comparison is not None]
    notes = _limits(rows, trials)
    if examples is not None and any(c.n for c in comparisons):
        notes.append(f"Every verdict here is about these {examples:,} test examples.")
    notes += reasons(comparisons)
    notes += named_notes(comparisons)
    planned = max(0 if spec.analysis.sequential else len(spec.seeds), trials["block_id"].nunique())
    missing = {c.candidate: planned - c.n for c in comparisons if planned > c.n}
    if missing:
        notes.append(f"Pairs that are missing (not run yet, crashed, or refused): {_counts(missing)}.")
    ties = {c.candidate: c.signed_rank.n_ties for c in comparisons if c.signed_rank and c.signed_rank.n_ties}
    if ties:
        notes.append(f"Differences that share their size with another one: {_counts(ties)}.")
    imported = "split" in trials and (trials["split"] == DECLARED).any()
    if not imported:
        notes += time_notes(results, trials)
        if comparisons and (ways := step_ways(results, trials, comparisons[0].baseline)):
            notes.append(ways)
    blocks = set(trials["block_id"])
    refused = [refusal for refusal in results.refusals if refusal.block_id in blocks]
    notes += [
        f"Refused: {refusal.optimizer}, trial {refusal.trial_id}: {refusal.reason}." for refusal in refused
    ]
    if imported:
        notes.append("Imported trials: their pairs are declared by the person who imported them, not proved.")
        notes += _reading_notes(results)
    elif any(c.n for c in comparisons):
        mixed = mixed_in(trials, results)
        if mixed.mixed:
            notes.append(mixed_note(mixed))
        elif not refused:
            notes.append(
                "Every pair was proved by equal fingerprints of split, initial weights and batch order."
            )
        notes += rounding_notes(trials, results)
    return notes


def named_notes(comparisons: Sequence[PairedComparison]) -> list[str]:
    """Say what the pairs could have shown, with the names of the rows where it is not the same for all."""
    names_by_text: dict[str, list[str]] = {}
    for c in comparisons:
        if c.verdict.word != "crashed":
            names_by_text.setdefault(c.attainable, []).append(c.candidate)
    if len(names_by_text) == 1:
        return [f"{text}." for text in names_by_text]
    most = max(names_by_text.values(), key=len, default=[])
    others = most if len(most) > MOST_NAMED else None
    groups = sorted(names_by_text.items(), key=lambda item: item[1] is others)
    return [f"{'The others' if names is others else listed(names)}: {text}." for text, names in groups]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def mixed_in(trials: pd.DataFrame, results: Results) -> Mixed:
    """Find the proved blocks of a leaderboard whose trials ran under different settings."""
    if "environment" not in trials:
        return Mixed(blocks=0, mixed=0, values={})
    ended = trials[trials["status"] != "crashed"]
    settings = {
        (number, backend): settings_of(results.environments[number], backend)
        for number, backend in set(zip(ended["environment"], ended["backend"], strict=True))
    }
    blocks: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
    columns = (ended[name] for name in ("block", "optimizer", "environment", "backend"))
    for block, optimizer, number, backend in zip(*columns, strict=True):
        blocks.setdefault(block, []).append((optimizer, settings[number, backend]))
    return mixed_settings(blocks.values())


def mixed_note(mixed: Mixed) -> str:
    """Say which settings differ within blocks, and what that means."""
    text = (
        f"{mixed.mixed} of {mixed.blocks} blocks mix settings that change the bits of a training: "
        f"{mixed.words}. That their trials share data, initial weights and batch order is proved; the "
        "settings are part of the difference."
    )
    if names := mixed.confounded:
        text += (
            f" No optimizer ran with two values of {' or '.join(names)}, so the difference cannot be told "
            "from theirs: train them under the same settings."
        )
    return text


def rounding_notes(trials: pd.DataFrame, results: Results) -> list[str]:
    """Say which optimizers' own trials were trained by several arithmetics, as a stack is one of its own."""
    if "environment" not in trials:
        return []
    ended = trials[trials["status"] != "crashed"]
    columns = (ended[name] for name in ("optimizer", "environment"))
    found = mixed_rounding((o, results.environments[n]) for o, n in zip(*columns, strict=True))
    if not found:
        return []
    named = "; ".join(f"{optimizer}: {_counts(ways)}" for optimizer, ways in found.items())
    return [
        f"Trials of one optimizer took their steps in ways that round differently ({named}), which is a part "
        "of the differences between their seeds; `engine: {batch_seeds: off}` trains all alike."
    ]


def _reading_notes(results: Results) -> list[str]:
    """What was decided and left out when other tools' files were read, as their stores have it."""
    lines = [line for meta in results.meta for line in meta.get("imported_notes", "").splitlines() if line]
    more = [f"Import: {len(lines) - 4} more notes of this kind are in the store."] if len(lines) > 5 else []
    return [f"Import: {line}" for line in (lines[:4] if more else lines)] + more


def _limits(rows: Sequence[Row], trials: pd.DataFrame) -> list[str]:
    """Sentences about results that allow few conclusions, or none."""
    statuses = set(trials["status"])
    notes = []
    if len(rows) == 1:
        notes.append("One optimizer: there is nothing to compare it with, so no verdict is possible.")
    if statuses == {"crashed"}:
        notes.append(
            "Every trial crashed, which is missing data: nothing can be said about any optimizer. "
            "`optbench show TRIAL` prints a traceback."
        )
    elif statuses <= {"diverged", "crashed"}:
        notes.append(
            "No trial completed: there is no score to show. Diverged trials tie with each other as the worst."
        )
    elif crashed := sorted(crashed_optimizers(trials)):
        notes.append(
            f"{', '.join(crashed)}: every trial crashed, which is missing data; `optbench show TRIAL` prints "
            "a traceback."
        )
    if trials["block_id"].nunique() == 1 and len(rows) > 1:
        notes.append("One seed: a difference on it cannot be told from chance.")
    return notes
