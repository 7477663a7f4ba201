"""The JSON Schema of a suite file, made from the dataclasses that check one.

It accepts every suite that :func:`optbench.suite.load.load_suite` accepts; what needs more than one field
to judge (do labels agree, do layers fit the data) is left to that function. Datasets and models are those of
optbench and of the packages that are installed; an optimizer's name is open, since it may be a label.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter

from optbench.datasets import own, registry
from optbench.models.layers import LAYERS, Initializer, Role
from optbench.models.zoo import ZOO
from optbench.optimizers import FAMILIES
from optbench.suite import declared
from optbench.suite.entries import EXTRAS, NOT_DECLARED
from optbench.suite.load import SuiteFile
from optbench.suite.references import plugins
from optbench.suite.report_spec import Analysis, Design, Goals, Sequential, Targets
from optbench.suite.spec import EngineOptions
from optbench.suite.tuning_section import Budget, TuningFile
from optbench.suite.validation import names
from optbench.trial import STREAMS, OwnData, Workload

DRAFT = "http://json-schema.org/draft-07/schema#"
#: Descriptions of what only a suite has, and so no dataclass.
EXTRA_FIELDS = {
    "name": "Label of the workload; <dataset>/<model> if not given.",
    "title": "Display name in reports.",
    "targets": "Values to reach; the report says when each trial did.",
    "goals": "What every trial must reach on the test part, overall and in each class.",
    "optimizers": "Only some of the suite's labels, or all with other hyperparameters for some.",
    "grid": "Fields, dotted as in model.dropout, mapped to lists: one entry a combination.",
}
Schema = dict[str, Any]
TITLE: Schema = {"type": "string", "minLength": 1, "description": "Display name in reports."}


def suite_schema() -> Schema:
    """Make the schema.

    Returns
    -------
    dict
        JSON Schema, draft 7, which editors read.
    """
    kinds = _kinds()
    refs, schema = TypeAdapter.json_schemas(
        [(name, "validation", TypeAdapter(kind)) for name, kind in kinds.items()],
        ref_template="#/$defs/{model}",
    )
    defs: dict[str, Schema] = schema["$defs"]
    places = {name: _target(refs[(name, "validation")]) for name in kinds}
    for name, kind in kinds.items():
        _describe(defs[places[name]], kind)
    for place, entry in defs.items():
        if place not in places.values():
            _describe(entry, None)
    part = {name: defs.pop(place) for name, place in places.items() if name in ("file", "workload", "tuning")}
    own_fields = defs.pop(places["own-data"])["properties"]
    for entry in (*part.values(), *defs.values()):
        _open_initializers(entry, places["initializer"])
    _extend(defs, places)
    defs |= _entries(places, own_fields)
    defs["Workload"] = _workload(part["workload"], targets=places["targets"], goals=places["goals"])
    defs["Tuning"] = _tuning(part["tuning"])
    file = part["file"]
    file["properties"] |= _top_level(file["properties"], places)
    return {
        "$schema": DRAFT,
        "title": "optbench suite",
        **{key: value for key, value in file.items() if key != "title"},
        "$defs": dict(sorted(defs.items())),
    }


def _kinds() -> dict[str, Any]:
    """List the dataclasses that a suite consists of, by a name of their own."""
    return {
        **{f"optimizer-{name}": family.config for name, family in FAMILIES.items()},
        **{f"model-{name}": declared.parameters(name) for name in ZOO},
        **{f"layer-{name}": kind for name, kind in LAYERS.items()},
        **{f"schedule-{name}": kind for name, kind in declared.SCHEDULES.items()},
        "file": SuiteFile,
        "workload": Workload,
        "targets": Targets,
        "goals": Goals,
        "analysis": Analysis,
        "sequential": Sequential,
        "tuning": TuningFile,
        "budget": Budget,
        "engine": EngineOptions,
        "own-data": OwnData,
        "initializer": Initializer,
    }


def _extend(defs: dict[str, Schema], places: Mapping[str, str]) -> None:
    """Add to the dataclasses' definitions what a suite may write beyond them."""
    analysis = defs[places["analysis"]]["properties"]
    analysis["sequential"] = {
        "description": analysis["sequential"]["description"],
        "anyOf": [{"enum": [*get_args(Design), None]}, {"$ref": f"#/$defs/{places['sequential']}"}],
    }
    for name in FAMILIES:
        own = {"title": TITLE, "grid": {"$ref": "#/$defs/Grid"}, "groups": {"$ref": "#/$defs/Groups"}}
        defs[places[f"optimizer-{name}"]]["properties"] |= own
    for name, kind in LAYERS.items():
        for key in {f.name for f in fields(kind)} & set(declared.INNER):
            least = {"minItems": 1} if key == "layers" else {}
            defs[places[f"layer-{name}"]]["properties"][key] |= {"items": {"$ref": "#/$defs/Layer"}, **least}
    for name in ZOO:
        entry = defs[places[f"model-{name}"]]
        entry["properties"] = {"name": {"const": name}, **entry.get("properties", {})}
        entry["description"] = _line(inspect.getdoc(ZOO[name]) or "")


