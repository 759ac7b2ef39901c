"""Fine-tuning by the shared trainer: all weights, or a new head on a frozen backbone."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Literal, final

from torch import nn

from tlbench.errors import PluginError, nearest
from tlbench.methods.augment import AUGMENTATIONS, is_identity
from tlbench.methods.base import Context, Method, added_later
from tlbench.methods.cost import Cost, recipe_cost
from tlbench.methods.features import FeatureData
from tlbench.methods.training import merged, train_on
from tlbench.models.backbone import Network
from tlbench.suites.spec import Recipe


@final
class Finetune(Method):
    """All weights under a new head, trained with cross-entropy by the suite's recipe.

    The baseline of "Assaying Out-Of-Distribution Generalization in Transfer Learning" (NeurIPS 2022). A setting left
    at None is the recipe's.
    """

    regime: Literal["full", "head-only"] | None = None
    lr: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: Literal["adam", "sgd"] | None = None
    weight_decay: float | None = None
    augment: str | None = None
    crop: bool | None = None
    flip: bool | None = None
    batchnorm: Literal["train", "eval"] | None = None  # mode of BatchNorm's statistics during training
    precision: Literal["float32", "bfloat16"] | None = added_later(default=None)  # while training

    def __post_init__(self) -> None:
        check_given(self)

    def fit(self, context: Context) -> nn.Module:
        return fine_tuned(context, context.backbone.fresh(context.classes), **given(self))

    def cost(self, recipe: Recipe) -> Cost:
        return recipe_cost(merged(recipe, given(self)))


@final
class HeadOnly(Method):
    """A new head by the same trainer, data order and augmentation as ``Finetune``; the backbone never moves.

    It is frozen and in eval mode, or its BatchNorm statistics would adapt unnoticed. Differs from ``LinearProbe`` by
    augmentation and optimiser only. Where nothing is augmented the features are computed once. A setting left at None
    is the recipe's.

    With ``cached_views`` = k, features are computed of the augmented images of the first k epochs, and epoch e shows
    view e mod k of every image: k passes through the backbone instead of one an epoch, paid for with less variety. From
    k = epochs on, the head is the one that the loop over images trains.
    """

    lr: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: Literal["adam", "sgd"] | None = None
    weight_decay: float | None = None
    augment: str | None = None
    crop: bool | None = None
    flip: bool | None = None
    precision: Literal["float32", "bfloat16"] | None = added_later(default=None)  # while training
    cached_views: int | None = added_later(default=None)  # None: the backbone sees new views in every epoch

    def __post_init__(self) -> None:
        check_given(self)
        if self.cached_views is not None and self.cached_views < 1:
            raise ValueError(f"expected cached_views of at least 1 or None, got {self.cached_views}")

    def fit(self, context: Context) -> nn.Module:
        net = context.backbone.fresh(context.classes)
        return fine_tuned(context, net, cached_views=self.cached_views, regime="head-only", **given(self))

    def cost(self, recipe: Recipe) -> Cost:
        changed = merged(recipe, {**given(self), "regime": "head-only"})
        return recipe_cost(changed, cached_views=self.cached_views)


def given(method: Method) -> dict[str, Any]:
    """Return the settings of a method that change the training recipe: its fields of that name which are not None."""
    values = {field.name: getattr(method, field.name) for field in fields(method)}  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if name in Recipe.model_fields and value is not None}


def check_given(method: Method) -> None:
    """Refuse settings that no recipe can have, when the method is made rather than when it is fitted.

    Raises
    ------
    ValueError
        If a value is out of range, or there is no such augmentation.
    """
    changes = given(method)
    for name, value in changes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value:g}")
    try:
        merged(Recipe(), changes)
    except PluginError as problem:
        raise ValueError(str(problem)) from None
    augment = changes.get("augment")
    if augment is not None and augment not in AUGMENTATIONS:
        raise ValueError(f"there is no augmentation '{augment}'{nearest(augment, AUGMENTATIONS)}")


def fine_tuned(context: Context, net: Network, *, cached_views: int | None = None, **changes: Any) -> nn.Module:
    """Train a network whose body is theta0, by the recipe with some values changed; return it in eval mode.

    With the backbone frozen and nothing augmented, every epoch would show the head the same features: they are
    computed once, in the same order of batches. Where images are augmented, those of ``cached_views`` views are.
    """
    recipe = merged(context.recipe, changes)
    unchanging = is_identity(augment=recipe.augment, crop=recipe.crop, flip=recipe.flip)
    if recipe.regime == "full" or not (unchanging or (cached_views and recipe.epochs)):
        return context.train(net, **changes)
    if unchanging:
        features = context.features("id_train")
    else:
        features = context.features("id_train", views=min(cached_views or 1, recipe.epochs), **changes)
    shown = {"augment": "identity", "crop": False, "flip": False}
    train_on(context, net.head, FeatureData(features), **{**changes, **shown, "regime": "full"})
    return net.to(context.device).eval()
