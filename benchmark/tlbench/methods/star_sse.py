"""Snapshots around one fine-tuned network: an ensemble, and a soup, that stay in the basin of pretraining."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, final

from torch import Tensor

from tlbench.methods.averaging import State, averaged, copied, ensembled, loaded, named, part, soup
from tlbench.methods.base import Context, Fitted, Hooks, Method, Predictor
from tlbench.methods.cost import Cost, recipe_cost, together
from tlbench.methods.finetune import Finetune, check_given, given
from tlbench.methods.training import merged
from tlbench.suites.spec import Recipe


@final
class StarSse(Method):
    """Networks trained for one more cycle each from a fine-tuned parent, averaged (Sadrtdinov et al., NeurIPS 2023).

    The first of ``members`` networks, the parent, is fine-tuned from theta0. Every further one restarts from the
    parent's weights and buffers (StarSSE, ``restart="parent"``) or from the network before it (SSE, the snapshot
    ensemble that the paper compares with, ``restart="previous"``) with an empty optimiser and its own order of the
    data. In epoch e of a run of E epochs the learning rate is 0.5 (1 + cos(pi e / E)) times its peak. The parent's
    peak is ``lr`` and its run has ``epochs``; those of the others are ``cycle_lr_ratio`` times that peak and
    ``cycle_epochs``, by default as many. The paper searches both ratios, in {0.25, 0.5, 1, 2, 4} for the peak and
    {0.5, 1, 2, 4} for the length; ours are 1, without a search. It has five members with ResNet-50 and Swin-T, as here,
    and its own recipes; ours is the suite's wherever a setting is None, without warm-up.

    Variants: ``main``, the ensemble, whose outputs are the logarithm of the mean of the members' softmax; ``soup``, one
    network of their mean weights, its BatchNorm statistics recomputed on the training images; ``parent``. One member is
    the parent alone. ``schedule="constant"`` leaves the cosine out: with one member, that is fine-tuning.

    With peaks that are low enough members stay in the basin in which the pretrained weights lie and gain from each
    other's errors; high ones leave it, and every member loses what it was transferred for. Training in a star, cycles
    do not depend on each other. A peak of zero makes equal members only where BatchNorm's statistics are frozen.
    """

    one_network: ClassVar[bool] = False

    members: int = 5
    restart: Literal["parent", "previous"] = "parent"
    cycle_epochs: int | None = None  # of every member but the first; None: as many as that one's
    cycle_lr_ratio: float = 1.0  # the peak of their learning rate by that of the first
    schedule: Literal["cosine", "constant"] = "cosine"
    lr: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: Literal["adam", "sgd"] | None = None
    weight_decay: float | None = None
    augment: str | None = None
    crop: bool | None = None
    flip: bool | None = None
    batchnorm: Literal["train", "eval"] | None = None
    precision: Literal["float32", "bfloat16"] | None = None  # while training

    def __post_init__(self) -> None:
        check_given(self)
        if self.members < 1:
            raise ValueError(f"expected members of at least 1, got {self.members}")
        if self.cycle_epochs is not None and self.cycle_epochs < 1:
            raise ValueError(f"expected cycle_epochs of at least 1 or none, got {self.cycle_epochs}")
        if not 0 <= self.cycle_lr_ratio < math.inf:
            raise ValueError(f"expected a cycle_lr_ratio of at least 0, got {self.cycle_lr_ratio}")

    def fit(self, context: Context) -> Fitted:
        first = self._first(context.recipe)
        states: list[State] = []
        for k, recipe in enumerate((first, *[self._cycle(first)] * (self.members - 1))):
            net = context.backbone.fresh(context.classes)
            if k:
                net.load_state_dict(states[0 if self.restart == "parent" else -1])
            hooks = CosineByEpoch(recipe.epochs) if self.schedule == "cosine" else Hooks()
            # A run of its own starts with an empty optimiser, which is what the method asks for.
            context.train(net, hooks, order=f"order/cycle-{k}" if k else "order", **recipe.model_dump())
            states.append(copied(net))
        state = {key: tensor for k, own in enumerate(states) for key, tensor in named(str(k), own).items()}
        if self.members > 1:
            # The mean weights can be had again from the members; statistics that were recomputed cannot.
            mean, cooked = averaged(states), soup(context, states)
            state |= named("soup", {key: cooked[key] for key in mean if not mean[key].equal(cooked[key])})
        return self.build(context, state, {})

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        states = [part(str(k), state) for k in range(self.members)]

        def main() -> Predictor:
            return ensembled([Predictor(loaded(context, own)) for own in states])

        def cooked() -> Predictor:
            return Predictor(loaded(context, {**averaged(states), **part("soup", state)}))

        def parent() -> Predictor:
            return Predictor(loaded(context, states[0]))

        several = {"soup": cooked, "parent": parent} if self.members > 1 else {}
        return Fitted({"main": main, **several}, state=state)

    def cost(self, recipe: Recipe) -> Cost:
        first = self._first(recipe)
        runs = (first, *[self._cycle(first)] * (self.members - 1))
        whole = together([recipe_cost(run, cached=False) for run in runs])
        if self.members == 1:
            return whole
        m = self.members
        # Statistics of the soup; soup and parent stand beside the ensemble.
        return replace(whole, forward=whole.forward + 1, predicts=m, also_predicts=2, variants=3, networks=m)

    def null_config(self) -> tuple[Method, Method]:
        return replace(self, members=1, schedule="constant"), Finetune(regime="full", **given(self))

    def _first(self, recipe: Recipe) -> Recipe:
        return merged(recipe, {**given(self), "regime": "full"})

    def _cycle(self, first: Recipe) -> Recipe:
        epochs = first.epochs if self.cycle_epochs is None else self.cycle_epochs
        return merged(first, {"lr": self.cycle_lr_ratio * first.lr, "epochs": epochs})


class CosineByEpoch(Hooks):
    """Half a cosine over a run, its learning rate changing from epoch to epoch and not within one."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def lr_factor(self, index: int, total: int) -> float:
        epoch = index // (total // self.epochs)
        return 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
