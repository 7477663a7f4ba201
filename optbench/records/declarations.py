"""When a store's analysis, seeds and workloads were declared, how they changed, and who looked when.

Two entries of the store's facts, as JSON. ``declaration``: what the first run froze, and every later state
with the number of trials whose outcome had been stored by then. ``looks``: the reports with verdicts, which
matter where seeds are added after one. A store of an earlier release, or of imported trials, has neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from optbench.environment import now
from optbench.errors import UserError
from optbench.records.format import DamageError
from optbench.records.store import Store, StoreError, annotate
from optbench.suite.declaration import Content, Published, changes, declare, hash_of
from optbench.suite.spec import Suite
from optbench.tuning import journal

KEY, LOOKS = "declaration", "looks"


@dataclass(frozen=True, kw_only=True)
class State:
    """What was declared from ``at`` on.

    ``seen`` trials of ``planned`` had an outcome by then; ``changed`` names what differs from the state
    before. ``forgotten`` trials had been seen, and were taken out by ``--fresh``. ``file`` and ``published``
    are the name and date of a declaration that the run was checked against.
    """

    at: str
    hash: str
    seen: int
    planned: int
    content: Content
    changed: tuple[str, ...] = ()
    forgotten: int = 0
    file: str = ""
    published: str = ""


@dataclass(frozen=True, kw_only=True)
class Look:
    """A report with verdicts, on ``seen`` of ``planned`` trials; ``asked`` is other than declared in it."""

    at: str
    seen: int
    planned: int
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Declarations:
    """The states of a store's declaration, oldest first, and the looks.

    ``unrecorded`` trials came from merged stores without one.
    """

    states: tuple[State, ...]
    looks: tuple[Look, ...] = ()
    unrecorded: int = 0


def read(meta: Mapping[str, str]) -> Declarations | None:
    """Read what a store keeps; None where nothing is.

    Raises
    ------
    DamageError
        If it is nothing that a run wrote.
    """
    if not (text := meta.get(KEY)):
        return None
    try:
        plain = json.loads(text)
        states = tuple(State(**{**s, "changed": tuple(s["changed"])}) for s in plain["states"])
        looks = _looks(meta.get(LOOKS))
        if not states or not all(isinstance(s.content, dict) for s in states):
            raise ValueError("no state")
        return Declarations(states=states, looks=looks, unrecorded=int(plain.get("unrecorded", 0)))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise DamageError(f"meta entry {KEY!r}") from None


def _looks(text: str | None) -> tuple[Look, ...]:
    return tuple(Look(**{**look, "asked": tuple(look["asked"])}) for look in json.loads(text or "[]"))


def _write(declarations: Declarations) -> str:
    plain = asdict(declarations)
    del plain["looks"]
    return json.dumps(plain)


def counts(store: Store) -> tuple[int, int]:
    """Trials of the evaluation with an outcome, and those planned at least; tuning's are no part of it."""
    meta = store.meta()
    searched: set[str] = set()
    if (found := journal.read(meta)) is not None:
        searched = {key for key, *_ in found.trials()} | set(found.untuned)
    seen, planned = store.counts(searched)
    return seen, max(seen, planned)


def freeze(
    store: Store, suite: Suite, *, fresh: bool = False, published: Published | None = None
) -> Declarations:
    """Write down what a suite declares, before its trials run; a store that has it keeps what it has.

    Parameters
    ----------
    store : Store
        Open for writing, as the run before left it.
    suite : Suite
    fresh : bool
        The store's trials are about to be removed.
    published : Published, optional
        A declaration that the suite was checked against.

    Returns
    -------
    Declarations
        As long as no trial has an outcome, a new state takes the place of the old one.
    """
    content = declare(suite)
    seen, planned = counts(store)
    known = read(store.meta())
    file, date = ("", "") if published is None else (published.path, published.declared)
    state = State(
        at=now(),
        hash=hash_of(content),
        seen=seen,
        planned=planned,
        content=content,
        file=file,
        published=date,
    )
    if known is None:
        found = Declarations(states=(replace(state, forgotten=seen if fresh else 0),))
    else:
        known = _without_unused(known, state)
        last = known.states[-1]
        state = replace(state, changed=tuple(changes(last.content, content)))
        if seen and fresh:
            found = replace(known, states=(*known.states, replace(state, forgotten=seen)))
        elif state.hash == last.hash:
            named = replace(last, file=file, published=date) if file and not last.file else last
            found = replace(known, states=(*known.states[:-1], named))
        elif seen:
            found = replace(known, states=(*known.states, state))
        else:
            earlier = tuple(s for s in known.states if s.seen)
            found = replace(known, states=(*earlier, replace(state, changed=()) if not earlier else state))
    store.set_meta(**{KEY: _write(found)})
    return found


