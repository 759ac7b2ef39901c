"""Enlargements about the centre, and the mean over several of them."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions.compiled import compiled
from tlbench.conditions.corruptions.grounds import dropped_by_mean, settled
from tlbench.conditions.corruptions.pixels import Images, numbers
from tlbench.conditions.corruptions.tables import Parameter


def zoom_factors(parameter: Parameter) -> NDArray[np.float64]:
    """Return the factors of one severity of zoom_blur: from 1 up to, and without, the end."""
    end, step = numbers(parameter)
    return np.arange(1, end, step)


def zoom_steps(side: int, factor: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return where the pixels of an enlarged line come from.

    The middle of the line is enlarged corners on corners, as by SciPy's ``zoom`` of the first order, and its middle
    taken: pixel i becomes ``line[index[i]] + share[i] * (line[index[i] + 1] - line[index[i]])``.

    Parameters
    ----------
    side : int
        Pixels in the line, more than the factor.
    factor : float
        1 or more.

    Returns
    -------
    index : int64 array, shape (side,)
        From 0 to side - 2.
    share : float64 array, shape (side,)
        In [0, 1].
    """
    cut = math.ceil(side / factor)
    # round() to even, as the size of an enlargement in SciPy's zoom.
    grown = round(cut * factor)
    place = ((grown - side) // 2 + np.arange(side, dtype=np.float64)) * ((cut - 1) / (grown - 1))
    index = np.minimum(place.astype(np.int64), cut - 2)
    return (side - cut) // 2 + index, place - index


def enlarged(plane: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Return the middle of a plane (h, w) enlarged to its old size; see `zoom_steps`."""
    (row, down), (column, right) = (zoom_steps(side, factor) for side in plane.shape)
    # Columns as rows, twice: whole rows are copied many times faster than scattered pixels.
    upright = _between(plane[:, column[0] : column[-1] + 2], row, down[:, None])
    return np.ascontiguousarray(_between(np.ascontiguousarray(upright.T), column - column[0], right[:, None]).T)


def _between(lines: NDArray[np.float64], index: NDArray[np.int64], share: NDArray[np.float64]) -> NDArray[np.float64]:
    before = lines[index]
    # Exact at both ends, which a step from the one towards the other is not.
    return np.asarray(before * (1 - share) + lines[index + 1] * share)


def zoomed(images: Images, parameter: Parameter) -> Images:
    """Return the mean of images (n, h, w, 3) and their enlargements, cut off to whole levels.

    Grey levels are added up in float32, in one order, with numba and without.
    """
    height, width = images.shape[1:3]
    factors = zoom_factors(parameter)
    dropped = dropped_by_mean(len(factors) + 1)
    rows, columns = (_Steps(side, factors) for side in (height, width))
    add = _Sum(height, width)
    out = np.empty_like(images)
    for image, place in zip(images, out, strict=True):
        total = add(image, rows, columns)
        total += image
        total *= np.float32(1 / (len(factors) + 1))
        place[...] = settled(total, dropped)
    return out


class _Steps:
    """The steps of several factors along one axis: arrays (factors, side)."""

    def __init__(self, side: int, factors: NDArray[np.float64]) -> None:
        steps = [zoom_steps(side, float(factor)) for factor in factors]
        self.index = np.stack([index for index, _ in steps])
        self.share = np.stack([share for _, share in steps]).astype(np.float32)


class _Sum:
    """Sums of enlargements of images of one shape, in buffers that are used again."""

    def __init__(self, height: int, width: int) -> None:
        self._levels = np.empty((height, width, 3), np.float32)
        self._lines = np.empty((3, height, width * 3), np.float32)
        self._sides = np.empty((4, width, height * 3), np.float32)
        self._sum = np.empty((height, width, 3), np.float32)

    def __call__(self, image: NDArray[np.uint8], rows: _Steps, columns: _Steps) -> NDArray[np.float32]:
        self._levels[...] = image
        fast = compiled()
        if fast is None:
            self._add(rows, columns)
        else:
            fast.zoom_sum(self._levels, rows.index, rows.share, columns.index, columns.share, self._sum)
        return self._sum

    def _add(self, rows: _Steps, columns: _Steps) -> None:
        height, width = self._sum.shape[:2]
        lines = self._levels.reshape(height, -1)
        # Differences between whole levels are exact, so they may be taken once for all factors.
        steps, line, rise = self._lines
        np.subtract(lines[1:], lines[:-1], out=steps[:-1])
        sideways, before, after, total = self._sides
        upright, turned = line.reshape(height, width, 3), sideways.reshape(width, height, 3)
        total[...] = 0
        for row, down, column, right in zip(rows.index, rows.share, columns.index, columns.share, strict=True):
            np.take(lines, row, axis=0, out=line, mode="clip")
            np.take(steps, row, axis=0, out=rise, mode="clip")
            rise *= down[:, None]
            line += rise
            # Columns as rows: whole rows are copied many times faster than scattered pixels.
            cv2.transpose(upright, dst=turned)
            np.take(sideways, column, axis=0, out=before, mode="clip")
            np.take(sideways, column + 1, axis=0, out=after, mode="clip")
            after -= before
            after *= right[:, None]
            after += before
            total += after
        cv2.transpose(total.reshape(width, height, 3), dst=self._sum)
