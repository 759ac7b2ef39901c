"""The corruption condition: tables, sides, pieces and devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tlbench.conditions.base import image_seeds
from tlbench.conditions.catalogue import condition_names
from tlbench.conditions.corruptions import corruption as module
from tlbench.conditions.corruptions.corruption import CORRUPTIONS, DRAWLESS, Corruption, corrupted
from tlbench.conditions.corruptions.pixels import SHARES, by_channel, by_pixel, shares
from tlbench.conditions.corruptions.tables import SIDES, TABLES
from tlbench.errors import DataError


def as_batch_images(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def test_tables_are_complete():
    for side in SIDES:
        assert set(TABLES[side]) == set(CORRUPTIONS)
        assert all(len(severities) == 5 for severities in TABLES[side].values())


def test_all_nineteen_published_types_and_one_of_ours_are_in_the_catalogue():
    names = condition_names()["corruption"]
    assert len(names) == 20
    assert set(names) == set(CORRUPTIONS)
    assert [name for name in names if "-" in name] == ["frost-generated"]


def test_images_of_another_side_need_a_named_table(batch_of):
    batch = batch_of(torch.zeros(2, 3, 48, 48, dtype=torch.uint8))
    corruption = Corruption("contrast")
    with pytest.raises(DataError, match=r"expected images of 64 by 64 pixels, got 48 by 48; name the table"):
        corruption.apply(batch, corruption.settings[0])
    with pytest.raises(DataError, match=r"expected images of 64 by 64 pixels"):
        corruption.drawn(batch, corruption.settings[0], torch.device("cpu"))
    named = Corruption("contrast", table=32)
    assert named.apply(batch, named.settings[0]).shape == batch.images.shape


@pytest.mark.parametrize("name", ["fog", "brightness", "shot_noise", "spatter", "frost-generated"])
def test_the_condition_is_its_function_with_each_images_own_generator(name, small, batch_of):
    batch = batch_of(as_batch_images(small))
    corruption = Corruption(name)
    for setting in corruption.settings[::2]:
        draws = [np.random.default_rng(seed) for seed in image_seeds(batch, setting)]
        slow = CORRUPTIONS[name](small, TABLES[64][name][int(setting.severity) - 1], draws)
        assert torch.equal(corruption.apply(batch, setting), as_batch_images(slow))


@pytest.mark.parametrize("name", ["fog", "gaussian_noise", "shot_noise", "contrast", "brightness", "elastic_transform"])
def test_an_image_does_not_depend_on_how_many_go_at_a_time(name, small, monkeypatch):
    def made(images):
        draws = [np.random.default_rng(i) for i in range(len(images))]
        return corrupted(name, as_batch_images(images), TABLES[64][name][3], draws)

    whole = made(small)
    monkeypatch.setattr(module, "CHUNK", 5 * 64 * 64 + 1)
    assert torch.equal(made(small), whole)
    monkeypatch.setattr(module, "CHUNK", 1)
    assert torch.equal(made(small), whole)


def test_types_that_draw_nothing_leave_their_generators_alone(small, monkeypatch):
    monkeypatch.setenv("TLBENCH_NO_NUMBA", "1")  # nothing to compile for one image
    for name in CORRUPTIONS:
        draw = np.random.default_rng(0)
        before = draw.bit_generator.state
        CORRUPTIONS[name](small[:1], TABLES[64][name][4], [draw])
        assert (draw.bit_generator.state == before) == (name in DRAWLESS), name


def test_no_images_give_no_images(batch_of):
    batch = batch_of(torch.zeros(0, 3, 64, 64, dtype=torch.uint8))
    for name in ("fog", "shot_noise", "brightness"):
        corruption = Corruption(name)
        assert corruption.apply(batch, corruption.settings[0]).shape == (0, 3, 64, 64)


def test_images_in_any_layout_of_memory_are_read(small, batch_of):
    dense = as_batch_images(small)
    strided = dense.contiguous(memory_format=torch.channels_last)
    for name in ("contrast", "gaussian_noise"):
        corruption = Corruption(name)
        made = [corruption.apply(batch_of(images), corruption.settings[2]) for images in (dense, strided)]
        assert torch.equal(*made)
        assert made[1].is_contiguous()


def test_pixels_are_woven_and_parted_again(small):
    planes = np.ascontiguousarray(small.transpose(0, 3, 1, 2))
    assert np.array_equal(by_pixel(planes), small)
    out = np.empty_like(planes)
    by_channel(small, out)
    assert np.array_equal(out, planes)


def test_shares_are_what_dividing_by_255_gives(small):
    assert np.array_equal(shares(small), small / 255)
    assert np.array_equal(SHARES * 255, np.arange(256) / 255 * 255)
