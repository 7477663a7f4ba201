"""Compare the backends with each other: one trial without dropout, the same arrays, step by step.

``run`` trains 50 steps in every installed backend and compares the loss of each batch; ``render`` turns the
findings into a rich table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group
from rich.table import Table
from rich.text import Text

from optbench import backends as engines
from optbench import matching
from optbench.datasets import registry
from optbench.datasets.base import network, trial_data
from optbench.environment import Context, pip_hint
from optbench.errors import UserError
from optbench.models import zoo
from optbench.models.layers import Activate, BatchNorm, Conv2D, Dense, MaxPool2D, Model
from optbench.optimizers import FAMILIES, CanonicalConfig
from optbench.task import TASKS, TaskName
from optbench.trial import BackendName, Precision, Seeds, Split, TrialSpec, Workload
from optbench.verification.checks import label

STEPS, BATCH, EARLY = 50, 32, 10


@dataclass(frozen=True, kw_only=True)
class Case:
    """A small network, the data that it is trained on, and the families that are compared on it.

    All families where there are none, with all their variants; else each with its first case alone.
    """

    model: Model
    dataset: str = "digits"
    task: TaskName = "classification"
    context: int | None = None
    families: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the network."""
        return self.model.name

    def workload(self) -> Workload:
        """What is trained."""
        task = TASKS[self.task]
        how: Any = task.splits[0]
        return Workload(
            dataset=self.dataset,
            task=self.task,
            model=self.model,
            batch_size=BATCH,
            epochs=1,
            split=Split(how=how),
            monitor=task.monitor,
            context=self.context,
        )


#: Compared on the larger networks: one of each kind of arithmetic.
SOME = ("wame", "adamw", "sgd")
MODELS = (
    Case(
        model=Model(
            name="mlp",
            layers=(Dense(units=32, activation="relu"), Dense(units=16, activation="tanh"), Dense()),
        )
    ),
    Case(
        model=Model(
            name="cnn with batch norm",
            layers=(
                Conv2D(filters=6, kernel=3, padding="same"),
                BatchNorm(),
                Activate(activation="relu"),
                MaxPool2D(),
                Conv2D(filters=8, kernel=2, activation="elu"),
                Dense(units=16, activation="relu"),
                Dense(),
            ),
        )
    ),
    Case(
        model=Model(name="regression", layers=zoo.mlp(hidden=(16, 16), norm="layer", residual=True)),
        dataset="diabetes",
        task="regression",
        families=SOME,
    ),
    Case(
        model=Model(name="gpt", layers=zoo.gpt(depth=2, width=16, heads=2)),
        dataset="shakespeare",
        task="language_modelling",
        context=16,
        families=SOME,
    ),
    Case(
        model=Model(
            name="gpt, rotary, swiglu",
            layers=zoo.gpt(
                depth=1, width=16, heads=2, positions="rotary", norm="rms", feed_forward="swiglu", tied=False
            ),
        ),
        dataset="shakespeare",
        task="language_modelling",
        context=16,
        families=SOME,
    ),
    Case(model=Model(name="vit", layers=zoo.vit(patch=2, depth=2, width=16, heads=2)), families=SOME),
    Case(model=Model(name="resnet", layers=zoo.resnet(depth=8, width=4)), families=SOME),
)


class ParityError(UserError, ValueError):
    """An optimizer or backend that cannot be compared."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the loss curves of the backends lie apart, relative to the loss, at worst over all pairs.

    Attributes
    ----------
    early, late : float
        Largest difference over the first 10 and over all 50 steps.
    early_bar, late_bar : float
        What they may be.
    parts_at : int or None
        First step (from 1) whose difference is above ``early_bar``; None if there is none.
    furthest : tuple of str
        The pair of backends that lies furthest apart.
    """

    model: str
    optimizer: str
    precision: str
    early: float
    late: float
    early_bar: float
    late_bar: float
    parts_at: int | None
    furthest: tuple[str, str]

    @property
    def passed(self) -> bool:
        """Whether both bars hold; a loss that is no number passes none."""
        return self.early <= self.early_bar and self.late <= self.late_bar


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """What was found; no rows where there is one backend or none."""

    backends: tuple[str, ...]
    rows: tuple[Parity, ...]

    @property
    def passed(self) -> bool:
        """Whether something was compared and every bar holds."""
        return bool(self.rows) and all(row.passed for row in self.rows)


