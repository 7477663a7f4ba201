"""The diagnostics of one trial as files and sentences: ``optbench show TRIAL --plots``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optbench.environment import Context
from optbench.records.store import Store, StoredTrial
from optbench.report import diagnostics, plots


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
    epoch: str = "last",
    weights: bool = False,
    context: Context | None = None,
) -> TrialPlots:
    """Write the diagnostics of a trial.

    Parameters
    ----------
    store : Store
        Holds the trial and its predictions.
    trial : StoredTrial
    folder : Path
        Made where missing.
    epoch : {"last", "best"}
        Whose predictions.
    weights : bool
        Train the trial again, on its backend and device, for the plots of weights, filters and feature maps:
        a store keeps no weights.
    context : Context, optional
        Data folder, and threads of the training; the defaults if not given.

    Returns
    -------
    TrialPlots

    Raises
    ------
    StoreError, DataError, BackendMissingError
        If the trial has no predictions, its dataset is missing, or its framework is not installed.
    """
    context = context or Context()
    found = diagnostics.diagnose(store, trial, epoch=epoch, data_dir=context.data_dir)
    pair = diagnostics.best_two(store, trial, data_dir=context.data_dir)
    labels = {key: f"{workload}, {optimizer}" for key, workload, optimizer in store.plan()}
    title = labels.get(trial.trial_id, trial.trial_id)
    figures = {
        "confusion": plots.confusion_matrix(found, title=title),
        "classes": plots.class_scores(found, title=title),
        "errors": plots.misclassified(found, title=title),
    }
    if weights:
        before, after, example = diagnostics.retrain(trial, context)
        figures |= {
            "weights": plots.weight_violins(before, after, title=title),
            "filters": plots.first_filters(after),
            "features": plots.feature_maps(after, example),
        }
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for name, figure in figures.items():
        if figure is not None:
            plots.settle(figure)
            files += plots.save(figure, folder / f"{name}_{trial.trial_id}")
    sentences = (*found.sentences, *((pair.sentence,) if pair is not None else ()))
    return TrialPlots(sentences=sentences, files=tuple(files))
