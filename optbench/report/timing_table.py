"""The table of the timing passes: step, evaluation, compilation and memory of every optimizer."""

from __future__ import annotations

from collections.abc import Mapping

from optbench.records.frames import Results
from optbench.records.machines import machine_words
from optbench.records.step_times import PassTimes, median
from optbench.report.fair_times import SETTING, disturbed
from optbench.report.text import DASH, TextTable, Value, number

#: Columns of the table of timing passes, after their labels.
_PASS_COLUMNS = (
    "ms/step",
    "low",
    "high",
    "s/epoch",
    "evaluation, s",
    "compile, s",
    "state, kB",
    "host peak, MB",
    "of it the model, MB",
    "device peak, MB",
)


def pass_table(results: Results) -> TextTable | None:
    """Lay out the timing passes of what has trials; None without one."""
    trials = results.trials
    if not results.passes or "config" not in trials:
        return None
    several = [name for name in SETTING if trials[name].nunique() > 1]
    labels = trials.drop_duplicates("config")[["config", "workload", "optimizer", *several]]
    passes: dict[str, list[PassTimes]] = {}
    for entry in results.passes:
        passes.setdefault(entry.config, []).append(entry)
    names = {entry.machine: machine_words(entry.facts) for entry in results.passes}
    rows, values, shown = [], [], []
    for config, workload, optimizer, *setting in labels.itertuples(index=False):
        where = f" ({', '.join(setting)})" if setting else ""
        for entry in passes.get(config, ()):
            cells = _cells(entry)
            head = (workload + where, optimizer, *((names[entry.machine],) if len(names) > 1 else ()))
            rows.append((*head, *(text for text, _ in cells)))
            values.append((*head, *(value for _, value in cells)))
            shown.append(entry)
    if not rows:
        return None
    head = ("workload", "optimizer", *(("machine",) if len(names) > 1 else ()))
    return TextTable(
        title="Timing pass",
        columns=(*head, *_PASS_COLUMNS),
        rows=tuple(rows),
        notes=tuple(_pass_notes(shown, names)),
        details=frozenset(_PASS_COLUMNS[4:]),
        values=tuple(values),
    )


def _cells(entry: PassTimes) -> list[tuple[str, Value]]:
    step, evaluation = median(entry.step_seconds), median(entry.eval_seconds).value
    epoch = step.value * entry.steps_per_epoch
    host, start = entry.host_bytes, entry.host_start_bytes
    rise = host - start if host is not None and start is not None else None

    def megabytes(value: int | None) -> tuple[str, Value]:
        return (DASH, None) if value is None else (number(value / 1e6, 1), value / 1e6)

    return [
        (number(1000 * step.value, 4), 1000 * step.value),
        (number(1000 * step.low, 4), 1000 * step.low),
        (number(1000 * step.high, 4), 1000 * step.high),
        (number(epoch, 3), epoch),
        (number(evaluation, 4), evaluation),
        (number(entry.warm_up_seconds, 1), entry.warm_up_seconds),
        (number(entry.state_bytes / 1000, 1), entry.state_bytes / 1000),
        megabytes(host),
        megabytes(rise),
        megabytes(entry.device_bytes),
    ]


def _pass_notes(shown: list[PassTimes], names: Mapping[str, str]) -> list[str]:
    rounds = sorted({len(entry.step_seconds) for entry in shown})
    level = min(median(entry.step_seconds).level for entry in shown)
    where = f" on {next(iter(names.values()))}" if len(names) == 1 else ""
    notes = [
        f"Measured alone{where}, the optimizers of a workload in turns. Median over "
        f"{' or '.join(map(str, rounds))} rounds; low and high: the interval between order statistics that "
        f"covers the true median with at least {level:.0%}. Compile: once a process, in no step. Host peak: "
        "highest resident memory of a process that trains this alone, framework and data included."
    ]
    worst = max(shown, key=lambda entry: entry.busy or 0.0)
    return notes + ([disturbed(worst)] if worst.disturbed else [])
