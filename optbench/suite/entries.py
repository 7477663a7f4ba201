"""Entries of a suite file: optimizers, workloads and seeds, from what YAML gave to the trials' dataclasses.

Grids are expanded here, and each entry's own keys (labels, targets, choices of optimizers) are taken off.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optbench.datasets import registry
from optbench.datasets.base import DatasetInfo, example_shape, network, validation_count
from optbench.models.layers import BuiltLayer, ModelError, Role, roles
from optbench.optimizers import FAMILIES, OptimizerConfig, custom, groups
from optbench.suite import declared
from optbench.suite.optimizer_entries import optimizer, refuse_idle
from optbench.suite.report_spec import Goals, Targets
from optbench.suite.validation import (
    InvalidError,
    Problem,
    listed,
    names,
    parse,
    problem,
    shown,
    unknown_choice,
)
from optbench.task import TASK_OF_TARGETS, TASKS, CustomMetric
from optbench.trial import STREAMS, ReduceOnPlateau, Seeds, Workload, to_plain
from optbench.tuning.space import with_values

if TYPE_CHECKING:
    from optbench.suite.yamlfile import KeyPath

#: Larger numbers are typos, and expanding them would take minutes.
MOST_SEEDS, MOST_COMBINATIONS = 100_000, 10_000
#: Keys of a workload entry that are not part of the training itself.
EXTRAS = ("name", "title", "targets", "goals", "optimizers", "grid")
#: Fields of a workload that a suite cannot set.
NOT_DECLARED = ("smoke",)


@dataclass(frozen=True, kw_only=True)
class SuiteWorkload:
    """A workload of a suite with its label, targets, and the optimizers that run on it by label."""

    label: str
    workload: Workload
    targets: Targets
    optimizers: Mapping[str, OptimizerConfig]
    goals: Goals = Goals()  # noqa: RUF009 (frozen)
    title: str = ""
    #: What its entry says of the training, a grid's values put in.
    given: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    #: Label of the entry whose grid it comes from, and what the grid sets; empty without one.
    entry: str = ""
    setting: str = ""
    #: Makes the same workload with other values of some of its keys, as in ``{"model.dropout": 0.2}``.
    vary: Callable[[Mapping[str, Any]], SuiteWorkload] | None = field(default=None, compare=False, repr=False)


def optimizers_of(entries: Mapping[str, Any], folder: Path) -> dict[str, OptimizerConfig]:
    """Read the optimizers of a suite, by label."""
    if not entries:
        raise problem(("optimizers",), f"is empty; name at least one of {listed(FAMILIES)}")
    configs: dict[str, OptimizerConfig] = {}
    problems: list[Problem] = []
    for label, entry in entries.items():
        path: KeyPath = ("optimizers", label)
        try:
            for suffix, variant, _ in _expand(entry if entry is not None else {}, path):
                own = (
                    {k: v for k, v in variant.items() if k != "title"}
                    if isinstance(variant, dict)
                    else variant
                )
                configs[label + suffix] = optimizer(label, own, path, folder)
        except InvalidError as error:
            problems += error.problems
    if problems:
        raise InvalidError(problems)
    _refuse_twins(configs, ("optimizers",))
    return configs


def titles_of(entries: Mapping[str, Any]) -> dict[str, str]:
    """Display names of the optimizers that have one, by label; each is checked and given once."""
    found: dict[str, str] = {}
    for label, entry in entries.items():
        if isinstance(entry, dict) and "title" in entry:
            title = _title(entry["title"], ("optimizers", label, "title"))
            for suffix, _, _ in _expand(entry, ("optimizers", label)):
                found[label + suffix] = title + suffix
    return found


def _title(title: Any, path: KeyPath) -> str:
    if not isinstance(title, str) or not title.strip():
        raise problem(path, f"found {shown(title)}; a title is some words, as in title: WAME (ours)")
    return title


def refuse_equal_titles(named: Iterable[tuple[KeyPath, str, str]]) -> None:
    """Refuse two things of one name in a report; ``named`` gives place, label and title (or nothing)."""
    seen: dict[str, str] = {}
    for path, label, title in named:
        name = title or label
        if seen.setdefault(name, label) != label:
            raise problem(path, f"{seen[name]!r} and {label!r} would both be called {name!r} in the report")


def workloads_of(
    entries: Sequence[Any],
    optimizers: dict[str, OptimizerConfig],
    metrics: Mapping[str, CustomMetric],
    folder: Path,
) -> list[SuiteWorkload]:
    """Read the workloads of a suite, each with the optimizers that run on it."""
    workloads: list[SuiteWorkload] = []
    problems: list[Problem] = []
    for index, entry in enumerate(entries):
        path: KeyPath = ("workloads", index)
        try:
            for suffix, variant, source_path in _expand(entry, path):
                workloads.append(_workload(variant, suffix, source_path, optimizers, metrics, folder))
        except InvalidError as error:
            problems += error.problems
    if problems:
        raise InvalidError(problems)
    seen: dict[str, int] = {}
    for index, workload in enumerate(workloads):
        if workload.label in seen:
            raise problem(
                ("workloads", min(index, len(entries) - 1)),
                f"two workloads are called {workload.label!r}; give each a `name` of its own",
            )
        seen[workload.label] = index
    refuse_idle((entry.optimizers, partial(_weights, entry.workload)) for entry in workloads)
    return workloads


def _weights(workload: Workload) -> dict[str, Role]:
    return roles(network(workload, registry.info(workload.dataset)))


def _workload(
    entry: dict[str, Any],
    suffix: str,
    path: KeyPath,
    optimizers: dict[str, OptimizerConfig],
    metrics: Mapping[str, CustomMetric],
    folder: Path,
) -> SuiteWorkload:
    workload, facts = _training(entry, path, metrics, folder)
    try:
        built = network(workload, facts)
    except ModelError as error:
        shape = example_shape(workload, facts)
        raise problem((*path, "model"), f"{error} (dataset {facts.name}: {shape})") from None
    chosen = _chosen(entry.get("optimizers"), optimizers, (*path, "optimizers"))
    _refuse_misfits(workload, facts, chosen, path)
    _refuse_groups(built, chosen, (*path, "optimizers"))

    def vary(values: Mapping[str, Any]) -> SuiteWorkload:
        varied = copy.deepcopy(entry)
        for key, value in values.items():
            _put(varied, key.split("."), to_plain(value), ("tuning", "network", key))
        return replace(_workload(varied, suffix, path, optimizers, metrics, folder), label=name + suffix)

    goals = parse(Goals, entry.get("goals", {}), (*path, "goals"))
    if goals.recall is not None and not workload.per_class:
        raise problem((*path, "goals", "recall"), "needs the recall of every class; set `per_class: true`")
    name = entry.get("name", f"{facts.name}/{workload.model.name}")
    if not isinstance(name, str) or not name:
        raise problem((*path, "name"), f"found {shown(name)}; a workload's name is a word")
    title = _title(entry["title"], (*path, "title")) + suffix if "title" in entry else ""
    return SuiteWorkload(
        label=name + suffix,
        title=title,
        given={key: value for key, value in entry.items() if key not in EXTRAS},
        entry=name if suffix else "",
        setting=suffix.strip(),
        workload=workload,
        targets=parse(Targets, entry.get("targets", {}), (*path, "targets")),
        optimizers=chosen,
        goals=goals,
        vary=vary,
    )


def _training(
    entry: Mapping[str, Any], path: KeyPath, metrics: Mapping[str, CustomMetric], folder: Path
) -> tuple[Workload, DatasetInfo]:
    """Read what an entry says of the training, and the facts of its dataset."""
    given = _complete(entry, path)
    dataset = declared.dataset(entry["dataset"], (*path, "dataset"), folder)
    model = declared.model(entry["model"], (*path, "model"), folder)
    facts = registry.info(dataset)
    plain = {key: value for key, value in given.items() if key not in (*EXTRAS, "schedule", "metrics")}
    plain = _with_defaults(plain, facts)
    if entry.get("metrics") is not None:
        metrics = {**metrics, **declared.metrics(entry["metrics"], (*path, "metrics"), folder)}
    workload: Workload = replace(
        parse(Workload, {**plain, "dataset": "any", "model": declared.ANY_MODEL}, path),
        dataset=dataset,
        model=model,
        schedule=declared.schedule(entry.get("schedule"), (*path, "schedule")),
        metrics=tuple(metrics[name] for name in sorted(metrics)) or None,
    )
    task = TASKS[workload.task]
    if workload.loss == task.loss:  # the default is not part of the id
        workload = replace(workload, loss=None)
    if "monitor" not in entry:
        stopping = workload.early_stopping
        workload = replace(workload, monitor=task.monitor if stopping is None else stopping.monitor)
    _refuse_other_tasks(workload, facts, path)
    return workload, facts


def _complete(entry: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    """An entry with its budget in epochs; unknown and missing keys are refused."""
    known = [name for name in (*names(Workload), *EXTRAS) if name not in NOT_DECLARED]
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise InvalidError([unknown_choice(key, known, (*path, key), what="key") for key in unknown])
    given = {**entry, **_budget(entry, path)}
    missing = [
        f.name
        for f in fields(Workload)
        if f.default is MISSING and f.default_factory is MISSING and f.name not in given
    ]
    if missing:
        needed = "dataset, model, batch_size, and epochs or steps"
        raise problem(path, f"{listed(missing)} missing; a workload needs {needed}")
    return given


#: Evaluations of a budget in steps, about, where a suite does not say how often.
EVALUATIONS = 20


def _budget(entry: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    """What a budget in steps means: steps between evaluations, and the number of these as epochs."""
    if entry.get("steps") is None:
        if entry.get("evaluate_every") is not None:
            raise problem((*path, "evaluate_every"), "is for a budget in steps; without one every epoch is")
        return {}
    steps, every = entry["steps"], entry.get("evaluate_every")
    for key, value in (("steps", steps), ("evaluate_every", every)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise problem((*path, key), f"found {shown(value)}; a whole number from 1 belongs here")
    every = every or -(-steps // EVALUATIONS)
    epochs = -(-steps // every)
    if entry.get("epochs", epochs) != epochs:
        raise problem((*path, "epochs"), "cannot be given together with steps; a budget is in one of the two")
    return {"evaluate_every": every, "epochs": epochs}


#: Tokens of a window where neither the workload nor its model says how many.
CONTEXT = 128


def _with_defaults(entry: Mapping[str, Any], facts: DatasetInfo) -> dict[str, Any]:
    """Fill in what a workload leaves open and its task settles: the task itself, monitors, split, context."""
    filled = {"task": TASK_OF_TARGETS[facts.targets].name, **entry}
    if filled["task"] not in TASKS:
        return filled  # and have it refused with its field
    task = TASKS[filled["task"]]
    for key, name, value in (("split", "how", task.splits[0]), ("early_stopping", "monitor", task.monitor)):
        given = filled.get(key, {} if key == "split" else None)
        if isinstance(given, dict) and name not in given:
            filled[key] = {**given, name: value}
    if "context" in task.options and filled.get("context") is None:
        model = entry.get("model")
        own = model.get("context") if isinstance(model, dict) else None
        filled["context"] = CONTEXT if own is None else own
    return filled


def _refuse_misfits(
    workload: Workload, facts: DatasetInfo, chosen: Mapping[str, OptimizerConfig], path: KeyPath
) -> None:
    """Refuse features that the workload's task, data or optimizers cannot serve."""
    split = workload.split
    if split.how == "published" and (not facts.validation or split.source != "train"):
        raise problem(
            (*path, "split", "how"),
            f"{facts.name} has no published validation part in its {split.source} part; "
            "use random, stratified or tail",
        )
    source = facts.train if split.source == "train" else facts.test
    count = validation_count(split, source)
    if count == 0 and split.how != "published":
        for key, needed in (
            ("early_stopping", workload.early_stopping is not None),
            ("schedule", isinstance(workload.schedule, ReduceOnPlateau)),
        ):
            if needed:
                raise problem((*path, key), "needs validation examples; set split.validation above 0")
    if split.how != "published" and count >= source:
        raise problem(
            (*path, "split", "validation"),
            f"asks for {count} of the {source} {split.source} examples of {facts.name}; leave at least one",
        )
    if workload.augment is not None and len(facts.shape) != 3:
        raise problem((*path, "augment"), f"needs images, but {facts.name} has shape {facts.shape}")
    if workload.accumulate is not None and (
        workload.batch_size == "full" or workload.batch_size % workload.accumulate
    ):
        found = f"found {workload.accumulate} parts of a batch of {workload.batch_size}"
        raise problem((*path, "accumulate"), f"{found}; give a number of equal parts")
    declared.refuse_unreached(workload, facts, count if split.source == "train" else 0, path)
    blind = [label for label, config in chosen.items() if config.lr is None]
    for key in ("schedule", "weight_decay"):
        if getattr(workload, key) is not None and blind:
            raise problem((*path, key), f"needs a learning rate, but {listed(blind)} has no argument lr")


