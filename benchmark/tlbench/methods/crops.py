"""Random resized crops of whole pictures, as torchvision draws them, from one generator and by several threads."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from tlbench.data.originals import Originals
from tlbench.methods.augment import AREA, ASPECT, TRIES

_AHEAD = 2  # batches decoded while the network is busy with another

Box = tuple[int, int, int, int]


def crops(
    originals: Originals, batches: Iterable[NDArray[np.int64]], size: int, rng: Generator, *, views: int = 1
) -> Iterator[list[Tensor]]:
    """Yield, for every batch, its views: each a uint8 tensor of shape (n, 3, size, size).

    Parameters
    ----------
    originals : Originals
    batches : iterable of int64 arrays
        Places of the images.
    size : int
    rng : Generator
        The only source of randomness; the threads draw nothing.
    views : int
        Crops of every image, each drawn apart.

    Raises
    ------
    DataError
        If an image cannot be decoded.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[list[Future[list[NDArray[np.uint8]]]]] = deque()
        for places in batches:
            draws = _draws(len(places) * views, rng).reshape(len(places), views, -1)
            waiting.append(
                [pool.submit(_views, originals, int(p), own, size) for p, own in zip(places, draws, strict=True)]
            )
            if len(waiting) > _AHEAD:
                yield _stacked(waiting.popleft(), views)
        while waiting:
            yield _stacked(waiting.popleft(), views)


def box_of(draws: NDArray[np.float64], height: int, width: int) -> Box:
    """Return top, left, height and width of a crop: 8 to 100 % of the area, aspect ratio 3/4 to 4/3.

    The first of ten draws that fits into the picture; else the centre, with the nearest aspect ratio that is allowed.

    Parameters
    ----------
    draws : float64 array, shape (22,)
        In [0, 1): ten areas, ten aspect ratios, and where the box lies down and across.
    height, width : int
        Of the picture.
    """
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    down, across = draws[-2:]
    for area_draw, aspect_draw in zip(draws[:TRIES], draws[TRIES : 2 * TRIES], strict=True):
        area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area_draw)
        aspect = math.exp(low + (high - low) * aspect_draw)
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            return int(down * (height - tall + 1)), int(across * (width - wide + 1)), tall, wide
    tall, wide = height, width
    if width / height < ASPECT[0]:
        tall = round(width / ASPECT[0])
    elif width / height > ASPECT[1]:
        wide = round(height * ASPECT[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def resized_crop(pixels: NDArray[np.uint8], box: Box, size: int) -> NDArray[np.uint8]:
    """Return a part of a picture as a square, bilinear with antialiasing: torchvision's on Pillow images."""
    top, left, height, width = box
    part = Image.fromarray(np.ascontiguousarray(pixels[top : top + height, left : left + width]))
    return np.array(part.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def _draws(n: int, rng: Generator) -> NDArray[np.float64]:
    return torch.rand((n, 2 * TRIES + 2), generator=rng, dtype=torch.float64).numpy()


def _views(originals: Originals, place: int, draws: NDArray[np.float64], size: int) -> list[NDArray[np.uint8]]:
    pixels = originals.load(place)
    return [resized_crop(pixels, box_of(own, *pixels.shape[:2]), size) for own in draws]


def _stacked(decoded: list[Future[list[NDArray[np.uint8]]]], views: int) -> list[Tensor]:
    images = [one.result() for one in decoded]
    return [
        torch.from_numpy(np.stack([own[view] for own in images])).permute(0, 3, 1, 2).contiguous()
        for view in range(views)
    ]
