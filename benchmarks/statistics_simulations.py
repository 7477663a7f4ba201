"""The simulations behind docs/statistics.md: error rates and coverage of the procedure and of alternatives.

    python benchmarks/statistics_simulations.py [--scale 1.0 | --quick] [--only NAME ...]
                                                [--write docs/statistics.md]

prints one Markdown table per simulation, and can replace the tables between the markers in the page.
`--scale` multiplies the repetitions, `--quick` takes a tenth; draws are seeded: the
same scale and versions give the same table.
"""

import argparse
import math
import re
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from simulations.claims import CLAIMS

from optbench.stats.classifiers import mcnemar
from optbench.stats.corrections import adjust
from optbench.stats.curves import max_t
from optbench.stats.datasets import on_these_datasets
from optbench.stats.effects import mean_difference
from optbench.stats.families import Settings
from optbench.stats.paired import hodges_lehmann, paired_t, sign_flip, signed_rank, tost
from optbench.stats.ranks import friedman
from optbench.stats.signed_rank_null import _saddlepoint_upper, null_probabilities
from optbench.stats.survival import log_rank

ALPHA = 0.05
SIZES = (5, 6, 11, 20)
SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails (t, 2 df)": lambda rng, size: rng.standard_t(2, size=size),
    "ties (rounded)": lambda rng, size: np.round(rng.normal(size=size)),
}


def rate(hits: float, runs: int) -> str:
    """A share with its Monte Carlo standard error, in percent."""
    p = hits / runs
    return f"{100 * p:.1f} ± {100 * math.sqrt(max(p * (1 - p), 1 / runs) / runs):.1f}"


def rejects(p: float) -> bool:
    return not math.isnan(p) and p <= ALPHA


def type_one(runs: int) -> pd.DataFrame:
    """False positives at 5 % for symmetric differences with mean 0."""
    rows = []
    for name, draw in SHAPES.items():
        for n in SIZES:
            rng = np.random.default_rng(n)
            hits = np.zeros(6)
            for i in range(runs):
                d = draw(rng, (n,))
                hits[0] += rejects(signed_rank(d).pvalue)
                hits[1] += rejects(sign_flip(d).pvalue)
                hits[2] += rejects(paired_t(d).pvalue)
                table = draw(rng, (n, 4))
                if i % 10 == 0:
                    hits[3] += rejects(friedman(table, draws=499, seed=i).pvalue)
                    hits[4] += rejects(max_t(draw(rng, (n, 10)).cumsum(axis=1), draws=499, seed=i).pvalue)
                    margin = 1.0
                    hits[5] += rejects(tost(draw(rng, (n,)) + margin, margin=margin).pvalue)
            few = math.ceil(runs / 10)
            cells = [rate(h, runs) for h in hits[:3]] + [rate(h, few) for h in hits[3:]]
            rows.append([name, n, *cells])
    names = ["signed-rank", "sign-flip", "t", "Friedman, k = 4", "max-T, 10 points", "TOST at the margin"]
    return pd.DataFrame(rows, columns=["differences", "n", *names])


def type_one_binary(runs: int) -> pd.DataFrame:
    """False positives at 5 % of the tests on counts and times, both optimizers alike."""
    rows = []
    for n in SIZES:
        rng = np.random.default_rng(n)
        hits = np.zeros(5)
        for _ in range(runs):
            b = int(rng.binomial(n, 0.5))
            result = mcnemar(b, n - b)
            hits[0] += rejects(result.p_midp)
            hits[1] += rejects(result.p_exact)
            time_ = rng.exponential(size=(n, 2)) * rng.exponential(size=(n, 1))
            event = time_ < 1.5
            capped = np.minimum(time_, 1.5)
            labels = np.repeat(np.arange(n), 2)
            result2 = log_rank(capped.ravel(), event.ravel(), np.tile([True, False], n), strata=labels)
            hits[2] += rejects(result2.pvalue)
            hits[3] += rejects(result2.p_exact)
            hits[4] += rejects(signed_rank(capped[:, 0] - capped[:, 1]).pvalue)
        rows.append([n, *(rate(h, runs) for h in hits)])
    names = [
        "McNemar mid-p",
        "McNemar exact",
        "log-rank by pair",
        "the same, exact",
        "signed-rank on min(T, B)",
    ]
    return pd.DataFrame(rows, columns=["n (discordant; pairs)", *names])