def _refuse_groups(built: Iterable[BuiltLayer], chosen: Mapping[str, OptimizerConfig], path: KeyPath) -> None:
    """Refuse parameter groups that do not fit the weights of a model."""
    weights = roles(built)
    for label, config in chosen.items():
        try:
            groups.assign(config, weights)
        except groups.GroupsError as error:
            raise problem((*path, label), str(error)) from None


def _refuse_other_tasks(workload: Workload, facts: DatasetInfo, path: KeyPath) -> None:
    """Refuse data, monitors and options that are not those of the workload's task."""
    task = TASKS[workload.task]
    if facts.targets != task.targets:
        raise problem(
            (*path, "task"),
            f"found {task.name}, which needs {task.targets} targets; {facts.name}'s are {facts.targets}",
        )
    if workload.loss is not None and workload.loss not in task.losses:
        raise problem((*path, "loss"), f"found {workload.loss}; {task.name} has {listed(task.losses)}")
    split = workload.split
    if (split.how == "folds") != (split.folds is not None and split.fold is not None) or (
        split.folds is not None and split.fold is not None and split.fold >= split.folds
    ):
        raise problem(
            (*path, "split"),
            f"found how: {split.how}, folds: {split.folds}, fold: {split.fold}; cross-validation is written "
            "as {how: folds, folds: 5, fold: 0}, the fold from 0 to folds - 1",
        )
    if workload.split.how not in task.splits:
        raise problem(
            (*path, "split", "how"), f"found {workload.split.how}; {task.name} has {listed(task.splits)}"
        )
    for metric in workload.metrics or ():
        if metric.name in task.metrics:
            raise problem(
                (*path, "metrics", metric.name), f"is a metric of {task.name} itself; call yours otherwise"
            )
    monitors: dict[tuple[str, ...], str] = {("monitor",): workload.monitor}
    for key, rule in (("early_stopping", workload.early_stopping), ("schedule", workload.schedule)):
        if (monitor := getattr(rule, "monitor", None)) is not None:
            monitors[key, "monitor"] = monitor
    for place, monitor in monitors.items():
        if monitor not in task.monitors:
            raise problem((*path, *place), f"found {monitor}; {task.name} has {listed(task.monitors)}")
    for other in TASKS.values():
        for option in other.options:
            if option not in task.options and getattr(workload, option) is not None:
                raise problem((*path, option), f"belongs to {other.name}; this workload asks for {task.name}")


