"""Brightness and saturation in HSV, in which an image's hue stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions.pixels import SHARES, Images, number, numbers, shares, truncated
from tlbench.conditions.corruptions.tables import Parameter

Plane = NDArray[np.uint8]
"""One channel of some pixels, shape (m,)"""

BLOCK: Final = 1 << 15
"""Pixels at a time: their numbers in float64 stay in the processor's cache."""
_DIVISORS: Final = np.maximum(SHARES, 1 / 255)
"""The levels' shares to divide by; black divides nothing but 0."""


def brightness(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Add to V of HSV; hue and saturation stay as they are. Draws nothing."""
    return recoloured(images, added=number(parameter))


def saturate(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Multiply S of HSV and add to it; hue and value stay as they are. Draws nothing.

    A grey pixel has hue 0, so an offset turns it red, as in the published sets.
    """
    factor, offset = numbers(parameter)
    return recoloured(images, factor=factor, offset=offset)


def recoloured(images: Images, *, added: float = 0, factor: float = 1, offset: float = 0) -> Images:
    """Return images of another value and saturation in HSV, and of the same hue.

    Parameters
    ----------
    images : uint8 array, shape (n, h, w, 3)
    added : float
        What is added to the value, which then ends at 1.
    factor, offset : float
        What the saturation is multiplied by, and what is then added to it; it ends at 1.
    """
    pixels = images.reshape(1, -1, 3)
    out = np.empty_like(pixels)
    # What a grey pixel's channel between the others would be is 0 / 0, and nobody takes it.
    with np.errstate(invalid="ignore"):
        for start in range(0, pixels.shape[1], BLOCK):
            block = slice(start, start + BLOCK)
            red, green, blue = (np.asarray(plane, np.uint8)[0] for plane in cv2.split(pixels[:, block]))
            changed = _recoloured(red, green, blue, np.clip(SHARES + added, 0, 1), factor, offset)
            out[0, block] = cv2.merge(changed).reshape(-1, 3)
    return out.reshape(images.shape)


def _recoloured(
    red: Plane, green: Plane, blue: Plane, values: NDArray[np.float64], factor: float, offset: float
) -> list[Plane]:
    """Return the new channels; ``values`` is the new value by the largest channel's level.

    A channel is ``value (1 - saturation place)``, its place 0 where it is the largest one, 1 where it is the smallest
    one and, between them, the hue's fraction of a sixth or 1 less that. Many results fall on whole grey levels, where
    cutting off keeps a level or loses it by the last bit. So the fraction goes through the hue in the usual order of
    operations, in float64, and not straight from the channels.
    """
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    in_blue, in_green = _mask(blue == high), _mask(green == high)
    ahead = _chosen(in_blue, red, _chosen(in_green, blue, green))
    behind = _chosen(in_blue, green, _chosen(in_green, red, blue))
    spread = shares(high) - shares(low)

    hue = shares(ahead)
    hue -= shares(behind)
    hue /= spread
    hue += (in_blue & 4) | (in_green & ~in_blue & 2)
    hue /= 6
    hue -= np.floor(hue)
    hue *= 6
    hue -= np.floor(hue)
    # A rising channel's place is 1 less the fraction.
    hue -= ahead > behind
    place = np.abs(hue, out=hue)

    saturation = spread
    saturation /= shares(high, _DIVISORS)
    saturation *= factor
    saturation += offset
    np.minimum(saturation, 1, out=saturation)
    value = shares(high, values)
    place *= saturation
    between, smallest = _levels(value, place), _levels(value, saturation)
    largest = np.asarray(cv2.LUT(high[None], truncated(values)), np.uint8)[0]

    # All channels of a grey pixel are the largest and the smallest one; its hue is red's.
    return [
        _chosen(_mask(red == high), largest, _chosen(_mask(red == low), smallest, between)),
        _chosen(_mask(green == low), smallest, _chosen(in_green, largest, between)),
        _chosen(_mask(blue == low), smallest, _chosen(in_blue, largest, between)),
    ]


def _levels(value: NDArray[np.float64], taken: NDArray[np.float64]) -> Plane:
    """Return ``value (1 - taken)`` as levels; overwrites ``taken``."""
    np.subtract(1, taken, out=taken)
    taken *= value
    taken *= 255
    return taken.astype(np.uint8)


def _mask(true: NDArray[np.bool_]) -> Plane:
    """Return 255, all bits, where it is true, else 0."""
    return np.asarray(-true.view(np.uint8))


def _chosen(mask: Plane, one: Plane, other: Plane) -> Plane:
    # Three operations on bytes cost a tenth of numpy.where.
    return np.asarray(other ^ ((one ^ other) & mask))
