"""ID accuracy against OOD accuracy: a point a row, on the linear and on the probit scale, with a line and its interval.

On the probit scale the accuracies of very different models often lie along a line (Miller et al. (2021), "Accuracy on
the Line"); a row above it does better out of distribution than its accuracy within would let one expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtr

from tlbench.report.drawing import svg, text
from tlbench.report.figures import INK, PALETTE, Figure, labels
from tlbench.report.line import LEAST_POINTS, Line, fit_line, probit
from tlbench.report.scatter_panel import Axis, panel

Scale = Literal["linear", "probit"]
SCALES: Final[tuple[Scale, ...]] = ("linear", "probit")

_LEVELS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75,
    0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999,
)  # fmt: skip
_STEPS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
_LEFT, _TOP, _BELOW, _BETWEEN = 52.0, 26.0, 42.0, 16.0


@dataclass(frozen=True)
class Scatter:
    """What a scatter draws.

    Attributes
    ----------
    title : str
    scale : {"linear", "probit"}
    points : DataFrame
        ``number``, ``name``, ``control``; ``x``, ``y`` and their ``_low`` and ``_high`` in the shown scale; and
        ``clipped``, whether a value had to be brought in from 0 or 1.
    line : Line or None
        Through the points that are no controls, in the shown scale.
    """

    title: str
    scale: Scale
    points: pd.DataFrame
    line: Line | None

    @property
    def why_no_line(self) -> str:
        """Why there is no line; empty where there is one."""
        if self.line is not None:
            return ""
        rows = int((~self.points["control"]).sum())
        if rows < LEAST_POINTS:
            noun = "row that is no control" if rows == 1 else "rows that are no controls"
            return f"no line: {rows} {noun}, at least {LEAST_POINTS} are needed"
        return "no line: all ID accuracies are equal"

    def span(self, axis: Literal["x", "y"]) -> tuple[float, float]:
        """Return the ends of an axis: all rows fit in, and of the controls those that lie among them."""
        models = self.points[~self.points["control"]]
        shown = models if len(models) > 1 else self.points
        values = shown[[axis, f"{axis}_low", f"{axis}_high"]].to_numpy(np.float64)
        if not np.isfinite(values).any():
            return 0.0, 1.0
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        room = 0.07 * (high - low) or 0.02
        return low - room, high + room

    @property
    def drawn(self) -> pd.DataFrame:
        """The points that lie within the spans."""
        (left, right), (low, high) = self.span("x"), self.span("y")
        return self.points[self.points["x"].between(left, right) & self.points["y"].between(low, high)]

    @property
    def left_out(self) -> list[int]:
        """Numbers of the controls that lie outside."""
        return sorted(set(self.points["number"]) - set(self.drawn["number"]))


def scatter(points: pd.DataFrame, scale: Scale, *, title: str = "") -> Scatter:
    """Return points in a scale, and the line through them.

    Parameters
    ----------
    points : DataFrame
        As in ``TaskPoints``.
    scale : {"linear", "probit"}
    title : str
    """
    shown = points[["number", "name", "control"]].copy()
    clipped = np.zeros(len(points), dtype=np.bool_)
    for axis, name in (("x", "id"), ("y", "ood")):
        n = points[f"{name}_n"].to_numpy(np.int64)
        for end in ("", "_low", "_high"):
            value = points[f"{name}{end}"].to_numpy(np.float64)
            if scale == "probit":
                value, moved = probit(value, n)
                if not end:
                    clipped |= moved
            shown[f"{axis}{end}"] = value
    shown["clipped"] = clipped
    models = shown[~shown["control"]]
    return Scatter(title, scale, shown, fit_line(models["x"].to_numpy(), models["y"].to_numpy()))


def figure(one: Scatter, *, name: str, task: str) -> Figure:
    """Return a scatter with a key of its numbers."""
    side = 380.0
    shapes = [*panel(one.drawn, one.line, _axis(one, "x", side), _axis(one, "y", side), left=_LEFT, top=_TOP, size=11)]
    shapes += _titles(_LEFT, _TOP, side, side)
    key, wide = _key(one.points, _LEFT + side + 24, _TOP, int(side))
    title = f"ID against OOD accuracy, {task}"
    told = f"{title}, {one.scale} scale: {len(one.points)} rows. {_line_words(one)}"
    drawing = svg(_LEFT + side + 24 + wide, _TOP + side + _BELOW, [*shapes, *key])
    return Figure(name, title, told, drawing)


def small_multiples(several: list[Scatter], *, name: str, task: str) -> Figure:
    """Return the scatters of a task's pairs side by side; their numbers are those of the mean's key."""
    side, columns = 190.0, min(4, len(several))
    step_x, step_y = _LEFT + side + _BETWEEN, _TOP + side + _BELOW
    shapes: list[str] = []
    for place, one in enumerate(several):
        left, top = _LEFT + place % columns * step_x, _TOP + place // columns * step_y
        shapes.append(text(left, top - 9, labels([one.title])[0], size=11))
        shapes += panel(one.drawn, one.line, _axis(one, "x", side), _axis(one, "y", side), left=left, top=top, size=8.5)
        shapes += _titles(left, top, side, side)
    title = f"ID against OOD accuracy of every pair, {task}"
    told = f"{title}, {several[0].scale} scale. " + " ".join(f"{one.title}: {_line_words(one)}" for one in several)
    rows = -(-len(several) // columns)
    return Figure(name, title, told, svg(columns * step_x, rows * step_y, shapes))


def _line_words(one: Scatter) -> str:
    if one.line is None:
        return f"{one.why_no_line.capitalize()}."
    return f"Line through {one.line.points} rows: slope {one.line.slope:.2f}, R² {one.line.r_squared:.2f}."


def _titles(left: float, top: float, width: float, height: float) -> list[str]:
    return [
        text(left + width / 2, top + height + 33, "ID accuracy, %", anchor="middle"),
        text(left - 38, top + height / 2, "OOD accuracy, %", anchor="middle", turned=True),
    ]


def _axis(one: Scatter, axis: Literal["x", "y"], length: float) -> Axis:
    low, high = one.span(axis)
    shares = _probit_ticks(low, high, length) if one.scale == "probit" else _linear_ticks(low, high, length)
    ticks = tuple((place, f"{100 * share:.4g}") for place, share in shares)
    return Axis(low, high, length, ticks)


def _linear_ticks(low: float, high: float, length: float) -> list[tuple[float, float]]:
    most = max(2, int(length // 45))
    step = next((step for step in _STEPS if (high - low) / step <= most), _STEPS[-1])
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    marks = [round(step * number, 6) for number in range(first, last + 1)]
    return [(mark, mark) for mark in marks if 0 <= mark <= 1]


def _probit_ticks(low: float, high: float, length: float) -> list[tuple[float, float]]:
    """Return marks at round shares, no two nearer than 34 pixels; the ends where there are not two of them."""
    places = probit(np.array(_LEVELS), np.full(len(_LEVELS), 10**9))[0]
    # Around a half and at the ends first: what comes later fills in between.
    order = sorted(range(len(_LEVELS)), key=lambda place: _ROUND.get(_LEVELS[place], 3))
    kept: list[tuple[float, float]] = []
    for number in order:
        place = float(places[number])
        near = any(abs(place - other) / (high - low) * length < 34 for other, _ in kept)
        if low <= place <= high and not near:
            kept.append((place, _LEVELS[number]))
    return sorted(kept) if len(kept) > 1 else [(end, float(ndtr(end))) for end in (low, high)]


_ROUND: Final = {0.5: 0, 0.1: 1, 0.9: 1, 0.01: 1, 0.99: 1, 0.2: 2, 0.3: 2, 0.4: 2, 0.6: 2, 0.7: 2, 0.8: 2}


def _key(points: pd.DataFrame, left: float, top: float, height: int) -> tuple[list[str], float]:
    """Return the names behind the numbers, and how wide they are."""
    names = labels([str(name) for name in points["name"]])
    step = 15
    each = max(1, height // step)
    words = [f"{number}  {name}" for number, name in zip(points["number"], names, strict=True)]
    wide = max((len(line) for line in words), default=1) * 6.6 + 14
    shapes = [
        text(
            left + place // each * wide,
            top + (place % each + 0.75) * step,
            line,
            colour=PALETTE[6] if control else INK,
        )
        for place, (line, control) in enumerate(zip(words, points["control"], strict=True))
    ]
    return shapes, wide * (-(-len(words) // each) or 1)
