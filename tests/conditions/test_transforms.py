"""Shifts, rotations and scalings against SciPy and against plain indexing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from tlbench.conditions.transforms import Transform, inverse_map, resample
from tlbench.setting import Setting


@pytest.fixture(scope="module")
def pieces(photos, batch_of):
    images = torch.from_numpy(photos[:, 40:104, 60:124].copy()).permute(0, 3, 1, 2)
    return batch_of(images.repeat(8, 1, 1, 1), scope="photos/plain")


def shifted(image, down, right):
    """The definition: content moved by whole pixels, the edge repeated."""
    rows = (torch.arange(64) - down).clamp(0, 63)
    columns = (torch.arange(64) - right).clamp(0, 63)
    return image[:, rows][:, :, columns]


def test_a_shift_is_an_exact_copy_in_one_of_four_directions(pieces):
    moved = Transform("shift", (4,)).apply(pieces, Setting("shift", 4.0))
    seen = set()
    for image, result in zip(pieces.images, moved, strict=True):
        ways = [way for way in ((4, 0), (-4, 0), (0, 4), (0, -4)) if torch.equal(shifted(image, *way), result)]
        assert len(ways) == 1
        seen.add(ways[0])
    assert len(seen) == 4


def test_a_shift_scales_with_the_side():
    assert sorted(inverse_map("shift", 4, 1, side=224))[-1] in (1.0, 14.0)
    assert max(abs(value) for value in inverse_map("shift", 4, 1, side=224)) == 14.0


@pytest.mark.parametrize(("name", "step"), [("rotation", 10.0), ("rotation", 20.0), ("scale", 0.9), ("scale", 1.1)])
def test_agrees_with_scipy_within_one_level(name, step, pieces):
    seeds = [3, 4, 5, 6]
    maps = [inverse_map(name, step, seed, 64) for seed in seeds]
    ours = resample(pieces.images[:4], torch.tensor(maps, dtype=torch.float64).view(-1, 2, 3))
    for image, result, (a, b, c, d, e, f) in zip(pieces.images[:4], ours, maps, strict=True):
        matrix = np.array([[e, d], [b, a]])  # SciPy's axes are rows first
        offset = np.array([f, c]) + 31.5 - matrix @ np.array([31.5, 31.5])
        for channel, plane in zip(image.double().numpy(), result.numpy(), strict=True):
            theirs = affine_transform(channel, matrix, offset, order=1, mode="nearest")
            assert np.abs(plane - theirs).max() <= 0.51


def test_rotations_go_both_ways_by_the_same_angle(pieces):
    signs = {np.sign(inverse_map("rotation", 10, seed, 64)[1]) for seed in range(20)}
    assert signs == {-1.0, 1.0}
    assert all(np.isclose(inverse_map("rotation", 10, s, 64)[0], np.cos(np.pi / 18)) for s in range(20))


def test_scale_above_one_enlarges():
    dot = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    dot[..., 20:44, 20:44] = 255
    maps = torch.tensor([inverse_map("scale", 1.1, 0, 64)], dtype=torch.float64).view(-1, 2, 3)
    assert (resample(dot, maps) > 127).sum() > (dot > 127).sum()


@pytest.mark.parametrize("name", ["shift", "rotation", "scale"])
def test_maps_drawn_ahead_give_what_apply_gives(name, pieces):
    transform = Transform(name, (4,) if name == "shift" else (1.1,))
    (setting,) = transform.settings
    drawn = transform.drawn(pieces, setting, torch.device("cpu"))
    assert [tensor.shape for tensor in drawn.tensors] == [(len(pieces), 2, 3)]
    assert torch.equal(transform.applied(pieces.images, drawn, setting), transform.apply(pieces, setting))


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "step"), [("shift", 4), ("rotation", 20), ("scale", 0.9)])
def test_a_gpu_agrees_within_one_level(name, step, pieces, batch_of):
    transform = Transform(name, (step,))
    (setting,) = transform.settings
    there = batch_of(pieces.images.cuda(), scope=pieces.scope)
    difference = (transform.apply(there, setting).cpu().int() - transform.apply(pieces, setting).int()).abs()
    assert difference.max() <= (name != "shift")
    assert (difference > 0).float().mean() < 0.001
