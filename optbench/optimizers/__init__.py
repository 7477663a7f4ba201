"""Canonical optimizers: one semantics for every framework, one file a family.

The frameworks' own classes stand in :mod:`optbench.optimizers.torch`, :mod:`optbench.optimizers.keras` and
:mod:`optbench.optimizers.optax`; importing this package imports none of them.
"""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, Union

from optbench.errors import UserError
from optbench.optimizers import custom
from optbench.optimizers.adagrad import Adagrad
from optbench.optimizers.adam import Adam
from optbench.optimizers.adamw import AdamW
from optbench.optimizers.base import CanonicalHyperparameters, Family, Hyperparameters, Range
from optbench.optimizers.custom import Custom
from optbench.optimizers.nadam import Nadam
from optbench.optimizers.rmsprop import RMSprop
from optbench.optimizers.sgd import SGD
from optbench.optimizers.wame import WAME

#: The files of the families, in the order of lists: the one place where a rule is registered.
_REGISTERED = ("wame", "adam", "adamw", "nadam", "rmsprop", "adagrad", "sgd")

#: Every family with a rule, by its name.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.name: family for family in (import_module(f"{__name__}.{name}").FAMILY for name in _REGISTERED)}
)

# What type checkers are told is what every config has; pydantic is given the union of the registered ones.
if TYPE_CHECKING:
    CanonicalConfig: TypeAlias = CanonicalHyperparameters
    OptimizerConfig: TypeAlias = Hyperparameters
else:
    #: A config of a canonical family.
    CanonicalConfig = Union[tuple(family.config for family in FAMILIES.values())]  # noqa: UP007
    #: Any optimizer config; its field ``optimizer`` tells which.
    OptimizerConfig = Union[CanonicalConfig, Custom]  # noqa: UP007


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
    if config.optimizer not in FAMILIES:
        raise UnknownFamilyError(
            f"optimizer {config.optimizer!r} is not registered; add its file to _REGISTERED in "
            f"optbench/optimizers/__init__.py, beside {', '.join(FAMILIES)}"
        )
    return FAMILIES[config.optimizer]


def has_rule(config: OptimizerConfig) -> TypeGuard[CanonicalConfig]:
    """Whether a config's update rule is written here; that of a custom class is in its own code."""
    return family_of(config).has_rule


__all__ = [
    "FAMILIES",
    "SGD",
    "WAME",
    "Adagrad",
    "Adam",
    "AdamW",
    "CanonicalConfig",
    "Custom",
    "Family",
    "Nadam",
    "OptimizerConfig",
    "RMSprop",
    "Range",
    "UnknownFamilyError",
    "family_of",
    "has_rule",
]