def _entries(places: Mapping[str, str], own_fields: Mapping[str, Schema]) -> dict[str, Schema]:
    """Define the entries of a suite that no dataclass describes, such as a choice by name."""
    return {
        "InitializerEntry": _either(
            _enum(get_args(get_type_hints(Initializer)["name"])),
            {"$ref": f"#/$defs/{places['initializer']}"},
        ),
        "Groups": _groups(),
        "Grid": _map(_list({}), EXTRA_FIELDS["grid"], minProperties=1),
        "Dataset": _either(_enum([*registry.ENTRIES, *plugins("datasets")]), *_own_datasets(own_fields)),
        "Layer": _either(_enum(LAYERS), _by("kind", LAYERS, places, "layer-", required=True)),
        "Schedule": _either(
            {"enum": ["constant", *declared.SCHEDULES, None]},
            _by("kind", declared.SCHEDULES, places, "schedule-", required=True),
        ),
        "Model": _model(places, required=True),
        "ModelPart": _model(places, required=False),
        "NamedOptimizer": _by("optimizer", FAMILIES, places, "optimizer-", required=True, closed=False),
        "ClassOptimizer": {
            "properties": {
                "class": {"type": "string", "description": "package.module:Class or my_opt.py:MyOpt"},
                "title": TITLE,
                "grid": {"$ref": "#/$defs/Grid"},
            }
        },
        "Axes": _map({"$ref": "#/$defs/Axis"}, "Hyperparameters to search."),
        "Axis": _axis(),
        "Seeds": _seed_list(100_000),
    }


def _top_level(properties: Mapping[str, Schema], places: Mapping[str, str]) -> dict[str, Schema]:
    """Define the sections of a suite file."""
    return {
        "workloads": {**properties["workloads"], "items": {"$ref": "#/$defs/Workload"}},
        "optimizers": {
            "type": "object",
            "description": properties["optimizers"]["description"],
            "minProperties": 1,
            "properties": {name: _optimizer(f"#/$defs/{places[f'optimizer-{name}']}") for name in FAMILIES},
            "additionalProperties": _optimizer(None),
        },
        "seeds": _seeds(properties["seeds"]),
        "analysis": _optional(f"#/$defs/{places['analysis']}", properties["analysis"]),
        "tuning": _optional("#/$defs/Tuning", properties["tuning"]),
    }


def attributes(kind: type) -> dict[str, str]:
    """Read the section Attributes of a numpy docstring: meaning by name, on one line each."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes\n----------\n")
    section = re.split(r"\n\n?\w+\n-{3,}\n", section)[0]
    found = {}
    for head, body in re.findall(r"^(\S.*?) :.*\n((?:(?: {4}.*)?(?:\n|\Z))+)", section + "\n", re.MULTILINE):
        for name in head.split(","):
            found[name.strip()] = _line(body)
    return found


def _describe(entry: Schema, kind: type | None) -> None:
    """Put a docstring's summary on a class and its attributes on the fields."""
    if text := entry.get("description"):
        summary = re.split(r"\n\w+\n-{3,}\n", inspect.cleandoc(text))[0]
        kept = [p for p in summary.split("\n\n") if ":math:" not in p and ".. " not in p]
        entry["description"] = _line(" ".join(kept))
    entry.pop("title", None)
    known = attributes(kind) if kind else {}
    for name, value in entry.get("properties", {}).items():
        value.pop("title", None)
        if name in known:
            value["description"] = known[name]


def _line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _target(ref: Any) -> str:
    return str(ref["$ref"]).rpartition("/")[2]


def _open_initializers(entry: Any, place: str) -> None:
    """Let an initialiser be given by its name alone, wherever one may stand."""
    if isinstance(entry, dict):
        if entry.get("$ref") == f"#/$defs/{place}":
            entry["$ref"] = "#/$defs/InitializerEntry"
        for value in entry.values():
            _open_initializers(value, place)
    elif isinstance(entry, list):
        for value in entry:
            _open_initializers(value, place)


