"""Augmentation of a training batch, drawn from one generator: the same generator gives the same pixels.

Crops and flips come first and are one resampling; a named augmentation follows, as in "Assaying
Out-Of-Distribution Generalization in Transfer Learning" (NeurIPS 2022). Normalisation is the network's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tlbench.errors import UnknownNameError, nearest

AREA = (0.08, 1.0)
ASPECT = (3 / 4, 4 / 3)
TRIES = 10
RAND_AUGMENT = "rand-m9-mstd0.5-inc1"
AUGMIX = "augmix-m5-w4-d2-b1"
FILL = (124, 116, 104)  # the mean colour of ImageNet: what a shifted image leaves behind
LUMA = (0.299, 0.587, 0.114)


def as_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def augmented(
    images: Tensor, rng: Generator, *, augment: str = "identity", crop: bool = False, flip: bool = False
) -> Tensor:
    """Return one random view of every image.

    Parameters
    ----------
    images : uint8 tensor, shape (n, 3, h, w)
    rng : Generator
        A CPU generator, the only source of randomness.
    augment : str
        A key of ``AUGMENTATIONS``.
    crop : bool
        Random resized crops: 8 to 100 % of the area, aspect ratio 3/4 to 4/3, back to h by w, bilinear.
    flip : bool
        Mirror every image with probability one half.

    Returns
    -------
    float32 tensor in [0, 1], shape (n, 3, h, w)

    Raises
    ------
    UnknownNameError
        If there is no such augmentation.
    """
    change = augmentation(augment)
    views = as_float(images)
    if len(views) == 0:
        return views
    if crop or flip:
        views = _cropped_and_flipped(views, rng, crop=crop, flip=flip)
    return change(views, rng)


def augmentation(name: str) -> Callable[[Tensor, Generator], Tensor]:
    """Return a named augmentation: float images in [0, 1] and a generator to float images in [0, 1].

    Raises
    ------
    UnknownNameError
        If there is no such augmentation.
    """
    key = name.replace("_", "-")
    if key not in AUGMENTATIONS:
        known = ", ".join(AUGMENTATIONS)
        raise UnknownNameError(f"there is no augmentation '{name}' among {known}{nearest(key, AUGMENTATIONS)}")
    return AUGMENTATIONS[key]


def is_identity(*, augment: str, crop: bool, flip: bool) -> bool:
    """Whether every epoch shows the network the very same images, so that frozen features may be kept."""
    return augmentation(augment) is _identity and not crop and not flip


def _cropped_and_flipped(images: Tensor, rng: Generator, *, crop: bool, flip: bool) -> Tensor:
    n, _, height, width = images.shape
    wide, high = _boxes(rng, n, height / width) if crop else (torch.ones(n), torch.ones(n))
    mirror = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0) if flip else torch.ones(n)
    # In grid coordinates the image spans [-1, 1]: a box of half-width `wide` has its centre within 1 - wide.
    centre_x = (1 - wide) * _uniform(rng, n, -1, 1) if crop else torch.zeros(n)
    centre_y = (1 - high) * _uniform(rng, n, -1, 1) if crop else torch.zeros(n)
    zero = torch.zeros(n)
    theta = torch.stack([wide * mirror, zero, centre_x, zero, high, centre_y], dim=1).view(n, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False).clamp_(0, 1)


def _boxes(rng: Generator, n: int, shape: float) -> tuple[Tensor, Tensor]:
    """Return widths and heights in units of the image's own: the first of ten draws that fits, else the whole image."""
    area = _uniform(rng, n * TRIES, *AREA).view(n, TRIES)
    aspect = torch.exp(_uniform(rng, n * TRIES, math.log(ASPECT[0]), math.log(ASPECT[1]))).view(n, TRIES)
    wide, high = (area * aspect * shape).sqrt(), (area / aspect / shape).sqrt()
    fits = (wide <= 1) & (high <= 1)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    one = torch.ones(n)
    return torch.where(found, wide.gather(1, first)[:, 0], one), torch.where(found, high.gather(1, first)[:, 0], one)


