"""What sequential designs save: trainings until all is decided, at the power of a fixed number of seeds."""

import math

import numpy as np
import pandas as pd

from optbench.stats.corrections import holm
from optbench.stats.paired import signed_rank
from optbench.stats.power import pairs_needed
from optbench.stats.sequential import SequentialPlan, e_process

ALPHA = 0.05
#: How much larger than the fixed number of seeds the budget may be, tried in this order.
LARGER = {
    "obrien-fleming": (1.0, 1.05, 1.1, 1.15, 1.2, 1.3),
    "pocock": (1.1, 1.2, 1.3, 1.4, 1.5),
    "anytime": (1.4, 1.7, 2.0, 2.3, 2.6, 3.0),
}


def _drawn(runs: int, k: int, n: int, effect: float) -> np.ndarray:
    """Differences of k candidates to one baseline in n seeds, (runs, k, n), each of sd 1."""
    rng = np.random.default_rng(round(1000 * effect) + k)
    z = rng.normal(size=(runs, k + 1, n))
    return (z[:, 1:] - z[:, :1]) / math.sqrt(2) + effect


def _plan(design: str, budget: int, k: int) -> SequentialPlan:
    if design == "anytime":
        return SequentialPlan(kind="anytime", looks=tuple(range(1, budget + 1)), comparisons=k)
    looks = tuple(sorted({math.ceil(budget * j / 5) for j in range(1, 6)}))
    return SequentialPlan(looks=looks, comparisons=k, spending=design)  # type: ignore[arg-type]


def _end(plan: SequentialPlan, x: np.ndarray) -> int | None:
    """After how many pairs a difference was found; None where it was not."""
    if plan.kind == "anytime":  # without the interval of `plan.look`, which takes long
        reached = np.flatnonzero(e_process(x) >= 1 / plan.level)
        return int(reached[0]) + 1 if reached.size else None
    look = plan.look(x)
    return look.n if look.decided else None


def _spent(plan: SequentialPlan, d: np.ndarray) -> tuple[float, float]:
    """Share of comparisons that were found, and mean number of seeds until all were, or the budget."""
    found, seeds = 0, 0
    for sample in d:
        ends = [_end(plan, x[: plan.budget]) for x in sample]
        found += sum(end is not None for end in ends)
        seeds += max(plan.budget if end is None else end for end in ends)
    return found / (len(d) * d.shape[1]), seeds / len(d)


def savings(runs: int) -> pd.DataFrame:
    """Trainings until all is decided, at the power of a fixed number of seeds; every candidate differs."""
    rows = []
    for effect in (0.5, 0.8, 1.2):
        for k in (1, 3):
            n = pairs_needed(effect, comparisons=k)
            d, null = _drawn(runs, k, 3 * n + 3, effect), _drawn(runs, k, 3 * n + 3, 0.0)
            fixed = np.mean([holm([signed_rank(x[:n]).pvalue for x in sample]) <= ALPHA for sample in d])
            for design, factors in LARGER.items():
                for factor in factors:
                    plan = _plan(design, math.ceil(n * factor), k)
                    power, seeds = _spent(plan, d)
                    if power >= fixed:
                        break
                _, without = _spent(plan, null)
                rows.append(
                    [
                        f"{effect} sd",
                        k,
                        f"{n}; {100 * fixed:.0f}",
                        design,
                        f"{plan.budget}; {100 * power:.0f}",
                        f"{seeds:.1f}",
                        f"{100 * (1 - seeds / n):.0f}",
                        f"{100 * (1 - without / n):.0f}",
                    ]
                )
    columns = ["effect", "comparisons", "fixed: seeds; power", "design", "budget; power", "mean seeds"]
    return pd.DataFrame(rows, columns=[*columns, "saved, %", "saved without an effect, %"])
