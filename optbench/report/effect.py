"""Which difference of a comparison is shown, with which interval: one place for every format."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optbench.stats.families import PairedComparison


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A difference in the metric's own unit, positive where the candidate is better; NaN without one."""

    estimate: float
    low: float
    high: float


#: What there is where no difference can be computed.
NONE = Shown(estimate=math.nan, low=math.nan, high=math.nan)


def shown_difference(c: PairedComparison) -> Shown:
    """The difference that stands beside a comparison's p and verdict."""
    if c.mean is None:
        return NONE
    return Shown(estimate=c.mean.estimate, low=c.mean.low, high=c.mean.high)
