"""What a report says of its declaration, and of the looks before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optbench.records import declarations
from optbench.records.declarations import Declarations, State
from optbench.records.frames import Results
from optbench.report.text import NOT_RECORDED
from optbench.suite.declaration import Content, Published, changes, report_content
from optbench.suite.report_spec import ReportSpec
from optbench.suite.validation import visible

if TYPE_CHECKING:
    from optbench.report.analysis import Report


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What is known of when the analysis, seeds and workloads of a report were decided.

    Attributes
    ----------
    short : str
        For a column or a caption: "declared before the first trial", "changed after 40 of 56 trials: margin",
        or "not recorded".
    before : bool
        Whether all was declared before the first trial and the report asks just that.
    sentences : tuple of str
        The same with times and hashes, and how often verdicts were looked at.
    warnings : tuple of str
        Why p-values of a fixed n do not hold.
    differences : tuple of tuple of str
        By store: in what this report differs from the store's last declaration.
    part : bool
        Whether only some of the suite's workloads were read: then no verdict answers its question.
    """

    short: str
    before: bool
    sentences: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    differences: tuple[tuple[str, ...], ...] = ()
    part: bool = False


#: Of a report whose declaration could not be read.
UNKNOWN = Declared(short=NOT_RECORDED, before=False, sentences=())


def declared(results: Results, spec: ReportSpec, published: Published | None = None) -> Declared:
    """Say when what a report asks was declared.

    Parameters
    ----------
    results : Results
        The stores' facts are in its ``meta``.
    spec : ReportSpec
        What the report asks.
    published : Published, optional
        A declaration file that it is compared with.

    Returns
    -------
    Declared
    """
    stores = [declarations.read(meta) for meta in results.meta]
    several = len(stores) > 1
    parts = [
        _of_store(found, meta, results, spec, several=several)
        for found, meta in zip(stores, results.meta, strict=True)
    ]
    hashes = {found.states[-1].hash if found else None for found in stores}
    sentences = [
        f"{meta.get('suite', 'store')}: {text}" if several else text
        for part, meta in zip(parts, results.meta, strict=True)
        for text in part.sentences
    ]
    short, before = parts[0].short if parts else NOT_RECORDED, bool(parts) and all(p.before for p in parts)
    if several and not before:
        short = next(p.short for p in parts if not p.before)
    if several and len(hashes) > 1:
        short, before = "not declared together", False
        sentences.insert(0, "That these stores are analysed together was declared in none of them.")
    if results.left_out:
        short, before = "some of the workloads", False
    if published is not None:
        sentences.append(_published(published, results, spec))
    warnings = [text for part in parts for text in part.warnings]
    for signed in results.signatures:
        text = f"{signed.path.parent.name}: {signed.sentence}" if several else signed.sentence
        (warnings if signed.key is None else sentences).append(text)
    # Labels may come from an untrusted store.
    return Declared(
        short=visible(short),
        before=before,
        part=bool(results.left_out),
        sentences=tuple(map(visible, sentences)),
        warnings=tuple(dict.fromkeys(map(visible, warnings))),
        differences=tuple(p.differences[0] for p in parts),
    )


def _of_store(
    declarations: Declarations | None,
    meta: dict[str, str],
    results: Results,
    spec: ReportSpec,
    *,
    several: bool,
) -> Declared:
    if declarations is None:
        what = "The trials were imported; when" if meta.get("imported") else "When"
        text = f"{what} analysis, seeds and workloads were declared is not recorded."
        return Declared(short=NOT_RECORDED, before=False, sentences=(text,), differences=((),))
    now = () if several else tuple(_differences(declarations.states[-1].content, spec, results.left_out))
    sentences = [_first(declarations.states[0]), *(_later(state) for state in declarations.states[1:])]
    if now:
        seen = int((results.trials["status"] != "crashed").sum()) if len(results.trials) else 0
        sentences.append(
            f"This report asks otherwise than declared, after {_trials(seen, results.planned)}: "
            f"{'; '.join(now)}."
        )
    if declarations.unrecorded:
        sentences.append(f"Of {declarations.unrecorded} merged trials it is not recorded.")
    warnings = _warnings(declarations, now, results, spec)
    if looks := _looked(declarations):
        sentences.append(looks)
    short, before = _short(declarations, now, results)
    return Declared(
        short=short, before=before, sentences=tuple(sentences), warnings=tuple(warnings), differences=(now,)
    )


def _differences(content: Content, spec: ReportSpec, left_out: Sequence[str]) -> list[str]:
    """In what a report differs from what was declared; a part of the declared seeds and backends does not.

    Workloads that were left out when the store was read are no change: see ``Declared.part``.
    """
    here = report_content(spec)
    if left_out:
        entries = content.get("workloads", {})
        content = {**content, "workloads": {name: entries[name] for name in entries if name not in left_out}}
        here["analysis"]["question"] = content.get("analysis", {}).get("question")
    for name in ("seeds", "backends"):
        known = content.get(name, [])
        if all(value in known for value in here[name]):
            here[name] = known
    design = here["analysis"].get("sequential")
    before = content.get("analysis", {}).get("sequential")
    if design and before and len(here["seeds"]) == len(content.get("seeds", [])):
        named = spec.analysis.sequential
        assert named is not None
        design["looks"] = list(named.planned(len(here["seeds"])))
    return changes(content, here)


