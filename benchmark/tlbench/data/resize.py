"""Images of any size to squares of one size, by the two rules a protocol may name."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rule = Literal["squash", "center-crop"]


def resize(pixels: NDArray[np.uint8], size: int, rule: Rule) -> NDArray[np.uint8]:
    """Return an image as a square, bilinear with antialiasing (Pillow's, hence torchvision's on Pillow images).

    Parameters
    ----------
    pixels : uint8 array, shape (h, w, 3)
    size : int
        Side of the square, in pixels.
    rule : {"squash", "center-crop"}
        ``squash`` scales both sides to ``size``. ``center-crop`` scales the shorter side to
        floor(size * 256 / 224), the longer in proportion, and cuts out the centre: the 2022 study's evaluation.

    Returns
    -------
    uint8 array, shape (size, size, 3)
    """
    height, width = pixels.shape[:2]
    if rule == "squash":
        return _scaled(pixels, size, size)
    shorter = size * 256 // 224
    if height <= width:
        pixels = _scaled(pixels, shorter, int(shorter * width / height))
    else:
        pixels = _scaled(pixels, int(shorter * height / width), shorter)
    height, width = pixels.shape[:2]
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.ascontiguousarray(pixels[top : top + size, left : left + size])


def _scaled(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)
