"""A small task, made up: what a method is given where there is no suite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlbench.data.domain import Split
from tlbench.engine.context import FitContext
from tlbench.methods.base import TARGET_TAGS, Method, Tag
from tlbench.models.backbone import Backbone
from tlbench.records.manifest import Manifest
from tlbench.seeds import derive, digest
from tlbench.suites.hierarchy import Hierarchy, HierarchySpec
from tlbench.suites.spec import Recipe

SIDE = 16
RECIPE = Recipe.model_validate({"epochs": 2, "batch_size": 16, "lr": 1e-2, "crop": False, "flip": False})
SIZES = {"train": 48, "val": 24, "test": 24}


def synthetic_split(part: str, *, domain: str = "plain", classes: int = 3, n: int | None = None) -> Split:
    """Return a small split of coloured, textured noise: easy, but not solved by one pixel.

    Parameters
    ----------
    part : {"train", "val", "test"}
    domain : str
        ``"plain"``, or any other name for darker images of the same classes.
    classes : int
    n : int or None
        Images; None for a number that fits the part.
    """
    amount = SIZES[part] if n is None else n
    rng = np.random.default_rng(derive("synthetic", domain, part, classes, amount))
    labels = np.arange(amount, dtype=np.int64) % classes
    across = np.linspace(0, 2 * np.pi, SIDE)
    waves = np.sin((1 + labels)[:, None] * across)[:, None, :, None]
    tints = np.stack([np.cos(2 * np.pi * (labels / classes + shift / 3)) for shift in range(3)], axis=1)
    level = 0.5 + 0.12 * waves + 0.12 * tints[:, None, None, :] + rng.normal(0, 0.08, (amount, SIDE, SIDE, 3))
    dark = 1.0 if domain == "plain" else 0.7
    images = (np.clip(dark * level, 0, 1) * 255).round().astype(np.uint8)
    names = tuple(f"{part}-{i:03d}" for i in range(amount))
    names_of_classes = tuple(f"class-{label}" for label in range(classes))
    pixels = digest("synthetic", domain, part, classes, amount)
    return Split(Manifest("synthetic", domain, part, names_of_classes, names, labels, pixels, SIDE), images)


def synthetic_hierarchy(classes: Sequence[str]) -> Hierarchy:
    """Return a tree over the synthetic classes: the first two are of one kind, the others stand alone."""
    groups = {"any": ("pair", *classes[2:]), "pair": tuple(classes[:2])}
    return HierarchySpec(version=1, source="made up", groups=groups).of(classes)


def synthetic_context(
    method: Method, *, backbone: Backbone, recipe: Recipe = RECIPE, seed: int = 0, classes: int = 3
) -> FitContext:
    """Return what a method is given by an engine, on the synthetic task."""
    targets: dict[Tag, Split] = {}
    if method.reads & TARGET_TAGS:
        targets = {
            "target_unlabeled_train": synthetic_split("train", domain="dark", classes=classes),
            "target_unlabeled_test": synthetic_split("test", domain="dark", classes=classes),
            "target_labels": synthetic_split("val", domain="dark", classes=classes),
        }
    train = synthetic_split("train", classes=classes)
    return FitContext(
        method=method,
        backbone=backbone,
        train=train,
        val=synthetic_split("val", classes=classes),
        targets=targets,
        classes=classes,
        class_names=train.manifest.classes,
        class_info={"hierarchy": synthetic_hierarchy(train.manifest.classes)},
        recipe=recipe,
        device="cpu",
        seed=seed,
        source="plain",
        target="dark" if targets else None,
    )
