"""Which times a report shows: those of trials that ran alone on one machine, else the timing pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from optbench.records.frames import Results
from optbench.records.machines import different_facts, one_machine
from optbench.records.step_times import PassTimes, median

#: Trials are matched, and times compared, only where these agree.
SETTING = ("backend", "device", "precision")


def with_fair_times(results: Results) -> Results:
    """Omit the times that are not fair to compare, or replace them by those of the timing pass.

    Trials of one workload, backend, device and precision are compared by the clock, so they share a source.
    Where all ran alone on one machine, their own times stand. Elsewhere those of a timing pass do, if one
    machine has timed all of their optimizers: seconds are epochs times steps times the pass's median step.
    Otherwise a trial that did not run alone has no time.

    Parameters
    ----------
    results : Results

    Returns
    -------
    Results
        ``trials`` with ``step_seconds``, ``eval_seconds`` and unknown ``state_bytes`` so replaced,
        ``time_source`` (``trial``, ``pass`` or ``none``) and ``time_machine`` (of the pass); ``epochs`` with
        ``seconds`` and ``step_seconds``.
    """
    trials, epochs = results.trials, results.epochs
    if "timed" not in trials or "epochs" not in trials:
        return results
    unknown = {
        name: math.nan for name in ("step_seconds", "eval_seconds", "state_bytes") if name not in trials
    }
    trials = trials.assign(time_source="trial", time_machine="", **unknown)
    epoch_seconds: dict[str, float] = {}
    for _, part in _ran(trials).groupby(["workload", *SETTING], sort=False, observed=True):
        if part["timed"].all() and _on_one_machine(results, part):
            continue
        chosen = best_pass(results, part)
        part = part if chosen else part[~part["timed"]]
        if part.empty:
            continue
        by_optimizer = {
            name: (
                median(p.step_seconds).value,
                p.steps_per_epoch,
                median(p.eval_seconds).value,
                p.state_bytes,
                p.machine,
            )
            for name, p in chosen.items()
        }
        none = (*[math.nan] * 4, "")
        step, steps, evaluation, state, machine = (
            part["optimizer"].map({name: by_optimizer.get(name, none)[k] for name in set(part["optimizer"])})
            for k in range(5)
        )
        epoch_seconds.update(zip(part["trial_id"], step * steps, strict=True))
        trials.loc[part.index, "step_seconds"] = step * steps * part["epochs"]
        trials.loc[part.index, "eval_seconds"] = evaluation * (part["epochs"] + 1)
        trials.loc[part.index, "time_source"] = "pass" if chosen else "none"
        trials.loc[part.index, "time_machine"] = machine
        if chosen:
            trials.loc[part.index, "steps_per_epoch"] = steps.astype(float)
            trials.loc[part.index, "state_bytes"] = trials.loc[part.index, "state_bytes"].fillna(state)
    if epoch_seconds and len(epochs):
        epoch = epochs["trial_id"].astype(object).map(epoch_seconds).astype(float)
        mine = epochs["trial_id"].isin(list(epoch_seconds))
        epochs = epochs.assign(
            step_seconds=epochs["step_seconds"].mask(mine, epoch.where(epochs["epoch"] > 0)),
            seconds=epochs["seconds"].mask(mine, epoch * epochs["epoch"]),
        )
    return replace(results, trials=trials, epochs=epochs)


def without_times(results: Results) -> Results:
    """Omit every time: for a report that cannot tell which of them are fair to compare."""
    names = ("step_seconds", "eval_seconds", "seconds")
    frames = {
        name: frame.assign(**{column: math.nan for column in names if column in frame})
        for name, frame in (("trials", results.trials), ("epochs", results.epochs))
    }
    return replace(results, **frames)


def _ran(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials that did not crash: only they measured times."""
    return trials[trials["status"] != "crashed"]


def _on_one_machine(results: Results, trials: pd.DataFrame) -> bool:
    """Whether the recorded facts allow that all of these trials ran on one machine."""
    if "environment" not in trials:
        return True
    return one_machine(results.environments[number] for number in trials["environment"].unique())


def comparable(results: Results, trials: pd.DataFrame) -> bool:
    """Whether the times of some trials are of one machine, and there are any."""
    if "step_seconds" not in trials or trials["step_seconds"].isna().all():
        return False
    ran = _ran(trials)
    return _sources(ran) == {"pass"} or _on_one_machine(results, ran)