def pooling(runs: int) -> pd.DataFrame:
    """False positives about new datasets: effects vary over datasets (sd 1) around 0, seeds have sd 1."""
    rows = []
    for datasets, seeds in ((6, 5), (6, 30), (10, 10), (20, 10)):
        rng = np.random.default_rng(datasets * seeds)
        pooled = units = 0
        for _ in range(runs):
            d = rng.normal(size=(datasets, 1)) + rng.normal(size=(datasets, seeds))
            pooled += rejects(signed_rank(d.ravel()).pvalue)
            units += rejects(signed_rank(d.mean(axis=1)).pvalue)
        rows.append([datasets, seeds, rate(pooled, runs), rate(units, runs)])
    return pd.DataFrame(rows, columns=["datasets", "seeds", "pooled seeds x datasets", "dataset as the unit"])


def stratified(runs: int) -> pd.DataFrame:
    """False positives on these datasets: every dataset has mean difference 0, scales differ tenfold."""
    rows = []
    for datasets, seeds in ((2, 5), (5, 5), (10, 11)):
        rng = np.random.default_rng(datasets * seeds)
        hits = 0
        for _ in range(runs):
            tables = {
                str(i): np.column_stack([rng.standard_t(3, size=seeds) * 10 ** (i % 2), np.zeros(seeds)])
                for i in range(datasets)
            }
            hits += rejects(
                on_these_datasets(tables, ["a", "b"], settings=Settings("b", "baseline"))[0].pvalue
            )
        rows.append([datasets, seeds, rate(hits, runs)])
    return pd.DataFrame(rows, columns=["datasets", "seeds", "average of the means, sign flips"])


def coverage(runs: int) -> pd.DataFrame:
    """Coverage of 95 % intervals of the centre of symmetric differences."""
    rows = []
    for name in ("normal", "heavy tails (t, 2 df)"):
        for n in (3, 5, 6, 8, 11, 20, 50):
            rng = np.random.default_rng(n)
            hits = np.zeros(3)
            for _ in range(runs):
                d = SHAPES[name](rng, (n,))
                m = mean_difference(d)
                hits[0] += m.low <= 0 <= m.high
                hl = hodges_lehmann(d)
                hits[1] += hl.low <= 0 <= hl.high
                boot = d[rng.integers(0, n, size=(500, n))].mean(axis=1)
                low, high = np.quantile(boot, [0.025, 0.975])
                hits[2] += low <= 0 <= high
            cells = [rate(h, runs) for h in hits]
            if n < 6:
                cells[1] = "unbounded"
            rows.append([name, n, *cells])
    columns = ["differences", "n", "t interval", "Hodges-Lehmann", "percentile bootstrap (not offered)"]
    return pd.DataFrame(rows, columns=columns)


def bands(runs: int) -> pd.DataFrame:
    """Curves without any difference: how often each kind of band or test finds one somewhere in 50 points."""
    rows = []
    for n in SIZES:
        rng = np.random.default_rng(n)
        hits = np.zeros(3)
        for i in range(runs):
            curves = rng.normal(size=(n, 50)).cumsum(axis=1) + rng.normal(size=(n, 1))
            result = max_t(curves, draws=499, seed=i)
            hits[0] += bool(((result.pointwise_low > 0) | (result.pointwise_high < 0)).any())
            hits[1] += bool(((result.low > 0) | (result.high < 0)).any())
            hits[2] += rejects(result.pvalue)
        rows.append([n, *(rate(h, runs) for h in hits)])
    return pd.DataFrame(rows, columns=["n", "pointwise 95 % bands", "simultaneous band", "max-T test"])


