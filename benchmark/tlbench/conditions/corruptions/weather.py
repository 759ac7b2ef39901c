"""Weather: something stands between the scene and the camera."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from tlbench.conditions.corruptions.blur import enlarged, smoothed_plane, streaked
from tlbench.conditions.corruptions.pixels import Images, numbers, truncated
from tlbench.conditions.corruptions.tables import Parameter

WATER = np.array([175, 238, 238]) / 255
MUD = np.array([63, 42, 20]) / 255


def fog(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Add a plasma fractal, then darken so that the brightest value stays what it was at most."""
    strength, decay = numbers(parameter)
    height, width = images.shape[1:3]
    size = 1 << (max(height, width) - 1).bit_length()
    x = images / 255
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    plasma = plasma_fractals(draws, size, decay)[:, :height, :width, None]
    return truncated((x + strength * plasma) * (brightest / (brightest + strength)))


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
    heights = np.zeros((len(draws), size, size), np.float32)
    # All of an image's numbers in one draw; the loop below takes them in order.
    uniform = np.stack([draw.uniform(-1, 1, size * size - 1) for draw in draws])
    used, step, roughness = 0, size, 100.0

    def roughened(total: NDArray[np.float32]) -> NDArray[np.float32]:
        nonlocal used
        points = total[0].size
        noise = uniform[:, used : used + points].reshape(total.shape)
        used += points
        # The published code multiplies the roughness in twice.
        return np.asarray(total / 4 + roughness * roughness * noise, np.float32)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        square = corners + np.roll(corners, -1, axis=1)
        square = square + np.roll(square, -1, axis=2)
        heights[:, half::step, half::step] = roughened(square)
        centres = heights[:, half::step, half::step]
        beside = corners + np.roll(corners, -1, axis=2)
        heights[:, ::step, half::step] = roughened(centres + np.roll(centres, 1, axis=1) + beside)
        below = corners + np.roll(corners, -1, axis=1)
        heights[:, half::step, ::step] = roughened(centres + np.roll(centres, 1, axis=2) + below)
        step, roughness = half, roughness / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    heights /= heights.max(axis=(1, 2), keepdims=True)
    return heights


def snow(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Whiten the scene and lay falling flakes over it, once as drawn and once turned by half a turn.

    The streaks use the kernel of `blur.motion_blur`, at a drawn angle within 45 degrees of the vertical.
    """
    weight = numbers(parameter)[6]
    out = np.empty_like(images)
    for image, draw, place in zip(images, draws, out, strict=True):
        x = image.astype(np.float32) / 255
        gray = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
        whitened = weight * x + (1 - weight) * np.maximum(x, gray * 1.5 + 0.5)
        flakes = snowfall(draw, image.shape[:2], parameter)[..., None]
        place[...] = truncated(whitened + flakes + np.rot90(flakes, k=2))
    return out


def snowfall(draw: np.random.Generator, side: tuple[int, ...], parameter: Parameter) -> NDArray[np.float64]:
    """Draw streaked flakes: an array (h, w) of multiples of 1/255 in [0, 1]."""
    mean, deviation, zoom, threshold, radius, streak, _ = numbers(parameter)
    layer = torch.from_numpy(draw.normal(mean, deviation, side))[None, None]
    flakes = enlarged(layer, zoom)[0, 0].numpy()
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    streaks = streaked(flakes, radius, streak, draw.uniform(-135, -45))
    return np.round(streaks * 255).astype(np.uint8) / 255


def spatter(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Splash water, which brightens with a relief of its edges, or mud, which covers."""
    mean, deviation, blur, threshold, strength, mud = numbers(parameter)
    out = np.empty_like(images)
    for image, draw, place in zip(images, draws, out, strict=True):
        x = image / 255
        liquid = smoothed_plane(draw.normal(mean, deviation, image.shape[:2]), blur)
        if mud:
            cover = smoothed_plane((liquid > threshold).astype(np.float64), strength)
            cover = np.where(cover < 0.8, 0, cover)[..., None]
            place[...] = truncated(x * (1 - cover) + MUD * cover)
        else:
            # Through int64, so that a level above 255 wraps around on every processor, as in the published sets.
            drops = (np.where(liquid < threshold, 0, liquid) * 255).astype(np.int64).astype(np.uint8)
            place[...] = truncated(x + strength * relief(drops)[..., None] * WATER)
    return out


def relief(drops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how bright drops are from 0 to 1: lit from a corner, by the distance to their edges; all 0 without any."""
    distance = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    near = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = cv2.blur(cv2.filter2D(cv2.equalizeHist(near), cv2.CV_8U, light), (3, 3)).astype(np.float32)
    bright = drops * lit
    return np.asarray(bright / max(float(bright.max()), 1.0), np.float32)