def _enum(words: Iterable[str]) -> Schema:
    return {"enum": list(words)}


def _either(*options: Schema) -> Schema:
    return {"anyOf": list(options)}


def _list(items: Schema, at_least: int = 1, **more: Any) -> Schema:
    return {"type": "array", "items": items, "minItems": at_least, **more}


def _map(values: Schema, description: str, **more: Any) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": values, **more}


def _groups() -> Schema:
    """Describe parameter groups; the other keys of each are hyperparameters of its optimizer."""
    roles = _enum([*get_args(Role), "rest"])
    return _list(
        {
            "type": "object",
            "properties": {
                "match": {"description": "Roles of the weights.", **_either(roles, _list(roles))},
                "optimizer": {"type": "string", "examples": list(FAMILIES)},
                "class": {"type": "string"},
                "scheduled": {
                    "type": "boolean",
                    "description": "Whether a schedule moves its learning rate.",
                },
            },
            "required": ["match"],
        },
        description="Hyperparameters, or another optimizer, for weights of some roles.",
    )


def _optional(ref: str, old: Schema) -> Schema:
    return {"description": old["description"], "anyOf": [{"$ref": ref}, {"type": "null"}]}


def _by(
    key: str,
    choices: Iterable[str],
    places: Mapping[str, str],
    prefix: str,
    *,
    required: bool,
    closed: bool = True,
    others: Iterable[str] = (),
) -> Schema:
    """Describe a mapping whose ``key`` names the class of the whole; of ``others`` nothing is known."""
    known = list(choices)
    return {
        "type": "object",
        "properties": {key: _enum([*known, *others]) if closed else {"type": "string", "examples": known}},
        "required": [key] if required else [],
        "allOf": [
            {
                "if": {"properties": {key: {"const": name}}, "required": [key]},
                "then": {"$ref": f"#/$defs/{places[prefix + name]}"},
            }
            for name in known
        ],
    }


def _workload(entry: Schema, *, targets: str, goals: str) -> Schema:
    properties = entry["properties"]
    for name in NOT_DECLARED:
        del properties[name]
    for name, ref in (("dataset", "Dataset"), ("model", "ModelPart"), ("schedule", "Schedule")):
        properties[name] = {
            "description": properties[name]["description"],
            "allOf": [{"$ref": f"#/$defs/{ref}"}],
        }
    changes = _map({"type": "object"}, EXTRA_FIELDS["optimizers"], minProperties=1)
    own_keys: dict[str, Schema] = {
        "name": {"type": "string", "minLength": 1},
        "title": TITLE,
        "targets": {"allOf": [{"$ref": f"#/$defs/{targets}"}]},
        "goals": {"allOf": [{"$ref": f"#/$defs/{goals}"}]},
        "optimizers": _either(_list({"type": "string"}), changes, {"type": "null"}),
        "grid": {"allOf": [{"$ref": "#/$defs/Grid"}]},
    }
    assert set(own_keys) == set(EXTRAS)
    needed = [f.name for f in fields(Workload) if f.default is MISSING and f.default_factory is MISSING]
    return {
        "type": "object",
        "description": "A dataset, a model and a training budget.",
        "properties": {
            "name": {"description": EXTRA_FIELDS["name"], **own_keys.pop("name")},
            **properties,
            **{name: {"description": EXTRA_FIELDS[name], **value} for name, value in own_keys.items()},
        },
        "additionalProperties": False,
        # A grid may bring what is required, or a part of the model.
        "if": {"required": ["grid"]},
        "else": {
            "required": [name for name in needed if name != "epochs"],
            "anyOf": [{"required": ["epochs"]}, {"required": ["steps"]}],
            "properties": {"model": {"$ref": "#/$defs/Model"}},
        },
    }


def _own_datasets(known: Mapping[str, Schema]) -> list[Schema]:
    texts = {
        "npz": "A file of arrays: x_train, y_train, x_test, y_test, or x and y.",
        "csv": "A file with one example a row.",
        "text": "A text, read as bytes or characters.",
        "class": "A function that returns the arrays, as module:function or file.py:function.",
    }
    files = ("csv", "text")
    words: dict[str, Schema] = {
        "target": {"type": "string", "description": "Column of the numbers to predict in a CSV file."},
        "encode": {"description": "Columns of words in a CSV file that are one-hot encoded."},
        "drop": {"description": "Columns of a CSV file that are left out."},
        "tokens": {"anyOf": [{"enum": ["byte", "character"]}, {"type": "null"}]},
        "targets": {"anyOf": [{"enum": ["label", "value"]}, {"type": "null"}]},
    }
    return [
        {
            "type": "object",
            "properties": {
                kind: {"type": "string", "description": texts[kind]},
                **{key: {**known.get(key, {}), **words.get(key, {})} for key in options if key != "test"},
                "test": {
                    "description": known["test"]["description"],
                    "anyOf": [*known["test"]["anyOf"], *([{"type": "string"}] if kind in files else [])],
                },
            },
            "required": [kind],
            **({"oneOf": [{"required": ["label"]}, {"required": ["target"]}]} if kind == "csv" else {}),
            "additionalProperties": False,
        }
        for kind, options in own.OPTIONS.items()
    ]


