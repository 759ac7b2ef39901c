"""Linear maps of rows and columns as matrices: what they need of a device is a product of matrices."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.conditions.corruptions.blur import gaussian_weights
from tlbench.conditions.corruptions.zoom import zoom_steps

Matrix = NDArray[np.float64]


def across(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``rows @ image @ columns.T`` of every plane of images (n, c, h, w)."""
    return rows @ (images @ columns.T)


@lru_cache(maxsize=64)
def gaussian(length: int, deviation: float, device: torch.device) -> Tensor:
    """Return the matrix (length, length) of the host's Gaussian blur along one axis, edges repeated."""
    return torch.from_numpy(banded(length, gaussian_weights(deviation), "edge")).to(device)


def banded(length: int, weights: NDArray[np.floating], mode: str) -> Matrix:
    """Return the matrix (length, length) that correlates a line with weights about each of its places.

    ``mode`` is how the line goes on beyond its ends: ``edge`` or ``reflect``, as in `numpy.pad`.
    """
    reach = len(weights) // 2
    places = _padded_places(length, reach, mode)
    matrix = np.zeros((length, length))
    for tap, weight in enumerate(weights):
        np.add.at(matrix, (np.arange(length), places[tap : tap + length]), weight)
    return matrix


def mirrored(places: Tensor, length: int) -> Tensor:
    """Bring places back inside a line that turns around at its last pixel (OpenCV's REFLECT_101)."""
    folded = places.remainder(2 * (length - 1))
    return torch.minimum(folded, 2 * (length - 1) - folded)


def reflected(places: Tensor, length: int) -> Tensor:
    """Bring places back inside a line that turns around behind its last pixel (OpenCV's REFLECT)."""
    folded = places.remainder(2 * length)
    return torch.minimum(folded, 2 * length - 1 - folded)


def _padded_places(length: int, reach: int, mode: str) -> NDArray[np.int64]:
    if mode == "edge":
        return np.clip(np.arange(-reach, length + reach), 0, length - 1)
    return np.pad(np.arange(length), reach, mode="reflect")


@lru_cache(maxsize=256)
def enlarging(length: int, factor: float, device: torch.device) -> Tensor:
    """Return the matrix (length, length) of `zoom.enlarged` along one axis."""
    index, share = zoom_steps(length, factor)
    place, matrix = np.arange(length), np.zeros((length, length))
    matrix[place, index] = 1 - share
    matrix[place, index + 1] = share
    return torch.from_numpy(matrix).to(device)
