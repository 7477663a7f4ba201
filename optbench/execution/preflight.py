"""What of the user's own code can be tried before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from optbench import metrics
from optbench.datasets.base import Dataset
from optbench.suite import PlannedTrial
from optbench.trial import OwnData


def check(planned: Iterable[PlannedTrial], data: Mapping[str | OwnData, Dataset]) -> None:
    """Call every metric once on made predictions.

    Raises
    ------
    MetricError
        If one fails.
    """
    workloads = {id(trial.spec.workload): trial.spec.workload for trial in planned}
    for workload in workloads.values():
        for metric in workload.metrics or ():
            metrics.check(metric, len(data[workload.dataset].info.classes))
