r"""AdamW: Adam with decoupled weight decay.

.. math::

    w_t = (1 - \eta \lambda) w_{t-1} - \eta \cdot \text{Adam's direction}

The decay moves with the learning rate (PyTorch, Keras and optax agree; the paper's schedule multiplier is the
learning rate's). Defaults for :math:`\lambda` differ: PyTorch .01, Keras .004, optax 1e-4. Source: Loshchilov
& Hutter, ICLR 2019; moments and epsilon as in :mod:`optbench.optimizers.adam`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from optbench.optimizers import adam
from optbench.optimizers.base import Array, Family, Native, Range, State, Verification
from optbench.task import FORBID_EXTRA, OMIT_DEFAULT


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Hyperparameters of AdamW: Adam's, and ``weight_decay``, 0 or more; ``cautious`` masks no decay."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["adamw"] = "adamw"
    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8
    weight_decay: Annotated[float, Ge(0)] = 0.01
    flavor: Literal["keras"] | None = None
    amsgrad: bool = field(default=False, metadata=OMIT_DEFAULT)
    cautious: bool = field(default=False, metadata=OMIT_DEFAULT)


def update(
    config: AdamW, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    delta, state = adam.update(config, w, g, state, lr=lr, t=t, xp=xp)
    return delta - lr * config.weight_decay * w, state


def _torch(config: AdamW) -> Mapping[str, Any] | None:
    given = adam.moments(config)
    return None if given is None else {**given, "weight_decay": config.weight_decay}


FAMILY = Family(
    name="adamw",
    title="AdamW",
    config=AdamW,
    init=adam.init,
    update=update,
    elementwise=True,
    space={
        "lr": Range(low=1e-4, high=1e-2, log=True),
        "weight_decay": Range(low=1e-4, high=1e-1, log=True),
    },
    epsilon=adam.FAMILY.epsilon,
    couples=lambda config: config.cautious,
    needs_weights=lambda config: True,
    decay=lambda config: config.lr * config.weight_decay,
    native={
        "torch": Native(
            target="torch.optim:AdamW", arguments=_torch, forms=("fused", "foreach"), graph="same bits"
        )
    },
    verification=Verification(
        cases=(
            AdamW(),
            AdamW(weight_decay=0.1, flavor="keras"),
            AdamW(weight_decay=0.1, amsgrad=True),
        ),
        further=(AdamW(weight_decay=0.1, cautious=True),),
        parity=(AdamW(lr=0.001), AdamW(lr=0.001, cautious=True)),
    ),
    contains=lambda hyperparameters: {"adam": "weight_decay = 0"},
    style=5,
)
