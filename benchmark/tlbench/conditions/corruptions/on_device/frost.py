"""Frost on a device: the host draws places, the textures lie ready on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tlbench.conditions.corruptions.crystals import Texture, textures
from tlbench.conditions.corruptions.frost import drawn_piece, photographs, sized
from tlbench.conditions.corruptions.on_device.levels import OnDevice, Tensors
from tlbench.conditions.corruptions.pixels import numbers
from tlbench.conditions.corruptions.tables import Parameter

Kind = Callable[[], tuple[Texture, ...]]


def pieces(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator], *, kind: Kind) -> Tensors:
    """Draw where each image's piece of frost lies among the pixels of `laid_out`: its first one and a row's length."""
    height, width = images.shape[-2:]
    ready = sized(kind, height, width)
    starts = np.cumsum([0, *(texture.shape[0] * texture.shape[1] for texture in ready)])
    drawn = np.empty((len(draws), 2), np.int64)
    for place, draw in zip(drawn, draws, strict=True):
        which, row, column = drawn_piece(ready, draw, height, width)
        line = ready[which].shape[1]
        place[:] = starts[which] + row * line + column, line
    return (torch.from_numpy(drawn),)


# Textures of both kinds for two sizes of images; the photographs at 1.1 of their size take 6 MB.
@lru_cache(maxsize=4)
def laid_out(device: torch.device, kind: Kind, height: int, width: int) -> Tensor:
    """Return the pixels of all textures for images of a size one after the other, uint8 (pixels, 3)."""
    pixels = np.concatenate([texture.reshape(-1, 3) for texture in sized(kind, height, width)])
    return torch.from_numpy(pixels).to(device)


def laid_over(images: Tensor, parameter: Parameter, drawn: Tensors, *, kind: Kind) -> Tensor:
    """Return the host's images exactly: whole levels times two weights in float64."""
    of_image, of_frost = numbers(parameter)
    height, width = images.shape[-2:]
    first, line = drawn[0].view(-1, 2, 1, 1).unbind(1)
    row = torch.arange(height, device=images.device)[:, None]
    place = first + row * line + torch.arange(width, device=images.device)
    ice = laid_out(images.device, kind, height, width).index_select(0, place.flatten())
    ice = ice.view(-1, height, width, 3).permute(0, 3, 1, 2)
    return (images.double() * of_image + ice.double() * of_frost).clamp_(max=255).to(torch.uint8)


FROST: Final = {
    name: OnDevice(partial(pieces, kind=kind), partial(laid_over, kind=kind))
    for name, kind in (("frost", photographs), ("frost-generated", textures))
}
