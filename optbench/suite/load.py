"""Suite files: from YAML to the frozen specs of every trial.

The schema is made of the frozen dataclasses that the trials themselves consist of; this module adds what only
a suite has, and :mod:`optbench.suite.entries` reads what stands under it (labels, grids, lists of seeds).
Every error names the file, the line, the field, what was found and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from annotated_types import Gt, MinLen

from optbench.models.own import TITLES
from optbench.optimizers import FAMILIES, OptimizerConfig
from optbench.suite import declared
from optbench.suite.entries import (
    SuiteWorkload,
    optimizers_of,
    refuse_equal_titles,
    seeds_of,
    titles_of,
    workloads_of,
)
from optbench.suite.expand import tuning_total
from optbench.suite.report_spec import Analysis
from optbench.suite.shipped import find_shipped, suggest
from optbench.suite.spec import EngineOptions, Suite, SuiteError
from optbench.suite.tuning_section import Tuning, read_tuning
from optbench.suite.validation import (
    InvalidError,
    Problem,
    dotted,
    listed,
    names,
    parse,
    problem,
    shown,
    unknown_choice,
    visible,
)
from optbench.task import FORBID_EXTRA, TASKS, CustomMetric, UndeclaredError
from optbench.trial import (
    STREAMS,
    BackendName,
    DeviceName,
    Precision,
    Seeds,
)
from optbench.tuning.space import assembled, drawn_axes, with_others

if TYPE_CHECKING:
    from optbench.suite.yamlfile import KeyPath, Source

T = TypeVar("T")

BACKENDS = get_args(BackendName)
#: A larger plan is a typo, and listing it would take minutes.
MOST_TRIALS = 1_000_000
#: Problems that a message names.
MOST_PROBLEMS = 40
#: Aliases of a choice.
ALSO_CALLED = {"gpu": "cuda"}
#: Bytes of a suite's name, which becomes a folder: disks allow 255, and reports add words of their own.
LONGEST_NAME = 200
_PLAIN = "write text without control characters"
DEVICES = ("auto", *get_args(DeviceName))


@dataclass(frozen=True, kw_only=True)
class SuiteFile:
    """The top level of a suite file; entries with labels and grids of their own are checked one by one.

    Attributes
    ----------
    suite : str
        Folder of its results: letters, digits, `-`, `_` and `.`.
    title : str
        Display name.
    workloads : list
        What is trained.
    optimizers : mapping
        By label: hyperparameters of the family of that name, or of that under `optimizer`; or `class`.
    seeds : int, list or mapping
        So many from 0, or which; or both for each random stream, which are crossed, the others 0.
    backends : list
        Frameworks.
    device : str
        Where trials run; `auto` takes the fastest here.
    precision : str
        Of matrix products and convolutions.
    metrics : mapping
        Measures of your own, by name: `{class: file.py:function, minimise: true}`; a known name, such as
        `brier_score`, has its direction by itself: `brier_score: file.py:function`.
    analysis : mapping
        What the report tests.
    engine : mapping
        How trials are trained; part of no trial's identity.
    tuning : mapping
        An equal search budget for every optimizer, spent before the evaluation.
    max_trials : int
        A plan of more trials is refused.
    """

    __pydantic_config__ = FORBID_EXTRA

    suite: Annotated[str, MinLen(1)]
    title: str = ""
    workloads: Annotated[list[Any], MinLen(1)]
    optimizers: dict[str, Any]
    seeds: Any = 5
    backends: Annotated[list[BackendName], MinLen(1)] = field(default_factory=lambda: ["torch"])
    device: Literal["auto", "cpu", "cuda", "mps", "tpu"] = "auto"
    precision: Precision = "float32"
    metrics: Any = None
    analysis: Any = None
    engine: EngineOptions = EngineOptions()  # noqa: RUF009 (frozen)
    tuning: Any = None
    max_trials: Annotated[int, Gt(0)] | None = None


def load_suite(path: str | Path) -> Suite:
    """Read and check a suite file.

    Parameters
    ----------
    path : str or Path
        A YAML file; its schema is in docs/suite.md. Or the name of a suite that comes with optbench, such as
        ``quick``, where there is no file or folder of that name.

    Returns
    -------
    Suite
        Everything resolved: labels, grids, defaults, models built once to see that they fit the data.

    Raises
    ------
    SuiteError
        If the file is missing, not YAML, or not a suite. The message names file, line and field.
    """
    from optbench.suite.yamlfile import YamlError, read  # here, as a report of a store reads no suite

    path = find_shipped(Path(path))
    try:
        source = read(path)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror or error}); {suggest(path)}") from None
    except YamlError as error:
        raise SuiteError(f"{path}:{error.line}: {error}") from None
    return suite_from_source(source)


def suite_from_source(source: Source) -> Suite:
    """Check data read from a suite file; see :func:`load_suite`."""
    try:
        return _resolve(source)
    except InvalidError as error:
        named = error.problems[:MOST_PROBLEMS]
        lines = [f"{source.place(p.path)}: {dotted(p.path)}: {p.message}" for p in named]
        if more := len(error.problems) - len(named):
            lines.append(f"{source.path}: and {more:,} more problems, named once these are mended")
        raise SuiteError("\n".join(lines)) from None


def parse_seeds(entry: Any, *, option: str) -> tuple[Seeds, ...]:
    """Read seeds given elsewhere than in a file; the error names the option."""
    try:
        return seeds_of(entry)
    except InvalidError as error:
        raise SuiteError(f"{option}: {error.problems[0].message}") from None


def known_choice(option: str, word: str, choices: Iterable[str]) -> str:
    """Check a word given on the command line against the choices and their aliases."""
    known = list(choices)
    if (meant := ALSO_CALLED.get(word)) in known:
        return str(meant)
    if word in known:
        return word
    name, _, number = word.partition(":")
    if name in ("cuda", "gpu") and number.isdigit() and "cuda" in known:
        raise SuiteError(
            f"{option}: found {word!r}; choose a GPU by CUDA_VISIBLE_DEVICES={number}, with cuda"
        )
    raise SuiteError(f"{option}: {unknown_choice(word, known, (), what='value').message}")


def _resolve(source: Source) -> Suite:
    if not isinstance(source.data, dict):
        raise problem((), f"found {shown(source.data)}; a suite is a mapping of {listed(names(SuiteFile))}")
    if beyond := [*_numbers_beyond(source.data, ()), *_unseen(source.data, ())]:
        raise InvalidError(beyond)
    parts = _read_parts(source)
    file, optimizers, workloads = parts.file, parts.optimizers, parts.workloads
    analysis, seeds, titles = parts.analysis, parts.seeds, parts.titles
    if not isinstance(file.analysis, dict) or "primary" not in file.analysis:
        analysis = replace(analysis, primary=_primary(workloads))
    refuse_equal_titles((("optimizers", label), label, titles.get(label, "")) for label in optimizers)
    refuse_equal_titles((("workloads",), entry.label, entry.title) for entry in workloads)
    _refuse_own_networks(workloads, file.backends)
    tuning = None
    if file.tuning is not None:
        tuning = read_tuning(file.tuning, optimizers, {w.label: w.workload for w in workloads}, seeds)
        _check_networks(tuning, workloads)
    _check_size(file, workloads, seeds, tuning)
    suite = Suite(
        name=file.suite,
        title=file.title or file.suite,
        path=source.path,
        text=source.text,
        workloads=tuple(workloads),
        seeds=seeds,
        backends=tuple(dict.fromkeys(file.backends)),
        device=file.device,
        precision=file.precision,
        analysis=analysis,
        engine=file.engine,
        tuning=tuning,
        titles=tuple(titles.items()),
        declared_seeds=seeds,
        declared_backends=tuple(dict.fromkeys(file.backends)),
    )
    _check_metrics(suite)
    return suite


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Parts of a suite file, each checked by itself."""

    file: SuiteFile
    optimizers: Mapping[str, OptimizerConfig]
    workloads: Sequence[SuiteWorkload]
    analysis: Analysis
    seeds: tuple[Seeds, ...]
    titles: Mapping[str, str]


