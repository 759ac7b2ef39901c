"""Fog and spatter against the package given the same draws, and against slow definitions at the other sides."""

from __future__ import annotations

import imagecorruptions
import numpy as np
import pytest
from imagecorruptions import corruptions as reference
from skimage.filters import gaussian

from tlbench.conditions.corruptions import weather
from tlbench.conditions.corruptions.tables import SIDES, TABLES


def drawing_from(draw, monkeypatch, side):
    """Let the package draw what ours draws: fog's numbers at once, the others one by one."""
    numbers, used = None, 0

    def uniform(low, high, shape):
        nonlocal numbers, used
        if numbers is None:
            numbers = draw.uniform(-1, 1, side * side - 1)
        used += int(np.prod(shape))
        return high * numbers[used - int(np.prod(shape)) : used].reshape(shape)

    monkeypatch.setattr(np.random, "uniform", uniform)
    monkeypatch.setattr(np.random, "normal", lambda size, loc, scale: draw.normal(loc, scale, size))


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ["fog", "spatter"])
def test_agrees_with_imagecorruptions_given_the_same_draws(
    name, severity, photos, monkeypatch, ours, assert_equal_within_a_level
):
    drawing_from(np.random.default_rng([0, 0]), monkeypatch, 256)
    theirs = imagecorruptions.corrupt(photos[1], severity, name)
    assert_equal_within_a_level(ours(name, 224, severity, photos[1:2])[0], theirs)


def fog_the_slow_way(image, parameter, draw, monkeypatch):
    strength, decay = parameter
    side = 1 << (max(image.shape[:2]) - 1).bit_length()
    with monkeypatch.context() as patched:
        drawing_from(draw, patched, side)
        plasma = reference.plasma_fractal(side, decay)[: image.shape[0], : image.shape[1], None]
    x = image / 255
    brightest = x.max()
    return np.uint8(np.clip((x + strength * plasma) * brightest / (brightest + strength), 0, 1) * 255)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("side", SIDES)
def test_fog_follows_its_definition_on_photographs_digits_and_flat_images(
    side, severity, photos, grounds, monkeypatch, ours, assert_equal_within_a_level
):
    images = np.concatenate([photos[:2, :side, :side], grounds(side)[:: 8 if side == 224 else 3]])
    parameter = TABLES[side]["fog"][severity - 1]
    slow = [
        fog_the_slow_way(image, parameter, np.random.default_rng([0, i]), monkeypatch) for i, image in enumerate(images)
    ]
    assert_equal_within_a_level(ours("fog", side, severity, images), np.stack(slow))


def spatter_the_slow_way(image, parameter, draw):
    mean, deviation, sigma, threshold, strength, mud = parameter
    x = image / 255
    liquid = gaussian(draw.normal(mean, deviation, image.shape[:2]), sigma=sigma)
    if mud:
        cover = gaussian((liquid > threshold).astype(float), sigma=strength)
        cover[cover < 0.8] = 0
        brown = np.array([63, 42, 20]) / 255
        return np.uint8(np.clip(x * (1 - cover[..., None]) + brown * cover[..., None], 0, 1) * 255)
    liquid[liquid < threshold] = 0
    light = weather.relief((liquid * 255).astype(np.int64).astype(np.uint8)) * strength
    return np.uint8(np.clip(x + light[..., None] * (np.array([175, 238, 238]) / 255), 0, 1) * 255)


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("side", [32, 64])
def test_spatter_follows_its_definition_on_photographs_digits_and_flat_images(
    side, severity, photos, grounds, ours, assert_equal_within_a_level
):
    images = np.concatenate([photos[:, :side, :side], grounds(side)])
    parameter = TABLES[side]["spatter"][severity - 1]
    slow = [spatter_the_slow_way(image, parameter, np.random.default_rng([0, i])) for i, image in enumerate(images)]
    assert_equal_within_a_level(ours("spatter", side, severity, images), np.stack(slow))


def test_plasma_runs_from_zero_to_one_and_has_no_seam():
    plasma = weather.plasma_fractals([np.random.default_rng(i) for i in range(4)], 64, 2.0)
    assert plasma.min(axis=(1, 2)).tolist() == [0] * 4
    assert plasma.max(axis=(1, 2)).tolist() == [1] * 4
    across = np.abs(plasma[:, :, 0] - plasma[:, :, -1]).mean()
    inside = np.abs(np.diff(plasma, axis=2)).mean()
    assert across < 3 * inside


@pytest.mark.parametrize("side", [8, 64, 256])
def test_plasma_is_the_packages_bit_for_bit(side, monkeypatch):
    drawing_from(np.random.default_rng(5), monkeypatch, side)
    theirs = reference.plasma_fractal(side, 1.7)
    assert np.array_equal(weather.plasma_fractals([np.random.default_rng(5)], side, 1.7)[0], theirs)


def test_fog_leaves_a_black_image_black(ours):
    assert ours("fog", 64, 5, np.zeros((1, 64, 64, 3), np.uint8)).max() == 0


def test_water_without_drops_leaves_the_image():
    assert weather.relief(np.zeros((64, 64), np.uint8)).max() == 0


def test_a_plane_is_filtered_as_by_scikit_image():
    plane = np.random.default_rng(0).normal(0.65, 0.3, (40, 50))
    for deviation in (0.1, 0.7, 1, 4):
        assert np.abs(weather.smoothed(plane, deviation) - gaussian(plane, sigma=deviation)).max() < 1e-12
