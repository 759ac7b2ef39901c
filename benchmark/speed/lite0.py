"""EfficientNet-Lite0 with its ImageNet classifier: as it is loaded, and as the engine measures it."""

from __future__ import annotations

import copy

import torch
from numpy import uint8
from numpy.typing import NDArray
from torch import Tensor, nn

from speed.pictures import pieces
from tlbench.data.domain import Batch
from tlbench.engine.measured import MeasuredPredictor
from tlbench.methods.base import Predictor
from tlbench.models.zoo import efficientnet_lite0

CHUNK = 64
"""Most images of one pass on a CPU, as the engine chooses it."""


def plain_network() -> nn.Module:
    """Return the network as it is loaded: eval mode, parameters trainable, 1000 classes."""
    backbone = efficientnet_lite0()
    head = backbone.source_head
    assert head is not None
    return backbone.with_head(head).requires_grad_(True).eval()


def measured(network: nn.Module, example: Tensor, *, device: str = "cpu", chunk: int = CHUNK) -> MeasuredPredictor:
    """Return a copy of a network as conditions see it; ``example`` is a few images, uint8 (n, 3, h, w)."""
    with torch.no_grad():
        classes = network(example[:1].float() / 255).shape[1]
    predictor = Predictor(copy.deepcopy(network))
    return MeasuredPredictor(predictor, classes=classes, device=device, chunk=chunk, example=example[:16])


def images_of(n: int, side: int, seed: int = 0) -> Tensor:
    """Return pieces of photographs as uint8 (n, 3, side, side)."""
    return as_images(pieces(n, side, seed))


def as_images(pixels: NDArray[uint8]) -> Tensor:
    """Return uint8 (n, h, w, 3) as a contiguous tensor (n, 3, h, w)."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    """Return images as one batch of a made-up domain."""
    n = len(images)
    return Batch(torch.arange(n), tuple(f"piece-{i}" for i in range(n)), images, labels, "speed/photographs")
