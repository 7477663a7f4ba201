"""Canonical optimizers: one semantics for every framework, one file a family."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Union

from optbench.optimizers import adam, rmsprop, sgd, wame
from optbench.optimizers.adam import Adam
from optbench.optimizers.base import Family, Range
from optbench.optimizers.rmsprop import RMSprop
from optbench.optimizers.sgd import SGD
from optbench.optimizers.wame import WAME

#: Any optimizer config; its field ``optimizer`` tells which.
OptimizerConfig = Union[SGD, RMSprop, Adam, WAME]  # noqa: UP007

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {module.FAMILY.name: module.FAMILY for module in (wame, adam, rmsprop, sgd)}
)

__all__ = ["FAMILIES", "SGD", "WAME", "Adam", "Family", "OptimizerConfig", "RMSprop", "Range"]
