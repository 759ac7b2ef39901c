"""Multinomial logistic regression on frozen features."""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import nn

from tlbench.errors import FitError
from tlbench.methods.base import Context, Features, Method, Need
from tlbench.methods.cost import PROBE_COST, Cost
from tlbench.models.head import Scaling, fit_linear_heads
from tlbench.suites.spec import Recipe

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4, 1e-5)


@final
class LinearProbe(Method):
    """Multinomial logistic regression on frozen features, fitted by L-BFGS (Kornblith et al., 2019).

    Features are standardised over the training images and the scaling is folded into the head, so that the result is
    the pretrained network under a plain linear head. The penalty with the best ID-val accuracy wins, then the lower
    NLL, then the larger penalty. No augmentation.
    """

    requires: ClassVar[frozenset[Need]] = frozenset({"id_val"})
    deterministic: ClassVar[bool] = True

    penalties: tuple[float, ...] = PENALTIES  # candidates for the squared norm of the head in the mean loss
    steps: int = 200  # most L-BFGS iterations for each

    def __post_init__(self) -> None:
        if not self.penalties or not all(0 <= penalty < math.inf for penalty in self.penalties):
            told = ", ".join(f"{penalty:g}" for penalty in self.penalties) or "none"
            raise ValueError(f"expected penalties of at least 0, one or more and finite, got {told}")
        if self.steps < 1:
            raise ValueError(f"expected steps >= 1, got {self.steps}")

    def fit(self, context: Context) -> nn.Module:
        train, val = context.features("id_train"), context.features("id_val")
        head = probe_head(train, val, context.classes, penalties=self.penalties, steps=self.steps)
        return context.backbone.with_head(head).to(context.device)

    def cost(self, recipe: Recipe) -> Cost:
        return PROBE_COST


def probe_head(train: Features, val: Features, classes: int, *, penalties: tuple[float, ...], steps: int) -> nn.Linear:
    """Return the linear head whose penalty does best on validation features.

    Accuracy decides, then the lower NLL, then the larger penalty. Every penalty but the largest starts where its larger
    neighbour ended, as in the code of LP-FT (Kumar et al., 2022).

    Raises
    ------
    FitError
        If there is no penalty to try, or no training image.
    """
    if not penalties or train.labels is None or not len(train.values):
        raise FitError(f"a probe needs a penalty and an image, got {len(penalties)} and {len(train.values)}")
    scaling = Scaling.of(train.values)
    # The larger penalty first: max() keeps the first of equals.
    largest_first = sorted(penalties, reverse=True)
    heads = fit_linear_heads(scaling.apply(train.values), train.labels, classes, penalties=largest_first, steps=steps)
    return max((scaling.fold(head) for head in heads), key=lambda head: _score(head, val))


def _score(head: nn.Linear, features: Features) -> tuple[float, float]:
    """Return accuracy and negated NLL: the greater, the better."""
    if features.labels is None or not len(features.values):
        return 0.0, 0.0
    with torch.no_grad():
        logits = head(features.values).double()
    correct = (logits.argmax(dim=1) == features.labels).double().mean()
    return float(correct), -float(F.cross_entropy(logits, features.labels))
