"""What a report needs of a suite: labels, targets and analysis. A store keeps it beside its records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le, Lt, MinLen

from optbench.suite.validation import visible
from optbench.task import DEFAULT_TASK, FORBID_EXTRA, OMIT_DEFAULT, TASKS, CustomMetric, Metrics
from optbench.trial import Seeds, content_hash, to_plain


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Values to reach; the report says after how many epochs and seconds each trial did.

    Attributes
    ----------
    val_accuracy : float
        In [0, 1]; reached from below.
    val_loss : float
        Reached from above.
    val_f1, val_r2 : float
        Reached from below.
    val_rmse, val_mae, val_bits_per_byte, val_perplexity : float
        Reached from above.
    """

    __pydantic_config__ = FORBID_EXTRA

    val_accuracy: float | None = None
    val_loss: float | None = None
    val_f1: float | None = None
    val_r2: float | None = None
    val_rmse: float | None = None
    val_mae: float | None = None
    val_bits_per_byte: float | None = None
    val_perplexity: float | None = None


Question = Literal["these", "new", "each"]
#: Designs of :class:`Sequential`.
Design = Literal["obrien-fleming", "pocock", "anytime"]


@dataclass(frozen=True, kw_only=True)
class Sequential:
    """A design under which verdicts may be looked at before all seeds are run, at the same level.

    Attributes
    ----------
    design : str
        `obrien-fleming` and `pocock` look at declared numbers of seeds, and spend alpha late or evenly;
        `anytime` is valid after any seed, and needs more of them.
    looks : list of int
        Numbers of seeds at which to look, ascending; all seeds are the last look, named or not. If not given
        five equal steps, for `anytime` every seed.
    """

    __pydantic_config__ = FORBID_EXTRA

    design: Design = "obrien-fleming"
    looks: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] | None = None

    def planned(self, seeds: int) -> tuple[int, ...]:
        """Numbers of seeds at which to look, the last is all.

        Examples
        --------
        >>> Sequential().planned(12), Sequential(looks=(4, 8)).planned(10)
        ((3, 5, 8, 10, 12), (4, 8, 10))
        """
        if self.looks is None:
            steps = seeds if self.design == "anytime" else 5
            return tuple(sorted({math.ceil(seeds * k / steps) for k in range(1, steps + 1)}))
        return (*(n for n in self.looks if n < seeds), seeds)


@dataclass(frozen=True, kw_only=True)
class Goals:
    """What a classifier must reach on the test part; the report counts the trials that do.

    Attributes
    ----------
    accuracy : float
        Overall.
    recall : float
        Of every class; the workload must record it by `per_class`.
    """

    __pydantic_config__ = FORBID_EXTRA

    accuracy: Annotated[float, Gt(0), Le(1)] | None = None
    recall: Annotated[float, Gt(0), Le(1)] | None = None


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the report tests: candidates against the baseline, on the primary metric.

    Attributes
    ----------
    baseline : str
        An optimizer's label; the first one if not given.
    primary : str
        Metric that is tested; in a suite, that of its workloads' task if not given.
    alpha : float
        Level of the tests; intervals have 1 - alpha.
    margin : float
        Difference that does not matter, in the metric's units; asks for a test of equivalence.
    correction : str
        For several comparisons.
    compare : str or tuple of str
        `optimizer`, and fields of the workloads whose settings are compared too, as in `batch_size` or
        `model.l2`: workloads that differ in such a field alone are candidates, matched by seed and split.
    question : str
        The confirmatory one: `these` (the average over these workloads), `new` (other workloads of their
        kind) or `each` (every workload by itself, corrected over all); verdicts on the others are
        exploratory. `each` for one workload, else `these`, if not given.
    sequential : str or mapping
        How results may be looked at before all seeds are run: a design, or `{design, looks}`. Without it the
        p-values hold for the declared seeds alone.
    """

    __pydantic_config__ = FORBID_EXTRA

    baseline: str | None = None
    primary: str = "test_accuracy"
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.05
    margin: Annotated[float, Gt(0)] | None = None
    correction: Literal["holm", "bonferroni", "bh", "none"] = "holm"
    compare: str | tuple[str, ...] = field(default="optimizer", metadata=OMIT_DEFAULT)
    question: Question | None = None
    sequential: Sequential | None = None

    @property
    def factors(self) -> tuple[str, ...]:
        """Fields of the workloads that are compared."""
        names = (self.compare,) if isinstance(self.compare, str) else tuple(self.compare)
        return tuple(name for name in names if name != OPTIMIZER)


#: What a suite compares unless it says otherwise.
OPTIMIZER = "optimizer"


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A workload in the comparison of a field: workloads of one ``group`` differ in that field alone."""

    field: str
    group: str
    setting: str


