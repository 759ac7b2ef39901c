"""The blurs against the arithmetic of the original: on photographs, on digits, and on flat grounds of any level."""

from __future__ import annotations

import math
from importlib.resources import files

import cv2
import imagecorruptions
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagecorruptions import corruptions as reference
from scipy.ndimage import zoom as scipy_zoom
from skimage.filters import gaussian

from tlbench.conditions.corruptions import blur
from tlbench.conditions.corruptions.compiled import compiled
from tlbench.conditions.corruptions.glass import glass_moves, origins, shaken
from tlbench.conditions.corruptions.grounds import dropped_by_gaussian, settled
from tlbench.conditions.corruptions.streaks import streak
from tlbench.conditions.corruptions.tables import SEVERITIES, SIDES, TABLES
from tlbench.conditions.corruptions.zoom import zoom_factors, zoom_steps

MOST_PIXELS = 0.005  # of those that may differ, by one grey level; the bar for any corruption is 0.03
SOME_LEVELS = np.unique(np.r_[0:256:5, 1, 254])


@pytest.fixture(scope="module")
def kinds(photos):
    """Photographs, digits white on black and black on white, and flat images, of a side: uint8 (n, side, side, 3)."""
    digits = np.load(str(files("tlbench.data") / "embedded" / "printed.npz"))["images"][::300]

    def of(side):
        grown = np.stack([cv2.resize(digit, (side, side)) for digit in np.r_[digits[:4], 255 - digits[4:]]])
        grey = np.repeat(grown[..., None], 3, axis=3)
        flat = np.repeat(SOME_LEVELS.astype(np.uint8), side * side * 3).reshape(-1, side, side, 3)
        if side == 224:
            return {"photographs": photos[1:3], "digits": grey[[1, 6]], "flat": flat[::9]}
        return {"photographs": photos[:, 30 : 30 + side, 60 : 60 + side], "digits": grey, "flat": flat[::4]}

    return of


@pytest.fixture(params=["plain", "numba"])
def path(request, monkeypatch):
    """Run a test without numba, and with it where it is installed."""
    monkeypatch.setenv("TLBENCH_NO_NUMBA", "1" if request.param == "plain" else "0")
    if request.param == "numba" and compiled() is None:
        pytest.skip("numba is not installed")
    return request.param


def generators(images):
    return [np.random.default_rng([0, i]) for i in range(len(images))]


