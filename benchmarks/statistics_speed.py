"""Time and memory of the statistics on the two sizes that the design sets bars for.

    python benchmarks/statistics_speed.py

prints the time to import the analysis, and processor time and peak memory of a wide matrix of 4 methods x 14
datasets and of a long table of 1,000,000 rows (10 optimizers x 100 datasets x 1,000 seeds).
"""

import argparse
import resource
import sys
import time

START = time.perf_counter()
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from optbench.stats.compare import compare_table  # noqa: E402

IMPORTED = time.perf_counter() - START


def table(datasets: int, optimizers: int, seeds: int, *, decimals: int | None) -> pd.DataFrame:
    """Trials with a common seed effect; rounding to `decimals` makes the ties of a real accuracy."""
    rng = np.random.default_rng(0)
    shape = (datasets, optimizers, seeds)
    value = 0.9 + 0.01 * rng.normal(size=shape) + 0.01 * rng.normal(size=(datasets, 1, seeds))
    value += 0.001 * np.arange(optimizers)[None, :, None]
    if decimals is not None:
        value = value.round(decimals)
    d, o, s = np.indices(shape)
    return pd.DataFrame(
        {
            "dataset": np.array([f"d{i:03d}" for i in range(datasets)])[d.ravel()],
            "optimizer": np.array([f"o{i}" for i in range(optimizers)])[o.ravel()],
            "seed": s.ravel(),
            "accuracy": value.ravel(),
        }
    )


def timed(label: str, frame: pd.DataFrame, baseline: str | None) -> None:
    start = time.process_time()
    compare_table(frame, metric="accuracy", baseline=baseline)
    seconds = time.process_time() - start
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    print(f"{label:<64} {seconds:7.2f} s   peak memory so far {peak:5.2f} GiB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000)
    seeds = parser.parse_args().seeds
    print(f"import numpy, pandas, optbench.stats.compare: {IMPORTED:.2f} s")
    timed("wide: 4 methods x 14 datasets, all pairs (first call)", table(14, 4, 1, decimals=3), None)
    timed("wide: 4 methods x 14 datasets, all pairs (second call)", table(14, 4, 1, decimals=3), None)
    timed("100,000 rows: 10 x 10 x 1,000, two decimals, a baseline", table(10, 10, 1000, decimals=2), "o0")
    timed("100,000 rows: 2 x 50,000 seeds, two decimals", table(1, 2, 50_000, decimals=2), None)
    timed("100,000 rows: 100 optimizers, 1,000 seeds, all pairs", table(1, 100, 1000, decimals=4), None)
    timed("100,000 rows: 100 optimizers, 10 x 100, all pairs", table(10, 100, 100, decimals=4), None)
    for decimals in (None, 4):
        ties = "no ties" if decimals is None else f"rounded to {decimals} decimals"
        frame = table(100, 10, seeds, decimals=decimals)
        timed(f"long: {len(frame):,} rows, {ties}, against a baseline", frame, "o0")
        timed(f"long: {len(frame):,} rows, {ties}, all pairs", frame, None)
