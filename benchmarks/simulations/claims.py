"""One table a claim: level and power where pairs are skewed, collapse, repeat, or are looked at early.

Entries are percent with their Monte Carlo standard error; the nominal level is 5 %. Run by
``benchmarks/statistics_simulations.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from optbench.stats.crossed import crossed_mean, two_way_examples
from optbench.stats.datasets import on_these_datasets
from optbench.stats.equivalence import equivalence
from optbench.stats.families import PairedComparison, Settings, compare_family
from optbench.stats.heterogeneity import gail_simon, heterogeneity
from optbench.stats.paired import paired_t, signed_rank, tost
from optbench.stats.ranks import mean_rank_bootstrap, mean_rank_intervals, rank_table
from optbench.stats.relative import relative_effect
from optbench.stats.sequential import SequentialPlan, e_process
from optbench.stats.survival import time_to_target
from optbench.stats.targets import against_target
from optbench.stats.unpaired import compare_unpaired, skewed_welch
from simulations.savings import savings

ALPHA = 0.05
Draw = Callable[[np.random.Generator, int], np.ndarray]

#: Differences whose mean is 0, of a spread near 1.
MEAN_ZERO: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "ties (rounded)": lambda rng, n: np.round(rng.normal(size=n)),
    "heavy tails (t, 2 df)": lambda rng, n: rng.standard_t(2, size=n),
    "skew (exponential)": lambda rng, n: 1 - rng.exponential(size=n),
    "skew (lognormal)": lambda rng, n: math.exp(0.5) - rng.lognormal(size=n),
    "collapses (5 %)": lambda rng, n: np.where(rng.random(n) < 0.05, -19.0, 1.0) + 0.1 * rng.normal(size=n),
}
#: How far each median lies above its mean.
MEDIAN = {
    "skew (exponential)": 1 - math.log(2),
    "skew (lognormal)": math.exp(0.5) - 1,
    "collapses (5 %)": 0.9934,
}


#: How far each typical run, half of the means of two, lies above its mean.
TYPICAL = {"skew (exponential)": 0.1608, "skew (lognormal)": 0.4271, "collapses (5 %)": 0.9904}
BARE = ("better", "worse")


def rate(hits: float, runs: int) -> str:
    """A share with its Monte Carlo standard error, in percent."""
    p = hits / runs
    return f"{100 * p:.1f} ± {100 * math.sqrt(max(p * (1 - p), 1 / runs) / runs):.1f}"


def _words(d: np.ndarray) -> PairedComparison:
    table = np.column_stack([np.zeros(d.size), d])
    return compare_family(table, ["b", "a"], settings=Settings("b", "baseline"), scope="d").comparisons[0]


def _bare(d: np.ndarray) -> tuple[bool, bool]:
    """Do signed ranks reject, and is the bare word said? It never is where they do not."""
    ranks = signed_rank(d).pvalue <= ALPHA
    return ranks, ranks and _words(d).verdict.word in BARE


def typical_and_mean(runs: int) -> pd.DataFrame:
    """One workload: how often the bare word is said with the typical run at 0, and with the mean there."""
    rows = []
    cases = {**MEAN_ZERO, "power: normal, 1 sd": lambda rng, n: rng.normal(1, 1, size=n)}
    for name, draw in cases.items():
        for n in (6, 8, 10, 20, 50):
            rng, hits = np.random.default_rng(n), np.zeros(4)
            for _ in range(runs):
                d = draw(rng, n)
                hits += [*_bare(d - TYPICAL.get(name, 0.0)), *_bare(d)]
            rows.append([name, n, *(rate(x, runs) for x in hits)])
    columns = ["signed ranks", "better or worse", "mean at 0: signed ranks", "better or worse (not claimed)"]
    return pd.DataFrame(rows, columns=["differences", "n", *columns])


def _on_these(parts: list[np.ndarray]) -> bool:
    """Is the bare word said? It never is where signed ranks of all pairs do not reject."""
    if signed_rank(np.concatenate(parts)).pvalue > ALPHA:
        return False
    tables = {str(i): np.column_stack([np.zeros(d.size), d]) for i, d in enumerate(parts)}
    (r,) = on_these_datasets(tables, ["b", "a"], settings=Settings("b", "baseline"))
    return r.verdict.word in BARE


def these_datasets(runs: int) -> pd.DataFrame:
    """Over workloads: the bare word with the typical run at 0, and with the average there; heterogeneity."""
    rows = []
    for name, draw in MEAN_ZERO.items():
        for workloads, n, effects in ((2, 5, 0.0), (4, 5, 0.0), (4, 20, 0.0), (4, 5, 1.0)):
            rng, hits = np.random.default_rng(workloads * n), np.zeros(4)
            for _ in range(runs):
                shift = effects * np.array([1, -1, 2, -2])
                parts = [draw(rng, n) + shift[k] for k in range(workloads)]
                hits[0] += _on_these([d - TYPICAL.get(name, 0.0) for d in parts])
                hits[1] += _on_these(parts)
                h = heterogeneity(parts)
                hits[2] += h.q_pvalue <= ALPHA
                hits[3] += h.opposite_pvalue <= ALPHA
            said = "none" if effects == 0 else "+1, -1, +2, -2"
            rows.append([name, said, f"{workloads} x {n}", *(rate(x, runs) for x in hits)])
    columns = ["typical run at 0: better or worse", "average at 0 (not claimed)", "Q (Welch)", "Gail-Simon"]
    return pd.DataFrame(rows, columns=["differences", "effects", "workloads x seeds", *columns])


def qualitative(runs: int) -> pd.DataFrame:
    """Gail and Simon's test with known variances at the edge of its hypothesis (effects of one sign only)."""
    rows = []
    for k in (2, 5, 10):
        rng = np.random.default_rng(k)
        hits = sum(
            gail_simon(rng.normal(size=k) + np.r_[8.0, np.zeros(k - 1)])[1] <= ALPHA for _ in range(runs)
        )
        rows.append([k, rate(hits, runs)])
    return pd.DataFrame(rows, columns=["workloads", "rejections"])


