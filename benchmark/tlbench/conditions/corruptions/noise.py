"""Noise: each value of an image changes by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tlbench.conditions.corruptions.pixels import Images, number, truncated
from tlbench.conditions.corruptions.tables import Parameter


def _each(
    images: Images, draws: Sequence[np.random.Generator], noisy: Callable[[Images, np.random.Generator], Images]
) -> Images:
    """Return the images changed one by one, each with its own generator."""
    out = np.empty_like(images)
    for image, draw, place in zip(images, draws, out, strict=True):
        place[...] = noisy(image, draw)
    return out


def gaussian_noise(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Add normal noise, of one standard deviation for the whole image."""
    deviation = number(parameter)
    return _each(images, draws, lambda x, draw: truncated(x / 255 + deviation * draw.standard_normal(x.shape)))


def shot_noise(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Count photons: a Poisson number of them, where full brightness expects as many as the parameter says."""
    photons = number(parameter)
    return _each(images, draws, lambda x, draw: truncated(draw.poisson(x / 255 * photons) / photons))


def impulse_noise(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Set a share of the values, each channel by itself, to black or white."""
    share = number(parameter)

    def noisy(image: Images, draw: np.random.Generator) -> Images:
        # One uniform number says both whether a value is hit and what it becomes.
        place = draw.random(image.shape)
        return np.where(place < share / 2, np.uint8(0), np.where(place < share, np.uint8(255), image))

    return _each(images, draws, noisy)


def speckle_noise(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Add normal noise in proportion to the value."""
    deviation = number(parameter)

    def noisy(image: Images, draw: np.random.Generator) -> Images:
        x = image / 255
        return truncated(x + x * (deviation * draw.standard_normal(x.shape)))

    return _each(images, draws, noisy)
