"""Digital: what processing does to an image."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlbench.conditions.corruptions.pixels import SHARES, Images, number, truncated
from tlbench.conditions.corruptions.tables import Parameter


def contrast(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Pull every channel towards its mean over the image; draws nothing."""
    out = np.empty_like(images)
    for image, table, place in zip(images, contrast_tables(images, parameter), out, strict=True):
        cv2.LUT(image, np.ascontiguousarray(table.T)[None], dst=place)
    return out


def contrast_tables(images: Images, parameter: Parameter) -> NDArray[np.uint8]:
    """Return what each level of each channel becomes under `contrast`: uint8, shape (n, 3, 256)."""
    return np.stack([_contrast_table(image, number(parameter)) for image in images])


def _contrast_table(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    # The mean is defined as the sum in float64 over the pixels in their order, whose last bits decide where a level
    # falls on a whole one: on flat images it does. Where they cannot matter, the exact sum of the levels serves.
    pixels = image.shape[0] * image.shape[1]
    means = np.array(cv2.sumElems(image)[:3]) / 255 / pixels
    error = 4 * pixels * np.finfo(float).eps
    low, high = (_pulled(means + side, factor) for side in (-error, error))
    return low if np.array_equal(low, high) else _pulled((image / 255).mean(axis=(0, 1)), factor)


def _pulled(means: NDArray[np.float64], factor: float) -> NDArray[np.uint8]:
    return truncated((SHARES - means[:, None]) * factor + means[:, None])


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