def equivalence_level(runs: int) -> pd.DataFrame:
    """Equivalence with the median exactly at the margin, and Student's TOST with the mean exactly there."""
    rows = []
    for name, draw in MEAN_ZERO.items():
        for n in (5, 10, 20):
            margin = 3.0
            rng, hits = np.random.default_rng(n), np.zeros(4)
            for _ in range(runs):
                d = draw(rng, n)
                hits[3] += equivalence(d - margin, margin=margin).pvalue <= ALPHA
                hits[0] += equivalence(d - MEDIAN.get(name, 0.0) - margin, margin=margin).pvalue <= ALPHA
                hits[1] += tost(d - margin, margin=margin).pvalue <= ALPHA
                hits[2] += equivalence(d - MEDIAN.get(name, 0.0), margin=margin).pvalue <= ALPHA
            rows.append([name, n, *(rate(x, runs) for x in hits)])
    ours = ["ours, median at the margin", "TOST, mean at the margin", "ours, power at 0"]
    columns = ["differences", "n", *ours, "ours, mean at the margin (not claimed)"]
    return pd.DataFrame(rows, columns=columns)


def crossed(runs: int) -> pd.DataFrame:
    """Crossed seeds without an effect; sd of the first stream, of the second, and of the rest."""
    rows = []
    for levels in ((2, 8), (3, 20), (5, 5), (10, 10)):
        for parts in ((1, 0, 0.1), (0, 1, 0.1), (0, 0, 1), (1, 1, 1), (1, 1, 0.1), (0.5, 1, 0.3)):
            rng, hits = np.random.default_rng(levels[1]), np.zeros(2)
            for _ in range(runs):
                d = parts[0] * rng.normal(size=(levels[0], 1)) + parts[1] * rng.normal(size=(1, levels[1]))
                d = d + parts[2] * rng.normal(size=levels)
                hits[0] += crossed_mean(d).pvalue <= ALPHA
                hits[1] += paired_t(d.ravel()).pvalue <= ALPHA
            rows.append([f"{levels[0]} x {levels[1]}", parts, *(rate(x, runs) for x in hits)])
    return pd.DataFrame(rows, columns=["levels", "sd", "crossed", "cells as independent (not offered)"])


def two_way(runs: int) -> pd.DataFrame:
    """Seeds x test examples, no difference over new ones; `lean`: how far examples favour one of the two."""
    rows = []
    for seeds in (3, 5, 10):
        for examples in (100, 1000):
            for lean in (0.0, 0.2):
                rng, hits = np.random.default_rng(seeds * examples), np.zeros(2)
                for _ in range(runs):
                    side = lean * rng.choice([-1, 1], size=examples)
                    a, b = ((rng.random((seeds, examples)) < 0.7 + s * side).astype(float) for s in (1, -1))
                    hits[0] += two_way_examples(a, b).pvalue <= ALPHA
                    hits[1] += paired_t(a.mean(axis=1) - b.mean(axis=1)).pvalue <= ALPHA
                rows.append([seeds, examples, lean, *(rate(x, runs) for x in hits)])
    columns = ["seeds", "examples", "lean", "two-way (new examples)", "t over seeds (these examples)"]
    return pd.DataFrame(rows, columns=columns)


