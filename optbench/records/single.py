"""A recorded trial as a suite of its own, with everything spelt out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from optbench.errors import UserError
from optbench.optimizers import leaves
from optbench.records.store import StoredTrial
from optbench.suite import yamlfile
from optbench.suite.expand import trials
from optbench.suite.load import suite_from_source
from optbench.suite.spec import PlannedTrial, Suite
from optbench.task import known
from optbench.trial import trial_id

#: Keys of a recorded workload that :func:`as_suite` writes in another form, or leaves out.
_OTHER_KEYS = ("dataset", "model", "metrics", "smoke")


class NotRunnableError(UserError):
    """A record that no training made, so that none can make it again."""


def as_suite(trial: StoredTrial, *, workload: str = "", optimizer: str = "") -> dict[str, Any]:
    """Write the suite whose one trial is this one.

    Parameters
    ----------
    trial : StoredTrial
        As a store gives it.
    workload, optimizer : str
        Labels; the names of model and optimizer family if not given.

    Returns
    -------
    dict
        What a suite file holds, defaults spelt out. A file of custom data has its path as recorded,
        made absolute; an optimizer's file its path from the suite's folder.

    Raises
    ------
    NotRunnableError
        If the record was imported.
    """
    spec = trial.spec
    if "imported" in spec:
        raise NotRunnableError(
            f"trial {trial.trial_id}: imported from {spec['imported']}, so optbench cannot train it; "
            "`optbench report` shows it"
        )
    given = spec["workload"]
    seeds = spec["seeds"]
    same = len(set(seeds.values())) == 1
    return {
        "suite": f"trial-{trial.trial_id}",
        "workloads": [
            {
                "name": workload or given["model"]["name"],
                "dataset": _dataset(given["dataset"]),
                "model": _model(given["model"]),
                **{key: value for key, value in given.items() if key not in _OTHER_KEYS},
                **_metrics(given.get("metrics", ())),
            }
        ],
        "optimizers": {optimizer or spec["optimizer"]["optimizer"]: _optimizer(spec["optimizer"])},
        "seeds": [seeds["init"]] if same else {stream: [seed] for stream, seed in seeds.items()},
        "backends": [spec["backend"]],
        "device": spec["device"],
        "precision": spec["precision"],
    }


def write(trial: StoredTrial, *, store: Path, workload: str = "", optimizer: str = "") -> str:
    """Write a trial as YAML that ``optbench run`` accepts; what was recorded follows as comments."""
    left_out = ("spec", "order_by_epoch", "environment_id")
    facts = {f.name: getattr(trial, f.name) for f in fields(trial) if f.name not in left_out}
    facts["history"] = {name: [float(v) for v in values] for name, values in trial.history.items()}
    recorded = yaml.safe_dump(
        {"store": str(store), **facts},
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=108,
    )
    notes = []
    try:
        suite = yamlfile.write_text(as_suite(trial, workload=workload, optimizer=optimizer))
        notes.append("Train it again in a store of its own with: optbench run THIS_FILE")
    except NotRunnableError as error:
        suite, notes = "", [str(error)]
    if trial.spec["workload"].get("smoke"):
        notes[0] += " --smoke (it was a dry run on synthetic data)"
    given = trial.spec.get("workload", {})
    layers = given.get("model", {}).get("layers", ())
    own = [*_configs(trial.spec["optimizer"]), *given.get("metrics", ()), *layers]
    files = dict.fromkeys(str(part.get("reference", "")).rpartition(":")[0] for part in own)
    notes += [f"Put this file where {f} is found from its folder." for f in files if f.endswith(".py")]
    lines = [*notes, "", "Recorded:", *recorded.splitlines()]
    return suite + "".join(f"# {line}".rstrip() + "\n" for line in lines)


def planned(trial: StoredTrial, *, folder: Path) -> tuple[Suite, PlannedTrial]:
    """Read a recorded trial back as the suite and the plan that train it again.

    Parameters
    ----------
    trial : StoredTrial
        As a store gives it.
    folder : Path
        Where an optimizer's file is looked for.

    Raises
    ------
    NotRunnableError
        If the record was imported, or its data or code are no longer what they were.
    SuiteError
        If this optbench or machine cannot train it; the message says why.
    """
    from optbench.execution import local

    path = folder / f"trial-{trial.trial_id}.yaml"
    suite = suite_from_source(yamlfile.read_text(yamlfile.write_text(as_suite(trial)), path=path))
    if trial.spec["workload"].get("smoke"):
        suite = local.smoke(suite)
    (found,) = trials(suite, lambda backend, device: device)
    if (now := trial_id(found.spec)) != trial.trial_id:
        raise NotRunnableError(
            f"trial {trial.trial_id}: {_changed(trial.spec, found)}, so what would be trained today is "
            f"another trial ({now}); bring back what it was"
        )
    return suite, found


def _dataset(recorded: str | Mapping[str, Any]) -> Any:
    if isinstance(recorded, str):
        return recorded
    if "code" in recorded:
        return recorded["name"]
    location = str(recorded["location"])
    if recorded["kind"] != "class" or ".py:" in location:
        location = str(Path(location).absolute())
    entry = {recorded["kind"]: location}
    keys = ("label", "test", "shape", "scaling", "name", "targets", "tokens", "encode", "drop")
    entry |= {key: recorded[key] for key in keys if key in recorded}
    if recorded["kind"] == "text":
        del entry["targets"]
    elif recorded["kind"] == "csv" and entry.pop("targets", None) == "value":
        entry["target"] = entry.pop("label")
    if "test_location" in recorded:
        entry["test"] = str(Path(recorded["test_location"]).absolute())
    return entry


def _metrics(recorded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    entries = {}
    for metric in recorded:
        # A name that has become known since a record was made has its direction by itself.
        like = known(metric["name"])
        falls = metric["minimise"] if like is None or like.direction is None else not like.maximised
        entries[metric["name"]] = {"class": metric["reference"], "minimise": falls}
    return {"metrics": entries} if entries else {}


def _model(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded layers, or the class of a custom network with its arguments."""
    first = recorded["layers"][0]
    if first["kind"] != "own":
        return dict(recorded)
    return {"class": first["reference"], **json.loads(first.get("arguments", "{}"))}


