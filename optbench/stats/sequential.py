"""Looking before all seeds are run, done right: a design that says after each block whether to go on.

Adding seeds until p <= 0.05 finds a difference between equals in 19 % of cases (looks at every n from 6 to
30). Two designs keep 5 % over all looks together. *Group-sequential*: looks at declared numbers of pairs,
each with its share of alpha; exact, and nearly as powerful as one look at the end. *Anytime*: bets on the
signs of
the differences; looks at any time, at numbers of pairs that nobody needs to declare. Both take each sign to
be a fair coin given the sizes, as the signed-rank test does, ties and zeros included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import (
    FloatArray,
    StatsError,
    check_fraction,
    midranks,
    one_dimensional,
    round_significant,
)
from optbench.stats.effects import rank_effect
from optbench.stats.paired import Interval, hodges_lehmann

Kind = Literal["group", "anytime"]
Word = Literal["better", "worse", "undecided"]
Spending = Literal["obrien-fleming", "pocock"]
_DRAWS = 9_999
#: Stakes that the anytime design mixes, as shares of the capital.
_STAKES = (0.1, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class SequentialLook:
    """What one comparison shows after n pairs.

    `p` holds whatever was looked at before: of the group-sequential design the stage-wise ordered one, of the
    anytime design 1 / the largest e-value so far (`e`; NaN for the other). `level` is what `p` must not
    exceed, alpha over the comparisons. The interval holds at all looks together.
    """

    n: int
    word: Word
    p: float
    e: float
    level: float
    spent: float
    interval: Interval
    method: str

    @property
    def decided(self) -> bool:
        """Was a difference found?"""
        return self.word != "undecided"


@dataclass(frozen=True)
class SequentialState:
    """All comparisons after a block: `stop` says whether more seeds are of use, `sentence` why."""

    looks: Mapping[str, SequentialLook]
    decided: bool
    stop: bool
    next_look: int | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class SequentialPlan:
    """A sequential design, declared before the first trial.

    Parameters
    ----------
    kind : {"group", "anytime"}
    looks : tuple of int
        Numbers of pairs at which the group-sequential design looks, ascending; the last is the budget. The
        anytime design needs the budget only, and looks after every pair.
    alpha : float
        Level over all looks and all comparisons together (Bonferroni over comparisons; for Holm's steps see
        `optbench.stats.sequential_verdict.decide_together`).
    comparisons : float
        By how many alpha is shared; whole, but for a step of Holm's in a part of them.
    spending : {"obrien-fleming", "pocock"}
        How alpha is spent by the share of the pairs seen: late, with nearly the power of one look, or evenly.

    References
    ----------
    Lan and DeMets (1983), Biometrika 70, 659-663 (spending); Jennison and Turnbull (1989), JRSS B 51, 305-361
    (repeated intervals); Ramdas, Grunwald, Vovk and Shafer (2023), Stat. Sci. 38, 576-601 (betting); Ville
    (1939).

    Examples
    --------
    >>> plan = SequentialPlan(kind="group", looks=(6, 12, 18))
    >>> plan.look([0.1, 0.2, 0.3, 0.2, 0.1, 0.2]).word, plan.look([0.1, 0.2, 0.3, 0.2, 0.1, 0.2] * 2).word
    ('undecided', 'better')
    """

    kind: Kind = "group"
    looks: tuple[int, ...] = (6, 12, 18, 24, 30)
    alpha: float = 0.05
    comparisons: float = 1
    spending: Spending = "obrien-fleming"

    def __post_init__(self) -> None:
        check_fraction(self.alpha, "alpha")
        if self.kind not in ("group", "anytime"):
            raise StatsError(f"sequential: kind: found {self.kind!r}, allowed are group, anytime")
        if self.spending not in _SPENDING:
            raise StatsError(
                f"sequential: spending: found {self.spending!r}, allowed are {', '.join(_SPENDING)}"
            )
        ascending = all(a < b for a, b in zip(self.looks, self.looks[1:], strict=False))
        if not self.looks or self.looks[0] < 1 or not ascending:
            raise StatsError(f"sequential: looks: found {self.looks}, allowed are ascending numbers of pairs")
        if self.comparisons < 1:
            raise StatsError(f"sequential: comparisons: found {self.comparisons}, allowed is 1 or more")

    @property
    def level(self) -> float:
        """Alpha of one comparison."""
        return self.alpha / self.comparisons

    @property
    def budget(self) -> int:
        """The most pairs."""
        return self.looks[-1]

    def look(self, d: ArrayLike, *, final: bool = False) -> SequentialLook:
        """What the differences so far show, in the order in which their seeds were run.

        Parameters
        ----------
        d : array_like, shape (n,)
            From the first pair on; the group-sequential design uses them up to its last planned look.
        final : bool
            No more pairs will come, although the budget is not reached (runs crashed): what is left of alpha
            is spent at these.

        Returns
        -------
        SequentialLook
        """
        x = round_significant(one_dimensional(d))[: self.budget]
        return _group(x, self, final=final) if self.kind == "group" else _anytime(x, self)

    def boundaries(self) -> tuple[tuple[int, float, float], ...]:
        """At each look of the group-sequential design: pairs, alpha spent so far, and the p of one look.

        Returns
        -------
        tuple of (int, float, float)
            A comparison is decided where the signed-rank p of the pairs so far is at most the third number
            (for differences without ties; 0 where no part of alpha can be spent yet). Empty for `anytime`.

        Examples
        --------
        >>> [n for n, spent, p in SequentialPlan(looks=(6, 12, 18)).boundaries() if p > 0]
        [12, 18]
        """
        if self.kind == "anytime":
            return ()
        found: list[tuple[int, float, float]] = []
        _group(np.arange(1.0, self.budget + 1), self, final=False, told=found)
        return tuple(found)

    def state(self, differences: Mapping[str, ArrayLike]) -> SequentialState:
        """Decided, or go on? Asked after each block of seeds.

        Parameters
        ----------
        differences : mapping of comparison to array_like
            All pairs so far; as many comparisons as were declared at most.

        Returns
        -------
        SequentialState
        """
        if len(differences) > self.comparisons:
            raise StatsError(
                f"sequential: found {len(differences)} comparisons, {self.comparisons} were declared; alpha "
                "is shared over those"
            )
        sizes = {name: np.asarray(d).size for name, d in differences.items()}
        looks = {name: self.look(d) for name, d in differences.items() if sizes[name]}
        seen = min(sizes.values(), default=0)
        decided = len(looks) == len(differences) and all(x.decided for x in looks.values())
        spent = seen >= self.budget
        following = [n for n in self.looks if n > seen] if self.kind == "group" else [seen + 1]
        following = [] if decided or spent else following
        open_ = ", ".join(n for n in differences if n not in looks or not looks[n].decided)
        if decided:
            sentence = f"decided after {seen} pairs"
        elif spent:
            sentence = f"the budget of {self.budget} pairs is spent; undecided: {open_}"
        else:
            sentence = f"{seen} pairs, next look at {following[0]}; undecided: {open_}"
        return SequentialState(
            looks, decided, decided or spent, following[0] if following else None, sentence
        )


_SPENDING: Mapping[str, Callable[[float, float], float]] = {
    "obrien-fleming": lambda t, a: float(2 * special.ndtr(special.ndtri(a / 2) / math.sqrt(t))),
    "pocock": lambda t, a: a * math.log1p((math.e - 1) * t),
}


@lru_cache(maxsize=4)
def _paths(n: int, draws: int) -> FloatArray:
    """Random signs, pair by pair: those of fewer pairs are the first columns."""
    signs = np.random.default_rng(0).integers(0, 2, size=(n, draws), dtype=np.int8) * 2 - 1
    return np.ascontiguousarray(signs.T.astype(np.float64))


def _signed_ranks(x: FloatArray) -> FloatArray:
    """Pratt's ranks of the sizes, 0 for zeros."""
    return np.where(x != 0, midranks(np.abs(x)), 0.0)


