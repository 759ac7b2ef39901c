"""L2-SP: weight decay towards the pretrained weights instead of towards zero."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from tlbench.methods.base import Context, Hooks, Method, Step, added_later
from tlbench.methods.cost import Cost, recipe_cost
from tlbench.methods.finetune import Finetune, check_given, given
from tlbench.methods.training import merged
from tlbench.suites.spec import Recipe


@final
class L2Sp(Method):
    """Fine-tuning that is held near its starting point, theta0 (Li, Grandvalet and Davoine, ICML 2018).

    The loss, w being the weights of the backbone and v those of the new head, is::

        cross-entropy + alpha / 2 * ||w - theta0||^2 + beta / 2 * ||v||^2

    w is every trained parameter of the backbone, scale and shift of normalisation layers and biases included; their
    running statistics are no parameters and move as the recipe says. Bias and weight of the head are in v. The two
    terms take the place of weight decay, which is off for all of them: there is no such setting, and the recipe's has
    no effect. They are part of the loss, so that an adaptive optimiser scales their gradient like any other.

    alpha = beta = 0.01: the paper fixes beta there and searches alpha over powers of ten by validation
    (``grid-search`` does that), the authors' defaults in later code are both 0.01. The paper trains by SGD with two
    learning rates; here the suite's recipe holds, and a setting left at None is the recipe's. alpha = beta = 0 equals
    ``Finetune`` without weight decay bit for bit; a growing alpha approaches ``HeadOnly``, but
    SGD needs it to stay well below 2 over the learning rate. All weights train.
    """

    version: ClassVar[int] = 1

    alpha: float = 0.01  # how strongly the backbone is held at theta0
    beta: float = 0.01  # how strongly the head is held at zero
    lr: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: Literal["adam", "sgd"] | None = None
    augment: str | None = None
    crop: bool | None = None
    flip: bool | None = None
    batchnorm: Literal["train", "eval"] | None = None
    precision: Literal["float32", "bfloat16"] | None = added_later(default=None)  # while training

    def __post_init__(self) -> None:
        check_given(self)
        for name in ("alpha", "beta"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"expected a finite {name} of at least 0, got {getattr(self, name):g}")

    def fit(self, context: Context) -> nn.Module:
        hooks = HeldAtStart(alpha=self.alpha, beta=self.beta)
        return context.train(context.backbone.fresh(context.classes), hooks, **_changes(self))

    def cost(self, recipe: Recipe) -> Cost:
        return recipe_cost(merged(recipe, _changes(self)))

    def null_config(self) -> tuple[Method, Method]:
        return L2Sp(alpha=0.0, beta=0.0, **given(self)), Finetune(**_changes(self))


def _changes(method: L2Sp) -> dict[str, Any]:
    return {"regime": "full", **given(method), "weight_decay": 0.0}


class HeldAtStart(Hooks):
    """The two penalties of L2-SP; the weights of the first step, when nothing has moved, are the start."""

    def __init__(self, *, alpha: float, beta: float) -> None:
        self.alpha, self.beta = alpha, beta
        self.body: list[tuple[Tensor, Tensor]] = []
        self.head: list[Tensor] = []

    def loss(self, step: Step) -> Tensor | None:
        if step.index == 0:
            # Only now do the weights lie where, and as, they will during training: on their device, in their layout.
            self._remember(step.net)
        terms = []
        if self.alpha:
            terms.append(0.5 * self.alpha * _total([(now - start).square().sum() for now, start in self.body]))
        if self.beta:
            terms.append(0.5 * self.beta * _total([now.square().sum() for now in self.head]))
        return _total(terms) if terms else None

    def _remember(self, net: nn.Module) -> None:
        for name, parameter in net.named_parameters():
            if name.startswith("head."):
                self.head.append(parameter)
            else:
                self.body.append((parameter, parameter.detach().clone()))


def _total(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum()
