"""Digital: what processing does to an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d, map_coordinates

from tlbench.conditions.corruptions.pixels import Images, number, numbers, truncated
from tlbench.conditions.corruptions.tables import Parameter


def contrast(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Pull every channel towards its mean over the image; draws nothing."""
    x = images / 255
    means = x.mean(axis=(1, 2), keepdims=True)
    return truncated((x - means) * number(parameter) + means)


def brightness(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Add to V of HSV; hue and saturation stay as they are. Draws nothing."""
    value, saturation, place = hue_saturation_value(images)
    return truncated(np.clip(value + number(parameter), 0, 1) * (1 - saturation * place))


def saturate(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Multiply S of HSV and add to it; hue and value stay as they are. Draws nothing.

    A grey pixel has hue 0, so an offset turns it red, as in the published sets.
    """
    factor, offset = numbers(parameter)
    value, saturation, place = hue_saturation_value(images)
    return truncated(value * (1 - np.clip(saturation * factor + offset, 0, 1) * place))


_LARGEST, _SMALLEST, _FALLING, _RISING = range(4)
_SEXTANTS = np.array(
    [
        (_LARGEST, _RISING, _SMALLEST),
        (_FALLING, _LARGEST, _SMALLEST),
        (_SMALLEST, _LARGEST, _RISING),
        (_SMALLEST, _FALLING, _LARGEST),
        (_RISING, _SMALLEST, _LARGEST),
        (_LARGEST, _SMALLEST, _FALLING),
    ]
)
"""What red, green and blue are in each sextant of the hue."""


def hue_saturation_value(
    images: Images,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixels in HSV, the hue as each channel's place between the largest and the smallest one.

    Many results fall on whole grey levels, where cutting off keeps a level or loses it by the last bit. So the places
    go through the hue and its fraction in the usual order of operations, and not straight from the channels.

    Returns
    -------
    value, saturation : float64 arrays, shape (n, h, w, 1)
    place : float64 array, shape (n, h, w, 3)
        From 0 (largest) to 1 (smallest); a channel is ``value (1 - saturation place)``.
    """
    x = images / 255
    value = x.max(axis=-1)
    spread = value - x.min(axis=-1)
    saturation = np.divide(spread, value, out=np.zeros_like(value), where=spread > 0)
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    safe = np.where(spread > 0, spread, 1)
    hue = np.where(green == value, 2 + (blue - red) / safe, (green - blue) / safe)
    hue = np.where(blue == value, 4 + (red - green) / safe, hue)
    sixths = np.where(spread > 0, hue / 6 % 1, 0) * 6
    sextant = np.floor(sixths)
    fraction = sixths - sextant
    kinds = np.stack([np.zeros_like(fraction), np.ones_like(fraction), fraction, 1 - fraction], axis=-1)
    place = np.take_along_axis(kinds, _SEXTANTS[sextant.astype(np.intp) % 6], axis=-1)
    return value[..., None], saturation[..., None], place


def jpeg_compression(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Write and read as JPEG, by Pillow; draws nothing."""
    out = np.empty_like(images)
    for image, place in zip(images, out, strict=True):
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=int(number(parameter)))
        with Image.open(file) as read:
            place[...] = read
    return out


def pixelate(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Shrink by means over boxes, enlarge by repetition; draws nothing."""
    height, width = images.shape[1:3]
    small = int(width * number(parameter)), int(height * number(parameter))
    out = np.empty_like(images)
    for image, place in zip(images, out, strict=True):
        shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
        place[...] = shrunk.resize((width, height), Image.Resampling.NEAREST)
    return out


def elastic_transform(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Jitter an affine map, then move each pixel by a smooth random field."""
    amplitude, deviation, jitter = numbers(parameter)
    height, width = images.shape[1:3]
    down, across = smoothing(height, deviation), smoothing(width, deviation)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    out = np.empty_like(images)
    for image, draw, place in zip(images, draws, out, strict=True):
        moved = jittered(image.astype(np.float32) / 255, draw.uniform(-jitter, jitter, (3, 2)))
        right, below = (amplitude * (down @ field @ across.T) for field in draw.uniform(-1, 1, (2, height, width)))
        where = np.stack([rows + below, columns + right])
        channels = [map_coordinates(moved[..., c], where, order=1, mode="reflect") for c in range(3)]
        place[...] = truncated(np.stack(channels, axis=-1))
    return out


def jittered(image: NDArray[np.float32], jitter: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return an image under the affine map that moves three points about its centre by (3, 2) pixels."""
    side = image.shape[:2]
    centre, arm = np.array(side, np.float32) // 2, min(side) // 3
    before = np.array([centre + arm, [centre[0] + arm, centre[1] - arm], centre - arm], np.float32)
    after = before + jitter.astype(np.float32)
    moved = cv2.warpAffine(image, cv2.getAffineTransform(before, after), side[::-1], borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)


@lru_cache(maxsize=32)
def smoothing(length: int, deviation: float) -> NDArray[np.float64]:
    """Return the matrix (length, length) of a Gaussian filter cut off at three standard deviations, edges mirrored.

    A filter along one axis is linear; as a matrix it costs the same for a standard deviation beyond the image's side.
    """
    identity = np.eye(length)
    if deviation == 0:
        return identity
    return np.asarray(gaussian_filter1d(identity, deviation, axis=0, mode="reflect", truncate=3))