def _group(
    x: FloatArray,
    plan: SequentialPlan,
    *,
    final: bool,
    told: list[tuple[int, float, float]] | None = None,
) -> SequentialLook:
    """All planned looks so far, on the observed signs and on sampled ones together.

    The observed path is one of draws + 1 exchangeable ones, and at most the share of them that may be spent
    is rejected at each look: the level holds exactly, whatever the ties. ``told`` gets the boundary of every
    look, also of those after a decision.
    """
    level, looks = plan.level, [n for n in plan.looks if n <= x.size]
    if final and x.size and x.size not in looks:
        looks.append(int(x.size))
    if not looks:
        return _nothing_yet(x, plan)
    draws = max(_DRAWS, min(99_999, math.ceil(20 / level)))
    signs = np.vstack([np.zeros(plan.budget), _paths(plan.budget, draws)])
    signs[0, : x.size] = np.sign(x)
    alive = np.ones(len(signs), dtype=bool)
    rejected, spent, p, nominal = 0, 0.0, 1.0, 0.0
    word: Word = "undecided"
    for n in looks:
        total = np.abs(signs[:, :n] @ _signed_ranks(x[:n]))
        share = 1.0 if final and n == x.size else n / plan.budget
        may = _SPENDING[plan.spending](share, level)
        p = (rejected + int((alive & (total >= total[0] - 1e-9)).sum())) / len(signs)
        critical = _critical(total[alive], math.floor(may * len(signs) * (1 + 1e-12)) - rejected)
        out = alive & (total >= critical)
        nominal = float((total >= critical).mean())
        rejected, spent = rejected + int(out.sum()), may
        if told is not None:
            told.append((n, may, nominal))
        elif out[0]:
            word = "better" if rank_effect(x[:n]).rank_biserial > 0 else "worse"
            break
        alive &= ~out
    interval = _repeated(x[:n], nominal)
    method = f"group-sequential, {plan.spending}, {draws} sampled sign paths"
    return SequentialLook(n, word, p, math.nan, level, spent, interval, method)


