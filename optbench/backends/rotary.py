"""The angles of rotary positions, once for all frameworks; see :class:`optbench.models.layers.Attention`."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BASE = 10000.0


@lru_cache(maxsize=32)
def table(places: int, features: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosines and sines by place and pair of a head's features, both [places, features / 2]."""
    angles = np.outer(np.arange(places), BASE ** (-np.arange(0, features, 2) / features))
    return np.cos(angles), np.sin(angles)
