"""The answer: what every format says first, in three to six sentences.

Verdict, difference with its interval, p and the smallest that could be reached, on what it rests, what it
costs, and what is missing. The verdicts themselves are the statistics' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from optbench.report.text import CORRECTIONS, listed, p_value
from optbench.stats.verdict import TYPICAL
from optbench.task import Metric

Kind = Literal["verdict", "test", "sample", "cost", "missing"]
#: Most comparisons of a sentence with their numbers; the others are counted by verdict.
MOST_NAMED = 4
#: Reasons of mixed verdicts that are told.
MOST_EXPLAINED = 2
#: More workloads than this are counted, not named.
MOST_WORKLOADS = 3
#: Words that claim something, so that it is said of what.
CLAIMING = ("better", "worse", "equivalent")
#: Order of the verdicts in the answer.
WORDS = ("better", "worse", "mixed", "equivalent", "inconclusive", "crashed")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One comparison of the answer; numbers in the metric's own unit, positive is better.

    ``claim`` says of what better, worse and equivalent are said: in the typical run, or on average;
    ``left_open`` what they leave possible.
    """

    candidate: str
    baseline: str
    word: str
    estimate: float
    low: float
    high: float
    p: float
    smallest_p: float
    n: int
    reason: str = ""
    claim: str = TYPICAL
    left_open: str = ""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Comparisons about one matter, such as a workload; ``where`` is said after "on"."""

    where: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What was compared, in words, and how a difference of it is written."""

    name: str
    unit: str
    level: float
    together: bool = False
    write: Callable[[float], str]

    @property
    def interval(self) -> str:
        """What the intervals of several comparisons are called."""
        return f"{self.level:.0%} interval" + ("s that hold together" if self.together else "")

    def estimate(self, finding: Finding, *, unit: bool) -> str:
        """A difference, its unit where it is asked for, and its interval."""
        if not math.isfinite(finding.estimate):
            return "no mean difference, as trials diverged" if finding.n else "no pair"
        text = self.write(finding.estimate) + (f" {self.unit}" if unit and self.unit else "")
        if not (math.isfinite(finding.low) and math.isfinite(finding.high)):
            return text
        ends = f"[{self.write(finding.low)}, {self.write(finding.high)}]"
        return f"{text}, {self.level:.0%} interval {ends}" if unit else f"{text} {ends}"


def quantity_of(metric: Metric, *, alpha: float, correction: str) -> Quantity:
    """Describe a declared metric; shares are written in percentage points."""

    def write(value: float) -> str:
        return f"{value * metric.factor:+.{metric.digits}f}"

    unit = "percentage points" if metric.unit == "share" else metric.symbol
    together = correction not in ("none", "bh")
    return Quantity(name=metric.title, unit=unit, level=1 - alpha, write=write, together=together)


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One sentence of the answer; ``caution`` marks what may change how the others are read."""

    kind: Kind
    text: str
    caution: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a report says first."""

    sentences: tuple[Sentence, ...] = ()

    @property
    def text(self) -> str:
        """All sentences as one paragraph."""
        return " ".join(sentence.text for sentence in self.sentences)

    def __bool__(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.sentences)


def verdict_sentence(scope: Scope, quantity: Quantity, *, margin: float | None) -> str:
    """Write the comparisons about one matter, those with a difference first."""
    ordered = in_reading_order(scope.findings)
    if len(ordered) == 1:
        return _one(ordered[0], scope.where, quantity, margin)
    one_baseline = len({finding.baseline for finding in ordered}) == 1
    against = f", against {ordered[0].baseline}" if one_baseline else ""
    unit = f" in {quantity.unit}" if quantity.unit else ""
    heading = f"{quantity.name}{unit}, {quantity.interval}; positive is better{_claims(ordered)}"
    named = [
        f"{_name(finding, against=not one_baseline)} {finding.word}{_numbers(finding, quantity)}"
        for finding in ordered[:MOST_NAMED]
    ]
    listing = "; ".join([*named, *_counted(ordered[MOST_NAMED:])])
    mixed = [found.reason.rstrip(".") for found in ordered if found.word == "mixed" and found.reason]
    said = "".join(f" {reason[0].upper()}{reason[1:]}." for reason in mixed[:MOST_EXPLAINED])
    return f"On {scope.where}{against} ({heading}): {listing}.{said}{_left_open(ordered)}"


def in_reading_order(findings: Iterable[Finding]) -> list[Finding]:
    """Order comparisons by verdict, the largest difference first."""

    def place(finding: Finding) -> tuple[int, float]:
        return WORDS.index(finding.word), -abs(finding.estimate) if math.isfinite(finding.estimate) else 0.0

    return sorted(findings, key=place)


def _claims(findings: Sequence[Finding]) -> str:
    """Of what the words are said, where one of them claims something."""
    claims = dict.fromkeys(finding.claim for finding in findings if finding.word in CLAIMING)
    words = [word for word in CLAIMING if any(finding.word == word for finding in findings)]
    return f"; {listed(words)}: {' or '.join(claims)}" if claims else ""


