"""Digital types on a device: the host's arithmetic value by value, or its tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tlbench.conditions.corruptions import digital
from tlbench.conditions.corruptions.on_device.levels import (
    OnDevice,
    Tensors,
    device_images,
    draw_nothing,
    host_images,
    one_by_one,
    stacked,
    truncated,
    unit,
)
from tlbench.conditions.corruptions.pixels import number, numbers
from tlbench.conditions.corruptions.tables import Parameter

PRECISION: Final = 22
"""Bits behind the point in the weights of Pillow's resampling of 8-bit images."""


def brightness(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Return the host's images exactly: the same operations in float64."""
    value, saturation, place = hue_saturation_value(images)
    return truncated((value + number(parameter)).clamp_(0, 1) * (1 - saturation * place))


def saturate(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Return the host's images exactly: the same operations in float64."""
    factor, offset = numbers(parameter)
    value, saturation, place = hue_saturation_value(images)
    return truncated(value * (1 - (saturation * factor + offset).clamp_(0, 1) * place))


@lru_cache(maxsize=4)
def sextants(device: torch.device) -> Tensor:
    """Return what red, green and blue are in each sextant of the hue: 0 the largest, 1 the smallest one, 2 falling and
    3 rising from one to the other.
    """
    kinds = ((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2))
    return torch.tensor(kinds, device=device)


def hue_saturation_value(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return value and saturation (n, 1, h, w) and each channel's place (n, 3, h, w); see the host's."""
    x = unit(images)
    value = x.amax(dim=1)
    spread = value - x.amin(dim=1)
    coloured = spread > 0
    saturation = torch.where(coloured, spread / torch.where(coloured, value, 1), 0)
    red, green, blue = x.unbind(1)
    safe = torch.where(coloured, spread, 1)
    hue = torch.where(green == value, 2 + (blue - red) / safe, (green - blue) / safe)
    hue = torch.where(blue == value, 4 + (red - green) / safe, hue)
    # Divided by a number on the device, see `levels.unit`.
    turns = (hue / torch.full((), 6, dtype=hue.dtype, device=hue.device)).remainder(1)
    sixths = torch.where(coloured, turns, 0) * 6
    sextant = sixths.floor()
    fraction = sixths - sextant
    kinds = torch.stack([torch.zeros_like(fraction), torch.ones_like(fraction), fraction, 1 - fraction], dim=1)
    kind = sextants(images.device)[sextant.long() % 6].permute(0, 3, 1, 2)
    return value[:, None], saturation[:, None], kinds.gather(1, kind)


def contrast_tables(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Return what becomes of each level in each channel of each image, uint8 (n, 3, 256).

    On flat grounds the last bit of the mean decides about a whole level, so the host's own sums are used.
    """

    def tables(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(digital.contrast_tables(image[None], parameter)[0], np.uint8)

    return (stacked(one_by_one(tables, list(host_images(images)))),)


def contrast(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Return the host's images exactly: a look-up."""
    return drawn[0].gather(2, images.flatten(2).long()).view_as(images)


def pixelate(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Return Pillow's images exactly: whole numbers in float64, to which products of matrices add no error."""
    share = number(parameter)
    rows, columns = (box_weights(length, int(length * share), images.device) for length in images.shape[-2:])
    lines, places = (repeated(int(length * share), length, images.device) for length in images.shape[-2:])
    # Columns first, and cut to 8 bits in between, as Pillow does.
    narrow = _rounded(images.double() @ columns.T)
    small = _rounded(rows @ narrow).to(torch.uint8)
    return small[:, :, lines][:, :, :, places]


def _rounded(sums: Tensor) -> Tensor:
    return (sums + (1 << (PRECISION - 1))).mul_(2.0**-PRECISION).floor_().clamp_(0, 255)


@lru_cache(maxsize=32)
def box_weights(length: int, small: int, device: torch.device) -> Tensor:
    """Return the matrix (small, length) of Pillow's BOX filter, in units of 2**-22."""
    if small == length:  # Pillow leaves such an axis alone
        return torch.eye(length, dtype=torch.float64, device=device) * 2.0**PRECISION
    scale = length / small
    matrix = np.zeros((small, length))
    for place, row in enumerate(matrix):
        centre = (place + 0.5) * scale
        first = max(int(centre - scale / 2 + 0.5), 0)
        last = min(int(centre + scale / 2 + 0.5), length)
        away = (np.arange(first, last) - centre + 0.5) * (1 / scale)
        inside = ((away > -0.5) & (away <= 0.5)).astype(np.float64)
        row[first:last] = np.floor(0.5 + inside * (1 / inside.sum()) * 2.0**PRECISION)
    return torch.from_numpy(matrix).to(device)


@lru_cache(maxsize=32)
def repeated(small: int, length: int, device: torch.device) -> Tensor:
    """Return which of ``small`` places each of ``length`` places repeats, as Pillow's NEAREST has it."""
    line = Image.fromarray(np.arange(small, dtype=np.int32)[None])
    return torch.tensor(np.asarray(line.resize((length, 1), Image.Resampling.NEAREST))[0], device=device).long()


def compressed(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Write and read as JPEG on the host, on all cores: a GPU's decoder differs by up to 36 levels."""

    def one(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(digital.jpeg_compression(image[None], parameter, [])[0], np.uint8)

    return (device_images(np.stack(one_by_one(one, list(host_images(images))))),)


def from_host(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Return the images that the host has made."""
    return drawn[0]


DIGITAL: Final = {
    "contrast": OnDevice(contrast_tables, contrast),
    "brightness": OnDevice(draw_nothing, brightness),
    "saturate": OnDevice(draw_nothing, saturate),
    "jpeg_compression": OnDevice(compressed, from_host),
    "pixelate": OnDevice(draw_nothing, pixelate),
}
