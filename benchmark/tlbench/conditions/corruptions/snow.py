"""Snow: a whitened scene behind falling flakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions.pixels import Images, numbers
from tlbench.conditions.corruptions.streaks import streak, streaked_tones
from tlbench.conditions.corruptions.tables import Parameter
from tlbench.conditions.corruptions.zoom import enlarged

Value = TypeVar("Value", np.float32, np.float64)


def snow(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Whiten the scene and lay falling flakes over it, once as drawn and once turned by half a turn.

    The streaks use the kernel of `blur.motion_blur`, at a drawn angle within 45 degrees of the vertical.
    """
    weight = numbers(parameter)[6]
    out = np.empty_like(images)
    lit = np.empty(images.shape[1:])
    for image, draw, place in zip(images, draws, out, strict=True):
        flakes = snowfall(draw, image.shape[:2], parameter) / 255
        # In float64, and one after the other: on a white ground the last bit of this sum decides on a level.
        np.add(whitened(image, weight), _gray(flakes), out=lit)
        lit += _gray(np.asarray(cv2.flip(flakes, -1), np.float64))
        lit *= 255
        place[...] = _at_most(255, lit)
    return out


def whitened(image: NDArray[np.uint8], weight: float) -> NDArray[np.float32]:
    """Return a scene (h, w, 3) in [0, 1], the share ``1 - weight`` of it as bright as snow would make it."""
    x = image.astype(np.float32)
    x /= 255
    gray = np.asarray(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), np.float32)
    gray *= 1.5
    gray += 0.5
    bright = np.maximum(x, _gray(gray))
    bright *= 1 - weight
    x *= weight
    x += bright
    return x


def snowfall(draw: np.random.Generator, side: tuple[int, ...], parameter: Parameter) -> NDArray[np.uint8]:
    """Draw streaked flakes: uint8 (h, w), their brightness in 255ths."""
    mean, deviation, zoom, threshold, radius, spread, _ = numbers(parameter)
    layer = enlarged(draw.normal(mean, deviation, side), zoom)
    # OpenCV keeps what is above a threshold, and the definition what is not below it.
    _, flakes = cv2.threshold(layer, float(np.nextafter(threshold, 0)), 0, cv2.THRESH_TOZERO)
    return streaked_tones(_at_most(1, np.asarray(flakes)), streak(side, radius, spread, draw.uniform(-135, -45)))


def _gray(plane: NDArray[Value]) -> NDArray[Value]:
    """Return a plane (h, w) three times, (h, w, 3): sums of equal shapes are several times faster than of stretched."""
    return cast("NDArray[Value]", cv2.merge([plane, plane, plane]))


def _at_most(limit: float, values: NDArray[Any]) -> NDArray[np.float64]:
    """Return values, which are overwritten, with those above a limit brought down to it."""
    return np.asarray(cv2.threshold(values, limit, 0, cv2.THRESH_TRUNC, dst=values)[1], np.float64)
