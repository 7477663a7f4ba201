"""The verdict of a comparison: better, worse, equivalent or inconclusive, with its reason in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from optbench.stats.common import check_fraction

Word = Literal["better", "worse", "equivalent", "inconclusive", "crashed"]


@dataclass(frozen=True)
class Verdict:
    """What is said of the candidate, with the reason in one sentence.

    `word` is better, worse, equivalent or inconclusive. A report says crashed, which no test finds, of a
    candidate whose every trial crashed.
    """

    word: Word
    reason: str


def verdict(
    *,
    pvalue: float,
    direction: float,
    alpha: float = 0.05,
    margin: float | None = None,
    equivalence_pvalue: float | None = None,
    smallest_p: float | None = None,
    candidate: str = "the candidate",
    baseline: str = "the baseline",
    units: str = "",
) -> Verdict:
    """Decide one comparison.

    Parameters
    ----------
    pvalue : float
        Adjusted two-sided p of the difference; NaN if the test could not be made.
    direction : float
        Positive if the test statistic favours the candidate (for example the rank-biserial correlation).
    alpha : float
        Level.
    margin, equivalence_pvalue : float, optional
        Declared margin and the adjusted TOST p. Inside the margin wins over "better" and "worse": the margin
        was declared to say which differences do not matter.
    smallest_p : float, optional
        Smallest adjusted p that this n could have reached.
    candidate, baseline, units : str
        Names for the sentence.

    Returns
    -------
    Verdict

    Notes
    -----
    A large p is never evidence of sameness: it gives "inconclusive". Only TOST against a margin gives
    "equivalent".

    Examples
    --------
    >>> verdict(pvalue=0.01, direction=0.8, candidate="wame", baseline="adam")
    Verdict(word='better', reason='wame beats adam: adjusted p = 0.01 <= 0.05.')
    """
    check_fraction(alpha, "alpha")
    found = not math.isnan(pvalue) and pvalue <= alpha and direction != 0
    same = (
        equivalence_pvalue is not None and not math.isnan(equivalence_pvalue) and equivalence_pvalue <= alpha
    )
    if same and margin is not None:
        tail = " (a difference was detected, but it is smaller than the margin)" if found else ""
        reason = f"{candidate} and {baseline} differ by less than the margin {margin:g}{units}"
        return Verdict(
            "equivalent", f"{reason}: adjusted TOST p = {equivalence_pvalue:.3g} <= {alpha:g}{tail}."
        )
    if found:
        word: Word = "better" if direction > 0 else "worse"
        verb = "beats" if direction > 0 else "loses to"
        return Verdict(word, f"{candidate} {verb} {baseline}: adjusted p = {pvalue:.3g} <= {alpha:g}.")
    if math.isnan(pvalue):
        return Verdict("inconclusive", f"{candidate} and {baseline} could not be compared: no usable pairs.")
    if smallest_p is not None and smallest_p > alpha:
        reason = f"the smallest attainable adjusted p is {smallest_p:.3g} > {alpha:g}: more pairs are needed"
        return Verdict("inconclusive", f"{candidate} against {baseline}: {reason}.")
    tail = "" if margin is None else f", nor equivalence within {margin:g}{units}"
    reason = f"adjusted p = {pvalue:.3g} > {alpha:g} shows neither better nor worse{tail}"
    return Verdict("inconclusive", f"{candidate} against {baseline}: {reason}.")