def _read_parts(source: Source) -> _Parts:
    """Read the parts of a suite file; what is wrong in any of them is reported together."""
    found = _Problems()
    file = found.of(lambda: parse(SuiteFile, source.data))
    folder = source.path.parent
    raw = _Raw.of(source.data)
    if file is not None:
        _check_name(file.suite, found)
    named = raw.optimizers
    optimizers = None if named is None else found.of(lambda: optimizers_of(named, folder))
    metrics: Mapping[str, CustomMetric] | None = {}
    if raw.metrics is not None:
        metrics = found.of(lambda: declared.metrics(raw.metrics, ("metrics",), folder))
    titles = found.of(lambda: titles_of(named or {})) or {}
    workloads = None
    if raw.workloads is not None and metrics is not None:
        # Where the optimizers are wrong, what workloads say of them cannot be judged.
        keys = () if optimizers is not None else ("optimizers",)
        known = optimizers or {"sgd": FAMILIES["sgd"].config()}
        entries = raw.workloads if optimizers is not None else [_without(e, keys) for e in raw.workloads]
        workloads = found.of(lambda: workloads_of(entries, known, metrics, folder))
    analysis = found.of(lambda: declared.analysis(raw.analysis, ("analysis",)))
    if analysis is not None and optimizers and analysis.baseline not in (None, *optimizers):
        found.problems.append(
            unknown_choice(analysis.baseline, optimizers, ("analysis", "baseline"), what="optimizer")
        )
    seeds = found.of(lambda: seeds_of(raw.seeds))
    if analysis is not None and seeds is not None and workloads is not None:
        question = partial(_check_question, analysis, seeds, workloads)
        found.of(question)
    found.end()
    if file is None or optimizers is None or workloads is None or analysis is None or seeds is None:
        raise AssertionError("a part is missing without an error")
    return _Parts(
        file=file,
        optimizers=optimizers,
        workloads=workloads,
        analysis=analysis,
        seeds=seeds,
        titles=titles,
    )