@dataclass(frozen=True, kw_only=True)
class ReportWorkload:
    """A workload as a report sees it: ``optimizers`` are labels, ``metrics`` the custom ones.

    ``task`` is its name; that of the default one leaves no trace in a store. ``title`` is its display name
    where it has one. Workloads of one ``entry`` come from its grid, and differ in their ``setting``;
    ``factors`` are the fields that :attr:`Analysis.compare` names.
    """

    label: str
    targets: Targets
    optimizers: tuple[str, ...]
    epochs: int
    metrics: tuple[CustomMetric, ...] = ()
    smoke: bool = False
    task: str = field(default=DEFAULT_TASK.name, metadata=OMIT_DEFAULT)
    goals: Goals = Goals()
    title: str = field(default="", metadata=OMIT_DEFAULT)
    entry: str = field(default="", metadata=OMIT_DEFAULT)
    setting: str = field(default="", metadata=OMIT_DEFAULT)
    factors: tuple[Factor, ...] = field(default=(), metadata=OMIT_DEFAULT)


@dataclass(frozen=True, kw_only=True)
class ReportSpec:
    """What a report shows and tests.

    Attributes
    ----------
    name, title, text : str
        Of the suite; ``text`` is its file.
    analysis : Analysis
        What is tested.
    seeds : tuple of Seeds
        Declared ones, one a block of a workload.
    backends : tuple of str
    workloads : tuple of ReportWorkload
        In the order of the file.
    titles : tuple of (str, str)
        Label and display name of the optimizers that have one.
    """

    name: str
    title: str
    text: str
    analysis: Analysis
    seeds: tuple[Seeds, ...]
    backends: tuple[str, ...]
    workloads: tuple[ReportWorkload, ...]
    titles: tuple[tuple[str, str], ...] = field(default=(), metadata=OMIT_DEFAULT)

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Optimizer labels in the order of the file."""
        return tuple(dict.fromkeys(label for w in self.workloads for label in w.optimizers))

    @property
    def question(self) -> Question:
        """The confirmatory question; where none is declared that of the workloads together."""
        return self.analysis.question or ("each" if len(self.workloads) == 1 else "these")

    @property
    def families(self) -> int:
        """Families of comparisons of that question: each workload is one where it is asked of each."""
        return len(self.workloads) if self.question == "each" else 1

    @property
    def metrics(self) -> Metrics:
        """What its metrics mean: the known ones, and the custom ones of any workload."""
        return Metrics.of(metric for entry in self.workloads for metric in entry.metrics)

    @property
    def primaries(self) -> tuple[str, ...]:
        """Metrics that the report can test."""
        tasks = dict.fromkeys(entry.task for entry in self.workloads) or (DEFAULT_TASK.name,)
        own = (name for metric in self.metrics.custom for name in metric.columns())
        return tuple(dict.fromkeys((*(name for task in tasks for name in TASKS[task].primaries), *own)))

    @property
    def hash(self) -> str:
        """See :func:`suite_hash`."""
        return suite_hash(self.text, path=Path(self.name))

    def to_json(self) -> str:
        """Write it as a store's entry ``view``."""
        return json.dumps(to_plain(self))

    @classmethod
    def from_json(cls, text: str) -> ReportSpec:
        """Read a store's entry ``view``; raises ``ValueError``, ``KeyError``, ``TypeError``."""
        # A label that would command a terminal is shown as what it is, as the plan's is.
        seen: Mapping[str, Any] = {
            key: value if key == "text" else _visible(value) for key, value in json.loads(text).items()
        }
        return cls(
            name=seen["name"],
            title=seen["title"],
            text=seen["text"],
            analysis=analysis_of(seen["analysis"]),
            seeds=tuple(Seeds(**seeds) for seeds in seen["seeds"]),
            backends=tuple(seen["backends"]),
            workloads=tuple(
                ReportWorkload(
                    label=entry["label"],
                    targets=Targets(**entry["targets"]),
                    optimizers=tuple(entry["optimizers"]),
                    epochs=entry["epochs"],
                    metrics=tuple(CustomMetric(**metric) for metric in entry.get("metrics", ())),
                    smoke=entry["smoke"],
                    task=entry.get("task", DEFAULT_TASK.name),
                    goals=Goals(**entry.get("goals", {})),
                    title=entry.get("title", ""),
                    entry=entry.get("entry", ""),
                    setting=entry.get("setting", ""),
                    factors=tuple(Factor(**factor) for factor in entry.get("factors", ())),
                )
                for entry in seen["workloads"]
            ),
            titles=tuple((label, title) for label, title in seen.get("titles", ())),
        )


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): _visible(item) for key, item in value.items()}
    return [_visible(item) for item in value] if isinstance(value, list) else value


def analysis_of(plain: Mapping[str, Any]) -> Analysis:
    """Read an analysis that was written as JSON; raises ``TypeError`` where it is none."""
    design = plain.get("sequential")
    if design is None:
        return Analysis(**plain)
    looks = design.get("looks")
    sequential = Sequential(**{**design, "looks": None if looks is None else tuple(looks)})
    return Analysis(**{**plain, "sequential": sequential})


def suite_hash(text: str, *, path: Path) -> str:
    """Content hash of a suite file: comments and layout are no part of it, the order of keys is."""
    from optbench.suite.yamlfile import read_text  # here, as a report of a store reads no suite

    return content_hash(json.dumps(read_text(text, path=path).data))