def assert_equal_within_a_level(result, expected):
    difference = np.abs(result.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= MOST_PIXELS


def cut_off(values):
    return np.uint8(np.clip(values, 0, 1) * 255)


def gaussian_the_slow_way(image, sigma):
    return cut_off(gaussian(image / 255.0, sigma=sigma, channel_axis=-1))


def defocus_the_slow_way(image, parameter):
    kernel = reference.disk(*parameter)
    return cut_off(np.stack([cv2.filter2D(image[..., c] / 255.0, -1, kernel) for c in range(3)], -1))


def zoom_the_slow_way(image, parameter):
    x = (image / 255.0).astype(np.float32)
    factors, total, side = np.arange(1, *parameter), np.zeros_like(x), len(image)
    for factor in factors:
        cut = math.ceil(side / factor)
        start = (side - cut) // 2
        zoomed = scipy_zoom(x[start : start + cut, start : start + cut], (factor, factor, 1), order=1)
        start = (len(zoomed) - side) // 2
        total += zoomed[start : start + side, start : start + side]
    return cut_off((x + total) / (len(factors) + 1))


def motion_the_slow_way(image, parameter, draw):
    """Sums in float64 in the order of the steps: what the published results were measured on."""
    radius, deviation = parameter
    angle = math.radians(draw.uniform(-45, 45))
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    total = np.zeros(image.shape)
    rows, columns = np.indices(image.shape[:2])
    for step, weight in enumerate(weights):
        down, right = -math.ceil(step * math.sin(angle) - 0.5), -math.ceil(step * math.cos(angle) - 0.5)
        if abs(down) >= len(image) or abs(right) >= image.shape[1]:
            break
        row, column = (np.clip(rows - down, 0, len(image) - 1), np.clip(columns - right, 0, image.shape[1] - 1))
        total += weight * image.astype(np.float64)[row, column]
    return np.clip(total, 0, 255).astype(np.uint8)


def copies_the_slow_way(image, moves, reach):
    """Copies one after the other, as the published code's swap of two views comes out."""
    image = image.copy()
    height, width = image.shape[:2]
    for h in range(height - reach, reach, -1):
        for w in range(width - reach, reach, -1):
            down, right = moves[h - reach - 1, w - reach - 1]
            source, target = image[h + down, w + right], image[h, w]
            target[...], source[...] = source, target
    return image


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("name", "slow"), [("gaussian_blur", gaussian_the_slow_way), ("defocus_blur", defocus_the_slow_way)]
)
def test_means_over_neighbours_are_the_originals(name, slow, side, kinds):
    for images in kinds(side).values():
        for severity in SEVERITIES:
            parameter = TABLES[side][name][severity - 1]
            expected = np.stack([slow(image, parameter) for image in images])
            assert_equal_within_a_level(getattr(blur, name)(images, parameter, []), expected)


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur"])
@pytest.mark.parametrize("side", SIDES)
def test_every_flat_level_goes_where_the_original_puts_it(name, side):
    grounds = np.repeat(np.arange(256, dtype=np.uint8), 24 * 24 * 3).reshape(256, 24, 24, 3)
    slow = gaussian_the_slow_way if name == "gaussian_blur" else defocus_the_slow_way
    for parameter in TABLES[side][name]:
        # Flat as far as either reaches: a Gaussian repeats the edge, a disk stays within 10 pixels.
        expected = np.array([slow(ground[:21, :21], parameter)[10, 10, 0] for ground in grounds])
        assert (getattr(blur, name)(grounds, parameter, []) == expected[:, None, None, None]).all()


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("side", SIDES)
def test_zoom_blur_is_the_mean_over_scipys_zooms(side, severity, kinds, path):
    parameter = TABLES[side]["zoom_blur"][severity - 1]
    if side == 224 and severity not in (1, 5):
        pytest.skip("one severity with small and one with large steps is enough of the slow way")
    for images in kinds(side).values():
        expected = np.stack([zoom_the_slow_way(image, parameter) for image in images])
        assert_equal_within_a_level(blur.zoom_blur(images, parameter, []), expected)


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "zoom_blur"])
def test_agrees_with_imagecorruptions(name, photos):
    for severity in (1, 3, 5):
        theirs = imagecorruptions.corrupt(photos[1], severity, name)
        assert_equal_within_a_level(getattr(blur, name)(photos[1:2], TABLES[224][name][severity - 1], [])[0], theirs)


@pytest.mark.parametrize("side", SIDES)
def test_motion_blur_is_the_sum_in_float64_byte_for_byte(side, kinds, path):
    for images in kinds(side).values():
        for severity in SEVERITIES if side == 64 else (1, 5):
            parameter = TABLES[side]["motion_blur"][severity - 1]
            slow = [motion_the_slow_way(x, parameter, draw) for x, draw in zip(images, generators(images), strict=True)]
            assert np.array_equal(blur.motion_blur(images, parameter, generators(images)), np.stack(slow))


def test_motion_blur_agrees_with_imagecorruptions_given_the_same_angle(photos, monkeypatch, path):
    for severity in SEVERITIES:
        draw = np.random.default_rng([0, 0])
        monkeypatch.setattr(np.random, "uniform", draw.uniform)
        theirs = imagecorruptions.corrupt(photos[1], severity, "motion_blur")
        ours = blur.motion_blur(photos[1:2], TABLES[224]["motion_blur"][severity - 1], generators(photos[1:2]))[0]
        assert_equal_within_a_level(ours, theirs)


def test_a_streak_stops_where_it_leaves_the_image():
    whole, cut = streak((64, 64), 10, 3, 0.0), streak((64, 7), 10, 3, 0.0)
    assert len(whole.weight) == 21
    assert whole.weight.sum() == pytest.approx(1, abs=1e-15)
    assert whole.right.tolist() == [-math.ceil(step - 0.5) for step in range(21)]
    assert cut.right.tolist() == whole.right.tolist()[:7]
    assert np.array_equal(cut.weight, whole.weight[:7])


@pytest.mark.parametrize("side", [32, 64])
def test_glass_blur_is_blur_copies_blur(side, kinds, path):
    for images in kinds(side).values():
        images = images[:3]
        for parameter in (TABLES[side]["glass_blur"][severity] for severity in (1, 4)):
            deviation, reach, passes = parameter
            slow = []
            for image, draw in zip(images, generators(images), strict=True):
                image = gaussian_the_slow_way(image, deviation)
                for _ in range(passes):
                    image = copies_the_slow_way(image, glass_moves(draw, (side, side), reach), reach)
                slow.append(gaussian_the_slow_way(image, deviation))
            assert_equal_within_a_level(blur.glass_blur(images, parameter, generators(images)), np.stack(slow))


