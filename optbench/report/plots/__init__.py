"""Plots, each a function from tidy tables or results of the statistics to a matplotlib figure."""

from optbench.report.plots.common import save, settle, svg_for_page, svg_text
from optbench.report.plots.comparison import critical_difference, paired_differences, verdict_heatmap
from optbench.report.plots.cost import (
    accuracy_against_time,
    performance_profiles,
    step_time_bars,
    success_over_time,
)
from optbench.report.plots.curves import accuracy_curves, loss_curves
from optbench.report.plots.diagnostic import (
    class_scores,
    confusion_matrix,
    feature_maps,
    filters,
    history,
    misclassified,
    misclassified_pairs,
    residuals,
    top_n,
    weight_violins,
)
from optbench.report.plots.sensitivity import lr_sensitivity, tuning_curves, variance_bars

__all__ = [
    "accuracy_against_time",
    "accuracy_curves",
    "class_scores",
    "confusion_matrix",
    "critical_difference",
    "feature_maps",
    "filters",
    "history",
    "loss_curves",
    "lr_sensitivity",
    "misclassified",
    "misclassified_pairs",
    "paired_differences",
    "performance_profiles",
    "residuals",
    "save",
    "settle",
    "step_time_bars",
    "success_over_time",
    "svg_for_page",
    "svg_text",
    "top_n",
    "tuning_curves",
    "variance_bars",
    "verdict_heatmap",
    "weight_violins",
]
