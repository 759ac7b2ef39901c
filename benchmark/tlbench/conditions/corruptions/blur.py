"""Blur: each value becomes a mean over others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions.glass import glass_moves, shaken
from tlbench.conditions.corruptions.grounds import dropped_by_gaussian, dropped_by_kernel, settled
from tlbench.conditions.corruptions.pixels import Images, number, numbers
from tlbench.conditions.corruptions.streaks import streak, streaked_levels
from tlbench.conditions.corruptions.tables import Parameter
from tlbench.conditions.corruptions.zoom import zoomed

NOTHING: Final = 1e-13
"""Levels below 255 that the original's float64 cannot tell from 255."""

NARROW: Final = 1.0
"""Standard deviation below which a Gaussian is summed in float64: many values stay within 1e-4 of a whole level."""


def gaussian_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Mean under a Gaussian, edges repeated; draws nothing."""
    return _each(images, lambda image: smoothed_levels(image, number(parameter)))


def glass_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Blur, move pixels about, blur again.

    The published code means to swap two pixels; NumPy's views make it copy the one onto the other, and the published
    sets hold copies.
    """
    deviation, reach, passes = numbers(parameter)
    out = np.empty_like(images)
    for image, draw, place in zip(images, draws, out, strict=True):
        moves = [glass_moves(draw, image.shape[:2], int(reach)) for _ in range(int(passes))]
        place[...] = smoothed_levels(shaken(smoothed_levels(image, deviation), moves, int(reach)), deviation)
    return out


def defocus_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Mean over a disk whose edge is softened; draws nothing."""
    kernel = filled_disk(*numbers(parameter))
    dropped = dropped_by_kernel(float(kernel.sum(dtype=np.float64)))
    # Under a small kernel many means are whole levels but for the softened edge's last digits, which then decide.
    precision = np.float64 if len(kernel) <= 5 else np.float32

    def defocused(image: NDArray[np.uint8]) -> Images:
        values = cv2.filter2D(image.astype(precision), -1, kernel)
        return settled(np.clip(values, 0, 255), dropped)

    return _each(images, defocused)


def motion_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Mean along a line whose angle is drawn within 45 degrees of the horizontal.

    The kernel is the one in NumPy of the ``imagecorruptions`` package, and not ImageMagick's of the first publication.
    """
    radius, deviation = numbers(parameter)
    out = np.empty_like(images)
    for image, draw, place in zip(images, draws, out, strict=True):
        place[...] = streaked_levels(image, streak(image.shape[:2], radius, deviation, draw.uniform(-45, 45)))
    return out


def zoom_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Mean of the image and of its enlargements about the centre; draws nothing."""
    return zoomed(images, parameter)


def smoothed_levels(image: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) under a Gaussian, edges repeated, cut off to whole levels."""
    weights = gaussian_weights(deviation)
    if len(weights) == 1:
        return image
    # Of the negative: below a white ground, what the farthest neighbours take away is then a small number, not the last
    # digits of a large one. Beside a black ground truncation hides it.
    depth = cv2.CV_64F if deviation < NARROW else cv2.CV_32F
    dark = cv2.sepFilter2D(cv2.bitwise_not(image), depth, weights, weights, borderType=cv2.BORDER_REPLICATE)
    not_white = dark > NOTHING
    levels = settled(np.subtract(255, dark, out=dark), dropped_by_gaussian(deviation))
    levels -= (levels == 255) & not_white
    return levels


def gaussian_weights(deviation: float) -> NDArray[np.float64]:
    """Return the weights of a Gaussian cut off at four standard deviations, an odd number of them."""
    reach = int(4 * deviation + 0.5)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * deviation**2))
    return np.asarray(weights / weights.sum())


def disk(radius: float, edge: float) -> NDArray[np.float32]:
    """Return a disk of mean weights, its edge blurred by a Gaussian of 3 or, above a radius of 8, of 5 taps."""
    reach = 8 if radius <= 8 else int(radius)
    line = np.arange(-reach, reach + 1)
    inside = (line[:, None] ** 2 + line[None, :] ** 2 <= radius**2).astype(np.float32)
    taps = 3 if radius <= 8 else 5
    return np.asarray(cv2.GaussianBlur(inside / inside.sum(), (taps, taps), sigmaX=edge), np.float32)


@lru_cache(maxsize=32)
def filled_disk(radius: float, edge: float) -> NDArray[np.float32]:
    """Return `disk` without its empty rim: a small kernel is summed directly, and twice as fast."""
    kernel = disk(radius, edge)
    # A Gaussian's far tap, of 1e-22, moves nothing that float32 can hold.
    filled = np.flatnonzero((kernel > 1e-12).any(axis=0))
    return np.ascontiguousarray(kernel[filled[0] : filled[-1] + 1, filled[0] : filled[-1] + 1])


def _each(images: Images, blurred: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Images:
    out = np.empty_like(images)
    for image, place in zip(images, out, strict=True):
        place[...] = blurred(image)
    return out
