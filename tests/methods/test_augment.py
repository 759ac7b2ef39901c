from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Generator

from tlbench.errors import UnknownNameError
from tlbench.methods.augment import AUGMENTATIONS, as_float, augmented, is_identity


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 20, 24), dtype=torch.uint8, generator=generator(1))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_keeps_shape_type_and_range(name: str, images: torch.Tensor) -> None:
    views = augmented(images, generator(), augment=name, crop=True, flip=True)
    assert views.shape == images.shape
    assert views.dtype == torch.float32
    assert 0 <= float(views.min()) <= float(views.max()) <= 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_generator_alone_fixes_the_pixels(name: str, images: torch.Tensor) -> None:
    first = augmented(images, generator(3), augment=name, crop=True, flip=True)
    random.seed(5)
    np.random.seed(5)
    torch.rand(3)
    assert torch.equal(first, augmented(images, generator(3), augment=name, crop=True, flip=True))
    assert not torch.equal(first, augmented(images, generator(4), augment=name, crop=True, flip=True))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_global_generators_do_not_notice(name: str, images: torch.Tensor) -> None:
    before = random.getstate(), repr(np.random.get_state()), torch.random.get_rng_state()
    augmented(images, generator(), augment=name, crop=True, flip=True)
    assert random.getstate() == before[0]
    assert repr(np.random.get_state()) == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])


def test_identity_changes_no_pixel(images: torch.Tensor) -> None:
    assert torch.equal(augmented(images, generator()), as_float(images))


def test_a_flip_mirrors_some_images_and_leaves_the_others(images: torch.Tensor) -> None:
    plain = as_float(images).repeat(4, 1, 1, 1)
    views = augmented(images.repeat(4, 1, 1, 1), generator(), flip=True)
    mirrored = [torch.allclose(v, p.flip(-1), atol=1e-5) for v, p in zip(views, plain, strict=True)]
    same = [torch.allclose(v, p, atol=1e-5) for v, p in zip(views, plain, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 4 < sum(mirrored) < 20


def test_a_crop_shows_a_part_of_the_image_enlarged() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256).expand(200, 3, 256, 256)
    views = augmented(ramp[:, :, ::8, ::8], generator(), crop=True)[:, 0]
    rows = views[:, 0]
    assert bool((rows.diff(dim=1) >= -1e-6).all())
    shown = rows[:, -1] - rows[:, 0]
    # Sides of boxes of 8 to 100 % of the area, on the scale of the ramp's 248 grey levels.
    assert 0.2 < float(shown.min()) < 0.45
    assert float(shown.max()) > 0.85
    assert float(rows[:, 0].min()) < 0.05
    assert float(rows[:, -1].max()) > 0.9


def test_the_published_random_colour_is_not_random_but_for_the_grey_ones(images: torch.Tensor) -> None:
    first, second = (augmented(images, generator(s), augment="random-color-as-published") for s in (0, 1))
    colored = (first.std(dim=1).amax(dim=(1, 2)) > 1e-4) & (second.std(dim=1).amax(dim=(1, 2)) > 1e-4)
    assert torch.equal(first[colored], second[colored])
    assert float(first.mean()) == pytest.approx(0.3 * float(as_float(images).mean()), rel=0.05)


def test_colour_jitter_turns_a_tenth_of_the_images_grey() -> None:
    images = torch.randint(0, 256, (500, 3, 4, 4), dtype=torch.uint8, generator=generator())
    views = augmented(images, generator(1), augment="color-jitter")
    gray = (views.std(dim=1).amax(dim=(1, 2)) < 1e-5).float().mean()
    assert 0.05 < float(gray) < 0.16


def test_an_unknown_augmentation_names_the_nearest(images: torch.Tensor) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'augmix'"):
        augmented(images, generator(), augment="augmixx")


def test_only_the_identity_lets_features_be_kept() -> None:
    assert is_identity(augment="identity", crop=False, flip=False)
    assert not is_identity(augment="identity", crop=False, flip=True)
    assert not is_identity(augment="augmix", crop=False, flip=False)


@pytest.mark.parametrize("factor", [0.3, 0.8, 1.3])
def test_colour_changes_are_torchvisions(images: torch.Tensor, factor: float) -> None:
    from torchvision.transforms import functional

    from tlbench.methods.augment import _COLORINGS

    floats, factors = as_float(images), torch.full((len(images), 1, 1, 1), factor)
    theirs = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for ours, other in zip(_COLORINGS, theirs, strict=True):
        expected = torch.stack([other(image, factor) for image in floats])
        # torchvision's weight of red in grey is 0.2989, Pillow's 0.299.
        assert float((ours(floats, factors) - expected).abs().max()) < 2e-4


def test_colour_jitter_comes_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from tlbench.methods import augment

    orders: dict[int, list[int]] = {}

    def noting(which: int):  # type: ignore[no-untyped-def]
        def color(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
            for image in images[:, 0, 0, 0].tolist():
                orders.setdefault(int(image), []).append(which)
            return images

        return color

    monkeypatch.setattr(augment, "_COLORINGS", tuple(noting(which) for which in range(3)))
    marked = torch.arange(120.0).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    augment._color_jitter(marked, generator())
    assert {tuple(order) for order in orders.values()} == {
        (0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)
    }  # fmt: skip