def _check_name(name: str, found: _Problems) -> None:
    """Note what keeps a suite's name from being the name of its folder."""
    if not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        found.add(("suite",), f"found {name!r}; the name becomes a folder: letters, digits, '-', '_' and '.'")
    if len(name.encode()) > LONGEST_NAME:
        what = f"found {len(name)} characters; a folder's name has {LONGEST_NAME} at most"
        found.add(("suite",), what)


def _check_size(
    file: SuiteFile, workloads: Sequence[SuiteWorkload], seeds: Sequence[Seeds], tuning: Tuning | None
) -> None:
    """Refuse a suite of more trials than can be planned, or than its own limit."""
    total = sum(len(w.optimizers) for w in workloads) * len(seeds) * len(set(file.backends))
    searched = tuning_total(tuning, workloads)
    if tuning is not None and tuning.untuned:
        total *= 2
    if total > MOST_TRIALS:
        raise problem(
            ("workloads",),
            f"times optimizers, {len(seeds)} seeds and {len(set(file.backends))} backends are {total:,} "
            f"trials; at most {MOST_TRIALS:,} are allowed: take out seeds, optimizers or workloads",
        )
    if file.max_trials is not None and (searched is None or total + searched > file.max_trials):
        tuned = f"; tuning: {'any number' if searched is None else searched}" if tuning else ""
        raise problem(
            ("max_trials",),
            f"the suite declares {total + (searched or 0)} trials (workloads x optimizers, {len(seeds)} "
            f"seeds, {len(set(file.backends))} backends{tuned}), but its budget is {file.max_trials}; "
            "take out seeds, optimizers or workloads",
        )


class _Problems:
    """Collects the errors of all parts of a file, so that they are reported together."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def of(self, read: Callable[[], T]) -> T | None:
        """Read a part; None where it is wrong."""
        try:
            return read()
        except InvalidError as error:
            self.problems += error.problems
            return None

    def add(self, path: KeyPath, message: str) -> None:
        """Note one thing that is wrong."""
        self.problems.append(Problem(path=path, message=message))

    def end(self) -> None:
        """Raise what was found, each once."""
        if self.problems:
            raise InvalidError(list(dict.fromkeys(self.problems)))


@dataclass(frozen=True, kw_only=True)
class _Raw:
    """Parts of a file whose kind is right, so that they can be checked though others are wrong."""

    optimizers: dict[str, Any] | None
    workloads: list[Any] | None
    metrics: Any
    analysis: dict[str, Any] | None
    seeds: Any

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> _Raw:
        optimizers, workloads = data.get("optimizers"), data.get("workloads")
        analysis = data.get("analysis")
        return cls(
            optimizers=optimizers if isinstance(optimizers, dict) else None,
            workloads=workloads if isinstance(workloads, list) and workloads else None,
            metrics=data.get("metrics"),
            analysis=analysis,
            seeds=data.get("seeds", SuiteFile.__dataclass_fields__["seeds"].default),
        )


def _without(entry: Any, keys: Sequence[str]) -> Any:
    return {k: v for k, v in entry.items() if k not in keys} if isinstance(entry, dict) else entry


def _numbers_beyond(value: Any, path: KeyPath) -> list[Problem]:
    """Refuse numbers beyond what any framework can hold, in any field."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, item in entries for found in _numbers_beyond(item, (*path, key))]
    if isinstance(value, float) and not math.isfinite(value):
        return [Problem(path=path, message=f"found {shown(value)}; write a finite number")]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return [Problem(path=path, message=f"found {shown(value)}; a whole number has at most 63 bits")]
    return []


def _primary(workloads: Sequence[SuiteWorkload]) -> str:
    """The primary metric of the workloads' task, where the suite names none."""
    tasks = dict.fromkeys(entry.workload.task for entry in workloads)
    if len(tasks) > 1:
        raise problem(
            ("analysis", "primary"),
            f"is missing; the workloads ask for {listed(tasks)}, which share test_loss alone: name that, or "
            "a custom metric of all, or make a suite a task",
        )
    return TASKS[next(iter(tasks))].primary


