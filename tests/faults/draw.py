"""Cases drawn evenly over kinds, executors, backends and sorts of suites that are possible here."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tests.faults.harness import Case
from tests.faults.kinds import EXECUTORS, KINDS, executors_here, kinds_here
from tests.faults.suites import backends_here, sorts_here


class _Even:
    """Draws at random among those of some choices that were drawn the fewest times."""

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._drawn = rng, Counter[tuple[str, str]]()

    def draw(self, choices: Iterable[str], group: str = "") -> str:
        """Draw a choice, evenly within a group and, where that leaves several, over all."""
        listed = list(choices)
        within = min(self._drawn[group, one] for one in listed)
        fewest = [one for one in listed if self._drawn[group, one] == within]
        least = min(self._drawn["", one] for one in fewest)
        chosen = self._rng.choice([one for one in fewest if self._drawn["", one] == least])
        for key in {(group, chosen), ("", chosen)}:
            self._drawn[key] += 1
        return chosen


def cases(
    count: int,
    seed: int = 0,
    *,
    backends: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    executors: Sequence[str] | None = None,
) -> Iterator[Case]:
    """Draw cases; of every kind as many, and of its executors, moments, backends and sorts in turn."""
    rng = random.Random(seed)
    even = {name: _Even(rng) for name in ("kind", "executor", "moment", "backend", "sort")}
    possible = [name for name in executors_here() if name in (executors or EXECUTORS)]
    wanted = [
        name
        for name in kinds_here()[0]
        if name in (kinds or KINDS) and set(KINDS[name].executors) & set(possible)
    ]
    for number in range(count):
        kind = even["kind"].draw(wanted)
        backend = even["backend"].draw(backends or backends_here(), group=kind)
        yield Case(
            kind=kind,
            executor=even["executor"].draw([e for e in KINDS[kind].executors if e in possible], group=kind),
            moment=even["moment"].draw(KINDS[kind].moments, group=kind),
            backend=backend,
            sort=even["sort"].draw(sorts_here(), group=backend),
            seed=1000 * seed + number,
        )
