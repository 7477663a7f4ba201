"""Optimizers of well-kept libraries by name: one table of the class that each backend has.

In a suite file::

    soap: {lr: 3.0e-3}
    free: {optimizer: schedule_free_adamw, lr: 2.5e-3}

A name is not a rule: libraries differ in defaults and details, so that the same name in two backends is two
optimizers. A trial's identity holds the class and the version of its package. Arguments are the class's;
``lr``, ``eps``, ``beta1`` and ``beta2`` are translated, see :func:`optbench.optimizers.custom.fitted`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from optbench.errors import UserError
from optbench.optimizers.base import Family, Range
from optbench.optimizers.custom import Custom, frozen_arguments
from optbench.suite import references
from optbench.suite.references import ImportProblem
from optbench.task import FORBID_EXTRA

Backend = Literal["torch", "tensorflow", "jax"]


class LibraryError(UserError, ValueError):
    """A name that a backend has no class for, or whose package is not installed."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a name stands for.

    Attributes
    ----------
    source : str
        Where the algorithm comes from.
    torch, jax, tensorflow : str, optional
        Reference of the class or function in that backend.
    lr : Range
        Default range to search.
    """

    source: str
    torch: str | None = None
    jax: str | None = None
    tensorflow: str | None = None
    lr: Range = Range(low=1e-4, high=1e-1, log=True)  # noqa: RUF009 (frozen)

    def places(self) -> dict[str, str]:
        """References by backend."""
        found = {"torch": self.torch, "tensorflow": self.tensorflow, "jax": self.jax}
        return {backend: reference for backend, reference in found.items() if reference is not None}


#: Rates of optimizers that find their own scale.
_FREE = Range(low=0.1, high=10.0, log=True)

#: Every name with its classes. The page of optimizers shows which of them train here.
LIBRARY: Mapping[str, Entry] = MappingProxyType(
    {
        "adabelief": Entry(
            source="Zhuang et al. 2020", torch="pytorch_optimizer:AdaBelief", jax="optax:adabelief"
        ),
        "adafactor": Entry(
            source="Shazeer & Stern 2018",
            torch="torch.optim:Adafactor",
            jax="optax:adafactor",
            tensorflow="keras.optimizers:Adafactor",
        ),
        "adamp": Entry(source="Heo et al. 2021", torch="pytorch_optimizer:AdamP"),
        "ademamix": Entry(
            source="Pagliardini et al. 2024",
            torch="pytorch_optimizer:AdEMAMix",
            jax="optax.contrib:ademamix",
        ),
        "adopt": Entry(
            source="Taniguchi et al. 2024", torch="pytorch_optimizer:ADOPT", jax="optax.contrib:adopt"
        ),
        "came": Entry(source="Luo et al. 2023", torch="pytorch_optimizer:CAME"),
        "dadapt_adam": Entry(
            source="Defazio & Mishchenko 2023",
            torch="pytorch_optimizer:DAdaptAdam",
            jax="optax.contrib:dadapt_adamw",
            lr=_FREE,
        ),
        "ftrl": Entry(
            source="McMahan et al. 2013",
            torch="pytorch_optimizer:FTRL",
            tensorflow="keras.optimizers:Ftrl",
        ),
        "kron": Entry(source="Li 2018 (PSGD)", torch="pytorch_optimizer:Kron"),
        "lars": Entry(source="You et al. 2017", torch="pytorch_optimizer:LARS", jax="optax:lars"),
        "madgrad": Entry(
            source="Defazio & Jelassi 2021",
            torch="pytorch_optimizer:MADGRAD",
            jax="optax.contrib:madgrad",
        ),
        "mars": Entry(source="Yuan et al. 2024", torch="pytorch_optimizer:MARS"),
        "novograd": Entry(
            source="Ginsburg et al. 2019", torch="pytorch_optimizer:NovoGrad", jax="optax:novograd"
        ),
        "prodigy": Entry(
            source="Mishchenko & Defazio 2023",
            torch="prodigyopt:Prodigy",
            jax="optax.contrib:prodigy",
            lr=_FREE,
        ),
        "schedule_free_adamw": Entry(
            source="Defazio et al. 2024",
            torch="schedulefree:AdamWScheduleFree",
            jax="optax.contrib:schedule_free_adamw",
            tensorflow="keras.optimizers:ScheduleFreeAdamW",
        ),
        "schedule_free_radam": Entry(source="Defazio et al. 2024", torch="schedulefree:RAdamScheduleFree"),
        "schedule_free_sgd": Entry(
            source="Defazio et al. 2024",
            torch="schedulefree:SGDScheduleFree",
            jax="optax.contrib:schedule_free_sgd",
            lr=Range(low=1e-2, high=10.0, log=True),
        ),
        "scion": Entry(source="Pethick et al. 2025", torch="pytorch_optimizer:SCION"),
        "shampoo": Entry(source="Gupta et al. 2018", torch="pytorch_optimizer:Shampoo"),
        "sm3": Entry(source="Anil et al. 2019", torch="pytorch_optimizer:SM3", jax="optax:sm3"),
        "soap": Entry(source="Vyas et al. 2024", torch="pytorch_optimizer:SOAP"),
        "sophia": Entry(
            source="Liu et al. 2023", torch="pytorch_optimizer:SophiaH", jax="optax.contrib:sophia"
        ),
        "stable_adamw": Entry(source="Wortsman et al. 2023", torch="pytorch_optimizer:StableAdamW"),
        "yogi": Entry(source="Zaheer et al. 2018", torch="pytorch_optimizer:Yogi", jax="optax:yogi"),
    }
)

#: Package -> the extra of optbench that brings it; a backend's own packages come with the backend's.
EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("pytorch_optimizer", "schedulefree", "prodigyopt"), "optimizers"),
        "torch": "torch",
        "optax": "jax",
        "keras": "tensorflow",
    }
)


@dataclass(frozen=True, kw_only=True)
class Library:
    """A name of the table with arguments; what it stands for follows from a trial's backend.

    Attributes
    ----------
    name : str
        As in :data:`LIBRARY`.
    arguments : tuple of (str, value)
        As of :class:`optbench.optimizers.Custom`.
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["library"] = "library"
    name: str
    arguments: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", frozen_arguments(self.arguments))

    @property
    def lr(self) -> float | None:
        """The argument ``lr`` or ``learning_rate``, where there is one."""
        given = dict(self.arguments)
        return given.get("lr", given.get("learning_rate"))


