"""Made-up results, and stores written record by record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.trial import Fingerprints, TrialRecord, block_id, trial_id
from tests.conftest import write_changed

#: Names that must break nothing, in any format.
ODD_NAMES = (
    "<script>alert(1)</script>",
    "a & b % c_d $x$ #1 ~^",
    "_leading {brace} \\slash |bar|",
    "emoji 🚀 \u202e ümlaut",
    "x" * 200,
)

FACTS = {"processor": "made", "cores": 2, "framework": "torch 2", "threads": 1}


def made_record(spec, score: float | str, *, epochs: int = 4, facts: Mapping = FACTS) -> TrialRecord:
    """A record whose curves end near a score; a word is a status instead."""
    status = score if isinstance(score, str) else "completed"
    crashed = status == "crashed"
    accuracy = 0.5 if isinstance(score, str) else score
    rise = np.linspace(0.1, accuracy, epochs + 1)
    loss = 2.3 * np.exp(-rise * np.arange(epochs + 1))
    history = {
        "train_loss": loss,
        "train_accuracy": rise,
        "val_loss": loss * 1.1,
        "val_accuracy": rise,
        "batch_loss": loss,
        "lr": np.full(epochs + 1, spec.optimizer.lr),
        "step_seconds": np.array([math.nan, *[0.5 + accuracy / 10] * epochs]),
        "eval_seconds": np.full(epochs + 1, 0.1),
    }
    metrics = {"epochs": float(epochs), "best_epoch": float(epochs), "val_accuracy": rise[-1]}
    if status == "completed":
        metrics |= {"test_accuracy": accuracy, "test_loss": 1 - accuracy, "test_accuracy_best": accuracy}
    marks = Fingerprints(split="s", init=str(spec.seeds.init), order="o", order_by_epoch=(1,) * epochs)
    return TrialRecord(
        trial_id=trial_id(spec),
        block_id=block_id(spec),
        spec=spec,
        status=status,
        fingerprints=None if crashed else marks,
        history={} if crashed else history,
        metrics={} if crashed else metrics,
        timings={} if crashed else {"step": float(np.nansum(history["step_seconds"])), "total": 3.0},
        predictions={},
        environment=facts,
        started="2020-01-01T00:00:00+00:00",
        error="Traceback\nValueError: made" if crashed else None,
    )


def fill_store(suite, folder, scores, *, device="cpu", **options):
    """Write a store; ``scores(trial)`` gives a score, a status, or None for a trial that has not run."""
    plan = trials(suite, lambda backend, _: device)
    with Store(folder, write=True) as store:
        seen = suite.report_spec.to_json()
        store.set_meta(suite=suite.name, title=suite.title, source=suite.text, hash=suite.hash, view=seen)
        store.set_plan((trial_id(t.spec), t.workload, t.optimizer) for t in plan)
        for trial in plan:
            score = scores(trial)
            if score is not None:
                store.add(made_record(trial.spec, score, **options))
    return folder


@pytest.fixture
def made_results(write_suite, tmp_path):
    """Make results of the tiny suite: a table of scores by optimizer, one a seed."""

    def make(scores: Mapping[str, Sequence[float | str | None]], *replacements, text=None, **options):
        seeds = len(next(iter(scores.values())))
        changes = [("seeds: 2", f"seeds: {seeds}"), *replacements]
        suite = load_suite(write_suite(*changes, **({"text": text} if text else {})))

        def score(trial):
            return scores[trial.optimizer][trial.spec.seeds.init]

        folder = fill_store(suite, tmp_path / "store", score, **options)
        return load_results(folder), suite.report_spec

    return make


@pytest.fixture(scope="module")
def two_workloads(tmp_path_factory):
    """Six seeds of three optimizers on two workloads with targets; sgd diverges twice. Only to be read."""
    folder = tmp_path_factory.mktemp("two")
    suite = load_suite(
        write_changed(
            folder,
            ("epochs: 2", "epochs: 4\n    targets: {val_accuracy: 0.85}"),
            (
                "optimizers:",
                "  - dataset: digits\n    name: second\n    model: {name: mlp, hidden: [4]}\n"
                "    batch_size: 64\n"
                "    epochs: 4\n    targets: {val_accuracy: 0.85}\noptimizers:",
            ),
            ("adam: {lr: 0.01}", "adam: {lr: 0.01}\n  sgd: {lr: 0.1}"),
            ("seeds: 2", "seeds: 6"),
        )
    )
    base = {"wame": 0.9, "adam": 0.93, "sgd": 0.86}

    def score(trial):
        seed = trial.spec.seeds.init
        if trial.optimizer == "sgd" and seed > 3:
            return "diverged"
        return base[trial.optimizer] + 0.004 * seed + 0.001 * (seed * 7 % 5) * (trial.optimizer == "adam")

    store = fill_store(suite, folder / "two", score)
    return load_results(store), suite.report_spec, store


def renamed(spec, names: Mapping[str, str]):
    """What a report needs, with other optimizer labels."""
    workloads = tuple(
        replace(w, optimizers=tuple(names.get(o, o) for o in w.optimizers)) for w in spec.workloads
    )
    baseline = spec.analysis.baseline
    analysis = replace(spec.analysis, baseline=names.get(baseline, baseline))
    return replace(spec, workloads=workloads, analysis=analysis)
