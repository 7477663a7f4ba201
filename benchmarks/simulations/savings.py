"""What sequential designs save: trainings until all is decided, at the power of a fixed number of seeds."""

import math
from functools import lru_cache

import numpy as np
import pandas as pd

from optbench.stats.corrections import holm
from optbench.stats.power import pairs_needed
from optbench.stats.sequential import SequentialPlan, e_process
from optbench.stats.signed_rank_null import null_probabilities

ALPHA = 0.05
#: How much larger than the fixed number of seeds the budget may be, tried in this order.
LARGER = {
    "obrien-fleming": (1.0, 1.05, 1.1, 1.15, 1.2, 1.3),
    "pocock": (1.1, 1.2, 1.3, 1.4, 1.5),
    "anytime": (1.4, 1.7, 2.0, 2.3, 2.6, 3.0),
}
NEVER = 10**9


def _drawn(runs: int, k: int, n: int, effect: float) -> np.ndarray:
    """Differences of k candidates to one baseline in n seeds, (runs, k, n), each of sd 1."""
    rng = np.random.default_rng(round(1000 * effect) + k)
    z = rng.normal(size=(runs, k + 1, n))
    return (z[:, 1:] - z[:, :1]) / math.sqrt(2) + effect


@lru_cache(maxsize=256)
def _distribution(n: int) -> np.ndarray:
    """P(sum of the positive ranks of n differences without ties is at most 0, 1, ..)."""
    return np.cumsum(null_probabilities(np.arange(1, n + 1), n * (n + 1) // 2))


def _p_values(d: np.ndarray) -> np.ndarray:
    """Two-sided exact signed-rank p of differences without ties, over the last axis."""
    n = d.shape[-1]
    ranks = np.argsort(np.argsort(np.abs(d), axis=-1), axis=-1) + 1
    plus = (ranks * (d > 0)).sum(axis=-1)
    return np.minimum(1, 2 * _distribution(n)[np.minimum(plus, n * (n + 1) // 2 - plus)])


def _crossed(d: np.ndarray, design: str, budget: int) -> np.ndarray:
    """After how many pairs each comparison crosses the bounds of alpha shared over 1, 2, .. k of them.

    Returns (runs, k, k); NEVER where it does not. The bounds of group-sequential designs are those that
    ``optbench plan`` shows, for differences without ties.
    """
    k = d.shape[1]
    if design == "anytime":
        capital = np.array([[e_process(x[:budget]) for x in sample] for sample in d])
        over = [capital >= j / ALPHA for j in range(1, k + 1)]
        first = [np.where(o.any(axis=-1), o.argmax(axis=-1) + 1, NEVER) for o in over]
        return np.stack(first, axis=-1)
    looks = tuple(sorted({math.ceil(budget * j / 5) for j in range(1, 6)}))
    p = np.stack([_p_values(d[..., :n]) for n in looks], axis=-1)
    found = []
    for j in range(1, k + 1):
        plan = SequentialPlan(looks=looks, comparisons=j, spending=design)  # type: ignore[arg-type]
        hit = p <= np.array([bound for _, _, bound in plan.boundaries()]) * (1 + 1e-9)
        found.append(np.where(hit.any(axis=-1), np.array(looks)[hit.argmax(axis=-1)], NEVER))
    return np.stack(found, axis=-1)


def _ends(crossed: np.ndarray) -> list[int]:
    """After how many pairs each comparison is found by Holm's steps: alpha goes on to those that are open."""
    ends = [NEVER] * len(crossed)
    now, open_ = 0, list(range(len(crossed)))
    while open_:
        now, i = min((max(now, int(crossed[i, len(open_) - 1])), i) for i in open_)
        if now >= NEVER:
            break
        ends[i] = now
        open_.remove(i)
    return ends


def _spent(d: np.ndarray, design: str, budget: int) -> tuple[float, float, float]:
    """Share of comparisons found, mean number of seeds until all are (or the budget), share of any found."""
    ends = np.array([_ends(crossed) for crossed in _crossed(d, design, budget)])
    found = ends < NEVER
    seeds = np.where(found, ends, budget).max(axis=1)
    return float(found.mean()), float(seeds.mean()), float(found.any(axis=1).mean())


def savings(runs: int) -> pd.DataFrame:
    """Trainings until all is decided, at the power of a fixed number of seeds; every candidate differs."""
    rows = []
    for effect in (0.5, 0.8, 1.2):
        for k in (1, 3):
            n = pairs_needed(effect, comparisons=k)
            d, null = _drawn(runs, k, 3 * n + 3, effect), _drawn(runs, k, 3 * n + 3, 0.0)
            fixed = np.mean([holm(p.tolist()) <= ALPHA for p in _p_values(d[..., :n])])
            for design, factors in LARGER.items():
                for factor in factors:
                    budget = math.ceil(n * factor)
                    power, seeds, _ = _spent(d, design, budget)
                    if power >= fixed:
                        break
                _, without, wrong = _spent(null, design, budget)
                if k > 1:  # the others differ, so that their alpha goes to the last
                    mixed = np.concatenate([null[:, :-1] + 1.2, null[:, -1:]], axis=1)
                    last = [_ends(crossed)[-1] < NEVER for crossed in _crossed(mixed, design, budget)]
                    wrong = max(wrong, float(np.mean(last)))
                rows.append(
                    [
                        f"{effect} sd",
                        k,
                        f"{n}; {100 * fixed:.0f}",
                        design,
                        f"{budget}; {100 * power:.0f}",
                        f"{seeds:.1f}",
                        f"{100 * (1 - seeds / n):.0f}",
                        f"{100 * (1 - without / n):.0f}",
                        f"{100 * wrong:.1f} ± {100 * math.sqrt(max(wrong, 1 / runs) / runs):.1f}",
                    ]
                )
    columns = ["effect", "comparisons", "fixed: seeds; power", "design", "budget; power", "mean seeds"]
    columns += ["saved, %", "saved without an effect, %", "found without one, %"]
    return pd.DataFrame(rows, columns=columns)
