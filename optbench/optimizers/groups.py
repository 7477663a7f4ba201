"""Parameter groups: different optimizers, or different hyperparameters, for weights of different roles.

In a suite file::

    mixed:
      groups:
        - {match: matrix, optimizer: muon, lr: 0.02}
        - {match: rest, optimizer: adamw, lr: 3.0e-4, weight_decay: 0}
    # or on top of one optimizer, which keeps what no group matches:
    adamw: {lr: 1.0e-3, weight_decay: 0.1, groups: [{match: [norm, bias], weight_decay: 0}]}

A schedule moves the first group's learning rate, and those of the others in proportion.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from optbench.errors import UserError
from optbench.models.layers import Role
from optbench.optimizers import FAMILIES, CanonicalConfig, Custom, Library, family_of, library
from optbench.optimizers.base import Family, Hyperparameters
from optbench.task import FORBID_EXTRA, OMIT_DEFAULT

#: What an entry may match: a role, or whatever no other entry does.
Match = Role | Literal["rest"]


class GroupsError(UserError, ValueError):
    """Groups that do not fit each other or the model's weights."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Weights of some roles, and what moves them.

    Attributes
    ----------
    match : tuple of str
        Roles of :data:`optbench.models.layers.Role`, or ``rest``.
    config : CanonicalConfig, Custom or Library
        The optimizer.
    scheduled : bool
        Whether the workload's schedule moves its learning rate.
    """

    __pydantic_config__ = FORBID_EXTRA

    match: Annotated[tuple[Match, ...], MinLen(1)]
    config: CanonicalConfig | Custom | Library = field(metadata={"discriminator": "optimizer"})
    scheduled: bool = field(default=True, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, kw_only=True)
class Grouped:
    """Several optimizers, each for the weights of its roles.

    Attributes
    ----------
    groups : tuple of Group
        No role stands in two of them.

    Examples
    --------
    >>> from optbench.optimizers import SGD, AdamW
    >>> config = Grouped(
    ...     groups=(Group(match=("matrix",), config=SGD(lr=0.1)), Group(match=("rest",), config=AdamW()))
    ... )
    >>> config.lr
    0.1
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["groups"] = "groups"
    groups: Annotated[tuple[Group, ...], MinLen(1)]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for group in self.groups:
            if twice := seen.intersection(group.match):
                raise ValueError(f"groups: two match {', '.join(sorted(twice))}; name each role once")
            seen.update(group.match)

    @property
    def lr(self) -> float | None:
        """Learning rate that a schedule moves: that of the first group that has one."""
        return next((g.config.lr for g in self.groups if g.scheduled and g.config.lr is not None), None)


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """The weights that one config moves in a model.

    Attributes
    ----------
    match : tuple of str
        As declared.
    config : CanonicalConfig or Custom
        What moves them.
    names : tuple of str
        Weights, in the model's order.
    scheduled : bool
        Whether a schedule moves the learning rate.
    """

    match: tuple[str, ...]
    config: Any
    names: tuple[str, ...]
    scheduled: bool = True

    def rate(self, lr: Any, reference: float | None) -> Any:
        """Learning rate of this group where that of the whole config is ``lr``; None where it has none.

        The same number, to the bit, where the group's own is the reference.
        """
        own = self.config.lr
        if own is None or not self.scheduled or reference is None:
            return own
        return lr if own == reference else lr * (own / reference)


def leaves(config: Hyperparameters) -> tuple[Any, ...]:
    """List the configs that a config is made of: those of its groups, or itself."""
    return tuple(group.config for group in config.groups) if isinstance(config, Grouped) else (config,)


def is_plain(config: Hyperparameters) -> bool:
    """Whether one rule of optbench's own moves all weights, so that its learning rate is the only one."""
    family = family_of(config)
    return family.has_rule and family.parts(config) is None