def _critical(values: FloatArray, may: int) -> float:
    """The smallest value that at most `may` of the values reach."""
    if may < 1:
        return math.inf
    ordered = np.sort(values)[::-1]
    if may >= ordered.size:
        return 0.0
    bound = ordered[may]  # this one must not be reached
    reached = ordered[:may][ordered[:may] > bound + 1e-9]
    return float(reached[-1]) - 1e-9 if reached.size else math.inf


def _repeated(x: FloatArray, nominal: float) -> Interval:
    if nominal <= 0:
        n = int(x.size)
        reason = "unbounded: no part of alpha can be spent at this look"
        return Interval(float(np.median(x)), -math.inf, math.inf, 1.0, n, "repeated", reason)
    return hodges_lehmann(x, confidence=1 - nominal)


def _nothing_yet(x: FloatArray, plan: SequentialPlan) -> SequentialLook:
    reason = f"the first look is at {plan.looks[0]} pairs, found {x.size}"
    interval = Interval(math.nan, -math.inf, math.inf, 1.0, int(x.size), "repeated", reason)
    return SequentialLook(0, "undecided", 1.0, math.nan, plan.level, 0.0, interval, "group-sequential")


def e_process(d: ArrayLike, *, scores: Literal["signs", "ranks"] = "ranks") -> FloatArray:
    """Capital of a gambler who bets on the signs of the differences, after each pair; it begins with 1.

    Parameters
    ----------
    d : array_like, shape (n,)
        In the order in which the pairs were run.
    scores : {"signs", "ranks"}
        Bet the same on every sign, or more where the size of the difference ranks high among those so far.

    Returns
    -------
    ndarray, shape (n,)
        If signs are fair coins given the sizes, the chance that it ever reaches 1 / alpha is at most alpha.
        Half of the capital bets on either side, in equal parts at each of five stakes. Zeros are no bet.

    References
    ----------
    Ramdas, Grunwald, Vovk and Shafer (2023), Stat. Sci. 38, 576-601; Waudby-Smith and Ramdas (2024), JRSS B
    86, 1-27.

    Examples
    --------
    >>> e_process([1.0, 2.0, 3.0], scores="signs").round(2).tolist()
    [1.0, 1.36, 2.07]
    """
    x = round_significant(one_dimensional(d))
    score = np.sign(x)
    if scores == "ranks":
        sizes = np.abs(x)
        below = np.array([(sizes[:i] < s).sum() + (sizes[:i] == s).sum() / 2 for i, s in enumerate(sizes)])
        score = score * (below + 1) / np.arange(1, x.size + 1)
    stakes = np.array(_STAKES)[:, None]
    up, down = np.cumprod(1 + stakes * score, axis=1), np.cumprod(1 - stakes * score, axis=1)
    return np.asarray((up.mean(axis=0) + down.mean(axis=0)) / 2, dtype=np.float64)


def _anytime(x: FloatArray, plan: SequentialPlan) -> SequentialLook:
    capital = e_process(x)
    p = min(1.0, 1 / float(capital.max()))
    word: Word = "undecided"
    n = int(x.size)
    if p <= plan.level:
        n = int(np.flatnonzero(capital >= 1 / plan.level)[0]) + 1
        word = "better" if rank_effect(x[:n]).rank_biserial > 0 else "worse"
    interval = _sequence(x, plan.level, shown=word)
    return SequentialLook(
        n, word, p, float(capital[-1]), plan.level, plan.level, interval, "anytime, bets on signs by rank"
    )


def _sequence(x: FloatArray, level: float, *, shown: Word) -> Interval:
    """Shifts that the bets never refuted, by bisection from the Hodges-Lehmann estimate outwards."""
    n = int(x.size)
    estimate = hodges_lehmann(x).estimate
    finite = x[np.isfinite(x)]
    method = "confidence sequence, inverts the bets"
    if math.isnan(estimate) or not math.isfinite(estimate) or not finite.size:
        return Interval(estimate, -math.inf, math.inf, 1 - level, n, method, "unbounded: diverged trials")

    def kept(theta: float) -> bool:
        return bool(e_process(x - theta).max() < 1 / level)

    wide = float(np.ptp(finite)) + abs(estimate) + 1e-300
    ends = []
    for side in (-1, 1):
        inside, outside = estimate, estimate + 2 * side * wide
        if kept(outside):
            ends.append(side * math.inf)
            continue
        for _ in range(40):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if kept(middle) else (inside, middle)
        ends.append(outside)
    low, high = ends
    if shown == "better":
        low = max(low, 0.0)
    elif shown == "worse":
        high = min(high, 0.0)
    reason = "unbounded: too few pairs" if math.isinf(low) or math.isinf(high) else None
    return Interval(estimate, low, high, 1 - level, n, method, reason)