def sequential(runs: int) -> pd.DataFrame:
    """Looks at 6, 9, ... 30 pairs: share of samples with a difference found; mean number of pairs."""
    looks = tuple(range(6, 31, 3))
    cases: dict[str, Draw] = {
        "none": MEAN_ZERO["normal"],
        "none, ties": MEAN_ZERO["ties (rounded)"],
        **{f"{e} sd": (lambda rng, n, e=e: rng.normal(e, 1, size=n)) for e in (0.5, 0.8, 1.2)},
    }
    rows = []
    for name, draw in cases.items():
        for k in (1, 4):
            plans = [
                SequentialPlan(looks=looks, comparisons=k, spending=s) for s in ("obrien-fleming", "pocock")
            ]
            rng, found, pairs = np.random.default_rng(k), np.zeros(5), np.zeros(5)
            for _ in range(runs):
                d = draw(rng, 30)
                peeks = [n for n in looks if signed_rank(d[:n]).pvalue <= ALPHA / k]
                reached = np.flatnonzero(e_process(d) >= k / ALPHA)
                stops = [30 if signed_rank(d).pvalue <= ALPHA / k else None, peeks[0] if peeks else None]
                for plan in plans:
                    look = plan.look(d)
                    stops.append(look.n if look.decided else None)
                stops.append(int(reached[0]) + 1 if reached.size else None)
                found += [s is not None for s in stops]
                pairs += [30 if s is None else s for s in stops]
            cells = [f"{rate(f, runs)}; {m / runs:.1f}" for f, m in zip(found, pairs, strict=True)]
            rows.append([name, k, *cells])
    columns = [
        "one look at 30",
        "p <= 0.05 at any look (invalid)",
        "O'Brien-Fleming",
        "Pocock",
        "anytime bets",
    ]
    return pd.DataFrame(rows, columns=["effect", "comparisons", *columns])


def unpaired(runs: int) -> pd.DataFrame:
    """Independent groups alike in their typical runs, and in their means; one group at its target."""
    rows = []
    for name, draw in MEAN_ZERO.items():
        for n, m, scale in ((5, 5, 1), (5, 10, 1), (10, 12, 3), (20, 40, 3)):
            rng, hits = np.random.default_rng(n * m), np.zeros(6)
            # Shifted by this a run of the first group beats one of the second in half of all cases.
            even = float(np.median(draw(rng, 400_000) - scale * draw(rng, 400_000)))
            for _ in range(runs):
                x, y = draw(rng, n), scale * draw(rng, m)
                hits[0] += relative_effect(x - even, y, draws=999).pvalue <= ALPHA
                hits[1] += _better(x - even, y)
                hits[2] += _better(x, y)
                at_median = x - MEDIAN.get(name, 0.0)
                hits[3] += against_target(at_median, target=0.0).reached
                hits[4] += against_target(at_median, target=0.0, side="above").reached
                hits[5] += against_target(x, target=0.0, side="above").p_mean < ALPHA
            rows.append([name, f"{n}, {m}", f"1 : {scale}", *(rate(h, runs) for h in hits)])
    columns = [
        "chances even: Brunner-Munzel",
        "better or worse",
        "means equal (not claimed)",
        "median at the target: below",
        "above",
        "mean at the target: t (not claimed)",
    ]
    return pd.DataFrame(rows, columns=["runs", "sizes", "sd", *columns])


def _better(x: np.ndarray, y: np.ndarray) -> bool:
    """Is the bare word said? It never is where Welch's mean does not show it, so most need no permutation."""
    if skewed_welch(x, y).pvalue > ALPHA:
        return False
    return compare_unpaired({"x": x, "y": y}, baseline="y")[0].verdict.word in BARE


def target_times(runs: int) -> pd.DataFrame:
    """Times to target of two alike optimizers under a budget that some do not reach."""
    rows = []
    for n in (6, 11, 20):
        rng, hits = np.random.default_rng(n), 0
        for _ in range(runs):
            times = np.ceil(10 * rng.exponential(size=(n, 2)) * rng.exponential(size=(n, 1)))
            found = time_to_target(
                times, ["a", "b"], dataset="d", budget=15.0, settings=Settings("b", "baseline")
            )
            hits += found[0].family.comparisons[0].signed_rank.pvalue <= ALPHA
        rows.append([n, rate(hits, runs)])
    return pd.DataFrame(rows, columns=["n", "signed-rank, not reached last"])


def mean_ranks(runs: int) -> pd.DataFrame:
    """Coverage of nominal 95 % intervals of mean ranks; optimizers are `effect` sd apart."""
    rows = []
    for k, effect in ((3, 0.0), (3, 0.5), (3, 1.5), (5, 0.5)):
        for n in (6, 10, 20):
            rng = np.random.default_rng(n)
            shift = effect * np.arange(k)
            true = rank_table(rng.normal(size=(50_000, k)) + shift).mean(axis=0)
            hits = np.zeros(2)
            for i in range(runs):
                x = rng.normal(size=(n, k)) + shift
                both = mean_rank_intervals(x), mean_rank_bootstrap(x, draws=500, seed=i)
                hits += [((low <= true) & (true <= high)).mean() for low, high in both]
            rows.append([k, effect, n, *(rate(x, runs) for x in hits)])
    return pd.DataFrame(rows, columns=["k", "effect", "n", "ours", "percentile bootstrap (not offered)"])


CLAIMS: dict[str, tuple[Callable[[int], pd.DataFrame], int]] = {
    "typical-and-mean": (typical_and_mean, 2_000),
    "these-datasets": (these_datasets, 2_000),
    "qualitative": (qualitative, 20_000),
    "equivalence": (equivalence_level, 4_000),
    "crossed": (crossed, 4_000),
    "two-way": (two_way, 2_000),
    "sequential": (sequential, 2_000),
    "sequential-savings": (savings, 1_000),
    "unpaired": (unpaired, 2_000),
    "target-times": (target_times, 2_000),
    "mean-ranks": (mean_ranks, 2_000),
}
