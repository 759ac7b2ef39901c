"""Digital corruptions against the arithmetic of the original, to the last grey level where that can be had."""

from __future__ import annotations

from io import BytesIO

import imagecorruptions
import numpy as np
import pytest
from PIL import Image
from skimage.color import hsv2rgb, rgb2hsv

from tlbench.conditions.corruptions import digital, hue
from tlbench.conditions.corruptions.tables import SIDES, TABLES

DIGITAL = ("contrast", "brightness", "saturate", "jpeg_compression", "pixelate")


def contrast_the_slow_way(image, factor):
    x = image / 255
    means = x.mean(axis=(0, 1), keepdims=True)
    return np.uint8(np.clip((x - means) * factor + means, 0, 1) * 255)


def hsv_the_slow_way(image, change):
    x = rgb2hsv(image / 255)
    change(x)
    return np.uint8(np.clip(hsv2rgb(x), 0, 1) * 255)


def brightness_the_slow_way(image, added):
    def change(x):
        x[..., 2] = np.clip(x[..., 2] + added, 0, 1)

    return hsv_the_slow_way(image, change)


def saturate_the_slow_way(image, parameter):
    def change(x):
        x[..., 1] = np.clip(x[..., 1] * parameter[0] + parameter[1], 0, 1)

    return hsv_the_slow_way(image, change)


def jpeg_the_slow_way(image, quality):
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def pixelate_the_slow_way(image, share):
    # The generators of small images enlarge by boxes, which repeats pixels too.
    side = image.shape[0]
    shrunk = Image.fromarray(image).resize((int(side * share),) * 2, Image.Resampling.BOX)
    return np.array(shrunk.resize((side, side), Image.Resampling.BOX if side < 224 else Image.Resampling.NEAREST))


SLOW = {
    "contrast": contrast_the_slow_way, "brightness": brightness_the_slow_way, "saturate": saturate_the_slow_way,
    "jpeg_compression": jpeg_the_slow_way, "pixelate": pixelate_the_slow_way,
}  # fmt: skip


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", DIGITAL)
def test_agrees_with_imagecorruptions_at_224(name, severity, photos, ours):
    theirs = np.stack([imagecorruptions.corrupt(image, severity, name) for image in photos[1:3]])
    assert np.array_equal(ours(name, 224, severity, photos[1:3]), theirs)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", DIGITAL)
def test_photographs_digits_and_flat_images_are_the_definitions(name, side, photos, small, grounds, ours):
    grey = grounds(side)
    images = np.concatenate([photos[:1], grey[::5]]) if side == 224 else np.concatenate([small[:4, :side, :side], grey])
    for severity in (1, 3, 5):
        slow = np.stack([SLOW[name](image, TABLES[side][name][severity - 1]) for image in images])
        assert np.array_equal(ours(name, side, severity, images), slow)


@pytest.mark.parametrize("factor", [0.05, 0.3, 0.75])
def test_contrast_keeps_or_loses_every_flat_level_as_float64_does(factor):
    for side in (17, 64):
        flat = np.repeat(np.arange(256, dtype=np.uint8), side * side * 3).reshape(256, side, side, 3)
        slow = np.stack([contrast_the_slow_way(image, factor) for image in flat])
        assert np.array_equal(digital.contrast(flat, factor, []), slow)


def colours():
    """Every colour of 18 levels a channel, which has all ties, and 200,000 at random; 16 rows of them as images."""
    levels = np.array([*range(0, 256, 17), 1, 254], np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    some = np.random.default_rng(0).integers(0, 256, (200_000, 3), dtype=np.uint8)
    every = np.concatenate([grid, some])
    return every[: len(every) // 16 * 16].reshape(1, 16, -1, 3)


@pytest.mark.parametrize("added", [0.05, 0.3, 0.5])
def test_brightness_of_all_kinds_of_colours_is_the_originals_byte_for_byte(added):
    assert np.array_equal(hue.brightness(colours(), added, []), brightness_the_slow_way(colours(), added))


@pytest.mark.parametrize("parameter", [(0.1, 0), (0.3, 0), (2, 0), (5, 0.1), (30, 0.2)])
def test_saturation_of_all_kinds_of_colours_is_the_originals_byte_for_byte(parameter):
    assert np.array_equal(hue.saturate(colours(), parameter, []), saturate_the_slow_way(colours(), parameter))


def test_saturate_turns_grey_red_where_the_table_has_an_offset():
    grey = np.full((1, 8, 8, 3), 128, np.uint8)
    red = hue.saturate(grey, (5, 0.1), [])
    assert (red[..., 0] == 128).all()
    assert (red[..., 1:] < 128).all()


def test_a_contrast_table_is_what_contrast_looks_up(small):
    (table,) = digital.contrast_tables(small[:1], 0.3)
    assert table.shape == (3, 256)
    channels = [table[channel][small[0, ..., channel]] for channel in range(3)]
    assert np.array_equal(digital.contrast(small[:1], 0.3, [])[0], np.stack(channels, axis=-1))
