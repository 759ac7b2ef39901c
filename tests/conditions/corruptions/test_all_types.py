"""What holds for every type of corruption, with every table, at every severity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tlbench.conditions.corruptions.corruption import CORRUPTIONS, Corruption
from tlbench.conditions.corruptions.tables import SEVERITIES, SIDES

EVERY = [(name, side) for name in CORRUPTIONS for side in SIDES]


@pytest.fixture(scope="module")
def batches(photos, batch_of):
    """Two images a side: a photograph, and one half black and half white."""

    def of(side):
        halves = np.zeros((side, side, 3), np.uint8)
        halves[:, side // 2 :] = 255
        images = np.stack([photos[1, 100 : 100 + side, :side] if side < 224 else photos[1], halves])
        return batch_of(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())

    return {side: of(side) for side in SIDES}


@pytest.mark.parametrize(("name", "side"), EVERY)
def test_makes_uint8_images_of_the_same_shape_whatever_their_company(name, side, batches, part_of):
    batch = batches[side]
    before = batch.images.clone()
    corruption = Corruption(name, image_size=side)
    assert len(corruption.settings) == len(SEVERITIES)
    for setting in corruption.settings:
        made = corruption.apply(batch, setting)
        assert made.dtype == torch.uint8
        assert made.shape == batch.images.shape
        assert torch.equal(corruption.apply(part_of(batch, [1, 0]), setting)[[1, 0]], made)
        if setting.severity in (1, 5):
            assert torch.equal(corruption.apply(part_of(batch, [1]), setting), made[1:])
    assert torch.equal(batch.images, before)


# The first severities of elastic_transform tilt most, its last ones bend most.
@pytest.mark.parametrize(("name", "side"), [(name, side) for name, side in EVERY if name != "elastic_transform"])
def test_moves_photographs_further_at_a_higher_severity(name, side, batches, batch_of):
    # One photograph under many names: what is drawn (a texture, an angle) must not decide.
    batch = batch_of(batches[side].images[:1].repeat(24, 1, 1, 1))
    corruption = Corruption(name, image_size=side)
    # Of saturate, severities 1 and 2 take colour away, the others add it.
    mild, strong = (corruption.settings[place] for place in ((2, 4) if name == "saturate" else (0, 4)))
    moved = [
        (corruption.apply(batch, setting).float() - batch.images).abs().mean().item() for setting in (mild, strong)
    ]
    assert 0 < moved[0] < moved[1]


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_two_images_of_one_name_are_one_and_of_two_names_are_drawn_apart(name, batches, batch_of):
    photograph = batches[64].images[:1]
    twins = batch_of(photograph.repeat(2, 1, 1, 1))
    corruption = Corruption(name)
    setting = corruption.settings[4]
    first, second = corruption.apply(twins, setting)
    again = corruption.apply(twins, setting)
    assert torch.equal(again[0], first)
    drawless = {"gaussian_blur", "defocus_blur", "zoom_blur", "contrast", "brightness", "saturate"}
    drawless |= {"jpeg_compression", "pixelate"}
    assert torch.equal(first, second) == (name in drawless)