def _chosen(choice: Any, optimizers: dict[str, OptimizerConfig], path: KeyPath) -> dict[str, OptimizerConfig]:
    """Optimizers of one workload: all, those listed, or all with some hyperparameters of their own."""
    if choice is None:
        return optimizers
    if not isinstance(choice, list | dict) or not choice:
        raise problem(path, f"found {shown(choice)}; list optimizers, or map them to hyperparameters")
    unknown = [label for label in choice if not isinstance(label, str) or label not in optimizers]
    if unknown:
        raise InvalidError([unknown_choice(label, optimizers, path, what="optimizer") for label in unknown])
    if isinstance(choice, list):
        return {label: optimizers[label] for label in optimizers if label in choice}
    chosen = dict(optimizers)
    for label, changes in choice.items():
        if not isinstance(changes, dict):
            raise problem((*path, label), f"found {shown(changes)}; map hyperparameters to values")
        try:
            chosen[label] = with_values(optimizers[label], changes, (*path, label))
        except custom.CustomError as error:
            raise problem((*path, label), str(error)) from None
    _refuse_twins(chosen, path)
    return chosen


def _refuse_twins(configs: Mapping[str, OptimizerConfig], path: KeyPath) -> None:
    seen: dict[OptimizerConfig, str] = {}
    for label, config in configs.items():
        if config in seen:
            raise problem(
                path, f"{seen[config]!r} and {label!r} are the same optimizer; change one or leave it out"
            )
        seen[config] = label


