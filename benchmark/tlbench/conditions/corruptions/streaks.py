"""Means along a half line: the streaks of motion blur and of snow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions.compiled import compiled

Value = TypeVar("Value", bound=np.generic)

MISS = np.float32(2.0**-10)
"""Levels by which a sum in float32 may miss the sum in float64: at most 3.5e-4 with 41 steps, so that this is safe."""

MOST = 1 / 8
"""Share of values near a whole level from which all are added up in float64: on photographs it is 1/500."""


@dataclass(frozen=True)
class Streak:
    """The steps of a half line in the order in which they are added up.

    Parameters
    ----------
    down, right : int64 array, shape (steps,)
        Where a step carries the image, in pixels.
    weight : float64 array, shape (steps,)
    """

    down: NDArray[np.int64]
    right: NDArray[np.int64]
    weight: NDArray[np.float64]


def streak(side: tuple[int, ...], radius: float, deviation: float, angle: float) -> Streak:
    """Return ``2 radius + 1`` steps of one pixel, weighted by the right half of a Gaussian.

    Steps that leave an image of ``side``, (height, width), are left out together with their weight and with all that
    follow, as in the kernel that this follows.
    """
    steps = np.arange(2 * int(radius) + 1)
    weight = np.exp(-(steps**2) / (2 * deviation**2))
    weight /= weight.sum()
    down = -np.ceil(steps * math.sin(math.radians(angle)) - 0.5).astype(np.int64)
    right = -np.ceil(steps * math.cos(math.radians(angle)) - 0.5).astype(np.int64)
    outside = (abs(down) >= side[0]) | (abs(right) >= side[1])
    inside = int(outside.argmax()) if outside.any() else len(steps)
    return Streak(down[:inside], right[:inside], weight[:inside])


def streaked_levels(image: NDArray[np.uint8], along: Streak) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) averaged along a streak, edges repeated, cut off to whole levels.

    The bytes are those of a sum in float64 in the order of the steps, with numba and without: float32 finds the level,
    and the few values for which it cannot tell are added up again.
    """
    fast = compiled()
    if fast is not None:
        out = np.empty_like(image)
        fast.streaks(*_sideways(image, along), along.down, along.right, along.weight, out)
        return out
    padded = _Padded.of(image, along)
    total = padded.about(along)
    total += MISS
    levels = total.astype(np.uint8)
    total -= levels
    unsure = np.flatnonzero(total < 2 * MISS)
    if len(unsure) > MOST * levels.size:
        return np.minimum(padded.exactly(along), 255).astype(np.uint8)
    levels.ravel()[unsure] = np.minimum(padded.exactly_at(unsure, along), 255)
    return levels


def streaked_tones(plane: NDArray[np.float64], along: Streak) -> NDArray[np.uint8]:
    """Return a plane (h, w) in [0, 1] averaged along a streak, edges repeated, rounded to 255ths.

    The bytes are those of a sum in float64, as of `streaked_levels`.
    """
    fast = compiled()
    if fast is not None:
        out = np.empty((*plane.shape, 1))
        sideways, left = _sideways(plane, along)
        fast.streaks(sideways[..., None], left, along.down, along.right, along.weight, out)
        return np.round(out[..., 0] * 255).astype(np.uint8)
    padded = _Padded.of(plane, along)
    total = padded.about(along)
    total *= 255
    total += np.float32(0.5) + MISS
    tones = total.astype(np.uint8)
    total -= tones
    unsure = np.flatnonzero(total < 2 * MISS)
    tones.ravel()[unsure] = np.round(padded.exactly_at(unsure, along) * 255)
    return tones


def _sideways(image: NDArray[Any], along: Streak) -> tuple[NDArray[Any], int]:
    """Return an image with its left and right edges repeated as far as a streak reaches, and how often the left one."""
    left, right = max(0, int(along.right.max())), max(0, -int(along.right.min()))
    return cv2.copyMakeBorder(image, 0, 0, left, right, cv2.BORDER_REPLICATE), left


@dataclass(frozen=True)
class _Padded:
    """An image, (h, w) or (h, w, 3), with its edges repeated as far as a streak reaches."""

    values: NDArray[Any]
    side: tuple[int, int]
    top: int
    left: int

    @classmethod
    def of(cls, image: NDArray[Any], along: Streak) -> _Padded:
        top, bottom = max(0, int(along.down.max())), max(0, -int(along.down.min()))
        left, right = max(0, int(along.right.max())), max(0, -int(along.right.min()))
        values = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REPLICATE)
        return cls(values, (image.shape[0], image.shape[1]), top, left)

    def about(self, along: Streak) -> NDArray[np.float32]:
        """Return the sum in float32, steps that fall on one pixel taken together."""
        weights: dict[tuple[int, int], float] = {}
        for down, right, weight in zip(along.down.tolist(), along.right.tolist(), along.weight.tolist(), strict=True):
            weights[down, right] = weights.get((down, right), 0.0) + weight
        single = self.values.astype(np.float32)
        moves = iter(weights.items())
        (down, right), weight = next(moves)
        total = self._moved(single, down, right) * np.float32(weight)
        for (down, right), weight in moves:
            cv2.scaleAdd(self._moved(single, down, right), weight, total, dst=total)
        return total

    def exactly(self, along: Streak) -> NDArray[np.float64]:
        """Return the sum in float64."""
        double = self.values.astype(np.float64)
        total = np.zeros((*self.side, *double.shape[2:]))
        for down, right, weight in zip(along.down.tolist(), along.right.tolist(), along.weight, strict=True):
            total += weight * self._moved(double, down, right)
        return total

    def exactly_at(self, places: NDArray[np.int64], along: Streak) -> NDArray[np.float64]:
        """Return the sum in float64 at some places of the flattened image."""
        channels = self.values[0, 0].size
        length, line = self.side[1] * channels, self.values.shape[1] * channels
        place = (places // length + self.top) * line + places % length + self.left * channels
        flat = self.values.ravel()
        total = np.zeros(len(places))
        for step, weight in zip((along.down * line + along.right * channels).tolist(), along.weight, strict=True):
            total += weight * flat[place - step]
        return total

    def _moved(self, values: NDArray[Value], down: int, right: int) -> NDArray[Value]:
        top, left = self.top - down, self.left - right
        return values[top : top + self.side[0], left : left + self.side[1]]
