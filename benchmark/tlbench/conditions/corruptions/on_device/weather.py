"""Weather on a device: what falls or hangs before the scene comes from the host as it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.conditions.corruptions import weather
from tlbench.conditions.corruptions.on_device import linear
from tlbench.conditions.corruptions.on_device.blur import streak_moves, streaked
from tlbench.conditions.corruptions.on_device.levels import OnDevice, Tensors, one_by_one, stacked, truncated, unit
from tlbench.conditions.corruptions.pixels import numbers
from tlbench.conditions.corruptions.tables import Parameter


def fog_numbers(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Draw the numbers of each plasma fractal, float64 (n, size**2 - 1).

    Half a megabyte an image of 224 pixels: less than the time that the host would need to make the fractal of them.
    """
    count = fractal_side(images) ** 2 - 1
    return (stacked(one_by_one(lambda draw: draw.uniform(-1, 1, count), draws)),)


def fractal_side(images: Tensor) -> int:
    """Return the smallest power of two that covers the images."""
    return 1 << (max(images.shape[-2:]) - 1).bit_length()


def fog(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Return the host's images exactly: the same operations in the same precisions."""
    strength, decay = numbers(parameter)
    height, width = images.shape[-2:]
    x = unit(images)
    brightest = x.amax(dim=(1, 2, 3), keepdim=True)
    plasma = plasma_fractals(drawn[0], fractal_side(images), decay)[:, None, :height, :width]
    return truncated((x + strength * plasma) * (brightest / (brightest + strength)))


def plasma_fractals(uniform: Tensor, size: int, decay: float) -> Tensor:
    """Return plasma fractals, float32 (n, size, size), of numbers in [-1, 1); see the host's."""
    heights = torch.zeros(len(uniform), size, size, device=uniform.device)
    used, step, roughness = 0, size, 100.0

    def roughened(total: Tensor) -> Tensor:
        nonlocal used
        points = total[0].numel()
        noise = uniform[:, used : used + points].view(total.shape)
        used += points
        return ((total / 4).double() + roughness * roughness * noise).float()

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        square = corners + corners.roll(-1, 1)
        heights[:, half::step, half::step] = roughened(square + square.roll(-1, 2))
        centres = heights[:, half::step, half::step]
        beside = corners + corners.roll(-1, 2)
        heights[:, ::step, half::step] = roughened(centres + centres.roll(1, 1) + beside)
        below = corners + corners.roll(-1, 1)
        heights[:, half::step, ::step] = roughened(centres + centres.roll(1, 2) + below)
        step, roughness = half, roughness / decay
    heights -= heights.amin(dim=(1, 2), keepdim=True)
    return heights / heights.amax(dim=(1, 2), keepdim=True)


def flakes_and_moves(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Draw the layer of flakes, float64 (n, h, w), and the moves of its streaks; the device does all the rest."""
    mean, deviation, _, _, radius, _, _ = numbers(parameter)
    side = tuple(images.shape[-2:])

    def drawn(draw: np.random.Generator) -> tuple[NDArray[np.float64], float]:
        return draw.normal(mean, deviation, side), draw.uniform(-135, -45)

    pairs = one_by_one(drawn, draws)
    layers = stacked([pair[0] for pair in pairs])
    return layers, streak_moves([pair[1] for pair in pairs], radius, side)


def snow(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Whiten, and lay the flakes over it; the enlarged flakes are within the last bits of the host's."""
    weight = numbers(parameter)[6]
    x = unit(images, torch.float32)
    whitened = weight * x + (1 - weight) * torch.maximum(x, gray(images, x) * 1.5 + 0.5)
    flakes = snowfall(drawn[0], drawn[1], parameter)
    return truncated(whitened + flakes + flakes.flip(2, 3))


def snowfall(layers: Tensor, moves: Tensor, parameter: Parameter) -> Tensor:
    """Return streaked flakes, float64 (n, 1, h, w), multiples of 1/255; see the host's."""
    _, _, zoom, threshold, radius, streak, _ = numbers(parameter)
    rows, columns = (linear.enlarging(length, zoom, layers.device) for length in layers.shape[-2:])
    flakes = linear.across(layers[:, None], rows, columns)
    flakes = torch.where(flakes < threshold, 0, flakes).clamp_(0, 1)
    streaks = (streaked(flakes, radius, streak, moves) * 255).round_()
    return unit(streaks)


def gray(images: Tensor, x: Tensor) -> Tensor:
    """Return the luma of float32 images, (n, 1, h, w), where all channels agree to the last bit OpenCV's."""
    red, green, blue = x.unbind(1)
    mixed = 0.299 * red + 0.587 * green + 0.114 * blue
    colourless = (images[:, 0] == images[:, 1]) & (images[:, 1] == images[:, 2])
    return torch.where(colourless, grays(images.device)[images[:, 0].int()], mixed)[:, None]


@lru_cache(maxsize=4)
def grays(device: torch.device) -> Tensor:
    """Return OpenCV's luma of every grey, float32 (256,)."""
    levels = (np.arange(256, dtype=np.float32) / 255)[None, :, None].repeat(3, axis=2)
    return torch.tensor(cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY)[0], device=device)


def splashes(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Draw the layer of each image's water, float32 (n, h, w), or mud, float64; all of it on the host, on all cores.

    Edges, distances and an equalised histogram of one small plane are OpenCV's, and none of them looks at the image.
    """
    side = tuple(images.shape[-2:])

    def drawn(draw: np.random.Generator) -> NDArray[np.floating]:
        return weather.splash(draw, side, parameter)

    return (stacked(one_by_one(drawn, draws)),)


def spatter(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Return the host's images exactly: its layer, and the same blend in the same precisions."""
    strength, is_mud = numbers(parameter)[4:]
    layer, x = drawn[0][:, None], unit(images)
    water, mud = colours(images.device)
    if is_mud:
        return truncated(x * (1 - layer) + mud * layer)
    return truncated(x + (strength * layer).double() * water)


@lru_cache(maxsize=4)
def colours(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the colours of water and mud, float64 (3, 1, 1)."""
    water, mud = (torch.tensor(colour, device=device).view(3, 1, 1) for colour in (weather.WATER, weather.MUD))
    return water, mud


WEATHER: Final = {
    "fog": OnDevice(fog_numbers, fog),
    "snow": OnDevice(flakes_and_moves, snow),
    "spatter": OnDevice(splashes, spatter),
}
