"""Metrics: pure functions from columns of a predictions table to one number, knowing NumPy alone."""

from __future__ import annotations

from tlbench.metrics.accuracy import (
    accuracy,
    balanced_accuracy,
    brier_score,
    infinite_count,
    macro_f1,
    negative_log_likelihood,
    top_k_accuracy,
    worst_group_accuracy,
)
from tlbench.metrics.calibration import (
    ClassBins,
    ReliabilityDiagram,
    adaptive_calibration_error,
    class_bins,
    class_wise_calibration_error,
    expected_calibration_error,
    expected_ece_if_calibrated,
    reliability_diagram,
)
from tlbench.metrics.catalogue import METRICS, MetricInfo
from tlbench.metrics.evaluate import MetricValue, measure_attack, measure_audit, measure_clean, measure_images
from tlbench.metrics.invariance import (
    consistency,
    demographic_disparity,
    inferred_groups,
    mean_consistency,
    total_variation,
)
from tlbench.metrics.robustness import (
    audit_reversals,
    mean_corruption_accuracy,
    mean_robust_accuracy,
    median_breaking_epsilon,
    robust_accuracy,
    robust_share,
)
from tlbench.metrics.uncertainty import NotEnoughClusters, jackknife_standard_error, standard_error_of_mean

__all__ = [
    "METRICS",
    "ClassBins",
    "MetricInfo",
    "MetricValue",
    "NotEnoughClusters",
    "ReliabilityDiagram",
    "accuracy",
    "adaptive_calibration_error",
    "audit_reversals",
    "balanced_accuracy",
    "brier_score",
    "class_bins",
    "class_wise_calibration_error",
    "consistency",
    "demographic_disparity",
    "expected_calibration_error",
    "expected_ece_if_calibrated",
    "inferred_groups",
    "infinite_count",
    "jackknife_standard_error",
    "macro_f1",
    "mean_consistency",
    "mean_corruption_accuracy",
    "mean_robust_accuracy",
    "measure_attack",
    "measure_audit",
    "measure_clean",
    "measure_images",
    "median_breaking_epsilon",
    "negative_log_likelihood",
    "reliability_diagram",
    "robust_accuracy",
    "robust_share",
    "standard_error_of_mean",
    "top_k_accuracy",
    "total_variation",
    "worst_group_accuracy",
]
