"""Nearest neighbours in feature space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlbench.errors import FitError
from tlbench.methods.base import Context, Fitted, Method, Predictor
from tlbench.methods.cost import Cost
from tlbench.models.backbone import Network
from tlbench.suites.spec import Recipe


@final
class Knn(Method):
    """Weighted vote of the k nearest training images by cosine similarity of features, without training.

    Weights are exp(similarity / temperature), as usual in self-supervised learning (Wu et al., 2018). One vote is added
    and shared equally by all classes, so that no probability is zero and the NLL stays finite: a class with share s of
    the k votes gets (k s + 1 / classes) / (k + 1). The predicted class does not change by it.
    """

    one_network: ClassVar[bool] = False

    deterministic: ClassVar[bool] = True

    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"expected k >= 1, got {self.k}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"expected temperature > 0 and finite, got {self.temperature:g}")

    def fit(self, context: Context) -> Fitted:
        train = context.features("id_train")
        if train.labels is None or not len(train.values):
            raise FitError("nearest neighbours need a training image, there is none")
        bank = F.normalize(train.values, dim=1)
        return self._fitted(context, bank, train.labels)

    def cost(self, recipe: Recipe) -> Cost:
        return Cost(forward=1, features=True, keeps="features")

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        return self._fitted(context, state["bank"], state["labels"])

    def _fitted(self, context: Context, bank: Tensor, labels: Tensor) -> Fitted:
        vote = Vote(bank, labels, context.classes, k=self.k, temperature=self.temperature)
        module = OnFeatures(context.backbone.fresh(), vote).to(context.device).eval()
        # The vote of a single neighbour is a step function: its gradient is zero wherever it exists.
        predictor = Predictor(module, output="log_probs", differentiable=vote.k > 1)
        return Fitted({"main": predictor}, state={"bank": bank, "labels": labels})


class OnFeatures(nn.Module):
    """A rule on the features of a network without a head."""

    def __init__(self, net: Network, rule: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.rule = rule

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.rule(self.net.features(images))
        return outputs


class Vote(nn.Module):
    """Features, shape (n, width), to log-probabilities, shape (n, classes)."""

    bank: Tensor
    labels: Tensor

    def __init__(self, bank: Tensor, labels: Tensor, classes: int, *, k: int, temperature: float) -> None:
        super().__init__()
        self.register_buffer("bank", bank)
        self.register_buffer("labels", labels)
        self.classes, self.k, self.temperature = classes, min(k, len(bank)), temperature

    def forward(self, features: Tensor) -> Tensor:
        similarity = F.normalize(features, dim=1) @ self.bank.T
        near, places = similarity.topk(self.k, dim=1)
        weights = torch.softmax(near / self.temperature, dim=1)
        share = weights.new_zeros(len(features), self.classes).scatter_add(1, self.labels[places], weights)
        return torch.log((self.k * share + 1 / self.classes) / (self.k + 1))
