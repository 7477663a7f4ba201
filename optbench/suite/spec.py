"""A suite as read from its file: frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt

from optbench.errors import UserError
from optbench.suite.entries import SuiteWorkload
from optbench.suite.factors import factors
from optbench.suite.report_spec import Analysis, ReportSpec, ReportWorkload, suite_hash
from optbench.suite.tuning_section import Tuning
from optbench.task import FORBID_EXTRA, Metrics
from optbench.trial import BackendName, Precision, Seeds, TrialSpec, trial_id


class SuiteError(UserError, ValueError):
    """A suite file that cannot be used (exit code 2)."""


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """A trial and the labels that the suite gives it."""

    workload: str
    optimizer: str
    spec: TrialSpec
    role: Literal["evaluation", "tuning", "untuned"] = "evaluation"

    @cached_property
    def id(self) -> str:
        """The trial's id, a hash of its spec."""
        return trial_id(self.spec)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How trials are trained; part of no trial's identity.

    Attributes
    ----------
    batch_seeds : int, "off" or "auto"
        Trials that differ in their seeds alone are trained together, this many as one program, ``auto`` as
        many as a short measurement finds best.
    step : str
        How PyTorch takes a step, see :mod:`optbench.backends.torch.steps`; JAX and TensorFlow compile the
        whole epoch.
    """

    __pydantic_config__ = FORBID_EXTRA

    batch_seeds: Literal["off", "auto"] | Annotated[int, Gt(1)] = "off"
    step: Literal["auto", "eager", "compiled", "graph"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite, fully resolved but for the device.

    ``declared_seeds`` and ``declared_backends`` are those of its file, of which ``seeds`` and ``backends``
    may be a part.
    """

    name: str
    title: str
    path: Path | None
    text: str
    workloads: tuple[SuiteWorkload, ...]
    seeds: tuple[Seeds, ...]
    backends: tuple[BackendName, ...]
    device: str
    precision: Precision
    analysis: Analysis
    engine: EngineOptions = EngineOptions()
    tuning: Tuning | None = None
    titles: tuple[tuple[str, str], ...] = ()
    declared_seeds: tuple[Seeds, ...] = ()
    declared_backends: tuple[BackendName, ...] = ()

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Optimizer labels in the order of the file."""
        return tuple(dict.fromkeys(label for w in self.workloads for label in w.optimizers))

    @property
    def report_spec(self) -> ReportSpec:
        """What a report needs of it."""
        compared = factors(self.workloads, self.analysis.factors)
        return ReportSpec(
            name=self.name,
            title=self.title,
            text=self.text,
            analysis=self.analysis,
            # Looks are planned on the declared seeds, whichever part of them is run.
            seeds=tuple(dict.fromkeys((*self.declared_seeds, *self.seeds)))
            if self.analysis.sequential
            else self.seeds,
            backends=self.backends,
            workloads=tuple(
                ReportWorkload(
                    label=entry.label,
                    targets=entry.targets,
                    optimizers=tuple(entry.optimizers),
                    epochs=entry.workload.epochs,
                    metrics=entry.workload.metrics or (),
                    smoke=bool(entry.workload.smoke),
                    title=entry.title,
                    entry=entry.entry,
                    setting=entry.setting,
                    factors=compared.get(entry.label, ()),
                    task=entry.workload.task,
                    goals=entry.goals,
                )
                for entry in self.workloads
            ),
            titles=self.titles,
        )

    @property
    def metrics(self) -> Metrics:
        """What its metrics mean: the known ones, and the custom ones of any workload."""
        return self.report_spec.metrics

    @property
    def hash(self) -> str:
        """See :func:`optbench.suite.report_spec.suite_hash`."""
        return suite_hash(self.text, path=self.path or Path(self.name))


def store_path(suite: Suite, results: str | Path) -> Path:
    """Folder of a suite's store."""
    return Path(results) / suite.name
