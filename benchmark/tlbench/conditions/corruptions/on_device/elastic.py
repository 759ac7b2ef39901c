"""The elastic transform on a device: the host draws, the device smooths the field and reads off twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.conditions.corruptions.elastic import smoothing
from tlbench.conditions.corruptions.on_device.levels import OnDevice, Tensors, one_by_one, stacked, truncated, unit
from tlbench.conditions.corruptions.on_device.linear import mirrored, reflected
from tlbench.conditions.corruptions.pixels import numbers
from tlbench.conditions.corruptions.tables import Parameter

Folded = Callable[[Tensor, int], Tensor]
"""``folded(places, length)``: whole places on a line that goes on beyond its ends, brought back inside."""


def maps_and_fields(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Draw the inverse affine maps, float64 (n, 2, 3), and the rough fields, float32 (n, 2, h, w).

    Fields that would move nothing are not drawn: nobody uses an image's generator after them.
    """
    amplitude, _, jitter = numbers(parameter)
    side = (images.shape[-2], images.shape[-1])
    planes = 2 if amplitude else 0

    def drawn(draw: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        moved = inverse_affine(draw.uniform(-jitter, jitter, (3, 2)), side)
        return moved, draw.uniform(-1, 1, (planes, *side)).astype(np.float32)

    pairs = one_by_one(drawn, draws)
    return stacked([pair[0] for pair in pairs]), stacked([pair[1] for pair in pairs])


def inverse_affine(jitter: NDArray[np.float64], side: tuple[int, int]) -> NDArray[np.float64]:
    """Return where a pixel of the host's `jittered` image comes from, (2, 3): x and y from x, y and 1."""
    centre, arm = np.array(side, np.float32) // 2, min(side) // 3
    before = np.array([centre + arm, [centre[0] + arm, centre[1] - arm], centre - arm], np.float32)
    forward = cv2.getAffineTransform(before, before + jitter.astype(np.float32))
    return np.asarray(cv2.invertAffineTransform(forward), np.float64)


def elastic_transform(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Read off under the affine map, then under the smooth field: in float64 what the host does in float32."""
    maps, fields = drawn
    amplitude, deviation, _ = numbers(parameter)
    (height, width), device = images.shape[-2:], images.device
    row = torch.arange(height, dtype=torch.float64, device=device)[:, None]
    column = torch.arange(width, dtype=torch.float64, device=device)
    (a, b, c), (d, e, f) = ([maps[:, i, j].view(-1, 1, 1) for j in range(3)] for i in range(2))
    moved = read_off(unit(images, torch.float32), d * column + e * row + f, a * column + b * row + c, mirrored)
    if amplitude:
        down, across = (smoothing_on(device, length, deviation) for length in (height, width))
        right, below = (amplitude * (down @ fields.double() @ across.T)).unbind(1)
        moved = read_off(moved, row + below, column + right, reflected)
    return truncated(moved)


def read_off(images: Tensor, rows: Tensor, columns: Tensor, folded: Folded) -> Tensor:
    """Return float32 images at places (n, h, w), bilinear in float64."""
    height, width = images.shape[-2:]
    flat, shape = images.flatten(2), images.shape
    top, left = rows.floor(), columns.floor()
    lower, righter = (rows - top)[:, None].flatten(2), (columns - left)[:, None].flatten(2)

    def row_at(down: int) -> Tensor:
        row = folded(top.long() + down, height) * width
        first, second = (
            flat.gather(2, (row + folded(left.long() + right, width))[:, None].flatten(2).expand_as(flat)).double()
            for right in (0, 1)
        )
        return first * (1 - righter) + second * righter

    return (row_at(0) * (1 - lower) + row_at(1) * lower).float().view(shape)


@lru_cache(maxsize=32)
def smoothing_on(device: torch.device, length: int, deviation: float) -> Tensor:
    """Return the host's matrix of the smoothing along one axis on a device."""
    return torch.tensor(smoothing(length, deviation), device=device)


ELASTIC: Final = {"elastic_transform": OnDevice(maps_and_fields, elastic_transform)}