def _unseen(value: Any, path: KeyPath) -> list[Problem]:
    """Refuse control characters and lone surrogates in any field."""
    if isinstance(value, dict):
        keys = [text for text in value if visible(text) != text]
        found = [Problem(path=(*path, visible(key)), message=f"found {shown(key)}; {_PLAIN}") for key in keys]
        return found + [p for key, item in value.items() for p in _unseen(item, (*path, visible(key)))]
    if isinstance(value, list):
        return [found for k, item in enumerate(value) for found in _unseen(item, (*path, k))]
    if isinstance(value, str) and visible(value, lines=True) != value:
        return [Problem(path=path, message=f"found {shown(value)}; {_PLAIN}")]
    return []


def _check_question(analysis: Analysis, seeds: Sequence[Seeds], workloads: Sequence[SuiteWorkload]) -> None:
    """Refuse a question about several workloads where there is one, and a design that does not fit it."""
    if analysis.question in ("these", "new") and len(workloads) < 2:
        raise problem(
            ("analysis", "question"),
            f"found {analysis.question!r}, a question about several workloads, and the suite has one: write "
            "`each`",
        )
    design = analysis.sequential
    if design is None:
        return
    place = ("analysis", "sequential")
    if analysis.question == "new":
        raise problem(
            place,
            "a sequential design adds seeds, and on new workloads the unit is the workload; take "
            "`question: these` or `each`, or leave it out",
        )
    if any(1 < len({getattr(s, stream) for s in seeds}) < len(seeds) for stream in STREAMS):
        raise problem(place, "the seeds of several streams are crossed, and so not independent; list them")
    looks = design.looks or ()
    if len(seeds) < 2 or any(a >= b for a, b in pairwise(looks)) or (looks and looks[-1] > len(seeds)):
        raise problem(
            (*place, "looks"),
            f"found {list(looks) or 'none'} with {len(seeds)} seeds; allowed are ascending numbers of seeds "
            "up to that, of 2 seeds or more",
        )


def _check_metrics(suite: Suite) -> None:
    """Refuse a primary metric that some workload lacks, and one name with two directions."""
    try:
        primaries = suite.report_spec.primaries
    except UndeclaredError as error:
        raise problem(("metrics",), str(error)) from None
    primary = suite.analysis.primary
    if primary not in primaries:
        raise InvalidError([unknown_choice(primary, primaries, ("analysis", "primary"), what="metric")])
    for entry in suite.workloads:
        own = [name for metric in entry.workload.metrics or () for name in metric.columns()]
        if primary not in (*TASKS[entry.workload.task].primaries, *own):
            raise problem(
                ("analysis", "primary"),
                f"found {primary!r}, which workload {entry.label} lacks; declare it at the top of the suite",
            )


def _refuse_own_networks(workloads: Sequence[SuiteWorkload], backends: Sequence[str]) -> None:
    """Refuse a network of one framework with the backend of another, which cannot train it."""
    for number, entry in enumerate(workloads):
        own = entry.workload.model.own
        others = [] if own is None else [name for name in backends if name != own.framework]
        if own is not None and others:
            raise problem(
                ("workloads", min(number, len(workloads) - 1), "model"),
                f"{own.reference} is {TITLES[own.framework]}, which {others[0]} cannot train; set backends: "
                f"[{own.framework}], or return layers of optbench.models.layers",
            )


def _check_networks(tuning: Tuning, workloads: Sequence[SuiteWorkload]) -> None:
    """Build every workload with the ends of every searched key once, so that none fails in mid-run."""
    lists = [axis for axis in tuning.network if axis.of is not None]
    for entry in workloads:
        tried = [
            (axis.name, with_others([axis], {axis.name: axis.at(k / count if axis.choices else float(k))}))
            for axis in tuning.network
            if axis.of is None
            for count in [len(axis.choices) or 2]
            for k in range(count)
        ]
        for u in (0.0, 1.0) if lists else ():  # lists that are as long as others go together
            values = assembled(lists, {part.name: part.at(u) for part in drawn_axes(lists)})
            tried.append((lists[0].name, with_others(lists, values)))
        for name, values in tried:
            assert entry.vary is not None
            try:
                entry.vary(values)
            except InvalidError as error:
                drawn = ", ".join(f"{key}: {shown(value)}" for key, value in values.items())
                found = f"{drawn} does not suit workload {entry.label}: {error.problems[0].message}"
                raise problem(("tuning", "network", name), found) from None
