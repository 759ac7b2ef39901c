"""Geometric transforms that leave the class as it is: shift, rotation, scale.

Bilinear interpolation, edges repeated, rounded to uint8. The size of a step is the suite's and stands in the setting's
severity; its direction is drawn for each image from the image's identity.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tlbench.conditions.base import Drawn, ImageCondition, image_seeds, sent
from tlbench.errors import UnknownNameError, listed, nearest
from tlbench.setting import Setting

if TYPE_CHECKING:
    from tlbench.data.domain import Batch

TRANSFORMS = ("shift", "rotation", "scale")
SHIFT_SIDE = 64
"""The side of an image, in pixels, for which the steps of a shift are given; they scale with the side."""


@final
class Transform(ImageCondition):
    """One transform at one or several steps.

    Parameters
    ----------
    name : {"shift", "rotation", "scale"}
        ``shift`` moves the content up, down, left or right (each as likely), by whole pixels where the step allows, so
        that no blur comes with it. ``rotation`` turns it about the centre, either way. ``scale`` enlarges it about the
        centre by the step, and draws nothing.
    steps : tuple of float
        Pixels at a side of 64, degrees, or factors; positive.
    """

    def __init__(self, name: str, steps: tuple[float, ...]) -> None:
        if name not in TRANSFORMS:
            raise UnknownNameError(
                f"expected a transform ({listed(TRANSFORMS)}), got '{name}'{nearest(name, TRANSFORMS)}"
            )
        if not steps or min(steps) <= 0:
            raise ValueError(f"expected positive steps for '{name}', got {steps}")
        self._name = name
        self._settings = tuple(Setting(name, severity=float(step)) for step in steps)

    @property
    def name(self) -> str:
        return self._name

    @property
    def settings(self) -> tuple[Setting, ...]:
        return self._settings

    def apply(self, batch: Batch, setting: Setting) -> Tensor:
        """Return the transformed images, uint8 (n, 3, h, w), on the device of the batch."""
        return self.applied(batch.images, self.drawn(batch, setting, batch.images.device), setting)

    def drawn(self, batch: Batch, setting: Setting, device: torch.device) -> Drawn:
        """Draw one map an image, float64 (n, 2, 3)."""
        assert setting.severity is not None
        side = max(batch.images.shape[-2:])
        maps = [inverse_map(self._name, setting.severity, seed, side) for seed in image_seeds(batch, setting)]
        return Drawn(batch, (torch.tensor(maps, dtype=torch.float64).view(-1, 2, 3),))

    def applied(self, images: Tensor, drawn: Drawn, setting: Setting) -> Tensor:
        """Return the transformed images, uint8 (n, 3, h, w), on their device."""
        return resample(images, drawn.tensors[0])


def inverse_map(name: str, step: float, seed: int, side: int) -> tuple[float, float, float, float, float, float]:
    """Return the map from a place in the result to its source, in pixels about the centre.

    Returns
    -------
    tuple of 6 floats
        ``(a, b, c, d, e, f)``: source x is ``a x + b y + c``, source y is ``d x + e y + f``.
    """
    if name == "scale":
        return 1 / step, 0.0, 0.0, 0.0, 1 / step, 0.0
    draw = np.random.default_rng(seed)
    if name == "rotation":
        angle = math.radians(step) * (1 if draw.integers(2) else -1)
        return math.cos(angle), math.sin(angle), 0.0, -math.sin(angle), math.cos(angle), 0.0
    pixels = step * side / SHIFT_SIDE
    x, y = ((pixels, 0.0), (-pixels, 0.0), (0.0, pixels), (0.0, -pixels))[int(draw.integers(4))]
    return 1.0, 0.0, x, 0.0, 1.0, y


def resample(images: Tensor, maps: Tensor) -> Tensor:
    """Return images read off at mapped places: bilinear, edges repeated, rounded.

    Parameters
    ----------
    images : uint8 tensor, shape (n, 3, h, w)
    maps : float64 tensor, shape (n, 2, 3)
        One inverse map an image, in pixels about the centre; see `inverse_map`. Places are worked out from them on the
        images' device, to the same bits on every one; values read there agree within one level.
    """
    (height, width), device = images.shape[-2:], images.device
    # Products and sums of single numbers, and no matrix product, whose bits may depend on the number of images.
    x = (torch.arange(width, dtype=torch.float64, device=device) + 0.5 - width / 2).view(1, 1, -1)
    y = (torch.arange(height, dtype=torch.float64, device=device) + 0.5 - height / 2).view(1, -1, 1)
    maps = sent(maps, device)
    a, b, c, d, e, f = (maps[:, row, column].view(-1, 1, 1) for row in (0, 1) for column in (0, 1, 2))
    # grid_sample counts from -1 to 1 between the outer edges of the image.
    grid = torch.stack([(a * x + b * y + c) * (2 / width), (d * x + e * y + f) * (2 / height)], dim=-1).float()
    moved = functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.round_().clamp_(0, 255).to(torch.uint8)
