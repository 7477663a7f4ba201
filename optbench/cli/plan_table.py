"""What a suite can find out and what it costs, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from optbench.report.sequential import described, design_plan
from optbench.report.text import duration
from optbench.stats.common import StatsError
from optbench.stats.crossed import Crossing, crossed_power, find_crossing
from optbench.stats.datasets import FEWEST_DATASETS
from optbench.stats.power import MOST_PAIRS, pairs_needed, plan_pairs, signed_rank_power
from optbench.stats.sequential import SequentialPlan
from optbench.suite.spec import Suite
from optbench.trial import STREAMS

if TYPE_CHECKING:
    from optbench.execution.estimate import PlannedGroup


#: Draws of the power of crossed seeds: a standard error of 2 % at most.
_POWER_DRAWS = 600
#: A stream of fewer levels than this is named as the weak one.
_FEW_LEVELS = 5


def render_plan(suite: Suite, groups: Sequence[PlannedGroup], lacking: Sequence[str] = ()) -> Group:
    """Lay out a plan: its four answers, then trials and hours by workload and optimizer.

    How much, how long, what the seeds can show, and what a run lacks (``lacking``).
    """
    table = Table(title=escape(suite.title), title_justify="left", header_style="bold")
    for name in ("workload", "optimizer", "backend", "device"):
        table.add_column(name)
    for name in ("epochs", "trials", "to run", "each", "together"):
        table.add_column(name, justify="right")
    for group in groups:
        seconds = group.estimate.seconds
        label = group.optimizer if group.role == "evaluation" else f"{group.optimizer} ({group.role})"
        words = (group.workload, label, group.backend, group.device)
        counts = (budget(group.epochs, group.steps), group.trials, group.missing)
        table.add_row(
            *map(escape, words), *map(str, counts), duration(seconds), duration(seconds * group.missing)
        )
    total = sum(group.estimate.seconds * group.missing for group in groups)
    missing = sum(group.missing for group in groups)
    sources = sorted({group.estimate.source for group in groups})
    blocks = len(suite.seeds) * len(suite.backends) * len(suite.workloads)
    trials = sum(group.trials for group in groups)
    stops = any(entry.workload.early_stopping is not None for entry in suite.workloads)
    less = "; early stopping makes it less" if stops else ""
    answers = {
        "How much": f"{trials:,} trials in {blocks:,} blocks; {missing:,} to run.",
        "How long": f"about {duration(total)} one after the other (by {' and '.join(sources)}{less}).",
        "What it can show": " ".join(statements(suite)),
        "What is lacking": " ".join(lacking) or "nothing: data, frameworks and code are here.",
    }
    lines = [
        Text.assemble(
            (f"{name}: ", "bold"), (text, "yellow" if name == "What is lacking" and lacking else "")
        )
        for name, text in answers.items()
    ]
    return Group(*lines, table)


def budget(epochs: int, steps: int | None) -> str:
    """How long a trial trains, for a column of epochs."""
    return str(epochs) if steps is None else f"{steps:,} steps"


def statements(suite: Suite) -> list[str]:
    """Say what the declared seeds can and cannot show, in sentences."""
    seeds, analysis = len(suite.seeds), suite.analysis
    most = max(len(entry.optimizers) for entry in suite.workloads)
    if most < 2:
        return ["One optimizer a workload: there is nothing to compare."]
    comparisons = most - 1 if analysis.correction in ("holm", "bonferroni") else 1
    streams = {name: [getattr(s, name) for s in suite.seeds] for name in STREAMS}
    if (crossing := find_crossing(streams)) is not None:
        return [*_crossed_statements(crossing, analysis.alpha / comparisons), *_few_workloads(suite)]
    if (design := design_plan(suite.report_spec)) is not None:
        return [described(suite.report_spec), *_boundaries(design), *_few_workloads(suite)]
    plan = plan_pairs(seeds, comparisons=comparisons, alpha=analysis.alpha)
    lines = [f"On each workload: {plan.sentence}."]
    if seeds < plan.pairs_to_reject:
        lines.append(f"{plan.pairs_to_reject} seeds are needed before any difference can be shown.")
    for effect, word in ((0.8, "large"), (0.5, "medium")):
        try:
            needed = f"{pairs_needed(effect, alpha=analysis.alpha, comparisons=comparisons)}"
        except StatsError:
            needed = f"More than {MOST_PAIRS:,}"
        lines.append(f"{needed} seeds are needed to find a {word} effect (d_z = {effect}) with 80% power.")
    return lines + _few_workloads(suite)


def _boundaries(design: SequentialPlan) -> list[str]:
    """The looks of a design: what of alpha is spent by each, and which p decides there."""
    if design.kind == "anytime":
        return [
            f"A comparison is decided when its capital reaches {1 / design.level:g} times the stake; "
            "`optbench run --until-decided` asks after every seed."
        ]
    looks = "; ".join(
        f"{n} seeds: {spent:.2g} of alpha spent, decided at p <= {p:.2g}"
        if p > 0
        else f"{n} seeds: {spent:.2g} of alpha spent, too little to decide"
        for n, spent, p in design.boundaries()
    )
    return [f"Looks, for each comparison at its {design.level:.2g} of alpha: {looks}."]


def _few_workloads(suite: Suite) -> list[str]:
    workloads = len(suite.workloads)
    few = 1 < workloads < FEWEST_DATASETS
    return (
        [f"{workloads} workloads: nothing can be said about new ones; that takes {FEWEST_DATASETS} or more."]
        if few
        else []
    )


def _crossed_statements(crossing: Crossing, alpha: float) -> list[str]:
    """Say what crossed seeds can show: power by simulation, with every stream mattering alike."""
    levels = [int(np.unique(x).size) for x in crossing.levels]
    blocks, least = math.prod(levels), min(levels)
    lines = [
        f"On each workload: {crossing.sentence} seeds are crossed: {blocks} blocks, but not {blocks} "
        "independent pairs; means are tested against the variance of each stream.",
        "Power to find a mean difference, if each stream and the rest bring the same variance: "
        + ", ".join(
            f"{crossed_power(levels, d, alpha=alpha, draws=_POWER_DRAWS):.0%} for d_z = {d}"
            for d in (0.5, 0.8, 1.5)
        )
        + f" (independent seeds, all {blocks} of them: "
        + ", ".join(f"{signed_rank_power(blocks, d, alpha=alpha):.0%}" for d in (0.5, 0.8, 1.5))
        + ").",
    ]
    if least < _FEW_LEVELS:
        name = crossing.names[levels.index(least)]
        lines.append(
            f"{least} seeds of {name} say little about new ones, whatever the other streams have: give "
            f"{name} as many as you can, or vary all streams together (`seeds: N`)."
        )
    return lines
