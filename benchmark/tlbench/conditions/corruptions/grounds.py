"""Whole grey levels from sums, with flat grounds where the original's arithmetic puts them.

On a flat ground a mean over pixels is the level itself, and whether truncation keeps it or takes one off rests on the
last bit of the original's sum. So there the answer is looked up, and a sum, of
any order and precision, decides only where the pixels differ.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from tlbench.conditions.corruptions.pixels import Images, truncated

Dropped = NDArray[np.uint8]
"""uint8, shape (256,): 1 where a flat ground of this level loses a level, else 0"""

SLACK = {np.dtype(np.float32): 2.0**-12, np.dtype(np.float64): 2.0**-41}
"""Levels by which a sum may miss a whole level that it means; above the largest miss of any kernel here."""

LEVELS = np.arange(256)


def settled(values: NDArray[np.floating], dropped: Dropped) -> Images:
    """Return sums as uint8: cut off, and decided by ``dropped`` where they are a whole level.

    Parameters
    ----------
    values : float32 or float64 array, shape (h, w, 3)
        Grey levels from 0 to 255, each within `SLACK` of what it means. Overwritten.
    dropped : uint8 array, shape (256,)
    """
    slack = SLACK[values.dtype]
    values += slack
    levels = values.astype(np.uint8)
    if dropped.any():
        values -= 2 * slack
        levels -= (levels - values.astype(np.uint8)) & np.asarray(cv2.LUT(levels, dropped), np.uint8)
    return levels


def dropped_by(values: NDArray[np.floating]) -> Dropped:
    """Return which levels are lost, from what the original makes of the 256 flat grounds: shape (256,), in [0, 1]."""
    return (truncated(values) < LEVELS).astype(np.uint8)


@lru_cache(maxsize=64)
def dropped_by_gaussian(deviation: float) -> Dropped:
    """Return which levels are lost under SciPy's Gaussian in float64, along one axis and then the other."""
    flat = np.repeat(LEVELS[:, None] / 255, 3, axis=1)
    for _ in range(2):
        flat = gaussian_filter1d(flat, deviation, axis=1, mode="nearest", truncate=4.0)
    return dropped_by(flat[:, 1])


@lru_cache(maxsize=64)
def dropped_by_kernel(total: float) -> Dropped:
    """Return which levels are lost under a kernel whose weights add up to ``total``."""
    # A kernel that is meant to brighten moves a flat ground by more than its last bit.
    return dropped_by(LEVELS / 255 * total) if abs(total - 1) < 1e-6 else np.zeros(256, np.uint8)


@lru_cache(maxsize=64)
def dropped_by_mean(count: int) -> Dropped:
    """Return which levels are lost in a mean of ``count`` equal images, added one to the other in float32."""
    flat = (LEVELS / 255).astype(np.float32)
    total = np.zeros(256, np.float32)
    for _ in range(count - 1):
        total += flat
    return dropped_by((flat + total) / count)
