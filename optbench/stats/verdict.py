"""The verdict of a comparison, with its reason in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from optbench.stats.collapses import unseen_rate
from optbench.stats.common import check_fraction

Word = Literal["better", "worse", "equivalent", "mixed", "inconclusive", "crashed"]

#: What "better", "worse" and "equivalent" are said of, in every format.
TYPICAL = "in the typical run"
#: By models of crossed seeds and of new examples.
MEAN = "on average"


@dataclass(frozen=True)
class Verdict:
    """What is said of the candidate, with the reason in one sentence.

    `word` is better, worse, equivalent, mixed or inconclusive. "mixed": the parts of the question have
    different answers. Within a workload, of the typical run and the mean one shows a difference and the other
    does not; over workloads, the candidate is better on some and worse on others. A report says crashed,
    which no test finds, of a candidate whose every trial crashed. `claim` says of what better, worse and
    equivalent are said, such as "in the typical run", and `left_open` what they leave possible; both are
    empty for the other words.
    """

    word: Word
    reason: str
    claim: str = ""
    left_open: str = ""


@dataclass(frozen=True)
class MeanSays:
    """What the mean difference shows beside the typical run.

    `sign` is +1 or -1 where its test, adjusted as the typical run's, found it positive or negative, and 0
    otherwise; `sentence` gives its p and the collapsed runs, no number with a unit. Where no test could
    be made (`tested` is false) the sign is that of what was seen.
    """

    estimate: float
    sign: int
    sentence: str
    tested: bool = True


def no_collapse(n: int) -> str:
    """What n runs of which none collapsed leave open.

    Examples
    --------
    >>> no_collapse(20)
    'no run of 20 collapsed, which leaves a rate of up to 14% possible'
    """
    return f"no run of {n} collapsed, which leaves a rate of up to {unseen_rate(n):.0%} possible"


def collapses_told(*members: tuple[str, int, int]) -> str:
    """How many of whose runs collapsed: names, collapsed, all.

    Examples
    --------
    >>> collapses_told(("wame", 2, 20), ("adam", 0, 20))
    'collapsed runs: 2 of 20 of wame, 0 of 20 of adam'
    """
    return "collapsed runs: " + ", ".join(f"{fell} of {n} of {name}" for name, fell, n in members)


def verdict(
    *,
    pvalue: float,
    direction: float,
    alpha: float = 0.05,
    margin: float | None = None,
    equivalence_pvalue: float | None = None,
    smallest_p: float | None = None,
    mean: MeanSays | None = None,
    identical_in: int = 0,
    candidate: str = "the candidate",
    baseline: str = "the baseline",
    claim: str = TYPICAL,
    note: str = "",
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
    margin, equivalence_pvalue : float, float, optional
        Declared margin and the adjusted p of equivalence. Inside the margin wins over "better" and "worse":
        the margin was declared to say which differences do not matter.
    smallest_p : float, optional
        Smallest adjusted p that this n could have reached.
    mean : MeanSays, optional
        "better" and "worse" are said only if the mean shows the same. Where one of the two shows a difference
        and the other does not, the word is "mixed" and the sentence names both.
    identical_in : int
        The number of pairs, if both members were equal in all of them.
    candidate, baseline : str
        Names for the sentence.
    claim : str
        What the test is about.
    note : str
        What better, worse and equivalent leave open: the end of their sentences.

    Returns
    -------
    Verdict

    Notes
    -----
    A large p is never evidence of sameness: it gives "inconclusive". Only a test against a margin gives
    "equivalent".

    Examples
    --------
    >>> verdict(pvalue=0.01, direction=0.8, candidate="wame", baseline="adam").reason
    'wame beats adam in the typical run: adjusted p = 0.01 <= 0.05.'
    """
    check_fraction(alpha, "alpha")
    more = f"; {note}" if note else ""
    found = not math.isnan(pvalue) and pvalue <= alpha and direction != 0
    same = (
        equivalence_pvalue is not None and not math.isnan(equivalence_pvalue) and equivalence_pvalue <= alpha
    )
    if identical_in:
        return Verdict(
            "inconclusive", f"{candidate} and {baseline} are identical in all {identical_in} pairs."
        )
    if same and margin is not None:
        tail = " (a difference was detected, but it is smaller than the margin)" if found else ""
        reason = f"{candidate} and {baseline} differ by less than the declared margin"
        test = f"adjusted equivalence p = {equivalence_pvalue:.3g} <= {alpha:g}"
        return Verdict("equivalent", f"{reason} {claim}: {test}{tail}{more}.", claim, note)
    if found:
        return _found(pvalue, direction, alpha, mean, candidate, baseline, claim, note)
    if math.isnan(pvalue):
        return Verdict("inconclusive", f"{candidate} and {baseline} could not be compared: no usable pairs.")
    if smallest_p is not None and smallest_p > alpha:
        reason = f"the smallest attainable adjusted p is {smallest_p:.3g} > {alpha:g}: more pairs are needed"
        return Verdict("inconclusive", f"{candidate} against {baseline}: {reason}.")
    tail = "" if margin is None else ", nor equivalence within the declared margin"
    if mean is not None and mean.sign and mean.tested:
        verb = "beats" if mean.sign > 0 else "loses to"
        what = claim.removeprefix("in ").removeprefix("on ")
        typical = f"{what} does not show it: adjusted p = {pvalue:.3g} > {alpha:g}{tail}"
        return Verdict(
            "mixed",
            f"the mean of {candidate} {verb} that of {baseline} ({mean.sentence}), but {typical}.",
        )
    reason = f"adjusted p = {pvalue:.3g} > {alpha:g} shows neither better nor worse{tail}"
    return Verdict("inconclusive", f"{candidate} against {baseline}: {reason}.")


def _word(sign: float) -> Literal["better", "worse"]:
    return "better" if sign > 0 else "worse"


def _found(
    pvalue: float,
    direction: float,
    alpha: float,
    mean: MeanSays | None,
    candidate: str,
    baseline: str,
    claim: str,
    note: str,
) -> Verdict:
    verb = "beats" if direction > 0 else "loses to"
    more = f"; {note}" if note else ""
    test = f"adjusted p = {pvalue:.3g} <= {alpha:g}"
    if mean is None or mean.sign * direction > 0:
        return Verdict(_word(direction), f"{candidate} {verb} {baseline} {claim}: {test}{more}.", claim, note)
    says = "does not show it"
    if mean.estimate * direction < 0:
        says = "shows the opposite" if mean.sign else "points the other way"
    subject = f"{candidate} {verb} {baseline} {claim}"
    if claim == TYPICAL:
        subject = f"the typical run of {candidate} {verb} that of {baseline}"
    return Verdict("mixed", f"{subject} ({test}), but the mean {says}: {mean.sentence}.")
