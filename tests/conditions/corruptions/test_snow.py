"""Snow against the imagecorruptions package, given the same draws, and against its definition written slowly."""

from __future__ import annotations

import math

import cv2
import imagecorruptions
import numpy as np
import pytest
from scipy.ndimage import zoom as scipy_zoom

from tlbench.conditions.corruptions.compiled import compiled
from tlbench.conditions.corruptions.snow import snow, snowfall
from tlbench.conditions.corruptions.tables import SEVERITIES, SIDES, TABLES
from tlbench.conditions.corruptions.zoom import enlarged


@pytest.fixture(params=["plain", "numba"])
def path(request, monkeypatch):
    """Run a test without numba, and with it where it is installed."""
    monkeypatch.setenv("TLBENCH_NO_NUMBA", "1" if request.param == "plain" else "0")
    if request.param == "numba" and compiled() is None:
        pytest.skip("numba is not installed")


def generators(images):
    return [np.random.default_rng([0, i]) for i in range(len(images))]


def middle_enlarged(plane, factor):
    side = len(plane)
    cut = math.ceil(side / factor)
    start = (side - cut) // 2
    grown = scipy_zoom(plane[start : start + cut, start : start + cut], factor, order=1)
    start = (len(grown) - side) // 2
    return grown[start : start + side, start : start + side]


def snow_the_slow_way(image, parameter, draw):
    mean, deviation, zoom, threshold, radius, spread, weight = parameter
    side = len(image)
    flakes = middle_enlarged(draw.normal(mean, deviation, (side, side)), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    angle = math.radians(draw.uniform(-135, -45))
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * spread**2))
    weights /= weights.sum()
    rows, columns = np.indices(flakes.shape)
    streaks = np.zeros(flakes.shape)
    for step, share in enumerate(weights):
        row = np.clip(rows + math.ceil(step * math.sin(angle) - 0.5), 0, side - 1)
        column = np.clip(columns + math.ceil(step * math.cos(angle) - 0.5), 0, side - 1)
        streaks += share * flakes[row, column]
    flakes = (np.round(streaks * 255).astype(np.uint8) / 255)[..., None]
    x = image.astype(np.float32) / 255
    gray = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).reshape(side, side, 1)
    x = weight * x + (1 - weight) * np.maximum(x, gray * 1.5 + 0.5)
    return (np.clip(x + flakes + np.rot90(flakes, k=2), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("side", SIDES)
def test_snow_is_its_definition_byte_for_byte(side, photos, path):
    flat = np.repeat(np.uint8([0, 1, 77, 128, 254, 255]), side * side * 3).reshape(-1, side, side, 3)
    images = np.concatenate([photos[1:3, :side, :side], flat])
    for severity in SEVERITIES if side < 224 else (1, 4):
        parameter = TABLES[side]["snow"][severity - 1]
        slow = [snow_the_slow_way(x, parameter, draw) for x, draw in zip(images, generators(images), strict=True)]
        assert np.array_equal(snow(images, parameter, generators(images)), np.stack(slow))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_agrees_with_imagecorruptions_given_the_same_draws(severity, photos, monkeypatch):
    draw = np.random.default_rng([0, 0])
    monkeypatch.setattr(np.random, "uniform", draw.uniform)
    monkeypatch.setattr(np.random, "normal", lambda size, loc, scale: draw.normal(loc, scale, size))
    theirs = imagecorruptions.corrupt(photos[1], severity, "snow")
    ours = snow(photos[1:2], TABLES[224]["snow"][severity - 1], generators(photos[1:2]))[0]
    # The package streaks a layer of snow before it cuts it to the image, the published code after: edges differ.
    difference = np.abs(ours.astype(int) - theirs)[26:-26, 26:-26]
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.005


def test_flakes_fall_along_streaks_on_a_black_scene():
    """With a threshold that few values pass, a layer without enlargement is streaks of a known length."""
    fallen = snowfall(np.random.default_rng(3), (64, 64), (0.1, 0.2, 1, 0.75, 8, 3, 0.8))
    assert fallen.dtype == np.uint8
    assert 0 < (fallen > 0).mean() < 0.2
    assert fallen.max() < 255


@pytest.mark.parametrize("factor", [1, 1.25, 2, 4.5])
def test_a_layer_is_enlarged_as_by_scipy(factor):
    plane = np.random.default_rng(0).normal(size=(64, 64))
    assert np.allclose(enlarged(plane, factor), middle_enlarged(plane, factor), rtol=0, atol=1e-12)


def test_a_layer_need_not_be_square():
    plane = np.random.default_rng(0).normal(size=(40, 64))
    assert np.array_equal(enlarged(plane, 1), plane)
    assert np.allclose(enlarged(plane, 2.5).T, enlarged(np.ascontiguousarray(plane.T), 2.5), rtol=0, atol=1e-14)