def _expand(entry: Any, path: KeyPath) -> list[tuple[str, dict[str, Any], KeyPath]]:
    """Expand ``grid:`` into its product: label suffix, entry without grid, path."""
    if not isinstance(entry, dict) or "grid" not in entry:
        if isinstance(entry, dict) or path[0] == "optimizers":
            return [("", entry, path)]
        raise problem(path, f"found {shown(entry)}; a workload is a mapping")
    grid = entry["grid"]
    where = (*path, "grid")
    if not isinstance(grid, dict) or not grid:
        raise problem(where, f"found {shown(grid)}; map fields to lists, as in {{lr: [0.1, 0.01]}}")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise problem((*where, key), f"found {shown(values)}; a list of values belongs here")
    if (count := math.prod(map(len, grid.values()))) > MOST_COMBINATIONS:
        raise problem(where, f"has {count:,} combinations; at most {MOST_COMBINATIONS:,} are allowed")
    expanded = []
    for values in itertools.product(*grid.values()):
        variant = copy.deepcopy({key: value for key, value in entry.items() if key != "grid"})
        for key, value in zip(grid, values, strict=True):
            _put(variant, key.split("."), value, (*where, key))
        suffix = " " + " ".join(
            f"{key.rpartition('.')[2]}={_compact(value)}" for key, value in zip(grid, values, strict=True)
        )
        expanded.append((suffix, variant, path))
    return expanded


