"""Where the label of a point goes: beside it, clear of points and other labels, and the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Place = tuple[float, float]

_AROUND: Final = (
    (1.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (0.8, -0.8), (-0.8, -0.8), (0.8, 0.8), (-0.8, 0.8),
)  # fmt: skip
_REACH: Final = (1.0, 1.8, 2.7, 3.7, 4.8)


def place_labels(
    points: Sequence[Place],
    sizes: Sequence[Place],
    area: Place,
    *,
    radius: float = 4.0,
    obstacles: Sequence[Place] = (),
) -> list[Place]:
    """Return the centre of every point's label.

    Parameters
    ----------
    points : sequence of (x, y)
        In pixels, within ``area``.
    sizes : sequence of (width, height)
        Of the labels.
    area : (width, height)
        Labels stay within it.
    radius : float
        Of a point.
    obstacles : sequence of (x, y)
        Other points to keep clear of.

    Returns
    -------
    list of (x, y)
        One after the other each label takes the nearest of forty places that overlaps nothing, or else the one that
        overlaps least.

    Examples
    --------
    >>> place_labels([(50.0, 50.0), (62.0, 50.0)], [(10.0, 10.0)] * 2, (100.0, 100.0))
    [(39.0, 50.0), (73.0, 50.0)]
    """
    discs = [(x - radius, y - radius, x + radius, y + radius) for x, y in (*points, *obstacles)]
    taken: list[tuple[float, float, float, float]] = []
    placed = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        best, best_cost = (x, y), float("inf")
        for rank, (dx, dy) in enumerate((a * reach, b * reach) for reach in _REACH for a, b in _AROUND):
            centre = (x + dx * (radius + 2 + width / 2), y + dy * (radius + 2 + height / 2))
            box = (centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2)
            if box[0] < 0 or box[1] < 0 or box[2] > area[0] or box[3] > area[1]:
                continue
            cost = sum(_overlap(box, other) for other in (*discs, *taken)) + 1e-3 * rank
            if cost < best_cost:
                best, best_cost = centre, cost
        taken.append((best[0] - width / 2, best[1] - height / 2, best[0] + width / 2, best[1] + height / 2))
        placed.append(best)
    return placed


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0
