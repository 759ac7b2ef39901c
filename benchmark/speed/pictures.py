"""Photographs that wheels carry: scikit-learn's and scikit-image's, cut into as many pieces as a row wants."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@lru_cache(maxsize=1)
def photographs() -> tuple[NDArray[np.uint8], ...]:
    """Return six photographs, uint8 (h, w, 3), at least 300 pixels a side."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    loaded = [*load_sample_images().images, *(getattr(skimage.data, name)() for name in _NAMES)]
    return tuple(np.asarray(image, dtype=np.uint8)[..., :3] for image in loaded)


_NAMES = ("astronaut", "chelsea", "coffee", "rocket")


def pieces(n: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return random square pieces of the photographs, at random scales, some mirrored.

    Returns
    -------
    uint8 array, shape (n, side, side, 3)
    """
    draw = np.random.default_rng([seed, side])
    sources = photographs()
    found = np.empty((n, side, side, 3), dtype=np.uint8)
    for place in found:
        whole = sources[int(draw.integers(len(sources)))]
        height, width = whole.shape[:2]
        edge = int(min(height, width) * draw.uniform(0.5, 1.0))
        top, left = int(draw.integers(height - edge + 1)), int(draw.integers(width - edge + 1))
        square = Image.fromarray(whole[top : top + edge, left : left + edge])
        piece = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))
        place[...] = piece[:, ::-1] if draw.random() < 0.5 else piece
    return found
