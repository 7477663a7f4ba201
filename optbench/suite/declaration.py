"""What a suite declares before its first trial: analysis, seeds, workloads; with a hash, and as a file.

What is declared is what decides a verdict: the analysis with its question and looks, the seeds, the backends,
each workload with its targets and optimizers, and the search before the evaluation. Titles, comments, the
device and the engine are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optbench
from optbench.environment import now
from optbench.errors import UserError
from optbench.suite.report_spec import ReportSpec
from optbench.suite.validation import shown
from optbench.trial import STREAMS, OwnData, Seeds, to_plain

if TYPE_CHECKING:
    from optbench.suite.spec import Suite

#: Version of a declaration file's keys.
SCHEMA = "optbench-declaration-1"
_WRITES_ONE = "`optbench plan SUITE --freeze FILE` writes one"
Content = Mapping[str, Any]


class DeclarationError(UserError, ValueError):
    """A file that is no declaration, or one that says otherwise; the message names file and field."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A declaration as a file: of which suite, when it was written, its hash and content."""

    suite: str
    declared: str
    hash: str
    content: Content
    path: str


def declare(suite: Suite) -> Content:
    """What a suite declares, as JSON-ready content.

    Seeds and backends are those of its file, also where a part of them is run, and those beyond it.
    """
    seeds = tuple(dict.fromkeys((*suite.declared_seeds, *suite.seeds)))
    backends = tuple(dict.fromkeys((*suite.declared_backends, *suite.backends)))
    content = report_content(replace(suite, seeds=seeds, backends=backends).report_spec)
    workloads = content["workloads"]
    for entry in suite.workloads:
        plain = to_plain(entry.workload)
        if isinstance(entry.workload.dataset, OwnData):
            for name in ("location", "test_location"):
                plain["dataset"].pop(name, None)
        workloads[entry.label]["workload"] = plain
        workloads[entry.label]["goals"] = to_plain(entry.goals)
        workloads[entry.label]["optimizers"] = to_plain(entry.optimizers)
    tuning = {} if suite.tuning is None else {"tuning": to_plain(suite.tuning)}
    return {**content, "precision": suite.precision, **tuning}


def report_content(spec: ReportSpec) -> dict[str, Any]:
    """The part of a declaration that a report sees: of workloads targets and labels, no training."""
    analysis = to_plain(spec.analysis)
    analysis["baseline"] = spec.analysis.baseline or next(iter(spec.optimizers), None)
    analysis["question"] = spec.question
    if (design := spec.analysis.sequential) is not None:
        analysis["sequential"] = {
            "design": design.design,
            "looks": list(design.planned(len(spec.seeds))) if spec.seeds else [],
        }
    return {
        "analysis": analysis,
        "seeds": [_seed(seeds) for seeds in spec.seeds],
        "backends": list(spec.backends),
        "workloads": {
            entry.label: {"targets": to_plain(entry.targets), "optimizers": list(entry.optimizers)}
            for entry in spec.workloads
        },
    }


def _seed(seeds: Seeds) -> Any:
    values = {getattr(seeds, stream) for stream in STREAMS}
    return values.pop() if len(values) == 1 else to_plain(seeds)


