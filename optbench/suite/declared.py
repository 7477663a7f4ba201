"""The parts of a workload as a suite declares them: its dataset, its model, its schedule."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import field, fields, make_dataclass, replace
from functools import cache, partial
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from optbench.datasets import own, registry
from optbench.datasets.base import DataError
from optbench.models.layers import LAYERS, Layer, Model, OwnNetwork
from optbench.models.own import TITLES, called, framework_of
from optbench.models.zoo import ZOO
from optbench.optimizers.schedules import STEPWISE, is_stepwise, must_begin
from optbench.suite import suggestions
from optbench.suite.custom_metrics import MetricError, declare
from optbench.suite.isolated import EndedError, call_isolated
from optbench.suite.references import ImportProblem, Kind, identify, load_object, plugins
from optbench.suite.report_spec import Analysis, Design
from optbench.suite.validation import InvalidError, listed, parse, problem, shown, unknown_choice
from optbench.task import FORBID_EXTRA, CustomMetric
from optbench.trial import CosineSchedule, OwnData, ReduceOnPlateau, Schedule, StepSchedule, to_plain

if TYPE_CHECKING:
    from optbench.datasets.base import DatasetInfo
    from optbench.suite.yamlfile import KeyPath
    from optbench.trial import Workload

#: Stands in for the model while the rest of a workload is checked; models are checked layer by layer.
ANY_LAYER = {"kind": "dense"}
ANY_MODEL = {"name": "any", "layers": [ANY_LAYER]}
#: Fields of a layer that hold layers.
INNER = ("layers", "shortcut")

SCHEDULES: Mapping[str, Any] = {
    "step": StepSchedule,
    "cosine": CosineSchedule,
    "reduce_on_plateau": ReduceOnPlateau,
    **STEPWISE,
}


def schedule(entry: Any, path: KeyPath) -> Schedule | None:
    """Read a schedule, given by its kind alone or as a mapping; constant is none."""
    if entry is None or entry == "constant":
        return None
    mapping = entry if isinstance(entry, dict) else {"kind": entry}
    kind = mapping.get("kind")
    if not isinstance(kind, str) or kind not in SCHEDULES:
        known = ["constant", *SCHEDULES]
        raise InvalidError([unknown_choice(kind, known, (*path, "kind"), what="schedule")])
    parsed: Schedule = parse(SCHEDULES[kind], mapping, path)
    return parsed


def refuse_unreached(workload: Workload, facts: DatasetInfo, held_out: int, path: KeyPath) -> None:
    """Refuse a schedule by step whose last part the training does not come to.

    ``held_out`` training examples are the validation part. Windows of a text are not counted by epochs here.
    """
    total = workload.steps
    if not is_stepwise(workload.schedule) or (total is None and facts.targets == "token"):
        return
    if total is None:
        examples = facts.train - held_out
        batch = examples if workload.batch_size == "full" else workload.batch_size
        total = workload.epochs * -(-examples // batch)
    begun = must_begin(workload.schedule)
    if begun >= total:
        found = f"is still in its first part at step {begun} of a training of {total}"
        raise problem((*path, "schedule"), f"{found}; give it fewer steps, or the training more")


def analysis(entry: Any, path: KeyPath) -> Analysis:
    """Read an analysis; a sequential design may be given by its name alone."""
    if entry is None:
        return Analysis()
    if isinstance(entry, dict) and isinstance(design := entry.get("sequential"), str):
        known = get_args(Design)
        if design not in known:
            raise InvalidError([unknown_choice(design, known, (*path, "sequential"), what="design")])
        entry = {**entry, "sequential": {"design": design}}
    return parse(Analysis, entry, path)


def dataset(entry: Any, path: KeyPath, folder: Path) -> str | OwnData:
    """Read a dataset: a name of optbench or of an installed package, or a declaration of custom data."""
    if not isinstance(entry, dict):
        if isinstance(entry, str) and entry in registry.ENTRIES:
            return entry
        reference, code = _offered("datasets", entry, registry.ENTRIES, path, folder, what="dataset")
        try:
            return replace(own.declare({"class": reference, "name": entry}, folder), code=code)
        except DataError as error:
            raise problem(path, str(error)) from None
    kinds = [kind for kind in own.OPTIONS if kind in entry]
    if len(kinds) != 1:
        raise problem(path, f"found {listed(entry) or 'nothing'}; give one of {listed(own.OPTIONS)}")
    known = (kinds[0], *own.OPTIONS[kinds[0]])
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise InvalidError([unknown_choice(key, known, (*path, key), what="key") for key in unknown])
    if not isinstance(entry[kinds[0]], str):
        raise problem((*path, kinds[0]), f"found {shown(entry[kinds[0]])}; a path or a reference is a word")
    columns = [entry[key] for key in ("label", "target") if entry.get(key) is not None]
    if kinds[0] == "csv" and (len(columns) != 1 or not isinstance(columns[0], str)):
        how = "name the column that holds the classes, or as `target` that of the numbers to predict"
        raise problem((*path, "label"), f"{'is missing' if not columns else 'found two columns'}; {how}")
    if entry.get("tokens") not in (None, "byte", "character"):
        raise problem((*path, "tokens"), f"found {shown(entry['tokens'])}; byte or character belongs here")
    if entry.get("targets") not in (None, "label", "value"):
        raise problem((*path, "targets"), f"found {shown(entry['targets'])}; label or value belongs here")
    if isinstance(entry.get("test"), str) and kinds[0] not in ("csv", "text"):
        raise problem((*path, "test"), f"found {shown(entry['test'])}; a share below 1 belongs here")
    checked = {key: value for key, value in entry.items() if key != kinds[0] and value is not None}
    for key in ("target", "tokens", "targets", *(["test"] if isinstance(entry.get("test"), str) else [])):
        checked.pop(key, None)
    parse(OwnData, {"kind": kinds[0], "name": "any", "location": "", "digest": "", **checked}, path)
    try:
        return own.declare(entry, folder)
    except DataError as error:
        raise problem(path, str(error)) from None


def model(entry: Any, path: KeyPath, folder: Path) -> Model:
    """Read a model: a name with its parameters, ``layers:``, or ``class:`` with a function's arguments.

    A name is one of optbench's own, or of an installed package.
    """
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict):
        raise problem(path, f"found {shown(entry)}; name a model of {listed(ZOO)}, or write `layers:`")
    if "class" in entry:
        return _own_model(entry, path, folder)
    entry = _with_initializers(entry)
    if "layers" in entry:
        return _model_from_layers(entry, path)
    name = entry.get("name")
    arguments = {key: value for key, value in entry.items() if key != "name"}
    if not isinstance(name, str) or name not in ZOO:
        reference, code = _offered("models", name, ZOO, (*path, "name"), folder, what="model")
        made = _own_model({"class": reference, **arguments}, path, folder)
        return replace(made, name=str(name), code=code)
    parsed = parse(parameters(name), arguments, path)
    try:
        layers = ZOO[name](**{f.name: getattr(parsed, f.name) for f in fields(parsed)})
    except ValueError as error:
        raise problem(path, str(error)) from None
    return Model(name=name, layers=layers)


def metrics(entry: Any, path: KeyPath, folder: Path) -> dict[str, CustomMetric]:
    """Read metrics: names mapped to references or ``{class: .., minimise: ..}``, or what packages offer."""
    if isinstance(entry, list):
        entry = {name: name for name in entry if isinstance(name, str)} if entry else None
    if not isinstance(entry, dict) or not entry:
        raise problem(path, f"found {shown(entry)}; map names to functions: {{brier: my_metric.py:brier}}")
    found = {}
    for name, given in entry.items():
        options = {"class": given} if isinstance(given, str) else given
        if not isinstance(options, dict) or not isinstance(options.get("class"), str):
            raise problem((*path, name), f"found {shown(given)}; write `my_metric.py:function`")
        for key in options:
            if key not in ("class", "minimise"):
                raise InvalidError(
                    [unknown_choice(key, ("class", "minimise"), (*path, name, key), what="key")]
                )
        minimise = options.get("minimise")
        if minimise is not None and not isinstance(minimise, bool):
            raise problem((*path, name, "minimise"), f"found {shown(minimise)}; must be true or false")
        try:
            found[name] = declare(str(name), options["class"], folder=folder, minimise=minimise)
        except MetricError as error:
            raise problem((*path, name), str(error)) from None
    return found


def _offered(
    kind: Kind, name: Any, known: Iterable[str], path: KeyPath, folder: Path, *, what: str
) -> tuple[str, str]:
    """Look up what an installed package offers by a name: its reference, and what identifies its code."""
    offered = plugins(kind)
    if not isinstance(name, str) or name not in offered:
        beyond = (
            suggestions.custom_model_hint()
            if kind == "models"
            else suggestions.custom_data_hint()
            if kind == "datasets"
            else ""
        )
        raise InvalidError([unknown_choice(name, [*known, *offered], path, what=what, beyond=beyond)])
    try:
        return offered[name], identify(offered[name], folder)
    except ImportProblem as error:
        raise problem(path, f"{name!r} of an installed package: {error}") from None


def _own_model(entry: dict[str, Any], path: KeyPath, folder: Path) -> Model:
    """Call a custom function with the other keys, in a process that it may end."""
    reference = str(entry["class"])
    try:
        _, answer = call_isolated(
            "optbench.suite.declared:model_of", reference, entry=entry, folder=str(folder.absolute())
        )
    except EndedError as error:
        raise problem(path, f"{reference}: {error}; look in its code") from None
    if "own" in answer:
        own = OwnNetwork(reference=reference, **answer["own"], directory=folder)
        return Model(name=reference.rpartition(":")[2], layers=(own,))
    if "model" not in answer:
        raise problem((*path, *answer["at"]), answer["wrong"])
    made: Model = parse(Model, answer["model"], path)
    return made


def model_of(entry: Mapping[str, Any], folder: str) -> tuple[tuple[()], dict[str, Any]]:
    """Call the function of a declaration here; the Model or layers that it returns, or what is wrong."""
    reference = str(entry["class"])
    arguments = {key: value for key, value in entry.items() if key != "class"}
    try:
        result = called(load_object(reference, Path(folder)), arguments, 0)
    except ImportProblem as error:
        return (), {"wrong": str(error), "at": ["class"]}
    except SystemExit as error:
        return (), {"wrong": f"{reference} called sys.exit({error.code!r}); return layers", "at": []}
    except Exception as error:  # the user's code may fail in any way
        return (), {"wrong": f"{reference} failed ({type(error).__name__}: {error})", "at": []}
    if (framework := framework_of(result)) is not None:
        code = identify(reference, Path(folder))
        given = json.dumps(arguments, sort_keys=True)
        return (), {"own": {"code": code, "arguments": given, "framework": framework}}
    if not isinstance(result, Model):
        kinds = tuple(LAYERS.values())
        several = isinstance(result, tuple | list) and result
        if not several or not all(isinstance(layer, kinds) for layer in result):
            allowed = f"return a Model, a list of layers, or {', '.join(TITLES.values())}"
            wrong = f"{reference} gave {shown(result)}; {allowed}"
            return (), {"wrong": wrong, "at": []}
        result = Model(name=reference.rpartition(":")[2], layers=tuple(result))
    return (), {"model": to_plain(result)}


def _model_from_layers(entry: dict[str, Any], path: KeyPath) -> Model:
    whole = parse(Model, {"name": "custom", **entry, "layers": ANY_MODEL["layers"]}, path)
    layers = entry["layers"]
    if not isinstance(layers, list) or not layers:
        raise problem((*path, "layers"), f"found {shown(layers)}; list the layers, first to last")
    return Model(name=whole.name, layers=_layers(layers, (*path, "layers")), code=whole.code)


def _layers(entries: list[Any], path: KeyPath) -> tuple[Layer, ...]:
    """Read layers, each by its kind; those inside others too."""
    parsed: list[Layer] = []
    for index, entry in enumerate(entries):
        where = (*path, index)
        kind = entry.get("kind") if isinstance(entry, dict) else entry
        if not isinstance(kind, str) or kind not in LAYERS:
            raise InvalidError([unknown_choice(kind, LAYERS, (*where, "kind"), what="layer")])
        given = entry if isinstance(entry, dict) else {}
        held = {key: given[key] for key in INNER if isinstance(given.get(key), list)}
        plain = {key: [ANY_LAYER] if key in held else value for key, value in given.items()}
        layer: Layer = parse(LAYERS[kind], plain, where)
        inner: Any = {key: _layers(value, (*where, key)) for key, value in held.items()}
        parsed.append(replace(layer, **inner) if inner else layer)
    return tuple(parsed)


@cache
def parameters(name: str) -> Any:
    """A dataclass of a named model's parameters, so that they are checked like everything else."""
    function = ZOO[name]
    hints = get_type_hints(function, include_extras=True)
    members: list[Any] = [
        (p.name, hints[p.name])
        if p.default is Parameter.empty
        else (p.name, hints[p.name], field(default_factory=partial(copy.deepcopy, p.default)))
        for p in signature(function).parameters.values()
    ]
    return make_dataclass(name, members, frozen=True, namespace={"__pydantic_config__": FORBID_EXTRA})


def _with_initializers(value: Any) -> Any:
    """Let an initialiser be given by its name alone."""
    if isinstance(value, dict):
        return {
            key: {"name": item}
            if key.endswith("initializer") and isinstance(item, str)
            else _with_initializers(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_with_initializers(item) for item in value]
    return value
