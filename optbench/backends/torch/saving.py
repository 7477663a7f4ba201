"""The state of a PyTorch optimizer as arrays and JSON, without pickle."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optbench.backends.base import UnsavableError
from optbench.backends.torch.optimizers import parts_of
from optbench.backends.torch.rules import RuleOptimizer

PLAIN = (bool, int, float, str, type(None))
#: Constants of PyTorch by their names: how each kind is found again.
NAMED: Mapping[type, Callable[[str], Any]] = {
    torch.dtype: lambda name: getattr(torch, name),
    torch.device: torch.device,
}


@functools.cache
def _common() -> frozenset[str]:
    """Attributes that every optimizer has: hooks and names, nothing that a step changes."""
    return frozenset(vars(torch.optim.SGD([torch.zeros(1)], lr=0.1)))


def export(
    optimizer: torch.optim.Optimizer, params: list[Tensor], *, custom: bool
) -> dict[str, NDArray[Any]]:
    """Copy an optimizer's state out.

    Parameters
    ----------
    optimizer : Optimizer
    params : list of Tensor
        What it trains.
    custom : bool
        Whether the class is a custom one, which may keep numbers in its groups and in further attributes.

    Returns
    -------
    dict of str to array
        ``optimizer`` is the structure as JSON, in bytes; ``optimizer/<n>`` the tensors that it points to.

    Raises
    ------
    UnsavableError
        If a custom class keeps anything but tensors, plain values, and lists and mappings of them.
    """
    arrays: dict[str, NDArray[Any]] = {}
    numbers = {id(w): number for number, w in enumerate(params)}
    if any(id(w) not in numbers for w in optimizer.state):
        raise UnsavableError("the optimizer keeps state for something that is not a parameter")
    structure: dict[str, Any] = {
        "state": [
            [numbers[id(w)], _plain(dict(entry), arrays, "state")] for w, entry in optimizer.state.items()
        ]
    }
    parts = parts_of(optimizer)
    own = [custom and not isinstance(part, RuleOptimizer) for part in parts]
    structure["groups"] = [
        _group(group, arrays, custom=mine)
        for part, mine in zip(parts, own, strict=True)
        for group in part.param_groups
    ]
    if custom:
        structure["attributes"] = [
            _attributes(part, arrays) if mine else {} for part, mine in zip(parts, own, strict=True)
        ]
    text = json.dumps(structure).encode()
    return {"optimizer": np.frombuffer(text, np.uint8), **arrays}


def restore(
    optimizer: torch.optim.Optimizer, params: list[Tensor], state: Mapping[str, NDArray[Any]]
) -> None:
    """Put back what :func:`export` took out; tensors that are there already keep their place in memory."""
    structure = json.loads(state["optimizer"].tobytes())
    for number, entry in structure["state"]:
        mine = optimizer.state[params[number]]
        for name, value in entry["map"]:
            _put(mine, name, _value(value, state))
    for group, saved in zip(optimizer.param_groups, structure["groups"], strict=True):
        for name, value in saved.items():
            _put(group, name, _value(value, state))
    attributes = structure.get("attributes", [])
    for part, own in zip(parts_of(optimizer), attributes, strict=False):
        for name, value in own.items():
            setattr(part, name, _value(value, state))


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the tensors in an optimizer's state."""
    return sum(leaf.nbytes for leaf in _leaves(list(optimizer.state.values())) if isinstance(leaf, Tensor))


def _group(group: Mapping[str, Any], arrays: dict[str, NDArray[Any]], *, custom: bool) -> dict[str, Any]:
    if not custom:
        return {"lr": _plain(group["lr"], arrays, "lr")}
    return {name: _plain(value, arrays, name) for name, value in group.items() if name != "params"}


def _attributes(optimizer: torch.optim.Optimizer, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    mine = {name: value for name, value in vars(optimizer).items() if name not in _common()}
    if any(isinstance(tensor, Tensor) for tensor in _leaves(mine)):
        raise UnsavableError("the optimizer keeps tensors outside its state")
    return {name: _plain(value, arrays, name) for name, value in mine.items()}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _plain(value: Any, arrays: dict[str, NDArray[Any]], where: str) -> Any:
    if type(value) in PLAIN:
        return value
    if type(value) in NAMED:
        return {type(value).__name__: str(value).removeprefix("torch.")}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_plain(item, arrays, where) for item in value]}
    if type(value) is dict and all(type(key) in PLAIN for key in value):
        return {"map": [[key, _plain(item, arrays, where)] for key, item in value.items()]}
    if type(value) is Tensor and value.layout is torch.strided and 0 not in value.stride():
        name = f"optimizer/{len(arrays)}"
        tensor = value.detach().cpu().contiguous()
        arrays[name] = (tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor).numpy().copy()
        facts = {"dtype": str(value.dtype).removeprefix("torch."), "stride": list(value.stride())}
        return {"tensor": name, "device": value.device.type, **facts}
    raise UnsavableError(f"the optimizer's {where} holds a {type(value).__name__}")


def _value(found: Any, state: Mapping[str, NDArray[Any]]) -> Any:
    if not isinstance(found, dict):
        return found
    if "map" in found:
        return {key: _value(item, state) for key, item in found["map"]}
    if "tensor" not in found:
        ((kind, items),) = found.items()
        named = {cls.__name__: find for cls, find in NAMED.items()}
        if kind in named:
            return named[kind](items)
        values = [_value(item, state) for item in items]
        return tuple(values) if kind == "tuple" else values
    dtype, array = getattr(torch, found["dtype"]), torch.from_numpy(state[found["tensor"]])
    out = torch.empty_strided(tuple(array.shape), found["stride"], dtype=dtype, device=found["device"])
    return out.copy_(array.view(dtype))


def _put(place: Any, name: str, value: Any) -> None:
    old = place.get(name)
    if isinstance(old, Tensor) and isinstance(value, Tensor) and old.shape == value.shape:
        old.copy_(value)
    else:
        place[name] = value