def _without_unused(known: Declarations, state: State) -> Declarations:
    """Take back what was declared in the meantime, where this is what stood before and nothing ran since."""
    for position, earlier in enumerate(known.states):
        later = known.states[position + 1 :]
        if earlier.hash == state.hash and later and all(s.seen == state.seen for s in later):
            return replace(known, states=known.states[: position + 1])
    return known


@contextmanager
def unless_nothing_runs(store: Store) -> Iterator[None]:
    """Leave a store's declaration and plan as they are where a run is refused before its first trial ends."""
    meta, rows, before = store.meta(), store.plan(), store.statuses()
    try:
        yield
    except UserError:
        if KEY in meta and store.statuses() == before:
            store.set_meta(**meta)
            store.set_plan(rows)
        raise


def record_look(path: Path, *, asked: Sequence[str]) -> str:
    """Note in a store that a report with verdicts was made of it.

    Parameters
    ----------
    path : Path
    asked : sequence of str
        In what the report's analysis is other than declared.

    Returns
    -------
    str
        Empty where it is noted, was noted before, or the store has no declaration; else why it could not be.
    """
    with Store(path) as store:
        path, meta = store.path, store.meta()
        if read(meta) is None or meta.get("smoke"):
            return ""
        seen, planned = counts(store)
    look = Look(at=now(), seen=seen, planned=planned, asked=tuple(asked))
    if not seen or _noted(look, _looks(meta.get(LOOKS))):
        return ""

    def add(text: str | None) -> str:
        return json.dumps([asdict(entry) for entry in (*_looks(text), look)])

    try:
        annotate(path, LOOKS, add)
    except StoreError as error:
        return f"This look at the verdicts could not be noted in the store ({error})."
    return ""


def _noted(look: Look, known: Sequence[Look]) -> bool:
    return any(replace(entry, at=look.at) == look for entry in known)


def joined(mine: Mapping[str, str], other: Mapping[str, str], trials: tuple[int, int]) -> dict[str, str]:
    """Facts of two stores of one suite that become one: all states and looks, in the order of time.

    Parameters
    ----------
    mine, other : mapping
        The stores' facts.
    trials : (int, int)
        How many trials each has; those of a store without a declaration are counted as unrecorded.
    """
    ours, theirs = read(mine), read(other)
    if ours is None and theirs is None:
        return {}
    lone = theirs if ours is None else ours
    assert lone is not None
    if ours is None or theirs is None:
        lost = trials[0] if ours is None else trials[1]
        found = replace(lone, unrecorded=lone.unrecorded + lost)
    else:
        states: list[State] = []
        for state in sorted((*ours.states, *theirs.states), key=lambda s: (s.seen > 0, s.at)):
            if not states or state.forgotten or state.hash != states[-1].hash:
                changed = changes(states[-1].content, state.content) if states else state.changed
                states.append(replace(state, changed=tuple(changed)))
        looks = sorted(dict.fromkeys((*ours.looks, *theirs.looks)), key=lambda look: look.at)
        found = Declarations(
            states=tuple(states), looks=tuple(looks), unrecorded=ours.unrecorded + theirs.unrecorded
        )
    looks_text = json.dumps([asdict(look) for look in found.looks])
    return {KEY: _write(found), LOOKS: looks_text}
