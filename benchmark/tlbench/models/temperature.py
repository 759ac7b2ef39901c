"""The temperature that calibrates a predictor on held-out images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tlbench.models.statistics import Output, check_finite, labels_beside, parts_of

LOWEST, HIGHEST = 0.01, 100.0
"""Ends of the search for a temperature: where every image is right, the likelihood grows as long as it falls."""


def fit_temperature(outputs: Tensor, labels: Tensor, output: Output = "logits") -> float:
    """Return the temperature T that minimises the NLL of softmax(outputs / T).

    The NLL is convex in 1/T; the root of its derivative is found in float64 by Newton's method within a bracket.

    Parameters
    ----------
    outputs : float tensor, shape (n, classes)
        Logits or log-probabilities on ID-val.
    labels : int64 tensor, shape (n,)
        Images whose true class has probability zero, at every temperature, have no say.
    output : {"logits", "log_probs"}

    Returns
    -------
    float
        In [0.01, 100]; an end where the minimum lies beyond it, 1 where every temperature is as good.

    Raises
    ------
    NonFiniteOutputs
        If outputs allow no prediction.
    ValueError
        If there are no images, shapes do not fit, a label is no class, or the outputs are scores.

    References
    ----------
    Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2.
    """
    if output == "scores":
        raise ValueError("scores have no probabilities, hence no temperature")
    true = labels_beside(outputs, labels)
    outputs = outputs.detach()
    check_finite(outputs.amax(1))
    if len(true) == 0:
        raise ValueError("expected at least one image, got none")
    possible = torch.isfinite(outputs.gather(1, true[:, None])[:, 0])
    images = _Images(outputs[possible], true[possible]) if not possible.all() else _Images(outputs, true)
    if len(images.true) == 0 or images.slope(1.0)[0] == 0.0:
        return 1.0
    low, high = 1 / HIGHEST, 1 / LOWEST
    if images.slope(low)[0] >= 0:
        return HIGHEST
    if images.slope(high)[0] <= 0:
        return LOWEST
    inverse = _root(images, low, high)
    # The root is exact up to rounding; an optimum at 1 must not come out above it.
    return 1.0 if images.nll(inverse) > images.nll(1.0) else 1 / inverse


class _Images(NamedTuple):
    """Outputs, shape (n, classes), and true classes, shape (n,), seen a part at a time.

    What is averaged are all images at once, so that the cut changes no bit.
    """

    outputs: Tensor
    true: Tensor

    def slope(self, inverse: float) -> tuple[float, float]:
        """Return the first and second derivative of the mean NLL by the inverse temperature."""
        first, second = (torch.empty(len(self.true), dtype=torch.float64, device=self.true.device) for _ in range(2))
        for part, centred in self._centred():
            probabilities = (centred * inverse).softmax(1)
            finite = torch.where(probabilities > 0, centred, 0.0)
            mean = (probabilities * finite).sum(1)
            second[part] = (probabilities * (finite - mean[:, None]).square()).sum(1)
            first[part] = mean - centred.gather(1, self.true[part, None])[:, 0]
        return float(first.mean()), float(second.mean())

    def nll(self, inverse: float) -> float:
        """Return the mean NLL."""
        likelihood = torch.empty(len(self.true), dtype=torch.float64, device=self.true.device)
        for part, centred in self._centred():
            likelihood[part] = (centred * inverse).log_softmax(1).gather(1, self.true[part, None])[:, 0]
        return -float(likelihood.mean())

    def _centred(self) -> Iterator[tuple[slice, Tensor]]:
        for part in parts_of(self.outputs):
            values = self.outputs[part].double()
            yield part, values - values.amax(1, keepdim=True)


def _root(images: _Images, low: float, high: float) -> float:
    """Return the zero of the slope of the NLL between two inverse temperatures."""
    at = 1.0
    for _ in range(200):
        slope, curvature = images.slope(at)
        if slope > 0:
            high = at
        else:
            low = at
        newton = at - slope / curvature if curvature > 0 else math.inf
        # Newton may leave the bracket where the curve is flat; halving the bracket in logarithms always works.
        after = newton if low < newton < high else math.sqrt(low * high)
        if abs(after - at) <= 1e-12 * at or high - low <= 1e-12 * high:
            return after
        at = after
    return at
