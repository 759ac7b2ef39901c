"""What tests of corruptions share: generators by place, images on which cutting off shows, and how near is near."""

from __future__ import annotations

from importlib.resources import files

import cv2
import numpy as np
import pytest

from tlbench.conditions.corruptions.corruption import CORRUPTIONS
from tlbench.conditions.corruptions.tables import TABLES

MOST_PIXELS = 0.005  # of those that may differ, by one grey level; the bar for any corruption is 0.03


def _ours(name, side, severity, images, seed=0):
    draws = [np.random.default_rng([seed, i]) for i in range(len(images))]
    return CORRUPTIONS[name](images, TABLES[side][name][severity - 1], draws)


def _assert_equal_within_a_level(result, expected):
    difference = np.abs(result.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= MOST_PIXELS


@pytest.fixture(scope="session")
def ours():
    """Return ``ours(name, side, severity, images, seed=0)``; image i draws from ``default_rng([seed, i])``."""
    return _ours


@pytest.fixture(scope="session")
def assert_equal_within_a_level():
    return _assert_equal_within_a_level


@pytest.fixture(scope="session")
def small(photos):
    """Twelve photographs of 64 pixels a side."""
    return np.stack(
        [p[top : top + 64, left : left + 64] for p in photos for top, left in ((0, 0), (60, 90), (150, 30))]
    )


@pytest.fixture(scope="session")
def grounds():
    """Return ``grounds(side)``: digits white on black and black on white, and flat images, grey and coloured."""
    digits = np.load(str(files("tlbench.data") / "embedded" / "printed.npz"))["images"][::400]

    def of(side):
        grown = np.stack([cv2.resize(digit, (side, side)) for digit in np.r_[digits[:3], 255 - digits[3:6]]])
        levels = [*range(0, 256, 17), 1, 64, 128, 254]
        flat = [np.full((side, side, 3), level, np.uint8) for level in levels]
        flat += [np.full((side, side, 3), colour, np.uint8) for colour in ((255, 0, 0), (30, 200, 200), (7, 7, 99))]
        return np.concatenate([np.repeat(grown[..., None], 3, axis=3), np.stack(flat)])

    return of
