"""Prove an optimizer: against golden vectors, the NumPy reference, the other frameworks, and itself.

``run`` gathers the findings, ``render`` turns them into rich tables. For a custom class, which has no
reference, it runs all that needs none.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

from rich.console import Group
from rich.table import Table
from rich.text import Text

from optbench.errors import UserError
from optbench.optimizers import FAMILIES, Custom, OptimizerConfig, custom
from optbench.verification import checks
from optbench.verification.checks import Check
from optbench.verification.problems import Arrays
from optbench.verification.steppers import BACKENDS, missing, session


class VerifyError(UserError, ValueError):
    """An optimizer or backend that cannot be verified."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The checks of one optimizer, and where its epsilon stands."""

    title: str
    checks: tuple[Check, ...]
    epsilon: str = ""


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """What was found, by optimizer."""

    sections: tuple[Section, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed, and at least one passed."""
        results = [check.passed for section in self.sections for check in section.checks]
        return False not in results and True in results

    @property
    def failures(self) -> tuple[Check, ...]:
        """Checks that failed."""
        return tuple(c for section in self.sections for c in section.checks if c.passed is False)


def run(
    name_or_class: str | None = None,
    *,
    backends: list[str] | None = None,
    base_dir: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> VerificationReport:
    """Verify one optimizer, or every canonical one.

    Parameters
    ----------
    name_or_class : str, optional
        A family's name, ``package.module:Class`` or ``file.py:Class``; all families without it.
    backends : list of str, optional
        Of torch, tensorflow, jax; without it those that are installed, and for a class the one it belongs to.
    base_dir : Path, optional
        Where a file is looked for; the working directory without it.
    progress : callable, optional
        Called with a line before each part.

    Returns
    -------
    VerificationReport

    Raises
    ------
    VerifyError
        If the optimizer or a backend is unknown, or a backend that was asked for is not installed.

    Examples
    --------
    >>> report = run("sgd", backends=["torch"])  # doctest: +SKIP
    >>> report.passed  # doctest: +SKIP
    True
    """
    say = progress or (lambda line: None)
    wanted = list(dict.fromkeys(backends or BACKENDS))
    for backend in wanted:
        if backend not in BACKENDS:
            raise VerifyError(f"unknown backend {backend!r}; choose from {', '.join(BACKENDS)}")
    absent = {backend: reason for backend in wanted if (reason := missing(backend))}
    if backends and absent:
        raise VerifyError("; ".join(f"backend {backend}: {reason}" for backend, reason in absent.items()))
    present = [backend for backend in wanted if backend not in absent]
    skipped = [Check(name="all", backend=b, passed=None, figure=f"skipped: {r}") for b, r in absent.items()]
    if name_or_class is not None and name_or_class not in FAMILIES:
        return VerificationReport(
            sections=(_class(name_or_class, backends, present, base_dir or Path.cwd(), say),)
        )
    names = FAMILIES if name_or_class is None else [name_or_class]
    sections = [
        Section(
            title=FAMILIES[name].title,
            checks=(*_collect(_family(name, present, say)), *skipped),
            epsilon=FAMILIES[name].epsilon,
        )
        for name in names
    ]
    return VerificationReport(sections=tuple(sections))


def render(report: VerificationReport) -> Group:
    """Lay a report out for a rich console: one table an optimizer, and a last line."""
    parts: list[Table | Text] = []
    for section in report.sections:
        caption = f"Epsilon: {section.epsilon}." if section.epsilon else None
        table = Table(title=section.title, title_justify="left", caption=caption, caption_justify="left")
        for heading in ("check", "backend", "found", "bar", ""):
            table.add_column(heading, overflow="fold")
        for check in section.checks:
            mark = {True: "[green]pass", False: "[bold red]FAIL", None: "[dim]-"}[check.passed]
            cells = (check.name, check.backend, check.figure, check.bar)
            table.add_row(*(Text(cell) for cell in cells), mark)
        parts.append(table)
    results = [check.passed for section in report.sections for check in section.checks]
    counts = (
        f"{results.count(True)} passed, {results.count(False)} failed, {results.count(None)} without a bar"
    )
    parts.append(Text(counts, style="green" if report.passed else "bold red"))
    return Group(*parts)


def _family(name: str, backends: list[str], say: Callable[[str], None]) -> Iterator[Check]:
    family = FAMILIES[name]
    cases = family.cases()
    ends: dict[str, list[Arrays]] = {backend: [] for backend in backends}
    for backend in backends:
        say(f"{name} on {backend}")
        with session(backend):
            if family.verification.checks is not None:
                yield from resolve_name(family.verification.checks)(backend, cases)
            yield from checks.trajectories(family.all_cases(), backend, ends[backend])
            yield from checks.invariances(checks.settings_for_invariances(cases[0]), backend)
            if backend == "torch":
                yield from checks.torch_only(cases[0])
                yield _step_time(cases[0])
    if len(backends) > 1:
        yield from checks.cross_backend(ends)


def _class(
    reference: str,
    requested: list[str] | None,
    present: list[str],
    base_dir: Path,
    say: Callable[[str], None],
) -> Section:
    if ":" not in reference and reference not in custom.plugins():
        known = ", ".join([*FAMILIES, *custom.plugins()])
        raise VerifyError(
            f"unknown optimizer {reference!r}; choose from {known}, package.module:Class or file.py:Class"
        )
    key = "class" if ":" in reference else "optimizer"
    config = custom.from_mapping({key: reference}, base_dir=base_dir)
    own = custom.backend_of(config)
    backends = requested or [own]
    if own not in present and not requested:
        raise VerifyError(f"{reference} belongs to {own}, which is not installed")
    findings: list[Check] = []
    for backend in backends:
        say(f"{reference} on {backend}")
        with session(backend):
            findings += _collect(_one_class(config, backend))
    return Section(title=reference, checks=tuple(findings))


def _one_class(config: Custom, backend: str) -> Iterator[Check]:
    yield from checks.invariances(config, backend)
    if backend == "torch":
        yield from checks.torch_only(config)
        yield _step_time(config)


def _collect(checks: Iterable[Check]) -> list[Check]:
    """Gather checks; an exception becomes a failed one, and what went before it is kept."""
    gathered: list[Check] = []
    try:
        for check in checks:
            gathered.append(check)  # one by one, as what came before an error is kept
    except Exception as failure:
        at = traceback.extract_tb(failure.__traceback__)[-1]
        message = f"{type(failure).__name__}: {failure} ({Path(at.filename).name}:{at.lineno})"
        backend = gathered[-1].backend if gathered else ""
        gathered.append(Check(name="stopped by an error", backend=backend, passed=False, figure=message))
    return gathered


def _step_time(config: OptimizerConfig) -> Check:
    from optbench.verification.step_time import against_adam

    return against_adam(config)
