"""The elastic transform against the published arithmetic in float64, on photographs and on flat grounds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from skimage.filters import gaussian

from tlbench.conditions.corruptions.elastic import smoothed_field, smoothing
from tlbench.conditions.corruptions.tables import TABLES


def elastic_the_slow_way(image, parameter, draw):
    amplitude, deviation, jitter = parameter
    image = image.astype(np.float32) / 255
    shape = image.shape
    centre, arm = np.float32(shape[:2]) // 2, min(shape[:2]) // 3
    before = np.float32([centre + arm, [centre[0] + arm, centre[1] - arm], centre - arm])
    after = before + draw.uniform(-jitter, jitter, before.shape).astype(np.float32)
    matrix = cv2.getAffineTransform(before, after)
    image = cv2.warpAffine(image, matrix, shape[1::-1], borderMode=cv2.BORDER_REFLECT_101)
    dx, dy = (
        gaussian(draw.uniform(-1, 1, shape[:2]), deviation, mode="reflect", truncate=3) * amplitude for _ in range(2)
    )
    x, y, z = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]), np.arange(shape[2]))
    where = [(y + dy[..., None]).ravel(), (x + dx[..., None]).ravel(), z.ravel()]
    moved = map_coordinates(image, where, order=1, mode="reflect").reshape(shape)
    return np.uint8(np.clip(moved, 0, 1) * 255)


@pytest.mark.parametrize(
    ("side", "severity"), [(64, 1), (64, 2), (64, 3), (64, 5), (32, 2), (32, 3), (224, 1), (224, 2), (224, 4)]
)
def test_follows_its_definition(side, severity, small, photos, ours, assert_equal_within_a_level):
    image = photos[1] if side == 224 else small[1, :side, :side]
    slow = elastic_the_slow_way(image, TABLES[side]["elastic_transform"][severity - 1], np.random.default_rng([0, 0]))
    assert_equal_within_a_level(ours("elastic_transform", side, severity, image[None])[0], slow)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_every_flat_level_goes_where_float32_puts_it(severity, ours):
    flat = np.repeat(np.arange(256, dtype=np.uint8), 32 * 32 * 3).reshape(256, 32, 32, 3)
    # As in the original, whose image is divided and multiplied by 255 in float32.
    expected = (flat.astype(np.float32) / 255 * 255).astype(np.uint8)
    assert np.array_equal(ours("elastic_transform", 32, severity, flat), expected)


@pytest.mark.parametrize("deviation", [0, 0.6, 2.44, 5.1, 19.5])
def test_a_field_is_filtered_as_by_scipy(deviation):
    field = np.random.default_rng(0).uniform(-1, 1, (64, 48)).astype(np.float32)
    expected = gaussian(field.astype(float), deviation, mode="reflect", truncate=3) if deviation else field
    assert np.abs(smoothed_field(field, deviation) - expected).max() < 1e-6
    matrices = smoothing(64, deviation) @ field.astype(float) @ smoothing(48, deviation).T
    assert np.abs(matrices - expected).max() < 1e-12
