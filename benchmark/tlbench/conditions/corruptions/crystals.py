"""Frost of our own making: textures of branching ice, grown from fixed seeds in whole numbers.

For machines without the photographs of frost that ImageNet-C uses, and without its licence. The six textures are as
bright and as rich in contrast as those photographs on average, and that is all they share with them.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Texture = NDArray[np.uint8]
"""RGB, shape (h, w, 3)"""
Whole = NDArray[np.int64]

SIDE: Final = 512
"""Side of a texture in pixels."""
LOOKS: Final = ((130, 24), (208, 22), (200, 23), (153, 29), (126, 40), (168, 25))
"""Mean and standard deviation of each texture's grey levels, set before bright ones are cut off at white."""
_ONE: Final = 1 << 10
"""One pixel in the units of growth: whole numbers are the same on every machine."""
_TURN: Final = 720
"""Directions of a full turn."""
_ANGLES: Final = np.arange(_TURN) * 2 * np.pi / _TURN
_DIRECTIONS: Final[Whole] = np.rint(_ONE * np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)).astype(np.int64)
"""Steps of one pixel right and down by direction."""


@lru_cache(maxsize=1)
def textures() -> tuple[Texture, ...]:
    """Return the six textures, uint8 (512, 512, 3), the same on every machine."""
    return tuple(_texture(seed, mean, deviation) for seed, (mean, deviation) in enumerate(LOOKS))


def _texture(seed: int, mean: int, deviation: int) -> Texture:
    draw = np.random.default_rng([0xF057, seed])
    haze, bare = rough(draw, 5), rough(draw, 3)
    ice = ferns(draw)
    # Where a smooth landscape is lowest the glass is bare, but for a breath of ice.
    level = haze // 3 + ice.astype(np.int64) * (160 + haze // 3) // 160
    waterline = np.sort(bare, axis=None)[bare.size * 22 // 100]
    depth = np.clip((waterline - bare) * 3, 0, 200)
    return _tinted(_scaled(level * (256 - depth) // 256, mean, deviation))


def rough(draw: np.random.Generator, octaves: int) -> Whole:
    """Draw a random landscape on a torus: int64 (512, 512), about -200 to 200, rougher with more octaves."""
    side, height = 4, 128
    level = draw.integers(-height, height + 1, (side, side))
    while side < SIDE:
        level = _doubled(_doubled(level).T).T
        side, height = 2 * side, height * 5 // 8
        if side <= 4 << octaves:
            level = level + draw.integers(-height, height + 1, (side, side))
    return level


def _doubled(level: Whole) -> Whole:
    """Return twice as many rows, new ones half-way between the old, the last one beside the first."""
    between = (level + np.roll(level, -1, axis=0)) >> 1
    return np.stack([level, between], axis=1).reshape(-1, level.shape[1])


def ferns(draw: np.random.Generator, stems: int = 300, steps: int = 16) -> NDArray[np.uint8]:
    """Draw ice that grows in three generations, each thinner and darker: uint8 (512, 512)."""
    # Stems, which bend a little at each step.
    start = draw.integers(-40 * _ONE, (SIDE + 40) * _ONE, (stems, 1, 2))
    heading = draw.integers(0, _TURN, (stems, 1)) + np.cumsum(draw.integers(-9, 10, (stems, steps)), axis=1)
    pace = draw.integers(2, 6, (stems, 1, 1))
    points = start + np.cumsum(pace * _DIRECTIONS[heading % _TURN], axis=1)

    # Branches to both sides of each stem's points, the longer the farther from its tip; then twigs along those.
    left = np.arange(steps, 0, -1)[None, :, None]
    length = pace * left * draw.integers(20, 70, (stems, steps, 2)) // 80
    opening = draw.integers(60, 120, (stems, 1, 1)) * np.array([-1, 1])
    course = heading[..., None] + opening + draw.integers(-8, 9, (stems, steps, 2))
    branch = length[..., None] * _DIRECTIONS[course % _TURN]
    roots = np.broadcast_to(points[:, :, None], branch.shape)

    along = np.arange(1, 7)[:, None]
    joints = roots[..., None, :] + branch[..., None, :] * along // 7
    side = np.where(along[:, 0] % 2 == 0, 1, -1)
    bend = course[..., None] + opening[..., :1, None] * side
    twig = (length[..., None] * (8 - along[:, 0]) // 14)[..., None] * _DIRECTIONS[bend % _TURN]

    ice = np.zeros((SIDE, SIDE), np.uint8)
    _lines(ice, joints, joints + twig, 120, 1)
    ice = np.asarray(cv2.blur(ice, (3, 3)), np.uint8)
    _lines(ice, roots, roots + branch, 170, 1)
    ice = np.asarray(cv2.blur(ice, (2, 2)), np.uint8)
    _lines(ice, points[:, :-1], points[:, 1:], 215, 1)
    return np.asarray(cv2.blur(ice, (2, 2)), np.uint8)


def _lines(place: NDArray[np.uint8], start: Whole, end: Whole, level: int, thickness: int) -> None:
    """Draw straight lines, given as (..., 2) right and down, into an image."""
    lines = np.stack([start, end], axis=-2).reshape(-1, 2, 2) // _ONE
    cv2.polylines(place, list(lines.astype(np.int32)), False, level, thickness)


def _scaled(level: Whole, mean: int, deviation: int) -> Whole:
    """Return levels of a mean and a standard deviation, both almost, cut off to 0 to 255."""
    centred = level - int(level.sum()) // level.size
    spread = isqrt(int((centred * centred).sum()) // level.size)
    return np.clip(mean + centred * deviation // max(spread, 1), 0, 255)


def _tinted(level: Whole) -> Texture:
    """Return grey levels as ice: white where bright, the bluer the darker."""
    dark = 255 - level
    return np.stack([np.maximum(level - dark // 5, 0), level + dark // 30, level + dark // 6], axis=-1).astype(np.uint8)
