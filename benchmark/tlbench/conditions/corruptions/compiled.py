"""Loops that numba compiles where it is installed: the only home of numba.

They are compiled on first use, once per process and kind of array, half a second each, and kept nowhere: a cache on
disk would have to be written beside the package. They run on one thread, release the interpreter's lock, and do their
arithmetic in the order in which they are written (no ``fastmath``), so that results are those of the plain path.
Set the environment variable ``TLBENCH_NO_NUMBA`` to 1 to do without them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Loop = Callable[..., None]


@dataclass(frozen=True)
class Compiled:
    """The compiled loops; each has the parameters of the function of its name in this module."""

    shake: Loop
    streaks: Loop
    zoom_sum: Loop


def compiled() -> Compiled | None:
    """Return the compiled loops, or None where numba is not installed or ``TLBENCH_NO_NUMBA`` is 1."""
    return None if os.environ.get("TLBENCH_NO_NUMBA") == "1" else _compiled()


@lru_cache(maxsize=1)
def _compiled() -> Compiled | None:
    try:
        import numba  # here, and not above: it takes longer to import than a small evaluation takes
    except ImportError:
        return None
    loop = numba.njit(nogil=True)
    return Compiled(shake=loop(shake), streaks=loop(streaks), zoom_sum=loop(zoom_sum))


def shake(pixels: NDArray[np.uint32], moves: NDArray[np.int32], reach: int) -> None:
    """Copy pixels one after the other, in place, from the last to the first.

    Parameters
    ----------
    pixels : uint32 array, shape (h, w)
        Whole pixels of an image, of any meaning.
    moves : int32 array, shape (h - 2 reach, w - 2 reach, 2)
        See `tlbench.conditions.corruptions.glass.glass_moves`.
    reach : int
    """
    height, width = pixels.shape
    flat, first = pixels.reshape(-1), reach + 1
    for h in range(height - reach, reach, -1):
        line = moves[h - first].reshape(-1)
        for w in range(width - reach, reach, -1):
            place = h * width + w
            step = 2 * (w - first)
            # The maximum says that it is not negative, which spares a test.
            flat[place] = flat[max(place + line[step] * width + line[step + 1], 0)]


def streaks(
    padded: NDArray[Any],
    left: int,
    down: NDArray[np.int64],
    right: NDArray[np.int64],
    weight: NDArray[np.float64],
    out: NDArray[Any],
) -> None:
    """Average along a streak in float64, edges repeated; an ``out`` of whole numbers cuts off.

    Parameters
    ----------
    padded : array, shape (h, w', channels)
        The image with its edges repeated to the left, ``left`` times, and to the right as far as the streak reaches.
    left : int
    down, right, weight : array, shape (steps,)
        See `tlbench.conditions.corruptions.streaks.Streak`.
    out : array, shape (h, w, channels)
    """
    height, length = out.shape[0], out.shape[1] * out.shape[2]
    total = np.empty(length, np.float64)
    for h in range(height):
        total[:] = 0.0
        for step in range(len(weight)):
            # Slices from their start on, because an index that could be negative would keep the loop from vectors.
            line = padded[min(max(h - down[step], 0), height - 1)].reshape(-1)
            line, share = line[(left - right[step]) * out.shape[2] :][:length], weight[step]
            for w in range(length):
                total[w] += share * line[w]
        line_out = out[h].reshape(-1)
        for w in range(length):
            line_out[w] = total[w]


def zoom_sum(
    image: NDArray[np.float32],
    rows: NDArray[np.int64],
    down: NDArray[np.float32],
    columns: NDArray[np.int64],
    right: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Add up enlargements of an image, rows first.

    Parameters
    ----------
    image, out : float32 array, shape (h, w, 3)
    rows, columns : int64 array, shape (factors, h) and (factors, w)
        See `tlbench.conditions.corruptions.zoom.zoom_steps`.
    down, right : float32 array, shape (factors, h) and (factors, w)
    """
    height, width = image.shape[0], image.shape[1]
    line = np.empty((width, 3), np.float32)
    for h in range(height):
        total = out[h]
        total[:] = 0
        for factor in range(len(rows)):
            above, below, share = image[rows[factor, h]], image[rows[factor, h] + 1], down[factor, h]
            for w in range(width):
                for c in range(3):
                    line[w, c] = above[w, c] + share * (below[w, c] - above[w, c])
            for w in range(width):
                # The maximum says that it is not negative, which spares a test.
                left, part = max(columns[factor, w], 0), right[factor, w]
                for c in range(3):
                    total[w, c] += line[left, c] + part * (line[left + 1, c] - line[left, c])
