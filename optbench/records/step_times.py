"""Step times from a timing pass: what a store keeps of it, and under which key.

A store keeps one entry a configuration and machine in its ``meta`` table, key ``timing/<config>/<machine>``.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optbench.records.store import DamageError
from optbench.trial import OwnData, content_hash

PREFIX = "timing/"
#: Share of the machine's processors that others may keep busy before a pass counts as disturbed.
QUIET = 0.1


@dataclass(frozen=True, kw_only=True)
class PassTimes:
    """The timing pass of one configuration on one machine.

    Attributes
    ----------
    config, machine : str
        Hashes: of the trial's spec without its seeds, and of what makes the machine.
    facts : mapping
        Machine and versions, as in a record's environment.
    measured : str
        When, ISO 8601 in UTC.
    steps, steps_per_epoch : int
        Steps of one round, and of a whole epoch.
    step_seconds, eval_seconds : tuple of float
        By round: seconds of a training step, and of an epoch's evaluation.
    warm_up_seconds : float
        Compiling and allocating before the first step; in no other number.
    state_bytes : int
        Optimizer state.
    host_bytes, host_start_bytes : int or None
        Highest resident memory of a process that trains this configuration alone (framework and data
        included), and what it held with framework and data loaded, before the model. None where the system
        does not tell.
    device_bytes : int or None
        Most memory held on the device, in that process; None where the framework does not tell.
    busy : float or None
        Share of the machine's processors that other processes kept busy meanwhile.
    """

    config: str
    machine: str
    facts: Mapping[str, Any]
    measured: str
    steps: int
    steps_per_epoch: int
    step_seconds: tuple[float, ...]
    eval_seconds: tuple[float, ...]
    warm_up_seconds: float
    state_bytes: int
    host_bytes: int | None = None
    host_start_bytes: int | None = None
    device_bytes: int | None = None
    busy: float | None = None

    @property
    def key(self) -> str:
        """Key of the store's entry."""
        return f"{PREFIX}{self.config}/{self.machine}"

    @property
    def disturbed(self) -> bool:
        """Whether other processes kept the machine busy."""
        return self.busy is not None and self.busy > QUIET

    def to_json(self) -> str:
        """Write the entry."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Median:
    """A median and an interval that covers the true one with probability ``level``, for any distribution."""

    value: float
    low: float
    high: float
    level: float


def median(values: Sequence[float], *, confidence: float = 0.95) -> Median:
    """Median with the interval between two order statistics.

    Parameters
    ----------
    values : sequence of float
        Independent repetitions.
    confidence : float
        Least coverage; with fewer than 6 values the interval is from the least to the most, and its level
        below 0.95.

    Returns
    -------
    Median

    Notes
    -----
    The interval from the k-th smallest to the k-th largest covers with probability 1 - 2 P(B < k), B binomial
    with n and 1/2 (David & Nagaraja, Order Statistics, 2003, section 7.1).

    Examples
    --------
    >>> median([3.0, 1.0, 2.0, 4.0, 6.0, 5.0])
    Median(value=3.5, low=1.0, high=6.0, level=0.96875)
    """
    ordered = sorted(values)
    n, k = len(ordered), 1
    below = [sum(math.comb(n, j) for j in range(k)) / 2**n for k in range(n // 2 + 2)]
    while k + 1 <= (n + 1) // 2 and 1 - 2 * below[k + 1] >= confidence:
        k += 1
    return Median(statistics.median(ordered), ordered[k - 1], ordered[n - k], 1 - 2 * below[k])


def config_id(spec: Mapping[str, Any]) -> str:
    """Hash a JSON-ready trial spec without its seeds and without what only people read."""
    workload = dict(spec["workload"])
    workload["model"] = {**workload["model"], "name": ""}
    if isinstance(workload["dataset"], dict):
        labels = OwnData.LABELS
        workload["dataset"] = {k: v for k, v in workload["dataset"].items() if k not in labels}
    return content_hash({**spec, "workload": workload, "seeds": {}})


def read(meta: Mapping[str, str]) -> list[PassTimes]:
    """Read the entries of a store's meta table."""
    found = []
    for key, text in meta.items():
        if key.startswith(PREFIX):
            try:
                entry = json.loads(text)
                lists = {name: tuple(entry[name]) for name in ("step_seconds", "eval_seconds")}
                found.append(PassTimes(**{**entry, **lists}))
            except (AttributeError, KeyError, TypeError, ValueError):
                raise DamageError(f"meta entry {key!r}") from None
    return found
