"""Canonical optimizers: one semantics for every framework, one file a family.

The frameworks' own classes stand in :mod:`optbench.optimizers.torch`, :mod:`optbench.optimizers.keras` and
:mod:`optbench.optimizers.optax`; importing this package imports none of them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Union

from optbench.optimizers import adagrad, adam, adamw, nadam, rmsprop, sgd, wame
from optbench.optimizers.adagrad import Adagrad
from optbench.optimizers.adam import Adam
from optbench.optimizers.adamw import AdamW
from optbench.optimizers.base import Family, Range
from optbench.optimizers.custom import Custom
from optbench.optimizers.nadam import Nadam
from optbench.optimizers.rmsprop import RMSprop
from optbench.optimizers.sgd import SGD
from optbench.optimizers.wame import WAME

#: A config of a canonical family.
CanonicalConfig = Union[SGD, RMSprop, Adagrad, Adam, AdamW, Nadam, WAME]  # noqa: UP007
#: Any optimizer config; its field ``optimizer`` tells which.
OptimizerConfig = Union[SGD, RMSprop, Adagrad, Adam, AdamW, Nadam, WAME, Custom]  # noqa: UP007

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {module.FAMILY.name: module.FAMILY for module in (wame, adam, adamw, nadam, rmsprop, adagrad, sgd)}
)

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
]
