"""Which difference of a comparison is shown, with which interval: one place for every format."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optbench.stats.families import PairedComparison
from optbench.stats.pairs import CUT

#: Said where an interval is written with such an end.
CUT_ENDS = (
    "An end written 0) or (0 is not in the interval: a later step of the correction found the difference."
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A difference in the metric's own unit, positive where the candidate is better; NaN without one.

    The interval has the level ``confidence``, at which those of all comparisons of the family hold together.
    It is infinite where too few pairs bound nothing at that level; ``cut``: it ends at 0, which is not in it.
    """

    estimate: float
    low: float
    high: float
    confidence: float = math.nan
    cut: bool = False


#: What there is where no difference can be computed.
NONE = Shown(estimate=math.nan, low=math.nan, high=math.nan)


def shown_difference(c: PairedComparison) -> Shown:
    """The difference shown with a comparison's p and verdict: the mean, by the test that was made.

    Under a sequential design the Hodges-Lehmann shift, with the interval that holds at all its looks.
    """
    if c.sequential is not None:
        found = c.sequential.look.interval
        return Shown(estimate=found.estimate, low=found.low, high=found.high, confidence=found.confidence)
    d = c.average if c.crossed is None else c.crossed
    if d is None:
        return NONE
    cut = d.method.endswith(CUT)
    return Shown(estimate=d.estimate, low=d.low, high=d.high, confidence=d.confidence, cut=cut)


def interval_name(comparisons: int, *, alpha: float, correction: str) -> str:
    """Name the intervals of a family of comparisons.

    Examples
    --------
    >>> interval_name(1, alpha=0.05, correction="holm"), interval_name(8, alpha=0.05, correction="holm")
    ('95% CI', '95% CI for all 8 together')
    """
    level = f"{100 * (1 - alpha):.6g}% CI"
    together = comparisons > 1 and correction not in ("none", "bh")
    return f"{level} for all {comparisons} together" if together else level