def _model(places: Mapping[str, str], *, required: bool) -> Schema:
    offered = plugins("models")
    named = _by("name", ZOO, places, "model-", required=required, others=offered)
    layers = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "layers": _list({"$ref": "#/$defs/Layer"}),
            "code": {"type": ["string", "null"], "description": "Package that made the layers."},
        },
        "additionalProperties": False,
    }
    own_class = {"properties": {"class": {"type": "string", "description": "module:function or file.py:f"}}}
    return {
        "if": {"type": "string"},
        "then": _enum([*ZOO, *offered]),
        "else": {
            "type": "object",
            "if": {"required": ["class"]},
            "then": own_class,
            "else": {"if": {"required": ["layers"]}, "then": layers, "else": named},
        },
    }


def _optimizer(family: str | None) -> Schema:
    """Describe the entry of a label: a class, a named family, or the family that the label names."""
    return {
        "type": ["object", "null"],
        "properties": {"groups": {"$ref": "#/$defs/Groups"}},
        "if": {"required": ["class"]},
        "then": {"$ref": "#/$defs/ClassOptimizer"},
        "else": {
            "if": {"required": ["optimizer"]},
            "then": {"$ref": "#/$defs/NamedOptimizer"},
            "else": _either({"$ref": family}, {"type": "null"}) if family else {},
        },
    }


def _seed_list(most: int) -> Schema:
    return _either(
        {"type": "integer", "minimum": 1, "maximum": most},
        _list({"type": "integer", "minimum": 0}, uniqueItems=True),
    )


def _seeds(old: Schema) -> Schema:
    streams = {
        "type": "object",
        "properties": {stream: {"$ref": "#/$defs/Seeds"} for stream in STREAMS},
        "additionalProperties": False,
        "minProperties": 1,
    }
    return {**old, "anyOf": [{"$ref": "#/$defs/Seeds"}, streams]}


def _axis() -> Schema:
    also = {"also": {**_list({"type": "string"}, 1), "description": "Further keys that get the same value."}}
    length = _either({"type": "string"}, {"$ref": "#/$defs/Axis"})
    listed = {
        "type": "object",
        "properties": {"length": length, "of": {"$ref": "#/$defs/Axis"}},
        "required": ["length", "of"],
        "additionalProperties": False,
        "description": "As many values as the length says, or as another list has.",
    }

    def bounds(kind: str, number: Schema, text: str, **more: Schema) -> Schema:
        pair = {**_list(number, 2, maxItems=2), "description": text}
        return {
            "type": "object",
            "properties": {kind: pair, **more, **also},
            "required": [kind],
            "additionalProperties": False,
        }

    decay = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
    return _either(
        {**_list({}, 2), "description": "Values to choose from."},
        bounds("log", {"type": "number", "exclusiveMinimum": 0}, "Low and high, on a logarithmic scale."),
        bounds("uniform", {"type": "number"}, "Low and high."),
        bounds("decay", decay, "Low and high in [0, 1); 1 - x on a logarithmic scale."),
        bounds(
            "int", {"type": "integer"}, "Low and high, both included.", step={"type": "integer", "minimum": 1}
        ),
        {
            "type": "object",
            "properties": {"choice": _list({}, 2), **also},
            "required": ["choice"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"list": listed, **also},
            "required": ["list"],
            "additionalProperties": False,
        },
    )


def _tuning(entry: Schema) -> Schema:
    properties = entry["properties"]
    space = _map({"$ref": "#/$defs/Axes"}, properties["space"]["description"])
    properties["seeds"] |= _seed_list(1000)
    properties["space"] = {
        "description": space.pop("description"),
        "anyOf": [space, {"type": "null"}],
    }
    properties["network"] = _optional("#/$defs/Axes", properties["network"])
    assert set(properties) == set(names(TuningFile))
    return entry