def families(runs: int) -> pd.DataFrame:
    """Four equal optimizers on one dataset, all pairs: how often any adjusted p is at most 5 %."""
    rows = []
    for n in (7, 11, 20):
        rng = np.random.default_rng(n)
        hits: dict[str, int] = dict.fromkeys(("none", "holm", "shaffer", "bergmann-hommel"), 0)
        for _ in range(runs):
            value = np.round(rng.normal(size=(n, 1)) + rng.normal(size=(n, 4)), 1)
            p = [signed_rank(value[:, i] - value[:, j]).pvalue for i, j in combinations(range(4), 2)]
            for method in hits:
                hits[method] += bool((adjust(p, method=method, all_pairs=True) <= ALPHA).any())
        rows.append([n, *(rate(h, runs) for h in hits.values())])
    return pd.DataFrame(rows, columns=["n", "no correction", "Holm", "Shaffer", "Bergmann-Hommel"])


def approximation(runs: int) -> pd.DataFrame:
    """Largest relative error of the saddlepoint tail against the exact one, from p = 0.5 down to 1e-9."""
    cases: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
        "one decimal: about 30 sizes": lambda rng, n: np.abs(rng.normal(size=n).round(1)) + 0.1,
        "two decimals: about 250 sizes": lambda rng, n: np.abs(rng.normal(size=n).round(2)) + 0.1,
        "16 equal groups and a few others": lambda rng, n: np.r_[
            np.repeat(np.arange(16), n // 16), 16 * rng.random(n % 16)
        ],
    }
    rows = []
    for n in (301, 500, 1000):
        for label, draw in cases.items():
            worst = 0.0
            for seed in range(runs):
                weights = np.rint(2 * stats.rankdata(draw(np.random.default_rng(seed), n))).astype(np.int64)
                total, groups = int(weights.sum()), np.unique(weights, return_counts=True)
                cdf = np.cumsum(null_probabilities(weights, total // 2))
                sd = math.sqrt(float((weights.astype(float) ** 2).sum())) / 2
                for z in np.linspace(0.05, 6, 25):
                    t = round(total / 2 + z * sd)
                    error = _saddlepoint_upper(*groups, t - total / 2) / cdf[total - t] - 1
                    worst = max(worst, abs(error))
            rows.append([n, label, f"{worst:.1e}"])
    return pd.DataFrame(rows, columns=["n", "ties", "largest relative error of p"])


SIMULATIONS: dict[str, tuple[Callable[[int], pd.DataFrame], int]] = {
    "type-one": (type_one, 10_000),
    "type-one-binary": (type_one_binary, 5_000),
    "pooling": (pooling, 5_000),
    "stratified": (stratified, 3_000),
    "coverage": (coverage, 5_000),
    "bands": (bands, 1_000),
    "families": (families, 3_000),
    "approximation": (approximation, 2),
    **CLAIMS,
}


def markdown(frame: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [list(frame.columns), *frame.values.tolist()]]
    return "\n".join([lines[0], "|" + " --- |" * frame.shape[1], *lines[1:]])


def tables(only: list[str], scale: float) -> Iterator[tuple[str, str]]:
    for name, (simulate, runs) in SIMULATIONS.items():
        if only and name not in only:
            continue
        start = time.perf_counter()
        repeated = max(1, round(runs * scale))
        text = markdown(simulate(repeated))
        seconds = time.perf_counter() - start
        print(f"\n{simulate.__doc__} ({repeated} repetitions, {seconds:.0f} s)\n\n{text}", flush=True)
        yield name, f"{text}\n\n{repeated:,} repetitions per row."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions")
    parser.add_argument("--only", nargs="*", default=[], choices=list(SIMULATIONS))
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    for name, text in tables(options.only, options.scale * (0.1 if options.quick else 1)):
        if options.write:
            page = options.write.read_text(encoding="utf-8")
            pattern = rf"(<!-- simulation {name} -->\n).*?(<!-- end -->)"
            page, count = re.subn(pattern, lambda m, t=text: f"{m[1]}{t}\n{m[2]}", page, flags=re.S)
            assert count == 1, f"{options.write} has {count} places for {name}"
            options.write.write_text(page, encoding="utf-8")
