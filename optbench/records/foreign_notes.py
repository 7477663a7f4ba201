"""What was understood of runs of other tools, in sentences: notes of an import, and a dry run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from optbench.records.foreign_metrics import (
    check_testable,
    choose_primary,
    declared,
    declared_metrics_of,
    status_of,
    testable_metrics,
)
from optbench.records.logs import RunLog
from optbench.task import CustomMetric, Direction
from optbench.task import known as metric_of


def notes_of(logs: Iterable[RunLog]) -> Iterable[str]:
    """Say what was decided, left out and missing in reading some runs."""
    logs = list(logs)
    ignored = dict.fromkeys(name for log in logs for name in log.ignored)
    if ignored:
        yield f"Left out: {', '.join(ignored)} (--map NAME=METRIC takes a column in)."
    said: dict[str, tuple[str, list[str]]] = {}
    for log in logs:
        for note in log.notes:
            # One decision in many logs is one sentence, with the example of the first.
            _, sources = said.setdefault(re.sub(r"\(.*?\)", "", note), (note, []))
            if log.source not in sources:
                sources.append(log.source)
    for note, sources in said.values():
        yield f"{sources[0]}{f' and {len(sources) - 1} others' if len(sources) > 1 else ''}: {note}."
    shared = Counter(log.source for log in logs)
    for name in dict.fromkeys(name for log in logs for name in sorted(log.unfinished)):
        short = [log for log in logs if name in log.unfinished and log.status == "completed"]
        if short:
            first = short[0]
            run = f" (optimizer {first.optimizer}, dataset {first.dataset}, seed {first.seed})"
            where = f"{first.source}{run if shared[first.source] > 1 else ''}"
            yield f"{name}: {len(short)} of {len(logs)} runs lack their last values, as {where}."
    crashed = sum(log.status == "crashed" for log in logs)
    if crashed:
        yield f"{crashed} of {len(logs)} runs failed: they are missing from the pairs."
    lengths = {max(map(len, log.history.values())) - 1 for log in logs if log.history}
    if len(lengths) > 1:
        yield (
            f"Runs have from {min(lengths)} to {max(lengths)} epochs: stopped early, or a log was cut short?"
        )
    blocks: dict[tuple[str, str, int], set[str]] = {}
    for log in logs:
        blocks.setdefault((log.dataset, log.model, log.seed), set()).add(log.optimizer)
    optimizers = set().union(*blocks.values())
    lacking = [(key, optimizers - found) for key, found in blocks.items() if found != optimizers]
    if lacking:
        (dataset, _, seed), names = lacking[0]
        where = f"{dataset}, seed {seed} has no {min(names)}"
        yield f"{len(lacking)} of {len(blocks)} blocks lack an optimizer: {where}."


def described(logs: Sequence[RunLog], *, directions: Mapping[str, Direction] | None = None) -> list[str]:
    """Say what an import would make of some runs: what was understood, and what is missing or left out.

    Parameters
    ----------
    logs : sequence of RunLog
    directions : mapping of str to {"higher", "lower"}, optional
        What is better of metrics that are not known.

    Returns
    -------
    list of str
        Sentences, one a line.

    Raises
    ------
    ImportedError
        For what :func:`write` would refuse.
    """
    custom = declared_metrics_of(logs, directions or {}, {})
    testable = testable_metrics(custom)
    check_testable(logs, testable)
    primary, said = choose_primary(logs, testable)
    sources = dict.fromkeys((log.source, log.kind) for log in logs)
    kinds = Counter(kind for _, kind in sources)
    lines = [f"Files: {', '.join(f'{count} of format {kind}' for kind, count in kinds.items())}"]
    lines += [f"  {source} ({kind})" for source, kind in list(sources)[:10]]
    lines += [f"  and {len(sources) - 10} more"] * (len(sources) > 10)
    lines.append(f"Runs: {len(logs)}, of which {_outcomes(logs, primary)}")
    for title, name in (("Datasets", "dataset"), ("Models", "model"), ("Optimizers", "optimizer")):
        counted = Counter(str(getattr(log, name)) for log in logs if getattr(log, name))
        if counted:
            lines.append(
                f"{title}: {', '.join(f'{label} ({count} runs)' for label, count in counted.items())}"
            )
    seeds = sorted({log.seed for log in logs})
    lines.append(f"Seeds: {', '.join(map(str, seeds[:20]))}{' ...' if len(seeds) > 20 else ''}")
    lines.append("Metrics:")
    for name in dict.fromkeys(name for log in logs for name in declared(log)):
        lines.append(f"  {name}: {_metric_line(name, logs, custom, primary)}")
    return [*lines, *said, *notes_of(logs)]


def _outcomes(logs: Sequence[RunLog], primary: str) -> str:
    counted = Counter(status_of(log, primary) for log in logs)
    return ", ".join(f"{count} {status}" for status, count in counted.items())


def _metric_line(name: str, logs: Sequence[RunLog], custom: Mapping[str, CustomMetric], primary: str) -> str:
    """What is better of a metric, who has it, what is missing of it."""
    bare = name.partition("_")[2]
    if bare in custom:
        better = "smaller is better" if custom[bare].minimise else "larger is better"
    else:
        metric = metric_of(name)
        better = f"{metric.better} is better" if metric and metric.direction else "a fact, no merit"
    ended = sum(name in log.ends or name in log.metrics for log in logs)
    parts = [better, f"{ended} of {len(logs)} runs have a last value"] if name != "lr" else [better]
    short = sum(name in log.unfinished for log in logs)
    lost = sum(name in log.diverged for log in logs)
    parts += [f"missing in {short}"] * bool(short) + [f"NaN or an infinity in {lost}"] * bool(lost)
    return ", ".join(parts) + (": tested by the report" if name == primary else "")
