"""The global generators of NumPy, Python and PyTorch as those of one trial.

Custom code may draw from them. While it runs they are in the trial's own state, and in that of the
rest of the process again behind it; so such a trial repeats to the bit, alone or beside others, and goes on
from a checkpoint.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[Any]]


class GlobalDraws:
    """The states of the global generators of one trial, first set from a seed."""

    def __init__(self, seed: int) -> None:
        before = _states()
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        if (torch := sys.modules.get("torch")) is not None:
            torch.manual_seed(seed % 2**63)
        self._mine = _states()
        _set(before)

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Have the global generators in this trial's states."""
        before = _states()
        _set(self._mine)
        try:
            yield
        finally:
            self._mine = _states()
            _set(before)

    def state(self) -> State:
        """Copy the states out."""
        return {name: np.array(value) for name, value in self._mine.items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over a :meth:`state`."""
        self._mine = {name: np.array(state[name]) for name in self._mine}


def _states() -> State:
    version, words, gauss = random.getstate()
    old: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    _, keys, position, has_gauss, cached = old
    found = {
        "random/words": np.array(words, np.uint64),
        "random/gauss": np.array([version, np.nan if gauss is None else gauss]),
        "numpy/keys": np.array(keys, np.uint32),
        "numpy/rest": np.array([position, has_gauss, cached], np.float64),
    }
    if (torch := sys.modules.get("torch")) is not None:
        found["torch/cpu"] = torch.get_rng_state().numpy().copy()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            found["torch/cuda"] = torch.cuda.get_rng_state().numpy().copy()
    return found


def _set(states: Mapping[str, NDArray[Any]]) -> None:
    version, gauss = states["random/gauss"].tolist()
    words = tuple(int(word) for word in states["random/words"])
    random.setstate((int(version), words, None if np.isnan(gauss) else gauss))
    position, has_gauss, cached = states["numpy/rest"].tolist()
    old = ("MT19937", states["numpy/keys"], int(position), int(has_gauss), cached)
    np.random.set_state(old)  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None and "torch/cpu" in states:
        torch.set_rng_state(torch.from_numpy(np.array(states["torch/cpu"])))
    if torch is not None and "torch/cuda" in states:
        torch.cuda.set_rng_state(torch.from_numpy(np.array(states["torch/cuda"])))
