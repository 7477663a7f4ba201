"""Set two stores of one suite side by side: ``python benchmarks/versions.py OLD NEW``.

For stores of two environments, as two versions of a framework: a trial has the same id in both, so that every
trial is its own pair. For each workload: the mean difference (new minus old) over its trials, the exact
signed-rank p, and how far the curves of the training loss lie apart. Trials whose fingerprints differ are not
the same trial and are refused.
"""

from __future__ import annotations

import argparse

import numpy as np

from optbench.records.frames import load_results
from optbench.stats.paired import signed_rank

METRICS = ("test_accuracy", "test_loss")
PROOF = ("split", "init", "order")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("old", help="store, or the folder that holds it")
    parser.add_argument("new", help="the store to set beside it")
    options = parser.parse_args()
    old, new = load_results(options.old), load_results(options.new)
    for label, results in (("old", old), ("new", new)):
        found = {environment.get("framework") for environment in results.environments}
        print(f"{label}: {', '.join(map(str, found))}")
    pairs = old.trials.merge(new.trials, on="trial_id", suffixes=("_old", "_new"))
    alone = len(old.trials) + len(new.trials) - 2 * len(pairs)
    refused = np.any([pairs[f"{name}_old"] != pairs[f"{name}_new"] for name in PROOF], axis=0)
    print(f"{len(pairs)} trials in both, {alone} in one alone, {refused.sum()} refused by their fingerprints")
    curves = old.epochs.merge(new.epochs, on=["trial_id", "epoch"], suffixes=("_old", "_new"))
    curves["apart"] = (curves["train_loss_new"] / curves["train_loss_old"] - 1).abs()
    for workload, part in pairs[~refused].groupby("workload_old"):
        print(workload)
        for metric in METRICS:
            d = (part[f"{metric}_new"] - part[f"{metric}_old"]).to_numpy(float)
            d = d[np.isfinite(d)]
            test = signed_rank(d)
            print(
                f"  {metric:14} {d.mean():+.5f} mean, {np.abs(d).max():.5f} at most, n={len(d)}, "
                f"zeros {test.n_zeros}, p={test.pvalue:.3g} "
                f"(smallest attainable {test.smallest_attainable_p:.2g})"
            )
        own = curves[curves["trial_id"].isin(part["trial_id"])].groupby("epoch")["apart"].max()
        last = own.index.max()
        print(
            f"  training loss  {own[0]:.1e} apart before the first step, {own[1]:.1e} after epoch 1, ", end=""
        )
        print(f"{own[last]:.1e} after epoch {last}")


if __name__ == "__main__":
    main()