def from_mapping(mapping: Mapping[str, Any]) -> Library:
    """Make a config from a suite's entry, whose key ``optimizer`` is a name of the table.

    Raises
    ------
    CustomError
        If an argument is no JSON-like value.
    """
    arguments = {key: value for key, value in mapping.items() if key != "optimizer"}
    return Library(name=mapping["optimizer"], arguments=tuple(arguments.items()))


def of_backend(config: Library, backend: str) -> Custom:
    """Find the class that a name stands for in a backend.

    Raises
    ------
    LibraryError
        If the backend has none, or its package is not installed; the message says who has it.
    """
    places = LIBRARY[config.name].places()
    if backend not in places:
        have = "; ".join(f"{b} has it ({place(b, reference)})" for b, reference in places.items())
        raise LibraryError(f"{config.name}: the {backend} backend has no class of this name; {have}")
    reference = places[backend]
    try:
        code = references.identify(reference, Path())
    except ImportProblem as error:
        raise LibraryError(
            f"{config.name} on {backend} is {reference}: {error}; bring it with "
            f"`pip install 'optbench[{extra(reference)}]'`"
        ) from None
    return Custom(name=config.name, reference=reference, arguments=config.arguments, code=code)


def extra(reference: str) -> str:
    """Name the extra of optbench that brings a class."""
    return EXTRAS[reference.partition(":")[0].partition(".")[0]]


def place(backend: str, reference: str) -> str:
    """Say where a class comes from: its reference, and the extra that brings it."""
    return f"{reference}, from optbench[{extra(reference)}]"


def _with_values(config: Library, values: Mapping[str, Any]) -> Library:
    return replace(config, arguments=tuple({**dict(config.arguments), **values}.items()))


def _no_rule(*arguments: Any, **options: Any) -> Any:
    raise LibraryError("the rule of a library's class is in its own code; only its framework can run it")


#: What is known of any name of a library.
FAMILY = Family(
    name="library",
    title="library",
    config=Library,
    init=_no_rule,
    update=_no_rule,
    elementwise=False,
    has_rule=False,
    with_values=_with_values,
)