@pytest.mark.parametrize("reach", [1, 2, 3, 4])
def test_glass_copies_pixels_in_the_published_order(reach, photos, path):
    image = photos[1, :40, :56]
    draw = np.random.default_rng(reach)
    passes = [glass_moves(draw, (40, 56), reach) for _ in range(2)]
    assert min(moves.min() for moves in passes) == -reach
    assert max(moves.max() for moves in passes) == reach - 1
    slow = copies_the_slow_way(copies_the_slow_way(image, passes[0], reach), passes[1], reach)
    before = image.copy()
    assert np.array_equal(shaken(image, passes, reach), slow)
    assert np.array_equal(image, before)


@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(20, 41), st.integers(20, 41))
def test_glass_moves_are_numpys_integers(seed, reach, height, width):
    """The numbers, and what is drawn after them: moves of a power of two are taken from whole words, sooner."""
    draw, numpys = np.random.default_rng(seed), np.random.default_rng(seed)
    for _ in range(2):
        expected = numpys.integers(-reach, reach, (height - 2 * reach, width - 2 * reach, 2))
        assert np.array_equal(glass_moves(draw, (height, width), reach), expected)
    assert draw.random() == numpys.random()


def test_a_chain_of_copies_is_followed_to_its_end():
    """Every pixel takes from the one on its right: a line that is written shows the first pixel beyond it."""
    moves = np.zeros((5, 8, 2), np.int32)
    assert np.array_equal(origins((9, 12), moves, 2), np.arange(9 * 12))
    moves[..., 1] = 1
    shown = origins((9, 12), moves, 2).reshape(9, 12) % 12
    assert shown[3].tolist() == [0, 1, 2] + [11] * 9
    assert shown[2].tolist() == list(range(12))


@pytest.mark.skipif(compiled() is None, reason="the package's loop takes numba")
def test_imagecorruptions_copies_too():
    """Its loop under numba loses values, where a swap would keep them all: it makes what the published sets hold."""
    image = np.arange(20 * 20 * 3, dtype=np.uint32).reshape(20, 20, 3)
    shuffled = reference._shuffle_pixels_njit_glass_blur(20, 20, image.copy(), (0.7, 2, 1), 0)
    assert len(np.unique(shuffled)) < image.size


@pytest.mark.parametrize("name", ["gaussian_blur", "glass_blur", "defocus_blur", "motion_blur", "zoom_blur"])
def test_images_do_not_depend_on_their_company_and_are_left_alone(name, kinds, path):
    images = kinds(32)["photographs"]
    parameter, before = TABLES[32][name][4], images.copy()
    together = getattr(blur, name)(images, parameter, generators(images))
    alone = getattr(blur, name)(images[2:3], parameter, generators(images)[2:3])
    assert np.array_equal(together[2:3], alone)
    assert np.array_equal(images, before)
    assert not np.shares_memory(together, images)


def test_sums_at_a_whole_level_are_decided_by_the_ground():
    dropped = np.zeros(256, np.uint8)
    dropped[7] = 1
    values = np.float32([6.99999, 7.00001, 7.3, 8.00001, 7.99999, 0, 254.99999])
    assert settled(values.copy().reshape(1, -1), dropped).tolist() == [[6, 6, 7, 8, 8, 0, 255]]
    assert settled(values.copy().reshape(1, -1), 0 * dropped).tolist() == [[7, 7, 7, 8, 8, 0, 255]]


def test_scipys_gaussian_loses_some_levels_and_never_black():
    assert dropped_by_gaussian(0.4).sum() == 56
    assert all(dropped_by_gaussian(sigma)[0] == 0 for sigma in (0.4, 0.5, 1, 6))


@pytest.mark.parametrize("side", [30, 32, 64, 65, 224])
def test_zoom_steps_are_scipys(side):
    line = np.random.default_rng(0).random(side)
    for parameter in TABLES[64]["zoom_blur"]:
        for factor in zoom_factors(parameter):
            index, share = zoom_steps(side, factor)
            cut = math.ceil(side / factor)
            start = (side - cut) // 2
            slow = scipy_zoom(line[start : start + cut], factor, order=1)
            start = (len(slow) - side) // 2
            result = line[index] + share * (line[index + 1] - line[index])
            assert np.allclose(result, slow[start : start + side], rtol=0, atol=1e-12)
            assert 0 <= share.min() <= share.max() <= 1