def _put(target: dict[str, Any], keys: list[str], value: Any, path: KeyPath) -> None:
    for key in keys[:-1]:
        inner = target.setdefault(key, {})
        if isinstance(inner, str) and key == "model":
            inner = target[key] = {"name": inner}
        if not isinstance(inner, dict):
            raise problem(path, f"{key} holds {shown(inner)}, which has no fields")
        target = inner
    target[keys[-1]] = value


def _compact(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(_compact(item) for item in value)
    if isinstance(value, dict):
        own = [f"{key} {_compact(item)}" for key, item in value.items() if key not in ("name", "kind")]
        name = str(value.get("name", value.get("kind", "")))
        return f"{name}({', '.join(own)})" if own else name
    return f"{value:g}" if isinstance(value, float) else str(value)


def seeds_of(entry: Any) -> tuple[Seeds, ...]:
    """Read the blocks of a suite, in order."""
    if not isinstance(entry, dict):
        return tuple(
            Seeds(split=s, init=s, order=s, dropout=s, augment=s) for s in _seed_list(entry, ("seeds",))
        )
    unknown = [key for key in entry if key not in STREAMS]
    if unknown:
        raise InvalidError([unknown_choice(key, STREAMS, ("seeds", key), what="stream") for key in unknown])
    if not entry:
        raise problem(("seeds",), f"is empty; give a count, a list, or lists for {listed(STREAMS)}")
    lists = {stream: _seed_list(value, ("seeds", stream)) for stream, value in entry.items()}
    if (count := math.prod(map(len, lists.values()))) > MOST_SEEDS:
        raise problem(
            ("seeds",), f"the streams crossed are {count:,} blocks; at most {MOST_SEEDS:,} are allowed"
        )
    return tuple(
        Seeds(**dict(zip(lists, values, strict=True))) for values in itertools.product(*lists.values())
    )


def _seed_list(entry: Any, path: KeyPath) -> list[int]:
    whole = isinstance(entry, int) and not isinstance(entry, bool)
    values = list(range(entry)) if whole and 0 < entry <= MOST_SEEDS else entry
    if not isinstance(values, list) or not values:
        raise problem(path, f"found {shown(entry)}; give a count from 1, or a list of whole numbers from 0")
    seen: set[int] = set()
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise problem((*path, index), f"found {shown(value)}; a seed is a whole number from 0")
        if value in seen:
            raise problem((*path, index), f"the seed {value} is listed twice")
        seen.add(value)
    return values