def hash_of(content: Content) -> str:
    """SHA-256 of a declaration's content, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def changes(old: Content, new: Content) -> list[str]:
    """Name what differs between two declarations, or between one and what a report asks.

    What one of the two does not say (a field of another release, the training that no report sees) is no
    difference.

    Examples
    --------
    >>> changes({"analysis": {"alpha": 0.05}, "seeds": [0, 1]}, {"analysis": {"alpha": 0.1}, "seeds": [0]})
    ['alpha (0.05 to 0.1)', 'seeds (2 to 1)']
    """
    before, after = old.get("analysis", {}), new.get("analysis", {})
    names = ("baseline", "primary", "alpha", "margin", "correction", "question", "sequential")
    found = [
        f"{name} ({_word(before.get(name))} to {_word(after.get(name))})"
        for name in names
        if before.get(name) != after.get(name)
    ]
    for name in ("seeds", "backends"):
        left, right = old.get(name, []), new.get(name, [])
        if set(map(str, left)) != set(map(str, right)):
            numbers = (len(left), len(right)) if name == "seeds" else (_words(left), _words(right))
            same = name == "seeds" and len(left) == len(right)
            found.append(f"{name} (others)" if same else f"{name} ({numbers[0]} to {numbers[1]})")
    found += _workload_changes(old.get("workloads", {}), new.get("workloads", {}))
    both = "precision" in old and "precision" in new
    found += [name for name in ("precision", "tuning") if both and old.get(name) != new.get(name)]
    return found


def _workload_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = [f"workload {label} (added)" for label in new if label not in old]
    found += [f"workload {label} (taken out)" for label in old if label not in new]
    for label, entry in new.items():
        if (before := old.get(label)) is None:
            continue
        if "workload" in before and "workload" in entry and before["workload"] != entry["workload"]:
            keys = sorted({*before["workload"], *entry["workload"]})
            differ = [k for k in keys if before["workload"].get(k) != entry["workload"].get(k)]
            found.append(f"workload {label} ({_words(differ)})")
        if before.get("targets", {}) != entry.get("targets", {}):
            found.append(f"targets of {label}")
        if "goals" in before and "goals" in entry and before["goals"] != entry["goals"]:
            found.append(f"goals of {label}")
        left, right = before.get("optimizers", {}), entry.get("optimizers", {})
        found += [f"optimizer {name} on {label} (added)" for name in right if name not in left]
        found += [f"optimizer {name} on {label} (taken out)" for name in left if name not in right]
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += [f"optimizer {n} on {label}" for n in right if n in left and left[n] != right[n]]
    return found


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return _words(value.values())
    if isinstance(value, list):
        return f"looks at {_words(value)}"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _words(values: Iterable[Any]) -> str:
    return ", ".join(map(_word, values)) or "none"


def write(suite: Suite, path: Path) -> Published:
    """Write a suite's declaration to a file, to be published before the run.

    Raises
    ------
    DeclarationError
        If there is a file already, or it cannot be written.
    """
    content = declare(suite)
    entry = {
        "schema": SCHEMA,
        "suite": suite.name,
        "declared": now(),
        "hash": hash_of(content),
        "optbench": optbench.__version__,
        "content": content,
    }
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(entry, indent=1, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise DeclarationError(
            f"{path}: there is a file already, and a declaration is not written over; give another name"
        ) from None
    except OSError as error:
        raise DeclarationError(f"{path}: cannot be written ({error.strerror or error})") from None
    return read(path)


def read(path: Path) -> Published:
    """Read a declaration file and check its hash.

    Raises
    ------
    DeclarationError
        If it is none, or was edited.
    """
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeclarationError(f"{path}: cannot be read ({error.strerror or error}); {_WRITES_ONE}") from None
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
        raise DeclarationError(f"{path}: no declaration ({SCHEMA}); {_WRITES_ONE}")
    for name, kind in (("suite", str), ("declared", str), ("hash", str), ("content", dict)):
        if not isinstance(entry.get(name), kind):
            raise DeclarationError(
                f"{path}: {name}: found {shown(entry.get(name))}; take the file as written"
            )
    if (made := hash_of(entry["content"])) != entry["hash"]:
        raise DeclarationError(
            f"{path}: hash: found {entry['hash'][:16]}, its content has {made[:16]}: the "
            "file was edited; take it as it was published"
        )
    return Published(path=path.name, **{k: entry[k] for k in ("suite", "declared", "hash", "content")})


def check(suite: Suite, published: Published) -> None:
    """Refuse a suite that says otherwise than its published declaration.

    Raises
    ------
    DeclarationError
        With the fields that differ.
    """
    found = changes(published.content, declare(suite))
    if found or hash_of(declare(suite)) != published.hash:
        raise DeclarationError(
            f"{published.path}: the suite differs from this declaration of {published.declared} in "
            f"{'; '.join(found) or 'details'}; run the suite as declared, or leave out --declaration: the "
            "report then says what changed"
        )
