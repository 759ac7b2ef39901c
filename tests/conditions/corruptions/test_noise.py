"""Noise as tables of distributions: their laws, how they are looked up, and the package's own noise."""

from __future__ import annotations

import imagecorruptions
import numpy as np
import pytest
from scipy.stats import norm, poisson

from tlbench.conditions.corruptions import noise
from tlbench.conditions.corruptions.corruption import CORRUPTIONS
from tlbench.conditions.corruptions.tables import SIDES, TABLES

NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
LEVELS = np.arange(256) / 255


def law(name, parameter, level):
    """The exact distribution of the new level, written from the definition: clipped to [0, 1], cut off to uint8."""
    ends = np.arange(1, 256) / 255
    if name == "shot_noise":
        counts = np.arange(int(parameter) + 1)
        levels = (counts / parameter * 255).astype(np.uint8)
        chances = np.append(poisson.pmf(counts[:-1], level * parameter), poisson.sf(counts[-1] - 1, level * parameter))
        return np.bincount(levels, weights=chances, minlength=256)
    if name == "impulse_noise":
        kept = np.zeros(256)
        kept[round(level * 255)] = 1 - parameter
        kept[[0, 255]] += parameter / 2
        return kept
    if level == 0 and name == "speckle_noise":
        return np.eye(256)[0]
    scale = parameter if name == "gaussian_noise" else parameter * level
    return np.diff(norm.cdf(ends, loc=level, scale=scale), prepend=0, append=1)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", NOISES)
def test_every_row_of_a_table_is_the_exact_law(name, side):
    for severity in (1, 5):
        parameter = TABLES[side][name][severity - 1]
        table = noise.table(name, parameter)
        assert table.shape == (256, 65536)
        for level in range(0, 256, 5):
            share = np.bincount(table[level], minlength=256) / 65536
            assert 0.5 * np.abs(share - law(name, parameter, level / 255)).sum() <= 1e-3


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", NOISES)
def test_a_new_level_is_the_tables_entry_for_the_old_one_and_the_drawn_word(name, side, small):
    images = small[:3, :side, :side] if side < 224 else np.tile(small[:3], (1, 2, 2, 1))
    images = np.concatenate([images, np.zeros_like(images[:1]), np.full_like(images[:1], 255)])
    shape = images.shape[1:]
    words = [np.random.default_rng(i).integers(0, 65536, size=shape, dtype=np.uint16) for i in range(len(images))]
    for parameter in TABLES[side][name]:
        result = CORRUPTIONS[name](images, parameter, [np.random.default_rng(i) for i in range(len(images))])
        assert np.array_equal(result, noise.table(name, parameter)[images, np.stack(words)])


@pytest.mark.parametrize("name", NOISES)
def test_a_table_ascends_with_the_word_and_cannot_be_written_to(name):
    table = noise.table(name, TABLES[224][name][2])
    assert (table[:, 1:] >= table[:, :-1]).all()
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 1


def test_a_table_of_no_noise_is_refused():
    with pytest.raises(ValueError, match="expected a noise"):
        noise.table("fog", 0.1)


def test_few_tables_are_kept():
    for name in NOISES:
        for parameter in TABLES[64][name][:2]:
            noise.table(name, parameter)
    kept = noise._table.cache_info()
    assert kept.currsize == kept.maxsize == 5


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_distributed_as_imagecorruptions_noise(name, photos, ours):
    def histogram(images):
        return np.bincount(images.ravel(), minlength=256) / images.size

    np.random.seed(0)
    for severity in (1, 4):
        first, second = (
            np.stack([imagecorruptions.corrupt(image, severity, name) for image in photos[1:3]]) for _ in range(2)
        )
        between = np.abs(histogram(first) - histogram(second)).sum()
        result = ours(name, 224, severity, photos[1:3])
        assert np.abs(histogram(result) - histogram(first)).sum() <= 2 * between


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("side", SIDES)
def test_noise_has_the_tables_strength(name, side, ours):
    """On a flat mid grey, where nothing is clipped away, the moments are those of the definition."""
    strength = TABLES[side][name][0]
    flat = np.full((8, 64, 64, 3), 128, np.uint8)
    result = ours(name, side, 1, flat)
    if name == "impulse_noise":
        hit = result != 128
        assert hit.mean() == pytest.approx(strength, rel=0.1)
        assert (result[hit] == 255).mean() == pytest.approx(0.5, abs=0.05)
        return
    change = (result.astype(float) + 0.5) / 255 - 128 / 255
    grey = 128 / 255
    deviation = {
        "gaussian_noise": strength, "speckle_noise": grey * strength, "shot_noise": np.sqrt(grey / strength),
    }[name]  # fmt: skip
    assert change.std() == pytest.approx(deviation, rel=0.03)
    assert abs(change.mean()) < 0.004


@pytest.mark.parametrize("name", NOISES)
def test_channels_neighbours_and_images_are_independent(name, ours):
    flat = np.full((2, 64, 64, 3), 128, np.uint8)
    first, second = ours(name, 64, 5, flat).astype(float)
    pairs = [(first, second), (first[..., 0], first[..., 1]), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])]
    for one, other in pairs:
        # Four standard deviations of the correlation of so many independent pairs.
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(one.size)
