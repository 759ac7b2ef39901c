"""Blur: each value becomes a mean over others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tlbench.conditions.corruptions.pixels import Images, number, numbers, truncated
from tlbench.conditions.corruptions.tables import Parameter


def gaussian_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Mean under a Gaussian, edges repeated; draws nothing."""
    return truncated(smoothed(images, number(parameter)))


def glass_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Blur, move pixels about, blur again.

    The published code means to swap two pixels; NumPy's views make it copy the one onto the other, and the published
    sets hold copies.
    """
    deviation, reach, passes = numbers(parameter)
    shaken = truncated(smoothed(images, deviation))
    side = images.shape[1:3]
    for _ in range(int(passes)):
        shaken = shaken_once(shaken, np.stack([glass_moves(draw, side, int(reach)) for draw in draws]), int(reach))
    return truncated(smoothed(shaken, deviation))


def defocus_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Mean over a disk whose edge is softened; draws nothing."""
    radius, edge = numbers(parameter)
    kernel = disk(radius, edge)
    return truncated(np.asarray([cv2.filter2D(image / 255, -1, kernel) for image in images]))


def motion_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Mean along a line whose angle is drawn within 45 degrees of the horizontal.

    The kernel is the one in NumPy of the ``imagecorruptions`` package, and not ImageMagick's of the first publication.
    """
    radius, deviation = numbers(parameter)
    return np.stack(
        [
            np.clip(streaked(image, radius, deviation, draw.uniform(-45, 45)), 0, 255).astype(np.uint8)
            for image, draw in zip(images, draws, strict=True)
        ]
    )


def zoom_blur(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Mean of the image and of its enlargements about the centre; draws nothing."""
    end, step = numbers(parameter)
    factors = np.arange(1, end, step)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).contiguous()
    total = x.clone()
    for factor in factors:
        total += enlarged(x, float(factor))
    return truncated((total / (len(factors) + 1)).permute(0, 2, 3, 1).numpy())


def smoothed(images: Images, deviation: float) -> NDArray[np.float64]:
    """Return uint8 images as float64 in [0, 1] under a Gaussian; see `smoothed_plane`."""
    return np.stack([smoothed_plane(image / 255, deviation) for image in images])


def smoothed_plane(plane: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Return (h, w) or (h, w, channels) under a Gaussian cut off at four standard deviations, edges repeated."""
    taps = 2 * int(4 * deviation + 0.5) + 1
    if taps == 1:
        return plane
    blurred = cv2.GaussianBlur(plane, (taps, taps), deviation, sigmaY=deviation, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.float64)


def disk(radius: float, edge: float) -> NDArray[np.float32]:
    """Return a disk of mean weights, its edge blurred by a Gaussian of 3 or, above a radius of 8, of 5 taps."""
    reach = 8 if radius <= 8 else int(radius)
    line = np.arange(-reach, reach + 1)
    inside = (line[:, None] ** 2 + line[None, :] ** 2 <= radius**2).astype(np.float32)
    taps = 3 if radius <= 8 else 5
    return np.asarray(cv2.GaussianBlur(inside / inside.sum(), (taps, taps), sigmaX=edge), np.float32)


def streaked(image: NDArray[np.generic], radius: float, deviation: float, angle: float) -> NDArray[np.float64]:
    """Return an image, (h, w) or (h, w, channels), averaged along a half line, edges repeated.

    The weights fall off as the right half of a Gaussian over ``2 radius + 1`` steps of one pixel. Steps that leave the
    image are left out, together with their weight, as in the kernel that this follows.
    """
    height, width = image.shape[:2]
    taps = 2 * int(radius) + 1
    weights = np.exp(-(np.arange(taps) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    border = [(taps, taps), (taps, taps)] + [(0, 0)] * (image.ndim - 2)
    padded = np.pad(image.astype(np.float64), border, mode="edge")
    total = np.zeros(image.shape)
    for tap, weight in enumerate(weights):
        down = -math.ceil(tap * math.sin(math.radians(angle)) - 0.5)
        right = -math.ceil(tap * math.cos(math.radians(angle)) - 0.5)
        if abs(down) >= height or abs(right) >= width:
            break
        total += weight * padded[taps - down : taps - down + height, taps - right : taps - right + width]
    return total


def enlarged(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Return the middle of images (n, c, h, w) enlarged to their old size, bilinear, corners on corners."""
    side = images.shape[-2:]
    cut = [math.ceil(length / factor) for length in side]
    top, left = ((length - part) // 2 for length, part in zip(side, cut, strict=True))
    middle = images[..., top : top + cut[0], left : left + cut[1]]
    # round() to even, as the size of an enlargement in SciPy's zoom.
    grown = [round(part * factor) for part in cut]
    if grown != cut:
        middle = functional.interpolate(middle, size=grown, mode="bilinear", align_corners=True)
    top, left = ((length - old) // 2 for length, old in zip(grown, side, strict=True))
    return middle[..., top : top + side[0], left : left + side[1]]


def glass_moves(draw: np.random.Generator, side: tuple[int, ...], reach: int) -> NDArray[np.int64]:
    """Draw where the pixels of one pass come from.

    Returns
    -------
    int64 array, shape (h - 2 reach, w - 2 reach, 2)
        Rows down and columns right, each in [-reach, reach), for the pixels from (reach + 1, reach + 1) to
        (h - reach, w - reach), in this order.
    """
    return draw.integers(-reach, reach, (side[0] - 2 * reach, side[1] - 2 * reach, 2))


def shaken_once(images: Images, moves: NDArray[np.int64], reach: int) -> Images:
    """Return images after one pass of copies, from the last pixel to the first.

    Pixels are written one after the other, and a pixel read after it was written hands on what it got. So each pixel's
    source is the end of a chain, and all chains are followed at once by doubling: a few rounds in place of a loop over
    pixels.

    Parameters
    ----------
    images : uint8 array, shape (n, h, w, 3)
    moves : int64 array, shape (n, h - 2 reach, w - 2 reach, 2)
        See `glass_moves`.
    """
    count, height, width, channels = images.shape
    rows = np.arange(reach + 1, height - reach + 1)[:, None]
    columns = np.arange(reach + 1, width - reach + 1)[None, :]
    place = rows * width + columns
    from_row, from_column = rows + moves[..., 0], columns + moves[..., 1]
    origin = from_row * width + from_column
    # Written before it is read: inside the region, and after this pixel in reading order.
    written = (from_row > reach) & (from_row <= height - reach) & (from_column > reach)
    written &= (from_column <= width - reach) & (origin > place)
    source = np.tile(np.arange(height * width), (count, 1))
    source[:, place.ravel()] = origin.reshape(count, -1)
    follow = np.zeros(source.shape, bool)
    follow[:, place.ravel()] = written.reshape(count, -1)
    while follow.any():
        source, follow = (
            np.where(follow, np.take_along_axis(source, source, 1), source),
            follow & np.take_along_axis(follow, source, 1),
        )
    flat = images.reshape(count, -1, channels)
    return np.take_along_axis(flat, source[..., None], 1).reshape(images.shape)
