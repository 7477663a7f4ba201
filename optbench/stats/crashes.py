"""An optimizer whose every trial crashed has no result: its comparisons are called crashed."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import TypeVar

import pandas as pd

from optbench.stats.datasets import StratifiedComparison
from optbench.stats.families import FamilyResult, PairedComparison
from optbench.stats.verdict import Verdict

Compared = TypeVar("Compared", PairedComparison, StratifiedComparison)


def crashed_optimizers(trials: pd.DataFrame) -> frozenset[str]:
    """Optimizers that have trials, all of which crashed."""
    ran = set(trials.loc[trials["status"] != "crashed", "optimizer"])
    return frozenset(str(name) for name in set(trials["optimizer"]) - ran)


def called_crashed(comparison: Compared, crashed: Set[str], *, either: bool = False) -> Compared:
    """Give a comparison the verdict ``crashed`` where its candidate crashed in every trial.

    With ``either`` the other optimizer counts too: a pair has no first one.
    """
    names = [comparison.candidate, *([comparison.baseline] if either else [])]
    found = next((name for name in names if name in crashed), None)
    if found is None:
        return comparison
    return replace(comparison, verdict=Verdict("crashed", f"every trial of {found} crashed: missing data"))


def name_crashed(family: FamilyResult, crashed: Set[str], *, either: bool = False) -> FamilyResult:
    """Apply :func:`called_crashed` to a family's comparisons."""
    if not crashed:
        return family
    comparisons = tuple(called_crashed(c, crashed, either=either) for c in family.comparisons)
    return replace(family, comparisons=comparisons)
