"""Head-only training: our cached features beside the loop that runs the backbone in every epoch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from speed.measure import Effort, alternate
from speed.pictures import pieces
from speed.rows import Outcome
from tlbench.data.domain import Split
from tlbench.engine.context import FitContext
from tlbench.methods.finetune import HeadOnly
from tlbench.methods.order import one_pass
from tlbench.models.backbone import Backbone
from tlbench.models.zoo import efficientnet_lite0
from tlbench.records.manifest import Manifest
from tlbench.suites.spec import Recipe

SIDE, CLASSES, BATCH, EPOCHS, RATE = 96, 10, 64, 10, 5e-4


@lru_cache(maxsize=1)
def _backbone() -> Backbone:
    # Read from disk once: neither side's time.
    return efficientnet_lite0()


def measure(wanted: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Measure the row of head-only training."""
    assert "head-only" in wanted
    split = _split(effort.size(256, 64))

    def ours() -> Tensor:
        # A context of its own every time: its features are extracted again.
        return _weights(HeadOnly().fit(_context(split)))

    timed = alternate(
        {"theirs": lambda: _weights(every_epoch(split)), "ours": ours},
        repetitions=effort.repetitions,
        warm_up=ours,  # the same backbone and head, a tenth of the time
    )
    difference = float((timed["ours"].result - timed["theirs"].result).abs().max())
    yield Outcome("head-only", timed["theirs"].median, timed["ours"].median, difference)


def every_epoch(split: Split) -> nn.Module:
    """Train a head by the plain loop: the frozen backbone, in eval mode, sees every batch of every epoch."""
    context = _context(split)
    network = context.backbone.fresh(CLASSES).eval()
    images = torch.from_numpy(np.asarray(split.images)).permute(0, 3, 1, 2)
    labels = torch.from_numpy(split.labels)
    optimiser = torch.optim.Adam(network.head.parameters(), lr=RATE)
    order = context.rng("order")
    for _ in range(EPOCHS):
        for places in one_pass(len(split), BATCH, order, drop_last=False)[0]:
            with torch.no_grad():
                features = network.features(images[places].float() / 255)
            loss = functional.cross_entropy(network.forward_from_features(features), labels[places])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network


def _weights(network: nn.Module) -> Tensor:
    head = network.get_submodule("head")
    return torch.cat([parameter.detach().flatten() for parameter in head.parameters()])


def _context(split: Split) -> FitContext:
    return FitContext(
        method=HeadOnly(), backbone=_backbone(), train=split, val=split, targets={}, classes=CLASSES,
        class_names=split.manifest.classes, class_info={}, device="cpu", seed=0, source="photographs", target=None,
        recipe=Recipe(lr=RATE, epochs=EPOCHS, batch_size=BATCH, crop=False, flip=False),
    )  # fmt: skip


def _split(n: int) -> Split:
    """Return photographs whose classes are their brightness: something that a head can learn."""
    pixels = pieces(n, SIDE, seed=7)
    labels = (pixels.mean(axis=(1, 2, 3)).argsort().argsort() * CLASSES // n).astype(np.int64)
    manifest = Manifest(
        task="speed", domain="photographs", part="train", classes=tuple(str(c) for c in range(CLASSES)),
        names=tuple(f"piece-{i}" for i in range(n)), labels=labels, pixels="photographs", image_size=SIDE,
    )  # fmt: skip
    return Split(manifest, pixels)
