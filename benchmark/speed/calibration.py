"""Measures from probabilities: netcal, torchmetrics and scikit-learn beside one pass of ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speed.measure import Effort, alternate
from speed.rows import Outcome
from tlbench.metrics.accuracy import accuracy, brier_score, negative_log_likelihood
from tlbench.metrics.calibration import expected_calibration_error
from tlbench.models.statistics import reduce_probabilities

CLASSES, BINS = 345, 15
Measures = Mapping[str, float]


def measure(wanted: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Measure the rows of calibration."""
    probabilities, labels = outcomes(effort.size(200_000, 50_000))
    for key, theirs in (("ece-netcal", netcal_ece), ("ece-torchmetrics", torchmetrics_ece)):
        if key in wanted:
            yield _row(key, theirs, ours_ece, probabilities, labels, effort)
    if "measures-together" in wanted:
        yield _row("measures-together", theirs_together, ours_together, probabilities, labels, effort)


def _row(
    key: str,
    theirs: Callable[[Tensor, Tensor], Measures],
    ours: Callable[[Tensor, Tensor], Measures],
    probabilities: Tensor,
    labels: Tensor,
    effort: Effort,
) -> Outcome:
    timed = alternate(
        {"theirs": lambda: theirs(probabilities, labels), "ours": lambda: ours(probabilities, labels)},
        repetitions=effort.repeated(5),
    )
    expected, found = timed["theirs"].result, timed["ours"].result
    difference = max(abs(expected[name] - found[name]) for name in expected)
    return Outcome(key, timed["theirs"].median, timed["ours"].median, difference)


def outcomes(n: int) -> tuple[Tensor, Tensor]:
    """Return float64 probabilities of a model that is right about half the time and too sure of it, and labels.

    In float64, since no float32 probability can show that two numbers agree to 1e-12.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, CLASSES, generator=generator, dtype=torch.float64).mul_(2.0)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    logits[torch.arange(n), labels] += torch.rand(n, generator=generator) * 9
    return logits.softmax(1), labels


def ours_ece(probabilities: Tensor, labels: Tensor) -> Measures:
    """ECE by tlbench."""
    columns = reduce_probabilities(probabilities, labels, brier=False)
    return {"ece": expected_calibration_error(columns["confidence"], columns["correct"], bins=BINS)}


def ours_together(probabilities: Tensor, labels: Tensor) -> Measures:
    """Four measures by tlbench, from one pass."""
    columns = reduce_probabilities(probabilities, labels)
    return {
        "accuracy": accuracy(columns["correct"]),
        "nll": negative_log_likelihood(columns["log_likelihood"]),
        "brier": brier_score(columns["brier"]),
        "ece": expected_calibration_error(columns["confidence"], columns["correct"], bins=BINS),
    }


def netcal_ece(probabilities: Tensor, labels: Tensor) -> Measures:
    """ECE by netcal."""
    from netcal.metrics import ECE

    return {"ece": float(ECE(BINS).measure(_array(probabilities), _array(labels)))}


def torchmetrics_ece(probabilities: Tensor, labels: Tensor) -> Measures:
    """ECE by torchmetrics."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    return {"ece": float(multiclass_calibration_error(probabilities, labels, CLASSES, n_bins=BINS, norm="l1"))}


def theirs_together(probabilities: Tensor, labels: Tensor) -> Measures:
    """Accuracy by torchmetrics, NLL and Brier score by scikit-learn, ECE by netcal: each called once."""
    from sklearn.metrics import brier_score_loss, log_loss
    from torchmetrics.functional.classification import multiclass_accuracy

    classes, array, true = np.arange(CLASSES), _array(probabilities), _array(labels)
    return {
        "accuracy": float(multiclass_accuracy(probabilities, labels, CLASSES, average="micro")),
        "nll": float(log_loss(true, array, labels=classes)),
        "brier": float(brier_score_loss(true, array, labels=classes, scale_by_half=False)),
        **netcal_ece(probabilities, labels),
    }


def _array(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[np.generic] = tensor.numpy()
    return array
