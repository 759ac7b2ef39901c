"""Weather: something stands between the scene and the camera."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions.pixels import Images, numbers, shares
from tlbench.conditions.corruptions.tables import Parameter

WATER: Final = np.array([175, 238, 238]) / 255
MUD: Final = np.array([63, 42, 20]) / 255
Plane = NDArray[np.float64]
"""One channel of one image, shape (h, w)"""


def fog(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Add a plasma fractal, then darken so that the brightest value stays what it was at most."""
    strength, decay = numbers(parameter)
    height, width = images.shape[1:3]
    size = 1 << (max(height, width) - 1).bit_length()
    out = np.empty_like(images)
    for image, plasma, place in zip(images, plasma_fractals(draws, size, decay), out, strict=True):
        brightest = int(image.max()) / 255
        mist = (strength * plasma[:height, :width]).astype(np.float64)
        in_planes(image, place, _misty(mist, brightest / (brightest + strength)))
    return out


def _misty(mist: Plane, dimmed: float) -> Callable[[Plane, int], None]:
    def change(plane: Plane, _: int) -> None:
        plane += mist
        plane *= dimmed

    return change


def in_planes(image: NDArray[np.uint8], place: NDArray[np.uint8], change: Callable[[Plane, int], None]) -> None:
    """Write an image into ``place``, (h, w, 3), each channel changed in place as float64 by ``change(plane, channel)``.

    A channel at a time: its floating-point copy stays in cache, and what is common to the channels needs no copies.
    Values above 1 by more than rounding must be clipped by ``change``.
    """
    planes = []
    for channel, levels in enumerate(cv2.split(image)):
        plane = shares(np.asarray(levels, np.uint8))
        change(plane, channel)
        plane *= 255
        planes.append(plane.astype(np.uint8))
    place[...] = cv2.merge(planes)


def plasma_fractals(draws: Sequence[np.random.Generator], size: int, decay: float) -> NDArray[np.float32]:
    """Draw one plasma fractal a generator by diamonds and squares, on a torus.

    Parameters
    ----------
    draws : sequence of generators
    size : int
        Side, a power of two.
    decay : float
        What the roughness is divided by from one scale to the next, half as large.

    Returns
    -------
    float32 array, shape (n, size, size)
        From 0 to 1, both reached.
    """
    # All of an image's numbers in one draw; the loop below takes them in order.
    uniform = np.empty((len(draws), size * size - 1))
    for numbers_, draw in zip(uniform, draws, strict=True):
        draw.random(out=numbers_)
    uniform *= 2
    uniform -= 1
    used, roughness = 0, 100.0

    def roughened(total: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal used
        points = total[0].size
        # The published code multiplies the roughness in twice.
        noise = uniform[:, used : used + points]
        noise *= roughness * roughness
        used += points
        total /= 4
        return np.add(total, noise.reshape(total.shape), out=total, casting="same_kind")

    heights = np.zeros((len(draws), 1, 1), np.float32)
    while heights.shape[1] < size:
        below, beside = with_next(heights, 1), with_next(heights, 2)
        centres = roughened(with_next(below, 2))
        beside += with_previous(centres, 1)
        sides = with_previous(centres, 2)
        sides += below
        tops, lefts = roughened(beside), roughened(sides)
        finer = np.empty((len(draws), 2 * heights.shape[1], 2 * heights.shape[2]), np.float32)
        finer[:, ::2, ::2], finer[:, ::2, 1::2] = heights, tops
        finer[:, 1::2, ::2], finer[:, 1::2, 1::2] = lefts, centres
        heights, roughness = finer, roughness / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    heights /= heights.max(axis=(1, 2), keepdims=True)
    return heights


def with_next(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return values plus their next ones along axis 1 or 2, the first one being next to the last."""
    total = np.empty_like(values)
    ahead = np.moveaxis(values, axis, 0), np.moveaxis(total, axis, 0)
    np.add(ahead[0][:-1], ahead[0][1:], out=ahead[1][:-1])
    np.add(ahead[0][-1], ahead[0][0], out=ahead[1][-1])
    return total


def with_previous(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return values plus their previous ones along axis 1 or 2, the last one being before the first."""
    total = np.empty_like(values)
    behind = np.moveaxis(values, axis, 0), np.moveaxis(total, axis, 0)
    np.add(behind[0][1:], behind[0][:-1], out=behind[1][1:])
    np.add(behind[0][0], behind[0][-1], out=behind[1][0])
    return total


def spatter(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Splash water, which brightens with a relief of its edges, or mud, which covers."""
    strength, mud = numbers(parameter)[4:]
    out = np.empty_like(images)
    for image, draw, place in zip(images, draws, out, strict=True):
        layer = splash(draw, image.shape[:2], parameter)
        in_planes(image, place, _covered(layer) if mud else _wet((strength * layer).astype(np.float64)))
    return out


def splash(draw: np.random.Generator, side: tuple[int, ...], parameter: Parameter) -> NDArray[np.floating]:
    """Draw what is splashed on a side (h, w), in [0, 1]: float32 light on water, or float64 cover by mud."""
    mean, deviation, blur, threshold, edge, mud = numbers(parameter)
    liquid = smoothed(draw.normal(mean, deviation, side), blur)
    if mud:
        cover = smoothed((liquid > threshold).astype(np.float64), edge)
        cover[cover < 0.8] = 0
        return cover
    liquid[liquid < threshold] = 0
    liquid *= 255
    # Through int64, so that a level above 255 wraps around on every processor, as in the published sets.
    return relief(liquid.astype(np.int64).astype(np.uint8))


def _covered(cover: NDArray[np.floating]) -> Callable[[Plane, int], None]:
    left, colour = 1 - cover, np.empty_like(cover)

    def change(plane: Plane, channel: int) -> None:
        plane *= left
        plane += np.multiply(cover, MUD[channel], out=colour)

    return change


def _wet(light: Plane) -> Callable[[Plane, int], None]:
    colour = np.empty_like(light)

    def change(plane: Plane, channel: int) -> None:
        plane += np.multiply(light, WATER[channel], out=colour)
        np.minimum(plane, 1, out=plane)

    return change


def smoothed(plane: Plane, deviation: float) -> Plane:
    """Return an array (h, w) under a Gaussian cut off at four standard deviations, edges repeated."""
    taps = 2 * int(4 * deviation + 0.5) + 1
    if taps == 1:
        return plane
    blurred = cv2.GaussianBlur(plane, (taps, taps), deviation, sigmaY=deviation, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.float64)


def relief(drops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how bright drops are from 0 to 1: lit from a corner, by the distance to their edges; all 0 without any."""
    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    near = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = cv2.blur(cv2.filter2D(cv2.equalizeHist(near), cv2.CV_8U, light), (3, 3)).astype(np.float32)
    bright = drops * lit
    return np.asarray(bright / max(float(bright.max()), 1.0), np.float32)