def _identity(images: Tensor, rng: Generator) -> Tensor:
    return images


def _color_jitter(images: Tensor, rng: Generator) -> Tensor:
    """Brightness, contrast and saturation by factors in [0.7, 1.3], then grey with probability 0.1 (DomainBed).

    The three come in a random order for every image, as in torchvision.
    """
    n = len(images)
    factors = [_uniform(rng, n, 0.7, 1.3).view(n, 1, 1, 1) for _ in _COLORINGS]
    order = torch.rand(n, len(_COLORINGS), generator=rng).argsort(dim=1)
    images = images.clone()
    for step in range(len(_COLORINGS)):
        for which, color in enumerate(_COLORINGS):
            now = order[:, step] == which
            images[now] = color(images[now], factors[which][now])
    return _sometimes_gray(images, rng)


def _random_color_as_published(images: Tensor, rng: Generator) -> Tensor:
    """The released code of the 2022 study: its library took 0.3 for a factor, so every image is darkened the same."""
    for color in _COLORINGS:
        images = color(images, torch.full((len(images), 1, 1, 1), 0.3))
    return _sometimes_gray(images, rng)


def _brighter(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, 1)


def _contrasted(images: Tensor, factor: Tensor) -> Tensor:
    return _blended(images, _gray(images).mean(dim=(2, 3), keepdim=True), factor)


def _saturated(images: Tensor, factor: Tensor) -> Tensor:
    return _blended(images, _gray(images), factor)


_COLORINGS = (_brighter, _contrasted, _saturated)


def _sometimes_gray(images: Tensor, rng: Generator) -> Tensor:
    grayed = (torch.rand(len(images), generator=rng) < 0.1).view(-1, 1, 1, 1)
    return torch.where(grayed, _gray(images), images)


def _blended(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (other + factor * (images - other)).clamp(0, 1)


def _gray(images: Tensor) -> Tensor:
    return torch.einsum("nchw,c->nhw", images, torch.tensor(LUMA)).unsqueeze(1)


def _random_augment(images: Tensor, rng: Generator) -> Tensor:
    """RandAugment (Cubuk et al., 2020) as timm has it: two of fifteen operations, each with probability one half."""
    from timm.data.auto_augment import rand_augment_transform

    return _by_pillow(images, rng, rand_augment_transform(RAND_AUGMENT, _timm_settings(images)))


def _augmix(images: Tensor, rng: Generator) -> Tensor:
    """AugMix (Hendrycks et al., 2020) as timm has it: the mixture of chains alone, without the consistency loss."""
    from timm.data.auto_augment import augment_and_mix_transform

    return _by_pillow(images, rng, augment_and_mix_transform(AUGMIX, _timm_settings(images)))


def _timm_settings(images: Tensor) -> dict[str, Any]:
    return {"translate_const": int(min(images.shape[2:]) * 0.45), "img_mean": FILL}


def _by_pillow(images: Tensor, rng: Generator, transform: Callable[[Any], Any]) -> Tensor:
    from PIL import Image

    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    with _libraries_seeded_by(rng):
        views = np.stack([np.asarray(transform(Image.fromarray(image))) for image in pixels])
    return as_float(torch.from_numpy(views).permute(0, 3, 1, 2).contiguous())


@contextmanager
def _libraries_seeded_by(rng: Generator) -> Iterator[None]:
    """Seed the global generators that timm draws from, and put them back afterwards."""
    seed = int(torch.randint(2**32, (1,), generator=rng))
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _uniform(rng: Generator, n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=rng)


AUGMENTATIONS: Mapping[str, Callable[[Tensor, Generator], Tensor]] = {
    "identity": _identity,
    "color-jitter": _color_jitter,
    "random-color-as-published": _random_color_as_published,
    "random-augment": _random_augment,
    "augmix": _augmix,
}
