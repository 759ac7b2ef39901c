from __future__ import annotations

import pytest

from tlbench.metrics import METRICS
from tlbench.metrics.evaluate import CLEAN_METRICS
from tlbench.records.schema import PREDICTIONS

# Counts by class and audits have tables of their own; the others come from the manifest and from the clean measurement.
ELSEWHERE = {"audits", "class_bins", "class_bins_scaled", "group", "predicted_clean"}


@pytest.mark.parametrize("info", METRICS.values(), ids=list(METRICS))
def test_every_metric_is_described_and_reads_only_columns_that_are_stored(info):
    assert METRICS[info.name] is info
    assert info.family in {"accuracy", "calibration", "robustness", "corruption", "invariance", "cost"}
    assert info.version >= 1
    assert info.description
    assert info.unit
    assert set(info.requires) <= set(PREDICTIONS.names) | ELSEWHERE


def test_every_clean_metric_stands_in_the_catalogue_with_its_columns():
    assert len(set(CLEAN_METRICS)) == len(CLEAN_METRICS)
    for name in CLEAN_METRICS:
        assert METRICS[name].requires


def test_what_a_constant_prediction_wins_makes_no_board():
    for name in ("ece", "demographic_disparity", "consistency", "accuracy_gap", "robust_share"):
        assert not METRICS[name].proper
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "robust_accuracy", "corruption_accuracy"):
        assert METRICS[name].proper


def test_only_errors_distances_and_costs_are_better_when_lower():
    assert METRICS["accuracy"].higher_is_better
    assert METRICS["median_breaking_epsilon"].higher_is_better
    for name in ("nll", "brier", "ece", "demographic_disparity", "accuracy_gap", "fit_seconds"):
        assert not METRICS[name].higher_is_better
    # ID minus OOD of an error is negative where the shift hurts.
    assert METRICS["nll_gap"].higher_is_better


def test_the_catalogue_cannot_be_changed():
    with pytest.raises(TypeError):
        METRICS["mine"] = METRICS["accuracy"]
