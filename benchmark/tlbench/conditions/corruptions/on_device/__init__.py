"""Every corruption on a GPU, batched: the host draws ahead, the device computes.

Randomness stays the host's, one generator an image, so that an image is the same wherever it is made: to the last bit
for the noises, ``contrast``, ``brightness``, ``saturate``, ``motion_blur``, ``fog``, ``spatter``, ``frost``,
``pixelate``, ``jpeg_compression`` and the copies of ``glass_blur``; for the other blurs, ``snow`` and
``elastic_transform`` within one grey level on at most 0.5 % of the values.

Of a type's two halves, `OnDevice.draw` runs on the host and leaves little to cross to the device: words of 16 bits for
the noises, moves, rough fields. A whole layer is made on the host only where OpenCV has what no device has
(``spatter``), a whole image only where the codec must be the host's (``jpeg_compression``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tlbench.conditions.base import sent
from tlbench.conditions.corruptions.on_device.blur import BLURS
from tlbench.conditions.corruptions.on_device.digital import DIGITAL
from tlbench.conditions.corruptions.on_device.elastic import ELASTIC
from tlbench.conditions.corruptions.on_device.frost import FROST
from tlbench.conditions.corruptions.on_device.levels import OnDevice, Tensors
from tlbench.conditions.corruptions.on_device.noise import NOISES
from tlbench.conditions.corruptions.on_device.weather import WEATHER
from tlbench.conditions.corruptions.tables import Parameter

ON_DEVICE: Final[Mapping[str, OnDevice]] = {**NOISES, **BLURS, **WEATHER, **FROST, **DIGITAL, **ELASTIC}
VALUES: Final = 1 << 23
"""Most values at a time, 55 images of 224 pixels a side: a temporary in float64 takes 64 MB."""


def draw_on_host(name: str, images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Return what the device needs besides the images, as tensors of one row an image on the host.

    Parameters
    ----------
    name : str
        A key of `ON_DEVICE`.
    images : uint8 tensor, shape (n, 3, h, w)
        Best on the host; two types look at its pixels, the others at its shape.
    parameter : float or tuple of float
        The table's entry for the severity.
    draws : sequence of generators
        One an image.
    """
    return ON_DEVICE[name].draw(images, parameter, draws) if draws else ()


def finish_on_device(name: str, images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Return the corrupted images on the images' device, where ``drawn``, from `draw_on_host`, is taken too.

    Without gradients, a bounded number of images at a time.
    """
    if not len(images):
        return images.clone()
    size = max(1, VALUES // images[0].numel())
    rows = [tensor.split(size) for tensor in (sent(tensor, images.device) for tensor in drawn)]
    finish = ON_DEVICE[name].finish
    with torch.no_grad():
        pieces = [
            finish(part, parameter, tuple(row[place] for row in rows)) for place, part in enumerate(images.split(size))
        ]
    return torch.cat(pieces)


def apply_on_device(name: str, images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensor:
    """Return corrupted images on the device on which the images lie; both halves in turn.

    Parameters
    ----------
    name : str
        A key of `ON_DEVICE`.
    images : uint8 tensor, shape (n, 3, h, w)
    parameter : float or tuple of float
        The table's entry for the severity.
    draws : sequence of generators
        One an image.

    Returns
    -------
    uint8 tensor, shape (n, 3, h, w)

    Raises
    ------
    ValueError
        If the images are not uint8 of three channels, or there is not one generator for each.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or len(draws) != len(images):
        raise ValueError(
            f"expected uint8 images (n, 3, h, w) and a generator for each, got {images.dtype} "
            f"{tuple(images.shape)} and {len(draws)} generators"
        )
    return finish_on_device(name, images, parameter, draw_on_host(name, images, parameter, draws))
