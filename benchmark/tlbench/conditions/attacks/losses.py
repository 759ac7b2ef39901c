"""Losses that an attack makes as large as it can: outputs and labels to one loss an image."""

from __future__ import annotations

from typing import Final

from torch import Tensor
from torch.nn import functional

from tlbench.conditions.base import Loss


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the softmax of the outputs, shape (n,); logits and their log-probabilities give the same."""
    return functional.cross_entropy(outputs, labels, reduction="none")


def difference_of_logits_ratio(outputs: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (DLR): how far the true class falls short, in units of the spread of the top three.

    It does not change when the outputs are shifted or scaled, so a predictor cannot hide its gradients by large logits.

    Parameters
    ----------
    outputs : float tensor, shape (n, classes)
        With two classes there is no third output, and the loss is the cross entropy, as published with AutoAttack.
    labels : int64 tensor, shape (n,)

    Returns
    -------
    float tensor, shape (n,)
        ``-(z_y - max_{i != y} z_i) / (z_(1) - z_(3) + 1e-12)``; positive where the prediction is wrong.

    References
    ----------
    Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", equation 6.
    """
    if outputs.shape[1] < 3:
        return cross_entropy(outputs, labels)
    top, place = outputs.topk(3, dim=1)
    right = place[:, 0] == labels
    best_other = top[:, 1].where(right, top[:, 0])
    true = outputs.gather(1, labels[:, None])[:, 0]
    return -(true - best_other) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_difference_of_logits_ratio(outputs: Tensor, labels: Tensor) -> Tensor:
    """Targeted DLR: how far the true class falls short of one chosen class, in units of the spread of the top four.

    Like DLR it does not change when the outputs are shifted or scaled.

    Parameters
    ----------
    outputs : float tensor, shape (n, classes)
    labels : int64 tensor, shape (n, 2) or (n,)
        The true class and the one aimed at. Without the latter, the loss is the one that takes this one's place where
        it does not exist, as published with AutoAttack: DLR with three classes, the cross entropy with two.

    Returns
    -------
    float tensor, shape (n,)
        ``-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)``; positive where the chosen class beats the true one.

    Raises
    ------
    ValueError
        If a class is aimed at and there are fewer than four.

    References
    ----------
    Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", equation 7.
    """
    if labels.ndim == 1:
        return difference_of_logits_ratio(outputs, labels)
    if outputs.shape[1] < 4:
        raise ValueError(f"expected at least four classes for the targeted DLR loss, got {outputs.shape[1]}")
    top = outputs.topk(4, dim=1).values
    true, aim = outputs.gather(1, labels).unbind(dim=1)
    return -(true - aim) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


LOSSES: Final[dict[str, Loss]] = {
    "ce": cross_entropy,
    "dlr": difference_of_logits_ratio,
    "t": targeted_difference_of_logits_ratio,
}
