"""What a suite is once its file has been read: frozen facts, and the part of them that a report needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Lt

from optbench.errors import UserError
from optbench.models.layers import Dense, Model
from optbench.optimizers import SGD
from optbench.suite.entries import SuiteWorkload, Targets
from optbench.suite.tuning_section import Tuning
from optbench.task import BUILT_IN, FORBID_EXTRA, CustomMetric, Metrics
from optbench.trial import BackendName, Precision, Seeds, TrialSpec, Workload, content_hash, to_plain


class SuiteError(UserError, ValueError):
    """A suite file that cannot be used (exit code 2)."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the report tests: candidates against the baseline, on the primary metric.

    Attributes
    ----------
    baseline : str
        An optimizer's label; the first one if not given.
    primary : str
        Metric that is tested.
    alpha : float
        Level of the tests; intervals have 1 - alpha.
    margin : float
        Difference that does not matter, in the metric's units; asks for a test of equivalence.
    correction : str
        For several comparisons.
    """

    __pydantic_config__ = FORBID_EXTRA

    baseline: str | None = None
    primary: str = "test_accuracy"
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    margin: Annotated[float, Gt(0)] | None = None
    correction: Literal["holm", "bonferroni", "bh", "none"] = "holm"


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """A trial and the labels that the suite gives it."""

    workload: str
    optimizer: str
    spec: TrialSpec
    role: Literal["evaluation", "tuning", "untuned"] = "evaluation"


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How trials are trained; part of no trial's identity.

    Attributes
    ----------
    batch_seeds : int, "off" or "auto"
        Trials that differ in their seeds alone are trained together, so many as one program, ``auto`` as many
        as a short measurement finds best.
    step : str
        How PyTorch takes a step, see :mod:`optbench.backends.torch.steps`; JAX and TensorFlow compile the
        whole epoch.
    """

    __pydantic_config__ = FORBID_EXTRA

    batch_seeds: Literal["off", "auto"] | Annotated[int, Gt(1)] = "off"
    step: Literal["auto", "eager", "compiled", "graph"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite, fully resolved but for the device."""

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

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Optimizer labels in the order of the file."""
        return tuple(dict.fromkeys(label for w in self.workloads for label in w.optimizers))

    @property
    def metrics(self) -> Metrics:
        """What its metrics mean: the known ones, and those of the user's own of any workload."""
        return Metrics.of(m for entry in self.workloads for m in entry.workload.metrics or ())

    @property
    def primaries(self) -> tuple[str, ...]:
        """Metrics that the report can test."""
        return (*BUILT_IN, *(name for metric in self.metrics.custom for name in metric.columns()))

    @property
    def hash(self) -> str:
        """Content hash of what the file says: comments and layout are no part of it, the order of keys is."""
        from optbench.suite.yamlfile import read_text  # here, as a report of a store reads no suite

        return content_hash(json.dumps(read_text(self.text, path=self.path or Path(self.name)).data))


def store_path(suite: Suite, results: str | Path) -> Path:
    """Folder of a suite's store."""
    return Path(results) / suite.name


def view(suite: Suite) -> dict[str, Any]:
    """Write down what a report needs of a suite, JSON-ready: no file of the user's is read to use it."""
    return {
        "name": suite.name,
        "title": suite.title,
        "text": suite.text,
        "analysis": to_plain(suite.analysis),
        "seeds": [to_plain(seeds) for seeds in suite.seeds],
        "backends": list(suite.backends),
        "workloads": [
            {
                "label": entry.label,
                "targets": to_plain(entry.targets),
                "optimizers": list(entry.optimizers),
                "epochs": entry.workload.epochs,
                "metrics": to_plain(entry.workload.metrics or ()),
                "smoke": bool(entry.workload.smoke),
            }
            for entry in suite.workloads
        ],
    }


def metrics_of_view(seen: Mapping[str, Any]) -> Metrics:
    """Read the metrics that a suite declared, as :func:`view` wrote them; old stores have none."""
    return Metrics.of(CustomMetric(**m) for entry in seen["workloads"] for m in entry.get("metrics", ()))


def suite_from_view(seen: Mapping[str, Any]) -> Suite:
    """Rebuild a suite for a report; what a training would need (models, data) is left blank."""
    blank = Model(name="", layers=(Dense(),))
    return Suite(
        name=seen["name"],
        title=seen["title"],
        path=None,
        text=seen["text"],
        workloads=tuple(
            SuiteWorkload(
                label=entry["label"],
                workload=Workload(
                    dataset="",
                    model=blank,
                    batch_size="full",
                    epochs=entry["epochs"],
                    metrics=tuple(CustomMetric(**metric) for metric in entry.get("metrics", ())) or None,
                    smoke=entry["smoke"] or None,
                ),
                targets=Targets(**entry["targets"]),
                optimizers={label: SGD() for label in entry["optimizers"]},
            )
            for entry in seen["workloads"]
        ),
        seeds=tuple(Seeds(**seeds) for seeds in seen["seeds"]),
        backends=tuple(seen["backends"]),
        device="auto",
        precision="float32",
        analysis=Analysis(**seen["analysis"]),
    )
