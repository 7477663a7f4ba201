"""Canonical optimizers: one semantics for every framework, one file a family.

The frameworks' own classes stand in :mod:`optbench.optimizers.torch`, :mod:`optbench.optimizers.keras` and
:mod:`optbench.optimizers.optax`; importing this package imports none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, Union

from optbench.errors import UserError
from optbench.optimizers import custom, library
from optbench.optimizers.adadelta import Adadelta
from optbench.optimizers.adagrad import Adagrad
from optbench.optimizers.adam import Adam
from optbench.optimizers.adamax import Adamax
from optbench.optimizers.adamw import AdamW
from optbench.optimizers.base import CanonicalHyperparameters, Family, Hyperparameters, Range
from optbench.optimizers.custom import Custom
from optbench.optimizers.lamb import Lamb
from optbench.optimizers.library import Library
from optbench.optimizers.lion import Lion
from optbench.optimizers.muon import Muon
from optbench.optimizers.nadam import Nadam
from optbench.optimizers.radam import RAdam
from optbench.optimizers.rmsprop import RMSprop
from optbench.optimizers.rprop import Rprop
from optbench.optimizers.sgd import SGD
from optbench.optimizers.wame import WAME

#: The files of the families, in the order of lists: the one place where a rule is registered.
_REGISTERED = (
    *("wame", "adam", "adamw", "nadam", "radam", "adamax", "lamb", "lion", "muon"),
    *("rmsprop", "adagrad", "adadelta", "rprop", "sgd"),
)

#: Every family with a rule, by its name.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.name: family for family in (import_module(f"{__name__}.{name}").FAMILY for name in _REGISTERED)}
)

# Type checkers see what every config has; pydantic gets the union of the registered ones.
if TYPE_CHECKING:
    CanonicalConfig: TypeAlias = CanonicalHyperparameters
    OptimizerConfig: TypeAlias = Hyperparameters
else:
    #: A config of a canonical family.
    CanonicalConfig = Union[tuple(family.config for family in FAMILIES.values())]  # noqa: UP007


class UnknownFamilyError(UserError, ValueError):
    """A config whose family is not registered."""


def family_of(config: OptimizerConfig) -> Family:
    """Find what a config's family says of itself; a custom class has one too, without a rule.

    Raises
    ------
    UnknownFamilyError
        If no family is registered under the config's name.

    Examples
    --------
    >>> family_of(SGD(lr=0.1)).title
    'SGD'
    """
    if config.optimizer == custom.FAMILY.name:
        return custom.FAMILY
    for other in (library.FAMILY, groups.FAMILY):
        if config.optimizer == other.name:
            return other
    if config.optimizer not in FAMILIES:
        raise UnknownFamilyError(
            f"optimizer {config.optimizer!r} is not registered; add its file to _REGISTERED in "
            f"optbench/optimizers/__init__.py, beside {', '.join(FAMILIES)}"
        )
    return FAMILIES[config.optimizer]


def has_rule(config: OptimizerConfig) -> TypeGuard[CanonicalConfig]:
    """Whether a config's update rules are written here; that of a custom class is in its own code."""
    return all(family_of(part).has_rule for part in leaves(config))


def stack_obstacle(config: OptimizerConfig, backend: str, *, apart: bool = False) -> str | None:
    """Say why a config's trials cannot be trained as one program; None where they can.

    See :meth:`optbench.optimizers.base.Family.stack_obstacle`.
    """
    reasons = (family_of(part).stack_obstacle(backend, part, apart=apart) for part in leaves(config))
    return next((reason for reason in reasons if reason is not None), None)


def needs_loss(config: OptimizerConfig) -> bool:
    """Whether a step needs its loss."""
    return any(family_of(part).needs_loss(part) for part in leaves(config))


def on_backend(config: OptimizerConfig, backend: str) -> OptimizerConfig:
    """Take the classes that a config's names stand for in a backend.

    Raises
    ------
    LibraryError
        If the backend has none of some name.
    """
    if isinstance(config, Library):
        return library.of_backend(config, backend)
    if isinstance(config, Grouped):
        return groups.on_backend(config, backend)
    return config


def space_of(config: OptimizerConfig) -> Mapping[str, Range]:
    """Give a config's default search space: its family's, its name's, or that of its groups by role."""
    if isinstance(config, Library):
        return {"lr": library.LIBRARY[config.name].lr}
    if isinstance(config, Grouped):
        return {
            f"{group.match[0]}.{name}": interval
            for group in config.groups
            for name, interval in space_of(group.config).items()
            if not (name.startswith("rest_") and "rest" not in group.match)
        }
    return family_of(config).space


# They need what stands above.
from optbench.optimizers import groups  # noqa: E402
from optbench.optimizers.groups import Group, Grouped, leaves  # noqa: E402

if not TYPE_CHECKING:
    #: Any optimizer config; its field ``optimizer`` tells which.
    OptimizerConfig = Union[CanonicalConfig, Custom, Library, Grouped]  # noqa: UP007


__all__ = [
    "FAMILIES",
    "SGD",
    "WAME",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "CanonicalConfig",
    "Custom",
    "Family",
    "Group",
    "Grouped",
    "Lamb",
    "Library",
    "Lion",
    "Muon",
    "Nadam",
    "OptimizerConfig",
    "RAdam",
    "RMSprop",
    "Range",
    "Rprop",
    "UnknownFamilyError",
    "family_of",
    "has_rule",
    "leaves",
    "needs_loss",
    "on_backend",
    "space_of",
    "stack_obstacle",
]
