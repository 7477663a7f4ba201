"""How far the predicted numbers of a trained model are off: from the stored predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.base import DataError
from optbench.records.store import Store, StoredTrial
from optbench.report.diagnostics import EpochName, final_epoch, predictions_of, test_part


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """Errors of a trial on its test part: true and predicted values [n], in ``unit``."""

    trial: StoredTrial
    epoch: str
    unit: str
    truth: NDArray[np.float64]
    predicted: NDArray[np.float64]
    sentences: tuple[str, ...]

    @property
    def errors(self) -> NDArray[np.float64]:
        """Predicted minus true."""
        return self.predicted - self.truth


def residuals(
    store: Store,
    trial: StoredTrial,
    *,
    epoch: EpochName | None = None,
    data_dir: Path | None = None,
    trust: bool = False,
) -> Residuals:
    """Compare the predicted numbers of a trial with the true ones.

    Parameters
    ----------
    store : Store
        Holds the trial's predictions.
    trial : StoredTrial
    epoch : {"last", "best"}, optional
        Whose predictions; by default those of the final model, which the leaderboard counts.
    data_dir : Path, optional
        Folder in which the data are looked for first.
    trust : bool
        Whether a function that the store names may be run for its data.

    Raises
    ------
    StoreError
        If the trial has no predictions: it diverged, or crashed.
    DataError
        If the dataset is missing, or its test part is not the one that was predicted.
    """
    epoch = epoch or final_epoch(trial)
    predicted = predictions_of(store, trial, epoch).astype(np.float64)
    dataset, part = test_part(trial, data_dir, trust=trust)
    truth = part.targets.astype(np.float64)
    if len(truth) != len(predicted):
        raise DataError(
            f"dataset {dataset.info.name}: {len(truth)} test examples here, {len(predicted)} were predicted; "
            "the data have changed since the trial ran"
        )
    unit = dataset.info.unit
    return Residuals(
        trial=trial,
        epoch=epoch,
        unit=unit,
        truth=truth,
        predicted=predicted,
        sentences=_sentences(truth, predicted, f" {unit}" if unit else ""),
    )


def _sentences(truth: NDArray[np.float64], predicted: NDArray[np.float64], unit: str) -> tuple[str, ...]:
    off = predicted - truth
    low, high = np.quantile(off, (0.05, 0.95))
    worst = int(np.argmax(np.abs(off)))
    return (
        f"The predictions of {len(off)} test examples are off by {np.abs(off).mean():.4g}{unit} on average, "
        f"and by {off.mean():+.3g}{unit} to one side.",
        f"Nine in ten errors lie between {low:.4g} and {high:.4g}{unit}; the largest is {off[worst]:+.4g}"
        f"{unit}, predicted {predicted[worst]:.4g} for {truth[worst]:.4g}.",
    )