def at_lr(config: Any, lr: float) -> Any:
    """Give a config another learning rate if one rule moves all weights; others keep theirs."""
    return replace(config, lr=lr) if is_plain(config) else config


def described(config: Hyperparameters, roles: Mapping[str, Role], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Say for the record which config moves which weights of a model; nothing where there is but one.

    Each group has its ``optimizer``, ``lr``, what it matches, the number of ``tensors`` and of ``weights``,
    and a ``fingerprint`` of its config and its weights' names.
    """
    if not isinstance(config, Grouped) and family_of(config).parts(config) is None:
        return {}
    found = []
    for part in assign(config, roles):
        identity = json.dumps([asdict(part.config), part.scheduled, part.names], sort_keys=True)
        found.append(
            {
                "match": list(part.match),
                "optimizer": getattr(part.config, "reference", part.config.optimizer),
                "lr": part.config.lr,
                "tensors": len(part.names),
                "weights": sum(sizes[name] for name in part.names),
                "fingerprint": hashlib.sha256(identity.encode()).hexdigest()[:16],
            }
        )
    return {"groups": found}


def assign(config: Hyperparameters, roles: Mapping[str, Role]) -> tuple[Assigned, ...]:
    """Say which config moves which weights of a model.

    Parameters
    ----------
    config : Hyperparameters
        Any optimizer config.
    roles : mapping
        Role of every trainable weight by its name, in the model's order.

    Returns
    -------
    tuple of Assigned
        Groups without a weight are left out. One that holds all weights for an ordinary config.

    Raises
    ------
    GroupsError
        If no group takes some weight, or one is given weights that its rule cannot move.
    """
    if isinstance(config, Grouped):
        declared = []
        for group, names in _matched([(g, g.match) for g in config.groups], roles):
            whole = Assigned(match=group.match, config=group.config, names=names)
            found = (
                [whole] if "rest" not in group.match else assign(group.config, {n: roles[n] for n in names})
            )
            declared += [replace(part, match=group.match, scheduled=group.scheduled) for part in found]
    elif (parts := family_of(config).parts(config)) is not None:
        declared = [
            Assigned(match=match, config=part, names=names)
            for (match, part), names in _matched([((m, c), m) for m, c in parts.items()], roles)
        ]
    else:
        declared = [Assigned(match=("rest",), config=config, names=tuple(roles))]
    for part in declared:
        _check_matrices(part, roles)
    return tuple(part for part in declared if part.names)


def _matched(
    entries: Sequence[tuple[Any, Sequence[str]]], roles: Mapping[str, Role]
) -> Iterator[tuple[Any, Any]]:
    taken = {role for _, match in entries for role in match}
    rest = [name for name, role in roles.items() if role not in taken]
    if rest and "rest" not in taken:
        left = sorted({roles[name] for name in rest})
        raise GroupsError(
            f"groups: none takes the weights of role {', '.join(left)} ({', '.join(rest[:3])}"
            f"{', ...' if len(rest) > 3 else ''}); add an entry with `match: rest`"
        )
    for entry, match in entries:
        yield entry, tuple(n for n, r in roles.items() if r in match or (r not in taken and "rest" in match))


def _check_matrices(part: Assigned, roles: Mapping[str, Role]) -> None:
    flat = [name for name in part.names if roles[name] in FLAT]
    if flat and family_of(part.config).matrices(part.config):
        raise GroupsError(
            f"groups: {part.config.optimizer} moves matrices, but `match: {', '.join(part.match)}` gives it "
            f"{flat[0]} ({roles[flat[0]]}); match roles such as matrix and conv, and give an optimizer of "
            "another kind the rest"
        )


def chosen_roles(config: Hyperparameters) -> tuple[tuple[str, ...], ...]:
    """List what a config's groups match, or what a family's own rule moves, but for the rest."""
    if isinstance(config, Grouped):
        matches: list[tuple[str, ...]] = [group.match for group in config.groups]
    else:
        matches = [*(family_of(config).parts(config) or ())]
    return tuple(match for match in matches if "rest" not in match)


def idle(config: Hyperparameters, roles: Mapping[str, Role]) -> tuple[tuple[str, ...], ...]:
    """List those of :func:`chosen_roles` of which a model has no weight."""
    there = set(roles.values())
    return tuple(match for match in chosen_roles(config) if not there & set(match))


#: Roles of weights with a single axis.
FLAT: tuple[Role, ...] = ("norm", "bias")


def roles_by_shape(shapes: Sequence[Sequence[int]]) -> dict[str, Role]:
    """Guess roles where no model tells them: kernels by their axes, all else is a bias; none is a head."""
    kinds: dict[int, Role] = {2: "matrix", 3: "conv", 4: "conv", 5: "conv"}
    return {str(number): kinds.get(len(shape), "bias") for number, shape in enumerate(shapes)}


def _with_values(config: Grouped, values: Mapping[str, Any]) -> Grouped:
    """Set hyperparameters: ``<role>.<name>`` in the group of that role, ``<name>`` in all that have it.

    Without a role, ``lr`` is the first group's, and the others' learning rates keep their proportion to it.
    """
    from optbench.tuning import space

    def changed(group: Group, key: str, value: Any) -> Group:
        new: Any = space.with_values(group.config, {key: value})
        return replace(group, config=new)

    groups = list(config.groups)
    for key, value in values.items():
        role, _, name = key.partition(".")
        chosen = [k for k, group in enumerate(groups) if role in group.match] if name else []
        if chosen:
            (k,) = chosen
            groups[k] = changed(groups[k], name, value)
            continue
        reference = Grouped(groups=tuple(groups)).lr
        having = [k for k, group in enumerate(groups) if _has(group.config, key)]
        if not having:
            known = ", ".join(f"{group.match[0]}.lr" for group in groups)
            raise GroupsError(f"{key}: no group has it; name one as in {known}")
        for k in having:
            given = value
            if key == "lr" and reference is not None:
                if not groups[k].scheduled:
                    continue
                own = groups[k].config.lr
                given = value if own is None or own == reference else value * (own / reference)
            groups[k] = changed(groups[k], key, given)
    return Grouped(groups=tuple(groups))


def for_roles(config: Any, there: Collection[str]) -> list[Any]:
    """List what to try of a config on a model that has weights of these roles alone.

    The groups that have weights in it, and each of the others as the optimizer of its matrices.
    """
    if not isinstance(config, Grouped):
        return [config]
    known = tuple(g for g in config.groups if "rest" in g.match or set(g.match) & set(there))
    unmatched = set(there) - {role for group in known for role in group.match}
    rest = Group(match=("rest",), config=FAMILIES["sgd"].config())
    if unmatched and not any("rest" in group.match for group in known):
        known = (*known, rest)
    others = [group.config for group in config.groups if group not in known]
    return [
        Grouped(groups=known),
        *(Grouped(groups=(Group(match=("matrix",), config=other), rest)) for other in others),
    ]


def on_backend(config: Grouped, backend: str) -> Grouped:
    """Take the classes that the groups' names stand for in a backend."""
    return Grouped(
        groups=tuple(
            replace(group, config=library.of_backend(group.config, backend))
            if isinstance(group.config, Library)
            else group
            for group in config.groups
        )
    )


def _has(config: Any, name: str) -> bool:
    given = dict(config.arguments) if isinstance(config, Custom | Library) else vars(config)
    return given.get(name.partition(".")[0]) is not None


def _no_rule(*arguments: Any, **options: Any) -> Any:
    raise GroupsError("groups have no rule of their own; each of their configs has one")


#: What is known of any groups.
FAMILY = Family(
    name="groups",
    title="groups",
    config=Grouped,
    init=_no_rule,
    update=_no_rule,
    elementwise=False,
    has_rule=False,
    with_values=_with_values,
)