def _first(state: State) -> str:
    when = f"{state.at}, SHA-256 {state.hash[:16]}"
    if state.published:
        when += f", as published on {state.published} in {state.file}"
    if not state.seen:
        return f"Analysis, seeds and workloads were declared before the first trial ({when})."
    after = f"after {_trials(state.seen, state.planned)}"
    if state.forgotten:
        after += ", which were then removed (--fresh)"
    return f"What was declared is recorded only {after} ({when}); what was before is not recorded."


def _later(state: State) -> str:
    after = f"after {_trials(state.seen, state.planned)} ({state.at})"
    changed = "; ".join(state.changed)
    if state.forgotten:
        started_over = f"Started over {after}: they were seen, then removed (--fresh)"
        return f"{started_over}, and changed: {changed}." if changed else f"{started_over}."
    return f"Changed {after}: {changed or 'details'}."


def _trials(seen: int, planned: int) -> str:
    return f"{seen} of {max(seen, planned)} trials"


def _short(declarations: Declarations, now: Sequence[str], results: Results) -> tuple[str, bool]:
    first, later = declarations.states[0], declarations.states[1:]
    if first.seen or declarations.unrecorded:
        after = f"recorded only after {_trials(first.seen, first.planned)}" if first.seen else NOT_RECORDED
        return after, False
    if now:
        seen = int((results.trials["status"] != "crashed").sum()) if len(results.trials) else 0
        return f"changed after {_trials(seen, results.planned)}: {_names(now)}", False
    if later:
        state = later[-1]
        if state.changed:
            return f"changed after {_trials(state.seen, state.planned)}: {_names(state.changed)}", False
        return f"started over after {_trials(state.seen, state.planned)}", False
    return "declared before the first trial", True


def _names(changed: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(text.partition(" (")[0] for text in changed))


def _looked(declarations: Declarations) -> str:
    early = [look for look in declarations.looks if look.seen < look.planned]
    if not early:
        return ""
    times = "once" if len(early) == 1 else f"{len(early)} times"
    seen = ", ".join(f"{look.seen} of {look.planned}" for look in early[:6])
    more = ", ..." if len(early) > 6 else ""
    return f"Verdicts were looked at {times} before all trials had ended: after {seen}{more}."


def _warnings(
    declarations: Declarations, now: Sequence[str], results: Results, spec: ReportSpec
) -> list[str]:
    """Unplanned looks: seeds that were added after one, and a report before the end."""
    design = spec.analysis.sequential
    warnings = []
    grown = [
        (text, [look for look in declarations.looks if look.at <= state.at and look.seen])
        for state in declarations.states[1:]
        for text in state.changed
        if text.startswith("seeds")
    ]
    grown += [
        (text, [look for look in declarations.looks if look.seen]) for text in now if text.startswith("seeds")
    ]
    anytime = design is not None and design.design == "anytime"
    for text, looks in grown:
        if looks and not anytime:
            times = "a look" if len(looks) == 1 else f"{len(looks)} looks"
            warnings.append(
                f"The number of seeds was changed after {times} at verdicts: {text}, after "
                f"{_trials(looks[-1].seen, looks[-1].planned)}. P-values of a fixed n no longer hold: adding "
                "seeds until one is small finds a difference between equals in up to a fifth of cases. "
                "Declare `analysis: {sequential: ..}` and new seeds for a claim."
            )
    trials = results.trials
    seen = int((trials["status"] != "crashed").sum()) if len(trials) else 0
    declared_seeds = len(declarations.states[-1].content.get("seeds", ()))
    ran = trials["seed"].nunique() if len(trials) else 0
    if design is None and seen and (len(trials) < results.planned or ran < declared_seeds):
        part = f"{_trials(seen, results.planned)} and {ran} of {declared_seeds} declared seeds"
        warnings.append(
            f"An early look, after {part}: the p-values hold for the declared seeds, once all have run. To "
            "stop, or add seeds, because of a look takes `analysis: {sequential: ..}`."
        )
    return warnings


def _published(published: Published, results: Results, spec: ReportSpec) -> str:
    began = min(results.trials["started"]) if len(results.trials) else ""
    name = f"the declaration {published.path} ({published.declared}, SHA-256 {published.hash[:16]})"
    found = _differences(published.content, spec, results.left_out)
    for meta in results.meta:
        if (known := declarations.read(meta)) is not None:
            found += changes(published.content, known.states[-1].content)
    text = f"Other than in {name}: {'; '.join(dict.fromkeys(found))}." if found else f"As in {name}"
    if found:
        return text
    order = "before" if not began or published.declared <= began else "AFTER"
    return f"{text}, which is dated {order} the first trial{f' ({began})' if began else ''}."


def note_look(report: Report) -> list[str]:
    """Note in each store with a declaration that verdicts were shown; say where that was not possible."""
    if not any(c.n for board in report.boards for c in board.family.comparisons):
        return []
    pairs = zip(report.results.stores, report.declared.differences, strict=False)
    return [text for path, other in pairs if (text := declarations.record_look(path, asked=other))]


def as_json(found: Declared, results: Results) -> dict[str, Any]:
    """What a report's JSON keeps of it: the words, and every state and look of each store."""
    stores: list[dict[str, Any] | None] = []
    for meta in results.meta:
        if (known := declarations.read(meta)) is None:
            stores.append(None)
            continue
        states = [{k: v for k, v in vars(state).items() if k != "content"} for state in known.states]
        looks = [vars(look) for look in known.looks]
        stores.append({"states": states, "looks": looks, "unrecorded": known.unrecorded})
    return {
        "short": found.short,
        "before_the_first_trial": found.before,
        "sentences": list(found.sentences),
        "stores": stores,
    }
