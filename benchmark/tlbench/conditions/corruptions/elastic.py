"""The elastic transform: an image on a sheet of rubber."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from tlbench.conditions.corruptions.pixels import Images, numbers
from tlbench.conditions.corruptions.tables import Parameter

Field = NDArray[np.float32]
"""Pixels by which each place of an image moves along one axis, shape (h, w)"""

WIDEST: Final = 16
"""Reach in pixels up to which a field is filtered tap by tap; a wider filter is sooner done as a matrix."""


def elastic_transform(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Jitter an affine map, then move each pixel by a smooth random field.

    In float32, where the published code computes the field and the means between four pixels in float64: within one
    level on about one value in ten thousand, and nowhere on flat grounds.
    """
    amplitude, deviation, jitter = numbers(parameter)
    height, width = images.shape[1:3]
    rows, columns = (np.arange(length, dtype=np.float32) for length in (height, width))
    out = np.empty_like(images)
    for image, draw, place in zip(images, draws, out, strict=True):
        moved = jittered(image.astype(np.float32) / 255, draw.uniform(-jitter, jitter, (3, 2)))
        # A field that moves nothing is not drawn: nobody uses the image's generator after it.
        if amplitude != 0:
            fields = draw.uniform(-1, 1, (2, height, width)).astype(np.float32)
            right, below = (amplitude * smoothed_field(field, deviation) for field in fields)
            right += columns
            below += rows[:, None]
            moved = np.asarray(
                cv2.remap(moved, right, below, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32
            )
        # Means of values in [0, 1] are in [0, 1], but for rounding, which cutting off forgives.
        moved *= 255
        place[...] = moved
    return out


def jittered(image: NDArray[np.float32], jitter: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return an image under the affine map that moves three points about its centre by (3, 2) pixels."""
    side = image.shape[:2]
    centre, arm = np.array(side, np.float32) // 2, min(side) // 3
    before = np.array([centre + arm, [centre[0] + arm, centre[1] - arm], centre - arm], np.float32)
    after = before + jitter.astype(np.float32)
    moved = cv2.warpAffine(image, cv2.getAffineTransform(before, after), side[::-1], borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.float32)


def smoothed_field(field: Field, deviation: float) -> Field:
    """Return a field under a Gaussian cut off at three standard deviations, edges mirrored."""
    reach = int(3 * deviation + 0.5)
    if reach == 0:
        return field
    if reach <= min(WIDEST, *field.shape):
        weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * deviation**2))
        weights = (weights / weights.sum()).astype(np.float32)
        return np.asarray(
            cv2.sepFilter2D(field, cv2.CV_32F, weights, weights, borderType=cv2.BORDER_REFLECT), np.float32
        )
    down, across = (torch.from_numpy(smoothing(length, deviation)).float() for length in field.shape)
    # By PyTorch, which keeps to its number of threads, where NumPy takes every core.
    return np.asarray((down @ torch.from_numpy(field) @ across.T).numpy())


@lru_cache(maxsize=32)
def smoothing(length: int, deviation: float) -> NDArray[np.float64]:
    """Return the matrix (length, length) of a Gaussian filter cut off at three standard deviations, edges mirrored.

    A filter along one axis is linear; as a matrix it costs the same for a standard deviation beyond the image's side.
    """
    identity = np.eye(length)
    if deviation == 0:
        return identity
    return np.asarray(gaussian_filter1d(identity, deviation, axis=0, mode="reflect", truncate=3))
