"""The diagnostics of one trial as files and sentences: ``optbench show TRIAL --plots``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from matplotlib.figure import Figure

from optbench.environment import Context
from optbench.records.store import Store, StoredTrial
from optbench.records.trust import check_trust
from optbench.report import diagnostics, plots, residuals
from optbench.report.diagnostics import EpochName


@dataclass(frozen=True, kw_only=True)
class TrialPlots:
    """What was found in words, and the files that show it."""

    sentences: tuple[str, ...]
    files: tuple[Path, ...]


def write_trial_plots(
    store: Store,
    trial: StoredTrial,
    folder: Path,
    *,
    epoch: EpochName | None = None,
    weights: bool = False,
    context: Context | None = None,
    trust: bool = False,
) -> TrialPlots:
    """Write the diagnostics of a trial.

    Parameters
    ----------
    store : Store
        Holds the trial and its predictions.
    trial : StoredTrial
    folder : Path
        Made where missing.
    epoch : {"last", "best"}, optional
        Whose predictions and weights; by default those of the final model, which the leaderboard counts.
    weights : bool
        Train the trial again, on its backend and device, for the plots of weights, filters and feature maps:
        a store keeps no weights.
    context : Context, optional
        Data folder, and threads of the training; the defaults if not given.
    trust : bool
        Whether code that the store names may be run, where the trial has some.

    Returns
    -------
    TrialPlots

    Raises
    ------
    StoreError, DataError, BackendMissingError
        If the trial has predictions of the other epoch alone, or did not complete; if its dataset is missing,
        or its framework is not installed.
    UntrustedError
        If code would run that is not trusted, or is not what was recorded.
    """
    context = context or Context()
    check_trust(trial, folder=Path(), trust=trust, data_only=not weights)
    verified = store.verify([trial.trial_id])
    pair = diagnostics.best_two(store, trial, data_dir=context.data_dir, trust=trust)
    labels = {key: f"{workload}, {optimizer}" for key, workload, optimizer in store.plan()}
    epoch = epoch or diagnostics.final_epoch(trial)
    model = diagnostics.model_name(trial, epoch)
    title = f"{labels.get(trial.trial_id, trial.trial_id)}, {model}"
    if trial.status == "completed" and not store.predictions(trial.trial_id):
        # Published stores may leave them out; the curves are there all the same.
        shown: tuple[str, ...] = ("Its store keeps no predictions: what the model gets wrong is not drawn.",)
        figures: dict[str, Figure | None] = {}
    else:
        shown, figures = VIEWS[trial.task.view](store, trial, epoch, context.data_dir, title, trust)
    figures["history"] = plots.history(trial.history, best_epoch=trial.metrics.get("best_epoch"), title=title)
    if weights:
        retrained = diagnostics.retrain(trial, context, epoch=epoch, trust=trust)
        figures["weights"] = plots.weight_violins(retrained.before, retrained.after, title=title)
        for name, kernel, maps in retrained.convolutions():
            figures[f"filters-{name}"] = plots.filters(name, kernel, title=title)
            figures[f"features-{name}"] = plots.feature_maps(name, maps, retrained.example, title=title)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for name, figure in figures.items():
        if figure is not None:
            plots.settle(figure)
            files += plots.save(figure, folder / f"{name}_{trial.trial_id}")
    sentences = (
        *verified.sentences,
        f"Model of the {model}.",
        *shown,
        *((pair.sentence,) if pair is not None else ()),
    )
    return TrialPlots(sentences=sentences, files=tuple(files))


#: Sentences, and figures by name.
Shown = tuple[tuple[str, ...], dict[str, Figure | None]]


def _confusion(
    store: Store, trial: StoredTrial, epoch: EpochName, data_dir: Path | None, title: str, trust: bool
) -> Shown:
    found = diagnostics.diagnose(store, trial, epoch=epoch, data_dir=data_dir, trust=trust)
    return found.sentences, {
        "confusion": plots.confusion_matrix(found, title=title),
        "classes": plots.class_scores(found, title=title),
        "errors": plots.misclassified(found, title=title),
        "pairs": plots.misclassified_pairs(found, title=title),
        "top": plots.top_n(diagnostics.top_accuracies(trial, epoch), title=title),
    }


def _residuals(
    store: Store, trial: StoredTrial, epoch: EpochName, data_dir: Path | None, title: str, trust: bool
) -> Shown:
    found = residuals.residuals(store, trial, epoch=epoch, data_dir=data_dir, trust=trust)
    return found.sentences, {"residuals": plots.residuals(found, title=title)}


#: How the errors of one model are shown, by :attr:`optbench.task.Task.view`.
VIEWS: Mapping[str, Callable[[Store, StoredTrial, EpochName, Path | None, str, bool], Shown]] = (
    MappingProxyType({"confusion": _confusion, "residuals": _residuals})
)
