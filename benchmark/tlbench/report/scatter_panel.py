"""One panel of a scatter: axes, the line of equal accuracies, a fitted line and its interval, points, their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tlbench.report.drawing import area, course, dot, line, text, triangle
from tlbench.report.figures import PALETTE
from tlbench.report.line import Line
from tlbench.report.placing import place_labels

Place = Callable[[float, float], tuple[float, float]]
_SAMPLES: Final = 60  # of the interval's edge
_LETTER: Final = 0.56  # width of a figure, in font sizes


@dataclass(frozen=True)
class Axis:
    """An axis of a panel.

    Attributes
    ----------
    low, high : float
        Its ends, in the shown scale.
    length : float
        In pixels.
    ticks : tuple of (float, str)
        Where the marks are, in the shown scale, and what stands at them.
    """

    low: float
    high: float
    length: float
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float) -> float:
        """Return how far along the axis a value lies, in pixels; what lies beyond an end is brought to it."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low) * self.length


def panel(
    points: pd.DataFrame, fitted: Line | None, across: Axis, up: Axis, *, left: float, top: float, size: float
) -> Iterator[str]:
    """Yield the shapes of a panel.

    Parameters
    ----------
    points : DataFrame
        As in ``Scatter``; all lie within the axes.
    fitted : Line or None
    across, up : Axis
    left, top : float
        Corner of the panel, in pixels.
    size : float
        Of the numbers, in pixels.
    """
    bottom = top + up.length

    def place(x: float, y: float) -> tuple[float, float]:
        return left + across.at(x), bottom - up.at(y)

    yield from _axes(across, up, left, bottom, size)
    start, end = max(across.low, up.low), min(across.high, up.high)
    if start < end:
        yield line(*place(start, start), *place(end, end), opacity=0.45, dashed=True)
    models = points[~points["control"]]
    if fitted is not None and len(models):
        xs = np.linspace(models["x"].min(), models["x"].max(), _SAMPLES)
        middle, margin = fitted.at(xs), fitted.margin(xs)
        upper = [place(x, y) for x, y in zip(xs.tolist(), (middle + margin).tolist(), strict=True)]
        lower = [place(x, y) for x, y in zip(xs.tolist(), (middle - margin).tolist(), strict=True)]
        yield area([*upper, *reversed(lower)], fill=PALETTE[1], opacity=0.18)
        inside = (middle >= up.low) & (middle <= up.high)
        yield course(
            [place(x, y) for x, y in zip(xs[inside].tolist(), middle[inside].tolist(), strict=True)],
            colour=PALETTE[1],
            width=1.8,
        )
    yield from _points(points, place_of=place, radius=0.38 * size)
    yield from _numbers(points, across, up, left, top, size)


def _axes(across: Axis, up: Axis, left: float, bottom: float, size: float) -> Iterator[str]:
    top, right = bottom - up.length, left + across.length
    letters = max(9.0, size)
    for value, words in across.ticks:
        x = left + across.at(value)
        yield line(x, top, x, bottom + 4, opacity=0.13)
        yield text(x, bottom + 16, words, size=letters, anchor="middle")
    for value, words in up.ticks:
        y = bottom - up.at(value)
        yield line(left - 4, y, right, y, opacity=0.13)
        yield text(left - 7, y + 0.35 * letters, words, size=letters, anchor="end")
    yield line(left, bottom, right, bottom)
    yield line(left, top, left, bottom)


def _points(points: pd.DataFrame, *, place_of: Place, radius: float) -> Iterator[str]:
    columns = ("x", "y", "x_low", "x_high", "y_low", "y_high", "control", "clipped")
    marks = list(zip(*(points[name].tolist() for name in columns), strict=True))
    for x, y, x_low, x_high, y_low, y_high, control, _ in marks:
        colour = PALETTE[6] if control else PALETTE[0]
        if x_low == x_low:  # a set without a standard error has no interval
            yield line(*place_of(x_low, y), *place_of(x_high, y), colour=colour, opacity=0.6)
        if y_low == y_low:
            yield line(*place_of(x, y_low), *place_of(x, y_high), colour=colour, opacity=0.6)
    for x, y, *_, control, clipped in marks:
        colour = PALETTE[6] if control else PALETTE[0]
        at = place_of(x, y)
        yield triangle(*at, 1.3 * radius, colour=colour) if clipped else dot(*at, radius, fill=colour)


def _numbers(points: pd.DataFrame, across: Axis, up: Axis, left: float, top: float, size: float) -> Iterator[str]:
    places = [
        (across.at(x), up.length - up.at(y)) for x, y in zip(points["x"].tolist(), points["y"].tolist(), strict=True)
    ]
    words = [str(number) for number in points["number"]]
    boxes = [(_LETTER * size * len(word) + 1, 0.8 * size) for word in words]
    radius = 0.38 * size
    centres = place_labels(places, boxes, (across.length, up.length), radius=radius)
    for word, (x, y), (label_x, label_y) in zip(words, places, centres, strict=True):
        if np.hypot(x - label_x, y - label_y) > 1.9 * size:
            yield line(left + x, top + y, left + label_x, top + label_y, opacity=0.4, width=0.5)
        yield text(left + label_x, top + label_y + 0.36 * size, word, size=size, anchor="middle")