def _optimizer(recorded: Mapping[str, Any]) -> dict[str, Any]:
    if recorded["optimizer"] == "groups":
        return {"groups": [_group(group) for group in recorded["groups"]]}
    if recorded["optimizer"] != "custom":
        return dict(recorded)
    who = {"optimizer": recorded["name"]} if "name" in recorded else {"class": recorded["reference"]}
    return {**who, **dict(recorded["arguments"])}


def _group(recorded: Mapping[str, Any]) -> dict[str, Any]:
    other = {key: value for key, value in recorded.items() if key not in ("match", "config")}
    return {"match": recorded["match"], **_optimizer(recorded["config"]), **other}


def _configs(recorded: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List a recorded optimizer's configs: those of its groups, or itself."""
    return [group["config"] for group in recorded["groups"]] if "groups" in recorded else [recorded]


def _changed(spec: Mapping[str, Any], trial: PlannedTrial) -> str:
    """Say which part of what names a trial has changed."""
    dataset = spec["workload"]["dataset"]
    if not isinstance(dataset, str) and dataset["digest"] != getattr(
        trial.spec.workload.dataset, "digest", None
    ):
        return f"the data in {dataset['location']} have changed"
    if not isinstance(dataset, str) and dataset.get("code") != (
        code := getattr(trial.spec.workload.dataset, "code", None)
    ):
        return f"the code of {dataset['location']} was {dataset['code']} and is {code}"
    for old, new in zip(spec["workload"].get("metrics", ()), trial.spec.workload.metrics or (), strict=True):
        if old["code"] != new.code:
            return f"the code of {old['reference']} was {old['code']} and is {new.code}"
    network = trial.spec.workload.model.own
    recorded = spec["workload"]["model"]["layers"][0]
    if network is not None and recorded.get("code") != network.code:
        return f"the code of {network.reference} was {recorded.get('code')} and is {network.code}"
    for optimizer, config in zip(_configs(spec["optimizer"]), leaves(trial.spec.optimizer), strict=True):
        code = getattr(config, "code", None)
        if optimizer.get("code") != code:
            return f"the code of {optimizer['reference']} was {optimizer['code']} and is {code}"
    return "this version of optbench reads it otherwise"
