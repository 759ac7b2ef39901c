"""The device's corruptions against the host's, given the same draws: on the CPU here, on a GPU where one is at hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tlbench.conditions.corruptions import digital, noise, weather
from tlbench.conditions.corruptions import on_device as package
from tlbench.conditions.corruptions.corruption import CORRUPTIONS, Corruption
from tlbench.conditions.corruptions.glass import shaken
from tlbench.conditions.corruptions.on_device import ON_DEVICE, apply_on_device, draw_on_host, finish_on_device
from tlbench.conditions.corruptions.on_device.blur import glass_moves, shaken_once
from tlbench.conditions.corruptions.on_device.noise import table_on
from tlbench.conditions.corruptions.on_device.weather import plasma_fractals
from tlbench.conditions.corruptions.tables import SIDES, TABLES

NEARLY = {"gaussian_blur", "glass_blur", "defocus_blur", "zoom_blur", "snow", "elastic_transform"}
MOST_VALUES = 0.005  # of those that may differ, by one grey level; the bar for any corruption is 0.03
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def generators(count):
    return [np.random.default_rng([7, i]) for i in range(count)]


def parameter_of(name, side, severity):
    return TABLES[side][name][severity - 1]


def on_host(name, images, parameter):
    made = CORRUPTIONS[name](images.permute(0, 2, 3, 1).contiguous().numpy(), parameter, generators(len(images)))
    return torch.from_numpy(np.array(made)).permute(0, 3, 1, 2)


def made_on(device, name, images, parameter):
    made = apply_on_device(name, images.to(device), parameter, generators(len(images)))
    assert made.device.type == device
    return made.cpu()


def assert_same(name, ours, host):
    assert ours.dtype == torch.uint8
    difference = (ours.cpu().int() - host.int()).abs()
    assert difference.max() <= (name in NEARLY)
    assert (difference > 0).float().mean() <= MOST_VALUES


@pytest.fixture(scope="module")
def of_side(photos):
    """Photographs, digits and flat images of a side, uint8 (7, 3, side, side)."""

    def images(side):
        photographs = [photos[1][:side, :side], photos[2][-side:, -side:]]
        digits = [np.kron(load_digits().images[i] * 15.9375, np.ones((side // 8, side // 8))) for i in (3, 8)]
        grounds = [np.full((side, side), level) for level in (0, 101, 255)]
        grey = [np.repeat(plane[..., None], 3, axis=2).astype(np.uint8) for plane in digits + grounds]
        return torch.from_numpy(np.stack(photographs + grey)).permute(0, 3, 1, 2).contiguous()

    return images


def test_every_corruption_is_there_for_a_device():
    assert set(ON_DEVICE) == set(CORRUPTIONS)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", sorted(ON_DEVICE))
def test_photographs_digits_and_flat_images_are_the_hosts(name, side, device, of_side):
    images = of_side(side)
    images = images[[1, 2, 5]] if side == 224 else images
    before = images.clone()
    for severity in (1, 3, 5):
        parameter = parameter_of(name, side, severity)
        assert_same(name, made_on(device, name, images, parameter), on_host(name, images, parameter))
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ["gaussian_blur", "glass_blur", "defocus_blur", "zoom_blur"])
@pytest.mark.parametrize("device", DEVICES)
def test_blurs_leave_every_flat_ground_where_the_host_leaves_it(name, device):
    grounds = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 32, 32)
    for severity in (1, 2, 3, 4, 5):
        parameter = parameter_of(name, 32, severity)
        assert torch.equal(made_on(device, name, grounds, parameter), on_host(name, grounds, parameter))


@pytest.mark.parametrize("name", sorted(ON_DEVICE))
def test_an_image_depends_neither_on_its_batch_nor_on_how_many_go_at_a_time(name, of_side, monkeypatch):
    images, parameter = of_side(32), parameter_of(name, 32, 5)
    whole = made_on("cpu", name, images, parameter)
    assert torch.equal(apply_on_device(name, images[6:], parameter, generators(7)[6:]), whole[6:])
    monkeypatch.setattr(package, "VALUES", 2 * 3 * 32 * 32)
    assert torch.equal(made_on("cpu", name, images, parameter), whole)


@pytest.mark.parametrize("name", sorted(ON_DEVICE))
def test_no_images_give_no_images(name):
    none = torch.empty(0, 3, 32, 32, dtype=torch.uint8)
    assert made_on("cpu", name, none, parameter_of(name, 32, 3)).shape == none.shape


@pytest.mark.parametrize("name", sorted(ON_DEVICE))
def test_images_need_not_be_square(name, of_side):
    images, parameter = of_side(64)[:3, :, :, 8:56].contiguous(), parameter_of(name, 64, 4)
    assert_same(name, made_on("cpu", name, images, parameter), on_host(name, images, parameter))


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_glass_copies_are_the_hosts_exactly(reach, of_side):
    images = of_side(64)
    (moves,) = glass_moves(images, (1.0, reach, 2), generators(len(images)))
    assert moves.dtype == torch.int8
    ours = images
    for once in moves.unbind(1):
        ours = shaken_once(ours, once, reach)
    for image, passes, made in zip(images, moves.long().numpy(), ours, strict=True):
        host = shaken(image.permute(1, 2, 0).contiguous().numpy(), list(passes), reach)
        assert np.array_equal(host, made.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("decay", [1.4, 3])
def test_plasma_fractals_are_the_hosts_exactly(decay):
    numbers = torch.stack([torch.from_numpy(draw.uniform(-1, 1, 64 * 64 - 1)) for draw in generators(3)])
    host = weather.plasma_fractals(generators(3), 64, decay)
    assert np.array_equal(plasma_fractals(numbers, 64, decay).numpy(), host)


def test_a_noise_is_the_hosts_table_looked_up_by_the_drawn_words():
    images = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8).repeat(1, 3, 1, 1)
    made = made_on("cpu", "speckle_noise", images, 0.35).permute(0, 2, 3, 1).numpy()
    table = noise.table("speckle_noise", 0.35)
    for image, draw, ours in zip(images.permute(0, 2, 3, 1).numpy(), generators(4), made, strict=True):
        assert np.array_equal(ours, table[image, draw.integers(0, 65536, size=(8, 8, 3), dtype=np.uint16)])


def test_few_tables_of_noise_stay_on_a_device():
    assert table_on.cache_info().maxsize * 2**24 <= 2**27


@pytest.mark.parametrize("share", [0.25, 0.3, 0.4, 0.65, 0.75, 0.85, 0.9, 0.95])
@pytest.mark.parametrize("side", [28, 32, 48, 64, 96])
def test_pixelate_is_pillows_to_the_last_bit(share, side):
    images = torch.from_numpy(np.random.default_rng(side).integers(0, 256, (2, 3, side, side), dtype=np.uint8))
    host = digital.pixelate(images.permute(0, 2, 3, 1).contiguous().numpy(), share, [])
    assert np.array_equal(made_on("cpu", "pixelate", images, share).permute(0, 2, 3, 1).numpy(), host)


def test_what_crosses_to_a_device_lies_on_the_host_and_is_at_most_four_times_the_images():
    images = torch.zeros(2, 3, 224, 224, dtype=torch.uint8)
    for name in ON_DEVICE:
        drawn = draw_on_host(name, images, parameter_of(name, 224, 3), generators(2))
        assert all(tensor.device.type == "cpu" and len(tensor) == 2 for tensor in drawn), name
        assert sum(tensor.nbytes for tensor in drawn) <= 4 * images.nbytes, name


def test_only_contrast_and_jpeg_look_at_pixels_on_the_host(of_side):
    images = of_side(32)
    for name in ON_DEVICE:
        parameter = parameter_of(name, 32, 5)
        seen, blind = (draw_on_host(name, x, parameter, generators(7)) for x in (images, torch.zeros_like(images)))
        same = all(torch.equal(one, other) for one, other in zip(seen, blind, strict=True))
        assert same is (name not in ("contrast", "jpeg_compression")), name


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 32, 32, dtype=torch.uint8)])
def test_other_tensors_are_refused(images):
    with pytest.raises(ValueError, match=r"expected uint8 images \(n, 3, h, w\) and a generator for each"):
        apply_on_device("fog", images, (1.0, 2.0), generators(2))


@pytest.mark.parametrize("name", sorted(ON_DEVICE))
def test_a_corruption_off_the_host_gives_what_it_gives_there(name, of_side, batch_of, monkeypatch):
    """Forces the way that batches on a GPU take, at once and in the halves that the engine runs apart."""
    batch, corruption = batch_of(of_side(64)), Corruption(name, (4,))
    (setting,) = corruption.settings
    host = corruption.apply(batch, setting)
    monkeypatch.setattr(Corruption, "_at_home", lambda self, device: False)
    at_once = corruption.apply(batch, setting)
    assert_same(name, at_once, host)
    drawn = corruption.drawn(batch, setting, torch.device("cpu"))
    assert torch.equal(corruption.applied(batch.images, drawn, setting), at_once)


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(ON_DEVICE))
def test_a_corruption_of_a_batch_on_a_gpu_is_the_hosts(name, of_side, batch_of):
    corruption, images = Corruption(name), of_side(64)
    for setting in corruption.settings:
        made = corruption.apply(batch_of(images.cuda()), setting)
        assert made.device.type == "cuda"
        assert_same(name, made, corruption.apply(batch_of(images), setting))


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(set(ON_DEVICE) - {"glass_blur"}))  # which asks how long its chains are
def test_the_device_half_never_waits_for_the_gpu(name, of_side):
    images, parameter = of_side(64), parameter_of(name, 64, 3)
    drawn = tuple(tensor.cuda() for tensor in draw_on_host(name, images, parameter, generators(7)))
    there = images.cuda()
    first = finish_on_device(name, there, parameter, drawn)  # tables and matrices are copied once
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = finish_on_device(name, there, parameter, drawn)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(again, first)