def _sources(trials: pd.DataFrame) -> set[str]:
    return set(trials["time_source"]) if "time_source" in trials else set()


def best_pass(results: Results, trials: pd.DataFrame) -> dict[str, PassTimes]:
    """Find the newest timing pass of one machine for every optimizer of some trials; empty without one.

    An optimizer that crashed in every trial needs none.
    """
    if "config" not in trials:
        return {}
    ran = _ran(trials)
    configs = dict(zip(ran["optimizer"], ran["config"], strict=True))
    by_machine: dict[str, dict[str, PassTimes]] = {}
    for entry in sorted(results.passes, key=lambda entry: entry.measured):
        by_machine.setdefault(entry.machine, {})[entry.config] = entry
    for known in reversed(by_machine.values()):
        if all(config in known for config in configs.values()):
            return {optimizer: known[config] for optimizer, config in configs.items()}
    return {}


def pass_rounds(passes: Mapping[str, PassTimes]) -> pd.DataFrame:
    """Lay out the rounds of a pass, by optimizer, as if each were a trial of one step."""
    rows = [(name, step) for name, entry in passes.items() for step in entry.step_seconds]
    frame = pd.DataFrame(rows, columns=["optimizer", "step_seconds"])
    return frame.assign(status="completed", epochs=1.0, steps_per_epoch=1.0)


def time_notes(results: Results, trials: pd.DataFrame) -> list[str]:
    """Say where the times of a leaderboard come from, where they are not simply those of its trials."""
    ran = _ran(trials)
    if "pass" in _sources(ran):
        found = next(iter(best_pass(results, ran).values()))
        notes = [
            "Times are from the timing pass, as the trials did not all run alone on one machine: time to "
            "target is epochs times steps times the median step."
        ]
        return notes + ([disturbed(found)] if found.disturbed else [])
    notes = []
    if not _on_one_machine(results, ran):
        facts = different_facts(results.environments[number] for number in ran["environment"].unique())
        where = "on different machines"
        if list(facts) == ["threads"]:
            where = f"with different numbers of threads ({', '.join(facts['threads'])})"
        notes.append(f"The trials ran {where}: their times are not pooled, and not shown.")
    lost = int((ran["time_source"] == "none").sum()) if "time_source" in ran else 0
    if lost:
        notes.append(
            f"{lost} trials ran side by side with others or were resumed: they make no wall-time claim; "
            "`optbench run SUITE --time` measures step times."
        )
    return notes


def step_ways(results: Results, trials: pd.DataFrame, baseline: str) -> str:
    """Say whose steps were taken in other ways than the baseline's; empty where all were, or none is known.

    PyTorch's engine takes the steps of some models and optimizers in a faster way than those of custom
    classes, which is no property of the optimizer.
    """
    if "environment" not in trials:
        return ""
    ran = _ran(trials)
    by_workload: dict[str, dict[str, set[str]]] = {}
    columns = ["workload", "optimizer", "environment"]
    for workload, optimizer, number in ran[columns].drop_duplicates().itertuples(index=False):
        if way := results.environments[number].get("step"):
            found = by_workload.setdefault(str(workload), {})
            found.setdefault(str(optimizer), set()).add(str(way))
    # Where one workload's optimizers all go one way, that another workload goes another is no matter.
    ways: dict[str, set[str]] = {}
    for found in by_workload.values():
        if baseline in found and len(set().union(*found.values())) > 1:
            for optimizer, taken in found.items():
                ways.setdefault(optimizer, set()).update(taken)
    usual = ways.pop(baseline, set())
    others: dict[str, list[str]] = {}
    for optimizer, taken in ways.items():
        if taken != usual or len(usual) > 1:
            others.setdefault(" and ".join(sorted(taken)), []).append(optimizer)
    if not others and len(usual) < 2:
        return ""
    named = "".join(f"; {', '.join(names)}: {way}" for way, names in others.items())
    # On a GPU the engine writes out the step of dense models, but not around a custom class.
    but = ", but for custom classes on dense models" if (ran["device"] == "cuda").any() else ""
    return (
        f"Steps were not all taken in one way ({baseline}: {' and '.join(sorted(usual))}{named}), which is "
        f"a part of their times; `engine: {{step: eager}}` takes all alike{but}."
    )


def disturbed(entry: PassTimes) -> str:
    """Say that other processes kept the machine busy during a pass."""
    return (
        f"During the timing pass other processes kept {entry.busy:.0%} of the machine busy: time again when "
        "it is quiet."
    )
