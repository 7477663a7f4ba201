"""One optimizer of a suite file: a family, a library's name, a class, or groups of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from optbench.models.layers import Role
from optbench.optimizers import FAMILIES, Group, Grouped, OptimizerConfig, custom, family_of, library
from optbench.optimizers.groups import FLAT, chosen_roles, idle
from optbench.optimizers.library import LIBRARY
from optbench.suite import suggestions
from optbench.suite.validation import InvalidError, listed, parse, problem, shown, unknown_choice

if TYPE_CHECKING:
    from optbench.suite.yamlfile import KeyPath

#: Hyperparameters above this overflow float32 once a rule divides them by 1 - beta.
LARGEST = 1e20


def optimizer(label: str, entry: Any, path: KeyPath, folder: Path) -> OptimizerConfig:
    """Read the optimizer of one label.

    Raises
    ------
    InvalidError
        If there is no such optimizer, or it does not take what is given.
    """
    if not isinstance(entry, dict):
        raise problem(path, f"found {shown(entry)}; write its hyperparameters, as in {label}: {{lr: 0.01}}")
    if "groups" in entry:
        return _grouped(label, entry, path, folder)
    family = entry.get("optimizer", label)
    named = isinstance(family, str) and family in FAMILIES
    plugins = {} if named else custom.plugins()
    if "class" in entry or (isinstance(family, str) and family in plugins):
        try:
            return custom.from_mapping({"optimizer": family, **entry}, base_dir=folder)
        except custom.CustomError as error:
            raise problem(path, str(error)) from None
    if not named:
        where = (*path, "optimizer") if "optimizer" in entry else path
        if not isinstance(family, str) or family not in LIBRARY:
            known = (*FAMILIES, *plugins, *LIBRARY)
            beyond = suggestions.custom_optimizer_hint(str(family))
            raise InvalidError([unknown_choice(family, known, where, what="optimizer", beyond=beyond)])
        try:
            return library.from_mapping({**entry, "optimizer": family})
        except custom.CustomError as error:
            raise problem(path, str(error)) from None
    config: OptimizerConfig = parse(FAMILIES[family].config, {**entry, "optimizer": family}, path)
    for name, value in entry.items():
        if isinstance(value, float) and value > LARGEST:
            raise problem(
                (*path, name), f"found {shown(value)}; no step can be that large: {LARGEST:g} at most"
            )
    return config


def _grouped(label: str, entry: dict[str, Any], path: KeyPath, folder: Path) -> OptimizerConfig:
    """Read an entry with parameter groups; see :mod:`optbench.optimizers.groups`."""
    entries, where = entry["groups"], (*path, "groups")
    if not isinstance(entries, list) or not entries:
        raise problem(
            where, f"found {shown(entries)}; list entries such as {{match: matrix, optimizer: muon}}"
        )
    base = {key: value for key, value in entry.items() if key != "groups"}
    known = {"optimizer", "class"} & base.keys() or label in (*FAMILIES, *LIBRARY, *custom.plugins())
    if base and not known:
        raise problem(
            path,
            f"{listed(base)}: of which optimizer? name an `optimizer` next to groups, or move it into them",
        )
    found: list[Group] = []
    for index, given in enumerate(entries):
        found.append(_group(label, given, base if known else None, (*where, index), folder))
    if known and not any("rest" in group.match for group in found):
        found.append(Group(match=("rest",), config=_part(label, base, path, folder)))
    try:
        return Grouped(groups=tuple(found))
    except ValueError as error:
        raise problem(where, str(error).removeprefix("groups: ")) from None


def _group(label: str, given: Any, base: dict[str, Any] | None, path: KeyPath, folder: Path) -> Group:
    """Read one group; it has the entry's hyperparameters, unless it names another optimizer."""
    if not isinstance(given, dict):
        raise problem(path, f"found {shown(given)}; a mapping such as {{match: matrix, optimizer: muon}}")
    roles = (*get_args(Role), "rest")
    match = given.get("match")
    words = [match] if isinstance(match, str) else match
    if not isinstance(words, list) or not words:
        raise problem((*path, "match"), f"found {shown(match)}; one or a list of {listed(roles)}")
    if unknown := [word for word in words if word not in roles]:
        raise InvalidError([unknown_choice(unknown[0], roles, (*path, "match"), what="role")])
    scheduled = given.get("scheduled", True)
    if not isinstance(scheduled, bool):
        raise problem((*path, "scheduled"), f"found {shown(scheduled)}; must be true or false")
    own = {key: value for key, value in given.items() if key not in ("match", "scheduled")}
    named = {"optimizer", "class"} & own.keys()
    inherits = base is not None and (not named or own.get("optimizer") == base.get("optimizer", label))
    if not named and base is None:
        raise problem(path, "names no `optimizer`, and the entry has none for all groups")
    config = _part(label, {**base, **own} if inherits and base is not None else own, path, folder)
    if "rest" not in words:
        left = [name for name in own if name.startswith("rest_")]
        if left and family_of(config).parts(config) is not None:
            raise problem((*path, left[0]), "moves what no matrix is, and this group has no such weights")
        flat = [word for word in words if word in FLAT]
        if flat and family_of(config).matrices(config):
            raise problem((*path, "match"), f"{config.optimizer} moves matrices, and {listed(flat)} are none")
    return Group(match=tuple(words), config=config, scheduled=scheduled)


def _part(label: str, entry: dict[str, Any], path: KeyPath, folder: Path) -> Any:
    if "groups" in entry:
        raise problem((*path, "groups"), "groups stand in no other group")
    return optimizer(label, entry, path, folder)


def refuse_idle(
    models: Iterable[tuple[Mapping[str, OptimizerConfig], Callable[[], Mapping[str, Role]]]],
) -> None:
    """Refuse groups that match no weight of any workload: they would change nothing, and say nothing.

    Parameters
    ----------
    models : iterable of (mapping, callable)
        Of each workload, the optimizers by label, and what tells the roles of its weights by name; it is
        called where some optimizer asks for them.

    Raises
    ------
    InvalidError
        If there is such a group; the message says which roles there are.
    """
    found: dict[str, set[tuple[str, ...]]] = {}
    known: dict[str, set[str]] = {}
    for optimizers, roles_of in models:
        choosing = {label: config for label, config in optimizers.items() if chosen_roles(config)}
        weights = roles_of() if choosing else {}
        for label, config in choosing.items():
            # A custom network tells its weights when it is made.
            nothing = set(idle(config, weights)) if weights else set()
            found[label] = found.get(label, nothing) & nothing
            known.setdefault(label, set()).update(weights.values())
    problems = [
        problem(
            ("optimizers", label),
            f"`match: {listed(sorted(matches)[0])}` matches no weight of any workload; there are "
            f"{listed(sorted(known[label]))}: take out the group, or match one of these",
        ).problems[0]
        for label, matches in found.items()
        if matches
    ]
    if problems:
        raise InvalidError(problems)
