"""Every metric that a record can carry: its family, direction, unit, and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Family = Literal["accuracy", "calibration", "robustness", "corruption", "invariance", "cost"]


@dataclass(frozen=True)
class MetricInfo:
    """What a board must know of a metric.

    Attributes
    ----------
    name : str
        As in the column ``metric`` of the records.
    family : str
        The part of the board where it stands.
    higher_is_better : bool
    proper : bool
        Whether rows may be ranked by it. The others stand beside: a constant prediction wins or games them.
    version : int
        Raised whenever the definition changes a number.
    unit : str
        ``"fraction"``, ``"nats"``, ``"epsilon"`` (of the [0, 1] pixel range), ``"seconds"``, ``"bytes"``, ``"count"``,
        or ``"score"`` for the Brier score, which has none.
    description : str
    requires : tuple of str
        Columns of the predictions table that it reads; ``class_bins`` and ``audits`` stand for the tables of that name.
        Empty for what is computed from other records or from a fit.
    unbounded : bool
        Whether it has no finite range; a missing value then has no finite bound either.
    """

    name: str
    family: Family
    higher_is_better: bool
    proper: bool
    version: int
    unit: str
    description: str
    requires: tuple[str, ...]
    unbounded: bool


def _metric(
    name: str,
    family: Family,
    better: Literal["higher", "lower"],
    description: str,
    *requires: str,
    proper: bool = False,
    unit: str = "fraction",
    unbounded: bool = False,
    version: int = 1,
) -> MetricInfo:
    return MetricInfo(name, family, better == "higher", proper, version, unit, description, requires, unbounded)


_ACCURACY = (
    _metric("accuracy", "accuracy", "higher", "share of images whose predicted class is right", "rank", proper=True),
    _metric("top5_accuracy", "accuracy", "higher", "share of images with the truth among the best 5 classes", "rank"),
    _metric("top10_accuracy", "accuracy", "higher", "share of images with the truth among the best 10 classes", "rank"),
    _metric(
        "balanced_accuracy", "accuracy", "higher", "mean recall of the classes present", "label", "predicted",
        proper=True,
    ),
    _metric("macro_f1", "accuracy", "higher", "mean F1 of the classes present", "label", "predicted", proper=True),
    _metric("worst_group_accuracy", "accuracy", "higher", "accuracy on the group where it is lowest", "rank", "group"),
    _metric(
        "nll", "accuracy", "lower", "mean negative log-likelihood of the true class", "log_likelihood",
        proper=True, unit="nats", unbounded=True,
    ),
    _metric(
        "infinite_nll_count", "accuracy", "lower", "images whose true class was given probability zero",
        "log_likelihood", unit="count", unbounded=True,
    ),
    _metric(
        "brier", "accuracy", "lower", "squared error of the probabilities, summed over classes", "brier",
        proper=True, unit="score",
    ),
    _metric("accuracy_gap", "accuracy", "lower", "accuracy, ID minus OOD"),
    _metric("nll_gap", "accuracy", "higher", "NLL, ID minus OOD", unit="nats", unbounded=True),
    _metric("brier_gap", "accuracy", "higher", "Brier score, ID minus OOD", unit="score"),
)  # fmt: skip

_SCALED = "after temperature scaling on ID-val"

_CALIBRATION = (
    _metric("ece", "calibration", "lower", "expected calibration error over equal-width bins", "rank", "confidence"),
    _metric(
        "adaptive_ece", "calibration", "lower", "calibration error over bins of equal mass", "rank", "confidence",
    ),
    _metric("class_wise_ece", "calibration", "lower", "mean over classes of their calibration error", "class_bins"),
    _metric(
        "ece_if_calibrated", "calibration", "lower", "ECE to expect of a perfectly calibrated model", "confidence"
    ),
    _metric(
        "nll_scaled", "calibration", "lower", f"NLL {_SCALED}", "log_likelihood_scaled",
        proper=True, unit="nats", unbounded=True,
    ),
    _metric(
        "brier_scaled", "calibration", "lower", f"Brier score {_SCALED}", "brier_scaled", proper=True, unit="score"
    ),
    _metric("ece_scaled", "calibration", "lower", f"ECE {_SCALED}", "rank", "confidence_scaled"),
    _metric("adaptive_ece_scaled", "calibration", "lower", f"adaptive ECE {_SCALED}", "rank", "confidence_scaled"),
    _metric("class_wise_ece_scaled", "calibration", "lower", f"class-wise ECE {_SCALED}", "class_bins_scaled"),
    _metric("ece_gap", "calibration", "higher", "ECE, ID minus OOD"),
)  # fmt: skip

_ROBUSTNESS = (
    _metric(
        "robust_accuracy", "robustness", "higher", "share of all images that are right under an attack of one epsilon",
        "breaking_epsilon", proper=True,
    ),
    _metric(
        "mean_robust_accuracy", "robustness", "higher", "robust accuracy, mean over the epsilons", "breaking_epsilon",
        proper=True,
    ),
    _metric(
        "robust_share", "robustness", "higher", "share of the images right when clean that an attack leaves right",
        "breaking_epsilon",
    ),
    _metric(
        "median_breaking_epsilon", "robustness", "higher",
        "smallest epsilon that breaks half of the images right when clean", "breaking_epsilon",
        unit="epsilon", unbounded=True,
    ),
    _metric(
        "unattacked_share", "robustness", "lower",
        "share of the images right when clean on which an attack could not begin, and that it counts as broken",
        "breaking_epsilon", "correct_clean",
    ),
    _metric(
        "audit_reversals", "robustness", "lower",
        "share of audited verdicts, only implied by the order of epsilons, that an attack turned round", "audits",
    ),
)  # fmt: skip

_CORRUPTION = (
    _metric(
        "corruption_accuracy", "corruption", "higher", "accuracy under one corruption at one severity", "rank",
        proper=True,
    ),
    _metric(
        "mean_corruption_accuracy", "corruption", "higher",
        "mean over corruptions of the mean accuracy over severities", proper=True,
    ),
)  # fmt: skip

_INVARIANCE = (
    _metric(
        "demographic_disparity", "invariance", "lower",
        "distance of the predicted classes of inferred groups from those of the whole set",
        "predicted", "scale_derivative",
    ),
    _metric(
        "consistency", "invariance", "higher", "share of images whose prediction survives one transform",
        "predicted", "predicted_clean",
    ),
    _metric("mean_consistency", "invariance", "higher", "consistency, mean over the settings of the transforms"),
)  # fmt: skip


def _cost(name: str, unit: str, description: str) -> MetricInfo:
    return _metric(name, "cost", "lower", description, unit=unit, unbounded=True)


_COST = (
    _cost("fit_seconds", "seconds", "duration of the fit"),
    _cost("peak_memory_bytes", "bytes", "largest memory held while fitting"),
    _cost("parameters_trained", "count", "parameters that received a gradient"),
    _cost("parameters_stored", "count", "parameters of the ranked predictor"),
    _cost("images_seen", "count", "training images passed forward"),
    _cost("forward_passes", "count", "forward passes through a backbone per predicted image"),
)

METRICS: Mapping[str, MetricInfo] = MappingProxyType(
    {info.name: info for info in (*_ACCURACY, *_CALIBRATION, *_ROBUSTNESS, *_CORRUPTION, *_INVARIANCE, *_COST)}
)
