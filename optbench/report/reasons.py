"""Notes on comparisons that verdicts and numbers do not show: reasons, smallest p, and missing runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from optbench.report.effect import CUT_ENDS, shown_difference
from optbench.report.text import listed, short
from optbench.stats.families import PairedComparison
from optbench.stats.verdict import TYPICAL, Verdict

#: Words whose reason no column shows.
_EXPLAINED = ("mixed", "equivalent")
#: Comparisons with another reach than most are named up to this many.
_MOST_NAMED = 3


def reasons(comparisons: Sequence[PairedComparison]) -> list[str]:
    """Sentences of the verdicts that numbers alone do not explain, and of what missing runs could change.

    Parameters
    ----------
    comparisons : sequence of PairedComparison

    Returns
    -------
    list of str
    """
    sentences = []
    for c in comparisons:
        if c.verdict.word == "crashed":
            continue
        identical = c.signed_rank is not None and c.n > 0 and c.signed_rank.n_zeros == c.n
        if c.verdict.word in _EXPLAINED or c.crossed is not None or identical:
            sentences.append(f"{c.candidate}: {c.verdict.word}. {c.verdict.reason}")
        if c.average is not None and math.isnan(c.average.estimate) and c.crossed is None:
            sentences.append(
                f"{c.candidate}: no mean difference, as {c.n_diverged_candidate} of its and "
                f"{c.n_diverged_baseline} of {c.baseline}'s trials diverged; ranks decide, a diverged trial "
                "last."
            )
        if c.sensitivity is not None:
            sentences.append(f"{c.candidate} against {c.baseline}: {c.sensitivity.sentence}.")
    if any(shown_difference(c).cut for c in comparisons):
        sentences.append(CUT_ENDS)
    return sentences + unseen(comparisons)


def unseen(comparisons: Sequence[PairedComparison]) -> list[str]:
    """Of what better and worse are said, and what they leave open; empty where neither is said."""
    said = [c for c in comparisons if c.verdict.word in ("better", "worse") and c.verdict.claim == TYPICAL]
    told = left_open((c.candidate, c.verdict) for c in said)
    if not told:
        return []
    return [
        f"Better and worse are about the typical run: {told}; nothing is claimed of a mean that collapses "
        "not seen here would carry."
    ]


def left_open(verdicts: Iterable[tuple[str, Verdict]]) -> str:
    """What verdicts that claim something leave possible: once where it is the same for all, else by name.

    Examples
    --------
    >>> left_open([("wame", Verdict("better", "", "in the typical run", "no run of 9 collapsed"))])
    'no run of 9 collapsed'
    """
    notes: dict[str, list[str]] = {}
    for name, verdict in verdicts:
        if verdict.left_open:
            notes.setdefault(verdict.left_open, []).append(name)
    if len(notes) < 2:
        return "".join(notes)
    return "; ".join(f"{listed(list(dict.fromkeys(names)))} ({note})" for note, names in notes.items())


def reach(comparisons: Iterable[tuple[str, PairedComparison]]) -> str:
    """The smallest adjusted p that comparisons could have reached, those that differ named.

    Parameters
    ----------
    comparisons : iterable of (str, PairedComparison)
        Each with a name of its own.

    Returns
    -------
    str
        Such as "0.00781 (0.0312 for divide)"; empty where none could be made.
    """
    groups: dict[float, list[str]] = {}
    for name, c in comparisons:
        if c.n and not math.isnan(c.smallest_adjusted_p):
            groups.setdefault(c.smallest_adjusted_p, []).append(name)
    if not groups:
        return ""
    most = max(groups, key=lambda p: (len(groups[p]), -p))
    others = sorted((p, names) for p, names in groups.items() if p != most)
    exceptions = [f"{short(p)} for {_named(names)}" for p, names in others]
    return short(most) + (f" ({'; '.join(exceptions)})" if exceptions else "")


def _named(names: Sequence[str]) -> str:
    return listed(names) if len(names) <= _MOST_NAMED else f"{len(names)} others"