def _name(finding: Finding, *, against: bool) -> str:
    return f"{finding.candidate} against {finding.baseline}" if against else finding.candidate


def _numbers(finding: Finding, quantity: Quantity) -> str:
    if finding.word == "crashed":
        return " in every trial"
    p = f", p {p_value(finding.p)}" if not math.isnan(finding.p) else ""
    return f", {quantity.estimate(finding, unit=False)}{p}"


def _counted(rest: Sequence[Finding]) -> list[str]:
    counts = {word: sum(found.word == word for found in rest) for word in WORDS}
    return [f"{count} more {word}" for word, count in counts.items() if count]


def _one(finding: Finding, where: str, quantity: Quantity, margin: float | None) -> str:
    candidate, baseline = finding.candidate, finding.baseline
    if finding.word == "crashed":
        return f"On {where} {finding.reason or f'every trial of {candidate} crashed: missing data'}."
    phrases = {
        "better": f"{candidate} is better than {baseline} {finding.claim}",
        "worse": f"{candidate} is worse than {baseline} {finding.claim}",
        "equivalent": f"{candidate} and {baseline} are equivalent {finding.claim}{_margin(quantity, margin)}",
        "mixed": f"{candidate} against {baseline} is mixed",
        "inconclusive": f"{candidate} against {baseline} is inconclusive",
    }
    p = f", p {p_value(finding.p)}" if not math.isnan(finding.p) else ""
    tail = f" ({finding.reason.rstrip('.')})" if finding.word == "mixed" and finding.reason else ""
    estimate = quantity.estimate(finding, unit=True)
    text = f"On {where} {phrases[finding.word]}: {quantity.name} {estimate}{p}{tail}."
    return text + _left_open([finding])


def _left_open(findings: Sequence[Finding]) -> str:
    """What the words that claim something leave possible, as a sentence of its own."""
    notes = {f.left_open for f in findings if f.word in CLAIMING and f.left_open}
    if len(notes) > 1:
        return " Runs that collapsed, and the rates that stay possible, stand below the table."
    return "".join(f" {note[0].upper()}{note[1:]}." for note in notes)


def _margin(quantity: Quantity, margin: float | None) -> str:
    if margin is None:
        return ""
    return f" within the margin of {quantity.write(margin).lstrip('+')} {quantity.unit}".rstrip()


def test_sentence(scopes: Sequence[Scope], *, how: str, correction: str, alpha: float) -> Sentence | None:
    """Say which test p is of, and the smallest p that it could have reached."""
    tested = [f for scope in scopes for f in scope.findings if f.n and not math.isnan(f.smallest_p)]
    if not tested:
        return None
    counts = {len([f for f in scope.findings if f.n]) for scope in scopes if scope.findings}
    several = max(counts)
    over = f" over {'' if len(counts) == 1 else 'up to '}{several} comparisons"
    corrected = f", after {CORRECTIONS[correction]}{over}" if correction != "none" and several > 1 else ""
    pairs = count_range([f.n for f in tested])
    worst, best = max(f.smallest_p for f in tested), min(f.smallest_p for f in tested)
    reach = " to ".join(dict.fromkeys([_small(best), _small(worst)]))
    noun = "pair" if pairs == "1" else "pairs"
    text = f"p: {how}{corrected}; the smallest that {pairs} {noun} can reach is {reach}"
    if best > alpha:
        text += f", so at the level {alpha:g} no test can reject, whatever the difference: run more seeds"
    elif worst > alpha:
        text += f"; where it is above {alpha:g} no test can reject: run more seeds"
    return Sentence(kind="test", text=f"{text}.", caution=worst > alpha)


def _small(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.2g}"


def count_range(counts: Sequence[int]) -> str:
    """Write counts as one number, or from the least to the largest."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def by_workload(scopes: Sequence[Scope], names: Sequence[str]) -> str:
    """Write the verdicts of single workloads: by name for a few, else counted; equal ones together."""
    workloads_by_pattern: dict[str, list[str]] = {}
    for name in names:
        found = [(s.where, f.word) for s in scopes for f in s.findings if f.candidate == name]
        if found:
            workloads_by_pattern.setdefault(_pattern(found), []).append(name)
    return "; ".join(f"{listed(alike)} {pattern}" for pattern, alike in workloads_by_pattern.items())


def _pattern(verdicts: Sequence[tuple[str, str]]) -> str:
    words = [word for word in WORDS if any(other == word for _, other in verdicts)]
    if len(words) == 1 and len(verdicts) > 1:
        return f"{words[0]} on each of {len(verdicts)}"
    if len(verdicts) <= MOST_WORKLOADS:
        where = {word: [where for where, other in verdicts if other == word] for word in words}
        return ", ".join(f"{word} on {listed(where[word])}" for word in words)
    counts = {word: sum(other == word for _, other in verdicts) for word in words}
    return f"{', '.join(f'{word} on {count}' for word, count in counts.items())} of {len(verdicts)}"