def run(
    optimizer: str | None = None,
    *,
    backends: Iterable[str] | None = None,
    precisions: Iterable[Precision] = ("float64", "float32"),
    progress: Callable[[str], None] | None = None,
    context: Context | None = None,
) -> ParityReport:
    """Compare the training of the backends.

    Parameters
    ----------
    optimizer : str, optional
        One family; all of them without it.
    backends : iterable of str, optional
        Two or more of torch, tensorflow, jax; all that are installed without it.
    precisions : iterable of str
        Of ``float64`` (bar 1e-10 over 50 steps) and ``float32`` (1e-5 over 10 steps; over 50 steps 1e-5 on
        the MLP and 2e-3 on the others, where rounding grows).
    progress : callable, optional
        Called with a line before each comparison.
    context : Context, optional
        Settings of the engines; the defaults if not given.

    Returns
    -------
    ParityReport

    Raises
    ------
    ParityError
        If the optimizer is unknown.
    BackendMissingError
        If a backend that was asked for is not installed.
    """
    if optimizer is not None and optimizer not in FAMILIES:
        raise ParityError(f"unknown optimizer {optimizer!r}; choose from {', '.join(FAMILIES)}")
    chosen = tuple(engines.installed() if backends is None else dict.fromkeys(backends))
    for name in chosen:
        engines.engine(name, context)
    families = [*FAMILIES.values()] if optimizer is None else [FAMILIES[optimizer]]
    configs = [config for family in families for config in family.parity_cases()] if len(chosen) > 1 else []
    rows = []
    plain = [family.parity_cases()[0] for family in families]
    for precision, model, config in product(precisions, MODELS, configs):
        if model.families and (config.optimizer not in model.families or config not in plain):
            continue
        name = f"{config.optimizer}, {label(config)}".removesuffix(", plain")
        if progress is not None:
            progress(f"{name} on {model.name}, {precision}")
        rows.append(_compare(name, config, model, precision, chosen, context))
    return ParityReport(backends=chosen, rows=tuple(rows))


def render(report: ParityReport) -> Group:
    """Lay a report out for a rich console."""
    if not report.rows:
        have = ", ".join(report.backends) or "none"
        hint = f"bring another with `{pip_hint('jax')}`"
        return Group(Text(f"Parity needs two backends; installed: {have}; {hint}.", style="bold red"))
    table = Table(title=f"Loss curves of {', '.join(report.backends)}", title_justify="left")
    for heading in ("precision", "model", "optimizer"):
        table.add_column(heading)
    for heading in (f"{EARLY} steps", f"{STEPS} steps", "bars", "parts at step"):
        table.add_column(heading, justify="right")
    table.add_column("furthest apart")
    table.add_column("")
    for row in report.rows:
        table.add_row(
            *(row.precision, row.model, row.optimizer),
            *(f"{row.early:.1e}", f"{row.late:.1e}", f"{row.early_bar:.0e}, {row.late_bar:.0e}"),
            "-" if row.parts_at is None else str(row.parts_at),
            " and ".join(row.furthest),
            "[green]pass" if row.passed else "[bold red]FAIL",
        )
    good = sum(row.passed for row in report.rows)
    last = f"{good} of {len(report.rows)} within their bars (largest relative difference of a batch's loss)"
    return Group(table, Text(last, style="green" if report.passed else "bold red"))


def losses(
    config: CanonicalConfig,
    model: Case,
    precision: Precision,
    backend: BackendName,
    context: Context | None = None,
) -> NDArray[np.float64]:
    """Train 50 steps on embedded data and return the loss of each batch."""
    spec = TrialSpec(
        workload=model.workload(),
        optimizer=config,
        seeds=Seeds(),
        backend=backend,
        device="cpu",
        precision=precision,
    )
    dataset = registry.load(model.dataset)
    data = trial_data(dataset, spec.workload, spec.seeds, train_eval=BATCH)
    built = network(spec.workload, dataset.info)
    weights = matching.initial_weights(built, spec.seeds.init, precision)
    epochs = range(1, -(-STEPS * BATCH // data.examples) + 1)
    orders = [data.epoch_rows(spec.seeds.order, epoch, shuffle=True) for epoch in epochs]
    rows = np.concatenate(orders)[: STEPS * BATCH]
    return engines.engine(backend, context).open(spec, built, data, weights).train_epoch(rows, 1)


def _compare(
    name: str,
    config: CanonicalConfig,
    model: Case,
    precision: Precision,
    chosen: tuple[str, ...],
    context: Context | None,
) -> Parity:
    curves = {
        name: losses(config, model, precision, name, context)  # type: ignore[arg-type]
        for name in chosen
    }
    gaps = {(a, b): _relative(curves[a], curves[b]) for a, b in combinations(chosen, 2)}
    worst = np.max(list(gaps.values()), axis=0)
    early_bar = 1e-10 if precision == "float64" else 1e-5
    late_bar = 2e-3 if precision == "float32" and model is not MODELS[0] else early_bar
    above = np.flatnonzero(~(worst <= early_bar))
    return Parity(
        model=model.name,
        optimizer=name,
        precision=precision,
        early=float(worst[:EARLY].max()),
        late=float(worst.max()),
        early_bar=early_bar,
        late_bar=late_bar,
        parts_at=int(above[0]) + 1 if len(above) else None,
        furthest=max(gaps, key=lambda pair: float(gaps[pair].max())),
    )


def _relative(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))
