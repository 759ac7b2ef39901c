"""What every corruption function takes and gives, and the one way from [0, 1] back to uint8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions.tables import Parameter

Images = NDArray[np.uint8]
"""uint8, shape (n, h, w, 3)"""

Corrupt = Callable[[Images, Parameter, Sequence[np.random.Generator]], Images]
"""``corrupt(images, parameter, draws)``: new images of the same shape. ``parameter`` is the table's entry for the
severity; ``draws`` holds one generator an image, its only source of randomness."""

SHARES: Final = np.arange(256) / 255
"""The levels as shares of full brightness: what dividing an image by 255 gives."""


def truncated(values: NDArray[np.floating]) -> Images:
    """Return values in [0, 1] as uint8, clipped and cut off, not rounded, as in the published sets."""
    return np.asarray(np.clip(values, 0, 1) * 255).astype(np.uint8)


def shares(levels: Images, table: NDArray[np.float64] = SHARES) -> NDArray[np.float64]:
    """Return ``table[levels]`` in the levels' shape: ``levels / 255`` by default, bit for bit, and sooner."""
    return np.asarray(cv2.LUT(levels.reshape(1, -1), table), np.float64).reshape(levels.shape)


def numbers(parameter: Parameter) -> tuple[float, ...]:
    """Return a parameter of several numbers."""
    if not isinstance(parameter, tuple):
        raise ValueError(f"expected several numbers, got {parameter}")
    return parameter


def number(parameter: Parameter) -> float:
    """Return a parameter of one number."""
    if isinstance(parameter, tuple):
        raise ValueError(f"expected one number, got {parameter}")
    return parameter


def by_pixel(images: NDArray[np.uint8]) -> Images:
    """Return images (n, 3, h, w) as (n, h, w, 3)."""
    count, _, height, width = images.shape
    planes = [np.ascontiguousarray(images[:, channel]).reshape(1, -1) for channel in range(3)]
    # OpenCV weaves bytes some ten times as fast as a copy with other strides.
    return np.asarray(cv2.merge(planes), np.uint8).reshape(count, height, width, 3)


def by_channel(images: Images, out: NDArray[np.uint8]) -> None:
    """Write images (n, h, w, 3) as (n, 3, h, w) into ``out``."""
    for channel, plane in enumerate(cv2.split(images.reshape(1, -1, 3))):
        out[:, channel] = plane.reshape(images.shape[:3])
