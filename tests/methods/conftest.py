"""A small backbone and a small task, for methods to be tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tlbench.engine.context import FitContext
from tlbench.methods.base import Method
from tlbench.models.backbone import Backbone
from tlbench.models.zoo import load_backbone
from tlbench.testing import RECIPE, synthetic_context

MakeContext = Callable[..., FitContext]


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load_backbone("small-cnn")


@pytest.fixture
def context_for(backbone: Backbone) -> MakeContext:
    """``context_for(method, seed=0, classes=3, epochs=..., ...)``: what the method would be given."""

    def make(method: Method, *, seed: int = 0, classes: int = 3, **recipe: Any) -> FitContext:
        changed = RECIPE.model_copy(update=recipe)
        return synthetic_context(method, backbone=backbone, recipe=changed, seed=seed, classes=classes)

    return make
